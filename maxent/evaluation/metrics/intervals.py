"""Bootstrap intervals at 95 % over samples, for metrics of any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
MIN_SAMPLES = 5
"""Below so many there is no interval: with three samples the bootstrap's 95 % cover 75 %."""


@dataclass(frozen=True)
class Interval:
    """A figure and its interval.

    Attributes:
        value: On the samples as they are.
        low: Lower end, None where there are too few samples.
        high: Upper end.
        n: Samples.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def bootstrap(compute: Callable[[np.ndarray], Sequence[float]], count: int, seed: int = 0) -> list[Interval]:
    """Return metrics with percentile intervals, all from the same draws of samples.

    Percentiles rather than BCa: a metric of a corpus is computed anew for each draw, and BCa has no answer where all
    samples agree, as they do at a success of 0 or 1. Draws in which a metric is NaN are left out of its interval.

    Args:
        compute: Rows of samples, int64 (rows,), to the metrics on them; called with each draw.
        count: Samples.
        seed: Of the draws.
    """
    values = np.asarray(compute(np.arange(count)), np.float64)
    if count < MIN_SAMPLES:
        return [Interval(float(value), None, None, count) for value in values]
    rng = np.random.default_rng(seed)
    draws = np.array([compute(rng.integers(count, size=count)) for _ in range(RESAMPLES)], np.float64)
    found = []
    for value, column in zip(values.tolist(), draws.T, strict=True):
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, [0.025, 0.975]).tolist() if len(known) else (None, None)
        found.append(Interval(value, low, high, count))
    return found


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """Return a mean over samples and its interval, as of best rewards, or of differences between two methods."""
    values = np.asarray(values, np.float64)
    return bootstrap(lambda rows: [float(values[rows].mean())], len(values), seed)[0]
