"""What is handed over in training: a quantity at its peak minus that at the end, by the difficulty of levels.

add_handover(draft, "handover", lpc, difficulty, runs, rng, draws=199)         # lpc (R, U, N) of runs, updates, levels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from science.result import Draft
from science.statistics.nulls import p_value
from science.traces import Run

MOST_BINS = 8
MIN_BIN = 6
"""Levels in a bin."""


def add_handover(
    draft: Draft,
    quantity: str,
    table: np.ndarray,
    difficulty: np.ndarray,
    runs: Sequence[Run],
    rng: np.random.Generator,
    draws: int,
) -> None:
    """Add how what is handed over goes with difficulty, and of LPC how much it is.

    Args:
        draft: Gets the rows.
        quantity: handover, of LPC, or handover_of_need.
        table: (R, U, N), of each run, update and level; NaN for levels without.
        difficulty: (N,).
        runs: R.
        rng: Draws halves and permutations.
        draws: Of the null.
    """
    known = np.flatnonzero(np.isfinite(table).all(axis=(0, 1)))
    table, difficulty = table[..., known], difficulty[known]
    bins = min(MOST_BINS, len(known) // MIN_BIN)
    if bins < 3 or len(np.unique(difficulty)) < 3:
        draft.note(
            f"{runs[0].task}, {runs[0].setting}: {quantity} needs {3 * MIN_BIN} levels of three lengths or more, found "
            f"{len(known)} of {len(np.unique(difficulty))}: no value"
        )
        return
    ties, toss = rng.random((2, len(known)))

    def correlate(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rank = np.lexsort((ties, values))
        place = np.empty(len(rank), np.int64)
        place[rank] = np.arange(len(rank)) * bins // len(rank)
        handed = find_handover(table, place, toss, bins)
        mean = np.bincount(place, values, bins) / np.bincount(place, minlength=bins)
        return handed, correlate_ranks(handed, mean)

    handed, found = correlate(difficulty)
    null = np.array([correlate(rng.permutation(difficulty))[1].mean() for _ in range(draws)])
    shared: dict[str, Any] = {"n_episodes": len(known), "group": f"{bins} bins of levels"}
    if quantity == "handover":
        draft.over_runs("handover_size", handed.mean(axis=1), runs, tested=False, twin="handover_of_need", **shared)
    draft.over_runs(
        quantity,
        found,
        runs,
        p_null=p_value(float(found.mean()), null),
        p_null_floor=1 / (1 + draws),
        null_unit="levels",
        limits=(-1, 1),
        twin="handover_of_need" if quantity == "handover" else "",
        **shared,
    )


def find_handover(table: np.ndarray, place: np.ndarray, toss: np.ndarray, bins: int) -> np.ndarray:
    """Return the value at its peak minus that at the end, (R, B).

    The peak is located on one half of each bin's levels and read on the other, both ways.

    Args:
        table: (R, U, N).
        place: int (N,), bin of each level; two levels or more in each.
        toss: (N,), random numbers by which a bin is halved.
        bins: B.
    """
    halves = np.empty(len(place), np.int64)
    halves[np.lexsort((toss, place))] = np.arange(len(place)) % 2
    means = []
    for half in range(2):
        member = ((place == np.arange(bins)[:, None]) & (halves == half)).astype(np.float64)
        means.append(table @ (member / member.sum(axis=1, keepdims=True)).T)  # (R, U, B)
    parts = []
    for located, read in (means, means[::-1]):
        peak = located.argmax(axis=1)[:, None]
        parts.append(np.take_along_axis(read, peak, axis=1)[:, 0] - read[:, -1])
    return (parts[0] + parts[1]) / 2


def correlate_ranks(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each row of values (R, B) with other (B,); 0 of a constant row."""
    from scipy.stats import rankdata

    ranks, wanted = rankdata(values, axis=1), rankdata(other)
    ranks, wanted = ranks - ranks.mean(axis=1, keepdims=True), wanted - wanted.mean()
    scale = np.sqrt(np.square(ranks).sum(axis=1) * np.square(wanted).sum())
    return np.where(scale > 0, ranks @ wanted / np.where(scale > 0, scale, 1.0), 0.0)
