"""Tests over runs, and corrections over a family of them: the run is the unit.

test = compare_with_zero(correlations)          # one value for each run
adjusted = adjust([test.p for test in tests], "bh")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval, wilson_interval

MIN_FOR_SIGN_FLIP = 8
"""Runs from which on the exact test is used: fewer cannot be significant in it."""


@dataclass(frozen=True)
class MeanTest:
    """A mean over runs against 0.

    Attributes:
        mean: Of the runs.
        low: Lower end of the 95 % t interval; NaN below three runs, and for runs that agree exactly.
        high: Upper end.
        n: Runs with a value.
        dropped: Runs without one.
        p: Two-sided; NaN below three runs.
        p_floor: The smallest p that so many runs can give; 0 of the t test.
        method: sign-flip, t or binomial.
    """

    mean: float
    low: float
    high: float
    n: int
    dropped: int
    p: float
    p_floor: float
    method: Literal["sign-flip", "t", "binomial"]


def compare_with_zero(values: np.ndarray) -> MeanTest:
    """Return the test whether the mean of values (n,) over runs is 0; NaN is no value.

    From eight runs the exact sign-flip test (all 2^n signs; above 16 runs 65,535 drawn ones and the found one, from a
    fixed generator), below Student's t. Runs that agree exactly have no spread for t: p is then that of their signs.
    """
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    n = len(known)
    found = mean_interval(known) if n else None
    method: Literal["sign-flip", "t", "binomial"] = "sign-flip" if n >= MIN_FOR_SIGN_FLIP else "t"
    p, floor = float("nan"), 0.0
    if method == "sign-flip":
        p, floor = _sign_flip(known)
    elif n >= MIN_FOR_INTERVAL:
        p = _student(known)
    ends = [float("nan")] * 3 if found is None else [float(found.mean), float(found.low), float(found.high)]
    if n and _agree(known):
        ends[1:] = [float("nan")] * 2
    return MeanTest(*ends, n, len(values) - n, p, floor, method)


def compare_hits(hits: np.ndarray, chance: float) -> MeanTest:
    """Return the test whether runs hit as often as chance has it, of the share of hits minus chance.

    The exact binomial test, two-sided, with Wilson's interval. Hits have two values, and where chance is far from one
    half neither their signs nor t say how often they would be so few or so many.

    Args:
        hits: (n,), 1 or 0; NaN is no value.
        chance: Of a hit, between 0 and 1.
    """
    from scipy.stats import binomtest  # takes 0.4 s

    known = hits[np.isfinite(hits)]
    n, found = len(known), int(known.sum())
    share = found / n if n else float("nan")
    low, high = wilson_interval(found, n) if n >= MIN_FOR_INTERVAL else (float("nan"), float("nan"))
    p = float(binomtest(found, n, chance).pvalue) if n >= MIN_FOR_INTERVAL else float("nan")
    floor = float(min(binomtest(end, n, chance).pvalue for end in (0, n))) if n else 0.0
    return MeanTest(share - chance, low - chance, high - chance, n, len(hits) - n, p, floor, "binomial")


def _sign_flip(values: np.ndarray) -> tuple[float, float]:
    n, tolerance = len(values), 1e-12 * np.abs(values).sum()
    if n <= 16:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        means = np.abs(signs @ values)
        return float((means >= abs(values.sum()) - tolerance).mean()), 2.0 / 2**n
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (65_535, n))
    extreme = int((np.abs(signs @ values) >= abs(values.sum()) - tolerance).sum())
    return (1 + extreme) / 65_536, 1 / 65_536


def _student(values: np.ndarray) -> float:
    from scipy.special import stdtr  # takes 0.1 s

    if _agree(values):
        return _test_signs(len(values), float(values[0]))
    t = abs(values.mean()) / (values.std(ddof=1) / np.sqrt(len(values)))
    return float(2 * stdtr(len(values) - 1, -t))


def _agree(values: np.ndarray) -> bool:
    """Return whether values are equal but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _test_signs(n: int, value: float) -> float:
    """Return p of n equal values: of their signs alone, for how far they could be apart is not known."""
    return 1.0 if value == 0 else 2.0 / 2**n


