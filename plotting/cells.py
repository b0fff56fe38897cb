"""One map on given axes: cells of the grid coloured by routing, LPC or visits; and the legends that explain them.

    grid_info = compute_grid_bounds(data)
    render_routing_heatmap(ax, aggregate_routing_by_position(data), grid_info, "layer_0")
    draw_expert_legend(legend_ax, legend_labels(data.expert_sizes, data.num_experts))

The cell's hue is the expert with the largest mean routing weight there, its intensity that weight, from 1 / number of
experts (uniform) to 1. LPC is drawn from 0 to the largest that the experts allow, or, on request, from the least to the
greatest value. Cells with fewer than `min_visits` steps are hatched and set no scale. Grey is wall, framed cells have a
door: the darker, the larger the share of the levels that have it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.patches import Patch, Rectangle

from plotting.aggregate import GridInfo, Position, PositionAverages
from plotting.levels import draw_cells, draw_doors_and_rooms, ground_colors
from plotting.options import MIN_VISITS
from plotting.scales import Marks, choose_lpc_scale
from plotting.style import (
    DIFFERENCE_CMAP,
    DOOR_COLOR,
    LARGE_HUE,
    LPC_CMAP,
    SKIP_HUE,
    SMALL_HUE,
    UNVISITED_COLOR,
    VISITS_CMAP,
    WALL_COLOR,
    current_size,
    expert_cmap,
    expert_hues,
    expert_labels,
)

_HATCH = "//////"
_LEAST_FONT = 3.5  # points


def render_routing_heatmap(
    ax: Axes,
    avg_routing_by_pos: Mapping[Position, Mapping[str, np.ndarray]] | PositionAverages,
    grid_info: GridInfo,
    layer_name: str,
    *,
    visits: Mapping[Position, int] | None = None,
    min_visits: int = MIN_VISITS,
    show_counts: bool = False,
) -> Axes:
    """Draw one layer: the dominant expert as hue, its mean weight as intensity; returns `ax`.

    Args:
        ax: To draw on.
        avg_routing_by_pos: {(x, y): {layer name: weights (E,)}}, or all that `aggregate_routing_by_position` returns.
        grid_info: From `compute_grid_bounds`.
        layer_name: Such as "layer_0".
        visits: {(x, y): steps}; taken from `avg_routing_by_pos` if that knows.
        min_visits: Cells with fewer steps are hatched; 0 for none.
        show_counts: Write the number of steps into the cells, if they are large enough to read it.

    Raises:
        ValueError: If a visited cell knows nothing of the layer.
    """
    sizes: Sequence[int] | None = None
    if isinstance(avg_routing_by_pos, PositionAverages):
        if avg_routing_by_pos.expert_sizes and layer_name in avg_routing_by_pos.layer_names:
            sizes = avg_routing_by_pos.expert_sizes[avg_routing_by_pos.layer_names.index(layer_name)]
        visits = avg_routing_by_pos.visits if visits is None else visits
        avg_routing_by_pos = avg_routing_by_pos.routing
    for layers in avg_routing_by_pos.values():
        if layer_name not in layers:
            raise ValueError(f"layer_name: expected one of {', '.join(layers) or 'none'}, found {layer_name!r}")
    weights = [layers[layer_name] for layers in avg_routing_by_pos.values()]
    colors = routing_colors(np.array(weights), sizes) if weights else np.zeros((0, 3))
    return _render(ax, list(avg_routing_by_pos), colors, grid_info, visits, min_visits, show_counts)


def render_lpc_heatmap(
    ax: Axes,
    avg_lpc_by_pos: Mapping[Position, float] | PositionAverages,
    grid_info: GridInfo,
    *,
    vmin: float | None = None,
    vmax: float | None = None,
    visits: Mapping[Position, int] | None = None,
    min_visits: int = MIN_VISITS,
    show_counts: bool = False,
) -> Axes:
    """Draw mean LPC, total or of one layer, in viridis; returns `ax`.

    Args:
        ax: To draw on.
        avg_lpc_by_pos: {(x, y): LPC}; one of `layer_lpc` for one layer.
        grid_info: From `compute_grid_bounds`.
        vmin: Lower end of the scale, as of `choose_lpc_scale`, which is also the default: absolute for what
            `aggregate_routing_by_position` returns, relative for plain numbers.
        vmax: Upper end.
        visits: {(x, y): steps}.
        min_visits: Cells with fewer steps are hatched; 0 for none.
        show_counts: Write the number of steps into the cells, if they are large enough to read it.
    """
    largest = None
    if isinstance(avg_lpc_by_pos, PositionAverages):
        largest = avg_lpc_by_pos.largest_lpc
        visits = avg_lpc_by_pos.visits if visits is None else visits
        avg_lpc_by_pos = avg_lpc_by_pos.lpc
    scale = choose_lpc_scale([(avg_lpc_by_pos, visits)], largest, Marks(min_visits))
    mappable = lpc_mappable(scale[0] if vmin is None else vmin, scale[1] if vmax is None else vmax)
    values = np.array(list(avg_lpc_by_pos.values()), np.float64)
    colors = np.where(np.isfinite(values)[:, None], mappable.to_rgba(values)[:, :3], np.nan)
    return _render(ax, list(avg_lpc_by_pos), colors, grid_info, visits, min_visits, show_counts)


def render_value_heatmap(
    ax: Axes,
    values: Mapping[Position, float],
    grid_info: GridInfo,
    mappable: ScalarMappable,
    *,
    visits: Mapping[Position, int] | None = None,
    min_visits: int = MIN_VISITS,
) -> Axes:
    """Draw any number of each cell in the colours of a mappable; returns `ax`.

    Args:
        ax: To draw on.
        values: {(x, y): number}; NaN is not known.
        grid_info: From `compute_grid_bounds`.
        mappable: What a colour bar gets, such as `difference_mappable`.
        visits: {(x, y): steps}.
        min_visits: Cells with fewer steps are hatched; 0 for none.
    """
    numbers = np.array(list(values.values()), np.float64)
    colors = np.where(np.isfinite(numbers)[:, None], mappable.to_rgba(numbers)[:, :3], np.nan)
    return _render(ax, list(values), colors, grid_info, visits, min_visits, False)


def difference_mappable(limit: float) -> ScalarMappable:
    """Return what a colour bar of differences from -limit to limit needs."""
    return ScalarMappable(Normalize(-limit, limit), DIFFERENCE_CMAP)


def render_visits_heatmap(
    ax: Axes, visits: Mapping[Position, int], grid_info: GridInfo, *, limits: tuple[int, int] | None = None
) -> ScalarMappable:
    """Draw the number of steps at each cell, on a logarithmic scale; returns what a colour bar needs.

    Args:
        ax: To draw on.
        visits: {(x, y): steps}.
        grid_info: From `compute_grid_bounds`.
        limits: Of the scale; the fewest and the most visits by default.
    """
    least, most = limits or (min(visits.values(), default=1), max(visits.values(), default=1))
    mappable = ScalarMappable(LogNorm(least, max(most, 2 * least)), VISITS_CMAP)
    colors = mappable.to_rgba(np.array(list(visits.values()), np.float64))[:, :3]
    _render(ax, list(visits), colors, grid_info, None, 0, False)
    return mappable


def routing_colors(weights: np.ndarray, sizes: Sequence[int] | None = None) -> np.ndarray:
    """Return the colours of mean routing weights (n, E), RGB (n, 3); NaN where they are not numbers.

    Args:
        weights: Of the experts of a layer.
        sizes: Of these experts, which tell their hues, see `expert_hues`.
    """
    weights = np.asarray(weights, dtype=np.float64)
    count = weights.shape[1]
    known = np.isfinite(weights).all(axis=1)
    expert, least = np.where(known, weights.argmax(axis=1), -1), 1.0 / count
    intensity = np.clip((weights.max(axis=1) - least) / (1.0 - least), 0.0, 1.0) if count > 1 else np.ones(len(weights))
    colors, hues = np.full((len(weights), 3), np.nan), expert_hues(sizes, count)
    for number in np.unique(expert[known]).tolist():
        rows = expert == number
        colors[rows] = expert_cmap(hues[number])(intensity[rows])[:, :3]
    return colors


def lpc_mappable(vmin: float, vmax: float) -> ScalarMappable:
    """Return what a colour bar of LPC needs."""
    return ScalarMappable(Normalize(vmin, vmax), LPC_CMAP)


def _render(
    ax: Axes,
    positions: Sequence[Position],
    colors: np.ndarray,
    grid_info: GridInfo,
    visits: Mapping[Position, int] | None,
    min_visits: int,
    show_counts: bool,
) -> Axes:
    """Draw cells at positions in their colours (n, 3); NaN is a value that is not known."""
    cells = ground_colors(grid_info)
    for (x, y), color, known in zip(positions, colors, np.isfinite(colors).all(axis=1).tolist(), strict=True):
        row, column = y - grid_info["y_min"], x - grid_info["x_min"]
        inside = 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]
        if not inside:
            raise ValueError(f"grid_info: expected bounds around all positions, found ({x}, {y}) outside of them")
        cells[row, column] = color if known else to_rgb(UNVISITED_COLOR)
        if not known:
            ax.text(x, y, "?", ha="center", va="center", fontsize=7 * current_size().scale, color="#CC3311")
    draw_cells(ax, cells, grid_info)
    draw_doors_and_rooms(ax, grid_info)
    counts = {} if visits is None else {p: visits[p] for p in positions if p in visits}
    rare = [Rectangle((x - 0.5, y - 0.5), 1, 1) for (x, y), n in counts.items() if n < min_visits]
    if rare:
        ax.add_collection(
            PatchCollection(rare, facecolor="none", edgecolor=(1, 1, 1, 0.9), hatch=_HATCH, linewidth=0), autolim=False
        )
    size = count_font_size(ax, grid_info)
    if show_counts and size >= _LEAST_FONT:
        for (x, y), n in counts.items():
            row, column = y - grid_info["y_min"], x - grid_info["x_min"]
            dark = float(cells[row, column] @ (0.299, 0.587, 0.114)) < 0.6
            ax.text(x, y, short_count(n), ha="center", va="center", fontsize=size, color="white" if dark else "black")
    return ax


def short_count(count: int) -> str:
    """Return a number of at most four characters: 999, 1.2k, 12k, 3.4M."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}" if count < 10 * unit - unit // 20 else f"{count / unit:.0f}{name}"
    return str(count)


