"""Linear probes: what is asked of states, how they are cut to one width, and predictions for episodes not trained on.

targets = list_targets(facts, episode)                    # subgoal, carrying, door, distance, plan_left
correct = predict_apart(features, codes, episode)         # 1, 0, NaN for each step
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

WIDTH = 16
"""Numbers that a probe sees: a wider source is cut to as many by a random projection, so that all see as much."""

FOLDS = 4
MIN_EPISODES = 8
"""Episodes that a class must occur in; steps of a rarer one are left out."""

BINS = 3
TARGETS = ("subgoal", "carrying", "door", "distance", "plan_left")


@dataclass(frozen=True, eq=False)
class Target:
    """What a probe is to tell.

    Attributes:
        codes: int8 (S,), class of each step; -1: none.
        names: Of the classes.
    """

    codes: np.ndarray
    names: tuple[str, ...]


def list_targets(steps: Mapping[str, np.ndarray], episode: np.ndarray) -> dict[str, Target]:
    """Return the targets of which there are two classes or more, by name.

    Args:
        steps: Facts of S steps as `pipeline.replay.trajectories` has them: subgoal, carrying, door_unlocked, walking.
        episode: int (S,), steps in order of time.
    """
    from babyai.facts import SUBGOAL_NAMES, TARGET

    lengths = np.bincount(episode)
    starts = np.cumsum(lengths) - lengths
    left = lengths[episode] - (np.arange(len(episode)) - starts[episode])
    distance, distances = _bin(np.asarray(steps["walking"], np.float64)[:, TARGET], "moves")
    plan, plans = _bin(left.astype(np.float64), "steps")
    found = {
        "subgoal": (np.asarray(steps["subgoal"], np.int64), SUBGOAL_NAMES),
        "carrying": (np.asarray(steps["carrying"]).astype(bool).astype(np.int64), ("not carrying", "carrying")),
        "door": (np.asarray(steps["door_unlocked"], np.int64), ("locked", "unlocked")),
        "distance": (distance, distances),
        "plan_left": (plan, plans),
    }
    kept = {name: _drop_rare(codes, names, episode) for name, (codes, names) in found.items()}
    return {name: target for name, target in kept.items() if len(target.names) > 1}


def _bin(values: np.ndarray, unit: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the third that each value is in, -1 for NaN, and what the thirds are called."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(values), -1), ()
    edges = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS, method="lower"))
    codes = np.where(known, np.searchsorted(edges, np.where(known, values, 0.0)), -1)
    first, last = f"{edges[0]:g}", f"{edges[-1]:g}"
    inner = [f"over {low:g} up to {high:g} {unit}" for low, high in pairwise(edges)]
    return codes, (f"up to {first} {unit}", *inner, f"over {last} {unit}")


def _drop_rare(codes: np.ndarray, names: tuple[str, ...], episode: np.ndarray) -> Target:
    kept = [c for c in range(len(names)) if len(np.unique(episode[codes == c])) >= MIN_EPISODES]
    renumbered = np.full(len(names) + 1, -1)
    renumbered[kept] = np.arange(len(kept))
    return Target(renumbered[np.where(codes < 0, len(names), codes)].astype(np.int8), tuple(names[c] for c in kept))


def choose_steps(episode: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return so many steps drawn at random, ascending; all if there are no more."""
    if len(episode) <= number:
        return np.arange(len(episode))
    return np.sort(np.random.default_rng(seed).choice(len(episode), number, replace=False))


