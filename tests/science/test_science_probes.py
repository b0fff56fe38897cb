"""Probes: a planted bit is found by whoever holds it, noise by nobody; what is asked of steps; erasures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from babyai.missions import build_mission_encoder
from babyai.observations import OBSERVATION_DIM
from pipeline.replay.run import replay
from pipeline.replay.trajectories import follow_expert
from science import probes
from science.conditions import build_erasures
from science.erasures import erase, find_subspaces
from science.gathering import gather
from science.planted_training import plant_bit, plant_erasures
from science.probing import (
    WIDTH,
    Target,
    choose_steps,
    find_directions,
    list_targets,
    predict_apart,
    project,
    score_episodes,
)
from science.result import Draft
from science.states import read_states, write_states
from science.statistics.inference import compare_over_both
from science.synthetic import Design, draw_template
from science.traces import Run, TraceError
from tests.policies import Widths, build_small_policy

SIZES = [[0, 3, 20], [2, 0]]


@pytest.fixture(scope="module")
def template():
    return draw_template(Design(runs=4, episodes=60, shortest=10, longest=20), np.random.default_rng(0))


@pytest.fixture(scope="module")
def way():
    return follow_expert("BabyAI-UnlockPickup-v0", range(10))


@pytest.fixture(scope="module")
def agents():
    widths, encoder = Widths(OBSERVATION_DIM, 5, 8, 18, 7), build_mission_encoder("builtin")
    return [
        (build_small_policy("mop", SIZES, widths, seed), encoder, torch.nn.Linear(encoder.width, 5)) for seed in (0, 1)
    ]


RUNS = (Run("BabyAI-UnlockPickup-v0", "alpha=0", 1, 0, 5), Run("BabyAI-UnlockPickup-v0", "alpha=0", 1, 1, 5))


# -------------------------------------------------------------------------------------------------------- known answers


def test_a_planted_bit_is_found_in_the_state_that_holds_it(template):
    states = plant_bit(template, np.random.default_rng(1), size=3.0)
    found = probes.compute([states])
    assert found.row("accuracy", condition="routers").value > 0.9
    for quantity in ("selectivity", "memory_gain", "memory_gain_full"):
        row = found.row(quantity, condition="routers")
        assert row.value > 0.1 and row.p < 0.01 and row.unit == "runs+levels" and row.low > 0


def test_each_target_and_source_is_told_by_itself(template):
    states = plant_bit(template, np.random.default_rng(1), size=3.0)
    both = replace(
        states,
        targets={"door": states.targets["carrying"], **states.targets},
        sources={"weights": np.zeros_like(states.sources["routers"]), **states.sources},
    )
    found, alone = probes.compute([both]), probes.compute([states]).row("selectivity", condition="routers")
    for name in both.targets:
        assert found.row("selectivity", group=name, condition="routers").value == alone.value
        assert found.row("accuracy", group=name, condition="weights").value == pytest.approx(0.5, abs=0.05)
        assert not found.find("memory_gain", condition="weights")


def test_noise_tells_nothing(template):
    """Labels that have to do with nothing: chance, and no selectivity, over 20 data sets."""
    values, p = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        states = plant_bit(template, rng, size=0.0, steps=200)
        noise = rng.normal(size=states.sources["routers"].shape)
        labels = rng.integers(0, 3, len(states.episode)).astype(np.int8)
        states = replace(states, sources={"routers": noise}, targets={"subgoal": Target(labels, ("a", "b", "c"))})
        found = probes.compute([states])
        values.append([found.row(name, condition="routers").value for name in ("accuracy", "selectivity")])
        p.append(found.row("selectivity", condition="routers").p)
    mean, error = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(20)
    assert mean[0] == pytest.approx(1 / 3, abs=4 * error[0])
    assert mean[1] == pytest.approx(0, abs=4 * error[1])
    assert (np.array(p) <= 0.05).sum() <= 4  # binomial, 99.7 %


def test_what_time_alone_tells_is_not_selective(template):
    states = plant_bit(template, np.random.default_rng(2), size=0.0)
    found = probes.compute([states])
    assert found.row("accuracy", condition="routers").value > 0.6
    assert abs(found.row("selectivity", condition="routers").value) < 0.05


def test_erasures_are_held_against_random_ones(template):
    draft = Draft("probes", "")
    probes.add_erasures(draft, plant_erasures(template, np.random.default_rng(0), harm=0.2))
    row = draft.finish().row("erasure_gain_routers")
    assert row.value == pytest.approx(0.2, abs=0.05) and row.group == "carrying" and row.p < 0.05


def test_shared_training_episodes_widen_the_interval():
    test = compare_over_both(np.random.default_rng(0).normal(0.2, 1, (5, 30)))
    wider = probes.allow_for_training(test)
    assert (wider.high - wider.low) / (test.high - test.low) == pytest.approx(np.sqrt(7 / 3))
    assert wider.mean == test.mean and wider.p > test.p
    nothing = compare_over_both(np.zeros((5, 30)))
    assert probes.allow_for_training(nothing).p == nothing.p == 1


# ------------------------------------------------------------------------------------------------------------ its parts


def test_shares_of_episodes_average_to_balanced_accuracy():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    episode = np.sort(rng.integers(0, 9, 80))
    codes, told = rng.integers(0, 3, 80), rng.integers(0, 3, 80)
    shares = score_episodes((codes == told).astype(float), codes, episode, 12)
    assert np.nanmean(shares) == pytest.approx(balanced_accuracy_score(codes, told))
    assert np.isnan(shares[9:]).all()
    unknown = score_episodes(np.full(80, np.nan), codes, episode, 12)
    assert np.isnan(unknown).all()


def test_no_step_is_told_by_a_probe_of_its_own_episode():
    """Features that name the episode, labels drawn for each: whoever saw the episode would know."""
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(16), 10)
    labels = rng.permutation(np.arange(16) % 2)[episode]
    features = np.eye(16)[episode]
    assert np.nanmean(predict_apart(features, labels, episode)) <= 0.6
    assert np.isnan(predict_apart(features[:30], labels[:30], episode[:30])).all()  # three episodes
    one = predict_apart(features, np.where(episode < 2, -1, 0), episode)
    assert np.nanmean(one) == 1 and np.isnan(one[:20]).all()


def test_wide_sources_are_cut_alike_and_narrow_ones_stay():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(5, 40)), rng.normal(size=(5, WIDTH))
    assert project(narrow, "a", 0) is narrow
    np.testing.assert_array_equal(project(wide, "a", 0), project(wide, "a", 0))
    assert project(wide, "a", 0).shape == (5, WIDTH)
    assert not np.allclose(project(wide, "a", 0), project(wide, "b", 0))


def test_steps_are_drawn_once_for_all():
    episode = np.repeat(np.arange(30), 5)
    assert choose_steps(episode, 1000, 0).tolist() == list(range(150))
    chosen = choose_steps(episode, 40, 3)
    assert len(set(chosen.tolist())) == 40 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose_steps(episode, 40, 3))


def test_targets_are_facts_of_the_steps(way):
    found = list_targets(way.steps, way.episode)
    assert {"carrying", "door", "distance", "plan_left"} <= set(found)
    np.testing.assert_array_equal(found["carrying"].codes, way.steps["carrying"] > 0)
    np.testing.assert_array_equal(found["door"].codes, way.steps["door_unlocked"])
    left = found["plan_left"]
    assert len(left.names) == 3 and left.names[0].startswith("up to ") and left.names[2].endswith(" steps")
    ends = way.begins[1:] - 1
    assert (left.codes[ends] == 0).all()  # the last step is the last
    assert np.bincount(left.codes).min() > 0.2 * len(way)


def test_rare_classes_and_targets_of_one_class_are_left_out(way):
    steps = {**way.steps, "carrying": np.zeros(len(way)), "subgoal": np.where(way.episode < 3, 1, 0)}
    found = list_targets(steps, way.episode)
    assert "carrying" not in found and "subgoal" not in found


def test_a_probe_reads_the_direction_that_was_planted():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 3000)
    direction = rng.normal(size=8)
    features = rng.normal(size=(3000, 8)) + np.outer(0.5 * codes, direction)
    read = find_directions(features, codes)
    assert read.shape == (8, 1)
    within = np.cov(features[codes == 0].T)
    wanted = np.linalg.solve(within, direction)
    assert abs(read[:, 0] @ wanted) / np.linalg.norm(wanted) > 0.95


# ----------------------------------------------------------------------------------------------------- states, erasures


def test_states_are_those_before_the_steps_and_come_back_from_their_file(agents, way, tmp_path):
    states = gather(agents, RUNS, way, seed=0)
    assert set(states.sources) == {"weights", "routers", "expert 0.1", "expert 0.2", "expert 1.0"}
    assert (way.t_step[states.chosen] > 0).all()
    intact = replay(agents, way, bank=True)
    bank = intact.bank[0][1][:, states.chosen].numpy()
    np.testing.assert_allclose(states.sources["expert 0.1"], bank[..., :3], rtol=1e-4, atol=1e-5)
    assert states.sources["expert 0.2"].shape == (2, len(states.chosen), WIDTH)
    weights = np.concatenate([intact.weights[0][..., :-1], intact.weights[1][..., :-1]], axis=-1)[:, states.chosen]
    np.testing.assert_allclose(states.sources["weights"], weights, rtol=1e-4, atol=1e-5)
    write_states(tmp_path / "s.npz", states)
    back = read_states(tmp_path / "s.npz")
    assert back.runs == states.runs and back.experts == states.experts and list(back.sources) == list(states.sources)
    for name in states.sources:
        np.testing.assert_array_equal(back.sources[name], states.sources[name])
    assert {n: t.names for n, t in back.targets.items()} == {n: t.names for n, t in states.targets.items()}
    np.testing.assert_array_equal(back.episode, way.episode)


@pytest.mark.parametrize("content", [None, b"text"])
def test_files_that_are_no_states_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(TraceError, match=r"s\.npz: expected states, .* make them again"):
        read_states(tmp_path / "s.npz")


def test_subspaces_are_orthonormal_and_of_equal_rank_in_their_place(agents, way):
    targets = list_targets(way.steps, way.episode)
    found = find_subspaces(agents, way, targets, seed=0)
    assert set(found) == {item.subspace for item in build_erasures(list(targets)) if item.subspace}
    routers, units = [], 0
    for layer in SIZES:
        routers += range(units, units + 18)
        units += 18 + sum(layer)
    experts = sorted(set(range(units)) - set(routers))
    for name in targets:
        rank = len(targets[name].names) - 1
        for place, others in (("routers", experts), ("experts", routers)):
            for text in (f"{name} of {place}", f"random 1 for {name} of {place}"):
                basis = found[text].basis
                assert basis.shape == (2, units, rank) and (basis[:, others] == 0).all()
                torch.testing.assert_close(basis.mT @ basis, torch.eye(rank).double().expand(2, -1, -1))


def test_an_erasure_changes_what_follows_and_the_sham_nothing(agents, way):
    donating = follow_expert("BabyAI-UnlockPickup-v0", range(100, 110))
    table = erase(agents, [{"seed": 0}, {"seed": 1}], way, donating, 0, 2.0)
    kinds = [condition["kind"] for condition in table.header["conditions"]]
    assert kinds.count("random_erasure") == 2 * kinds.count("erasure") > 0 and kinds[0] == "sham"
    changed = np.abs(table.ce - table.ce_intact)
    assert (changed[table.condition == 0] == 0).all() and (table.kl[table.condition == 0] == 0).all()
    assert all(changed[table.condition == number].max() > 0 for number in range(1, len(kinds)))
