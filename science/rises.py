"""From which update on a quantity has risen for good, of each run, and the mean over runs of its logarithm.

find_rises(updates, values, thresholds)         # values (R, U) of runs at updates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from science.result import NAN, Draft
from science.traces import Run


def find_rises(updates: np.ndarray, values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the first update from which on each row of values (R, U) stays at or above its threshold (R,); NaN none.

    Nothing is read between two updates: a chord lies below a curve that flattens, so that the later in its rise a
    quantity has its threshold, the later it would seem to be.
    """
    found = np.full(len(values), NAN)
    for row, (own, threshold) in enumerate(zip(values, thresholds, strict=True)):
        below = np.flatnonzero(~(own >= threshold))
        first = below[-1] + 1 if len(below) else 0
        if first < len(updates):
            found[row] = updates[first]
    return found


def add_rise(
    draft: Draft,
    quantity: str,
    found: np.ndarray,
    updates: np.ndarray,
    runs: Sequence[Run],
    reasons: Sequence[str],
    episodes: int,
) -> None:
    """Add times (R,), and their mean over runs, of log10; a run's interval are the two updates between which it is."""
    before = np.concatenate([[0.0], updates.astype(np.float64)])
    why = [reason or ("" if np.isfinite(value) else "never") for reason, value in zip(reasons, found, strict=True)]
    begin = len(draft.rows)
    draft.over_runs(
        quantity, np.log10(found), runs, reasons=why, n_episodes=episodes, tested=False, estimator="mean of log10"
    )
    for index, value in enumerate(found, begin):
        low = NAN if np.isnan(value) else float(before[np.searchsorted(updates, value)])
        draft.rows[index] = replace(draft.rows[index], value=float(value), low=low, high=float(value))
    for index in range(begin + len(found), len(draft.rows)):
        row = draft.rows[index]
        draft.rows[index] = replace(row, value=10**row.value, low=10**row.low, high=10**row.high)


def add_lead(
    draft: Draft,
    first: tuple[np.ndarray, Sequence[str]],
    second: tuple[np.ndarray, Sequence[str]],
    runs: Sequence[Run],
    episodes: int,
) -> None:
    """Add rise_lead: by how many doublings of updates the first times (R,) come before the second ones.

    Args:
        draft: Gets the rows.
        first: Times, and why a run has none.
        second: Likewise.
        runs: R.
        episodes: That they are of.
    """
    reasons = [a or b for a, b in zip(first[1], second[1], strict=True)]
    draft.over_runs("rise_lead", np.log2(second[0] / first[0]), runs, reasons=reasons, n_episodes=episodes)
