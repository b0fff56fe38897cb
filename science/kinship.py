"""Matrices of how alike levels are, and what two of them have in common: Mantel's test; `science.similarity` asks.

add_mantel(draft, "route_like_task", route, task, runs, rng, draws=999)       # route (N, G, G), task (G, G)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from science.levels import FEWEST, permute_levels, widen
from science.result import NAN, Draft, Row
from science.statistics.information import entropy
from science.statistics.nulls import p_value
from science.traces import Run


def find_route(paths: np.ndarray) -> np.ndarray:
    """Return K_route (N, G, G), 1 - JSD in bits, of mixtures of paths (N, G, P)."""
    own = entropy(paths)
    found = np.empty((*paths.shape[:2], paths.shape[1]))
    for level in range(paths.shape[1]):
        both = (paths + paths[:, level : level + 1]) / 2
        found[:, :, level] = 1 - (entropy(both) - (own + own[:, level : level + 1]) / 2)
    return np.clip(found, 0, 1)


def find_cosine(mixes: np.ndarray) -> np.ndarray:
    """Return the cosine (G, G) of mixes (G, X); NaN of one that is empty."""
    length = np.sqrt(np.square(mixes).sum(axis=1))
    unit = mixes / np.where(length > 0, length, NAN)[:, None]
    return np.clip(unit @ unit.T, 0, 1)


def compare_levels(matrices: np.ndarray) -> np.ndarray:
    """Return the mean over runs (G, G) of matrices (N, G, G); NaN where no run has a value."""
    known = np.isfinite(matrices)
    return np.where(known.any(axis=0), np.where(known, matrices, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), NAN)


def pair_seeds(runs: Sequence[Run], others: Sequence[Run], values: np.ndarray) -> np.ndarray:
    """Return values (M, ...) of other runs in the order of runs of the same seeds, (N, ...); NaN where none has it."""
    place = {run.seed: index for index, run in enumerate(others)}
    found = np.full((len(runs), *values.shape[1:]), NAN)
    for index, run in enumerate(runs):
        if run.seed in place:
            found[index] = values[place[run.seed]]
    return found


# ------------------------------------------------------------------------------------------------------------ Mantel


def _pairs(number: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(number, 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return centred ranks along the last axis, scaled to length 1; NaN where all are alike."""
    from scipy.stats import rankdata  # takes 0.4 s

    ranks = rankdata(values, axis=-1)
    ranks = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(ranks).sum(axis=-1, keepdims=True))
    return ranks / np.where(length > 1e-9, length, NAN)


