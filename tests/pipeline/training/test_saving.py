"""What is saved of a run when disks are full, by time, from a thread: nothing may be lost that can be kept."""

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import types
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import pipeline.training.batch
import pipeline.training.progress
from pipeline.checkpoints import read_checkpoint, save_checkpoint
from pipeline.command.files import Lines
from pipeline.command.names import name_command
from pipeline.command.workers import Link
from pipeline.config import TrainConfig
from pipeline.places import run_folder
from pipeline.tracking import Tracker
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch
from pipeline.training.outputs import Outputs
from pipeline.training.plan import PlannedRun
from tests.training_runs import DEBUG, ROOT, RUN, TASK, assert_same_run, files, final, metrics

FOLDER = Path("checkpoints") / TASK / RUN
LOG = Path("runs") / TASK / RUN / "metrics.jsonl"
FULL = OSError(errno.ENOSPC, "No space left on device")
EVERY_UPDATE = ("--checkpoint_minutes", "1e-9")


def saved(folder: Path = FOLDER) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(monkeypatch):
    """Return a function that lets no checkpoint be written of which `which(path)`."""

    def fill(which) -> None:
        def save(path, content):
            if which(path):
                raise FULL
            save_checkpoint(path, content)

        monkeypatch.setattr(pipeline.training.batch, "save_checkpoint", save)

    return fill


# --------------------------------------------------------------------------------------------------------- full disks


def test_a_checkpoint_on_the_way_that_cannot_be_written_is_told_of_and_the_next_is_tried(call, full):
    full(lambda path: path.name in ("checkpoint_1.pt", "checkpoint_2.pt", "checkpoint_4.pt"))
    code, out, _ = call("--checkpoint_interval", "1")
    assert code == 0
    assert saved() == ["checkpoint_3.pt", "checkpoint_5.pt", "checkpoint_final.pt"]
    told = [line for line in out.splitlines() if "not written" in line]
    why = "No space left on device; training goes on, and the next one is tried"
    assert told == [f"checkpoint not written: {FOLDER}/checkpoint_{n}.pt: {why}" for n in (1, 4)]  # once in a row


def test_checkpoints_of_given_updates_stay_and_change_nothing(call):
    assert call("--checkpoint_updates", "[1, 3, 6]", "--checkpoint_interval", "0")[0] == 0
    assert saved() == ["checkpoint_1.pt", "checkpoint_3.pt", "checkpoint_final.pt"]
    mine = final(RUN)
    assert call("--trial", "2", "--checkpoint_interval", "0")[0] == 0
    other = final(Path("trial_2/seed_0"))
    for name, weight in other["policy_state_dict"].items():
        assert torch.equal(mine["policy_state_dict"][name], weight), name


@pytest.mark.parametrize("kept", [True, False])
def test_a_final_checkpoint_that_cannot_be_written_is_a_failure_of_that_run_alone(kept, call, full):
    full(lambda path: "seed_1" in str(path) and (path.name == "checkpoint_final.pt" or not kept))
    code, out, err = call("--seeds", "0-2", "--max_replicas", "2")
    assert code == 1 and "Traceback" not in err
    folder = Path("checkpoints") / TASK / "trial_1/seed_1"
    rest = f"--resume goes on from {folder}/checkpoint_4.pt" if kept else "--resume starts the run again: there is no "
    why = f"checkpoint not written: {folder}/checkpoint_final.pt: No space left on device; once there is room, {rest}"
    assert f"failed: trial 1, seed 1: {why}" in err
    for seed in (0, 2):
        assert final(Path(f"trial_1/seed_{seed}"))["update"] == 6
        assert metrics(Path(f"trial_1/seed_{seed}"))[-1]["eval/episodes"] == 4
    assert "2 of 3" in out
    full(lambda path: False)
    assert call("--seeds", "0-2", "--resume")[0] == 0
    assert final(Path("trial_1/seed_1"))["update"] == 6


@pytest.mark.parametrize("flags", [(), ("--seeds", "0")])
def test_a_checkpoint_at_a_stop_that_cannot_be_written_is_a_failure(flags, call, full, monkeypatch):
    full(lambda path: True)
    monkeypatch.setattr(loop, "run_update", stop_after(3))
    code, _, err = call(*flags, "--checkpoint_interval", "0")
    assert code == 1
    assert f"{FOLDER}/checkpoint_3.pt: No space left on device; once there is room, --resume starts" in err


