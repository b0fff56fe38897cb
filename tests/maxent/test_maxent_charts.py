"""maxent/charts: what is drawn are the records; what cannot be drawn is told; layouts hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.patheffects import Stroke

from maxent import experiment, pictures
from maxent.charts import command
from maxent.charts.curves import plot_rewards, plot_tokens
from maxent.charts.drawing import CHARTS
from maxent.charts.maps import plot_heatmaps
from maxent.charts.records import describe_experiment, find_warning, read_experiment
from maxent.charts.scores import plot_monotonicity, plot_time
from maxent.charts.styles import METHOD_COLORS, channel, darken, split_panels, spread
from maxent.dts_implementation.search.result import METHODS
from maxent.evaluation.metrics.intervals import bootstrap_mean
from plotting import style
from plotting.style import figure_size
from tests.figures import layout_problems, texts
from tests.maxent_results import COLORS, build_results, rewards_of, tokens_of, write_results

ROOT = Path(__file__).parents[2]
FOUR = ("llama-7b", "mistral-7b", "phi-2", "gemma-7b")
THREE = ("dts", "best_of_n", "mh")


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Files of few pixels, which are written quickly."""
    monkeypatch.setitem(style._RC, "savefig.dpi", 40.0)


def read(folder, content):
    return read_experiment(write_results(folder, content))


def find(figure, gid):
    (artist,) = figure.findobj(lambda one: one.get_gid() == gid)
    return artist


# -------------------------------------------------------------------------------------------- what is drawn is what is


@pytest.mark.parametrize("samples", [3, 8])
def test_curves_are_means_of_the_records(samples, tmp_path):
    content = build_results(FOUR[:2], THREE, samples, 7)
    figure = plot_rewards(read(tmp_path, content))
    for run in content["runs"]:
        rewards = np.array(rewards_of(run))
        for name, rows in (("reward", rewards), ("best_so_far", np.maximum.accumulate(rewards, axis=1))):
            line = find(figure, f"{name}/{run['model']}/{run['method']}")
            np.testing.assert_allclose(line.get_xdata(), np.arange(1, 8))
            np.testing.assert_allclose(line.get_ydata(), rows.mean(axis=0), atol=1e-12)
            thin = [one.get_ydata() for one in line.axes.lines if len(one.get_ydata()) == 7]
            if samples == 3:  # too few for intervals: each sample is there
                assert all(any(np.array_equal(row, one) for one in thin) for row in rows)
                assert not line.axes.collections
            else:
                ends = [bootstrap_mean(column) for column in rows.T]
                for expected in ([end.low for end in ends], [end.high for end in ends]):
                    assert any(np.allclose(one, expected) for one in thin)
                assert len(line.axes.collections) == len(THREE)


def test_searches_that_end_early_keep_their_best_and_leave_the_means_of_the_rest(tmp_path):
    content = build_results(methods=("dts", "greedy"), samples=2, rollouts=4)
    sample = content["runs"][0]["samples"][1]
    sample["rollouts"], sample["answer"]["rollout"] = sample["rollouts"][:2], 1
    long, short = rewards_of(content["runs"][0])
    figure = plot_rewards(read(tmp_path, content))
    expected = [(long[0] + short[0]) / 2, (long[1] + short[1]) / 2, long[2], long[3]]
    np.testing.assert_allclose(find(figure, "reward/toy/dts").get_ydata(), expected)
    best = np.maximum.accumulate(long) + np.array([short[0], *[short.max()] * 3])
    np.testing.assert_allclose(find(figure, "best_so_far/toy/dts").get_ydata(), best / 2)
    assert find(figure, "reward/toy/greedy").get_xdata().tolist() == [1]
    words = " ".join(texts(figure))
    assert "means over those that go on" in words.replace("\n", " ") and "dotted: the search had ended" in words


def test_many_rollouts_are_drawn_several_together(tmp_path):
    content = build_results(samples=1, rollouts=250)
    line = find(plot_rewards(read(tmp_path, content)), "reward/toy/dts")
    (rewards,) = rewards_of(content["runs"][0])
    np.testing.assert_allclose(line.get_ydata(), [rewards[at : at + 4].mean() for at in range(0, 250, 4)])
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [2.5, 249.5])


