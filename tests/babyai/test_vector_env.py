"""The vector environment: auto-reset, level sources, replacement, and equality with one simulator alone."""

import os
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import babyai.compiled.core
import babyai.plain_core
import babyai.vector_env
from babyai.compiled.slots import allocate_slots
from babyai.errors import ExpertError, LevelError
from babyai.facts import FAILURE, RUNNING, SUCCESS
from babyai.level_seeds import SeedList, SeedStreams, evaluation_seeds
from babyai.plain_world import Expert, Simulator, plan_length
from babyai.vector_env import VectorEnv, VectorStep
from tests.babyai.played_facts import follow_expert
from tests.babyai.vector_steps import ARRAYS, assert_same
from tests.fresh_seeds import take_seeds

# Levels on which the bot replans for ever at some point, found by playing seeds 0..149
LOOPING_TASK, LOOPING_SEEDS = "GoToImpUnlock", [6, 14]


def play_out(env: VectorEnv, act=follow_expert, limit: int = 20_000) -> list:
    """Plays until no slot is active; the episodes in the order in which they ended."""
    step, ended = env.reset(), []
    while step.active.any():
        step = env.step(act(step))
        ended += step.ended
        limit -= 1
        assert limit > 0
    return ended


def test_auto_reset_sequence():
    """SAME_STEP: the step that ends an episode shows the next level's first observation and label."""
    seeds = [0, 1, 2]
    env = VectorEnv("GoToObj", 1, SeedList(seeds), plan_every=1)
    simulator = Simulator("GoToObj")
    expert = Expert(simulator)
    view = np.zeros((7, 7, 3), np.uint8)
    step = env.reset()
    for k, seed in enumerate(seeds):
        simulator.load(seed)
        expert.reset()
        action, outcome = None, RUNNING
        while outcome == RUNNING:
            label = expert.suggest(action)
            direction, carrying = simulator.observe(view)
            np.testing.assert_array_equal(step.view[0], view)
            assert (step.direction[0], step.carrying[0]) == (direction, carrying)
            assert (step.expert_action[0], step.expert_valid[0]) == (label, True)
            assert step.episode_start[0] == (action is None)
            assert env.missions[step.mission_id[0]] == simulator.mission
            assert step.active[0]
            action = label
            reward, outcome = simulator.step(action)
            step = env.step(np.array([action]))
            assert step.reward[0] == np.float32(reward)
            assert step.outcome[0] == outcome
        (end,) = step.ended
        assert (end.slot, end.level_seed, end.outcome) == (0, seed, SUCCESS)
        assert (end.steps, end.reward, end.mission) == (simulator.steps, reward, simulator.mission)
        assert end.expert_steps == simulator.steps
        assert step.active[0] == step.episode_start[0] == (k < 2)
    for name in ARRAYS:
        if name not in ("reward", "outcome"):
            assert not getattr(step, name).any(), name
    # Inactive slots: any action, nothing happens
    after = env.step(np.array([99]))
    assert after.ended == () and not any(getattr(after, name).any() for name in ARRAYS)
    assert env.counters == {
        "levels_started": 3,
        "levels_unsolvable": 0,
        "steps": sum(plan_length(simulator, seed) for seed in seeds),
        "steps_unlabelled": 0,
    }


def test_slots_equal_single_environments():
    """N slots side by side show what each shows alone."""
    num_envs = 4
    together = VectorEnv("UnlockPickup", num_envs, SeedStreams(5, num_envs), max_steps=30)
    singles = []
    for slot in range(num_envs):
        seeds = take_seeds(SeedStreams(5, num_envs), slot, 6)
        singles.append(VectorEnv("UnlockPickup", 1, SeedList(seeds), max_steps=30))
    steps, step = [env.reset() for env in singles], together.reset()
    rng = np.random.default_rng(0)
    for _ in range(90):
        for slot, single in enumerate(steps):
            for name in ARRAYS:
                if name != "mission_id":
                    np.testing.assert_array_equal(getattr(step, name)[slot], getattr(single, name)[0], err_msg=name)
            single_mission = singles[slot].missions[single.mission_id[0]]
            assert together.missions[step.mission_id[slot]] == single_mission
        actions = np.where(rng.random(num_envs) < 0.3, rng.integers(7, size=num_envs), follow_expert(step))
        step = together.step(actions)
        steps = [env.step(actions[slot : slot + 1]) for slot, env in enumerate(singles)]
    assert together.counters["levels_started"] > num_envs


