"""The packed form: the same weights as a policy's `nn.GRU` modules, arranged so that a layer computes in a few calls.

All GRUs of a layer, router and experts, read the same input. Their input weights are stacked, so that one matrix
product gives all input gates, for a whole sequence at once; their recurrent weights form one block-diagonal matrix, so
that one product a step gives all hidden gates. The state of a layer is a single (batch, H) tensor: the router's units
first, then each expert's. The packed form is built from the modules once per unroll, differentiably: gradients arrive
in the modules.

    packed = pack(policy)
    hidden = packed.init_hidden(num_envs)
    out = packed.sequence(obs, mission, hidden, episode_start)     # (T, N, ...) inputs; T = 1 when acting

Agreement with the plain form, outputs and gradients: `tests/test_packed.py`. Speed: `benchmarks/policy.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixture_of_experts import ExpertDropout, MixtureOfExpertsPolicy, MoELayer, compute_router_logits
from stateful_mop import StatefulMoPPolicy


@dataclass(frozen=True)
class PackedOutput:
    """What a packed policy returns for T steps of N environments.

    Attributes:
        logits: (T, N, actions).
        hidden: State after the last step, one (N, H) tensor per layer.
        routing: Router probabilities before expert dropout, one (T, N, experts) tensor per layer; empty for a policy
            without routers.
    """

    logits: Tensor
    hidden: list[Tensor]
    routing: list[Tensor]


class GRUSequence(torch.autograd.Function):
    """A GRU's recurrence over T steps, given its input gates, with a hand-written backward pass.

    The backward pass needs one matrix product a step for the state's gradient; everything that does not depend on the
    next step's gradient is computed for all T at once, as are the weight gradients. Against autograd through the same
    loop this is 1.5 to 1.9 times faster (docs/LOG.md). The equations are those of `torch.nn.GRU`.
    """

    @staticmethod
    def forward(ctx, gates_x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, episode_start: Tensor) -> Tensor:
        """Return all states (T, N, H).

        Args:
            ctx: Autograd's.
            gates_x: (T, N, 3H) input gates with their bias, ordered reset, update, new.
            hidden: (N, H) state before the first step.
            weight: (H, 3H) recurrent weights, transposed.
            bias: (3H,) recurrent bias.
            episode_start: (T, N) bool; where set, the state before that step is zero.
        """
        steps, batch, _ = gates_x.shape
        size = hidden.shape[-1]
        before = gates_x.new_empty(steps, batch, size)
        gates = gates_x.new_empty(steps, batch, 2 * size)
        hidden_new = gates_x.new_empty(steps, batch, size)
        new = gates_x.new_empty(steps, batch, size)
        states = gates_x.new_empty(steps, batch, size)
        zero = torch.zeros((), dtype=hidden.dtype, device=hidden.device)
        for t in range(steps):
            torch.where(episode_start[t].unsqueeze(-1), zero, hidden, out=before[t])
            gates_h = torch.addmm(bias, before[t], weight)
            torch.add(gates_x[t, :, : 2 * size], gates_h[:, : 2 * size], out=gates[t]).sigmoid_()
            hidden_new[t] = gates_h[:, 2 * size :]
            torch.addcmul(gates_x[t, :, 2 * size :], gates[t, :, :size], hidden_new[t], out=new[t]).tanh_()
            torch.lerp(new[t], before[t], gates[t, :, size:], out=states[t])
            hidden = states[t]
        ctx.save_for_backward(before, gates, hidden_new, new, weight, episode_start)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Return the gradients of gates_x, hidden, weight and bias."""
        before, gates, hidden_new, new, weight, episode_start = ctx.saved_tensors
        steps, batch, size = before.shape
        reset, update = gates.split(size, dim=-1)
        # What each gate's input passes on per unit of gradient at the state it made, (T, N, H) each. In one buffer:
        # with hundreds of environments these arrays outgrow the cache and every copy of them costs.
        to_new = (1 - update).mul_(1 - new * new)
        per_gate = before.new_empty(steps, batch, 3, size)
        torch.mul(to_new, hidden_new, out=per_gate[:, :, 0]).mul_(reset).mul_(1 - reset)
        torch.sub(before, new, out=per_gate[:, :, 1]).mul_(update).mul_(1 - update)
        torch.mul(to_new, reset, out=per_gate[:, :, 2])
        starts = episode_start.unsqueeze(-1)  # (T, N, 1)
        weight_t = weight.t().contiguous()  # (3H, H)
        grads_h = torch.empty_like(per_gate)
        grads_state = torch.empty_like(before)
        carried = torch.zeros_like(before[0])
        for t in range(steps - 1, -1, -1):
            grad = torch.add(grad_states[t], carried, out=grads_state[t])
            torch.mul(per_gate[t], grad.unsqueeze(1), out=grads_h[t])
            carried = torch.addmm(grad * update[t], grads_h[t].view(batch, 3 * size), weight_t)
            carried.masked_fill_(starts[t], 0)  # none crosses an episode's start, not even NaN: 0 x NaN is NaN
        flat = grads_h.view(steps * batch, 3 * size)
        grad_weight = before.view(steps * batch, size).t() @ flat
        grad_bias = flat.sum(dim=0)
        torch.mul(grads_state, to_new, out=grads_h[:, :, 2])  # the input's new gate is not behind the reset gate
        return grads_h.flatten(2), carried, grad_weight, grad_bias, None


