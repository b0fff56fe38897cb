"""Figures of studies show what their tables have: the right number in the right cell, and stars where they belong."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from plotting.style import expert_colors
from science.figures import credit, many, needed
from science.figures.calibration import draw_calibration
from science.figures.curves import draw_curves, draw_usage
from science.figures.experts import short_labels
from science.figures.fronts import draw_fronts
from science.figures.maps import draw_audit, draw_map
from science.figures.probes import draw_probes
from science.figures.transfer import draw_steps
from science.result import Row

SIZES = [[0, 16], [0, 16]]
CELLS = {(0, 0): (0.1, 0.04), (0, 1): (-0.2, 0.06), (1, 0): (0.3, 0.05), (1, 1): (-0.4, float("nan"))}
"""Layer and expert -> value, and p over the map."""
SAID = {(0, 0): "0.10*", (1, 0): "\N{MINUS SIGN}0.20", (0, 1): "0.30*", (1, 1): "\N{MINUS SIGN}0.40"}
"""Column and line -> text."""


def frame(*rows: dict) -> pd.DataFrame:
    """Return tidy rows over runs at one task and price, but for what they say themselves."""
    usual = {"analysis": "x", "quantity": "q", "unit": "runs", "task": "T", "setting": "alpha=0", "n_runs": 4}
    return pd.DataFrame([asdict(Row(**{**usual, **row})) for row in rows])


def of_experts(**columns) -> pd.DataFrame:
    return frame(*({"layer": at[0], "expert": at[1], "value": v, "p_adjusted": p, **columns}
                   for at, (v, p) in CELLS.items()))  # fmt: skip


def texts_of(ax: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in ax.texts}


def grid_of(ax: Axes) -> np.ndarray:
    """Return the numbers of a map's colours, of which those above 0 are the upper half."""
    (image,) = ax.images
    assert image.norm(0.0) == pytest.approx(0.5) and image.norm(0.1) > 0.5
    return np.ma.filled(image.get_array(), np.nan)


def lines_of(ax: Axes, **style) -> list[tuple[list[float], list[float]]]:
    """Return x and y of the lines that look like that: marker, width."""
    read = {"marker": lambda line: line.get_marker(), "lw": lambda line: line.get_linewidth()}
    return [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in ax.lines
        if all(read[name](line) == value for name, value in style.items())
    ]


# ---------------------------------------------------------------------------------------------------------------- maps


def test_a_cell_of_a_map_has_its_number_its_colour_and_its_star():
    (ax,) = draw_map("m", of_experts(), "what", SIZES).figure.axes
    assert texts_of(ax) == SAID
    np.testing.assert_allclose(grid_of(ax), [[0.1, -0.2], [0.3, -0.4]])


@pytest.mark.parametrize(
    ("sizes", "columns", "lines"),
    [
        ([[0, 16, 32]] * 2, ["skip", "small", "large"], ["layer 0", "layer 1"]),
        ([[8, 16, 32, 64]], ["8", "16", "32", "64"], ["layer 0"]),
        ([[0, 16, 16]], ["skip", "16 #1", "16 #2"], ["layer 0"]),
        ([[0, 16, 32], [32, 16, 0]], ["0", "1", "2"], ["layer 0\n0, 16, 32", "layer 1\n32, 16, 0"]),
        ([[0, 16], [8, 16, 32]], ["0", "1", "2"], ["layer 0\n0, 16", "layer 1\n8, 16, 32"]),
    ],
)
def test_a_map_names_experts_by_the_sizes_of_their_own_layer(sizes, columns, lines):
    """Names were those of the first layer, and "size" wherever there are more than three sizes or equal ones."""
    rows = [{"layer": i, "expert": e, "value": 0.1} for i, layer in enumerate(sizes) for e in range(len(layer))]
    (ax,) = draw_map("m", frame(*rows), "what", sizes).figure.axes
    assert [text.get_text() for text in ax.get_xticklabels()] == columns
    assert [text.get_text() for text in ax.get_yticklabels()] == lines
    ax = many.draw_experts("m", frame(*rows), "what", sizes).figure.axes[0]
    names = [name for layer in sizes for name in short_labels(layer)]
    assert [text.get_text() for text in ax.get_xticklabels()] == names
    pair = {"quantity": "interaction", "condition": "l0e1 with l0e0", "value": 0.1}
    (drawn,) = credit.draw_credit(frame(pair), str, [[8, 16, 32, 64]])
    assert [text.get_text() for text in drawn.figure.axes[0].get_xticklabels()] == ["0.8", "0.16", "0.32", "0.64"]


