"""Means over runs with intervals, as the tables and the JSON of a comparison hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.records.intervals import mean_interval


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Return the values of runs, their mean, and the ends of its 95 % interval (Student's t).

    The ends are None below three runs, and where all runs agree exactly, which would make an interval of width 0.
    """
    found = mean_interval(list(values)).where_units_differ()
    low, high = (None, None) if math.isnan(found.low) else (float(found.low), float(found.high))
    return {"values": list(values), "mean": float(found.mean), "low": low, "high": high}


def format_estimate(found: dict[str, Any], form: str) -> str:
    """Return mean and interval in a format such as "{:.3f}"."""
    mean = form.format(found["mean"])
    if found["low"] is None:
        return mean
    return f"{mean} [{form.format(found['low'])}, {form.format(found['high'])}]"
