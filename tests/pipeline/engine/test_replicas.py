"""Runs trained together: each ends with the bits it would have had alone, and leaves the files it would have left."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixture_of_experts import widen_embedding
from pipeline.checkpoints import CheckpointError, read_checkpoint
from pipeline.command.cli import parse_command
from pipeline.config import ConfigError, TrainConfig
from pipeline.engine.packed import PROJECTION, TABLE
from pipeline.engine.weights import ReplicaWeights
from pipeline.policies import build_policy
from pipeline.training.batch import ReplicaBatch
from pipeline.training.loop import run_update
from tests.pipeline.training.test_training import BASELINE, EVERYTHING_ON, PLAIN, assert_same

ROOT = Path(__file__).parents[3]
ENCODED = [{**PLAIN, "obs_encoding": "onehot"}, {**EVERYTHING_ON, "obs_encoding": "embedding"},
           {**BASELINE, "obs_encoding": "embedding"},
           {**EVERYTHING_ON, "obs_encoding": "onehot", "mission_fusion": "film"}]  # fmt: skip
KINDS = pytest.mark.parametrize(
    "changes",
    [PLAIN, EVERYTHING_ON, BASELINE, *ENCODED],
    ids=["moe", "mop", "gru", "moe, onehot", "mop, embedding", "gru, embedding", "mop, onehot, film"],
)
VARIANTS = [{"seed": 3, "lpc_alpha": 0.0}, {"seed": 0, "lpc_alpha": 0.01, "trial": 4}, {"seed": 1, "lpc_alpha": 1.0}]


def configs(*variants: dict, **changes) -> list[TrainConfig]:
    base, _ = parse_command("", TrainConfig, ["--config", str(ROOT / "configs" / "debug.yaml")])
    return [replace(base, **changes, **variant) for variant in variants or VARIANTS]


def together(settings: list[TrainConfig], updates: int, resume: list[dict] | None = None) -> ReplicaBatch:
    batch = ReplicaBatch(settings, announce=lambda line: None, resume=resume)
    while batch.update < updates:
        run_update(batch)
    return batch


def alone(config: TrainConfig, updates: int, resume: dict | None = None) -> ReplicaBatch:
    return together([config], updates, None if resume is None else [resume])


def saved(tmp_path: Path, batch: ReplicaBatch, replica: int = 0) -> dict:
    """Return a run's checkpoint as it is read back, without how long the run took."""
    batch.save(replica, tmp_path / "checkpoint.pt")
    content = read_checkpoint(tmp_path / "checkpoint.pt")
    content["resume"].pop("seconds")
    return content


@KINDS
def test_each_run_ends_with_the_bits_it_has_alone(changes, tmp_path):
    settings = configs(**changes)
    batch = together(settings, 5)
    for replica, config in enumerate(settings):
        assert_same(saved(tmp_path, batch, replica), saved(tmp_path, alone(config, 5)))


def test_sixteen_environments_in_groups_and_threads_keep_the_bits(tmp_path):
    """More environments than one group has, and two threads."""
    settings = configs(*({"seed": seed} for seed in range(6)), num_envs=32, torch_threads=2)
    batch = together(settings, 2)
    for replica in (0, 5):
        single = alone(replace(settings[replica], torch_threads=1), 2)
        content = saved(tmp_path, single)
        content["config"]["torch_threads"] = 2
        assert_same(saved(tmp_path, batch, replica), content)


def test_order_does_not_matter(tmp_path):
    settings = configs(**PLAIN)
    forwards, backwards = together(settings, 3), together(settings[::-1], 3)
    for replica in range(3):
        assert_same(saved(tmp_path, forwards, replica), saved(tmp_path, backwards, 2 - replica))


def test_metrics_are_those_of_each_run(tmp_path):
    settings = configs(**PLAIN)
    rows = together(settings, 4).take_metrics()
    for row, config in zip(rows, settings, strict=True):
        expected = alone(config, 4).take_metrics()[0]
        assert row.keys() == expected.keys()
        assert {k: v for k, v in row.items() if not k.startswith("time/")} == {
            k: v for k, v in expected.items() if not k.startswith("time/")
        }
    assert rows[2]["train/penalty"] > rows[1]["train/penalty"] > rows[0]["train/penalty"] == 0


def test_evaluations_are_those_of_each_run():
    settings = configs(**PLAIN)[:2]
    found = together(settings, 2).evaluate(6)
    assert [evaluation.metrics for evaluation in found] == [alone(c, 2).evaluate(6)[0].metrics for c in settings]


@KINDS
def test_runs_resume_from_single_checkpoints_and_single_runs_from_theirs(changes, tmp_path):
    settings = configs(**changes)
    whole = together(settings, 5)
    singles = []
    for config in settings:
        alone(config, 2).save(0, tmp_path / "single.pt")
        singles.append(read_checkpoint(tmp_path / "single.pt"))
    resumed = together(settings, 5, resume=singles)
    half = together(settings, 2)
    for replica, config in enumerate(settings):
        expected = saved(tmp_path, whole, replica)
        assert_same(saved(tmp_path, resumed, replica), expected)
        half.save(replica, tmp_path / "of_many.pt")
        assert_same(saved(tmp_path, alone(config, 5, resume=read_checkpoint(tmp_path / "of_many.pt"))), expected)


