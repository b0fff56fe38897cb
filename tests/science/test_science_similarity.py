"""Levels that are alike: known matrices, exact permutations, planted kinship, and what held-out levels reuse."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, spearmanr

from science import similarity
from science.effects import Condition, Effects
from science.kinship import (
    add_mantel,
    add_reuse,
    compare_pairs,
    find_cosine,
    find_relatives,
    find_route,
    permute_matrix,
)
from science.planted_effects import build_effects
from science.planted_levels import plant_kinship
from science.result import Draft
from science.synthetic import Design, draw_template, set_weights
from science.traces import Group, Run, Traces

NAMES = ("GoNextTo", "Open", "Pickup", "Drop")
MIXES = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0.4, 0.3, 0.3, 0], [0.3, 0, 0.4, 0.3],
                  [0.2, 0.4, 0.2, 0.2], [0.6, 0.4, 0, 0], [0.5, 0, 0.3, 0.2]])  # fmt: skip
TASKS = tuple(f"BabyAI-Level{i}-v0" for i in range(len(MIXES)))
RUNS = [Run("all tasks", "alpha=0", 0, seed) for seed in range(10)]


def make_traces(rng, weigh, *, runs=4, source="R", setting="alpha=0"):
    """Return runs on levels whose subgoals are shares of `MIXES`; `weigh` gives the weights (S, E) of a level."""
    parts = []
    for g, task in enumerate(TASKS):
        drawn = draw_template(Design(runs=runs, episodes=8, shortest=20, longest=20, sizes=((0, 4, 8, 16),)), rng)
        codes = np.searchsorted(np.cumsum(MIXES[g]), (drawn.time + 0.5) / 20).clip(0, 3).astype(np.int32)
        groups = {**drawn.groups, "subgoal": Group(codes, NAMES)}
        named = tuple(replace(run, task=task, setting=setting) for run in drawn.runs)
        drawn = replace(drawn, source=source, runs=named, levels=(task,), groups=groups, action=drawn.bot_action)
        parts.append(set_weights(drawn, weigh(g, drawn)[:, None]))
    return Traces.concatenate(parts)


def follow_subgoal(g, drawn):
    return np.eye(4)[drawn.group("subgoal").codes] + 0.05


def follow_nothing(g, drawn):
    return np.full((len(drawn.episode), 4), 0.25)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ----------------------------------------------------------------------------------------------------------- matrices


def test_k_route_is_one_minus_the_jensen_shannon_divergence(rng):
    paths = rng.dirichlet(np.ones(5), (2, 3))
    found = find_route(paths)
    for n, i, j in itertools.product(range(2), range(3), range(3)):
        assert found[n, i, j] == pytest.approx(1 - jensenshannon(paths[n, i], paths[n, j], base=2) ** 2, abs=1e-9)
    apart = find_route(np.eye(3)[None])
    np.testing.assert_allclose(apart[0], np.eye(3), atol=1e-12)


def test_k_task_is_the_cosine_of_the_bots_subgoals(rng):
    mixes = similarity.mix_subgoals(make_traces(rng, follow_nothing), TASKS)
    np.testing.assert_allclose(mixes, MIXES, atol=1e-9)
    found = find_cosine(mixes)
    assert found[0, 1] == pytest.approx(1 / math.sqrt(2)) and np.diag(found) == pytest.approx(np.ones(8))


# ------------------------------------------------------------------------------------------------------------- Mantel


def test_mantel_is_spearman_over_pairs_and_the_partial_one_takes_a_third_out(rng):
    a, b, c = (m + m.T for m in rng.normal(size=(3, 6, 6)))
    at = np.triu_indices(6, 1)
    assert compare_pairs(a, b) == pytest.approx(spearmanr(a[at], b[at]).statistic)
    r = {p: spearmanr(x[at], y[at]).statistic for p, (x, y) in {"ab": (a, b), "ac": (a, c), "bc": (b, c)}.items()}
    expected = (r["ab"] - r["ac"] * r["bc"]) / math.sqrt((1 - r["ac"] ** 2) * (1 - r["bc"] ** 2))
    assert compare_pairs(a, b, c) == pytest.approx(expected)
    assert abs(compare_pairs(a, 2 * c + 1, c)) < 1e-9 or math.isnan(compare_pairs(a, 2 * c + 1, c))


def test_few_levels_are_permuted_in_every_way_and_p_is_exact(rng):
    own = np.stack([m + m.T for m in rng.normal(size=(9, 5, 5))])
    other = rng.normal(size=(5, 5))
    other = other + other.T
    row = add_mantel(Draft("similarity", ""), "route_like_task", own, other, RUNS[:9], rng, 999)
    each = []
    for order in itertools.permutations(range(5)):
        each.append(compare_pairs(own, permute_matrix(other, np.array(order))).mean())
    center = np.median(each[1:])
    levels = np.mean([abs(value - center) >= abs(each[0] - center) - 1e-12 for value in each])
    assert row.p >= levels and row.p_floor == pytest.approx(1 / 120)
    from science.statistics.inference import compare_with_zero

    assert row.p == pytest.approx(max(levels, compare_with_zero(compare_pairs(own, other)).p))


@pytest.mark.parametrize("minus", [False, True])
def test_ways_of_levels_that_all_runs_share_are_not_taken_for_kinship(minus):
    """Routing has nothing to do with subgoals: p <= 0.05 within the binomial 99 % interval over 200 data sets."""
    wrong = 0
    for number in range(200):
        rng = np.random.default_rng(number)
        route, task, before = plant_kinship(rng, 6, 12, gain=0.0)
        draft = Draft("similarity", "")
        more = {"minus": before} if minus else {}
        wrong += add_mantel(draft, "route_like_task", route, task, RUNS[:6], rng, 99, **more).p <= 0.05
    assert wrong <= binom.interval(0.99, 200, 0.05)[1]


def test_planted_kinship_is_found():
    rng = np.random.default_rng(3)
    route, task, before = plant_kinship(rng, 10, 16, gain=3.0)
    for more in ({}, {"minus": before}):
        row = add_mantel(Draft("similarity", ""), "route_like_task", route, task, RUNS, rng, 199, **more)
        assert row.value > 0.3 and row.p < 0.05


# -------------------------------------------------------------------------------------------------------- whole runs


def test_routers_that_follow_subgoals_route_related_levels_alike(rng):
    traces, before = (make_traces(rng, weigh, runs=10) for weigh in (follow_subgoal, follow_nothing))
    found = similarity.compute(traces, untrained=before, draws=99)
    row = found.row("route_like_task")
    assert row.value > 0.8 and row.p <= 0.011 and row.n_levels == len(TASKS) and row.unit == "runs+levels"
    assert math.isnan(found.row("route_like_task_above_untrained").value)  # before, all pairs are alike
    constant = similarity.compute(before, draws=9).row("route_like_task")
    assert math.isnan(constant.value) and constant.n_dropped == 10


def test_minus_untrained_is_paired_by_seed(rng):
    traces = make_traces(rng, follow_subgoal)
    row = similarity.compute(traces, untrained=traces, draws=9).row("route_like_task_above_untrained")
    assert row.value == pytest.approx(0) and row.n_runs == 4


def plant_lesions(traces, shares):
    tables = []
    for g, task in enumerate(TASKS):
        runs = [run for run in traces.runs if run.task == task]
        conditions = [Condition(f"k{e}", "knockout", 0, e, 4 * e, "zero", True) for e in range(4)]
        ce = np.broadcast_to(shares[g][None, :, None], (len(runs), 4, 8)).copy()
        tables.append(build_effects(runs, np.arange(8), conditions, ce))
    return Effects.concatenate(tables)


def test_lesions_that_harm_by_subgoal_are_shared_by_related_levels(rng):
    traces = make_traces(rng, follow_subgoal)
    found = similarity.compute(traces, effects=plant_lesions(traces, MIXES), draws=99)
    assert found.row("lesion_like_task").value > 0.8
    assert found.row("route_like_lesion").value > 0.5
    matrix = found.find("k_lesion", group=TASKS[2], condition=TASKS[1])[0].value
    assert matrix == pytest.approx(np.corrcoef(MIXES[1], MIXES[2])[0, 1])


# ----------------------------------------------------------------------------------------------------- held-out levels


def test_a_held_out_level_reuses_the_paths_of_its_relatives(rng):
    traces = make_traces(rng, follow_subgoal)
    played = replace(traces, source="P")
    held_out = TASKS[-1:]  # of which level 4 is the nearest
    found = similarity.compute(traces, played=played, held_out=held_out, draws=199)
    row = found.row("reuse")
    assert row.value > 0.05 and row.p_floor == pytest.approx(1 / 7) and row.condition == "1 held out, 7 trained"
    assert row.p >= 1 / 7 - 0.05  # one of seven trained levels: no smaller p is to be had
    assert found.row("route_like_task").n_levels == 7
    for quantity, value in (("held_out_success", 1), ("held_out_agreement", 1), ("held_out_loss", 0)):
        rows = found.find(quantity)
        assert rows[-1].value == pytest.approx(value)
    assert {row.task for row in found.find("held_out_success")} == set(held_out)
    assert found.row("held_out_loss").unit == "runs"  # one held-out level is no sample of levels


def test_relatives_are_all_that_are_most_alike():
    found = find_relatives(np.array([[0.2, 0.9, 0.9], [0.3, 0.1, 0.2]]))
    assert found.tolist() == [[False, True, True], [True, False, False]]


def test_reuse_that_is_not_there_is_rarely_found():
    wrong = 0
    for number in range(200):
        rng = np.random.default_rng([7, number])
        route, task, _ = plant_kinship(rng, 6, 16, gain=0.0)
        row = add_reuse(
            Draft("similarity", ""), "reuse", route[:, :4, 4:], find_relatives(task[:4, 4:]), RUNS[:6], rng, 99
        )
        wrong += row.p <= 0.05
    assert wrong <= binom.interval(0.99, 200, 0.05)[1]


def test_reuse_is_found_where_it_is(rng):
    route, task, _ = plant_kinship(rng, 10, 20, gain=3.0)
    row = add_reuse(Draft("similarity", ""), "reuse", route[:, :4, 4:], find_relatives(task[:4, 4:]), RUNS, rng, 499)
    assert row.value > 0 and row.p < 0.05


def test_fewer_than_five_trained_levels_have_no_value(rng):
    found = similarity.compute(make_traces(rng, follow_subgoal), held_out=TASKS[4:], draws=9)
    assert found.row("route_like_task").n_dropped == 4 and found.row("reuse").n_dropped == 4
    assert "over levels: needs 5 levels, found 4: no value" in found.notes
