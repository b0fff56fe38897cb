"""Figures of routing over the grid: which expert is recruited where, and at what cost.

    figure = plot_overall_routing(cache, title_suffix=", facing up", filter_fn=cache.routing.direction == 3)
    figure = plot_grouped_routing(cache, "starting_room")
    save_figure(figure, path)

What a map shows is told in `plotting.cells`, whose `render_` functions draw one of them on given axes. All maps of a
figure are equally large and have the same bounds. Figures are not pyplot's: nothing has to be closed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from plotting.aggregate import (
    GridInfo,
    PositionAverages,
    aggregate_routing_by_position,
    compute_grid_bounds,
    group_routing_data,
)
from plotting.cells import (
    compute_lpc_scale,
    ground_handles,
    legend_labels,
    lpc_mappable,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_visits_heatmap,
)
from plotting.data import RoutingData, as_routing_data
from plotting.groupings import GROUPINGS, find_grouping
from plotting.layouts import describe_levels
from plotting.levels import draw_level
from plotting.options import MIN_VISITS
from plotting.panels import write_near
from plotting.sheet import MARGIN, Sheet, build_message, compute_map_size, legend_height, names_width
from plotting.style import figure_style, layer_title

_GAP, _TICKS, _TITLE = 0.13, 0.22, 0.26  # inches: between maps, for tick labels, for titles
_BAR, _BAR_GAP, _BAR_ROOM = 0.09, 0.08, 0.62  # inches: breadth of a bar, from the map to it, and with its labels
_NAMES = 1.25  # inches for the names of groups
_MAP_AREA = 2.9  # square inches

_NO_ROUTERS = "This policy has no routers (a baseline): there is no routing to show."
_NO_STEPS = "There are no steps: none were recorded, or none pass the filter."


def plot_overall_routing(
    routing_data: Any,
    env_image: np.ndarray | None = None,
    env_mission: str | None = None,
    filter_fn: Callable[[dict[str, Any]], bool] | np.ndarray | None = None,
    title_suffix: str = "",
    *,
    min_visits: int = MIN_VISITS,
    show_counts: bool = False,
    show_layer_lpc: bool = True,
) -> Figure:
    """Return a figure of all steps: a level, a routing map per layer, LPC in total and per layer, visits.

    Args:
        routing_data: Cache, tables, step records or `RoutingData`.
        env_image: Picture of a level, (h, w, 3). Without it the first level is drawn from its description.
        env_mission: The picture's instruction.
        filter_fn: Which steps count, see `aggregate_routing_by_position`.
        title_suffix: Added to the title.
        min_visits: Cells with fewer steps are hatched.
        show_counts: Write the number of steps into the cells of the routing maps.
        show_layer_lpc: Draw the second row: LPC per layer, each on its own scale, and visits.
    """
    everything = as_routing_data(routing_data)
    data = everything.where(filter_fn)
    title = f"{data.title + ': r' if data.title else 'R'}outing{title_suffix}"
    with figure_style():
        if not len(data):
            return build_message(title, _NO_STEPS)
        averages = aggregate_routing_by_position(data)
        grid_info = compute_grid_bounds(everything) | describe_levels(data)
        picture = (env_image, env_mission)
        if not data.has_routing:
            return _draw_baseline(data, averages, grid_info, picture, title)
        per_layer = show_layer_lpc and bool(averages.layer_lpc)
        return _draw_overall(data, averages, grid_info, picture, title, min_visits, show_counts, per_layer)


def _draw_baseline(
    data: RoutingData, averages: PositionAverages, grid_info: GridInfo, picture: tuple, title: str
) -> Figure:
    width, height = compute_map_size(grid_info, _MAP_AREA)
    right = MARGIN + width + _GAP + _TICKS
    size = (max(right + width + _BAR_GAP + _BAR_ROOM + MARGIN, 5.0), height + _TITLE + _TICKS + MARGIN + 0.75)
    sheet = Sheet(*size, title, data.describe_size(), _NO_ROUTERS)
    top = sheet.top + _TITLE
    _draw_picture(sheet.axes(MARGIN, top, width, height), data, grid_info, *picture)
    mappable = render_visits_heatmap(sheet.axes(right, top, width, height, "Visits"), averages.visits, grid_info)
    sheet.bar(mappable, right + width + _BAR_GAP, top, _BAR, height, "steps")
    return sheet.figure


def _draw_overall(
    data: RoutingData,
    averages: PositionAverages,
    grid_info: GridInfo,
    picture: tuple[np.ndarray | None, str | None],
    title: str,
    min_visits: int,
    show_counts: bool,
    per_layer: bool,
) -> Figure:
    width, height = compute_map_size(grid_info, _MAP_AREA)
    layers = data.layer_names
    labels = legend_labels(data.expert_sizes, data.num_experts)
    handles = ground_handles(grid_info, averages.visits, min_visits)
    lead = max(width, names_width(labels) + 0.95)
    first = MARGIN + lead + _GAP + _TICKS
    lefts = [first + column * (width + _GAP) for column in range(len(layers) + 1)]
    bar_left = lefts[-1] + width + _BAR_GAP
    top = MARGIN + 0.42 + _TITLE
    second = top + height + _TICKS + (_TITLE if per_layer else 0.05)
    legend = legend_height(labels, len(handles), beside=not per_layer)
    below = max(height + _TICKS + _BAR + 0.16, legend) if per_layer else legend
    sheet = Sheet(bar_left + _BAR_ROOM + MARGIN, second + below + MARGIN, title, data.describe_size())
    _draw_picture(sheet.axes(MARGIN + (lead - width) / 2, top, width, height), data, grid_info, *picture)
    sheet.legend(MARGIN, second, labels, data.num_experts, handles, beside=not per_layer)
    marks = {"visits": averages.visits, "min_visits": min_visits}
    for left, layer in zip(lefts, layers, strict=False):
        ax = sheet.axes(left, top, width, height, layer_title(layer))
        render_routing_heatmap(ax, averages, grid_info, layer, min_visits=min_visits, show_counts=show_counts)
        _keep_ticks(ax, left=left == first)
        if per_layer:
            ax = sheet.axes(left, second, width, height, f"LPC, {layer_title(layer).lower()}")
            scale = compute_lpc_scale(averages.layer_lpc[layer].values())
            render_lpc_heatmap(ax, averages.layer_lpc[layer], grid_info, vmin=scale[0], vmax=scale[1], **marks)
            _keep_ticks(ax, left=left == first)
            sheet.bar(lpc_mappable(*scale), left, second + height + _TICKS, width, _BAR)
    ax = sheet.axes(lefts[-1], top, width, height, "LPC, total")
    scale = compute_lpc_scale(averages.lpc.values())
    render_lpc_heatmap(ax, averages.lpc, grid_info, vmin=scale[0], vmax=scale[1], **marks)
    _keep_ticks(ax, left=False)
    sheet.bar(lpc_mappable(*scale), bar_left, top, _BAR, height, "LPC")
    if per_layer:
        ax = sheet.axes(lefts[-1], second, width, height, "Visits")
        mappable = render_visits_heatmap(ax, averages.visits, grid_info)
        _keep_ticks(ax, left=False)
        sheet.bar(mappable, bar_left, second, _BAR, height, "steps")
    return sheet.figure


def plot_grouped_routing(
    routing_data: Any,
    group_by: str,
    env_images: Mapping[Hashable, np.ndarray | Sequence[np.ndarray]] | None = None,
    env_missions: Mapping[Hashable, str] | None = None,
    filter_fn: Callable[[dict[str, Any]], bool] | np.ndarray | None = None,
    title_suffix: str = "",
    *,
    min_visits: int = MIN_VISITS,
    show_counts: bool = False,
    max_groups: int = 8,
) -> Figure:
    """Return a figure with one row per group: a level, a routing map per layer, LPC; common bounds and scales.

    What is not shown, steps in no group and groups beyond `max_groups`, is counted below the title.

    Args:
        routing_data: Cache, tables, step records or `RoutingData`.
        group_by: See `group_routing_data`.
        env_images: {key: picture of a level of the group, (h, w, 3), or a list of which the first is taken}. Without
            one the group's first level is drawn from its description.
        env_missions: {key: the picture's instruction}.
        filter_fn: Which steps count, see `aggregate_routing_by_position`.
        title_suffix: Added to the title.
        min_visits: Cells with fewer steps are hatched.
        show_counts: Write the number of steps into the cells of the routing maps.
        max_groups: Of more groups those with the most steps are shown.

    Raises:
        ValueError: If there is no such grouping.
    """
    name = find_grouping(group_by)
    everything = as_routing_data(routing_data)
    data = everything.where(filter_fn)
    groups = group_routing_data(data, name)
    what = "" if name == "overall" else f" by {GROUPINGS[name].title}"
    title = f"{data.title + ': r' if data.title else 'R'}outing{what}{title_suffix}"
    with figure_style():
        if not len(data):
            return build_message(title, _NO_STEPS)
        if not data.has_routing:
            return build_message(title, _NO_ROUTERS)
        if not groups:
            return build_message(title, f"No step is in a group: {groups.reason}.")
        kept = set(sorted(groups, key=lambda key: -len(groups[key]))[:max_groups])
        notes = [groups.describe_dropped()]
        if len(kept) < len(groups):
            hidden = sum(len(groups[key]) for key in groups if key not in kept)
            notes.append(f"{len(groups) - len(kept)} smaller groups not shown ({hidden:,} steps)")
        rows = [_Row(groups.labels[key], groups[key], env_images, env_missions, key) for key in groups if key in kept]
        lines = (title, data.describe_size(), "; ".join(filter(None, notes)))
        return _draw_grouped(data, rows, compute_grid_bounds(everything), lines, min_visits, show_counts)


class _Row:
    """A group as it is drawn: its name, data, averages, and a picture of one of its levels."""

    def __init__(self, label: str, data: RoutingData, images: Any, missions: Any, key: Hashable) -> None:
        self.label, self.data = textwrap.fill(label, 17), data
        self.averages = aggregate_routing_by_position(data)
        self.levels = describe_levels(data)
        image = (images or {}).get(key)
        if isinstance(image, Sequence):
            image = image[0] if len(image) else None
        self.image, self.mission = image, (missions or {}).get(key, "")


def _draw_grouped(
    data: RoutingData,
    rows: list[_Row],
    grid_info: GridInfo,
    lines: tuple[str, ...],
    min_visits: int,
    show_counts: bool,
) -> Figure:
    width, height = compute_map_size(grid_info, 0.7 * _MAP_AREA)
    labels = legend_labels(data.expert_sizes, data.num_experts)
    least = {(row, p): n for row, group in enumerate(rows) for p, n in group.averages.visits.items()}
    handles = ground_handles(grid_info, least, min_visits)
    first = MARGIN + _NAMES + width + _GAP + _TICKS
    lefts = [first + column * (width + _GAP) for column in range(len(data.layer_names) + 1)]
    bar_left = lefts[-1] + width + _BAR_GAP
    step = max(height, 0.6) + (0.36 if any(row.mission for row in rows) else _GAP)
    top = MARGIN + 0.42 + 0.17 * bool(lines[2]) + _TITLE
    end = top + (len(rows) - 1) * step + max(height, 0.6) + _TICKS
    full_height = end + legend_height(labels, len(handles), beside=True) + MARGIN
    sheet = Sheet(bar_left + _BAR_ROOM + MARGIN, full_height, *lines)
    scale = compute_lpc_scale(value for row in rows for value in row.averages.lpc.values())
    for number, row in enumerate(rows):
        row_top = top + number * step
        sheet.text(MARGIN, row_top, row.label, fontweight="bold")
        size = row.data.describe_size().replace(", ", "\n")
        sheet.text(MARGIN, row_top + 0.2 + 0.15 * row.label.count("\n"), size, color="0.3", fontsize="small")
        picture = sheet.axes(MARGIN + _NAMES, row_top, width, height, "Example level" if number == 0 else "")
        _draw_picture(picture, row.data, grid_info, row.image, row.mission, below=True)
        for left, layer in zip(lefts, [*data.layer_names, None], strict=True):
            name = "LPC, total" if layer is None else layer_title(layer)
            ax = sheet.axes(left, row_top, width, height, name if number == 0 else "")
            local = grid_info | row.levels
            if layer is None:
                render_lpc_heatmap(ax, row.averages, local, vmin=scale[0], vmax=scale[1], min_visits=min_visits)
            else:
                marks = {"min_visits": min_visits, "show_counts": show_counts}
                render_routing_heatmap(ax, row.averages, local, layer, **marks)
            _keep_ticks(ax, left=left == first, bottom=number == len(rows) - 1)
    bar_height = height if len(rows) == 1 else min(2.4, step + height)
    sheet.bar(lpc_mappable(*scale), bar_left, top, _BAR, bar_height, "LPC")
    sheet.legend(first, end, labels, data.num_experts, handles, beside=True)
    return sheet.figure


def _keep_ticks(ax: Axes, *, left: bool, bottom: bool = True) -> None:
    """Leave ticks at these sides only; a tick costs a millisecond."""
    for axis, kept in ((ax.xaxis, bottom), (ax.yaxis, left)):
        if not kept:
            axis.set_major_locator(NullLocator())


def _draw_picture(
    ax: Axes,
    data: RoutingData,
    grid_info: GridInfo,
    image: np.ndarray | None,
    mission: str | None,
    below: bool = False,
) -> None:
    """Draw the picture of a level, or the first level's schematic, with its instruction above or below."""
    episode = int(data.episodes_present[0])
    if image is not None:
        ax.imshow(image, interpolation="antialiased")
        ax.set_axis_off()
    else:
        context = data.episodes.env_context[episode]
        if "walls" in context or "agent_start_pos" in context:
            draw_level(ax, context, grid_info)
        else:
            ax.set_axis_off()
            ax.text(0.5, 0.5, "level not described", transform=ax.transAxes, ha="center", va="center", color="0.5")
        mission = data.episodes.mission[episode] if mission is None else mission
    if mission:
        inches = ax.get_position().width * ax.figure.get_figwidth()
        text = textwrap.fill(f"“{mission}”", max(12, int(inches * 15)), max_lines=2, placeholder=" …”")
        style = {"ha": "center", "va": "top" if below else "bottom", "fontsize": "x-small" if below else "small"}
        offset = (0, -2 if below else 4)
        write_near(ax, text, (0.5, 0 if below else 1), offset, xycoords="axes fraction", style="italic", **style)
