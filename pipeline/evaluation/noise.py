"""The noise by which a policy's actions are drawn in an evaluation: of a level and a step, whoever plays it and where.

argmax(logits + noise) is a draw from softmax(logits) where the noise is Gumbel's (the Gumbel-max trick, Gumbel 1954;
Maddison et al., 2014, https://arxiv.org/abs/1411.0030). All policies meet the same noise on the same level, so that
what differs between them is the policies.
"""

from __future__ import annotations

import numpy as np

_STREAM = 0x6163746E
"""Tells these generators from others that are made of a level's seed."""
_BLOCK = 32
"""Steps drawn at a time."""
_LEAST = 2.0**-54
"""In place of a uniform draw of 0, whose noise would be infinite."""


class GumbelNoise:
    """Noise for the episodes that slots play.

        noise = GumbelNoise(num_envs, NUM_ACTIONS)
        action = (logits + noise.draw(env.level_seeds, t_step)).argmax(axis=-1)

    Every slot must be asked at each step of its episode, from the first one on.
    """

    def __init__(self, num_envs: int, num_actions: int) -> None:
        """Make room for the noise of `num_envs` slots."""
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._drawn = np.zeros((num_envs, _BLOCK, num_actions))
        self._slots = np.arange(num_envs)

    def draw(self, level_seeds: np.ndarray, t_step: np.ndarray) -> np.ndarray:
        """Return the noise of a step, float64 (N, actions).

        Args:
            level_seeds: Of the levels that the slots play, int (N,).
            t_step: Steps that their episodes have behind them, int (N,).
        """
        place = t_step % _BLOCK
        for slot in np.flatnonzero(place == 0):
            if t_step[slot] == 0:
                self._generators[slot] = np.random.default_rng([_STREAM, int(level_seeds[slot])])
            uniform = self._generators[slot].random(self._drawn.shape[1:])
            self._drawn[slot] = -np.log(-np.log(np.maximum(uniform, _LEAST)))
        return self._drawn[self._slots, place]
