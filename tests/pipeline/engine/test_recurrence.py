"""The recurrence by itself: its hand-written backward pass against finite differences and `torch.nn.GRU`."""

import pytest
import torch
from torch import nn

from pipeline.engine.recurrence import Cell, Tape, recur, step_cell


def run(x, weight, bias, recurrent, bias_h, hidden, start) -> torch.Tensor:
    """Return the states (R, T, N, h) of one cell, step by step and then differentiable."""
    cell = Cell(recurrent, bias_h)
    tape = Tape(cell, *x.shape[1:3])
    state = hidden.detach()
    with torch.no_grad():
        gates = torch.einsum("rtnd,rdg->rtng", x, weight) + bias.unsqueeze(1)
        for t in range(x.shape[1]):
            state = step_cell(cell, gates[:, t], state, start[:, t, :, None], tape.steps[t])
    return recur(x, weight, bias, [cell], [hidden], start, [tape])[0]


def arguments(size: int = 3, steps: int = 4, envs: int = 2, width: int = 2, replicas: int = 1):
    """Return arguments of `run`, all but `start`."""
    torch.manual_seed(0)
    shapes = (
        (replicas, steps, envs, width),
        (replicas, width, 3 * size),
        (replicas, 1, 3 * size),
        (replicas, size, 3 * size),
        (replicas, 1, 3 * size),
        (replicas, envs, size),
    )
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def starts(*where: tuple[int, int], replicas: int = 1) -> torch.Tensor:
    start = torch.zeros(replicas, 4, 2, dtype=torch.bool)
    for step, row in where:
        start[:, step, row] = True
    return start


@pytest.mark.parametrize("where", [[], [(0, 0)], [(2, 0), (2, 1)], [(0, 1), (1, 1), (3, 0)]])
def test_hand_written_gradients_equal_finite_differences(where):
    start = starts(*where, replicas=2)
    assert torch.autograd.gradcheck(lambda *args: run(*args, start), arguments(replicas=2))


def test_recurrence_is_that_of_torch():
    torch.manual_seed(0)
    gru, x, hidden = nn.GRU(5, 3).double(), torch.randn(4, 2, 5).double(), torch.randn(1, 2, 3).double()
    weights = [getattr(gru, f"{name}_l0").detach() for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
    matrices = [weight.t()[None] if weight.dim() == 2 else weight[None, None] for weight in weights]
    states = run(x[None], *matrices, hidden, starts())
    torch.testing.assert_close(states[0], gru(x, hidden)[0], rtol=1e-12, atol=1e-12)


def test_no_gradient_crosses_an_episode_start():
    values = arguments()
    x, hidden = values[0], values[5]
    states = run(*values, starts((2, 0)))
    grad_x, grad_hidden = torch.autograd.grad(states[:, 2:].square().sum(), (x, hidden))
    assert not grad_x[0, :2, 0].any()
    assert not grad_hidden[0, 0].any()
    assert (grad_x[0, :2, 1] != 0).all()
    assert (grad_hidden[0, 1] != 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_gradient_of_a_new_episode_does_not_reach_the_old_one(bad):
    """Multiplying with a mask would do so: 0 x NaN is NaN."""
    values = arguments()
    states = run(*values, starts((2, 0)))
    upstream = torch.ones_like(states)
    upstream[0, 3, 0] = bad
    grad_x, grad_hidden = torch.autograd.grad(states, (values[0], values[5]), upstream)
    assert not grad_x[0, 2:, 0].isfinite().all()  # it was there
    assert grad_x[0, :2, 0].isfinite().all()
    assert grad_hidden.isfinite().all()
