"""Intervals and rates against values worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import FAILURE, SUCCESS, TIMEOUT, EpisodeWindow, wilson_interval
from pipeline.tracking import METRICS


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


def test_window_by_hand():
    window = EpisodeWindow(100)
    window.add(SUCCESS, 12, 8)
    window.add(SUCCESS, 10, 10)
    window.add(SUCCESS, 30)  # the expert's plan is not known
    window.add(FAILURE, 4, 8)
    window.add(TIMEOUT, 64, 8)
    assert window.summary() == {
        "rollout/success_rate": 3 / 5,
        "rollout/failure_rate": 1 / 5,
        "rollout/timeout_rate": 1 / 5,
        "rollout/window_episodes": 5,
        "rollout/path_ratio": (1.5 + 1.0) / 2,
        "rollout/path_ratio_episodes": 2,
        "rollout/episodes_total": 5,
        "rollout/episode_steps": 24.0,
    }


def test_window_rates_before_it_is_full():
    """Success of the last 100 was divided by 100 before 100 episodes had ended."""
    window = EpisodeWindow(100)
    window.add(SUCCESS, 5)
    assert window.summary()["rollout/success_rate"] == 1.0


def test_empty_window():
    summary = EpisodeWindow(3).summary()
    assert {key for key, value in summary.items() if value is None} == {
        "rollout/success_rate",
        "rollout/failure_rate",
        "rollout/timeout_rate",
        "rollout/path_ratio",
        "rollout/episode_steps",
    }


def test_window_forgets_the_oldest():
    window = EpisodeWindow(2)
    for outcome in (FAILURE, SUCCESS, SUCCESS):
        window.add(outcome, 1)
    assert len(window) == 2
    assert window.summary()["rollout/failure_rate"] == 0.0
    assert window.summary()["rollout/episodes_total"] == 3


def test_window_keys_are_metrics():
    assert EpisodeWindow(1).summary().keys() <= METRICS.keys()


episodes = st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 500), st.none() | st.integers(1, 500))


@given(before=st.lists(episodes, max_size=12), after=st.lists(episodes, max_size=6))
def test_window_resumes(before, after):
    straight, resumed = EpisodeWindow(5), EpisodeWindow(5)
    for episode in before:
        straight.add(*episode)
    resumed.add(SUCCESS, 7)
    resumed.load(json.loads(json.dumps(straight.state())))
    for episode in after:
        straight.add(*episode)
        resumed.add(*episode)
    assert resumed.summary() == straight.summary()
    assert resumed.state() == straight.state()


def test_window_state_is_plain_with_numpy_input():
    window = EpisodeWindow(2)
    window.add(np.int8(1), np.int64(4), np.int32(2))
    assert json.loads(json.dumps(window.state())) == [1, [1, 4, 2]]


def test_window_refuses():
    window = EpisodeWindow(2)
    for episode in ((0, 5, None), (4, 5, None), (1, 0, None), (1, 5, 0)):
        with pytest.raises(ValueError, match="expected"):
            window.add(*episode)
    with pytest.raises(ValueError, match="expected"):
        EpisodeWindow(0)
    for state in ([], [[1, 2, 3]], [0, [1, 2, 3]]):
        with pytest.raises(ValueError, match="expected"):
            window.load(state)
    assert window.summary()["rollout/episodes_total"] == 0
