"""Curves over a number: a threshold, the price; every run a thin line, the mean over runs a thick one with its band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import expert_colors, expert_labels, figure_style, wrap_text
from science.figures.experts import name_colors, name_layers
from science.figures.names import (
    Drawn,
    alpha_of,
    color_of,
    count_text,
    in_order,
    label_of,
    means_of,
    name_of,
    number_of,
    runs_of,
)

LOGARITHMIC = ("update",)
"""What conditions count whose axis is logarithmic."""

MOST_WIDE = 2
"""Columns beside each other in which a title has room for all of its words."""

_BAND = "thin: runs; thick, band: mean over runs and its 95 % t interval"


@figure_style()
def draw_curves(name: str, quantities: Sequence[tuple[pd.DataFrame, str]], start: float | None = None) -> Drawn:
    """Draw quantities against the number in their conditions, a row for each, a column for each task.

    Args:
        name: Of the figure.
        quantities: Rows and label of each.
        start: Value at 0, which is no condition; None: none.
    """
    tasks = list(dict.fromkeys(quantities[0][0]["task"]))
    size = (PAGE_WIDTH, 1.0 + 2.2 * len(quantities))
    axes = use_axes(None, len(quantities), len(tasks), size=size, sharex=True, sharey="row")
    axis, nulls = "", False
    for across, (rows, label) in zip(axes, quantities, strict=True):
        rows = rows.assign(x=[number_of(text) for text in rows["condition"]])
        axis = name_of(rows["condition"].iloc[0]) or "condition"
        for ax, task in zip(across, tasks, strict=True):
            counts = []
            for setting in in_order(rows["setting"][rows["task"] == task]):
                single = runs_of(rows[(rows["task"] == task) & (rows["setting"] == setting)])
                wide = single.pivot_table(index=["trial", "seed"], columns="x", values="value")
                if start is not None:
                    wide.insert(0, 0.0, start)
                counts.append(_draw_lines(ax, wide, color_of(setting), f"alpha {label_of(setting)}"))
                nulls |= _draw_null(ax, rows[(rows["task"] == task) & (rows["setting"] == setting)], color_of(setting))
            if axis in LOGARITHMIC:
                ax.set_xscale("log")
                ax.set_xticks(places := sorted(set(rows["x"].dropna())), [f"{place:g}" for place in places])
                ax.minorticks_off()
            whole = f"{short_task(task)}, n = {count_text(counts)} runs at each price"
            narrow = f"{short_task(task)}\nn = {count_text(counts)}"
            wide_enough = len(tasks) <= MOST_WIDE
            ax.set_title(whole if wide_enough else narrow, loc="left", fontsize="medium" if wide_enough else "small")
            low, high = ax.get_ylim()
            if high - low < 0.02:
                ax.set_ylim((low + high) / 2 - 0.01, (low + high) / 2 + 0.01)
        across[0].set_ylabel("\n".join(wrap_text(label, 2.0, 9.0)))
    for ax in axes[-1]:
        ax.set_xlabel(axis)
    finish(list(axes.flat), [_BAND, "dashed: mean under the null" if nulls else ""], own=True)
    labels = "; ".join(label for _, label in quantities)
    said = " Dashed: the mean under the null." if nulls else ""
    return Drawn(name, axes.flat[0].figure, f"Against {axis}: {labels}. Thin lines are runs.{said}")


def _draw_null(ax: Axes, rows: pd.DataFrame, color: str) -> bool:
    """Draw the mean under the null, where there is one; return whether there is."""
    known = means_of(rows).sort_values("x").dropna(subset=["null_mean"])
    ax.plot(known["x"], known["null_mean"], color=color, lw=1.0, ls=(0, (2, 1)), zorder=2)
    return len(known) > 0


def _draw_lines(ax: Axes, wide: pd.DataFrame, color: str, label: str) -> int:
    """Draw runs, their mean and its band; return the number of runs."""
    if not len(wide):
        return 0
    x, values = wide.columns.to_numpy(np.float64), wide.to_numpy(np.float64)
    for row in values:
        ax.plot(x, row, color=color, lw=0.5, alpha=0.45)
    mean = mean_interval(values)
    ax.plot(x, mean.mean, color=color, lw=1.8, label=label, zorder=3)
    if len(wide) >= MIN_FOR_INTERVAL:
        ax.fill_between(x, mean.low, mean.high, color=color, alpha=0.15, lw=0)
    return len(wide)


@figure_style()
def draw_usage(name: str, rows: pd.DataFrame, sizes: Sequence[Sequence[int]]) -> Drawn:
    """Draw each expert's usage against the price, a row for each task, a column for each layer."""
    tasks, layers = list(dict.fromkeys(rows["task"])), sorted(set(rows["layer"]))
    settings = [setting for setting in in_order(rows["setting"]) if alpha_of(setting) is not None]
    axes = use_axes(None, len(tasks), len(layers), size=(PAGE_WIDTH, 1.0 + 2.0 * len(tasks)), sharex=True, sharey=True)
    titles = name_layers(sizes, ": ")
    for across, task in zip(axes, tasks, strict=True):
        for ax, layer in zip(across, layers, strict=True):
            here = runs_of(rows[(rows["task"] == task) & (rows["layer"] == layer)])
            experts = sorted(set(here["expert"]))
            colors, names = expert_colors(sizes[layer], len(sizes[layer])), expert_labels(sizes[layer])
            for expert in experts:
                wide = here[here["expert"] == expert].pivot_table(index="seed", columns="setting", values="value")
                wide = wide.reindex(columns=settings)
                wide.columns = range(len(settings))
                _draw_lines(ax, wide, colors[expert], names[expert])
            n = count_text([here[here["setting"] == s]["seed"].nunique() for s in settings])
            ax.set_title(f"{short_task(task)}, {titles[layer]}, n = {n}", loc="left", fontsize="medium")
            ax.set_ylim(-0.03, 1.03)
            ax.set_xticks(range(len(settings)), [label_of(setting) for setting in settings])
        across[0].set_ylabel("usage (mean weight)")
    for ax in axes[-1]:
        ax.set_xlabel("alpha")
    handles = [Line2D([], [], color=color, lw=1.8, label=label) for color, label in name_colors(sizes)]
    finish(list(axes.flat), [_BAND], own=True, handles=handles)
    return Drawn(name, axes.flat[0].figure, "How much each expert is used, against the price of complexity.")
