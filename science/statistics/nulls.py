"""What would be seen if there were nothing to see: episodes exchanged whole.

Steps of an episode are no independent observations: routing and behaviour both drift in the course of one, so that
shuffled steps find an association in 80 to 100 % of simulated data without any. Whole episodes are exchanged instead,
each with one of nearly its length, which is stretched to fit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LENGTH_BIN = 4
"""Episodes whose lengths, in steps, fall into one bin of this width are exchanged with each other."""


def swap_episodes(
    episodes: np.ndarray, strata: np.ndarray | None, rng: np.random.Generator, *, width: int = LENGTH_BIN
) -> np.ndarray:
    """Return for each step that of the episode which takes its episode's place, int (S,): `values[swap]` is the null.

    Args:
        episodes: int (S,), the steps of each episode in order of time.
        strata: int (S,), of an episode, such as its run: only episodes of one stratum are exchanged; None: all.
        rng: Draws the permutations.
        width: Of the bins of lengths, steps.
    """
    blocks = EpisodeBlocks(episodes, strata, width)
    return blocks.draw(rng)


class EpisodeBlocks:
    """The exchangeable episodes of some steps, found once and permuted as often as wanted.

    Args:
        episodes: As of `swap_episodes`.
        strata: As there.
        width: As there.
    """

    def __init__(self, episodes: np.ndarray, strata: np.ndarray | None = None, width: int = LENGTH_BIN) -> None:
        episodes = np.asarray(episodes)
        found, place, self._lengths = np.unique(episodes, return_inverse=True, return_counts=True)
        place = place.reshape(-1)
        self._rows = np.argsort(place, kind="stable")  # the steps of the first episode, then those of the second, ...
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)[:-1]])
        first = self._rows[self._starts]
        of_stratum = np.zeros(len(found), np.intp) if strata is None else np.asarray(strata)[first]
        keys = np.column_stack([of_stratum, self._lengths // width])
        self._block = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

    @property
    def exchangeable(self) -> float:
        """Share of the steps whose episode has others to be exchanged with."""
        alone = np.bincount(self._block)[self._block] < 2
        return 1.0 - float(self._lengths[alone].sum()) / float(self._lengths.sum())

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return one exchange, see `swap_episodes`."""
        keys = np.empty(len(self._lengths))
        keys[np.argsort(self._block, kind="stable")] = rng.random(len(keys))
        return self.exchange(keys)

    def exchange(self, keys: np.ndarray) -> np.ndarray:
        """Return the exchange in which a block's first episode gets the one with the smallest key, and so on.

        Args:
            keys: float64, one of each episode, in ascending order of their numbers. Random; the same ones for the same
                levels exchange several runs alike.
        """
        order = np.argsort(self._block, kind="stable")
        shuffled = order[np.lexsort((keys[order], self._block[order]))]
        donor = np.empty_like(order)
        donor[order] = shuffled
        swap = np.empty(len(self._rows), np.intp)
        own = np.repeat(np.arange(len(order)), self._lengths)
        step = np.arange(len(own)) - self._starts[own]
        taken = ((step + 0.5) * self._lengths[donor][own] / self._lengths[own]).astype(np.intp)
        swap[self._rows] = self._rows[self._starts[donor][own] + taken]
        return swap

    def draws(self, rng: np.random.Generator, times: int) -> Iterator[np.ndarray]:
        """Yield `times` exchanges."""
        for _ in range(times):
            yield self.draw(rng)


def p_value(found: float, under_null: np.ndarray) -> float:
    """Return the two-sided p of a statistic among its values under the null, (1 + those as extreme) / (1 + all).

    Extreme is far from the null's median. NaN if the statistic is.
    """
    null = np.asarray(under_null, np.float64)
    null = null[np.isfinite(null)]
    if not np.isfinite(found) or not len(null):
        return float("nan")
    center = float(np.median(null))
    return (1 + int((np.abs(null - center) >= abs(found - center) - 1e-12).sum())) / (1 + len(null))
