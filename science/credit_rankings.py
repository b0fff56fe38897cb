"""Do usage and single knock-outs say who does the work? Both against Shapley values, for `science/shapley.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from science.games import Game
from science.profiles import to_unit
from science.result import NAN, Draft
from science.statistics.association import partial_spearman
from science.statistics.nulls import p_value
from science.traces import Run

LEAST_WORTH = 0.05
"""Nats below which shares of worth are not told."""

MIN_PLAYERS = 3
"""Below which nothing is ranked."""


def add_rankings(draft: Draft, game: Game, usage: np.ndarray, rng: np.random.Generator, draws: int) -> None:
    """Add redundancy, and how credit goes with single knock-outs and with usage.

    Args:
        draft: Gets rows.
        game: Of a task and setting.
        usage: (R, N), mean weight of each player.
        rng: Draws the null.
        draws: How many.
    """
    credit, alone = (np.nanmean(values[:, :, 0], axis=1) for values in (game.credit("ce"), game.alone()))
    worth = credit.sum(axis=1)
    little = ["" if value >= LEAST_WORTH else f"worth below {LEAST_WORTH:g} nats" for value in worth]
    share = np.where(worth >= LEAST_WORTH, np.where(worth > 0, worth, 1), NAN)
    draft.over_runs("redundancy", 1 - alone.sum(axis=1) / share, game.runs, reasons=little, **game.columns)
    made_up = game.made_up.sum(axis=1) / share
    if np.isfinite(made_up).any():
        draft.over_runs("redistributed", made_up, game.runs, reasons=little, tested=False, **game.columns)
    if len(game.players) < MIN_PLAYERS:
        draft.note(f"{game.where}: {len(game.players)} experts that are no skip: {MIN_PLAYERS} or more can be ranked")
        return
    limits = {"limits": (-1, 1), **game.columns}
    flat = np.ptp(credit, axis=1) < 1e-12
    reasons = ["no expert has more credit than another" if one else "" for one in flat]
    values = rank_rows(alone, credit)
    draft.over_runs("knockout_credit", values, game.runs, reasons=reasons, **limits)
    layers = np.array([layer for layer, _ in game.players])
    add_usage(draft, game.runs, usage, credit, layers, game.sizes, rng, draws, **limits)


def add_usage(
    draft: Draft,
    runs: Sequence[Run],
    usage: np.ndarray,
    credit: np.ndarray,
    layers: np.ndarray,
    sizes: np.ndarray,
    rng: np.random.Generator,
    draws: int,
    **columns: Any,
) -> None:
    """Add usage_credit, of usage and credit (R, N) of experts of some layers and sizes, with its null."""
    values = rank_rows(usage, credit)
    known = np.isfinite(values)
    reasons = ["" if one else "no traces, or no expert differs from another" for one in known]
    under = np.full((draws, len(runs)), NAN)
    for draw in range(draws):
        order = np.lexsort((rng.random(usage.shape), np.broadcast_to(layers, usage.shape)), axis=1)
        under[draw] = rank_rows(np.take_along_axis(usage, order, axis=1), credit)
    has = draws and known.any()
    null = np.where(known, np.nan_to_num(under).mean(axis=0), NAN) if has else NAN
    draft.over_runs(
        "usage_credit",
        values,
        runs,
        reasons=reasons,
        null=null,
        p_null=p_value(float(values[known].mean()), under[:, known].mean(axis=1)) if has else NAN,
        p_null_floor=1 / (1 + draws),
        null_unit="experts",
        twin="credit",
        **columns,
    )
    given = np.full(len(runs), NAN)
    if len(np.unique(sizes)) > 1:
        for row in np.flatnonzero(known):
            given[row] = partial_spearman(usage[row], credit[row], sizes.astype(np.float64))
        draft.over_runs("usage_credit_given_size", given, runs, reasons=reasons, **columns)


def rank_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each row of x with that of y, both (R, N); NaN where either is constant."""
    from scipy.stats import rankdata  # takes 0.4 s

    def rank(values: np.ndarray) -> np.ndarray:
        varied = np.isfinite(values).all(axis=1) & (np.ptp(np.nan_to_num(values), axis=1) > 1e-12)
        return np.where(varied[:, None], to_unit(rankdata(np.nan_to_num(values), axis=1)), NAN)

    return (rank(x) * rank(y)).sum(axis=1)
