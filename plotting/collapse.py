"""Routers that have collapsed: they take next to nothing or always the same, so that there is no structure to be seen.

    describe_collapse(read_results("evaluation_results.csv"))     # of checkpoints, as far as their means tell
    find_collapse(as_routing_data(read_cache(path)))              # of steps
    banner = collapse_banner(data)                                # what a figure of them has to say

One definition for both: *zero* is a mean LPC of at most 1 % of the largest that the experts allow, *constant* an LPC
that is the same at all steps but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config import parse_expert_sizes
from plotting.data import RoutingData

COLLAPSED = "collapsed router (LPC about 0 or constant)"

_OUTCOME_LPC = ["mean_lpc_success", "mean_lpc_failure", "mean_lpc_timeout"]
_NEAR_ZERO = 0.01
_CONSTANT = 1e-5  # float32 routing weights leave a constant LPC about 1e-7 apart


def largest_lpc(sizes: Sequence[Sequence[int]] | None, exponent: float = 2.0) -> float:
    """Return the LPC of a network that always takes its largest experts; 0 if sizes are not known.

    Args:
        sizes: Of the experts, per layer.
        exponent: An expert costs size^exponent.
    """
    return sum(float(max(layer, default=0)) ** exponent for layer in parse_expert_sizes(sizes)) if sizes else 0.0


def format_lpc(value: float) -> str:
    """Return an LPC as text: 3,072, or with a decimal where it is small and no whole number."""
    return f"{value:,.{0 if value >= 100 or value == round(value) else 1}f}"


def describe_collapse(rows: pd.DataFrame) -> np.ndarray:
    """Return "zero", "constant" or "": whether each checkpoint's router has collapsed, as far as its means tell.

    zero: the mean LPC is at most 1 % of the largest. constant: the mean over steps, that over episodes and those of
    each outcome are the same number, although the episodes are not equally long (they ended in more than one way, or
    as successes, on levels of different lengths).
    """
    exponents = rows["lpc_exponent"].astype(float).fillna(2.0)
    largest = np.array([largest_lpc(*pair) for pair in zip(rows["expert_hidden_sizes"], exponents, strict=True)], float)
    outcomes = rows[_OUTCOME_LPC]
    varied = (outcomes.notna().sum(axis=1) > 1) | outcomes["mean_lpc_success"].notna()
    varied &= rows[["mean_lpc", "mean_lpc_per_episode"]].notna().all(axis=1)
    varied &= rows["num_episodes"].fillna(0) >= 2
    means = rows[["mean_lpc", "mean_lpc_per_episode", *_OUTCOME_LPC]]
    highest = means.max(axis=1)
    constant = varied & (highest - means.min(axis=1) <= _CONSTANT * highest)
    return np.where(rows["mean_lpc"] <= _NEAR_ZERO * largest, "zero", np.where(constant, "constant", ""))


def find_collapse(data: RoutingData) -> list[str]:
    """Return "zero", "constant" or "" for each run of the data, for a single one a list of one."""
    runs = data.run_of_step
    parts = [data.lpc] if runs is None else [data.lpc[runs == run] for run in np.unique(runs)]
    return [_of_steps(part, data.largest_lpc) for part in parts]


def _of_steps(lpc: np.ndarray, largest: float) -> str:
    lpc = lpc[np.isfinite(lpc)].astype(np.float64)
    if len(lpc) < 2:
        return ""
    if largest and lpc.mean() <= _NEAR_ZERO * largest:
        return "zero"
    return "constant" if lpc.max() - lpc.min() <= _CONSTANT * lpc.max() else ""


def collapse_banner(data: RoutingData) -> str:
    """Return what a figure has to say of routers that have collapsed; "" if none has."""
    found = find_collapse(data)
    collapsed = sum(map(bool, found))
    if not collapsed:
        return ""
    lpc, largest = data.lpc[np.isfinite(data.lpc)], data.largest_lpc
    low, high = (f"{value:,.{0 if value >= 100 else 1}f}" for value in (lpc.min(), lpc.max()))
    of = f" of at most {format_lpc(largest)}" if largest else ""
    span = f"LPC {low}{of}" if low == high else f"LPC {low} to {high}{of}"
    if data.run is not None:
        runs = f"{collapsed} of {len(found)} runs ({span} in all)"
        return f"Collapsed routers in {runs}: differences between their routes are next to nothing"
    return f"Collapsed router ({span}): differences between its routes are next to nothing"


def collapse_banners(settings: Mapping[str, RoutingData]) -> str:
    """Return what a figure of several settings has to say of collapsed routers, by their labels; "" if there are none.

    Args:
        settings: {label: its data}; a label may be "".
    """
    found = {label: collapse_banner(data) for label, data in settings.items() if data.has_routing}
    return "; ".join(f"{label}: {text}" if label else text for label, text in found.items() if text)
