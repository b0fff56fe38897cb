"""Files are replaced as a whole or not at all."""

import errno
import os
import resource
from pathlib import Path

import pytest

from pipeline.command import files
from pipeline.command.errors import explain
from pipeline.command.files import replace_atomically, try_writing, write_json, write_text


def test_replacing_a_file_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        with replace_atomically(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent  # another file system would not rename atomically
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), replace_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_s_name(tmp_path):
    """The system names no file where a write fails."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as caught:
            write_text(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert explain(caught.value) == f"{path}: File too large"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_with_another_file_s_name_keeps_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_source"), replace_atomically(tmp_path / "a"):
        (tmp_path / "no_such_source").read_bytes()


def test_old_file_is_whole_until_the_new_one_is(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_replaced_file_has_the_mode_that_open_gives(tmp_path):
    """Temporary files are private; a checkpoint for a colleague should not be."""
    (tmp_path / "plain").touch()
    with replace_atomically(tmp_path / "replaced") as temporary:
        temporary.touch()
    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_texts_and_json_replace_what_was_there(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_text(path, "caf\u00e9\n")
    assert path.read_bytes() == "caf\u00e9\n".encode()
    write_json(path, {"b": [1, None]}, indent=1)
    assert path.read_text() == '{\n "b": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert path.read_text().startswith("{\n")
    assert list(path.parent.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- file systems


def refuse(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("name", "number"),
    [("chmod", errno.EPERM), ("fchmod", errno.EPERM), ("utime", errno.EPERM), ("link", errno.EPERM)]
    + [("fsync", number) for number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)],
)
def test_what_a_file_system_need_not_have_is_not_needed(tmp_path, monkeypatch, name, number):
    """CIFS and FUSE refuse chmod, some object stores fsync."""
    monkeypatch.setattr(os, name, refuse(number))
    monkeypatch.setattr(Path, "chmod", refuse(errno.EPERM))
    path = tmp_path / "file.txt"
    for text in ("first", "second"):
        write_text(path, text)
        assert path.read_text() == text
    try_writing(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failing_disk_is_told_with_the_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", refuse(number))
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match=r"file\.txt") as caught:
        write_text(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="probe"):
        try_writing(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_a_file_that_somebody_reads_is_replaced_when_it_is_free(tmp_path, monkeypatch, number):
    """CIFS refuses to replace an open file; one that stays open is told by its name and stays as it is."""
    path, waited, replace = tmp_path / "file.txt", [], Path.replace
    path.write_text("old")
    monkeypatch.setattr(files.time, "sleep", waited.append)

    def replace_when_free(temporary, target):
        if len(waited) < 2:
            raise OSError(number, os.strerror(number), str(temporary), None, str(target))
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", replace_when_free)
    write_text(path, "new")
    assert (path.read_text(), len(waited)) == ("new", 2)

    monkeypatch.setattr(Path, "replace", refuse(number))
    with pytest.raises(OSError, match=r"file\.txt"):
        write_text(path, "newer")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_without_rename_an_error_says_so_at_once(tmp_path, monkeypatch):
    """Mounts of object stores may have none: nothing can be replaced as a whole there."""
    monkeypatch.setattr(Path, "replace", refuse(errno.ENOSYS))
    with pytest.raises(OSError, match="Function not implemented"):
        try_writing(tmp_path)
    assert list(tmp_path.iterdir()) == []