def test_steps_against_tokens_are_exact_means(tmp_path):
    content = build_results(FOUR[:1], THREE, samples=6, rollouts=9)
    figure = plot_tokens(read(tmp_path, content))
    for run in content["runs"]:
        line = find(figure, f"tokens/{run['model']}/{run['method']}")
        assert line.get_drawstyle() == "steps-post" and line.axes.get_xscale() == "log"
        x, y = line.get_xdata(), line.get_ydata()
        fed, rewards = tokens_of(run), rewards_of(run)
        assert x[0] == max(one[0] for one in fed) and x[-1] == max(one[-1] for one in fed)
        for at in range(int(x[0]), int(x[-1]) + 1):  # at every number of tokens, not at the corners alone
            best = [values[one <= at].max() for one, values in zip(fed, rewards, strict=True)]
            assert y[np.searchsorted(x, at, side="right") - 1] == pytest.approx(np.mean(best), abs=1e-12)


def test_bars_and_their_reference(tmp_path):
    content = build_results(FOUR, THREE, samples=6, rollouts=5)
    figure = plot_monotonicity(read(tmp_path, content))
    for run in content["runs"]:
        name = f"{run['model']}/{run['method']}"
        strict = [sample["monotonicity"] for sample in run["samples"]]
        bar = find(figure, f"strict/{name}")
        assert bar.get_width() == pytest.approx(np.mean(strict)) and bar.get_x() == 0
        assert to_hex(bar.get_facecolor()).upper() == run["color"]
        loose = [sample["monotonicity_non_strict"] for sample in run["samples"]]
        assert find(figure, f"non_strict/{name}").get_xdata()[0] == pytest.approx(np.mean(loose))
        interval = bootstrap_mean(strict)
        assert any(
            np.allclose(line.get_xdata(), [interval.low, interval.high])
            for line in bar.axes.lines
            if len(line.get_xdata()) == 2
        )
    assert list(find(figure, "chance").get_xdata()) == [0.5, 0.5] and "50 %" in texts(figure)


def test_time_and_best_reward(tmp_path):
    content = build_results(FOUR, THREE, samples=6)
    figure = plot_time(read(tmp_path, content))
    for run in content["runs"]:
        point = find(figure, f"time/{run['model']}/{run['method']}")
        for data, name in ((point.get_xdata(), "time"), (point.get_ydata(), "best_reward")):
            assert data[0] == pytest.approx(np.mean([sample[name] for sample in run["samples"]]))
        assert to_hex(point.get_markerfacecolor()).upper() == run["color"] == COLORS[run["model"]]
    ax, strip = figure.axes[:2]
    bars = {line.get_color(): line for line in strip.lines}
    for model in FOUR:  # close colours are told apart by a bar with a name above the points
        times = [
            np.mean([sample["time"] for sample in run["samples"]]) for run in content["runs"] if run["model"] == model
        ]
        ends = ax.transData.inverted().transform(strip.transData.transform(bars[COLORS[model]].get_xydata()))[:, 0]
        margin = 0.041 / strip.get_xlim()[1] * np.diff(ax.get_xlim())[0]
        assert abs(ends - [min(times), max(times)]).max() <= margin
    assert [text.get_text() for text in strip.texts] == ["Llama-2-7B", "Mistral-7B", "Phi-2", "Gemma-7B"]


def test_maps_hold_every_reward_on_one_scale(tmp_path):
    content = build_results(FOUR[:2], ("dts", "greedy"), samples=4, rollouts=6)
    content["runs"][0]["samples"][2]["rollouts"] = content["runs"][0]["samples"][2]["rollouts"][:3]
    content["runs"][0]["samples"][2]["answer"]["rollout"] = 2
    figure = plot_heatmaps(read(tmp_path, content))
    images = [find(figure, f"map/{run['model']}/{run['method']}") for run in content["runs"]]
    for run, image in zip(content["runs"], images, strict=True):
        shown = np.ma.filled(image.get_array(), np.nan)
        for row, rewards in zip(shown, rewards_of(run), strict=True):
            np.testing.assert_array_equal(row[: len(rewards)], rewards)
            assert np.isnan(row[len(rewards) :]).all()
        marks = find(figure, f"answers/{run['model']}/{run['method']}")
        assert list(marks.get_xdata()) == [sample["answer"]["rollout"] for sample in run["samples"]]
    every = np.concatenate([rewards for run in content["runs"] for rewards in rewards_of(run)])
    assert {image.get_clim() for image in images} == {(every.min(), every.max())}
    assert "hatched: nothing was drawn" in " ".join(texts(figure))


