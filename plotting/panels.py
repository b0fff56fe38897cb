"""What the figures share: axes that pyplot does not know, bars with intervals, notes, colours of series."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Annotation

from pipeline.records.intervals import MIN_FOR_INTERVAL, Estimates
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.style import CATEGORY_COLORS, expert_color, expert_labels, layer_title

# Sand is lost on white as a thin line and comes last; neighbours are far apart. A series has its marker too.
SERIES_COLORS = tuple(CATEGORY_COLORS[place] for place in (0, 3, 7, 5, 8, 4, 6, 2, 1))
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "0.35"

LPC_LABEL = "LPC"
COLUMN_WIDTH, PAGE_WIDTH = 3.5, 7.2
"""Inches: one and two columns of a usual paper."""


def use_axes(
    axes: Axes | Sequence[Axes] | np.ndarray | None,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float],
    **keywords,
) -> np.ndarray:
    """Return given axes as an array (rows, columns), or those of a new figure, laid out so that nothing is clipped.

    The figure is not one of pyplot's: nothing has to be closed, and nothing piles up in a notebook.

    Args:
        axes: As a caller gave them; None for a new figure.
        rows: Of axes.
        columns: Of axes.
        size: Width and height in inches.
        **keywords: As for `Figure.subplots`.
    """
    if axes is not None:
        return np.asarray(axes).reshape(rows, columns)
    return Figure(figsize=size, layout="constrained").subplots(rows, columns, squeeze=False, **keywords)


def write_near(ax: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style) -> Annotation:
    """Write a small text at an offset in points from a place; the style may tell the place's `xycoords`."""
    return ax.annotate(text, place, xytext=offset, textcoords="offset points", **{"fontsize": "x-small", **style})


def series_style(index: int) -> tuple[str, str]:
    """Return colour and marker of the series of this number; 72 are told apart."""
    return SERIES_COLORS[index % len(SERIES_COLORS)], SERIES_MARKERS[index % len(SERIES_MARKERS)]


def as_routed_data(data: Any) -> RoutingData:
    """Return data as `as_routing_data` does, and raise ValueError for a policy without routers."""
    data = as_routing_data(data)
    if not data.has_routing:
        raise PlotError("expected a policy with routers, found none: a baseline has no routing to show")
    return data


def episode_word(data: RoutingData) -> str:
    """Return what the rows of the episode table are."""
    return "layout" if data.layouts_only else "episode"


def unit_word(data: RoutingData) -> str:
    """Return what means and intervals are over."""
    return episode_word(data) if data.run is None else "run"


def mean_note(data: RoutingData, detail: str = "") -> str:
    """Return what means and intervals of curves are over; the detail is of each episode."""
    unit = unit_word(data)
    inner = "" if data.run is None else f" of each run's mean over {episode_word(data)}s"
    return f"mean over {unit}s{inner}{detail}; t interval over {unit}s, hollow below n = {MIN_FOR_INTERVAL}"


def describe_n(data: RoutingData) -> str:
    """Return "n = 300 episodes, 3,355 steps"."""
    return f"n = {data.describe_size()}"


def interval_note(data: RoutingData, marks: str) -> str:
    """Return what the marks of an interval over all episodes, or runs, mean, or why there are none."""
    unit = unit_word(data)
    if data.num_units < MIN_FOR_INTERVAL:
        return f"fewer than {MIN_FOR_INTERVAL} {unit}s: no intervals"
    return f"{marks}: 95 % interval over {unit}s"


def layer_experts(data: RoutingData, layer: int) -> list[str]:
    """Return names of a layer's experts: by size if sizes are known, else by number."""
    if data.expert_sizes:
        return expert_labels(data.expert_sizes[layer])
    return [f"expert {expert}" for expert in range(data.num_experts[layer])]


def expert_handles(data: RoutingData) -> list[Patch]:
    """Return the legend's entries of the experts; those of layers that are not alike are named for each layer."""
    names = [layer_experts(data, layer) for layer in range(len(data.layer_names))]
    handles = {}
    for layer, labels in enumerate(names):
        for expert, label in enumerate(labels):
            text = label if names.count(labels) == len(names) else f"layer {layer}: {label}"
            handles[text] = Patch(color=expert_color(expert), label=text)
    return list(handles.values())


