"""Time steps as lines of JSON, and back: the `routing_data` of a cache. `pipeline.records.cache` is what others use.

Both directions go column by column and in blocks of rows: 100,000 steps as Python dicts would take 300 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pipeline.records.metrics import PLACES, STEP_COLUMNS, EpisodeTable, RoutingTable, step_columns

DIGITS = 6
"""Significant digits of weights, logits, LPC, entropy and straight distances in the file."""

_BLOCK = 8192
_ARRAYS = {"action_logits": (np.float32, (None,)), "position": (np.int16, (2,))}
_INTS = {"t_step": np.int32, "direction": np.int8, "action": np.int8, "expert_action": np.int8}
_FLOATS = {"lpc": np.float32, "entropy": np.float32}
_BOOLS = {"carrying": {None: 0, False: 0, True: 1}, "door_unlocked": {None: -1, False: 0, True: 1}}
_NAMED = {"subgoal": np.int8, "event": np.int8, "event_object": np.int16}
_DISTANCES = {"walking": "dist_to", "straight": "straight_to"}
CODE_NAMES = {"subgoal": "subgoal_names", "event": "event_names", "event_object": "object_names"}
"""Columns of codes, and the fields of a file's header that say what the codes stand for."""

FIRST_EVENTS = ("t_pick", "t_unlocked", "t_drop")


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
    plain = step_columns(routing, episodes)
    template: list[str] = []
    columns: list[Sequence] = []

    def add(key: str, form: str, *values: Sequence) -> None:
        template.append(f'"{key}":{form}')
        columns.extend(values)

    def add_plain(*keys: str) -> None:
        for key in keys:
            add(key, "%s", _texts(plain[key]))

    add("episode", "%d", plain["episode"])
    add("position", "[%d,%d]", *routing.position.T.tolist())
    layers = [_array_form(weights) for weights in routing.weights]
    forms = ",".join(f'"layer_{layer}":{form}' for layer, (form, _) in enumerate(layers))
    add("layer_routing", f"{{{forms}}}", *(column for _, values in layers for column in values))
    add("lpc", "%s", _numbers(plain["lpc"]))
    add_plain("t_step", "direction", "carrying", "door_unlocked", "action")
    if "action_logits" in routing.unknown:
        add("action_logits", "null")
    else:
        form, values = _array_form(routing.action_logits)
        add("action_logits", form, *values)
    add_plain("expert_action")
    add("entropy", "%s", _numbers(plain["entropy"]))
    add_plain(*FIRST_EVENTS)
    for prefix in _DISTANCES.values():
        add_plain(*(f"{prefix}_{place}" for place in PLACES))
    add_plain("subgoal", "event", "event_object")
    if contexts is not None:
        add("env_context", "%s", [contexts[episode] for episode in plain["episode"]])
    line = "{" + ",".join(template) + "}"
    return (line % row for row in zip(*columns, strict=True))


