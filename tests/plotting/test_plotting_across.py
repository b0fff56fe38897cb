"""Figures across runs: intervals by hand, and what may not vanish."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.records.adding import append_result
from pipeline.records.intervals import mean_interval, wilson_interval
from pipeline.records.results import as_results, read_results
from plotting.across import COLLAPSED, plot_success_against_lpc, plot_task_bars
from plotting.panels import GREY
from plotting.runs import (
    collect_runs,
    last_checkpoints,
)
from plotting.settings import spread_over_runs
from plotting.style import alpha_color
from plotting.sweeps import plot_alpha_sweep, plot_learning_over_updates
from plotting.views import RESULT_VIEWS, draw_results_view
from tests.figures import texts_outside, visible_text
from tests.result_rows import SEEDS, row

T2 = 4.302652729749462  # Student's t with 2 degrees of freedom, 97.5 %


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
    assert "3 runs" in visible_text(ax)


def test_bars_show_whole_intervals_and_write_beside_them():
    """The axis of LPC ended soon after the last run, which cut the interval, and the count stood on its line."""
    ax = plot_task_bars(SEEDS)[1]
    ((_, end),) = lines_of(ax, vertical=False)
    (count,) = [text for text in ax.texts if text.get_text() == "n = 3"]
    assert max(SEEDS, key=lambda run: run["mean_lpc"])["mean_lpc"] < end == round(count.xy[0], 6) < ax.get_xlim()[1]


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
    assert "GoToObj: gru, no LPC (n = 2)" in visible_text(ax)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [pytest.approx(0.7)]
    assert "1 run without a success rate not shown" in visible_text(ax)


def test_baselines_alone_can_be_drawn():
    rows = [row(0.75, None, seed=seed) for seed in range(3)]
    for view in RESULT_VIEWS:
        for figure in draw_results_view(rows, view).values():
            figure.draw_without_rendering()
    assert "3 runs without LPC or alpha not shown" in visible_text(plot_alpha_sweep(rows))


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
    assert COLLAPSED in visible_text(ax)


@pytest.mark.parametrize("draw", [plot_success_against_lpc, lambda r: plot_task_bars(r)[0]])
def test_collapsed_runs_are_marked_in_other_figures(draw):
    ax = draw(alphas())
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "x") == 2
    assert COLLAPSED in visible_text(ax)


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
    assert f"2 of 9 runs end with a {COLLAPSED}" in visible_text(plot_learning_over_updates(alphas())[0, 0])


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
    assert "n = 3 runs" in visible_text(axes[0, 0])


def test_learning_has_a_row_per_task_and_tells_who_has_no_lpc():
    rows = [*SEEDS, row(0.5, None, task="BabyAI-Open-v0"), row(0.5, 9.0, task="BabyAI-Open-v0", seed=1, update=None)]
    axes = plot_learning_over_updates(rows)
    assert axes.shape == (2, 2)
    written = visible_text(axes[0, 0])
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
    assert "gru" in visible_text(axes[0, 0]).split("\n") and "n = 1 run (1 more: no LPC)" in visible_text(axes[0, 0])
    (handle,) = axes[0, 0].figure.legends[0].get_lines()
    assert handle.get_color() == GREY == next(line.get_color() for line in curves if line.is_dashed())


def test_bars_by_hand():
    axes = plot_task_bars([*SEEDS, row(0.5, None, trial=9), row(0.25, 100.0, task="BabyAI-Open-v0")])
    assert [round(bar.get_width(), 6) for bar in axes[0].patches] == [0.5, 0.7, 0.25]
    assert [bar.get_width() for bar in axes[1].patches] == [300.0, 100.0]
    written = visible_text(axes[0])
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
    assert "runs" in visible_text(axes[0]) and not any(len(line.get_xdata()) for ax in axes for line in ax.lines)


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
    written = visible_text(plot_success_against_lpc(rows))
    assert "A: lr 0.0003" in written and "B: lr 0.001" in written
    assert "experts [0,16,32] x 2" in written.split("; all: ")[1]  # in the caption alone
    same = visible_text(plot_success_against_lpc([row(0.9, 100.0, seed=0), row(0.8, 200.0, seed=1)]))
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
    assert "Wilson interval over levels for success" in visible_text(ax)
    assert all(np.isnan(low) or low < high for low, high in lines_of(plot_task_bars(rows)[1], vertical=False))
