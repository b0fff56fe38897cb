"""The forms that a `routing_data.json` may have, as tables. `pipeline.records.cache` is what others use.

Today's form has a `schema_version` and an entry in `episodes` for every episode played. Before it `episodes` held every
distinct layout once; before that each step carried its own `env_context`, and at first nothing was told of the level.
From those it is not known how many episodes were played, how they ended, or even where one ends and the next begins,
unless `t_step` tells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config import parse_expert_sizes
from pipeline.records.columns import CODE_NAMES, EPISODE_COLUMNS, STEP_COLUMNS
from pipeline.records.episodes import parse_episodes, split_context
from pipeline.records.steps import StepReader, dump
from pipeline.records.tables import EpisodeTable, RoutingTable

SCHEMA_VERSION = 1

Parsed = tuple[dict[str, Any], dict[str, Any], EpisodeTable, RoutingTable | None, bool]
"""Header, metrics, episodes, routing, and whether the episodes are mere layouts."""


def check_header(content: Any) -> dict[str, Any]:
    """Return the top level of a file if it can be one, with sizes of experts per layer however they are spelled.

    Raises:
        ValueError: It cannot; the message says why.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected an object with routing_data, found {type(content).__name__}")
    version = content.get("schema_version")
    if version is not None and (type(version) is not int or version < 1):
        raise ValueError(f"schema_version: expected a whole number, found {str(version)[:40]!r}")
    if version is not None and version > SCHEMA_VERSION:
        raise ValueError(
            f"schema_version: expected at most {SCHEMA_VERSION}, found {version}; a newer program wrote it"
        )
    if not isinstance(content.get("metrics", {}), dict):
        raise ValueError("metrics: expected an object")
    for key in (*CODE_NAMES.values(), "unknown_columns"):
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key}: expected a list of names")
        if len(set(names)) < len(names):
            raise ValueError(f"{key}: expected distinct names, found {str(names)[:80]}")
    actions = content.get("num_actions", 0)
    if type(actions) is not int or not 0 <= actions < 1000:
        raise ValueError(f"num_actions: expected a whole number below 1000, found {str(actions)[:40]!r}")
    unknown = set(content.get("unknown_columns", [])) - STEP_COLUMNS.keys()
    if unknown:
        raise ValueError(f"unknown_columns: expected names of columns, found {sorted(unknown)}")
    if content.get("expert_hidden_sizes") in (None, []):  # not known, or no routers
        return content
    return content | {"expert_hidden_sizes": parse_expert_sizes(content["expert_hidden_sizes"])}


def parse(content: Any, blocks: Iterator[Any]) -> Parsed:
    """Return what a file says.

    Args:
        content: Its top level, without routing_data.
        blocks: The entries of routing_data, in lists.

    Raises:
        ValueError: If it is no cache; the message says why.
    """
    header = dict(check_header(content))
    metrics = header.pop("metrics", {})
    entries = header.pop("episodes", None)
    if entries is not None and (not isinstance(entries, list) or not all(type(entry) is dict for entry in entries)):
        raise ValueError("episodes: expected a list of objects")
    steps = StepReader({name: header[key] for name, key in CODE_NAMES.items() if key in header})
    layouts = LayoutNumbers()
    for rows in blocks:
        if not isinstance(rows, list):
            raise ValueError("expected an object with a list routing_data")
        steps.add(rows, layouts.number(map(_context_of, rows)) if entries is None else None)
    count = header.get("num_steps")
    if "num_steps" in header and (count or 0) != steps.rows:
        raise ValueError(f"routing_data: expected {count} steps as num_steps says, found {steps.rows}")
    routing = None
    if steps.rows or count is not None:
        sizes = header.get("expert_hidden_sizes") or []
        routing = steps.table(sizes, header.get("unknown_columns", ()), header.get("num_actions"))
        routing = dataclasses.replace(routing, lpc_exponent=read_exponent(header))
    levels = len(layouts.found if entries is None else entries)
    if routing is not None and routing.episode.max(initial=-1) >= levels:
        raise ValueError(f"episode: expected less than {levels}, the length of episodes, found {routing.episode.max()}")
    if entries is None or "schema_version" not in header:
        return header, metrics, *_parse_older(layouts.found if entries is None else entries, steps, routing)
    return header, metrics, _parse_played(header, entries, steps, routing), routing, False


def read_exponent(header: Mapping[str, Any]) -> float:
    """Return the power of its size that an expert costs, as a cache's header tells, else 2."""
    config = header.get("config")
    found = config.get("lpc_exponent") if isinstance(config, Mapping) else None
    usable = isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < float("inf")
    return float(found) if usable else 2.0