def _array_form(values: np.ndarray) -> tuple[str, list[list]]:
    """Return the template of an array of numbers and what goes into it, column by column."""
    if np.isfinite(values).all():
        return "[" + ",".join([f"%.{DIGITS}g"] * values.shape[1]) + "]", values.T.tolist()
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
    """Collects the rows of `routing_data`, block by block, into the columns of a `RoutingTable`.

    Attributes:
        first_events: `t_pick`, `t_unlocked` and `t_drop` of each step, int32 (S,), -1 none.
    """

    def __init__(self, names: dict[str, Sequence[str]]) -> None:
        """Start empty.

        Args:
            names: of the columns subgoal, event and event_object, what their codes number. Those that are missing here
                are collected from the rows.
        """
        self._open = {name for name in _NAMED if name not in names}
        self._codes: dict[str, dict[str | None, int]] = {}
        for name in _NAMED:
            labels = names.get(name, ["none"] if name == "event" else [])
            self._codes[name] = {label: code for code, label in enumerate(labels)}
            self._codes[name][None] = 0 if name == "event" else -1
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

        def take(key: str) -> list:
            values = [row.get(key) for row in rows]
            if key not in self._seen and any(value is not None for value in values):
                self._seen.add(key)
            return values

        self._put("episode", _ints("episode", take("episode") if episode is None else episode, np.int32, fill=None))
        for name, (dtype, shape) in _ARRAYS.items():
            values = take(name)
            if name == "action_logits" and None in values:
                if any(value is not None for value in values):
                    raise ValueError(f"{name}: expected in all steps or in none")
                values = [[]] * len(rows)
            self._put(name, _numbers_array(name, values, dtype, shape))
        for name, dtype in _INTS.items():
            self._put(name, _ints(name, take(name), dtype))
        for name, dtype in _FLOATS.items():
            self._put(name, _numbers_array(name, take(name), dtype, ()))
        for name, codes in _BOOLS.items():
            values = take(name)
            self._put(name, _codes(name, values, codes, bool if name == "carrying" else np.int8))
            if name == "carrying" and None in values:
                self._unsure.add(name)
        for name, dtype in _NAMED.items():
            values = take(name)
            if name in self._open:
                for label in values:
                    if isinstance(label, str) and label not in self._codes[name]:
                        self._codes[name][label] = len(self._codes[name]) - 1
            self._put(name, _codes(name, values, self._codes[name], dtype))
        for name, prefix in _DISTANCES.items():
            keys = [f"{prefix}_{place}" for place in PLACES]
            self._put(name, np.stack([_numbers_array(key, take(key), np.float32, ()) for key in keys], axis=1))
            if any(key in row for row in rows for key in keys):
                self._seen.add(name)
        for name in FIRST_EVENTS:
            self._put(name, _ints(name, take(name), np.int32))
        for name in ("door_unlocked", "expert_action", "subgoal", "event", "event_object"):
            if name not in self._seen and any(name in row for row in rows):
                self._seen.add(name)
        self._add_layers(rows)
        self.rows += len(rows)

    def _add_layers(self, rows: list[dict[str, Any]]) -> None:
        layers = [row.get("layer_routing") or {} for row in rows]
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
            self._put(name, _numbers_array(name, [layer[name] for layer in layers], np.float32, (None,)))

    def _put(self, name: str, column: np.ndarray) -> None:
        parts = self._parts.setdefault(name, [])
        if parts and parts[0].shape[1:] != column.shape[1:]:
            raise ValueError(
                f"{name}: expected {parts[0].shape[1:]} numbers in every step, found {column.shape[1:]} too"
            )
        parts.append(column)

    @property
    def first_events(self) -> dict[str, np.ndarray]:
        """Return those of the columns of the episode table that the steps had."""
        return {name: self._column(name) for name in FIRST_EVENTS if name in self._seen}

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
        never = STEP_COLUMNS.keys() - self._seen - (set() if self._layers else _FLOATS.keys()) - {"episode"}
        names = {name: tuple(label for label in codes if label is not None) for name, codes in self._codes.items()}
        return RoutingTable(
            **{name: self._column(name) for name in STEP_COLUMNS},
            weights=tuple(self._column(name) for name in self._layers),
            expert_hidden_sizes=expert_hidden_sizes if self._layers else [],
            subgoal_names=names["subgoal"],
            event_names=names["event"],
            object_names=names["event_object"],
            unknown=frozenset({*unknown, *never, *self._unsure}),
        )

    def _add_nothing(self, expert_hidden_sizes: list[list[int]], num_actions: int) -> None:
        for name, (dtype, shape) in STEP_COLUMNS.items():
            self._put(name, np.zeros((0, *(num_actions if width is None else width for width in shape)), dtype))
        for name, sizes in zip(self._layers, expert_hidden_sizes, strict=True):
            self._put(name, np.zeros((0, len(sizes)), np.float32))

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate(self._parts[name])


def _ints(name: str, values: Sequence[int | None], dtype: type, fill: int | None = -1) -> np.ndarray:
    if fill is None and None in values:
        raise ValueError(f"{name}: expected a whole number in every step, found null or nothing")
    if not set(map(type, values)) <= {int, type(None)}:
        raise ValueError(f"{name}: expected whole numbers, found {_sample(values)}")
    return _fit(name, np.array([fill if value is None else value for value in values]), dtype)


def _fit(name: str, column: np.ndarray, dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    if column.size and (column.min() < limits.min or column.max() > limits.max):
        raise ValueError(f"{name}: expected numbers between {limits.min} and {limits.max}, found {column.max()}")
    return column.astype(dtype)


def _numbers_array(name: str, values: Sequence, dtype: type, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return numbers as an array (rows, *shape), null as NaN; `shape` has at most one dimension."""
    wanted = {int} if np.dtype(dtype).kind == "i" else {int, float, type(None)}
    numbers = values
    if shape:
        if set(map(type, values)) - {list}:
            raise ValueError(f"{name}: expected a list of numbers in every step, found {_sample(values)}")
        lengths = set(map(len, values))
        if len(lengths) > 1 or shape[0] not in (None, *lengths):
            expected = "as many numbers in every step" if shape[0] is None else f"{shape[0]} numbers"
            raise ValueError(f"{name}: expected {expected}, found lists of {sorted(lengths)[:4]}")
        numbers = list(chain.from_iterable(values))
    if not set(map(type, numbers)) <= wanted:
        raise ValueError(f"{name}: expected {'whole ' if len(wanted) == 1 else ''}numbers, found {_sample(values)}")
    if len(wanted) == 1:
        return _fit(name, np.array(numbers), dtype).reshape(len(values), -1)
    with np.errstate(over="ignore"):
        column = np.array(numbers, dtype=np.float64).astype(dtype)  # None becomes NaN
    if np.isinf(column).any():
        raise ValueError(f"{name}: expected finite numbers, found one beyond {np.dtype(dtype)}")
    return column.reshape(len(values), max(lengths)) if shape else column


def _codes(name: str, values: list, codes: dict[Any, int], dtype: type) -> np.ndarray:
    try:
        return np.array([codes[value] for value in values], dtype=dtype)
    except KeyError as error:
        expected = ", ".join("null" if label is None else str(label) for label in codes)
        raise ValueError(f"{name}: expected one of {expected}, found {error}") from None
    except (TypeError, OverflowError):
        raise ValueError(f"{name}: expected plain values, found {_sample(values)}") from None


def _sample(values: Sequence) -> str:
    return repr(list(values[:2]))[:120]
