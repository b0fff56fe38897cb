"""The two tables that evaluation hands on: one row per time step, one row per episode. Numpy columns, checked.

    routing, episodes = evaluation.routing, evaluation.episodes   # or those of read_cache(path)
    routing.weights[0][routing.direction == 3]                    # layer 0 while facing up, (steps, experts)
    episodes.outcome[routing.episode] == SUCCESS                  # a mask over steps
    routing.to_frame().groupby("subgoal")["lpc"].mean()           # the same in pandas

Their columns are declared in `pipeline.records.columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.records.columns import CODE_NAMES, EPISODE_COLUMNS, STEP_COLUMNS, WEIGHTS, Column

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = tuple(name for name, column in EPISODE_COLUMNS.items() if column.dtype.kind == "U")
_TUPLES = (*_TEXTS, "env_context")

_StepColumns = make_dataclass(
    "_StepColumns",
    [*((name, np.ndarray) for name in STEP_COLUMNS), *((names, tuple[str, ...]) for names in CODE_NAMES.values())],
    frozen=True,
    eq=False,
)
_EpisodeColumns = make_dataclass(
    "_EpisodeColumns",
    [(name, tuple[str, ...] if name in _TEXTS else np.ndarray) for name in EPISODE_COLUMNS],
    frozen=True,
    eq=False,
)


@dataclass(frozen=True, eq=False)
class RoutingTable(_StepColumns):
    """What the policy did at each of S time steps, and what its routers did, in order of episode, then time.

    Every column of `STEP_COLUMNS` is an array (S, ...) of the type declared there, with `Column.fill` where it is not
    known, and `subgoal_names`, `event_names`, `object_names` say what codes number. All but the event describes the
    state in which the policy acted; the event is what the action brought about.

    Attributes:
        weights: per layer float32 (S, E_l), the routing weights; empty for a policy without routers.
        expert_hidden_sizes: hidden size of each expert, per layer; empty without routers (or not known).
        unknown: names of columns that hold nothing but filling, because the source never recorded them.
        lpc_exponent: power of its size that an expert costs in `lpc`.
    """

    weights: tuple[np.ndarray, ...]
    expert_hidden_sizes: list[list[int]]
    unknown: frozenset[str] = frozenset()
    lpc_exponent: float = 2.0

    def __post_init__(self) -> None:
        """Check types and lengths.

        Raises:
            ValueError: If a column does not fit; the message names it.
        """
        steps = len(self.episode)
        for name, column in STEP_COLUMNS.items():
            _check_column(name, getattr(self, name), column, (steps, *column.shape))
        widths = [len(layer) for layer in self.expert_hidden_sizes]
        if widths and len(widths) != len(self.weights):
            raise ValueError(
                f"weights: expected {len(widths)} layers as expert_hidden_sizes, found {len(self.weights)}"
            )
        for layer, weights in enumerate(self.weights):
            _check_column(f"weights[{layer}]", weights, WEIGHTS, (steps, widths[layer] if widths else None))
        for name, names in CODE_NAMES.items():
            highest, known = int(getattr(self, name).max(initial=-1)), len(getattr(self, names))
            if highest >= max(known, STEP_COLUMNS[name].fill + 1):  # event 0, nothing, needs no name
                raise ValueError(f"{name}: expected codes below {known}, as many as {names}, found {highest}")
        if steps and self.episode.min() < 0:
            raise ValueError(f"episode: expected rows of the episode table, 0 or more, found {self.episode.min()}")
        if not self.unknown <= STEP_COLUMNS.keys():
            raise ValueError(f"unknown: expected names of columns, found {sorted(self.unknown - STEP_COLUMNS.keys())}")

    def __len__(self) -> int:
        """Return the number of steps, S."""
        return len(self.episode)

    def to_frame(self) -> pd.DataFrame:
        """Return the steps as a data frame, a row each, with the keys of `routing_data` as columns and typed.

        Lists are spread: `x` and `y` for the position, `layer_0/expert_1` for the routing weights, `action_logits/0`.
        Codes are categories of their names (event "none" where nothing happened), whole numbers and truth values those
        types of pandas that can be missing (Int8, boolean, ...), distances, LPC, entropy and weights float32. What is
        not known or does not exist is NA. `episode` numbers the rows of `EpisodeTable.to_frame()`:
        `steps.join(episodes, on="episode")`.
        """
        import pandas as pd  # takes a fifth of a second, which whoever needs no frame does not wait for

        found = {}
        for name, column in STEP_COLUMNS.items():
            names = getattr(self, column.names) if column.names else ()
            found |= _build_arrays(column, getattr(self, name), names, known=name not in self.unknown)
        for layer, weights in enumerate(self.weights):
            found |= {f"layer_{layer}/expert_{expert}": values for expert, values in enumerate(weights.T)}
        return pd.DataFrame(found)

    def select(self, rows: np.ndarray | slice) -> RoutingTable:
        """Return the table of some steps; `episode` still numbers the rows of the same episode table.

        Args:
            rows: boolean mask (S,), integer indices, or a slice.
        """
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.dtype == bool and rows.shape != (len(self),):
                raise ValueError(f"rows: expected a mask of shape ({len(self)},), found {rows.shape}")
            rows = rows.astype(np.intp) if rows.size == 0 and rows.dtype != bool else rows
        columns = {name: getattr(self, name)[rows] for name in STEP_COLUMNS}
        return replace(self, **columns, weights=tuple(column[rows] for column in self.weights))

    @staticmethod
    def concatenate(tables: Sequence[RoutingTable], num_episodes: Sequence[int] | None = None) -> RoutingTable:
        """Return the steps of several tables, one after the other, as of `EpisodeTable.concatenate`.

        Args:
            tables: at least one, of equal layers and names.
            num_episodes: length of each table's episode table, by which `episode` of those that follow is moved up. By
                default the highest `episode` + 1, which is right unless the last episodes were deselected.

        Raises:
            ValueError: If the tables do not fit together.
        """
        if not tables:
            raise ValueError("tables: expected at least one, found none")
        first = tables[0]
        for name in ("expert_hidden_sizes", "lpc_exponent", *CODE_NAMES.values()):
            for table in tables:
                if getattr(table, name) != getattr(first, name):
                    raise ValueError(f"{name}: expected the same in all tables, found {getattr(table, name)!r}")
        shapes = {(table.action_logits.shape[1], *(w.shape[1] for w in table.weights)) for table in tables}
        if len(shapes) > 1:
            raise ValueError(f"expected equal numbers of actions and experts in all tables, found {sorted(shapes)}")
        lengths = num_episodes or [int(table.episode.max(initial=-1)) + 1 for table in tables]
        starts = np.cumsum([0, *lengths[:-1]])
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in STEP_COLUMNS}
        moved = [table.episode + start for table, start in zip(tables, starts, strict=True)]
        columns["episode"] = np.concatenate(moved).astype(np.int32)
        return replace(
            first,
            **columns,
            weights=tuple(np.concatenate(layers) for layers in zip(*(t.weights for t in tables), strict=True)),
            unknown=frozenset().union(*(table.unknown for table in tables)),
        )


@dataclass(frozen=True, eq=False)
class EpisodeTable(_EpisodeColumns):
    """The n episodes played. Every column of `EPISODE_COLUMNS` is an array (n,), or for text a tuple of n.

    -1, NaN and "" stand for what is not known.

    Attributes:
        env_context: n descriptions of the level at its start, in plain types; read-only, records share them.
    """

    env_context: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        """Check types and lengths.

        Raises:
            ValueError: If a column does not fit; the message names it.
        """
        n = len(self.outcome)
        for name in _TUPLES:
            column = getattr(self, name)
            if not isinstance(column, tuple) or len(column) != n:
                raise ValueError(f"{name}: expected a tuple of {n}, found {type(column).__name__} of {len(column)}")
        for name, column in EPISODE_COLUMNS.items():
            if name not in _TEXTS:
                _check_column(name, getattr(self, name), column, (n,))
            if column.labels:
                found = set(np.unique(getattr(self, name)).tolist()) - {column.fill, *column.labels}
                if found:
                    expected = ", ".join(f"{code} {label}" for code, label in column.labels.items())
                    raise ValueError(f"{name}: expected {expected}, {column.fill} not known, found {sorted(found)}")

    def __len__(self) -> int:
        """Return the number of episodes, n."""
        return len(self.outcome)

    def to_frame(self) -> pd.DataFrame:
        """Return the episodes as a data frame, a row each, indexed by `episode`, its number; without `env_context`.

        `outcome` is a category of success, failure and timeout, `mission` text, `mean_lpc` float64, all else whole
        numbers (Int32, Int64); what is not known, and the time of what never happened, is NA.
        """
        import pandas as pd

        found = {}
        for name, column in EPISODE_COLUMNS.items():
            found |= _build_arrays(column, getattr(self, name))
        return pd.DataFrame(found, index=pd.RangeIndex(len(self), name="episode"))

    def select(self, rows: np.ndarray | Sequence[int]) -> EpisodeTable:
        """Return the table of some episodes, by boolean mask (n,) or indices; renumbering steps is the caller's."""
        index = np.arange(len(self))[np.asarray(rows, dtype=None if len(rows) else np.intp)]
        columns = {name: getattr(self, name)[index] for name in EPISODE_COLUMNS if name not in _TEXTS}
        return EpisodeTable(**columns, **{name: tuple(getattr(self, name)[i] for i in index) for name in _TUPLES})

    @staticmethod
    def concatenate(tables: Sequence[EpisodeTable]) -> EpisodeTable:
        """Return the episodes of at least one table, one after the other."""
        if not tables:
            raise ValueError("tables: expected at least one, found none")
        joined = {name: [getattr(table, name) for table in tables] for name in (*EPISODE_COLUMNS, "env_context")}
        return EpisodeTable(
            **{n: tuple(chain.from_iterable(c)) if n in _TUPLES else np.concatenate(c) for n, c in joined.items()}
        )


