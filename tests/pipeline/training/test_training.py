"""The training loop from outside: determinism, resuming, learning, and what a run writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from babyai.facts import SUCCESS
from babyai.level_seeds import evaluation_seeds
from pipeline.checkpoints import load_policy, read_checkpoint
from pipeline.command.cli import parse_command
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import CompiledEngine, SteppedEngine
from pipeline.engine.torch_engine import TorchEngine
from pipeline.evaluation.play import evaluate
from pipeline.training.batch import ReplicaBatch
from pipeline.training.levels import describe_unaided, solo_slots
from pipeline.training.loop import run_update

ROOT = Path(__file__).parents[3]
DEBUG = str(ROOT / "configs" / "debug.yaml")

PLAIN = {"policy": "moe"}
EVERYTHING_ON = {
    "policy": "mop",
    "expert_norm": "layer",
    "action_selection": "sample",
    "expert_action_prob": 0.5,
    "expert_action_decay": 8,
    "expert_dropout": True,
    "expert_dropout_gamma": 0.6,
    "train_lang_proj": True,
    "normalize_lpc": True,
    "grad_clip": 1.0,
    "plan_every": 1,
    "task_id": "BabyAI-GoToImpUnlock-v0",  # has levels that the bot cannot solve
    "max_steps": 20,
}
BASELINE = {"policy": "gru"}
EMBEDDED = {**BASELINE, "obs_encoding": "embedding"}


def debug_config(**changes) -> TrainConfig:
    config, _ = parse_command("", TrainConfig, ["--config", DEBUG])
    return replace(config, **changes)


def train(config: TrainConfig, updates: int, resume: dict | None = None) -> ReplicaBatch:
    batch = ReplicaBatch([config], announce=lambda line: None, resume=None if resume is None else [resume])
    while batch.update < updates:
        run_update(batch)
    return batch


def weights(batch: ReplicaBatch) -> dict[str, torch.Tensor]:
    projection = {f"lang_proj.{key}": value for key, value in batch.projections[0].state_dict().items()}
    return {**batch.policies[0].state_dict(), **projection}


def assert_bit_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert different == []


def assert_same(first, second, where: str = "checkpoint") -> None:
    """Compare nested contents of checkpoints, tensors bit by bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert first == second, where


@pytest.mark.parametrize(
    "changes",
    [PLAIN, EVERYTHING_ON, BASELINE, {**PLAIN, "obs_encoding": "onehot"}, EMBEDDED],
    ids=["moe", "mop", "gru", "moe, onehot", "gru, embedding"],
)
def test_one_seed_fixes_every_bit_and_another_seed_differs(changes):
    first = train(debug_config(**changes), 4)
    torch.manual_seed(12345)  # the global generator must play no part
    again = train(debug_config(**changes), 4)
    other = train(debug_config(seed=1, **changes), 4)
    assert_bit_equal(weights(first), weights(again))
    assert not torch.equal(weights(first)["head.weight"], weights(other)["head.weight"])
    # Another seed plays other levels, not only other weights on the same ones.
    assert first.envs[0].state_dict() == again.envs[0].state_dict()
    assert first.envs[0].state_dict() != other.envs[0].state_dict()


@pytest.mark.parametrize(
    "changes",
    [PLAIN, EVERYTHING_ON, BASELINE, {**EVERYTHING_ON, "obs_encoding": "onehot"}, EMBEDDED],
    ids=["moe", "mop", "gru", "mop, onehot", "gru, embedding"],
)
def test_a_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_one(changes, tmp_path):
    config = debug_config(**changes)
    whole = train(config, 9)
    train(config, 4).save(0, tmp_path / "half.pt")
    resumed = train(config, 9, resume=read_checkpoint(tmp_path / "half.pt"))
    assert_bit_equal(weights(whole), weights(resumed))
    assert whole.envs[0].state_dict() == resumed.envs[0].state_dict()
    ends = []
    for name, batch in {"whole": whole, "resumed": resumed}.items():
        batch.save(0, tmp_path / f"{name}.pt")
        ends.append(read_checkpoint(tmp_path / f"{name}.pt"))
        ends[-1]["resume"].pop("seconds")
    assert_same(*ends)


