"""Maps of LPC from which the time since the start of the episode is taken out.

    plot_without_time(cache, "starting_room")

What is left of a map when each step's LPC is replaced by what it is above or below the mean of all steps at the same
time; `plotting.elapsed` tells how much of LPC the time predicts.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds, group_routing_data
from plotting.cells import difference_mappable, lpc_mappable, render_lpc_heatmap, render_value_heatmap
from plotting.collapse import collapse_banner
from plotting.data import PlotError, RoutingData
from plotting.groupings import GROUPINGS, encode_groups, find_grouping
from plotting.layouts import describe_levels
from plotting.panels import as_routed_data, replaced_note
from plotting.scales import Marks, choose_lpc_scale, describe_scale, firm_values, span_of
from plotting.sheet import MARGIN, Sheet, build_message, fit_maps, full_width, lines_height
from plotting.source import add_source
from plotting.style import figure_style, layer_title
from plotting.temporal import step_numbers


def plot_without_time(
    data: Any, group_by: str = "starting_room", marks: Marks | None = None, *, max_groups: int = 8
) -> Figure:
    """Return maps of LPC beside maps of what it is above or below the mean of all steps at the same time.

    One row per group. What the second column shows is no consequence of the time since the start: a step at time t
    counts by its distance from the run's mean over all its steps at t. The same for the LPC of each layer.

    Args:
        data: Cache, tables, step records or `RoutingData`.
        group_by: See `plotting.groupings`; overall for one row.
        marks: Which cells are hatched, and the scale of LPC.
        max_groups: Of more groups those with the most steps are shown.

    Raises:
        ValueError: If there are no routers, no such grouping, or the cache does not tell episodes apart.
    """
    data, name = as_routed_data(data), find_grouping(group_by)
    if data.layouts_only:
        raise PlotError("time: this cache tells layouts apart, not episodes, so that the time is not known")
    what = "" if name == "overall" else f" by {GROUPINGS[name].title}"
    title = f"{data.title + ': ' if data.title else ''}LPC{what}, with the time since the start taken out"
    with figure_style():
        groups = group_routing_data(data, name)
        if not groups:
            return build_message(title, f"No step is in a group: {groups.reason}.")
        kept, rest = groups.largest(max_groups)
        notes = [
            groups.describe_dropped(),
            rest,
            "right of the first column: LPC less the mean of all steps at the same time since the start",
        ]
        codes, keys = encode_groups(data, name)
        columns = {"total": data.lpc.astype(np.float64)} | data.layer_lpc
        rests = {layer: subtract_time(data, values) for layer, values in columns.items()}
        rows = []
        for code, key in enumerate(keys):
            if key in kept:
                mask = codes == code
                rows.append(_Row(groups.labels[key], data, mask, columns["total"], rests))
        marks = marks or Marks()
        scales = describe_scale(data, marks, shared=True)
        lines = (title, data.describe_size(), "; ".join(filter(None, notes)), scales, replaced_note(data))
        return _draw_rows(data, rows, lines, marks)


def subtract_time(data: RoutingData, values: np.ndarray) -> np.ndarray:
    """Return values less their run's mean over all steps at the same time since the start, float64 (S,).

    Args:
        data: The steps.
        values: (S,), of each.
    """
    runs = np.zeros(len(data), np.intp) if data.run is None else data.run_of_step
    table = pd.DataFrame({"run": runs, "time": step_numbers(data), "value": np.asarray(values, np.float64)})
    return table["value"].to_numpy() - table.groupby(["run", "time"])["value"].transform("mean").to_numpy()


class _Row:
    """A group: its name, its steps, and the means by position of LPC and of what time leaves of it."""

    def __init__(
        self, label: str, data: RoutingData, mask: np.ndarray, lpc: np.ndarray, rests: dict[str, np.ndarray]
    ) -> None:
        self.label, self.data = label, data.filter(mask)
        averages = aggregate_routing_by_position(self.data)
        self.visits, self.lpc = averages.visits, averages.lpc
        self.rests = {layer: _by_position(self.data, rest[mask]) for layer, rest in rests.items()}
        self.levels = describe_levels(self.data)


def _by_position(data: RoutingData, values: np.ndarray) -> dict[tuple[int, int], float]:
    routing = dataclasses.replace(data.routing, lpc=values.astype(np.float32))
    return aggregate_routing_by_position(dataclasses.replace(data, routing=routing)).lpc


def _draw_rows(data: RoutingData, rows: list[_Row], lines: tuple[str, ...], how: Marks) -> Figure:
    gap, ticks, heading, names, bar, bar_room = 0.13, 0.22, 0.42, 1.25, 0.09, 0.62  # inches
    grid_info = compute_grid_bounds(data)
    layers = list(rows[0].rests)
    rest = 2 * MARGIN + names + 2 * (0.08 + bar + bar_room) + (len(layers) - 1) * gap
    width, height = fit_maps(grid_info, 2.0, len(layers) + 1, rest)
    first = MARGIN + names
    second = first + width + 0.08 + bar + bar_room
    lefts = [second + column * (width + gap) for column in range(len(layers))]
    bar_left = lefts[-1] + width + 0.08
    full, banner = full_width(bar_left + bar + bar_room + MARGIN), collapse_banner(data)
    top = lines_height(full, banner, *lines[1:]) + heading
    step = max(height, 0.6) + gap
    sheet = Sheet(full, top + len(rows) * step + ticks + MARGIN, *lines, banner=banner)

    maps = [(row.lpc, row.visits) for row in rows]
    scale = choose_lpc_scale(maps, data.largest_lpc, how)
    rests = firm_values([(row.rests[layer], row.visits) for row in rows for layer in layers], how.min_visits)
    limit = max([1.0, *map(abs, rests)])
    for number, row in enumerate(rows):
        row_top = top + number * step
        sheet.text(MARGIN, row_top, row.label, fontweight="bold")
        size = row.data.describe_size().replace(", ", "\n")
        sheet.text(MARGIN, row_top + 0.2, size, color="0.3", fontsize="small")
        local, marks = grid_info | row.levels, {"visits": row.visits, "min_visits": how.min_visits}
        ax = sheet.axes(first, row_top, width, height, "LPC" if number == 0 else "")
        render_lpc_heatmap(ax, row.lpc, local, vmin=scale[0], vmax=scale[1], **marks)
        if number < len(rows) - 1:
            ax.set_xticks([])
        for left, layer in zip(lefts, layers, strict=True):
            text = "LPC\ngiven time" if layer == "total" else f"{layer_title(layer)}\ngiven time"
            ax = sheet.axes(left, row_top, width, height, text if number == 0 else "")
            render_value_heatmap(ax, row.rests[layer], local, difference_mappable(limit), **marks)
            ax.set_yticks([])
            if number < len(rows) - 1:
                ax.set_xticks([])
    bar_height = height if len(rows) == 1 else min(2.4, step + height)
    sheet.bar(lpc_mappable(*scale), first + width + 0.08, top, bar, bar_height, "LPC", span_of(maps, how))
    sheet.bar(difference_mappable(limit), bar_left, top, bar, bar_height, "difference")
    for row in rows:
        for (x, y), steps in row.visits.items():
            cell = {"group": [row.label], "x": x, "y": y, "steps": steps, "lpc": row.lpc[x, y]}
            add_source(sheet.figure, cell | {f"{layer}_given_time": row.rests[layer][x, y] for layer in layers})
    return sheet.figure
