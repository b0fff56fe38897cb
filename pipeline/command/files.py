"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_IN_USE = frozenset({errno.EACCES, errno.EBUSY, errno.EPERM, errno.ETXTBSY})
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp$")
_WAITS = (0.05, 0.2, 0.5, 1.0)  # seconds
_BLOCK = 1 << 16  # bytes


@contextmanager
def replace_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes `path`'s place.

    The content reaches the disk before the name does (fsync), so that a power cut cannot leave an empty file under the
    final name. Missing folders are made. If the block raises, the temporary file is removed and `path` is untouched.

    Nothing is asked of the file system but that it can make files and rename them: modes are not changed, and one
    without fsync does without (docs/file-systems.md). Errors of writing name `path`.

    Raises:
        OSError: If it cannot be written; it names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less what the umask takes
        yield temporary
        reach_disk(temporary)
        _rename(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            _name_target(error, temporary, path)
        raise


def remove_leftovers(folder: Path, name: str) -> list[Path]:
    """Remove the temporary files that processes killed within `replace_atomically` have left, and return them.

    Args:
        folder: Where; nobody else may be writing these files there.
        name: Of the files that were to be written; `*` and `?` stand for others.
    """
    found = [path for path in folder.glob(f".{name}.*.tmp") if _TEMPORARY.search(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def reach_disk(path: Path) -> None:
    """Let what is written to a file reach the disk, where the file system has a way to say so (fsync)."""
    with path.open("rb") as written:
        try:
            os.fsync(written.fileno())
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise


def _rename(temporary: Path, path: Path) -> None:
    """Give a file the place of another; on shared drives, one that somebody reads cannot be replaced meanwhile."""
    for wait in _WAITS:
        try:
            temporary.replace(path)
            return
        except OSError as error:
            if error.errno not in _IN_USE or path.is_dir() or not path.exists():
                raise
        time.sleep(wait)
    temporary.replace(path)


def _name_target(error: OSError, temporary: Path, path: Path) -> None:
    """Let an error name the file that was to be written; that a disk is full, the system says without a name."""
    nameless = error.filename is None and error.errno is not None and not isinstance(error, ConnectionError)
    if nameless or str(error.filename) == str(temporary):
        error.filename, error.filename2 = str(path), None


def try_writing(folder: Path) -> None:
    """Write a file in a folder that is there as `replace_atomically` does, twice, and delete it.

    Raises:
        OSError: If a file cannot be written there.
    """
    path = folder / f".probe.{uuid.uuid4().hex[:12]}"
    try:
        for content in (b"first", b"second"):
            with replace_atomically(path) as temporary:
                temporary.write_bytes(content)
    finally:
        path.unlink(missing_ok=True)


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


def cut_half_line(path: Path) -> None:
    """Take back what a kill has left of a line at the end of a file; one that is not there has none."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        found = -1
        while end and found < 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            end = begin + found + 1
        if end < size:
            file.truncate(end)


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
        self.write(f"{line}\n".encode())

    def write(self, content: bytes) -> None:
        """Write whole lines, or whatever else is whole.

        Raises:
            OSError: As of a line.
        """
        rest, size = memoryview(content), len(content)
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