def count_font_size(ax: Axes, grid_info: GridInfo) -> float:
    """Return the font size, in points, at which four characters fit into a cell."""
    width = ax.get_position().width * ax.figure.get_figwidth() / grid_info["grid_width"]
    return min(8.0 * current_size().scale, 72.0 * width / 4 / 0.58)


# ----------------------------------------------------------------------------------------------------------- legends


def legend_entries(expert_sizes: Sequence[Sequence[int]], num_experts: Sequence[int]) -> list[tuple[str, int]]:
    """Return the name and the hue of each kind of expert, in the order of a layer's experts; see `expert_hues`.

    Kinds that have other sizes in other layers have all of them in their name: "small (16; 8)".

    Args:
        expert_sizes: Per layer; empty if not known.
        num_experts: Per layer.
    """
    count = max(num_experts, default=0)
    if not expert_sizes:
        return [(f"expert {expert}", hue) for expert, hue in enumerate(expert_hues(None, count))]
    if all(sizes == expert_sizes[0] for sizes in expert_sizes):
        return list(zip(expert_labels(expert_sizes[0]), expert_hues(expert_sizes[0], count), strict=True))
    found: dict[int, list[int]] = {}
    for sizes in expert_sizes:
        for size, hue in zip(sizes, expert_hues(sizes, len(sizes)), strict=True):
            found.setdefault(hue, []).append(size)
    names = {SKIP_HUE: "skip", SMALL_HUE: "small", LARGE_HUE: "large"}
    entries = []
    for hue in sorted(found, key=lambda hue: (min(found[hue]), hue)):
        sizes_text = "; ".join(str(size) for size in dict.fromkeys(found[hue]))
        entries.append((names.get(hue, "size") + ("" if hue == SKIP_HUE else f" ({sizes_text})"), hue))
    return entries


