"""When or where: what predicts LPC, and maps with the time taken out; of planted routers, whose answer is known."""

import dataclasses

import numpy as np
import pytest

from plotting.data import PlotError, as_routing_data
from plotting.elapsed import (
    compute_elapsed,
    describe_shares,
    plot_elapsed,
    predict_from_others,
    predict_lpc,
    tabulate_shares,
)
from plotting.replicates import join_runs
from plotting.temporal import step_numbers
from plotting.without_time import plot_without_time, subtract_time
from tests.tables import build_context, random_tables

EPISODES, LENGTH = 60, 12


def planted(lpc_of, seed=0):
    """Return routed data whose LPC is a function of (time, cell, noise); episodes start in either of two rooms."""
    routing, episodes = random_tables(seed, [LENGTH] * EPISODES, [[0, 16, 32]])
    rng = np.random.default_rng(seed)
    time = np.tile(np.arange(LENGTH), EPISODES)
    position = rng.integers(1, 4, (len(time), 2)).astype(np.int16)
    lpc = np.asarray(lpc_of(time, position[:, 0], rng.standard_normal(len(time))), np.float32)
    contexts = tuple(build_context(k) | {"agent_start_room": [5 * (k % 2), 0]} for k in range(EPISODES))
    routing = dataclasses.replace(routing, position=position, lpc=lpc)
    return as_routing_data((routing, dataclasses.replace(episodes, env_context=contexts)))


def test_each_step_is_predicted_from_other_episodes_only():
    values = np.array([1.0, 2.0, 4.0, 8.0, 100.0])
    groups, episodes = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 2])
    # Group 1 is of episode 2 alone: its steps are predicted by the mean of all steps of the others.
    expected = [4.0, 4.0, 1.5, 7 / 3, 7 / 3]
    np.testing.assert_allclose(predict_from_others(values, groups, episodes), expected)
    np.testing.assert_array_equal(predict_from_others(values, groups, np.zeros(5, int)), np.zeros(5))


def test_a_router_that_tells_the_time_is_predicted_by_it_and_by_nothing_else():
    shares = predict_lpc(planted(lambda time, x, noise: 500 / (1 + time) + noise))
    assert shares["time"] > 0.99
    assert abs(shares["place"]) < 0.05
    assert abs(shares["place_given_time"]) < 0.05


def test_a_router_that_tells_the_place_is_predicted_by_it_once_the_time_is_known():
    shares = predict_lpc(planted(lambda time, x, noise: 100 * x + 500 / (1 + time) + noise))
    assert 0.1 < shares["place"] < 0.9 and 0.1 < shares["time"] < 0.9
    assert shares["place_given_time"] > 0.95 and shares["time_given_place"] > 0.95


def test_noise_is_predicted_by_nothing_however_many_cells_there_are():
    for seed in range(5):
        shares = predict_lpc(planted(lambda time, x, noise: noise, seed))
        assert all(-0.1 < share < 0.05 for share in shares.values())


def test_of_a_constant_router_no_share_is_told():
    data = planted(lambda time, x, noise: 0 * noise + 7)
    assert all(np.isnan(share) for share in predict_lpc(data).values())
    assert describe_shares(compute_elapsed(data)) == "LPC is constant: nothing predicts it"
    assert plot_without_time(data) is not None


def test_what_time_leaves_has_mean_zero_at_each_time_of_each_run():
    runs = [planted(lambda time, x, noise: 100 * time + noise, seed) for seed in range(3)]
    data = join_runs([runs[0], dataclasses.replace(runs[1]), runs[2]])
    rest = subtract_time(data, data.lpc)
    for run in range(3):
        for time in range(LENGTH):
            rows = (data.run_of_step == run) & (data.routing.t_step == time)
            assert rest[rows].mean() == pytest.approx(0, abs=1e-4)


def test_means_at_each_time_are_those_of_the_steps_there_and_of_each_room():
    data = planted(lambda time, x, noise: 10 * time + x)
    elapsed = compute_elapsed(data)
    for time in (0, 5, LENGTH - 1):
        rows = data.routing.t_step == time
        assert elapsed.lpc.mean[time] == pytest.approx(data.lpc[rows].mean(), rel=1e-6)
        for label, room in zip(elapsed.groups, (0, 1), strict=True):
            inside = rows & (data.routing.episode % 2 == room)
            assert elapsed.groups[label].mean[time] == pytest.approx(data.lpc[inside].mean(), rel=1e-6)
    np.testing.assert_array_equal(elapsed.lpc.n, EPISODES)
    assert elapsed.dominant[0].sum() == pytest.approx(1)


def test_steps_of_unknown_time_are_counted_from_the_start_of_their_episode():
    """They were counted through all episodes: `elapsed` failed within numpy, and nothing was left without the time."""
    known = planted(lambda time, x, noise: 100 * time + 10 * x + noise)
    unknown = np.full(len(known), -1, known.routing.t_step.dtype)
    data = dataclasses.replace(known, routing=dataclasses.replace(known.routing, t_step=unknown))
    np.testing.assert_array_equal(step_numbers(data), known.routing.t_step)
    np.testing.assert_array_equal(subtract_time(data, data.lpc), subtract_time(known, known.lpc))
    np.testing.assert_array_equal(compute_elapsed(data).lpc.mean, compute_elapsed(known).lpc.mean)


def test_times_that_few_episodes_reach_are_counted_and_not_drawn():
    lengths = [5] * 40 + [30]
    elapsed = compute_elapsed(random_tables(0, lengths, [[0, 16]]))
    assert elapsed.time[-1] == 4 and elapsed.not_shown == 25
    axes = plot_elapsed(elapsed)
    assert "25 steps not drawn" in axes[0].figure.get_supxlabel().replace("\n", " ")


def test_the_table_has_a_row_for_each_predictor_and_expert_and_a_column_for_each_run():
    runs = [planted(lambda time, x, noise: time + noise, seed) for seed in range(3)]
    table = tabulate_shares(compute_elapsed(join_runs(runs)))
    assert len(table) == 4 + 3
    assert list(table.columns)[-3:] == ["run_0", "run_1", "run_2"]
    np.testing.assert_allclose(table["mean"], table[["run_0", "run_1", "run_2"]].mean(axis=1))


def test_layouts_cannot_be_followed_in_time():
    data = dataclasses.replace(planted(lambda time, x, noise: noise), layouts_only=True)
    for call in (compute_elapsed, plot_without_time):
        with pytest.raises(PlotError, match="layouts apart"):
            call(data)
