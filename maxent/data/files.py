"""Rows of the files in which datasets are handed around: CSV, JSON lists, JSON lines, parquet.

for row in read_rows(path, ("id", "series")): json.loads(row["series"])
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maxent.data.sample import DataError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file by column name; repeated header rows of a CSV, left by joining files, are dropped.

    Raises:
        DataError: If it cannot be read, a column is missing, or a row is shorter than the header.
    """
    try:
        yield from _check_rows(path, _read(path), columns)
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path}: cannot be read as {path.suffix[1:] or 'text'} ({reason})") from None


def list_columns(path: Path) -> tuple[str, ...] | None:
    """Return the columns of a file, or None if it cannot be told what they are."""
    try:
        if path.suffix == ".parquet":
            check_parquet(path)
            import pyarrow.parquet

            return tuple(pyarrow.parquet.read_schema(path).names)
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as lines:
                return tuple(next(csv.reader(lines), ()))
        first = next(iter(_read(path)), None)
        return tuple(first) if isinstance(first, dict) else None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError):
        return None


def check_parquet(path: Path) -> None:
    """Raise DataError where the reader of parquet files is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"{path}: parquet files need pyarrow (pip install pyarrow); CSV and JSON files do not")


def _check_rows(path: Path, rows: Iterable[Any], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number}: expected columns by name, found {type(row).__name__}")
        if missing := [name for name in columns if name not in row]:
            raise DataError(
                f"{path}: expected the columns {', '.join(columns)}, found {', '.join(map(str, row))}; "
                f"{', '.join(missing)} is missing"
            )
        if path.suffix == ".csv":
            if all(row[name] == name for name in columns):
                continue
            if short := [name for name in columns if row[name] is None]:
                raise DataError(f"{path}: row {number}: expected a value for {', '.join(short)}, found none")
        yield row


def _read(path: Path) -> Iterator[Any]:
    """Yield the rows of a file as they stand."""
    match path.suffix:
        case ".parquet":
            check_parquet(path)
            import pyarrow.parquet

            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches():
                        yield from batch.to_pylist()
            except pyarrow.ArrowException as error:
                raise DataError(f"{path}: cannot be read as parquet ({error})") from None
        case ".json":
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
            if not isinstance(rows, list):
                raise DataError(f"{path}: expected a list of rows, found {type(rows).__name__}")
            yield from rows
        case ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        case _:
            limit = csv.field_size_limit(sys.maxsize)  # a series is longer than the module's 131,072 characters
            try:
                with path.open(encoding="utf-8-sig", newline="") as lines:
                    yield from csv.DictReader(lines)
            finally:
                csv.field_size_limit(limit)


def parse_numbers(value: Any) -> np.ndarray | None:
    """Return a list of numbers, float64 (points,), from a list or its text; None if it is none, empty or not finite.

    A list of one list, as some files have a series, is taken for the inner one.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value):
        return None
    return np.array(value, np.float64)


def split_rows(count: int, seeds: tuple[int, int]) -> dict[str, list[int]]:
    """Return the rows of each split, 80 : 10 : 10, as `datasets.Dataset.train_test_split` deals them, so as others do.

    Args:
        count: Rows.
        seeds: Of the draw of the test split, and of that of the validation split from the rest.

    Raises:
        DataError: If there are too few rows for three splits.
    """
    if count < 4:
        raise DataError(f"expected at least 4 rows for three splits, found {count}")
    rest, test = _deal(np.arange(count), 0.1, seeds[0])
    train, valid = _deal(rest, 0.1 / (1 - 0.1), seeds[1])
    return {"train": train.tolist(), "valid": valid.tolist(), "test": test.tolist()}


def _deal(rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(rows))
    taken = math.ceil(share * len(rows))
    return rows[order[taken:]], rows[order[:taken]]


def describe_dropped(dropped: int, why: str) -> str:
    """Return the words on rows that were left out, empty if none were."""
    return f", {dropped} rows without {why} left out" if dropped else ""
