"""N BabyAI levels, of one task or of several, as one environment of arrays, labelled by the expert.

    env = VectorEnv("BabyAI-GoToObj-v0", num_envs=16, levels=SeedStreams(seed=0, num_envs=16))
    step = env.reset()
    step = env.step(actions)            # actions: int array (16,)
    step.view, step.expert_action, step.expert_valid, step.outcome, step.episode_start, step.ended

Of several tasks each has slots of its own, side by side, so that its share of the steps is exact; drawing the task at
each reset would let long episodes take the batch:

    env = VectorEnv(["GoToObj", "Unlock"], [8, 4], [SeedStreams(0, 8, "GoToObj"), SeedStreams(0, 4, "Unlock")])
    env.task_index                      # int64 (12,): 0 in the first eight slots, 1 in the last four

Evaluation also wants to know where things are: with `record=True` each step carries `facts` (see `babyai.facts`).

Auto-reset is gymnasium's `AutoresetMode.SAME_STEP`: when an action ends an episode, the returned observation and expert
action are already those of the slot's next level, while `reward` and `outcome` belong to the episode that ended;
`ended` describes it. Nothing outside `babyai/` sees a per-environment object: only arrays, ints and strings.

Levels are played by the compiled core (`babyai.compiled`) or, where that does not know the task's levels, by minigrid
itself (`babyai.plain_core`), a hundred times slower. Results are the same; `VectorEnv.core` says which it was.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from babyai.compiled.core import build_compiled_core
from babyai.compiled.slots import FINE, TOO_NARROW, note_actions, show_slots
from babyai.errors import ExpertError
from babyai.facts import NUM_ACTIONS
from babyai.level_seeds import SeedList, SeedStreams
from babyai.plain_core import PlainCore
from babyai.steps import EpisodeEnd, VectorStep
from babyai.task_slots import COUNTERS, STEPS, UNLABELLED, TaskSlots

Source = SeedStreams | SeedList

# Levels in a row that may prove unsolvable before the task is declared so
MAX_REPLACEMENTS = 1000


class VectorEnv:
    """N levels, played side by side.

    Attributes:
        parts: the slots of each task, with its counters and its unsolvable seeds.
        task_ids: their tasks, full ids.
        task_index: int64 (N,), which of them is played in each slot.
        num_envs: N.
        num_actions: 7 (left, right, forward, pickup, drop, toggle, done).
        core: "compiled" or "plain", who plays the levels.
        missions: the distinct instructions met so far; `VectorStep.mission_id` indexes it. It only grows.
        counters: over all tasks: `levels_started`; `levels_unsolvable` (replaced: the expert cannot solve them, or
            minigrid cannot generate them); `steps` (env-steps of active slots); `steps_unlabelled` (observations of a
            running episode without label, because the expert gave up).
    """

    num_actions = NUM_ACTIONS

    def __init__(
        self,
        task_id: str | Sequence[str],
        num_envs: int | Sequence[int],
        levels: Source | Sequence[Source],
        *,
        max_steps: int | None = None,
        plan_every: int = 0,
        label: bool = True,
        record: bool = False,
        core: Literal["auto", "compiled", "plain"] = "auto",
    ) -> None:
        """Builds the slots; `reset` starts their first levels.

        Args:
            task_id: id or short name, see `babyai.levels.resolve_task_id`; a list for several tasks.
            num_envs: number of slots; of several tasks a list, one for each.
            levels: where level seeds come from; likewise.
            max_steps: step limit of every episode; None keeps each level's own.
            plan_every: every k-th level of a slot is first played by the expert: its length goes to
                `EpisodeEnd.expert_steps`, and a level that it cannot solve is replaced. 1: every level; 0: none, then
                only levels on whose first observation the expert gives up are replaced.
            label: whether the expert labels every observation.
            record: whether every step carries `facts` and every `EpisodeEnd` its `env_context`. Needs `label`, because
                the expert's subgoal is one of the facts.
            core: who plays the levels; "auto" takes the compiled core where it knows the task. Results are the same.

        Raises:
            UnknownTaskError: no such task.
            ValueError: another argument is out of range, a task stands twice, or the compiled core is asked for and
                does not know a task.
        """
        several = (task_id, num_envs, levels)
        tasks, slots, sources = ([one] for one in several) if isinstance(task_id, str) else map(list, several)
        if not tasks or not len(tasks) == len(slots) == len(sources):
            found = f"{len(tasks)}, {len(slots)} and {len(sources)}"
            raise ValueError(f"task_id: expected tasks, and slots and levels for each of them, found {found}")
        if min(slots) < 1:
            raise ValueError(f"num_envs: expected >= 1, found {min(slots)}")
        if plan_every < 0:
            raise ValueError(f"plan_every: expected >= 0, found {plan_every}")
        for count, source in zip(slots, sources, strict=True):
            if isinstance(source, SeedStreams) and source.num_envs != count:
                raise ValueError(f"levels: expected {count} seed streams, one per slot; found {source.num_envs}")
        if record and not label:
            raise ValueError("record=True needs label=True: the expert's subgoal is one of the facts")
        if core not in ("auto", "compiled", "plain"):
            raise ValueError(f"core: expected auto, compiled or plain, found {core!r}")
        self.num_envs, self.max_steps, self.plan_every = sum(slots), max_steps, plan_every
        self.label, self.record = label, record
        self._core = None
        pairs, options = list(zip(tasks, slots, strict=True)), {"label": label, "record": record}
        if core != "plain":
            self._core = build_compiled_core(pairs, max_steps, required=core == "compiled", **options)
        if self._core is None:
            self._core = PlainCore(pairs, max_steps, **options)
        self.core, self.task_ids = self._core.name, self._core.task_ids
        if len(set(self.task_ids)) != len(tasks):
            raise ValueError(f"task_id: expected distinct tasks, found {', '.join(tasks)}")
        self.task_index = np.repeat(np.arange(len(tasks)), slots)
        self._counts = np.zeros((len(COUNTERS), len(tasks)), np.int64)
        first = [0, *np.cumsum(slots).tolist()]
        self.parts = [
            TaskSlots(task, first[k], slots[k], sources[k], self._counts[:, k]) for k, task in enumerate(self.task_ids)
        ]
        self.missions: list[str] = []
        self._mission_ids: dict[Any, int] = {}  # by sentence, and by the core's key, which is quicker to have
        # Of each slot
        self._active = np.zeros(self.num_envs, bool)
        self._started = np.zeros(self.num_envs, np.int64)  # levels
        self._seeds = np.full(self.num_envs, -1, np.int64)
        self._expert_steps = np.full(self.num_envs, -1, np.int64)  # -1: not asked
        self._mission_id = np.zeros(self.num_envs, np.int64)
        self._taken = np.zeros(self.num_envs, np.int64)  # actions in this episode
        self._actions = np.zeros((self.num_envs, 64), np.uint8)  # they themselves; widened when an episode needs it

    @property
    def task_id(self) -> str:
        """The task, full id; of several the first."""
        return self.task_ids[0]

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted, over all tasks."""
        return dict(zip(COUNTERS, self._counts.sum(axis=1).tolist(), strict=True))

    @property
    def unsolvable_seeds(self) -> list[int]:
        """The level seeds that were replaced, task by task."""
        return [seed for part in self.parts for seed in part.unsolvable_seeds]

    def reset(self) -> VectorStep:
        """Starts a new level in every slot; episodes in progress are dropped without an `EpisodeEnd`."""
        self._start_levels(list(range(self.num_envs)))
        return self._observe(VectorStep.zeros(self.num_envs, self.record))

    def step(self, actions: Sequence[int] | np.ndarray) -> VectorStep:
        """Takes one action per slot; slots whose episode ends go on to their next level.

        Args:
            actions: ints (N,) in 0..6; what stands at inactive slots is ignored.

        Raises:
            ValueError: wrong shape, type or range.
            ExpertError: too many unsolvable levels in a row.
        """
        chosen, result = self._note_actions(actions), VectorStep.zeros(self.num_envs, self.record)
        rewards = self._core.step(chosen, self._active, result)
        over = result.outcome.nonzero()[0].tolist()
        if not over:
            return self._observe(result)
        ended = []
        for slot in over:
            result.reward[slot] = rewards[slot]
            expert_steps = int(self._expert_steps[slot])
            ended.append(
                EpisodeEnd(
                    slot,
                    int(self._seeds[slot]),
                    int(result.outcome[slot]),
                    self._core.steps(slot),
                    float(rewards[slot]),
                    None if expert_steps < 0 else expert_steps,
                    self.missions[self._mission_id[slot]],
                    self._core.env_context(slot) if self.record else None,
                )
            )
        self._start_levels(over)
        return self._observe(result, tuple(ended))

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain ints, strings, lists and dicts.

        An episode in progress is kept as its level seed and the actions taken: replaying them rebuilds the level and
        the expert's mind exactly. Neither recording nor the core is part of the state: either may be another here than
        there.
        """
        states = []
        for part in self.parts:
            slots = [
                {
                    "active": bool(self._active[k]),
                    "levels": int(self._started[k]),
                    "level_seed": int(self._seeds[k]),
                    "expert_steps": None if self._expert_steps[k] < 0 else int(self._expert_steps[k]),
                    "actions": self._actions[k, : self._taken[k]].tolist(),
                }
                for k in part.slots
            ]
            states.append({"settings": self._settings(part), "slots": slots, **part.state_dict()})
        return {**({"parts": states} if len(states) > 1 else states[0]), "missions": list(self.missions)}

    def load_state_dict(self, state: dict[str, Any]) -> VectorStep:
        """Goes back to where `state_dict` was taken.

        Returns:
            the step that was current then, with rewards, outcomes and events zero and `ended` empty.

        Raises:
            ValueError: the state is of an environment of other tasks or settings, or of another level source.
        """
        states = state.get("parts", [state])
        if len(states) != len(self.parts):
            raise ValueError(f"expected the state of {len(self.parts)} tasks, found that of {len(states)}")
        for part, saved in zip(self.parts, states, strict=True):
            if saved["settings"] != self._settings(part):
                raise ValueError(f"expected the state of {self._settings(part)}, found that of {saved['settings']}")
            part.load_state_dict(saved)
        self.missions = list(state["missions"])
        self._mission_ids = {mission: k for k, mission in enumerate(self.missions)}
        for k, saved in enumerate(slot for of_task in states for slot in of_task["slots"]):
            self._active[k], self._started[k] = saved["active"], saved["levels"]
            self._seeds[k] = saved["level_seed"]
            self._expert_steps[k] = -1 if saved["expert_steps"] is None else saved["expert_steps"]
            actions = np.array(saved["actions"], np.uint8)
            while len(actions) > self._actions.shape[1]:
                self._widen_actions()
            self._taken[k] = len(actions)
            self._actions[k, : len(actions)] = actions
            if saved["active"]:
                self._core.restore(k, saved["level_seed"], saved["actions"])
                self._mission_id[k] = self._find_mission(k)
        counts = self._counts.copy()
        step = self._observe(VectorStep.zeros(self.num_envs, self.record))
        self._counts[:] = counts  # observing counts
        return step

    def close(self) -> None:
        """Deactivates every slot; the environment can be used again after `reset`."""
        self._active[:] = False

    def _settings(self, part: TaskSlots) -> dict[str, Any]:
        own = {"task_id": part.task_id, "num_envs": part.num_envs}
        return own | {name: getattr(self, name) for name in ("max_steps", "plan_every", "label")}

    def _note_actions(self, actions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Take the actions into the histories of the running episodes; return them as int64 (N,)."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(f"actions: expected ints ({self.num_envs},), found {actions.dtype} {actions.shape}")
        chosen = np.ascontiguousarray(actions, np.int64)
        told = self._taken, NUM_ACTIONS, self.task_index, self._counts[STEPS]
        found = note_actions(chosen, self._active, self._actions, *told)
        while found == TOO_NARROW:
            self._widen_actions()
            found = note_actions(chosen, self._active, self._actions, *told)
        if found != FINE:
            raise ValueError(f"actions[{found}]: expected 0..{NUM_ACTIONS - 1}, found {chosen[found]}")
        return chosen

    def _widen_actions(self) -> None:
        self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)

    def _start_levels(self, slots: list[int]) -> None:
        """Gives each of `slots` its next level that the expert can do something about, or deactivates it."""
        self._taken[slots] = 0
        for part in self.parts:
            if own := part.own(slots):
                self._start_part(part, own)

    def _start_part(self, part: TaskSlots, slots: list[int]) -> None:
        for _ in range(MAX_REPLACEMENTS):
            seeds = [part.next_seed(slot) for slot in slots]
            if None in seeds:
                self._active[[slot for slot, seed in zip(slots, seeds, strict=True) if seed is None]] = False
                slots = [slot for slot, seed in zip(slots, seeds, strict=True) if seed is not None]
                seeds = [seed for seed in seeds if seed is not None]
            if not slots:
                return
            every = self.plan_every
            plans = [every > 0 and levels % every == 0 for levels in self._started[slots].tolist()]
            started, lengths = self._core.start(slots, seeds, plans)
            failed, replaced = [], []
            for slot, seed, good, length in zip(slots, seeds, started.tolist(), lengths.tolist(), strict=True):
                if not good:
                    failed.append(slot)
                    replaced.append(seed)
                    continue
                self._active[slot] = True
                self._seeds[slot], self._expert_steps[slot] = seed, length
                self._started[slot] += 1
                self._mission_id[slot] = self._find_mission(slot)
            part.count_levels(len(slots) - len(failed), replaced)
            slots = failed
            if not slots:
                return
        self._active[slots] = False
        raise ExpertError(
            f"{part.task_id}: the expert solves none of {MAX_REPLACEMENTS} levels in a row, the last of seed {seed}, "
            "within the levels' own step limits. It is known to solve no level of KeyInBox and of the "
            "PutNext*Carrying tasks: choose another task"
        )

    def _find_mission(self, slot: int) -> int:
        """Index of the slot's sentence in `missions`."""
        key = self._core.mission_key(slot)
        index = self._mission_ids.get(key)
        if index is None:
            sentence = self._core.mission(slot)
            index = self._mission_ids.setdefault(sentence, len(self.missions))
            if index == len(self.missions):
                self.missions.append(sentence)
            self._mission_ids[key] = index
        return index

    def _observe(self, result: VectorStep, ended: tuple[EpisodeEnd, ...] = ()) -> VectorStep:
        """Fills in what the slots show now."""
        active = self._active
        self._core.observe(active, result)
        show_slots(
            active,
            self._core.labels,
            self._taken,
            self._mission_id,
            self.label,
            self.task_index,
            self._counts[UNLABELLED],
            result.active,
            result.mission_id,
            result.episode_start,
            result.expert_action,
            result.expert_valid,
        )
        if ended:
            object.__setattr__(result, "ended", ended)
        return result
