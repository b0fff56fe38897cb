"""Rows of several files of results made one file: where many write, each has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.records.results import append_result, read_results


def merge_results(places: Iterable[Path], path: Path) -> int:
    """Add the rows of files to one, each in place of an earlier row of its checkpoint and level.

    Args:
        places: The files; one that is not there has no rows.
        path: Where rows go.

    Returns:
        How many rows there were.

    Raises:
        ResultsError: If a file is something else; rows of those before it are added.
    """
    count = 0
    for place in places:
        if not place.exists():
            continue
        for row in read_results(place).to_dict("records"):
            append_result(path, {name: value for name, value in row.items() if not _is_empty(value)})
            count += 1
    return count


def _is_empty(value: object) -> bool:
    return not isinstance(value, list) and bool(pd.isna(value))