def stop_after(update: int):
    """Return what does an update, and presses Ctrl-C in one of them."""
    run_update = loop.run_update

    def interrupted(batch):
        if batch.update == update - 1:
            signal.raise_signal(signal.SIGINT)
        return run_update(batch)

    return interrupted


def test_what_a_killed_process_left_half_written_goes(call):
    FOLDER.mkdir(parents=True)
    left = FOLDER / ".checkpoint_final.pt.0123456789ab.tmp"
    mine = FOLDER / ".checkpoint_notes.tmp"
    for path in (left, mine):
        path.write_bytes(b"half")
    assert call()[0] == 0
    assert not left.exists() and mine.exists()


@pytest.mark.parametrize("before", [(), ("--num_updates", "2")])
def test_a_stopped_run_that_is_to_end_where_it_stands_has_its_final_checkpoint(before, call, monkeypatch):
    """It was called complete, and the final checkpoint was none, or that of before it was lengthened."""
    if before:
        assert call("--checkpoint_interval", "0", *before)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_update", stop_after(5))
        assert call("--checkpoint_interval", "0", "--resume")[0] == 130
    code, out, _ = call("--checkpoint_interval", "0", "--num_updates", "3", "--resume")
    assert code == 0 and "this run is complete (5 updates)" in out
    assert f"checkpoint   {FOLDER}/checkpoint_5.pt\n" in out  # there is none of update 3
    code, out, _ = call("--checkpoint_interval", "0", "--num_updates", "5")
    assert code == 0 and f"checkpoint   {FOLDER}/checkpoint_final.pt\n" in out
    assert final(RUN)["update"] == 5 and metrics(RUN)[-1]["update"] == 5
    last = (FOLDER / "checkpoint_final.pt").read_bytes()
    assert "this run is complete" in call("--checkpoint_interval", "0", "--num_updates", "5")[1]
    assert (FOLDER / "checkpoint_final.pt").read_bytes() == last


def test_a_real_limit_to_files_leaves_no_traceback_and_no_half_file(call):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        code, out, err = call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "Traceback" not in err
    assert f"checkpoint not written: {FOLDER}/checkpoint_4.pt: File too large; training goes on" in out
    assert f"failed: checkpoint not written: {FOLDER}/checkpoint_final.pt: File too large" in err
    assert not list(Path("checkpoints").rglob("*checkpoint_*"))


@pytest.mark.parametrize(("flags", "name"), [((), ""), (("--seeds", "0"), "trial 1, seed 0: ")])
def test_a_full_disk_of_the_logs_ends_no_run(flags, name, call, monkeypatch):
    """The run ended without a checkpoint, and the message had no path."""
    append = Lines.append

    def fill(self, line):
        if json.loads(line)["update"] == 4:
            raise FULL
        append(self, line)

    monkeypatch.setattr(Lines, "append", fill)
    code, out, err = call(*flags, "--seed", "0") if not flags else call(*flags)
    assert code == 1
    why = f"metrics not written: {LOG}: No space left on device"
    assert out.count(why) == 1 and f"{why}; the run goes on, and each further line is tried" in out
    assert f"incomplete: {name}{why}\n" in err
    assert saved() == ["checkpoint_4.pt", "checkpoint_final.pt"]
    assert [row["update"] for row in metrics(RUN)] == [2, 6, 6]
    assert f"next         {name_command('evaluate')}" in out


def test_a_tracker_that_raises_an_error_of_the_disk_ends_no_run(call, monkeypatch):
    def fill(self, update, *_):
        if update >= 4:
            raise FULL

    monkeypatch.setattr(Tracker, "log", fill)
    code, _, err = call("--seed", "0")
    assert code == 1
    assert f"incomplete: metrics not written: {LOG}: No space left on device\n" in err
    assert "checkpoint_final.pt" in saved()


