"""The observation vector's layout, on which checkpoints of this model family rely."""

import numpy as np

from babyai.observations import OBSERVATION_DIM, encode_observations
from pipeline.config import TrainConfig


def test_layout_by_hand():
    view = np.arange(2 * 7 * 7 * 3, dtype=np.uint8).reshape(2, 7, 7, 3)
    vectors = encode_observations(view, np.array([0, 3]), np.array([False, True]))
    assert vectors.shape == (2, 152) and vectors.dtype == np.float32
    for k in range(2):
        for channel, x, y in ((0, 0, 0), (1, 2, 3), (2, 6, 6)):
            assert vectors[k, channel * 49 + x * 7 + y] == view[k, x, y, channel]
    assert vectors[:, 147:].tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_width_is_the_configs_default():
    assert TrainConfig().input_dim == OBSERVATION_DIM == 152