def adjust(p_values: np.ndarray, method: Literal["holm", "bh"]) -> np.ndarray:
    """Return p values (m,) adjusted over their family; NaN is no test and stays.

    Args:
        p_values: One for each test.
        method: holm bounds the chance of any false positive (Holm 1979, Scand. J. Stat. 6:65), for declared claims. bh
            bounds the expected share of false ones among the positives (Benjamini and Hochberg 1995, J. R. Stat. Soc. B
            57:289), for maps.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    rows = np.flatnonzero(np.isfinite(p))
    order = rows[np.argsort(p[rows], kind="stable")]
    m = len(order)
    if method == "holm":
        found = np.maximum.accumulate(p[order] * (m - np.arange(m)))
    else:
        found = np.minimum.accumulate((p[order] * m / (1 + np.arange(m)))[::-1])[::-1]
    adjusted[order] = np.minimum(found, 1.0)
    return adjusted


@dataclass(frozen=True)
class CrossedTest:
    """A mean over runs and levels at once against 0.

    Attributes:
        mean: Of the runs' means.
        low: Lower end of the 95 % interval.
        high: Upper end.
        error: Its standard error; 0 where all values agree, which then have no interval.
        df: Degrees of freedom.
        p: Two-sided; NaN below three runs or three levels.
        n_runs: Runs with a value.
        n_levels: Levels with one.
    """

    mean: float
    low: float
    high: float
    error: float
    df: float
    p: float
    n_runs: int
    n_levels: int

    def within(self, margin: float) -> float:
        """Return the larger p of two one-sided tests that the mean lies within -margin .. margin; NaN without error."""
        if not (np.isfinite(self.p) and self.error > 0):
            return float("nan")
        from scipy.special import stdtr  # takes 0.1 s

        return float(stdtr(self.df, -(margin - abs(self.mean)) / self.error))


def compare_over_both(table: np.ndarray) -> CrossedTest:
    """Return the test whether the mean of a table (runs, levels) is 0, both being samples; NaN is no value.

    Runs that play the same levels share what is particular to these: a test over runs alone generalises to other runs
    on the same levels. Two-way analysis of variance with both factors random: V = V_runs + V_levels - V_residual, at
    least the greater of the first two; degrees of freedom after Satterthwaite (quasi-F; Clark 1973, J. Verbal Learn.
    Verbal Behav. 12:335). With missing values the residual is taken to be 0, which is cautious.
    """
    from scipy.special import stdtr, stdtrit  # takes 0.1 s

    table = np.asarray(table, np.float64)
    known = np.isfinite(table)
    table, known = table[known.any(axis=1)], known[known.any(axis=1)]
    table, known = table[:, known.any(axis=0)], known[:, known.any(axis=0)]
    runs, levels = table.shape
    if not table.size:
        return CrossedTest(*[float("nan")] * 6, runs, levels)
    filled = np.where(known, table, 0.0)
    of_run, of_level = filled.sum(axis=1) / known.sum(axis=1), filled.sum(axis=0) / known.sum(axis=0)
    mean = float(of_run.mean())
    if min(runs, levels) < MIN_FOR_INTERVAL:
        return CrossedTest(mean, *[float("nan")] * 5, runs, levels)
    by_run, by_level = of_run.var(ddof=1) / runs, of_level.var(ddof=1) / levels
    rest = 0.0
    if known.all():
        inside = table - of_run[:, None] - of_level + mean
        rest = np.square(inside).sum() / ((runs - 1) * (levels - 1)) / table.size
    total = max(by_run + by_level - rest, by_run, by_level)
    parts = by_run**2 / (runs - 1) + by_level**2 / (levels - 1) + rest**2 / ((runs - 1) * (levels - 1))
    df = float(max(total**2 / parts, min(runs, levels) - 1)) if parts > 0 else float(min(runs, levels) - 1)
    error = float(np.sqrt(total))
    if error <= 1e-12 * np.abs(filled).max():
        nan = float("nan")
        return CrossedTest(mean, nan, nan, 0.0, df, _test_signs(min(runs, levels), mean), runs, levels)
    half = float(stdtrit(df, 0.975)) * error
    p = float(2 * stdtr(df, -abs(mean) / error))
    return CrossedTest(mean, mean - half, mean + half, error, df, p, runs, levels)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests that a mean over runs lies within -margin .. margin.

    Attributes:
        p: The larger of the two; NaN below three runs, and for runs that agree exactly: what they hide is not known.
        low: Lower end of the 90 % interval, which lies within the margin where p < 0.05.
        high: Upper end.
        n: Runs with a value.
    """

    p: float
    low: float
    high: float
    n: int


def compare_with_margin(values: np.ndarray, margin: float, center: float = 0.0) -> Equivalence:
    """Return the test whether the mean of values (n,) over runs is center, to within a margin; NaN is no value.

    By statsmodels (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657). This alone says that there is no effect: a
    large p of another test says that none was found.

    Raises:
        ValueError: If the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected more than 0, found {margin}")
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)] - center
    n = len(known)
    if n < MIN_FOR_INTERVAL or _agree(known):
        return Equivalence(float("nan"), float("nan"), float("nan"), n)
    from statsmodels.stats.weightstats import DescrStatsW  # takes a second

    described = DescrStatsW(known)
    low, high = described.tconfint_mean(0.10)
    return Equivalence(float(described.ttost_mean(-margin, margin)[0]), float(low) + center, float(high) + center, n)


def compute_equivalence(row: Mapping[str, Any], margin: float, reference: float) -> float:
    """Return the larger p of two one-sided tests that a row's value lies within reference +- margin.

    The standard error is that of the row's own 95 % interval. One over the runs' values would be too small wherever
    they are no independent sample: runs share their level seeds, and of pairs of runs each run's mean over its partners
    varies about half as much as the mean over all pairs says (Hoeffding 1948, Ann. Math. Stat. 19:293). Of intervals
    over runs and levels, whose degrees of freedom a row does not say, the error is taken as if there were many, and p
    as if there were no more than runs less one: both cautious. NaN where the row has no interval, or one of no width.
    """
    from scipy.special import stdtr, stdtrit  # takes 0.1 s

    df, half = row["n_runs"] - 1, max(row["high"] - row["value"], row["value"] - row["low"])
    away = abs(row["value"] - reference)
    if not (math.isfinite(half) and math.isfinite(away)) or df < MIN_FOR_INTERVAL - 1 or half <= 0:
        return math.nan
    error = half / float(stdtrit(math.inf if row["unit"] == "runs+levels" else df, 0.975))
    return float(stdtr(df, -(margin - away) / error))


def detectable_effect(n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest mean over n runs that a two-sided t test finds so often, in standard deviations of runs.

    By statsmodels. NaN below three runs.
    """
    if n < MIN_FOR_INTERVAL:
        return float("nan")
    from statsmodels.stats.power import TTestPower

    return float(np.squeeze(TTestPower().solve_power(nobs=n, alpha=alpha, power=power)))


def smallest_p(n: int) -> float:
    """Return the smallest p that `compare_with_zero` can give with n runs; NaN below three, 0 of the t test."""
    if n < MIN_FOR_INTERVAL:
        return float("nan")
    return 0.0 if n < MIN_FOR_SIGN_FLIP else max(2.0 / 2**n, 1 / 65_536)