@pytest.mark.parametrize("saved", [8, 10])
def test_a_line_of_metrics_is_of_all_updates_since_the_last_whatever_was_resumed(saved, tmp_path):
    config = debug_config(task_id=["GoToObjS4", "GoToObj"], mixture="two")
    whole, first = train(config, 4), train(config, 4)
    for batch in (whole, first):
        batch.take_metrics()
    for _ in range(saved - 4):
        run_update(first)
    first.save(0, tmp_path / "half.pt")
    resumed = ReplicaBatch([config], resume=[read_checkpoint(tmp_path / "half.pt")], announce=lambda line: None)
    for batch, done in ((whole, 4), (resumed, saved)):
        for _ in range(11 - done):
            run_update(batch)
    ((one,), (other,)) = whole.take_metrics(), resumed.take_metrics()
    assert {k: v for k, v in one.items() if k[:5] != "time/"} == {k: v for k, v in other.items() if k[:5] != "time/"}
    assert other["time/env_steps_per_second"] > 0


def test_the_debug_task_is_learned():
    config = debug_config()
    untrained = train(config, 0).evaluate(100)[0].metrics
    trained = train(config, config.num_updates).evaluate(100)[0].metrics
    assert untrained["success_rate"] < 0.2
    assert trained["success_rate"] > 0.9


def test_a_price_on_complexity_lowers_it():
    free = train(debug_config(lpc_alpha=0.0, expert_hidden_sizes=[[0, 16]]), 15).take_metrics()[0]
    dear = train(debug_config(lpc_alpha=1.0, expert_hidden_sizes=[[0, 16]]), 15).take_metrics()[0]
    assert dear["train/lpc"] < free["train/lpc"]


def test_evaluation_leaves_training_untouched():
    config = debug_config()
    plain, evaluated = train(config, 2), train(config, 2)
    evaluated.evaluate(5)
    for batch in (plain, evaluated):
        run_update(batch)
    assert_bit_equal(weights(plain), weights(evaluated))


def test_unsolvable_levels_are_counted_and_replaced_in_training():
    batch = train(debug_config(**EVERYTHING_ON), 3)
    assert batch.envs[0].counters["levels_unsolvable"] > 0
    assert batch.take_metrics()[0]["rollout/unsolvable_levels"] == batch.envs[0].counters["levels_unsolvable"]


def test_a_diverging_run_stops_with_advice_and_keeps_its_weights():
    batch = ReplicaBatch([debug_config(lr=1e30)], announce=lambda line: None)
    for _ in range(20):
        before = {name: value.clone() for name, value in weights(batch).items()}
        if failures := run_update(batch):
            break
    assert "Lower lr" in failures[0]
    assert_bit_equal(weights(batch), before)


def test_success_rate_is_over_the_episodes_that_have_really_ended():
    batch = train(debug_config(task_id="BabyAI-GoToObj-v0", num_envs=2, window=100), 5)
    metrics = batch.take_metrics()[0]
    ended = metrics["rollout/window_episodes"]
    assert 0 < ended < 100
    rates = [metrics[f"rollout/{name}_rate"] for name in ("success", "failure", "timeout")]
    assert sum(rates) == pytest.approx(1.0)
    assert metrics["rollout/success_rate"] * ended == pytest.approx(round(metrics["rollout/success_rate"] * ended))


def test_where_the_expert_acts_success_is_that_of_the_student_alone():
    shared = {"task_id": "BabyAI-GoToObjS4-v0", "num_envs": 4, "lr": 1e-9, "max_steps": 9, "expert_action_prob": 1.0}
    shared["action_selection"] = "sample"
    batch = ReplicaBatch([debug_config(**shared, solo_env_share=0.5)], announce=lambda line: None)
    ended = []
    for _ in range(8):
        run_update(batch)
        ended += batch.rollout.ended[0]
    alone, aided = ([end.outcome for end in ended if end.slot % 2 == odd] for odd in (0, 1))
    metrics = batch.take_metrics()[0]
    assert set(aided) == {SUCCESS}
    assert len(set(alone)) > 1
    assert metrics["rollout/window_episodes"] == len(alone)
    assert metrics["rollout/success_rate"] == alone.count(SUCCESS) / len(alone)
    assert metrics["rollout/episodes_total"] == len(ended)
    assert metrics["train/labelled_fraction"] == 0.5
    everywhere = train(debug_config(**shared), 8).take_metrics()[0]
    assert everywhere["rollout/success_rate"] == everywhere["train/labelled_fraction"] == 1.0