@pytest.mark.parametrize("draw", ["few", "many"])
def test_a_point_of_the_audit_has_the_colour_of_its_size_in_its_own_layer(draw):
    sizes = [[0, 16, 32], [64, 16, 0]]
    both = [
        frame(*({"unit": "run", "seed": 0, "quantity": q, "layer": i, "expert": e, "value": 0.1 * (1 + e)}
                for i in (0, 1) for e in range(3)))
        for q in ("usage", "effect_on_ce")
    ]  # fmt: skip
    few, means = draw == "few", both[1].assign(unit="runs")
    drawn = draw_audit("a", *both, "what", sizes) if few else many.draw_audit(both[0], means, sizes)
    points = [line for line in drawn.figure.axes[0].lines if line.get_marker() in ("o", "s")]
    skip, small, large = expert_colors([0, 16, 32], 3)
    assert [line.get_color() for line in points] == [skip, small, large, large, small, skip]
    (legend,) = drawn.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("skip", "small (16)", "large (32) / large (64)", "layer 0: 0, 16, 32", "layer 1: 64, 16, 0"),
    ]
    (same,) = draw_audit("a", *both, "what", [[0, 16, 32]] * 2).figure.legends
    assert [text.get_text() for text in same.get_texts()] == ["skip", "small (16)", "large (32)", "layer 0", "layer 1"]


def test_a_row_of_many_levels_has_stars_in_the_right_cells():
    drawn = many.draw_experts("m", pd.concat([of_experts(), of_experts(task="U", p_adjusted=0.5)]), "what", SIZES)
    ax = drawn.figure.axes[0]
    np.testing.assert_allclose(grid_of(ax), [[0.1, -0.2, 0.3, -0.4]] * 2)
    assert sorted((x, round(y), text) for (x, y), text in texts_of(ax).items()) == [(0, 0, "*"), (2, 0, "*")]


def test_credit_by_subgoal_and_interactions_stand_in_their_cells():
    table = pd.concat(
        [
            of_experts(quantity="credit_by_subgoal", group="Open").query("expert == 1"),
            frame({"quantity": "interaction", "condition": "l0e1 with l1e1", "value": -0.3, "p_adjusted": 0.01}),
        ]
    )
    by_subgoal, pairs = (drawn.figure.axes[0] for drawn in credit.draw_credit(table, str, SIZES))
    assert texts_of(by_subgoal) == {(0, 0): "\N{MINUS SIGN}0.20", (0, 1): "\N{MINUS SIGN}0.40"}
    np.testing.assert_allclose(grid_of(by_subgoal), [[-0.2], [-0.4]])
    assert texts_of(pairs) == dict.fromkeys([(0, 1), (1, 0)], "\N{MINUS SIGN}0.30*")
    np.testing.assert_allclose(grid_of(pairs), [[np.nan, -0.3], [-0.3, np.nan]])


def test_a_probe_tells_its_number_and_is_coloured_by_how_far_it_is_from_chance():
    rows = [
        {"condition": "router 0", "group": "open", "value": 0.9, "null_mean": 0.5, "p_adjusted": 0.04},
        {"condition": "router 0", "group": "seen", "value": 0.4, "null_mean": 0.5, "p_adjusted": 0.06},
    ]
    (ax,) = draw_probes("p", frame(*rows), "accuracy").figure.axes
    assert texts_of(ax) == {(0, 0): "0.90*", (1, 0): "0.40"}
    np.testing.assert_allclose(grid_of(ax), [[0.4, -0.1]])


def test_what_is_needed_stands_above_what_is_used(monkeypatch):
    values = {("needed_at", "(1, 1)"): 9.0, ("needed_at", "(2, 1)"): 1.0, ("used_at", "(1, 1)"): 5.0}
    rows = [{"quantity": q, "condition": at, "value": v, "n_episodes": 9} for (q, at), v in values.items()]
    seen = {}
    monkeypatch.setattr(needed, "render_value_heatmap", lambda ax, values, *_, **__: seen.update({ax: values}))
    above, below = needed.draw_maps("n", frame(*rows)).figure.axes[:2]
    assert seen == {above: {(1, 1): 9.0, (2, 1): 1.0}, below: {(1, 1): 5.0}}
    assert above.get_title("left").endswith("needed") and below.get_title("left") == "used"


# -------------------------------------------------------------------------------------------------------------- curves


