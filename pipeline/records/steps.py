"""Time steps as dicts and as lines of JSON, and back: the `routing_data` of a cache. See `pipeline.records.cache`.

    for record in iter_records(routing, episodes): record["layer_routing"]["layer_0"]

Lines are written and read column by column and in blocks of rows: 100,000 steps as Python dicts would take 300 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.records.columns import CODE_NAMES, FIRST_EVENTS, STEP_COLUMNS, STEPS, WEIGHTS, Column
from pipeline.records.plain import build_codes, from_plain, to_plain
from pipeline.records.tables import EpisodeTable, RoutingTable

DIGITS = 6
"""Significant digits of weights, logits, LPC, entropy and distances in the file."""

_BLOCK = 8192


# ----------------------------------------------------------------------------------------------------------- records


def iter_records(routing: RoutingTable, episodes: EpisodeTable) -> Iterator[dict[str, Any]]:
    """Yield one dict per time step, in the form of a cache's `routing_data` (see docs/cache.md).

    What is not known or does not exist (no door, no routers, no event) is None. `env_context` is one dict that
    all steps of an episode share: read it, do not change it.

    Raises:
        ValueError: If a step belongs to an episode that is not in the table.
    """
    highest = int(routing.episode.max(initial=-1))
    if highest >= len(episodes):
        raise ValueError(f"episode: expected rows of a table of {len(episodes)} episodes, found {highest}")
    columns = {key: v for column in STEPS if column is not WEIGHTS for key, v in _plain(column, routing, episodes)}
    layers = [weights.tolist() for weights in routing.weights]
    names = [f"layer_{layer}" for layer in range(len(layers))]
    routed = zip(*layers, strict=True) if layers else [()] * len(routing)
    steps = zip(*columns.values(), strict=True)
    for step, weights in zip(steps, routed, strict=True):
        record = dict(zip(columns, step, strict=True))
        record["layer_routing"] = dict(zip(names, weights, strict=True))
        record["env_context"] = episodes.env_context[record["episode"]]
        yield record


def _plain(column: Column, routing: RoutingTable, episodes: EpisodeTable) -> Iterator[tuple[str, list]]:
    """Yield the keys of a column in a step's record, each with S plain values."""
    in_episodes = column in FIRST_EVENTS
    values = getattr(episodes, column.name)[routing.episode] if in_episodes else getattr(routing, column.name)
    names = getattr(routing, column.names) if column.names else ()
    unknown = column.name in routing.unknown and not column.required
    for key, part in zip(column.keys, values.T if len(column.keys) > 1 else [values], strict=True):
        yield key, [None] * len(routing) if unknown else to_plain(column, part, names)


# ----------------------------------------------------------------------------------------------------------- writing


def format_steps(routing: RoutingTable, episodes: EpisodeTable, *, inline_context: bool = False) -> Iterator[str]:
    """Yield blocks of the lines of `routing_data`, comma and newline between all lines, none after the last.

    Args:
        routing: the steps.
        episodes: the episodes that they belong to.
        inline_context: repeat the `env_context` in every line.
    """
    contexts = [dump(context) for context in episodes.env_context] if inline_context else None
    for start in range(0, len(routing), _BLOCK):
        block = routing.select(slice(start, start + _BLOCK))
        yield (",\n" if start else "") + ",\n".join(_format_block(block, episodes, contexts))


def _format_block(routing: RoutingTable, episodes: EpisodeTable, contexts: list[str] | None) -> Iterator[str]:
    parts = [part for column in STEPS for part in _forms(column, routing, episodes)]
    if contexts is not None:
        parts.append(("env_context", "%s", [[contexts[episode] for episode in routing.episode.tolist()]]))
    line = "{" + ",".join(f'"{key}":{form}' for key, form, _ in parts) + "}"
    return (line % row for row in zip(*(values for _, _, filling in parts for values in filling), strict=True))


