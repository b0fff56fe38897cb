"""The known answers of consistency, distinctness, sufficiency, knock-outs and complexity: what was planted is found."""

from dataclasses import replace

import numpy as np
import pytest

from science import complexity, distinctness, knockouts, pathways, sufficiency
from science.effects import Condition
from science.planted_effects import build_effects, plant_knockouts, plant_thresholds
from science.profiles import list_experts, mean_over_pairs
from science.statistics.information import entropy
from science.synthetic import (
    Design,
    draw_template,
    plant_constant,
    plant_copy,
    plant_one_hot,
    plant_policy,
    plant_signal,
    set_weights,
)


def rng(seed=0):
    return np.random.default_rng(seed)


# -------------------------------------------------------------------------------------------------- a: consistency


def test_copies_are_consistent(template):
    found = pathways.compute(plant_signal(template, rng(), shared=0.05, noise=0), draws=99)
    row = found.row("consistency")
    assert row.value == pytest.approx(1, abs=1e-4)
    assert row.p == pytest.approx(0.01) and row.n_runs == 8 and row.unit == "runs+groups+levels"
    assert found.row("consistency_disattenuated").value == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("shared", "own", "expected"), [(0.05, 0.025, 0.8), (0.04, 0.04, 0.5), (0, 0.05, 0)])
def test_signal_and_noise_give_the_share_of_the_signal(template, shared, own, expected):
    values = [
        pathways.compute(plant_signal(template, rng(seed), shared=shared, own=own, noise=0.01), draws=0)
        .row("consistency")
        .value
        for seed in range(20)
    ]
    assert np.mean(values) == pytest.approx(expected, abs=3 * np.std(values, ddof=1) / np.sqrt(20) + 0.01)


def test_noise_of_few_episodes_is_corrected_for():
    values = []
    few = draw_template(Design(runs=8, episodes=12), rng(1))
    for seed in range(15):
        found = pathways.compute(plant_signal(few, rng(seed), shared=0.03, own=0.015, noise=0.12), draws=0)
        values.append([found.row(f"consistency{name}").value for name in ("", "_disattenuated")])
    plain, corrected = np.mean(values, axis=0)
    assert plain < 0.6 < 0.7 < corrected < 0.9  # 0.8 was planted


def test_constant_routers_agree_raw_and_have_no_pathways(template):
    found = pathways.compute(plant_constant(template, rng()), draws=9)
    row = found.row("consistency")
    assert np.isnan(row.value) and row.n_dropped == 8 and row.drop_reason == "8 collapsed"
    assert {entry.reason for entry in found.dropped} == {"collapsed"}
    assert any("needs two groups and a run with pathways" in note for note in found.notes)


def test_what_all_runs_prefer_everywhere_is_taken_out(template):
    base = rng(1).dirichlet(np.full(3, 2.0), 3)
    noisy = plant_signal(template, rng(), own=0.05, noise=0)
    found = pathways.compute(set_weights(noisy, base + 0.3 * (noisy.weights - 1 / 3)), draws=0)
    assert found.row("consistency_raw").value > 0.95
    assert abs(found.row("consistency").value) < 0.2


def test_a_collapsed_run_is_counted_and_included_at_zero(template):
    planted = plant_signal(template, rng(), shared=0.05, noise=0)
    weights = planted.weights.copy()
    weights[planted.run == 2] = 1 / 3
    found = pathways.compute(set_weights(planted, weights), draws=0)
    row, worst = found.row("consistency"), found.row("consistency", estimator="worst")
    assert (row.n_runs, row.n_dropped, row.drop_reason) == (7, 1, "1 collapsed")
    assert row.value == pytest.approx(1, abs=1e-4) and worst.value == pytest.approx(7 * 6 / (8 * 7), abs=1e-4)


def test_equal_experts_in_another_order_are_aligned():
    equal = draw_template(Design(runs=8, episodes=24, sizes=((16, 16, 16), (0, 16, 16))), rng())
    planted = plant_signal(equal, rng(), shared=0.06, noise=0)
    weights = planted.weights.copy()
    for run in range(8):
        inside = planted.run == run
        weights[inside, 0] = weights[inside, 0][:, rng(run).permutation(3)]
        weights[inside, 1, 1:] = weights[inside, 1, 1:][:, rng(run).permutation(2)]
    found = pathways.compute(set_weights(planted, weights), draws=39)
    assert found.row("consistency").value == pytest.approx(1, abs=1e-4)
    assert found.row("consistency").p == pytest.approx(1 / 40)
    own = pathways.compute(plant_signal(equal, rng(), own=0.06, noise=0), draws=39).row("consistency")
    assert own.value > 0.05 and own.p > 0.05  # alignment finds something in noise, and so does its null


