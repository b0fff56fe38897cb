"""Episodes exchanged in all runs of a cell: what groups, or LPC, would be if they told nothing of each other.

    swaps = draw_swaps(cell, runs, draws=199, rng=rng)
    codes[swaps[run][draw]]                         # of the steps of that run

Runs that replay the same episodes get the same exchange. What a level does to all of them alike is then the same under
the null, so that chance that they share is not taken for agreement.
"""

from __future__ import annotations

import numpy as np

from science.statistics.nulls import EpisodeBlocks
from science.traces import Traces


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
    """Return exchanges of episodes for the steps of each run, by run.

    Runs that replay the same episodes get the same ones: what they share is then shared under the null too.
    """
    found: dict[int, list[np.ndarray]] = {}
    if not draws or not runs:
        return found
    same = cell.source == "R" and share_episodes(cell, runs)
    for run in runs:
        if same and found:
            found[run] = found[runs[0]]
            continue
        inside = np.flatnonzero(cell.run == run)
        found[run] = list(EpisodeBlocks(cell.episode[inside], cell.level[inside]).draws(rng, draws))
    return found
