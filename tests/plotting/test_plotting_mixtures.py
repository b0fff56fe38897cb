"""Figures of one policy on many levels: the task is the level that was played, the mixture is a setting."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import batch_eval
from pipeline.inspection.listing import main as list_runs
from pipeline.places import find_caches
from pipeline.records.cache import read_header
from pipeline.records.results import as_results, read_results
from pipeline.training.command import main as train_command
from plotting.browsing import choose_places, label_place, name_selection, try_caches, try_results
from plotting.choices import find_choices
from plotting.data import as_routing_data
from plotting.logs import read_logs
from plotting.replicates import find_settings
from plotting.runs import by_played_level, collect_runs, describe_shared, group_settings, last_checkpoints
from plotting.sweeps import plot_learning_over_updates
from plotting.tables import name_rows, results_table, select_rows, task_names, ticked_rows
from plotting.task_maps import plot_task_heatmaps
from plotting.views import RESULT_VIEWS, draw_results_view

DEBUG = str(Path(__file__).parents[2] / "configs" / "debug.yaml")
LEVELS = ["BabyAI-GoToObjS6-v1", "BabyAI-GoToRedBallNoDists-v0"]
SHORT = ["GoToObjS6-v1", "GoToRedBallNoDists"]
FEW = ["--num_updates", "2", "--num_envs", "4", "--log_interval", "1", "--final_eval_episodes", "0", "--seeds", "0,1"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """Two seeds of a mixture, two of one of its levels alone, one of a list of one, each evaluated on its levels."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for levels in (["--task_id", ",".join(LEVELS), "--mixture", "two"], ["--task_id", LEVELS[0]]):
            assert train_command("", ["--config", DEBUG, *FEW, "--jobs", "1", "--max_steps", "8", *levels]) == 0
        named = ["--task_id", f"[{LEVELS[1]}]", "--mixture", "one", "--seeds", "0"]
        assert train_command("", ["--config", DEBUG, *FEW, "--max_steps", "8", *named]) == 0
        assert batch_eval.main(["--num_episodes", "2", "--final-only"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)


def test_task_is_the_level_and_the_mixture_a_setting():
    results = by_played_level(read_results("evaluation_results.csv"))
    assert sorted(results["task_id"]) == sorted([*LEVELS * 2, LEVELS[0], LEVELS[0], LEVELS[1]])
    assert results["trained_on"].value_counts().to_dict() == {"two": 4, "one": 1}
    assert by_played_level(results) is results
    runs, notes = collect_runs(read_results("evaluation_results.csv"))
    assert notes == []
    found = group_settings(last_checkpoints(runs)).groupby(["task_id", "label"]).size().to_dict()
    # Trained on two: in one label for both levels, as in a legend.
    assert found == {
        **{(LEVELS[0], ""): 2, (LEVELS[0], "trained on two"): 2},
        **{(LEVELS[1], "trained on two"): 2, (LEVELS[1], "trained on one"): 1},
    }


def test_older_rows_are_of_their_own_level():
    rows = as_results([{"checkpoint_path": "a.pt", "task_id": "T", "num_episodes": 3}])
    assert by_played_level(rows)[["task_id", "trained_on"]].astype(object).fillna("none").values.tolist() == [
        ["T", "none"]
    ]


def test_all_views_of_results_draw_mixtures():
    results, problem = try_results("evaluation_results.csv")
    assert problem == ""
    for view in RESULT_VIEWS:
        assert draw_results_view(results, view)


def test_learning_curves_are_of_the_level():
    logs, notes = read_logs(read_results("evaluation_results.csv"))
    assert notes == []
    assert set(logs["level"]) == {"", *SHORT}
    log = Path("runs/two/trial_1/seed_0/metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    mine = logs[(logs["folder"] == "checkpoints/two/trial_1/seed_0") & (logs["level"] == SHORT[1])]
    assert mine["mean_lpc"].tolist() == [line[f"train/lpc/{SHORT[1]}"] for line in lines]
    axes = plot_learning_over_updates(read_results("evaluation_results.csv"), logs=logs)
    assert axes.shape[0] >= 1


def test_caches_are_listed_by_level():
    places = find_caches("evaluation_cache")
    labels = [label_place(place) for place in places]
    assert len(set(labels)) == len(labels) == 7
    assert f"{SHORT[0]} · trained on two · trial 1 · seed 0 · final" in labels
    assert f"{SHORT[0]} · trial 1 · seed 0 · final" in labels
    assert sorted(place.played for place in choose_places(places)) == sorted(LEVELS)
    choices = find_choices(places, "evaluation_cache")
    assert any(choice.label.startswith(f"{SHORT[1]} · trained on two · success") for choice in choices)
    mixed = next(place for place in places if place.eval_task_id == LEVELS[1])
    assert as_routing_data(*try_caches([mixed])[0].values()).title == LEVELS[1]
    figure = plot_task_heatmaps(*try_caches(places[:2]))
    assert figure.axes


def test_runs_are_joined_within_a_mixture_alone():
    settings, notes = find_settings(find_caches("evaluation_cache"))
    assert notes == []
    told = {(setting.task_id, setting.folder): len(setting.places) for setting in settings}
    assert told == {
        (LEVELS[0], "trial_1_seeds_0_1"): 2,
        (LEVELS[0], "two_trial_1_seeds_0_1"): 2,
        (LEVELS[1], "two_trial_1_seeds_0_1"): 2,
    }
    assert sum("trained on two" in setting.label for setting in settings) >= 1
    for setting in settings:
        data = setting.load()
        assert data.title == setting.task_id
        assert {read_header(place)["task_id"] for place in setting.places} == {setting.places[0].task_id}


def test_tables_tell_levels_of_one_checkpoint_apart():
    results, _ = try_results("evaluation_results.csv")
    table = results_table(results)
    assert set(table["trained on"]) == {"", "two", "one"}
    assert "trained on" not in results_table(results[results["trained_on"].isna()])
    assert set(task_names(results)) == set(SHORT)
    assert len(select_rows(results, tasks=[LEVELS[0]], last_only=True)) == 4
    ticked = table[(table["task"] == SHORT[1]) & (table["seed"] == 1)]
    drawn = ticked_rows(results, ticked)
    assert drawn["task_id"].tolist() == [LEVELS[1]]
    assert ticked_rows(results, ticked.iloc[:0]) is results
    names = name_rows(results)
    assert len(names) == len(results)
    assert name_selection(name_rows(drawn), names).startswith("_GoToRedBallNoDists_")
    pd.testing.assert_frame_equal(results_table(read_results("evaluation_results.csv")), table)


def test_runs_are_listed_by_the_mixture_with_the_mean_over_levels(capsys):
    assert list_runs([]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = read_results("evaluation_results.csv")
    mine = results[(results["task_id"] == "two") & (results["seed"] == 1)]
    (line,) = [line for line in lines if line.split()[:3] == ["two", "1", "1"]]
    assert f"{mine['success_rate'].mean():.1%}" in line
    assert line.split()[-1] == "4"  # levels, of both tasks
    assert "two: GoToObjS6-v1, GoToRedBallNoDists-v0" in lines


def test_a_named_list_of_one_level_is_listed_with_the_interval_of_its_level(capsys):
    assert list_runs([]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.split()[:3] == ["one", "1", "0"]]
    row = read_results("evaluation_results.csv").query("task_id == 'one'").iloc[0]
    assert f"{row['success_low']:.1%} to {row['success_high']:.1%}" in line
    assert "one: GoToRedBallNoDists-v0" in lines


# ------------------------------------------------------------------------------------------------ settings of mixtures


def rows_of_mixtures(**changes) -> list[dict]:
    """Return rows of two runs of one mixture on one level; the second differs in `changes`."""
    common = {
        "eval_task_id": LEVELS[0],
        "task_id": "two",
        "trained_levels": LEVELS,
        "task_weights": None,
        "task_input": "none",
        "policy": "mop",
        "num_episodes": 10,
        "success_rate": 0.5,
        "lpc_alpha": 0.0,
        "mean_lpc": 3.0,
    }
    first = {"checkpoint_path": "a/checkpoint_final.pt", "checkpoint_digest": "aa", "trial": 1, "seed": 0}
    second = {"checkpoint_path": "b/checkpoint_final.pt", "checkpoint_digest": "bb", "trial": 2, "seed": 0}
    return [{**common, **first}, {**common, **second, **changes}]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"task_input": "onehot"}, "task input onehot"),
        ({"task_weights": [1.0, 2.0]}, "weights [1.0,2.0]"),
        ({"trained_levels": LEVELS[::-1]}, f"levels {SHORT[1]}, {SHORT[0]}"),
        ({"obs_encoding": "onehot"}, "observations onehot"),
        ({"mission_fusion": "film"}, "missions by film"),
        ({"expert_action_prob": 0.5}, "expert acts at 0.5 of the steps"),
        ({"solo_env_share": 0.25}, "0.25 of the environments solo"),
    ],
)
def test_runs_that_differ_in_what_a_mixture_is_are_no_replicates(changes, label):
    runs, _ = collect_runs(rows_of_mixtures(**changes))
    found = group_settings(last_checkpoints(runs))
    assert found["setting"].nunique() == 2
    assert label in set(found["label"])
    assert group_settings(last_checkpoints(collect_runs(rows_of_mixtures())[0]))["setting"].nunique() == 1


