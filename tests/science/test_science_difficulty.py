"""Difficulty and complexity: planted relations are found, levels' own ways are not, and each pitfall is seen."""

import dataclasses
import itertools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from science import difficulty
from science.effects import Condition
from science.forecast import find_correlation
from science.levels import (
    add_over_levels,
    episode_means,
    lay_out,
    permute_levels,
    rank_correlations,
    rank_correlations_without,
)
from science.planted_effects import build_effects
from science.planted_levels import plant_difficulty
from science.result import Draft
from science.statistics.inference import compute_equivalence
from science.synthetic import Design, draw_template
from science.traces import Run, Traces

LEVELS, NEVER = 8, math.inf
TASKS = tuple(f"BabyAI-Level{i}-v0" for i in range(LEVELS))


def make_traces(rng, lpc, *, runs=4, settings=("alpha=0",), source="R", success=None, by_time=0.0):
    """Return runs on levels whose episodes are the longer the greater a level's number, with this LPC (N, G)."""
    parts = []
    for s, setting in enumerate(settings):
        for g, task in enumerate(TASKS):
            shape = Design(runs=runs, episodes=6, shortest=4 + 3 * g, longest=5 + 3 * g, sizes=((0, 4, 8),))
            drawn = draw_template(shape, rng)
            named = tuple(
                dataclasses.replace(run, task=task, setting=setting, trial=s, lpc_alpha=float(s)) for run in drawn.runs
            )
            values = np.asarray(lpc, float).reshape(len(settings), runs, LEVELS)[s, :, g][drawn.run]
            values = values + by_time * drawn.time
            won = drawn.success if success is None else success(g, drawn)
            parts.append(
                dataclasses.replace(
                    drawn, source=source, runs=named, levels=(task,), lpc=values.astype(np.float32), success=won
                )
            )
    return Traces.concatenate(parts)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------------- over levels


def test_lpc_that_is_a_plus_b_times_difficulty_has_correlation_one(rng):
    traces = make_traces(rng, np.tile(3 + 2.0 * np.arange(LEVELS), (10, 1)), runs=10)
    found = difficulty.compute(traces, draws=199)
    row = found.row("lpc_plan_length")
    assert row.value == pytest.approx(1) and row.unit == "runs+levels" and row.n_levels == LEVELS and row.n_runs == 10
    assert row.p == pytest.approx(1 / 200)  # levels were permuted: the signs of ten equal runs alone give less
    assert [r.value for r in found.find("difficulty_plan_length")] == pytest.approx(
        np.arange(LEVELS) * 3 + 4.5, abs=0.6
    )
    assert any("8 levels are few" in note for note in found.notes)


def test_each_runs_value_is_spearmans_of_its_own_levels(rng):
    lpc = rng.normal(size=(4, LEVELS)) + 20
    traces = make_traces(rng, lpc)
    found = difficulty.compute(traces, draws=9)
    plan = [row.value for row in found.find("difficulty_plan_length")]
    expected = [spearmanr(row, plan).statistic for row in lpc]
    assert [row.value for row in found.find("lpc_plan_length", unit="run")] == pytest.approx(expected)


def test_prices_are_never_pooled(rng):
    """Within each price LPC falls with difficulty; pooled with which price plays what, it would seem to rise."""
    falling = -0.1 * np.arange(LEVELS)
    lpc = np.stack([np.tile(20 + falling, (4, 1)), np.tile(2 + falling, (4, 1))])
    found = difficulty.compute(make_traces(rng, lpc, settings=("alpha=0", "alpha=1")), draws=19)
    rows = [row for row in found.find("lpc_plan_length") if row.unit != "run"]
    assert {row.setting: round(row.value, 6) for row in rows} == {"alpha=0": -1, "alpha=1": -1}


