"""Where level seeds come from: endless streams for training, finite lists for evaluation; the two never meet."""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

_TRAINING_SEEDS = 2**31  # training levels have seeds in [0, 2**31), evaluation levels in [2**31, 2**32)
_BLOCK = 64  # seeds drawn at a time

EVALUATION_SEED = 0
"""Every run is evaluated on the same levels, whatever its own seed, so that runs can be compared level by level."""


class SeedStreams:
    """Endless level seeds for training, one stream per slot.

    Slot i's stream depends on (seed, i) alone, not on how many slots there are; of a mixture of tasks on (seed, task,
    i), i counted within the task, not on the other tasks. All seeds lie in [0, 2**31); those of `evaluation_seeds` lie
    above, so that training never meets an evaluation level.
    """

    def __init__(self, seed: int, num_envs: int, task_id: str | None = None) -> None:
        """Streams 0..num_envs-1 of the run seed `seed` (an int >= 0), those of one task of a mixture if it is named."""
        if num_envs < 1:
            raise ValueError(f"num_envs: expected >= 1, found {num_envs}")
        self.seed, self.num_envs = int(seed), num_envs
        self._key = () if task_id is None else (zlib.crc32(task_id.encode()),)
        self.load_state_dict({"seed": self.seed, "drawn": [0] * num_envs})

    def offer(self, used: np.ndarray, count: int) -> np.ndarray:
        """Goes on by the seeds that have been used, int64 (N,), `count` at most; returns each slot's next ones.

        Args:
            used: of those offered last.
            count: how many, 64 at most.

        Returns:
            int64 (N, count).
        """
        self._next += used
        for slot in np.flatnonzero(self._next >= _BLOCK).tolist():
            self._shift(slot)
            self._next[slot] -= _BLOCK
            self._before[slot] += _BLOCK
        return np.take_along_axis(self._blocks, self._next[:, None] + np.arange(count), axis=1)

    def state_dict(self) -> dict[str, Any]:
        """How far each stream has come."""
        return {"seed": self.seed, "drawn": (self._before + self._next).tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the place that `state_dict` described; ValueError if that was of other streams."""
        if state.get("seed") != self.seed or len(state.get("drawn", ())) != self.num_envs:
            raise ValueError(
                f"level source: expected the state of {self.num_envs} streams of seed {self.seed}, "
                f"found {len(state.get('drawn', ()))} of seed {state.get('seed')}"
            )
        self._generators = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(*self._key, slot))))
            for slot in range(self.num_envs)
        ]
        drawn = np.array(state["drawn"], np.int64)
        # Of each slot two blocks, how many seeds come before them, and which of theirs is the next
        self._before, self._next = drawn // _BLOCK * _BLOCK, drawn % _BLOCK
        self._blocks = np.zeros((self.num_envs, 2 * _BLOCK), np.int64)
        for slot, blocks in enumerate((self._before // _BLOCK).tolist()):
            for _ in range(blocks + 2):
                self._shift(slot)

    def _shift(self, slot: int) -> None:
        """Drop a slot's first block and draw one behind the second."""
        block = self._generators[slot].integers(0, _TRAINING_SEEDS, size=_BLOCK)
        self._blocks[slot] = np.concatenate([self._blocks[slot, _BLOCK:], block])


class SeedList:
    """A finite list of level seeds, shared by all slots: each is taken once, by whichever slot is free next."""

    def __init__(self, seeds: Iterable[int]) -> None:
        """Plays `seeds`, ints in [0, 2**63), in order; ValueError if there are none or others."""
        self.seeds = [int(seed) for seed in seeds]
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**63:  # kept as int64
            raise ValueError(f"level seeds: expected at least one, all >= 0 and below 2**63; found {self.seeds[:5]}")
        self._taken = 0

    def next_seed(self, slot: int) -> int | None:
        """The next seed, None when all are taken."""
        if self._taken == len(self.seeds):
            return None
        self._taken += 1
        return self.seeds[self._taken - 1]

    def state_dict(self) -> dict[str, Any]:
        """The list and how many seeds are taken."""
        return {"seeds": list(self.seeds), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the place that `state_dict` described; ValueError if that was of another list."""
        if state.get("seeds") != self.seeds:
            raise ValueError(f"level source: expected the state of a list of these {len(self.seeds)} seeds")
        self._taken = int(state["taken"])


def evaluation_seeds(seed: int, n: int) -> list[int]:
    """`n` distinct level seeds in [2**31, 2**32), where no training stream goes.

    The list is a function of `seed`; its first k entries do not depend on `n`.
    """
    if n < 0:
        raise ValueError(f"n: expected >= 0, found {n}")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    chosen: dict[int, None] = {}  # an ordered set
    while len(chosen) < n:
        block = generator.integers(_TRAINING_SEEDS, 2 * _TRAINING_SEEDS, size=_BLOCK)
        chosen.update(dict.fromkeys(block.tolist()))
    return list(chosen)[:n]
