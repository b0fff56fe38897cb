"""Activities rewarded by a small classifier's opinion of the series: it has never seen the sample that is asked about.

reward = ActivityReward.fit(train, held_out, ACTIVITIES)
reward.accuracy                   # how far the reward itself can be trusted
reward(view, answer).total        # log p(answered label | series), clipped and scaled to [-1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maxent.data.prompts import parse_answer
from maxent.data.sample import DataError, Sample, View
from maxent.rewards.copies import remove_copies
from maxent.rewards.result import Answer, RewardResult

FLOOR = -5.0
"""log p, nats, at and below which an answer is as wrong as can be: reward -1, as for no answer at all."""

PENALTY = 1e-2
"""Of the squared weights, per sample."""


@dataclass(frozen=True, eq=False)
class ActivityReward:
    """Softmax regression on a few features of the axes, as a reward.

    Attributes:
        labels: Classes.
        mean: Of the features in training, (features,).
        scale: Their deviations.
        weights: (features + 1, classes), the last row for the offset.
        accuracy: On samples that were not trained on.
        num_held_out: So many.
    """

    labels: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    accuracy: float
    num_held_out: int

    @classmethod
    def fit(cls, train: Sequence[Sample], held_out: Sequence[Sample], labels: Sequence[str]) -> ActivityReward:
        """Return the reward for a classifier that is fitted on training samples; the same each time.

        Args:
            train: With their labels.
            held_out: Others, to measure the accuracy on.
            labels: Classes.

        Raises:
            DataError: If a class has no training sample, or there is nothing to measure on.
        """
        if missing := sorted(set(labels) - {sample.label for sample in train}):
            raise DataError(f"reward activity: expected training samples of each label, found none of {missing}")
        if not held_out:
            raise DataError("reward activity: expected held-out samples to measure its accuracy on, found none")
        features = np.stack([compute_features(sample.series) for sample in train])
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale[scale == 0] = 1.0
        order = {label: at for at, label in enumerate(labels)}
        targets = np.array([order[sample.label] for sample in train])
        weights = _fit_softmax(_extend((features - mean) / scale), targets, len(labels))
        blind = cls(tuple(labels), mean, scale, weights, 0.0, len(held_out))
        hits = [sample.label == labels[int(blind.compute_log_probs(sample.series).argmax())] for sample in held_out]
        return cls(tuple(labels), mean, scale, weights, float(np.mean(hits)), len(held_out))

    def compute_log_probs(self, series: np.ndarray) -> np.ndarray:
        """Return log p of each class, nats, (classes,)."""
        scores = _extend((compute_features(series) - self.mean) / self.scale)[0] @ self.weights
        return scores - np.logaddexp.reduce(scores)

    def __call__(self, view: View, answer: Answer) -> RewardResult:
        """Return the reward of the last `Answer: <label>`; -1 without one, or if it is no label."""
        label = parse_answer(remove_copies(view.prompt, answer.text), self.labels)
        if label is None:
            return RewardResult(-1.0, {"answered": 0.0})
        log_p = float(self.compute_log_probs(view.series)[self.labels.index(label)])
        return RewardResult(1.0 - 2.0 * max(log_p, FLOOR) / FLOOR, {"answered": 1.0, "log_p": log_p})


def compute_features(series: np.ndarray) -> np.ndarray:
    """Return features of some axes: means, log deviations, log steps, and where the power lies.

    Rates are told in periods per window, the first 16 in bands, so that a series need not say its own.

    Args:
        series: float64 (3, points).
    """
    moving = series - series.mean(axis=1, keepdims=True)
    deviations = np.log(moving.std(axis=1) + 1e-3)
    power = (np.abs(np.fft.rfft(moving, axis=1)) ** 2).sum(axis=0)[1:33]
    power = np.pad(power, (0, 32 - len(power)))
    shares = power / (power.sum() + 1e-9)
    bands = shares.reshape(16, 2).sum(axis=1)[:8]
    center = float(shares @ np.arange(1, 33))
    steps = np.log(np.abs(np.diff(series, axis=1)).mean(axis=1) + 1e-3) if series.shape[1] > 1 else deviations
    return np.concatenate([series.mean(axis=1), deviations, steps, bands, [center / 8]])


def _extend(features: np.ndarray) -> np.ndarray:
    """Return features with a column of ones, (rows, features + 1)."""
    features = np.atleast_2d(features)
    return np.hstack([features, np.ones((len(features), 1))])


def _fit_softmax(inputs: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the weights of least cross-entropy plus penalty, (features + 1, classes); the offset has no penalty."""
    from scipy.optimize import minimize  # takes 0.3 s, which only this reward has to wait for

    rows, width = inputs.shape
    truth = np.eye(num_classes)[targets]
    penalised = np.ones((width, 1))
    penalised[-1] = 0.0

    def compute_loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width, num_classes)
        scores = inputs @ weights
        log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        loss = -float((truth * log_probs).sum()) / rows + PENALTY / 2 * float((penalised * weights**2).sum())
        gradient = inputs.T @ (np.exp(log_probs) - truth) / rows + PENALTY * penalised * weights
        return loss, gradient.ravel()

    found = minimize(compute_loss, np.zeros(width * num_classes), jac=True, method="L-BFGS-B")
    return found.x.reshape(width, num_classes)