def test_a_checkpoint_holds_one_run_only(tmp_path):
    """Weights are views of a common array; saved as such, each file would hold all runs."""
    batch = together(configs(*({"seed": seed} for seed in range(4)), **PLAIN), 1)
    batch.save(0, tmp_path / "of_four.pt")
    alone(configs({"seed": 0}, **PLAIN)[0], 1).save(0, tmp_path / "single.pt")
    sizes = [(tmp_path / name).stat().st_size for name in ("of_four.pt", "single.pt")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


# --------------------------------------------------------------------------------------------------- what is refused


def test_runs_that_differ_in_more_than_they_may_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"lr: runs trained together may differ in seed, trial, lpc_alpha, start_from, train_only only",
    ):
        together(configs({"seed": 0}, {"seed": 1, "lr": 1.0}), 0)
    with pytest.raises(ConfigError, match="at least one run"):
        ReplicaBatch([], announce=lambda line: None)


def test_checkpoints_that_do_not_fit_together_are_refused(tmp_path):
    settings = configs(**PLAIN)[:2]
    contents = [saved(tmp_path, alone(config, updates)) for config, updates in zip(settings, (1, 2), strict=True)]
    with pytest.raises(CheckpointError, match=r"one update, found updates \[1, 2\]"):
        together(settings, 3, resume=contents)
    with pytest.raises(CheckpointError, match="expected 2 checkpoints"):
        together(settings, 3, resume=contents[:1])
    other = saved(tmp_path, alone(configs({"seed": 1}, **BASELINE)[0], 1))
    with pytest.raises(CheckpointError, match="cannot be continued"):
        together(settings, 3, resume=[contents[0], other])


# ------------------------------------------------------------------------------------------------- runs that diverge


def poison(batch: ReplicaBatch, replica: int) -> None:
    """Make a run's loss NaN from here on."""
    with torch.no_grad():
        batch.policies[replica].head.bias[0] = torch.nan


def test_a_run_that_diverges_is_named_and_the_others_go_on_as_if_alone(tmp_path):
    settings = configs(**PLAIN)
    batch = together(settings, 2)
    poison(batch, 1)
    before = {name: value.clone() for name, value in batch.policies[1].state_dict().items()}
    failures = run_update(batch)
    assert list(failures) == [1]
    assert failures[1].startswith("update 3: loss nan")
    assert batch.update == 3
    for name, value in batch.policies[1].state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7))
    batch = batch.without(list(failures))
    assert [config.seed for config in batch.configs] == [3, 1]
    metrics = batch.take_metrics()  # of all three updates
    assert metrics[0]["train/task_loss"] == alone(settings[0], 3).take_metrics()[0]["train/task_loss"]
    run_update(batch)
    batch.take_metrics()  # the next line begins here, as below
    for replica, config in enumerate((settings[0], settings[2])):
        single = alone(config, 4)
        single.take_metrics()
        assert_same(saved(tmp_path, batch, replica), saved(tmp_path, single))


def test_a_single_run_that_diverges_stays_where_it_was():
    batch = together(configs(**PLAIN)[:1], 1)
    poison(batch, 0)
    assert run_update(batch)[0].startswith("update 2: loss nan")
    assert batch.update == 1


# ----------------------------------------------------------------------------------------------------------- weights


def test_optimiser_state_is_that_of_adam_over_the_policys_parameters():
    settings = configs(**PLAIN)
    policies = [build_policy(config) for config in settings]
    singles = [build_policy(config) for config in settings]
    weights = ReplicaWeights(policies, [], lr=1e-3)
    adams = [torch.optim.Adam(single.parameters(), lr=1e-3, fused=True) for single in singles]
    assert weights.optimizer_state(0) == adams[0].state_dict()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        weights.gradient.zero_()
        for row, single in zip(weights.gradient, singles, strict=True):
            at = 0
            for parameter in single.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
                row[at : at + parameter.numel()] = parameter.grad.flatten()
                at += parameter.numel()
        weights.step(weights.norms(), [True] * 3, None)
        for adam in adams:
            adam.step()
    for replica, (adam, single) in enumerate(zip(adams, singles, strict=True)):
        torch.testing.assert_close(policies[replica].state_dict(), single.state_dict(), rtol=1e-6, atol=1e-7)
        found, expected = weights.optimizer_state(replica), adam.state_dict()
        assert found["param_groups"] == expected["param_groups"]
        torch.testing.assert_close(found["state"], expected["state"], rtol=1e-6, atol=1e-7)
        adam.load_state_dict(found)  # torch takes it for its own


