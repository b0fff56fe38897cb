"""The baseline's policy: one GRU without routing. `train.py` trains it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GRUPolicy(nn.Module):
    """Observation and mission -> GRU -> Linear to action logits.

    Args:
        input_dim: Width of the observation vector.
        hidden_size: Width of the GRU.
        num_actions: Width of the output.
        lang_dim: Width of the mission vector.
    """

    def __init__(self, input_dim: int, hidden_size: int, num_actions: int, lang_dim: int = 32) -> None:
        super().__init__()
        self.gru = nn.GRU(input_dim + lang_dim, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, num_actions)

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
        features, h_new = self.gru(torch.cat([x, lang_embs], dim=-1).unsqueeze(1), h)
        return self.head(features.squeeze(1)), h_new
