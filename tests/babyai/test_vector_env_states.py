"""The state of a vector environment: taken up again to the bit, plain, and as small as the missions that go on."""

from functools import partial

import numpy as np
import pytest

import babyai.compiled.core
import babyai.plain_core
from babyai.compiled.slots import allocate_slots
from babyai.level_seeds import SeedList, SeedStreams
from babyai.vector_env import VectorEnv, VectorStep
from tests.babyai.played_facts import follow_expert
from tests.babyai.vector_steps import assert_same


@pytest.mark.parametrize("plan_every", [0, 2])
@pytest.mark.parametrize("task_id", ["GoToObj", "GoToImpUnlock", "BossLevel"])
def test_restored_run_equals_uninterrupted_run(task_id, plan_every):
    """Including the bot's mind, the level streams, mission numbers and counters."""

    def build() -> VectorEnv:
        return VectorEnv(task_id, 3, SeedStreams(2, 3), max_steps=25, plan_every=plan_every)

    rng = np.random.default_rng(0)
    actions = rng.choice([0, 1, 2, 2, 3, 4, 5], size=(100, 3))
    follows = rng.random((100, 3)) < 0.6

    def advance(env: VectorEnv, step: VectorStep, start: int, stop: int) -> list[VectorStep]:
        steps = []
        for t in range(start, stop):
            step = env.step(np.where(follows[t] & step.expert_valid, step.expert_action, actions[t]))
            steps.append(step)
        return steps

    env = build()
    before = advance(env, env.reset(), 0, 60)
    state = env.state_dict()
    expected = advance(env, before[-1], 60, 100)
    other = build()
    restored = other.load_state_dict(state)
    assert_same(restored, before[-1], but=("reward", "outcome", "ended"))
    assert not restored.reward.any() and not restored.outcome.any() and restored.ended == ()
    for ours, theirs in zip(advance(other, restored, 60, 100), expected, strict=True):
        assert_same(ours, theirs)
    assert (other.counters, other.missions) == (env.counters, env.missions)
    assert other.unsolvable_seeds == env.unsolvable_seeds
    assert sum(len(step.ended) for step in expected) > 2


def test_restored_seed_list():
    env = VectorEnv("GoToObj", 2, SeedList(range(6)))
    step = env.reset()
    while len(step.ended) == 0:
        step = env.step(follow_expert(step))
    other = VectorEnv("GoToObj", 2, SeedList(range(6)))
    resumed = other.load_state_dict(env.state_dict())
    while step.active.any():
        step, resumed = env.step(follow_expert(step)), other.step(follow_expert(resumed))
        assert_same(step, resumed)
    # also with slots that have no level left
    again = VectorEnv("GoToObj", 2, SeedList(range(6))).load_state_dict(env.state_dict())
    assert not again.active.any()


def test_state_is_plain():
    env = VectorEnv("GoToImpUnlock", 2, SeedStreams(2, 2), plan_every=1)
    step = env.reset()
    for _ in range(20):
        step = env.step(follow_expert(step))

    def check(value) -> None:
        assert type(value) in (int, str, bool, list, dict, type(None)), value
        for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(part)

    check(env.state_dict())


def test_state_of_another_environment_is_refused():
    state = VectorEnv("GoToObj", 2, SeedStreams(0, 2)).state_dict()
    for other in (
        VectorEnv("GoToLocal", 2, SeedStreams(0, 2)),
        VectorEnv("GoToObj", 3, SeedStreams(0, 3)),
        VectorEnv("GoToObj", 2, SeedStreams(1, 2)),
        VectorEnv("GoToObj", 2, SeedList([1, 2])),
    ):
        with pytest.raises(ValueError, match="expected the state of"):
            other.load_state_dict(state)


@pytest.mark.parametrize("core", ["compiled", "plain"])
def test_a_state_is_gone_back_to_whatever_was_met_since(core):
    """Missions met after it have other numbers the second time, or none."""
    env = VectorEnv("GoToObj", 2, SeedStreams(0, 2), max_steps=2, core=core)
    env.reset()
    state = env.state_dict()

    def play(steps):
        return [env.step([0, 0]).ended for _ in range(steps)], list(env.missions)

    first = play(60)
    env.load_state_dict(state)
    assert play(20) == (first[0][:20], first[1][: len(env.missions)])
    env.load_state_dict(state)
    assert play(60) == first


@pytest.mark.parametrize("core", ["compiled", "plain"])
def test_missions_that_are_over_are_forgotten_and_nothing_else(core):
    kept, env = (VectorEnv("GoToLocal", 4, SeedStreams(0, 4), max_steps=3, core=core) for _ in range(2))
    expected, step = kept.reset(), env.reset()
    for k in range(40):
        if k % 3 == 0:
            shown, step = step, env.forget_missions()
            assert_same(shown, step, but=("mission_id", "reward", "outcome", "ended"))
            assert not step.reward.any()
            assert not step.outcome.any()
            assert step.ended == ()
            assert env.missions == list(dict.fromkeys(kept.missions[number] for number in expected.mission_id))
        assert [env.missions[number] for number in step.mission_id] == [
            kept.missions[number] for number in expected.mission_id
        ]
        expected, step = kept.step(follow_expert(expected)), env.step(follow_expert(step))
        assert_same(expected, step, but=("mission_id",))
    assert len(env.missions) < len(kept.missions)


@pytest.mark.parametrize("core", ["compiled", "plain"])
def test_in_which_order_missions_are_met_does_not_depend_on_when_seeds_are_given(core, monkeypatch):
    """Saving gives seeds."""
    few = partial(allocate_slots, seeds=1)
    for module in (babyai.compiled.core, babyai.plain_core):
        monkeypatch.setattr(module, "allocate_slots", few)
    slots, steps = (64, 500) if core == "compiled" else (24, 120)
    envs = [VectorEnv("SynthS5R2", slots, SeedStreams(0, slots), max_steps=4, core=core) for _ in range(2)]
    for env in envs:
        env.reset()
    for t in range(steps):
        envs[0].state_dict()
        actions = np.full(slots, t % 3)
        assert envs[0].step(actions).ended == envs[1].step(actions).ended
    assert envs[0].missions == envs[1].missions
    assert envs[0].state_dict() == envs[1].state_dict()