def test_rows_from_before_these_columns_are_of_runs_told_nothing():
    rows = rows_of_mixtures(task_input=None, obs_encoding=None, mission_fusion=None)
    rows[0]["obs_encoding"], rows[0]["mission_fusion"] = "raw", "concat"
    assert group_settings(last_checkpoints(collect_runs(rows)[0]))["setting"].nunique() == 1


@pytest.mark.parametrize(("policy", "common"), [("mop", "all: "), ("gru", "")])
def test_encodings_are_settings_of_a_level_too(policy, common):
    """Of policies with routers and of the baseline; the caption tells what all see unless that is the raw codes."""
    level = {"policy": policy, "task_id": LEVELS[0], "trained_levels": None}
    rows = [{**row, **level, "obs_encoding": "embedding"} for row in rows_of_mixtures()]
    last = last_checkpoints(collect_runs(rows)[0])
    assert group_settings(last)["label"].tolist() == ["", ""]
    assert (", observations embedding" in describe_shared(last)) == bool(common)
    rows[0]["obs_encoding"] = "raw"
    last = last_checkpoints(collect_runs(rows)[0])
    assert group_settings(last)["label"].tolist() == ["observations embedding", "observations raw"]
    rows[1]["obs_encoding"] = None
    last = last_checkpoints(collect_runs(rows)[0])
    assert group_settings(last)["setting"].nunique() == 1
    assert "observations" not in describe_shared(last)


