"""The baseline's policy: one GRU without routing. `train.py` trains it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixture_of_experts import ObservationEncoder, build_mission_scale, read_inputs


class GRUPolicy(nn.Module):
    """Observation and mission -> GRU -> Linear to action logits.

    With another encoding than `raw` a linear map to the GRU's width stands before it, as before the routed layers: the
    three gates of a GRU would need three times its weights for the many inputs.

    Args:
        input_dim: Width of the observation vector.
        hidden_size: Width of the GRU.
        num_actions: Width of the output.
        lang_dim: Width of the mission vector.
        obs_encoding: What becomes of the observation's codes, see `mixture_of_experts.ObservationEncoder`.
        mission_fusion: How the mission meets what is seen, see `mixture_of_experts.read_inputs`.

    Raises:
        ValueError: If the mission is to scale features where there are none, `film` with `raw`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_size: int,
        num_actions: int,
        lang_dim: int = 32,
        obs_encoding: str = "raw",
        mission_fusion: str = "concat",
    ) -> None:
        super().__init__()
        if (obs_encoding, mission_fusion) == ("raw", "film"):
            raise ValueError("mission_fusion: expected concat with obs_encoding raw, which the GRU reads itself")
        self.encoder = ObservationEncoder(obs_encoding)
        inputs = self.encoder.width(input_dim) + lang_dim
        self.input_projection = None if obs_encoding == "raw" else nn.Linear(inputs, hidden_size)
        self.gru = nn.GRU(inputs if obs_encoding == "raw" else hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, num_actions)
        self.mission_scale = build_mission_scale(mission_fusion, lang_dim, hidden_size)

    def init_hidden(self, batch_size: int, device: torch.device | str | None = None) -> Tensor:
        """Return a zero state (1, batch, hidden_size)."""
        weight = self.head.weight
        return torch.zeros(1, batch_size, self.gru.hidden_size, dtype=weight.dtype, device=device or weight.device)

    def forward(self, x: Tensor, lang_embs: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            x: (batch, input_dim) observation vectors.
            lang_embs: (batch, lang_dim) mission vectors.
            h: (1, batch, hidden_size) state before the step.

        Returns:
            Logits (batch, num_actions) and the new state.
        """
        seen = self.encoder(x)
        if self.input_projection is None:
            inputs = torch.cat([seen, lang_embs], dim=-1)
        else:
            inputs = read_inputs(seen, lang_embs, self.input_projection, self.mission_scale)
        features, h_new = self.gru(inputs.unsqueeze(1), h)
        return self.head(features.squeeze(1)), h_new
