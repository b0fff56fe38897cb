"""Rows of several files of results made one file: where many write, each has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.records.results import append_results, read_results


def merge_results(places: Iterable[Path], path: Path) -> int:
    """Add the rows of files to one, each in place of an earlier row of its checkpoint and level.

    Args:
        places: The files; one that is not there has no rows.
        path: Where rows go.

    Returns:
        How many rows there were.

    Raises:
        ResultsError: If a file is something else; no row is added then.
    """
    rows = []
    for place in places:
        if place.exists():
            found = read_results(place).to_dict("records")
            rows += [{name: value for name, value in row.items() if not _is_empty(value)} for row in found]
    if rows:
        append_results(path, rows)
    return len(rows)


def _is_empty(value: object) -> bool:
    return not isinstance(value, list) and bool(pd.isna(value))