def compare_pairs(first: np.ndarray, second: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """Return Spearman's correlation over pairs of levels of matrices (..., G, G), given a third one if there is one."""
    return _correlate(*(None if matrix is None else _rank_pairs(matrix) for matrix in (first, second, given)))


def _rank_pairs(matrix: np.ndarray) -> np.ndarray:
    at = _pairs(matrix.shape[-1])
    return _ranks(matrix[..., at[0], at[1]])


def _correlate(a: np.ndarray, b: np.ndarray, c: np.ndarray | None) -> np.ndarray:
    found = (a * b).sum(axis=-1)
    if c is None:
        return found
    ac, bc = (a * c).sum(axis=-1), (b * c).sum(axis=-1)
    rest = (1 - ac**2) * (1 - bc**2)
    return np.where(rest > 1e-9, (found - ac * bc) / np.sqrt(np.where(rest > 1e-9, rest, 1.0)), NAN)


def permute_matrix(matrix: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return a matrix (..., G, G) with rows and columns in another order int (G,)."""
    return matrix[..., order[:, None], order]


def add_mantel(
    draft: Draft,
    quantity: str,
    own: np.ndarray,
    other: np.ndarray,
    runs: Sequence[Run],
    rng: np.random.Generator,
    draws: int,
    *,
    minus: np.ndarray | None = None,
    given: np.ndarray | None = None,
    **columns: object,
) -> Row:
    """Add Mantel's correlation of each run's matrix with another, and its mean with p over runs and over levels.

    Args:
        draft: Gets the rows.
        quantity: Its name.
        own: (N, G, G); NaN: the run has no value.
        other: (G, G), or (N, G, G), whose levels are permuted, in all runs alike.
        runs: N.
        rng: Draws the null.
        draws: Of it.
        minus: (N, G, G), whose correlation with `other` is subtracted.
        given: (G, G), partialled out; it keeps its place beside `own`.
        columns: Of `Row`.
    """
    levels = own.shape[-1]
    enough = levels >= FEWEST
    fixed = [None if matrix is None or not enough else _rank_pairs(matrix) for matrix in (own, given, minus)]

    def find(matrix: np.ndarray) -> np.ndarray:
        against = _rank_pairs(matrix)
        found = _correlate(fixed[0], against, fixed[1])
        return found if minus is None else found - _correlate(fixed[2], against, fixed[1])

    each = np.broadcast_to(find(other), (len(runs),)).copy() if enough else np.full(len(runs), NAN)
    known = np.isfinite(each)
    order = permute_levels(levels, draws, rng) if enough and known.any() else np.zeros((0, levels), np.int64)
    under = np.array([find(permute_matrix(other, o))[known].mean() for o in order])
    without = []
    for level in range(levels if len(order) else 0):
        kept = np.ix_(*[np.flatnonzero(np.arange(levels) != level)] * 2)
        cut = [None if matrix is None else matrix[(..., *kept)] for matrix in (own, other, given, minus)]
        found = compare_pairs(cut[0], cut[1], cut[2])
        found = found if minus is None else found - compare_pairs(cut[3], cut[1], cut[2])
        without.append(np.broadcast_to(found, (len(runs),))[known].mean())
    reason = "no value, or the same for all pairs" if enough else f"{levels} levels, fewer than {FEWEST}"
    draft.over_runs(
        quantity,
        each,
        runs,
        reasons=["" if ok else reason for ok in known],
        p_null=p_value(float(each[known].mean()) if known.any() else NAN, under),
        p_null_floor=1 / (1 + len(order)),
        null_unit="levels",
        n_levels=levels,
        **columns,
    )
    return widen(draft, each, np.array(without), (-1, 1) if minus is None else (-2, 2))


# ------------------------------------------------------------------------------------------------------------- reuse


def find_relatives(related: np.ndarray) -> np.ndarray:
    """Return which trained levels are the relatives of each held-out one, bool (H, G): the most alike, ties and all."""
    return related >= np.nanmax(related, axis=1, keepdims=True) - 1e-9


def compare_relatives(route: np.ndarray, relatives: np.ndarray) -> np.ndarray:
    """Return the mean over held-out levels of likeness (N, H, G) to relatives (H, G) minus to others, (N,)."""
    own = (route * relatives).sum(axis=2) / relatives.sum(axis=1)
    others = (~relatives).sum(axis=1)
    rest = (route * ~relatives).sum(axis=2) / np.where(others > 0, others, NAN)
    gain = own - rest
    known = others > 0
    return gain[:, known].mean(axis=1) if known.any() else np.full(len(route), NAN)


def add_reuse(
    draft: Draft,
    quantity: str,
    route: np.ndarray,
    relatives: np.ndarray,
    runs: Sequence[Run],
    rng: np.random.Generator,
    draws: int,
) -> Row:
    """Add how much more alike held-out levels (N, H, G) are to their relatives than to other trained ones.

    Null: trained levels are permuted, in all runs and for all held-out levels alike.
    """
    held_out, levels = relatives.shape
    enough = levels >= FEWEST
    each = compare_relatives(route, relatives) if enough else np.full(len(runs), NAN)
    known = np.isfinite(each)
    order = permute_levels(levels, draws, rng) if enough and known.any() else np.zeros((0, levels), np.int64)
    under = np.array([compare_relatives(route[known], relatives[:, o]).mean() for o in order])
    columns = np.unique(relatives, axis=1, return_counts=True)[1]  # levels that are relatives of the same are alike
    ways = math.exp(math.lgamma(levels + 1) - sum(math.lgamma(count + 1) for count in columns))
    reason = "every trained level is a relative" if enough else f"{levels} trained levels, fewer than {FEWEST}"
    row = draft.over_runs(
        quantity,
        each,
        runs,
        reasons=["" if ok else reason for ok in known],
        p_null=p_value(float(each[known].mean()) if known.any() else NAN, under),
        p_null_floor=max(1 / (1 + len(order)), 1 / ways),
        null_unit="levels",
        n_levels=held_out,
        condition=f"{held_out} held out, {levels} trained",
    )
    if held_out < 3 or not known.any():  # of these held-out levels
        return row
    kept = [np.arange(held_out) != level for level in range(held_out)]
    without = [compare_relatives(route[known][:, k], relatives[k]).mean() for k in kept]
    return widen(draft, each, np.array(without))