def test_runs_that_agree_more_than_untrained_ones_are_above_them(template):
    trained = plant_signal(template, rng(), shared=0.05, own=0.02)
    before = plant_signal(template, rng(1), shared=0.02, own=0.05)
    row = pathways.compute(trained, untrained=before, draws=0).row("consistency_above_untrained")
    assert row.value > 0.4 and row.low > 0 and row.p < 0.01
    same = pathways.compute(trained, untrained=trained, draws=0).row("consistency_above_untrained")
    assert same.value == pytest.approx(0, abs=1e-9) and same.p == pytest.approx(1)


def test_transplants_tell_whether_another_runs_pathways_do(template):
    kinds = ("transplant_own", "transplant_other", "transplant_shuffled")
    ce = np.array([0.01, 0.02, 0.5])[None, :, None] + 0.01 * rng().normal(size=(8, 3, 40))
    effects = build_effects(template.runs, np.arange(40), [Condition(kind, kind) for kind in kinds], ce)
    found = pathways.compute(template, effects=effects, draws=0)
    assert found.row("transplant_gain").value == pytest.approx(0.48, abs=0.01)
    assert found.row("transplant_gain").p < 0.01
    assert found.row("transplant_loss").value == pytest.approx(0.01, abs=0.005)


def test_pseudo_values_average_to_the_mean_over_pairs():
    matrix = np.corrcoef(rng().normal(size=(6, 20)))
    value, each, pseudo = mean_over_pairs(matrix)
    assert value == pytest.approx(matrix[np.triu_indices(6, 1)].mean())
    assert pseudo.mean() == pytest.approx(value) and each.mean() == pytest.approx(value)


# ---------------------------------------------------------------------------------------------- b: self-sufficiency


def test_a_path_that_needs_nothing_else_is_sufficient(template):
    effects = plant_thresholds(template, rng(), own=[1, 1, 1], control=[0.9, 0.5, 0.2], taus=[0.05, 0.1, 0.3])
    found = sufficiency.compute(effects)
    assert found.row("sufficiency").value == 1
    above = found.row("sufficiency_above_random")
    assert above.value == pytest.approx((0.1 + 0.5 + 0.8) / 4, abs=0.05) and above.p < 0.01


def test_a_path_no_better_than_a_random_one_is_not_above_it(template):
    effects = plant_thresholds(template, rng(), own=[0.7, 0.5], control=[0.7, 0.5], taus=[0.1, 0.3])
    found = sufficiency.compute(effects)
    assert found.row("sufficiency").value == pytest.approx((1 + 0.7 + 0.5) / 3, abs=0.05)
    assert found.row("sufficiency_above_random").p > 0.05


def test_runs_that_solve_little_have_no_ratio_and_are_counted(template):
    effects = plant_thresholds(template, rng(), own=[1, 1], control=[1, 1], taus=[0.1, 0.3])
    effects = replace(effects, success_intact=np.where(effects.run == 0, 0.2, effects.success_intact))
    row = sufficiency.compute(effects).row("sufficiency")
    assert (row.n_runs, row.n_dropped) == (7, 1) and "intact success 0.20 below 0.5" in row.drop_reason
    assert sufficiency.compute(effects).row("sufficiency", estimator="worst").value == pytest.approx(7 / 8)


# ------------------------------------------------------------------------------------------------- c: distinctness


def test_a_router_that_copies_carries_all_of_it(template):
    found = distinctness.compute(plant_copy(template), by="carrying", draws=99)
    codes = template.group("carrying").codes
    row = found.row("path_information")
    assert row.value == pytest.approx(entropy(np.bincount(codes) / len(codes)), abs=1e-6)
    assert row.p == pytest.approx(0.01) and row.null_mean < 0.7
    low = found.row("path_information_low").value
    assert row.value - 0.01 < low <= row.value
    assert found.row("path_agreement").value == pytest.approx(1)
    assert found.row("effective_paths").condition == "of 27"


def test_paths_count_as_many_as_are_used(template):
    one = distinctness.compute(plant_one_hot(template), draws=0).row("effective_paths").value
    shares = np.bincount(template.group("level_subgoal").codes % 3) / len(template.episode)
    assert one == pytest.approx(2 ** entropy(shares))
    uniform = distinctness.compute(set_weights(template, template.weights), draws=0)
    assert uniform.row("effective_paths").value == pytest.approx(27)
    assert uniform.row("path_information").value == pytest.approx(0, abs=1e-9)


