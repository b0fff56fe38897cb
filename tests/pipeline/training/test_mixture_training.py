"""One policy trained on many levels: its bits, its loss by level, its metrics, its files, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixture_of_experts import ENCODINGS
from pipeline.checkpoints import load_policy, read_checkpoint, save_checkpoint
from pipeline.engine.compiled.engine import CompiledEngine, SteppedEngine
from pipeline.engine.packed import pack_replicas
from pipeline.engine.torch_engine import TorchEngine
from pipeline.policies import build_policy, fix_level
from pipeline.tracking import is_metric
from pipeline.training.batch import ReplicaBatch
from pipeline.training.levels import Levels
from pipeline.training.loop import run_update
from pipeline.training.losses import Price, StepLevels, compute_losses
from tests.pipeline.training.test_training import (
    BASELINE,
    EVERYTHING_ON,
    PLAIN,
    assert_bit_equal,
    assert_same,
    debug_config,
    train,
    weights,
)
from tests.policies import draw_codes

LEVELS = ["BabyAI-GoToObjS6-v1", "BabyAI-GoToRedBallNoDists-v0", "BabyAI-OpenDoor-v0"]
MIXTURE = {"task_id": LEVELS, "mixture": "three", "task_weights": [2, 1, 1], "task_input": "onehot"}
ALL_ON = {**EVERYTHING_ON, "task_id": [*LEVELS[:2], "BabyAI-GoToImpUnlock-v0"], "mixture": "three"}
KINDS = pytest.mark.parametrize(
    "changes", [{**PLAIN, **MIXTURE}, ALL_ON, {**BASELINE, **MIXTURE}], ids=["moe", "mop", "gru"]
)


def saved(tmp_path: Path, batch: ReplicaBatch, replica: int = 0) -> dict:
    """Return a run's checkpoint as it is read back, without how long the run took."""
    batch.save(replica, tmp_path / "checkpoint.pt")
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    content["resume"].pop("seconds")
    return content


# ----------------------------------------------------------------------------------------------------------- bit by bit


@pytest.mark.parametrize("changes", [PLAIN, {**EVERYTHING_ON, "task_input": "onehot"}], ids=["moe", "mop"])
def test_a_list_of_one_trains_the_bits_of_the_single_level(changes):
    single = train(debug_config(**changes), 4)
    listed = train(debug_config(**{**changes, "task_id": [single.config.task_id], "mixture": "one"}), 4)
    assert_bit_equal(weights(single), weights(listed))
    assert single.envs[0].state_dict() == listed.envs[0].state_dict()
    ours, theirs = single.take_metrics()[0], listed.take_metrics()[0]
    assert {k: v for k, v in ours.items() if k[:5] != "time/"} == {k: v for k, v in theirs.items() if k[:5] != "time/"}


@KINDS
def test_a_resumed_mixture_ends_with_the_same_bits(changes, tmp_path):
    config = debug_config(**changes)
    whole = train(config, 7)
    train(config, 3).save(0, tmp_path / "half.pt")
    resumed = train(config, 7, resume=read_checkpoint(tmp_path / "half.pt"))
    assert_same(saved(tmp_path, whole), saved(tmp_path, resumed))
    assert len(whole.envs[0].state_dict()["parts"]) == 3


@KINDS
def test_runs_trained_together_end_with_the_bits_each_has_alone(changes, tmp_path):
    configs = [debug_config(**changes, seed=seed, lpc_alpha=alpha, trial=2) for seed, alpha in ((3, 0.0), (0, 1e-2))]
    together = ReplicaBatch(configs, announce=lambda line: None)
    alone = [train(config, 4) for config in configs]
    while together.update < 4:
        run_update(together)
    rows = together.take_metrics()
    for replica, single in enumerate(alone):
        expected = single.take_metrics()[0]
        assert_same(saved(tmp_path, together, replica), saved(tmp_path, single))
        assert {k: v for k, v in rows[replica].items() if k[:5] != "time/"} == {
            k: v for k, v in expected.items() if k[:5] != "time/"
        }


def test_groups_and_threads_keep_the_bits(tmp_path):
    """More environments than one group has: levels then begin and end within groups."""
    config = debug_config(**MIXTURE, num_envs=36, normalize_lpc=True)
    one, two = saved(tmp_path, train(config, 3)), saved(tmp_path, train(replace(config, torch_threads=2), 3))
    two["config"]["torch_threads"] = 1
    assert_same(one, two)


