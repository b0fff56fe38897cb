"""The folders in which items are done: gone at the end, and cleared away where a process was killed."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.launch.workplace import YOUNG, work_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(folder: Path) -> None:
    before = time.time() - 2 * YOUNG
    os.utime(folder, (before, before), follow_symlinks=False)


def die_within(tmp_path: Path) -> None:
    tempfile.tempdir = str(tmp_path)
    with work_folder() as folder:
        (folder / "checkpoint.pt").write_bytes(bytes(1000))
        os._exit(9)


def leave_one(tmp_path: Path) -> Path:
    """Return the folder of a process that was killed."""
    before = set(tmp_path.iterdir())
    process = multiprocessing.get_context("spawn").Process(target=die_within, args=(tmp_path,))
    process.start()
    process.join()
    (left,) = (path for path in set(tmp_path.iterdir()) - before if path.is_dir())
    return left


def test_a_folder_goes_with_its_block(temporary):
    with work_folder() as folder:
        (folder / "x").write_text("x")
        assert folder.parent == temporary
    with pytest.raises(RuntimeError), work_folder():
        raise RuntimeError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_has_left_is_cleared_away(temporary):
    left = leave_one(temporary)
    with work_folder():
        assert (left / "checkpoint.pt").exists()  # it may have been made a moment ago
    age(left)
    with work_folder():
        assert not left.exists()
    assert list(temporary.iterdir()) == []


def test_what_others_are_at_stays_and_so_does_what_is_not_ours(temporary):
    (temporary / "rlmop-item-of-an-earlier-version").mkdir()
    age(temporary / "rlmop-item-of-an-earlier-version")
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "kept").touch()
    (temporary / "rlmop-item-link").symlink_to(temporary / "elsewhere")
    age(temporary / "rlmop-item-link")
    (temporary / "rlmop-item-link.lock").touch()
    (temporary / "rlmop-item-without.lock").touch()
    with work_folder() as other:
        (other / "x").touch()
        age(other)
        with work_folder():
            assert (other / "x").exists()
    assert (temporary / "rlmop-item-of-an-earlier-version").exists()
    assert (temporary / "elsewhere" / "kept").exists() and (temporary / "rlmop-item-link").is_symlink()
