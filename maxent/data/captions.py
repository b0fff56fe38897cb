"""Captions of time series, written from computed facts: a small grammar, every sentence of which is true.

    write_caption(compute_facts(series), rng)    # "Rising trend. Period of 12 points. Low noise. ..."

`maxent.rewards.claims` reads them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from maxent.data.facts import Facts

_AT = {"start": "near the start", "middle": "in the middle", "end": "near the end"}

_TREND = {
    "rising": ("Rising trend", "The trend is upward", "Values rise overall"),
    "falling": ("Falling trend", "The trend is downward", "Values fall overall"),
    "flat": ("No clear trend", "The trend is flat"),
}
_SEASON = ("Period of {} points", "The pattern repeats every {} points")
_NO_SEASON = ("No period", "No seasonal pattern")
_NOISE = ("{} noise", "Noise is {}")
_RANGE = ("Range from {} to {}", "Values lie between {} and {}")
_LEVEL = ("Mean about {}", "The average is {}")
_PEAK = ("Peak {}", "The maximum is {}")
_TROUGH = ("Trough {}", "The minimum is {}")
_SHIFT = {
    "up": ("Level shift upward {}", "A sudden jump {}"),
    "down": ("Level shift downward {}", "A sudden drop {}"),
}
_NO_SHIFT = ("No level shift", "No sudden change of level")
_CHANGE = {
    "above": ("It ends above its start", "The end is higher than the start"),
    "below": ("It ends below its start", "The end is lower than the start"),
    "near": ("It ends near its starting level", "The end is about as high as the start"),
}
_SPREAD = {
    "grow": ("Fluctuations grow", "Variability increases"),
    "shrink": ("Fluctuations shrink", "Variability decreases"),
    "even": ("Fluctuations stay even", "Variability is constant"),
}


def write_caption(facts: Facts, rng: np.random.Generator) -> str:
    """Return a caption that states all that is known of a series, a sentence for each fact, phrases drawn at random."""
    sentences = [_SENTENCES[name](facts, rng) for name in facts.list_checkable()]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def write_number(value: float) -> str:
    """Return a value as a caption has it: to three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):g}" if abs(value) < 1e6 else f"{float(f'{value:.3g}'):.0f}"


def _pick(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _write_period(facts: Facts, rng: np.random.Generator) -> str:
    return _pick(rng, _SEASON).format(facts.period) if facts.period else _pick(rng, _NO_SEASON)


def _write_shift(facts: Facts, rng: np.random.Generator) -> str:
    if facts.shift == "none":
        return _pick(rng, _NO_SHIFT)
    return _pick(rng, _SHIFT[facts.shift]).format(_AT[facts.shift_place])


_SENTENCES: Mapping[str, Callable[[Facts, np.random.Generator], str]] = {
    "trend": lambda facts, rng: _pick(rng, _TREND[facts.trend]),
    "period": _write_period,
    "noise": lambda facts, rng: _pick(rng, _NOISE).format(facts.noise),
    "range": lambda facts, rng: _pick(rng, _RANGE).format(write_number(facts.low), write_number(facts.high)),
    "level": lambda facts, rng: _pick(rng, _LEVEL).format(write_number(facts.mean)),
    "peak": lambda facts, rng: _pick(rng, _PEAK).format(_AT[facts.peak]),
    "trough": lambda facts, rng: _pick(rng, _TROUGH).format(_AT[facts.trough]),
    "shift": _write_shift,
    "change": lambda facts, rng: _pick(rng, _CHANGE[facts.change]),
    "spread": lambda facts, rng: _pick(rng, _SPREAD[facts.spread]),
}
