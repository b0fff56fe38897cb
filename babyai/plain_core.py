"""N levels played by minigrid itself: the yardstick of the compiled core, and its fallback.

Both cores offer `VectorEnv` the same methods; here each slot has a `Simulator`, an `Expert` and, where facts are
recorded, a `Recorder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from babyai.compiled.slots import (
    STARTED,
    STEPS,
    UNKNOWN,
    UNLABELLED,
    allocate_ledger,
    allocate_slots,
    make_room,
)
from babyai.errors import LevelError
from babyai.facts import RUNNING
from babyai.plain_facts import Recorder
from babyai.plain_world import Expert, Simulator, plan_length
from babyai.steps import NO_LABEL, VectorStep


class PlainCore:
    """N simulators, and what is kept of their slots as in `babyai.compiled.turn`, written in Python.

    Attributes:
        task_ids: Of each task, full id.
        slots: What is kept of the slots.
        ledger: What comes of playing.
    """

    name = "plain"

    def __init__(
        self, tasks: Sequence[tuple[str, int]], max_steps: int | None, *, plan_every: int, label: bool, record: bool
    ) -> None:
        self._plan_every, self._label = plan_every, label
        self._simulators = [Simulator(task_id, max_steps) for task_id, slots in tasks for _ in range(slots)]
        self.task_ids = list(dict.fromkeys(simulator.task_id for simulator in self._simulators))
        self.slots = allocate_slots(tasks)
        count = len(self._simulators)
        self.ledger = allocate_ledger(len(tasks), count)
        self._experts = [Expert(simulator) for simulator in self._simulators]
        pairs = zip(self._simulators, self._experts, strict=True)
        self._recorders = [Recorder(simulator, expert) for simulator, expert in pairs] if record else None
        self._contexts: list[dict[str, Any]] = [{}] * count
        # Plans are played out on a simulator of their own, with each level's own limit: which levels are solvable must
        # not depend on how long the student may try.
        self._planners: dict[str, Simulator] = {}

    def make_room(self, steps: int) -> None:
        """Make room for so many actions more in each episode."""
        self.slots = make_room(self.slots, steps)

    def act(self, actions: np.ndarray, result: VectorStep) -> None:
        """Let the active slots act, int64 (N,); fill events into `result`, and `ledger` with episodes that end."""
        rows, ledger = self.slots.rows, self.ledger
        for slot in np.flatnonzero(rows["active"]).tolist():
            row = rows[slot]
            self.slots.history[slot, row["taken"]] = actions[slot]
            row["taken"] += 1
            ledger.counts[STEPS, row["task"]] += 1
            reward, outcome = self._act(slot, int(actions[slot]), result)
            if outcome != RUNNING:
                told = outcome, row["taken"], row["expert_steps"], row["mission_id"], reward
                ledger.ends[ledger.ended[0]] = 0, slot, row["seed"], *told
                ledger.ended[0] += 1
                row["active"], row["waiting"] = False, True
            elif self._label and row["label"] < 0:
                ledger.counts[UNLABELLED, row["task"]] += 1

    def begin(self) -> int:
        """Give each waiting slot the level of its next seed, once all have one.

        Returns:
            how many slots are held up: they need seeds, the last one is `rejected`, or the mission has no number.
        """
        rows = self.slots.rows
        lacking = int((rows["waiting"] & (rows["used"] == rows["offered"])).sum())
        return lacking or sum(self._begin(slot) for slot in np.flatnonzero(rows["waiting"]).tolist())

    def show(self, result: VectorStep) -> None:
        """Fill in what the active slots show, and facts but for events; all is zero so far."""
        rows = self.slots.rows
        for slot in np.flatnonzero(rows["active"]).tolist():
            row = rows[slot]
            result.direction[slot], result.carrying[slot] = self._simulators[slot].observe(result.view[slot])
            result.mission_id[slot], result.episode_start[slot] = row["mission_id"], row["taken"] == 0
            result.active[slot] = True
            if row["label"] >= 0:
                result.expert_action[slot], result.expert_valid[slot] = row["label"], True
            if self._recorders is not None:
                self._recorders[slot].describe(result.facts, slot)
                if row["taken"] == 0:
                    self._contexts[slot] = self._recorders[slot].env_context

    def restore(self, slot: int, seed: int, actions: Sequence[int]) -> None:
        """Start a level and play `actions`, without asking whether it can be solved."""
        self._load(slot, seed)
        if self._recorders is not None:
            self._contexts[slot] = self._recorders[slot].env_context
        for action in actions:
            self._act(slot, action)

    def mission(self, slot: int) -> str:
        """Return the slot's sentence."""
        return self._simulators[slot].mission

    def forget_missions(self) -> None:
        """Forget the numbers of missions: none are kept here."""

    def learn(self, slot: int, mission_id: int) -> None:
        """Take note of the number of the slot's mission: here each is asked for."""

    def env_context(self, slot: int) -> dict[str, Any]:
        """Return the slot's level at its start, see `babyai.compiled.context`; only where facts are recorded."""
        return self._contexts[slot]

    def _begin(self, slot: int) -> bool:
        """Give a slot its next level; return whether that is held up."""
        row = self.slots.rows[slot]
        seed = int(self.slots.seeds[slot, row["used"]])
        row["used"] += 1
        row["seed"] = seed
        length: int | None = -1
        if self._plan_every > 0 and row["started"] % self._plan_every == 0:
            task_id = self._simulators[slot].task_id
            if task_id not in self._planners:
                self._planners[task_id] = Simulator(task_id)
            length = plan_length(self._planners[task_id], seed)
        if length is None or not self._load(slot, seed):
            row["rejected"] = True
            row["failures"] += 1
            return True
        row["active"], row["waiting"], row["failures"], row["taken"] = True, False, 0, 0
        row["started"] += 1
        row["expert_steps"], row["mission_id"] = length, UNKNOWN
        self.ledger.counts[STARTED, row["task"]] += 1
        return True

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
        self.slots.rows["label"][slot] = NO_LABEL if action is None else action
        return action is not None
