"""Runs by level families: what a claim over levels rests on, and its null, in which levels are permuted.

table = lay_out(traces.runs, tasks)                       # which run and level each entry of traces is of
lpc = table.spread(episode_means(traces, traces.lpc))     # (N, G)

A policy that learned several levels is one run; in traces it stands once for each level that it played.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from science.result import NAN, Draft, Row
from science.statistics.inference import compare_over_both
from science.statistics.nulls import p_value
from science.traces import Run, Traces

ALL_TASKS = "all tasks"
"""Stands for the task of what generalises over tasks."""

FEWEST = 5
"""Levels below which no correlation over levels is told: of four, no order at all can be significant."""

ENOUGH = 16
"""Levels below which a note says that they are few."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of values (G,) and difficulties (D, G), (D,)."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Which run and level each entry of a list of runs is of.

    Attributes:
        runs: N runs, each of all tasks.
        tasks: G names.
        place: int (R, 2), run and level of each entry; -1: of another task.
    """

    runs: tuple[Run, ...]
    tasks: tuple[str, ...]
    place: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return values (R, ...) as (N, G, ...), NaN where there is none."""
        values = np.asarray(values, np.float64)
        found = np.full((len(self.runs), len(self.tasks), *values.shape[1:]), NAN)
        used = (self.place >= 0).all(axis=1)
        found[tuple(self.place[used].T)] = values[used]
        return found


def lay_out(runs: Sequence[Run], tasks: Sequence[str]) -> Layout:
    """Return the layout of runs of one setting: those of a seed are one run, on as many levels as there are."""
    seeds = sorted({run.seed for run in runs})
    place = [(seeds.index(run.seed), tasks.index(run.task)) if run.task in tasks else (-1, -1) for run in runs]
    first = {run.seed: replace(run, task=ALL_TASKS) for run in reversed(runs)}
    return Layout(tuple(first[seed] for seed in seeds), tuple(tasks), np.array(place, np.int64).reshape(-1, 2))


def name_run(run: Run) -> dict[str, Any]:
    """Return the columns of a row that name a run."""
    return {name: getattr(run, name) for name in ("task", "setting", "trial", "seed", "update")}


def list_tasks(traces: Traces, held_out: Sequence[str] = ()) -> list[str]:
    """Return the tasks of traces, but those held out, in order of appearance."""
    return [task for task in dict.fromkeys(run.task for run in traces.runs) if task not in held_out]


def settings(traces: Traces) -> list[tuple[str, Traces]]:
    """Return the traces of each setting, over all tasks."""
    names = [run.setting for run in traces.runs]
    return [(name, traces.select([i for i, n in enumerate(names) if n == name])) for name in dict.fromkeys(names)]


def episode_means(traces: Traces, values: np.ndarray, *, used: np.ndarray | None = None, least: int = 1) -> np.ndarray:
    """Return each run's mean of values (S,): steps -> episode -> mean, float64 (R,).

    Args:
        traces: R runs.
        values: Of the steps.
        used: bool (N,), episodes that count; None: all.
        least: Episodes below which there is no mean, NaN.
    """
    episodes = len(traces.episode_run)
    count = np.bincount(traces.episode, minlength=episodes)
    of_episode = np.bincount(traces.episode, values, minlength=episodes) / np.maximum(count, 1)
    kept = (count > 0) & np.isfinite(of_episode)
    kept = kept if used is None else kept & used
    number = np.bincount(traces.episode_run[kept], minlength=len(traces.runs))
    total = np.bincount(traces.episode_run[kept], of_episode[kept], minlength=len(traces.runs))
    return np.where(number >= least, total / np.maximum(number, 1), NAN)


def permute_levels(number: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return orders of levels, int (D, G): all but the given one if there are no more than draws, else drawn ones."""
    if number <= 8 and math.factorial(number) <= draws + 1:
        return np.array(list(itertools.permutations(range(number)))[1:], np.int64).reshape(-1, number)
    return rng.permuted(np.tile(np.arange(number), (draws, 1)), axis=1)


def rank_correlations(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of values (G,) with each row of others (D, G); NaN where one is constant.

    Levels without a value are left out; infinity ranks last.
    """
    from scipy.stats import rankdata  # takes 0.4 s

    known = np.isfinite(values)
    if known.sum() < FEWEST:
        return np.full(len(others), NAN)
    a, b = rankdata(values[known]), rankdata(others[:, known], axis=1)
    a, b = a - a.mean(), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(a).sum() * np.square(b).sum(axis=1))
    return np.where(scale > 0, b @ a / np.where(scale > 0, scale, 1.0), NAN)


