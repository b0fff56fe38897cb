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
    """Return from which update on each row of values (R, U) stays at or above its threshold (R,); NaN never.

    Between two updates it is read on a logarithmic scale; the first one if it is there from the start.
    """
    found = np.full(len(values), NAN)
    for row, (own, threshold) in enumerate(zip(values, thresholds, strict=True)):
        below = np.flatnonzero(~(own >= threshold))
        if not len(below):
            found[row] = updates[0]
        elif below[-1] < len(updates) - 1:
            low, high = own[below[-1]], own[below[-1] + 1]
            ends = np.log(updates[below[-1] : below[-1] + 2])
            share = (threshold - low) / (high - low) if high > low else 1.0
            found[row] = np.exp(ends[0] + share * (ends[1] - ends[0]))
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
    ends = np.concatenate([[0.0], updates.astype(np.float64)])
    after = np.searchsorted(ends, np.nan_to_num(found, nan=1.0) * (1 - 1e-9))
    each = [
        (NAN, NAN) if np.isnan(value) else (np.log10(max(ends[place - 1], 1e-300)), np.log10(ends[place]))
        for value, place in zip(found, after, strict=True)
    ]
    why = [reason or ("" if np.isfinite(value) else "never") for reason, value in zip(reasons, found, strict=True)]
    begin = len(draft.rows)
    shared = {"n_episodes": episodes, "tested": False, "estimator": "mean of log10"}
    draft.over_runs(quantity, np.log10(found), runs, reasons=why, each=each, **shared)
    for index in range(begin, len(draft.rows)):
        row = draft.rows[index]
        low = 0.0 if row.low < -200 else 10**row.low
        draft.rows[index] = replace(row, value=10**row.value, low=low, high=10**row.high)


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
