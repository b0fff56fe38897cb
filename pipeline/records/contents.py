"""What a CSV of results holds, as texts, with the rows that wait beside it: all of it, or what is of one checkpoint.

read_contents(path)                            # all rows
find_contents(path, "checkpoints/....pt")      # quick where many are looked up one after the other
place_rows(texts, rows)                        # each in the place of those of its checkpoint and level
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pipeline.records.cells import COLUMNS
from pipeline.records.pending import pending_path, read_pending
from pipeline.records.texts import ResultsError, Texts, read_texts


def read_contents(path: Path) -> Texts:
    """Return all rows, those that wait for the file in their places.

    Raises:
        ResultsError: If it cannot be used.
    """
    waiting = read_pending(path)  # before the CSV, which may take them meanwhile
    return place_rows(read_file(path), waiting)


def read_file(path: Path) -> Texts:
    """Return a file's own rows.

    Raises:
        ResultsError: If it cannot be used; of rows that wait for it the message says where they are.
    """
    try:
        return read_texts(path)
    except ResultsError as error:
        waiting = pending_path(Path(os.path.realpath(path)))
        if not waiting.exists():
            raise
        raise ResultsError(
            f"{error}; rows of it wait in {waiting}: whoever moves it moves them along, to .NAME.pending beside its "
            "new name"
        ) from None


def find_contents(path: Path, checkpoint_path: str) -> Texts:
    """Return the rows of one checkpoint; the file is not read again while nobody writes it.

    Raises:
        ResultsError: If it cannot be used.
    """
    waiting = read_pending(path, checkpoint_path)
    texts, places = _index(path)
    return place_rows(texts.take(places.get(checkpoint_path, [])), waiting)


def find_columns(path: Path) -> list[str]:
    """Return the columns that a file has once it was written here; it is not read again while nobody writes it.

    Raises:
        ResultsError: If it cannot be used.
    """
    return columns_of(_index(path)[0])


def columns_of(texts: Texts) -> list[str]:
    """Return the columns that a file of these texts has once it was written here."""
    return [*COLUMNS, *(name for name in texts.names if name not in COLUMNS)]


def place_rows(texts: Texts, rows: Sequence[Mapping[str, str]]) -> Texts:
    """Return texts with each row in place of those of its checkpoint and level, or at the end.

    Args:
        texts: They stay as they are.
        rows: Cells by column, at least `checkpoint_path`.
    """
    if not rows:
        return texts
    texts = texts.with_columns(columns_of(texts))
    lines: list[list[str] | None] = list(texts.lines)
    numbers = list(texts.numbers)
    places = defaultdict(list)
    identities = map(texts.cells, ("checkpoint_path", "task_id", "eval_task_id"))
    for place, (checkpoint, own, played) in enumerate(zip(*identities, strict=True)):
        places[checkpoint, other_level(own, played)].append(place)
    for row in rows:
        mine = places[row["checkpoint_path"], other_level(row.get("task_id", ""), row.get("eval_task_id", ""))]
        line = [row.get(name, "") for name in texts.names]
        if not mine:
            mine.append(len(lines))
            lines.append(line)
            numbers.append(numbers[-1] + 1 if numbers else 0)
        lines[mine[0]] = line
        for place in mine[1:]:
            lines[place] = None
        del mine[1:]
    kept = [place for place, line in enumerate(lines) if line is not None]
    return Texts(texts.names, [lines[place] for place in kept], [numbers[place] for place in kept])


def other_level(own: str, played: str) -> str:
    """Return the level that a row's policy was played on, "" where it is the run's own, as in every older row."""
    return "" if played == own else played


def _index(path: Path) -> tuple[Texts, dict[str, list[int]]]:
    """Return a file's texts, and the places of the rows of each checkpoint."""
    path = Path(os.path.realpath(path))  # as who adds rows names it, so that it is read once for both
    found = path.stat()
    return _read_index(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=1)
def _read_index(path: Path, _signature: tuple[int, int, int]) -> tuple[Texts, dict[str, list[int]]]:
    texts, places = read_file(path), defaultdict(list)
    for place, checkpoint in enumerate(texts.cells("checkpoint_path")):
        places[checkpoint].append(place)
    return texts, dict(places)
