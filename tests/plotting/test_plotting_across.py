"""Figures across runs: what is a run, what replicates what, intervals and fronts by hand, and what may not vanish."""

import copy
import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.records.adding import append_result
from pipeline.records.intervals import mean_interval, wilson_interval
from pipeline.records.results import COLUMNS, as_results, read_results
from plotting.across import COLLAPSED, plot_success_against_lpc, plot_task_bars
from plotting.panels import GREY
from plotting.runs import (
    collect_runs,
    describe_collapse,
    group_settings,
    last_checkpoints,
    pareto_front,
    short_task,
    success_intervals,
)
from plotting.settings import spread_over_runs
from plotting.style import alpha_color
from plotting.sweeps import plot_alpha_sweep, plot_learning_over_updates
from plotting.views import RESULT_VIEWS, draw_results_view
from tests.figures import texts_outside

T2 = 4.302652729749462  # Student's t with 2 degrees of freedom, 97.5 %
SIZES = [[0, 16, 32], [0, 16, 32]]


def row(success, lpc, *, seed=0, trial=1, update=100, task="BabyAI-GoToObj-v0", final=True, digest=None, **more):
    """Return a row as `read_results` gives it; LPC differs between outcomes unless told otherwise."""
    found = dict.fromkeys(COLUMNS)
    found |= {
        "checkpoint_path": f"c/{task}/trial_{trial}/seed_{seed}/checkpoint_{'final' if final else update}.pt",
        "checkpoint_digest": digest or f"{task} {trial} {seed} {update}",
        "task_id": task,
        "trial": trial,
        "seed": seed,
        "update": update,
        "num_episodes": 100,
        "success_rate": success,
        "mean_lpc": lpc,
        "policy": "moe" if lpc is not None else "gru",
        "expert_hidden_sizes": SIZES if lpc is not None else None,
        "lpc_alpha": 1e-5,
        "num_updates": 100,
    }
    if lpc is not None:
        found |= {"mean_lpc_per_episode": 0.9 * lpc, "mean_lpc_success": 0.8 * lpc, "mean_lpc_timeout": 1.3 * lpc}
    return found | more


def constant(lpc):
    """Return what a router that always costs the same leaves in a row."""
    return {"mean_lpc_per_episode": lpc, "mean_lpc_success": lpc, "mean_lpc_timeout": lpc * (1 + 1e-7)}


def settings_of(rows):
    """Return the number of runs of each setting, and the labels."""
    found = group_settings(last_checkpoints(collect_runs(rows)[0])).groupby(["setting", "label"]).size()
    return found.tolist(), found.index.get_level_values("label").tolist()


def texts(ax) -> str:
    return "\n".join(" ".join(text.get_text().split()) for text in ax.figure.findobj(Text) if text.get_visible())


SEEDS = [row(0.9, 100.0, seed=0), row(0.8, 200.0, seed=1), row(0.4, 600.0, seed=2)]

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
    assert "1 run with the weights of another left out" in texts(plot_success_against_lpc(copied))
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
    written = texts(plot_success_against_lpc(rows))
    assert words in written and (lpc is not None or f"gru, {words}, no LPC (n = 1)" in written)


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
    assert "3 runs" in texts(plot_success_against_lpc(pd.concat([one, other])))


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


# ------------------------------------------------------------------------------------------------------------ figures


def lines_of(ax, vertical=True):
    """Return the ends of all drawn intervals, rounded."""
    found = set()
    for collection in ax.collections:
        if hasattr(collection, "get_segments"):
            for (x0, y0), (x1, y1) in collection.get_segments():
                if (x0 == x1) == vertical:
                    found.add((round(y0 if vertical else x0, 6), round(y1 if vertical else x1, 6)))
    return found


def test_success_and_lpc_of_three_seeds_by_hand():
    ax = plot_success_against_lpc(SEEDS)
    wilson = {tuple(round(end, 6) for end in wilson_interval(k, 100)) for k in (90, 80, 40)}
    half = T2 * math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2 / 3)
    assert wilson | {(round(0.7 - half, 6), 1.0)} == lines_of(ax)  # the t interval ends at 1
    half = T2 * math.sqrt((200**2 + 100**2 + 300**2) / 2 / 3)
    assert lines_of(ax, vertical=False) == {(0.0, round(300 + half, 6))}
    assert "3 runs" in texts(ax)


