"""N levels played by minigrid itself: the yardstick of the compiled core, and its fallback.

Both cores offer `VectorEnv` the same methods; here each slot has a `Simulator`, an `Expert` and, where facts are
recorded, a `Recorder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from babyai.errors import LevelError
from babyai.facts import RUNNING
from babyai.plain_facts import Recorder
from babyai.plain_world import Expert, Simulator, plan_length
from babyai.steps import NO_LABEL, VectorStep


class PlainCore:
    """N simulators.

    Attributes:
        task_ids: Of each task, full id.
        labels: int64 (N,), the expert's action for the present state of each slot, NO_LABEL where it has none.
    """

    name = "plain"

    def __init__(self, tasks: Sequence[tuple[str, int]], max_steps: int | None, *, label: bool, record: bool) -> None:
        self._label = label
        self._simulators = [Simulator(task_id, max_steps) for task_id, slots in tasks for _ in range(slots)]
        self.task_ids = list(dict.fromkeys(simulator.task_id for simulator in self._simulators))
        self.labels = np.full(len(self._simulators), NO_LABEL, np.int64)
        self._experts = [Expert(simulator) for simulator in self._simulators]
        pairs = zip(self._simulators, self._experts, strict=True)
        self._recorders = [Recorder(simulator, expert) for simulator, expert in pairs] if record else None
        # Plans are played out on a simulator of their own, with each level's own limit: which levels are solvable must
        # not depend on how long the student may try.
        self._planners: dict[str, Simulator] = {}

    def start(self, slots: Sequence[int], seeds: Sequence[int], plans: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Start a level in each of `slots`.

        Args:
            slots: Numbers of slots.
            seeds: Their levels.
            plans: Whether the expert shall play each beforehand.

        Returns:
            whether each started, bool (n,), which it does not where minigrid makes no such level or the expert cannot
            do anything about it; and the lengths of the plans, int64 (n,), -1 where there was none.
        """
        started, lengths = np.zeros(len(slots), bool), np.full(len(slots), -1, np.int64)
        for k, (slot, seed, plan) in enumerate(zip(slots, seeds, plans, strict=True)):
            if plan:
                task_id = self._simulators[slot].task_id
                if task_id not in self._planners:
                    self._planners[task_id] = Simulator(task_id)
                length = plan_length(self._planners[task_id], int(seed))
                if length is None:
                    continue
                lengths[k] = length
            started[k] = self._load(slot, int(seed))
        return started, lengths

    def restore(self, slot: int, seed: int, actions: Sequence[int]) -> None:
        """Start a level and play `actions`, without asking whether it can be solved."""
        self._load(slot, seed)
        for action in actions:
            self._act(slot, action)

    def step(self, actions: np.ndarray, active: np.ndarray, result: VectorStep) -> np.ndarray:
        """Act in the active slots; fill `outcome` and events of `result`; return the rewards, float64 (N,)."""
        rewards = np.zeros(len(active))
        for slot in np.flatnonzero(active).tolist():
            rewards[slot], result.outcome[slot] = self._act(slot, int(actions[slot]), result)
        return rewards

    def observe(self, active: np.ndarray, result: VectorStep) -> None:
        """Fill what the active slots show: view, direction, carrying, and facts but for events."""
        for slot in np.flatnonzero(active).tolist():
            view = result.view[slot]
            result.direction[slot], result.carrying[slot] = self._simulators[slot].observe(view)
            if self._recorders is not None:
                self._recorders[slot].describe(result.facts, slot)

    def mission_key(self, slot: int) -> str:
        """Return what distinguishes the slot's sentence from others."""
        return self._simulators[slot].mission

    def mission(self, slot: int) -> str:
        """Return the slot's sentence."""
        return self._simulators[slot].mission

    def steps(self, slot: int) -> int:
        """Return the steps taken in the slot's episode."""
        return self._simulators[slot].steps

    def env_context(self, slot: int) -> dict[str, Any]:
        """Return the slot's level at its start, see `babyai.compiled.context`; only where facts are recorded."""
        return self._recorders[slot].env_context

    def _load(self, slot: int, seed: int) -> bool:
        try:
            self._simulators[slot].load(seed)
        except LevelError:
            return False
        if self._label:
            expert = self._experts[slot]
            expert.reset()
            if not self._take_label(slot, expert.suggest(None)):
                return False
        if self._recorders is not None:
            self._recorders[slot].start()
        return True

    def _act(self, slot: int, action: int, result: VectorStep | None = None) -> tuple[float, int]:
        reward, outcome = self._simulators[slot].step(action)
        if self._recorders is not None:
            event = self._recorders[slot].follow()
            if result is not None:
                result.facts.event[slot], result.facts.event_object[slot] = event
        if self._label and outcome == RUNNING:
            self._take_label(slot, self._experts[slot].suggest(action))
        return reward, outcome

    def _take_label(self, slot: int, action: int | None) -> bool:
        self.labels[slot] = NO_LABEL if action is None else action
        return action is not None
