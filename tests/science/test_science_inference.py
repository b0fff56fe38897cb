"""Tests over runs and levels, equivalence and power: against the libraries that have them."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from pipeline.records.intervals import wilson_interval
from science.statistics.association import partial_spearman, partial_spearman_rows
from science.statistics.inference import (
    adjust,
    compare_hits,
    compare_over_both,
    compare_with_margin,
    compare_with_zero,
    detectable_effect,
    smallest_p,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("ours", "theirs"), [("holm", "holm"), ("bh", "fdr_bh")])
def test_adjusted_p_values_are_statsmodels(ours, theirs):
    p = rng().random(40) ** 3
    np.testing.assert_allclose(adjust(p, ours), multipletests(p, method=theirs)[1])


def test_wilson_is_statsmodels():
    for successes, n in ((0, 7), (3, 10), (200, 200), (11, 200)):
        expected = proportion_confint(successes, n, method="wilson")
        assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    values = np.array([0.01, -0.02, 0.03, 0.0, np.nan])
    found = compare_with_margin(values, 0.05)
    assert found.p == pytest.approx(DescrStatsW(values[:4]).ttost_mean(-0.05, 0.05)[0]) and found.n == 4
    assert -0.05 < found.low < found.high < 0.05 and found.p < 0.05  # the two agree
    moved = compare_with_margin(values + 1, 0.05, center=1)
    assert (moved.p, moved.low - 1) == pytest.approx((found.p, found.low))
    assert compare_with_margin(values + 1, 0.05).p > 0.9
    assert np.isnan(compare_with_margin(np.zeros(2), 0.1).p)
    for value in (0.0, 0.01, 0.1 + 0.2):  # they hide how far apart runs can be
        assert np.isnan(compare_with_margin(np.full(10, value), 0.5).p)
    with pytest.raises(ValueError, match="margin: expected more than 0, found 0"):
        compare_with_margin(values, 0)


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_runs_that_agree_exactly_have_no_more_than_their_signs(n):
    for value in (0.1, -700.0):
        found = compare_with_zero(np.full(n, value))
        assert found.mean == pytest.approx(value) and np.isnan([found.low, found.high]).all()
        assert found.p == (2 / 2**n if n < 17 else 1 / 65_536)
    assert compare_with_zero(np.zeros(n)).p == 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_signs_as_they_are_always_count_whatever_the_size_of_values(scale):
    for seed in range(100):
        assert compare_with_zero(scale * (1 + rng(seed).random(10))).p == 2 / 1024


def test_hits_are_held_against_chance_exactly():
    """One run in nine would hit by chance: none of ten is no surprise, though all lie on one side of chance."""
    found = compare_hits(np.array([0.0] * 10 + [np.nan]), 1 / 9)
    assert (found.n, found.dropped, found.method) == (10, 1, "binomial") and found.p == pytest.approx(
        1 - 10 / 9 * (8 / 9) ** 9
    )
    assert found.low == -1 / 9 < found.mean + 1e-12 < found.high and found.p_floor == pytest.approx(9.0**-10)
    wrong = sum(
        compare_hits((rng(seed).random(10) < 1 / 9).astype(np.float64), 1 / 9).p <= 0.05 for seed in range(1000)
    )
    assert wrong <= 60  # 5 % of 1,000 and a standard error and a half; signs gave 310
    assert compare_hits(np.repeat([1.0, 0.0], 5), 1 / 9).p < 0.01
    assert np.isnan(compare_hits(np.ones(2), 0.5).p) and np.isnan(compare_hits(np.full(4, np.nan), 0.5).mean)


def test_ten_runs_find_one_standard_deviation_four_times_in_five():
    assert detectable_effect(10) == pytest.approx(1.0, abs=0.01)  # SCIENCE: 80 % power at d = 1.0
    assert TTestPower().power(detectable_effect(10), 10, 0.05) == pytest.approx(0.8)
    assert detectable_effect(10, alpha=0.05 / 12) == pytest.approx(1.5, abs=0.06)
    assert np.isnan(detectable_effect(2))


def test_the_smallest_p_is_what_the_clearest_data_give():
    for n in (8, 10, 13):
        assert smallest_p(n) == pytest.approx(compare_with_zero(1 + 0.001 * np.arange(n)).p)
    assert smallest_p(5) == 0 and np.isnan(smallest_p(2))


def test_without_anything_of_levels_a_mean_over_both_is_one_over_runs():
    table = np.repeat(rng().normal(size=(9, 1)), 30, axis=1)
    both, runs = compare_over_both(table), compare_with_zero(table.mean(axis=1))
    assert (both.mean, both.low, both.high) == pytest.approx((runs.mean, runs.low, runs.high))
    assert both.df == pytest.approx(8) and (both.n_runs, both.n_levels) == (9, 30)
    turned = compare_over_both(table.T)
    assert turned.error == pytest.approx(both.error) and turned.df == pytest.approx(8)


def test_a_mean_over_both_is_never_surer_than_over_either():
    for seed in range(50):
        table = (
            rng(seed).normal(size=(1, 20)) + rng(seed + 99).normal(size=(8, 1)) + rng(seed + 999).normal(size=(8, 20))
        )
        both = compare_over_both(table)
        for side in (table.mean(axis=1), table.mean(axis=0)):
            assert both.error >= side.std(ddof=1) / np.sqrt(len(side)) - 1e-12
        assert both.mean == pytest.approx(table.mean()) and both.low < both.mean < both.high


def test_the_interval_over_both_covers_as_often_as_it_says():
    inside = 0
    for seed in range(400):
        r = rng(seed)
        table = 0.5 + r.normal(size=(10, 1)) + r.normal(size=(1, 12)) + r.normal(size=(10, 12))
        found = compare_over_both(table)
        inside += found.low < 0.5 < found.high
    assert 0.92 < inside / 400 < 0.99


def test_a_table_with_holes_or_little_in_it():
    table = rng().normal(size=(5, 6))
    table[0, 0] = np.nan
    assert 0 < compare_over_both(table).p <= 1
    table[1:] = np.nan
    alone = compare_over_both(table)
    assert np.isnan(alone.p) and alone.n_runs == 1 and np.isfinite(alone.mean) and np.isnan(alone.within(1))
    assert np.isnan(compare_over_both(np.full((3, 3), np.nan)).mean)
    same = compare_over_both(np.zeros((3, 4)))
    assert same.p == 1 and np.isnan(same.within(0.1)) and np.isnan(same.low)
    assert compare_over_both(np.full((3, 4), 0.1)).p == compare_over_both(np.full((4, 3), 1e5)).p == 0.25


def test_rows_of_partial_correlations_are_each_by_itself():
    x, y, covariates = rng().normal(size=(5, 30)), rng(1).normal(size=30), rng(2).normal(size=(30, 2))
    x[3] = 1.0
    rows = partial_spearman_rows(x, y, covariates)
    np.testing.assert_allclose(rows, [partial_spearman(row, y, covariates) for row in x])
    assert np.isnan(rows[3]) and np.isfinite(rows[[0, 1, 2, 4]]).all()
    assert np.isnan(partial_spearman_rows(x[:, :4], y[:4], covariates[:4])).all()
