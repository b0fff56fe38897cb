"""Ten facts of a time series that a caption can state and a program can test.

facts = compute_facts(series)
facts.trend, facts.period, facts.shift, facts.shift_place       # "rising", 12, "up", "middle"
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maxent.data.sample import compute_deviation

FACTS = ("trend", "period", "noise", "range", "level", "peak", "trough", "shift", "change", "spread")
PLACES = ("start", "middle", "end")
"""Thirds of a series."""

TREND_T = (2.0, 4.0)
"""|t| of the slope below which there is no trend, and from which there is one; between, nobody can tell."""
ACF = (0.25, 0.4)
"""Autocorrelation, likewise, of a period."""
NOISE = (0.25, 0.55)
"""Deviation of the residuals over the whole's, between low and moderate, and between moderate and high."""
SHIFT_F, SHIFT_SIZE = 60.0, 2.0
"""A shift of level lowers the squared error by that F or more, and is so many deviations of the residuals."""
CHANGE = 0.35
"""Deviations by which the end (a tenth of it) lies above or below the start."""
SPREAD = 1.6
"""Factor by which residuals of one half exceed those of the other, if fluctuations grow or shrink."""
MIN_POINTS = 12


@dataclass(frozen=True)
class Facts:
    """Facts of a series; None is what cannot be told, as of a series that is constant or too short.

    Attributes:
        trend: `rising`, `falling` or `flat`: by the t value of the least-squares slope.
        period: Points, by the autocorrelation of what trend and shift leave; 0 for none.
        noise: `low`, `moderate` or `high`: what trend, shift and period leave, over the whole's deviation.
        low: Smallest value.
        high: Largest.
        mean: Mean.
        peak: Third in which the largest value lies: `start`, `middle` or `end`.
        trough: Third of the smallest.
        shift: `up`, `down` or `none`: a sudden change of level.
        shift_place: Its third.
        change: The end lies `above`, `below` or `near` the start.
        spread: Fluctuations `grow`, `shrink` or are `even`, between the halves.
    """

    trend: str | None
    period: int | None
    noise: str | None
    low: float
    high: float
    mean: float
    peak: str | None
    trough: str | None
    shift: str | None
    shift_place: str | None
    change: str | None
    spread: str | None

    def list_checkable(self) -> tuple[str, ...]:
        """Return the names of `FACTS` that can be told."""
        known = {"range": self.high > self.low, "level": self.high > self.low}
        return tuple(name for name in FACTS if known.get(name, getattr(self, name, None) is not None))


