"""What the rollouts say about the posterior: Z, effective sample size, KL, labels.

Every rollout of `dts`, `best_of_n` and `sample` carries w = p exp(r / lambda) / q, whose mean is Z given all that came
before it, however the search adapts. So the mean over a number of rollouts that was fixed beforehand has no bias; under
a token budget that number depends on lengths, and the estimate is consistent only.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from maxent.dts_implementation.search.result import Rollout, SearchResult


def compute_log_z(log_weights: Sequence[float] | np.ndarray) -> float:
    """Return log of the mean weight: the estimate of log Z, Z = E_prior[exp(r / lambda)]."""
    return log_sum_exp(log_weights) - math.log(len(log_weights))


def compute_z_error(log_weights: Sequence[float] | np.ndarray) -> float:
    """Return the standard error of the estimate of Z relative to it; NaN for fewer than two rollouts."""
    if len(log_weights) < 2:
        return math.nan
    weights = np.exp(np.asarray(log_weights) - np.max(log_weights))
    return float(weights.std(ddof=1) / math.sqrt(len(weights)) / weights.mean())


def compute_ess(log_weights: Sequence[float] | np.ndarray) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2, from 1 to the number of rollouts."""
    return math.exp(2 * log_sum_exp(log_weights) - log_sum_exp(2 * np.asarray(log_weights)))


def compute_kl(log_weights: Sequence[float] | np.ndarray, rewards: Sequence[float] | np.ndarray, lam: float) -> float:
    """Return KL(posterior || prior), nats, estimated: E_posterior[r] / lambda - log Z; biased low for few rollouts."""
    shares = normalise(log_weights)
    return float(shares @ np.asarray(rewards)) / lam - compute_log_z(log_weights)


def compute_label_posterior(
    labels: Iterable[Hashable | None], log_weights: Sequence[float] | np.ndarray
) -> dict[Hashable, float]:
    """Return label -> its share of the weight, the greatest first; answers without a label (None) have no say."""
    found: dict[Hashable, float] = {}
    for label, share in zip(labels, normalise(log_weights).tolist(), strict=True):
        if label is not None:
            found[label] = found.get(label, 0.0) + share
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {label: share / total if total else 1 / len(found) for label, share in ordered}


def compute_voting_weights(rollouts: Sequence[Rollout], chain: Sequence[int] | None, lam: float) -> np.ndarray:
    """Return a log-weight for each rollout, whatever the method: recorded, or the best that there is.

    A chain weighs an answer by how long it stayed there. Methods without a density weigh each distinct answer, at its
    first rollout, by its unnormalised posterior p exp(r / lambda).
    """
    if chain is not None:
        with np.errstate(divide="ignore"):
            return np.log(np.bincount(chain, minlength=len(rollouts)).astype(np.float64))
    if rollouts[0].log_weight is not None:
        return np.array([rollout.log_weight for rollout in rollouts])
    return np.array([-np.inf if one.repeated else one.log_p + one.reward / lam for one in rollouts])


def compute_record_rate(rewards: Sequence[float] | np.ndarray) -> float | None:
    """Return the share of the rollouts after the first that were better than all before; None for a single one."""
    rewards = np.asarray(rewards, np.float64)
    best = np.maximum.accumulate(rewards)
    return float((rewards[1:] > best[:-1]).mean()) if len(rewards) > 1 else None


class RunningEstimates:
    """Estimates after each rollout, in constant time, for records of a search under way.

    Attributes:
        best_so_far: Highest reward.
        record_rate: See `compute_record_rate`; NaN before the second.
        log_z: See `compute_log_z`; None without weights, as `ess`.
        ess: See `compute_ess`.
    """

    def __init__(self) -> None:
        self.best_so_far = -math.inf
        self.log_z: float | None = None
        self.ess: float | None = None
        self._count = 0
        self._records = 0
        self._sum = self._squares = -math.inf  # logs

    @property
    def record_rate(self) -> float:
        """See the class."""
        return self._records / (self._count - 1) if self._count > 1 else math.nan

    def add(self, rollout: Rollout) -> None:
        """Take in the next rollout."""
        self._count += 1
        self._records += self._count > 1 and rollout.reward > self.best_so_far
        self.best_so_far = max(self.best_so_far, rollout.reward)
        if rollout.log_weight is not None:
            self._sum = float(np.logaddexp(self._sum, rollout.log_weight))
            self._squares = float(np.logaddexp(self._squares, 2 * rollout.log_weight))
            self.log_z = self._sum - math.log(self._count)
            self.ess = math.exp(2 * self._sum - self._squares)


def summarise(result: SearchResult) -> dict[str, float | None]:
    """Return the figures of a search by name; those that need a density are None where the method has none.

    `best`, `mean`: rewards; `value`: the root's soft value, which estimates lambda log Z from the tree; `log_z`,
    `z_error`, `ess`, `kl`, `record_rate`: see above.
    """
    weights, rewards, lam = result.log_weights, result.rewards, result.settings.lam
    single = len(rewards) < 2
    return {
        "best": float(rewards.max()),
        "mean": float(rewards.mean()),
        "value": result.tree.value[0],
        "log_z": None if weights is None else compute_log_z(weights),
        "z_error": None if weights is None or single else compute_z_error(weights),
        "ess": None if weights is None else compute_ess(weights),
        "kl": None if weights is None else compute_kl(weights, rewards, lam),
        "record_rate": compute_record_rate(rewards),
    }


def log_sum_exp(numbers: Sequence[float] | np.ndarray) -> float:
    """Return log of the sum of exp of some numbers."""
    return float(np.logaddexp.reduce(np.asarray(numbers, np.float64)))


def normalise(log_weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return weights that sum to 1, (n,) float64."""
    return np.exp(np.asarray(log_weights, np.float64) - log_sum_exp(log_weights))
