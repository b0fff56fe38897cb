"""What decides of a row whether its intervention acts, and what is drawn for it: plain arrays, of world or replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from babyai.facts import EVENT_NAMES, SUBGOAL_NAMES
from pipeline.interventions.spec import Intervention

NEVER = np.iinfo(np.int32).max // 2
"""Steps since an event that has not happened."""

_ANY = -2


@dataclass(frozen=True)
class Situation:
    """Rows (P, M): of each of P policies, M environments or steps of episodes.

    Attributes:
        condition: int64, number of the row's intervention.
        level_seed: int64.
        t_step: int64, steps since the episode began.
        subgoal: int64, code of the bot's subgoal, -1 for none.
        carrying: bool.
        door_unlocked: int64, -1 where no door was locked, else 0 or 1.
        since: int32 (P, M, events), steps since the last event of each kind, 0 where the last action brought it about;
            `NEVER` if it has not happened.
        mission: int64, number of the mission among those of the donors, -1 for another.
    """

    condition: np.ndarray
    level_seed: np.ndarray
    t_step: np.ndarray
    subgoal: np.ndarray
    carrying: np.ndarray
    door_unlocked: np.ndarray
    since: np.ndarray
    mission: np.ndarray


class Gates:
    """At which rows interventions act, by their `when`."""

    def __init__(self, interventions: Sequence[Intervention]) -> None:
        whens = [intervention.when for intervention in interventions]

        def codes(values: Sequence[int | bool | None]) -> np.ndarray:
            return np.array([_ANY if value is None else int(value) for value in values], np.int64)

        self._subgoal = codes([w.subgoal if w.subgoal is None else SUBGOAL_NAMES.index(w.subgoal) for w in whens])
        self._carrying = codes([when.carrying for when in whens])
        self._door = codes([when.door_unlocked for when in whens])
        self._step = codes([when.step for when in whens])
        self._event = np.array([0 if when.event is None else EVENT_NAMES.index(when.event) for when in whens])
        self._steps = np.array([NEVER + 1 if when.steps is None else when.steps for when in whens])

    def find_open(self, now: Situation) -> np.ndarray:
        """Return which rows (P, M) are changed, bool."""
        condition = now.condition

        def holds(table: np.ndarray, value: np.ndarray) -> np.ndarray:
            wanted = table[condition]
            return (wanted == _ANY) | (wanted == value)

        since = np.take_along_axis(now.since, self._event[condition][..., None], axis=-1)[..., 0]
        return (
            holds(self._subgoal, now.subgoal)
            & holds(self._carrying, now.carrying)
            & holds(self._door, now.door_unlocked)
            & holds(self._step, now.t_step)
            & (since < self._steps[condition])
        )


def count_since(since: np.ndarray, event: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return steps since each event at the next step of some rows.

    Args:
        since: (..., events) int32 at the step before.
        event: (...) code of what the last action brought about.
        start: (...) bool, an episode begins.
    """
    counted = np.minimum(since + 1, NEVER)
    counted[start] = NEVER
    happened = (event > 0) & ~start
    rows = np.nonzero(happened)
    counted[(*rows, event[rows])] = 0
    return counted.astype(np.int32)
