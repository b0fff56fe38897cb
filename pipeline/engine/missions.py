"""Mission vectors: each distinct sentence of an environment is encoded, and as long as that may be, projected once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from babyai.missions import MissionEncoder


class MissionVectors:
    """Turns mission ids of a vector environment into the policy's mission vectors.

    Each distinct sentence is encoded once; while the projection is frozen, also projected once.

    Args:
        encoder: Sentence encoder.
        projection: Linear(encoder width -> lang_dim).
        trainable: Whether the projection changes; then it is applied afresh at each call.
    """

    def __init__(self, encoder: MissionEncoder, projection: nn.Linear, *, trainable: bool = False) -> None:
        self.encoder = encoder
        self.projection = projection
        self.trainable = trainable
        width = encoder.width if trainable else projection.out_features
        # Grown by doubling, so that a task with endless missions does not copy the table at each new one.
        self._table = projection.weight.new_zeros(0, width).detach()
        self._known = 0

    def add(self, missions: Sequence[str]) -> None:
        """Take up the sentences that came since the last call; `missions` is the environment's growing list."""
        if len(missions) == self._known:
            return
        new = self.encoder.encode(missions[self._known :]).to(self._table)
        if not self.trainable:
            # One by one: in a batch, the last bit of a row depends on how many rows there are, and a resumed run meets
            # its sentences in another grouping than the run it continues.
            with torch.no_grad():
                new = torch.stack([self.projection(sentence) for sentence in new])
        if len(missions) > len(self._table):
            grown = self._table.new_zeros(max(64, 2 * len(missions)), self._table.shape[1])
            grown[: self._known] = self._table[: self._known]
            self._table = grown
        self._table[self._known : len(missions)] = new
        self._known = len(missions)

    @property
    def table(self) -> np.ndarray:
        """Mission vectors by id, (M or more, lang_dim), of a frozen projection on the CPU."""
        return self._table.numpy()

    def __call__(self, mission_id: Tensor) -> Tensor:
        """Return mission vectors (..., lang_dim) for ids (...)."""
        rows = self.rows(mission_id)
        return self.projection(rows) if self.trainable else rows

    def rows(self, mission_id: Tensor) -> Tensor:
        """Return mission vectors, or the sentence vectors (..., encoder width) where the projection is trained."""
        return self._table[mission_id]
