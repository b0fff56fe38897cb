"""Episodes exchanged in all runs of a cell: what groups, or LPC, would be if they told nothing of each other.

    swaps = draw_swaps(cell, runs, draws=199, rng=rng)
    codes[swaps[run][draw]]                         # of the steps of that run

All runs exchange the same levels with each other. What a level does to all of them alike is then the same under the
null, so that chance that they share is not taken for agreement. On own play, where a level's episodes differ in length
from run to run, levels are of one bin whose mean lengths are.
"""

from __future__ import annotations

import numpy as np

from science.statistics.nulls import LENGTH_BIN, EpisodeBlocks
from science.traces import Traces

ANY_LENGTH = 2**31
"""Width of a bin that holds all episodes: levels are in bins already."""


def share_episodes(cell: Traces, runs: list[int]) -> bool:
    """Return whether all these runs replay the same episodes, step by step."""
    first = None
    for run in runs:
        of_run = np.flatnonzero(cell.episode_run == run)
        inside = cell.run == run
        own = (
            cell.episode_level[of_run],
            cell.level_seed[of_run],
            cell.time[inside],
            np.searchsorted(of_run, cell.episode[inside]),
        )
        if first is not None and not all(np.array_equal(a, b) for a, b in zip(first, own, strict=True)):
            return False
        first = first or own
    return True


def draw_swaps(cell: Traces, runs: list[int], draws: int, rng: np.random.Generator) -> dict[int, list[np.ndarray]]:
    """Return exchanges of episodes for the steps of each run, by run, which exchange the same levels in each draw."""
    pair = np.column_stack([cell.episode_level, cell.level_seed])
    level = np.unique(pair, axis=0, return_inverse=True)[1].reshape(-1)
    count = np.bincount(level)
    lengths = np.bincount(cell.episode, minlength=len(level))
    mean = np.bincount(level, lengths) / np.maximum(count, 1)
    bins = (cell.episode_level * (int(mean.max(initial=0)) + 1) + mean[level] // LENGTH_BIN).astype(np.int64)
    keys = rng.random((draws, len(count)))
    found: dict[int, list[np.ndarray]] = {}
    same = cell.source == "R" and share_episodes(cell, runs)
    for run in runs:
        if same and found:
            found[run] = found[runs[0]]
            continue
        inside = np.flatnonzero(cell.run == run)
        blocks = EpisodeBlocks(cell.episode[inside], bins[cell.episode[inside]], width=ANY_LENGTH)
        own = level[np.unique(cell.episode[inside])]
        found[run] = [blocks.exchange(key[own]) for key in keys]
    return found
