"""Rows that wait beside a large file of results, so that adding one does not write all the others once more.

They are lines of JSON in `.<name>.pending`, each a row's cells by column; the first one tells which CSV they are of.
Who writes holds the file's lock, and puts them into the CSV with the first row that comes some seconds after it was
written, when they have become many, or when all rows are there; who reads takes both for one. Where the CSV has gone
or another one has taken its place, they are put aside under a name that is seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.command.files import Lines, cut_half_line, reach_disk
from pipeline.records.texts import ResultsError

SMALL_BYTES = 64 << 10
"""Up to which a CSV is written anew for each row: some two hundred rows, in a few milliseconds."""

WAIT_SECONDS = 10.0
"""Age of a CSV from which the next row is not let wait any more, with all that do; of one of more than `WAIT_BYTES` in
proportion, so that writing takes a fixed part of time."""

WAIT_BYTES = 4 << 20
MOST_PART = 8
"""A CSV takes rows at the latest when they are this part of it, whatever the clocks of machines say."""

HEAD_BYTES = 4 << 10
"""By so much of its beginning a CSV is known again: it stays when lines further down are mended by hand."""

_OF = ""  # the key of what rows wait for: no column has it
_TELLS = b'{"": '


def pending_path(path: Path) -> Path:
    """Return the file of the rows that wait for a CSV."""
    return path.with_name(f".{path.name}.pending")


def can_wait(path: Path) -> bool:
    """Return whether rows may wait now: the CSV is large, and was written a moment ago."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    try:
        waiting = pending_path(path).stat().st_size
    except FileNotFoundError:
        waiting = 0
    age = time.time() - found.st_mtime
    recent = age < WAIT_SECONDS * max(1.0, found.st_size / WAIT_BYTES)
    return found.st_size > SMALL_BYTES and recent and waiting < found.st_size // MOST_PART


def let_wait(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Add rows to those that wait; they are on the disk afterwards, or none of them is there.

    Raises:
        OSError: If they cannot be written.
    """
    waiting = pending_path(path)
    cut_half_line(waiting)
    begins = not waiting.exists() or not waiting.stat().st_size
    _add(waiting, [*([{_OF: _sign(path)}] if begins else []), *rows])


def foresee_settled(path: Path, temporary: Path) -> None:
    """Let rows that wait be known as those of the file that is about to take the CSV's place, and holds them."""
    if (waiting := pending_path(path)).exists():
        cut_half_line(waiting)
        _add(waiting, [{_OF: _sign(temporary)}])


def _add(waiting: Path, lines: Sequence[Mapping[str, str]]) -> None:
    file = Lines(waiting)
    try:
        file.write("".join(f"{json.dumps(dict(line))}\n" for line in lines).encode("ascii"))
    finally:
        file.close()
    reach_disk(waiting)


def _sign(path: Path) -> str:
    """Return by what a CSV is known again; "" for none."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except FileNotFoundError:
        return ""


def put_aside(path: Path) -> None:
    """Rename the rows that wait where the CSV is gone whose they are, or another one is in its place.

    Who calls holds its lock.
    """
    waiting = pending_path(path)
    if not waiting.exists() or _is_theirs(path, waiting):
        return
    left = path.with_name(f"{path.name}.left_{time.time_ns()}.jsonl")
    waiting.rename(left)
    print(
        f"note: {path}: the file for which rows waited has been moved or replaced; they are in {left}",
        file=sys.stderr,
    )


def _is_theirs(path: Path, waiting: Path) -> bool:
    """Return whether a CSV is the one for which rows wait."""
    found, told = _sign(path), False
    with suppress(FileNotFoundError), waiting.open("rb") as file:
        for line in file:  # the first one tells; others only where a kill came between the CSV and them
            if line.endswith(b"\n") and line.startswith(_TELLS):
                told = True
                if json.loads(line)[_OF] == found:
                    return True
    return bool(found) and not told


def read_pending(path: Path, checkpoint_path: str | None = None) -> list[dict[str, str]]:
    """Return the cells of the rows that wait, in their order; none where the CSV is not there any more whose they are.

    Args:
        path: The CSV.
        checkpoint_path: If given, only rows of this checkpoint are returned, and hardly any others parsed.

    Raises:
        ResultsError: If another kind of file is in the way.
    """
    waiting, found = pending_path(Path(os.path.realpath(path))), []
    if not waiting.exists() or not _is_theirs(path, waiting):
        return []
    with suppress(FileNotFoundError):
        content, name = waiting.read_bytes(), json.dumps(checkpoint_path or "").encode("ascii")
        if checkpoint_path is not None and name not in content:
            return []
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):  # a kill in the middle of it
                break
            if checkpoint_path is not None and name not in line:
                continue
            try:
                row = json.loads(line)
                if _OF not in row:
                    found.append({str(name): str(cell) for name, cell in row.items()})
            except (ValueError, AttributeError, TypeError):
                raise ResultsError(
                    f"{waiting}: expected rows that wait for {path.name}, one a line, found {line[:60]!r}; move it away"
                ) from None
    return found if checkpoint_path is None else [row for row in found if row["checkpoint_path"] == checkpoint_path]


def drop_pending(path: Path) -> None:
    """Remove the rows that wait, which are in the CSV now."""
    pending_path(path).unlink(missing_ok=True)
