"""Many runs at once: numbering, files as those of single runs, the guard, interruption, failures, the tables."""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoints import read_checkpoint
from pipeline.command.cli import parse_command
from pipeline.command.workers import Link, WorkItem, do_items
from pipeline.config import ConfigError, TrainConfig
from pipeline.guard import hold_run
from pipeline.places import find_checkpoints, run_folder
from pipeline.training import driver, loop
from pipeline.training import plan as sweep_plan
from pipeline.training.batch import ReplicaBatch
from pipeline.training.command import main
from pipeline.training.driver import count_jobs
from pipeline.training.group import train_group
from pipeline.training.mapping import format_alpha, format_seeds, write_mapping
from pipeline.training.options import (
    CPU_REPLICAS,
    GPU_REPLICAS,
    MAX_GROUP_STEPS,
    Sweep,
    default_replicas,
    parse_alphas,
    parse_seeds,
)
from pipeline.training.plan import PlannedRun, group_runs, plan_runs
from pipeline.training.summary import alpha_lines, run_lines

ROOT = Path(__file__).parents[3]
DEBUG = str(ROOT / "configs" / "debug.yaml")
TASK = Path("BabyAI-GoToObjS6-v1")
SHORT = ("--num_updates", "6", "--checkpoint_interval", "4", "--log_interval", "2", "--final_eval_episodes", "4")
SMALL = ("--num_envs", "2", "--unroll_len", "8")
RUN = Path("trial_1") / "seed_0"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "count_jobs", lambda config: 1)  # on any machine; quicker for runs as short as these

    def run(*args: str, **forced: str) -> tuple[int, str, str]:
        code = main("test", ["--config", DEBUG, *SMALL, *SHORT, *args], **forced)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def files(folder: Path = Path()) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def folders(names: set[str]) -> set[str]:
    """Return the `trial_N/seed_S` among the names of files."""
    return {"/".join(Path(name).parts[2:4]) for name in names if "seed_" in name}


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (Path("runs") / TASK / run / "metrics.jsonl").read_text().splitlines()]


def final(run: Path, root: Path = Path()) -> dict:
    return read_checkpoint(root / "checkpoints" / TASK / run / "checkpoint_final.pt")


def assert_same_run(one: dict, other: dict) -> None:
    """Checkpoints of one run, trained alone or with others: the same but for rounding."""
    assert one.keys() == other.keys()
    assert one["config"] == other["config"]
    assert one["update"] == other["update"]
    for part in ("policy_state_dict", "lang_proj_state_dict"):
        assert list(one[part]) == list(other[part])
        for name, value in one[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=1e-4, atol=1e-5, msg=name)


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
    code, _, _ = call("--seeds", "3,1", policy="gru")
    assert code == 0
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


# -------------------------------------------------------------------------------------------------------------- guard


def test_complete_runs_are_skipped_and_a_sweep_can_grow(call):
    assert call("--seeds", "0-1")[0] == 0
    before = files()
    code, out, _ = call("--seeds", "0-1")
    assert code == 0
    assert "2 complete, skipped" in out
    assert "mean success" in out  # the tables come from the logs then
    assert files() == before

    code, out, _ = call("--seeds", "0-2", "--lpc_alphas", "1e-4,1e-2")
    assert code == 0
    assert "2 complete, skipped; 1 from the start" in out
    after = files()
    changed = {name for name in after if before.get(name) != after[name]}
    assert folders(changed) == {"trial_1/seed_2", *(f"trial_2/seed_{seed}" for seed in range(3))}
    # A part of it later: what the mapping knew of the rest stays.
    assert call("--seeds", "1")[0] == 0
    assert call("--seeds", "4", "--trial", "1")[0] == 0
    mapping = json.loads((Path("checkpoints") / TASK / "sweep_trial_1.json").read_text())
    assert [(t["trial"], t["lpc_alpha"], t["seeds"]) for t in mapping["trials"]] == [
        (1, 1e-4, [0, 1, 2, 4]),
        (2, 1e-2, [0, 1, 2]),
    ]