@pytest.mark.parametrize("denominator", ["detached", "paper"])
def test_both_engines_learn_the_same(denominator):
    """Torch's, which GPUs use, does not divide environments into groups."""
    config = debug_config(**MIXTURE, num_envs=36, normalize_lpc=True, lpc_alpha=1e-2, lpc_denominator=denominator)
    found = []
    for engine in (CompiledEngine, TorchEngine):
        batch = ReplicaBatch([config], announce=lambda line: None, engine=engine)
        run_update(batch)
        found.append((weights(batch), batch.take_metrics()[0]))
    for name, value in found[0][0].items():
        torch.testing.assert_close(value, found[1][0][name], rtol=1e-3, atol=1e-4, msg=name)
    for key in ("train/penalty", "train/task_loss/OpenDoor", "train/lpc/GoToObjS6-v1", "train/grad_norm"):
        assert found[0][1][key] == pytest.approx(found[1][1][key], rel=1e-4), key


def test_steps_are_shared_exactly():
    batch = train(debug_config(**{**MIXTURE, "num_envs": 10}), 3)
    steps = [part.counters["steps"] for part in batch.envs[0].parts]
    assert steps == [slots * 3 * batch.config.unroll_len for slots in (5, 3, 2)]
    assert sum(steps) == batch.env_steps


# ------------------------------------------------------------------------------------------------------------- the loss


def hand_made(**options):
    """Two steps of each of two levels, probabilities (3/4, 1/4); level 0 has labels 0, 0, level 1 has 1 and none."""
    logits = torch.tensor([0.75, 0.25], dtype=torch.float64).log().expand(4, 1, 2).clone().requires_grad_()
    labels, valid = torch.tensor([[0], [0], [1], [0]]), torch.tensor([[True], [True], [True], [False]])
    routing = [torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]], [[1.0, 0.0]], [[0.75, 0.25]]], dtype=torch.float64)]
    levels = StepLevels(torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool(), torch.tensor([0.5, 0.5]))
    return logits, compute_losses(logits, labels, valid, routing, [[0, 4]], Price(**options), levels)


TASKS = [np.log(4 / 3), np.log(4)]  # LPC of the levels: (8 + 16) / 2 and (0 + 4) / 2


@pytest.mark.parametrize("denominator", ["detached", "paper"])
def test_each_level_has_a_denominator_of_its_own(denominator):
    logits, terms = hand_made(alpha=0.01, normalize=True, denominator=denominator, eps=0.5)
    assert terms.by_level.task.tolist() == pytest.approx(TASKS)
    assert terms.by_level.lpc.tolist() == pytest.approx([12.0, 2.0])
    assert terms.by_level.accuracy.tolist() == pytest.approx([1.0, 0.0])
    assert terms.by_level.count.tolist() == [2, 1]
    paid = [0.01 * lpc / (task + 0.5) for lpc, task in zip((12, 2), TASKS, strict=True)]
    assert terms.penalty.item() == pytest.approx(0.5 * paid[0] + 0.5 * paid[1])
    pulls = terms.penalty.requires_grad and bool(torch.autograd.grad(terms.penalty, logits)[0].any())
    assert pulls == (denominator == "paper")


def test_equation_1_is_what_it_is():
    assert float(hand_made(alpha=0.01)[1].penalty) == pytest.approx(0.01 * 7.0)


def test_a_level_without_labels_pays_nothing():
    logits, labels = torch.zeros(4, 1, 2), torch.zeros(4, 1, dtype=torch.int64)
    valid = torch.tensor([[True], [True], [False], [False]])
    levels = StepLevels(torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool(), torch.tensor([0.5, 0.5]))
    price = Price(alpha=torch.tensor(1.0), normalize=True)
    terms = compute_losses(logits, labels, valid, [torch.full((4, 1, 1), 1.0)], [[2]], price, levels)
    assert float(terms.penalty) == pytest.approx(0.5 * 4 / (np.log(2) + 0.01))
    assert terms.by_level.task[1] == 0


def test_one_level_in_the_sum_is_equation_2():
    generator = torch.Generator().manual_seed(0)
    logits, routing = torch.randn(5, 3, 7, generator=generator), torch.rand(5, 3, 2, generator=generator)
    labels, valid = torch.randint(7, (5, 3), generator=generator), torch.rand(5, 3, generator=generator) > 0.3
    levels = StepLevels(torch.ones(1, 15, dtype=torch.bool), torch.ones(1))
    price = Price(alpha=0.1, normalize=True)
    plain = compute_losses(logits, labels, valid, [routing], [[0, 3]], price)
    listed = compute_losses(logits, labels, valid, [routing], [[0, 3]], price, levels)
    torch.testing.assert_close(plain.penalty, listed.penalty)


