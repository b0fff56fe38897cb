"""Commands whose items are done elsewhere, by processes that share no folder with them: the same as done here."""

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

import batch_eval
import train_mop
from more import compare
from pipeline.checkpoints import read_checkpoint
from pipeline.command.launcher import parse_launcher
from pipeline.config import TrainConfig
from pipeline.launch.journal import read_call, read_states
from pipeline.records.results import read_results
from tests.launch_items import take_rays_place
from tests.training_runs import DEBUG, TASK

SWEEP = [
    "--config",
    DEBUG,
    "--num_updates",
    "24",
    "--checkpoint_interval",
    "4",
    "--log_interval",
    "4",
    "--seeds",
    "0-1",
]
SWEEP += ["--num_envs", "2", "--unroll_len", "8", "--final_eval_episodes", "2", "--max_replicas", "1"]
ELSEWHERE = ["--launcher", "ray", "--launcher_options", "sync_seconds=0.05,folder=record"]


@pytest.fixture
def elsewhere(monkeypatch):
    """Return a function that lets processes of this machine take Ray's place, and returns their carrier."""
    return partial(take_rays_place, monkeypatch)


def folder_in(monkeypatch, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


def name_files(paths: Iterable[str], *suffixes: str) -> list[str]:
    return sorted(Path(path).name for path in paths if path.endswith(suffixes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with a sweep and its evaluation, done here."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert train_mop.main([*SWEEP, "--jobs", "1"]) == 0
        assert batch_eval.main(["--num_episodes", "4", "--final-only"]) == 0
    return folder


def test_a_sweep_that_loses_a_process_has_the_same_bits(trained, tmp_path, monkeypatch, elsewhere, capsys):
    monkeypatch.chdir(tmp_path)
    carrier = elsewhere(loses="checkpoint_8.pt")
    assert train_mop.main([*SWEEP, *ELSEWHERE]) == 0
    assert carrier.lost == 1 and carrier.most == 2
    said = capsys.readouterr()
    assert "it goes on elsewhere from what has come back" in said.err and "resumed at update" in said.out
    assert [name_files(sent, ".pt") for sent in carrier.sent[:2]] == [[], []]
    ((last,),) = [name_files(sent, ".pt") for sent in carrier.sent[2:]]
    assert last != "checkpoint_4.pt"  # alone, though that one has come back too
    assert name_files(carrier.sent[2], ".jsonl", ".yaml") == ["config.yaml", "metrics.jsonl"]
    paths = sorted(path.relative_to(trained) for path in trained.glob("checkpoints/**/*.pt"))
    assert paths == sorted(path.relative_to(tmp_path) for path in tmp_path.glob("checkpoints/**/*.pt"))
    for path in paths:
        one, other = read_checkpoint(trained / path), read_checkpoint(tmp_path / path)
        assert one["config"] == other["config"]
        for name, value in one["policy_state_dict"].items():
            assert torch.equal(value, other["policy_state_dict"][name])
    for seed in (0, 1):
        log = Path(f"runs/{TASK}/trial_1/seed_{seed}/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["update"] for line in log] == [4, 8, 12, 16, 20, 24, 24]
    assert [state.state for state in read_states(Path("record"))] == ["done", "done"]
    assert train_mop.main([*SWEEP, *ELSEWHERE]) == 0
    assert "all runs are complete" in capsys.readouterr().out


def test_a_sweep_that_is_taken_up_takes_along_no_more_than_it_goes_on_from(tmp_path, monkeypatch, elsewhere, trained):
    monkeypatch.chdir(tmp_path)
    elsewhere()
    shorter = [*SWEEP[:3], "12", *SWEEP[4:]]
    assert train_mop.main([*shorter, *ELSEWHERE]) == 0
    carrier = elsewhere()
    assert train_mop.main([*SWEEP, *ELSEWHERE, "--resume"]) == 0
    assert [name_files(sent, ".pt") for sent in carrier.sent] == 2 * [["checkpoint_8.pt", "checkpoint_final.pt"]]
    paths = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("checkpoints/**/*.pt"))
    assert name_files(map(str, paths), ".pt") == sorted(  # 12 was the end at first
        2 * [*(f"checkpoint_{update}.pt" for update in (4, 8, 16, 20)), "checkpoint_final.pt"]
    )
    for path in paths:
        one, other = read_checkpoint(trained / path), read_checkpoint(tmp_path / path)
        assert one["update"] == other["update"]
        for name, value in one["policy_state_dict"].items():
            assert torch.equal(value, other["policy_state_dict"][name])


def test_a_run_that_is_given_up_is_a_failed_item(tmp_path, monkeypatch, elsewhere, capsys):
    monkeypatch.chdir(tmp_path)
    elsewhere()
    assert train_mop.main([*SWEEP, *ELSEWHERE, "--lr", "1e30", "--seeds", "0"]) == 1
    (state,) = read_states(Path("record"))
    assert state.state == "failed" and "1 of 1 runs given up" in state.why
    assert "gradient norm" in capsys.readouterr().err


def test_an_evaluation_elsewhere_has_each_row_once(trained, tmp_path, monkeypatch, elsewhere, capsys):
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    monkeypatch.chdir(tmp_path)
    carrier = elsewhere(loses="routing_data.json")
    words = ["--num_episodes", "4", "--final-only", *ELSEWHERE]
    assert batch_eval.main([*words, "--jobs", "1", "--together", "1"]) == 0
    assert carrier.lost == 1 and carrier.most == 1
    rows, expected = (
        read_results(place / "evaluation_results.csv")
        .drop(columns="evaluated_at")
        .sort_values("seed", ignore_index=True)
        for place in (tmp_path, trained)
    )
    names = rows.pop("checkpoint_path"), expected.pop("checkpoint_path")
    assert list(names[0]) == [str(trained / name) for name in names[1]] and len(rows) == 2  # a link is followed
    assert rows.equals(expected)
    assert len(list(Path("evaluation_cache").rglob("routing_data.json"))) == 2
    capsys.readouterr()
    elsewhere()
    assert batch_eval.main(words) == 0
    assert capsys.readouterr().out.count("(done before)") == 2


@pytest.mark.parametrize("launcher", ["ray", "modal", "slurm"])
def test_only_machines_that_share_files_write_into_the_results(launcher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"checkpoints/{TASK}/trial_1/seed_0/checkpoint_final.pt")
    path.parent.mkdir(parents=True)
    path.touch()
    plans = []
    monkeypatch.setattr(
        "pipeline.evaluation.elsewhere.launch", lambda items, **_: plans.extend(item.arguments[0] for item in items)
    )
    results = tmp_path / "results" / "rows.csv"
    words = ["--num_episodes", "2", "--results_path", str(results), "--launcher", launcher]
    assert batch_eval.main(words) == 1  # nothing came back
    (plan,) = plans
    assert plan.force and plan.results_path == (results if launcher == "slurm" else Path("evaluation_results.csv"))


def test_a_call_is_made_again_with_the_words_that_its_command_knows(tmp_path, monkeypatch):
    """A study trains as `train_mop.py` does, but its command has no --resume."""
    from pipeline.training.driver import train_runs
    from pipeline.training.options import Sweep

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.training.driver.train_group", lambda *_: None)
    monkeypatch.setattr("sys.orig_argv", ["python", "command.py"])
    sweep = Sweep((TrainConfig(task_id=str(TASK), device="cpu"),), jobs=1)
    found = []
    for more in ({}, {"again": ()}):
        with suppress(OSError):  # nothing was trained
            train_runs(sweep, resume=True, launcher=parse_launcher("local", "folder=record"), **more)
        found.append(read_call(Path("record"))["command"])
    assert found == [["command.py", "--resume"], ["command.py"]]


def test_an_evaluation_elsewhere_names_what_fails(tmp_path, monkeypatch, elsewhere, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path(f"checkpoints/{TASK}/trial_1/seed_0/checkpoint_final.pt")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    elsewhere()
    assert batch_eval.main(["--num_episodes", "4", *ELSEWHERE]) == 1
    assert f"failed: {path}: " in capsys.readouterr().err
    assert not Path("evaluation_results.csv").exists()


def test_absolute_folders_are_refused_in_one_line(tmp_path, monkeypatch, elsewhere, capsys):
    monkeypatch.chdir(tmp_path)
    elsewhere()
    assert train_mop.main([*SWEEP, *ELSEWHERE, "--checkpoint_dir", str(tmp_path / "c")]) == 2
    assert "expected a path below the current folder" in capsys.readouterr().err


def test_a_comparison_elsewhere_has_the_same_figures(tmp_path, monkeypatch, elsewhere):
    words = ["--preset", "chains", "--variants", "base,looped", "--recurrences", "2", "--seeds", "0", "--experts", "2"]
    words += ["--test_recurrences", "1,2", "--updates", "2", "--num_questions", "10", "--device", "cpu"]
    found = []
    for name, more in (("here", []), ("there", ELSEWHERE)):
        folder = folder_in(monkeypatch, tmp_path / name)
        if more:
            elsewhere()
        assert compare.main([*words, *more]) == 0
        paths = sorted(folder.rglob("result.json"))
        found.append({path.parent.relative_to(folder): json.loads(path.read_text())["evaluation"] for path in paths})
        assert json.loads(Path("more_comparison.json").read_text())
    assert found[0] == found[1] and len(found[0]) == 2