def test_a_final_evaluation_that_was_not_written_is_done_again_by_the_same_command(call, monkeypatch):
    append = Lines.append

    def fill(self, line):
        if "eval/episodes" in line:
            raise FULL
        append(self, line)

    with monkeypatch.context() as patched:
        patched.setattr(Lines, "append", fill)
        assert call()[0] == 1
    code, _, err = call()
    assert (code, "incomplete" in err) == (0, False)
    assert metrics(RUN)[-1]["eval/episodes"] == 4


def test_a_mapping_that_cannot_be_written_ends_no_sweep(call, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "sweep_trial_1.json")

    monkeypatch.setattr(pipeline.training.progress, "write_mapping", refuse)
    code, out, _ = call("--seeds", "0-1", "--max_replicas", "1")
    assert code == 0
    assert out.count("mapping not kept: sweep_trial_1.json: No space left on device") == 1
    assert final(Path("trial_1/seed_1"))["update"] == 6


# ------------------------------------------------------------------------------------------------------------ by time


def train_by(clock, folder: Path, **changes) -> list[tuple[str, ...]]:
    """Train a run, and return which checkpoints there were after each update."""
    config = TrainConfig(
        **{
            **{"task_id": "GoToObjS6", "lang_encoder": "builtin", "tensorboard": False, "device": "cpu"},
            **{"num_envs": 2, "unroll_len": 4, "num_updates": 9, "final_eval_episodes": 0, "log_interval": 1},
            **{"checkpoint_interval": 6, "checkpoint_minutes": 5.0, "checkpoint_dir": str(folder / "c")},
            **{"log_dir": str(folder / "r"), **changes},
        }
    )
    found = []
    batch = ReplicaBatch([config], announce=lambda line: None)
    place = run_folder(config.checkpoint_dir, config)

    def report(kind, content):
        if kind == "steps" and place.exists():
            found.append(tuple(sorted(path.name for path in place.iterdir())))

    with ExitStack() as stack:
        run = PlannedRun(config, place, run_folder(config.log_dir, config))
        loop.train(batch, Outputs([run], batch, report, stack), Link(report, lambda: False), clock)
    return [*found, tuple(sorted(path.name for path in place.iterdir()))]


def test_checkpoints_by_time_take_each_other_s_place_and_leave_those_that_updates_asked_for(tmp_path):
    now = [0.0]

    def clock() -> float:
        now[0] += 60.0
        return now[0]  # asked once an update, and when a checkpoint is written

    found = [tuple(name[len("checkpoint_") : -len(".pt")] for name in names) for names in train_by(clock, tmp_path)]
    # After 5 minutes at update 5; at 6 the interval's, in its place; after 5 more minutes the end has come.
    assert found == [("5",), ("6",), ("6",), ("6",), ("6", "final")]


def test_no_checkpoint_by_time_where_none_is_wanted(tmp_path):
    now = iter([0.0])
    found = train_by(lambda: next(now, 1e9), tmp_path, checkpoint_minutes=0.0, checkpoint_interval=0)
    assert found == [("checkpoint_final.pt",)]


def test_what_is_learned_does_not_depend_on_them(call):
    assert call("--seed", "3")[0] == 0
    assert call("--seed", "3", *EVERY_UPDATE, "--checkpoint_dir", "other", "--log_dir", "other_runs")[0] == 0
    place = Path("trial_1") / "seed_3"
    first, second = final(place), read_checkpoint(Path("other") / TASK / place / "checkpoint_final.pt")
    for config in (first["config"], second["config"]):
        for name in ("checkpoint_minutes", "checkpoint_dir", "log_dir"):
            config.pop(name)
    assert_same_run(first, second)
    for name, value in first["policy_state_dict"].items():
        assert torch.equal(value, second["policy_state_dict"][name]), name
    assert saved(Path("other") / TASK / place) == ["checkpoint_4.pt", "checkpoint_final.pt"]