def test_steps_of_levels_stand_where_the_rollout_puts_them(monkeypatch):
    """Labels are replaced by the number of the level that the slot plays."""
    config = debug_config(**MIXTURE, num_envs=36)
    batch = ReplicaBatch([config], announce=lambda line: None, engine=SteppedEngine)
    env = batch.envs[0]
    step = env.step

    def label(actions):
        shown = step(actions)
        shown.expert_action[:] = env.task_index
        return shown

    monkeypatch.setattr(env, "step", label)
    batch.rollout.current[0].expert_action[:] = env.task_index
    batch.rollout.collect(batch.acting())
    member = batch.step_levels.member
    assert torch.equal(batch.rollout.expert_action[0].flatten(), member.int().argmax(0))
    assert torch.equal(member.sum(0), torch.ones(36 * batch.config.unroll_len, dtype=torch.int64))
    assert batch.step_levels.shares.tolist() == [0.5, 0.25, 0.25]
    told = batch.rollout._inputs[..., 152:155].argmax(-1)
    assert torch.equal(told.flatten(), batch.rollout.expert_action[0].flatten())


# --------------------------------------------------------------------------------------------------- what is told of it


def test_metrics_of_levels_and_their_means():
    batch = train(debug_config(**MIXTURE, lpc_alpha=1e-3, max_steps=12), 6)
    row = batch.take_metrics()[0]
    assert all(is_metric(key) for key in row)
    names = ["GoToObjS6-v1", "GoToRedBallNoDists", "OpenDoor"]
    for metric in ("train/task_loss", "train/lpc", "rollout/success_rate"):
        values = [row[f"{metric}/{name}"] for name in names]
        assert row[f"{metric}/macro_mean"] == pytest.approx(np.mean(values))
    shares = [0.5, 0.25, 0.25]
    for metric in ("train/task_loss", "train/lpc", "train/accuracy"):
        pooled = sum(share * row[f"{metric}/{name}"] for share, name in zip(shares, names, strict=True))
        assert row[metric] == pytest.approx(pooled, rel=1e-5)
    assert sum(row[f"rollout/episodes_total/{name}"] for name in names) == row["rollout/episodes_total"]


def test_each_level_has_environments_of_the_student_alone():
    aided = {"expert_action_prob": 1.0, "solo_env_share": 0.1, "lr": 1e-9}
    row = train(debug_config(**MIXTURE, **aided, max_steps=6), 9).take_metrics()[0]
    for name in ["GoToObjS6-v1", "GoToRedBallNoDists", "OpenDoor"]:
        assert 0 < row[f"rollout/window_episodes/{name}"] < row[f"rollout/episodes_total/{name}"]
        assert row[f"rollout/success_rate/{name}"] < 1


def test_evaluation_plays_the_same_levels_of_each_task_as_a_single_one():
    batch = train(debug_config(**{**MIXTURE, "task_input": "none"}), 2)
    (found,) = batch.evaluate(4)
    assert found.metrics["num_episodes"] == 12
    for level, metrics in zip(LEVELS, found.by_level.values(), strict=True):
        single = ReplicaBatch([replace(batch.config, task_id=level, mixture=None, task_weights=None)],
                              announce=lambda line: None)  # fmt: skip
        single.policies[0].load_state_dict(batch.policies[0].state_dict())
        assert single.evaluate(4)[0].metrics == metrics
    rates = [metrics["success_rate"] for metrics in found.by_level.values()]
    assert found.metrics["success_rate"] == pytest.approx(np.mean(rates))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", ["moe", "mop", "gru"])
