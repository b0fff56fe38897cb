"""Do runs give the same experts the credit for the same subgoals, on other levels? For `science/shapley.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.records.intervals import mean_interval
from science.agreement import MAX_EXCHANGES, SPLITS, find_null
from science.profiles import correlate, mean_over_pairs
from science.result import NAN, Draft, larger
from science.statistics.nulls import p_value
from science.traces import Run


def add_consistency(
    draft: Draft,
    runs: Sequence[Run],
    credit: np.ndarray,
    blocks: list[list[int]],
    rng: np.random.Generator,
    draws: int,
    columns: dict[str, Any],
) -> None:
    """Add credit_consistency, of credit by level (R, G, X, N), NaN where a level has no step of a group."""
    where = f"{runs[0].task}, {runs[0].setting}"
    profiles = _mean_levels(credit, np.ones(credit.shape[1], bool))
    flat = ~(np.square(center(profiles)).sum(axis=(1, 2)) > 1e-16) if profiles.shape[1] else np.ones(len(runs), bool)
    kept = np.flatnonzero(~flat)
    for run in np.flatnonzero(flat):
        draft.drop(runs[run], "no expert has more credit for one subgoal than for another", "credit_consistency")
    if len(kept) < 2 or profiles.shape[1] < 2:
        draft.note(f"{where}: credit_consistency needs two runs and two subgoals: no value")
        return
    profiles, credit = profiles[kept], credit[kept]
    halves = [rng.permutation(credit.shape[1]) % 2 == 0 for _ in range(SPLITS)]
    matrix = _correlate_halves(credit, blocks, halves)
    shared = {"n_dropped": int(flat.sum()), "task": runs[0].task, "setting": runs[0].setting, **columns}
    if matrix is not None:
        p, floor, _ = find_null(center(profiles), blocks, matrix, rng, draws)
        under = np.array(list(_draw_levels(credit, profiles, blocks, halves, rng, min(draws, MAX_EXCHANGES))))
        about = {"unit": "runs+groups+levels", "p_floor": max(floor, 1 / (1 + len(under))), "twin": "usage_credit"}
        about |= {"null_mean": float(under.mean()) if len(under) else NAN}
        p = larger(p, p_value(mean_over_pairs(matrix)[0], under))
        _add_pairs(draft, "credit_consistency", matrix, [runs[i] for i in kept], p=p, **about, **shared)
    else:
        draft.note(f"{where}: too few levels of some subgoal for halves: credit_consistency has no value")
    matrix = correlate(profiles, blocks)
    _add_pairs(draft, "credit_consistency_raw", matrix, [runs[i] for i in kept], unit="runs", **shared)


def _correlate_halves(credit: np.ndarray, blocks: list[list[int]], halves: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return correlations (R, R) of runs on other levels; None where no half has all subgoals.

    Args:
        credit: (R, G, X, N).
        blocks: Of interchangeable experts.
        halves: bool (G,) each.
    """
    found = []
    for half in halves:
        first, second = (center(_mean_levels(credit, side)) for side in (half, ~half))
        if np.isfinite(first).all() and np.isfinite(second).all():
            found.append(correlate(first, blocks, second))
    matrix = np.mean(found, axis=0) if found else None
    return None if matrix is None else (matrix + matrix.T) / 2


def _draw_levels(
    credit: np.ndarray,
    profiles: np.ndarray,
    blocks: list[list[int]],
    halves: Sequence[np.ndarray],
    rng: np.random.Generator,
    draws: int,
) -> Iterator[float]:
    """Yield the mean over pairs where profiles are each run's own, and levels act on all runs as they do."""
    own, of_level = center(profiles), credit - profiles[:, None]
    rest = profiles - own
    for _ in range(draws):
        order = rng.permuted(np.tile(np.arange(own.shape[1]), (len(own), 1)), axis=1)
        exchanged = rest + np.take_along_axis(own, order[:, :, None], axis=1)
        signs = rng.choice([-1.0, 1.0], credit.shape[1])[None, :, None, None]
        matrix = _correlate_halves(exchanged[:, None] + signs * of_level, blocks, halves)
        yield NAN if matrix is None else mean_over_pairs(matrix)[0]


def _mean_levels(credit: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return means over some levels (R, X, N); NaN of a group that none has."""
    inside = credit[:, levels]
    known = np.isfinite(inside)
    return np.where(known.any(axis=1), np.nansum(inside, axis=1) / np.maximum(known.sum(axis=1), 1), NAN)


def center(profiles: np.ndarray) -> np.ndarray:
    """Return what neither group nor expert says of profiles (R, X, N), nor the product of their effects."""
    mean = profiles.mean(axis=(1, 2), keepdims=True)
    of_group = profiles.mean(axis=2, keepdims=True) - mean
    of_expert = profiles.mean(axis=1, keepdims=True) - mean
    rest, product = profiles - mean - of_group - of_expert, of_group * of_expert
    length = np.square(product).sum(axis=(1, 2), keepdims=True)
    share = (rest * product).sum(axis=(1, 2), keepdims=True) / np.where(length > 1e-300, length, 1.0)
    return rest - share * product


def _add_pairs(
    draft: Draft, quantity: str, matrix: np.ndarray, runs: Sequence[Run], *, p: float = NAN, **columns: Any
) -> None:
    value, each, pseudo = mean_over_pairs(matrix)
    for run, one in zip(runs, each, strict=True):
        own = {"trial": run.trial, "seed": run.seed, "update": run.update, "n_runs": 1}
        known = {key: columns[key] for key in ("task", "setting", "n_levels", "n_episodes") if key in columns}
        draft.add(quantity, one, **own, **known)
    interval = mean_interval(pseudo)
    ends = {"low": max(-1.0, float(interval.low)), "high": min(1.0, float(interval.high))} if len(runs) > 2 else {}
    draft.add(quantity, value, n_runs=len(runs), p=p if len(runs) > 2 else NAN, **ends, **columns)