@pytest.mark.parametrize("num_envs", [1, 3, 7])
def test_seed_list_plays_each_level_once(num_envs):
    """The result per level seed does not depend on the number of slots."""
    seeds = evaluation_seeds(0, 12)
    ended = play_out(VectorEnv("OpenDoorsOrderN2Debug", num_envs, SeedList(seeds)), wayward_expert)
    assert sorted(end.level_seed for end in ended) == sorted(seeds)
    alone = play_out(VectorEnv("OpenDoorsOrderN2Debug", 1, SeedList(seeds)), wayward_expert)
    assert [end.level_seed for end in alone] == seeds
    facts = {e.level_seed: (e.outcome, e.steps, e.reward, e.mission, e.expert_steps) for e in alone}
    assert {e.level_seed: (e.outcome, e.steps, e.reward, e.mission, e.expert_steps) for e in ended} == facts
    assert len({fact[0] for fact in facts.values()}) > 1  # something to compare


def wayward_expert(step: VectorStep) -> np.ndarray:
    """The expert, except in some states: depends on the slot's own observation only."""
    mark = (step.view.reshape(len(step.view), -1).astype(np.int64) * np.arange(147)).sum(1)
    return np.where(step.expert_valid & (mark % 8 > 0), step.expert_action, mark % 5)


def test_success_needs_a_reward():
    """OpenDoorsOrderN2Debug under a random agent: many episodes terminate, few of them successfully."""
    env = VectorEnv("OpenDoorsOrderN2Debug", 8, SeedStreams(0, 8), label=False)
    rng = np.random.default_rng(0)
    env.reset()
    ended = [end for _ in range(400) for end in env.step(rng.integers(7, size=8)).ended]
    outcomes = [end.outcome for end in ended]
    assert all((end.reward > 0) == (end.outcome == SUCCESS) for end in ended)
    assert outcomes.count(FAILURE) > outcomes.count(SUCCESS) > 0


def test_unsolvable_levels_are_counted_and_replaced():
    """With a plan for every level, those on which the bot loops are skipped; without, they are played unlabelled."""
    seeds = [0, *LOOPING_SEEDS, 1]
    env = VectorEnv(LOOPING_TASK, 2, SeedList(seeds), plan_every=1)
    ended = play_out(env)
    assert sorted(end.level_seed for end in ended) == [0, 1]
    assert all(end.outcome == SUCCESS and end.expert_steps == end.steps for end in ended)
    assert env.unsolvable_seeds == LOOPING_SEEDS
    assert env.counters["levels_unsolvable"] == 2 and env.counters["levels_started"] == 2
    assert env.counters["steps_unlabelled"] == 0

    env = VectorEnv(LOOPING_TASK, 1, SeedList(LOOPING_SEEDS[:1]), max_steps=300)
    (end,) = play_out(env)
    assert (end.level_seed, end.expert_steps) == (LOOPING_SEEDS[0], None)
    assert env.counters["steps_unlabelled"] > 0 and env.unsolvable_seeds == []


def test_first_observation_give_up_replaces_the_level():
    """KeyInBox: where the locked door is seen at once the bot gives up at once."""
    env = VectorEnv("KeyInBox", 1, SeedList(range(12)), max_steps=40)
    ended = play_out(env)
    assert sorted([end.level_seed for end in ended] + env.unsolvable_seeds) == list(range(12))
    assert ended and env.unsolvable_seeds
    simulator = Simulator("KeyInBox")
    expert = Expert(simulator)
    for seed in range(12):
        simulator.load(seed)
        expert.reset()
        assert (expert.suggest(None) is None) == (seed in env.unsolvable_seeds)


