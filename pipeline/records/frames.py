"""Tables as pandas data frames; `RoutingTable.to_frame` and `EpisodeTable.to_frame` are what others use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.records.columns import EPISODE_COLUMNS, STEP_COLUMNS, Column

if TYPE_CHECKING:
    from pipeline.records.tables import EpisodeTable, RoutingTable


def frame_steps(routing: RoutingTable) -> pd.DataFrame:
    """Return what `RoutingTable.to_frame` says."""
    found = {}
    for name, column in STEP_COLUMNS.items():
        names = getattr(routing, column.names) if column.names else ()
        for label, values in _spread(column, getattr(routing, name)):
            found[label] = _typed(column, values, names, known=name not in routing.unknown)
    for layer, weights in enumerate(routing.weights):
        found |= {f"layer_{layer}/expert_{expert}": values for expert, values in enumerate(weights.T)}
    return pd.DataFrame(found)


def frame_episodes(episodes: EpisodeTable) -> pd.DataFrame:
    """Return what `EpisodeTable.to_frame` says."""
    found = {name: _typed(column, getattr(episodes, name)) for name, column in EPISODE_COLUMNS.items()}
    return pd.DataFrame(found, index=pd.RangeIndex(len(episodes), name="episode"))


def _spread(column: Column, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the frame's columns for one of a table, each (S,)."""
    if not column.shape:
        yield column.keys[0], values
    elif len(column.keys) > 1:
        yield from zip(column.keys, values.T, strict=True)
    else:
        parts = column.parts or [f"{column.keys[0]}/{part}" for part in range(values.shape[1])]
        yield from zip(parts, values.T, strict=True)


def _typed(column: Column, values: np.ndarray | Sequence[str], names: Sequence[str] = (), known: bool = True) -> object:
    """Return values as an array with a type of pandas, NA where they are `fill`, or everywhere if not known."""
    if column.dtype.kind == "U":
        return pd.array([value or None for value in values], dtype="string")
    missing = ~column.known(values) if known else np.ones(len(values), bool)
    labels = column.labels or dict(enumerate(names))
    if column.labels and set(labels.values()) <= {False, True}:
        return pd.arrays.BooleanArray(np.isin(values, [code for code, label in labels.items() if label]), missing)
    if column.names or column.labels:
        order = np.full(max(labels, default=-1) + 2, -1)  # the last is for -1
        order[list(labels)] = np.arange(len(labels))
        known_codes = values if known else np.full(len(values), -1)
        return pd.Categorical.from_codes(order[known_codes], list(labels.values()))
    if column.dtype.kind == "b":
        return pd.arrays.BooleanArray(values.copy(), missing)
    if column.dtype.kind == "i":
        return pd.arrays.IntegerArray(values.copy(), missing)
    return np.where(missing, values.dtype.type(column.fill), values)
