"""A policy in packed form: what a layer computes, in a few calls, for R replicas at once; see `packed.py` beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mixture_of_experts import ExpertDropout, encode_one_hot
from pipeline.engine.recurrence import Cell, Tape, recur, step_cell


@dataclass(frozen=True)
class PackedOutput:
    """What a packed policy returns for T steps of N environments.

    Attributes:
        logits: (R, T, N, actions).
        hidden: State after the last step, one (R, N, H) tensor per layer.
        routing: Router probabilities before expert dropout, one (R, T, N, experts) tensor per layer; empty for a
            policy without routers.
    """

    logits: Tensor
    hidden: list[Tensor]
    routing: list[Tensor]


@dataclass(frozen=True)
class Linear:
    """A linear map per replica.

    Attributes:
        weight: (R, out, in).
        bias: (R, 1, out).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, M, out) for x (R, M, in)."""
        return torch.baddbmm(self.bias, x, self.weight.mT)

    def split(self, width: int) -> tuple[Linear, Tensor]:
        """Return the map without its last `width` inputs, and the weight of these, (R, width, out)."""
        return Linear(self.weight[..., :-width], self.bias), self.weight[..., -width:].mT


@dataclass(frozen=True)
class Gates:
    """The input gates of a layer, per replica.

    Attributes:
        weight: (R, in, G), transposed.
        bias: (R, 1, G).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, M, G) for x (R, M, in)."""
        return torch.baddbmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class CodeProjection:
    """The input projection of policies that see codes as one-hot vectors, or as embedded ones, per replica.

    Attributes:
        weight: (R, in, out), transposed: a row for each one-hot number, so that a step is a sum of rows.
        bias: (R, 1, out).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, M, out) for x (R, M, observation and mission), the observation's codes as they are."""
        return torch.baddbmm(self.bias, encode_one_hot(x), self.weight)

    def split(self, width: int) -> tuple[CodeProjection, Tensor]:
        """Return the map without its last `width` inputs, and the weight of these, (R, width, out)."""
        return CodeProjection(self.weight[:, :-width], self.bias), self.weight[:, -width:]


@dataclass(frozen=True)
class FilmProjection:
    """An input projection whose features the mission scales, per replica; see `mixture_of_experts.read_inputs`.

    Attributes:
        projection: Of observation and mission.
        scale: (R, lang_dim, out), transposed.
    """

    projection: Linear | CodeProjection
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, M, out) for x (R, M, observation and mission)."""
        width = self.scale.shape[1]
        of_seen, of_mission = self.projection.split(width)
        seen, mission = x[..., :-width], x[..., -width:]
        return of_seen(seen) * (1 + mission @ self.scale) + mission @ of_mission


Projection = Linear | CodeProjection | FilmProjection


@dataclass(frozen=True)
class Norm:
    """A LayerNorm per replica, or several side by side.

    Attributes:
        weight: (R, 1, width).
        bias: (R, 1, width).
        sizes: Widths of the LayerNorms, of sum `width`.
    """

    weight: Tensor
    bias: Tensor
    sizes: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, M, width) for the same."""
        parts = [F.layer_norm(part, part.shape[-1:]) for part in x.split(self.sizes, dim=-1)]
        return torch.addcmul(self.bias, parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), self.weight)