def of_runs(values: dict[str, list[float]], **columns) -> list[dict]:
    """Return rows of runs, a value for each seed under each condition."""
    return [
        {"unit": "run", "trial": 1, "seed": seed, "condition": condition, "value": value, **columns}
        for condition, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def test_a_curve_has_every_run_their_mean_and_the_mean_under_the_null():
    rows = of_runs({"tau 0.1": [0.2, 0.4, 0.9], "tau 0.2": [0.3, 0.1, 0.5]})
    means = [{"condition": "tau 0.1", "value": 0.5, "null_mean": 0.25}, {"condition": "tau 0.2", "null_mean": 0.125}]
    (ax,) = draw_curves("c", [(frame(*rows, *means), "what")], start=1.0).figure.axes
    assert [y for _, y in lines_of(ax, lw=0.5)] == [[1, 0.2, 0.3], [1, 0.4, 0.1], [1, 0.9, 0.5]]
    ((x, mean),) = lines_of(ax, lw=1.8)
    assert x == [0, 0.1, 0.2] and mean == pytest.approx([1, 0.5, 0.3])
    assert lines_of(ax, lw=1.0) == [([0.1, 0.2], [0.25, 0.125])]


def test_usage_is_drawn_at_its_price():
    cheap = of_runs({"": [0.2, 0.4, 0.6]}, layer=0, expert=1, quantity="usage")
    dear = of_runs({"": [0.1, 0.1, 0.4]}, layer=0, expert=1, quantity="usage", setting="alpha=0.001")
    (ax,) = draw_usage("u", frame(*dear, *cheap), SIZES).figure.axes
    ((x, mean),) = lines_of(ax, lw=1.8)
    assert x == [0, 1] and mean == pytest.approx([0.4, 0.2])


def test_usage_of_layers_that_differ_names_each_size_of_a_colour():
    """The legend had a name once, in the colour that it has in the first layer with it."""
    rows = [row for layer in (0, 1) for row in of_runs({"": [0.2, 0.4, 0.6]}, layer=layer, expert=1, quantity="usage")]
    figure = draw_usage("u", frame(*rows), [[0, 16, 32], [0, 32, 64]]).figure
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["skip", "small (16) / small (32)", "large (32) / large (64)"]
    assert [ax.get_title("left").partition(", n")[0] for ax in figure.axes] == [
        "T, layer 0: 0, 16, 32",
        "T, layer 1: 0, 32, 64",
    ]


def test_a_front_has_each_run_at_its_cost_and_success():
    def pair(kind: str, condition: str, lpc: float, success: float, **columns) -> list[dict]:
        return [
            {"unit": "run", "seed": 0, "quantity": f"{kind}_{name}", "condition": condition, "value": value, **columns}
            for name, value in (("lpc", lpc), ("success", success))
        ]

    rows = [*pair("front", "alpha 0", 300, 0.9), *pair("front", "alpha 0.001", 30, 0.7)]
    rows += [*pair("dial", "lambda 1", 100, 0.6), *pair("baseline", "", 200, 0.8, setting="gru=largest")]
    ax = draw_fronts("f", frame(*rows)).figure.axes[0]
    assert lines_of(ax, marker="o") == [([300], [0.9]), ([30], [0.7])]
    assert lines_of(ax, marker="x") == [([100], [0.6])]
    assert lines_of(ax, marker="D") == [([200], [0.8])]


# -------------------------------------------------------------------------------------- the card, and times to learn


def test_the_card_has_false_positives_to_the_left_and_what_was_found_to_the_right():
    rows = [("a.b", 0.02, 0.01, 0.08, 0.9), ("c.d", 0.3, 0.2, 0.4, 0.6)]
    table = pd.DataFrame(rows, columns=["quantity", "false_positives", "low", "high", "recovered"]).assign(data_sets=50)
    left, right = draw_calibration(table, 0.05).figure.axes
    names = dict(zip(left.get_yticks(), [text.get_text() for text in left.get_yticklabels()], strict=True))
    for ax, marker, wanted in ((left, "o", [0.02, 0.3]), (right, "s", [0.9, 0.6])):
        found = {names[y]: x for (x,), (y,) in lines_of(ax, marker=marker)}
        assert found == dict(zip(("a.b", "c.d"), wanted, strict=True))
    red = [line.get_color() for line in left.lines if line.get_marker() == "o"]
    assert red[0] != red[1]


def test_a_run_stands_at_the_steps_it_took_to_learn_and_one_that_never_did_at_the_edge():
    rows = of_runs({"scratch": [400, 800, np.nan], "router": [100, 200, 400]})
    means = [{"condition": "scratch", "value": 800.0}, {"condition": "router", "value": 200.0}]
    (ax,) = draw_steps("s", frame(*rows, *means)).figure.axes
    labels = [text.get_text() for text in ax.get_yticklabels()]
    found = {labels[round(np.mean(y))]: x for x, y in lines_of(ax, marker="o")}
    assert found == {"scratch": [400, 800], "router": [100, 200, 400]}
    (((edge,), (y,)),) = lines_of(ax, marker=">")
    assert edge > 800 and labels[round(y)] == "scratch"
    middles = {tuple(part[0]) for c in ax.collections for part in c.get_segments()}
    assert {x for x, _ in middles} == {800, 200}
