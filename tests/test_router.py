"""The router in every spelling, and experts dropped by their weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixture_of_experts import ExpertDropout, Router, RouterOutput, compute_router_terms
from tests.model_forms import ROUTER, WIDTH, inputs, small_moe


def test_memoryless_router_takes_any_leading_shape_and_keeps_no_state():
    router, x = Router(WIDTH, 0, 3, recurrent=False), torch.randn(2, 4, 5, WIDTH)
    out = router(x)
    assert out.hidden is None
    assert out.weights.shape == (2, 4, 5, 3)
    torch.testing.assert_close(out.weights[1, 2, 3], router(x[1, 2, 3]).weights)
    assert set(router.state_dict()) == {"fc.weight", "fc.bias"}


@settings(max_examples=20, deadline=None)
@given(experts=st.integers(1, 8), data=st.data())
def test_top_k_keeps_exactly_k_raw_probabilities(experts, data):
    k = data.draw(st.integers(1, experts))
    router = Router(WIDTH, 0, experts, recurrent=False, top_k=k)
    out = router(inputs(9)[0].repeat(1, 2)[:, :WIDTH])
    taken = out.weights > 0
    assert (taken.sum(dim=-1) == k).all()
    assert torch.equal(out.weights[taken], out.probs[taken])
    assert (out.probs.masked_fill(~taken, 2.0).amin(-1) >= out.probs.masked_fill(taken, 0.0).amax(-1)).all()
    if k < experts:
        assert torch.equal(out.indices[:, 0], out.probs.argmax(dim=-1))


def test_task_loss_reaches_the_router_through_top_1():
    """Top-1 weight divided by itself would be 1 and have no gradient."""
    torch.manual_seed(0)
    router, x = Router(WIDTH, 0, 3, recurrent=False, top_k=1), torch.randn(5, WIDTH)
    expert_outputs = torch.randn(5, 3, WIDTH)
    torch.einsum("be,bed->bd", router(x).weights, expert_outputs).square().mean().backward()
    assert router.fc.weight.grad.abs().max() > 1e-3
    assert router.fc.bias.grad.abs().max() > 1e-3


@pytest.mark.parametrize("recurrent", [True, False])
def test_router_logits_stay_float32_under_autocast(recurrent):
    torch.manual_seed(0)
    router, x = Router(WIDTH, ROUTER, 3, recurrent=recurrent), torch.randn(5, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.functional.linear(x, x).dtype == torch.bfloat16  # autocast is on
        out = router(x)
    assert out.logits.dtype == out.probs.dtype == torch.float32
    if not recurrent:  # nothing was rounded on the way
        assert torch.equal(out.logits, router(x).logits)


def test_router_terms_by_hand():
    """Four decisions over two experts with probabilities (3/4, 1/4) three times and (1/4, 3/4) once."""
    probs = torch.tensor([[0.75, 0.25]] * 3 + [[0.25, 0.75]], dtype=torch.float64)
    logits = probs.log() + 2.0  # logsumexp is 2
    terms = compute_router_terms(RouterOutput(probs, probs, logits, None, None))
    assert terms.load.tolist() == [0.75, 0.25]
    assert terms.importance.tolist() == pytest.approx([0.625, 0.375])
    assert float(terms.entropy) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert float(terms.balance) == pytest.approx(2 * (0.75 * 0.625 + 0.25 * 0.375))
    assert float(terms.z) == pytest.approx(4.0)


def test_router_terms_count_all_top_k_assignments():
    probs = torch.full((4, 4), 0.25, dtype=torch.float64)
    indices = torch.tensor([[0, 1], [2, 3], [0, 2], [1, 3]])
    terms = compute_router_terms(RouterOutput(probs, probs, probs.log(), indices, None))
    assert terms.load.tolist() == [0.25] * 4
    assert float(terms.balance) == pytest.approx(1.0)
    assert float(terms.entropy) == pytest.approx(math.log(4))
    assert float(terms.z) == pytest.approx(0.0, abs=1e-12)


def test_router_terms_are_differentiable_and_balance_is_largest_when_collapsed():
    logits = torch.tensor([[8.0, 0.0, 0.0, 0.0]] * 4, requires_grad=True)
    probs = logits.softmax(dim=-1)
    terms = compute_router_terms(RouterOutput(probs, probs, logits, None, None))
    assert float(terms.balance.detach()) > 3.9
    (terms.balance + terms.z - terms.entropy).backward()
    assert (logits.grad[:, 0] > 0).all()  # a step against the gradient weakens the favourite


# ---------------------------------------------------------------------------------------------------- expert dropout


def drop(probs: torch.Tensor, noise: torch.Tensor, beta: float = 0.8, gamma: float = 0.1) -> torch.Tensor:
    return ExpertDropout(noise, beta, gamma).apply(probs.log(), probs)


def test_drop_frequency_falls_linearly_with_the_weight():
    generator = torch.Generator().manual_seed(0)
    probs = torch.tensor([0.02, 0.05, 0.08, 0.35, 0.5], dtype=torch.float64).expand(20_000, 5)
    weights = drop(probs, torch.rand(20_000, 5, generator=generator, dtype=torch.float64))
    frequency = (weights == 0).double().mean(dim=0).tolist()
    # beta - (beta / gamma) w; the standard error is at most 0.0035.
    assert frequency[:3] == pytest.approx([0.64, 0.4, 0.16], abs=0.015)
    assert frequency[3:] == [0, 0]
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(20_000, dtype=torch.float64))


def test_remaining_experts_share_the_dropped_weight_in_proportion():
    weights = drop(torch.tensor([[0.05, 0.35, 0.6]]), torch.zeros(1, 3))
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.35 / 0.95, 0.6 / 0.95]]))


def test_largest_weight_is_never_dropped():
    """With sixteen experts all weights can be below gamma; ties for the largest all stay."""
    probs = torch.full((1, 16), 0.05)
    probs[0, 3] = probs[0, 7] = 0.15
    weights = drop(probs, torch.zeros(1, 16), gamma=0.5)
    assert weights[0].nonzero().flatten().tolist() == [3, 7]


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20), min_size=1, max_size=8),
    beta=st.floats(0, 1),
    gamma=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_expert_above_gamma_is_never_dropped_and_weights_stay_a_distribution(logits, beta, gamma, seed):
    row = torch.tensor([logits], dtype=torch.float64)
    probs = row.softmax(dim=-1)
    noise = torch.rand(1, len(logits), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = ExpertDropout(noise, beta, gamma).apply(row, probs)
    assert (weights[probs >= gamma] > 0).all()
    assert weights.max() > 0
    assert float(weights.sum()) == pytest.approx(1.0)


def test_lpc_is_taken_before_dropout():
    policy, (obs, lang) = small_moe(), inputs(5)
    dropped = [ExpertDropout(torch.zeros(5, len(sizes)), 1.0, 1.0) for sizes in policy.layer_expert_sizes]
    with torch.no_grad():
        _, _, free = policy(obs, lang, policy.init_hidden(5), return_routing_info=True)
        _, _, info = policy(obs, lang, policy.init_hidden(5), return_routing_info=True, dropped=dropped)
    assert not torch.equal(free["layer_0"]["layer_output"], info["layer_0"]["layer_output"])  # dropout is at work
    assert torch.equal(free["layer_0"]["router_weights"], info["layer_0"]["router_weights"])
    # What the second router saw has changed with the first layer's output, but its weights still come undropped.
    assert (info["layer_1"]["router_weights"] > 0).all()