def test_gradients_are_clipped_run_by_run():
    policies = [build_policy(config) for config in configs(**PLAIN)[:2]]
    weights = ReplicaWeights(policies, [], lr=1e-3)
    weights.gradient[0, :4] = torch.tensor([3.0, 4.0, 0.0, 0.0])  # norm 5
    weights.gradient[1, :4] = torch.tensor([0.03, 0.04, 0.0, 0.0])
    norms = weights.norms()
    assert norms.tolist() == pytest.approx([5.0, 0.05])
    weights.step(norms, [True, True], 1.0)
    assert weights.gradient[0, :2].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert weights.gradient[1, :2].tolist() == pytest.approx([0.03, 0.04])


def test_policies_and_common_array_are_the_same_numbers():
    config = configs(**PLAIN)[0]
    policies = [build_policy(config), build_policy(replace(config, seed=9))]
    before = policies[0].state_dict()["head.bias"].clone()
    weights = ReplicaWeights(policies, [], lr=1e-3)
    assert torch.equal(policies[0].head.bias, before)
    policies[0].load_state_dict(policies[1].state_dict())
    assert torch.equal(weights.flat[0], weights.flat[1])
    weights.flat[1] += 1
    assert torch.equal(policies[1].head.bias, policies[0].head.bias + 1)
    buffer = io.BytesIO()
    torch.save(policies[0].head.bias, buffer)
    assert buffer.tell() > weights.flat[0].numel() * 4  # why checkpoints hold copies


@KINDS
def test_every_weight_is_packed_once(changes):
    """Of an embedding and the map behind it, their product is, which stands behind all weights."""
    config = configs(**changes)[0]
    policy = build_policy(config)
    counts = {name: parameter.numel() for name, parameter in policy.named_parameters()}
    weights = ReplicaWeights([policy], [], lr=1e-3)
    packing, count = weights.packing, sum(counts.values())
    packed = torch.cat([torch.full((n,), name not in (TABLE, PROJECTION)) for name, n in counts.items()])
    if config.obs_encoding == "embedding":
        padding = torch.zeros(-count % 16 or 16, dtype=torch.bool)
        width = config.hidden_size if config.policy == "gru" else config.intermediate_dim
        packed = torch.cat([packed, padding, torch.ones(width * (980 + 5 + config.lang_dim), dtype=torch.bool)])
    else:
        packed = torch.ones(count, dtype=torch.bool)
    wanted = packed.nonzero().flatten()
    zero = count + (-count % 16 or 16) - 1
    assert torch.equal(packing.index[packing.index != zero].sort().values, wanted)
    assert torch.equal(packing.index[packing.back[wanted]], wanted)
    assert (packing.back[: len(packed)][~packed] == packing.size).all()
    assert (packing.back[len(packed) :] == packing.size).all()
    assert (weights.flat[0, count:] == 0).all()


@pytest.mark.parametrize("policy", ["mop", "gru"])
def test_an_embedding_is_trained_through_its_product_and_never_by_it(policy):
    """Adam and the norm see the gradients of the table and of the map behind it; none of their product's."""
    config = configs(policy=policy, obs_encoding="embedding")[0]
    policies = [build_policy(replace(config, seed=seed)) for seed in (0, 1)]
    weights = ReplicaWeights(policies, [], lr=1e-3)
    weights.derive()
    weights.gradient.normal_(generator=torch.Generator().manual_seed(0))
    given = weights.gradient.clone()
    weights.fold_gradient()
    factors = [(p.encoder.table, p.input_projection.weight) for p in policies]
    outs = [widen_embedding(table, weight) for table, weight in factors]
    size = outs[0].numel()
    start = (sum(p.numel() for p in policies[0].parameters()) // 16 + 1) * 16
    for row, (out, pair, policy_) in enumerate(zip(outs, factors, policies, strict=True)):
        wanted = torch.autograd.grad(out, pair, given[row, start : start + size].view_as(out))
        at = 0
        for name, parameter in policy_.named_parameters():
            found = weights.gradient[row, at : at + parameter.numel()].view_as(parameter)
            here = dict(zip((TABLE, PROJECTION), wanted, strict=True)).get(name)
            close = given[row, at : at + parameter.numel()].view_as(parameter) if here is None else here
            torch.testing.assert_close(found, close)
            at += parameter.numel()
        torch.testing.assert_close(weights.flat[row, start : start + size].view_as(out), out)
        torch.testing.assert_close(weights.norms()[row], weights.gradient[row, :start].norm())


def test_optimiser_state_of_other_parameters_is_refused():
    small, large = (build_policy(configs(expert_hidden_sizes=[[0, size]])[0]) for size in (8, 9))
    states = []
    for policy in (small, large):
        weights = ReplicaWeights([policy], [], lr=1e-3)
        weights.step(weights.norms(), [True], None)
        states.append(weights.optimizer_state(0))
    with pytest.raises(ValueError, match=r"optimizer: expected .* found"):
        ReplicaWeights([small], [], lr=1e-3).load_optimizer_state(0, states[1])
    states[0]["state"].pop(0)
    with pytest.raises(ValueError, match="parameters, found"):
        ReplicaWeights([small], [], lr=1e-3).load_optimizer_state(0, states[0])
