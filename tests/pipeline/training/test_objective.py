"""The compiled loss and its gradient are those of `compute_losses` by autograd."""

from dataclasses import fields

import pytest
import torch

from pipeline.training.batch import ReplicaBatch
from pipeline.training.losses import LevelTerms, LossTerms, Price, compute_losses
from pipeline.training.objective import Objective
from tests.pipeline.training.test_training import BASELINE, EVERYTHING_ON, PLAIN, debug_config

MIXTURE = {"task_id": ["BabyAI-GoToObjS6-v1", "BabyAI-OpenDoor-v0"], "mixture": "two", "num_envs": 32}
PRICES = [("detached", False), ("detached", True), ("paper", True)]


def collect(labels: str, **changes) -> ReplicaBatch:
    """Return three runs after an unroll: with all labels, with some, and with some or none."""
    configs = [debug_config(**changes, seed=seed) for seed in range(3)]
    batch = ReplicaBatch(configs, announce=lambda line: None)
    batch.rollout.collect(batch.acting())
    valid = batch.rollout.expert_valid
    valid[1:] &= torch.rand(valid[1:].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    if labels == "none":
        valid[2] = False
    return batch


def assert_like_autograd(batch: ReplicaBatch, price: Price) -> None:
    rollout, levels = batch.rollout, batch.step_levels
    terms = Objective(rollout, batch.expert_sizes, price, levels).differentiate()
    gradient = batch.weights.gradient.clone()
    logits, routing = rollout.replay()
    labels = rollout.expert_action, rollout.expert_valid
    expected = compute_losses(logits, *labels, routing, batch.expert_sizes, price, levels)
    rollout.engine.differentiate(expected.total.sum())
    torch.testing.assert_close(gradient, batch.weights.gradient, rtol=2e-4, atol=1e-6)
    assert_terms_agree(terms, expected)


def assert_terms_agree(found: LossTerms | LevelTerms, expected: LossTerms | LevelTerms) -> None:
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, LevelTerms):
            assert_terms_agree(ours, theirs)
        elif theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs.detach().float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", ["some", "none"])
@pytest.mark.parametrize(
    "changes", [PLAIN, EVERYTHING_ON, BASELINE, {**PLAIN, **MIXTURE}], ids=["moe", "mop", "gru", "two levels"]
)
def test_loss_and_gradient_are_those_of_autograd(changes, labels):
    batch = collect(labels, **changes)
    for denominator, normalize in PRICES:
        alpha = torch.tensor([0.0, 1e-3, 1e-2])
        assert_like_autograd(batch, Price(alpha=alpha, normalize=normalize, denominator=denominator, exponent=1.5))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_step_without_label_may_have_any_logits(bad):
    batch = collect("some", **PLAIN)
    clean = batch.objective.differentiate()
    gradient = batch.weights.gradient.clone()
    logits = batch.rollout.engine.replay([])[0].detach()
    logits.view(*batch.rollout.expert_valid.shape, -1)[~batch.rollout.expert_valid] = bad
    broken = batch.objective.differentiate()
    assert torch.equal(clean.total, broken.total)
    assert torch.equal(gradient, batch.weights.gradient)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_labelled_step_tells_of_bad_logits_in_its_own_run_alone(bad):
    batch = collect("some", **PLAIN)
    clean = batch.objective.differentiate()
    batch.rollout.engine.replay([])[0].detach()[0, 0, 0, 3] = bad
    broken = batch.objective.differentiate()
    assert broken.total.isfinite().tolist() == [False, True, True]
    assert batch.weights.norms().isfinite().tolist() == [False, True, True]
    assert torch.equal(clean.total[1:], broken.total[1:])
