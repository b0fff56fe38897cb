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

from plotting.aggregate import (
    GridInfo,
    PositionAverages,
    aggregate_routing_by_position,
    compute_grid_bounds,
    group_routing_data,
)
from plotting.cells import (
    ground_handles,
    legend_entries,
    lpc_mappable,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_visits_heatmap,
)
from plotting.collapse import collapse_banner
from plotting.data import RoutingData, as_routing_data
from plotting.groupings import find_grouping, grouping_of
from plotting.layouts import describe_levels
from plotting.levels import draw_level, keep_ticks
from plotting.narrow import Frame, draw_flow, draw_groups, is_narrow
from plotting.panels import replaced_note, write_near
from plotting.scales import Marks, choose_lpc_scale, describe_scale, span_of
from plotting.sheet import MARGIN, Sheet, build_message, compute_map_size, legend_height, lines_height, names_width
from plotting.source import add_source, maps_table
from plotting.style import current_size, figure_style, layer_title

_GAP, _TICKS, _TITLE = 0.13, 0.22, 0.26  # inches: between maps, for tick labels, for titles
_BAR, _BAR_GAP, _BAR_ROOM = 0.09, 0.08, 0.62  # inches: breadth of a bar, from the map to it, and with its labels
_NAMES = 1.25  # inches for the names of groups
_NAME_LINE = 0.155  # inches for a line of such a name
_MAP_AREA = 2.9  # square inches
_EXAMPLE = "Example level"

_NO_ROUTERS = "This policy has no routers (a baseline): there is no routing to show."
_NO_STEPS = "There are no steps: none were recorded, or none pass the filter."


def plot_overall_routing(
    routing_data: Any,
    env_image: np.ndarray | None = None,
    env_mission: str | None = None,
    filter_fn: Callable[[dict[str, Any]], bool] | np.ndarray | None = None,
    title_suffix: str = "",
    *,
    show_layer_lpc: bool = True,
    **marks: Any,
) -> Figure:
    """Return a figure of all steps: a level, a routing map per layer, LPC in total and per layer, visits.

    Args:
        routing_data: Cache, tables, step records or `RoutingData`.
        env_image: Picture of a level, (h, w, 3). Without it the first level is drawn from its description.
        env_mission: The picture's instruction.
        filter_fn: Which steps count, see `aggregate_routing_by_position`.
        title_suffix: Added to the title.
        show_layer_lpc: Draw the second row: LPC per layer and visits.
        **marks: Fields of `Marks`: min_visits, show_counts, scale.
    """
    how = Marks(**marks)
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
        figure = _draw_overall(data, averages, grid_info, picture, title, how, per_layer)
        add_source(figure, maps_table({"": averages}))
        return figure


def _draw_baseline(
    data: RoutingData, averages: PositionAverages, grid_info: GridInfo, picture: tuple, title: str
) -> Figure:
    rest = MARGIN + _GAP + _TICKS + _BAR_GAP + _BAR_ROOM + MARGIN
    width, height = compute_map_size(grid_info, _MAP_AREA, 2, rest)
    right = MARGIN + width + _GAP + _TICKS
    full = max(rest + 2 * width, 5.0) if current_size().width is None else rest + 2 * width
    lines = (data.describe_size(), _NO_ROUTERS, replaced_note(data))
    size = (full, height + _TITLE + _TICKS + MARGIN + lines_height(full, "", *lines) + 0.04)
    sheet = Sheet(*size, title, *lines)
    top = sheet.top + _TITLE
    _draw_picture(sheet.axes(MARGIN, top, width, height), data, grid_info, *picture)
    mappable = render_visits_heatmap(sheet.axes(right, top, width, height, "Visits"), averages.visits, grid_info)
    sheet.bar(mappable, right + width + _BAR_GAP, top, _BAR, height, "steps")
    add_source(sheet.figure, maps_table({"": averages}))
    return sheet.figure