def test_own_lesions_tell_which_group_an_expert_serves(template):
    planted = plant_signal(template, rng(), own=0.06, noise=0.02)
    means = np.stack(
        [
            planted.weights[(planted.run == run)][planted.group("subgoal").codes[planted.run == run] == x].mean(axis=0)
            for run in range(8)
            for x in range(4)
        ]
    ).reshape(8, 4, 9)
    harm = (means - means.mean(axis=1, keepdims=True)).swapaxes(1, 2)
    specific = plant_knockouts(planted, rng(), np.zeros((8, 9)), noise=0.01, by_group=3 * harm + 1)
    row = distinctness.compute(planted, effects=specific, draws=0).row("dissociation")
    assert row.value > 0.1 and row.p < 0.01
    nothing = plant_knockouts(planted, rng(), np.zeros((8, 9)), by_group=rng(1).normal(size=(8, 9, 4)))
    assert distinctness.compute(planted, effects=nothing, draws=0).row("dissociation").p > 0.05


def test_too_many_paths_are_named():
    wide = draw_template(Design(runs=3, episodes=8, sizes=((0, 8, 8, 8, 8, 8, 8, 8, 8),) * 4), rng())
    assert any("6561 paths" in note for note in distinctness.compute(wide).notes)


# --------------------------------------------------------------------------------------------------- e: knock-outs


def test_one_expert_that_carries_one_bit_has_all_the_effect(template):
    harm = np.zeros((8, 9))
    harm[:, 4] = np.log(2)
    found = knockouts.compute(plant_knockouts(template, rng(), harm, noise=0.05))
    for layer in range(3):
        for expert in range(3):
            row = found.row("effect_on_ce", layer=layer, expert=expert, group="", unit="runs+levels")
            same = found.row("equivalence", layer=layer, expert=expert)
            if (layer, expert) == (1, 1):
                assert row.value == pytest.approx(np.log(2), abs=0.01)
                assert row.p_adjusted < 0.05 and same.p > 0.9
            else:
                assert row.value == pytest.approx(0, abs=0.01) and same.p_adjusted < 0.05
    assert found.row("sham_changed").value == 0


def test_effects_are_told_by_group_with_a_family_of_their_own(template):
    harm = np.zeros((8, 9, 4))
    harm[:, 2, 3] = 0.5
    found = knockouts.compute(plant_knockouts(template, rng(), np.zeros((8, 9)), noise=0.1, by_group=harm))
    hit = found.row("effect_on_ce", layer=0, expert=2, group="Drop", unit="runs+levels")
    assert hit.value == pytest.approx(0.5, abs=0.05) and hit.p_adjusted < 0.001
    assert (hit.n_runs, hit.n_episodes, hit.family) == (8, 40, "ce by group, Planted, alpha 0, R")
    others = [r for r in found.find("effect_on_ce", unit="runs+levels") if r.group and r != hit]
    assert len(others) == 35 and all(abs(row.value) < 0.05 for row in others)


def test_a_sham_that_changes_anything_is_shouted(template):
    effects = plant_knockouts(template, rng(), np.zeros((8, 9)))
    touched = effects.ce.copy()
    touched[np.flatnonzero(effects.condition == 0)[:3]] += 1e-7
    found = knockouts.compute(replace(effects, ce=touched))
    assert found.row("sham_changed").value == pytest.approx(3 / 320)
    assert any("no effect here is to be believed" in note for note in found.notes)


def test_the_audit_finds_maps_that_predict_lesions_and_those_that_do_not(template):
    planted = plant_signal(template, rng(), own=0.02)
    base = rng(3).dirichlet(np.full(3, 1.5), (8, 3))
    planted = set_weights(planted, base[planted.run] + 0.1 * (planted.weights - 1 / 3))
    usage = np.stack([planted.weights[planted.run == run].mean(axis=0).reshape(-1) for run in range(8)])
    found = knockouts.compute(plant_knockouts(planted, rng(), usage, control=usage), planted)
    assert found.row("audit").value > 0.95 and found.row("audit").p < 0.05
    assert found.row("audit_best").value > 0.5
    assert np.isnan(found.row("audit_beyond_norm").value)  # the control explains all
    apart = knockouts.compute(plant_knockouts(planted, rng(), rng(5).random((8, 9))), planted)
    assert apart.row("audit").p > 0.05


def test_an_audit_that_size_explains_is_told(template):
    _, _, sizes = list_experts(template)
    share = np.array([0.2, 0.3, 0.5]) + 0.04 * rng(2).normal(size=(8, 3, 3))
    planted = set_weights(template, share[template.run])
    harm = sizes / 32 + 0.3 * rng(7).normal(size=(8, 9))
    found = knockouts.compute(plant_knockouts(planted, rng(), harm), planted)
    assert found.row("audit").p < 0.05 and found.row("audit").value > 0.5
    assert abs(found.row("audit_given_size").value) < 0.3