def finish(axes: Axes | Sequence[Axes], notes: Sequence[str], *, own: bool, handles: Sequence[Artist] = ()) -> None:
    """Add the legend above and the notes below: what a reader has to know of units, n, and what is not drawn.

    Args:
        axes: Of the figure; the legend shows each of their labels once.
        notes: Sentences; empty ones are left out.
        own: The figure was made here: legend and notes belong to it as a whole. Otherwise to the first axes.
        handles: Of the legend, instead of those with a label.
    """
    axes = [axes] if isinstance(axes, Axes) else list(axes)
    entries = {handle.get_label(): handle for handle in handles}
    for ax in axes if not handles else ():
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    first, figure = axes[0], axes[0].figure
    width = figure.get_figwidth() if own else figure.get_figwidth() * first.get_position().width
    if entries:
        columns = next(
            k for k in (5, 4, 3, 2, 1) if k == 1 or (k <= len(entries) and _legend_width(list(entries), k) < width)
        )
        place = {"loc": "outside upper left"} if own else {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
        (figure if own else first).legend(
            list(entries.values()), list(entries), ncols=columns, borderaxespad=0.2, **place
        )
    text = "; ".join(note for note in notes if note)
    if not text:
        return
    text = textwrap.fill(text, max(40, int(width * 17)))
    style = {"ha": "left", "fontsize": "small", "color": "0.2"}
    if own:
        figure.supxlabel(text, x=0.01, **style)
    else:
        write_near(first, text, (0, 0), (0, -36), xycoords="axes fraction", va="top", annotation_clip=False, **style)


def _legend_width(labels: list[str], columns: int) -> float:
    """Return about how many inches a legend takes; as many labels go into each column, one more into the first ones."""
    parts = np.array_split(np.array([len(label) for label in labels]), columns)
    return sum(0.5 + 0.054 * int(part.max()) for part in parts)


def draw_curves(
    axes: np.ndarray, curves: Sequence[tuple[np.ndarray, Estimates, Sequence[Estimates]]], data: RoutingData
) -> None:
    """Draw mean LPC, the experts' weights of each layer, and n as bars below; on common scales.

    LPC begins at 0, so that the rounding noise of a constant one does not look like structure.

    Args:
        axes: (2 + layers, curves), for LPC, the layers, n.
        curves: For each column of axes x (G,), such as time or distance, in equal steps; LPC, of shape (G,); and per
            layer the weights, of shape (G, experts).
        data: What they were computed from.
    """
    for (x, lpc, weights), column in zip(curves, axes.T, strict=True):
        _draw_estimates(column[0], x, lpc, color="black")
        for ax, estimates in zip(column[1:-1], weights, strict=True):
            for expert, part in enumerate(estimates.columns()):
                _draw_estimates(ax, x, part, color=expert_color(expert), top=1.0)
            ax.set_ylim(-0.04, 1.04)
        column[-1].bar(x, lpc.n, width=0.85 * (x[1] - x[0] if len(x) > 1 else 1), color="0.75", linewidth=0)
        column[-1].xaxis.get_major_locator().set_params(integer=True)
        column[-1].yaxis.get_major_locator().set_params(nbins=2, integer=True)
    labels = [LPC_LABEL, *(f"{layer_title(name)}\nweight" for name in data.layer_names), f"n {unit_word(data)}s"]
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label)
    ends = np.concatenate([np.fmax(lpc.mean, lpc.high) for _, lpc, _ in curves])
    top = max(1.0, float(ends[np.isfinite(ends)].max(initial=0.0)))
    most = max(int(lpc.n.max(initial=1)) for _, lpc, _ in curves)
    for above, below in zip(axes[0], axes[-1], strict=True):
        above.set_ylim(-0.04 * top, 1.06 * top)
        below.set_ylim(0, most * 1.15)


def _draw_estimates(ax: Axes, x: np.ndarray, estimates: Estimates, *, color: str, top: float = np.inf) -> None:
    """Draw means (G,) with their intervals, which end at 0 and top; hollow where n is too small for an interval."""
    known = estimates.n > 0
    x, mean, firm = np.asarray(x)[known], estimates.mean[known], estimates.n[known] >= MIN_FOR_INTERVAL
    low, high = (np.clip(end[known][firm], 0.0, top) for end in (estimates.low, estimates.high))
    ax.plot(x, mean, color=color, linewidth=1.2, zorder=3)
    ax.vlines(x[firm], low, high, color=color, linewidth=1.2, zorder=3)
    for rows, face in ((firm, color), (~firm, "white")):
        ax.plot(x[rows], mean[rows], "o", markersize=3.5, color=color, markerfacecolor=face, zorder=4)


def stack_weights(ax: Axes, time: np.ndarray, weights: np.ndarray, labels: Sequence[str | None] = ()) -> None:
    """Draw weights as stacked bars without gaps: they belong to steps, there is nothing between two steps.

    Args:
        ax: To draw on.
        time: int (S,), of the steps, without gaps.
        weights: (S, experts).
        labels: Of the experts, for a legend; none by default.
    """
    tops = np.cumsum(weights, axis=1, dtype=np.float64)
    below = np.zeros(len(time))
    for expert, label in enumerate(labels or [None] * weights.shape[1]):
        style = {"color": expert_color(expert), "linewidth": 0, "label": label}
        ax.stairs(tops[:, expert], step_edges(time), baseline=below, fill=True, **style)
        below = tops[:, expert]
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])


def step_edges(time: np.ndarray) -> np.ndarray:
    """Return where the bars of steps (S,) begin and end, (S + 1,)."""
    return np.append(time - 0.5, time[-1] + 0.5)
