"""Folders that can be written to, and locks, on file systems that refuse what others allow."""

import errno
import fcntl
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command import folders
from pipeline.command.errors import FolderError
from pipeline.command.folders import (
    HeldError,
    check_file,
    check_folder,
    describe_holder,
    hold_lock,
    is_lock_held,
    make_writable,
)
from pipeline.guard import RunFolderError, hold_run, is_held
from pipeline.records.adding import append_result
from pipeline.records.results import ResultsError, read_results

ROOT = Path(__file__).parents[3]

NO_FLOCK = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]

HOLDER = """
import errno, fcntl, os, sys
from pathlib import Path

def refuse(handle, how):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = refuse
from pipeline.command.folders import hold_lock

with hold_lock(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
"""


@pytest.fixture(params=NO_FLOCK, ids=[errno.errorcode[number] for number in NO_FLOCK])
def no_flock(request, monkeypatch):
    """Let the system refuse locks, as NFS without its lock service does, and nothing have been said of it."""

    def refuse(handle, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.delenv(folders._NO_FLOCK_TOLD, raising=False)


@pytest.fixture
def refuse_writing(monkeypatch):
    """Let the system refuse to make files, whatever it says of permissions."""
    make = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return make(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)


def test_a_folder_is_tried_and_nothing_is_left(tmp_path):
    check_folder("checkpoint_dir", tmp_path / "not" / "there")
    check_file("output", tmp_path / "not" / "there.json")
    assert list(tmp_path.iterdir()) == []
    make_writable(tmp_path / "made")
    assert list(tmp_path.rglob("*")) == [tmp_path / "made"]


def test_a_folder_that_refuses_is_told_whatever_the_system_says_of_permissions(tmp_path, refuse_writing):
    for check in (
        lambda: check_folder("checkpoint_dir", tmp_path / "run"),
        lambda: check_file("output", tmp_path / "report.json"),
        lambda: make_writable(tmp_path),
    ):
        with pytest.raises(FolderError, match="Read-only file system") as caught:
            check()
        assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "name", "arguments", "setting"),
    [
        ("eval_mop", "main", "--checkpoint none.pt --json out/metrics.json", "json"),
        ("eval_mop", "main", "--checkpoint none.pt --routing out/routing.json", "routing"),
        ("plotting.command", "main", "--cache none.json --output_dir out", "output_dir"),
        ("film.command", "main", "--checkpoint none.pt --output out/film.gif", "--output"),
        ("film.contact_sheet", "main", "--task_id none --output out/sheet.png", "--output"),
        ("more.commands", "train", "--preset debug --data_dir none", "checkpoint_dir"),
        ("more.commands", "evaluate", "--checkpoint_path none.pth --output out/figures.json", "output"),
        ("more.commands", "evaluate_for_llm", "--checkpoint_path none.pth --output_csv out/t.csv", "output_csv"),
        ("more.compare", "main", "--output out/table.json", "output"),
    ],
)
def test_every_command_tries_to_write_before_it_works(
    module, name, arguments, setting, tmp_path, monkeypatch, refuse_writing, capsys
):
    """What they are to read is not there either: that they say nothing of it shows what was tried first."""
    monkeypatch.chdir(tmp_path)
    main = getattr(importlib.import_module(module), name)
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {setting}: expected a folder that may be written to")
    assert "Read-only file system" in line
    assert list(tmp_path.iterdir()) == []


def test_without_flock_a_file_keeps_processes_apart_and_one_line_says_so(tmp_path, no_flock, capsys):
    path = tmp_path / ".lock"
    for _ in range(2):
        with hold_lock(path, 0):
            assert is_lock_held(path)
            with pytest.raises(HeldError, match=f"process {os.getpid()} .*delete .*lock.soft"), hold_lock(path, 0):
                pass
        assert not is_lock_held(path)
        assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path) in said
    assert "docs/file-systems.md" in said


def test_processes_that_a_command_starts_do_not_repeat_it(tmp_path, no_flock, capsys):
    with hold_lock(tmp_path / ".lock", 0):
        assert "no locks" in capsys.readouterr().err
        child = [sys.executable, "-c", HOLDER, str(tmp_path / "another.lock"), "freed"]
        done = subprocess.run(child, cwd=ROOT, input="\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")


def test_without_flock_runs_and_results_are_guarded(tmp_path, no_flock, monkeypatch):
    run, logs, results = tmp_path / "run", tmp_path / "logs", tmp_path / "results.csv"
    row = {"checkpoint_path": "a.pt", "task_id": "T", "num_episodes": 3}
    with hold_run(run, logs):
        assert is_held(run)
        with pytest.raises(RunFolderError, match=f"process {os.getpid()} on"), hold_run(run, logs):
            pass
    append_result(results, row)
    append_result(results, {**row, "checkpoint_path": "b.pt"})
    assert len(read_results(results)) == 2
    assert list(tmp_path.iterdir()) == [results]
    monkeypatch.setattr("pipeline.records.adding._LOCK_SECONDS", 0.1)
    with hold_lock(tmp_path / ".results.csv.lock", 0), pytest.raises(ResultsError, match="soft"):
        append_result(results, row)


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_without_flock_another_process_is_heard_of_and_its_death_too(tmp_path, monkeypatch, no_flock, end):
    path = tmp_path / ".lock"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), end],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_lock_held(path)
        with pytest.raises(HeldError, match=f"process {holder.pid} "), hold_lock(path, 0):
            pass
        holder.communicate("go\n", timeout=60)
    assert path.with_name(".lock.soft").exists() == (end == "killed")
    with hold_lock(path, 5):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_on_another_machine_left_is_named_with_what_to_do(tmp_path, no_flock):
    path = tmp_path / ".lock"
    path.with_name(".lock.soft").write_text("12\nnode7.cluster\n")
    with pytest.raises(HeldError), hold_lock(path, 0):
        pass
    assert describe_holder(path) == f"it is process 12 on node7.cluster; if that has ended, delete {path}.soft"
    path.with_name(".lock.soft").write_text("")
    assert "delete" in describe_holder(path)


def test_a_machine_with_flock_heeds_one_without(tmp_path):
    path = tmp_path / ".lock"
    path.with_name(".lock.soft").write_text("12\nnode7.cluster\n")
    assert is_lock_held(path)
    with pytest.raises(HeldError, match="node7"), hold_lock(path, 0):
        pass
    path.with_name(".lock.soft").unlink()
    with hold_lock(path, 0):
        assert is_lock_held(path)
    assert list(tmp_path.iterdir()) == []


def test_another_failure_of_locks_names_the_file(tmp_path, monkeypatch):
    def fail(handle, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="lock") as caught, hold_lock(tmp_path / ".lock", 0):
        pass
    assert caught.value.filename == str(tmp_path / ".lock")
