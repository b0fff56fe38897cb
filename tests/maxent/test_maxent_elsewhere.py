"""Experiments whose models are searched by processes that share no folder with the command: the same results."""

import json
from functools import partial
from pathlib import Path

import pytest

from maxent import elsewhere, experiment
from maxent.elsewhere import part_path
from tests.launch_items import take_rays_place
from tests.maxent.test_maxent_experiments import TINY, without_times

WORDS = [*TINY, "--methods", "best_of_n", "dts", "--no_wandb", "--output_dir", "results"]
ELSEWHERE = ["--launcher", "ray", "--launcher_options", "sync_seconds=0.05,folder=record,retries=1"]


@pytest.fixture
def carry(monkeypatch):
    """Return a function that lets processes of this machine take Ray's place, and returns their carrier."""
    return partial(take_rays_place, monkeypatch)


def read(folder: Path) -> tuple[Path, dict]:
    (path,) = folder.glob("results/wandb_experiments_*.json")
    return path, json.loads(path.read_text())


def test_models_searched_elsewhere_have_the_results_of_here(tmp_path, monkeypatch, carry, capsys):
    found = []
    for name, more in (("here", []), ("there", ELSEWHERE)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if more:
            carrier = carry(loses="tree_1.json")  # the first method's last sample is there; its results are not yet
        assert experiment.main([*WORDS, *more]) == 0
        path, content = read(tmp_path / name)
        trees = {p.relative_to(path.with_suffix("")): p.read_text() for p in path.with_suffix("").glob("*/tree_*.json")}
        logs = [
            [without_times(json.loads(line)) for line in log.read_text().splitlines()]
            for log in sorted(path.with_suffix("").glob("*/metrics.jsonl"))
        ]
        found.append((content, trees, logs))
    assert carrier.lost == 1
    (here, trees_here, logs_here), (there, trees_there, logs_there) = found
    assert without_times(strip(there["runs"])) == without_times(strip(here["runs"]))
    assert there["status"] == here["status"] == "done" and trees_here.keys() == trees_there.keys()
    assert [len(log) for log in logs_here] == [len(log) for log in logs_there] and len(logs_here) == 2
    assert not part_path(path, "toy").exists()
    assert experiment.main([*WORDS, *ELSEWHERE, "--resume"]) == 0  # nothing is left


def strip(runs: list[dict]) -> list[dict]:
    """Return runs without what is measured by the clock."""
    clocks = ("summary", "times")
    return [{key: value for key, value in run.items() if key not in clocks} for run in runs]


def test_what_a_driver_that_was_killed_has_of_a_model_is_not_searched_again(tmp_path, monkeypatch, carry):
    monkeypatch.chdir(tmp_path)
    assert experiment.main(WORDS) == 0
    path, done = read(tmp_path)
    part = part_path(path, "toy")
    part.parent.mkdir()
    runs = json.loads(json.dumps(done["runs"]))
    runs[1].update(status="running", samples=runs[1]["samples"][:1])
    part.write_text(json.dumps({"runs": runs}))
    for run in done["runs"]:
        run.update(status="waiting", samples=[])
    path.write_text(json.dumps({**done, "status": "running"}))
    carry()
    assert experiment.main([*WORDS, *ELSEWHERE, "--resume"]) == 0
    _, again = read(tmp_path)
    assert again["runs"][0]["samples"] == runs[0]["samples"]  # with its times: it was not searched again
    assert again["runs"][1]["samples"][0] == runs[1]["samples"][0] and len(again["runs"][1]["samples"]) == 2
    assert not part.exists()


def test_a_model_that_is_lost_too_often_is_a_failure_with_its_reason(tmp_path, monkeypatch, carry, capsys):
    monkeypatch.chdir(tmp_path)
    carry(loses="metrics.jsonl")
    few = [word.replace("retries=1", "retries=0") for word in ELSEWHERE]
    assert experiment.main([*WORDS, *few]) == 1
    _, content = read(tmp_path)
    assert content["status"] == "failed" and {run["status"] for run in content["runs"]} <= {"failed", "done"}
    assert "failed: " in capsys.readouterr().err


def test_a_part_that_cannot_be_read_is_none(tmp_path):
    path = part_path(tmp_path / "x.json", "toy")
    path.parent.mkdir(parents=True)
    for text in ("", "[]", '{"runs": [{}]}', '{"runs": 3}'):
        path.write_text(text)
        assert elsewhere.read_part(tmp_path / "x.json", "toy") == {}