@pytest.mark.parametrize("engine", [CompiledEngine, SteppedEngine, TorchEngine])
def test_steps_of_environments_of_the_student_alone_are_no_labels(engine):
    configs = [debug_config(num_envs=32, seed=seed, expert_action_prob=0.5, solo_env_share=0.25) for seed in (0, 1)]
    batch = ReplicaBatch(configs, announce=lambda line: None, engine=engine)
    for _ in range(2):
        run_update(batch)
        labels = batch.rollout.expert_valid.reshape(2, -1, batch.config.unroll_len, batch.rollout._split[2])
        by_env = labels.transpose(2, 3).flatten(1, 2)  # (R, N, T)
        assert not by_env[:, ::4].any()
        assert by_env[:, np.arange(32) % 4 > 0].all()


def test_levels_whose_success_nobody_can_tell_are_named():
    mixture = {"task_id": ["GoToObj", "OpenDoor"], "mixture": "two", "task_weights": [1, 3], "num_envs": 4}
    told = describe_unaided(debug_config(expert_action_prob=0.5, solo_env_share=0.1, **mixture))
    assert told.startswith("success while training is not known of GoToObj: ")
    for solved in ({"solo_env_share": 0.0}, {"expert_action_prob": 0.0}, {"num_envs": 8}):
        changes = {"expert_action_prob": 0.5, "solo_env_share": 0.1, **mixture, **solved}
        assert describe_unaided(debug_config(**changes)) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_envs": 64, "solo_env_share": 0.0625}, [0, 16, 32, 48]),
        ({"num_envs": 5, "solo_env_share": 0.4}, [0, 2]),
        ({"num_envs": 10, "solo_env_share": 0.01}, [0]),
        ({"num_envs": 2, "solo_env_share": 0.99}, [0]),
        ({"num_envs": 1, "solo_env_share": 0.9}, []),
        ({"num_envs": 6, "solo_env_share": 0.5, "task_id": ["GoToObj", "OpenDoor"], "mixture": "two"}, [0, 1, 3, 4]),
        ({"num_envs": 4, "solo_env_share": 0.0}, None),
        ({"num_envs": 4, "solo_env_share": 0.5, "expert_action_prob": 0.0}, None),
    ],
)
def test_environments_of_the_student_alone_are_spread_over_those_of_each_level(changes, expected):
    found = solo_slots(debug_config(**{"expert_action_prob": 0.5, **changes}))
    assert (found if found is None else found.nonzero()[0].tolist()) == expected


def test_losses_are_logged_apart_from_the_penalty():
    batch = train(debug_config(lpc_alpha=0.01), 3)
    metrics = batch.take_metrics()[0]
    assert metrics["train/penalty"] == pytest.approx(0.01 * metrics["train/lpc"], rel=1e-5)
    assert metrics["train/total_loss"] == pytest.approx(metrics["train/task_loss"] + metrics["train/penalty"], rel=1e-5)
    assert metrics["train/lpc"] == pytest.approx(metrics["train/lpc/layer_0"], rel=1e-5)


def test_a_checkpoint_holds_what_it_takes_to_act_elsewhere(tmp_path):
    batch = train(debug_config(), 3)
    batch.save(0, tmp_path / "c.pt")
    content = read_checkpoint(tmp_path / "c.pt")
    assert content["config"]["num_actions"] == 7
    assert content["config"]["update"] == content["update"] == 3
    assert content["lang_encoder"]["kind"] == "builtin"
    loaded = load_policy(tmp_path / "c.pt")
    seeds = evaluation_seeds(0, 6)
    there = evaluate(loaded.policy, batch.encoder, loaded.projection, loaded.config.task_id, seeds)
    here = evaluate(batch.policies[0], batch.encoder, batch.projections[0], batch.config.task_id, seeds)
    assert there.metrics == here.metrics
    json.dumps(content["config"])  # plain types only