@dataclass(frozen=True)
class Mixture:
    """What a routed layer does with the states of its GRUs.

    Attributes:
        router: The router's last map, to E logits.
        projection: (R, units, D) projections of all experts, stacked.
        projection_bias: (R, E, D); zero for skips.
        owner: (E, units + 1) 1 where a unit belongs to an expert: spreads routing weights over units. The last column
            is 1 for a skip expert.
        relu: ReLU after the GRUs.
        expert_norm: LayerNorm of the experts' states, or None.
        norm: LayerNorm of the residual block (Mixture-of-Pathways), or None (no residual).
    """

    router: Linear
    projection: Tensor
    projection_bias: Tensor
    owner: Tensor
    relu: bool
    expert_norm: Norm | None
    norm: Norm | None

    def __call__(self, x: Tensor, states: Sequence[Tensor], dropped: ExpertDropout | None) -> tuple[Tensor, Tensor]:
        """Return output (R, M, D) and router probabilities (R, M, E) for x (R, M, D) and states (R, M, h)."""
        logits = self.route(states[0])
        probs = logits.softmax(dim=-1)
        weights = probs if dropped is None else dropped.apply(logits, probs)
        return self.close(x, self.mix(x, self.read(states), weights)), probs

    def route(self, state: Tensor) -> Tensor:
        """Return the router's logits (R, M, E) for its state (R, M, h)."""
        return self.router(state.relu() if self.relu else state)

    def read(self, states: Sequence[Tensor]) -> Tensor | None:
        """Return what the projections read of the experts' states, (R, M, units); None if all are skips."""
        if len(states) == 1:
            return None
        experts = states[1] if self.expert_norm is None else self.expert_norm(states[1])
        return experts.relu() if self.relu else experts

    def mix(self, x: Tensor, experts: Tensor | None, weights: Tensor) -> Tensor:
        """Return the sum of the experts' outputs, weighted, (R, M, D); experts as `read` returns them."""
        spread = weights @ self.owner  # (R, M, units + 1)
        mixed = torch.bmm(weights, self.projection_bias)
        if experts is not None:
            mixed = torch.baddbmm(mixed, experts * spread[..., :-1], self.projection)
        return torch.addcmul(mixed, x, spread[..., -1:])

    def close(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the layer's output (R, M, D): the mixture, or with a residual block LayerNorm(x + mixture)."""
        return mixed if self.norm is None else self.norm(x + mixed)


@dataclass(frozen=True)
class PackedLayer:
    """A routed layer, or the baseline's single GRU.

    Attributes:
        gates: Input weights of all cells, to their gates.
        cells: The router and, unless all are skips, the experts; or the baseline's GRU.
        mixture: What becomes of their states; None for the baseline, whose output is its state.
    """

    gates: Gates
    cells: tuple[Cell, ...]
    mixture: Mixture | None

    @property
    def sizes(self) -> list[int]:
        """Units of each cell."""
        return [cell.size for cell in self.cells]

    def step(
        self, gates: Tensor, hidden: Sequence[Tensor], start: Tensor, tapes: Sequence[Tape], t: int
    ) -> list[Tensor]:
        """Compute step t into the tapes; return the cells' new states.

        Args:
            gates: (R, N, G) input gates of all cells.
            hidden: State of each cell before the step, (R, N, h).
            start: (R, N, 1) bool; the state is zeroed before such a step.
            tapes: Of the cells.
            t: Step.
        """
        parts = gates.split([3 * size for size in self.sizes], dim=-1)
        return [
            step_cell(cell, part, before, start, tape.steps[t])
            for cell, part, before, tape in zip(self.cells, parts, hidden, tapes, strict=True)
        ]

    @torch.no_grad()
    def record(self, x: Tensor, hidden: Sequence[Tensor], start: Tensor, tapes: Sequence[Tape]) -> None:
        """Compute all steps into the tapes, from x (R, T, N, D), states (R, N, h) and start (R, T, N)."""
        gates = self.gates(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        for t in range(x.shape[1]):
            hidden = self.step(gates[:, t], hidden, start[:, t, :, None], tapes, t)

    def mix(self, x: Tensor, states: Sequence[Tensor], dropped: ExpertDropout | None) -> tuple[Tensor, Tensor | None]:
        """Return output (R, M, D) and router probabilities (None for the baseline); arguments as in `Mixture`."""
        return (states[0], None) if self.mixture is None else self.mixture(x, states, dropped)


Mix = Callable[[PackedLayer, Tensor, Sequence[Tensor], ExpertDropout | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class PackedPolicy:
    """Policies in packed form, from `pack_replicas`.

    The state within an unroll is a list of cells' states for each layer; `split_hidden` and `join_hidden` turn the
    (R, N, H) tensors into such lists and back.

    Attributes:
        projection: Input projection; None for the baseline that sees raw codes.
        layers: The layers.
        head: Map to action logits.
    """

    projection: Projection | None
    layers: tuple[PackedLayer, ...]
    head: Linear

    def init_hidden(self, batch_size: int) -> list[Tensor]:
        """Return a zero state: one (R, batch, H) tensor per layer."""
        weight = self.head.weight
        shapes = ((len(weight), batch_size, sum(layer.sizes)) for layer in self.layers)
        return [weight.new_zeros(shape, requires_grad=False) for shape in shapes]

    def split_hidden(self, hidden: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return the states of the cells, (R, N, h) each, of (R, N, H) states."""
        return [list(h.split(layer.sizes, dim=-1)) for h, layer in zip(hidden, self.layers, strict=True)]

    @staticmethod
    def join_hidden(hidden: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the (R, N, H) states of cells' states."""
        return [torch.cat(list(cells), dim=-1) for cells in hidden]

    def tapes(self, steps: int, batch: int) -> list[list[Tape]]:
        """Return tapes for unrolls of `steps` steps of `batch` environments, one per cell."""
        return [[Tape(cell, steps, batch) for cell in layer.cells] for layer in self.layers]

    @torch.no_grad()
    def act(
        self,
        inputs: Tensor,
        hidden: Sequence[Sequence[Tensor]],
        start: Tensor,
        tapes: Sequence[Sequence[Tape]],
        t: int,
        dropped: Sequence[ExpertDropout] | None = None,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Take step t of an unroll, keeping what `replay` needs; return logits (R, N, actions) and the new state.

        Args:
            inputs: (R, N, obs_dim + lang_dim) observation and mission side by side.
            hidden: State before the step, per layer and cell.
            start: (R, N, 1) bool; the state is zeroed before such a step.
            tapes: Of `tapes`.
            t: Step.
            dropped: Expert dropout per layer with noise (R, N, E).
        """
        x = inputs if self.projection is None else self.projection(inputs)
        after = []
        for index, (layer, before, kept) in enumerate(zip(self.layers, hidden, tapes, strict=True)):
            after.append(layer.step(layer.gates(x), before, start, kept, t))
            x, _ = layer.mix(x, after[-1], None if dropped is None else dropped[index])
        return self.head(x), after

    def replay(
        self,
        inputs: Tensor,
        hidden: Sequence[Sequence[Tensor]],
        start: Tensor,
        tapes: Sequence[Sequence[Tape]],
        dropped: Sequence[ExpertDropout] | None = None,
        mix: Mix = PackedLayer.mix,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits (R, T, N, actions) and router probabilities per layer of T kept steps, differentiable.

        What is recurrent is taken from the tapes; the rest is computed again, for all steps at once.

        Args:
            inputs: (R, T, N, obs_dim + lang_dim).
            hidden: State before the first step, per layer and cell.
            start: (R, T, N) bool.
            tapes: As `act` has filled them.
            dropped: Expert dropout per layer with noise (R, T, N, E).
            mix: `PackedLayer.mix`, or a compiled form of it.
        """
        return self._run(inputs, hidden, start, tapes, dropped, record=False, mix=mix)[:2]

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
            obs: (R, T, N, obs_dim).
            mission: (R, T, N, lang_dim).
            hidden: State before the first step, one (R, N, H) tensor per layer.
            episode_start: (R, T, N) bool; the state is zeroed before such a step.
            dropped: Expert dropout per layer with noise (R, T, N, E); training only.
        """
        inputs = torch.cat([obs, mission], dim=-1)
        tapes = self.tapes(*inputs.shape[1:3])
        before = self.split_hidden(hidden)
        logits, routing, states = self._run(inputs, before, episode_start, tapes, dropped, record=True)
        last = self.join_hidden([[state[:, -1] for state in cells] for cells in states])
        return PackedOutput(logits, last, routing)

    def _run(
        self,
        inputs: Tensor,
        hidden: Sequence[Sequence[Tensor]],
        start: Tensor,
        tapes: Sequence[Sequence[Tape]],
        dropped: Sequence[ExpertDropout] | None,
        *,
        record: bool,
        mix: Mix = PackedLayer.mix,
    ) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, ...]]]:
        """Run as `replay` does, return all states too; with `record`, fill the tapes first, layer by layer."""
        steps_and_envs = inputs.shape[1:3]
        x = inputs.flatten(1, 2)  # (R, T * N, ...) from here, but for the states
        x = x if self.projection is None else self.projection(x)
        routing, states = [], []
        for index, (layer, before, kept) in enumerate(zip(self.layers, hidden, tapes, strict=True)):
            unflat = x.unflatten(1, steps_and_envs)
            if record:
                layer.record(unflat, before, start, kept)
            gates = layer.gates
            states.append(recur(unflat, gates.weight, gates.bias, layer.cells, before, start, kept))
            noise = None if dropped is None else dropped[index]._replace(noise=dropped[index].noise.flatten(1, 2))
            x, probs = mix(layer, x, [state.flatten(1, 2) for state in states[-1]], noise)
            if probs is not None:
                routing.append(probs.unflatten(1, steps_and_envs))
        return self.head(x).unflatten(1, steps_and_envs), routing, states