def project(values: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Return values (..., D) cut to (..., WIDTH) by a random projection, the same for the same name and seed."""
    if values.shape[-1] <= WIDTH:
        return values
    return values @ draw_projection(values.shape[-1], name, seed)


def draw_projection(width: int, name: str, seed: int) -> np.ndarray:
    """Return a Gaussian projection (width, WIDTH), whose columns have length 1 on average."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.normal(size=(width, WIDTH)) / np.sqrt(width)


@cache
def _thread_pools() -> ThreadpoolController:
    """Return what sets the threads of BLAS and OpenMP; looking for them takes longer than a small probe."""
    import sklearn.linear_model  # noqa: F401  with the libraries that probes use
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def fit_probe(features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean (D,), scale (D,) and coefficients (C, D + 1), constants last, of a logistic ridge regression.

    Features are scaled to variance 1 and penalised as in scikit-learn with C = 1; classes weigh the same.

    Args:
        features: (n, D).
        codes: int (n,), of two classes or more, 0 .. C - 1; a class without steps has no chance.
    """
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    sizes = np.bincount(codes)
    weight = len(codes) / (np.count_nonzero(sizes) * sizes[codes])  # as class_weight="balanced" finds, in less time
    model = LogisticRegression(max_iter=100, tol=1e-3)
    # The checks of what is right here take as long as many a probe.
    with config_context(assume_finite=True, skip_parameter_validation=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it has then is a probe too
        model.fit((features - mean) / scale, codes, sample_weight=weight)
    rows = np.column_stack([model.coef_, model.intercept_])
    rows = np.vstack([-rows, rows]) / 2 if len(rows) == 1 else rows
    found = np.full((int(codes.max()) + 1, rows.shape[1]), 0.0)
    found[:, -1] = -np.inf
    found[model.classes_] = rows
    return mean, scale, found


def predict_apart(features: np.ndarray, codes: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Return whether each step's class is told right by a probe of other episodes, 1 or 0; NaN of steps without.

    All NaN with fewer than `FOLDS` episodes.

    Args:
        features: (n, D).
        codes: int (n,), -1: none.
        episode: int (n,); whole ones go to one of `FOLDS` parts (scikit-learn's GroupKFold).
    """
    from sklearn.model_selection import GroupKFold

    found = np.full(len(codes), np.nan)
    known = np.flatnonzero(codes >= 0)
    if len(np.unique(episode[known])) < FOLDS:
        return found
    with _thread_pools().limit(limits=1):  # studies do several analyses side by side
        for train, test in GroupKFold(FOLDS).split(known, groups=episode[known]):
            train, test = known[train], known[test]
            if len(np.unique(codes[train])) < 2:
                found[test] = codes[test] == codes[train[0]]
                continue
            mean, scale, rows = fit_probe(features[train], codes[train])
            scores = (features[test] - mean) / scale @ rows[:, :-1].T + rows[:, -1]
            found[test] = scores.argmax(axis=1) == codes[test]
    return found


def score_episodes(correct: np.ndarray, codes: np.ndarray, episode: np.ndarray, count: int) -> np.ndarray:
    """Return each episode's share in balanced accuracy, (count,), whose mean over those with steps is that accuracy.

    Args:
        correct: 1 or 0 (n,), NaN for none.
        codes: int (n,).
        episode: int (n,), 0 .. count - 1.
        count: Of episodes; one without steps has NaN.
    """
    used = np.flatnonzero(np.isfinite(correct) & (codes >= 0))
    present = np.bincount(episode[used], minlength=count) > 0
    if not len(used):
        return np.full(count, np.nan)
    sizes = np.bincount(codes[used])
    weight = 1.0 / (sizes[codes[used]] * (sizes > 0).sum())
    total = np.bincount(episode[used], weight * correct[used], minlength=count)
    return np.where(present, total * present.sum(), np.nan)


def find_directions(features: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the directions (D, C - 1) of features that a probe of all these steps reads.

    Args:
        features: (n, D).
        codes: int (n,), -1: none.
    """
    known = codes >= 0
    _, scale, rows = fit_probe(features[known], codes[known])
    read = (rows[:, :-1] - rows[:, :-1].mean(axis=0)) / scale  # what all classes share tells none apart
    return np.linalg.svd(read, full_matrices=False)[2][: len(rows) - 1].T