def _check_column(name: str, values: np.ndarray, column: Column, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless values are an array of the column's type and of this shape; None is any width."""
    found = getattr(values, "shape", None)
    fits = found is not None and len(found) == len(shape)
    if not fits or values.dtype != column.dtype or any(w not in (None, f) for w, f in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if width is None else str(width) for width in shape)
        what = type(values).__name__ if found is None else f"{values.dtype} {found}"
        raise ValueError(f"{name}: expected {column.dtype} ({wanted}), found {what}")


def _build_arrays(column: Column, values: Any, names: Sequence[str] = (), known: bool = True) -> dict[str, Any]:
    """Return the columns of a data frame for one of a table, each with S entries in a type of pandas.

    Args:
        column: Its declaration.
        values: (S, ...); text as a sequence of str.
        names: What the codes stand for, of a column with `names`.
        known: False if nothing of it was recorded: all entries are NA.
    """
    if not column.shape:
        return {column.keys[0]: _build_array(column, values, names, known)}
    parts = column.parts or [f"{column.keys[0]}/{part}" for part in range(values.shape[1])]
    labels = column.keys if len(column.keys) > 1 else parts
    return {label: _build_array(column, part, names, known) for label, part in zip(labels, values.T, strict=True)}


def _build_array(column: Column, values: np.ndarray | Sequence[str], names: Sequence[str], known: bool) -> Any:
    """Return values as an array in a type of pandas, NA where they are `fill`, or everywhere if not known."""
    import pandas as pd

    if column.dtype.kind == "U":
        return pd.array([value or None for value in values], dtype="string")
    missing = ~column.known(values) if known else np.ones(len(values), bool)
    labels = column.labels or dict(enumerate(names))
    if column.labels and set(labels.values()) <= {False, True}:
        return pd.arrays.BooleanArray(np.isin(values, [code for code, label in labels.items() if label]), missing)
    if column.names or column.labels:
        place = np.full(max(labels, default=-1) + 2, -1)  # of each code among the labels; the last is that of code -1
        place[list(labels)] = np.arange(len(labels))
        return pd.Categorical.from_codes(place[values if known else [-1] * len(values)], list(labels.values()))
    if column.dtype.kind == "b":
        return pd.arrays.BooleanArray(values.copy(), missing)
    if column.dtype.kind == "i":
        return pd.arrays.IntegerArray(values.copy(), missing)
    return np.where(missing, values.dtype.type(column.fill), values)
