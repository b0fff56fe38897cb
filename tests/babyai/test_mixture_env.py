"""Several tasks as one vector environment: each part plays as it would alone, and it resumes where it was left."""

import numpy as np
import pytest

from babyai.level_seeds import SeedStreams
from babyai.mixture_env import MixtureEnv
from babyai.steps import STEP_FIELDS, VectorStep
from babyai.vector_env import VectorEnv

TASKS = {"BabyAI-GoToObjS6-v1": 3, "BabyAI-GoToRedBallNoDists-v0": 2, "BabyAI-OpenDoor-v0": 1}
SAME = [name for name, _, _ in STEP_FIELDS if name != "mission_id"]


def build_parts(seed: int = 0, **options) -> list[VectorEnv]:
    options = {"max_steps": 7, "plan_every": 2, **options}
    return [VectorEnv(task, slots, SeedStreams(seed, slots, task), **options) for task, slots in TASKS.items()]


def act(steps: int, num_envs: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 6, (steps, num_envs))


def sentences(env: VectorEnv | MixtureEnv, step: VectorStep) -> list[str]:
    return [env.missions[number] for number in step.mission_id]


def test_each_part_plays_as_it_would_alone():
    mixture, alone = MixtureEnv(build_parts()), build_parts()
    assert mixture.task_index.tolist() == [0, 0, 0, 1, 1, 2]
    assert mixture.task_ids == list(TASKS)
    shown, steps = mixture.reset(), [env.reset() for env in alone]
    ended = 0
    for actions in act(30):
        for name in SAME:
            np.testing.assert_array_equal(getattr(shown, name), np.concatenate([getattr(s, name) for s in steps]))
        expected = [text for env, step in zip(alone, steps, strict=True) for text in sentences(env, step)]
        assert sentences(mixture, shown) == expected
        told = [(episode.slot, episode.level_seed, episode.mission) for episode in shown.ended]
        starts = (0, 3, 5)
        assert told == [
            (episode.slot + start, episode.level_seed, episode.mission)
            for step, start in zip(steps, starts, strict=True)
            for episode in step.ended
        ]
        ended += len(told)
        shown = mixture.step(actions)
        steps = [env.step(part) for env, part in zip(alone, np.split(actions, [3, 5]), strict=True)]
    assert ended > 10
    assert len(set(mixture.missions)) == len(mixture.missions)  # a sentence of two tasks is one
    assert mixture.counters == {key: sum(env.counters[key] for env in alone) for key in alone[0].counters}


def test_it_goes_on_where_it_was_left():
    whole = MixtureEnv(build_parts())
    whole.reset()
    actions = act(24)
    for chosen in actions[:11]:
        left = whole.step(chosen)
    state = whole.state_dict()
    again = MixtureEnv(build_parts())
    found = again.load_state_dict(state)
    for name in ("mission_id", "view", "expert_action", "expert_valid", "episode_start", "active"):
        np.testing.assert_array_equal(getattr(found, name), getattr(left, name))
    assert again.missions == whole.missions
    for chosen in actions[11:]:
        one, other = whole.step(chosen), again.step(chosen)
        for name, _, _ in STEP_FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.ended == other.ended
    assert whole.state_dict() == again.state_dict()


def test_states_of_other_tasks_are_refused():
    state = MixtureEnv(build_parts()).state_dict()
    with pytest.raises(ValueError, match="2 tasks, found that of 3"):
        MixtureEnv(build_parts()[:2]).load_state_dict(state)
    with pytest.raises(ValueError, match="expected the state of"):
        MixtureEnv(build_parts(max_steps=9)).load_state_dict(state)


def test_seeds_are_of_run_task_and_slot():
    """Not of the other tasks: with another one beside it, a task plays the same levels."""
    first = SeedStreams(0, 2, "BabyAI-OpenDoor-v0")
    more = SeedStreams(0, 5, "BabyAI-OpenDoor-v0")
    other, run, alone = (
        SeedStreams(0, 2, "BabyAI-Unlock-v0"),
        SeedStreams(1, 2, "BabyAI-OpenDoor-v0"),
        SeedStreams(0, 2),
    )
    drawn = [[stream.next_seed(1) for _ in range(4)] for stream in (first, more, other, run, alone)]
    assert drawn[0] == drawn[1]
    assert len({tuple(seeds) for seeds in drawn}) == 4
    assert first.state_dict() == {"seed": 0, "drawn": [0, 4]}


@pytest.mark.parametrize("wrong", ["none", "twice", "facts"])
def test_what_cannot_be_joined_is_refused(wrong):
    parts = {"none": [], "twice": [build_parts()[0]] * 2, "facts": build_parts(record=True)}[wrong]
    with pytest.raises(ValueError, match="parts: expected environments"):
        MixtureEnv(parts)


def test_actions_of_another_number_are_refused():
    env = MixtureEnv(build_parts())
    env.reset()
    with pytest.raises(ValueError, match=r"actions: expected ints \(6,\)"):
        env.step(np.zeros(5, np.int64))
