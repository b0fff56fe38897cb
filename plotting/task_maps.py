"""Routing by task: a row of maps for each cache, a layer beside the other, with LPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipeline.command.names import name_command
from plotting.aggregate import aggregate_routing_by_position, compute_grid_bounds
from plotting.cells import legend_entries, lpc_mappable, render_lpc_heatmap, render_routing_heatmap
from plotting.collapse import collapse_banner, largest_lpc
from plotting.data import as_routing_data
from plotting.levels import keep_ticks
from plotting.options import SCALES
from plotting.panels import replaced_note
from plotting.scales import Marks, choose_lpc_scale, span_of
from plotting.sheet import MARGIN, Sheet, lines_height
from plotting.source import add_source, maps_table
from plotting.style import current_size, expert_color, figure_style, layer_title, text_width

_MAP_WIDTH, _GAP, _TICKS, _BAR_ROOM = 1.7, 0.13, 0.24, 0.6  # inches: maps, between them, tick labels, a bar
_NAME = 0.64  # inches: for the name of a row, its experts and the titles of maps


@figure_style()
def plot_task_heatmaps(caches: Mapping[str, Any], notes: Sequence[str] = (), *, scale: str = SCALES[0]) -> Figure:
    """Return small multiples: a row per cache, a routing map per layer, LPC from 0 to the row's largest possible.

    Args:
        caches: {label: cache or other routing data with routers}.
        notes: What is not shown and why, written below.
        scale: Of LPC, see `plotting.scales`.
    """
    how = Marks(scale=scale)
    if not caches:
        text = f"No cache to draw: choose one, or run `{name_command('evaluate')}`."
        figure = Figure(figsize=(7.2, 0.6 + 0.2 * len(notes)))
        figure.text(0.02, 0.5, "\n".join([text, *notes]), va="center")
        return figure
    data = {label: as_routing_data(cache) for label, cache in caches.items()}
    columns = max(len(part.layer_names) for part in data.values()) + 1
    grids = {label: compute_grid_bounds(part) for label, part in data.items()}
    legends = {label: legend_entries(part.expert_sizes, part.num_experts) for label, part in data.items()}
    collapsed = [label for label, part in data.items() if collapse_banner(part)]
    banner = f"Collapsed router: {'; '.join(collapsed)}" if collapsed else ""
    lines = ["LPC " + {"relative": "on a relative scale of each row"}.get(scale, "from 0 to the largest possible")]
    lines += [f"{label}: {note}" for label, part in data.items() if (note := replaced_note(part))]
    lines += ["not shown: " + "; ".join(notes)] if notes else []
    size, natural = current_size(), 2 * MARGIN + _TICKS + columns * (_MAP_WIDTH + _GAP) + _BAR_ROOM
    full = natural if size.width is None else size.width / size.scale
    width = (full - 2 * MARGIN - _TICKS - _BAR_ROOM) / columns - _GAP
    heights = [width * grid["grid_height"] / grid["grid_width"] for grid in grids.values()]
    full_height = lines_height(full, banner, *lines) + sum(_NAME + height + _TICKS for height in heights) + MARGIN
    sheet = Sheet(full, full_height, "Routing by task", *lines, banner=banner)
    top = sheet.top
    for (label, part), height in zip(data.items(), heights, strict=True):
        averages = aggregate_routing_by_position(part)
        add_source(sheet.figure, maps_table({label: averages}))
        name = f"{label} ({part.describe_size()})"
        shrink = min(1.0, (full - 2 * MARGIN) / text_width(name, 7.5, "bold"))
        sheet.text(MARGIN, top + 0.06, name, fontweight="bold", fontsize=7.5 * shrink * size.scale)
        below, lefts = top + _NAME, [MARGIN + _TICKS + column * (width + _GAP) for column in range(columns)]
        left = lefts[0]
        for name, hue in legends[label]:
            sheet.patch(left, top + 0.26, 0.11, 0.09, expert_color(hue))
            sheet.text(left + 0.16, top + 0.24, name, fontsize="small")
            left += 0.36 + text_width(name, 7.5)
        for left, layer in zip(lefts, part.layer_names, strict=False):
            ax = sheet.axes(left, below, width, height, layer_title(layer))
            render_routing_heatmap(ax, averages, grids[label], layer)
            keep_ticks(ax, left=left == lefts[0])
        ax = sheet.axes(lefts[-1], below, width, height, "LPC, total")
        ends = choose_lpc_scale(maps := [(averages.lpc, averages.visits)], largest_lpc(part.expert_sizes), how)
        render_lpc_heatmap(ax, averages, grids[label], vmin=ends[0], vmax=ends[1])
        keep_ticks(ax, left=False)
        sheet.bar(lpc_mappable(*ends), lefts[-1] + width + 0.08, below, 0.08, height, span=span_of(maps, how))
        top = below + height + _TICKS
    return sheet.figure