def rank_correlations_without(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of values (G,) with another (G,) without each level in turn, (G,).

    They are those of `rank_correlations`, up to rounding; ranks are taken once, not for each level.
    """
    from scipy.stats import rankdata

    found = np.full(len(values), rank_correlations(values, other[None])[0])
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= FEWEST:
        found[known] = NAN
        return found
    rest = ~np.eye(len(known), dtype=bool)
    ranks = []
    for side in (values[known], other[known]):
        above = (side > side[:, None]) + 0.5 * (side == side[:, None])  # what a level's going takes from another's rank
        left = (rankdata(side) - above)[rest].reshape(len(known), -1)
        ranks.append(left - left.mean(axis=1, keepdims=True))
    a, b = ranks
    scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    together = (b[:, None] @ a[:, :, None])[:, 0, 0]
    found[known] = np.where(scale > 0, together / np.where(scale > 0, scale, 1.0), NAN)
    return found


def add_over_levels(
    draft: Draft,
    quantity: str,
    table: np.ndarray,
    difficulty: np.ndarray,
    runs: Sequence[Run],
    rng: np.random.Generator,
    draws: int,
    *,
    statistic: Statistic = rank_correlations,
    **columns: object,
) -> Row:
    """Add how a difficulty goes with values over levels: per run, and its mean with p over runs and over levels.

    Levels are exchanged in all runs alike: what a level does to all of them is no chance that they have each by itself.

    Args:
        draft: Gets the rows.
        quantity: Its name.
        table: (N, G), of runs and levels; NaN no value.
        difficulty: (G,), infinity last; levels of which it is NaN do not count.
        runs: N.
        rng: Draws the null.
        draws: Of it.
        statistic: Gets values (G,) and difficulties (D, G), and returns (D,).
        columns: Of `Row`.
    """
    usable = ~np.isnan(difficulty)
    table, difficulty = table[:, usable], difficulty[usable]
    order = permute_levels(len(difficulty), draws, rng)
    each = np.array([statistic(row, difficulty[None])[0] for row in table])
    known = np.isfinite(each)
    under = np.zeros(0)
    if known.any() and len(order):
        shuffled = difficulty[order]
        under = np.mean([statistic(row, shuffled) for row in table[known]], axis=0)
    without = leave_levels_out(table[known], difficulty, statistic) if known.any() else np.zeros(0)
    levels = np.isfinite(table).sum(axis=1)
    reasons = [
        "" if ok else f"{n} levels with a value, fewer than {FEWEST}" if n < FEWEST else "the same on every level"
        for ok, n in zip(known, levels, strict=True)
    ]
    draft.over_runs(
        quantity,
        each,
        runs,
        reasons=reasons,
        p_null=p_value(float(each[known].mean()) if known.any() else NAN, under),
        p_null_floor=1 / (1 + len(order)),
        null_unit="levels",
        n_levels=int(levels.max(initial=0)),
        **columns,
    )
    return widen(draft, each, without, (-1, 1) if statistic is rank_correlations else (-np.inf, np.inf))


def leave_levels_out(table: np.ndarray, difficulty: np.ndarray, statistic: Statistic) -> np.ndarray:
    """Return the mean over runs of a statistic without each level in turn, (G,).

    Args:
        table: (N, G), of runs and levels.
        difficulty: (G,).
        statistic: See `add_over_levels`.
    """
    levels = range(len(difficulty))
    if statistic is rank_correlations:
        each = np.array([rank_correlations_without(row, difficulty) for row in table])
    else:
        each = np.array(
            [[statistic(np.delete(row, g), np.delete(difficulty, g)[None])[0] for g in levels] for row in table]
        )
    return np.array([np.mean(np.ascontiguousarray(each[:, g])) for g in levels])


def widen(draft: Draft, each: np.ndarray, without: np.ndarray, limits: tuple[float, float] = (-1, 1)) -> Row:
    """Give the last row an interval over runs and levels at once, and return it.

    The variance of the mean over runs and that of a jackknife over levels are added, which counts what is left of both
    twice and so is cautious; Student's t with the fewer of the two less one. An interval over runs alone would have no
    width where all runs do the same on levels that happen to be these.

    Args:
        draft: With the row.
        each: (N,), of the runs; NaN no value.
        without: (G,), the mean over runs without each level.
        limits: Least and greatest possible value.
    """
    from scipy.special import stdtrit  # takes 0.1 s

    row, known, ends = draft.rows[-1], each[np.isfinite(each)], {"low": NAN, "high": NAN}
    runs, levels = len(known), len(without)
    if min(runs, levels) >= 3 and np.isfinite(without).all():
        by_level = (levels - 1) / levels * np.square(without - without.mean()).sum()
        half = stdtrit(min(runs, levels) - 1, 0.975) * np.sqrt(known.var(ddof=1) / runs + by_level)
        ends = {"low": float(max(row.value - half, limits[0])), "high": float(min(row.value + half, limits[1]))}
    draft.rows[-1] = replace(row, **ends)
    return draft.rows[-1]


def add_over_both(
    draft: Draft, quantity: str, table: np.ndarray, runs: Sequence[Run], *, least: int = 3, **columns: object
) -> Row:
    """Add the means of runs over level families of a table (N, G), both being samples; NaN is no value.

    Args:
        draft: Gets the rows.
        quantity: Its name.
        table: Values.
        runs: N.
        least: Levels with a value that a run needs.
        columns: Of `Row`, and what else `Draft.over_runs` takes.
    """
    known = np.isfinite(table)
    number = known.sum(axis=1)
    table = np.where((number >= least)[:, None], table, NAN)
    values = np.where(number >= least, np.where(known, table, 0.0).sum(axis=1) / np.maximum(number, 1), NAN)
    both = compare_over_both(table)
    reasons = ["" if n >= least else f"{n} levels with a value, fewer than {least}" for n in number]
    crossed = both if np.isfinite(both.p) else None  # too few levels: a test over runs, on these levels
    return draft.over_runs(quantity, values, runs, reasons=reasons, both=crossed, n_levels=both.n_levels, **columns)


def warn_of_few(draft: Draft, number: int) -> None:
    """Note that there are few levels for claims over levels."""
    if number < FEWEST:
        draft.note(f"over levels: needs {FEWEST} levels, found {number}: no value")
    elif number < ENOUGH:
        draft.note(
            f"over levels: {number} levels are few; of fewer than {ENOUGH} a correlation is found by chance of the "
            "choice of levels, however many runs there are"
        )
