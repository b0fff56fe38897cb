"""Where a command writes: checked before the work begins, held by one process at a time, errors in one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from pipeline.command.errors import FolderError

LOCK_NAME = ".lock"


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to or made; nothing is made.

    Args:
        name: Of the setting, for the message.
        folder: There or not.

    Raises:
        FolderError: If it, or the folder in which it would be made, is a file or may not be written to.
    """
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise FolderError(f"{name}: expected a folder, found the file {place}; name another one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FolderError(f"{name}: expected a folder that may be written to, found {place}; name another one")


def check_file(name: str, path: Path) -> None:
    """Refuse a file that cannot be written; nothing is made.

    Args:
        name: Of the setting, for the message.
        path: There or not.

    Raises:
        FolderError: If it is a folder, or the one it would be in cannot be written to.
    """
    if path.is_dir():
        raise FolderError(f"{name}: expected a file, found the folder {path}; name a file in it")
    check_folder(name, path.parent)


def make_writable(folder: Path) -> None:
    """Make a folder if it is missing, and try to write there.

    Raises:
        FolderError: If that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe."):
            pass
    except OSError as error:
        raise FolderError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


@contextmanager
def hold_lock(path: Path, timeout: float) -> Iterator[None]:
    """Be the only process within such a block; the file is gone afterwards, and one that a kill leaves locks nothing.

    Raises:
        Timeout: If another process holds the lock for `timeout` seconds.
    """
    with FileLock(path, timeout=timeout):
        try:
            yield
        finally:
            with suppress(OSError):  # another process that has it open finds it deleted and makes a new one
                path.unlink()