def compute_facts(series: np.ndarray) -> Facts:
    """Return the facts of a series.

    Args:
        series: float64 (points,), finite, at least one.
    """
    low, high, mean = float(series.min()), float(series.max()), float(series.mean())
    deviation = compute_deviation(series)
    if deviation == 0 or len(series) < MIN_POINTS:
        unknown = dict.fromkeys(("trend", "period", "noise", "peak", "trough"))
        rest = dict.fromkeys(("shift", "shift_place", "change", "spread"))
        return Facts(low=low, high=high, mean=mean, **unknown, **rest)
    size = len(series)
    residuals, t_value = remove_trend(series)
    shift, at, height = find_shift(series)
    smooth = remove_trend(series - height * (np.arange(size) >= at))[0] if shift != "none" else residuals
    period = find_period(smooth)
    rest = remove_season(smooth, period) if period else smooth
    share = float(rest.std()) / deviation
    tenth = max(2, size // 10)
    change = float(series[-tenth:].mean() - series[:tenth].mean()) / deviation
    halves = [float(half.std()) for half in (rest[: size // 2], rest[size // 2 :])]
    quiet = min(halves) < 1e-9 * deviation
    return Facts(
        trend=tell_trend(t_value),
        period=period,
        noise="low" if share < NOISE[0] else "moderate" if share < NOISE[1] else "high",
        low=low,
        high=high,
        mean=mean,
        peak=name_place(int(series.argmax()), size),
        trough=name_place(int(series.argmin()), size),
        shift=shift,
        shift_place=None if shift == "none" else name_place(at, size),
        change="above" if change > CHANGE else "below" if change < -CHANGE else "near",
        spread=None
        if quiet
        else "grow"
        if halves[1] > SPREAD * halves[0]
        else "shrink"
        if halves[0] > SPREAD * halves[1]
        else "even",
    )


def name_place(index: int, size: int) -> str:
    """Return the third of a series in which an index lies."""
    return PLACES[min(2, 3 * index // size)]


def tell_trend(t_value: float) -> str | None:
    """Return the trend for a slope's t value."""
    if abs(t_value) < TREND_T[0]:
        return "flat"
    if abs(t_value) < TREND_T[1]:
        return None
    return "rising" if t_value > 0 else "falling"


def remove_trend(series: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what a least-squares line leaves, (points,), and the t value of its slope, n - 2 degrees of freedom."""
    size = len(series)
    time = np.arange(size) - (size - 1) / 2
    squares = float(time @ time)
    slope = float(time @ series) / squares
    residuals = series - series.mean() - slope * time
    error = float(np.sqrt(residuals @ residuals / (size - 2) / squares))
    if error < 1e-12 * abs(slope):
        return residuals, float(np.copysign(np.inf, slope))
    return residuals, slope / error if error else 0.0


def find_shift(series: np.ndarray) -> tuple[str, int, float]:
    """Return the direction of the largest sudden change of level (`up`, `down`, `none`), its index and its height.

    Of all steps beside a line, that of least squared error, not within a tenth of either end; O(points).
    """
    size = len(series)
    residuals = remove_trend(series)[0]
    time = np.arange(size) - (size - 1) / 2
    # A step's part that a line does not explain, by sums from the end; (points,) for a step at each index.
    counts = np.arange(size, 0, -1.0)
    products = residuals[::-1].cumsum()[::-1]
    unexplained = counts - counts**2 / size - time[::-1].cumsum()[::-1] ** 2 / float(time @ time)
    edge = max(3, size // 10)
    inner = slice(edge, size - edge)
    gains = products[inner] ** 2 / unexplained[inner]
    at = edge + int(gains.argmax())
    height = float(products[at] / unexplained[at])
    left = max(float(residuals @ residuals) - float(gains.max()), 0.0)
    noise = (left / (size - 3)) ** 0.5
    if gains.max() < SHIFT_F * noise**2 or abs(height) < SHIFT_SIZE * noise or height == 0:
        return "none", 0, 0.0
    return "up" if height > 0 else "down", at, height


def find_period(residuals: np.ndarray) -> int | None:
    """Return the period in points: the first local maximum of the autocorrelation that is about the highest; 0 if none.

    Looked for from 3 points to a third of the series. None if it cannot be told.
    """
    size = len(residuals)
    power = float(residuals @ residuals)
    if power == 0:
        return None
    # Unbiased, lest long periods count less.
    acf = np.correlate(residuals, residuals, "full")[size - 1 :] / power * size / np.arange(size, 0, -1)
    lags = np.arange(3, size // 3 + 1)
    peaks = lags[(acf[lags] > acf[lags - 1]) & (acf[lags] >= acf[lags + 1])]
    highest = float(acf[peaks].max(initial=-1.0))
    if highest < ACF[0]:
        return 0
    if highest < ACF[1]:
        return None
    return int(peaks[acf[peaks] >= 0.85 * highest][0])


def remove_season(residuals: np.ndarray, period: int) -> np.ndarray:
    """Return what the mean of each phase leaves, scaled up for the means' freedom."""
    size = len(residuals)
    phases = np.arange(size) % period
    means = np.bincount(phases, residuals) / np.bincount(phases)
    return (residuals - means[phases]) * (size / (size - period)) ** 0.5
