"""What the policy does where: the distribution of actions in each cell, and how often each action is taken by group.

plot_cell_actions(cache, "key_phase")
plot_actions_by(cache, "carrying")
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipeline.records.intervals import MIN_FOR_INTERVAL, share_interval
from plotting.aggregate import Position, compute_grid_bounds, group_routing_data
from plotting.behaviour import step_policies
from plotting.collapse import collapse_banner
from plotting.data import PlotError, RoutingData, as_routing_data
from plotting.distributions import action_names
from plotting.groupings import GROUPINGS, find_grouping
from plotting.layouts import describe_levels
from plotting.levels import draw_cells, draw_doors_and_rooms, ground_colors
from plotting.panels import COLUMN_WIDTH, describe_n, finish, interval_note, replaced_note, series_style, use_axes
from plotting.sheet import MARGIN, Sheet, build_message, fit_maps, full_width, lines_height
from plotting.source import add_source, estimates_table
from plotting.style import ACTION_COLORS, current_size, figure_style
from science.statistics.information import number_states, sum_by

_LEAST = 0.02
"""Share below which an action has no strip in a cell."""


def plot_cell_actions(data: Any, group_by: str = "overall", *, max_groups: int = 8) -> Figure:
    """Return maps of the mean policy in each cell: strips as wide as the probability of each action; one map per group.

    Args:
        data: Cache, tables, step records or `RoutingData`; routers are not needed.
        group_by: See `plotting.groupings`.
        max_groups: Of more groups those with the most steps are shown.

    Raises:
        ValueError: If there is no such grouping, or neither logits nor actions were recorded.
    """
    data, name = as_routing_data(data), find_grouping(group_by)
    _, from_actions = step_policies(data)
    what = "" if name == "overall" else f" by {GROUPINGS[name].title}"
    title = f"{data.title + ': a' if data.title else 'A'}ctions in each cell{what}"
    with figure_style():
        groups = group_routing_data(data, name)
        if not groups:
            return build_message(title, f"No step is in a group: {groups.reason}.")
        keys, rest = groups.largest(max_groups)
        notes = [
            "how often each action was taken" if from_actions else "mean over the policy at each step",
            groups.describe_dropped(),
            rest,
        ]
        grid_info = compute_grid_bounds(data)
        columns = min(len(keys), 4 if current_size().width is None else 2)
        width, height = fit_maps(grid_info, 4.0, columns, MARGIN + 0.25 + columns * 0.35)
        rows = -(-len(keys) // columns)
        left, across, down = MARGIN + 0.25, width + 0.35, height + 0.5
        sheet_width = full_width(max(left + columns * across, 6.5))
        lines = (data.describe_size(), "; ".join(filter(None, notes)), replaced_note(data))
        banner = collapse_banner(data) if data.has_routing else ""
        top = lines_height(sheet_width, banner, *lines) + 0.28
        end = 0.2 if sheet_width >= 5.6 else 0.6
        sheet = Sheet(sheet_width, top + rows * down + end, title, *lines, banner=banner)
        for number, key in enumerate(keys):
            row, column = divmod(number, columns)
            label = f"{groups.labels[key]} ({len(groups[key]):,} steps)" if len(keys) > 1 else ""
            ax = sheet.axes(left + column * across, top + row * down, width, height, label)
            shares = _draw_strips(ax, groups[key], grid_info | describe_levels(groups[key]))
            for (x, y), (steps, values) in shares.items():
                cell = {"group": [groups.labels[key]], "x": x, "y": y, "steps": steps}
                add_source(sheet.figure, cell | dict(zip(action_names(data), values, strict=False)))
        names = action_names(data)
        handles = [Patch(color=ACTION_COLORS[k % len(ACTION_COLORS)], label=label) for k, label in enumerate(names)]
        sheet.figure.legend(
            handles=handles,
            loc="lower left",
            ncols=min(len(handles), max(2, int(sheet_width / 0.8))),
            fontsize="small",
            handlelength=1.0,
        )
        return sheet.figure


def _draw_strips(ax: Axes, data: RoutingData, grid_info: dict[str, Any]) -> dict[Position, tuple[int, list[float]]]:
    """Draw the strips; return {cell: steps, probability of each action}."""
    draw_cells(ax, ground_colors(grid_info), grid_info)
    policies, _ = step_policies(data)
    cells = number_states(data.routing.position)
    count = np.bincount(cells)
    mean = sum_by(policies, cells, len(count)) / count[:, None]
    first = np.unique(cells, return_index=True)[1]
    strips, colors = [], []
    for (x, y), shares in zip(data.routing.position[first].tolist(), mean, strict=True):
        shown = np.where(shares < _LEAST, 0.0, shares)
        edges = np.concatenate([[0.0], np.cumsum(shown / shown.sum())])
        for action in np.flatnonzero(shown).tolist():
            strips.append(Rectangle((x - 0.46 + 0.92 * edges[action], y - 0.46), 0.92 * np.diff(edges)[action], 0.92))
            colors.append(ACTION_COLORS[action % len(ACTION_COLORS)])
    ax.add_collection(PatchCollection(strips, facecolors=colors, linewidth=0), autolim=False)
    draw_doors_and_rooms(ax, grid_info)
    places = [(int(x), int(y)) for x, y in data.routing.position[first]]
    return dict(zip(places, zip(count.tolist(), mean.tolist(), strict=True), strict=True))


@figure_style()
def plot_actions_by(data: Any, group_by: str = "carrying", ax: Axes | None = None) -> Axes:
    """Draw how often the agent takes each action in each group, with intervals over episodes, or runs.

    Args:
        data: Cache, tables, step records or `RoutingData`; routers are not needed.
        group_by: See `plotting.groupings`.
        ax: To draw on; new ones by default.

    Raises:
        ValueError: If actions were not recorded, there is no such grouping, or no step is in a group.
    """
    data, name, own = as_routing_data(data), find_grouping(group_by), ax is None
    if not data.knows("action"):
        raise PlotError("expected recorded actions, found none")
    groups = group_routing_data(data, name)
    if not groups:
        raise PlotError(f"group_by: no step is in a group: {groups.reason}")
    names = action_names(data)
    ax = use_axes(ax, size=(COLUMN_WIDTH * 1.5, 3.0))[0, 0]
    breadth = 0.8 / len(groups)
    for number, key in enumerate(groups):
        action, episode = groups[key].routing.action, groups[key].routing.episode
        known = action >= 0
        counts = np.zeros((len(data.episodes), len(names)), np.int64)
        np.add.at(counts, (episode[known], action[known]), 1)
        shares = share_interval(counts, counts.sum(axis=1), data.run)
        add_source(ax.figure, estimates_table("share", groups.labels[key], {"action": names}, shares))
        x = np.arange(len(names)) + breadth * (number - (len(groups) - 1) / 2)
        label = f"{groups.labels[key]} ({int(known.sum()):,} steps)"
        ax.bar(x, shares.mean, width=0.9 * breadth, color=series_style(number)[0], label=label, linewidth=0)
        if shares.n[0] >= MIN_FOR_INTERVAL:
            ax.vlines(x, shares.low, shares.high, color="black", linewidth=1.0)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("Share of the group's steps")
    ax.set_ylim(bottom=0)
    finish(ax, [describe_n(data), groups.describe_dropped(), interval_note(data, "line")], own=own, data=data)
    return ax