def legend_labels(expert_sizes: Sequence[Sequence[int]], num_experts: Sequence[int]) -> list[str]:
    """Return the names of `legend_entries`."""
    return [name for name, _ in legend_entries(expert_sizes, num_experts)]


def draw_expert_legend(
    ax: Axes, labels: Sequence[str], num_experts: int | None = None, hues: Sequence[int] | None = None
) -> Axes:
    """Draw on `ax` what hue and intensity mean: one strip per expert, from uniform weights to 1; returns `ax`.

    Args:
        ax: As large as the legend is to be; labels stand left of it, the scale below.
        labels: Of the experts.
        num_experts: Of a layer; the scale begins at 1 / num_experts. As many as labels by default; 0 if it differs
            between layers, the scale then begins at "uniform".
        hues: Of the experts, as `legend_entries` tells them; by default those of experts of unknown sizes.
    """
    count = len(labels)
    hues = expert_hues(None, count) if hues is None else hues
    total = count if num_experts is None else num_experts
    least = 1.0 / total if total > 1 else 0.0
    ticks = {least: f"{least:.2g}" if total else "uniform", 1.0: "1"}
    if total:
        ticks[(1 + least) / 2] = f"{(1 + least) / 2:.2g}"
    ramp = np.linspace(0.0, 1.0, 65)
    for place, hue in enumerate(hues):
        strip = expert_cmap(hue)(ramp[:-1])[None, :, :3]
        ax.pcolormesh(least + (1 - least) * ramp, [place - 0.4, place + 0.4], strip, rasterized=False)
    scale = current_size().scale
    ax.set_xlim(least, 1)
    ax.set_ylim(count - 0.4, -0.6)
    ax.set_yticks(range(count), labels)
    ax.set_xticks(sorted(ticks), [ticks[tick] for tick in sorted(ticks)])
    ax.tick_params(length=2 * scale, pad=1.5 * scale)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("mean routing weight", labelpad=1.5 * scale, fontsize="small")
    ax.set_title("Dominant expert", loc="left", fontsize="small", pad=3 * scale)
    return ax


def ground_handles(grid_info: GridInfo, visits: Mapping[Any, int], min_visits: int) -> list[Patch]:
    """Return legend entries for cells that are not heat: what occurs of not visited, rarely visited, wall, door.

    Args:
        grid_info: From `compute_grid_bounds`.
        visits: Numbers of steps of all cells drawn.
        min_visits: Cells with fewer are hatched.
    """
    handles = [Patch(fc=UNVISITED_COLOR, ec="0.7", lw=0.5, label="not visited")]
    if any(n < min_visits for n in visits.values()):
        handles.append(Patch(fc="0.6", ec="white", hatch=_HATCH, lw=0, label=f"fewer than {min_visits} steps"))
    for name, style in (("wall", {"fc": WALL_COLOR}), ("door", {"fc": "none", "ec": DOOR_COLOR, "lw": 1.0})):
        shares = grid_info.get(f"{name}s", {}).values()
        if shares:
            handles.append(Patch(**style, label=name if min(shares) == 1 else f"{name} (in some levels)"))
    return handles
