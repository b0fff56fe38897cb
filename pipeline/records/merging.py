"""Rows of several files of results made one file: where many write, each has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.records.adding import append_results
from pipeline.records.results import read_plain


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
            rows += [{name: value for name, value in row.items() if value is not None} for row in read_plain(place)]
    if rows:
        append_results(path, rows)
    return len(rows)
