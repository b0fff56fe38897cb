"""Episodes as lines of JSON, and back. `pipeline.records.cache` is what others use.

An entry of `episodes` holds the fields of `EpisodeTable` and, beside them, those of the level's `env_context`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.records.columns import EPISODE_COLUMNS, FIRST_EVENTS
from pipeline.records.plain import from_plain, to_plain
from pipeline.records.steps import dump
from pipeline.records.tables import EpisodeTable


def format_episodes(episodes: EpisodeTable) -> list[str]:
    """Return the entries of `episodes`, one line each.

    Raises:
        ValueError: If an `env_context` has a key of an episode, or holds other than plain values.
    """
    columns = [to_plain(column, getattr(episodes, name)) for name, column in EPISODE_COLUMNS.items()]
    lines = []
    for values, context in zip(zip(*columns, strict=True), episodes.env_context, strict=True):
        taken = context.keys() & EPISODE_COLUMNS.keys()
        if taken:
            raise ValueError(f"env_context: expected none of the keys of an episode, found {sorted(taken)}")
        lines.append(dump(dict(zip(EPISODE_COLUMNS, values, strict=True)) | context))
    return lines


def parse_episodes(entries: list[dict[str, Any]]) -> tuple[EpisodeTable, frozenset[str]]:
    """Return the entries of `episodes` as a table, and which of `FIRST_EVENTS` they say nothing about.

    Raises:
        ValueError: If an entry is not as expected; the message names the field.
    """
    table = EpisodeTable(
        **{
            name: from_plain(column, [entry.get(name) for entry in entries], key=f"episodes: {name}")
            for name, column in EPISODE_COLUMNS.items()
        },
        env_context=tuple(split_context(entry) for entry in entries),
    )
    return table, frozenset(c.name for c in FIRST_EVENTS if not any(c.name in entry for entry in entries))


def split_context(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry that describe the level; those of docs/cache.md are what they should be or null.

    Raises:
        ValueError: If one is not; the message names it.
    """
    context = {key: value for key, value in entry.items() if key not in EPISODE_COLUMNS}
    for key, (fits, expected) in _CONTEXT.items():
        value = context.get(key)
        if value is not None and not fits(value):
            raise ValueError(f"env_context: {key}: expected {expected} or null, found {repr(value)[:80]}")
    return context


def _is_cells(value: Any, count: int = 2) -> bool:
    """Return whether a value begins with so many whole numbers, such as a place in a grid or a number of cells."""
    return isinstance(value, list) and len(value) >= count and all(
        type(part) is int and abs(part) <= _FARTHEST for part in value[:count]
    )  # fmt: skip


def _is_pair(value: Any) -> bool:
    return _is_cells(value) and len(value) == 2


def _is_things(value: Any) -> bool:
    return isinstance(value, list) and all(_is_cells(thing) and len(thing) == 3 for thing in value)


def _is_doors(value: Any) -> bool:
    return isinstance(value, list) and all(_is_cells(door) and len(door) >= 3 for door in value)


def _is_rooms(value: Any) -> bool:
    return isinstance(value, list) and all(_is_cells(room, 4) for room in value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, str) for row in value)


_FARTHEST = np.iinfo(np.int16).max  # as of positions
_PAIR = (_is_pair, "two whole numbers")
_THINGS = (_is_things, "a list of [x, y, color]")
_CONTEXT: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("grid_size", "agent_start_pos", "agent_start_room", "room_grid_shape", "target_pos"), _PAIR),
    **dict.fromkeys(("goals", "keys", "balls", "boxes"), _THINGS),
    "doors": (_is_doors, "a list of [x, y, color, is_open, is_locked]"),
    "room_bounds": (_is_rooms, "a list of [x, y, width, height]"),
    "agent_start_dir": (lambda value: type(value) is int and 0 <= value < 4, "0, 1, 2 or 3"),
    "carrying_at_start": (lambda value: isinstance(value, str), "a text"),
    "walls": (_is_rows, "a list of texts"),
}
"""What figures take for granted of a level's description. Anything else in it is kept as it is."""
