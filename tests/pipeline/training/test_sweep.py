"""Many runs at once: numbering, files as those of single runs, interruption, failures, bad input."""

import contextlib
import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import read_checkpoint
from pipeline.command.cli import parse_command
from pipeline.command.workers import Event, Link, WorkItem, do_items
from pipeline.config import ConfigError, TrainConfig
from pipeline.places import find_checkpoints
from pipeline.training import driver, loop
from pipeline.training.batch import ReplicaBatch
from pipeline.training.command import main
from pipeline.training.group import train_group
from pipeline.training.options import (
    Sweep,
    parse_seeds,
)
from pipeline.training.plan import plan_runs
from tests.training_runs import DEBUG, ROOT, RUN, SHORT, SMALL, TASK, assert_same_run, files, final, folders, metrics

# ----------------------------------------------------------------------------------------------------------- what runs


def test_a_sweep_writes_what_single_runs_would_have_written(call):
    code, out, _ = call("--trial", "3", "--seeds", "0,5", "--lpc_alphas", "0,1e-2", "--eval_interval", "4")
    assert code == 0
    together = files()
    runs = {f"trial_{trial}/seed_{seed}" for trial in (3, 4) for seed in (0, 5)}
    assert folders(together.keys()) == runs
    of_sweep, logged = final(Path("trial_4/seed_5")), metrics(Path("trial_4/seed_5"))
    for path in ("checkpoints", "runs"):
        (Path(path) / TASK).rename(Path(path) / "BabyAI-Sweep-v0")

    alone = call("--trial", "4", "--seed", "5", "--lpc_alpha", "1e-2", "--eval_interval", "4")
    assert alone[0] == 0
    single = files()
    names = {name for name in single if str(TASK) in name}
    assert {name for name in together if "trial_4/seed_5" in name} == names
    config = f"runs/{TASK}/trial_4/seed_5/config.yaml"
    assert together[config] == single[config]
    assert_same_run(of_sweep, final(Path("trial_4/seed_5")))
    rows = metrics(Path("trial_4/seed_5"))
    assert [row.keys() for row in logged] == [row.keys() for row in rows]
    for ours, theirs in zip(logged, rows, strict=True):
        for key, value in theirs.items():
            if value is None:
                assert ours[key] is None, key
            elif not key.startswith("time/"):
                assert ours[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key

    mapping = json.loads(together[f"checkpoints/{TASK}/sweep_trial_3.json"])
    assert [(t["trial"], t["lpc_alpha"], t["seeds"]) for t in mapping["trials"]] == [
        (3, 0.0, [0, 5]),
        (4, 0.01, [0, 5]),
    ]
    assert mapping["trials"][1]["runs"][1] == {
        "seed": 5,
        "checkpoints": f"checkpoints/{TASK}/trial_4/seed_5",
        "logs": f"runs/{TASK}/trial_4/seed_5",
    }
    resolved = {**mapping["config"], "trial": 4, "seed": 5, "lpc_alpha": 0.01}
    assert TrainConfig(**resolved).to_dict() == resolved
    assert {**resolved, "num_actions": 7, "update": 6} == of_sweep["config"]
    # The tables at the end: a row for each run, one for each price.
    assert sum(line.split()[:2] in (["3", "0"], ["4", "0.01"]) for line in out.splitlines()) == 2 + 4 + 2


def test_single_commands_work_on_runs_of_a_sweep(call):
    assert call("--seeds", "0-1")[0] == 0
    assert [f.seed for f in find_checkpoints("checkpoints") if f.update is None] == [0, 1]
    code, out, _ = call("--seed", "1")
    assert (code, "complete" in out) == (0, True)
    code, out, _ = call("--seed", "1", "--num_updates", "8", "--resume")
    assert (code, "resumed at update 6" in out) == (0, True)
    call("--seed", "1", "--num_updates", "8", "--checkpoint_dir", "alone", "--log_dir", "alone_runs")
    alone = read_checkpoint(Path("alone") / TASK / "trial_1/seed_1/checkpoint_final.pt")
    resumed = final(Path("trial_1/seed_1"))
    assert resumed["update"] == 8
    for name, value in alone["policy_state_dict"].items():
        torch.testing.assert_close(value, resumed["policy_state_dict"][name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_baseline_takes_seeds(call):
    code, _, err = call("--seeds", "3,1", policy="gru")
    assert code == 0
    assert "loss" in err and "LPC" not in err  # the bar's
    assert final(Path("trial_1/seed_3"))["config"]["policy"] == "gru"


def test_the_size_of_batches_changes_nothing(call):
    assert call("--seeds", "0-2")[0] == 0
    assert call("--seeds", "0-2", "--trial", "2", "--max_replicas", "2")[0] == 0
    assert call("--seeds", "0-2", "--trial", "3", "--max_replicas", "1")[0] == 0
    for seed in range(3):
        one = final(Path(f"trial_1/seed_{seed}"))
        for trial in (2, 3):
            other = final(Path(f"trial_{trial}/seed_{seed}"))
            other["config"]["trial"] = 1
            assert_same_run(one, other)


# ------------------------------------------------------------------------------------------------ interruption, failure


@pytest.mark.parametrize("checks", [1, 2])
def test_a_run_that_a_stop_meets_before_its_first_update_is_not_begun(checks, tmp_path, monkeypatch):
    """Whether before it was built or just after it."""
    monkeypatch.chdir(tmp_path)
    config, _ = parse_command("", TrainConfig, ["--config", DEBUG, *SMALL, *SHORT])
    sweep = Sweep((config,), single=True)
    (run,) = plan_runs(sweep, resume=False, overwrite=False)
    answers = iter([False] * (checks - 1))
    reports = []
    do_items(
        [WorkItem("run", train_group, ([run],))],
        jobs=1,
        report=lambda event: reports.append(event.content[0] if event.kind == "progress" else event.kind),
        stopping=lambda: next(answers, True),
    )
    assert reports.count("started") == 2 * (checks - 1)  # the item, and the runs
    assert "saved" not in reports and "failed" not in reports
    assert list(Path().rglob("*.pt")) == []
    assert plan_runs(sweep, resume=False, overwrite=False) == [run]  # nothing asks for --resume


def test_a_stop_during_the_final_evaluation_leaves_it_for_later(call, monkeypatch):
    config, _ = parse_command("", TrainConfig, ["--config", DEBUG, *SMALL, *SHORT])
    sweep = Sweep((config,), single=True)
    runs = plan_runs(sweep, resume=False, overwrite=False)
    trained, reports = [], []

    def report(content: tuple[str, object]) -> None:
        reports.append(content[0])
        if content[0] == "say" and str(content[1]).startswith("trained"):
            trained.append(content)

    train_group(Link(report, stopping=lambda: bool(trained)), runs)
    assert "evaluated" not in reports and "finished" not in reports
    assert "saved" in reports  # its final checkpoint, of which the words at the end tell
    assert final(RUN)["update"] == 6
    code, out, _ = call()
    assert (code, "final evaluation: 4 levels" in out) == (0, True)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the command in a process group of its own; what is left of it is ended."""
    started: list[subprocess.Popen] = []

    def run(*args: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train_mop.py"), "--config", DEBUG, *SMALL, *args],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_lines(seeds: int, lines: int) -> None:
    """Wait until each run of trial 1 has logged so many lines."""
    logs = [Path("runs") / TASK / f"trial_1/seed_{seed}" / "metrics.jsonl" for seed in range(seeds)]
    deadline = time.monotonic() + 120
    while not all(log.exists() and log.read_text().count("\n") >= lines for log in logs):
        assert time.monotonic() < deadline, "the runs do not start"
        time.sleep(0.05)


ENDLESS = (
    "--num_updates",
    "1000000",
    "--checkpoint_interval",
    "0",
    "--log_interval",
    "1",
    "--final_eval_episodes",
    "0",
)


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGHUP), ("2", signal.SIGINT), ("2", signal.SIGHUP)])
def test_a_signal_to_all_saves_all_runs_and_resume_goes_on_with_them(jobs, number, call, start):
    process = start(*ENDLESS, "--seeds", "0-2", "--jobs", jobs)
    wait_for_lines(3, 2)
    os.killpg(process.pid, number)  # as a terminal does
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "3 saved" in out
    assert "--resume" in out
    paths = [Path("checkpoints") / TASK / f"trial_1/seed_{seed}" for seed in range(3)]
    reached = [read_checkpoint(path)["update"] for folder in paths for path in folder.iterdir()]
    assert len(reached) == 3
    assert len(set(reached)) <= int(jobs)

    target = str(max(reached) + 3)
    length = ("--num_updates", target, "--log_interval", "1", "--final_eval_episodes", "0")
    assert call(*length, "--seeds", "0-2", "--resume")[0] == 0
    for seed in range(3):
        rows = metrics(Path(f"trial_1/seed_{seed}"))
        assert [row["update"] for row in rows] == list(range(1, int(target) + 1))
    assert call(*length, "--seed", "2", "--checkpoint_dir", "alone", "--log_dir", "alone_runs")[0] == 0
    alone = read_checkpoint(Path("alone") / TASK / "trial_1/seed_2/checkpoint_final.pt")
    resumed = final(Path("trial_1/seed_2"))
    assert resumed["update"] == int(target)
    for name, value in alone["policy_state_dict"].items():
        torch.testing.assert_close(value, resumed["policy_state_dict"][name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
def test_processes_are_as_many_as_cores_and_change_nothing(call, monkeypatch):
    flags = ("--seeds", "0-2", "--lpc_alphas", "0,1e-2")
    _, out, _ = call(*flags)
    assert "processes" not in out
    runs = [Path(f"trial_{trial}/seed_{seed}") for trial in (1, 2) for seed in range(3)]
    alone = {run: final(run) for run in runs}
    monkeypatch.setattr(driver, "count_jobs", lambda config: 2)
    code, out, _ = call(*flags, "--overwrite")
    assert code == 0 and "2 processes share the runs" in out
    for run in runs:
        assert_same_run(final(run), alone[run])


@pytest.mark.slow
def test_a_process_that_dies_fails_its_runs_only(call):
    def kill_first() -> None:
        wait_for_lines(2, 1)
        min(multiprocessing.active_children(), key=lambda child: child.pid).kill()

    killer = threading.Thread(target=kill_first)
    killer.start()
    code, _, err = call("--seeds", "0-1", "--jobs", "2", "--num_updates", "300", "--log_interval", "1")
    killer.join()
    assert code == 1
    assert "failed: trial 1, seed 0: its process died (exit code -9); its last checkpoint stays" in err
    assert final(Path("trial_1/seed_1"))["update"] == 300
    assert metrics(Path("trial_1/seed_1"))[-1]["eval/episodes"] == 4
    assert not (Path("checkpoints") / TASK / "trial_1/seed_0/checkpoint_final.pt").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the process in /proc")
def test_a_process_saves_when_the_one_that_started_it_is_killed(tmp_path, monkeypatch, start):
    monkeypatch.chdir(tmp_path)
    process = start(*ENDLESS, "--seeds", "0-1", "--jobs", "2")
    wait_for_lines(2, 1)
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    for seed in range(2):
        (saved,) = (Path("checkpoints") / TASK / f"trial_1/seed_{seed}").iterdir()
        assert read_checkpoint(saved)["update"] > 0


def test_work_that_ends_early_without_a_word_is_not_taken_for_done(call, monkeypatch):
    """As when SIGTERM reaches a process of the work alone."""
    monkeypatch.setattr(driver, "launch", lambda *_, **__: None)
    code, out, _ = call("--seeds", "0-1")
    assert (code, "2 not begun" in out) == (128 + signal.SIGTERM, True)


def test_a_group_that_is_refused_does_not_stop_one_that_is_just_starting(call, monkeypatch):
    wishes = []

    def play(items, *, report, stopping, **_: object) -> None:
        first, second = items
        report(Event(first, "started"))
        report(Event(second, "started"))
        report(Event(first, "failed", "its metrics are damaged"))
        wishes.append(stopping())
        report(Event(second, "failed", "so are these"))
        wishes.append(stopping())

    monkeypatch.setattr(driver, "launch", play)
    code, _, err = call("--seeds", "0-1", "--max_replicas", "1")
    assert wishes == [False, True]
    assert (code, err) == (2, "error: its metrics are damaged; so are these\n")
    assert files() == {}


def test_overwriting_many_runs_takes_few_open_files(call):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    inside = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (inside + 40, hard))
    try:
        short = ("--num_updates", "1", "--final_eval_episodes", "0")
        assert call(*short, "--seeds", "0-29", "--overwrite")[0] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_run_that_diverges_is_given_up_and_the_others_go_on(call, monkeypatch):
    assert call("--seeds", "0-2")[0] == 0
    update = loop.run_update

    def poisoned(batch: ReplicaBatch) -> dict[int, str]:
        if batch.update == 3 and len(batch.configs) == 3:
            with torch.no_grad():
                batch.policies[1].head.bias.fill_(math.nan)
        return update(batch)

    monkeypatch.setattr(loop, "run_update", poisoned)
    code, out, err = call("--seeds", "0-2", "--trial", "2")
    assert code == 1
    assert "failed: trial 2, seed 1: " in err
    assert "2 of 3" in out
    for seed in (0, 2):
        alone, other = final(Path(f"trial_1/seed_{seed}")), final(Path(f"trial_2/seed_{seed}"))
        other["config"]["trial"] = 1
        assert_same_run(alone, other)
        lines = [metrics(Path(f"trial_{trial}/seed_{seed}")) for trial in (1, 2)]
        assert [row["update"] for row in lines[1]] == [2, 4, 6, 6]
        assert [row.get("train/task_loss") for row in lines[1][:3]] == pytest.approx(
            [row.get("train/task_loss") for row in lines[0][:3]], rel=1e-3
        )
    assert not (Path("checkpoints") / TASK / "trial_2/seed_1/checkpoint_final.pt").exists()


def test_prices_beyond_float32_fail_and_say_so(call):
    code, _, err = call("--seeds", "0", "--lpc_alphas", "1e38,0")
    assert code == 1
    assert "failed: trial 1, seed 0: " in err
    assert list((Path("checkpoints") / TASK / "trial_1").rglob("*.pt")) == []
    assert final(Path("trial_2/seed_0"))["update"] == 6
    assert call("--seeds", "0", "--lpc_alphas", "1e38", "--trial", "3")[0] == 1
    code, _, err = call("--seed", "0", "--lpc_alpha", "1e38", "--trial", "4")  # the same alone
    assert (code, err.splitlines()[-1].startswith("failed: update 1: loss inf")) == (1, True)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--seeds", "5-2"), ("--seeds", "5-2", "2-5")),
        (("--seeds", "a"), ("--seeds", "'a'", "0-9")),
        (("--seeds", "0-2,2"), ("--seeds", "found 2 twice")),
        (("--seeds", "-1"), ("--seeds", "'-1'")),
        (("--seeds", "-3-5"), ("--seeds",)),
        (("--seeds", ""), ("--seeds", "''")),
        (("--seeds", "0,,1"), ("--seeds", "''")),
        (("--seeds", "0-99999999999"), ("--seeds", "at most 10000")),
        (("--seeds", "0-99999999999999999999"), ("--seeds", "at most 10000", "found 100000000000000000000")),
        (("--seeds", "1.5"), ("--seeds", "'1.5'")),
        (("--lpc_alphas", "1e-5,x"), ("--lpc_alphas", "'x'")),
        (("--lpc_alphas", "0,0.0"), ("--lpc_alphas", "0.0 twice")),
        (("--lpc_alphas=-1e-5",), ("--lpc_alphas", "'-1e-5'")),
        (("--lpc_alphas", "-1e-5"), ("--lpc_alphas=VALUE",)),
        (("--lpc_alphas", "nan"), ("--lpc_alphas", "'nan'")),
        (("--lpc_alphas", ""), ("--lpc_alphas", "''")),
        (("--seeds", "0-1", "--seed", "3"), ("--seeds", "--seed ")),
        (("--lpc_alphas", "0", "--lpc_alpha", "0"), ("--lpc_alphas", "--lpc_alpha ")),
        (("--lpc_alphas", "0", "--policy", "gru"), ("--lpc_alphas", "gru")),
        (("--policy", "moe", "--expert_norm", "layer"), ("expert_norm", "policy moe", "'layer'")),
        (("--seeds", "0-1", "--resume", "--overwrite"), ("--resume", "--overwrite")),
        (("--jobs", "2"), ("--jobs", "--seeds")),
        (("--max_replicas", "2"), ("--max_replicas", "--seeds")),
        (("--seeds", "0-1", "--jobs", "0"), ("--jobs", "at least 1", "'0'")),
        (("--seeds", "0-1", "--max_replicas", "few"), ("--max_replicas", "'few'")),
        (("--seeds", "0-1", "--task_id", "GoToObbj"), ("GoToObbj", "GoToObj")),
        (("--seed", str(2**63)), ("seed", "less than 2^63")),
        (("--trial", str(10**19)), ("trial", "less than 2^63")),
    ],
)
def test_bad_input_gets_one_clear_message_and_writes_nothing(args, words, call):
    code, _, err = call(*args)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert files() == {}


def test_seeds_in_the_file_are_explained(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("seeds: 0-9\n")
    assert main("test", ["--config", str(path)]) == 2
    assert "seeds is a flag" in capsys.readouterr().err


def test_a_seed_of_the_file_gives_way_to_seeds(tmp_path, call):
    path = tmp_path / "config.yaml"
    path.write_text(Path(DEBUG).read_text() + "seed: 9\n")
    assert call("--config", str(path), "--seeds", "1", "--final_eval_episodes", "0")[0] == 0
    assert folders(files().keys()) == {"trial_1/seed_1"}


def test_unknown_flags_of_sweeps_are_suggested(call):
    assert "did you mean" in call("--sedes", "0-2")[2]
    with pytest.raises(ConfigError):
        parse_seeds("x")
