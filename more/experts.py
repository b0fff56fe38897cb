"""The experts of each variant, all experts of a layer in one module: rows come sorted by expert (`more/dispatch.py`).

The experts of each variant are built of their number, d_model (width of input and output) and the widths of their
parts, and map rows (rows, d_model) to rows. Where there is recurrence, its state starts the same way every time (at
zero, or at the feed-forward output), and the token is an input of every one of the r steps. What the token contributes
to a step is the same each time and is computed once. A state that starts at zero contributes nothing to the first step,
so that at r = 1 the matrices from state to state are neither used nor trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from more.config import ExpertWidths
from more.dispatch import Groups
from more.streams import Streams

NORM_EPS = 1e-6


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape))


def _norm(rows: Tensor) -> Tensor:
    return F.rms_norm(rows, rows.shape[-1:], eps=NORM_EPS)


class Stopping:
    """When rows stop iterating at test time: once a step has changed their state by less than a share of its size.

    From then on a row's state is what it is. All steps are computed none the less, and what they would make of a row
    that has stopped is thrown away: this counts the steps that need not be taken, and takes as long as without.

    Args:
        threshold: A row stops where |new - old| < threshold x |new|, Euclidean norms; at 0 none ever does.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._passes: list[list[Tensor]] = []

    def begin(self) -> None:
        """Begin the record of a forward pass."""
        self._passes.append([])

    def watch(self) -> RowsWatched:
        """Return what holds the rows of one layer that have stopped; of looped the tokens of all passes."""
        return RowsWatched(self.threshold)

    def note(self, taken: Tensor) -> None:
        """Keep the steps (batch, time, experts of a token) that the rows of a layer have taken; padding takes none."""
        self._passes[-1].append(taken)

    def take(self) -> list[Tensor]:
        """Return the steps of each forward pass since the last call, (batch, time, layers x experts of a token)."""
        passes, self._passes = self._passes, []
        return [torch.cat(layers, dim=-1) for layers in passes]


class RowsWatched:
    """The rows that have stopped, and the steps that each has taken.

    Attributes:
        stopped: (rows, 1) or (batch, time, 1) bool; None before the first step.
        taken: (rows,) or (batch, time) steps.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.stopped: Tensor | None = None
        self.taken: Tensor | None = None

    def keep(self, old: Tensor | None, new: Tensor) -> Tensor:
        """Return `new` (..., width), and `old` in rows that have stopped."""
        return new if self.stopped is None or old is None else torch.where(self.stopped, old, new)

    def step(self, old: Tensor | None, new: Tensor) -> Tensor:
        """Return the state after a step, (..., width), and note which rows stop with it.

        Args:
            old: State before it; None is no state yet, after which none stops.
            new: What the step makes of it.
        """
        if self.stopped is None:
            self.stopped = torch.zeros(*new.shape[:-1], 1, dtype=torch.bool, device=new.device)
            self.taken = torch.zeros(new.shape[:-1], device=new.device)
        self.taken = self.taken + ~self.stopped[..., 0]
        if old is None:
            return new
        new = self.keep(old.to(new.dtype), new)
        moved = torch.linalg.vector_norm((new - old).float(), dim=-1, keepdim=True)
        self.stopped = self.stopped | (
            moved < self.threshold * torch.linalg.vector_norm(new.float(), dim=-1, keepdim=True)
        )
        return new


class FeedForward(nn.Module):
    """Linear -> GELU -> Linear for each expert.

    Args:
        num_experts: Experts.
        d_model: Width of input and output.
        hidden: Width between.
    """

    def __init__(self, num_experts: int, d_model: int, hidden: int) -> None:
        super().__init__()
        self.up = _empty(num_experts, d_model, hidden)
        self.down = _empty(num_experts, hidden, d_model)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights."""
        nn.init.normal_(self.up, std=std)
        nn.init.normal_(self.down, std=residual_std)

    def forward(self, rows: Tensor, groups: Groups) -> Tensor:
        """Return (rows, d_model)."""
        return groups.bind(self.down)(F.gelu(groups.bind(self.up)(rows)))


