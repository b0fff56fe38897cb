"""Seeds that are new in every run, for tests that compare two forms of the same thing."""

import os
import secrets

import numpy as np

from babyai.errors import LevelError
from babyai.level_seeds import SeedStreams
from babyai.plain_world import Simulator

SEED = int(os.environ.get("RLMOP_TEST_SEED") or secrets.randbits(31))
"""Printed where a comparison fails; `RLMOP_TEST_SEED=<it>` repeats that run."""

REPEAT = f"repeat with RLMOP_TEST_SEED={SEED}"


def draw_level_seed(task_id: str, rng: np.random.Generator) -> int:
    """A seed from which minigrid makes a level: on about one in 800 of SynthS5R2's its generator never ends."""
    simulator = Simulator(task_id)
    while True:
        seed = int(rng.integers(2**31))
        try:
            simulator.load(seed)
        except LevelError:
            continue
        return seed


def take_seeds(streams: SeedStreams, slot: int, count: int) -> list[int]:
    """Return a slot's next seeds, used one by one."""
    one = (np.arange(streams.num_envs) == slot).astype(np.int64)
    none, found = np.zeros_like(one), []
    for _ in range(count):
        found.append(int(streams.offer(none, 1)[slot, 0]))
        streams.offer(one, 1)
    return found
