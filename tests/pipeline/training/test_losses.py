"""The loss against values worked out by hand, its gradients, and what happens where there is no label."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.losses import LossTerms, Price, compute_losses, compute_penalty

SIZES = [[0, 16, 32]] * 2


def unroll(steps: int = 3, envs: int = 2, seed: int = 0):
    """Return logits, labels, mask (all labelled) and routing of two layers, in float64 with gradients."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(steps, envs, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(7, (steps, envs), generator=generator)
    routing = [
        torch.randn(steps, envs, 3, generator=generator, dtype=torch.float64).softmax(-1).requires_grad_()
        for _ in SIZES
    ]
    return logits, labels, torch.ones(steps, envs, dtype=torch.bool), routing


def hand_made(labels_valid: list[bool], **options) -> LossTerms:
    """Four steps of one environment, two actions with probabilities (3/4, 1/4), labels 0, 0, 1, 0."""
    logits = torch.tensor([0.75, 0.25], dtype=torch.float64).log().expand(4, 1, 2).clone()
    labels = torch.tensor([[0], [0], [1], [0]])
    routing = [
        torch.tensor([[0.5, 0.5]], dtype=torch.float64).expand(4, 1, 2),  # LPC 0.5 x 16 = 8
        torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, 1, 2),  # LPC 0.25 x 1 + 0.75 x 4 = 3.25
    ]
    return compute_losses(
        logits, labels, torch.tensor(labels_valid).view(4, 1), routing, [[0, 4], [1, 2]], Price(**options)
    )


def test_terms_by_hand():
    terms = hand_made([True, True, True, False], alpha=0.01)
    assert float(terms.task) == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert terms.lpc_per_layer.tolist() == pytest.approx([8.0, 3.25])
    assert float(terms.lpc) == pytest.approx(11.25)
    assert float(terms.penalty) == pytest.approx(0.1125)  # equation 1
    assert float(terms.total) == pytest.approx(float(terms.task) + 0.1125)
    assert float(terms.accuracy) == pytest.approx(2 / 3)
    assert float(terms.labelled) == pytest.approx(0.75)


@pytest.mark.parametrize("denominator", ["detached", "paper"])
def test_equation_2_by_hand(denominator):
    terms = hand_made([True] * 4, alpha=0.01, normalize=True, denominator=denominator, eps=0.5)
    task = (3 * math.log(4 / 3) + math.log(4)) / 4
    assert float(terms.task) == pytest.approx(task)
    assert float(terms.penalty) == pytest.approx(0.1125 / (task + 0.5))


def test_exponent_reaches_the_price():
    assert hand_made([True] * 4, exponent=1.0).lpc_per_layer.tolist() == pytest.approx([2.0, 1.75])


@pytest.mark.parametrize("normalize", [False, True])
def test_alpha_zero_is_imitation_alone(normalize):
    logits, labels, valid, routing = unroll()
    terms = compute_losses(
        logits, labels, valid, routing, SIZES, Price(alpha=0.0, normalize=normalize, denominator="paper")
    )
    assert float(terms.penalty.detach()) == 0.0
    assert torch.equal(terms.total, terms.task)
    gradients = torch.autograd.grad(terms.total, routing)
    assert not any(gradient.any() for gradient in gradients)


def test_baseline_without_routers_has_no_price():
    logits, labels, valid, _ = unroll()
    terms = compute_losses(logits, labels, valid, [], [], Price(alpha=1.0, normalize=True))
    assert float(terms.lpc) == float(terms.penalty.detach()) == 0.0
    assert terms.lpc_per_layer.shape == (0,)
    assert torch.equal(terms.total, terms.task)


@settings(max_examples=30, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=6, max_size=6), seed=st.integers(0, 100))
def test_masked_steps_have_no_part_in_the_loss(mask, seed):
    """Same loss as the labelled steps alone, whatever label a masked step carries; zero gradient at masked steps."""
    logits, labels, _, routing = unroll(seed=seed)
    valid = torch.tensor(mask).view(3, 2)
    terms = compute_losses(logits, torch.where(valid, labels, -1), valid, routing, SIZES, Price())
    (gradient,) = torch.autograd.grad(terms.total, logits)
    assert not gradient[~valid].any()
    if any(mask):
        alone = torch.nn.functional.cross_entropy(logits[valid], labels[valid])
        torch.testing.assert_close(terms.task, alone)
        assert (gradient[valid] != 0).all()


