"""The observation vector: the one encoding that training, evaluation and notebooks share."""

from __future__ import annotations

import numpy as np

from babyai.facts import NUM_DIRECTIONS, VIEW_SIZE

OBSERVATION_DIM = 3 * VIEW_SIZE * VIEW_SIZE + NUM_DIRECTIONS + 1  # 152


def encode_observations(view: np.ndarray, direction: np.ndarray, carrying: np.ndarray) -> np.ndarray:
    """Return observation vectors (N, 152), float32.

    The partial view, permuted to (channel, x, y) and flattened (147 raw integer codes, not scaled), the direction as
    one-hot (4), whether anything is carried (1). Checkpoints of this model family rely on this layout.

    Args:
        view: (N, 7, 7, 3) uint8, indexed [x, y, (object, colour, state)] as minigrid gives it.
        direction: (N,) int, 0 right, 1 down, 2 left, 3 up.
        carrying: (N,) bool.
    """
    batch = len(view)
    vectors = np.zeros((batch, OBSERVATION_DIM), dtype=np.float32)
    cells = 3 * VIEW_SIZE * VIEW_SIZE
    vectors[:, :cells] = view.transpose(0, 3, 1, 2).reshape(batch, cells)
    vectors[np.arange(batch), cells + direction] = 1.0
    vectors[:, -1] = carrying
    return vectors