class GatedUnit(nn.Module):
    """A GRU cell for each expert, iterated on one input; `nn.GRUCell` with a single bias, that of its input.

    Args:
        num_experts: Experts.
        input_dim: Width of the input.
        state_dim: Width m of the state.
    """

    def __init__(self, num_experts: int, input_dim: int, state_dim: int) -> None:
        super().__init__()
        self.input = _empty(num_experts, input_dim, 3 * state_dim)  # columns: reset, update, candidate
        self.state = _empty(num_experts, state_dim, 3 * state_dim)
        self.bias = _empty(num_experts, 3 * state_dim)

    def reset(self, std: float, candidate_std: float) -> None:
        """Draw the weights; the candidate's separately, as they set the scale of the state."""
        width = self.state.shape[1]
        nn.init.zeros_(self.bias)
        for weight in (self.input, self.state):
            nn.init.normal_(weight, std=std)
            nn.init.normal_(weight.data[..., 2 * width :], std=candidate_std)

    def forward(
        self,
        rows: Tensor,
        groups: Groups,
        steps: int,
        state: Tensor | None = None,
        watched: RowsWatched | None = None,
    ) -> Tensor:
        """Return the state (rows, m) after some steps.

        Args:
            rows: (rows, input_dim), the input of every step.
            groups: How rows are sorted.
            steps: r.
            state: (rows, m) to start from; None is zeros.
            watched: Holds rows that stop early; None: none does.
        """
        given = groups.bind(self.input)(rows)
        given = given + groups.pick(self.bias).to(given.dtype)  # (rows, 3 m), the same at every step
        given_gates, given_candidate = given.split([given.shape[-1] // 3 * 2, given.shape[-1] // 3], dim=-1)
        product = groups.bind(self.state)
        for _ in range(steps):
            if state is None:
                _, update = given_gates.sigmoid().chunk(2, dim=-1)
                state = (1 - update) * given_candidate.tanh()
                if watched is not None:
                    watched.step(None, state)
                continue
            recalled = product(state)
            recalled_gates, recalled_candidate = recalled.split([given_gates.shape[-1], state.shape[-1]], dim=-1)
            reset, update = (given_gates + recalled_gates).sigmoid().chunk(2, dim=-1)
            candidate = torch.addcmul(given_candidate, reset, recalled_candidate).tanh()
            new = torch.lerp(candidate, state.to(candidate.dtype), update)  # update x state + (1 - update) x candidate
            state = new if watched is None else watched.step(state, new)
        return state


class FeedForwardExperts(nn.Module):
    """base and looped: no recurrence within the expert."""

    def __init__(self, num_experts: int, d_model: int, widths: ExpertWidths) -> None:
        super().__init__()
        self.feed_forward = FeedForward(num_experts, d_model, widths.hidden)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights."""
        self.feed_forward.reset(std, residual_std)

    def forward(
        self, rows: Tensor, groups: Groups, steps: int, streams: Streams | None, watched: RowsWatched | None = None
    ) -> Tensor:
        """Return (rows, d_model); none of the rest is used, for looped is watched pass by pass."""
        return self.feed_forward(rows, groups)


class RecurrentDepthExperts(nn.Module):
    """more_a: each expert is a recurrent-depth block; what its attention sees, `more/streams.py` says.

    The core of Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", https://arxiv.org/abs/2502.05171,
    section 3.2, one layer deep. Per step, from state s and token x:

        u = Adapter [s ; x];  a = Norm(u + Attention(Norm(u)));  s = Norm(a + MLP(Norm(a)))

    Deviations: s starts at zero instead of at random, so that two calls give one answer; only the norm after attention
    has a gain, those of the others being part of the matrices that follow; the output is gain x s.
    """

    def __init__(self, num_experts: int, d_model: int, widths: ExpertWidths) -> None:
        super().__init__()
        self.adapter_state = _empty(num_experts, d_model, d_model)
        self.adapter_input = _empty(num_experts, d_model, d_model)
        self.query_key_value = _empty(num_experts, d_model, 3 * d_model)
        self.attention_out = _empty(num_experts, d_model, d_model)
        self.attention_gain = _empty(num_experts, d_model)
        self.gate_up = _empty(num_experts, d_model, 2 * widths.hidden)
        self.down = _empty(num_experts, widths.hidden, d_model)
        self.gain = _empty(num_experts, d_model)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights; the output starts as large as a residual projection of a normalised row."""
        for weight in (self.adapter_state, self.adapter_input, self.query_key_value, self.gate_up):
            nn.init.normal_(weight, std=std)
        for weight in (self.attention_out, self.down):
            nn.init.normal_(weight, std=residual_std)
        nn.init.ones_(self.attention_gain)
        nn.init.constant_(self.gain, residual_std * self.gain.shape[-1] ** 0.5)

    def forward(
        self, rows: Tensor, groups: Groups, steps: int, streams: Streams, watched: RowsWatched | None = None
    ) -> Tensor:
        """Return (rows, d_model) after r = `steps` steps; attention of step j reads that step's keys and values.

        A row that has stopped goes on offering the keys and values of the last step that it took.
        """
        adapt, project, attend_out = map(groups.bind, (self.adapter_state, self.query_key_value, self.attention_out))
        gate_up, down = groups.bind(self.gate_up), groups.bind(self.down)
        attention_gain = groups.pick(self.attention_gain)
        given = groups.bind(self.adapter_input)(rows)
        state = projected = None
        for step in range(steps):
            mixed = given if state is None else given + adapt(state)
            before, projected = projected, project(_norm(mixed))
            if watched is not None:
                projected = watched.keep(before, projected)
            attended = attend_out(streams.attend(step, projected))
            attended = _norm(mixed + attended) * attention_gain
            gate, up = gate_up(_norm(attended)).chunk(2, dim=-1)
            new = _norm(attended + down(F.silu(gate) * up))
            state = new if watched is None else watched.step(state, new)
        return state * groups.pick(self.gain)


class SandwichExperts(nn.Module):
    """more_b: up-projection, a GRU iterated r times on the projected token, down-projection."""

    def __init__(self, num_experts: int, d_model: int, widths: ExpertWidths) -> None:
        super().__init__()
        self.up = _empty(num_experts, d_model, widths.state)
        self.unit = GatedUnit(num_experts, widths.state, widths.state)
        self.down = _empty(num_experts, widths.state, d_model)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights."""
        nn.init.normal_(self.up, std=std)
        self.unit.reset(std, std)
        nn.init.normal_(self.down, std=residual_std)

    def forward(
        self, rows: Tensor, groups: Groups, steps: int, streams: Streams | None, watched: RowsWatched | None = None
    ) -> Tensor:
        """Return (rows, d_model) after r = `steps` steps; `streams` is not used."""
        return groups.bind(self.down)(self.unit(groups.bind(self.up)(rows), groups, steps, watched=watched))


class ParallelExperts(nn.Module):
    """more_c: g x FFN(token) + (1 - g) x GRU(token) with a gate g for each token."""

    def __init__(self, num_experts: int, d_model: int, widths: ExpertWidths) -> None:
        super().__init__()
        self.feed_forward = FeedForward(num_experts, d_model, widths.hidden)
        self.unit = GatedUnit(num_experts, d_model, widths.state)
        self.unit_out = _empty(num_experts, widths.state, d_model)
        self.gate = _empty(num_experts, d_model)
        self.gate_bias = _empty(num_experts, 1)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights; the gate starts half open."""
        self.feed_forward.reset(std, residual_std)
        self.unit.reset(std, std)
        nn.init.normal_(self.unit_out, std=residual_std)
        nn.init.normal_(self.gate, std=std)
        nn.init.zeros_(self.gate_bias)

    def forward(
        self, rows: Tensor, groups: Groups, steps: int, streams: Streams | None, watched: RowsWatched | None = None
    ) -> Tensor:
        """Return (rows, d_model) after r = `steps` steps; `streams` is not used."""
        recurrent = groups.bind(self.unit_out)(self.unit(rows, groups, steps, watched=watched))
        gate = (rows * groups.pick(self.gate)).sum(dim=-1, keepdim=True) + groups.pick(self.gate_bias)  # (rows, 1)
        return torch.lerp(recurrent, self.feed_forward(rows, groups), gate.sigmoid().to(recurrent.dtype))


class RefinementExperts(nn.Module):
    """more_d: FFN(token) is the first state of a GRU that sees the token r times; the last state is the output."""

    def __init__(self, num_experts: int, d_model: int, widths: ExpertWidths) -> None:
        super().__init__()
        self.feed_forward = FeedForward(num_experts, d_model, widths.hidden)
        self.unit = GatedUnit(num_experts, d_model, d_model)

    def reset(self, std: float, residual_std: float) -> None:
        """Draw the weights; the GRU's candidate joins the residual stream and starts as small as the FFN's output."""
        self.feed_forward.reset(std, residual_std)
        self.unit.reset(std, residual_std)

    def forward(
        self, rows: Tensor, groups: Groups, steps: int, streams: Streams | None, watched: RowsWatched | None = None
    ) -> Tensor:
        """Return (rows, d_model) after r = `steps` steps; `streams` is not used."""
        return self.unit(rows, groups, steps, self.feed_forward(rows, groups), watched)


EXPERTS = {
    "base": FeedForwardExperts,
    "more_a": RecurrentDepthExperts,
    "more_b": SandwichExperts,
    "more_c": ParallelExperts,
    "more_d": RefinementExperts,
    "looped": FeedForwardExperts,
}
"""The experts' class of each model type."""
