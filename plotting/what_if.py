"""A policy intact above the same one changed: maps of routing by group, with the numbers of `plotting.pairs` beside.

plot_what_if(intact, changed, "starting_room", title="BabyAI-UnlockPickup-v0")
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.records.played import Played
from plotting.aggregate import (
    GridInfo,
    PositionAverages,
    aggregate_routing_by_position,
    compute_grid_bounds,
)
from plotting.cells import ground_handles, legend_entries, lpc_mappable, render_lpc_heatmap, render_routing_heatmap
from plotting.collapse import collapse_banners
from plotting.data import RoutingData
from plotting.layouts import describe_levels
from plotting.levels import keep_ticks
from plotting.pairs import FORMS, Pair, compare_groups
from plotting.scales import Marks, choose_lpc_scale, describe_scale, span_of
from plotting.sheet import MARGIN, Sheet, fit_maps, full_width, legend_height, lines_height, names_width
from plotting.source import add_source, maps_table
from plotting.style import count_of, figure_style, layer_title

_GAP, _TICKS, _TITLE, _NAME = 0.13, 0.24, 0.34, 0.24  # inches: between maps, tick labels, titles, a group's name
_NUMBERS, _LINE = 1.5, 0.15  # inches: column of numbers, a line of it
_BAR, _BAR_GAP, _BAR_ROOM = 0.09, 0.08, 0.62  # inches: breadth of a bar, from the map to it, and with its labels
_MAP_AREA = 1.9  # square inches
_MOST_GROUPS = 6


@figure_style()
def plot_what_if(
    intact: Played, changed: Played, group_by: str = "overall", *, title: str = "", **marks: Any
) -> Figure:
    """Return a figure: for each group the maps of the intact policy above those of the changed one, numbers beside.

    All maps have the same bounds, all of LPC one scale. Of many groups those with the most steps are drawn.

    Args:
        intact: The policy on its levels.
        changed: The same one on the same levels, under an intervention.
        group_by: See `plotting.pairs.compare_groups`.
        title: Name of the task.
        **marks: Fields of `Marks`: min_visits, show_counts, scale.

    Raises:
        ValueError: See `plotting.pairs.compare_groups`.
    """
    how, pairs = Marks(**marks), compare_groups(intact, changed, group_by)
    kept = sorted(pairs, key=lambda pair: -sum(len(side) for side in pair.sides if side is not None))[:_MOST_GROUPS]
    shown, grid = [pair for pair in pairs if pair in kept], _share_bounds(intact, changed)
    data = RoutingData(intact.routing, intact.episodes)
    banner = collapse_banners({"Intact": data, "Changed": RoutingData(changed.routing, changed.episodes)})
    layers, entries = data.layer_names, legend_entries(data.expert_sizes, data.num_experts)
    columns = len(layers) + 1
    rest = 2 * MARGIN + _NUMBERS + _TICKS + columns * _GAP + _BAR_GAP + _BAR_ROOM
    width, height = fit_maps(grid, _MAP_AREA, columns, rest)
    full = full_width(rest + columns * width)
    lines = [
        f"{len(intact.episodes)} levels. Success and LPC: own play; agreement and cross-entropy (nats): along the "
        "bot's trajectories; means over levels",
        describe_scale(data, how, shared=True),
        f"{len(pairs) - len(shown)} smaller groups not shown" if len(pairs) > len(shown) else "",
    ]
    name_height = _NAME if shown[0].label else 0.0
    step = max(height, 0.06 + _LINE * 6) + _GAP
    block = name_height + 2 * step + 0.08
    top = lines_height(full, banner, *lines) + _TITLE
    end = top + len(shown) * block + _TICKS
    cells = {(r, s): aggregate_routing_by_position(d) for r, p in enumerate(shown) for s, d in enumerate(p.sides) if d}
    handles = ground_handles(grid, {(k, p): n for k, c in cells.items() for p, n in c.visits.items()}, how.min_visits)
    names = [name for name, _ in entries]
    tall = end + legend_height(names, len(handles), beside=True) + MARGIN
    sheet = Sheet(full, tall, f"{title}: {changed.name}" if title else changed.name, *lines, banner=banner)
    maps = [(part.lpc, part.visits) for part in cells.values()]
    scale = choose_lpc_scale(maps, data.largest_lpc, how)
    lefts = [MARGIN + _NUMBERS + _TICKS + column * (width + _GAP) for column in range(columns)]
    for left, layer in zip(lefts, [*layers, None], strict=True):
        sheet.text(left, top - 0.22, layer_title(layer) if layer else "LPC, total", fontsize="large")
    for row, pair in enumerate(shown):
        below = top + row * block
        sheet.text(MARGIN, below, pair.label, fontweight="bold")
        for side in (0, 1):
            place = below + name_height + side * step
            _write_numbers(sheet, place, pair, side)
            levels = grid | describe_levels(pair.sides[side] or [])
            for column, left in enumerate(lefts):
                ax = sheet.axes(left, place, width, height)
                _draw_map(ax, cells.get((row, side)), levels, [*layers, None][column], scale, how)
                keep_ticks(ax, left=column == 0, bottom=row == len(shown) - 1 and side == 1)
    bar = (lefts[-1] + width + _BAR_GAP, top + name_height, _BAR, min(2.4, step + height))
    sheet.bar(lpc_mappable(*scale), *bar, "LPC", span_of(maps, how))
    legend_left = max(MARGIN, min(lefts[0], full - names_width(names) - 2.4 - MARGIN))
    sheet.legend(legend_left, end, entries, data.num_experts, handles, beside=True)
    words = {(r, s): " · ".join(filter(None, (shown[r].label, ("intact", "changed")[s]))) for r, s in cells}
    add_source(sheet.figure, maps_table({words[key]: part for key, part in cells.items()}))
    return sheet.figure


def _share_bounds(intact: Played, changed: Played) -> GridInfo:
    """Return bounds of the grid around all that either did, and the levels of both."""
    bounds = [compute_grid_bounds(RoutingData(one.routing, one.episodes)) for one in (intact, changed)]
    grid = bounds[0] | {key: min(b[key] for b in bounds) for key in ("x_min", "y_min")}
    grid |= {key: max(b[key] for b in bounds) for key in ("x_max", "y_max")}
    sides = {"grid_width": grid["x_max"] - grid["x_min"] + 1, "grid_height": grid["y_max"] - grid["y_min"] + 1}
    return grid | sides


def _write_numbers(sheet: Sheet, top: float, pair: Pair, side: int) -> None:
    """Write what one side of a pair is called and came to, in the column before the maps."""
    count = 0 if pair.sides[side] is None else pair.sides[side].num_episodes
    lines = [count_of(count, "level") if pair.success is None else f"success {pair.success[side]:,} of {pair.levels:,}"]
    for name, form in FORMS.items():
        value = pair.means[name][side]
        if value == value and (name != "KL" or side):
            lines.append(f"{name} {form.format(value)}{' from intact' if name == 'KL' else ''}")
    sheet.text(MARGIN, top, ("Intact", "Changed")[side], fontweight="bold", fontsize="small")
    for number, line in enumerate(lines, 1):
        sheet.text(MARGIN, top + 0.02 + number * _LINE, line, fontsize="small", color="0.2")


def _draw_map(
    ax: Axes,
    averages: PositionAverages | None,
    grid: GridInfo,
    layer: str | None,
    scale: tuple[float, float],
    how: Marks,
) -> None:
    """Draw a layer's routing, or LPC; without steps the bare levels."""
    part = averages or PositionAverages({}, {}, [], {}, {})
    if layer is None:
        render_lpc_heatmap(ax, part, grid, vmin=scale[0], vmax=scale[1], min_visits=how.min_visits)
    else:
        render_routing_heatmap(ax, part, grid, layer, min_visits=how.min_visits, show_counts=how.show_counts)
    if averages is None:
        ax.text(0.5, 0.5, "no steps", transform=ax.transAxes, ha="center", va="center", color="0.4")
