"""Figures of what older code left: caches of every form in every view, and results of other programs."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from pipeline.places import find_caches
from pipeline.records.cache import read_cache, read_header
from pipeline.records.cells import FIRST_COLUMNS
from pipeline.records.results import read_results
from plotting.browsing import describe_cache, label_place, try_caches
from plotting.command import main
from plotting.data import as_routing_data
from plotting.replicates import find_settings
from plotting.tables import metrics_table
from plotting.views import CACHE_VIEWS, RESULT_VIEWS, ViewOptions, draw_results_view, draw_view, list_views
from tests.notebooks import TASKS, write_example
from tests.older_caches import FORMS, TASK, write_form

MAPS = {"overall", "weights", "entropy", "paths"}
LATEST = (
    MAPS
    | {"starting_room", "carrying", "actions", "distances", "specialisation"}
    | {
        *("cell_actions", "actions_by_carrying"),
    }
)
SUPPORTED = {
    "steps alone": MAPS,
    "contexts": MAPS | {"starting_room"},
    "layouts": MAPS | {"starting_room"},
    "carrying": MAPS | {"starting_room", "carrying", "cell_actions"},
    "clocks": LATEST | {"episode", "elapsed", "without_time", "behaviour", "association"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_view_is_drawn_or_says_what_is_missing(tmp_path, form):
    data = as_routing_data(read_cache(write_form(tmp_path, form)))
    supported = SUPPORTED.get(form, LATEST)
    assert set(list_views(data)) == supported
    for view in CACHE_VIEWS:
        if view in supported:
            for figure in draw_view(data, view, ViewOptions()).values():
                figure.canvas.draw()
                plt.close(figure)
        else:
            with pytest.raises(ValueError, match=rf"supports \(overall, .*\), found '{view}': [a-z].*[a-z]$"):
                draw_view(data, view, ViewOptions())


@pytest.mark.parametrize("form", FORMS)
def test_what_notebooks_show_beside_figures(tmp_path, form):
    cache = read_cache(write_form(tmp_path, form))
    assert "`old.pt`" in describe_cache(cache) and "evaluated 2026-02-11 10:00" in describe_cache(cache)
    assert metrics_table(cache.metrics)["value"].tolist() == ["0.0%", "not known", "900.0", "not known"]
    assert read_header(cache.path)["metrics"]["path_ratio"] is None


def test_steps_alone_tell_no_level(tmp_path):
    data = as_routing_data(read_cache(write_form(tmp_path, "steps alone")))
    assert data.describe_size() == "layouts not known, 15 steps"
    assert {record["t_step"] for record in data.records()} == {None}
    assert [record["env_context"] for record in data.records()] == [{}] * 15


def test_flat_sizes_are_one_layer_wherever_they_are_shown(tmp_path):
    path = write_form(tmp_path, "flat")
    assert read_header(path)["expert_hidden_sizes"] == [[0, 16, 32]]
    assert "experts 0,16,32," in describe_cache(read_cache(path))


def test_a_folder_of_all_forms(tmp_path, monkeypatch, capsys):
    """Each is found, told apart and drawn in a place of its own; a truncated one is named once."""
    monkeypatch.chdir(tmp_path)
    for form in FORMS:
        write_form(tmp_path / "old", form)
    damaged = tmp_path / "old" / "BabyAI-Open-v0" / "trial_1" / "routing_data.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text(json.dumps({"routing_data": []})[:-5], encoding="utf-8")
    places = find_caches("old")
    assert len(places) == len(FORMS) + 1
    labels = [label_place(place) for place in places]
    assert len(set(labels)) == len(labels)
    assert "GoToObj · trial 5 · seed 0 · update unknown" in labels
    assert "GoToObj · trial 5 · seed 0 · update 600 · in a doubled folder" in labels
    caches, problems = try_caches(places)
    assert len(caches) == len(FORMS) and len(problems) == 1
    assert main(["--all_caches", "old", "--view", "paths,across_tasks", "--formats", "svg"]) == 1
    captured = capsys.readouterr()
    drawn = {path.relative_to(tmp_path / "plots").parent.as_posix() for path in tmp_path.rglob("routing_paths.svg")}
    assert drawn == {folder.format(task=TASK) for _, folder in FORMS.values()}
    assert (tmp_path / "plots" / "routing_heatmap_across_tasks.svg").exists()
    failed = [line for line in captured.err.splitlines() if line.startswith("failed")]
    assert len(failed) == 2 and all(line.count("old/BabyAI-Open-v0") == 1 for line in failed)  # once for each view
    found, notes = find_settings(places)
    assert found == [] and sum("of an older form" in note for note in notes) == len(FORMS)


def test_copies_in_doubled_folders_are_no_further_runs(tmp_path):
    folder = Path(write_example(tmp_path)["cache_dir"])
    before, _ = find_settings(find_caches(folder))
    assert [len(setting.places) for setting in before] == [2, 2]
    for task in TASKS:
        shutil.copytree(folder / task, tmp_path / "copy")
        shutil.move(tmp_path / "copy", folder / task / task)
        (folder / task / "trial_1" / "seed_0" / "update_100").rename(folder / task / "trial_1/seed_0/update_unknown")
    places = find_caches(folder)
    assert len(places) == 12 and len({label_place(place) for place in places}) == 12
    after, _ = find_settings(places)
    assert [(s.label, s.folder, s.places) for s in after] == [(s.label, s.folder, s.places) for s in before]


def test_compact_caches_are_listed_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path(write_example(tmp_path)["cache_dir"])
    plain = [place.path for place in find_caches(folder)]
    for path in plain:
        path.with_name("routing_data.json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert [place.path.name for place in find_caches(folder)] == ["routing_data.json.gz"] * 6
    assert main(["--all_caches", str(folder), "--view", "paths", "--formats", "svg"]) == 0
    assert main(["--cache", str(plain[0]), "--view", "actions", "--formats", "svg"]) == 0
    assert len(list((tmp_path / "plots").rglob("*.svg"))) == 7
    assert [len(setting.load()) for setting in find_settings(find_caches(folder))[0]] == [54, 54]


# --------------------------------------------------------------------------------------------------------- results

ROW = "c/BabyAI-GoToObj-v0/trial_{k}/checkpoint_{update}.pt,BabyAI-GoToObj-v0,{k},100,{success},{ratio},900,0,1000,32,"
ROW += '3e-04,{alpha},"{sizes}",64,64,,32,2026-02-11T10:00:00'
RUNS = [(k, update) for k in range(1, 5) for update in (500, "final")]


def write_results(path, end="", **cells):
    cells = {"sizes": "[[0, 16, 32], [0, 16, 32]]", "success": 0.5, "ratio": 1.2} | cells
    rows = [ROW.format(k=k, update=update, alpha=1e-5 * (k % 2), **cells) for k, update in RUNS]
    path.write_text("".join(f"{line}{end}\n" for line in (",".join(FIRST_COLUMNS), *rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "cells",
    [
        {"sizes": "[32, 64, 128]"},
        {"sizes": "['32,64,128', '64,128,256']"},
        {"sizes": ""},
        {"end": ",,"},
        {"success": "nan", "ratio": "nan"},
        {"success": 0.0, "ratio": "inf"},
        {"success": "", "ratio": ""},
    ],
    ids=str,
)
def test_results_of_older_code_in_every_view(tmp_path, cells):
    path = write_results(tmp_path / "r.csv", **cells)
    read = pd.read_csv(path) if "end" not in cells else read_results(path)
    for results in (read_results(path), read.replace({np.inf: np.nan})):
        for view in RESULT_VIEWS:
            for figure in draw_results_view(results, view).values():
                figure.canvas.draw()
                plt.close(figure)
