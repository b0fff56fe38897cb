"""Compiled functions on disk: found again, and compiled anew when any file of the package has changed."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config
from numba.core.codegen import JITCPUCodegen

from babyai.compiled import disk, jit

MODULE = """
from babyai.compiled.jit import compiled

@compiled
def double(x):
    return 2 * x

@compiled
def count(x):
    return double(x) + double(3) + double(4)
"""


@pytest.fixture
def load(tmp_path):
    """Load the module above as a new process would, and call one of its functions."""
    path = tmp_path / "counting.py"
    path.write_text(MODULE)

    def load_module():
        spec = importlib.util.spec_from_file_location("counting", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.double(4) == 8
        return module

    return load_module


def test_numbers_are_compiled_once(load):
    module = load()
    assert module.count(5) == 24
    assert len(module.double.part.signatures) == 1


def test_what_is_on_disk_is_used_until_a_source_changes(load, monkeypatch):
    module = load()
    module.count(1)
    assert (module.count.stats.cache_hits, module.count.stats.cache_misses) == ({}, {module.count.signatures[0]: 1})
    again = load()
    again.count(1)
    assert again.count.stats.cache_misses == {}
    monkeypatch.setattr(jit, "SOURCE_STAMP", "another")
    changed = load()
    changed.count(1)
    assert changed.count.stats.cache_hits == {}


def test_the_stamp_depends_on_every_file(tmp_path):
    folder = tmp_path / "compiled"
    shutil.copytree(Path(jit.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    others = [Path(shutil.copy(path, tmp_path)) for path in jit.SOURCES if path.parent != Path(jit.__file__).parent]
    assert {path.name for path in others} == {"facts.py", "steps.py"}

    def digest():
        return jit.digest_sources([*folder.glob("*.py"), *others])

    stamps = [digest()]
    assert stamps == [jit.SOURCE_STAMP]
    for path in (folder / "layout.py", *others):
        with path.open("a") as file:
            file.write("\n")
        assert digest() not in stamps
        stamps.append(digest())


# ---------------------------------------------------------------------------------------------------------------- disk


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Give a home, folders for temporary files and no words said yet; return the folder of temporary files."""
    monkeypatch.setattr(disk, "_notes", [])
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # a file: no folder can be made below
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(disk.tempfile, "tempdir", str(folder))
    return folder


def is_hit(module):
    module.count(1)
    return bool(module.count.stats.cache_hits) and not module.count.stats.cache_misses


def kept_files(folder):
    return sorted(folder.rglob("*.nbc"))


def empty(path):
    path.write_bytes(b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-7])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_noise(path):
    path.write_bytes(bytes(range(256)) * 16)


def rename_another(path):
    """Put the whole file of another function in its place, as numba's numbered files could be mixed up."""
    others = [other for other in kept_files(path.parent) if other != path]
    shutil.copy(others[0], path)


@pytest.mark.parametrize("damage", [empty, cut_off, alter, replace_by_noise, rename_another])
def test_a_damaged_file_is_a_missing_one(load, tmp_path, damage, capfd, elsewhere):
    load().count(1)
    for path in [path for path in kept_files(tmp_path) if ".count." in path.name]:
        damage(path)
    assert not is_hit(load())
    assert is_hit(load())
    assert capfd.readouterr().err == ""


def test_a_file_that_may_not_be_read_is_a_missing_one(load, tmp_path, monkeypatch, elsewhere):
    load().count(1)
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.suffix == ".nbc":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert not is_hit(load())
    monkeypatch.undo()
    assert is_hit(load())


def test_with_a_folder_in_the_place_of_a_file_another_folder_is_used(load, tmp_path, elsewhere):
    load().count(1)
    for path in kept_files(tmp_path):
        path.unlink()
        path.mkdir()
    assert not is_hit(load())
    assert is_hit(load())
    assert not list(tmp_path.rglob("*.tmp"))


def test_code_for_another_processor_is_not_used_and_stays(load, tmp_path, monkeypatch, elsewhere):
    load().count(1)
    with monkeypatch.context() as patch:
        patch.setattr(JITCPUCodegen, "magic_tuple", lambda self: ("x86_64-unknown-linux-gnu", "znver9", "+avx1024"))
        there = load()
        assert not there.count._cache.holds(there.count.targetctx)
        assert not is_hit(there)
        assert is_hit(load())
        assert there.count._cache.holds(there.count.targetctx)
    assert is_hit(load())
    assert len(kept_files(tmp_path)) == 4


def test_what_older_sources_left_is_deleted(load, tmp_path, monkeypatch, elsewhere):
    load().count(1)
    before = kept_files(tmp_path)
    monkeypatch.setattr(jit, "SOURCE_STAMP", "another")
    load().count(1)
    assert len(kept_files(tmp_path)) == len(before)
    assert not {*kept_files(tmp_path)} & {*before}


def test_a_read_only_copy_uses_what_was_compiled_there(load, tmp_path, monkeypatch, capfd, elsewhere):
    load().count(1)

    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(disk, "_write", refuse)
    assert is_hit(load())
    assert capfd.readouterr().err == ""


def test_without_home_a_private_temporary_folder_is_used_and_one_line_says_so(load, tmp_path, capfd, elsewhere):
    (tmp_path / "__pycache__").write_text("")  # no folder can be made, whoever asks
    load().count(1)
    assert is_hit(load())
    assert all(path.is_relative_to(elsewhere) for path in kept_files(tmp_path))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert str(elsewhere) in said
    assert "NUMBA_CACHE_DIR" in said
    (private,) = elsewhere.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("fault", ["open to others", "a link", "another's"])
def test_a_temporary_folder_that_others_can_write_is_not_used(load, tmp_path, monkeypatch, capfd, elsewhere, fault):
    (tmp_path / "__pycache__").write_text("")
    user = os.getuid() + (fault == "another's")
    monkeypatch.setattr(disk.os, "getuid", lambda: user)
    private = elsewhere / f"numba-cache-{user}"
    if fault == "a link":
        (tmp_path / "target").mkdir(mode=0o700)
        private.symlink_to(tmp_path / "target")
    else:
        private.mkdir(mode=0o700)
    if fault == "open to others":
        private.chmod(0o777)
    assert not is_hit(load())
    assert not is_hit(load())
    assert kept_files(tmp_path) == []
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "every start compiles" in said


def test_a_full_disk_does_not_end_the_run(load, tmp_path, monkeypatch, capfd, elsewhere):
    def refuse(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert load().count(5) == 24
    assert "No space left on device" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "counting.py"
    path.write_text(MODULE)
    command = [sys.executable, "-c", "import counting; print(counting.count(5))"]
    paths = os.pathsep.join([str(tmp_path), str(Path(jit.__file__).parents[2])])
    together = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in together] == ["24\n", "24\n"]
    assert len(kept_files(tmp_path)) == 1
    assert not list(tmp_path.rglob("*.tmp"))
