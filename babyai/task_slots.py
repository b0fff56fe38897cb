"""The slots of one task within a vector environment: where its levels come from, and what is counted of it.

part = env.parts[1]                 # of a `VectorEnv` of several tasks
part.task_id, part.slots, part.counters["levels_started"]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from babyai.level_seeds import SeedList, SeedStreams

COUNTERS = ("levels_started", "levels_unsolvable", "steps", "steps_unlabelled")
"""What is counted, see `babyai.vector_env.VectorEnv.counters`."""

STARTED, UNSOLVABLE, STEPS, UNLABELLED = range(4)
"""Their places."""


class TaskSlots:
    """Slots that play one task.

    Attributes:
        task_id: Full id.
        first: Number of the first slot within the environment.
        num_envs: How many slots.
        counters: Of these slots, by the names in `COUNTERS`.
        unsolvable_seeds: The level seeds that were replaced.
    """

    def __init__(
        self, task_id: str, first: int, num_envs: int, levels: SeedStreams | SeedList, counts: np.ndarray
    ) -> None:
        """Take over slots.

        Args:
            task_id: Full id.
            first: Number of the first slot.
            num_envs: How many.
            levels: Where their seeds come from, a stream for each slot from 0.
            counts: int64 (len(COUNTERS),), counted up by the environment.
        """
        self.task_id, self.first, self.num_envs = task_id, first, num_envs
        self.unsolvable_seeds: list[int] = []
        self._levels, self._counts = levels, counts

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted."""
        return dict(zip(COUNTERS, self._counts.tolist(), strict=True))

    @property
    def slots(self) -> range:
        """Numbers of the slots within the environment."""
        return range(self.first, self.first + self.num_envs)

    def own(self, slots: Iterable[int]) -> list[int]:
        """Return those of some slots that are of these."""
        return [slot for slot in slots if slot in self.slots]

    def next_seed(self, slot: int) -> int | None:
        """Return the seed of the slot's next level, None if there is none."""
        return self._levels.next_seed(slot - self.first)

    def count_levels(self, started: int, unsolvable: list[int]) -> None:
        """Count levels that have started, and the seeds of those that are to be replaced."""
        self._counts[STARTED] += started
        self._counts[UNSOLVABLE] += len(unsolvable)
        self.unsolvable_seeds += unsolvable

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs beside the slots themselves."""
        return {
            "source": self._levels.state_dict(),
            "counters": self.counters,
            "unsolvable_seeds": list(self.unsolvable_seeds),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self._levels.load_state_dict(state["source"])
        self._counts[:] = [state["counters"][name] for name in COUNTERS]
        self.unsolvable_seeds = list(state["unsolvable_seeds"])
