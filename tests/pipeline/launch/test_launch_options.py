"""`--launcher` and its options, and the record of a call with what `status` tells of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import train_mop
from pipeline.command.errors import ConfigError
from pipeline.command.launcher import FLAGS, HERE, OPTIONS, Launcher, parse_launcher
from pipeline.command.workers import WorkItem
from pipeline.launch import status
from pipeline.launch.items import launch
from pipeline.launch.journal import Journal, open_record, read_states, tasks_folder
from tests.launch_items import misbehave
from tests.training_runs import DEBUG

ROOT = Path(__file__).parents[3]


def test_options_are_read_by_their_kind_and_have_defaults():
    launcher = parse_launcher("ray", "num_gpus=0.25, retries=0 address=10.0.0.1:6379")
    assert (launcher["num_gpus"], launcher["retries"], launcher["address"]) == (0.25, 0, "10.0.0.1:6379")
    assert launcher["num_cpus"] == 1.0
    assert parse_launcher("slurm", "partition=a,b,mem_gb=2")["partition"] == "a,b"
    assert parse_launcher(None, None) == HERE and HERE.is_local


def test_the_help_names_each_option_with_its_default():
    told = FLAGS["launcher_options"].partition("defaults, for ")[2].removesuffix(".")
    found = dict(part.split(": ") for part in told.split("; "))
    assert found.keys() == OPTIONS.keys()
    for name, options in OPTIONS.items():
        assert [word.partition("=")[0] for word in found[name].split(", ")] == list(options)
        defaults = {key: value for key, _, value in (word.partition("=") for word in found[name].split(", ")) if value}
        for key, value in defaults.items():
            assert parse_launcher(name, f"{key}={value}")[key] == options[key].default
    assert "wait_minutes=30" in found["ray"]


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("rya", None, r"--launcher: expected local, ray, slurm, modal, found 'rya'; did you mean ray\?"),
        (
            "ray",
            "num_cpu=2",
            r"a key of the launcher ray \(.*num_cpus: cores.*\), found 'num_cpu=2'; did you mean num_cpus",
        ),
        ("ray", "2", "expected key=value"),
        ("ray", "num_cpus=two", "num_cpus: expected a number of at least 0, found 'two'"),
        ("ray", "num_cpus=nan", "num_cpus: expected a number of at least 0, found 'nan'"),
        ("slurm", "timeout_min=0", "timeout_min: expected a whole number of at least 1, found '0'"),
        ("slurm", "timeout_min=1.5", "timeout_min: expected a whole number"),
        ("ray", "address=", "address: expected a text, found ''"),
        ("ray", "retries=1,retries=2", "retries is given twice"),
        ("local", "num_cpus=2", "a key of the launcher local"),
    ],
)
def test_what_cannot_be_used_is_told_with_what_can(name, told, message):
    with pytest.raises(ConfigError, match=message):
        parse_launcher(name, told)


def test_a_command_refuses_a_launcher_in_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_mop.main(["--config", DEBUG, "--launcher", "cloud"]) == 2
    assert capsys.readouterr().err.startswith("error: --launcher: expected local, ray, slurm, modal, found 'cloud'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"local"}))
def test_a_missing_package_is_told_with_the_file_to_install(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for package in ("ray", "submitit", "modal"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"expected the package \w+, found none .*requirements/cluster\.txt"):
        launch([WorkItem("x", misbehave, ("well",))], launcher=Launcher(name), jobs=1, report=print)


def test_local_work_leaves_a_record_where_one_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    items = [WorkItem(how, misbehave, (how,)) for how in ("well", "refuse", "fine")]
    events = []
    launch(items, launcher=HERE, jobs=1, report=events.append)
    assert list(tmp_path.iterdir()) == []
    recorded = []
    launch(items, launcher=parse_launcher("local", "folder=record"), jobs=1, report=recorded.append)
    assert recorded == events
    assert [(state.state, state.why) for state in read_states(Path("record"))] == [
        ("done", ""),
        ("failed", "lr: expected a number, found none"),
        ("done", ""),
    ]
    assert status.main(["status", "record"]) == 1
    said = capfd.readouterr().out
    assert "3 items by local" in said and "2 done, 0 running, 1 failed, 0 missing" in said
    assert "failed   refuse: lr: expected a number, found none" in said


def journal_of(launcher) -> None:
    with open_record(launcher, ["x"], ()):
        pass


def test_a_record_does_not_mix_with_that_of_jobs_that_are_still_at_work(tmp_path):
    launcher = parse_launcher("slurm", f"folder={tmp_path}")
    journal_of(launcher)
    before = tasks_folder(tmp_path)
    with Journal(before / "0.jsonl") as job:  # its driver is gone
        job.note(0, "started")
        with pytest.raises(ConfigError, match="jobs of an earlier call are at work there"):
            journal_of(launcher)
        assert [state.state for state in read_states(tmp_path)] == ["running"]
    journal_of(launcher)
    assert not before.exists() and tasks_folder(tmp_path) != before
    with Journal(before / "0.jsonl") as job:  # one that has waited in the queue
        job.note(0, "done")
    assert [state.state for state in read_states(tmp_path)] == ["missing"]


def test_clocks_of_nodes_do_not_order_the_lines_of_one_item(tmp_path):
    launcher = parse_launcher("slurm", f"folder={tmp_path}")
    journal_of(launcher)
    lines = [("2026-01-01T00:10", "started", 1), ("2026-01-01T00:11", "lost", 1), ("2026-01-01T00:05", "done", 2)]
    tasks_folder(tmp_path).mkdir(parents=True)
    (tasks_folder(tmp_path) / "0.jsonl").write_text(
        "".join(
            json.dumps({"at": at, "item": 0, "state": state, "try": attempt, "node": "n"}) + "\n"
            for at, state, attempt in lines
        )
    )
    assert [(state.state, state.attempt) for state in read_states(tmp_path)] == [("done", 2)]


def test_a_line_half_written_is_taken_back_by_the_next_writer(tmp_path):
    path = tmp_path / "0.jsonl"
    path.write_text('{"at": "2026", "item": 0, "state": "started", "try": 1, "node": "n"}\n{"at": "20')
    with Journal(path) as journal:
        journal.note(0, "done", attempt=2)
    assert [json.loads(line)["state"] for line in path.read_text().splitlines()] == ["started", "done"]


def test_states_are_told_from_the_files_alone(tmp_path, capsys):
    folder = tmp_path / "record"
    launcher = parse_launcher("local", f"folder={folder}")
    with open_record(launcher, list("abcdefg"), ("--resume",)) as (_, journal):
        for number, states in enumerate((["done"], ["failed"], ["died"], ["lost"], ["stopped"], [])):
            for attempt, state in enumerate(("started", *states), start=1):
                journal.note(
                    number, state, why="why" if state in ("failed", "died") else None, attempt=attempt, node="n"
                )
        with pytest.raises(ConfigError, match="another call keeps its record there"):
            journal_of(launcher)
        at_work = [state.state for state in read_states(folder)]
        assert status.main(["status", str(tmp_path)]) == 1
        assert status.main(["status", str(folder), "--retry_failed"]) == 2
        assert "items are at work" in capsys.readouterr().err
    assert at_work == ["done", "failed", "failed", "running", "missing", "running", "missing"]
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"at": "2999-01-01", "item": 0, "sta')  # a kill in the middle of a line
    after = read_states(folder)
    assert [state.state for state in after] == ["done", "failed", "failed", *["missing"] * 4]
    assert [state.why for state in after[3:]] == ["whoever was at it is gone", "stopped", after[3].why, "not begun"]


def test_a_call_is_made_again_for_what_is_left(tmp_path):
    words = [str(ROOT / "train_mop.py"), "--config", DEBUG, "--num_updates", "2", "--final_eval_episodes", "0"]
    words += [
        "--overwrite",
        "--seeds",
        "0-1",
        "--launcher_options",
        "folder=record",
        "--max_replicas",
        "1",
        "--jobs",
        "1",
    ]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (lost,) = tmp_path.glob("checkpoints/*/trial_1/seed_1/checkpoint_final.pt")
    kept = lost.with_name("checkpoint_final.pt").parents[1] / "seed_0" / "checkpoint_final.pt"
    before, made = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    record = tmp_path / "record" / "events.jsonl"
    record.write_text(record.read_text().replace('"item": 1, "state": "done"', '"item": 1, "state": "stopped"'))
    command = [sys.executable, "-m", "pipeline.launch", "status", "record", "--retry_failed"]
    again = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240
    )
    assert again.returncode == 0, again.stderr
    assert (
        again.stdout.startswith("1 of 2 items: ") and "--resume" in again.stdout and "--overwrite" not in again.stdout
    )
    assert len(lost.read_bytes()) == len(before) and kept.stat().st_mtime_ns == made
    names = json.loads((tmp_path / "record" / "launch.json").read_text())["items"]
    assert names == ["trial 1, seed 1"]
    assert subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected status and a folder"),
        (["status"], "expected status and a folder"),
        (["show", "x"], "expected status and a folder"),
        (["status", "nowhere"], "nowhere: expected the record of a call"),
    ],
)
def test_status_says_what_it_expects(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status.main(words) == 2
    assert message in capsys.readouterr().err


def test_launchers_that_the_tests_have_are_those_of_the_clusters():
    dev, cluster = (
        {line for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines() if "==" in line}
        for name in ("dev", "cluster")
    )
    assert {line for line in dev if line.startswith(("submitit", "modal", "ray"))} == {
        line for line in cluster if line.startswith(("submitit", "modal"))
    }