def test_of_own_play_only_successes_count_since_failures_dilute_lpc(rng):
    """Failed episodes have an LPC of 0 here and are the more frequent the harder the level."""
    lpc = np.tile(1.0 + np.arange(LEVELS), (4, 1))
    clean = make_traces(rng, lpc)

    def lose(g, drawn):
        return (np.arange(len(drawn.success)) % 6 < (6 if g < LEVELS // 2 else 5)).astype(np.float32)

    played = make_traces(rng, lpc, source="P", success=lose)
    failed = played.success[played.episode] == 0
    diluted = dataclasses.replace(played, lpc=np.where(failed, -30.0, played.lpc).astype(np.float32))
    all_of_it = lay_out(played.runs, TASKS).spread(episode_means(diluted, diluted.lpc))
    plan = np.arange(LEVELS, dtype=float)
    assert rank_correlations(all_of_it[0], plan[None])[0] < 0.5
    found = difficulty.compute(clean, played=diluted, draws=19)
    assert found.row("lpc_plan_length_played").value == pytest.approx(1)


def test_held_out_levels_do_not_count(rng):
    lpc = np.tile(3 + 2.0 * np.arange(LEVELS), (4, 1))
    lpc[:, -1] = -100
    found = difficulty.compute(make_traces(rng, lpc), held_out=TASKS[-1:], draws=19)
    assert found.row("lpc_plan_length").value == pytest.approx(1)


def test_levels_learned_before_it_can_be_told_are_noted(rng):
    traces = make_traces(rng, np.ones((4, LEVELS)))
    known = {task: float(place) for place, task in enumerate(TASKS)}
    found = difficulty.compute(traces, steps_to_learn=known, soonest=TASKS[1:3], draws=19)
    assert f"{TASKS[1]}, {TASKS[2]}: dense networks are there as soon as it can be told" in " ".join(found.notes)
    assert "as soon as" not in " ".join(difficulty.compute(traces, steps_to_learn=known, draws=19).notes)


def test_levels_never_learned_rank_last():
    steps = {"a": [100, 200, 300], "b": [100, NEVER, NEVER], "c": [50, 1000, NEVER], "d": [100, NEVER], "e": []}
    ranks = difficulty.rank_learning(steps)
    assert ranks == {"a": math.log(200), "b": math.inf, "c": math.log(1000), "d": math.inf}
    assert rank_correlations(np.arange(5.0), np.array([[1, 2, 3, np.inf, np.inf]]))[0] > 0.9


def test_fewer_than_five_levels_have_no_value(rng):
    traces = make_traces(rng, np.ones((4, LEVELS)))
    found = difficulty.compute(traces, held_out=TASKS[4:], draws=19)
    row = found.row("lpc_plan_length")
    assert math.isnan(row.value) and row.n_dropped == 4
    assert "over levels: needs 5 levels, found 4: no value" in found.notes


def test_all_orders_are_taken_where_there_are_few():
    found = permute_levels(4, 99, np.random.default_rng(0))
    assert sorted(map(tuple, found)) == sorted(itertools.permutations(range(4)))[1:]
    assert len(permute_levels(6, 99, np.random.default_rng(0))) == 99


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.data())
def test_ranks_without_a_level_are_those_of_the_levels_that_are_left(data):
    """Up to rounding: with ties, levels without a value, and difficulties that are infinite."""
    number = data.draw(st.integers(1, 24))
    some = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, math.inf]) | st.floats(-9, 9)
    values = np.array(data.draw(st.lists(some | st.just(math.nan), min_size=number, max_size=number)))
    other = np.array(data.draw(st.lists(some, min_size=number, max_size=number)))
    expected = [rank_correlations(np.delete(values, g), np.delete(other, g)[None])[0] for g in range(number)]
    np.testing.assert_allclose(rank_correlations_without(values, other), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_what_levels_do_to_all_runs_is_not_taken_for_difficulty(shared):
    """Without b, p <= 0.05 within the binomial 99 % interval of 200 data sets; a test over runs is wrong mostly."""
    runs = [Run("all", "alpha=0", 0, seed) for seed in range(10)]
    wrong = by_runs = 0
    for number in range(200):
        rng = np.random.default_rng([number, int(shared)])
        table, hard = plant_difficulty(rng, 10, 16, slope=0.0, shared=shared)
        draft = Draft("difficulty", "")
        row = add_over_levels(draft, "lpc_plan_length", table, hard, runs, rng, 99)
        wrong += row.p <= 0.05
        alone = np.array([r.value for r in draft.rows if r.unit == "run"])
        by_runs += abs(alone.mean()) > 2.262 * alone.std(ddof=1) / np.sqrt(10)
    low, high = binom.interval(0.99, 200, 0.05)
    assert wrong <= high
    assert shared == 0 or (low <= wrong and by_runs > 80)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_intervals_are_over_levels_too_so_that_equal_runs_make_none_equivalent(noise):
    """Of 200 data sets without a relation 95 % intervals cover 0 in 90 % at least; over runs alone in few."""
    runs, covered, equivalent = [Run("all", "alpha=0", 0, seed) for seed in range(10)], 0, 0
    for number in range(200):
        rng = np.random.default_rng([number, 5])
        table, hard = plant_difficulty(rng, 10, 16, slope=0.0, shared=1.0, noise=noise)
        row = add_over_levels(Draft("difficulty", ""), "lpc_plan_length", table, hard, runs, rng, 0)
        covered += row.low <= 0 <= row.high
        equivalent += compute_equivalence(row.__dict__, 0.1, 0.0) <= 0.05
    assert covered >= 180
    assert equivalent == 0  # 16 levels cannot tell 0 from 0.1


# ----------------------------------------------------------------------------------------------------- within levels


def test_lpc_that_falls_with_the_plan_that_remains_is_found_within_levels(rng):
    lpc = 5 * rng.normal(size=(4, LEVELS))  # levels and runs differ by far more than steps do
    falling = make_traces(np.random.default_rng(1), lpc, by_time=-0.1)
    flat = make_traces(np.random.default_rng(1), lpc)
    found = difficulty.compute(falling, untrained=falling, draws=9)
    assert found.row("lpc_remaining").value == pytest.approx(1, abs=1e-4)
    assert found.row("lpc_remaining_above_untrained").value == pytest.approx(0, abs=1e-6)
    row = difficulty.compute(flat, draws=9).row("lpc_remaining")
    assert math.isnan(row.value) and row.n_dropped == 4


# ----------------------------------------------------------------------------------------------------------- lesions


def plant_lesions(traces, harm, small=0.0):
    tables = []
    for g, task in enumerate(TASKS):
        runs = [run for run in traces.runs if run.task == task]
        conditions = [Condition("largest", "lesion_largest"), Condition("smallest", "lesion_smallest")]
        ce = np.stack([np.full((len(runs), 6), harm[g]), np.full((len(runs), 6), small * harm[g])], axis=1)
        tables.append(build_effects(runs, np.arange(6), conditions, ce))
    from science.effects import Effects

    return Effects.concatenate(tables)


def test_harm_that_rises_with_difficulty_is_found_among_levels_that_are_solved(rng):
    lpc = np.ones((10, LEVELS))
    traces = make_traces(rng, lpc, runs=10)
    harm = 0.1 * np.arange(LEVELS)
    harm[-1] = -5  # never solved: there is nothing to lose
    solved = {"source": "P", "success": lambda g, d: np.full_like(d.success, float(g < LEVELS - 1))}
    played = make_traces(rng, lpc, runs=10, **solved)
    found = difficulty.compute(traces, played=played, effects=plant_lesions(traces, harm, small=0.5), draws=99)
    plan = np.array([row.value for row in found.find("difficulty_plan_length")])
    expected = np.polyfit(plan[:-1], harm[:-1], 1)[0] * plan.std()
    row = found.row("lesion_slope")
    assert row.value == pytest.approx(expected) and row.p == pytest.approx(0.01)
    assert found.row("lesion_slope_above_small").value == pytest.approx(expected / 2)


def test_who_solves_nothing_has_no_slope_and_it_is_said(rng):
    lpc = np.ones((4, LEVELS))
    traces = make_traces(rng, lpc)
    played = make_traces(rng, lpc, source="P", success=lambda g, d: np.zeros_like(d.success))
    found = difficulty.compute(traces, played=played, effects=plant_lesions(traces, np.arange(8.0)), draws=9)
    assert found.row("lesion_slope").n_dropped == 4
    assert any("lesion_slope: no run solves 5 levels" in note for note in found.notes)


# -------------------------------------------------------------------------------------------------------------- plan


def test_the_correlation_that_a_plan_promises_is_found_as_often():
    rho = find_correlation(18, 0.05, 0.8)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4000, 18))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(4000, 18))
    rank = [spearmanr(a, b).pvalue <= 0.05 for a, b in zip(x, y, strict=True)]
    assert np.mean(rank) == pytest.approx(0.8, abs=0.07)  # Spearman's is a little less than Pearson's of normal values
