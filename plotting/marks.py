"""Marks of single runs: a few are seen each, ten thousand as how dense they lie.

mark_runs(ax, runs["mean_lpc"], runs["success_rate"], runs["collapse"], "o", color="C0", markersize=3.0)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

MANY = 30
"""From more marks of a kind than this on each is the paler, and PDFs hold a picture of them."""

_PALEST = 0.04


def fade(count: int, opacity: float = 1.0) -> dict[str, Any]:
    """Return the style of one of so many marks, or lines, of a kind: together they hide no more than `MANY` do."""
    return {"alpha": max(_PALEST, opacity * min(1.0, MANY / max(1, count))), "rasterized": count > MANY}


def mark_runs(ax: Axes, x: ArrayLike, y: ArrayLike, collapse: ArrayLike, marker: str, **style: Any) -> None:
    """Draw the runs whose routers have not collapsed with a marker, all at once, which takes as long as one.

    Args:
        ax: To draw on.
        x: Of each run.
        y: Likewise.
        collapse: How each has collapsed, "" if it has not.
        marker: Of matplotlib.
        **style: Of `Axes.plot`; `alpha` is that of a single mark where there are few.
    """
    keep = np.array([not how for how in np.atleast_1d(collapse)], bool)
    if keep.any():
        style |= fade(int(keep.sum()), style.get("alpha", 1.0))
        ax.plot(np.asarray(x, float)[keep], np.asarray(y, float)[keep], marker, **style)


def mark_collapsed(ax: Axes, x: ArrayLike, y: ArrayLike, collapse: ArrayLike, **style: Any) -> None:
    """Draw a cross at each run whose routers have collapsed; see `mark_runs`."""
    mark_runs(ax, x, y, [not how for how in np.atleast_1d(collapse)], "x", **style)
