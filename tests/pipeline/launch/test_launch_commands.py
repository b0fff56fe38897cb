"""Commands whose items are done elsewhere, by processes that share no folder with them: the same as done here."""

import json
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch

import batch_eval
import train_mop
from more import compare
from pipeline.checkpoints import read_checkpoint
from pipeline.launch import items
from pipeline.launch.driver import drive
from pipeline.launch.journal import read_states
from pipeline.records.results import read_results
from tests.launch_items import ProcessCarrier
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

    def install(**more) -> ProcessCarrier:
        carrier = ProcessCarrier(**more)
        monkeypatch.setattr(items, "_open", lambda _, stack: partial(drive, stack.enter_context(closing(carrier))))
        return carrier

    return install


def folder_in(monkeypatch, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


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
    assert carrier.lost == 1
    said = capsys.readouterr()
    assert "it goes on elsewhere from what has come back" in said.err and "resumed at update" in said.out
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
    elsewhere(loses="routing_data.json")
    words = ["--num_episodes", "4", "--final-only", *ELSEWHERE]
    assert batch_eval.main(words) == 0
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
