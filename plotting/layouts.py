"""How often walls and doors are where, over levels: what is drawn under a heatmap.

An episode table is read once; the levels of any of its episodes are then counted without looking at them again, so that
a figure of many groups costs no more than one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from pipeline.records.tables import EpisodeTable
from plotting.data import RoutingData

_LAYOUTS: WeakKeyDictionary[EpisodeTable, Layouts] = WeakKeyDictionary()


class Layouts:
    """Walls, doors, rooms and sizes of levels; of walls, rooms and sizes each different one is kept once."""

    def __init__(self, contexts: Sequence[Mapping[str, Any]]) -> None:
        """Read the levels.

        Args:
            contexts: `env_context` of each episode.
        """
        self._walls, self._walls_of = _number(tuple(context.get("walls") or ()) for context in contexts)
        self._rooms, self._rooms_of = _number(tuple(map(tuple, c.get("room_bounds") or ())) for c in contexts)
        self._sizes, self._sizes_of = _number(tuple(context.get("grid_size") or ()) for context in contexts)
        self._tells_doors = np.array([context.get("doors") is not None for context in contexts], bool)
        doors: list[int] = []  # flat: many small tuples would make Python look for garbage
        for episode, context in enumerate(contexts):
            for x, y in {(int(door[0]), int(door[1])) for door in context.get("doors") or ()}:
                doors += (episode, x, y)
        table = np.array(doors, np.intp).reshape(-1, 3)
        self._door_episode = table[:, 0]
        self._cells, cell = np.unique(table[:, 1:], axis=0, return_inverse=True)
        self._door_cell = cell.reshape(-1)  # numpy 2.0 gives a column

    def largest_size(self, episodes: np.ndarray) -> tuple[int, int] | None:
        """Return width and height that the levels of some episodes fit in, None if no level tells its size."""
        sizes = [self._sizes[k] for k in np.unique(self._sizes_of[episodes]).tolist() if self._sizes[k]]
        return tuple(map(max, zip(*sizes, strict=True))) if sizes else None

    def describe(self, episodes: np.ndarray) -> dict[str, Any]:
        """Return what `describe_levels` does, of some episodes, int (n,), each at most once."""
        counts = np.bincount(self._walls_of[episodes], minlength=len(self._walls)).tolist()
        kept = [(rows, count) for rows, count in zip(self._walls, counts, strict=True) if rows and count]
        shape = (
            max((len(rows) for rows, _ in kept), default=0),
            max((len(row) for rows, _ in kept for row in rows), default=0),
        )
        share = np.zeros(shape)
        for rows, count in kept:
            for y, row in enumerate(rows):
                share[y, : len(row)] += count * (np.frombuffer(row.encode("ascii", "replace"), np.uint8) == ord("#"))
        share /= max(1, sum(count for _, count in kept))
        chosen = np.zeros(len(self._tells_doors), bool)
        chosen[episodes] = True
        often = np.bincount(self._door_cell[chosen[self._door_episode]], minlength=len(self._cells)).tolist()
        num_doors = int((chosen & self._tells_doors).sum())
        rooms = np.unique(self._rooms_of[episodes])
        return {
            "walls": {(int(x), int(y)): float(share[y, x]) for y, x in np.argwhere(share)},
            "doors": {(x, y): n / num_doors for (x, y), n in zip(self._cells.tolist(), often, strict=True) if n},
            "room_bounds": [list(room) for room in self._rooms[rooms[0]]] if len(rooms) == 1 else [],
        }


def describe_levels(levels: RoutingData | Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how often walls and doors are where, over levels.

    Args:
        levels: `env_context` of each episode, or routing data, whose episodes that have steps count.

    Returns:
        a dict with walls and doors, {(x, y): share of the levels that say, 0 < share <= 1}, and room_bounds,
        [x, y, width, height] of each room if all levels agree on them, else empty.
    """
    if isinstance(levels, RoutingData):
        return layouts_of(levels).describe(levels.episodes_present)
    contexts = list(levels)
    return Layouts(contexts).describe(np.arange(len(contexts)))


def layouts_of(data: RoutingData) -> Layouts:
    """Return the layouts of all episodes in the table of routing data; those of an earlier call if there was one."""
    found = _LAYOUTS.get(data.episodes)
    if found is None:
        found = _LAYOUTS[data.episodes] = Layouts(data.episodes.env_context)
    return found


def _number(values: Iterable[Hashable]) -> tuple[list[Any], np.ndarray]:
    """Return the different values in order of appearance, and the number of each, int (n,)."""
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), np.array(codes, np.intp)