def test_two_seeds_have_a_hollow_mean_and_no_interval():
    ax = plot_success_against_lpc(SEEDS[:2])
    assert lines_of(ax, vertical=False) == set() and len(lines_of(ax)) == 2
    (mean,) = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert mean.get_data() == ([150.0], [pytest.approx(0.85)])


def test_the_front_is_that_of_the_means_not_of_lucky_seeds():
    lucky = [row(1.0, 50.0, seed=0, lpc_alpha=0.1), row(0.2, 950.0, seed=1, lpc_alpha=0.1)]  # mean 0.6 at 500
    good = [row(0.7, 400.0, seed=seed, trial=2) for seed in range(2)]
    costly = [row(0.9, 800.0, seed=seed, trial=3, lpc_alpha=0.0) for seed in range(2)]
    ax = plot_success_against_lpc([*lucky, *good, *costly])
    (front,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(front.get_data(), [[400, 800], [0.7, 0.9]])


def test_baselines_are_lines_and_unknown_success_is_counted():
    rows = [*SEEDS, row(0.75, None, trial=2), row(0.65, None, trial=2, seed=1), row(None, 50.0, trial=3)]
    ax = plot_success_against_lpc(rows)
    assert "GoToObj: gru, no LPC (n = 2)" in texts(ax)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [pytest.approx(0.7)]
    assert "1 run without a success rate not shown" in texts(ax)


def test_baselines_alone_can_be_drawn():
    rows = [row(0.75, None, seed=seed) for seed in range(3)]
    for view in RESULT_VIEWS:
        for figure in draw_results_view(rows, view).values():
            figure.draw_without_rendering()
    assert "3 runs without LPC or alpha not shown" in texts(plot_alpha_sweep(rows))


def alphas():
    """Three seeds at three alphas; at the largest two have collapsed."""
    rows = [row(0.9, 500.0 + seed, seed=seed, trial=1, lpc_alpha=0.0) for seed in range(3)]
    rows += [row(0.8, 300.0 + seed, seed=seed, trial=2, lpc_alpha=1e-5) for seed in range(3)]
    rows += [row(0.5, 0.01, seed=seed, trial=3, lpc_alpha=1e-4) for seed in range(2)]
    return [*rows, row(0.6, 60.0, seed=2, trial=3, lpc_alpha=1e-4)]


def test_collapsed_runs_are_counted_and_shown_in_a_sweep():
    """They gave NaN and vanished, most often at large alpha."""
    ax = plot_alpha_sweep(alphas())
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "0\nn = 3",
        "1e-05\nn = 3",
        "0.0001\nn = 3\n2 collapsed",
    ]
    crosses = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in crosses] == [[0.01, 0.01]]
    (means,) = [line for line in ax.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(means.get_ydata(), [501, 301, 60.02 / 3])
    assert means.get_xdata().tolist() == [-6.0, -5.0, -4.0]  # alpha = 0 a decade left of the least
    assert COLLAPSED in texts(ax)


@pytest.mark.parametrize("draw", [plot_success_against_lpc, lambda r: plot_task_bars(r)[0]])
def test_collapsed_runs_are_marked_in_other_figures(draw):
    ax = draw(alphas())
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "x") == 2
    assert COLLAPSED in texts(ax)


@pytest.mark.parametrize("draw", [plot_success_against_lpc, plot_alpha_sweep, lambda r: plot_task_bars(r)[0]])
def test_marks_of_many_runs_are_paler_and_hide_nothing(draw):
    """At ten thousand runs each lay on all the others, opaque, and was an object of its own to draw."""
    few, many = (
        [line for line in draw([row(0.5 + seed % 9 / 99, 50.0 + seed, seed=seed) for seed in range(count)]).lines
         if len(line.get_xdata()) == count]
        for count in (20, 300)
    )  # fmt: skip
    assert len(few) == len(many) == 1
    assert many[0].get_alpha() == pytest.approx((few[0].get_alpha() or 1.0) / 10)
    assert many[0].get_rasterized() and not few[0].get_rasterized()


