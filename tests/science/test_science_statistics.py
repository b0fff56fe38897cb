"""Estimators whose answer is known, tests at their level, nulls that keep what they must keep."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from science.statistics.association import associate, partial_spearman
from science.statistics.inference import adjust, compare_with_zero
from science.statistics.information import (
    bracket_information,
    divergence,
    entropy,
    entropy_of_counts,
    information_of_counts,
    number_states,
    policies_from_logits,
    state_entropies,
)
from science.statistics.nulls import EpisodeBlocks, p_value, swap_episodes


def one_hot(actions, width=7):
    return np.eye(width)[actions]


# -------------------------------------------------------------------------------------------------------- information


def test_a_uniform_policy_carries_no_information_and_has_all_entropy():
    policies = np.full((400, 7), 1 / 7)
    states, episodes = np.arange(400) % 8, np.arange(400) // 10
    found = bracket_information(policies, states, episodes)
    assert found.low == pytest.approx(0, abs=1e-9) and found.high == pytest.approx(0, abs=1e-9)
    each = state_entropies(policies, states, episodes)
    np.testing.assert_allclose(each.low, np.log2(7))
    np.testing.assert_allclose(each.high, np.log2(7))


def test_a_balanced_deterministic_policy_carries_all_of_it():
    states = np.arange(7000) % 7
    found = bracket_information(one_hot(states), states, np.arange(7000) // 10)
    assert found.high == pytest.approx(np.log2(7))
    assert np.log2(7) - 0.01 < found.low <= found.high
    assert found.covered == 1 and found.num_states == 7


def test_the_entropy_of_deterministic_cells_does_not_depend_on_how_often_they_are_visited():
    visits = np.array([5, 20, 100, 400])
    states = np.repeat(np.arange(4), visits)
    each = state_entropies(one_hot(states % 3), states, np.arange(len(states)) // 2)
    np.testing.assert_array_equal(each.steps, visits)
    np.testing.assert_allclose(each.low, 0)  # add-half smoothing would read 1.85 bits at 5 visits and 0.26 at 100


def test_from_twenty_steps_a_state_the_truth_lies_within_the_bracket():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centers = rng.dirichlet(np.full(7, 0.5), 30)  # 30 states
        for visits in (20, 100):
            states = np.repeat(np.arange(30), visits)
            noise = np.stack([rng.dirichlet(20 * centers[z] + 1e-3) for z in states])
            truth = entropy(centers.mean(axis=0)) - entropy(centers).mean()
            found = bracket_information(noise, states, rng.integers(0, 200, len(states)))
            assert found.low - 0.02 < truth < found.high + 0.02


def test_a_state_seen_in_one_episode_has_no_held_out_entropy():
    each = state_entropies(one_hot(np.zeros(6, int)), np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 2]))
    assert np.isnan(each.high[0]) and np.isfinite(each.high[1])


def test_states_with_few_steps_are_left_out_and_what_is_left_is_told():
    states = np.repeat([0, 1, 2], [30, 30, 5])
    found = bracket_information(one_hot(states), states, np.arange(65))
    assert found.num_states == 2 and found.covered == pytest.approx(60 / 65)
    assert np.isnan(bracket_information(one_hot(states), np.arange(65), np.arange(65)).low)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 7))
def test_brackets_are_in_order_and_information_is_at_most_the_entropy(seed, num_states, num_actions):
    rng = np.random.default_rng(seed)
    policies = policies_from_logits(rng.normal(size=(120, num_actions)) * 3)
    found = bracket_information(policies, rng.integers(0, num_states, 120), rng.integers(0, 12, 120), min_steps=1)
    assert found.low <= found.high <= np.log2(num_actions) + 1e-9
    assert found.high >= -1e-9


def test_divergence_is_zero_of_itself_and_infinite_from_what_never_happens():
    p = np.array([0.5, 0.5, 0.0])
    assert divergence(p, p) == 0
    assert divergence(p, np.array([1.0, 0.0, 0.0])) == np.inf
    assert divergence(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == pytest.approx(2)


def test_grassberger_is_less_biased_than_plugging_in():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(5, np.full(7, 1 / 7), size=4000)
    plug_in = entropy(counts / 5).mean() - np.log2(7)
    assert abs(entropy_of_counts(counts).mean() - np.log2(7)) < 0.5 * abs(plug_in)
    assert 0 < entropy_of_counts(np.array([0, 9, 0])) < 0.2  # 0.17: what a state of one action is overestimated by
    assert np.isnan(entropy_of_counts(np.zeros(3)))


def test_information_of_actions_taken_is_near_that_of_the_policy():
    rng = np.random.default_rng(1)
    states = rng.integers(0, 5, 3000)
    found = information_of_counts(np.where(rng.random(3000) < 0.9, states, rng.integers(0, 5, 3000)), states, 5)
    p = np.full((5, 5), 0.02) + 0.9 * np.eye(5)
    assert found.middle == pytest.approx(np.log2(5) - entropy(p).mean(), abs=0.05)


def test_states_are_numbered_by_all_their_columns():
    x, y = np.array([0, 0, 1, 1]), np.array([[0, 1], [0, 1], [0, 1], [5, 5]])
    np.testing.assert_array_equal(number_states(x, y), [0, 0, 1, 2])


# -------------------------------------------------------------------------------------------------------------- nulls


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_exchanged_episodes_stay_whole_and_within_run_and_length(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, 30)
    episodes = np.repeat(np.arange(30), lengths)
    runs = episodes % 3
    swap = swap_episodes(episodes, runs, rng)
    np.testing.assert_array_equal(runs[swap], runs)
    for episode in range(30):
        donor = np.unique(episodes[swap[episodes == episode]])
        assert len(donor) == 1
        assert lengths[donor[0]] // 4 == lengths[episode] // 4
        taken = swap[episodes == episode]
        assert (np.diff(taken) >= 0).all()  # in the order of time
    firsts = [episodes[swap[episodes == e][0]] for e in range(30)]
    assert sorted(firsts) == list(range(30))  # each episode is the donor of one


def test_steps_of_an_episode_need_not_lie_together():
    episodes = np.array([0, 1, 0, 1, 0, 1])
    seen = {tuple(episodes[swap_episodes(episodes, None, np.random.default_rng(seed))]) for seed in range(20)}
    assert seen == {(0, 1, 0, 1, 0, 1), (1, 0, 1, 0, 1, 0)}


def test_an_episode_alone_in_its_bin_stays_and_is_told():
    episodes = np.repeat([0, 1, 2], [3, 3, 40])
    blocks = EpisodeBlocks(episodes)
    assert blocks.exchangeable == pytest.approx(6 / 46)
    np.testing.assert_array_equal(blocks.draw(np.random.default_rng(0))[6:], np.arange(6, 46))


def test_p_is_never_zero_and_counts_both_sides():
    null = np.linspace(-1, 1, 99)
    assert p_value(5.0, null) == pytest.approx(0.01)
    assert p_value(-5.0, null) == pytest.approx(0.01)
    assert p_value(0.0, null) == 1
    assert np.isnan(p_value(np.nan, null))


def drifting(seed, tie=0.0):
    """Return LPC and behaviour that both fall in the course of each episode, tied by place or not at all."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 14, 60)
    episodes = np.repeat(np.arange(60), lengths)
    time = np.concatenate([np.arange(n) for n in lengths])
    cells = np.clip((time / 14 * 20 + rng.integers(0, 6, len(time))).astype(int), 0, 24)
    wobble = rng.normal(size=60)[episodes]
    place = rng.normal(size=25)[cells]
    x = 100 / (1 + time) + 5 * wobble + tie * place + rng.normal(size=len(time))
    y = 50 / (1 + time) + 5 * rng.normal(size=60)[episodes] + tie * place + rng.normal(size=len(time))
    return x, y, cells, episodes, time


