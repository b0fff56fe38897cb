"""Episodes as lines of JSON, and back. `pipeline.records.cache` is what others use.

An entry of `episodes` holds the fields of `EpisodeTable` and, beside them, those of the level's `env_context`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.records.metrics import EPISODE_COLUMNS, OUTCOME_NAMES, EpisodeTable
from pipeline.records.steps import FIRST_EVENTS, dump

FIELDS = ("level_seed", "mission", *(name for name in EPISODE_COLUMNS if name != "level_seed"))
"""Keys of an entry that are not of its `env_context`."""

_OUTCOMES = {name: code for code, name in OUTCOME_NAMES.items()} | {None: -1}


def format_episodes(episodes: EpisodeTable) -> list[str]:
    """Return the entries of `episodes`, one line each.

    Raises:
        ValueError: If an `env_context` has a key of `FIELDS`, or holds other than plain values.
    """
    columns = {name: getattr(episodes, name).tolist() for name in EPISODE_COLUMNS}
    lines = []
    for k, context in enumerate(episodes.env_context):
        taken = context.keys() & set(FIELDS)
        if taken:
            raise ValueError(f"env_context: expected none of the keys of an episode, found {sorted(taken)}")
        entry: dict[str, Any] = {}
        for name in FIELDS:
            value = episodes.mission[k] or None if name == "mission" else columns[name][k]
            if name == "outcome":
                value = OUTCOME_NAMES.get(value)
            elif name == "mean_lpc":
                value = value if math.isfinite(value) else None
            entry[name] = None if value == -1 and name != "level_seed" else value
        lines.append(dump({**entry, **context}))
    return lines


def parse_episodes(entries: list[Any]) -> tuple[EpisodeTable, frozenset[str]]:
    """Return the entries of `episodes` as a table, and which of `FIRST_EVENTS` they say nothing about.

    Raises:
        ValueError: If an entry is not as expected; the message names the field.
    """
    if not all(type(entry) is dict for entry in entries):
        raise ValueError("episodes: expected a list of objects")
    columns: dict[str, np.ndarray] = {}
    for name, dtype in EPISODE_COLUMNS.items():
        values = [entry.get(name) for entry in entries]
        if name == "outcome":
            if not all(value is None or isinstance(value, str) for value in values) or set(values) - _OUTCOMES.keys():
                raise ValueError(
                    f"outcome: expected success, failure, timeout or null, found {_odd(values, _OUTCOMES)}"
                )
            values = [_OUTCOMES[value] for value in values]
        types = (int, float) if name == "mean_lpc" else (int,)
        fill = math.nan if name == "mean_lpc" else -1
        limit = np.inf if name == "mean_lpc" else np.iinfo(dtype).max
        for value in values:
            if value is not None and (type(value) not in types or not -limit <= value <= limit):
                raise ValueError(f"episodes: {name}: expected {'a number' if fill != -1 else 'a whole number'} or null "
                                 f"of {dtype}, found {str(value)[:40]!r}")  # fmt: skip
        columns[name] = np.array([fill if value is None else value for value in values], dtype=dtype)
    missions = [entry.get("mission") for entry in entries]
    if not all(mission is None or isinstance(mission, str) for mission in missions):
        raise ValueError("episodes: mission: expected a text or null")
    table = EpisodeTable(
        **columns,
        mission=tuple(mission or "" for mission in missions),
        env_context=tuple({k: v for k, v in entry.items() if k not in FIELDS} for entry in entries),
    )
    silent = frozenset(name for name in FIRST_EVENTS if not any(name in entry for entry in entries))
    return table, silent


def _odd(values: Sequence, expected: Mapping) -> str:
    return next((repr(v)[:40] for v in values if not isinstance(v, str | None) or v not in expected), "nothing")
