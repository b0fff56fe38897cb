"""What the mean correlation between runs would be by chance, by levels alone, or with endless episodes.

See `science.pathways`, whose C this is about.
"""

from __future__ import annotations

import numpy as np

from science.exchange import draw_swaps, share_episodes
from science.profiles import Profiles, correlate, mean_over_pairs, to_unit
from science.result import NAN
from science.statistics.inference import MIN_FOR_SIGN_FLIP
from science.statistics.nulls import p_value
from science.traces import Traces, group_means, sum_over

MAX_EXCHANGES = 199
"""Of episodes."""

SPLITS = 8
"""Random halves for the disattenuated correlation."""


def find_null(
    u: np.ndarray, blocks: list[list[int]], found: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[float, float, float]:
    """Return p, the smallest p, and the mean of C under the null, see the module.

    Args:
        u: (R, X, K), centred over X.
        blocks: Of interchangeable experts.
        found: Correlations (R, R) of u.
        rng: Draws the permutations.
        draws: How many.
    """
    runs, value = len(u), mean_over_pairs(found)[0]
    if not draws or not np.isfinite(value):
        return NAN, NAN, NAN
    under = permute_groups(to_unit(u), blocks, rng, draws)
    p, floor = p_value(value, under), 1 / (1 + draws)
    if runs >= MIN_FOR_SIGN_FLIP:
        flipped = _flip_runs(found, correlate(u, blocks, -u) if blocks else -found, rng)
        p = max(p, float((np.abs(flipped) >= abs(value) - 1e-12).mean()))
        floor = max(floor, 1 / len(flipped))
    return p, floor, float(under.mean())


def permute_groups(u: np.ndarray, blocks: list[list[int]], rng: np.random.Generator, draws: int) -> np.ndarray:
    """Return the mean inner product of two runs' profiles (R, X, K) with x permuted within each run, (draws,)."""
    runs, groups = u.shape[:2]
    order = rng.permuted(np.tile(np.arange(groups), (draws, runs, 1)), axis=2)
    if blocks:
        each = (u[np.arange(runs)[:, None], one] for one in order)
        return np.array([mean_over_pairs(correlate(values, blocks, scaled=False))[0] for values in each])
    total = np.zeros((draws, *u.shape[1:]))  # the mean over pairs is (|sum|^2 - sum of |u|^2) / R(R - 1)
    for run in range(runs):
        total += u[run][order[:, run]]
    return (np.square(total).sum(axis=(1, 2)) - np.square(u).sum()) / (runs * (runs - 1))


def _flip_runs(found: np.ndarray, against: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return C for signs of runs, all up to a common one (1,023 drawn ones from 11 runs on), the given ones first.

    Args:
        found: Correlations (R, R) of profiles.
        against: The same with the other's sign changed.
        rng: Draws.
    """
    n = len(found)
    if n <= 11:
        signs = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1.0, 1.0], (1023, n))])
    off = ~np.eye(n, dtype=bool)
    same, other = (np.where(off, (matrix + matrix.T) / 2, 0.0) for matrix in (found, against))
    mean, half = (same + other) / 2, (same - other) / 2
    return (mean.sum() + np.einsum("da,ab,db->d", signs, half, signs)) / (n * (n - 1))


def exchange_levels(
    cell: Traces, by: str, profiles: Profiles, rng: np.random.Generator, draws: int
) -> tuple[float, np.ndarray]:
    """Return the mean inner product of two runs' profiles, as found, and what levels alone and chance make of it.

    Not the correlation, which does not fall as exchanged groups dilute a profile that runs share. Chance, x permuted
    within each run, is added to what is left with groups of whole episodes exchanged: pathways that each run has to
    itself vary about what levels force, and are diluted by the exchange.

    Args:
        cell: Traces.
        by: Group of steps.
        profiles: Found in them.
        rng: Draws the exchanges.
        draws: How many.

    Returns:
        The mean over pairs, and its values under the null (draws,).
    """
    runs, under = profiles.runs.tolist(), np.empty(draws)
    swaps = draw_swaps(cell, runs, draws, rng)
    codes, width = cell.group(by).codes, len(cell.group(by).names)
    steps = {run: np.flatnonzero(cell.run == run) for run in runs}
    table = None
    if cell.source == "R" and share_episodes(cell, runs):  # one grouping for all runs, side by side
        first = steps[runs[0]]
        episode = cell.episode[first] - cell.episode[first[0]]
        table = np.concatenate([cell.weights[steps[run]][:, cell.experts] for run in runs], axis=1)
    for draw in range(draws):
        if table is not None:
            exchanged = codes[first][swaps[runs[0]][draw]]
            means = _mean_side_by_side(table, episode, exchanged, width).reshape(width, len(runs), -1).swapaxes(0, 1)
        else:
            exchanged = np.full(len(codes), -1, np.int32)
            for run in runs:
                exchanged[steps[run]] = codes[steps[run]][swaps[run][draw]]
            means = group_means(cell, exchanged, width)[0][profiles.runs][:, :, cell.experts]
        values = np.nan_to_num(means[:, profiles.groups] - profiles.values.mean(axis=1, keepdims=True))
        values -= values.mean(axis=1, keepdims=True)
        under[draw] = mean_over_pairs(correlate(values, profiles.blocks, scaled=False))[0]
    u = profiles.centered
    shared = mean_over_pairs(correlate(u, profiles.blocks, scaled=False))[0]
    if not draws:
        return shared, under
    chance = permute_groups(u, profiles.blocks, rng, draws)
    return shared, under + chance - chance.mean()


def _mean_side_by_side(table: np.ndarray, episode: np.ndarray, codes: np.ndarray, width: int) -> np.ndarray:
    """Return means (G, K) of a table (S, K) over groups: steps -> episode -> mean; NaN without any."""
    pair = np.where(codes >= 0, episode.astype(np.int64) * width + codes, -1)
    found, place = np.unique(pair, return_inverse=True)
    place, found = (place.reshape(-1) - (found[:1] < 0).sum()), found[found >= 0]
    means = sum_over(place, table, len(found)) / np.bincount(place[place >= 0], minlength=len(found))[:, None]
    count = np.bincount(found % width, minlength=width)
    return sum_over((found % width).astype(np.int32), means, width) / np.where(count > 0, count, np.nan)[:, None]


def disattenuate(cell: Traces, by: str, profiles: Profiles, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlations (R', R') with endless episodes, and which runs' profiles are reliable at all, bool (R',).

    Args:
        cell: Traces.
        by: Group of steps.
        profiles: Found in them.
        rng: Draws the halves: the same levels for all runs.
    """
    codes, width = cell.group(by).codes, len(cell.group(by).names)
    levels = np.column_stack([cell.episode_level, cell.level_seed])
    level = np.unique(levels, axis=0, return_inverse=True)[1].reshape(-1)
    cross, own = [], []
    for _ in range(SPLITS):
        half = (rng.permutation(level.max() + 1) % 2)[level][cell.episode]
        sides = [group_means(cell, np.where(half == side, codes, -1), width)[0] for side in (0, 1)]
        first, second = (m[np.ix_(profiles.runs, profiles.groups)][:, :, cell.experts] for m in sides)
        if np.isfinite(first).all() and np.isfinite(second).all():
            first, second = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
            cross.append(correlate(first, profiles.blocks, second))
            own.append(np.einsum("rxk,rxk->r", to_unit(first), to_unit(second)))
    if not cross:
        return np.full((len(profiles.runs),) * 2, NAN), np.zeros(len(profiles.runs), bool)
    reliability, mean = np.mean(own, axis=0), np.mean(cross, axis=0)
    reliable = reliability > 0
    scale = np.sqrt(np.where(reliable, reliability, NAN))
    return (mean + mean.T) / 2 / np.outer(scale, scale), reliable