@pytest.mark.parametrize("extreme", [torch.inf, -torch.inf, torch.nan, 1e300])
@pytest.mark.parametrize("normalize", [False, True])
def test_extreme_logits_of_a_masked_step_reach_neither_loss_nor_gradient(extreme, normalize):
    logits, labels, valid, routing = unroll()
    valid[1, 0] = False
    clean = compute_losses(logits, labels, valid, routing, SIZES, Price(alpha=1e-4, normalize=normalize))
    (expected,) = torch.autograd.grad(clean.total, logits)
    broken = logits.detach().clone()
    broken[1, 0, labels[1, 0]] = extreme
    broken[1, 0, (labels[1, 0] + 1) % 7] = -extreme
    broken.requires_grad_()
    terms = compute_losses(broken, labels, valid, routing, SIZES, Price(alpha=1e-4, normalize=normalize))
    assert torch.equal(terms.total, clean.total)
    (gradient,) = torch.autograd.grad(terms.total, broken)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("denominator", ["detached", "paper"])
def test_unroll_without_labels_teaches_nothing(normalize, denominator):
    """Equation 2 would charge alpha x LPC / eps, a hundred times the usual price, for nothing learned."""
    logits, labels, valid, routing = unroll()
    options = {"alpha": 1.0, "normalize": normalize, "denominator": denominator}
    terms = compute_losses(logits, labels, torch.zeros_like(valid), routing, SIZES, Price(**options))
    assert [float(value.detach()) for value in (terms.task, terms.penalty, terms.total, terms.accuracy)] == [0.0] * 4
    assert float(terms.labelled) == 0.0
    assert float(terms.lpc.detach()) > 0  # still measured
    for gradient in torch.autograd.grad(terms.total, [logits, *routing]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


# -------------------------------------------------------------------------------------------- equation 2's denominator


def slope(task_loss: float, lpc: float, alpha: float, denominator: str, eps: float = 1e-2) -> float:
    """Return the derivative of task + penalty with respect to the task loss."""
    task = torch.tensor(task_loss, dtype=torch.float64, requires_grad=True)
    price = Price(alpha=alpha, normalize=True, denominator=denominator, eps=eps)
    total = task + compute_penalty(task, torch.tensor(lpc, dtype=torch.float64), price)
    return float(torch.autograd.grad(total, task)[0])


@settings(max_examples=50, deadline=None)
@given(lpc=st.floats(1.0, 3072.0), alpha=st.floats(1e-4, 1e-2), factor=st.floats(0.05, 0.95))
def test_published_denominator_pays_for_a_task_loss_above_its_threshold(lpc, alpha, factor):
    """Below sqrt(alpha x LPC) - eps the optimiser is paid to make the task loss larger, above it is not."""
    eps = 1e-3
    threshold = math.sqrt(alpha * lpc) - eps
    assert slope(factor * threshold, lpc, alpha, "paper", eps) < 0
    assert slope(threshold / factor, lpc, alpha, "paper", eps) > 0


@settings(max_examples=20, deadline=None)
@given(task=st.floats(0.0, 5.0), lpc=st.floats(0.0, 3072.0), alpha=st.floats(0.0, 1e-2))
def test_detached_denominator_always_pays_for_a_smaller_task_loss(task, lpc, alpha):
    assert slope(task, lpc, alpha, "detached") == 1.0


def easy_unroll() -> tuple:
    """Return an unroll whose task loss (about 0.02) lies below the threshold for alpha 1e-3."""
    _, labels, valid, routing = unroll()
    sure = 6.0 * torch.nn.functional.one_hot(labels, 7).double()
    return sure.requires_grad_(), labels, valid, routing


@pytest.mark.parametrize(("denominator", "sign"), [("paper", 1), ("detached", -1)])
def test_sign_of_the_gradient_at_the_expert_s_logit(denominator, sign):
    """On easy steps the published form pushes the expert's own action down; the default goes on pushing it up."""
    logits, labels, valid, routing = easy_unroll()
    options = {"alpha": 1e-3, "normalize": True, "denominator": denominator}
    terms = compute_losses(logits, labels, valid, routing, SIZES, Price(**options))
    assert float(terms.task.detach()) < math.sqrt(1e-3 * float(terms.lpc.detach())) - 1e-2
    (gradient,) = torch.autograd.grad(terms.total, logits)
    at_expert = gradient.gather(-1, labels.unsqueeze(-1))
    assert (sign * at_expert > 0).all()


def test_detached_denominator_leaves_the_gradient_of_the_logits_alone():
    logits, labels, valid, routing = easy_unroll()
    terms = compute_losses(logits, labels, valid, routing, SIZES, Price(alpha=1e-3, normalize=True))
    (alone,) = torch.autograd.grad(terms.task, logits, retain_graph=True)
    (both,) = torch.autograd.grad(terms.total, logits)
    assert torch.equal(alone, both)


@pytest.mark.parametrize("normalize", [False, True])
def test_price_pulls_weight_from_large_experts_to_the_skip(normalize):
    logits, labels, valid, routing = unroll()
    terms = compute_losses(logits, labels, valid, routing, SIZES, Price(alpha=1e-3, normalize=normalize))
    for gradient in torch.autograd.grad(terms.total, routing):
        assert not gradient[..., 0].any()
        assert (gradient[..., 1] > 0).all()
        torch.testing.assert_close(gradient[..., 2], 4 * gradient[..., 1])
