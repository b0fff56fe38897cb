"""The calibration card's figure: how often each test is wrong on noise, and right on what was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.style import CATEGORY_COLORS, WARNING_COLOR, count_of, figure_style
from science.figures.names import NULL_COLOR, Drawn


@figure_style()
def draw_calibration(table: pd.DataFrame, level: float) -> Drawn:
    """Draw the card.

    Args:
        table: Columns quantity, false_positives with low and high, data_sets, recovered; NaN for what was not tried.
        level: Of the tests.
    """
    names = list(table["quantity"])
    axes = use_axes(None, 1, 2, size=(PAGE_WIDTH, 1.2 + 0.24 * max(2, len(names))), sharey=True)
    left, right = axes[0]
    y = np.arange(len(names))[::-1]
    left.axvline(level, color=NULL_COLOR, ls=(0, (2, 1)), lw=1.0)
    for place, row in zip(y, table.to_dict("records"), strict=True):
        color = WARNING_COLOR if row["low"] > level else CATEGORY_COLORS[0]
        left.hlines(place, row["low"], row["high"], color=color, lw=1.2)
        left.plot(row["false_positives"], place, "o", ms=4, color=color)
        right.plot(row["recovered"], place, "s", ms=4, color=CATEGORY_COLORS[2])
    left.set_yticks(y, names)
    left.set_ylim(-0.7, len(names) - 0.3)
    high = table["high"].max()
    left.set_xlim(0, max(0.15, 1.1 * float(high) if np.isfinite(high) else 0.15))
    left.locator_params(axis="x", nbins=5)
    left.set_xlabel("false positives, 95 % interval")
    right.set_xlim(0, 1.04)
    right.set_xlabel("found where planted")
    sets = count_of(int(table["data_sets"].max()), "data set")
    finish(
        [left, right],
        [f"n = {sets} each, a test without p has no mark; dashed: the level, {level:g}; red: wrong more often"],
        own=True,
    )
    caption = (
        "How often each test of this design is wrong on noise of its shape, and how often it finds what was planted."
    )
    return Drawn("calibration", left.figure, caption)