def test_use_of_an_expert_on_a_level_goes_with_its_effect_there(template):
    planted = plant_signal(template, rng(), level=0.05, noise=0)
    first = planted.weights[planted.run == 0]
    by_level = np.stack([first[planted.episode[planted.run == 0] == e].mean(axis=0).reshape(-1) for e in range(40)])
    effects = plant_knockouts(planted, rng(), np.zeros((8, 9)))
    ce = effects.ce.copy()
    rows = effects.condition > 0
    ce[rows] += by_level[effects.level_seed[rows], effects.condition[rows] - 1]
    assert knockouts.compute(replace(effects, ce=ce), planted).row("dose").value == pytest.approx(1, abs=0.01)


# ----------------------------------------------------------------------------------------------- i: complexity


def test_uniform_policies_are_simple_and_balanced_sure_ones_are_not(template):
    uniform = complexity.compute(plant_policy(template, None), draws=0)
    assert uniform.row("action_information").value == 0
    state = uniform.row("state_information", group="cell", estimator="middle")
    assert state.value == pytest.approx(0, abs=1e-9)
    steps = np.arange(len(template.episode))
    balanced = complexity.compute(plant_policy(template, steps), draws=0)
    assert balanced.row("action_information").value == pytest.approx(np.log2(7), abs=1e-3)
    assert balanced.row("greedy_information").value == pytest.approx(np.log2(7), abs=1e-3)


def test_what_a_sure_policy_of_the_cell_does_is_said_by_the_cell(template):
    sure = plant_policy(template, template.group("cell").codes)
    found = complexity.compute(sure, draws=0, min_steps=1)
    whole = found.row("action_information").value
    high = found.row("state_information", group="cell", estimator="plug-in").value
    low = found.row("state_information", group="cell", estimator="held-out").value
    assert high == pytest.approx(whole) and whole - 0.3 < low < whole


def test_visits_alone_make_no_association(template):
    codes = template.group("cell").codes
    visits = np.bincount(codes)[codes].astype(np.float64)
    sure = replace(
        plant_policy(template, codes), lpc=(1000 - visits + 5 * rng().normal(size=len(codes))).astype(np.float32)
    )
    found = complexity.compute(sure, draws=0)
    assert found.row("lpc_entropy_smoothed").value > 0.9
    row = found.row("lpc_entropy")
    assert np.isnan(row.value) and row.drop_reason == "LPC or behaviour is the same in all cells"


def test_an_association_by_place_survives(template):
    codes = template.group("cell").codes
    place = rng(1).normal(size=codes.max() + 1)
    logits = np.zeros_like(template.logits)
    logits[:, 0] = 2 + 2 * place[codes]
    planted = replace(
        template, logits=logits, lpc=(100 - 20 * place[codes] + 20 * rng().normal(size=len(codes))).astype(np.float32)
    )
    row = complexity.compute(planted, draws=99).row("lpc_entropy")
    assert row.value > 0.6 and row.p < 0.05 and row.n_runs == 8 and row.null_mean < 0.5


def test_without_logits_actions_are_counted(template):
    sure = plant_policy(template, template.group("cell").codes)
    found = complexity.compute(replace(sure, logits=np.full_like(sure.logits, np.nan)), draws=0)
    assert found.row("greedy_information").value > 2
    assert found.row("state_information", group="cell", estimator="Grassberger").value > 1.8
    assert found.row("action_information").drop_reason == "logits not known"
    assert any("Grassberger" in note for note in found.notes)


def test_without_a_state_of_enough_steps_nothing_is_known_of_states(template):
    found = complexity.compute(plant_policy(template, None), draws=0, min_steps=10**6)
    ends = [found.row("state_information", group="cell", estimator=name) for name in ("plug-in", "held-out")]
    assert all(np.isnan(row.value) and row.n_runs == 0 for row in ends)
    assert {row.drop_reason for row in ends} == {"no state of 1000000 steps"}


def test_forgetting_costs_where_memory_is_used(template):
    ce = np.array([0.4, 0.0])[None, :, None] + 0.02 * rng().normal(size=(8, 2, 40))
    conditions = [Condition(kind, kind) for kind in ("zero_states", "swap_mission")]
    found = complexity.compute(template, effects=build_effects(template.runs, np.arange(40), conditions, ce), draws=0)
    assert found.row("cost_of_zero_states").p < 0.01 and found.row("cost_of_zero_states").value > 0.35
    assert found.row("cost_of_swap_mission").p > 0.05
