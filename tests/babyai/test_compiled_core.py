"""The compiled core against the plain one: the same vector environment, whoever plays the levels."""

import numpy as np
import pytest

import babyai.compiled.core
from babyai.compiled.kinds import P_DRAWS
from babyai.errors import UnknownTaskError
from babyai.facts import FACT_FIELDS, SUCCESS
from babyai.level_seeds import SeedList, SeedStreams
from babyai.levels import list_tasks
from babyai.plain_world import Simulator
from babyai.steps import STEP_FIELDS, VectorStep
from babyai.vector_env import VectorEnv
from tests.fresh_seeds import REPEAT, SEED

TASKS = list_tasks()
ARRAYS = [name for name, _, _ in STEP_FIELDS]
FACTS = [name for name, *_ in FACT_FIELDS]
HOPELESS = ("KeyInBox", "Carrying")  # tasks of which the bot solves no level


def assert_same_step(ours: VectorStep, plain: VectorStep, told: str) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name), err_msg=f"{name}: {told}")
    assert ours.ended == plain.ended, told
    assert (ours.facts is None) == (plain.facts is None)
    for name in FACTS if ours.facts is not None else ():
        expected = getattr(plain.facts, name)
        np.testing.assert_array_equal(getattr(ours.facts, name), expected, err_msg=f"{name}: {told}")


def play_both(
    task_id: str, *, steps: int, noise: float, told: str, num_envs: int = 3, seed: int = 0, **settings
) -> int:
    """Play the same actions in both cores, asserting that nothing differs; the number of episodes that ended."""
    rng = np.random.default_rng(seed)
    pair = [
        VectorEnv(task_id, num_envs, SeedStreams(seed, num_envs), core=core, **settings)
        for core in ("compiled", "plain")
    ]
    assert [env.core for env in pair] == ["compiled", "plain"]
    ours, plain = (env.reset() for env in pair)
    ended = 0
    for t in range(steps):
        assert_same_step(ours, plain, f"{task_id} seed {seed} step {t} {told}")
        follow = ours.expert_valid & (rng.random(num_envs) >= noise)
        actions = np.where(follow, ours.expert_action, rng.integers(7, size=num_envs))
        ours, plain = (env.step(actions) for env in pair)
        ended += len(ours.ended)
    assert pair[0].counters == pair[1].counters
    assert pair[0].unsolvable_seeds == pair[1].unsolvable_seeds
    assert pair[0].missions == pair[1].missions
    assert pair[0].state_dict() == pair[1].state_dict()
    return ended


@pytest.mark.parametrize("task_id", TASKS)
def test_equals_the_plain_core(task_id):
    """Levels, labels, observations, facts, contexts and outcomes of every task, with noise, on fresh seeds."""
    rng = np.random.default_rng([SEED, TASKS.index(task_id)])
    seed, noise = int(rng.integers(2**31)), float(rng.random() * 0.5)
    every = 0 if any(part in task_id for part in HOPELESS) else 2
    play_both(task_id, steps=70, noise=noise, seed=seed, plan_every=every, record=True, told=REPEAT)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("task_id", ["GoToObj", "UnlockPickup", "PutNextLocal", "BossLevel", "GoToImpUnlock"])
def test_equals_the_plain_core_for_long(task_id, noise):
    """Through many episodes, also cut ones, without facts."""
    ended = play_both(task_id, steps=250, noise=noise, seed=SEED, max_steps=60, told=REPEAT)
    assert ended > 0


@pytest.mark.parametrize("limit", [2**31, 2**32, 10**12, 2**63 - 1, 2**70])
def test_a_step_limit_of_billions_is_none(limit):
    """The compiled world counts in 32 bits: with 10**12 as "no limit" every episode was over after one step."""
    ended = []
    for core in ("compiled", "plain"):
        env = VectorEnv("GoToObj", 1, SeedList([3]), max_steps=limit, core=core)
        step = env.reset()
        while not step.ended:
            step = env.step(step.expert_action)
        ended += step.ended
    assert ended[0] == ended[1]
    assert (ended[0].outcome, ended[0].steps) == (SUCCESS, 5)


def test_without_labels():
    play_both("GoToObj", steps=60, noise=1.0, label=False, told="")


@pytest.mark.parametrize(("saved", "resumed"), [("compiled", "plain"), ("plain", "compiled")])
def test_a_state_moves_between_cores(saved, resumed):
    rng = np.random.default_rng(1)
    env = VectorEnv("UnlockPickup", 3, SeedStreams(2, 3), max_steps=150, plan_every=2, core=saved)
    step = env.reset()
    for _ in range(70):  # longer than the history's first width
        step = env.step(np.where(rng.random(3) < 0.2, rng.integers(7, size=3), step.expert_action))
    other = VectorEnv("UnlockPickup", 3, SeedStreams(2, 3), max_steps=150, plan_every=2, core=resumed)
    restored = other.load_state_dict(env.state_dict())
    for _ in range(100):
        for name in set(ARRAYS) - {"reward", "outcome"}:
            np.testing.assert_array_equal(getattr(restored, name), getattr(step, name), err_msg=name)
        actions = np.where(rng.random(3) < 0.2, rng.integers(7, size=3), step.expert_action)
        step, restored = env.step(actions), other.step(actions)
        assert step.ended == restored.ended
    assert env.state_dict() == other.state_dict()


def test_long_episodes_are_remembered_whole():
    env = VectorEnv("BossLevel", 1, SeedList([3]))
    env.reset()
    rng = np.random.default_rng(0)
    taken = []
    while len(taken) < 200:
        taken.append(int(rng.choice([0, 1, 6])))
        env.step([taken[-1]])
    assert env.state_dict()["slots"][0]["actions"] == taken


def test_levels_that_are_not_compiled_are_played_by_minigrid(monkeypatch):
    """BABYAI_DONE_ACTIONS changes minigrid's verifiers in a way that is not compiled."""
    assert VectorEnv("GoToObj", 1, SeedList([0])).core == "compiled"
    monkeypatch.setenv("BABYAI_DONE_ACTIONS", "1")
    assert VectorEnv("GoToObj", 1, SeedList([0])).core == "plain"
    with pytest.raises(ValueError, match=r"BABYAI_DONE_ACTIONS.*use auto or plain"):
        VectorEnv("GoToObj", 1, SeedList([0]), core="compiled")


@pytest.mark.parametrize("plan_every", [0, 1])
def test_levels_that_need_too_many_draws_are_replaced(plan_every):
    simulator, draws = Simulator("GoToLocal"), []
    for seed in range(12):
        simulator.load(seed)
        draws.append(simulator.draws)
    limit = sorted(draws)[6]
    env = VectorEnv("GoToLocal", 1, SeedList(range(12)), plan_every=plan_every, core="compiled")
    env._core.game.rules.params[0, P_DRAWS] = limit
    step = env.reset()
    while step.active.any():
        step = env.step(step.expert_action)
    assert env.unsolvable_seeds == [seed for seed in range(12) if draws[seed] > limit]
    assert 0 < env.counters["levels_unsolvable"] < 6


def test_bad_arguments():
    with pytest.raises(ValueError, match="core: expected auto, compiled or plain, found 'fast'"):
        VectorEnv("GoToObj", 1, SeedList([0]), core="fast")
    with pytest.raises(UnknownTaskError):
        babyai.compiled.core.build_compiled_core([("GoToNowhere", 1)], None, plan_every=0, label=True, record=False)
