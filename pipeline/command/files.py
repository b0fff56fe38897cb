"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replace_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes `path`'s place.

    The content reaches the disk before the name does (fsync), so that a power cut cannot leave an empty file under the
    final name. Missing folders are made. If the block raises, the temporary file is removed and `path` is untouched.

    Raises:
        OSError: If it cannot be written; it names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files private; give the mode that open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno is not None and error.filename in (None, name):  # a full disk has no name, ours nobody knows
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, indent: int | None = None) -> None:
    """Write plain types as JSON, atomically.

    Raises:
        ValueError: If a number is not finite, which JSON does not know.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


class Lines:
    """A file to which whole lines are appended, or nothing: what a full disk has cut is taken back."""

    def __init__(self, path: Path) -> None:
        """Open a file that is there or not, of whole lines."""
        self._file = path.open("ab", buffering=0)
        self._end = self._file.tell()  # of the whole lines

    def append(self, line: str) -> None:
        """Write a line.

        Raises:
            OSError: If it cannot be written; if a part of it stays, the next line takes its place.
        """
        rest = memoryview(f"{line}\n".encode())
        size = len(rest)
        self._take_back()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._take_back()
            raise
        self._end += size

    def _take_back(self) -> None:
        if os.fstat(self._file.fileno()).st_size > self._end:
            self._file.truncate(self._end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
