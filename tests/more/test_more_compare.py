"""Models compared over seeds: each run done once, stopped where it is, tabulated."""

import dataclasses
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import more.compare
from more.checkpoints import FINAL_NAME
from more.compare import CompareSettings, Run, compare, format_table, read_result
from pipeline.command.interruption import Terminated
from pipeline.command.workers import Link, Stopped
from pipeline.config import ConfigError
from tests.more_settings import CACHE, SIZES


def test_all_runs_of_a_comparison():
    runs = CompareSettings(preset="debug", seeds="0-2", recurrences="1,2,4").runs()
    assert len(runs) == 3 * (1 + 4 * 3) == 39
    assert runs[:3] == [Run("base", 1, 0), Run("more_a", 1, 0), Run("more_a", 2, 0)]
    for changes in (
        {"variants": "base,more_x"},
        {"jobs": 0},
        {"seeds": "x"},
        {"experts": "2"},
        {"variants": "base_deep"},
    ):
        with pytest.raises(ConfigError):
            CompareSettings(**{"preset": "debug", **changes})


def test_a_comparison_is_done_once_and_tabulated(tmp_path, monkeypatch, capsys):
    original = more.compare.run_config

    def smaller(*arguments):
        return dataclasses.replace(original(*arguments), **SIZES, batch_size=4, match="none")

    monkeypatch.setattr(more.compare, "run_config", smaller)
    settings = CompareSettings(
        **{
            "preset": "debug",
            "variants": "base,more_b",
            "seeds": "0-2",
            "recurrences": "2",
            "updates": 2,
            "num_questions": 4,
        },
        **{"max_documents": 5, "folder": str(tmp_path / "runs"), "cache_dir": CACHE, "match": "none"},
    )
    output = tmp_path / "table.json"
    assert compare(settings, output) == 0
    content = json.loads(output.read_text())
    assert [(row["variant"], row["seeds"]) for row in content["rows"]] == [("base", [0, 1, 2]), ("more_b", [0, 1, 2])]
    figure = content["rows"][1]["perplexity"]
    # Student's t with two degrees of freedom: 4.303 standard errors to either side.
    half = 4.302653 * np.std(figure["values"], ddof=1) / math.sqrt(3)
    assert figure["mean"] == pytest.approx(np.mean(figure["values"]))
    assert figure["high"] - figure["mean"] == pytest.approx(half, rel=1e-5)
    assert output.with_suffix(".md").read_text() == format_table(content)
    assert "guessing evenly" in format_table(content)
    results = sorted((tmp_path / "runs").rglob("result.json"))
    assert len(results) == 6
    times = [path.stat().st_mtime_ns for path in results]
    assert compare(settings, output) == 0  # nothing is done twice
    assert [path.stat().st_mtime_ns for path in results] == times
    with pytest.raises(ConfigError, match=r"other settings \(updates\)"):
        read_result(dataclasses.replace(settings, updates=3), Run("base", 2, 0))
    capsys.readouterr()


def wait_long(link, settings, run):
    path = Path(settings.folder) / "_".join(map(str, run[:3]))
    path.touch()
    while not link.stopping():
        time.sleep(0.05)
    path.with_suffix(".stopped").touch()
    raise Stopped


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGHUP, Terminated)])
def test_a_signal_stops_a_comparison_of_several_jobs(number, error, tmp_path, monkeypatch):
    """Leaving the pool waited for its queue, so that every run that had not begun was still done."""

    def interrupt():
        while len(list(runs.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setattr(more.compare, "run_item", wait_long)
    settings = CompareSettings(preset="debug", variants="base", seeds="0-5", jobs=2, folder=str(runs), cache_dir=CACHE)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(settings, tmp_path / "table.json")
    assert caught.type is error
    begun = ["base_1_0", "base_1_1"]
    assert sorted(path.name for path in runs.iterdir()) == sorted([*begun, *(f"{name}.stopped" for name in begun)])


@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_a_wish_to_stop_ends_a_run_of_a_comparison_where_it_is(when, tmp_path, monkeypatch):
    original = more.compare.run_config
    monkeypatch.setattr(
        more.compare, "run_config", lambda *run: dataclasses.replace(original(*run), **SIZES, match="none")
    )
    asked = 0

    def stopping():
        nonlocal asked
        asked += 1
        return asked == 3 if when == "training" else asked > 4  # asked before each of three updates, then at each tick

    settings = CompareSettings(preset="debug", updates=3, match="none", folder=str(tmp_path), cache_dir=CACHE)
    link = Link(lambda content: None, stopping)
    with pytest.raises(Stopped):
        more.compare.run_item(link, settings, Run("base", 1, 0))
    found = {path.name for path in tmp_path.rglob("*.pth")}
    assert found == ({"checkpoint_2.pth"} if when == "training" else {FINAL_NAME})
    assert not list(tmp_path.rglob("result.json"))
    more.compare.run_item(Link(lambda content: None, lambda: False), settings, Run("base", 1, 0))
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_a_comparison_evaluates_on_the_device_asked_for(tmp_path, monkeypatch):
    asked = []

    def refuse(path, device):
        asked.append(device)
        raise ConfigError("far enough")

    monkeypatch.setattr("more.runs.run_training", lambda *_, **__: 0)
    monkeypatch.setattr("pipeline.command.devices.resolve_device", lambda name: f"device {name}")
    monkeypatch.setattr("more.checkpoints.load_model", refuse)
    with pytest.raises(ConfigError, match="far enough"):
        link = Link(lambda content: None, lambda: False)
        more.compare.run_item(
            link, CompareSettings(preset="debug", device="cuda:3", folder=str(tmp_path)), Run("base", 1, 0)
        )
    assert asked == ["device cuda:3"]


def test_outputs_of_a_comparison_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for flags, said in (
        (["--folder", str(tmp_path / "file")], "folder: expected a folder, found the file"),
        (["--output", str(tmp_path / "folder.json")], "output: expected a file, found the folder"),
    ):
        assert more.compare.main(["--cache_dir", CACHE, "--output", str(tmp_path / "t.json"), *flags]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
