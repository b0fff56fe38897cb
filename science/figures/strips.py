"""Strips of points: every run at each price, the mean over runs with its interval, the null, n, what was dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL
from plotting.panels import PAGE_WIDTH, finish, series_style, use_axes, write_near
from plotting.runs import short_task
from plotting.style import figure_style, wrap_text
from science.figures.names import (
    DROPPED_COLOR,
    NULL_COLOR,
    Drawn,
    alpha_of,
    color_of,
    count_text,
    in_order,
    label_of,
    means_of,
    runs_of,
)

_LEAST_SPAN = 0.02
"""Of an axis of y: less is noise made large."""


@dataclass(frozen=True)
class Panel:
    """One strip.

    Attributes:
        title: Of it.
        rows: Of single runs and over runs, of one quantity.
        by: Column whose values are apart along x: setting, or another.
    """

    title: str
    rows: pd.DataFrame = field(repr=False)
    by: str = "setting"


@dataclass
class _Told:
    """What occurs in a figure, and so must be explained."""

    null: bool = False
    dropped: bool = False
    interval: bool = False
    alphas: set[str] = field(default_factory=set)


@figure_style()
def draw_strips(name: str, panels: Sequence[Panel]) -> Drawn:
    """Draw panels, three beside each other."""
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    axes = use_axes(None, height, columns, size=(PAGE_WIDTH, 0.9 + 2.25 * height))
    told, tasks = _Told(), list(dict.fromkeys(t for panel in panels for t in panel.rows["task"] if t))
    for ax, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(ax, panel, columns, tasks, told)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    notes = ["red: runs without a value" if told.dropped else "", "n: runs with a value"]
    notes += [] if told.interval else [f"no interval below {MIN_FOR_INTERVAL} runs that differ"]
    finish(list(axes.flat), notes, own=True, handles=_handles(tasks, told))
    labels = "; ".join(panel.title for panel in panels)
    return Drawn(name, axes.flat[0].figure, f"{labels[:1].upper()}{labels[1:]}. {_caption(told)}")


def _handles(tasks: Sequence[str], told: _Told) -> list[Line2D]:
    found = []
    if len(tasks) > 1:
        for index, task in enumerate(tasks):
            style = {"ls": "", "marker": series_style(index)[1], "color": "0.45", "ms": 4}
            found.append(Line2D([], [], label=f"a run, {short_task(task)}", **style))
    else:
        found.append(Line2D([], [], ls="", marker="o", color="0.45", ms=4, label="a run"))
    if told.interval:
        found.append(Line2D([], [], color="black", marker="|", ms=9, label="mean over runs, 95 % interval"))
    if told.null:
        found.append(Line2D([], [], color=NULL_COLOR, ls=(0, (2, 1)), label="mean under the null"))
    if len(told.alphas) > 1:
        style = {"ls": "", "marker": "o", "ms": 4}
        found += [
            Line2D([], [], color=color_of(s), label=f"alpha {label_of(s)}", **style) for s in in_order(told.alphas)
        ]
    return found


def _caption(told: _Told) -> str:
    parts = ["Every point is a run."]
    parts += ["Bars are means over runs with 95 % intervals."] if told.interval else ["Bars are means over runs."]
    parts += ["Dashed: the mean under the null."] if told.null else []
    parts += ["Runs without a value are counted in red."] if told.dropped else []
    return " ".join(parts)


def _draw_panel(ax: Axes, panel: Panel, columns: int, tasks: Sequence[str], told: _Told) -> None:
    rows = panel.rows
    places = in_order(rows["setting"]) if panel.by == "setting" else list(dict.fromkeys(rows[panel.by]))
    inner = [""] if panel.by == "setting" else in_order(rows["setting"])
    own = [(t, task) for t, task in enumerate(tasks or [""]) if not tasks or (rows["task"] == task).any()]
    count = max(1, len(own)) * len(inner)
    width = 0.78 / count
    for p, place in enumerate(places):
        counts, lost = [], 0
        for at, (t, task) in enumerate(own or [(0, "")]):
            for s, setting in enumerate(inner):
                here = rows[(rows[panel.by] == place) & (rows["task"] == task)]
                here = here if panel.by == "setting" else here[here["setting"] == setting]
                if not len(here):
                    continue
                told.alphas |= {setting} if setting else set()
                x = p + width * (at * len(inner) + s - (count - 1) / 2)
                n, dropped = _draw_place(ax, here, x, width, setting or place, series_style(t)[1], told)
                counts.append(n)
                lost += dropped
        style = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": "xx-small"}
        write_near(ax, f"n {count_text(counts)}", (p, 1.0), (0, -6), color="0.4", **style)
        if lost:
            told.dropped = True
            write_near(ax, f"\N{MINUS SIGN}{lost}", (p, 1.0), (0, -13), color=DROPPED_COLOR, **style)
    room = PAGE_WIDTH / columns - 0.6
    names = [label_of(place) if panel.by == "setting" else str(place) for place in places]
    ax.set_xticks(range(len(places)), ["\n".join(wrap_text(n, room / max(1, len(places)), 8.0)) for n in names])
    ax.set_xlim(-0.6, len(places) - 0.4)
    if panel.by == "setting" and any(alpha_of(place) is not None for place in places):
        ax.set_xlabel("alpha")
    elif places == [""]:
        ax.set_xticks([])
    ax.set_title("\n".join(wrap_text(panel.title, room, 9.0)), loc="left", fontsize="medium")
    low, high = ax.get_ylim()
    if high - low < _LEAST_SPAN:
        low, high = (low + high - _LEAST_SPAN) / 2, (low + high + _LEAST_SPAN) / 2
    if not np.isfinite(runs_of(rows)["value"]).any() and not np.isfinite(means_of(rows)["value"]).any():
        ax.set_yticks([])
        ax.text(
            0.5, 0.45, "no run has a value", transform=ax.transAxes, ha="center", color=DROPPED_COLOR, fontsize="small"
        )
    ax.set_ylim(low, high + 0.17 * (high - low))


def _draw_place(
    ax: Axes, rows: pd.DataFrame, x: float, width: float, setting: str, marker: str, told: _Told
) -> tuple[int, int]:
    """Draw the runs of one task and setting, their mean, and the null; return runs with and without a value."""
    single, over = runs_of(rows), means_of(rows)
    values = single.sort_values("seed")["value"].to_numpy(np.float64)
    known = values[np.isfinite(values)]
    spread = np.linspace(-0.3, 0.3, len(known)) * width if len(known) > 1 else np.zeros(len(known))
    ax.plot(x + spread, known, ls="", marker=marker, ms=3.2, color=color_of(setting), mec="0.35", mew=0.3, zorder=2)
    for row in over.to_dict("records"):
        if math.isfinite(row["value"]):
            ax.hlines(row["value"], x - 0.38 * width, x + 0.38 * width, color="black", lw=1.3, zorder=4)
        if math.isfinite(row["low"]) and math.isfinite(row["high"]) and row["high"] > row["low"]:
            told.interval = True
            ax.vlines(x, row["low"], row["high"], color="black", lw=1.0, zorder=4)
        if math.isfinite(row["null_mean"]):
            told.null = True
            style = {"color": NULL_COLOR, "ls": (0, (2, 1)), "lw": 1.0, "zorder": 3}
            ax.hlines(row["null_mean"], x - 0.45 * width, x + 0.45 * width, **style)
    if len(over):
        return int(over["n_runs"].max()), int(over["n_dropped"].max())
    return len(known), len(values) - len(known)