def test_learning_names_collapsed_runs():
    assert f"2 of 9 runs end with a {COLLAPSED}" in texts(plot_learning_over_updates(alphas())[0, 0])


def test_learning_means_are_over_the_same_runs_at_every_update():
    """A mean over whoever is there steps where somebody joins."""
    rows = [row(0.1 * (seed + update / 100), 50.0, seed=seed, update=update, final=False)
            for seed in range(3) for update in (100, 200, 300)]  # fmt: skip
    rows.append(row(0.9, 50.0, seed=0, update=400))
    axes = plot_learning_over_updates(rows)
    thick = [line for line in axes[0, 0].lines if line.get_marker() != "."]
    assert [line.get_xdata().tolist() for line in thick] == [[100, 200, 300]]
    np.testing.assert_allclose(thick[0].get_ydata(), [0.2, 0.3, 0.4])
    (band,) = axes[0, 0].collections
    half = T2 * 0.1 / math.sqrt(3)
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(0.4 + half)
    assert "n = 3 runs" in texts(axes[0, 0])


def test_learning_has_a_row_per_task_and_tells_who_has_no_lpc():
    rows = [*SEEDS, row(0.5, None, task="BabyAI-Open-v0"), row(0.5, 9.0, task="BabyAI-Open-v0", seed=1, update=None)]
    axes = plot_learning_over_updates(rows)
    assert axes.shape == (2, 2)
    written = texts(axes[0, 0])
    assert "Open, n = 1 run (1 more: not known)" in written and "Open, n = 0 runs (2 more: no LPC)" in written
    assert "1 checkpoint(s) of unknown update not shown" in written


def test_learning_draws_a_baseline_apart_and_without_lpc():
    """A GRU was drawn like a run of the policy with experts, at the LPC 0 that its log holds."""
    rows = [row(0.9, 300.0, seed=0), row(0.8, None, trial=100)]
    folders = [path.rpartition("/")[0] for path in (one["checkpoint_path"] for one in rows)]
    logged = {"level": "", "success_rate": 0.1, "path_ratio": None, "agreement": None}
    lpcs = zip(folders, (400.0, 0.0), strict=True)
    logs = pd.DataFrame([logged | {"folder": folder, "update": update, "mean_lpc": lpc}
                         for folder, lpc in lpcs for update in (10, 20)])  # fmt: skip
    axes = plot_learning_over_updates(rows, logs=logs)
    success, lpc = (ax.lines for ax in axes[0])
    assert [line.get_ydata().tolist() for line in lpc if len(line.get_xdata()) == 2] == [[400.0, 400.0]]
    curves = [line for line in success if len(line.get_xdata()) == 2]
    assert len({line.get_color() for line in curves}) == len({line.get_linestyle() for line in curves}) == 2
    assert "gru" in texts(axes[0, 0]).split("\n") and "n = 1 run (1 more: no LPC)" in texts(axes[0, 0])
    (handle,) = axes[0, 0].figure.legends[0].get_lines()
    assert handle.get_color() == GREY == next(line.get_color() for line in curves if line.is_dashed())


def test_bars_by_hand():
    axes = plot_task_bars([*SEEDS, row(0.5, None, trial=9), row(0.25, 100.0, task="BabyAI-Open-v0")])
    assert [round(bar.get_width(), 6) for bar in axes[0].patches] == [0.5, 0.7, 0.25]
    assert [bar.get_width() for bar in axes[1].patches] == [300.0, 100.0]
    written = texts(axes[0])
    assert "no routers, n = 1" in written and written.count("n = 3") >= 2 and "GoToObj\ngru\nmoe\nOpen" in written


@pytest.mark.parametrize("draw", [plot_alpha_sweep, lambda rows, metric: plot_task_bars(rows, metrics=[metric])])
def test_a_metric_has_to_exist(draw):
    with pytest.raises(ValueError, match=r"metric: expected one of success_rate, mean_lpc, .*, found 'reward'"):
        draw(SEEDS, "reward")


DRAW = {
    "success": (1, plot_success_against_lpc),
    "alpha": (1, lambda rows, ax: plot_alpha_sweep(rows, ax=ax)),
    "bars": (2, plot_task_bars),
    "learning": (2, plot_learning_over_updates),
}


