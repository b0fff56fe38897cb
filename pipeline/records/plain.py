"""A column's array as the plain values that JSON and records hold, and back, null included. See `Column` for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pipeline.records.columns import Column


def to_plain(column: Column, values: np.ndarray | Sequence[str], names: Sequence[str] = ()) -> list:
    """Return the values under one key of a column as plain ones, None for what is `fill`.

    Args:
        column: Its declaration.
        values: (S,) or (S, width); text as a sequence of str.
        names: What the codes stand for, of a column with `names`.
    """
    if column.dtype.kind == "U":
        return [value or None for value in values]
    plain = values.tolist()
    if column.names or column.labels:
        labels = {**dict(enumerate(names)), **(column.labels or {}), column.fill: None}
        return [labels.get(code) for code in plain]
    if values.ndim > 1 or column.required or column.dtype.kind == "b":
        return plain
    known = column.known(values)
    return plain if known.all() else [v if k else None for v, k in zip(plain, known.tolist(), strict=True)]


def build_codes(column: Column, names: Sequence[str] = ()) -> dict[Any, int]:
    """Return the code of each plain value of a column of codes or of truth values, None included.

    Args:
        column: Its declaration.
        names: What the codes stand for, of a column with `names`.
    """
    labels = {0: False, 1: True} if column.dtype.kind == "b" else column.labels or dict(enumerate(names))
    return {None: column.fill, **{label: code for code, label in labels.items()}}


def from_plain(
    column: Column, values: Sequence, codes: Mapping[Any, int] | None = None, key: str = ""
) -> np.ndarray | tuple[str, ...]:
    """Return plain values, None where they are not known, as an array of the column's type; text as a tuple.

    Args:
        column: Its declaration.
        values: S values; of a column of lists, lists of one length.
        codes: From `build_codes`, where the names are the file's own.
        key: For messages, instead of the column's name.

    Raises:
        ValueError: If a value is not as declared; the message begins with the key.
    """
    key = key or column.name
    if column.dtype.kind == "U":
        if not set(map(type, values)) <= {str, type(None)}:
            raise ValueError(f"{key}: expected texts or null, found {_sample(values)}")
        return tuple(value or column.fill for value in values)
    if column.names or column.labels or column.dtype.kind == "b":
        return _parse_codes(key, values, build_codes(column) if codes is None else codes, column.dtype)
    if not column.shape or len(column.keys) > 1:
        return _parse_numbers(key, values, column)
    if set(map(type, values)) - {list}:
        raise ValueError(f"{key}: expected a list of numbers in every step, found {_sample(values)}")
    lengths = set(map(len, values))
    if len(lengths) > 1 or column.shape[0] not in (None, *lengths):
        expected = "as many numbers in every step" if column.shape[0] is None else f"{column.shape[0]} numbers"
        raise ValueError(f"{key}: expected {expected}, found lists of {sorted(lengths)[:4]}")
    return _parse_numbers(key, list(chain.from_iterable(values)), column).reshape(len(values), max(lengths))


def _parse_numbers(key: str, values: Sequence, column: Column) -> np.ndarray:
    dtype, types = column.dtype, set(map(type, values))
    if dtype.kind == "f":
        if not types <= {int, float, type(None)}:
            raise ValueError(f"{key}: expected numbers, found {_sample(values)}")
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float64).astype(dtype)  # None becomes NaN
        if np.isinf(array).any():
            raise ValueError(f"{key}: expected finite numbers, found one beyond {dtype}")
        return array
    if type(None) in types and not column.shape:
        types.remove(type(None))
        values = [column.fill if value is None else value for value in values]
    if not types <= {int}:
        raise ValueError(f"{key}: expected whole numbers, found {_sample(values)}")
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        found = max(values, key=abs)
        raise ValueError(f"{key}: expected numbers between {limits.min} and {limits.max}, found {found}") from None


def _parse_codes(key: str, values: Sequence, codes: Mapping[Any, int], dtype: np.dtype) -> np.ndarray:
    try:
        return np.array([codes[value] for value in values], dtype=dtype)
    except KeyError as error:
        expected = ", ".join("null" if label is None else str(label) for label in codes)
        raise ValueError(f"{key}: expected one of {expected}, found {error}") from None
    except (TypeError, OverflowError):
        raise ValueError(f"{key}: expected plain values, found {_sample(values)}") from None


def _sample(values: Sequence) -> str:
    return repr(list(values[:2]))[:120]
