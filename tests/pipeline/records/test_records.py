"""Rates and records against values worked out by hand."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babyai.facts import FAILURE, SUCCESS, TIMEOUT
from pipeline.records.intervals import wilson_interval
from pipeline.records.metrics import EpisodeWindow, choose_episode, compute_metrics
from pipeline.records.steps import iter_records
from pipeline.records.tables import EpisodeTable, RoutingTable
from pipeline.tracking import METRICS
from tests.tables import assert_same_episodes, assert_same_steps, random_tables


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


# ------------------------------------------------------------------------------------------------------------ tables

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(seed=st.integers(0, 999), first=lengths, second=lengths)
@settings(max_examples=30, deadline=None)
def test_select_undoes_concatenate(seed, first, second):
    (a, a_episodes), (b, b_episodes) = random_tables(seed, first), random_tables(seed + 1, second)
    both, both_episodes = RoutingTable.concatenate([a, b]), EpisodeTable.concatenate([a_episodes, b_episodes])
    assert len(both) == sum(first) + sum(second)
    assert len(both_episodes) == len(first) + len(second)
    assert_same_steps(both.select(both.episode < len(first)), a)
    moved = both.select(np.flatnonzero(both.episode >= len(first)))
    assert_same_steps(dataclasses.replace(moved, episode=moved.episode - np.int32(len(first))), b)
    assert_same_episodes(both_episodes.select(np.arange(len(first))), a_episodes)
    assert_same_episodes(both_episodes.select(np.arange(len(both_episodes)) >= len(first)), b_episodes)


def test_concatenate_counts_episodes_without_steps():
    routing, _ = random_tables(0, [2, 3, 2])
    part = routing.select(routing.episode < 2)
    assert RoutingTable.concatenate([part, part]).episode.max() == 3
    assert RoutingTable.concatenate([part, part], num_episodes=[3, 3]).episode.max() == 4


def test_select_nothing():
    routing, episodes = random_tables(0, [2, 3])
    for rows in (np.zeros(5, bool), [], slice(0, 0)):
        assert len(routing.select(rows)) == 0
        assert routing.select(rows).weights[0].shape == (0, 3)
    assert len(episodes.select([])) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lpc", np.zeros(5)),  # float64
        ("t_step", np.zeros(4, np.int32)),
        ("position", np.zeros((5, 3), np.int16)),
        ("action_logits", np.zeros(5, np.float32)),
        ("carrying", [True] * 5),
        ("weights", (np.zeros((5, 3), np.float32),)),
        ("weights", (np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32))),
        ("episode", np.full(5, -1, np.int32)),
        ("subgoal", np.full(5, 2, np.int8)),
        ("unknown", frozenset({"colour"})),
    ],
)
def test_routing_table_refuses(name, value):
    routing, _ = random_tables(0, [2, 3])
    with pytest.raises(ValueError, match=rf"{name}.*expected"):
        dataclasses.replace(routing, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("outcome", np.array([1, 4], np.int8)),
        ("steps", np.zeros(2, np.int64)),
        ("mission", ("one",)),
        ("env_context", [{}, {}]),
        ("mean_lpc", np.zeros(3)),
    ],
)
def test_episode_table_refuses(name, value):
    _, episodes = random_tables(0, [2, 3])
    with pytest.raises(ValueError, match=rf"{name}.*expected"):
        dataclasses.replace(episodes, **{name: value})


def test_tables_of_different_policies_do_not_mix():
    a, b, c = (random_tables(0, [2], sizes)[0] for sizes in ([[0, 16]], [[0, 32]], []))
    for tables in ([a, b], [a, c], []):
        with pytest.raises(ValueError, match="expected"):
            RoutingTable.concatenate(tables)
    with pytest.raises(ValueError, match="actions"):
        RoutingTable.concatenate([a, random_tables(0, [2], [[0, 16]], num_actions=5)[0]])


# ----------------------------------------------------------------------------------------------------------- metrics


def build_episodes(**columns):
    _, episodes = random_tables(0, [1, 1, 1, 1])
    types = {name: getattr(episodes, name).dtype for name in columns}
    return dataclasses.replace(episodes, **{name: np.array(v, types[name]) for name, v in columns.items()})


def test_metrics_by_hand():
    episodes = build_episodes(
        outcome=[SUCCESS, SUCCESS, FAILURE, TIMEOUT],
        steps=[10, 30, 5, 55],
        expert_steps=[10, 20, 5, -1],
        mean_lpc=[100.0, 200.0, 0.0, 400.0],
        labelled=[10, 30, 5, 45],
        agreed=[10, 15, 0, 20],
    )
    metrics = compute_metrics(episodes, bot_plan_failures=np.int64(3))
    low, high = wilson_interval(2, 4)
    assert metrics == {
        "success_rate": 0.5,
        "successes": 2,
        "num_episodes": 4,
        "success_low": low,
        "success_high": high,
        "failures": 1,
        "timeouts": 1,
        "path_ratio": 1.25,
        "path_ratio_median": 1.25,
        "path_ratio_n": 2,
        "mean_lpc": (1000 + 6000 + 0 + 22000) / 100,
        "mean_lpc_per_episode": 175.0,
        "mean_lpc_success": 7000 / 40,
        "mean_lpc_failure": 0.0,
        "mean_lpc_timeout": 400.0,
        "agreement": 0.5,
        "labelled_steps": 90,
        "mean_steps": 25.0,
        "total_steps": 100,
        "bot_plan_failures": 3,
    }
    assert all(type(value) in (int, float) for value in metrics.values())


def test_metrics_of_a_policy_without_routers_have_no_lpc():
    """LPC of a baseline is empty, not zero."""
    routing, episodes = random_tables(0, [3, 4], sizes=[])
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    assert {name for name, value in metrics.items() if "lpc" in name and value is not None} == set()
    assert metrics["success_rate"] is not None
    assert [record["lpc"] for record in iter_records(routing, episodes)] == [None] * 7


def test_metrics_that_nothing_defines_are_none():
    episodes = build_episodes(outcome=[TIMEOUT] * 4, labelled=[0] * 4, agreed=[0] * 4)
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    for name in ("path_ratio", "path_ratio_median", "mean_lpc_success", "mean_lpc_failure", "agreement"):
        assert metrics[name] is None
    assert (metrics["path_ratio_n"], metrics["successes"], metrics["success_rate"]) == (0, 0, 0.0)
    empty = compute_metrics(episodes.select([]), bot_plan_failures=7)
    counts = ("num_episodes", "successes", "failures", "timeouts", "path_ratio_n", "labelled_steps", "total_steps")
    assert {name: value for name, value in empty.items() if value is not None} == {
        **dict.fromkeys(counts, 0),
        "bot_plan_failures": 7,
    }


def test_metrics_are_not_guessed_for_unknown_outcomes():
    metrics = compute_metrics(build_episodes(outcome=[SUCCESS, SUCCESS, SUCCESS, -1]), bot_plan_failures=None)
    assert (
        metrics["success_rate"] is metrics["successes"] is metrics["failures"] is metrics["bot_plan_failures"] is None
    )


@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_metrics_of_steps_equal_those_of_the_routing_table(seed, lengths):
    """Whether or not the routing was kept, the numbers are the same."""
    routing, episodes = random_tables(seed, lengths)
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    assert metrics["mean_lpc"] == pytest.approx(routing.lpc.mean(dtype=np.float64), rel=1e-9)
    success = episodes.outcome[routing.episode] == SUCCESS
    expected = routing.lpc[success].mean(dtype=np.float64) if success.any() else None
    assert metrics["mean_lpc_success"] == (expected if expected is None else pytest.approx(expected, rel=1e-9))


# ----------------------------------------------------------------------------------------------------------- records


def test_a_typical_episode_is_a_success_of_median_length():
    steps = np.array([9, 2, 7, 5, 100, 3], np.int32)
    _, episodes = random_tables(0, steps.tolist(), [])
    mixed = dataclasses.replace(episodes, outcome=np.array([1, 1, 1, 1, 3, 2], np.int8))
    assert choose_episode(mixed) == 3  # of 2, 5, 7, 9
    assert choose_episode(mixed, np.array([9, 0, 7, 0, 0, 3])) == 2  # of 7, 9
    assert choose_episode(mixed, np.array([0, 0, 0, 0, 4, 3])) == 5  # no success: of 3, 4
    assert choose_episode(dataclasses.replace(mixed, outcome=np.full(6, 3, np.int8))) == 3  # of 2, 3, 5, 7, 9, 100
    assert choose_episode(dataclasses.replace(mixed, steps=np.full(6, -1, np.int32))) == 1  # lengths are not known
    for call in (lambda: choose_episode(episodes.select([])), lambda: choose_episode(mixed, np.zeros(6, int))):
        with pytest.raises(ValueError, match="at least one episode"):
            call()


def test_records_by_hand():
    routing, episodes = random_tables(0, [1, 1])
    routing = dataclasses.replace(
        routing,
        t_step=np.array([0, -1], np.int32),
        position=np.array([[1, 2], [3, 4]], np.int16),
        direction=np.array([3, 0], np.int8),
        carrying=np.array([True, False]),
        door_unlocked=np.array([-1, 1], np.int8),
        action=np.array([2, 0], np.int8),
        action_logits=np.array([[0.5, 2.0], [1.0, 0.0]], np.float32),
        expert_action=np.array([-1, 1], np.int8),
        subgoal=np.array([1, -1], np.int8),
        event=np.array([0, 3], np.int8),
        event_object=np.array([-1, 2], np.int16),
        weights=tuple(np.array(w, np.float32) for w in ([[0.5, 0.25, 0.25]] * 2, [[1, 0], [0, 1]])),
        lpc=np.array([320.0, np.nan], np.float32),
        entropy=np.array([0.5, 0.25], np.float32),
        walking=np.array([[np.nan, 2, 3], [0, 1, 2]], np.float32),
        straight=np.array([[np.nan, 2, 1.5], [0, 1, 2]], np.float32),
        unknown=frozenset({"carrying"}),
    )
    episodes = dataclasses.replace(
        episodes, **{f"t_{name}": np.array([-1, 4], np.int32) for name in ("pick", "unlocked", "drop")}
    )
    first, second = iter_records(routing, episodes)
    assert first.pop("env_context") is episodes.env_context[0]
    assert first == {
        "episode": 0,
        "position": [1, 2],
        "layer_routing": {"layer_0": [0.5, 0.25, 0.25], "layer_1": [1.0, 0.0]},
        "lpc": 320.0,
        "t_step": 0,
        "direction": 3,
        "carrying": None,  # not known, in spite of the column's True
        "door_unlocked": None,
        "action": 2,
        "action_logits": [0.5, 2.0],
        "expert_action": None,
        "entropy": 0.5,
        "t_pick": None,
        "t_unlocked": None,
        "t_drop": None,
        "dist_to_door": None,
        "dist_to_key": 2.0,
        "dist_to_target": 3.0,
        "straight_to_door": None,
        "straight_to_key": 2.0,
        "straight_to_target": 1.5,
        "subgoal": "Open",
        "event": None,
        "event_object": None,
    }
    assert second["door_unlocked"] is True
    assert (second["t_step"], second["t_pick"], second["lpc"]) == (None, 4, None)
    assert (second["event"], second["event_object"], second["subgoal"]) == ("unlocked", "blue door", None)


def test_steps_of_one_episode_share_their_context():
    routing, episodes = random_tables(0, [3, 2])
    contexts = [record["env_context"] for record in iter_records(routing, episodes)]
    assert [id(context) for context in contexts] == [id(episodes.env_context[k]) for k in (0, 0, 0, 1, 1)]


def test_records_refuse_episodes_that_do_not_exist():
    routing, episodes = random_tables(0, [3, 2])
    with pytest.raises(ValueError, match="1 episodes, found 1"):
        next(iter_records(routing, episodes.select([0])))
