"""Whether rewards rise from rollout to rollout: honestly, which for a sampler is hardly ever much more than by chance.

Independent draws of a continuous reward rise in half of the steps, of a reward with ties in fewer. The curve that
cannot fall is the best so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maxent.dts_implementation.search.estimates import compute_record_rate


@dataclass(frozen=True, eq=False)
class Monotonicity:
    """How the rewards of a search went; rates are None for a single rollout.

    Attributes:
        strict: Share of the steps that rise.
        non_strict: Share of the steps that do not fall.
        kendall_tau: Rank correlation (tau-b) of reward and index, in [-1, 1]; None if all rewards are equal.
        record_rate: Share of the rollouts after the first that are better than all before.
        best_so_far: float64 (rollouts,), the highest reward up to each.
    """

    strict: float | None
    non_strict: float | None
    kendall_tau: float | None
    record_rate: float | None
    best_so_far: np.ndarray


def measure_monotonicity(rewards: Sequence[float] | np.ndarray) -> Monotonicity:
    """Return how rewards went.

    Args:
        rewards: (rollouts,), in order, at least one.

    Raises:
        ValueError: If there is none.
    """
    rewards = np.asarray(rewards, np.float64)
    if not len(rewards):
        raise ValueError("expected the reward of at least one rollout, found none")
    best = np.maximum.accumulate(rewards)
    if len(rewards) == 1:
        return Monotonicity(None, None, None, None, best)
    steps = np.diff(rewards)
    tau = None
    if (steps != 0).any():
        from scipy.stats import kendalltau  # takes a second, which not everybody who reads rewards need wait for

        tau = float(kendalltau(np.arange(len(rewards)), rewards).statistic)
    return Monotonicity(
        strict=float((steps > 0).mean()),
        non_strict=float((steps >= 0).mean()),
        kendall_tau=tau,
        record_rate=compute_record_rate(rewards),
        best_so_far=best,
    )