# ------------------------------------------------------------------------------------------------------- what it is of


def test_colours_are_the_models_and_methods_have_a_channel_of_their_own(tmp_path):
    runs = read(tmp_path, build_results(FOUR, THREE)).runs
    figure = plot_rewards(read(tmp_path, build_results(FOUR, THREE)))
    for run in runs:
        line = find(figure, f"best_so_far/{run.model}/{run.method}")
        assert line.get_color() == COLORS[run.model]
        assert any(isinstance(effect, Stroke) for effect in line.get_path_effects())  # pale colours have an edge
    assert [(panel.title, panel.by, len(panel.runs)) for panel in split_panels(runs)] == [
        (name, "method", 3) for name in ("Llama-2-7B", "Mistral-7B", "Phi-2", "Gemma-7B")
    ]
    for by, names in (("method", {run.method: run for run in runs}), ("model", {run.model: run for run in runs})):
        assert len({str(channel(run, by)) for run in names.values()}) == len(names)
    alone = [run for run in runs if run.method == "dts"]
    assert [(panel.by, len(panel.runs)) for panel in split_panels(alone)] == [("model", 4)]
    assert [(panel.title, panel.by) for panel in split_panels(alone[:1])] == [("Llama-2-7B", "method")]


def test_curves_of_one_model_have_the_colours_of_their_methods(tmp_path):
    """They all had the model's, and nine methods of the toy could not be told apart."""
    experiment = read(tmp_path, build_results(("toy",), tuple(METHODS)))
    assert set(METHOD_COLORS) == set(METHODS) and len(set(METHOD_COLORS.values())) == len(METHODS)
    for figure, name in ((plot_rewards(experiment), "best_so_far"), (plot_tokens(experiment), "tokens")):
        for run in experiment.runs:
            assert find(figure, f"{name}/toy/{run.method}").get_color() == METHOD_COLORS[run.method]
    (alone,) = split_panels(experiment.runs[:1])
    assert alone.runs[0].color == experiment.runs[0].color == COLORS["toy"]


def test_the_small_print_says_what_it_is_of(tmp_path):
    content = build_results(("toy", "phi-2"), ("dts", "mh"), samples=3)
    content["runs"][3].update(status="failed", error={"message": "boom", "refused": False}, samples=[], weights=None)
    content["runs"][2]["samples"].pop()
    content["runs"][2]["status"] = "running"
    found = read(tmp_path, content)
    assert describe_experiment(found) == [
        "n = 2 to 3 samples; M4, synthetic data; reward: claims; \u03bb\u00a0=\u00a00.25; seed\u00a03; "
        "weights: toy (Toy), stand-in (Phi-2)",
        "failed: Phi-2, mh (after 0 samples)",
        "not finished: Phi-2, dts (2 samples)",
    ]
    for plot in CHARTS.values():
        words = " ".join(texts(plot(found)))
        for part in ("synthetic data", "reward: claims", "n = 2 to 3", "stand-in (Phi-2)", "failed: Phi-2, mh"):
            assert part in words
    assert find_warning(found) == ""


def test_planning_is_told_from_evaluating(tmp_path):
    found = read(tmp_path, build_results(("babyai",), samples=2))
    for plot in CHARTS.values():
        assert "environment as simulator" in " ".join(texts(plot(found)))


@pytest.mark.parametrize(
    ("reward", "words"),
    [({"name": "oracle", "sees_label": True}, "sees the label"), ({"name": "legacy", "sees_label": False}, "gamed")],
)
def test_rewards_that_prove_nothing_are_flagged_in_every_chart(reward, words, tmp_path):
    found = read(tmp_path, build_results(samples=2, reward={**reward, "note": ""}))
    for plot in CHARTS.values():
        assert any(words in text for text in texts(plot(found)))


# ------------------------------------------------------------------------------------------------------------- layouts