def test_results_tell_what_was_trained():
    results = read_results("evaluation_results.csv")
    assert set(results["obs_encoding"]) == {"raw"}
    told = {
        task: (members["trained_levels"].iloc[0], members["task_weights"].iloc[0], members["task_input"].iloc[0])
        for task, members in results.groupby("task_id")
    }
    assert told == {"two": (LEVELS, None, "none"), LEVELS[0]: (None, None, "none"), "one": ([LEVELS[1]], None, "none")}


def test_a_named_list_of_one_level_has_a_learning_curve():
    results = read_results("evaluation_results.csv")
    mine = results[results["task_id"] == "one"]
    axes = plot_learning_over_updates(mine, logs=read_logs(mine)[0], metrics=("mean_lpc",))
    lines = [json.loads(line) for line in Path("runs/one/trial_1/seed_0/metrics.jsonl").read_text().splitlines()]
    logged = [(line["update"], line["train/lpc"]) for line in lines if line.get("train/lpc") is not None]
    assert len(logged) == 2
    drawn = [list(zip(*line.get_data(), strict=True)) for line in axes[0, 0].get_lines()]
    assert logged in drawn


def test_a_curve_of_another_level_is_not_drawn():
    """The log of a level alone tells nothing of a level that its policy was merely evaluated on."""
    results = read_results("evaluation_results.csv")
    mine = results[results["task_id"] == "one"].assign(eval_task_id=LEVELS[0])
    axes = plot_learning_over_updates(mine, logs=read_logs(mine)[0], metrics=("mean_lpc",))
    assert [len(line.get_xdata()) for line in axes[0, 0].get_lines()] == [1]


@pytest.mark.filterwarnings("default")  # what marimo warns about is its own
@pytest.mark.parametrize("every", [False, True], ids=["the level picked", "all levels"])
def test_the_notebook_evaluates_a_mixture(every, tmp_path):
    notebook = importlib.import_module("routing_viz")
    kept = []
    state = {}
    defs = {
        "source_field": SimpleNamespace(value=notebook.FRESH),
        "cache_dir_field": SimpleNamespace(value=str(tmp_path / "cache")),
        "checkpoint_dir_field": SimpleNamespace(value="checkpoints"),
        "reload_button": None,
        "get_fresh": lambda: state,
        "set_fresh": lambda found: (state.update(found), kept.append(found)),
        "episodes_field": SimpleNamespace(value=2),
        "environments_field": SimpleNamespace(value=2),
        "every_level_field": SimpleNamespace(value=every),
        "evaluate_button": SimpleNamespace(value=True),
        "keep_button": SimpleNamespace(value=False),
        "replace_field": SimpleNamespace(value=False),
    }
    _, found = notebook.app.run(defs=defs)
    places = found["places"]
    assert {(place.task_id, place.eval_task_id) for place in places} == {
        *(("two", level) for level in LEVELS),
        ("one", LEVELS[1]),
        (LEVELS[0], None),
    }
    (evaluated_now,) = kept
    chosen = found["place_field"].value
    expected = [place for place in places if place.path == chosen.path] if every else [chosen]
    assert list(evaluated_now) == expected
    for place, cache in evaluated_now.items():
        assert cache.header["eval_task_id"] == place.played and len(cache.episodes) == 2
