"""A level as a schematic drawing, from its `env_context` alone; and what lies under a heatmap: ticks, walls, doors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from plotting.style import DOOR_COLOR, UNVISITED_COLOR, WALL_COLOR, current_size

OBJECT_COLORS = {
    "red": "#E03131",
    "green": "#2F9E44",
    "blue": "#1C6FD8",
    "purple": "#8F3FC4",
    "yellow": "#E8B500",
    "grey": "#868E96",
}
_MARKERS = {"goals": "s", "keys": "P", "balls": "o", "boxes": "D"}
_HEADINGS = (">", "v", "<", "^")


def set_grid_axes(ax: Axes, grid_info: Mapping[str, Any]) -> None:
    """Set limits and ticks to the grid's true coordinates, y downwards, a cell of size 1 around each."""
    inches, scale = ax.get_position().size * ax.figure.get_size_inches(), current_size().scale
    for axis, low, high, room, wide in (
        (ax.xaxis, grid_info["x_min"], grid_info["x_max"], inches[0], 0.08 * len(str(grid_info["x_max"])) + 0.04),
        (ax.yaxis, grid_info["y_min"], grid_info["y_max"], inches[1], 0.14),
    ):
        most = min(8.0, max(1.0, room / wide / scale))  # as many as have room beside each other
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000, 100000) if (high - low) / s < most)
        axis.set_major_locator(FixedLocator([tick for tick in range(low, high + 1) if tick % step == 0]))
        axis.set_label_coords(0.5, 0.5)  # they have no labels, for which a place would be sought at each drawing
    ax.set_xlim(grid_info["x_min"] - 0.5, grid_info["x_max"] + 0.5)
    ax.set_ylim(grid_info["y_max"] + 0.5, grid_info["y_min"] - 0.5)
    ax.set_aspect("equal")
    ax.tick_params(length=2 * scale, pad=1.5 * scale)
    ax.spines[:].set_visible(False)


def keep_ticks(ax: Axes, *, left: bool, bottom: bool = True) -> None:
    """Leave a map's ticks at these sides only; a tick costs a millisecond."""
    for axis, kept in ((ax.xaxis, bottom), (ax.yaxis, left)):
        if not kept:
            axis.set_major_locator(NullLocator())


def ground_colors(grid_info: Mapping[str, Any]) -> np.ndarray:
    """Return the colours of cells that were not visited, (grid_height, grid_width, 3): darker, the oftener a wall."""
    floor, wall = np.array(to_rgb(UNVISITED_COLOR)), np.array(to_rgb(WALL_COLOR))
    colors = np.tile(floor, (grid_info["grid_height"], grid_info["grid_width"], 1))
    for (x, y), share in grid_info.get("walls", {}).items():
        row, column = y - grid_info["y_min"], x - grid_info["x_min"]
        if 0 <= row < colors.shape[0] and 0 <= column < colors.shape[1]:
            colors[row, column] = floor + share * (wall - floor)
    return colors


def draw_cells(ax: Axes, colors: np.ndarray, grid_info: Mapping[str, Any]) -> None:
    """Draw one colour per cell, and the grid's axes.

    Args:
        ax: To draw on.
        colors: RGB, (grid_height, grid_width, 3).
        grid_info: From `compute_grid_bounds`.
    """
    x = np.arange(grid_info["x_min"], grid_info["x_max"] + 2) - 0.5
    y = np.arange(grid_info["y_min"], grid_info["y_max"] + 2) - 0.5
    line = min(0.3, 3.0 / max(len(x), len(y)))
    ax.pcolormesh(x, y, colors, edgecolors="white", linewidth=line)
    set_grid_axes(ax, grid_info)


def draw_doors_and_rooms(ax: Axes, grid_info: Mapping[str, Any]) -> None:
    """Frame the cells of doors, the more strongly the oftener there is one; outline rooms if walls are not known."""
    doors = grid_info.get("doors", {})
    if doors:
        shares = np.array(list(doors.values()))
        colors = [(*to_rgb(DOOR_COLOR), 0.25 + 0.75 * share) for share in shares]
        frames = [Rectangle((x - 0.36, y - 0.36), 0.72, 0.72) for x, y in doors]
        ax.add_collection(
            PatchCollection(frames, facecolor="none", edgecolor=colors, linewidth=0.5 + 0.7 * shares), autolim=False
        )
    if not grid_info.get("walls"):
        for x, y, width, height in grid_info.get("room_bounds", []):
            ax.add_patch(Rectangle((x, y), width - 1, height - 1, fill=False, ec=WALL_COLOR, lw=1.0))


def draw_level(ax: Axes, env_context: Mapping[str, Any], grid_info: Mapping[str, Any]) -> Axes:
    """Draw a level at its start: walls, doors (bold when locked), objects, the agent, a ring around the target.

    Args:
        ax: To draw on.
        env_context: Of the level; what it does not say is not drawn.
        grid_info: From `compute_grid_bounds`; only its bounds are used.
    """
    walls = {
        (x, y): 1.0 for y, row in enumerate(env_context.get("walls") or []) for x, mark in enumerate(row) if mark == "#"
    }
    draw_cells(ax, ground_colors({**grid_info, "walls": walls}), grid_info)
    size = _points_per_cell(ax, grid_info)
    for x, y, color, *state in env_context.get("doors") or []:
        locked = bool(state[1]) if len(state) > 1 else False
        paint = OBJECT_COLORS.get(color, DOOR_COLOR)
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=(paint, 0.9 if locked else 0.25), ec=paint, lw=1.0))
    for name, marker in _MARKERS.items():
        for x, y, color in env_context.get(name) or []:
            paint = OBJECT_COLORS.get(color, DOOR_COLOR)
            ax.plot([x], [y], marker=marker, ms=0.55 * size, color=paint, mec="white", mew=0.5, ls="none")
    if env_context.get("target_pos"):
        x, y = env_context["target_pos"]
        ax.plot([x], [y], marker="o", ms=0.85 * size, mfc="none", mec="black", mew=0.8, ls="none")
    if env_context.get("agent_start_pos"):
        x, y = env_context["agent_start_pos"]
        heading = env_context.get("agent_start_dir")
        marker = "o" if heading is None else _HEADINGS[heading]
        ax.plot([x], [y], marker=marker, ms=0.6 * size, color="black", ls="none")
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(NullLocator())
    return ax


def _points_per_cell(ax: Axes, grid_info: Mapping[str, Any]) -> float:
    width, height = ax.get_position().size * ax.figure.get_size_inches()
    return 72.0 * float(min(width / grid_info["grid_width"], height / grid_info["grid_height"]))
