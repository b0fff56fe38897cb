"""Intervals of rates, means and shares against values worked out by hand, and against scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.records.intervals import group_means, mean_interval, share_interval, t_quantile, wilson_interval

T2 = 4.302652729749462  # Student's t with 2 degrees of freedom, 97.5 %


# ------------------------------------------------------------------------------------------------------------- Wilson


def test_wilson_by_hand():
    # z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 1.95996 * sqrt(0.016 + 0.0096036) / 1.38415.
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(0.490162, abs=1e-6)
    assert high == pytest.approx(0.943318, abs=1e-6)


def test_wilson_with_z_of_one():
    """At z = 1 and n = 1: p = 1 gives (1/2, 1), p = 0 gives (0, 1/2)."""
    one_sigma = 0.6826894921370859
    assert wilson_interval(1, 1, one_sigma) == pytest.approx((0.5, 1.0), abs=1e-9)
    assert wilson_interval(0, 1, one_sigma) == pytest.approx((0.0, 0.5), abs=1e-9)
    # n = 4, p = 1/2: (0.5 + 0.125 -+ sqrt(0.0625 + 0.015625)) / 1.25.
    expected = ((0.625 - 0.078125**0.5) / 1.25, (0.625 + 0.078125**0.5) / 1.25)
    assert wilson_interval(2, 4, one_sigma) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [1, 3, 100, 12345])
def test_wilson_ends_are_exact(n):
    assert wilson_interval(n, n)[1] == 1.0
    assert wilson_interval(0, n)[0] == 0.0
    assert 0.0 < wilson_interval(n, n)[0] < 1.0


def test_wilson_without_data():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(n=st.integers(1, 2000), data=st.data())
@settings(deadline=None)
def test_wilson_holds_the_rate_and_is_symmetric(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    mirrored = wilson_interval(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(2, 1, 0.95), (-1, 3, 0.95), (1, 2, 1.0), (1, 2, 95)])
def test_wilson_refuses(successes, n, confidence):
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(successes, n, confidence)


@given(n=st.integers(1, 2000), data=st.data())
@settings(deadline=None)
def test_wilson_is_that_of_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    expected = stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-15)


def test_wilson_keeps_its_last_bit():
    """Evaluations hold it: rows of the same checkpoint must not differ between versions."""
    assert wilson_interval(0, 100) == (0.0, 0.03699349820698566)
    assert wilson_interval(50, 100) == (0.4038315303659957, 0.5961684696340043)
    assert wilson_interval(93, 100) == (0.862504852609265, 0.9656807389327274)


# --------------------------------------------------------------------------------------------------------- Student's t


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.999])
def test_quantiles_of_t_are_those_of_scipy(confidence):
    n = np.array([3, 4, 5, 10, 31, 121, 200, 201, 202, 1000, 10**6])
    np.testing.assert_allclose(t_quantile(n, confidence), stats.t.ppf(0.5 + confidence / 2, n - 1), rtol=1e-12)


def test_quantiles_of_t_are_those_of_the_tables_and_few_units_have_none():
    np.testing.assert_array_equal(np.isnan(t_quantile([0, 1, 2, 3])), [True, True, True, False])
    np.testing.assert_allclose(t_quantile([3, 5, 31]), [T2, 2.776445, 2.042272], atol=1e-6)


def test_mean_and_interval_of_three_by_hand():
    found = mean_interval([1.0, 2.0, 6.0])
    assert found.mean == 3.0 and found.n == 3
    half = T2 * math.sqrt((4 + 1 + 9) / 2 / 3)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_two_units_have_no_interval_and_none_no_mean():
    found = mean_interval([1.0, 3.0])
    assert found.mean == 2.0 and found.n == 2 and np.isnan(found.low) and np.isnan(found.high)
    assert np.isnan(mean_interval([]).mean) and mean_interval([]).n == 0
    assert mean_interval([1.0, np.nan, 2.0, 3.0]).n == 3


def test_units_that_agree_exactly_can_be_left_without_an_interval():
    found = mean_interval(np.array([[0.995, 1.0], [0.995, 2.0], [0.995, 6.0]])).where_units_differ()
    assert found.mean.tolist() == [0.995, 3.0]
    assert np.isnan([found.low[0], found.high[0]]).all() and found.low[1] < 3.0 < found.high[1]


def test_rows_of_a_unit_count_once():
    """The mistake: a thousand steps of one episode as a thousand observations."""
    values = np.array([0.0, 1.0, 2.0] + [5.0] * 1000)
    units = np.array([0, 1, 2] + [3] * 1000)
    found = group_means(values, np.zeros(1003, int), units, 2)
    assert found.mean[0] == 2.0 and found.n.tolist() == [4, 0] and found.rows.tolist() == [1003, 0]
    expected = mean_interval([0.0, 1.0, 2.0, 5.0])
    assert found.low[0] == pytest.approx(float(expected.low)) and np.isnan(found.mean[1])


def test_group_means_leave_out_what_is_not_known():
    found = group_means(np.array([1.0, np.nan, 3.0, 5.0]), np.array([0, 0, 0, -1]), np.array([0, 1, 2, 3]), 1)
    assert found.mean[0] == 2.0 and found.n[0] == 2 and found.rows[0] == 2


def test_shares_by_hand():
    found = share_interval(np.array([[2, 2], [1, 3], [2, 2]]), np.array([4, 4, 4]))
    half = T2 * math.sqrt(3 / 2 * (1 / 9 + 4 / 9 + 1 / 9)) / 12
    np.testing.assert_allclose(found.mean, [5 / 12, 7 / 12])
    np.testing.assert_allclose(found.low, [5 / 12 - half, 7 / 12 - half])
    np.testing.assert_allclose(found.high, [5 / 12 + half, 7 / 12 + half])
    assert found.rows.tolist() == [5, 7] and found.n.tolist() == [3, 3]
    assert share_interval(np.array([[4, 0], [0, 4], [4, 0]]), np.full(3, 4)).high[0] == 1.0  # cut to what can be


def test_an_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((3, 20_000))
    found = mean_interval(values)
    assert 0.945 < np.mean((found.low <= 0) & (found.high >= 0)) < 0.955


@given(seed=st.integers(0, 1000), n=st.integers(3, 30))
@settings(max_examples=30, deadline=None)
def test_grouped_means_equal_those_of_each_group(seed, n):
    rng = np.random.default_rng(seed)
    groups, units, values = rng.integers(-1, 4, n), rng.integers(0, 5, n), rng.standard_normal((n, 2))
    found = group_means(values, groups, units, 4)
    for group in range(4):
        means = [values[(groups == group) & (units == unit)].mean(axis=0) for unit in np.unique(units[groups == group])]
        assert found.n[group] == len(means)
        if means:
            one = mean_interval(np.array(means))
            np.testing.assert_allclose(found.mean[group], one.mean)
            np.testing.assert_allclose(found.low[group], one.low)
