"""The paper's Mixture-of-Pathways block made stateful, so that a policy can be stepped through an episode.

    config = create_babyai_mop_config(input_dim=280, num_actions=7, intermediate_dim=64, router_dim=64,
                                      layers=["0,16,32", "0,16,32"])
    policy = StatefulMoPPolicy(config)
    hidden = policy.init_hidden_states(batch_size=4, device="cpu")
    logits, hidden = policy(obs, mission, hidden)

Differences from `MixtureOfExpertsPolicy`: ReLU after every GRU, and a block's output is LayerNorm(x + mixture).

Differences from the published code (https://github.com/jackcook/mixture-of-pathways), each on purpose:
- It feeds (batch, time, ...) tensors to GRUs that expect time first, so that its states run along the batch and
  sequences touch each other. Here states run along time and each environment is alone.
- Its experts have a BatchNorm, which couples the environments of a batch and behaves differently in training and when
  stepping. Here there is none by default; `expert_norm="layer"` puts a LayerNorm in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mixture_of_experts import (
    ExpertDropout,
    LayerHidden,
    MoELayer,
    ObservationEncoder,
    build_mission_scale,
    check_encoding,
    check_fusion,
    normalize_expert_sizes,
    read_inputs,
)


@dataclass(frozen=True)
class MoPConfig:
    """Sizes of a `StatefulMoPPolicy`.

    Attributes:
        input_dim: Width of observation and mission vector together (280 = 147 + 4 + 1 + 128).
        output_dim: Number of actions.
        intermediate_dim: Width D between the blocks.
        router_dim: Width of each router's GRU.
        layers: Expert sizes of each block, as lists of integers.
        expert_norm: "none" or "layer".
        device: Where a policy built from this is placed.
        obs_encoding: What becomes of the observation's codes, see `mixture_of_experts.ObservationEncoder`.
        mission_fusion: How the mission meets what is seen, see `mixture_of_experts.read_inputs`.
        lang_dim: Width of the mission vector, the last of `input_dim`; only "film" needs it.
    """

    input_dim: int
    output_dim: int
    intermediate_dim: int
    router_dim: int
    layers: list[list[int]] = field(default_factory=lambda: [[32, 64, 128], [64, 128, 256]])
    expert_norm: str = "none"
    device: str = "cpu"
    obs_encoding: str = "raw"
    mission_fusion: str = "concat"
    lang_dim: int = 0

    def __post_init__(self) -> None:
        """Check sizes and spelling.

        Raises:
            ValueError: If a size is impossible, `expert_norm`, `obs_encoding` or `mission_fusion` unknown.
        """
        check_encoding(self.obs_encoding)
        check_fusion(self.mission_fusion)
        if self.mission_fusion == "film" and not 1 <= self.lang_dim < self.input_dim:
            raise ValueError(
                "lang_dim: expected the width of the mission vector, of which mission_fusion film has to know, 1 to "
                f"{self.input_dim - 1}, found {self.lang_dim}"
            )
        if self.expert_norm not in ("none", "layer"):
            raise ValueError(f'expert_norm: expected "none" or "layer", found {self.expert_norm!r}')
        for name in ("input_dim", "output_dim", "intermediate_dim", "router_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")


def create_babyai_mop_config(
    input_dim: int = 280,
    num_actions: int = 7,
    intermediate_dim: int = 256,
    router_dim: int = 64,
    layers: str | Sequence[str] | Sequence[Sequence[int]] | None = None,
    device: str = "cpu",
    expert_norm: str = "none",
    obs_encoding: str = "raw",
    mission_fusion: str = "concat",
    lang_dim: int = 128,
) -> MoPConfig:
    """Return the sizes of a Mixture-of-Pathways policy for BabyAI.

    Args:
        input_dim: Observation and mission vector together (3 * 7 * 7 + 4 + 1 + 128 = 280).
        num_actions: Width of the output.
        intermediate_dim: Width between the blocks.
        router_dim: Width of each router's GRU.
        layers: Experts of each block, `["32,64,128", "64,128,256"]` by default.
        device: Where the policy is placed.
        expert_norm: "none" or "layer".
        obs_encoding: "raw", "onehot" or "embedding"; `input_dim` is the width before it.
        mission_fusion: "concat", or "film", see `mixture_of_experts.read_inputs`.
        lang_dim: Width of the mission vector; only "film" needs it.

    Raises:
        ValueError: If a size is impossible, `expert_norm` or `obs_encoding` unknown.
    """
    sizes = normalize_expert_sizes(["32,64,128", "64,128,256"] if layers is None else layers)
    return MoPConfig(
        input_dim,
        num_actions,
        intermediate_dim,
        router_dim,
        sizes,
        expert_norm,
        device,
        obs_encoding,
        mission_fusion,
        lang_dim,
    )


class StatefulMoPPolicy(nn.Module):
    """Linear -> blocks of LayerNorm(x + routed experts) -> Linear, stepped with an explicit state.

    Args:
        config: From `create_babyai_mop_config`.
    """

    def __init__(self, config: MoPConfig) -> None:
        super().__init__()
        self.config = config
        self.layer_expert_sizes = normalize_expert_sizes(config.layers)
        self.encoder = ObservationEncoder(config.obs_encoding)
        self.input_projection = nn.Linear(self.encoder.width(config.input_dim), config.intermediate_dim)
        norm = config.expert_norm == "layer"
        self.moe_layers = nn.ModuleList(
            MoELayer(config.intermediate_dim, sizes, config.router_dim, relu=True, norm=norm)
            for sizes in self.layer_expert_sizes
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.intermediate_dim) for _ in self.layer_expert_sizes)
        self.head = nn.Linear(config.intermediate_dim, config.output_dim)
        self.mission_scale = build_mission_scale(config.mission_fusion, config.lang_dim, config.intermediate_dim)
        self.to(config.device)

    def init_hidden_states(self, batch_size: int, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return zeros: `router_0`, `expert_0_0`, ... each (1, batch, size); a skip expert has no entry."""
        return _as_dict([layer.init_hidden(batch_size, device) for layer in self.moe_layers])

    def forward(
        self,
        x: Tensor,
        lang_embs: Tensor,
        hidden_states: dict[str, Tensor],
        dropped: Sequence[ExpertDropout] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (batch, actions) and the new state for x (batch, obs) and lang_embs (batch, lang_dim)."""
        logits, _, new_states = self._step(x, lang_embs, hidden_states, dropped)
        return logits, new_states

    def get_routing_info(
        self, obs: Tensor, lang_embs: Tensor, hidden_states: dict[str, Tensor]
    ) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """Return logits, routing weights per block (each (batch, experts), before dropout) and the new state."""
        return self._step(obs, lang_embs, hidden_states, None)

    def _step(
        self,
        x: Tensor,
        lang_embs: Tensor,
        hidden_states: dict[str, Tensor],
        dropped: Sequence[ExpertDropout] | None,
    ) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        features = read_inputs(self.encoder(x), lang_embs, self.input_projection, self.mission_scale)  # (batch, D)
        weights: list[Tensor] = []
        new_hidden: list[LayerHidden] = []
        for index, (layer, norm) in enumerate(zip(self.moe_layers, self.norms, strict=True)):
            noise = None if dropped is None else dropped[index]
            mixed, hidden, routed, _ = layer(features, self._layer_hidden(index, hidden_states), noise)
            features = norm(features + mixed)
            weights.append(routed.probs)
            new_hidden.append(hidden)
        return self.head(features), weights, _as_dict(new_hidden)

    def _layer_hidden(self, index: int, hidden_states: dict[str, Tensor]) -> LayerHidden:
        router = hidden_states[f"router_{index}"]
        experts = [
            hidden_states[f"expert_{index}_{expert}"] if size > 0 else router.new_zeros(1, router.shape[1], 0)
            for expert, size in enumerate(self.layer_expert_sizes[index])
        ]
        return router, experts


def _as_dict(layers: list[LayerHidden]) -> dict[str, Tensor]:
    """Return the state under the names of outside code, without entries for skip experts."""
    named: dict[str, Tensor] = {}
    for index, (router, experts) in enumerate(layers):
        named[f"router_{index}"] = router
        named.update({f"expert_{index}_{i}": state for i, state in enumerate(experts) if state.shape[-1] > 0})
    return named
