"""Episodes as lines of JSON, and back. `pipeline.records.cache` is what others use.

An entry of `episodes` holds the fields of `EpisodeTable` and, beside them, those of the level's `env_context`.
"""

from __future__ import annotations

from typing import Any

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
    """Return the fields of an entry that describe the level."""
    return {key: value for key, value in entry.items() if key not in EPISODE_COLUMNS}
