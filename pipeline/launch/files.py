"""Files of an item on their way between machines that share none: its inputs there, what it writes back.

Paths are relative to the folder in which the command was started; on the other machine the item's own folder takes the
place of that one, so that settings, checkpoints and results name files as they do here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from pipeline.command.errors import ConfigError
from pipeline.command.files import replace_atomically
from pipeline.command.workers import WorkItem

_PASSING = re.compile(r"\.lock$|\.soft$|^\..*\.[0-9a-f]{12}\.tmp$")
"""Names of locks and of files that are being written."""

_LOG = re.compile(r"\.jsonl$|\.tfevents\.")
"""Names of files that grow line by line; what else an item writes may count on the lines before it."""


@dataclass(frozen=True)
class Change:
    """What has become of a file.

    Attributes:
        kind: write: it is new or another one. append: it has grown. delete: it is gone.
        path: Relative.
        content: All of it, or what was appended.
        offset: Its size before that.
    """

    kind: Literal["write", "append", "delete"]
    path: str
    content: bytes = b""
    offset: int = 0


def check_relative(item: WorkItem) -> None:
    """Refuse an item whose files cannot be named alike on another machine.

    Raises:
        ConfigError: If a path is absolute or leads out of the current folder.
    """
    for path in (*item.inputs, *item.outputs):
        if not is_below(path):
            raise ConfigError(
                f"{path}: expected a path below the current folder, written relative to it, for files travel to other "
                "machines and back under that name; start the command in a folder above and name it from there"
            )


def is_below(path: str | PurePath) -> bool:
    """Return whether a path is relative and stays below the current folder."""
    pure = PurePath(path)
    return not pure.is_absolute() and ".." not in pure.parts


def list_files(places: Iterable[str | Path]) -> Iterator[str]:
    """Yield the files that are places or lie below them, each once, without locks and files that are being written."""
    seen: set[str] = set()
    for place in places:
        for path in _walk(str(place)):
            if path not in seen:
                seen.add(path)
                yield path


def _walk(place: str) -> Iterator[str]:
    if os.path.isfile(place):
        yield place
        return
    for folder, folders, names in os.walk(place):
        folders.sort()
        for name in sorted(names):
            if not _PASSING.search(name):
                yield os.path.join(folder, name)


def gather(item: WorkItem) -> list[tuple[str, bytes]]:
    """Return path and content of the files that are an item's inputs now; of folders those that it chooses."""
    named = dict.fromkeys(path for path in map(str, item.inputs) if os.path.isfile(path))
    within = [path for path in list_files(item.inputs) if path not in named]
    found = []
    for path in (*named, *(within if item.choose is None else item.choose(within))):
        with suppress(FileNotFoundError):  # gone since
            found.append((path, Path(path).read_bytes()))
    return found


def lay_out(files: Iterable[tuple[str, bytes]]) -> None:
    """Write what `gather` has returned below the current folder."""
    for path, content in files:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)


class Outbox:
    """Knows which files below an item's outputs have changed since it was last asked.

    Args:
        places: The outputs; what is there now is known where it goes.
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        self._places = [str(place) for place in places]
        self._known = {path: (_stamp(path), *_describe(Path(path).read_bytes())) for path in list_files(self._places)}

    def collect(self) -> list[Change]:
        """Return the changes, in an order in which nothing counts on what comes after it.

        Files are written while they are read: results after the trees and log lines that they tell of. So what has
        come new since the first look is read next, and logs last, each from a list made anew; and what was read last
        comes first.
        """
        changes: list[Change] = []
        present: set[str] = set()
        for wanted in (_is_whole, lambda path: _is_whole(path) and path not in present, _is_log):
            for path in filter(wanted, list_files(self._places)):
                with suppress(FileNotFoundError):  # gone since
                    stamp = _stamp(path)
                    if path not in self._known or self._known[path][0] != stamp:
                        content = Path(path).read_bytes()
                        changes.append(self._compare(path, content))
                        self._known[path] = stamp, *_describe(content)
                    present.add(path)
        gone = [path for path in self._known if path not in present]
        for path in gone:
            del self._known[path]
        return [*reversed(changes), *(Change("delete", path) for path in gone)]

    def _compare(self, path: str, content: bytes) -> Change:
        _, size, digest = self._known.get(path, (None, 0, b""))
        if 0 < size <= len(content) and _describe(content[:size])[1] == digest:
            return Change("append", path, content[size:], size)
        return Change("write", path, content)


def _is_log(path: str) -> bool:
    return bool(_LOG.search(path))


def _is_whole(path: str) -> bool:
    return not _is_log(path)


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _describe(content: bytes) -> tuple[int, bytes]:
    return len(content), hashlib.blake2b(content, digest_size=16).digest()


def apply_changes(changes: Iterable[Change], places: Sequence[str | Path]) -> None:
    """Make files here what they have become elsewhere; whole files are written atomically.

    Args:
        changes: Of one `Outbox`, in its order.
        places: The outputs of its item; files elsewhere are refused.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If a file lies elsewhere, or one that has grown is not what it grew from.
    """
    allowed = [PurePath(place) for place in places]
    for change in changes:
        if not is_below(change.path) or not any(PurePath(change.path).is_relative_to(place) for place in allowed):
            raise ValueError(f"{change.path}: expected a file below {', '.join(map(str, allowed))}")
        path = Path(change.path)
        if change.kind == "write":
            with replace_atomically(path) as temporary:
                temporary.write_bytes(change.content)
        elif change.kind == "append":
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size < change.offset:
                    raise ValueError(f"{path}: expected {change.offset} bytes or more before it grows, found {size}")
                file.seek(change.offset)
                file.write(change.content)
                file.truncate()
        else:
            path.unlink(missing_ok=True)