def test_trials_of_other_runs_are_refused_before_anything_is_written(call):
    assert call("--seed", "1")[0] == 0  # trial 1, alpha 1e-4
    before = files()
    code, _, err = call("--seeds", "0-2", "--lpc_alphas", "0,1e-4")
    assert code == 2
    for words in (
        "trial_1/seed_1 holds another run",
        "lpc_alpha is 0.0001 there, 0.0 here",
        "--trial 2",
        "--overwrite",
    ):
        assert words in err
    # Another seed of the trial is not ours to delete, but one trial is one setting.
    code, _, err = call("--seeds", "2-3", "--lpc_alphas", "0,1e-4", "--overwrite")
    assert code == 2
    for words in ("trial_1/seed_1 holds a run of another setting", "lpc_alpha is 0.0001 there, 0.0 here", "--trial 2"):
        assert words in err
    code, _, err = call("--seeds", "0-2", "--num_updates", "9")
    assert code == 2
    for words in ("trial_1/seed_1 holds this run, up to update 6", "--resume", "--overwrite"):
        assert words in err
    code, _, err = call("--seeds", "0-2", "--overwrite", "--lang_encoder", "no/such/folder/anywhere")
    assert (code, "no/such/folder/anywhere" in err) == (2, True)
    code, _, err = call("--seeds", "0-2", "--overwrite", "--lang_encoder", "no/such/folder/anywhere", "--jobs", "2")
    assert (code, err.count("no/such/folder/anywhere")) == (2, 1)
    assert files() == before


def test_overwrite_clears_exactly_the_runs_of_the_call(call):
    assert call("--seeds", "0-2")[0] == 0
    kept = Path("checkpoints") / TASK / RUN / "notes.txt"
    kept.write_text("mine")
    before = files()
    code, _, _ = call("--seeds", "0,2", "--overwrite", "--num_updates", "4")
    assert code == 0
    after = files()
    changed = {name for name in before if before[name] != after.get(name)}
    assert folders(changed) == {"trial_1/seed_0", "trial_1/seed_2"}
    assert kept.read_text() == "mine"
    assert f"checkpoints/{TASK}/trial_1/seed_0/checkpoint_4.pt" in before.keys() - after.keys()
    assert [row["update"] for row in metrics(RUN)] == [2, 4, 4]


