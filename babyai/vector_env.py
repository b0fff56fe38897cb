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

Compiled code can play the slots by itself, step after step: `restart`, `share`, `open_game`, `settle`, `close_game`
(`pipeline/training/unroll.py`).

Levels are played by the compiled core (`babyai.compiled`) or, where that does not know the task's levels, by minigrid
itself (`babyai.plain_core`), a hundred times slower. Results are the same; `VectorEnv.core` says which it was.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np

from babyai.compiled.core import CompiledCore, build_compiled_core
from babyai.compiled.draft import Scratch
from babyai.compiled.slots import UNKNOWN, Ledger, allocate_ledger
from babyai.compiled.turn import Game
from babyai.errors import ExpertError
from babyai.facts import NUM_ACTIONS
from babyai.level_seeds import SeedList, SeedStreams
from babyai.plain_core import PlainCore
from babyai.steps import EpisodeEnd, VectorStep
from babyai.task_slots import COUNTERS, TaskSlots

Source = SeedStreams | SeedList

# Levels in a row that may prove unsolvable before the task is declared so
MAX_REPLACEMENTS = 1000


class Share(NamedTuple):
    """The slots first..end-1 of an environment, and what one who plays them needs of his own."""

    first: int
    end: int
    scratch: Scratch
    ledger: Ledger


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
        threads: int = 1,
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
            threads: how many let slots act, in the compiled core and where they are hundreds. Results are the same.

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
        for count in slots:
            if not isinstance(count, Integral) or count < 1:
                raise ValueError(f"num_envs: expected whole numbers >= 1, found {count!r}")
        if plan_every < 0:
            raise ValueError(f"plan_every: expected >= 0, found {plan_every}")
        for count, source in zip(slots, sources, strict=True):
            if isinstance(source, SeedStreams) and source.num_envs != count:
                raise ValueError(f"levels: expected {count} seed streams, one per slot; found {source.num_envs}")
        if record and not label:
            raise ValueError("record=True needs label=True: the expert's subgoal is one of the facts")
        if threads < 1:
            raise ValueError(f"threads: expected >= 1, found {threads}")
        if core not in ("auto", "compiled", "plain"):
            raise ValueError(f"core: expected auto, compiled or plain, found {core!r}")
        self.num_envs, self.max_steps, self.plan_every = sum(slots), max_steps, plan_every
        self.label, self.record = label, record
        pairs = list(zip(tasks, slots, strict=True))
        options = {"plan_every": plan_every, "label": label, "record": record}
        self._core: CompiledCore | PlainCore | None = None
        if core != "plain":
            self._core = build_compiled_core(pairs, max_steps, required=core == "compiled", threads=threads, **options)
        if self._core is None:
            self._core = PlainCore(pairs, max_steps, **options)
        self.core, self.task_ids = self._core.name, self._core.task_ids
        if len(set(self.task_ids)) != len(tasks):
            raise ValueError(f"task_id: expected distinct tasks, found {', '.join(tasks)}")
        self.task_index = self._rows["task"]
        self._counts = self._core.ledger.counts
        first = [0, *np.cumsum(slots).tolist()]
        self.parts = [
            TaskSlots(task, first[k], slots[k], sources[k], self._counts[:, k]) for k, task in enumerate(self.task_ids)
        ]
        self.missions: list[str] = []
        self._mission_ids: dict[str, int] = {}

    @property
    def _rows(self) -> np.ndarray:
        return self._core.slots.rows

    @property
    def task_id(self) -> str:
        """The task, full id; of several the first."""
        return self.task_ids[0]

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted, over all tasks."""
        return dict(zip(COUNTERS, self._counts.sum(axis=1).tolist(), strict=True))

    @property
    def level_seeds(self) -> np.ndarray:
        """The seeds of the levels that the slots are at, int64 (N,); of one that has none left, of its last."""
        return self._rows["seed"].astype(np.int64)

    @property
    def unsolvable_seeds(self) -> list[int]:
        """The level seeds that were replaced, task by task."""
        return [seed for part in self.parts for seed in part.unsolvable_seeds]

    def reset(self) -> VectorStep:
        """Starts a new level in every slot; episodes in progress are dropped without an `EpisodeEnd`."""
        self.restart()
        self._begin_levels()
        return self._show(VectorStep.zeros(self.num_envs, self.record))

    def restart(self) -> None:
        """Lets every slot wait for a new level, which whoever plays begins; episodes in progress are dropped."""
        self._rows["active"], self._rows["waiting"] = False, True

    def step(self, actions: Sequence[int] | np.ndarray) -> VectorStep:
        """Takes one action per slot; slots whose episode ends go on to their next level.

        Args:
            actions: ints (N,) in 0..6; what stands at inactive slots is ignored.

        Raises:
            ValueError: wrong shape, type or range.
            ExpertError: too many unsolvable levels in a row.
        """
        chosen, result = self._check_actions(actions), VectorStep.zeros(self.num_envs, self.record)
        self._core.make_room(1)
        self._core.act(chosen, result)
        ended = self._take_ends(self._core.ledger)
        if ended:
            for end in ended:
                result.outcome[end.slot], result.reward[end.slot] = end.outcome, end.reward
            self._begin_levels()
        return self._show(result, tuple(ended))

    def _take_ends(self, *ledgers: Ledger) -> list[EpisodeEnd]:
        """Return the episodes that have ended since this was done last, in the order of steps and slots."""
        records = [row for ledger in ledgers for row in ledger.ends[: ledger.ended[0]].tolist()]
        for ledger in ledgers:
            ledger.ended[0] = 0
        return [
            EpisodeEnd(
                slot,
                seed,
                outcome,
                steps,
                reward,
                None if expert_steps < 0 else expert_steps,
                self.missions[mission],
                self._core.env_context(slot) if self.record else None,
            )
            for _, slot, seed, outcome, steps, expert_steps, mission, reward in sorted(records)
        ]

    # ------------------------------------------------------------------------------------- played by compiled code

    def share(self, first: int, end: int, steps: int) -> Share:
        """Returns what compiled code needs of its own to play the slots first..end-1 for so many steps.

        Raises:
            ValueError: minigrid plays these levels, or facts are recorded.
        """
        if self.record:
            raise ValueError("record: expected False, found True; call step, which keeps each level's context")
        if not isinstance(self._core, CompiledCore):
            raise ValueError("core: expected compiled, found plain; call step")
        ledger = allocate_ledger(len(self.task_ids), (end - first) * steps)
        return Share(first, end, self._core.allocate_scratch(), ledger)

    def open_game(self, share: Share, steps: int) -> Game:
        """Returns what a share's slots go on with, for so many steps at most or until some are held up."""
        self._core.make_room(steps)
        return self._core.game._replace(scratch=share.scratch, ledger=share.ledger)

    def lacks_seeds(self, share: Share) -> bool:
        """Returns whether a slot of a share waits for a seed, so that none of them has begun a level."""
        rows = self._rows[share.first : share.end]
        return bool((rows["waiting"] & ~rows["rejected"] & (rows["used"] == rows["offered"])).any())

    def close_game(self, shares: Sequence[Share]) -> list[EpisodeEnd]:
        """Takes over what shares of the slots have counted; returns the episodes that have ended in them."""
        for share in shares:
            self._counts += share.ledger.counts
            share.ledger.counts[:] = 0
        return self._take_ends(*(share.ledger for share in shares))

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain ints, strings, lists and dicts.

        An episode in progress is kept as its level seed and the actions taken: replaying them rebuilds the level and
        the expert's mind exactly. Neither recording nor the core is part of the state: either may be another here than
        there.
        """
        states, rows, everyone = [], self._rows, np.ones(self.num_envs, bool)
        for part in self.parts:
            part.offer_seeds(self._core.slots, everyone)  # the source then knows which have been used
            slots = [
                {
                    "active": bool(rows["active"][k]),
                    "levels": int(rows["started"][k]),
                    "level_seed": int(rows["seed"][k]),
                    "expert_steps": None if rows["expert_steps"][k] < 0 else int(rows["expert_steps"][k]),
                    "actions": self._core.slots.history[k, : rows["taken"][k]].tolist(),
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
        self._core.forget_missions()
        for k, saved in enumerate(slot for of_task in states for slot in of_task["slots"]):
            row = self._rows[k]
            row["active"], row["waiting"], row["started"] = saved["active"], False, saved["levels"]
            row["seed"], row["failures"], row["offered"], row["used"] = saved["level_seed"], 0, 0, 0
            row["expert_steps"] = -1 if saved["expert_steps"] is None else saved["expert_steps"]
            row["taken"] = len(saved["actions"])
            self._core.make_room(0)
            self._core.slots.history[k, : row["taken"]] = saved["actions"]
            if saved["active"]:
                self._core.restore(k, saved["level_seed"], saved["actions"])
                self._name_mission(k)
        return self._show(VectorStep.zeros(self.num_envs, self.record))

    def forget_missions(self) -> VectorStep:
        """Forgets the sentences of episodes that are over, so that a task of endless missions fills no memory.

        Those in progress get other numbers: whoever keeps something by mission number forgets it too. The episodes that
        have ended must have been taken.

        Returns:
            what the slots show now, with rewards, outcomes and events zero and `ended` empty.
        """
        self.missions, self._mission_ids = [], {}
        self._core.forget_missions()
        for slot in np.flatnonzero(self._rows["active"]).tolist():
            self._name_mission(slot)
        return self._show(VectorStep.zeros(self.num_envs, self.record))

    def close(self) -> None:
        """Deactivates every slot; the environment can be used again after `reset`."""
        self._rows["active"] = False

    def _settings(self, part: TaskSlots) -> dict[str, Any]:
        own = {"task_id": part.task_id, "num_envs": part.num_envs}
        return own | {name: getattr(self, name) for name in ("max_steps", "plan_every", "label")}

    def _check_actions(self, actions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the actions as int64 (N,)."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(f"actions: expected ints ({self.num_envs},), found {actions.dtype} {actions.shape}")
        wrong = np.flatnonzero(((actions < 0) | (actions >= NUM_ACTIONS)) & self._rows["active"])
        if len(wrong):
            raise ValueError(f"actions[{wrong[0]}]: expected 0..{NUM_ACTIONS - 1}, found {actions[wrong[0]]}")
        return np.ascontiguousarray(actions, np.int64)

    def _begin_levels(self) -> None:
        """Give each waiting slot the next level that the expert can do something about, or none if none is left."""
        while self._core.begin():
            self.settle()

    def settle(self, *shares: Share) -> None:
        """Does what holds slots up: names missions, takes note of rejected seeds, gives further ones.

        Args:
            shares: Of the slots, if not all are meant.

        Raises:
            ExpertError: too many unsolvable levels in a row.
        """
        rows, meant = self._rows, np.zeros(self.num_envs, bool)
        for first, end in [(share.first, share.end) for share in shares] or [(0, self.num_envs)]:
            meant[first:end] = True
        for slot in np.flatnonzero(meant & rows["active"] & (rows["mission_id"] == UNKNOWN)).tolist():
            self._name_mission(slot)
        for part in self.parts:
            part.reject_seeds(self._core.slots, meant)
        if (meant & rows["waiting"] & (rows["used"] == rows["offered"])).any():
            for part in self.parts:
                part.offer_seeds(self._core.slots, meant)
        failed = np.flatnonzero(rows["failures"] >= MAX_REPLACEMENTS)
        if len(failed):
            task_id, seed = self.task_ids[rows["task"][failed[0]]], rows["seed"][failed[0]]
            rows["waiting"][failed], rows["failures"][failed] = False, 0
            raise ExpertError(
                f"{task_id}: the expert solves none of {MAX_REPLACEMENTS} levels in a row, the last of seed {seed}, "
                "within the levels' own step limits. It is known to solve no level of KeyInBox and of the "
                "PutNext*Carrying tasks: choose another task"
            )

    def _name_mission(self, slot: int) -> None:
        """Give the slot's mission its number in `missions`."""
        sentence = self._core.mission(slot)
        index = self._mission_ids.setdefault(sentence, len(self.missions))
        if index == len(self.missions):
            self.missions.append(sentence)
        self._rows["mission_id"][slot] = index
        self._core.learn(slot, index)

    def _show(self, result: VectorStep, ended: tuple[EpisodeEnd, ...] = ()) -> VectorStep:
        """Fill in what the slots show now."""
        self._core.show(result)
        object.__setattr__(result, "ended", ended)
        return result
