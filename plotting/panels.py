"""What the figures share: axes that pyplot does not know, bars with intervals, notes, colours of series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Annotation

from pipeline.records.intervals import MIN_FOR_INTERVAL, Estimates
from plotting.collapse import collapse_banner
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.options import SCALES
from plotting.scales import axis_name, choose_axis
from plotting.source import add_source, estimates_table
from plotting.style import (
    CATEGORY_COLORS,
    WARNING_COLOR,
    current_size,
    expert_colors,
    expert_labels,
    layer_title,
    text_width,
    wrap_text,
)

# Sand is lost on white as a thin line and comes last; neighbours are far apart. A series has its marker too.
SERIES_COLORS = tuple(CATEGORY_COLORS[place] for place in (0, 3, 7, 5, 8, 4, 6, 2, 1))
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "0.35"

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

    The figure is not one of pyplot's: nothing has to be closed, and nothing piles up in a notebook. It is as wide as
    `figure_size` wants it, and so high that text of that size has its room; `finish` makes room for a long legend.

    Args:
        axes: As a caller gave them; None for a new figure.
        rows: Of axes.
        columns: Of axes.
        size: Width and height in inches, for text of the usual size.
        **keywords: As for `Figure.subplots`.
    """
    if axes is not None:
        return np.asarray(axes).reshape(rows, columns)
    wanted = current_size()
    width = size[0] * wanted.scale if wanted.width is None else wanted.width
    figure = Figure(figsize=(width, size[1] * wanted.scale), layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False, **keywords)
    for ax in found.flat:  # ticks are made when they are drawn, which may be after the style's end
        for axis, name in ((ax.xaxis, "xtick"), (ax.yaxis, "ytick")):
            names = ("labelsize", f"{name}.labelsize"), ("pad", f"{name}.major.pad"), ("size", f"{name}.major.size")
            axis.set_tick_params(**{key: mpl.rcParams[parameter] for key, parameter in names})
    return found


def write_near(ax: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style) -> Annotation:
    """Write a small text at an offset in points from a place; the style may tell the place's `xycoords`."""
    points = tuple(current_size().scale * distance for distance in offset)
    return ax.annotate(text, place, xytext=points, textcoords="offset points", **{"fontsize": "x-small", **style})


def width_of_axes(ax: Axes, columns: int) -> float:
    """Return about how many inches wide each of some axes beside each other is, before they are laid out."""
    return ax.figure.get_figwidth() / columns - 0.75 * current_size().scale


def fold_label(ax: Axes, text: str, columns: int) -> str:
    """Return the name of an axis of x in as many lines as it takes, below one of some axes beside each other."""
    return "\n".join(wrap_text(text, max(0.7, width_of_axes(ax, columns)), mpl.rcParams["axes.labelsize"]))


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


def replaced_note(data: RoutingData) -> str:
    """Return how many levels are not those drawn first, "" if none: the figure tells of levels that the expert solves.

    Args:
        data: Of a cache; other data does not know it.
    """
    return describe_replaced(data.replaced or 0, len(data.episodes) if data.run is None else None)


def describe_replaced(replaced: int, played: int | None = None) -> str:
    """Return what to say of levels that were replaced because the expert cannot solve them; "" if there are none.

    Args:
        replaced: Levels.
        played: In their place and besides; None if that is not one number.
    """
    if not replaced:
        return ""
    of = f" of {replaced + played:,}" if played is not None else ""
    return f"{replaced:,}{of} levels were replaced by others: the expert cannot solve them"


def layer_colors(data: RoutingData, layer: int) -> list[str]:
    """Return the colours of a layer's experts, by what they are."""
    return expert_colors(data.expert_sizes[layer] if data.expert_sizes else None, data.num_experts[layer])


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
        for label, color in zip(labels, layer_colors(data, layer), strict=True):
            text = label if names.count(labels) == len(names) else f"layer {layer}: {label}"
            handles[text] = Patch(color=color, label=text)
    return list(handles.values())


