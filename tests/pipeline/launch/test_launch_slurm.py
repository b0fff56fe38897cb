"""Slurm through submitit's local and debug executors: the same weights, requeued jobs, stops, jobs that die."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import read_checkpoint
from pipeline.command.errors import ConfigError
from pipeline.command.launcher import parse_launcher
from pipeline.command.workers import WorkItem
from pipeline.launch.items import launch
from pipeline.launch.journal import read_states
from pipeline.launch.slurm import EventReader, EventWriter, Stopping
from tests.launch_items import count_item, misbehave
from tests.training_runs import DEBUG, TASK

ROOT = Path(__file__).parents[3]


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="needs requirements/cluster.txt")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the jobs
    monkeypatch.setattr("pipeline.launch.slurm.POLL_SECONDS", 0.2)
    monkeypatch.setattr("pipeline.launch.slurm.LATE_SECONDS", 3.0)
    return tmp_path


def do(items, executor: str = "local", **more):
    events = []
    report = more.pop("report", lambda event: None)

    def note(event):
        events.append((event.item.name, event.kind, event.content))
        report(event)

    told = f"executor={executor},folder=record,timeout_min=5"
    launch(items, launcher=parse_launcher("slurm", told), jobs=2, report=note, **more)
    return events


def ends(events) -> dict:
    return {name: (kind, content) for name, kind, content in events if kind not in ("started", "progress")}


def test_events_are_read_whole_whenever_they_are_written(folder):
    path = folder / "tasks" / "0.events"
    reader = EventReader(path)
    assert list(reader.read()) == []
    with EventWriter(path) as events:
        events.add("started", None, now=True)
        assert list(reader.read()) == [("started", None)]
        events.add("done", lambda: None)
    ((kind, why),) = reader.read()
    assert kind == "failed" and "pickle" in why
    with path.open("ab") as file:
        file.write(b"\x09\0\0\0\0\0\0\0half")
    assert list(reader.read()) == []
    with EventWriter(path) as events:
        assert events.count_tries() == 1
        events.add("done", 3)
    assert list(reader.read()) == [("done", 3)]


def test_a_stop_is_heard_by_signal_or_file(folder):
    told = []
    stop = Stopping(folder / "stop", told)
    assert not stop()
    told.append(signal.SIGTERM)
    assert stop()
    (folder / "stop").touch()
    assert Stopping(folder / "stop", [])()


def test_items_tell_what_becomes_of_them(submitit):
    items = [count_item("a", 3), *(WorkItem(how, misbehave, (how,)) for how in ("refuse", "die"))]
    events = do(items)
    mine = [(kind, content) for name, kind, content in events if name == "a"]
    assert mine == [("started", None), *(("progress", n) for n in (1, 2, 3)), ("done", 0)]
    found = ends(events)
    assert found["refuse"] == ("failed", "lr: expected a number, found none")
    assert found["die"][0] == "died" and "ended without a word" in found["die"][1]
    states = {state.name: state.state for state in read_states(Path("record"))}
    assert states == {"a": "done", "refuse": "failed", "die": "failed"}


def test_a_preempted_item_saves_is_requeued_and_goes_on(submitit):
    events = do([count_item("a", 6, preempted_at=3)])
    kinds = [kind for _, kind, _ in events if kind != "progress"]
    assert kinds == ["started", "started", "done"]
    assert ends(events)["a"] == ("done", 3)  # the second try began after the third number
    assert [int(line) for line in Path("out/a/log.jsonl").read_text().split()] == [1, 2, 3, 4, 5, 6]
    assert [(state.state, state.attempt) for state in read_states(Path("record"))] == [("done", 2)]


def test_a_wish_to_stop_reaches_jobs(submitit):
    begun = []
    events = do(
        [count_item(name, 10_000, pause=0.02) for name in "abc"],
        report=lambda event: begun.append(event.item.name),
        stopping=lambda: len(set(begun)) == 2,
    )
    assert ends(events) == {"a": ("stopped", None), "b": ("stopped", None)}
    assert [state.state for state in read_states(Path("record"))] == ["missing"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its log files open
def test_the_debug_executor_does_items_in_this_process(submitit):
    before = signal.getsignal(signal.SIGUSR1)
    events = do([count_item("a", 2), WorkItem("refuse", misbehave, ("refuse",))], executor="debug")
    assert ends(events) == {"a": ("done", 0), "refuse": ("failed", "lr: expected a number, found none")}
    assert signal.getsignal(signal.SIGUSR1) == before


def test_where_there_is_no_slurm_that_is_told(submitit, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="expected Slurm here"):
        do([WorkItem("x", misbehave, ("well",))], executor="slurm")


def test_a_sweep_has_the_weights_of_the_local_one(submitit, tmp_path):
    words = [str(ROOT / "train_mop.py"), "--config", DEBUG, "--num_updates", "6", "--final_eval_episodes", "2"]
    words += ["--num_envs", "2", "--unroll_len", "8", "--seeds", "0-1", "--max_replicas", "1", "--jobs", "1"]
    for name in ("local", "slurm"):
        (tmp_path / name).mkdir()
        more = [] if name == "local" else ["--launcher", "slurm", "--launcher_options", "executor=local"]
        done = subprocess.run(
            [sys.executable, *words, *more], cwd=tmp_path / name, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        path = f"checkpoints/{TASK}/trial_1/seed_{seed}/checkpoint_final.pt"
        one, other = (read_checkpoint(tmp_path / name / path)["policy_state_dict"] for name in ("local", "slurm"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
