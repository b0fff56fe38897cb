"""Exact Shapley values: axioms, games by hand, and what was planted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.command.errors import ConfigError
from science import shapley
from science.coalitions import (
    code_of,
    count_members,
    interaction_weights,
    list_pairs,
    list_players,
    name_without,
    shapley_weights,
)
from science.conditions import build_conditions, count_conditions
from science.credit_consistency import add_consistency, center
from science.credit_rankings import add_usage
from science.effects import Condition
from science.planted_effects import build_effects
from science.planted_forced import plant_credit
from science.result import Draft
from science.synthetic import Design, draw_template, plant_signal

SIZES = ((0, 16, 32), (0, 16, 32))
PLAYERS = list_players(SIZES)


@pytest.fixture(scope="module")
def template():
    return draw_template(Design(runs=8, episodes=16, sizes=SIZES), np.random.default_rng(0))


def rng(seed=0):
    return np.random.default_rng(seed)


def play(template, game, *, groups=(), noise=0.0, single=0.0):
    """Return effects in which coalitions are worth game(runs, levels, groups + 1, 2^n), all steps first."""
    runs, seeds = template.runs, np.arange(16)
    codes = list(range(2 ** len(PLAYERS)))[::-1]
    gone = [[p for i, p in enumerate(PLAYERS) if not code >> i & 1] for code in codes]
    conditions = [Condition("sham", "sham"), *(Condition(name_without(g), "coalition") for g in gone[1:])]
    conditions += [
        Condition(f"zero {layer} {expert}", "knockout", layer, expert, 16, "zero", renormalise=True)
        for layer, expert in PLAYERS
    ]
    worth = np.moveaxis(game[..., codes], -1, 1)  # (R, C, G, X)
    harm = -(worth + noise * rng(5).normal(size=worth.shape) * (np.arange(len(codes)) > 0)[:, None, None])
    harm = np.concatenate([harm, np.full((*harm.shape[:1], len(PLAYERS), *harm.shape[2:]), single)], axis=1)
    by_group = harm[..., 1:] if groups else None
    return build_effects(runs, seeds, conditions, harm[..., 0], groups=groups, by_group=by_group)


def additive(credit):
    """Return the game (..., 2^n) in which experts add up to credit (..., n), 0 with all."""
    inside = (np.arange(2 ** credit.shape[-1])[:, None] >> np.arange(credit.shape[-1]) & 1).astype(float)
    return (credit[..., None, :] * (inside - 1)).sum(axis=-1)


# ------------------------------------------------------------------------------------------------------------- axioms


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_credits_sum_to_what_all_are_worth(players, seed):
    game = rng(seed).normal(size=2**players)
    assert (shapley_weights(players) @ game).sum() == pytest.approx(game[-1] - game[0], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_who_adds_nothing_gets_nothing_and_who_adds_the_same_gets_the_same(players, seed):
    codes = np.arange(2**players)
    game = rng(seed).normal(size=2**players)
    without_first = game[codes & ~1]
    credit = shapley_weights(players) @ without_first
    assert credit[0] == pytest.approx(0, abs=1e-9)
    found = interaction_weights(players) @ without_first
    assert [value for (i, _), value in zip(list_pairs(players), found, strict=True) if i == 0] == pytest.approx(
        [0] * (players - 1), abs=1e-9
    )
    swapped = (codes & ~3) | (codes & 1) << 1 | codes >> 1 & 1
    credit = shapley_weights(players) @ (game + game[swapped])
    assert credit[0] == pytest.approx(credit[1], abs=1e-9)


def test_values_are_means_over_all_orders():
    import itertools

    game = rng(3).normal(size=16)
    found = np.zeros(4)
    for order in itertools.permutations(range(4)):
        code = 0
        for player in order:
            found[player] += game[code | 1 << player] - game[code]
            code |= 1 << player
    assert shapley_weights(4) @ game == pytest.approx(found / 24)


def test_games_by_hand():
    glove = np.array([float(code & 1 and code & 6 != 0) for code in range(8)])  # one left, two right gloves
    assert shapley_weights(3) @ glove == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert interaction_weights(3) @ glove == pytest.approx([0.5, 0.5, -0.5])
    voting = (count_members(3) >= 2).astype(float)  # majority of three
    assert shapley_weights(3) @ voting == pytest.approx([1 / 3] * 3)
    assert interaction_weights(3) @ voting == pytest.approx([0, 0, 0])
    unanimity = (count_members(4) == 4).astype(float)
    assert interaction_weights(4) @ unanimity == pytest.approx([1 / 3] * 6)


# ---------------------------------------------------------------------------------------------------------- conditions


def test_every_coalition_is_made_once_and_no_skip_is_ever_taken_out():
    items = build_conditions("coalitions", "R", [list(layer) for layer in SIZES], 0)
    coalitions = [item for item in items if item.kind == "coalition"]
    codes = [code_of(item.name, PLAYERS) for item in coalitions]
    assert items[0].is_sham and sorted(codes) == list(range(15))
    assert all(expert > 0 for item in coalitions for _, expert in item.where.experts)
    assert not any(item.renormalise for item in coalitions)
    assert all(code_of(item.name, PLAYERS) == 15 & ~sum(1 << PLAYERS.index(p) for p in item.where.experts)
               for item in coalitions)  # fmt: skip
    assert [item.kind for item in items[16:]] == ["knockout"] * 4 and all(item.renormalise for item in items[16:])
    assert len({item.name for item in items}) == len(items)


def test_too_many_experts_are_refused_with_what_to_do(monkeypatch, tmp_path):
    from science.config import read_study
    from science.plan import build_design

    assert len(list_players([[8] * 10])) == 10
    words = r"at most 10 experts that are no skip, .*found 11, which have 2,048; .*without shapley"
    with pytest.raises(ValueError, match=words):
        list_players([[8] * 11])
    with pytest.raises(ConfigError, match=words):
        build_conditions("coalitions", "R", [[8] * 11], 0)
    monkeypatch.chdir(tmp_path)
    train = "{expert_hidden_sizes: [[0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]]}"
    flags = ["--tasks", "GoToObj", "--lpc_alphas", "0", "--train", train, "--analyses", "[shapley]"]
    assert count_conditions(build_design(read_study("test", flags)[0], {})) == {("coalitions", "R"): 0}  # told later


# ------------------------------------------------------------------------------------------------------------ analysis


def test_what_was_planted_is_found_by_expert_and_by_subgoal(template):
    credit = np.broadcast_to([0.4, 0.0, 0.1, 0.2], (8, 16, 3, 4)).copy()
    credit[:, :, 1] = [1.0, 0, 0, 0]
    effects = play(template, additive(credit), groups=("Open", "Pickup"), single=0.35)
    found = shapley.compute(effects, template, draws=19)
    values = [found.row("credit", layer=layer, expert=expert).value for layer, expert in PLAYERS]
    assert values == pytest.approx([0.4, 0, 0.1, 0.2], abs=1e-6)
    assert found.row("worth").value == pytest.approx(0.7) and found.row("redundancy").value == pytest.approx(
        0, abs=1e-6
    )
    assert found.row("redistributed").value == pytest.approx(4 * 0.35 / 0.7)
    of_open = [found.row("credit_by_subgoal", layer=layer, expert=e, group="Open").value for layer, e in PLAYERS]
    assert of_open == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert max(abs(row.value) for row in found.find("interaction")) < 1e-6
    assert found.row("knockout_credit").value == pytest.approx(1)


def test_two_that_carry_the_same_bit_share_it_and_stand_in_for_each_other(template):
    code = np.arange(16)
    either = np.log(2) * ((code & 3 > 0).astype(float) - 1)  # players 0 and 1, of one layer
    game = np.broadcast_to(either, (8, 16, 1, 16))
    found = shapley.compute(play(template, game), template, draws=9)
    assert found.row("credit", layer=0, expert=1).value == pytest.approx(np.log(2) / 2, rel=1e-5)
    assert found.row("credit", layer=1, expert=1).value == pytest.approx(0, abs=1e-6)
    assert found.row("interaction", condition="l0e1 with l0e2").value == pytest.approx(-np.log(2), rel=1e-5)
    assert found.row("redundancy").value == pytest.approx(1, abs=1e-5)
    assert found.row("interaction_within_layers").value == pytest.approx(-np.log(2) / 2, rel=1e-5)


def test_a_missing_coalition_or_a_sham_that_changes_something_is_told(template):
    game = additive(np.zeros((8, 16, 1, 4)) + 0.1)
    effects = play(template, game)
    gone = effects.of_kind("coalition")[3]
    less = replace(effects, conditions=tuple(
        replace(c, kind="other") if index == gone else c for index, c in enumerate(effects.conditions)
    ))  # fmt: skip
    found = shapley.compute(less, template, draws=1)
    assert found.rows == () and "expected all 16 coalitions, once each, found 15" in found.notes[0]
    changed = game.copy()
    changed[..., 15] += 0.1
    assert any("sham differs" in note for note in shapley.compute(play(template, changed), template, draws=1).notes)


def test_usage_that_says_who_does_the_work_within_layers_is_told_from_layers_alone():
    layers, sizes = np.repeat([0, 1, 2], 2), np.tile([16, 32], 3)
    runs = draw_template(Design(runs=10, episodes=4), rng()).runs
    rows = {}
    for name, weight in (("alone", 0.0), ("within", 2.0)):
        draft = Draft("shapley", "")
        own = rng(1).normal(size=(10, 6))
        layer = np.repeat([0.0, 6.0, 12.0], 2)
        credit = layer + rng(2).normal(size=(10, 6)) + weight * own
        add_usage(draft, runs, layer + own, credit, layers, sizes, rng(3), 199)
        rows[name] = draft.finish().row("usage_credit")
    assert rows["alone"].value > 0.7 and rows["alone"].p > 0.05  # layers say all of it
    assert rows["within"].value > rows["within"].null_mean and rows["within"].p < 0.05


def test_seeds_that_give_the_same_credit_are_consistent_and_levels_alone_are_not(template):
    runs = template.runs
    values = []
    for seed in range(10):
        draft = Draft("shapley", "")
        credit = plant_credit(rng(seed), 8, 40, 4, 4, own=0.1)
        add_consistency(draft, runs, credit, [], rng(seed), 39, {})
        values.append(draft.finish().row("credit_consistency"))
    assert abs(np.mean([row.value for row in values])) < 0.1 and sum(row.p <= 0.05 for row in values) <= 3
    draft = Draft("shapley", "")
    credit = plant_credit(rng(), 8, 40, 4, 4, shared=0.3, own=0.02, level=0.05, noise=0.05)
    add_consistency(draft, runs, credit, [], rng(), 39, {})
    row = draft.finish().row("credit_consistency")
    assert row.value > 0.9 and row.p == pytest.approx(1 / 40) and row.unit == "runs+groups+levels"


def test_hard_subgoals_times_important_experts_are_no_profile():
    product = rng().random((1, 5, 1)) * rng(1).random((1, 1, 4))
    assert np.abs(center(product)).max() < 1e-12


def test_the_same_again_whatever_the_order_of_cells(template):
    traces = plant_signal(template, rng(), own=0.05)
    credit = rng().random((8, 16, 3, 4))
    first = play(traces, additive(credit), groups=("Open", "Pickup"), noise=0.05)
    other = replace(first, runs=tuple(replace(run, task="Other") for run in first.runs))
    both = shapley.compute(type(first).concatenate([first, other]), traces, draws=19).to_csv()
    back = shapley.compute(type(first).concatenate([other, first]), traces, draws=19).to_csv()
    assert sorted(both.splitlines()) == sorted(back.splitlines())
    assert both == shapley.compute(type(first).concatenate([first, other]), traces, draws=19).to_csv()