def test_a_policy_fixed_to_a_level_is_the_one_that_is_told_of_it(policy, encoding):
    config = debug_config(**MIXTURE, policy=policy, obs_encoding=encoding)
    wide = build_policy(config)
    assert list(wide.state_dict()) == list(build_policy(replace(config, task_input="none")).state_dict())
    generator = torch.Generator().manual_seed(0)
    obs, mission = draw_codes(1, 5, 2, generator=generator), torch.randn(1, 5, 2, 16, generator=generator)
    start = torch.zeros(1, 5, 2, dtype=torch.bool)
    logits = {}
    for level, name in enumerate(LEVELS):
        told = torch.zeros(1, 5, 2, 3)
        told[..., level] = 1
        packed, fixed = pack_replicas([wide]), pack_replicas([fix_level(wide, config, name)])
        with torch.no_grad():
            logits[level] = packed.sequence(torch.cat([obs, told], -1), mission, packed.init_hidden(2), start).logits
            other = fixed.sequence(obs, mission, fixed.init_hidden(2), start).logits
        torch.testing.assert_close(logits[level], other, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def test_levels_that_were_not_trained_have_no_number():
    config = debug_config(**MIXTURE)
    with pytest.raises(ValueError, match="BabyAI-GoTo-v0: expected a level that this policy was trained on"):
        fix_level(build_policy(config), config, "BabyAI-GoTo-v0")
    told = Levels.of(config).told(config)
    assert told.sum(0).tolist() == [4, 2, 2]


# ------------------------------------------------------------------------------------------------------------ the files

LIST = ("--task_id", ",".join(LEVELS[:2]), "--mixture", "two")


def test_files_of_a_mixture_lie_under_its_name(call):
    code, out, _ = call(*LIST, "--seeds", "0,1", "--lpc_alphas", "0,1e-3", "--eval_interval", "3", "--jobs", "1")
    assert code == 0, out
    assert "two: environments: GoToObjS6-v1 1, GoToRedBallNoDists 1" in out
    for trial, seed in ((1, 0), (1, 1), (2, 0), (2, 1)):
        content = read_checkpoint(f"checkpoints/two/trial_{trial}/seed_{seed}/checkpoint_final.pt")
        assert content["config"]["task_id"] == LEVELS[:2]
    mapping = json.loads(Path("checkpoints/two/sweep_trial_1.json").read_text())
    assert (mapping["task_id"], mapping["config"]["task_id"]) == ("two", LEVELS[:2])
    lines = [json.loads(line) for line in Path("runs/two/trial_2/seed_1/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["eval/episodes"] == 8
    assert lines[-1]["eval/episodes/GoToObjS6-v1"] == 4
    rates = [lines[-1][f"eval/success_rate/{name}"] for name in ("GoToObjS6-v1", "GoToRedBallNoDists")]
    assert lines[-1]["eval/success_rate/macro_mean"] == lines[-1]["eval/success_rate"] == np.mean(rates)
    code, out, _ = call(*LIST, "--seeds", "0,1", "--lpc_alphas", "0,1e-3", "--eval_interval", "3", "--jobs", "1")
    assert code == 0
    assert "all runs are complete" in out


def test_a_mixture_goes_on_and_is_not_taken_for_another(call):
    assert call(*LIST, "--final_eval_episodes", "0")[0] == 0
    code, _, err = call(*LIST, "--task_weights", "1,3", "--num_envs", "4")
    assert code == 2
    assert "task_weights is None there, [1.0, 3.0] here" in err
    code, _, err = call(*LIST, "--task_input", "onehot")
    assert "task_input is 'none' there, 'onehot' here" in err
    code, out, _ = call(*LIST, "--num_updates", "8", "--resume")
    assert code == 0
    assert "resumed at update 6" in out


@pytest.mark.parametrize("levels", [LEVELS[1::-1], [LEVELS[0], LEVELS[2]], LEVELS[:1]], ids=["order", "other", "fewer"])
def test_a_mixture_names_one_list(call, levels):
    """Also in another trial, with --overwrite of that one, and with --resume; one overwritten whole does not count."""
    assert call(*LIST, "--final_eval_episodes", "0")[0] == 0
    before = sorted(Path().rglob("*"))
    other = ("--task_id", f"[{','.join(levels)}]", "--mixture", "two")
    for flags in (("--trial", "2"), ("--trial", "2", "--overwrite"), ("--resume",), ("--seed", "1")):
        code, _, err = call(*other, *flags)
        assert code == 2
        names = ", ".join(level.removeprefix("BabyAI-").removesuffix("-v0") for level in levels)
        assert "trial_1/seed_0 holds a run of mixture two on GoToObjS6-v1, GoToRedBallNoDists; found " + names in err
        assert "choose another --mixture" in err and err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    assert call(*other, "--overwrite", "--final_eval_episodes", "0")[0] == 0
    assert call(*LIST, "--trial", "2")[0] == 2


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--task_id", "GoToObj,GoToObjj", "--mixture", "m"], "task_id: expected one of"),
        (["--task_id", "GoToObj,BabyAI-GoToObj-v0", "--mixture", "m"], "found BabyAI-GoToObj-v0 2 times"),
        (["--task_id", "GoToObj,GoTo", "--mixture", "GoToLocal"], "mixture: expected a name that no level has"),
        (["--task_id", "GoToObj,KeyInBox", "--mixture", "m"], "BabyAI-KeyInBox-v0: the expert solves none"),
    ],
)
def test_levels_that_cannot_be_are_named(call, argv, expected):
    code, _, err = call(*argv)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert not Path("checkpoints").exists()


def test_a_checkpoint_from_before_mixtures_goes_on(call):
    assert call("--final_eval_episodes", "0")[0] == 0
    path = next(Path("checkpoints").rglob("checkpoint_final.pt"))
    content = torch.load(path, weights_only=True)
    for name in ("task_weights", "mixture", "task_input"):
        del content["config"][name]
    save_checkpoint(path, content)
    assert load_policy(path).config.levels == ["BabyAI-GoToObjS6-v1"]
    code, out, err = call("--num_updates", "8", "--resume")
    assert code == 0, err
    assert "resumed at update 6" in out
