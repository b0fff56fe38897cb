"""Means and shares with intervals at 95 %. The unit of replication is given, never guessed: an episode, or a run.

    low, high = wilson_interval(successes=93, n=100)
    estimate = mean_interval(success_of_each_run)
    estimate = group_means(lpc, distance, episode, num_groups=20)   # each episode counts once in each group

Means have Student's t. Why not the bootstrap: with the three or five runs that one has, resampling covers the mean far
too seldom (normal values, 20,000 trials: 75 % with n = 3, 83 % with n = 5, where t covers 95 %), and with the hundreds
of episodes that one has the two agree. Nothing here is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

MIN_FOR_INTERVAL = 3
"""Below so many units there is no interval: with two, t's is 12.7 standard errors to either side."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Means over units, with intervals; what belongs together has the same index.

    Attributes:
        mean: float64 (G,) or (G, K); NaN where there is no unit.
        low: Same shape, lower end of the interval; NaN where n is below `MIN_FOR_INTERVAL`.
        high: Same shape, upper end.
        n: int64 (G,), units (episodes, runs).
        rows: int64 (G,), what the units were averaged from (time steps); equal to n where there is no such level.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    rows: np.ndarray

    def columns(self) -> list[Estimates]:
        """Return the K parts of shape (G,) of one of shape (G, K)."""
        parts = zip(self.mean.T, self.low.T, self.high.T, strict=True)
        return [Estimates(*part, self.n, self.rows) for part in parts]

    def where_units_differ(self) -> Estimates:
        """Return the same without intervals of width 0: units that agree exactly do not tell how others spread."""
        agree = self.low == self.high
        low, high = np.where(agree, np.nan, self.low), np.where(agree, np.nan, self.high)
        return Estimates(self.mean, low, high, self.n, self.rows)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a success probability.

    With p = successes / n and z the normal quantile of 1/2 + confidence/2, the interval is

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    (Wilson 1927, J. Am. Stat. Assoc. 22:209; no continuity correction). Unlike p -+ z sqrt(p(1-p)/n) it stays
    within [0, 1] and has a width at p = 0 and p = 1. With n = 0 nothing is known: (0, 1).

    That is `scipy.stats.binomtest(successes, n).proportion_ci(confidence, "wilson")`, from which it differs by
    2e-16 at most. Written out, because evaluations hold it to the last bit, and that import takes 0.4 s.

    Raises:
        ValueError: not 0 <= successes <= n, or `confidence` outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, found successes {successes}, n {n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, found {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exact where they are known; rounding would leave 0.99... and 1e-17 there.
    low = 0.0 if successes == 0 else (center - half) / scale
    high = 1.0 if successes == n else (center + half) / scale
    return low, high


def mean_interval(values: np.ndarray | list[float]) -> Estimates:
    """Return the mean over units and its t interval.

    Args:
        values: (n,) or (n, K), one row per unit; NaN is no value, and n counts what is left (of the first column).

    Returns:
        Estimates whose arrays have shape () or (K,).
    """
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / n
        least = np.minimum.reduce(values, axis=0, initial=np.inf, where=known)
        most = np.maximum.reduce(values, axis=0, initial=-np.inf, where=known)
        mean = np.where(least == most, least, mean)  # of equal values exactly: their sum's last bit is no spread
        squares = np.where(known, np.square(values - mean), 0.0).sum(axis=0)
        half = t_quantile(n) * np.sqrt(squares / (n - 1) / n)
    units = n if n.ndim == 0 else n[0] if len(n) else np.int64(0)
    return Estimates(mean, mean - half, mean + half, np.asarray(units), np.asarray(units))


def success_over_runs(rates: np.ndarray | list[float], levels: int) -> tuple[Estimates, bool]:
    """Return the mean success of runs with an interval, and whether that is over levels instead of runs.

    Usually it is Student's t over runs. Runs that agree exactly, as when all succeed everywhere, have no spread, and t
    would claim to know their mean to the last digit. The interval is then Wilson's over the levels; over those of one
    run, because all are evaluated on the same ones.

    Args:
        rates: Of the runs, 0 to 1; NaN is no value.
        levels: That each run was evaluated on, the fewest if they differ; 0 for not known, which gives no interval.
    """
    estimate = mean_interval(rates)
    if int(estimate.n) < MIN_FOR_INTERVAL or float(estimate.high - estimate.low) > 0:
        return estimate, False
    mean = float(estimate.mean)
    low, high = wilson_interval(round(mean * levels), levels) if levels else (math.nan, math.nan)
    return Estimates(estimate.mean, np.float64(low), np.float64(high), estimate.n, estimate.rows), True


def group_means(
    values: np.ndarray, groups: np.ndarray, units: np.ndarray, num_groups: int, clusters: np.ndarray | None = None
) -> Estimates:
    """Return, per group, the mean over units of each unit's mean in that group, and its t interval over units.

    So each unit counts once in every group in which it has a row, however many rows it has there: the time steps of an
    episode are no independent observations. With clusters, these are the units of the interval: the mean over clusters
    of each cluster's mean over its units (of each unit's mean over its rows), as runs have episodes that have steps.

    Args:
        values: (S,) or (S, K); rows with a NaN are left out.
        groups: int (S,), group of each row, 0 .. num_groups - 1; -1: none.
        units: int (S,), unit of each row, such as its episode.
        num_groups: G.
        clusters: int (S,), cluster of each row's unit, such as its run; None: units are not clustered.
    """
    import pandas as pd  # not for those who train

    table = pd.DataFrame(np.asarray(values, np.float64))
    keys = [np.asarray(key) for key in (groups, clusters, units) if key is not None]
    used = (keys[0] >= 0) & table.notna().all(axis=1).to_numpy()
    keys = [key[used] for key in keys]
    means = table[used].groupby(keys, sort=False).mean()
    if clusters is not None:
        means = means.groupby(level=[0, 1]).mean()
    of_group = means.groupby(level=0)
    n = of_group.size().reindex(range(num_groups), fill_value=0).to_numpy()
    mean, spread = (part.reindex(range(num_groups)).to_numpy() for part in (of_group.mean(), of_group.std()))
    half = (t_quantile(n) / np.sqrt(np.maximum(n, 1)))[:, None] * spread
    if np.ndim(values) == 1:
        mean, half = mean[:, 0], half[:, 0]
    return Estimates(mean, mean - half, mean + half, n, np.bincount(keys[0], minlength=num_groups))


def share_interval(parts: np.ndarray, totals: np.ndarray, clusters: np.ndarray | None = None) -> Estimates:
    """Return the shares sum(parts) / sum(totals) with an interval over units.

    The share of all rows, in which a long unit weighs more, as one reads a frequency. Its spread is that of a ratio of
    two sums over units, linearised (Cochran 1977, Sampling Techniques, eq. 6.13): residuals d_i = part_i - share
    total_i, standard error sqrt(n / (n - 1) sum d_i^2) / sum(totals), t with n - 1 degrees of freedom, cut to [0, 1].
    With clusters, these are the units: the mean over clusters of each cluster's share of its rows, and its t interval.

    Args:
        parts: (U, P), rows of each unit of each kind.
        totals: (U,), rows of each unit; units without rows do not count.
        clusters: int (U,), cluster of each unit, such as its run; None: units are not clustered.

    Returns:
        Estimates of shape (P,); `rows` is sum(parts), `n` the units (clusters) with rows.
    """
    parts, totals = np.asarray(parts, np.float64), np.asarray(totals, np.float64)
    if clusters is not None:
        found, place = np.unique(np.asarray(clusters)[totals > 0], return_inverse=True)
        inside = np.arange(len(found))[:, None] == place  # (clusters, units with rows)
        shares = (inside @ parts[totals > 0]) / (inside @ totals[totals > 0])[:, None]
        each, n = mean_interval(shares), len(found)
        share, low, high = each.mean, each.low, each.high
    else:
        n, total = int((totals > 0).sum()), totals.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            share = parts.sum(axis=0) / total
            residuals = np.square(parts - share * totals[:, None]).sum(axis=0)
            half = t_quantile(n) * np.sqrt(np.float64(n) / (n - 1) * residuals) / total
        low, high = share - half, share + half
    rows = parts.sum(axis=0).astype(np.int64)
    return Estimates(share, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0), np.full(share.shape, n), rows)


def t_quantile(n: int | np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Return the t for which P(|T| < t) = confidence, T Student's with n - 1 degrees of freedom.

    Args:
        n: Numbers of units, any shape; NaN comes back for those below `MIN_FOR_INTERVAL`.
        confidence: Between 0 and 1.
    """
    n = np.asarray(n)
    if not np.any(n >= MIN_FOR_INTERVAL):
        return np.full(n.shape, np.nan)
    from scipy.special import stdtrit  # takes 0.1 s, which nobody has to wait for without an interval

    return np.where(n >= MIN_FOR_INTERVAL, stdtrit(np.maximum(n - 1, 1), 0.5 + confidence / 2), np.nan)
