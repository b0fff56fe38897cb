"""Where a command writes: checked before the work begins, held by one process at a time, errors in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.config import ConfigError

LOCK_NAME = ".lock"


class FolderError(ConfigError):
    """A folder that cannot be written to, or that another process is writing to."""


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


def explain_os_error(error: OSError) -> str:
    """Return path and reason in one line."""
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return reason if error.filename is None else f"{error.filename}: {reason}"


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same away from a folder; made here and still empty, it goes in the end.

    Raises:
        FolderError: If another process holds it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise FolderError(
                f"{folder}: another process is training there; wait for its end, or choose another --checkpoint_dir "
                "and --log_dir"
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()
            lock.release()
    finally:
        with suppress(OSError):
            for place in made:
                place.rmdir()