def test_the_next_checkpoint_takes_the_place_of_one_by_time_that_a_kill_has_left(call, monkeypatch):
    killed = loop.run_update

    def kill(batch):
        if batch.update == 3:
            raise KeyError("as if it were killed")
        return killed(batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "run_update", kill)
        assert call(*EVERY_UPDATE)[0] == 1
    assert saved() == ["checkpoint_3.pt"]
    code, out, _ = call("--resume", "--checkpoint_interval", "5", "--checkpoint_minutes", "0")
    assert code == 0 and "resumed at update 3" in out
    assert saved() == ["checkpoint_5.pt", "checkpoint_final.pt"]
    # What a stop has left stays, as do all that the settings ask for.
    with monkeypatch.context() as patched:
        patched.setattr(loop, "run_update", stop_after(7))
        assert call("--resume", "--num_updates", "10", *EVERY_UPDATE)[0] == 130
    assert saved() == ["checkpoint_5.pt", "checkpoint_7.pt", "checkpoint_final.pt"]
    assert call("--resume", "--num_updates", "10", *EVERY_UPDATE)[0] == 0
    assert saved() == ["checkpoint_5.pt", "checkpoint_7.pt", "checkpoint_8.pt", "checkpoint_final.pt"]


def test_one_by_time_stays_while_no_newer_one_can_be_written(call, full):
    full(lambda path: path.name not in ("checkpoint_1.pt", "checkpoint_2.pt"))
    assert call(*EVERY_UPDATE, "--checkpoint_interval", "0")[0] == 1
    assert saved() == ["checkpoint_2.pt"]


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
def test_minutes_that_are_none_are_refused(value, call):
    code, _, err = call("--checkpoint_minutes", value)
    assert (code, files()) == (2, {})
    assert "checkpoint_minutes" in err


# -------------------------------------------------------------------------------------------------- threads and loops


def test_training_can_be_called_from_a_thread(call):
    """`signal.signal` raised once the log files were there."""
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(call("--torch_threads", "2")[0]))]
    for thread in threads:
        thread.start()
        thread.join()
    assert codes == [0]
    assert final(RUN)["update"] == 6


def test_many_runs_can_be_trained_in_processes_from_a_thread(call):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(call("--seeds", "0-1", "--jobs", "2")[0]))
    thread.start()
    thread.join()
    assert codes == [0]


def test_training_can_be_called_where_a_loop_runs_as_in_a_notebook(call):
    async def cell() -> int:
        return call()[0]

    assert asyncio.run(cell()) == 0


# -------------------------------------------------------------------------------------------------- Weights & Biases


def test_no_key_of_wandb_is_told_before_anything_is_touched(call, monkeypatch):
    assert call()[0] == 0
    before = files()

    def login():
        raise RuntimeError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(login=login))
    for flags in (
        ("--overwrite",),
        ("--resume", "--num_updates", "8"),
        ("--trial", "2"),
        ("--seeds", "0-1", "--resume"),
    ):
        code, _, err = call(*flags, "--wandb_project", "p", "--lang_encoder", "builtin")
        assert code == 2, flags
        assert err.count("\n") == 1 and "api_key not configured" in err and "wandb login" in err
        assert files() == before


def test_wandb_that_fails_on_the_way_ends_no_training(call, monkeypatch):
    def lose(*_, **__):
        raise RuntimeError("the network has gone")

    run = types.SimpleNamespace(log=lose, finish=lose, define_metric=lambda *_, **__: None)
    module = types.SimpleNamespace(login=lambda: True, init=lambda **_: run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    code, out, _ = call("--wandb_project", "p")
    assert code == 0
    assert out.count("Weights & Biases: RuntimeError: the network has gone") == 1
    assert [row["update"] for row in metrics(RUN)] == [2, 4, 6, 6]


WANDB = """
from wandb import errors
def login():
    raise errors.UsageError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")
init = login
"""
ERRORS = """
class Error(Exception): ...
class CommError(Error): ...
class UsageError(Error): ...
"""


@pytest.mark.parametrize(
    "script", [("train_mop.py", "--config", DEBUG), ("more/train.py", "--preset", "debug", "--tensorboard", "false")]
)
def test_a_job_without_a_key_of_wandb_gets_one_line(script, tmp_path):
    package = tmp_path / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(WANDB)
    (package / "errors.py").write_text(ERRORS)
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / script[0]), *script[1:], "--wandb_project", "p"],
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: wandb_project: Weights & Biases cannot be used (UsageError: api_key not")
    assert done.stderr.count("\n") == 1
    assert files(tmp_path / "work") == {}