def test_hopeless_task_is_an_error(monkeypatch):
    monkeypatch.setattr(babyai.vector_env, "MAX_REPLACEMENTS", 20)
    env = VectorEnv("KeyInBox", 1, SeedStreams(0, 1), plan_every=1)
    with pytest.raises(ExpertError, match=r"KeyInBox-v0: .* 20 levels in a row"):
        env.reset()
    assert env.counters["levels_unsolvable"] == 20


def test_levels_that_cannot_be_generated_are_replaced(monkeypatch):
    load = Simulator.load

    def load_all_but_one(simulator, seed):
        if seed == 1:
            raise LevelError("no such level")
        load(simulator, seed)

    monkeypatch.setattr(Simulator, "load", load_all_but_one)
    for plan_every in (0, 1):
        env = VectorEnv("GoToObj", 1, SeedList([0, 1, 2]), plan_every=plan_every, core="plain")
        assert [end.level_seed for end in play_out(env)] == [0, 2]
        assert env.unsolvable_seeds == [1]


def test_plan_every():
    env = VectorEnv("GoToObj", 2, SeedStreams(1, 2), plan_every=3)
    step, planned = env.reset(), [[], []]
    for _ in range(120):
        step = env.step(follow_expert(step))
        for end in step.ended:
            planned[end.slot].append(end.expert_steps is not None)
            assert end.expert_steps in (None, end.steps)
    for flags in planned:
        assert len(flags) > 6
        assert flags == [k % 3 == 0 for k in range(len(flags))]


def test_without_labels():
    env = VectorEnv("GoToObj", 2, SeedStreams(1, 2), label=False)
    env.reset()
    for _ in range(10):
        step = env.step([2, 0])
        assert not step.expert_valid.any() and not step.expert_action.any()
    assert env.counters["steps_unlabelled"] == 0


def test_arrays_are_fresh():
    env = VectorEnv("GoToObj", 2, SeedStreams(0, 2))
    first = env.reset()
    copies = {name: getattr(first, name).copy() for name in ARRAYS}
    second = env.step([0, 0])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), copies[name])
        assert not np.shares_memory(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.view, second.view)


def test_seed_streams_depend_on_seed_and_slot_only():
    def take(seed, num_envs, slot, n=150):
        return take_seeds(SeedStreams(seed, num_envs), slot, n)

    assert take(3, 1, 0) == take(3, 16, 0)
    assert take(3, 8, 5) == take(3, 16, 5)
    lists = [take(3, 4, 0), take(3, 4, 1), take(4, 4, 0)]
    assert len({tuple(seeds) for seeds in lists}) == 3
    assert all(0 <= seed < 2**31 and type(seed) is int for seeds in lists for seed in seeds)
    # The stream is the generator's own sequence, whatever the block size
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=(1,))))
    assert lists[1] == [int(generator.integers(0, 2**31)) for _ in range(150)]


def test_evaluation_seeds():
    seeds = evaluation_seeds(0, 1000)
    assert len(set(seeds)) == 1000
    assert all(2**31 <= seed < 2**32 and type(seed) is int for seed in seeds)  # where no training stream goes
    assert evaluation_seeds(0, 100) == seeds[:100]
    assert evaluation_seeds(1, 100) != seeds[:100]
    assert evaluation_seeds(0, 0) == []


@pytest.mark.parametrize(
    "actions",
    [[0], [0, 1, 2], [[0, 1]], [0, 7], [-1, 0], [0.0, 1.0], np.array([True, False]), 3],
)
def test_bad_actions(actions):
    env = VectorEnv("GoToObj", 2, SeedStreams(0, 2))
    env.reset()
    with pytest.raises(ValueError, match="actions"):
        env.step(actions)
    assert env.counters["steps"] == 0