def _forms(
    column: Column, routing: RoutingTable, episodes: EpisodeTable
) -> Iterator[tuple[str, str, Sequence[Sequence]]]:
    """Yield each key of a column in the file, the template of its entry, and the columns of what goes into that."""
    if column is WEIGHTS:
        layers = [_list_form(weights) for weights in routing.weights]
        entry = ",".join(f'"layer_{layer}":{form}' for layer, (form, _) in enumerate(layers))
        yield column.keys[0], f"{{{entry}}}", [values for _, filling in layers for values in filling]
    elif column.shape and len(column.keys) == 1 and column.name not in routing.unknown:
        yield column.keys[0], *_list_form(getattr(routing, column.name))
    else:
        for key, values in _plain(column, routing, episodes):
            if column.dtype.kind == "f" and None not in values:
                yield key, f"%.{DIGITS}g", [values]
            else:  # distances repeat, LPC and entropy do not
                alone = column.dtype.kind == "f" and len(column.keys) == 1
                yield key, "%s", [_numbers(values) if alone else _texts(values)]


def _list_form(values: np.ndarray) -> tuple[str, list[list]]:
    """Return the template of a list of numbers and what goes into it, column by column."""
    if np.isfinite(values).all():
        form = "%d" if values.dtype.kind == "i" else f"%.{DIGITS}g"
        return "[" + ",".join([form] * values.shape[1]) + "]", values.T.tolist()
    columns = [_numbers([v if np.isfinite(v) else None for v in column]) for column in values.T.tolist()]
    return "[" + ",".join(["%s"] * values.shape[1]) + "]", columns


def _numbers(values: list[float | None]) -> list[str]:
    return ["null" if value is None else f"{value:.{DIGITS}g}" for value in values]


def _texts(values: list) -> list[str]:
    """Return values as JSON; fast where they repeat."""
    known = {v: f"{v:.{DIGITS}g}" if isinstance(v, float) else json.dumps(v, ensure_ascii=False) for v in set(values)}
    return [known[value] for value in values]


