"""A report of a study of many levels: no figure beyond a page, no row lost without a word, no share beyond 0 and 1."""

import itertools
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from science.figures.draw import draw_analysis, is_curve
from science.figures.forest import spans_decades
from science.figures.levels import OTHER, group_levels
from science.figures.needed_levels import choose_levels
from science.report.pages import break_names, keep_together
from science.report.shares import cost_interval, share_interval
from science.report.tables import MOST_COLUMNS, asked_price, summarise
from science.report.text import join_numbers, spell_out
from science.result import COLUMNS, Row

NAMES = [f"{family}{kind}" for family in ("GoTo", "Open", "Unlock") for kind in "ABCDEFGHI"]
TASKS = [f"BabyAI-{name}-v0" for name in NAMES]
PRICES = ("alpha=0", "alpha=1e-05", "alpha=0.0001")
SIZES = [[0, 16, 32], [0, 16, 32]]
PAGE = 10.2
"""Inches between the margins of A4."""


def frame(rows) -> pd.DataFrame:
    return pd.DataFrame([row.__dict__ for row in rows], columns=list(COLUMNS))


def tell(quantity, value, *, seeds=(), **about):
    """Return rows of single runs, and of their mean."""
    for seed in seeds:
        yield Row("x", quantity, seed=seed, value=value * (1 + 0.1 * seed), n_runs=1, **about)
    ends = {"low": 0.8 * value, "high": 1.2 * value, "n_runs": 10, "p_adjusted": 0.01}
    yield Row("x", quantity, unit="runs", value=value, **ends, **about)


def each():
    """Yield task, setting and a number that tells them apart."""
    for (t, task), (s, setting) in itertools.product(enumerate(TASKS), enumerate(PRICES)):
        yield {"task": task, "setting": setting}, 1.0 + t + 0.3 * s


def tables() -> dict[str, pd.DataFrame]:
    experts = [{"layer": layer, "expert": expert} for layer in range(2) for expert in range(3)]
    found = {"knockouts": [], "price": [], "needed": [], "shapley": []}
    for about, value in each():
        for player in experts:
            where, name = {**about, **player}, f"zero l{player['layer']}e{player['expert']} renormalised"
            for quantity, source in (("effect_on_ce", "R"), ("effect_on_success", "P")):
                found["knockouts"] += tell(quantity, value, condition=name, estimator=source, **where)
            for analysis in ("knockouts", "price"):
                found[analysis] += list(tell("usage", 1 / value, seeds=(0, 1), **where))[:-1]
            if player["expert"]:
                found["shapley"] += tell("credit", value, **where)
                for group in ("GoNextTo", "Open", "Pickup"):
                    found["shapley"] += tell("credit_by_subgoal", value, group=group, **where)
        for pair in itertools.combinations(["l0e1", "l0e2", "l1e1", "l1e2"], 2):
            found["shapley"] += tell("interaction", -value, condition=" with ".join(pair), **about)
        found["knockouts"] += tell("audit", value, seeds=(0, 1), estimator="R", **about)
        for kind in ("lpc", "success"):
            condition = about["setting"].replace("=", " ")
            found["price"] += list(tell(f"front_{kind}", 1 / value, seeds=(0, 1), condition=condition, **about))[:-1]
        for kind in ("needed", "used"):
            found["needed"] += tell(kind, value, seeds=(0, 1), **about)
            for left in (1, 3, 8, 21):
                found["needed"] += tell(f"{kind}_by_plan", value * left, condition=f"steps left {left}", **about)
            for group in ("GoNextTo", "Open"):
                found["needed"] += tell(f"{kind}_by_subgoal", value, group=group, **about)
            for x in range(2):
                found["needed"] += tell(f"{kind}_at", value, condition=f"x {x} y 0", n_episodes=9, **about)
    return {name: frame(rows) for name, rows in found.items()}


@pytest.fixture(scope="module")
def planted():
    return tables()


@pytest.fixture(scope="module")
def drawn(planted):
    found = {name: {d.name: d for d in draw_analysis(name, table, {}, SIZES)} for name, table in planted.items()}
    yield found
    plt.close("all")


# --------------------------------------------------------------------------------------------------------- the figures


