"""From rows of results to runs and settings: what is a run, what replicates what, and fronts by hand."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from pipeline.records.adding import append_results
from pipeline.records.cells import COLUMNS
from pipeline.records.intervals import wilson_interval
from pipeline.records.results import as_results, read_results
from plotting.across import plot_success_against_lpc
from plotting.runs import (
    FURTHER_COLUMNS,
    FURTHER_FIELDS,
    collect_runs,
    describe_collapse,
    group_settings,
    last_checkpoints,
    pareto_front,
    short_task,
    success_intervals,
)
from tests.figures import visible_text
from tests.result_rows import SEEDS, constant, row


def settings_of(rows):
    """Return the number of runs of each setting, and the labels."""
    found = group_settings(last_checkpoints(collect_runs(rows)[0])).groupby(["setting", "label"]).size()
    return found.tolist(), found.index.get_level_values("label").tolist()


# ------------------------------------------------------------------------------------------------------------- runs


def test_checkpoints_of_a_run_are_one_run():
    rows = [
        row(0.9, 9.0, update=1000, final=False),
        row(0.2, 1.0, update=250, final=False),
        row(0.95, 8.0, update=1200),
    ]
    runs, notes = collect_runs(rows)
    assert runs["run"].nunique() == 1 and notes == []
    assert runs["update"].tolist() == [250, 1000, 1200]  # not sorted as text
    last = last_checkpoints(runs)
    assert last["success_rate"].tolist() == [0.95] and last["path_ratio"].isna().all()


def test_a_final_checkpoint_is_its_last_numbered_one():
    runs, _ = collect_runs([row(0.9, 9.0, update=600), row(0.9, 9.0, update=600, final=False)])
    assert len(runs) == 1 and runs["checkpoint_path"].iloc[0].endswith("final.pt")


def test_a_final_checkpoint_of_unknown_update_comes_last():
    runs, _ = collect_runs([row(0.9, 9.0, update=None), row(0.3, 9.0, update=600, final=False)])
    assert last_checkpoints(runs)["success_rate"].tolist() == [0.9]


def test_a_final_checkpoint_comes_last_although_a_numbered_one_is_of_a_later_update():
    later = [row(0.1, 9.0, update=update, final=False) for update in (600, 700)]
    runs, _ = collect_runs([*later, row(0.9, 9.0, update=600)])
    assert runs["success_rate"].tolist() == [0.1, 0.9] and runs["run"].nunique() == 1


def test_seeds_replicate_and_settings_do_not():
    counts, labels = settings_of([*SEEDS, row(0.5, 9.0, seed=3, lpc_alpha=1e-4), row(0.5, 9.0, seed=4, lpc_alpha=None)])
    assert counts == [1, 3, 1]
    assert labels == ["", "\N{GREEK SMALL LETTER ALPHA} = 1e-05", "\N{GREEK SMALL LETTER ALPHA} = 0.0001"]


def test_a_copied_run_replicates_nothing():
    copied = [row(0.9, 100.0, seed=0, digest="same"), row(0.9, 100.0, seed=0, trial=2, digest="same")]
    runs, notes = collect_runs(copied)
    assert len(runs) == 1 and notes == ["1 run with the weights of another left out"]
    assert "1 run with the weights of another left out" in visible_text(plot_success_against_lpc(copied))
    elsewhere = row(0.9, 100.0, task="BabyAI-GoToLocal-v0", digest="same")
    assert len(collect_runs([copied[0], elsewhere])[0]) == 2  # another task is another measurement


def test_labels_name_what_differs_within_a_task():
    assert settings_of([row(1.0, 9.0), row(1.0, 9.0, task="BabyAI-GoToLocal-v0", num_updates=5)])[1] == ["", ""]
    assert settings_of([row(1.0, 9.0), row(1.0, None, trial=2, lpc_alpha=7.0)])[1] == ["gru", "moe"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("max_steps", 64, "max_steps 64"), ("eval_seed", 7, "eval_seed 7"), ("eval_actions", "sample", "actions: sample")],
)
@pytest.mark.parametrize("lpc", [9.0, None])
def test_runs_evaluated_differently_replicate_nothing(column, value, words, lpc):
    """Success within 64 steps was averaged with that within the level's limit."""
    rows = [row(0.9, lpc, seed=0), row(0.9, lpc, seed=1), row(0.2, lpc, seed=2, **{column: value})]
    labels = ["actions: greedy" if column == "eval_actions" else "", words]
    assert settings_of(rows) == ([2, 1], labels)
    written = visible_text(plot_success_against_lpc(rows))
    assert words in written and (lpc is not None or f"gru, {words}, no LPC (n = 1)" in written)