@pytest.mark.parametrize("name", DRAW)
def test_given_axes_come_back_and_rows_stay_as_they_are(name):
    count, draw = DRAW[name]
    axes = [Figure().add_subplot() for _ in range(count)]
    rows = alphas()
    before = copy.deepcopy(rows)
    found = draw(rows, axes[0] if count == 1 else axes)
    assert list(np.ravel(found)) == axes and rows == before
    results = as_results(rows)
    before = results.copy(deep=True)
    draw(results, axes[0] if count == 1 else axes)
    pd.testing.assert_frame_equal(results, before)
    assert all(ax.figure.get_axes() == [ax] for ax in axes)


def test_rows_of_a_file_can_be_drawn(tmp_path):
    path = tmp_path / "results.csv"
    for found in [*alphas(), row(0.5, None, trial=8), row(0.7, 99.0, task="BabyAI-Open-v0", seed=None, update=None)]:
        append_result(path, found)
    drawn = {}
    for view in RESULT_VIEWS:
        for name, figure in draw_results_view(read_results(path), view).items():
            figure.draw_without_rendering()
            points = [len(line.get_xdata()) for ax in figure.axes for line in ax.lines]
            drawn[name] = (sum(points), "\n".join(text.get_text() for text in figure.findobj(Text)))
    assert set(drawn) == {"success_lpc", "tasks", "learning", "alpha_success_rate", "alpha_mean_lpc"}
    assert all(count >= 9 for count, _ in drawn.values())  # the nine runs of `alphas` at least
    assert "GoToObj: gru, no LPC (n = 1)" in " ".join(drawn["success_lpc"][1].split())
    assert "1 run without LPC or alpha not shown" in " ".join(drawn["alpha_mean_lpc"][1].split())
    assert (
        "GoToObj, n = 10 runs" in drawn["learning"][1]
        and "Open, n = 0 runs (1 more: not known)" in drawn["learning"][1]
    )
    assert drawn["tasks"][1].count("n = 3") >= 3


