"""What is known about played episodes, as plain numbers: outcomes, rates, intervals. Needs no torch."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist, fmean

SUCCESS, FAILURE, TIMEOUT = 1, 2, 3
"""Outcome codes of an ended episode; 0 is an episode still running."""


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a success probability.

    With p = successes / n and z the normal quantile of 1/2 + confidence/2, the interval is

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    (Wilson 1927, J. Am. Stat. Assoc. 22:209; no continuity correction). Unlike p -+ z sqrt(p(1-p)/n) it stays
    within [0, 1] and has a width at p = 0 and p = 1. With n = 0 nothing is known: (0, 1).

    Raises:
        ValueError: not 0 <= successes <= n, or `confidence` outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, found successes {successes}, n {n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, found {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exact where they are known; rounding would leave 0.99... and 1e-17 there.
    low = 0.0 if successes == 0 else (center - half) / scale
    high = 1.0 if successes == n else (center + half) / scale
    return low, high


class EpisodeWindow:
    """The last `size` ended episodes, and their rates over how many there really are.

    Attributes:
        total: episodes added since the beginning, those no longer kept included.
    """

    def __init__(self, size: int):
        """Start empty.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            raise ValueError(f"expected a window of at least 1 episode, found {size}")
        self.total = 0
        self._episodes: deque[tuple[int, int, int | None]] = deque(maxlen=size)

    def __len__(self) -> int:
        """Return how many episodes are kept, at most `size`."""
        return len(self._episodes)

    def add(self, outcome: int, steps: int, expert_steps: int | None = None) -> None:
        """Add an ended episode.

        Args:
            outcome: `SUCCESS`, `FAILURE` or `TIMEOUT`.
            steps: the episode's length, at least 1.
            expert_steps: length of an expert's plan that solves the same level, at least 1; None when unknown.

        Raises:
            ValueError: a value outside its range.
        """
        if outcome not in (SUCCESS, FAILURE, TIMEOUT):
            raise ValueError(f"expected outcome 1 (success), 2 (failure) or 3 (timeout), found {outcome}")
        if steps < 1 or (expert_steps is not None and expert_steps < 1):
            raise ValueError(f"expected episodes of at least 1 step, found {steps} (expert {expert_steps})")
        self._episodes.append((int(outcome), int(steps), None if expert_steps is None else int(expert_steps)))
        self.total += 1

    def summary(self) -> dict[str, float | int | None]:
        """Return the `rollout/` metrics of the window, by their keys in `pipeline.tracking.METRICS`.

        Rates and means are None while there is nothing to take them over.
        """
        n = len(self._episodes)
        outcomes = [outcome for outcome, _, _ in self._episodes]
        ratios = [
            steps / expert_steps
            for outcome, steps, expert_steps in self._episodes
            if outcome == SUCCESS and expert_steps is not None
        ]
        return {
            "rollout/success_rate": outcomes.count(SUCCESS) / n if n else None,
            "rollout/failure_rate": outcomes.count(FAILURE) / n if n else None,
            "rollout/timeout_rate": outcomes.count(TIMEOUT) / n if n else None,
            "rollout/window_episodes": n,
            "rollout/path_ratio": fmean(ratios) if ratios else None,
            "rollout/path_ratio_episodes": len(ratios),
            "rollout/episodes_total": self.total,
            "rollout/episode_steps": fmean(steps for _, steps, _ in self._episodes) if n else None,
        }

    def state(self) -> list:
        """Return what `load` needs, in plain types: [total, [outcome, steps, expert_steps], ...]."""
        return [self.total, *(list(episode) for episode in self._episodes)]

    def load(self, state: Sequence) -> None:
        """Continue from a `state`; a smaller window keeps the latest episodes.

        Raises:
            ValueError: `state` is not what `state()` returns.
        """
        if not state or not isinstance(state[0], int) or state[0] < len(state) - 1:
            raise ValueError(f"expected [total, [outcome, steps, expert_steps], ...], found {list(state)[:3]!r}")
        self._episodes.clear()
        for outcome, steps, expert_steps in state[1:]:
            self.add(outcome, steps, expert_steps)
        self.total = state[0]