CASES = {
    "one model, one method": (("toy",), ("dts",), 3, 5),
    "toy, four methods": (("toy",), (*THREE, "dts_star"), 3, 5),
    "four models, three methods": (FOUR, THREE, 5, 10),
    "six models, one method": ((*FOUR, "llama-13b", "toy"), ("dts",), 10, 30),
    "nine methods": (("llama-13b",), (*THREE, "dts_star", "mcts", "beam", "dts_paper", "greedy", "sample"), 6, 20),
    "one sample": (("toy", "more"), ("dts", "mh"), 1, 4),
    "one rollout": (("toy",), ("dts",), 3, 1),
    "greedy alone": (("toy",), ("greedy",), 1, 1),
    "many samples": (("toy",), ("dts",), 60, 120),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chart", CHARTS)
def test_nothing_is_cut_off_or_lies_on_something_else(case, chart, tmp_path):
    assert layout_problems(CHARTS[chart](read(tmp_path, build_results(*CASES[case])))) == []


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("width", [85, 180])
def test_figures_are_as_wide_as_asked(chart, width, tmp_path):
    with figure_size(width / 25.4, 7.0):
        figure = CHARTS[chart](read(tmp_path, build_results(FOUR[: width // 40], (*THREE[:2], "greedy"), 5, 8)))
        assert figure.get_figwidth() == pytest.approx(width / 25.4)
        assert layout_problems(figure) == []


def test_single_rollouts_have_no_steps_and_that_is_said(tmp_path):
    figure = plot_monotonicity(read(tmp_path, build_results(methods=("greedy", "sample"))))
    assert not figure.axes and any("single rollout" in text for text in texts(figure))
    mixed = plot_monotonicity(read(tmp_path, build_results(methods=("greedy", "dts"))))
    assert "no steps" in texts(mixed)


@pytest.mark.parametrize("wished", [[0.5], [0.1, 0.1, 0.1], [0.9, 0.95, 1.0, 1.0], [0.0, 0.3, 0.31, 0.9]])
def test_names_keep_their_distance_and_their_order(wished):
    found = spread(wished, 0.15, 0.0, 1.0)
    assert (np.diff(found) >= 0.15 - 1e-9).all()
    assert -1e-9 <= found[0] and found[-1] <= 1 + 1e-9
    if (np.diff(wished) >= 0.15).all():
        assert found == pytest.approx(wished)


def test_dark_enough_for_text():
    for color in COLORS.values():
        rgb = np.array([int(darken(color, 4.5)[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05) >= 4.4


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_all_charts_the_same_each_time(tmp_path, capsys):
    path = write_results(tmp_path, build_results(("toy", "phi-2"), ("dts", "greedy"), 2, 4))
    assert command.main([str(path)]) == 0
    folder = tmp_path / "wandb_experiments_20260101_120000" / "charts"
    assert capsys.readouterr().out.splitlines() == [str(folder / f"{name}.png") for name in CHARTS]
    assert sorted(one.name for one in folder.iterdir()) == sorted(f"{name}.png" for name in CHARTS)
    for name in CHARTS:
        assert imread(folder / f"{name}.png").std() > 0.01
    first = {one.name: one.read_bytes() for one in folder.iterdir()}
    assert command.main([str(path)]) == 0
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == first


def test_formats_width_and_folder(tmp_path):
    path = write_results(tmp_path, build_results(samples=2))
    flags = ["--output_dir", str(tmp_path / "figures"), "--formats", "pdf,svg", "--width", "85mm", "--font", "7"]
    assert command.main([str(path), *flags]) == 0
    names = sorted(one.name for one in (tmp_path / "figures").iterdir())
    assert names == sorted(f"{name}.{kind}" for name in CHARTS for kind in ("pdf", "svg"))


def test_from_within_maxent(tmp_path):
    path = write_results(tmp_path, build_results(samples=1))
    done = subprocess.run(
        [sys.executable, "charts", str(path), "--output_dir", str(tmp_path / "out")],
        cwd=ROOT / "maxent", env={**os.environ, "MPLBACKEND": "module://not.installed"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == len(CHARTS)


def break_rollout(content):
    del content["runs"][0]["samples"][1]["rollouts"][2]["reward"]


def break_reward(content):
    content["runs"][0]["samples"][0]["rollouts"][0]["reward"] = None


def break_color(content):
    content["runs"][0]["color"] = "red"


def break_answer(content):
    content["runs"][0]["samples"][0]["answer"]["rollout"] = 9


def break_samples(content):
    content["runs"][0]["samples"] = []


def break_version(content):
    content["schema_version"] = 7


def break_rollouts(content):
    content["runs"][0]["samples"][0]["rollouts"] = []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (break_rollout, "runs[0].samples[1].rollouts[2]: 'reward' is missing"),
        (break_reward, "runs[0].samples[0].rollouts[0].reward: expected float, found None"),
        (break_color, "runs[0].color: expected #RRGGBB, found 'red'"),
        (break_answer, "answer.rollout: expected 1 to 5, found 9"),
        (break_samples, "no sample is done yet"),
        (break_version, "expected schema_version 1, found 7"),
        (break_rollouts, "rollouts: expected at least one"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line_and_nothing_is_written(spoil, words, tmp_path, capsys):
    content = build_results()
    spoil(content)
    path = write_results(tmp_path, content)
    assert command.main([str(path), "--output_dir", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert words in told and str(path) in told and len(told.splitlines()) == 1
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": 1}', '{"schema_version": 1, "runs": 3}', "\xff\xfe"])
def test_files_that_are_no_results(text, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    assert command.main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "results: expected the path"),
        (["missing.json"], "cannot be read (No such file or directory)"),
        (["{}", "--formats", "gif"], "formats: expected some of png, pdf, svg, found 'gif'"),
        (["{}", "--formats", ","], "formats: expected some of"),
        (["{}", "--width", "wide"], "width: expected such as 180mm"),
        (["{}", "--width", "1in"], "width: expected at least"),
        (["{}", "--font", "90"], "font: expected 4 to 24"),
    ],
)
def test_flags_that_cannot_be_used(flags, words, tmp_path, capsys):
    path = write_results(tmp_path, build_results(FOUR, THREE, 2))
    assert command.main([flag.format(path) for flag in flags]) == 2
    assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ of experiments

TINY = ("--models", "toy", "--num_samples", "2", "--num_rollouts", "3", "--max_tokens", "4", "--no_wandb")


def run(folder, *flags):
    return experiment.main([*TINY, "--data_source", "synthetic", "--output_dir", str(folder), *flags])


def read_status(folder):
    (path,) = folder.glob("wandb_experiments_*.json")
    content = json.loads(path.read_text())
    return [(run["status"], len(run["samples"])) for run in content["runs"]]


def test_an_experiment_ends_with_charts_beside_its_results(tmp_path, capsys):
    assert run(tmp_path, "--methods", "dts", "greedy") == 0
    (folder,) = tmp_path.glob("wandb_experiments_*/charts")
    names = {*(f"{name}.png" for name in CHARTS), "trees_toy_dts.html", "trees_toy_greedy.html"}
    assert {one.name for one in folder.iterdir()} == names
    assert f"5 charts and 2 pages of trees in {folder}" in capsys.readouterr().out


def test_charts_can_be_left_out(tmp_path):
    assert run(tmp_path, "--no_charts", "--no_trees") == 0
    assert not list(tmp_path.rglob("charts")) and not list(tmp_path.rglob("tree_*"))
    assert list(tmp_path.rglob("metrics.jsonl"))


def test_what_cannot_be_drawn_loses_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("maxent.charts.drawing.save_figure", lambda *_: 1 / 0)
    assert run(tmp_path) == 1
    assert read_status(tmp_path) == [("done", 2)]
    told = capsys.readouterr().out
    assert "charts not drawn: ZeroDivisionError: division by zero; the results are whole" in told
    assert "maxent.charts" in told or "maxent/charts" in told


def test_an_experiment_that_was_stopped_or_failed_is_drawn_as_far_as_it_came(tmp_path, monkeypatch):
    whole = experiment.search_sample

    def fail_second(method, sample, index, *rest):
        if index == 1:
            raise RuntimeError("broken")
        return whole(method, sample, index, *rest)

    monkeypatch.setattr(experiment, "search_sample", fail_second)
    assert run(tmp_path / "failed") == 1
    assert read_status(tmp_path / "failed") == [("failed", 1)]
    assert len(list((tmp_path / "failed").rglob("*.png"))) == len(CHARTS)

    def stop_second(method, sample, index, *rest):
        if index == 1:
            raise experiment.Stopped
        return whole(method, sample, index, *rest)

    monkeypatch.setattr(experiment, "search_sample", stop_second)
    run(tmp_path / "stopped")
    assert read_status(tmp_path / "stopped") == [("running", 1)]
    assert len(list((tmp_path / "stopped").rglob("*.png"))) == len(CHARTS)


def test_nothing_is_drawn_and_nothing_is_wrong_where_no_sample_is_done(tmp_path, capsys):
    path = write_results(tmp_path, build_results(samples=0))
    assert pictures.try_drawing(path, print)
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == [path]
