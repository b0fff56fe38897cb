"""N BabyAI levels as one environment of arrays, labelled by the expert.

    env = VectorEnv("BabyAI-GoToObj-v0", num_envs=16, levels=SeedStreams(seed=0, num_envs=16))
    step = env.reset()
    step = env.step(actions)            # actions: int array (16,)
    step.view, step.expert_action, step.expert_valid, step.outcome, step.episode_start, step.ended

Evaluation also wants to know where things are: with `record=True` each step carries `facts` (see `babyai.facts`).

Auto-reset is gymnasium's `AutoresetMode.SAME_STEP`: when an action ends an episode, the returned observation and expert
action are already those of the slot's next level, while `reward` and `outcome` belong to the episode that ended;
`ended` describes it. Nothing outside `babyai/` sees a per-environment object: only arrays, ints and strings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from babyai.expert import Expert, ExpertError, plan_length
from babyai.level_seeds import SeedList, SeedStreams
from babyai.levels import LevelError
from babyai.recorder import Recorder
from babyai.simulator import NUM_ACTIONS, Outcome, Simulator
from babyai.steps import EpisodeEnd, VectorStep

# Levels in a row that may prove unsolvable before the task is declared so
MAX_REPLACEMENTS = 1000


@dataclass
class _Slot:
    """One of the N places: a simulator, its expert and what has to be remembered to rebuild them."""

    index: int
    simulator: Simulator
    expert: Expert
    recorder: Recorder | None = None
    active: bool = False
    levels: int = 0  # levels started here
    expert_steps: int | None = None
    mission_id: int = 0
    label: int | None = None  # the expert's action for the current observation
    actions: list[int] = field(default_factory=list)  # taken in this episode


class VectorEnv:
    """N levels of one task, played side by side.

    Attributes:
        task_id: full id.
        num_envs: N.
        num_actions: 7 (left, right, forward, pickup, drop, toggle, done).
        missions: the distinct instructions met so far; `VectorStep.mission_id` indexes it. It only grows.
        counters: `levels_started`; `levels_unsolvable` (replaced: the expert cannot solve them, or minigrid cannot
            generate them); `steps` (env-steps of active slots); `steps_unlabelled` (observations of a running episode
            without label, because the expert gave up).
        unsolvable_seeds: the level seeds that were replaced.
    """

    num_actions = NUM_ACTIONS

    def __init__(
        self,
        task_id: str,
        num_envs: int,
        levels: SeedStreams | SeedList,
        *,
        max_steps: int | None = None,
        plan_every: int = 0,
        label: bool = True,
        record: bool = False,
    ) -> None:
        """Builds the slots; `reset` starts their first levels.

        Args:
            task_id: id or short name, see `babyai.levels.resolve_task_id`.
            num_envs: number of slots.
            levels: where level seeds come from.
            max_steps: step limit of every episode; None keeps each level's own.
            plan_every: every k-th level of a slot is first played by the expert: its length goes to
                `EpisodeEnd.expert_steps`, and a level that it cannot solve is replaced. 1: every level; 0: none, then
                only levels on whose first observation the expert gives up are replaced.
            label: whether the expert labels every observation.
            record: whether every step carries `facts` and every `EpisodeEnd` its `env_context`. Needs `label`, because
                the expert's subgoal is one of the facts.

        Raises:
            UnknownTaskError: no such task.
            ValueError: another argument is out of range.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs: expected >= 1, found {num_envs}")
        if plan_every < 0:
            raise ValueError(f"plan_every: expected >= 0, found {plan_every}")
        if isinstance(levels, SeedStreams) and levels.num_envs != num_envs:
            raise ValueError(f"levels: expected {num_envs} seed streams, one per slot; found {levels.num_envs}")
        if record and not label:
            raise ValueError("record=True needs label=True: the expert's subgoal is one of the facts")
        self.num_envs, self.max_steps, self.plan_every = num_envs, max_steps, plan_every
        self.label, self.record = label, record
        self._levels = levels
        self._slots = []
        for index in range(num_envs):
            simulator = Simulator(task_id, max_steps)
            expert = Expert(simulator)
            recorder = Recorder(simulator, expert) if record else None
            self._slots.append(_Slot(index, simulator, expert, recorder))
        # Plans are played out on a simulator of their own: the slots' episodes are not disturbed, nothing is copied
        # and with each level's own limit: which levels are solvable must not depend on how long the student may try.
        self._planner = Simulator(task_id) if plan_every else None
        self.task_id = self._slots[0].simulator.task_id
        self.missions: list[str] = []
        self._mission_ids: dict[str, int] = {}
        self.counters = {"levels_started": 0, "levels_unsolvable": 0, "steps": 0, "steps_unlabelled": 0}
        self.unsolvable_seeds: list[int] = []

    def reset(self) -> VectorStep:
        """Starts a new level in every slot; episodes in progress are dropped without an `EpisodeEnd`."""
        for slot in self._slots:
            self._start_level(slot)
        return self._observe(VectorStep.zeros(self.num_envs, self.record))

    def step(self, actions: Sequence[int] | np.ndarray) -> VectorStep:
        """Takes one action per slot; slots whose episode ends go on to their next level.

        Args:
            actions: ints (N,) in 0..6; what stands at inactive slots is ignored.

        Raises:
            ValueError: wrong shape, type or range.
            ExpertError: too many unsolvable levels in a row.
        """
        chosen = self._check_actions(actions)
        result = VectorStep.zeros(self.num_envs, self.record)
        ended = []
        for slot, action in zip(self._slots, chosen, strict=True):
            if not slot.active:
                continue
            self.counters["steps"] += 1
            simulator = slot.simulator
            reward, outcome = simulator.step(action)
            recorder = slot.recorder
            if recorder is not None:
                facts = result.facts
                facts.event[slot.index], facts.event_object[slot.index] = recorder.follow()
            if outcome is Outcome.RUNNING:
                slot.actions.append(action)
                if self.label:
                    slot.label = slot.expert.suggest(action)
                continue
            result.reward[slot.index] = reward
            result.outcome[slot.index] = outcome
            ended.append(
                EpisodeEnd(
                    slot.index,
                    simulator.level_seed,
                    outcome,
                    simulator.steps,
                    reward,
                    slot.expert_steps,
                    simulator.mission,
                    None if recorder is None else recorder.env_context,
                )
            )
            self._start_level(slot)
        return self._observe(result, tuple(ended))

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain ints, strings, lists and dicts.

        An episode in progress is kept as its level seed and the actions taken: replaying them rebuilds the level and
        the expert's mind exactly. Recording is no part of the state: it may be on here and off there.
        """
        slots = [
            {
                "active": slot.active,
                "levels": slot.levels,
                "level_seed": slot.simulator.level_seed,
                "expert_steps": slot.expert_steps,
                "actions": list(slot.actions),
            }
            for slot in self._slots
        ]
        return {
            "settings": self._settings(),
            "source": self._levels.state_dict(),
            "slots": slots,
            "missions": list(self.missions),
            "counters": dict(self.counters),
            "unsolvable_seeds": list(self.unsolvable_seeds),
        }

    def load_state_dict(self, state: dict[str, Any]) -> VectorStep:
        """Goes back to where `state_dict` was taken.

        Returns:
            the step that was current then, with rewards, outcomes and events zero and `ended` empty.

        Raises:
            ValueError: the state is of an environment with other settings or another level source.
        """
        if state["settings"] != self._settings():
            raise ValueError(f"expected the state of {self._settings()}, found that of {state['settings']}")
        self._levels.load_state_dict(state["source"])
        self.missions = list(state["missions"])
        self._mission_ids = {mission: k for k, mission in enumerate(self.missions)}
        for slot, saved in zip(self._slots, state["slots"], strict=True):
            slot.active, slot.levels, slot.expert_steps = saved["active"], saved["levels"], saved["expert_steps"]
            slot.actions = list(saved["actions"])
            if not slot.active:
                continue
            slot.simulator.load(saved["level_seed"])
            slot.mission_id = self._mission_ids[slot.simulator.mission]
            slot.label = self._first_label(slot)
            if slot.recorder is not None:
                slot.recorder.start()
            for action in slot.actions:
                slot.simulator.step(action)
                if slot.recorder is not None:
                    slot.recorder.follow()
                if self.label:
                    slot.label = slot.expert.suggest(action)
        step = self._observe(VectorStep.zeros(self.num_envs, self.record))
        # Last, because observing counts
        self.counters = dict(state["counters"])
        self.unsolvable_seeds = list(state["unsolvable_seeds"])
        return step

    def close(self) -> None:
        """Deactivates every slot; the environment can be used again after `reset`."""
        for slot in self._slots:
            slot.active = False

    def _settings(self) -> dict[str, Any]:
        names = ("task_id", "num_envs", "max_steps", "plan_every", "label")
        return {name: getattr(self, name) for name in names}

    def _check_actions(self, actions: Sequence[int] | np.ndarray) -> list[int]:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(f"actions: expected ints ({self.num_envs},), found {actions.dtype} {actions.shape}")
        chosen = actions.tolist()
        for slot, action in zip(self._slots, chosen, strict=True):
            if slot.active and not 0 <= action < NUM_ACTIONS:
                raise ValueError(f"actions[{slot.index}]: expected 0..{NUM_ACTIONS - 1}, found {action}")
        return chosen

    def _start_level(self, slot: _Slot) -> None:
        """Gives `slot` its next level that the expert can do something about, or deactivates it."""
        slot.actions = []
        for _ in range(MAX_REPLACEMENTS):
            seed = self._levels.next_seed(slot.index)
            slot.active = seed is not None
            if seed is None:
                return
            if self._try_level(slot, seed):
                slot.levels += 1
                self.counters["levels_started"] += 1
                return
            self.counters["levels_unsolvable"] += 1
            self.unsolvable_seeds.append(seed)
        slot.active = False
        raise ExpertError(
            f"{self.task_id}: the expert solves none of {MAX_REPLACEMENTS} levels in a row, the last of seed {seed}, "
            "within the levels' own step limits. It is known to solve no level of KeyInBox and of the "
            "PutNext*Carrying tasks: choose another task"
        )

    def _try_level(self, slot: _Slot, seed: int) -> bool:
        slot.expert_steps = None
        if self.plan_every and slot.levels % self.plan_every == 0:
            slot.expert_steps = plan_length(self._planner, seed)
            if slot.expert_steps is None:
                return False
        simulator = slot.simulator
        try:
            simulator.load(seed)
        except LevelError:
            return False
        slot.label = self._first_label(slot)
        if self.label and slot.label is None:
            return False
        if slot.recorder is not None:
            slot.recorder.start()
        mission = simulator.mission
        slot.mission_id = self._mission_ids.setdefault(mission, len(self.missions))
        if slot.mission_id == len(self.missions):
            self.missions.append(mission)
        return True

    def _first_label(self, slot: _Slot) -> int | None:
        if not self.label:
            return None
        slot.expert.reset()
        return slot.expert.suggest(None)

    def _observe(self, result: VectorStep, ended: tuple[EpisodeEnd, ...] = ()) -> VectorStep:
        """Fills in what the slots show now."""
        view, direction, carrying = result.view, result.direction, result.carrying
        for slot in self._slots:
            if not slot.active:
                continue
            k = slot.index
            direction[k], carrying[k] = slot.simulator.observe(view[k])
            result.active[k] = True
            result.mission_id[k] = slot.mission_id
            result.episode_start[k] = not slot.actions
            if slot.recorder is not None:
                slot.recorder.describe(result.facts, k)
            if slot.label is not None:
                result.expert_action[k], result.expert_valid[k] = slot.label, True
            elif self.label:
                self.counters["steps_unlabelled"] += 1
        if ended:
            object.__setattr__(result, "ended", ended)
        return result
