"""The slots of one task within a vector environment: where its levels come from, and what is counted of it.

part = env.parts[1]                 # of a `VectorEnv` of several tasks
part.task_id, part.slots, part.counters["levels_started"]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from babyai.compiled.slots import UNSOLVABLE, Slots
from babyai.level_seeds import SeedList, SeedStreams

COUNTERS = ("levels_started", "levels_unsolvable", "steps", "steps_unlabelled")
"""What is counted, see `babyai.vector_env.VectorEnv.counters`."""


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

    def offer_seeds(self, slots: Slots, meant: np.ndarray) -> None:
        """Give slots further seeds, of all slots those that are `meant`, bool; without any they no longer wait."""
        own, seeds, meant = self._own(slots.rows), self._own(slots.seeds), self._own(meant)
        if isinstance(self._levels, SeedStreams):
            width = seeds.shape[1]
            seeds[meant] = self._levels.offer(np.where(meant, own["used"], 0), width)[meant]
            own["offered"][meant], own["used"][meant] = width, 0
            return
        for slot in np.flatnonzero(meant & own["waiting"] & (own["used"] == own["offered"])).tolist():
            seed = self._levels.next_seed(slot)
            if seed is None:
                own["waiting"][slot] = False
            else:
                seeds[slot, 0], own["offered"][slot], own["used"][slot] = seed, 1, 0

    def reject_seeds(self, slots: Slots, meant: np.ndarray) -> None:
        """Take note of the seeds that slots have rejected, of all slots those that are `meant`, bool."""
        own = self._own(slots.rows)
        rejected = own["rejected"] & self._own(meant)
        self._counts[UNSOLVABLE] += rejected.sum()
        self.unsolvable_seeds += own["seed"][rejected].tolist()
        own["rejected"][rejected] = False

    def _own(self, of_all: np.ndarray) -> np.ndarray:
        return of_all[self.first : self.first + self.num_envs]

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
