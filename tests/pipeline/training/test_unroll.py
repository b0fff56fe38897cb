"""An unroll that is one compiled call against the same unroll step by step: equal bits."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from babyai.compiled import core
from babyai.compiled.catalogue import level_program
from babyai.compiled.kinds import P_DRAWS
from babyai.compiled.slots import allocate_slots
from babyai.errors import ExpertError
from babyai.vector_env import MAX_REPLACEMENTS
from pipeline.engine.compiled.engine import CompiledEngine, SteppedEngine
from pipeline.training import rollout
from pipeline.training.batch import ReplicaBatch
from pipeline.training.loop import run_update
from tests.pipeline.training.test_training import assert_same, debug_config

CASES = {
    "greedy": {"action_selection": "argmax"},
    "sampled": {"action_selection": "sample"},
    "with the expert's actions": {"action_selection": "sample", "expert_action_prob": 0.5},
    "with some environments of the student alone": {
        "action_selection": "sample",
        "expert_action_prob": 1.0,
        "solo_env_share": 0.4,
        "max_steps": 5,
    },
    "with dropout": {"expert_dropout": True},
    "one-hot": {"obs_encoding": "onehot"},
    "told the level": {"task_input": "onehot"},
    "of a trained projection": {"train_lang_proj": True, "task_id": "GoToLocal", "max_steps": 5},
    "of the baseline": {"policy": "baseline"},
    "of short episodes": {"max_steps": 3, "plan_every": 1},
    "of plans": {"task_id": "PutNextLocal", "plan_every": 1, "max_steps": 20},
    "of many missions": {"task_id": "BossLevel", "max_steps": 4},
    "of levels": {"task_id": ["GoToLocal", "OpenDoor"], "mixture": "two", "task_weights": [2, 1], "max_steps": 5},
}


def build(engine, seeds=(0,), **settings):
    configs = [debug_config(**{"task_id": "GoToObj", "num_envs": 36, "seed": seed, **settings}) for seed in seeds]
    return ReplicaBatch(configs, announce=lambda line: None, engine=engine)


@pytest.fixture
def few_draws(monkeypatch):
    """Let levels that take many random numbers be no levels."""

    def limited(task_id):
        program = level_program(task_id)
        params = program.params.copy()
        params[P_DRAWS] = 150
        return replace(program, params=params)

    monkeypatch.setattr(core, "level_program", limited)


def play(batch, updates=3):
    """Return what each run's checkpoint holds, and the episodes of each update."""
    ended = []
    for _ in range(updates):
        assert run_update(batch) == {}
        ended.append(batch.rollout.ended)
    contents = [batch.content(replica) for replica in range(len(batch.configs))]
    for content in contents:
        del content["resume"]["seconds"]
    return contents, ended


def assert_equal_runs(one, other):
    (first, ended), (second, others) = play(one), play(other)
    assert ended == others
    for a, b in zip(first, second, strict=True):
        a["config"]["torch_threads"] = b["config"]["torch_threads"]
        assert_same(a, b)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_one_call_equals_step_by_step(settings):
    assert_equal_runs(build(CompiledEngine, **settings), build(SteppedEngine, **settings))


@pytest.mark.parametrize("task_id", ["GoToLocal", ["PickupLoc", "GoToLocal"]])
@pytest.mark.parametrize("seeds", [1, 64])
@pytest.mark.usefixtures("few_draws")
def test_nor_do_replicas_and_threads_matter(task_id, seeds, monkeypatch):
    """With rejected seeds and new missions in all groups, and seeds that run out: they are met in one order."""
    monkeypatch.setattr(core, "allocate_slots", partial(allocate_slots, seeds=seeds))
    mixture = {"mixture": "two"} if isinstance(task_id, list) else {}
    settings = {"task_id": task_id, "max_steps": 3, **mixture}
    two = build(CompiledEngine, seeds=(0, 1, 2), torch_threads=2, **settings)
    monkeypatch.setattr(core, "SHARE", 4)
    one = build(SteppedEngine, seeds=(0, 1, 2), torch_threads=3, **settings)
    assert all(len(env._core._shares) == 3 for env in one.envs)
    assert_equal_runs(two, one)
    assert all(env.counters["levels_unsolvable"] > 10 and len(env.missions) > 10 for env in one.envs)
    alone = build(CompiledEngine, seeds=(1,), torch_threads=2, **settings)
    assert_equal_runs(alone, build(SteppedEngine, seeds=(1,), **settings))


def test_a_run_goes_on_from_any_update(tmp_path):
    """Also from before the first update."""
    for before in (0, 2):
        settings = {"task_id": "GoToLocal", "max_steps": 4}
        whole, begun = build(CompiledEngine, **settings), build(CompiledEngine, **settings)
        for _ in range(before):
            run_update(begun)
        path = tmp_path / "checkpoint.pt"
        begun.save(0, path)
        content = torch.load(path, weights_only=True)
        resumed = ReplicaBatch(begun.configs, resume=[content], announce=lambda line: None)
        assert_same(play(whole, 4)[0][0], play(resumed, 4 - before)[0][0])


def test_all_steps_are_counted_and_labelled():
    batch = build(CompiledEngine)
    run_update(batch)
    steps = batch.config.num_envs * batch.config.unroll_len
    assert batch.envs[0].counters["steps"] == steps == batch.rollout.expert_valid.sum()
    assert batch.envs[0].counters["levels_started"] == batch.config.num_envs + len(batch.rollout.ended[0])
    starts = batch.rollout._arrays["episode_start"]
    assert starts[:, 0].all()
    assert starts.sum() == batch.config.num_envs + sum(
        end.steps < batch.config.unroll_len for end in batch.rollout.ended[0]
    ) - sum(np.isin(batch.envs[0]._rows["taken"], 0))


def test_levels_of_which_none_can_be_solved_end_the_run():
    with pytest.raises(ExpertError, match=f"none of {MAX_REPLACEMENTS} levels in a row"):
        build(CompiledEngine, task_id="KeyInBox", plan_every=1, num_envs=2)


@pytest.mark.parametrize("engine", [CompiledEngine, SteppedEngine])
@pytest.mark.parametrize("train_lang_proj", [False, True])
def test_forgotten_missions_change_nothing(engine, train_lang_proj, monkeypatch, tmp_path):
    """Neither what is learned nor how a run goes on from a checkpoint; and of endless missions few are kept."""
    settings = {"task_id": "BossLevel", "max_steps": 4, "train_lang_proj": train_lang_proj, "num_envs": 8}
    kept = build(engine, **settings)
    (expected,), ended = play(kept, 12)
    monkeypatch.setattr(rollout, "MISSION_LIMIT", 0)
    begun = build(engine, **settings)
    (found,), others = play(begun, 12)
    assert others == ended
    known = [content["resume"]["env"].pop("missions") for content in (expected, found)]
    assert_same(expected, found)
    in_unroll = settings["num_envs"] * (begun.config.unroll_len // settings["max_steps"] + 1)
    assert len(known[1]) <= 4 * settings["num_envs"] + in_unroll < len(known[0]) / 2

    begun.save(0, tmp_path / "checkpoint.pt")
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = ReplicaBatch(begun.configs, resume=[content], announce=lambda line: None, engine=engine)
    assert_same(play(begun, 6)[0][0], play(resumed, 6)[0][0])
