"""The memory bound: policies that are functions of what is seen, and such as are not; observations and their file."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.replay.trajectories import follow_expert
from science import complexity
from science.feedforward import bound_memory
from science.observations import Observations, observe, read_observations, write_observations
from science.synthetic import Design, draw_template, plant_policy
from science.traces import TraceError

DESIGN = Design(runs=2, episodes=60, shortest=10, longest=20)


@pytest.fixture(scope="module")
def template():
    return draw_template(DESIGN, np.random.default_rng(0))


@pytest.fixture(scope="module")
def observed(template):
    """What a run's steps show: six objects at random, of which one is what is carried."""
    rng = np.random.default_rng(1)
    first = template.run == 0
    steps = int(first.sum())
    return Observations(
        level_seed=template.level_seed[template.episode_run == 0],
        length=np.bincount(template.episode[first]).astype(np.int32),
        missions=("go to the red ball", "go to a key"),
        mission=rng.integers(0, 2, DESIGN.episodes).astype(np.int32),
        view=rng.integers(0, 3, (steps, 6)).astype(np.uint8),
        direction=rng.integers(0, 4, steps).astype(np.uint8),
        carrying=template.group("carrying").codes[first].astype(np.uint8),
    )


def bounds(template, observed, codes, **given):
    """Return the memory bound and the information in actions of policies that do what codes say."""
    traces = plant_policy(template, np.tile(codes, DESIGN.runs))
    found = complexity.compute(traces, draws=0, observed={"Planted": observed}, **given)
    return found.row("memory_bound"), found.row("action_information")


def test_a_function_of_what_is_seen_needs_no_memory(template, observed):
    mission = observed.mission[observed.episode]
    bound, action = bounds(template, observed, observed.carrying + 2 * mission)
    assert action.value > 1.8 and 0 <= bound.value < 0.1
    assert bound.estimator == "upper bound" and np.isnan(bound.p)


def test_a_hidden_bit_is_memory(template, observed):
    """A bit that no observation shows, on half of the steps: half a bit at least."""
    hidden = np.random.default_rng(2).integers(0, 2, DESIGN.episodes)[observed.episode]
    bound, action = bounds(template, observed, np.where(observed.carrying == 1, hidden, 3))
    share = float((observed.carrying == 1).mean())
    assert share * 0.95 < bound.value < share + 0.25
    assert action.value > bound.value


def test_a_policy_that_does_anything_has_none(template, observed):
    traces = plant_policy(template, None)
    assert complexity.compute(traces, draws=0, observed={"Planted": observed}).row("memory_bound").value < 1e-9


def test_bounds_do_not_depend_on_what_other_runs_do(template, observed):
    rng = np.random.default_rng(3)
    policies = rng.dirichlet(np.ones(4), (3, len(observed.episode)))
    together = bound_memory(policies, observed.encode(), observed.episode)
    assert together == pytest.approx([bound_memory(p[None], observed.encode(), observed.episode)[0] for p in policies])


def test_steps_that_are_not_those_seen_are_named(template, observed):
    other = replace(observed, level_seed=observed.level_seed[::-1])
    row, _ = bounds(template, other, observed.carrying)
    assert row.n_dropped == 2 and row.drop_reason == "its steps are not those whose observations are known"
    assert not complexity.compute(template, draws=0).find("memory_bound")
    assert np.isnan(bound_memory(np.ones((1, 4, 1)), np.ones((4, 1)), np.array([0, 0, 1, 1]))).all()


# ------------------------------------------------------------------------------------------------------ observations


def test_values_and_words_become_columns(observed):
    features = observed.encode()
    words = {"go", "to", "the", "red", "ball", "a", "key"}
    assert features.shape == (len(observed.episode), len(words) + 6 * 3 + 4 + 2)
    assert set(np.unique(features)) == {0.0, 1.0}
    one = replace(observed, view=np.zeros_like(observed.view))
    assert one.encode().shape[1] == len(words) + 4 + 2  # what is always the same is left out


def test_observations_are_those_of_the_replayed_steps(tmp_path):
    way = follow_expert("BabyAI-GoToObjS4-v0", [3, 4, 5])
    known = observe(way)
    write_observations(tmp_path / "o.npz", known)
    back = read_observations(tmp_path / "o.npz")
    assert back.missions == known.missions == way.missions
    for name in ("level_seed", "length", "mission", "view", "direction", "carrying"):
        np.testing.assert_array_equal(getattr(back, name), getattr(known, name))
    np.testing.assert_array_equal(back.episode, way.episode)
    np.testing.assert_array_equal(back.view, way.steps["view"].reshape(len(way), -1))


@pytest.mark.parametrize("content", [None, b"", b"text", {"schema_version": 9}])
def test_files_that_are_none_are_named(tmp_path, content):
    path = tmp_path / "o.npz"
    if isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=r"o\.npz: expected observations, .* make them again"):
        read_observations(path)


def test_lengths_that_do_not_fit_are_refused(observed):
    with pytest.raises(TraceError, match="direction: expected"):
        replace(observed, direction=observed.direction[1:])
