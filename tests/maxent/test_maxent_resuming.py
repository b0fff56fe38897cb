"""Experiments that were killed or stopped: what is kept, what is gone on with, and what is not."""

import json
import signal
import subprocess
import sys

import pytest

from maxent import experiment
from maxent.results import Results
from tests.maxent_experiments import ROOT, TINY, call, read_lines, read_results, without_times
from tests.maxent_networks import save_more

KILLED = """
import os, signal, sys
from maxent import experiment, metrics
whole = metrics.RunLog.note_rollout
left = [int(sys.argv[1])]
def note(self, rollout):
    whole(self, rollout)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), int(sys.argv[2]))
metrics.RunLog.note_rollout = note
sys.exit(experiment.main(sys.argv[3:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_kill_in_the_middle_of_a_sample_loses_that_sample_only(number, tmp_path):
    flags = [*TINY, "--num_samples", "4", "--methods", "dts", "best_of_n", "--no_wandb"]
    killed = [*flags, "--output_dir", str(tmp_path / "killed")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "8", str(int(number)), *killed],  # within the third sample of three rollouts
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == (-9 if number == signal.SIGKILL else 128 + number), done.stderr
    content = read_results(tmp_path / "killed")
    assert [len(one["samples"]) for one in content["runs"]] == [2, 0]
    if number != signal.SIGKILL:
        assert content["status"] == "interrupted" and "--resume goes on" in done.stderr
    assert experiment.main([*killed, "--resume"]) == 0
    assert experiment.main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    resumed, whole = (read_results(tmp_path / name) for name in ("killed", "whole"))
    assert resumed["status"] == "done"
    for one, other in zip(resumed["runs"], whole["runs"], strict=True):
        assert without_times(one["samples"]) == without_times(other["samples"])
    for name in ("toy_dts", "toy_best_of_n"):
        one, other = (read_lines(tmp_path / folder, name) for folder in ("killed", "whole"))
        assert [line["update"] for line in one] == [line["update"] for line in other]
        assert [line.get("rollout_reward") for line in one] == [line.get("rollout_reward") for line in other]
        assert [line["new_tokens"] for line in one] == [line["new_tokens"] for line in other]


def test_no_sample_is_kept_whose_lines_are_not(tmp_path, monkeypatch):
    whole, found = Results.save, []

    def save(results):
        whole(results)
        for run in results.content["runs"]:
            if run["samples"]:
                found.append(len(read_lines(tmp_path, f"toy_{run['method']}")) - 4 * len(run["samples"]))

    monkeypatch.setattr(Results, "save", save)
    assert call("--no_wandb", output=tmp_path) == 0  # three rollouts and the sample itself are lines; then the end
    assert set(found) == {0, 1}


def test_results_of_other_settings_or_data_are_not_gone_on_with(tmp_path, capsys):
    assert call("--no_wandb", output=tmp_path) == 0
    assert call("--no_wandb", "--lam", "0.5", "--resume", output=tmp_path) == 2
    assert "has other values of lam" in capsys.readouterr().err
    assert call("--no_wandb", "--tags", "new", "--resume", output=tmp_path) == 0  # nothing is left to do
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    content["runs"][0]["samples"][0]["id"] = "another"
    path.write_text(json.dumps(content))
    assert call("--no_wandb", "--resume", output=tmp_path) == 2
    assert "its sample another is now M4-test-0" in capsys.readouterr().err
    path.write_text("{")
    assert call("--no_wandb", "--resume", output=tmp_path) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_weights_and_older_results_do(tmp_path, capsys):
    model, output = tmp_path / "model.pth", tmp_path / "results"
    weights = [save_more(tmp_path / f"{name}.pth", name).read_bytes() for name in ("base", "more_a")]
    flags = ["--models", "toy", "more", "--model_path", f"more={model}", "--methods", "dts", "greedy"]
    flags += ["--dataset", "sums", "--device", "cpu", "--no_wandb"]
    model.write_bytes(weights[0])
    assert call(*flags, output=output) == 0
    (path,) = output.glob("*.json")
    content = json.loads(path.read_text())
    toy, _, whole, left = content["runs"]
    assert toy["digest"] is None and whole["digest"] == left["digest"] and len(whole["digest"]) == 64
    left["status"], left["samples"] = "running", left["samples"][:1]  # as a kill leaves it
    path.write_text(json.dumps(content))
    model.write_bytes(weights[1])
    capsys.readouterr()
    assert call(*flags, "--resume", output=output) == 1
    said = capsys.readouterr().err
    assert f"failed: MoRE, greedy: --resume: expected the weights that {path} was begun with" in said
    assert f"({whole['digest'][:8]}), found others" in said and "put those of before there, or begin anew" in said
    runs = read_results(output)["runs"]
    assert [len(run["samples"]) for run in runs] == [2, 2, 2, 1] and runs[2]["digest"] == runs[3]["digest"]
    model.write_bytes(weights[0])
    assert call(*flags, "--resume", output=output) == 0
    assert without_times(read_results(output)["runs"][3]["samples"]) == without_times(
        [*left["samples"], read_results(output)["runs"][3]["samples"][1]]
    )
    for run in content["runs"]:  # of before there were digests
        del run["digest"]
    path.write_text(json.dumps(content))
    model.write_bytes(weights[1])
    assert call(*flags, "--resume", output=output) == 0
    assert len(read_results(output)["runs"][3]["samples"]) == 2


def test_results_that_were_changed_by_hand_are_not_gone_on_with(tmp_path, capsys):
    assert call("--no_wandb", output=tmp_path) == 0
    (path,) = tmp_path.glob("*.json")
    whole = path.read_text()

    def change(edit):
        content = json.loads(whole)
        edit(content["runs"])
        path.write_text(json.dumps(content))
        assert call("--no_wandb", "--resume", output=tmp_path) == 2
        return capsys.readouterr().err

    for edit in (
        lambda runs: runs.clear(),
        lambda runs: runs[0].pop("samples"),
        lambda runs: runs[0]["samples"].append(5),
        lambda runs: runs[0]["samples"][0].pop("id"),
        lambda runs: runs[0]["samples"][0].update(rollouts=None),
        lambda runs: runs[0]["samples"][0]["rollouts"][0].update(reward=None),
        lambda runs: runs[0]["samples"][0]["answer"].update(rollout=9),
    ):
        assert "cannot be read" in change(edit)
    assert "its sample M4-test-1 now has another label" in change(lambda runs: runs[0]["samples"][1].update(label="x"))
    assert "it has 3 samples, and there are 2 now" in change(
        lambda runs: runs[0]["samples"].append(runs[0]["samples"][0])
    )
    path.write_text(whole)
    assert call("--no_wandb", "--resume", output=tmp_path) == 0


def test_a_budget_that_cannot_end_a_search_is_told(tmp_path, capsys):
    assert call("--no_wandb", "--budget_tokens", "9", output=tmp_path / "never") == 0
    assert "3 rollouts of at most 4 tokens feed no more than 9, so it ends no search" in capsys.readouterr().out
    assert call("--no_wandb", "--budget_tokens", "8", output=tmp_path / "perhaps") == 0
    assert "raise --num_rollouts" not in capsys.readouterr().out


def test_a_disk_that_is_full_leaves_the_results_as_they_were(tmp_path, capsys, monkeypatch):
    from maxent import results

    writes = []

    def write(path, content, **_):
        writes.append(path)
        if len(writes) > 3:
            raise OSError(28, "No space left on device", str(path))
        path.write_text(json.dumps(content))

    monkeypatch.setattr(results, "write_json", write)
    assert call("--no_wandb", output=tmp_path) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert len(read_results(tmp_path)["runs"][0]["samples"]) == 1
