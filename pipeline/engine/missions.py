"""Mission vectors: each distinct sentence of an environment is encoded, and as long as that may be, projected once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from babyai.missions import MissionEncoder
from pipeline.engine.compiled.kernels import project_rows


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

    def forget(self) -> None:
        """Forget all sentences, as when the environment has forgotten its missions; room for them is kept."""
        self._known = 0

    @property
    def table(self) -> np.ndarray:
        """What `rows` are taken from, on the CPU, (M or more, width)."""
        return self._table.numpy()

    @property
    def trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a trained projection on the CPU, as it is at any time; without numbers if it is frozen."""
        if not self.trainable:
            return np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
        return self.projection.weight.detach().numpy(), self.projection.bias.detach().numpy()

    def __call__(self, mission_id: Tensor) -> Tensor:
        """Return mission vectors (..., lang_dim) for ids (...); on the CPU row by row, as a compiled unroll does."""
        rows = self.rows(mission_id)
        if not self.trainable:
            return rows
        if rows.device.type != "cpu":
            return self.projection(rows)
        vectors = rows.new_empty(*rows.shape[:-1], self.projection.out_features)
        project_rows(rows.flatten(0, -2).numpy(), *self.trained, vectors.flatten(0, -2).numpy())
        return vectors

    def rows(self, mission_id: Tensor) -> Tensor:
        """Return mission vectors, or the sentence vectors (..., encoder width) where the projection is trained."""
        return self._table[mission_id]
