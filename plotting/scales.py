"""The colour scale of LPC: from 0 to the largest that the experts allow, unless a relative one is asked for.

On a relative scale, from the least to the greatest value, any router looks structured: one whose LPC is 1.8 to 4.8 of
3,072 as much as one that goes from 300 to 2,000. The absolute scale is the same in all figures of one network. Cells
with few steps set no scale: five steps of one episode would darken all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plotting.collapse import format_lpc
from plotting.data import PlotError, RoutingData
from plotting.options import MIN_VISITS, SCALES

_LEAST_SHARE = 0.1  # of the largest possible LPC that the axis of a curve shows

Cells = Sequence[tuple[Mapping[Any, float], Mapping[Any, int] | None]]
"""{cell: value, such as LPC} and {cell: steps} of each map; None for unknown steps."""


@dataclass(frozen=True)
class Marks:
    """How the cells of heatmaps are drawn.

    Attributes:
        min_visits: Cells with fewer steps are hatched; they set no scale.
        show_counts: Write the number of steps into the cells of the routing maps.
        scale: Of `SCALES`.
    """

    min_visits: int = MIN_VISITS
    show_counts: bool = False
    scale: str = SCALES[0]

    def __post_init__(self) -> None:
        """Check the scale.

        Raises:
            ValueError: If there is none of that name.
        """
        if self.scale not in SCALES:
            raise PlotError(f"scale: expected one of {', '.join(SCALES)}, found {self.scale!r}")


def compute_lpc_scale(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of a relative scale: least and greatest value, but at least 1 and 1 % of the latter apart.

    Otherwise the rounding noise of a router that always costs the same would look like structure.
    """
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = float(min(finite)), float(max(finite))
    missing = max(1.0, 0.01 * abs(high)) - (high - low)
    return (low, high) if missing <= 0 else (low - missing / 2, high + missing / 2)


def choose_lpc_scale(maps: Cells, largest: float | None, how: Marks) -> tuple[float, float]:
    """Return the ends of the colour scale that maps of LPC share.

    Args:
        maps: On that scale.
        largest: The LPC if the largest experts were always taken; 0 for not known, None for a relative scale.
        how: Which scale, and which cells set none (unless all are such). An absolute one is from 0 to `largest`, or,
            where that is not known, to the greatest value.
    """
    firm = firm_values(maps, how.min_visits)
    if how.scale == "relative" or largest is None:
        return compute_lpc_scale(firm)
    return 0.0, float(largest or max(1.0, compute_lpc_scale(firm)[1]))


def span_of(maps: Cells, how: Marks) -> tuple[float, float]:
    """Return the least and the greatest value of the cells that are not hatched, or of all if all are."""
    firm = firm_values(maps, how.min_visits) or [np.nan]
    return float(min(firm)), float(max(firm))


def firm_values(maps: Cells, min_visits: int) -> list[float]:
    """Return the values that set a scale, finite ones: those of cells with enough steps, or of all if none has.

    Args:
        maps: On that scale; values of any quantity.
        min_visits: Steps that are enough.
    """
    pairs = [(value, n is None or n.get(cell, 0) >= min_visits) for values, n in maps for cell, value in values.items()]
    finite = [(value, counts) for value, counts in pairs if np.isfinite(value)]
    return [value for value, counts in finite if counts] or [value for value, _ in finite]


def describe_scale(data: RoutingData, how: Marks, *, shared: bool = False) -> str:
    """Return what the colours of LPC go from and to, to be written on a figure.

    Args:
        data: That the maps are of.
        how: Which scale.
        shared: All maps have one scale, and none is of a single layer.
    """
    frame = "; frames on bars: the values there are"
    if how.scale == "relative":
        return f"LPC on {'one relative scale' if shared else 'a relative scale for each map'}, not from 0{frame}"
    if not data.expert_sizes:
        return f"LPC from 0 to the greatest value, as expert sizes are not known{frame}"
    parts = data.largest_layer_lpc
    texts = list(map(format_lpc, parts))
    layers = f"{texts[0]} in each layer" if len(set(parts)) == 1 else f"layers differ: {', '.join(texts)}"
    return f"LPC from 0 to the largest possible, {format_lpc(sum(parts))}{'' if shared else f' ({layers})'}{frame}"


def axis_name(scale: str) -> str:
    """Return the name of an axis of LPC, which says so if it does not begin at 0."""
    return "LPC" if scale == "absolute" else "LPC,\nrelative"


def choose_axis(values: Iterable[float], largest: float, scale: str = SCALES[0]) -> tuple[float, float]:
    """Return the ends of an axis of LPC for curves.

    Absolute: from 0 to the greatest value, or to a tenth of the largest possible if that is more, so that a collapsed
    router is a line along the bottom. Relative: from the least to the greatest value.

    Args:
        values: Drawn, ends of intervals among them; NaN is none.
        largest: The LPC if the largest experts were always taken; 0 for not known.
        scale: Of `SCALES`.
    """
    finite = [float(value) for value in values if np.isfinite(value)]
    if scale == "relative":
        low, high = compute_lpc_scale(finite)
        return low - 0.05 * (high - low), high + 0.05 * (high - low)
    top = max([1.0, _LEAST_SHARE * largest, *finite])
    return -0.04 * top, 1.06 * top
