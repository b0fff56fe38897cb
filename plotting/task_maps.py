"""Routing by task: a row of maps for each cache, a layer beside the other, with LPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipeline.command.names import name_command
from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds
from plotting.cells import legend_entries, lpc_mappable, render_lpc_heatmap, render_routing_heatmap
from plotting.collapse import collapse_banner
from plotting.data import RoutingData, as_routing_data
from plotting.levels import keep_ticks
from plotting.panels import replaced_note
from plotting.scales import Marks, choose_lpc_scale, span_of
from plotting.sheet import MARGIN, Sheet, fit_maps, full_width, lines_height
from plotting.source import add_source, maps_table
from plotting.style import current_size, expert_color, figure_style, layer_title, text_width, wrap_text

_MAP_WIDTH, _GAP, _TICKS, _BAR_ROOM = 1.7, 0.13, 0.24, 0.6  # inches: maps, between them, tick labels, a bar
_LEAST_WIDTH = 0.7  # inches: of a map, below which maps of a task are in several rows
_TOP, _LINE, _TITLE = 0.06, 0.16, 0.24  # inches: above the name of a task, a line of it or of its experts, titles
_SQUARE = {"grid_width": 1, "grid_height": 1}  # maps of all tasks are equally wide, whatever their grids


@figure_style()
def plot_task_heatmaps(caches: Mapping[str, Any], notes: Sequence[str] = (), **marks: Any) -> Figure:
    """Return small multiples: a row per cache, a routing map per layer, LPC from 0 to the row's largest possible.

    In a figure of given width that has no room for all maps of a cache beside each other they are in several rows.

    Args:
        caches: {label: cache or other routing data with routers}.
        notes: What is not shown and why, written below.
        **marks: Fields of `Marks`: min_visits, show_counts, scale.

    Raises:
        ValueError: If there is no such scale, or the width that is given leaves no room for a map.
    """
    how = Marks(**marks)
    if not caches:
        text = f"No cache to draw: choose one, or run `{name_command('evaluate')}`."
        figure = Figure(figsize=(7.2, 0.6 + 0.2 * len(notes)))
        figure.text(0.02, 0.5, "\n".join([text, *notes]), va="center")
        return figure
    tasks = [_Task(label, as_routing_data(cache)) for label, cache in caches.items()]
    most = max(len(task.data.layer_names) for task in tasks) + 1
    columns = _count_columns(most)
    width, _ = fit_maps(_SQUARE, _MAP_WIDTH**2, columns, _rest(columns), _LEAST_WIDTH)
    full = full_width(_rest(columns) + columns * width)
    collapsed = [task.label for task in tasks if collapse_banner(task.data)]
    banner = f"Collapsed router: {'; '.join(collapsed)}" if collapsed else ""
    lines = ["LPC " + {"relative": "on a relative scale of each row"}.get(how.scale, "from 0 to the largest possible")]
    rare = any(n < how.min_visits for task in tasks for n in task.averages.visits.values())
    lines += [f"hatched: fewer than {how.min_visits} steps"] if rare else []
    lines += [f"{task.label}: {note}" for task in tasks if (note := replaced_note(task.data))]
    lines += ["not shown: " + "; ".join(notes)] if notes else []
    heights = [task.height(full, width, columns) for task in tasks]
    sheet = Sheet(full, lines_height(full, banner, *lines) + sum(heights) + MARGIN, "Routing by task", *lines,
                  banner=banner)  # fmt: skip
    top = sheet.top
    for task, height in zip(tasks, heights, strict=True):
        add_source(sheet.figure, maps_table({task.label: task.averages}))
        task.draw(sheet, top, width, columns, most, how)
        top += height
    return sheet.figure


def _rest(columns: int) -> float:
    """Return what of the width of a figure is not of maps, in inches."""
    return 2 * MARGIN + _TICKS + columns * _GAP + _BAR_ROOM


def _count_columns(most: int) -> int:
    """Return how many maps are beside each other: all of a task, or as many as a given width has room for.

    Args:
        most: Maps of a task.
    """
    size = current_size()
    if size.width is None:
        return most
    room = size.width / size.scale
    fits = max((n for n in range(1, most + 1) if room - _rest(n) >= n * _LEAST_WIDTH), default=1)
    return -(-most // -(-most // fits))  # rows of about as many maps


class _Task:
    """A cache: its name and experts above its maps."""

    def __init__(self, label: str, data: RoutingData) -> None:
        self.label, self.data = label, data
        self.averages, self.grid = aggregate_routing_by_position(data), compute_grid_bounds(data)
        self.name = f"{label} ({data.describe_size()})"

    def _fold_name(self, full: float) -> list[str]:
        return wrap_text(self.name, full - MARGIN, 7.5, "bold")

    def _place_experts(self, full: float) -> list[tuple[float, int, str, int]]:
        """Return the left end, the line, the name and the hue of each kind of expert, in as many lines as it takes."""
        start = left = MARGIN + _TICKS
        places, line = [], 0
        for name, hue in legend_entries(self.data.expert_sizes, self.data.num_experts):
            wide = 0.16 + text_width(name, 7.5)
            if left > start and left + wide > full - MARGIN:
                left, line = start, line + 1
            places.append((left, line, name, hue))
            left += wide + 0.2
        return places

    def _heading(self, full: float) -> float:
        return _TOP + _LINE * (len(self._fold_name(full)) + self._place_experts(full)[-1][1] + 1)

    def _step(self, width: float) -> float:
        return _TITLE + width * self.grid["grid_height"] / self.grid["grid_width"] + _TICKS

    def height(self, full: float, width: float, columns: int) -> float:
        """Return the height of all in a figure of a width, with maps of a width, in inches."""
        rows = -(-(len(self.data.layer_names) + 1) // columns)
        return self._heading(full) + rows * self._step(width)

    def draw(self, sheet: Sheet, top: float, width: float, columns: int, most: int, how: Marks) -> None:
        """Draw all below a place: layers beside each other, LPC last, in the last column if there is one row."""
        name = self._fold_name(sheet.width)
        for number, line in enumerate(name):
            sheet.text(MARGIN, top + _TOP + number * _LINE, line, fontweight="bold", fontsize="small")
        for left, line, label, hue in self._place_experts(sheet.width):
            below = top + _TOP + (len(name) + line) * _LINE
            sheet.patch(left, below + 0.04, 0.11, 0.09, expert_color(hue))
            sheet.text(left + 0.16, below + 0.02, label, fontsize="small")
        layers, height = self.data.layer_names, self._step(width) - _TITLE - _TICKS
        last = most - 1 if columns == most else len(layers)
        for number, layer in [*enumerate(layers), (last, None)]:
            row, column = divmod(number, columns)
            left = MARGIN + _TICKS + column * (width + _GAP)
            below = top + self._heading(sheet.width) + row * self._step(width) + _TITLE
            ax = sheet.axes(left, below, width, height, layer_title(layer) if layer else "LPC, total")
            keep = {"min_visits": how.min_visits}
            if layer is not None:
                render_routing_heatmap(ax, self.averages, self.grid, layer, show_counts=how.show_counts, **keep)
            else:
                maps = [(self.averages.lpc, self.averages.visits)]
                ends = choose_lpc_scale(maps, self.data.largest_lpc, how)
                render_lpc_heatmap(ax, self.averages, self.grid, vmin=ends[0], vmax=ends[1], **keep)
                sheet.bar(lpc_mappable(*ends), left + width + 0.08, below, 0.08, height, span=span_of(maps, how))
            keep_ticks(ax, left=column == 0)
