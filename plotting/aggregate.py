"""Routing by position and by group: what the heatmaps show, as plain numbers.

    averages = aggregate_routing_by_position(cache)
    averages.routing[3, 4]["layer_0"], averages.lpc[3, 4], averages.visits[3, 4]     # of the cell x = 3, y = 4
    for key, group in group_routing_data(cache, "starting_room").items(): ...

Every function takes what `plotting.data.as_routing_data` takes: a cache, its two tables, or step records.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
import pandas as pd

from pipeline.records.tables import RoutingTable
from plotting.data import RoutingData, as_routing_data
from plotting.groupings import GROUPINGS, encode_groups, find_grouping, grouping_of
from plotting.layouts import describe_levels, layouts_of
from plotting.style import count_of

Position = tuple[int, int]
GridInfo = dict[str, Any]

# ---------------------------------------------------------------------------------------------------------- the grid


def compute_grid_bounds(positions: Any) -> GridInfo:
    """Return the part of the grid that heatmaps show, and what is known of the levels there.

    Args:
        positions: [x, y] pairs, or a dict with such keys; the bounds are then those of the positions. Or routing data
            (a `RoutingData`, a cache, tables, records): if its levels' sizes are known, the bounds are the true grid,
            of the largest level. Take the data of all groups together, so that they get common bounds.

    Returns:
        a dict with x_min, x_max, y_min, y_max (inclusive), grid_width, grid_height in cells, and what
        `describe_levels` returns.

    Raises:
        ValueError: If there are no positions.
    """
    pairs = isinstance(positions, np.ndarray | Iterable) and not isinstance(positions, RoutingData)
    values = list(positions) if pairs else []
    if values and isinstance(values[0], Mapping | RoutingTable):  # step records, or the two tables
        pairs = False
    data = None if pairs else as_routing_data(positions)
    points = np.asarray(values if data is None else data.routing.position)
    corners = [points.min(axis=0), points.max(axis=0)] if points.size else []
    size = None if data is None else layouts_of(data).largest_size(data.episodes_present)
    if size is not None:
        corners += [np.zeros(2, int), np.array(size) - 1]
    if not corners:
        raise ValueError("positions: expected at least one, found none")
    (x_min, y_min), (x_max, y_max) = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    bounds = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max}
    grid_info = bounds | {"grid_width": x_max - x_min + 1, "grid_height": y_max - y_min + 1}
    return grid_info | describe_levels([] if data is None else data)


# ------------------------------------------------------------------------------------------------------- by position


@dataclass(frozen=True, eq=False)
class PositionAverages:
    """Means over the steps at each visited position; the dicts have the same keys, [x, y] pairs by row, then column.

    It unpacks into `routing, lpc, layer_names`.

    Attributes:
        routing: {position: {layer name: mean routing weights, float64 (E,)}}; empty dicts without routers.
        lpc: {position: mean total LPC}; NaN without routers.
        layer_names: As of the data.
        visits: {position: number of steps}.
        layer_lpc: {layer name: {position: mean LPC of the layer}}; empty if expert sizes are not known.
        expert_sizes: Hidden size of each expert, per layer; empty if not known.
        largest_lpc: LPC if the largest experts were always taken; 0 if their sizes are not known.
    """

    routing: dict[Position, dict[str, np.ndarray]]
    lpc: dict[Position, float]
    layer_names: list[str]
    visits: dict[Position, int]
    layer_lpc: dict[str, dict[Position, float]]
    expert_sizes: Sequence[Sequence[int]] = ()
    largest_lpc: float = 0.0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.routing, self.lpc, self.layer_names))


def aggregate_routing_by_position(
    routing_data: Any, filter_fn: Callable[[dict[str, Any]], bool] | np.ndarray | None = None
) -> PositionAverages:
    """Return mean routing weights, mean LPC and the number of steps at each position.

    Args:
        routing_data: Cache, tables, step records or `RoutingData`.
        filter_fn: Which steps count: a boolean mask (S,), which is quick, or a function that gets each step as a dict
            record with its `env_context`, see `RoutingData.where`.
    """
    data = as_routing_data(routing_data).where(filter_fn)
    if not len(data):
        nothing: dict[str, dict[Position, float]] = {name: {} for name in data.layer_lpc}
        return PositionAverages({}, {}, data.layer_names, {}, nothing, data.expert_sizes, data.largest_lpc)
    xy = data.routing.position.astype(np.intp)
    low = xy.min(axis=0)
    width, height = (xy.max(axis=0) - low + 1).tolist()
    flat = (xy[:, 1] - low[1]) * width + xy[:, 0] - low[0]
    visits = np.bincount(flat, minlength=width * height)
    cells = np.flatnonzero(visits)
    count = visits[cells]

    def mean(column: np.ndarray) -> np.ndarray:
        return np.bincount(flat, weights=column, minlength=width * height)[cells] / count

    positions = [(int(cell % width + low[0]), int(cell // width + low[1])) for cell in cells]
    layers = {name: np.stack([mean(w) for w in data.weights(name).T], axis=1) for name in data.layer_names}
    return PositionAverages(
        routing={place: {name: rows[i] for name, rows in layers.items()} for i, place in enumerate(positions)},
        lpc=dict(zip(positions, mean(data.lpc).tolist(), strict=True)),
        layer_names=data.layer_names,
        visits=dict(zip(positions, count.tolist(), strict=True)),
        layer_lpc={name: dict(zip(positions, mean(v).tolist(), strict=True)) for name, v in data.layer_lpc.items()},
        expert_sizes=data.expert_sizes,
        largest_lpc=data.largest_lpc,
    )


# ----------------------------------------------------------------------------------------------------------- by group


@dataclass(frozen=True, eq=False)
class RoutingGroups(Mapping):
    """Steps by group, in the order of display: `groups[key]` is the group's `RoutingData`.

    Every step is in exactly one group or among the dropped.

    Attributes:
        group_by: Name of the grouping.
        groups: {key: data}; a key is a room's or door's [x, y], a pair of rows, True or False, or a name.
        labels: {key: name to be shown}.
        dropped: Number of steps in no group.
        total: Number of all steps.
        reason: Why steps can be in no group.
    """

    group_by: str
    groups: dict[Hashable, RoutingData]
    labels: dict[Hashable, str]
    dropped: int
    total: int
    reason: str = field(default="")

    def __getitem__(self, key: Hashable) -> RoutingData:
        return self.groups[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def largest(self, most: int) -> tuple[list[Hashable], str]:
        """Return the keys of the groups with the most steps, in the order of display, and a note on the others.

        Args:
            most: Groups at most.
        """
        kept = set(sorted(self, key=lambda key: -len(self[key]))[:most])
        hidden = sum(len(self[key]) for key in self if key not in kept)
        note = f"{count_of(len(self) - len(kept), 'smaller group')} not shown ({hidden:,} steps)" if hidden else ""
        return [key for key in self if key in kept], note

    def describe_dropped(self) -> str:
        """Return what a figure has to say about steps that it does not show; empty if there are none."""
        if not self.dropped:
            return ""
        return f"{self.dropped:,} of {self.total:,} steps not shown: {self.reason}"


def group_routing_data(routing_data: Any, group_by: str) -> RoutingGroups:
    """Return the steps of each group; `plotting.groupings` tells what the groups are.

    Args:
        routing_data: Cache, tables, step records or `RoutingData`.
        group_by: One of overall, starting_room, door_location, door_box_row, carrying, key_phase, agent_quadrant,
            target_quadrant, subgoal, outcome, mission_verb; or a field of `env_context`, such as agent_start_room. A
            leading `by_` makes no difference.

    Returns:
        a mapping of key to `RoutingData`; empty if the data does not tell.

    Raises:
        ValueError: If there is no such grouping, or it is by levels and the steps tell nothing of them.
    """
    data = as_routing_data(routing_data)
    name = find_grouping(group_by, data)
    grouping = grouping_of(name, data)
    codes, keys = encode_groups(data, name)
    rows = pd.Series(codes).groupby(codes).indices  # a quarter of the time of sorting; steps keep their order
    groups = {key: data.filter(rows[code]) for code, key in enumerate(keys)}
    labels = {key: grouping.label(key) for key in keys}
    if name == "starting_room":
        names = data.remember("labels of starting rooms", lambda: _room_labels(data, keys))
        labels = dict(zip(keys, names, strict=True))
    return RoutingGroups(name, groups, labels, int((codes < 0).sum()), len(data), grouping.missing)


def get_available_analyses(routing_data: Any) -> list[str]:
    """Return the groupings that the data supports: "overall", and those that give at least two groups."""
    data = as_routing_data(routing_data)
    return [name for name in GROUPINGS if name == "overall" or len(encode_groups(data, name)[1]) > 1]


# ------------------------------------------------------------------------------------------------------ names of rooms


def room_labels_for_groups(
    sorted_keys: Sequence[Position],
    room_grid_shape: Sequence[int] | None,
    *,
    room_bounds: Sequence[Sequence[int]] = (),
    grid_size: Sequence[int] | None = None,
) -> list[str]:
    """Return a name for each room: 'Top-Left', 'Top-Right', ... by its place in the true grid of rooms.

    Up to three rows and columns have names ('Top-Center', 'Middle-Left', 'Center'), larger grids numbers from 1
    ('Row 2, Col 3'). Of a single row or column only the part that differs is named ('Left', 'Right').

    Args:
        sorted_keys: Top left [x, y] of each room in cells, of as many rooms as were observed.
        room_grid_shape: [columns, rows] of all rooms.
        room_bounds: [x, y, width, height] of all rooms, row by row; tells where a room is. Or
        grid_size: [width, height] of the level in cells; rooms share walls and are equally large. Without either the
            size of rooms is read off the keys, if they leave one possibility only; if not, a room is named by its
            coordinates, 'Room at (14, 0)'.
    """
    places = [_room_place(key, sorted_keys, room_grid_shape, room_bounds, grid_size) for key in sorted_keys]
    pairs = zip(sorted_keys, places, strict=True)
    return [_room_name(key, place, room_grid_shape) for key, place in pairs]


def _room_labels(data: RoutingData, keys: Sequence[Position]) -> list[str]:
    """Return the names of starting rooms, by coordinates if levels differ in their rooms."""
    known = ("room_grid_shape", "room_bounds", "grid_size")
    layouts = {repr([context.get(name) for name in known]): context for context in data.contexts}
    context = next(iter(layouts.values())) if len(layouts) == 1 else {}
    return room_labels_for_groups(
        keys,
        context.get("room_grid_shape"),
        room_bounds=context.get("room_bounds") or (),
        grid_size=context.get("grid_size"),
    )


def _room_place(
    key: Position,
    keys: Sequence[Position],
    shape: Sequence[int] | None,
    bounds: Sequence[Sequence[int]],
    grid_size: Sequence[int] | None,
) -> Position | None:
    """Return [column, row] of a room, None if it cannot be told."""
    if shape is None:
        return None
    columns, rows = shape
    corners = [tuple(room[:2]) for room in bounds]
    if len(corners) == columns * rows and tuple(key) in corners:
        row, column = divmod(corners.index(tuple(key)), columns)
        return column, row
    if grid_size is not None:
        strides = [((grid_size[0] - 1) // columns, (grid_size[1] - 1) // rows)]
    else:  # all rooms are squares of one size, so that every coordinate is a multiple of it
        common = gcd(*(value for corner in keys for value in corner))
        fits = [s for s in range(1, common + 1) if common % s == 0 and _fits(s, keys, columns, rows)]
        strides = [(s, s) for s in (fits if common else [1])]
    if len(strides) != 1 or 0 in strides[0]:
        return None
    column, row = key[0] // strides[0][0], key[1] // strides[0][1]
    on_corner = key[0] % strides[0][0] == 0 and key[1] % strides[0][1] == 0
    return (column, row) if on_corner and column < columns and row < rows else None


def _fits(stride: int, keys: Sequence[Position], columns: int, rows: int) -> bool:
    smallest_room = 3  # two walls and a cell between; neighbours share a wall, so that the stride is at least 2
    return stride >= smallest_room - 1 and all(x // stride < columns and y // stride < rows for x, y in keys)


def _room_name(key: Position, place: Position | None, shape: Sequence[int] | None) -> str:
    if place is None or shape is None:
        return f"Room at ({key[0]}, {key[1]})"
    (columns, rows), (column, row) = shape, place
    if max(columns, rows) > 3:
        return f"Row {row + 1}, Col {column + 1}"
    across = {1: [""], 2: ["Left", "Right"], 3: ["Left", "Center", "Right"]}[columns][column]
    down = {1: [""], 2: ["Top", "Bottom"], 3: ["Top", "Middle", "Bottom"]}[rows][row]
    if (down, across) == ("Middle", "Center"):
        return "Center"
    return "-".join(part for part in (down, across) if part) or "Only room"
