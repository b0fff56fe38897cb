"""Many tasks below each other: the mean over runs of each price with its interval, and every run a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import figure_style, wrap_text
from science.figures.names import DROPPED_COLOR, Drawn, color_of, count_text, in_order, label_of, means_of, runs_of
from science.figures.strips import Panel

COLUMNS = 3


@figure_style()
def draw_forest(name: str, panels: Sequence[Panel]) -> Drawn:
    """Draw quantities that are told of many tasks, three beside each other, a line for each task and price."""
    tasks = list(dict.fromkeys(task for panel in panels for task in panel.rows["task"]))
    settings = in_order(setting for panel in panels for setting in panel.rows["setting"])
    columns = min(COLUMNS, len(panels))
    height = -(-len(panels) // columns)
    tall = 0.9 + len(tasks) * max(0.16, 0.075 * len(settings))
    axes = use_axes(None, height, columns, size=(PAGE_WIDTH, 0.6 + tall * height), sharey=True)
    room = PAGE_WIDTH / columns - 0.75
    lost = False
    for ax, panel in zip(axes.flat, panels, strict=False):
        lost |= _draw_panel(ax, panel, tasks, settings)
        ax.set_title("\n".join(wrap_text(panel.title, room, 9.0)), loc="left", fontsize="medium")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(tasks)), [short_task(task) for task in tasks], fontsize="x-small")
    axes.flat[0].set_ylim(len(tasks) - 0.5, -0.5)
    handles = [Line2D([], [], color=color_of(s), marker="o", ms=3.5, lw=1.2, label=f"alpha {label_of(s)}" if s else "")
               for s in settings]  # fmt: skip
    notes = [
        "point, line: mean over runs, 95 % interval; small: runs",
        "hollow: some runs without a value" if lost else "",
    ]
    finish(list(axes.flat), notes, own=True, handles=handles if any(settings) else [])
    labels = "; ".join(panel.title for panel in panels)
    return Drawn(name, axes.flat[0].figure, f"Of each task: {labels}. Small points are runs.")


def _draw_panel(ax: Axes, panel: Panel, tasks: Sequence[str], settings: Sequence[str]) -> bool:
    """Draw a quantity; return whether some run has no value."""
    lost, counts = False, []
    single, over = runs_of(panel.rows), means_of(panel.rows)
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
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
                    ax.hlines(y + shift, row["low"], row["high"], color=color, lw=1.1, zorder=3)
                face = "white" if row["n_dropped"] > 0 else color
                ax.plot(row["value"], y + shift, marker="o", ms=3.2, color=color, mfc=face, mew=0.8, zorder=4)
    if not np.isfinite([*single["value"], *over["value"]]).any():
        ax.set_xticks([])
        style = {"ha": "center", "color": DROPPED_COLOR, "fontsize": "small"}
        ax.text(0.5, 0.5, "no run has a value", transform=ax.transAxes, **style)
    ax.set_xlabel(f"n {count_text(counts)}", fontsize="x-small", color="0.4")
    ax.tick_params(axis="y", length=0)
    return bool(lost)