def dump(value: Any) -> str:
    """Return compact JSON in one line; not-a-number is refused."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no valid UTF-8
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text


# ----------------------------------------------------------------------------------------------------------- reading


class StepReader:
    """Collects the rows of `routing_data`, block by block, into the columns of a `RoutingTable`."""

    def __init__(self, names: dict[str, Sequence[str]]) -> None:
        """Start empty.

        Args:
            names: of the columns subgoal, event and event_object, what their codes number. Those that are missing here
                are collected from the rows.
        """
        self._open = CODE_NAMES.keys() - names.keys()
        self._codes = {
            # Where 0 is what null stands for, it has a name of its own.
            name: build_codes(STEP_COLUMNS[name], names.get(name, ["none"] * (STEP_COLUMNS[name].fill == 0)))
            for name in CODE_NAMES
        }
        self._parts: dict[str, list[np.ndarray]] = {}
        self._layers: list[str] | None = None
        self._seen: set[str] = set()
        self._unsure: set[str] = set()
        self.rows = 0

    def add(self, rows: list[dict[str, Any]], episode: Sequence[int] | None = None) -> None:
        """Take in a block of rows.

        Args:
            rows: as in the file.
            episode: of each row, if the rows do not say it themselves.

        Raises:
            ValueError: If a row is not as expected; the message says which field.
        """
        if not rows:
            return
        if not all(type(row) is dict for row in rows):
            raise ValueError("routing_data: expected an object for each step")
        for column in STEPS:
            if column is WEIGHTS:
                self._add_layers(rows)
            elif column.name == "episode" and episode is not None:
                self._put("episode", from_plain(column, episode))
            else:
                parts = [self._parse(column, key, rows) for key in column.keys]
                self._put(column.name, parts[0] if len(parts) == 1 else np.stack(parts, axis=1))
        self.rows += len(rows)

    def _parse(self, column: Column, key: str, rows: list[dict[str, Any]]) -> np.ndarray:
        """Return the values under one key of a column."""
        name, values = column.name, [row.get(key) for row in rows]
        if name not in self._seen and (
            any(key in row for row in rows) if column.null else any(value is not None for value in values)
        ):
            self._seen.add(name)
        if column.required or column.shape == (None,) or column.dtype.kind == "b":
            if None in values:
                if column.required:
                    raise ValueError(f"{key}: expected in every step, found null or nothing")
                if column.dtype.kind == "b":
                    self._unsure.add(name)
                elif any(value is not None for value in values):
                    raise ValueError(f"{key}: expected in all steps or in none")
                else:
                    values = [[]] * len(rows)
        if name in self._open:
            codes = self._codes[name]
            for label in values:
                if isinstance(label, str) and label not in codes:
                    codes[label] = len(codes) - 1
        return from_plain(column, values, self._codes.get(name), key)

    def _add_layers(self, rows: list[dict[str, Any]]) -> None:
        layers = [row.get(WEIGHTS.keys[0]) or {} for row in rows]
        if not all(type(layer) is dict for layer in layers):
            raise ValueError("layer_routing: expected an object with layer_0, layer_1, ...")
        if self._layers is None:
            self._layers = [f"layer_{layer}" for layer in range(len(layers[0]))]
        count = len(self._layers)
        if any(len(layer) != count for layer in layers):
            raise ValueError(
                f"layer_routing: expected {count} layers in every step as in the first, found another number"
            )
        for name in self._layers:
            if any(name not in layer for layer in layers):
                raise ValueError(f"layer_routing: expected {', '.join(self._layers)} in every step, {name} is missing")
            self._put(name, from_plain(WEIGHTS, [layer[name] for layer in layers], key=name))

    def _put(self, name: str, column: np.ndarray) -> None:
        parts = self._parts.setdefault(name, [])
        if parts and parts[0].shape[1:] != column.shape[1:]:
            raise ValueError(
                f"{name}: expected {parts[0].shape[1:]} numbers in every step, found {column.shape[1:]} too"
            )
        parts.append(column)

    @property
    def first_events(self) -> dict[str, np.ndarray]:
        """Those of `t_pick`, `t_unlocked` and `t_drop` that the steps had, int32 (S,), -1 never."""
        return {column.name: self._column(column.name) for column in FIRST_EVENTS if column.name in self._seen}

    def table(
        self, expert_hidden_sizes: list[list[int]], unknown: Iterable[str] = (), num_actions: int | None = None
    ) -> RoutingTable:
        """Return all rows as a table.

        Args:
            expert_hidden_sizes: of the policy; empty if not known.
            unknown: columns that the file declares as filling.
            num_actions: width of the logits, for a table without rows.

        Raises:
            ValueError: If the columns do not fit together.
        """
        if self._layers is None:
            self._layers = [f"layer_{layer}" for layer in range(len(expert_hidden_sizes))]
            self._seen.update(STEP_COLUMNS)
            self._add_nothing(expert_hidden_sizes, num_actions or 0)
        # Without routers there are no LPC and entropy to be known.
        asked = {name for name, column in STEP_COLUMNS.items() if self._layers or column.source != "routers"}
        names = {CODE_NAMES[name]: tuple(label for label in codes if label is not None)
                 for name, codes in self._codes.items()}  # fmt: skip
        return RoutingTable(
            **{name: self._column(name) for name in STEP_COLUMNS},
            **names,
            weights=tuple(self._column(name) for name in self._layers),
            expert_hidden_sizes=expert_hidden_sizes if self._layers else [],
            unknown=frozenset({*unknown, *self._unsure, *(asked - self._seen - {"episode"})}),
        )

    def _add_nothing(self, expert_hidden_sizes: list[list[int]], num_actions: int) -> None:
        for name, column in STEP_COLUMNS.items():
            shape = (num_actions if width is None else width for width in column.shape)
            self._put(name, np.zeros((0, *shape), column.dtype))
        for name, sizes in zip(self._layers, expert_hidden_sizes, strict=True):
            self._put(name, np.zeros((0, len(sizes)), np.float32))

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate(self._parts[name])
