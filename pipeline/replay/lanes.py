"""Which step of which episode stands in which row: a row takes the next episode when it is through with one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Lane(NamedTuple):
    """What stands in M rows at one moment.

    Attributes:
        condition: int64 (M,), 0 where nothing stands.
        step: int64 (M,), number of the step among all, 0 where nothing stands.
        start: bool (M,), an episode begins.
        active: bool (M,), something stands there.
    """

    condition: np.ndarray
    step: np.ndarray
    start: np.ndarray
    active: np.ndarray


def deal_episodes(begins: np.ndarray, conditions: int, rows: int) -> Iterator[Lane]:
    """Yield the moments at which every episode is gone through once under every condition, longest episodes first.

    Args:
        begins: (N + 1,), where each episode begins among the steps.
        conditions: C.
        rows: M.
    """
    lengths = np.diff(begins)
    episodes = np.argsort(-lengths, kind="stable")
    episodes = episodes[lengths[episodes] > 0]
    queue = iter([(condition, episode) for episode in episodes.tolist() for condition in range(conditions)])
    condition, step, left = (np.zeros(rows, np.int64) for _ in range(3))
    start = np.zeros(rows, bool)
    while True:
        for row in np.flatnonzero(left == 0).tolist():
            following = next(queue, None)
            if following is None:
                break
            condition[row], step[row] = following[0], begins[following[1]]
            left[row], start[row] = lengths[following[1]], True
        active = left > 0
        if not active.any():
            return
        yield Lane(np.where(active, condition, 0), np.where(active, step, 0), start.copy(), active)
        start[:] = False
        step[active] += 1
        left[active] -= 1


def deal_steps(starts: np.ndarray, conditions: int, rows: int) -> Iterator[Lane]:
    """Yield the moments at which every step is taken once by itself under every condition.

    Args:
        starts: bool (S,), which steps begin an episode.
        conditions: C.
        rows: M.
    """
    total = len(starts) * conditions
    for begin in range(0, total, rows):
        item = np.arange(begin, begin + rows)
        active = item < total
        step, condition = np.divmod(np.where(active, item, 0), conditions)
        yield Lane(condition, step, starts[step], active)
