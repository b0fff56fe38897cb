"""GRUs run over an unroll: computed once while acting, kept, and differentiated from what was kept.

The weights do not change within an unroll, so the states, gates and sums that a step computes while the student acts
are the ones that the training pass would compute again. A `Tape` keeps them. `recur` then returns the kept states as
differentiable values: its forward pass computes nothing, its backward pass is written by hand and needs one matrix
product a step for the state's gradient; everything that does not wait for the next step's gradient is computed for all
steps at once. The equations are those of `torch.nn.GRU`.

Everything has a leading axis of R replicas, each with weights of its own: (R, T, N, ...) over T steps of N
environments. A replica's numbers do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Cell(NamedTuple):
    """The recurrent weights of a GRU, or of several side by side, of h units together."""

    weight: Tensor  # (R, h, 3h) transposed; columns reset, update, new; block-diagonal where there are several
    bias: Tensor  # (R, 1, 3h)

    @property
    def size(self) -> int:
        """Units h."""
        return self.weight.shape[1]


class Step(NamedTuple):
    """Where one step of a cell is kept: views of a `Tape`, each (R, N, h)."""

    before: Tensor
    gates: Tensor  # (R, N, 2h): reset and update side by side
    reset: Tensor
    update: Tensor
    hidden_new: Tensor
    new: Tensor
    state: Tensor


class Tape:
    """What one cell computed over T steps, each (R, T, N, h).

    Attributes:
        before: State before each step, zero where an episode starts.
        gates: (R, T, N, 2h) reset and update gate.
        hidden_new: The state's share of the new gate's sum, before the reset gate.
        new: New gate.
        states: State after each step.
        steps: The same as views of one step each.
    """

    def __init__(self, cell: Cell, steps: int, batch: int) -> None:
        """Allocate the tape of `cell` for `steps` steps of `batch` environments."""
        shape = (cell.weight.shape[0], steps, batch)

        def empty(width: int) -> Tensor:
            return cell.weight.new_empty(*shape, width, requires_grad=False)

        size = cell.size
        self.before, self.gates, self.hidden_new, self.new, self.states = map(empty, (size, 2 * size, size, size, size))
        self.steps = []
        for t in range(steps):
            gates = self.gates[:, t]
            reset, update = gates.split(size, dim=-1)
            rest = (self.before, self.hidden_new, self.new, self.states)
            before, hidden_new, new, state = (array[:, t] for array in rest)
            self.steps.append(Step(before, gates, reset, update, hidden_new, new, state))


@torch.no_grad()
def step_cell(cell: Cell, gates_x: Tensor, hidden: Tensor, start: Tensor, kept: Step) -> Tensor:
    """Compute one step into `kept`; return the new state, a part of it.

    Args:
        cell: Recurrent weights.
        gates_x: (R, N, 3h) input gates with their bias.
        hidden: (R, N, h) state before the step.
        start: (R, N, 1) bool; where set, the state before the step is zero instead.
        kept: Where the step is kept.
    """
    size = cell.size
    torch.where(start, hidden.new_zeros(()), hidden, out=kept.before)
    gates_h = torch.baddbmm(cell.bias, kept.before, cell.weight)  # (R, N, 3h)
    torch.add(gates_x[..., : 2 * size], gates_h[..., : 2 * size], out=kept.gates).sigmoid_()
    kept.hidden_new.copy_(gates_h[..., 2 * size :])
    torch.addcmul(gates_x[..., 2 * size :], kept.reset, kept.hidden_new, out=kept.new).tanh_()
    return torch.lerp(kept.new, kept.before, kept.update, out=kept.state)


def recur(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    cells: Sequence[Cell],
    hidden: Sequence[Tensor],
    start: Tensor,
    tapes: Sequence[Tape],
) -> tuple[Tensor, ...]:
    """Return the kept states of cells that read the same input, one (R, T, N, h) each, differentiable.

    Args:
        x: (R, T, N, D) input.
        weight: (R, D, G) input weights of all cells, transposed, cell after cell; G is the sum of their 3h.
        bias: (R, 1, G).
        cells: Recurrent weights.
        hidden: State of each cell before the first step, (R, N, h).
        start: (R, T, N) bool; where set, the state before that step was zero.
        tapes: What `step_cell` kept of each cell, computed from these very values.
    """
    return _Recurrence.apply(
        start, tapes, x, weight, bias, *(value for cell, h in zip(cells, hidden, strict=True) for value in (*cell, h))
    )


class _Recurrence(torch.autograd.Function):
    """See `recur`."""

    @staticmethod
    def forward(ctx, start: Tensor, tapes: Sequence[Tape], x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor):
        ctx.tapes = tapes
        ctx.save_for_backward(start, x, weight, *rest[::3])
        return tuple(tape.states.detach() for tape in tapes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads_states: Tensor):
        start, x, weight, *recurrent = ctx.saved_tensors
        replicas, steps, batch, width = x.shape
        rows = (replicas, steps * batch)
        grads_x = x.new_empty(replicas, steps, batch, weight.shape[2])
        rest: list[Tensor] = []
        column = 0
        for tape, grad_states, matrix in zip(ctx.tapes, grads_states, recurrent, strict=True):
            part = grads_x[..., column : column + matrix.shape[2]]
            column += matrix.shape[2]
            grads_h, carried = _backward_cell(tape, grad_states, matrix, start, part)
            flat = grads_h.view(*rows, -1)
            rest += [torch.bmm(tape.before.view(*rows, -1).mT, flat), flat.sum(dim=1, keepdim=True), carried]
        flat = grads_x.view(*rows, -1)
        grad_x = torch.bmm(flat, weight.mT).view(x.shape) if ctx.needs_input_grad[2] else None
        return None, None, grad_x, torch.bmm(x.reshape(*rows, width).mT, flat), flat.sum(dim=1, keepdim=True), *rest


def _backward_cell(
    tape: Tape, grad_states: Tensor, weight: Tensor, start: Tensor, grads_x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the state's gates (R, T, N, 3h) and of the state before the first step (R, N, h).

    Args:
        tape: What the forward pass kept.
        grad_states: (R, T, N, h) gradients of the states, as far as they come from outside the recurrence.
        weight: (R, h, 3h).
        start: (R, T, N) bool.
        grads_x: (R, T, N, 3h) where the gradients of the input's gates are put.
    """
    replicas, steps, batch, size = tape.states.shape
    reset, update = tape.gates.split(size, dim=-1)
    new, before = tape.new, tape.before
    # What each gate's input passes on per unit of gradient at the state it made. In one buffer: with hundreds of
    # environments these arrays outgrow the cache and every copy of them costs.
    to_new = (1 - update).mul_(1 - new * new)
    per_gate = before.new_empty(replicas, steps, batch, 3, size)
    torch.mul(to_new, tape.hidden_new, out=per_gate[..., 0, :]).mul_(reset).mul_(1 - reset)
    torch.sub(before, new, out=per_gate[..., 1, :]).mul_(update).mul_(1 - update)
    torch.mul(to_new, reset, out=per_gate[..., 2, :])
    starts = start.unsqueeze(-1)  # (R, T, N, 1)
    weight_t = weight.mT
    grads_h = torch.empty_like(per_gate)
    grads_state = torch.empty_like(before)
    carried = torch.zeros_like(before[:, 0])
    for t in range(steps - 1, -1, -1):
        grad = torch.add(grad_states[:, t], carried, out=grads_state[:, t])
        torch.mul(per_gate[:, t], grad.unsqueeze(2), out=grads_h[:, t])
        carried = torch.baddbmm(grad * update[:, t], grads_h[:, t].view(replicas, batch, 3 * size), weight_t)
        carried.masked_fill_(starts[:, t], 0)  # none crosses an episode's start, not even NaN: 0 x NaN is NaN
    grads_h = grads_h.flatten(3)
    grads_x.copy_(grads_h)
    # the input's new gate is not behind the reset gate
    torch.mul(grads_state, to_new, out=grads_x[..., 2 * size :])
    return grads_h, carried