def test_27_levels_have_few_figures_each_no_higher_than_a_page(drawn):
    assert {name: list(figures) for name, figures in drawn.items()} == {
        "knockouts": [
            "knockouts_audit",
            "knockouts_effect_on_ce",
            "knockouts_effect_on_success",
            "knockouts_by_level_1",
        ],
        "price": ["price_fronts", "price_usage"],
        "needed": [
            *("needed_course", "needed_by_subgoal", "needed_map_GoToA", "needed_map_OpenA", "needed_map_OpenI"),
            *("needed_map_UnlockI", "needed_by_level_1"),
        ],
        "shapley": ["shapley_credit", "shapley_by_subgoal_1", "shapley_by_subgoal_2", "shapley_interactions"],
    }
    heights = {n: d.figure.get_figheight() for figures in drawn.values() for n, d in figures.items()}
    assert {name: height for name, height in heights.items() if height > PAGE} == {}


def cells(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def test_a_map_has_a_row_for_each_level_and_a_panel_for_each_price(drawn):
    axes = [ax for ax in drawn["knockouts"]["knockouts_effect_on_ce"].figure.axes if ax.images]
    assert len(axes) == len(PRICES)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == NAMES
    for s, ax in enumerate(axes):
        np.testing.assert_allclose(cells(ax), np.add.outer(np.arange(27), np.full(6, 1 + 0.3 * s)))
        assert [text.get_text() for text in ax.texts] == ["*"] * 27 * 6  # all of them have p 0.01


def test_usage_is_the_mean_over_runs_and_has_no_stars(drawn):
    ax = drawn["price"]["price_usage"].figure.axes[0]
    assert cells(ax)[3] == pytest.approx([1.05 / 4] * 6) and not ax.texts


def test_subgoals_of_a_level_are_rows_below_it(drawn):
    first, second = (drawn["shapley"][f"shapley_by_subgoal_{n}"].figure.axes[0] for n in (1, 2))
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels[:4] == ["GoToA  GoNextTo", "  Open", "  Pickup", "GoToB  GoNextTo"]
    assert len(labels) + len(second.get_yticklabels()) == 27 * 3 and len(labels) <= 60


def test_each_level_has_a_small_panel_of_what_is_needed_and_used(drawn):
    axes = drawn["needed"]["needed_course"].figure.axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert [title for title in titles if title] == NAMES
    lines = axes[titles.index("OpenA")].lines
    assert len(lines) == 2 * len(PRICES)
    assert {tuple(line.get_ydata()) for line in lines} == {
        tuple(v * left for left in (1, 3, 8, 21)) for v in (10, 10.3, 10.6)
    }
    assert axes[0].get_yscale() == "log"


def test_maps_are_of_levels_that_differ_in_what_they_need_and_say_so(planted, drawn):
    over = planted["needed"]
    assert choose_levels(over[over["unit"] != "run"]) == [TASKS[place] for place in (0, 9, 17, 26)]
    assert "One of 4 of 27 levels" in drawn["needed"]["needed_map_OpenI"].caption
    assert choose_levels(over[over["quantity"] == "used"]) == []


def test_what_a_condition_says_of_each_task_once_is_no_curve():
    """The hypervolume's worst LPC differs between tasks, and was an axis."""
    once = frame(Row("price", "hypervolume", task=task, condition=f"from LPC {n}") for n, task in enumerate(TASKS))
    assert not is_curve(once)
    assert is_curve(frame(Row("x", "q", task="T", condition=f"tau {n}") for n in (0.1, 0.2, 0.3)))


def test_values_that_span_decades_have_a_logarithmic_axis():
    assert spans_decades(np.array([1.0, 3.0, 60.0, np.nan]))
    assert not spans_decades(np.array([1.0, 3.0, 19.0]))
    assert not spans_decades(np.array([0.0, 3.0, 60.0])) and not spans_decades(np.array([np.nan]))
    rows = [row for about, value in each() for row in tell("rise", value**2, seeds=(0, 1), **about)]
    (figure,) = draw_analysis("dynamics", frame(rows), {}, SIZES)
    assert figure.name == "dynamics_by_level_1" and figure.figure.axes[0].get_xscale() == "log"
    assert figure.figure.get_figheight() < PAGE


def test_levels_of_a_family_begin_alike():
    levels = [
        "BabyAI-GoToObj-v0",
        "BabyAI-GoToLocalS5N2-v0",
        "OpenDoor",
        "OpenTwoDoors",
        "BabyAI-PickupDist-v0",
        "OneRoomS8",
    ]
    assert group_levels(levels) == {
        **dict.fromkeys(levels[:2], "GoTo"),
        **dict.fromkeys(levels[2:4], "Open"),
        **dict.fromkeys(levels[4:], OTHER),
    }


# ---------------------------------------------------------------------------------------------------------- the tables


def test_a_level_is_a_row_at_the_price_that_claims_ask_at(planted):
    over = planted["needed"][planted["needed"]["unit"] != "run"]
    found = summarise(over, {"needed": "complexity needed"}, 1e-5)
    names = [name for table in found.tables for name in table.head[1:]]
    places = [f", x {x} y 0" for x in range(2)]
    assert names[0] == "complexity needed" and [n for n in names if " at" in n] == [
        f"{kind} at{place}" for kind in ("needed", "used") for place in places
    ]
    for table in found.tables:
        assert [row[0] for row in table.rows] == NAMES and len(table.head) <= 1 + MOST_COLUMNS
        assert table.caption.startswith("at \N{GREEK SMALL LETTER ALPHA} = 1e-05: means over 10 runs")
    assert found.tables[0].rows[2][1] == "3.3 [2.64, 3.96]"


def test_all_numbers_are_on_the_page_or_named_with_their_count(planted):
    for table in planted.values():
        over = table[table["unit"] != "run"]
        found = summarise(over, {}, 1e-5)
        shown = sum(len(t.rows) * (len(t.head) - 1) for t in found.tables)
        if not found.tables:
            continue
        here, of = map(int, re.findall(r"[\d,]+", found.rest[0].replace(",", "")))
        assert (here, of) == (shown, len(over))
        assert here + sum(int(n.replace(",", "")) for n in re.findall(r"\(([\d,]+)\)", found.rest[1])) == of


def test_few_rows_are_all_there_and_no_price_is_left_out():
    rows = [Row("x", "q", unit="runs", task=t, setting=s, value=1.0, n_runs=3) for t in TASKS[:2] for s in PRICES]
    found = summarise(frame(rows), {}, 1e-5)
    (table,) = found.tables
    assert len(table.rows) == 6 and found.rest == ()


def test_nulls_lost_runs_and_levels_without_a_value_are_told():
    about = {"unit": "runs", "setting": "alpha=0", "n_runs": 8}
    rows = [Row("x", "q", task=task, value=0.5, low=0.4, high=0.6, null_mean=0.1, **about) for task in TASKS[:4]]
    rows.append(Row("x", "q", task=TASKS[4], value=0.5, n_dropped=2, **about))
    rows.append(Row("x", "q", task=TASKS[5], n_dropped=10, **{**about, "n_runs": 0}))
    rows += [Row("x", "sham", task=task, value=0.0, **about) for task in TASKS[:6]]
    (table,) = summarise(frame(rows), {"sham": "what sham changes"}, None).tables
    minus = "\N{MINUS SIGN}"
    told = ["0.5 [0.4, 0.6] against 0.1"] * 4 + [f"0.5 ({minus}2)", "none of 10 runs"]
    assert [row[1] for row in table.rows] == told and len(table.head) == 2
    assert table.caption.endswith("in brackets: runs without a value; 0 on every level: what sham changes")


def test_what_is_of_no_single_price_is_not_said_to_be():
    about = {"unit": "runs", "value": 0.5, "n_runs": 8}
    rows = [Row("x", "trend", task=task, **about) for task in TASKS[:5]]
    rows += [Row("x", "q", task=task, setting=setting, **about) for task in TASKS[:5] for setting in PRICES]
    (table,) = summarise(frame(rows), {}, 1e-5).tables
    said = "means over 8 runs with 95 % intervals; what differs by price is at \N{GREEK SMALL LETTER ALPHA} = 1e-05"
    assert table.caption == said and table.head == ("level", "trend", "q")


def test_a_level_that_was_never_learned_says_so():
    rows = [Row("x", "difficulty_steps_to_learn", unit="levels", task=task, value=8.5) for task in TASKS[:4]]
    rows.append(Row("x", "difficulty_steps_to_learn", unit="levels", task=TASKS[4], condition="never learned"))
    (table,) = summarise(frame(rows), {}).tables
    assert [row[1] for row in table.rows] == ["8.5"] * 4 + ["never learned"]


def test_the_price_of_the_tables_is_that_of_the_claims():
    def claim(name, alpha):
        return SimpleNamespace(claim=name, alpha=alpha)

    asked = [claim("needed.used", 1e-4), claim("a.x", 0.0), claim("a.y", 1e-5), claim("a.z", 1e-5), claim("b.x", None)]
    assert [asked_price(asked, name) for name in ("needed", "a", "b")] == [1e-4, 1e-5, 1e-5]
    assert asked_price([claim("b.x", None)], "b") is None and asked_price([], "b") is None


# -------------------------------------------------------------------------------------------------------- the intervals


@pytest.mark.parametrize(
    "shares", [[1.0, 1.0, 0.93], [0.0, 0.0, 0.2], [1.0] * 3, [0.0] * 3, [0.9, 0.1, 0.5], [1, 0, 0]]
)
def test_success_has_an_interval_within_its_limits(shares):
    """The t interval of such runs goes beyond 1, and has no width where all are alike."""
    mean, low, high = share_interval(shares, 16)
    assert 0 <= low <= mean <= high <= 1 and high - low > 0.05
    assert (low == 0) == (mean == 0) and (high == 1) == (mean == 1)


def test_the_interval_of_success_is_wilsons_at_the_effective_number_of_episodes():
    shares = [0.9, 0.8, 0.7, 0.6]
    mean, low, high = share_interval(shares, 100)
    n, t = 0.75 * 0.25 / (np.var(shares, ddof=1) / 4), 3.182446  # t of 3 degrees of freedom
    assert n < 400
    for end in (low, high):  # the score equation that Wilson solves
        assert (mean - end) ** 2 == pytest.approx(t**2 * end * (1 - end) / n, rel=1e-5)
    alike = share_interval([0.75] * 4, 100)
    assert (0.75 - alike[1]) ** 2 == pytest.approx(t**2 * alike[1] * (1 - alike[1]) / 400, rel=1e-5)


def test_the_interval_of_success_holds_the_mean_as_often_as_it_says():
    """Of runs whose chances differ; the t interval does so in 88 %."""
    rng = np.random.default_rng(0)
    chances = rng.beta(98, 1, (400, 10))
    found = [share_interval(row, 100) for row in rng.binomial(100, chances) / 100]
    assert sum(low <= 98 / 99 <= high for _, low, high in found) >= 372  # 93 %; expected 386, sd 4


def test_two_runs_have_no_interval_and_costs_none_below_0():
    assert np.isnan(share_interval([1.0, 0.5], 10)[1:]).all() and np.isnan(share_interval([], 10)).all()
    mean, low, high = cost_interval([1.0, 2.0, 9.0])
    assert (mean, low) == (4.0, 0.0) and high > 9
    assert np.isnan(cost_interval([1.0, 2.0])[1:]).all() and np.isnan(cost_interval([])[0])


# ------------------------------------------------------------------------------------------------------------ the texts


def test_labels_stand_alone():
    labels = {"a": "rank correlation", "b": "the same, size partialled out", "c": "other"}
    assert spell_out(labels) == {**labels, "b": "rank correlation, size partialled out"}


def test_numbers_in_a_row_are_joined():
    assert [join_numbers(n) for n in ([0, 1, 2, 5], [3, 1], [])] == ["0-2, 5", "1, 3", ""]


def test_cells_break_between_a_number_and_its_interval_alone():
    assert keep_together("0.5 [0.4, 0.6] against 0.1") == (
        "<span>0.5</span> <span>[0.4, 0.6]</span> <span>against 0.1</span>"
    )
    assert keep_together("<1") == "&lt;1" and break_names("a.b") == "a.<wbr>b"
