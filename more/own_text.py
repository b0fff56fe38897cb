"""One's own text as documents: one file, shared out among training, validation and test.

parts = own_parts(Path("novel.txt"))            # {"train": [...], "valid": [...], "test": [...]}
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from pathlib import Path

from more.babi import decode_text
from more.tokens import END_OF_TEXT
from pipeline.command.errors import DataError

LEAST = 200
"""Characters at least: less leaves no validation to speak of."""


def read_own_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        DataError: If it cannot be read, is no UTF-8, or is too short to be shared out.
    """
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"text_file: {path} cannot be read ({error.strerror}); expected a text file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"text_file: {path}: expected UTF-8, found other bytes at {error.start}; convert it") from None
    if len(text.strip()) < LEAST:
        raise DataError(f"text_file: {path}: expected at least {LEAST} characters, found {len(text.strip())}")
    return text


def own_parts(path: Path) -> dict[str, list[str]]:
    """Return the documents of each split: the text's first 90, next 5 and last 5 % of the characters.

    A text that has `<|endoftext|>` in it is cut there into documents, and splits hold whole ones where there are at
    least twenty. Any other is one document in each split, cut between lines, or between words where lines are few.

    Raises:
        DataError: As `read_own_text` does.
    """
    text = read_own_text(path)
    documents = [part.strip("\n") + "\n" for part in text.split(END_OF_TEXT) if part.strip()]
    units = documents if len(documents) >= 20 else "".join(documents).splitlines(keepends=True)
    if len(units) < 20:  # few, long lines: cut between words
        units = [word + " " for word in "".join(units).split(" ")]
    if len(units) < 20:
        units = list("".join(units))
    ends = list(accumulate(map(len, units)))
    first = min(max(1, bisect(ends, 0.9 * ends[-1])), len(units) - 2)  # no split is empty
    second = min(max(first + 1, bisect(ends, 0.95 * ends[-1])), len(units) - 1)
    parts = {"train": units[:first], "valid": units[first:second], "test": units[second:]}
    return parts if units is documents else {split: ["".join(part).strip("\n") + "\n"] for split, part in parts.items()}
