"""Where a command writes: checked before the work begins, held by one process at a time, errors in one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from pipeline.command.errors import FolderError
from pipeline.command.files import try_writing

LOCK_NAME = ".lock"

_NO_FLOCK = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_NO_FLOCK_TOLD = "RLMOP_NO_FLOCK_TOLD"
"""Set in the environment once the note has been given, so that the processes a command starts do not repeat it."""


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to or made; nothing is made.

    Where it is, or would be made, a file is written for a moment: what the system says of permissions is not what
    network drives do.

    Args:
        name: Of the setting, for the message.
        folder: There or not.

    Raises:
        FolderError: If it, or the folder in which it would be made, is a file or may not be written to.
    """
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise FolderError(f"{name}: expected a folder, found the file {place}; name another one")
    try:
        try_writing(place)
    except OSError as error:
        raise FolderError(
            f"{name}: expected a folder that may be written to, found {place} ({error.strerror}); name another one"
        ) from None


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
        try_writing(folder)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


# --------------------------------------------------------------------------------------------------------------- locks


class HeldError(Exception):
    """Another process holds a lock; the message says which, as far as it is known, else it is empty."""


@contextmanager
def hold_lock(path: Path, timeout: float) -> Iterator[None]:
    """Be the only process within such a block; the file is gone afterwards, and one that a kill leaves locks nothing.

    On a file system that has no locks (flock) a file that is there while the lock is held takes their place, and a line
    says so. One that a kill left is told by its process, but only on the machine on which that was: see
    `describe_holder`.

    Raises:
        HeldError: If another process holds the lock for `timeout` seconds.
        OSError: If the lock's file cannot be made.
    """
    lock = _acquire(path, timeout)
    try:
        yield
    finally:
        if isinstance(lock, FileLock):
            with suppress(OSError):  # another process that has it open finds it deleted and makes a new one
                path.unlink()
        lock.release()


def is_lock_held(path: Path) -> bool:
    """Return whether a process holds a lock; nothing is left behind."""
    if not path.exists() and not _soft_path(path).exists():
        return False
    try:
        with hold_lock(path, timeout=0):
            return False
    except HeldError:
        return True


def describe_holder(path: Path) -> str:
    """Return who holds a lock and what to do if that process is gone; "" where the system sees to that."""
    soft = _soft_path(path)
    try:
        process, machine, *_ = soft.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return f"if no process is at work, delete {soft}" if soft.exists() else ""
    return f"it is process {process} on {machine}; if that has ended, delete {soft}"


def _acquire(path: Path, timeout: float) -> FileLock | SoftFileLock:
    native = FileLock(path, timeout=timeout, fallback_to_soft=False)
    soft = SoftFileLock(_soft_path(path), timeout=timeout)
    made = not path.exists()
    try:
        try:
            native.acquire()
        except Timeout:
            raise
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                error.filename = error.filename or str(path)
                raise
            _tell_once(
                f"{path.parent}: this file system has no locks ({error.strerror}); files that end in .soft take their "
                "place. One that a killed process leaves may have to be deleted: docs/file-systems.md"
            )
        else:
            if not _soft_path(path).exists():
                return native
            native.release()  # a machine that has no locks here is at work, or was: it does not see ours
        if made:
            with suppress(OSError):
                path.unlink()
        soft.acquire()
        return soft
    except Timeout:
        raise HeldError(describe_holder(path)) from None


def _soft_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.soft")


def _tell_once(text: str) -> None:
    if _NO_FLOCK_TOLD not in os.environ:
        os.environ[_NO_FLOCK_TOLD] = "1"
        print(f"note: {text}", file=sys.stderr)