EMPTY = {
    "success": plot_success_against_lpc,
    "alpha": plot_alpha_sweep,
    "bars": plot_task_bars,
    "learning": plot_learning_over_updates,
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_rows_give_an_empty_figure(name):
    """Learning over updates ended with "zip() argument 2 is longer"."""
    axes = np.ravel(EMPTY[name]([]))
    axes[0].figure.draw_without_rendering()
    assert "runs" in texts(axes[0]) and not any(len(line.get_xdata()) for ax in axes for line in ax.lines)


def test_results_have_to_hold_something():
    with pytest.raises(ValueError, match="expected evaluated checkpoints, found none"):
        draw_results_view([], "tasks")
    with pytest.raises(ValueError, match="view: expected one of success_lpc"):
        draw_results_view(SEEDS, "overall")


# ------------------------------------------------------------------------------------------------------ mixed settings


def mixed(count):
    """Return rows of several tasks whose settings differ in much."""
    tasks = [f"BabyAI-{name}-v0" for name in ("GoToObj", "GoToObjMazeS4R2", "UnlockPickup", "OpenDoorsOrderN4", "Open")]
    rows = []
    for place in range(count):
        k = place // 3 if count > 8 else place
        style = {
            "lpc_alpha": (0.0, 1e-5, 1e-4)[k % 3],
            "lr": (1e-3, 3e-4)[k // 2 % 2],
            "num_updates": 300 * (1 + k % 4),
        }
        style |= {
            "lang_encoder": ("builtin", "distilbert")[k // 3 % 2],
            "intermediate_dim": 64,
            "router_hidden_size": 64,
        }
        found = row(0.2 + 0.15 * (place % 6), 10.0 ** (place % 4), seed=place, trial=k, task=tasks[k % 5], **style)
        rows.append(found | {"bot_plan_failures": 96 if k % 5 == 3 else 0})
    return rows


@pytest.mark.parametrize("count", [2, 8, 21, 60])
def test_mixed_settings_fit_into_every_figure(count):
    """Eight full settings left a thin strip for success against LPC, and took 75 % of the width of the bars."""
    for view in RESULT_VIEWS:
        for name, figure in draw_results_view(mixed(count), view).items():
            assert texts_outside(figure) == [], name
            axes = figure.axes[-1].get_position()
            share = 0.3 if view in ("tasks", "learning") else 0.55
            assert axes.width > share and axes.height * figure.get_figheight() > 0.9, name
            written = " ".join(" ".join(t.get_text() for t in figure.findobj(Text)).split())
            assert "; all: " in written and "intermediate_dim 64" in written, name  # what is constant is in the caption
            assert ("96 levels were replaced by others" in written) == (count > 3), name


def test_only_what_differs_is_named_beside_a_mark():
    rows = [row(0.9, 100.0, seed=0, lr=1e-3), row(0.8, 200.0, seed=1, trial=2, lr=3e-4, lpc_alpha=0.0)]
    written = texts(plot_success_against_lpc(rows))
    assert "A: lr 0.0003" in written and "B: lr 0.001" in written
    assert "experts [0,16,32] x 2" in written.split("; all: ")[1]  # in the caption alone
    same = texts(plot_success_against_lpc([row(0.9, 100.0, seed=0), row(0.8, 200.0, seed=1)]))
    assert "A:" not in same and "\N{GREEK SMALL LETTER ALPHA} = 1e-05" in same.split("; all: ")[1]


def test_lpc_that_spans_decades_is_on_a_logarithmic_axis():
    near, far = [row(0.9, 100.0, seed=0), row(0.8, 900.0, seed=1)], [row(0.9, 3.0, seed=0), row(0.8, 900.0, seed=1)]
    assert plot_success_against_lpc(near).get_xscale() == "linear"
    assert plot_success_against_lpc(far).get_xscale() == "symlog" and plot_alpha_sweep(far).get_yscale() == "symlog"
    bars, dots = plot_task_bars(far)
    assert bars.patches and not dots.patches  # a bar from nowhere has no length
    with_zero = plot_success_against_lpc([*far, row(0.5, 0.0, seed=2)])
    assert with_zero.get_xlim()[0] < 0


def test_a_price_has_its_colour_in_every_figure():
    colors = {to_hex(alpha_color(alpha)) for alpha in (0.0, 1e-5, 1e-4)}
    for drawn in (plot_success_against_lpc(alphas()), plot_learning_over_updates(alphas())[0, 0]):
        assert colors <= {to_hex(line.get_color()) for line in drawn.lines}
        shown = [line.get_color() for line in drawn.figure.legends[0].get_lines()]
        assert [to_hex(color) for color in shown if to_hex(color) in colors] == [
            to_hex(alpha_color(alpha)) for alpha in (0.0, 1e-5, 1e-4)
        ]


def test_runs_that_agree_have_no_interval_however_their_mean_is_rounded():
    """The sum of five times .995 is off by 1e-16, and that was drawn as a t interval."""
    assert float(mean_interval([0.995] * 5).mean) == 0.995 != np.mean([0.995] * 5)
    rows = [row(0.9, 50.0, seed=seed, update=update, final=update == 200, agreement=0.995)
            for seed in range(5) for update in (100, 200)]  # fmt: skip
    spread, over_levels = spread_over_runs(last_checkpoints(collect_runs(rows)[0]), "agreement")
    assert float(spread.mean) == pytest.approx(0.995) and not over_levels
    assert np.isnan([spread.low, spread.high]).all()
    (band,) = plot_learning_over_updates(rows, metrics=("agreement",))[0, 0].collections
    assert not len(band.get_paths()) or np.isnan(band.get_paths()[0].vertices).all()


def test_runs_that_agree_have_an_interval_over_levels():
    rows = [row(1.0, 50.0, seed=seed) for seed in range(3)]
    ax = plot_success_against_lpc(rows)
    wilson = tuple(round(end, 6) for end in wilson_interval(100, 100))
    assert lines_of(ax) == {wilson} and all(low < high for low, high in lines_of(ax))
    assert "Wilson interval over levels for success" in texts(ax)
    assert all(np.isnan(low) or low < high for low, high in lines_of(plot_task_bars(rows)[1], vertical=False))
