"""What the vector environment keeps of each slot beside its level, whoever plays it; plain arrays.

A slot is active while it plays a level, and waiting while it is to begin one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

from babyai.steps import NO_LABEL

STARTED, UNSOLVABLE, STEPS, UNLABELLED = range(4)
"""What is counted for each task, see `babyai.vector_env.VectorEnv.counters`."""

UNKNOWN = -1  # a mission that has no number yet

END = np.dtype(
    [
        *((name, np.int64) for name in ("t", "slot", "seed", "outcome", "steps", "expert_steps", "mission_id")),
        ("reward", np.float64),
    ]
)
"""An episode that ended at step t, as `babyai.steps.EpisodeEnd` has it; `expert_steps` -1: not asked."""


SLOT = np.dtype(
    [
        *((name, np.bool_) for name in ("active", "waiting", "rejected")),
        *((name, np.int64) for name in ("task", "failures", "started", "seed", "expert_steps", "mission_id")),
        *((name, np.int64) for name in ("taken", "label", "offered", "used")),
    ],
    align=True,
)
"""What is kept of a slot:

- active, waiting: see above;
- rejected: its last seed gives no level that the expert can do something about, and nobody has taken note of it yet;
- task: number of its task;
- failures: seeds in a row that it has rejected;
- started: levels that it has begun;
- seed: of its level;
- expert_steps: the expert's steps on its level, -1 where it was not asked;
- mission_id: UNKNOWN where the environment has to name the mission;
- taken: actions in its episode;
- label: the expert's action for the present state, NO_LABEL where there is none;
- offered, used: seeds of next levels that it has been given, and how many of them it has taken.
"""


class Slots(NamedTuple):
    """N slots.

    Attributes:
        rows: SLOT (N,).
        history: uint8 (N, W) the actions in their episodes.
        seeds: int64 (N, F) of their next levels.
    """

    rows: np.ndarray
    history: np.ndarray
    seeds: np.ndarray


class Ledger(NamedTuple):
    """What comes of playing some slots.

    Attributes:
        counts: int64 (4, tasks), counted up.
        ends: END (E,) episodes that ended, in the order of steps and slots.
        ended: int64 (1,) how many there are.
    """

    counts: np.ndarray
    ends: np.ndarray
    ended: np.ndarray


def _as_records(array: np.ndarray) -> np.ndarray:
    """Return the array so that fields are attributes also where nothing is compiled; elsewhere that is slow."""
    return array.view(np.recarray) if numba.config.DISABLE_JIT else array


def allocate_slots(tasks: Sequence[tuple[Any, int]], seeds: int = 64) -> Slots:
    """Return slots that neither play nor wait.

    Args:
        tasks: Each task, and how many slots play it.
        seeds: How many seeds of next levels a slot can be given at a time, 64 at most (`SeedStreams`).
    """
    count = sum(slots for _, slots in tasks)
    rows = _as_records(np.zeros(count, SLOT))
    rows["task"] = np.repeat(np.arange(len(tasks)), [slots for _, slots in tasks])
    rows["seed"], rows["label"] = -1, NO_LABEL
    return Slots(rows, np.zeros((count, 64), np.uint8), np.zeros((count, seeds), np.int64))


def allocate_ledger(tasks: int, episodes: int) -> Ledger:
    """Return a ledger with room for so many episodes."""
    return Ledger(np.zeros((4, tasks), np.int64), _as_records(np.zeros(episodes, END)), np.zeros(1, np.int64))


def take_over(ledger: Ledger, other: Ledger) -> None:
    """Add to a ledger what is in another one, which is empty then."""
    ledger.counts[...] += other.counts
    first, more = int(ledger.ended[0]), int(other.ended[0])
    ledger.ends[first : first + more] = other.ends[:more]
    ledger.ended[0] += more
    other.counts[...], other.ended[0] = 0, 0


def make_room(slots: Slots, steps: int) -> Slots:
    """Return the slots with room for so many actions more in each episode."""
    history, needed = slots.history, int(slots.rows["taken"].max()) + steps
    while needed > history.shape[1]:
        history = np.concatenate([history, np.zeros_like(history)], axis=1)
    return slots._replace(history=history)
