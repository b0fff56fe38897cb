"""Rows added to `evaluation_results.csv`, by any number of processes.

    append_result("evaluation_results.csv", {"checkpoint_path": "checkpoints/...", "success_rate": 0.93, ...})
    with settled("evaluation_results.csv"):
        for ...:
            note_result("evaluation_results.csv", row)            # one of many

Adding a row rewrites the file under a lock, to a temporary name that then takes its place: whoever is killed, the file
is whole and holds every row added before. Who adds many says so (`note_result`): rows of a large file then wait beside
it, at the latest until `settle_results`, and count as its own for whoever reads here.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.command.files import replace_atomically
from pipeline.command.folders import HeldError, hold_lock
from pipeline.records.cells import to_cell
from pipeline.records.contents import columns_of, find_columns, place_rows, read_file
from pipeline.records.pending import (
    can_wait,
    drop_pending,
    foresee_settled,
    let_wait,
    pending_path,
    put_aside,
    read_pending,
)
from pipeline.records.texts import ResultsError, write_texts

_LOCK_SECONDS = 120.0  # a row takes milliseconds; who waits as long waits for a process that hangs


def append_result(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add the row of a checkpoint, in place of an earlier row with the same `checkpoint_path` and of the same level.

    Other rows are kept as they are, character for character. What the file did not have is empty.

    Args:
        path: The CSV; it and its folder are made where there are none.
        row: Values by column, at least `checkpoint_path`; keys that are no column are left out. Plain types, numpy
            numbers, lists.

    Raises:
        ResultsError: If the file is something else, or another process holds its lock for minutes. It is untouched.
        ValueError: If a value is not finite, or there is no `checkpoint_path`.
    """
    append_results(path, [row])


def note_result(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add a row as `append_result` does, one of many: it may wait beside a large file; `settle_results` is to follow.

    Args:
        path: The CSV.
        row: See `append_result`.

    Raises:
        ResultsError: As there.
        ValueError: Likewise.
    """
    append_results(path, [row], may_wait=True)


def settle_results(path: str | Path) -> None:
    """Put rows that wait beside a CSV into it, or aside where it is gone or another file is in its place.

    Raises:
        ResultsError: As for a row that is added; they wait on then, and the message says where.
    """
    if pending_path(Path(os.path.realpath(path))).exists():
        append_results(path, [])


@contextmanager
def settled(path: str | Path) -> Iterator[None]:
    """Within the block many rows may be added to a CSV; whatever ends it, they are all in there afterwards.

    Raises:
        ResultsError: As of `settle_results`.
    """
    settle_results(path)
    try:
        yield
    finally:
        settle_results(path)


def append_results(path: str | Path, rows: Sequence[Mapping[str, Any]], *, may_wait: bool = False) -> None:
    """Add rows as `append_result` does, all of them or, where one cannot be written, none; the file is written once.

    Args:
        path: The CSV.
        rows: See `append_result`; of two of one checkpoint and level the later one stays.
        may_wait: See `note_result`.

    Raises:
        ResultsError: As for a single row.
        ValueError: Likewise.
    """
    for row in rows:
        if not isinstance(identity := row.get("checkpoint_path"), str) or not identity:
            raise ValueError(f"checkpoint_path: expected a path as text, found {identity!r}")
    path = Path(os.path.realpath(path))  # one file, one lock, by whatever name it is reached
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(path.with_name(f".{path.name}.lock"), _LOCK_SECONDS):
            put_aside(path)
            if not rows and not pending_path(path).exists():
                return
            if may_wait and can_wait(path):
                names = find_columns(path)
                let_wait(path, [_to_cells(row, names) for row in rows])
                return
            texts = read_file(path)
            names = columns_of(texts)
            cells = [_to_cells(row, names) for row in rows]
            texts = place_rows(texts, [*read_pending(path), *cells])
            for stray in glob.glob(f".{glob.escape(path.name)}.*.tmp", root_dir=path.parent, include_hidden=True):
                (path.parent / stray).unlink(missing_ok=True)  # of a process that was killed; we hold the lock
            with replace_atomically(path) as temporary:
                write_texts(texts, temporary)
                foresee_settled(path, temporary)
            drop_pending(path)
    except HeldError as error:
        raise ResultsError(
            f"{path}: another process has kept it locked for {_LOCK_SECONDS:.0f} s; end that process, or choose "
            "another --results_path" + (error.args[0] and f" ({error})")
        ) from None


def _to_cells(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: to_cell(name, row[name]) for name in names if name in row}
