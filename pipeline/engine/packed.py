"""The packed form: the weights of one policy or of several alike, arranged so that a layer computes in a few calls.

All GRUs of a layer, router and experts, read the same input: their input weights are stacked, so that one product gives
all input gates. Their recurrent weights form two cells, the router and all experts side by side (block-diagonal). All
arrays have a leading axis of R replicas, policies of one architecture with weights of their own; products are batched
over it, and a replica's numbers do not depend on which others are there.

    packed = pack_replicas(policies)                               # R policies
    hidden = packed.init_hidden(num_envs)                          # (R, N, H) for each layer
    out = packed.sequence(obs, mission, hidden, episode_start)     # (R, T, N, ...) inputs; T = 1 when acting
    out.logits                                                     # (R, T, N, actions)

Gradients arrive in the modules. Agreement with the plain form, outputs and gradients:
`tests/pipeline/engine/test_packed.py`. Training packs its weights by itself, in place (`pipeline/engine/weights.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixture_of_experts import MixtureOfExpertsPolicy, MoELayer, widen_embedding
from pipeline.engine.packed_policy import (
    CodeProjection,
    FilmProjection,
    Gates,
    Linear,
    Mixture,
    Norm,
    PackedLayer,
    PackedPolicy,
    Projection,
)
from pipeline.engine.recurrence import Cell
from stateful_mop import StatefulMoPPolicy

TABLE, PROJECTION = "encoder.table", "input_projection.weight"
"""Parameters that together make the first map of a policy with embedded codes."""

SCALE = "mission_scale.weight"
"""The parameter by which a mission scales features, of policies that read it so."""


def pack_replicas(policies: Sequence[nn.Module]) -> PackedPolicy:
    """Return the packed form of R policies of one architecture, differentiable down to their parameters.

    Args:
        policies: `MixtureOfExpertsPolicy`, `StatefulMoPPolicy`, or ones with `gru` and `head` such as the baseline.

    Raises:
        TypeError: For other modules.
        ValueError: If their architectures differ.
    """
    named = [dict(policy.named_parameters()) for policy in policies]
    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in named]
    if any(type(policy) is not type(policies[0]) for policy in policies) or any(s != shapes[0] for s in shapes):
        raise ValueError("expected policies of one architecture, found differing types or sizes")
    stacked = {name: torch.stack([weights[name] for weights in named]) for name in named[0]}
    if TABLE in stacked:
        stacked[PROJECTION] = widen_embedding(stacked[TABLE], stacked[PROJECTION])
    return arrange(policies[0], stacked)


def arrange(
    policy: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    place: Callable[[Tensor], Tensor] = lambda packed: packed,
) -> PackedPolicy:
    """Return weights in packed form.

    Args:
        policy: Gives the architecture; its own weights are not used.
        weights: Name of each parameter -> (R, *shape). Where codes are embedded, the input projection is that of
            one-hot vectors (`mixture_of_experts.widen_embedding`), and the embedding is not used.
        place: Called once with each packed array, in an order that depends on the architecture alone; what it returns
            takes the array's place.

    Raises:
        TypeError: If the policy has no packed form.
    """

    def linear(name: str) -> Linear:
        return Linear(place(weights[f"{name}.weight"]), place(weights[f"{name}.bias"].unsqueeze(1)))

    def projection() -> Projection | None:
        bare = unscaled()
        return FilmProjection(bare, place(weights[SCALE].mT)) if bare is not None and SCALE in weights else bare

    def unscaled() -> Linear | CodeProjection | None:
        encoder = getattr(policy, "encoder", None)
        if encoder is None or encoder.obs_encoding == "raw":
            return linear("input_projection") if PROJECTION in weights else None
        bias = weights["input_projection.bias"].unsqueeze(1)
        return CodeProjection(place(weights[PROJECTION].mT), place(bias))

    def norm(names: Sequence[str]) -> Norm:
        parts = [[weights[f"{name}.{kind}"] for name in names] for kind in ("weight", "bias")]
        sizes = tuple(part.shape[1] for part in parts[0])
        return Norm(*(place(torch.cat(part, dim=1).unsqueeze(1)) for part in parts), sizes)

    def gates(cells: Sequence[Sequence[str]]) -> Gates:
        """Input weights of cells of GRUs of these names."""
        matrix, bias = (
            torch.cat([_gate_major([weights[f"{gru}.{kind}_ih_l0"] for gru in grus]) for grus in cells], dim=1)
            for kind in ("weight", "bias")
        )
        return Gates(place(matrix.mT), place(bias.unsqueeze(1)))

    def cell(grus: Sequence[str]) -> Cell:
        blocks = [weights[f"{gru}.weight_hh_l0"].chunk(3, dim=1) for gru in grus]  # per GRU and gate (R, h, h)
        matrix = torch.cat([_block_diagonal([parts[gate] for parts in blocks]) for gate in range(3)], dim=1)
        bias = _gate_major([weights[f"{gru}.bias_hh_l0"] for gru in grus])
        return Cell(place(matrix.mT), place(bias.unsqueeze(1)))

    def routed(name: str, layer: MoELayer, norm_name: str | None) -> PackedLayer:
        if layer.router.top_k is not None or not layer.router.recurrent:
            raise TypeError("the packed form is for dense routers with memory; use the plain form for others")
        sizes = [expert.hidden_size for expert in layer.experts]
        experts = [f"{name}.experts.{i}" for i, size in enumerate(sizes) if size > 0]
        cells = [[f"{name}.router.gru"], *([[f"{expert}.gru" for expert in experts]] if experts else [])]
        fc = weights[f"{name}.router.fc.weight"]
        nothing = fc.new_zeros(len(fc), layer.router.gru.input_size)
        biases = [
            weights[f"{name}.experts.{i}.projection.bias"] if size > 0 else nothing for i, size in enumerate(sizes)
        ]
        owner = torch.repeat_interleave(torch.eye(len(sizes)), torch.tensor(sizes), dim=1)  # (E, units)
        skip = torch.tensor([[float(size == 0)] for size in sizes])
        normed = bool(experts) and any(expert.norm is not None for expert in layer.experts)
        mixture = Mixture(
            router=linear(f"{name}.router.fc"),
            projection=place(torch.cat([weights[f"{e}.projection.weight"].mT for e in experts], dim=1))
            if experts
            else fc.new_zeros(len(fc), 0, layer.router.gru.input_size),
            projection_bias=place(torch.stack(biases, dim=1)),
            owner=torch.cat([owner, skip], dim=1).to(fc),
            relu=layer.router.relu,
            expert_norm=norm([f"{expert}.norm" for expert in experts]) if normed else None,
            norm=None if norm_name is None else norm([norm_name]),
        )
        return PackedLayer(gates(cells), tuple(cell(grus) for grus in cells), mixture)

    if isinstance(policy, MixtureOfExpertsPolicy | StatefulMoPPolicy):
        residual = isinstance(policy, StatefulMoPPolicy)
        layers = tuple(
            routed(f"moe_layers.{i}", layer, f"norms.{i}" if residual else None)
            for i, layer in enumerate(policy.moe_layers)
        )
        return PackedPolicy(projection(), layers, linear("head"))
    if isinstance(getattr(policy, "gru", None), nn.GRU) and isinstance(getattr(policy, "head", None), nn.Linear):
        layer = PackedLayer(gates([["gru"]]), (cell(["gru"]),), None)
        return PackedPolicy(projection(), (layer,), linear("head"))
    raise TypeError(f"expected a routed policy or one with gru and head, found {type(policy).__name__}")


def _gate_major(parts: Sequence[Tensor]) -> Tensor:
    """Stack GRU parameters (R, 3h, ...) of several modules as (R, 3H, ...): reset gates, update gates, new gates."""
    return torch.cat([part.chunk(3, dim=1)[gate] for gate in range(3) for part in parts], dim=1)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Return (R, H, H) with blocks (R, h, h) on its diagonal and zeros elsewhere."""
    size, column, rows = sum(block.shape[1] for block in blocks), 0, []
    for block in blocks:
        rows.append(F.pad(block, (column, size - column - block.shape[2])))
        column += block.shape[2]
    return torch.cat(rows, dim=1)
