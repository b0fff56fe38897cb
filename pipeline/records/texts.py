"""A CSV of results as texts, nothing read into its cells: what spreadsheets, older code and crashes make of it.

    texts = read_texts(path)
    texts.names, texts.lines[0], texts.numbers[0]     # columns, cells of the first row, its line in the file
    write_texts(texts, path)

Taken as it is meant: a byte order mark, any line ends, blank lines and rows of empty cells, the first line once more
(files joined by `cat`), spaces behind the commas, columns in any order. A column without a name goes if it is empty and
gets one if not; a column that stands twice counts once if its cells agree. What cannot be understood, a line that was
cut off among it, is refused with its line: nothing of a file is lost in silence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pipeline.command.errors import UserError

NEEDED = ("checkpoint_path", "task_id", "num_episodes")
"""Columns by which a CSV is known to be one of results."""

_ADVICE = "move it away, or choose another --results_path"
_MEND = f"correct it, or {_ADVICE}"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_Line = tuple[int, list[str]]


class ResultsError(UserError, ValueError):
    """A results file that cannot be used; the message names it, what was expected and what to do."""


@dataclass(frozen=True)
class Texts:
    """Rows of cells as they stand. Plain lists: a table of pandas takes ten times as long where rows are few.

    Attributes:
        names: Of the columns, each once.
        lines: A row's cells each, in the order of the columns.
        numbers: Of each row's line in the file, from 1.
    """

    names: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def cells(self, name: str) -> list[str]:
        """Return the cells of a column, "" each where there is none of that name."""
        if name not in self.names:
            return [""] * len(self.lines)
        place = self.names.index(name)
        return [line[place] for line in self.lines]

    def take(self, places: Sequence[int]) -> Texts:
        """Return some of the rows."""
        return Texts(self.names, [self.lines[place] for place in places], [self.numbers[place] for place in places])

    def with_columns(self, names: Sequence[str]) -> Texts:
        """Return the rows with these columns, empty where they had none of that name."""
        if list(names) == self.names:
            return self
        columns = [self.cells(name) for name in names]
        return Texts(list(names), list(map(list, zip(*columns, strict=True))), self.numbers)


def read_texts(path: Path) -> Texts:
    """Return the cells as they stand; no rows and columns for no file or an empty one.

    Raises:
        ResultsError: If it is another kind of file, or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Texts()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ResultsError(f"{path}: expected UTF-8, found UTF-16; save it as CSV in UTF-8, or {_ADVICE}")
    text = content.decode("utf-8-sig", "surrogateescape")
    lines = _split(path, text)
    if not lines:
        if text.strip("\r\n"):
            raise ResultsError(f"{path}: expected a CSV of evaluation results; {_ADVICE}")
        return Texts()
    names = lines[0][1]
    if not set(NEEDED) <= set(names):
        stripped = [name.strip() for name in names]
        if not set(NEEDED) <= set(stripped):
            _refuse_columns(path, names)
        lines = [(lines[0][0], stripped), *_split(path, text, skip_spaces=True)[1:]]
    names = lines[0][1]
    lines = [line for line in lines if line[1] != names]  # files that were joined have it more than once
    rows = [_fit(path, line, len(names), is_last=line is lines[-1]) for line in lines]
    return _unite(path, names, rows, [number for number, _ in lines])


def write_texts(texts: Texts, path: Path) -> None:
    """Write cells as they stand, with quotes where needed: round all of them if one holds a carriage return.

    The csv module of Python 3.11 leaves a lone carriage return without quotes.
    """
    rows = [texts.names, *texts.lines]
    quoting = csv.QUOTE_ALL if any("\r" in "".join(row) for row in rows) else csv.QUOTE_MINIMAL
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=quoting).writerows(rows)


def _split(path: Path, text: str, *, skip_spaces: bool = False) -> list[_Line]:
    """Return the lines that hold something, each with its number in the file; one may go over several."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=skip_spaces)
    lines, begin = [], 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                lines.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        reason = str(error)
        if reason == "unexpected end of data":
            reason = "its quotes are not closed before the file ends, which was cut off, or a quote is missing"
        raise ResultsError(
            f"{path}: line {begin}: expected a CSV of evaluation results ({reason}); correct or remove that line and "
            f"evaluate its checkpoint again, or {_ADVICE}"
        ) from None
    return lines


def _refuse_columns(path: Path, names: Sequence[str]) -> NoReturn:
    for separator, word in _SEPARATORS.items():
        if set(NEEDED) <= {name.strip() for name in ",".join(names).split(separator)}:
            raise ResultsError(
                f"{path}: expected commas between the cells, found {word}; save it as CSV with commas, and with points "
                f"in numbers, or {_ADVICE}"
            )
    found = ", ".join(names)[:120]
    raise ResultsError(f"{path}: expected the columns {', '.join(NEEDED)}, ..., found {found!r}; {_ADVICE}")


def _fit(path: Path, line: _Line, width: int, *, is_last: bool) -> list[str]:
    """Return the cells of a line, as many as there are columns."""
    number, cells = line
    if len(cells) > width and not any(map(str.strip, cells[width:])):
        return cells[:width]
    if len(cells) == width:
        return cells
    if len(cells) > width:
        advice = f"a cell with commas, such as a list, needs quotes round it; {_MEND}"
    elif is_last:
        advice = f"the file was cut off: remove that line and evaluate its checkpoint again, or {_ADVICE}"
    else:
        advice = _MEND
    expected = f"expected {width} cells as in the first line, found {len(cells)}"
    raise ResultsError(f"{path}: line {number}: {expected}; {advice}")


def _unite(path: Path, names: list[str], rows: list[list[str]], numbers: list[int]) -> Texts:
    """Return the columns by their names, each once."""
    if len(set(names)) == len(names) and all(map(str.strip, names)):
        return Texts(names, rows, numbers)
    columns: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        cells = [row[place] for row in rows]
        if not name.strip():
            if not any(map(str.strip, cells)):
                continue
            name = f"unnamed_{place + 1}"
        kept = columns.setdefault(name, cells)
        for number, first, second in zip(numbers, kept, cells, strict=True):
            if first != second:
                raise ResultsError(
                    f"{path}: line {number}: {name}: expected one such column, found two that differ, "
                    f"{first[:60]!r} and {second[:60]!r}; remove or rename one of them"
                )
    return Texts(list(columns), list(map(list, zip(*columns.values(), strict=True))), numbers)
