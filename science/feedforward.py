"""How much of a policy cannot be told from what it sees now: a feed-forward probe, trained on other levels.

    bound = bound_memory(policies, observed.encode(), levels)        # bits (R,)

For any q, mean KL(pi_t || q(. | observation, mission)) = I(history; A | observation, mission) + mean KL(mean pi of that
observation || q): what the probe does not learn counts as memory too, so that it is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import product

import numpy as np

from science.observations import Observations
from science.result import NAN, Draft
from science.statistics.information import policies_from_logits
from science.traces import Traces

FOLDS = 4
LANDMARKS = 800
"""Steps that the probe compares others with."""

WIDTHS = (1.0, 3.0)
"""Of the kernel, tried, in the mean squared distance between two observations."""

PENALTIES = (1e-2, 1e0, 1e2)
FLOORS = (1e-3, 1e-2, 5e-2)
"""Least probabilities, tried: a sure policy costs a probe that is sure of something else as much as they allow."""

Key = tuple[float, float, float]
"""Width, penalty and floor."""


def bound_memory(policies: np.ndarray, features: np.ndarray, levels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return mean KL of each run's policies from its probe, bits (R,).

    The probe is a kernel ridge regression of the policy's probabilities (Gaussian kernel, by Nystroem's method), made
    to be at least a floor and to sum to 1; its mean squared error is least where it is the mean policy of an
    observation, where the KL is least too. All runs share one kernel, which is what makes a hundred of them cheap. Each
    step is scored by a probe of other levels, whose width, penalty and floor were chosen on levels of its own.

    Args:
        policies: float (R, S, A).
        features: (S, F), of the same steps.
        levels: int (S,).
        seed: Of the landmarks.
    """
    from sklearn.model_selection import GroupKFold  # takes a second

    runs, steps, _ = policies.shape
    found = np.full((runs, steps), NAN)
    folds = min(FOLDS, len(np.unique(levels)))
    if folds < 3:  # levels to train on, to choose on, and to score
        return np.full(runs, NAN)
    for train, test in GroupKFold(folds).split(features, groups=levels):
        inner, chosen = next(GroupKFold(folds - 1).split(train, groups=levels[train]))
        tried = _predict(policies, features, train[inner], train[chosen], seed)
        losses = {key: _divergences(policies[:, train[chosen]], q).mean(axis=1) for key, q in tried}
        keys = list(losses)
        best = np.argmin([losses[key] for key in keys], axis=0)
        wanted = {keys[place] for place in best}
        for key, q in _predict(policies, features, train, test, seed, wanted):
            own = best == keys.index(key)
            found[np.ix_(own, test)] = _divergences(policies[own][:, test], q[own])
    return found.mean(axis=1)


def _predict(
    policies: np.ndarray,
    features: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    wanted: Collection[Key] | None = None,
) -> Iterator[tuple[Key, np.ndarray]]:
    """Yield, for each setting, the probabilities (R, T, A) that a probe trained on some steps gives to others."""
    from sklearn.kernel_approximation import Nystroem
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    runs, _, actions = policies.shape
    targets = policies[:, train].transpose(1, 0, 2).reshape(len(train), -1)
    mean = targets.mean(axis=0)
    spread = 2 * float(features[train].var(axis=0).sum()) or 1.0
    keys = list(product(WIDTHS, PENALTIES, FLOORS))
    for width in WIDTHS:
        own = [key for key in keys if key[0] == width and (wanted is None or key in wanted)]
        if not own:
            continue
        with threadpool_limits(1):  # studies do several analyses side by side
            kernel = Nystroem(gamma=1 / (width * spread), n_components=min(LANDMARKS, len(train)), random_state=seed)
            near = kernel.fit_transform(features[train])
            center = near.mean(axis=0)
            near, far = near - center, kernel.transform(features[test]) - center
            values, axes = np.linalg.eigh(near.T @ near)  # once for all penalties
            inner, outer = axes.T @ (near.T @ (targets - mean)), far @ axes
            for penalty in dict.fromkeys(key[1] for key in own):
                raw = mean + outer @ (inner / (np.maximum(values, 0.0) + penalty)[:, None])
                raw = raw.reshape(len(test), runs, actions).transpose(1, 0, 2)
                for key in (key for key in own if key[1] == penalty):
                    q = np.maximum(raw, key[2])
                    yield key, q / q.sum(axis=2, keepdims=True)


def _divergences(policies: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return KL(policy || q) of each step, bits (R, T)."""
    p = np.maximum(policies, 1e-300)
    return np.where(policies > 0, policies * np.log2(p / q), 0.0).sum(axis=2)


def add_memory_bound(
    draft: Draft, cell: Traces, reasons: Mapping[int, str], observed: Mapping[str, Observations]
) -> None:
    """Add memory_bound of a task and setting, where the steps' observations are known.

    Args:
        draft: Gets the rows.
        cell: Runs of one task and setting, on replay.
        reasons: Why runs, by index, cannot be used.
        observed: By task.
    """
    task, why = cell.runs[0].task, dict(reasons)
    if task not in observed:
        return
    known = observed[task]
    values = np.full(len(cell.runs), NAN)
    usable, policies = [], []
    for run in (run for run in range(len(cell.runs)) if run not in why):
        of_run = np.flatnonzero(cell.episode_run == run)
        lengths = np.bincount(cell.episode, minlength=len(cell.episode_run))[of_run]
        logits = cell.logits[cell.run == run]
        if not (np.array_equal(cell.level_seed[of_run], known.level_seed) and np.array_equal(lengths, known.length)):
            why[run] = "its steps are not those whose observations are known"
        elif not logits.size or not np.isfinite(logits).all():
            why[run] = "logits not known"
        else:
            usable.append(run)
            policies.append(policies_from_logits(logits))
    if usable:
        values[usable] = bound_memory(np.array(policies), known.encode(), known.episode)
        why |= {run: "too few levels" for run in usable if math.isnan(values[run])}
    shared = {"tested": False, "n_levels": len(cell.levels), "n_episodes": len(known.level_seed) * len(usable)}
    texts = [why.get(run, "") for run in range(len(cell.runs))]
    draft.over_runs("memory_bound", values, cell.runs, reasons=texts, estimator="upper bound", **shared)