TOLD = {"num_envs": 16, "action_selection": "greedy", "expert_action_decay": 0, "plan_every": 8}
"""What every row of today tells of the training, beside what may be nothing."""

OTHERWISE = {
    "num_envs": (64, "num_envs 64", "num_envs 16"),
    "action_selection": ("sample", "action_selection sample", "action_selection greedy"),
    "expert_action_decay": (100, "expert_action_decay 100", "expert_action_decay 0"),
    "plan_every": (0, "plan_every 0", "plan_every 8"),
    "grad_clip": (0.5, "grad_clip 0.5", "grad_clip none"),
    "expert_dropout_beta": (0.5, "expert_dropout_beta 0.5", "expert_dropout_beta none"),
    "expert_dropout_gamma": (0.5, "expert_dropout_gamma 0.5", "expert_dropout_gamma none"),
    "start_from": ("c/{seed}.pt", "start_from c/{seed}.pt", "start_from none"),
    "train_only": (["router", "head"], "train_only ['router','head']", "train_only none"),
    "trained_max_steps": (50, "max_steps 50 in training", "max_steps none in training"),
}


@pytest.mark.parametrize("column", OTHERWISE)
def test_runs_trained_differently_replicate_nothing(tmp_path, column):
    """They were joined, and their spread was shown as that of seeds."""
    value, words, others = OTHERWISE[column]
    rows = [row(0.9, 9.0, seed=seed, **TOLD) for seed in (0, 1)]
    append_results(tmp_path / "r.csv", [*rows, row(0.2, 9.0, seed=2, **TOLD | {column: value})])
    counts, labels = settings_of(read_results(tmp_path / "r.csv"))
    assert dict(zip(labels, counts, strict=True)) == {others: 2, words: 1}


def test_all_that_decides_the_weights_has_a_column():
    """A field that is added to the configuration needs one: `FURTHER_COLUMNS`."""
    by_other_columns = {"task_id", "input_dim"}  # `task_id`, `trained_on` and `trained_levels`; the width is always 152
    assert set(FURTHER_FIELDS) - by_other_columns == set(FURTHER_COLUMNS)
    assert set(FURTHER_COLUMNS.values()) <= set(COLUMNS) and set(OTHERWISE) == set(FURTHER_COLUMNS.values())


def test_rows_that_do_not_tell_how_they_were_trained_are_a_setting_of_their_own():
    older = [row(0.9, 9.0, seed=seed) for seed in (0, 1, 2)]
    assert settings_of(older) == ([3], [""])  # beside no others there is nothing to doubt
    counts, labels = settings_of([*older, row(0.9, 9.0, seed=3, **TOLD)])
    assert dict(zip(labels, counts, strict=True)) == {"configuration unknown": 3, "": 1}


def test_checkpoints_evaluated_otherwise_than_the_last_are_told():
    rows = [
        row(0.1, 9.0, update=100, final=False, eval_seed=7),
        row(0.2, 9.0, update=200, final=False, eval_seed=0),
        row(0.9, 9.0, update=300, eval_seed=0),
    ]
    drawn = row(0.3, 9.0, update=250, final=False, eval_seed=0, eval_actions="sample")
    runs, _ = collect_runs([*rows, drawn])
    assert runs["update"].tolist() == [200, 300]
    runs, notes = collect_runs(rows)
    assert runs["update"].tolist() == [200, 300]
    otherwise = "evaluated with another max_steps, eval_seed or eval_actions than the last of the run"
    assert notes == [f"1 checkpoint left out, {otherwise}"]


def test_what_only_routers_have_does_not_part_baselines():
    rows = [row(0.5, None, seed=0, lpc_alpha=0.0), row(0.5, None, seed=1, lpc_alpha=1e-5)]
    assert settings_of(rows)[0] == [2]
    assert settings_of([*rows, row(0.5, None, seed=2, hidden_size=64)])[1] == ["", "hidden_size 64"]