def _context_of(row: Any) -> dict[str, Any]:
    """Return the `env_context` of a step of a file without `episodes`, {} if it does not tell.

    Raises:
        ValueError: If it cannot be a step of such a file.
    """
    context = row.get("env_context") if isinstance(row, dict) else None
    if context is None and isinstance(row, dict) and "layer_routing" in row:
        return {}
    if not isinstance(context, dict):
        raise ValueError("expected a list episodes, or in every step an env_context or layer_routing; found neither")
    return context


def _parse_played(
    header: dict[str, Any], entries: list[dict[str, Any]], steps: StepReader, routing: RoutingTable | None
) -> EpisodeTable:
    """Return the episodes of a file in today's form."""
    if header.get("num_episodes", len(entries)) != len(entries):
        raise ValueError(f"episodes: expected {header['num_episodes']} as num_episodes says, found {len(entries)}")
    episodes, silent = parse_episodes(entries)
    if silent and routing is not None:  # another writer may say it in the steps only
        for name in silent & steps.first_events.keys():
            getattr(episodes, name)[:] = _first_of(routing.episode, steps.first_events[name], len(entries))
    return episodes


def _parse_older(
    layouts: list[dict[str, Any]], steps: StepReader, routing: RoutingTable | None
) -> tuple[EpisodeTable, RoutingTable | None, bool]:
    """Return the tables of a file in one of the older forms; its steps number layouts."""
    starts = None if routing is None else _find_borders(routing.episode, routing.t_step)
    if starts is None:
        return _unknown_episodes(layouts, np.arange(len(layouts))), routing, True
    episodes = _unknown_episodes(layouts, routing.episode[starts])
    routing = dataclasses.replace(routing, episode=(np.cumsum(starts) - 1).astype(np.int32))
    for name, values in steps.first_events.items():
        getattr(episodes, name)[:] = _first_of(routing.episode, values, len(episodes))
    return episodes, routing, False


class LayoutNumbers:
    """Numbers the `env_context` of steps, equal ones alike, in order of appearance.

    Attributes:
        found: The different ones.
    """

    def __init__(self, describe: Callable[[dict[str, Any]], str] = dump) -> None:
        self.found: list[dict[str, Any]] = []
        self._describe = describe
        self._numbers: dict[str, int] = {}

    def number(self, contexts: Iterable[dict[str, Any]]) -> list[int]:
        """Return the number of each step's layout."""
        numbers, last, number = [], None, -1
        for context in contexts:
            if context is not last and context != last:  # most steps are in the same level as the one before
                last = context
                number = self._numbers.setdefault(self._describe(context), len(self.found))
                if number == len(self.found):
                    self.found.append(context)
            numbers.append(number)
        return numbers


def _unknown_episodes(layouts: Sequence[dict[str, Any]], rows: np.ndarray) -> EpisodeTable:
    """Return a table of episodes of which only the level is known.

    Args:
        layouts: level descriptions, perhaps with a mission among them.
        rows: which of them each episode has, (n,).
    """
    contexts = [split_context(layout) for layout in layouts]
    missions = [layout["mission"] if isinstance(layout.get("mission"), str) else "" for layout in layouts]
    columns = {name: column.build([column.fill] * len(rows)) for name, column in EPISODE_COLUMNS.items()}
    columns["mission"] = tuple(missions[row] for row in rows.tolist())
    return EpisodeTable(**columns, env_context=tuple(contexts[row] for row in rows.tolist()))


def _find_borders(layout: np.ndarray, t_step: np.ndarray) -> np.ndarray | None:
    """Return which steps begin an episode, bool (S,), or None if the steps do not tell.

    They tell if every step either has `t_step` 0 or goes on from the step before it, on the same layout. Where several
    episodes were recorded in turns this is not so, and no border is guessed.
    """
    starts = t_step == 0
    goes_on = (np.diff(t_step) == 1) & (np.diff(layout) == 0)
    if not len(starts) or not starts[0] or not (starts[1:] | goes_on).all():
        return None
    return starts


def _first_of(episode: np.ndarray, values: np.ndarray, num_episodes: int) -> np.ndarray:
    """Return the value, not -1, on which the steps of each episode agree, int32 (n,); -1 where there is none."""
    result = np.full(num_episodes, -1, np.int32)
    known = values >= 0
    lowest = np.full(num_episodes, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(lowest, episode[known], values[known])
    np.maximum.at(result, episode[known], values[known])
    return np.where(result == lowest, result, -1).astype(np.int32)