def finish(
    axes: Axes | Sequence[Axes],
    notes: Sequence[str],
    *,
    own: bool,
    handles: Sequence[Artist] = (),
    data: RoutingData | None = None,
    banner: str = "",
) -> None:
    """Add the legend above and the notes below: what a reader has to know of units, n, and what is not drawn.

    Args:
        axes: Of the figure; the legend shows each of their labels once.
        notes: Sentences; empty ones are left out, one that begins with a line break is a line of its own.
        own: The figure was made here: legend and notes belong to it as a whole, and it is made higher for what is more
            than usual of them. Otherwise they belong to the first axes.
        handles: Of the legend, instead of those with a label.
        data: What is drawn; that its routers have collapsed, or that levels were replaced, is then said.
        banner: What is to be said of collapsed routers where several settings are drawn, see `collapse_banners`.
    """
    axes = [axes] if isinstance(axes, Axes) else list(axes)
    entries = {handle.get_label(): handle for handle in handles}
    for ax in axes if not handles else ():
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    first, figure = axes[0], axes[0].figure
    width = figure.get_figwidth() if own else figure.get_figwidth() * first.get_position().width
    more = 0.0
    banner = banner or (collapse_banner(data) if data is not None and data.has_routing else "")
    banner = "\n".join(wrap_text(banner, 0.88 * width, mpl.rcParams["legend.fontsize"]))
    if entries or banner:
        more += _add_legend(figure if own else first, entries, banner, width, own=own)
    text = "; ".join(note for note in (*notes, replaced_note(data) if data is not None else "") if note)
    if text:
        small = 0.694 * mpl.rcParams["font.size"]
        paragraphs = text.replace("; \n", "\n").split("\n")
        lines = [line for part in paragraphs for line in wrap_text(part, max(width, 2.0), small)]
        style = {"ha": "left", "fontsize": "x-small", "color": "0.2"}
        if own:
            figure.supxlabel("\n".join(lines), x=0.01, **style)
            more += max(0, len(lines) - _USUAL_LINES) * 0.12 * current_size().scale
        else:
            style |= {"xycoords": "axes fraction", "va": "top", "annotation_clip": False}
            write_near(first, "\n".join(lines), (0, 0), (0, -36), **style)
    if own and more:
        figure.set_figheight(figure.get_figheight() + more)


_USUAL_ROWS, _USUAL_LINES = 2, 2
"""Rows of a legend and lines of notes for which the figures have room."""