def test_bad_arguments():
    for wrong, message in (
        ({"num_envs": 0}, "num_envs"),
        ({"num_envs": 2.0}, "num_envs: expected whole numbers"),
        ({"plan_every": -1}, "plan_every"),
        ({"max_steps": 0}, "max_steps"),
        ({"threads": 0}, "threads"),
        ({"levels": SeedStreams(0, 3)}, "2 seed streams"),
        ({"task_id": "GoToNowhere"}, "GoToNowhere"),
    ):
        arguments = {"task_id": "GoToObj", "num_envs": 2, "levels": SeedStreams(0, 2), **wrong}
        with pytest.raises(ValueError, match=message):
            VectorEnv(**arguments)
    for seeds in ([], [3, -1], [2**63]):
        with pytest.raises(ValueError, match="level seeds"):
            SeedList(seeds)
    assert VectorEnv("GoToObj", 1, SeedList([2**63 - 1])).reset().active.all()
    with pytest.raises(ValueError, match="num_envs"):
        SeedStreams(0, 0)
    step = VectorStep.zeros(2)
    arrays = {name: getattr(step, name) for name in ARRAYS}
    with pytest.raises(ValueError, match=r"reward: expected float32 \(2,\)"):
        VectorStep(**{**arrays, "reward": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="view: expected uint8"):
        VectorStep(**{**arrays, "view": step.view.astype(np.float32)})


def test_close_leaves_a_usable_environment():
    env = VectorEnv("GoToObj", 1, SeedStreams(0, 1))
    env.reset()
    env.close()
    assert not env.step([0]).active.any()
    assert env.reset().active.all()


@pytest.mark.parametrize("record", [False, True])
def test_threads_change_nothing(record, monkeypatch):
    """Some levels are rejected, most missions are new, and slots run out of seeds at different times."""
    monkeypatch.setattr(babyai.compiled.core, "SHARE", 4)
    monkeypatch.setattr(babyai.compiled.core, "allocate_slots", partial(allocate_slots, seeds=2))
    tasks, slots = ["SynthS5R2", "GoToObj"], [19, 8]

    def build(threads):
        streams = [SeedStreams(0, count, task) for task, count in zip(tasks, slots, strict=True)]
        return VectorEnv(tasks, slots, streams, max_steps=7, plan_every=2, record=record, threads=threads)

    alone, shared = build(1), build(5)
    assert alone._core._shares == [(0, 27)]
    assert shared._core._shares == [(0, 5), (5, 10), (10, 16), (16, 21), (21, 27)]
    expected, step = alone.reset(), shared.reset()
    assert_same(expected, step)
    for t in range(150):
        actions = np.where(np.arange(27) % 3 == t % 3, follow_expert(expected), t % 7)
        expected, step = alone.step(actions), shared.step(actions)
        assert_same(expected, step)
        if record:
            for kind in fields(expected.facts):
                np.testing.assert_array_equal(getattr(expected.facts, kind.name), getattr(step.facts, kind.name))
    assert alone.missions == shared.missions
    assert alone.counters == shared.counters
    assert alone.counters["levels_unsolvable"] > 0
    assert alone.state_dict() == shared.state_dict()


def test_few_slots_are_played_by_one_thread():
    for slots, threads in ((511, 1), (512, 2), (600, 2), (4096, 8)):
        assert len(VectorEnv("GoToObj", slots, SeedStreams(0, slots), threads=8)._core._shares) == threads


PLAYED = """
from babyai.level_seeds import SeedStreams
from babyai.vector_env import VectorEnv
env = VectorEnv("GoToObj", 1, SeedStreams(0, 1), plan_every=1)
step, ended = env.reset(), []
while len(ended) < 2:
    step = env.step(step.expert_action)
    ended += step.ended
print(env.core, ended)
"""


def test_nothing_need_be_compiled():
    """Whoever looks for an error in the world lets Python play it."""
    told = [
        subprocess.run(
            [sys.executable, "-c", PLAYED],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"NUMBA_DISABLE_JIT": flag},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in ("0", "1")
    ]
    assert told[0] == told[1]
    assert told[0].startswith("compiled [EpisodeEnd(")
