"""A folder of its own for each item that is done here for a driver elsewhere; those that killed ones have left go."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.command.folders import hold_lock, is_lock_held

PREFIX = "rlmop-item-"
"""Of the folders' names, in the folder for temporary files (TMPDIR)."""

YOUNG = 600.0
"""Seconds for which a folder stays whoever holds its lock: who makes it locks it a moment later."""


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a folder for the block; it goes with it. A killed process leaves it, and the next one here clears it away.

    Raises:
        OSError: If it cannot be made or locked.
    """
    _clear_left()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with hold_lock(folder.with_name(f"{folder.name}.lock"), timeout=0):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear_left() -> None:
    """Delete this user's folders that have a lock which nobody holds; those that cannot be deleted stay."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        folder = lock.with_suffix("")
        try:
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < YOUNG:
                continue
            if not is_lock_held(lock):
                shutil.rmtree(folder, ignore_errors=True)  # which follows no link
        except OSError:
            continue
