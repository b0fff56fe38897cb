"""Price: which experts are given up as complexity costs more, at what price, and what for?

Prices are compared within a seed, never pooled: across them success and LPC both move, and everything correlates.

- half_price, of each expert: the price at which its usage (mean weight) falls below half of that at price 0. Usage is
  made to fall by isotonic regression over prices, within the seed, and read between two prices on a logarithmic scale.
  Mean and t interval over seeds of log10; the rows hold the price itself. Where usage never falls that far, or already
  does at the smallest price, the seed is censored: as soon as one is, there is no mean but "between a and b" in
  `condition`, and `value` is the median seed's if that is known.
- price_trend: Spearman correlation of price and usage within a seed, of each expert; of LPC (price_trend_of_lpc) and
  success (price_trend_of_success); 0 of a seed in which it is the same at every price. p is the larger of that over
  seeds and of that of prices permuted within seeds, adjusted by Benjamini and Hochberg over experts.
- dead: of each expert and price whether its knock-out is equivalent to nothing: two one-sided tests of its effect on
  cross-entropy within a margin, over seeds and over seeds and levels at once, Holm over all of the setting. Low usage
  does not make an expert dead: a weight of 0.01 on a large output counts.
- collapsed: share of seeds in which a layer's routers do not tell groups apart (no weight in any group is 0.02 from its
  mean), of each layer and price.
- front_lpc, front_success: of each price; a single run's success has Wilson's interval over its episodes.
- hypervolume: of the front of a seed over all prices, of seeds that have them all: the area of success and cheapness
  that some price dominates, from success 0 and 1.1 times the greatest LPC of all, as a share of the whole (Zitzler and
  Thiele 1998, PPSN V). At the greatest itself the dearest policy would span nothing however well it does.
- hypervolume_above_baseline: minus that of the baselines of the same seed, of seeds that have them all. A baseline is
  matched with a path of the policy on active parameters, routers' included, and stands at the LPC of that path. The
  square of its own hidden size is no cost in the same unit, for LPC leaves out what routers cost.
- dial_gap: minus that of the dial, which turns the weights of the policy trained at price 0, w' ~ w exp(-lambda cost),
  and retrains nothing: what training under prices bought beyond what gating alone gives.

Known answer: planted sigmoids, whose half price is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from science.effects import Effects
from science.fronts import FrontPoint, Grid, add_fronts, build_grid, without_price
from science.knockouts import MARGIN, find_knockouts
from science.profiles import find_unusable
from science.result import NAN, Draft, Result, larger
from science.statistics.inference import adjust, compare_over_both, compare_with_margin
from science.statistics.nulls import p_value
from science.traces import Traces, collapsed_layers, group_means

QUANTITIES = {
    "half_price": "price that halves usage",
    "price_trend": "rank correlation of price and usage",
    "price_trend_of_lpc": "rank correlation of price and LPC",
    "price_trend_of_success": "rank correlation of price and success",
    "collapsed": "share of runs whose layer has collapsed",
    "front_lpc": "LPC",
    "front_success": "success",
    "hypervolume": "hypervolume of success against LPC",
    "hypervolume_above_baseline": "hypervolume above the dense baselines'",
    "dial_gap": "hypervolume above the dial's",
    "dead": "knock-out equivalent to nothing",
}
"""What each quantity is, for an axis."""

MIN_USAGE = 0.05
"""An expert that has less at price 0 is not used, so that there is nothing to be given up."""


def compute(
    traces: Traces,
    *,
    by: str = "level_subgoal",
    effects: Effects | None = None,
    baselines: Iterable[FrontPoint] = (),
    margin: float = MARGIN,
    draws: int = 999,
    seed: int = 0,
) -> Result:
    """Return what prices do in each task; see the module.

    Args:
        traces: Runs of several prices, each seed at each price; success and LPC are read from them as they are.
        by: Group of steps, for collapsed layers.
        effects: Knock-outs.
        baselines: Dense policies of several sizes and seeds.
        margin: Of equivalence, nats.
        draws: Of the null.
        seed: Of everything drawn.
    """
    draft = Draft("price", __doc__ or "")
    for task in dict.fromkeys(run.task for run in traces.runs):
        inside = traces.select([i for i, run in enumerate(traces.runs) if run.task == task])
        _collapsed(draft, inside, by)
        grid = build_grid(draft, inside)
        if grid is not None:
            rng = np.random.default_rng(seed)
            _half_prices(draft, grid)
            _trends(draft, grid, rng, draws)
            add_fronts(draft, grid, list(baselines), effects)
    for cell in [] if effects is None else effects.cells():
        _dead(draft, cell, margin)
    return draft.finish()


# -------------------------------------------------------------------------------------------------------- half price


def find_half_price(alphas: np.ndarray, usage: np.ndarray) -> tuple[float, float]:
    """Return between which prices usage falls below half of that at the first one, which is 0.

    Equal ends: read between two prices above 0. (0, a): it has already fallen at the smallest price a; (a, inf): it has
    not at the greatest.

    Args:
        alphas: (P,), ascending, from 0.
        usage: (P,), finite.
    """
    from scipy.optimize import isotonic_regression  # takes 0.2 s

    fitted = isotonic_regression(usage, increasing=False).x
    below = np.flatnonzero(fitted <= fitted[0] / 2)
    if not len(below):
        return float(alphas[-1]), float("inf")
    place = int(below[0])
    if place <= 1:
        return (0.0, float(alphas[1])) if fitted[1] < fitted[0] / 2 else (float(alphas[1]),) * 2
    x, y = np.log10(alphas[place - 1 : place + 1]), fitted[place - 1 : place + 1]
    found = float(10 ** (x[0] + (y[0] - fitted[0] / 2) / (y[0] - y[1]) * (x[1] - x[0])))
    return found, found


def _half_prices(draft: Draft, grid: Grid) -> None:
    from pipeline.records.intervals import mean_interval

    if grid.alphas[0] != 0:
        draft.note(f"{grid.task}: half prices need price 0, found {grid.alphas[0]:g} as the smallest: no value")
        return
    for k, (layer, expert) in enumerate(zip(grid.layers.tolist(), grid.experts.tolist(), strict=True)):
        ends, reasons = np.full((len(grid.runs), 2), NAN), [""] * len(grid.runs)
        for n, usage in enumerate(grid.usage[:, :, k]):
            if not np.isfinite(usage).all():
                reasons[n] = "not at every price"
            elif usage[0] < MIN_USAGE:
                reasons[n] = f"usage below {MIN_USAGE:g} at price 0"
            else:
                ends[n] = find_half_price(grid.alphas, usage)
        for run, (low, high), reason in zip(grid.runs, ends, reasons, strict=True):
            value = low if low == high else NAN
            draft.add(
                "half_price",
                value,
                low=low,
                high=high,
                task=grid.task,
                seed=run.seed,
                layer=layer,
                expert=expert,
                n_runs=int(np.isfinite(low)),
                n_dropped=int(np.isnan(low)),
                drop_reason=reason,
                n_episodes=grid.episodes,
            )
        known = ends[np.isfinite(ends[:, 0])]
        shared = {
            "unit": "runs",
            "task": grid.task,
            "layer": layer,
            "expert": expert,
            "n_runs": len(known),
            "n_dropped": len(ends) - len(known),
            "n_episodes": grid.episodes,
            "drop_reason": "; ".join(sorted({r for r in reasons if r})),
        }
        if not len(known):
            draft.add("half_price", NAN, **shared)
        elif (known[:, 0] == known[:, 1]).all():
            found = mean_interval(np.log10(known[:, 0]))
            draft.add(
                "half_price", 10**found.mean, low=10**found.low, high=10**found.high, estimator="t of log10", **shared
            )
        else:
            middle = np.sort(known.mean(axis=1))[len(known) // 2] if len(known) % 2 else NAN
            low, high = float(known[:, 0].min()), float(known[:, 1].max())
            exact = np.isfinite(middle) and any(a == b == middle for a, b in known)
            draft.add(
                "half_price",
                middle if exact else NAN,
                low=low,
                high=high,
                estimator="censored",
                condition=f"between {low:g} and {high:g}",
                **shared,
            )


# ------------------------------------------------------------------------------------------------------------ trends


def _trends(draft: Draft, grid: Grid, rng: np.random.Generator, draws: int) -> None:
    for k, (layer, expert) in enumerate(zip(grid.layers.tolist(), grid.experts.tolist(), strict=True)):
        add_trend(
            draft,
            grid,
            "price_trend",
            grid.usage[:, :, k],
            rng,
            draws,
            layer=layer,
            expert=expert,
            family=f"price_trend, {grid.task}",
        )
    add_trend(draft, grid, "price_trend_of_lpc", grid.lpc, rng, draws, twin="dial_gap")
    add_trend(draft, grid, "price_trend_of_success", grid.success, rng, draws)


def add_trend(
    draft: Draft, grid: Grid, quantity: str, values: np.ndarray, rng: np.random.Generator, draws: int, **columns: Any
) -> None:
    """Add the rank correlation of values (N, P) with price within seeds."""
    from scipy.stats import rankdata

    if len(grid.alphas) < 3:
        draft.note(f"{grid.task}: trends need three prices, found {len(grid.alphas)}: no value")
        return
    whole = np.isfinite(values).all(axis=1)
    varied = whole & (np.ptp(np.where(whole[:, None], values, 0.0), axis=1) > 0)
    each, null = (
        np.where(whole, 0.0, NAN),
        np.zeros(draws if whole.any() else 0),
    )  # where nothing varies, there is no trend: 0
    if varied.any():
        ranks = rankdata(values[varied], axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        price = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
        scale = np.sqrt(np.square(ranks).sum(axis=1) * np.square(price).sum())
        each[varied] = ranks @ price / scale
        order = rng.permuted(np.tile(price, (draws, len(ranks), 1)), axis=2)
        null = (np.einsum("dnp,np->dn", order, ranks) / scale).sum(axis=1) / whole.sum()
    p = p_value(float(np.nanmean(each)) if whole.any() else NAN, null)
    draft.over_runs(
        quantity,
        each,
        [without_price(run) for run in grid.runs],
        reasons=["" if w else "not at every price" for w in whole],
        p_null=p,
        p_null_floor=1 / (1 + draws),
        null_unit="prices",
        limits=(-1, 1),
        n_episodes=grid.episodes,
        **columns,
    )


# --------------------------------------------------------------------------------------------------- dead, collapsed


def _dead(draft: Draft, cell: Effects, margin: float) -> None:
    found = []
    for (layer, expert), condition in sorted(find_knockouts(cell).items()):
        test = compare_with_margin(cell.per_run("ce", condition), margin)
        both = compare_over_both(cell.by_level("ce", condition))
        found.append((layer, expert, condition, test, larger(test.p, both.within(margin))))
    adjusted = adjust(np.array([p for *_, p in found]), "holm")
    for (layer, expert, condition, test, raw), p in zip(found, adjusted, strict=True):
        word = "no test" if np.isnan(p) else "dead" if p <= 0.05 else "not shown to be dead"
        draft.add(
            "dead",
            float(p <= 0.05) if np.isfinite(p) else NAN,
            unit="runs",
            task=cell.runs[0].task,
            setting=cell.runs[0].setting,
            layer=layer,
            expert=expert,
            low=test.low,
            high=test.high,
            p=raw,
            p_adjusted=float(p),
            estimator=f"{word}: effect within {margin:g} nats, 90 % interval",
            condition=cell.conditions[condition].name,
            n_runs=test.n,
            n_dropped=len(cell.runs) - test.n,
        )


def _collapsed(draft: Draft, traces: Traces, by: str) -> None:
    for cell in traces.cells():
        group = cell.group(by)
        means, episodes = group_means(cell, group.codes, len(group.names))
        usable = [i for i in range(len(cell.runs)) if i not in find_unusable(cell)]
        used = (episodes[usable] > 0).all(axis=0) if usable else np.zeros(len(group.names), bool)
        where = f"{cell.runs[0].task}, {cell.runs[0].setting}"
        if used.sum() < 2:
            draft.note(f"{where}: whether layers have collapsed needs two groups of {by}, found {used.sum()}: no value")
            continue
        share = collapsed_layers(means[np.ix_(usable, np.flatnonzero(used))]).astype(np.float64)
        for layer in range(share.shape[1]):
            draft.over_runs(
                "collapsed",
                share[:, layer],
                [cell.runs[i] for i in usable],
                layer=layer,
                group=by,
                tested=False,
                condition=f"alpha {cell.runs[0].lpc_alpha:g}",
            )