def test_a_common_drift_is_no_association():
    small = 0
    for seed in range(60):
        x, y, cells, episodes, time = drifting(seed)
        rng = np.random.default_rng(seed)
        found = associate(x, y, cells, episodes, {"time": time}, min_steps=5, rng=rng, draws=39)
        small += found.p <= 0.05
    assert small <= stats.binom.ppf(0.995, 60, 0.05)


def test_a_planted_association_is_found():
    x, y, cells, episodes, time = drifting(0, tie=30.0)
    rng = np.random.default_rng(0)
    found = associate(x, y, cells, episodes, {"time": time}, min_steps=5, rng=rng, draws=99)
    assert found.rho > 0.7 and found.p == pytest.approx(0.01)


def test_partial_correlation_takes_out_what_both_follow():
    rng = np.random.default_rng(0)
    common = rng.normal(size=500)
    x, y = common + 0.1 * rng.normal(size=500), common + 0.1 * rng.normal(size=500)
    assert stats.spearmanr(x, y).statistic > 0.9
    assert abs(partial_spearman(x, y, common[:, None])) < 0.15
    assert partial_spearman(x, y, np.zeros((500, 0))) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert np.isnan(partial_spearman(np.ones(500), y, common[:, None]))


# ---------------------------------------------------------------------------------------------------------- inference


def test_five_runs_cannot_be_significant_in_an_exact_test_and_ten_can():
    assert compare_with_zero(np.ones(5) + 0.01 * np.arange(5)).method == "t"
    ten = compare_with_zero(np.ones(10) + 0.01 * np.arange(10))
    assert ten.method == "sign-flip" and ten.p == ten.p_floor == pytest.approx(2 / 1024)


def test_the_t_test_is_scipys():
    values = np.array([0.3, 0.1, 0.5, -0.1, np.nan])
    found = compare_with_zero(values)
    expected = stats.ttest_1samp(values[:4], 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.n, found.dropped) == (4, 1)
    assert np.isnan(compare_with_zero([1.0, 2.0]).p)
    assert compare_with_zero([]).n == 0


def test_sign_flip_is_scipys_permutation_test():
    values = np.random.default_rng(0).normal(0.4, 1, 9)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=False, n_resamples=600)
    assert compare_with_zero(values).p == pytest.approx(expected.pvalue)


def test_adjusted_p_values_are_scipys_and_holms():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    known = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjust(p, "bh")[[0, 1, 3, 4]], stats.false_discovery_control(known))
    np.testing.assert_allclose(adjust(p, "holm"), [0.03, 0.06, np.nan, 0.06, 0.02])