def _draw_overall(
    data: RoutingData,
    averages: PositionAverages,
    grid_info: GridInfo,
    picture: tuple[np.ndarray | None, str | None],
    title: str,
    how: Marks,
    per_layer: bool,
) -> Figure:
    layers = data.layer_names
    entries = legend_entries(data.expert_sizes, data.num_experts)
    handles = ground_handles(grid_info, averages.visits, how.min_visits)
    names = names_width([name for name, _ in entries]) + 0.95
    rest = MARGIN + _GAP + _TICKS + len(layers) * _GAP + _BAR_GAP + _BAR_ROOM + MARGIN
    width, height = compute_map_size(grid_info, _MAP_AREA, len(layers) + 2, rest)
    if width < names:  # the legend takes more than a map
        width, height = compute_map_size(grid_info, _MAP_AREA, len(layers) + 1, rest + names)
    banner, lines = collapse_banner(data), (data.describe_size(), describe_scale(data, how), replaced_note(data))
    if is_narrow(width):
        return draw_flow(data, averages, grid_info, Frame(title, lines, banner), how, per_layer=per_layer)
    lead = max(width, names)
    first = MARGIN + lead + _GAP + _TICKS
    lefts = [first + column * (width + _GAP) for column in range(len(layers) + 1)]
    bar_left = lefts[-1] + width + _BAR_GAP
    full = bar_left + _BAR_ROOM + MARGIN
    top = lines_height(full, banner, *lines) + _TITLE
    second = top + height + _TICKS + (_TITLE if per_layer else 0.05)
    legend = legend_height([name for name, _ in entries], len(handles), beside=not per_layer)
    below = max(height + _TICKS + _BAR + 0.16, legend) if per_layer else legend
    sheet = Sheet(full, second + below + MARGIN, title, *lines, banner=banner)
    _draw_picture(sheet.axes(MARGIN + (lead - width) / 2, top, width, height), data, grid_info, *picture)
    sheet.legend(MARGIN, second, entries, data.num_experts, handles, beside=not per_layer)
    marks = {"visits": averages.visits, "min_visits": how.min_visits}
    for number, (left, layer) in enumerate(zip(lefts, layers, strict=False)):
        ax = sheet.axes(left, top, width, height, layer_title(layer))
        render_routing_heatmap(ax, averages, grid_info, layer, min_visits=how.min_visits, show_counts=how.show_counts)
        keep_ticks(ax, left=left == first)
        if per_layer:
            ax = sheet.axes(left, second, width, height, f"LPC, {layer_title(layer).lower()}")
            found = [(averages.layer_lpc[layer], averages.visits)]
            scale = choose_lpc_scale(found, data.largest_layer_lpc[number], how)
            render_lpc_heatmap(ax, averages.layer_lpc[layer], grid_info, vmin=scale[0], vmax=scale[1], **marks)
            keep_ticks(ax, left=left == first)
            place = (left, second + height + _TICKS, width, _BAR)
            sheet.bar(lpc_mappable(*scale), *place, span=span_of(found, how))
    ax = sheet.axes(lefts[-1], top, width, height, "LPC, total")
    found = [(averages.lpc, averages.visits)]
    scale = choose_lpc_scale(found, data.largest_lpc, how)
    render_lpc_heatmap(ax, averages.lpc, grid_info, vmin=scale[0], vmax=scale[1], **marks)
    keep_ticks(ax, left=False)
    place = (bar_left, top, _BAR, height)
    sheet.bar(lpc_mappable(*scale), *place, "LPC", span_of(found, how))
    if per_layer:
        ax = sheet.axes(lefts[-1], second, width, height, "Visits")
        mappable = render_visits_heatmap(ax, averages.visits, grid_info)
        keep_ticks(ax, left=False)
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
    max_groups: int = 8,
    **marks: Any,
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
        max_groups: Of more groups those with the most steps are shown.
        **marks: Fields of `Marks`: min_visits, show_counts, scale.

    Raises:
        ValueError: If there is no such grouping, or the records lack what tells their groups.
    """
    how = Marks(**marks)
    everything = as_routing_data(routing_data)
    name = find_grouping(group_by, everything)
    grouping = grouping_of(name, everything)
    data = everything.where(filter_fn)
    groups = group_routing_data(data, name)
    what = "" if name == "overall" else f" by {grouping.title}"
    title = f"{data.title + ': r' if data.title else 'R'}outing{what}{title_suffix}"
    with figure_style():
        if not len(data):
            return build_message(title, _NO_STEPS)
        if not data.has_routing:
            return build_message(title, _NO_ROUTERS)
        if not groups:
            return build_message(title, f"No step is in a group: {groups.reason}.")
        keys, rest = groups.largest(max_groups)
        notes = [groups.describe_dropped(), rest]
        rows = [_Row(groups.labels[key], groups[key], env_images, env_missions, key) for key in keys]
        lines = (data.describe_size(), "; ".join(filter(None, notes)), describe_scale(data, how, shared=True))
        lines = (*lines, replaced_note(data))
        figure = _draw_grouped(data, rows, compute_grid_bounds(everything), (title, *lines), how)
        add_source(figure, maps_table({row.name: row.averages for row in rows}))
        return figure


class _Row:
    """A group as it is drawn: its name, data, averages, and a picture of one of its levels."""

    def __init__(self, label: str, data: RoutingData, images: Any, missions: Any, key: Hashable) -> None:
        self.name, self.label, self.data = label, textwrap.fill(label, 17), data
        self.size = data.describe_size().replace(", ", "\n")
        self.height = 0.1 + _NAME_LINE * (1 + self.label.count("\n")) + 0.14 * (1 + self.size.count("\n"))
        self.averages = aggregate_routing_by_position(data)
        self.levels = describe_levels(data)
        image = (images or {}).get(key)
        if isinstance(image, Sequence):
            image = image[0] if len(image) else None
        self.image, self.mission = image, (missions or {}).get(key, "")


def _draw_grouped(
    data: RoutingData, rows: list[_Row], grid_info: GridInfo, lines: tuple[str, ...], how: Marks
) -> Figure:
    layers, entries = data.layer_names, legend_entries(data.expert_sizes, data.num_experts)
    rest = MARGIN + _NAMES + _GAP + _TICKS + len(layers) * _GAP + _BAR_GAP + _BAR_ROOM + MARGIN
    width, height = compute_map_size(grid_info, 0.7 * _MAP_AREA, len(layers) + 2, rest)
    banner = collapse_banner(data)
    if is_narrow(width):
        named = [(f"{row.name} ({row.data.describe_size()})", row.averages, grid_info | row.levels) for row in rows]
        return draw_groups(data, named, Frame(lines[0], lines[1:], banner), how)
    least = {(row, p): n for row, group in enumerate(rows) for p, n in group.averages.visits.items()}
    handles = ground_handles(grid_info, least, how.min_visits)
    first = MARGIN + _NAMES + width + _GAP + _TICKS
    lefts = [first + column * (width + _GAP) for column in range(len(layers) + 1)]
    bar_left = lefts[-1] + width + _BAR_GAP
    full = bar_left + _BAR_ROOM + MARGIN
    row_height = max([height, *(row.height for row in rows)])
    step = row_height + (0.36 if any(row.mission for row in rows) else _GAP)
    top = lines_height(full, banner, *lines[1:]) + _TITLE
    end = top + (len(rows) - 1) * step + row_height + _TICKS
    full_height = end + legend_height([name for name, _ in entries], len(handles), beside=True) + MARGIN
    sheet = Sheet(full, full_height, *lines, banner=banner)
    found = [(row.averages.lpc, row.averages.visits) for row in rows]
    scale = choose_lpc_scale(found, data.largest_lpc, how)
    for number, row in enumerate(rows):
        row_top = top + number * step
        sheet.text(MARGIN, row_top, row.label, fontweight="bold")
        size = {"color": "0.3", "fontsize": "small"}
        sheet.text(MARGIN, row_top + 0.05 + _NAME_LINE * (1 + row.label.count("\n")), row.size, **size)
        picture = sheet.axes(MARGIN + _NAMES, row_top, width, height, _EXAMPLE if number == 0 else "")
        _draw_picture(picture, row.data, grid_info, row.image, row.mission, below=True)
        for left, layer in zip(lefts, [*layers, None], strict=True):
            name = "LPC, total" if layer is None else layer_title(layer)
            ax = sheet.axes(left, row_top, width, height, name if number == 0 else "")
            local = grid_info | row.levels
            if layer is None:
                ends = {"vmin": scale[0], "vmax": scale[1]}
                render_lpc_heatmap(ax, row.averages, local, min_visits=how.min_visits, **ends)
            else:
                marks = {"min_visits": how.min_visits, "show_counts": how.show_counts}
                render_routing_heatmap(ax, row.averages, local, layer, **marks)
            keep_ticks(ax, left=left == first, bottom=number == len(rows) - 1)
    bar_height = height if len(rows) == 1 else min(2.4, step + height)
    sheet.bar(lpc_mappable(*scale), bar_left, top, _BAR, bar_height, "LPC", span_of(found, how))
    names = names_width([name for name, _ in entries])
    legend_left = min(first, full - names - 1.0 - 1.4 - MARGIN)  # a narrow figure has it further left
    sheet.legend(max(MARGIN, legend_left), end, entries, data.num_experts, handles, beside=True)
    return sheet.figure


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
        inches = ax.get_position().width * ax.figure.get_figwidth() / current_size().scale
        text = textwrap.fill(f"“{mission}”", max(12, int(inches * 15)), max_lines=2, placeholder=" …”")
        style = {"ha": "center", "va": "top" if below else "bottom", "fontsize": "x-small" if below else "small"}
        offset = (0, -2 if below else 4)
        write_near(ax, text, (0.5, 0 if below else 1), offset, xycoords="axes fraction", style="italic", **style)
