"""Mean routing weights of each run by group, of which runs and groups; and how alike those of two runs are.

profiles = find_profiles(draft, cell, "level_subgoal")
matrix = correlate(profiles.centered, profiles.blocks)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from science.result import NAN, Draft
from science.traces import Traces, collapsed_layers, group_means

MIN_EPISODES = 5
"""Episodes that every run must have of a group."""


@dataclass(frozen=True, eq=False)
class Profiles:
    """Mean weights by group, of the runs whose routers tell groups apart.

    Attributes:
        values: float64 (R', X, K), K experts of all layers one after the other.
        runs: int (R',), index of each run in its traces.
        groups: int (X,), index of each group in its names.
        layers: int (K,), each expert's layer.
        experts: int (K,), its number in the layer.
        sizes: int (K,), its hidden size.
        reasons: Why other runs, by index, are left out.
    """

    values: np.ndarray
    runs: np.ndarray
    groups: np.ndarray
    layers: np.ndarray
    experts: np.ndarray
    sizes: np.ndarray
    reasons: dict[int, str]

    @property
    def centered(self) -> np.ndarray:
        """Values minus their mean over groups."""
        return self.values - self.values.mean(axis=1, keepdims=True)

    @property
    def blocks(self) -> list[list[int]]:
        """Experts of a layer that are equal in size, two or more, as places in 0 .. K - 1."""
        keys = list(zip(self.layers.tolist(), self.sizes.tolist(), strict=True))
        found = [[place for place, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]
        return [places for places in found if len(places) > 1]


def list_experts(cell: Traces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return layer, expert and size of all experts, int (K,) each."""
    layers, experts = np.nonzero(cell.experts)
    sizes = np.array([cell.sizes[layer][expert] for layer, expert in zip(layers, experts, strict=True)], np.int64)
    return layers, experts, sizes


def find_profiles(draft: Draft, cell: Traces, by: str, *, keep_collapsed: bool = False, quantity: str = "") -> Profiles:
    """Return the profiles of a cell; without any, and with a note, where there are not two groups or no run is left.

    Args:
        draft: Gets notes, and the runs that are left out.
        cell: Runs of one task and setting.
        by: Group of steps.
        keep_collapsed: Collapsed runs are not left out.
        quantity: What runs are left out of; empty: everything.
    """
    group = cell.group(by)
    means, episodes = group_means(cell, group.codes, len(group.names))
    reasons = find_unusable(cell)
    reasons |= {int(i): "no steps in any group" for i in np.flatnonzero(episodes.sum(axis=1) == 0) if i not in reasons}
    here = [i for i in range(len(cell.runs)) if i not in reasons]
    where = f"{cell.runs[0].task}, {cell.runs[0].setting}, by {by}"
    used = (episodes[here] >= MIN_EPISODES).all(axis=0) if here else np.zeros(len(group.names), bool)
    rare = [name for name, seen, ok in zip(group.names, episodes.sum(axis=0), used, strict=True) if seen and not ok]
    if rare:
        shown = ", ".join(rare[:6]) + (f" and {len(rare) - 6} more" if len(rare) > 6 else "")
        draft.note(f"{where}: groups of which some run has fewer than {MIN_EPISODES} episodes are left out: {shown}")
    if used.sum() >= 2:
        collapsed = collapsed_layers(means[np.ix_(here, np.flatnonzero(used))]).all(axis=1)
        reasons |= {} if keep_collapsed else {here[i]: "collapsed" for i in np.flatnonzero(collapsed)}
    for index, reason in reasons.items():
        draft.drop(cell.runs[index], reason, quantity)
    kept = np.array([i for i in here if i not in reasons], np.intp)
    if used.sum() < 2 or not len(kept):
        draft.note(f"{where}: needs two groups and a run with pathways, found {used.sum()} and {len(kept)}: no value")
        kept = kept[:0]
    groups = np.flatnonzero(used)
    values = means[np.ix_(kept, groups)][:, :, cell.experts]
    return Profiles(values, kept, groups, *list_experts(cell), reasons)


def find_unusable(cell: Traces) -> dict[int, str]:
    """Return the runs, by index, of which nothing can be computed, and why."""
    reasons = {i: "diverged" for i, run in enumerate(cell.runs) if run.diverged}
    present = np.bincount(cell.run, minlength=len(cell.runs)) > 0
    wrong = np.bincount(cell.run, ~np.isfinite(cell.weights).all(axis=(1, 2)), len(cell.runs)) > 0
    for index in range(len(cell.runs)):
        if not present[index]:
            reasons.setdefault(index, "no steps")
        elif wrong[index]:
            reasons.setdefault(index, "routing weights that are not finite")
    return reasons


def to_unit(profiles: np.ndarray) -> np.ndarray:
    """Return profiles (R, ...) less each run's mean, scaled to length 1 over all else; NaN of a constant one."""
    axes = tuple(range(1, profiles.ndim))
    centered = profiles - profiles.mean(axis=axes, keepdims=True)
    length = np.sqrt(np.square(centered).sum(axis=axes, keepdims=True))
    return centered / np.where(length > 1e-12, length, np.nan)


def correlate(
    profiles: np.ndarray, blocks: list[list[int]], others: np.ndarray | None = None, *, scaled: bool = True
) -> np.ndarray:
    """Return correlations (R, R) of profiles (R, X, K) with each other, or with others; each pair aligned by blocks.

    Not scaled, inner products of profiles as they are.

    The diagonal is that of a run with itself, not aligned. A block adds what exchanging its experts gains: mean and
    length of a profile do not depend on their order.
    """
    own = to_unit(profiles) if scaled else profiles
    theirs = own if others is None else to_unit(others) if scaled else others
    found = np.einsum("axk,bxk->ab", own, theirs)
    if not blocks:
        return found
    from scipy.optimize import linear_sum_assignment

    for block in blocks:
        inner = np.einsum("axe,bxf->abef", own[:, :, block], theirs[:, :, block])
        for a, b in zip(*np.nonzero(~np.eye(len(own), dtype=bool) & np.isfinite(found)), strict=True):
            rows, columns = linear_sum_assignment(-inner[a, b])
            found[a, b] += inner[a, b][rows, columns].sum() - np.trace(inner[a, b])
    return found


def mean_over_pairs(matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the mean over pairs of a matrix (R, R), each run's mean with the others (R,), and pseudo-values (R,).

    Pseudo-values leave out one run each (jackknife); NaN below three runs.
    """
    n = len(matrix)
    if n < 2:
        return NAN, np.full(n, NAN), np.full(n, NAN)
    both = np.where(np.eye(n, dtype=bool), 0.0, (matrix + matrix.T) / 2)
    rows = both.sum(axis=1)
    total = rows.sum() / 2
    value = total / (n * (n - 1) / 2)
    if n < 3:
        return float(value), rows / (n - 1), np.full(n, NAN)
    without = (total - rows) / ((n - 1) * (n - 2) / 2)
    return float(value), rows / (n - 1), n * value - (n - 1) * without
