"""Many tasks below each other: the mean over runs of each price with its interval, and every run a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import figure_style, wrap_text
from science.figures.names import (
    DROPPED_COLOR,
    NULL_COLOR,
    Drawn,
    color_of,
    count_text,
    in_order,
    label_of,
    means_of,
    runs_of,
)
from science.figures.strips import Panel

COLUMNS, CROWDED = 3, 4
"""Panels beside each other; where there are so many tasks that a row of panels fills a page."""

MANY_TASKS = 12
"""From which a row of panels is a figure."""

DECADES = 20.0
"""Greatest over least value from which on an axis is logarithmic, where all are positive."""


@figure_style()
def draw_forest(name: str, panels: Sequence[Panel]) -> Drawn:
    """Draw quantities that are told of many tasks, three beside each other, a line for each task and price."""
    tasks = list(dict.fromkeys(task for panel in panels for task in panel.rows["task"]))
    settings = in_order(setting for panel in panels for setting in panel.rows["setting"])
    columns = min(COLUMNS if len(tasks) < MANY_TASKS else CROWDED, len(panels))
    height = -(-len(panels) // columns)
    tall = 0.9 + len(tasks) * max(0.16, 0.075 * len(settings))
    axes = use_axes(None, height, columns, size=(PAGE_WIDTH, 0.6 + tall * height), sharey=True)
    room, size = (PAGE_WIDTH - 1.3) / columns - 0.1, 9.0 if columns <= COLUMNS else 7.5
    lost = nulls = False
    for ax, panel in zip(axes.flat, panels, strict=False):
        found = _draw_panel(ax, panel, tasks, settings)
        lost, nulls = lost | found[0], nulls | found[1]
        ax.set_title("\n".join(wrap_text(panel.title, room, size)), loc="left", fontsize=size)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(tasks)), [short_task(task) for task in tasks], fontsize="x-small")
    axes.flat[0].set_ylim(len(tasks) - 0.5, -0.5)
    handles = [Line2D([], [], color=color_of(s), marker="o", ms=3.5, lw=1.2, label=f"alpha {label_of(s)}" if s else "")
               for s in settings]  # fmt: skip
    notes = [
        "point, line: mean over runs, 95 % interval; small: runs",
        "tick: mean under the null" if nulls else "",
        "hollow: some runs without a value" if lost else "",
    ]
    finish(list(axes.flat), notes, own=True, handles=handles if any(settings) else [])
    labels = "; ".join(panel.title for panel in panels)
    marks = (
        "Large points are means over runs with 95 % intervals, small points runs"
        + ", ticks means under the null" * nulls
    )
    return Drawn(name, axes.flat[0].figure, f"A row is a level. Panels: {labels}. {marks}.")


def _draw_panel(ax: Axes, panel: Panel, tasks: Sequence[str], settings: Sequence[str]) -> tuple[bool, bool]:
    """Draw a quantity; return whether some run has no value, and whether there is a null."""
    lost, nulls, counts = False, False, []
    single, over = runs_of(panel.rows), means_of(panel.rows)
    values = np.array([*single["value"], *over["value"]], np.float64)
    if wide := spans_decades(values):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    least = 0.5 * float(np.nanmin(values)) if wide else -math.inf
    for y in range(0, len(tasks), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="0.96", zorder=-1, lw=0)
    for s, setting in enumerate(settings):
        shift, color = 0.7 * ((s + 0.5) / len(settings) - 0.5), color_of(setting)
        for y, task in enumerate(tasks):
            own = single[(single["task"] == task) & (single["setting"] == setting)]["value"].to_numpy(np.float64)
            known = own[np.isfinite(own)]
            ax.plot(known, np.full(len(known), y + shift), ls="", marker="o", ms=1.4, color=color, alpha=0.45, zorder=2)
            for row in over[(over["task"] == task) & (over["setting"] == setting)].to_dict("records"):
                counts.append(int(row["n_runs"]))
                lost |= row["n_dropped"] > 0
                if math.isfinite(row["low"]) and math.isfinite(row["high"]):
                    ax.hlines(y + shift, max(row["low"], least), row["high"], color=color, lw=1.1, zorder=3)
                if math.isfinite(row["null_mean"]):
                    nulls = True
                    style = {"marker": "|", "ms": 5, "mew": 1.0, "color": NULL_COLOR, "zorder": 3}
                    ax.plot(row["null_mean"], y + shift, **style)
                face = "white" if row["n_dropped"] > 0 else color
                ax.plot(row["value"], y + shift, marker="o", ms=3.2, color=color, mfc=face, mew=0.8, zorder=4)
    if not np.isfinite(values).any():
        ax.set_xticks([])
        style = {"ha": "center", "color": DROPPED_COLOR, "fontsize": "small"}
        ax.text(0.5, 0.5, "no run has a value", transform=ax.transAxes, **style)
    ax.set_xlabel(f"n {count_text(counts)}", fontsize="x-small", color="0.4")
    ax.tick_params(axis="y", length=0)
    return bool(lost), nulls


def spans_decades(values: np.ndarray) -> bool:
    """Return whether values are all positive, and so far apart that a linear axis hides most of them."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0 and known.max() > DECADES * known.min())