def test_runs_of_two_folders_are_two_runs():
    """The later one took the place of the earlier one, and nothing said so."""
    rows = [row(0.9, 9.0, digest="a"), row(0.1, 5.0, digest="b")]
    rows[1]["checkpoint_path"] = "other/" + rows[1]["checkpoint_path"].removeprefix("c/")
    for order in (rows, rows[::-1]):
        runs, notes = collect_runs(order)
        assert runs["success_rate"].tolist() == [0.9, 0.1] and runs["run"].is_unique
        assert notes == ["1 run with the task, trial and seed of another in another folder"]
    numbered = row(0.4, 9.0, update=50, final=False)
    assert collect_runs([*rows, numbered])[0].groupby("run").size().tolist() == [2, 1]
    copied = [rows[0], rows[1] | {"checkpoint_digest": "a"}]
    assert collect_runs(copied)[1] == ["1 run with the weights of another left out"]


def test_a_checkpoint_that_cannot_be_told_from_another_is_told():
    rows = [row(0.9, 9.0, trial=None, seed=None, update=None, digest=name) for name in "ab"]
    rows = [found | {"checkpoint_path": f"models/{name}.pt"} for found, name in zip(rows, "ab", strict=True)]
    runs, notes = collect_runs(rows)
    assert len(runs) == 1 and notes == ["1 checkpoint left out, of the same run and update as another"]


def test_names_of_tasks_are_shortened():
    assert short_task("BabyAI-GoToObj-v0") == "GoToObj" and short_task("BabyAI-GoToObjS6-v1") == "GoToObjS6-v1"


def test_the_interval_of_a_success_rate_is_wilsons():
    rows = [row(0.9, 1.0), row(0.9, 1.0, success_low=0.1, success_high=0.95), row(None, 1.0)]
    low, high = success_intervals(as_results(rows))
    assert (low[0], high[0]) == wilson_interval(90, 100)
    assert (low[1], high[1]) == (0.1, 0.95)
    assert np.isnan(low[2]) and np.isnan(high[2])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row(1.0, 100.0), ""),
        (row(1.0, 5.0), "zero"),
        (row(1.0, 0.0), "zero"),
        (row(0.5, 512.0, **constant(512.0)), "constant"),
        (row(0.5, 512.0, **constant(512.0) | {"mean_lpc_timeout": 513.0}), ""),
        (row(1.0, 512.0, **constant(512.0) | {"mean_lpc_timeout": None}), "constant"),
        # Only timeouts: all episodes are equally long, so that equal means say nothing.
        (row(0.0, 512.0, **constant(512.0) | {"mean_lpc_success": None}), ""),
        (row(1.0, None), ""),
        (row(0.9, 20.0, lpc_exponent=2.0), "zero"),
        (row(0.9, 20.0, lpc_exponent=1.0), ""),  # of at most 96
    ],
)
def test_collapsed_routers_are_recognised(found, expected):
    assert describe_collapse(as_results([found])).tolist() == [expected]


def test_experts_of_a_single_layer_may_be_a_flat_list():
    """Older rows spell one layer `[16, 32]`, at which figures ended with "int object is not iterable"."""
    rows = [row(0.9, lpc, seed=seed, expert_hidden_sizes=[16, 32]) for seed, lpc in enumerate((5.0, 500.0))]
    assert collect_runs(rows)[0]["collapse"].tolist() == ["zero", ""]


def test_results_of_two_files_can_be_drawn_together():
    """Both number their rows from 0."""
    one, other = as_results(SEEDS[:2]), as_results(SEEDS[2:])
    runs, notes = collect_runs(pd.concat([one, other]))
    assert len(runs) == 3 and notes == []
    assert "3 runs" in visible_text(plot_success_against_lpc(pd.concat([one, other])))


# --------------------------------------------------------------------------------------------------------- the front


def test_the_front_by_hand():
    success, lpc = [0.9, 0.8, 0.8, 0.5, 1.0, 0.7], [500, 300, 400, 100, 900, math.nan]
    assert pareto_front(success, lpc).tolist() == [3, 1, 0, 4]
    assert pareto_front([0.5, 0.5], [10, 10]).tolist() == [0, 1]  # equal points do not beat each other
    assert pareto_front([], []).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
@settings(max_examples=50, deadline=None)
def test_no_point_beats_the_front_and_the_front_beats_the_rest(points):
    front = {points[k] for k in pareto_front([s for s, _ in points], [c for _, c in points])}
    for s, c in points:
        beaten = any(a >= s and b <= c and (a, b) != (s, c) for a, b in points)
        assert beaten == ((s, c) not in front)