def gru_sequence(gates_x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, episode_start: Tensor) -> Tensor:
    """Return the states (T, N, H) of GRUs run over T steps; see `GRUSequence` for the arguments."""
    if gates_x.shape[0] == 1 and not torch.is_grad_enabled():  # acting: nothing has to be kept for a backward pass
        hidden = torch.where(episode_start[0].unsqueeze(-1), torch.zeros_like(hidden), hidden)
        return gru_step(gates_x[0], hidden, weight, bias).unsqueeze(0)
    return GRUSequence.apply(gates_x, hidden, weight, bias, episode_start)


def gru_step(gates_x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the state (N, H) after one step, in plain operations; arguments as in `GRUSequence`, without time."""
    size = hidden.shape[-1]
    gates_h = torch.addmm(bias, hidden, weight)
    reset, update = (gates_x[:, : 2 * size] + gates_h[:, : 2 * size]).sigmoid().chunk(2, dim=-1)
    new = torch.addcmul(gates_x[:, 2 * size :], reset, gates_h[:, 2 * size :]).tanh()
    return torch.lerp(new, hidden, update)


def _gate_major(tensors: Sequence[Tensor]) -> Tensor:
    """Stack GRU parameters (3h, ...) of several modules as (3H, ...): all reset gates, all update gates, all new."""
    return torch.cat([part for gate in range(3) for part in (t.chunk(3)[gate] for t in tensors)])


def _stack_grus(grus: Sequence[nn.GRU]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return input weight (3H, D) and bias, and block-diagonal recurrent weight (H, 3H), transposed, and bias."""
    weight_ih = _gate_major([gru.weight_ih_l0 for gru in grus])
    bias_ih = _gate_major([gru.bias_ih_l0 for gru in grus])
    bias_hh = _gate_major([gru.bias_hh_l0 for gru in grus])
    blocks = [torch.block_diag(*(gru.weight_hh_l0.chunk(3)[gate] for gru in grus)) for gate in range(3)]
    return weight_ih, bias_ih, torch.cat(blocks).t().contiguous(), bias_hh


@dataclass(frozen=True)
class PackedLayer:
    """The weights of one routed layer, packed; see the module's docstring.

    Attributes:
        weight_ih: (3H, D) input weights of router and experts, gate-major.
        bias_ih: (3H,).
        weight_hh: (H, 3H) block-diagonal recurrent weights, transposed.
        bias_hh: (3H,).
        router_size: Units of the router, the first of the H.
        fc_weight: (E, router_size) router's last map.
        fc_bias: (E,).
        owner: (E, H - router_size) 1 where a unit belongs to an expert; spreads routing weights over units.
        projection: (H - router_size, D) projections of all experts, stacked.
        projection_bias: (E, D); zero for skips.
        skip: (E,) 1 for a skip expert.
        relu: ReLU after the GRUs.
        expert_norms: LayerNorm and units of each expert that has one.
        norm: LayerNorm of the residual block (Mixture-of-Pathways), or None (no residual).
    """

    weight_ih: Tensor
    bias_ih: Tensor
    weight_hh: Tensor
    bias_hh: Tensor
    router_size: int
    fc_weight: Tensor
    fc_bias: Tensor
    owner: Tensor
    projection: Tensor
    projection_bias: Tensor
    skip: Tensor
    relu: bool
    expert_norms: list[tuple[nn.LayerNorm, int]]
    norm: nn.LayerNorm | None

    @property
    def size(self) -> int:
        """Units H of the layer, router and experts together."""
        return self.weight_hh.shape[0]

    def sequence(
        self, x: Tensor, hidden: Tensor, episode_start: Tensor, dropped: ExpertDropout | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return output (T, N, D), last state (N, H), router probabilities (T, N, E) for x (T, N, D)."""
        gates_x = F.linear(x, self.weight_ih, self.bias_ih)
        states = gru_sequence(gates_x, hidden, self.weight_hh, self.bias_hh, episode_start)
        router, experts = states.split([self.router_size, self.size - self.router_size], dim=-1)
        if self.expert_norms:
            parts = experts.split([units for _, units in self.expert_norms], dim=-1)
            experts = torch.cat([norm(part) for (norm, _), part in zip(self.expert_norms, parts, strict=True)], -1)
        if self.relu:
            router, experts = router.relu(), experts.relu()
        logits = compute_router_logits(router, self.fc_weight, self.fc_bias)
        probs = logits.softmax(dim=-1)
        weights = (probs if dropped is None else dropped.apply(logits, probs)).to(x.dtype)
        mixed = (experts * (weights @ self.owner)) @ self.projection + weights @ self.projection_bias
        mixed = torch.addcmul(mixed, x, (weights @ self.skip).unsqueeze(-1))
        output = mixed if self.norm is None else self.norm(x + mixed)
        return output, states[-1], probs


def pack_layer(layer: MoELayer, norm: nn.LayerNorm | None) -> PackedLayer:
    """Return the packed weights of a layer, connected to its parameters for autograd."""
    if layer.router.top_k is not None or not layer.router.recurrent:
        raise TypeError("the packed form is for dense routers with memory; use the plain form for others")
    experts = [expert for expert in layer.experts if expert.hidden_size > 0]
    weight = layer.router.fc.weight
    dim = layer.router.gru.input_size
    owner = weight.new_zeros(len(layer.experts), sum(expert.hidden_size for expert in experts))
    skip = weight.new_tensor([float(expert.hidden_size == 0) for expert in layer.experts])
    biases, column = [], 0
    for row, expert in enumerate(layer.experts):
        owner[row, column : column + expert.hidden_size] = 1.0
        column += expert.hidden_size
        biases.append(expert.projection.bias if expert.hidden_size > 0 else weight.new_zeros(dim))
    projections = [expert.projection.weight.t() for expert in experts]
    return PackedLayer(
        *_stack_grus([layer.router.gru, *(expert.gru for expert in experts)]),
        router_size=layer.router.hidden_size,
        fc_weight=weight,
        fc_bias=layer.router.fc.bias,
        owner=owner,
        projection=torch.cat(projections) if projections else weight.new_zeros(0, dim),
        projection_bias=torch.stack(biases),
        skip=skip,
        relu=layer.router.relu,
        expert_norms=[(expert.norm, expert.hidden_size) for expert in experts if expert.norm is not None],
        norm=norm,
    )


@dataclass(frozen=True)
class PackedPolicy:
    """A routed policy in packed form, from `pack`."""

    projection: nn.Linear
    layers: list[PackedLayer]
    head: nn.Linear

    def init_hidden(self, batch_size: int) -> list[Tensor]:
        """Return a zero state: one (batch, H) tensor per layer."""
        return [layer.weight_hh.new_zeros(batch_size, layer.size) for layer in self.layers]

    def sequence(
        self,
        obs: Tensor,
        mission: Tensor,
        hidden: Sequence[Tensor],
        episode_start: Tensor,
        dropped: Sequence[ExpertDropout] | None = None,
    ) -> PackedOutput:
        """Run T steps of N environments.

        Args:
            obs: (T, N, obs_dim).
            mission: (T, N, lang_dim).
            hidden: State before the first step, one (N, H) tensor per layer.
            episode_start: (T, N) bool; the state is zeroed before such a step.
            dropped: Expert dropout per layer with noise (T, N, E); training only.
        """
        x = self.projection(torch.cat([obs, mission], dim=-1))
        new_hidden, routing = [], []
        for index, layer in enumerate(self.layers):
            noise = None if dropped is None else dropped[index]
            x, state, probs = layer.sequence(x, hidden[index], episode_start, noise)
            new_hidden.append(state)
            routing.append(probs)
        return PackedOutput(self.head(x), new_hidden, routing)


@dataclass(frozen=True)
class PackedGRU:
    """The baseline, a single GRU without routers, behind the interface of `PackedPolicy`."""

    gru: nn.GRU
    head: nn.Linear

    def init_hidden(self, batch_size: int) -> list[Tensor]:
        """Return a zero state: one (batch, hidden_size) tensor in a list."""
        return [self.head.weight.new_zeros(batch_size, self.gru.hidden_size)]

    def sequence(
        self,
        obs: Tensor,
        mission: Tensor,
        hidden: Sequence[Tensor],
        episode_start: Tensor,
        dropped: Sequence[ExpertDropout] | None = None,
    ) -> PackedOutput:
        """Run T steps of N environments; see `PackedPolicy.sequence`. There is no expert to drop."""
        gates_x = F.linear(torch.cat([obs, mission], dim=-1), self.gru.weight_ih_l0, self.gru.bias_ih_l0)
        weight = self.gru.weight_hh_l0.t().contiguous()
        states = gru_sequence(gates_x, hidden[0], weight, self.gru.bias_hh_l0, episode_start)
        return PackedOutput(self.head(states), [states[-1]], [])


def pack(policy: nn.Module) -> PackedPolicy | PackedGRU:
    """Return the packed form of a policy, differentiable down to the policy's parameters.

    Args:
        policy: `MixtureOfExpertsPolicy`, `StatefulMoPPolicy`, or one with `gru` and `head` such as the baseline.

    Raises:
        TypeError: For any other module.
    """
    if isinstance(policy, MixtureOfExpertsPolicy | StatefulMoPPolicy):
        norms = policy.norms if isinstance(policy, StatefulMoPPolicy) else [None] * len(policy.moe_layers)
        layers = [pack_layer(layer, norm) for layer, norm in zip(policy.moe_layers, norms, strict=True)]
        return PackedPolicy(policy.input_projection, layers, policy.head)
    if isinstance(getattr(policy, "gru", None), nn.GRU) and isinstance(getattr(policy, "head", None), nn.Linear):
        return PackedGRU(policy.gru, policy.head)
    raise TypeError(f"expected a routed policy or one with gru and head, found {type(policy).__name__}")
