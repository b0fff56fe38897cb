"""Heatmaps for a figure of a given, small width, such as a column of a paper: maps in as many rows as it takes.

`plotting.heatmaps` draws through this where its own layout, all layers beside each other and a level before them, would
leave no room for the maps. Example levels are left out; bars are below the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from plotting.aggregate import GridInfo, PositionAverages
from plotting.cells import (
    ground_handles,
    legend_entries,
    lpc_mappable,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_visits_heatmap,
)
from plotting.data import RoutingData
from plotting.levels import keep_ticks
from plotting.scales import Marks, choose_lpc_scale, span_of
from plotting.sheet import MARGIN, Sheet, legend_height, lines_height, names_width
from plotting.style import current_size, layer_title

LEAST_WIDTH = 0.85
"""Inches of a map, for text of the usual size, below which these layouts are taken."""

_GAP, _TICKS, _TITLE = 0.14, 0.24, 0.26  # inches: between maps, for tick labels, for titles
_BAR, _BAR_ROOM, _NAME = 0.08, 0.24, 0.19  # inches: breadth of a bar, room of its labels, a group's name


@dataclass(frozen=True)
class Frame:
    """What is written around the maps.

    Attributes:
        title: Of the figure.
        lines: Below it; empty ones are left out.
        banner: A warning, or "".
    """

    title: str
    lines: Sequence[str]
    banner: str


def is_narrow(map_width: float) -> bool:
    """Return whether maps of a width, in inches, are too small for the usual layout in a figure of given width."""
    return current_size().width is not None and map_width < LEAST_WIDTH


def draw_flow(
    data: RoutingData, averages: PositionAverages, grid_info: GridInfo, frame: Frame, how: Marks, *, per_layer: bool
) -> Figure:
    """Return a figure of all steps: routing maps, LPC in total and per layer, visits, row by row.

    Args:
        data: The steps.
        averages: Of them.
        grid_info: Bounds and levels.
        frame: What is written.
        how: How cells are drawn.
        per_layer: Show LPC per layer and visits too.
    """
    full, names = _width(), data.layer_names
    panels = [(layer_title(name), name, "routing") for name in names] + [("LPC, total", "", "lpc")]
    if per_layer:
        panels += [(f"LPC, {layer_title(name).lower()}", name, "lpc") for name in names] + [("Visits", "", "visits")]
    columns, width, height = _grid(full, grid_info, len(panels))
    step = _TITLE + height + _TICKS + _BAR + _BAR_ROOM
    top = lines_height(full, frame.banner, *frame.lines)
    end = top + -(-len(panels) // columns) * step
    sheet = _sheet(full, end, data, [averages.visits], grid_info, frame, how)
    for number, (title, name, kind) in enumerate(panels):
        left = MARGIN + _TICKS + (number % columns) * (width + _GAP)
        place = top + (number // columns) * step + _TITLE
        ax = sheet.axes(left, place, width, height, title)
        below = (left, place + height + _TICKS, width, _BAR)
        marks = {"visits": averages.visits, "min_visits": how.min_visits}
        if kind == "routing":
            render_routing_heatmap(
                ax, averages, grid_info, name, min_visits=how.min_visits, show_counts=how.show_counts
            )
        elif kind == "lpc":
            largest = data.largest_layer_lpc[names.index(name)] if name and data.expert_sizes else data.largest_lpc
            maps = [(averages.layer_lpc[name] if name else averages.lpc, averages.visits)]
            low, high = choose_lpc_scale(maps, largest, how)
            render_lpc_heatmap(ax, maps[0][0], grid_info, vmin=low, vmax=high, **marks)
            sheet.bar(lpc_mappable(low, high), *below, span=span_of(maps, how))
        else:
            sheet.bar(render_visits_heatmap(ax, averages.visits, grid_info), *below)
        keep_ticks(ax, left=number % columns == 0)
    return sheet.figure


def draw_groups(
    data: RoutingData, groups: Sequence[tuple[str, PositionAverages, GridInfo]], frame: Frame, how: Marks
) -> Figure:
    """Return a figure with a row of maps per group below its name.

    Args:
        data: The steps of all groups.
        groups: Name with size, averages, bounds and levels of each.
        frame: What is written.
        how: How cells are drawn.
    """
    full, names = _width(), data.layer_names
    columns = len(names) + 1
    _, width, height = _grid(full, groups[0][2], columns, columns)
    step = _NAME + height + _GAP
    top = lines_height(full, frame.banner, *frame.lines) + _TITLE
    end = top + len(groups) * step + _TICKS + _BAR + _BAR_ROOM
    sheet = _sheet(full, end, data, [averages.visits for _, averages, _ in groups], groups[0][2], frame, how)
    maps = [(averages.lpc, averages.visits) for _, averages, _ in groups]
    low, high = choose_lpc_scale(maps, data.largest_lpc, how)
    lefts = [MARGIN + _TICKS + column * (width + _GAP) for column in range(columns)]
    for row, (label, averages, grid_info) in enumerate(groups):
        place = top + row * step
        sheet.text(MARGIN, place, label, fontweight="bold", fontsize="small")
        for left, name in zip(lefts, [*names, None], strict=True):
            title = "" if row else layer_title(name) if name else "LPC, total"
            sheet.text(left, place - 0.2, title)
            ax = sheet.axes(left, place + _NAME, width, height)
            if name is None:
                render_lpc_heatmap(ax, averages, grid_info, vmin=low, vmax=high, min_visits=how.min_visits)
            else:
                render_routing_heatmap(
                    ax, averages, grid_info, name, min_visits=how.min_visits, show_counts=how.show_counts
                )
            keep_ticks(ax, left=left == lefts[0], bottom=row == len(groups) - 1)
    below = (lefts[-1], end - _BAR - _BAR_ROOM, width, _BAR)
    sheet.bar(lpc_mappable(low, high), *below, span=span_of(maps, how))
    return sheet.figure


def _width() -> float:
    """Return the width of the figure in inches of a layout with text of the usual size."""
    size = current_size()
    return (size.width or 7.2) / size.scale


def _grid(full: float, grid_info: GridInfo, count: int, columns: int | None = None) -> tuple[int, float, float]:
    """Return columns, and width and height of a map; the most columns with maps that are wide enough, if not given."""
    room = full - 2 * MARGIN - _TICKS
    if columns is None:
        fits = [n for n in range(1, count + 1) if (room + _GAP) / n - _GAP >= LEAST_WIDTH]
        columns = max(fits, default=1)
        columns = next((n for n in range(columns, 1, -1) if count % n == 0), columns)  # full rows, where they can be
    width = (room + _GAP) / columns - _GAP
    ratio = min(max(grid_info["grid_width"] / grid_info["grid_height"], 0.25), 4.0)
    return columns, width, width / ratio


def _sheet(
    full: float,
    end: float,
    data: RoutingData,
    visits: Sequence[Mapping[Any, int]],
    grid_info: GridInfo,
    frame: Frame,
    how: Marks,
) -> Sheet:
    """Return a sheet with its legend, which begins where the maps end."""
    entries = legend_entries(data.expert_sizes, data.num_experts)
    names = [name for name, _ in entries]
    handles = ground_handles(
        grid_info, {(k, p): n for k, part in enumerate(visits) for p, n in part.items()}, how.min_visits
    )
    beside = MARGIN + names_width(names) + 1.0 + 1.4 < full
    height = end + 0.06 + legend_height(names, len(handles), beside=beside) + MARGIN
    sheet = Sheet(full, height, frame.title, *frame.lines, banner=frame.banner)
    sheet.legend(MARGIN, end + 0.06, entries, data.num_experts, handles, beside=beside)
    return sheet