def _add_legend(owner: Figure | Axes, entries: dict[str, Artist], banner: str, width: float, *, own: bool) -> float:
    """Add a legend of as many columns as fit, the banner above it; return how much higher than usual it is, inches."""
    size = mpl.rcParams["legend.fontsize"]
    labels = [_fold(label, width - 0.6 * size / 8, size) for label in entries]
    columns = next(
        k for k in (5, 4, 3, 2, 1) if k == 1 or (k <= len(labels) and _legend_width(labels, k, size) < 0.96 * width)
    )
    place = {"loc": "outside upper left"} if own else {"loc": "lower left", "bbox_to_anchor": (0, 1.01)}
    legend = owner.legend(list(entries.values()), labels, ncols=columns, borderaxespad=0.2, **place)
    if banner:
        legend.set_title(banner, {"size": size, "weight": "bold"})
        legend.get_title().set_color(WARNING_COLOR)
        legend.set_alignment("left")
    heights = [1 + label.count("\n") for label in labels]
    column = max(1, -(-len(heights) // columns))
    rows = max((sum(heights[start : start + column]) for start in range(0, len(heights), column)), default=0)
    rows += 1 + banner.count("\n") if banner else 0
    return max(0, rows - _USUAL_ROWS) * 1.5 * size / 72


def _fold(label: str, width: float, size: float) -> str:
    """Return a legend's label in as many lines as it takes."""
    return "\n".join(wrap_text(label, width, size)) if text_width(label, size) > width else label


def _legend_width(labels: Sequence[str], columns: int, size: float) -> float:
    """Return how many inches a legend takes: of each column the longest label, and a handle."""
    parts = np.array_split(np.array(labels, object), columns)
    handle, gap = 2.8 * size / 72, 2.0 * size / 72
    widths = [max(text_width(line, size) for label in part for line in label.split("\n")) for part in parts]
    return sum(widths) + columns * handle + (columns - 1) * gap + 0.8 * size / 72


def draw_curves(
    axes: np.ndarray,
    curves: Sequence[tuple[np.ndarray, Estimates, Sequence[Estimates]]],
    data: RoutingData,
    names: Sequence[str] = (),
    scale: str = SCALES[0],
) -> None:
    """Draw mean LPC, the experts' weights of each layer, and n as bars below; on common scales.

    Args:
        axes: (2 + layers, curves), for LPC, the layers, n.
        curves: For each column of axes x (G,), such as time or distance, in equal steps; LPC, of shape (G,); and per
            layer the weights, of shape (G, experts).
        data: What they were computed from.
        names: Of each x, for the table of what was drawn; "x" by default.
        scale: Of LPC, see `choose_axis`.
    """
    for (x, lpc, weights), column, name in zip(curves, axes.T, names or ["x"] * len(curves), strict=True):
        figure, axis = column[0].figure, {name: x}
        _draw_estimates(column[0], x, lpc, color="black")
        add_source(figure, estimates_table("LPC", "", axis, lpc))
        for layer, (ax, estimates) in enumerate(zip(column[1:-1], weights, strict=True)):
            experts = zip(estimates.columns(), layer_colors(data, layer), layer_experts(data, layer), strict=True)
            for part, color, expert in experts:
                _draw_estimates(ax, x, part, color=color, top=1.0)
                add_source(figure, estimates_table(f"weight {data.layer_names[layer]}", expert, axis, part))
            ax.set_ylim(-0.04, 1.04)
        column[-1].bar(x, lpc.n, width=0.85 * (x[1] - x[0] if len(x) > 1 else 1), color="0.75", linewidth=0)
        column[-1].xaxis.get_major_locator().set_params(integer=True)
        column[-1].yaxis.get_major_locator().set_params(nbins=2, integer=True)
    labels = [axis_name(scale), *(f"{layer_title(name)}\nweight" for name in data.layer_names), f"n {unit_word(data)}s"]
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label)
    ends = [part for _, lpc, _ in curves for part in (lpc.mean, np.clip(lpc.low, 0.0, None), lpc.high)]
    limits = choose_axis(np.concatenate(ends), data.largest_lpc, scale)
    most = max(int(lpc.n.max(initial=1)) for _, lpc, _ in curves)
    for above, below in zip(axes[0], axes[-1], strict=True):
        above.set_ylim(*limits)
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


def stack_weights(
    ax: Axes, time: np.ndarray, weights: np.ndarray, colors: Sequence[str], labels: Sequence[str | None] = ()
) -> None:
    """Draw weights as stacked bars without gaps: they belong to steps, there is nothing between two steps.

    Args:
        ax: To draw on.
        time: int (S,), of the steps, without gaps.
        weights: (S, experts).
        colors: Of the experts, see `expert_colors`.
        labels: Of the experts, for a legend; none by default.
    """
    tops = np.cumsum(weights, axis=1, dtype=np.float64)
    below = np.zeros(len(time))
    for expert, label in enumerate(labels or [None] * weights.shape[1]):
        style = {"color": colors[expert], "linewidth": 0, "label": label}
        ax.stairs(tops[:, expert], step_edges(time), baseline=below, fill=True, **style)
        below = tops[:, expert]
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])


def step_edges(time: np.ndarray) -> np.ndarray:
    """Return where the bars of steps (S,) begin and end, (S + 1,)."""
    return np.append(time - 0.5, time[-1] + 0.5)