def test_a_run_stopped_in_its_final_evaluation_is_evaluated_later(call):
    assert call("--seeds", "0-1")[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    whole = metrics(RUN)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    before = files()
    code, out, _ = call("--seeds", "0-1")
    assert code == 0
    assert "1 complete, skipped; 1 trained, to be evaluated" in out
    assert metrics(RUN) == whole
    assert {name for name, content in files().items() if content != before.get(name)} == {str(log)}


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1")])
def test_a_periodic_evaluation_is_not_taken_for_the_final_one(flags, call):
    flags = (*flags, "--eval_interval", "3", "--eval_episodes", "2")
    assert call(*flags)[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    whole = metrics(RUN)
    assert [row.get("eval/episodes") for row in whole][-2:] == [2, 4]
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    before = files()
    assert call(*flags)[0] == 0
    assert metrics(RUN) == whole
    assert {name for name, content in files().items() if content != before.get(name)} == {str(log)}
    assert "complete" in call(*flags)[1]


def test_a_single_run_stopped_in_its_final_evaluation_is_evaluated_by_resume(call, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReplicaBatch, "evaluate", stopped)
        assert call("--seed", "0")[0] == 130
    before = files()
    assert {Path(name).name for name in before} == {
        "checkpoint_4.pt",
        "checkpoint_final.pt",
        "config.yaml",
        "metrics.jsonl",
    }
    code, out, _ = call("--seed", "0", "--resume")
    assert (code, "final evaluation: 4 levels" in out, "next" in out) == (0, True, True)
    assert [row["update"] for row in metrics(RUN)] == [2, 4, 6, 6]
    assert metrics(RUN)[-1]["eval/episodes"] == 4
    assert {Path(name).name for name, content in files().items() if content != before[name]} == {"metrics.jsonl"}


@pytest.mark.parametrize("one", [True, False])
def test_metrics_without_a_checkpoint_of_theirs_are_not_replaced(one, call):
    flags = ("--seed", "0") if one else ("--seeds", "0-1")
    assert call("--seed", "0", "--checkpoint_dir", "a")[0] == 0
    before = files()
    for more in ((), ("--resume",), ("--lr", "0.5", "--resume")):  # its checkpoints are in a, --resume or not
        code, _, err = call(*flags, "--checkpoint_dir", "b", *more)
        assert (code, err.count("\n")) == (2, 1)
        for words in (f"runs/{TASK}/trial_1/seed_0 holds the metrics of another run", "--overwrite"):
            assert words in err
    assert files() == before
    assert call(*flags, "--checkpoint_dir", "b", "--overwrite")[0] == 0
    assert len(metrics(RUN)) == 4


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0")])
def test_a_run_stopped_before_its_first_checkpoint_starts_afresh_with_resume(flags, call):
    assert call(*flags)[0] == 0
    whole = metrics(RUN)
    for path in (Path("checkpoints") / TASK / RUN).iterdir():
        path.unlink()
    before = files()
    code, _, err = call(*flags)
    assert (code, "which has no checkpoint yet" in err, "--resume" in err) == (2, True, True)
    code, _, err = call(*flags, "--resume", "--lr", "0.5")
    assert (code, "metrics of another run" in err) == (2, True)
    assert files() == before
    assert call(*flags, "--resume")[0] == 0
    assert [row["update"] for row in metrics(RUN)] == [row["update"] for row in whole]


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1"), ("--seeds", "0-1", "--jobs", "2")])
def test_a_run_that_another_process_trains_is_refused(flags, call, monkeypatch):
    assert call("--seed", "0")[0] == 0
    before = files()
    logs = Path("runs") / TASK / RUN
    words = f"error: {logs} is being trained by another process\n"
    longer = (*flags, "--num_updates", "8")
    with hold_run(logs):
        for more in ((), ("--resume",), ("--overwrite",)):
            assert call(*longer, *more)[::2] == (2, words)
        assert (logs / ".lock").exists()
        # Begun between the plan and the training of this one.
        monkeypatch.setattr(sweep_plan, "is_held", lambda logs: False)
        if "--jobs" not in flags:
            assert call(*longer, "--overwrite")[::2] == (2, words)
    assert files() == before
    (logs / ".lock").touch()  # of a process that was killed
    assert call(*longer, "--resume")[0] == 0
    assert not (logs / ".lock").exists()


def test_overwrite_deletes_nothing_if_a_run_of_a_later_batch_is_held(call, monkeypatch):
    assert call("--seeds", "0-1")[0] == 0
    before = files()
    monkeypatch.setattr(sweep_plan, "is_held", lambda logs: False)
    with hold_run(Path("runs") / TASK / "trial_1/seed_1"):
        code, _, err = call("--seeds", "0-1", "--max_replicas", "1", "--overwrite")
    assert (code, "seed_1 is being trained by another process" in err) == (2, True)
    assert files() == before


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1")])
def test_a_run_that_another_process_has_trained_meanwhile_is_refused(flags, call, monkeypatch):
    assert call("--seed", "0", "--num_updates", "4")[0] == 0
    before = files()
    monkeypatch.setattr(sweep_plan, "newest_checkpoint", lambda folder: None)
    monkeypatch.setattr(sweep_plan, "stamp_checkpoints", lambda folder: ())
    monkeypatch.setattr(sweep_plan, "find_conflict", lambda *_, **__: None)
    code, _, err = call(*flags)
    assert (code, "changed by another process meanwhile" in err) == (2, True)
    assert files() == before


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1"), ("--seeds", "0-1", "--jobs", "2")])
@pytest.mark.parametrize("name", ["checkpoint_dir", "log_dir"])
def test_a_folder_that_is_a_file_is_refused_before_training(name, flags, call):
    Path("taken").write_text("mine")
    code, out, err = call(*flags, f"--{name}", "taken")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert f"taken/{TASK}/trial_1/seed_0: cannot be written (Not a directory)" in line
    assert "updates of" not in out
    assert files() == {"taken": b"mine"}


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0")])
def test_damaged_metrics_are_named_in_one_line(flags, call):
    assert call(*flags)[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    log.write_text("not json\n" + log.read_text())
    before = files()
    code, _, err = call(*flags, "--num_updates", "8", "--resume")
    assert code == 2
    assert f"{log}, line 1" in err and "Traceback" not in err
    assert files() == before


@pytest.mark.parametrize(("flags", "run"), [(("--seed", "0"), ""), (("--seeds", "0"), "trial 1, seed 0: ")])
def test_an_error_of_the_disk_is_told_in_one_line(flags, run, call, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint_4.pt")

    monkeypatch.setattr(ReplicaBatch, "save", full)
    code, _, err = call(*flags)
    assert (code, err.splitlines()[-1]) == (1, f"failed: {run}checkpoint_4.pt: No space left on device")


def test_the_mapping_keeps_the_seeds_of_a_sweep_that_has_no_checkpoints_yet(tmp_path):
    def sweep_of(*seeds: int) -> list[PlannedRun]:
        configs = [TrainConfig(seed=s, checkpoint_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "r")) for s in seeds]
        return [PlannedRun(c, run_folder(c.checkpoint_dir, c), run_folder(c.log_dir, c)) for c in configs]

    def write(runs: list[PlannedRun]) -> dict:
        path = write_mapping(runs, runs[0].config)
        assert [file.name for file in path.parent.iterdir()] == ["sweep_trial_1.json"]
        return json.loads(path.read_text())["trials"][0]

    first, second = sweep_of(0, 1), sweep_of(2, 3)
    with contextlib.ExitStack() as stack:
        for run in first:
            stack.enter_context(hold_run(run.logs))
            (run.logs / "config.yaml").touch()
        assert write(first)["seeds"] == [0, 1]
        assert write(second)["seeds"] == [0, 1, 2, 3]
    assert write(sweep_of(4))["seeds"] == [0, 1, 4]  # of 2 and 3 nothing was ever there


def test_mappings_written_at_once_are_all_kept(tmp_path):
    configs = [TrainConfig(seed=s, checkpoint_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "r")) for s in range(8)]
    for config in configs:
        run_folder(config.log_dir, config).mkdir(parents=True)
    planned_runs = [PlannedRun(config, Path(), Path()) for config in configs]
    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(lambda run: write_mapping([run], run.config), planned_runs))
    assert json.loads(path.read_text())["trials"][0]["seeds"] == list(range(8))


def test_only_a_mapping_that_exists_is_named(call):
    flags = ("--seeds", "0", "--lpc_alphas", "0,1e-2")
    assert "sweep_trial_1.json)" in call(*flags)[1]
    code, out, _ = call("--seeds", "0", "--lpc_alphas", "1e-2", "--trial", "2")
    assert (code, "all runs are complete" in out, "sweep_trial" in out) == (0, True, False)


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
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_saves_all_runs_and_resume_goes_on_with_them(jobs, call, start):
    process = start(*ENDLESS, "--seeds", "0-2", "--jobs", jobs)
    wait_for_lines(3, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
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
        (("--seeds", "0-1", "--resume", "--overwrite"), ("--resume", "--overwrite")),
        (("--jobs", "2"), ("--jobs", "--seeds")),
        (("--max_replicas", "2"), ("--max_replicas", "--seeds")),
        (("--seeds", "0-1", "--jobs", "0"), ("--jobs", "at least 1", "'0'")),
        (("--seeds", "0-1", "--max_replicas", "few"), ("--max_replicas", "'few'")),
        (("--seeds", "0-1", "--task_id", "GoToObbj"), ("GoToObbj", "GoToObj")),
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


# --------------------------------------------------------------------------------------------------------------- parts


def test_seeds_and_prices_are_read_in_their_order():
    assert parse_seeds("3, 0-2,7") == [3, 0, 1, 2, 7]
    assert parse_alphas("1e-4, 0,2") == [1e-4, 0.0, 2.0]


@given(st.lists(st.integers(0, 60), min_size=1, unique=True))
def test_seeds_are_written_as_they_are_read(seeds):
    assert parse_seeds(format_seeds(seeds)) == sorted(seeds)


@given(st.floats(0, 1e10))
def test_prices_are_written_without_loss(alpha):
    assert float(format_alpha(alpha)) == alpha
    assert format_alpha(1e-5) == "1e-05"


def test_the_automatic_limit_bounds_steps_and_files():
    small, large = TrainConfig(num_envs=1, unroll_len=1), TrainConfig(num_envs=64, unroll_len=MAX_GROUP_STEPS // 256)
    huge = TrainConfig(num_envs=MAX_GROUP_STEPS, unroll_len=9)
    assert [default_replicas(c, on_cpu=False) for c in (small, large, huge)] == [GPU_REPLICAS, 4, 1]
    assert [default_replicas(c, on_cpu=True) for c in (small, huge)] == [CPU_REPLICAS, 1]


def test_by_default_every_core_has_a_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    counts = [count_jobs(TrainConfig(device="cpu", torch_threads=threads)) for threads in (1, 2, 4, 9)]
    assert counts == [6, 3, 1, 1]


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 7))
def test_batches_are_a_partition_into_even_parts_at_one_update(updates, limit):
    runs = [
        PlannedRun(TrainConfig(seed=seed), Path(), Path(), update, Path("x.pt") if update else None)
        for seed, update in enumerate(updates)
    ]
    groups = group_runs(runs, limit)
    assert sorted(run.key for group in groups for run in group) == sorted(run.key for run in runs)
    for group in groups:
        assert 1 <= len(group) <= limit
        assert len({run.update for run in group}) == 1
    for update in set(updates):
        sizes = [len(group) for group in groups if group[0].update == update]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == math.ceil(updates.count(update) / limit)


def planned(trial: int, alpha: float, seed: int) -> PlannedRun:
    return PlannedRun(TrainConfig(trial=trial, lpc_alpha=alpha, seed=seed), Path(), Path())


def evaluation(success: float, lpc: float | None) -> dict:
    return {
        "eval/success_rate": success,
        "eval/success_low": success - 0.1,
        "eval/success_high": success + 0.1,
        "eval/mean_lpc": lpc,
        "eval/episodes": 100,
    }


def test_means_and_intervals_over_seeds_by_hand():
    runs = [planned(1, 0.0, seed) for seed in (0, 1, 2)] + [planned(2, 1e-5, seed) for seed in (0, 1)]
    found = {
        (1, 0): evaluation(0.5, 100.0),
        (1, 1): evaluation(0.6, 110.0),
        (1, 2): evaluation(0.7, 120.0),
        (2, 0): evaluation(0.9, None),
    }
    # n = 3: mean 0.6, s = 0.1, t(2 degrees of freedom) = 4.3027; half = 4.3027 x 0.1 / sqrt(3) = 0.2484.
    # LPC: mean 110, s = 10, half = 24.84.
    lines = [line.split() for line in alpha_lines(runs, found)]
    assert lines[1] == ["1", "0", "3", "60.0%", "35.2%", "to", "84.8%", "110", "85", "to", "135"]
    assert lines[2] == ["2", "1e-05", "1", "of", "2", "90.0%", "-", "-", "-"]
    assert "3 runs or more" in " ".join(lines[3])
    rows = [line.split() for line in run_lines(runs, found)]
    assert rows[1] == ["1", "0", "0", "50.0%", "40.0%", "to", "60.0%", "100", "100"]
    assert rows[4] == ["2", "1e-05", "0", "90.0%", "80.0%", "to", "100.0%", "-", "100"]
    assert rows[5] == ["2", "1e-05", "1", "-", "not", "evaluated", "-", "-"]


def test_an_interval_over_runs_stays_within_what_can_be():
    runs = [planned(1, 0.0, seed) for seed in range(3)]
    found = {
        run.key: evaluation(rate, lpc) for run, rate, lpc in zip(runs, (0.8, 1.0, 1.0), (1.0, 9.0, 0.0), strict=True)
    }
    row = alpha_lines(runs, found)[1].split()
    assert row[4:7] == ["64.6%", "to", "100.0%"]  # 0.9333 -+ 4.3027 x 0.11547 / sqrt(3) = 0.2869
    assert row[8:] == ["0", "to", "16"]  # 3.333 -+ 4.3027 x 4.933 / sqrt(3) = 12.25


def test_unknown_flags_of_sweeps_are_suggested(call):
    assert "did you mean" in call("--sedes", "0-2")[2]
    with pytest.raises(ConfigError):
        parse_seeds("x")
