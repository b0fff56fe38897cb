"""Rank correlation of two columns with others partialled out, over cells, and its null over episodes.

    found = associate(lpc, behaviour, cells, episodes, {"time": time}, strata, rng)
    found.rho, found.p

Both quantities depend on the time since the start, and means over few steps are extreme in both: so time and visits
are partialled out, and the p value comes from whole episodes exchanged (`science.statistics.nulls`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from science.statistics.nulls import EpisodeBlocks, p_value

MIN_CELLS = 8
"""Cells below which no correlation is told."""


@dataclass(frozen=True)
class Association:
    """A rank correlation over cells.

    Attributes:
        rho: Partial Spearman correlation; NaN if a column is constant or there are too few cells.
        p: Two-sided, from exchanged episodes; NaN without draws.
        null_mean: Mean of the correlation under the null.
        cells: Number of cells.
        covered: Share of the steps in them.
    """

    rho: float
    p: float
    null_mean: float
    cells: int
    covered: float


def partial_spearman(x: np.ndarray, y: np.ndarray, covariates: np.ndarray) -> float:
    """Return the correlation of the ranks of x and y (n,) from which those of covariates (n, K) are regressed out.

    NaN if fewer than K + 3 rows, or if nothing is left of x or y.
    """
    return float(partial_spearman_rows(np.asarray(x)[None], y, covariates)[0])


def partial_spearman_rows(x: np.ndarray, y: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Return `partial_spearman` of each row of x (D, n) with y (n,), float64 (D,)."""
    from scipy.stats import rankdata  # takes 0.4 s

    x = np.asarray(x)
    covariates = np.asarray(covariates, np.float64).reshape(x.shape[1], -1)
    if x.shape[1] < covariates.shape[1] + 3:
        return np.full(len(x), np.nan)
    basis = np.column_stack([np.ones(x.shape[1]), *(rankdata(column) for column in covariates.T)])
    ranks = np.column_stack([rankdata(y), rankdata(x, axis=1).T])
    rest = ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=None)[0]
    spread = np.sqrt(np.square(rest).sum(axis=0))
    left = spread >= 1e-9 * x.shape[1] ** 1.5
    scale = np.where(left[0] & left[1:], spread[0] * spread[1:], np.nan)
    return rest[:, 0] @ rest[:, 1:] / scale


def associate(
    x: np.ndarray,
    y: np.ndarray | Callable[[np.ndarray], np.ndarray],
    cells: np.ndarray,
    episodes: np.ndarray,
    covariates: Mapping[str, np.ndarray],
    *,
    min_steps: int,
    rng: np.random.Generator,
    draws: int = 199,
    strata: np.ndarray | None = None,
) -> Association:
    """Return how means of x and y over the steps of a cell go together, visits and covariates partialled out.

    Args:
        x: (S,), exchanged under the null; NaN is no value.
        y: (S,), averaged over a cell's steps (NaN is no value); or a function that gets each step's cell, int (S,), -1
            for none, and returns a value for each cell (Z,).
        cells: int (S,), 0 .. Z - 1.
        episodes: int (S,).
        covariates: By name (S,), averaged over a cell's steps.
        min_steps: Cells with fewer steps do not count.
        rng: Draws the null.
        draws: Of the null; 0 for none.
        strata: See `science.statistics.nulls.swap_episodes`.
    """
    cells = np.asarray(cells)
    width = int(cells.max(initial=-1)) + 1
    count = np.bincount(cells[cells >= 0], minlength=width)
    of_cell = y(cells) if callable(y) else _mean_by(np.asarray(y, np.float64), cells, width)
    others = [
        np.log(np.maximum(count, 1)),
        *(_mean_by(np.asarray(c, np.float64), cells, width) for c in covariates.values()),
    ]
    others = np.column_stack(others)
    x = np.asarray(x, np.float64)

    def correlate(values: np.ndarray) -> tuple[float, np.ndarray]:
        mean = _mean_by(values, cells, width)
        used = (count >= min_steps) & np.isfinite(mean) & np.isfinite(of_cell) & np.isfinite(others).all(axis=1)
        return (
            partial_spearman(mean[used], of_cell[used], others[used]) if used.sum() >= MIN_CELLS else float("nan")
        ), used

    rho, used = correlate(x)
    null = []
    if draws and np.isfinite(rho):
        blocks = EpisodeBlocks(episodes, strata)
        null = [correlate(x[swap])[0] for swap in blocks.draws(rng, draws)]
    null = np.array(null, np.float64)
    return Association(
        rho=rho,
        p=p_value(rho, null),
        null_mean=float(np.nanmean(null)) if np.isfinite(null).any() else float("nan"),
        cells=int(used.sum()),
        covered=float(count[used].sum() / max(1, len(cells))),
    )


def _mean_by(values: np.ndarray, cells: np.ndarray, width: int) -> np.ndarray:
    known = np.isfinite(values) & (cells >= 0)
    count = np.bincount(cells[known], minlength=width)
    total = np.bincount(cells[known], values[known], minlength=width)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
