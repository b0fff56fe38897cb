"""Several tasks as one vector environment: each part plays as it would alone, and it resumes where it was left."""

from collections.abc import Sequence

import numpy as np
import pytest

from babyai.errors import ExpertError
from babyai.level_seeds import SeedStreams
from babyai.steps import STEP_FIELDS, VectorStep
from babyai.vector_env import VectorEnv
from tests.fresh_seeds import take_seeds

TASKS = {"BabyAI-GoToObjS6-v1": 3, "BabyAI-GoToRedBallNoDists-v0": 2, "BabyAI-OpenDoor-v0": 1}
SAME = [name for name, _, _ in STEP_FIELDS if name != "mission_id"]


OPTIONS = {"max_steps": 7, "plan_every": 2}


def build_seeds(task: str, seed: int = 0) -> SeedStreams:
    return SeedStreams(seed, TASKS[task], task)


def build_alone(**options) -> list[VectorEnv]:
    """An environment for each task."""
    return [VectorEnv(task, slots, build_seeds(task), **OPTIONS | options) for task, slots in TASKS.items()]


def build_mixture(tasks: Sequence[str] = tuple(TASKS), **options) -> VectorEnv:
    """One environment of all tasks."""
    return VectorEnv(tasks, [TASKS[task] for task in tasks], [*map(build_seeds, tasks)], **OPTIONS | options)


def act(steps: int, num_envs: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 6, (steps, num_envs))


def sentences(env: VectorEnv, step: VectorStep) -> list[str]:
    return [env.missions[number] for number in step.mission_id]


@pytest.mark.parametrize("core", ["compiled", "plain"])
def test_each_part_plays_as_it_would_alone(core):
    mixture, alone = build_mixture(core=core), build_alone()
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
    assert [part.counters for part in mixture.parts] == [env.counters for env in alone]
    assert [part.unsolvable_seeds for part in mixture.parts] == [env.unsolvable_seeds for env in alone]
    assert mixture.counters == {key: sum(env.counters[key] for env in alone) for key in alone[0].counters}


def test_it_goes_on_where_it_was_left():
    whole = build_mixture()
    whole.reset()
    actions = act(24)
    for chosen in actions[:11]:
        left = whole.step(chosen)
    state = whole.state_dict()
    again = build_mixture()
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
    state = build_mixture().state_dict()
    with pytest.raises(ValueError, match="2 tasks, found that of 3"):
        build_mixture([*TASKS][:2]).load_state_dict(state)
    with pytest.raises(ValueError, match="1 tasks, found that of 3"):
        build_alone()[0].load_state_dict(state)
    for other in (build_mixture(max_steps=9), build_mixture([*TASKS][::-1])):
        with pytest.raises(ValueError, match=r"expected the state of \{'task_id'"):
            other.load_state_dict(state)


def test_states_of_environments_joined_from_parts_go_on():
    """Each task was an environment of its own once, whose state listed its sentences besides."""
    whole = build_mixture()
    whole.reset()
    actions = act(24)
    for chosen in actions[:11]:
        whole.step(chosen)
    state = whole.state_dict()
    older = {**state, "parts": [{**part, "missions": [f"of {part['settings']['task_id']}"]} for part in state["parts"]]}
    again = build_mixture()
    again.load_state_dict(older)
    for chosen in actions[11:]:
        whole.step(chosen)
        again.step(chosen)
    assert whole.state_dict() == again.state_dict()


def test_facts_are_those_of_each_task_alone():
    mixture, alone = build_mixture(record=True), build_alone(record=True)
    shown, steps = mixture.reset(), [env.reset() for env in alone]
    contexts = []
    for actions in act(20):
        for name, values in vars(shown.facts).items():
            expected = np.concatenate([getattr(step.facts, name) for step in steps])
            np.testing.assert_array_equal(values, expected, err_msg=name)
        assert [e.env_context for e in shown.ended] == [e.env_context for step in steps for e in step.ended]
        contexts += [e.env_context for e in shown.ended]
        shown = mixture.step(actions)
        steps = [env.step(part) for env, part in zip(alone, np.split(actions, [3, 5]), strict=True)]
    assert len({tuple(context["grid_size"]) for context in contexts}) > 1


def test_seeds_are_of_run_task_and_slot():
    """Not of the other tasks: with another one beside it, a task plays the same levels."""
    first = SeedStreams(0, 2, "BabyAI-OpenDoor-v0")
    more = SeedStreams(0, 5, "BabyAI-OpenDoor-v0")
    other, run, alone = (
        SeedStreams(0, 2, "BabyAI-Unlock-v0"),
        SeedStreams(1, 2, "BabyAI-OpenDoor-v0"),
        SeedStreams(0, 2),
    )
    drawn = [take_seeds(stream, 1, 4) for stream in (first, more, other, run, alone)]
    assert drawn[0] == drawn[1]
    assert len({tuple(seeds) for seeds in drawn}) == 4
    assert first.state_dict() == {"seed": 0, "drawn": [0, 4]}


@pytest.mark.parametrize("core", ["compiled", "plain"])
def test_a_task_that_stands_twice_is_refused(core):
    for names in (["BabyAI-OpenDoor-v0"] * 2, ["OpenDoor", "BabyAI-OpenDoor-v0"]):
        with pytest.raises(ValueError, match="task_id: expected distinct tasks"):
            VectorEnv(names, [1, 1], [SeedStreams(0, 1, "a"), SeedStreams(0, 1, "b")], core=core)


def test_lists_of_other_lengths_are_refused():
    seeds = [SeedStreams(0, 1, "a")]
    for tasks, slots, sources in (
        ([], [], []),
        (["OpenDoor", "GoToObj"], [1, 1], seeds),
        (["OpenDoor"], [1, 1], seeds),
    ):
        with pytest.raises(ValueError, match="expected tasks, and slots and levels for each of them"):
            VectorEnv(tasks, slots, sources)
    with pytest.raises(ValueError, match="expected 2 seed streams, one per slot; found 1"):
        VectorEnv(["OpenDoor"], [2], seeds)


def test_the_task_that_has_no_level_is_named():
    tasks = ["BabyAI-GoToObjS6-v1", "BabyAI-KeyInBox-v0"]
    env = VectorEnv(tasks, [1, 1], [SeedStreams(0, 1, task) for task in tasks], plan_every=1)
    with pytest.raises(ExpertError, match="BabyAI-KeyInBox-v0: the expert solves none"):
        env.reset()


def test_actions_of_another_number_are_refused():
    env = build_mixture()
    env.reset()
    with pytest.raises(ValueError, match=r"actions: expected ints \(6,\)"):
        env.step(np.zeros(5, np.int64))
