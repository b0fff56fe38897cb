"""Figures across tasks: success against LPC, bars by task. From rows of `evaluation_results.csv`.

    rows = read_results("evaluation_results.csv")
    plot_success_against_lpc(rows).figure.savefig("success_lpc.png")
    plot_task_bars(rows)

The unit is the run, see `plotting.runs`; every run is drawn. Means are over the runs of a setting, with Student's t
interval where there are three or more. Runs without LPC, without success or with a collapsed router are drawn or named,
never left out in silence. `plotting.sweeps` has the figures over updates and over alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from pipeline.records.results import Rows
from plotting.collapse import COLLAPSED
from plotting.panels import GREY, PAGE_WIDTH, finish, series_style, use_axes, write_near
from plotting.runs import (
    METRIC_LABELS,
    check_metrics,
    clip_to_range,
    collect_runs,
    group_settings,
    last_checkpoints,
    pareto_front,
    short_task,
)
from plotting.style import count_of, figure_style


@figure_style()
def plot_success_against_lpc(rows: Rows, ax: Axes | None = None) -> Axes:
    """Draw each run's success against its LPC, the means of settings, and each task's Pareto front.

    Tasks have markers; settings have colours if there are several, else tasks have. Thin vertical lines are Wilson
    intervals over a run's levels, thick crosses t intervals over a setting's runs. The front is that of the settings'
    means, because the best single runs are in part the lucky ones. Policies without routers are dashed lines at their
    mean success.

    Args:
        rows: From `read_results`; the last checkpoint of each run counts.
        ax: To draw on; new ones by default.
    """
    own = ax is None
    runs, notes = collect_runs(rows)
    last = last_checkpoints(runs)
    ax = use_axes(ax, size=(PAGE_WIDTH * 0.75, 4.0))[0, 0]
    shown = last[last["success_rate"].notna()]
    routed = group_settings(shown[shown["mean_lpc"].notna()])
    baselines = shown[shown["mean_lpc"].isna()]
    names = routed["label"].unique().tolist()
    # Settings that differ in one ordered thing, such as alpha, read best from dark to light.
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, max(1, len(names))))
    handles = []
    for index, task in enumerate(sorted(shown["task_id"].unique())):
        task_color, marker = series_style(index)
        means = []
        for (_, label), members in routed[routed["task_id"] == task].groupby(["setting", "label"]):
            color = shades[names.index(label)] if len(names) > 1 else task_color
            means.append(_draw_setting(ax, members, color, marker))
        points = np.array(means).reshape(-1, 2)
        front = points[pareto_front(points[:, 1], points[:, 0])]
        if len(front) > 1:
            ax.plot(*front.T, drawstyle="steps-post", color=GREY, linewidth=0.9, linestyle=":", zorder=1)
        legend_color = GREY if len(names) > 1 else task_color
        handles.append(Line2D([], [], color=legend_color, marker=marker, linestyle="None", label=short_task(task)))
        handles += _draw_baselines(ax, baselines[baselines["task_id"] == task], marker)
    if len(names) > 1:
        handles += [
            Line2D([], [], color=shade, linewidth=3, label=name) for name, shade in zip(names, shades, strict=True)
        ]
    if (shown["collapse"] != "").any():
        handles.append(Line2D([], [], color="black", marker="x", linestyle="None", label=COLLAPSED))
    ax.set_xlabel(METRIC_LABELS["mean_lpc"])
    ax.set_ylabel(METRIC_LABELS["success_rate"])
    highest = routed["mean_lpc"].max() if len(routed) else 1.0
    ax.set_xlim(-0.03 * highest, max(1.05 * highest, ax.get_xlim()[1]))
    lowest = shown["success_low"].min() if len(shown) else 0.0
    bottom = math.floor(lowest * 10) / 10 if lowest > 0.5 else 0.0
    step = next(size for size, span in ((0.02, 0.11), (0.05, 0.21), (0.1, 0.51), (0.2, 1.01)) if 1 - bottom < span)
    ax.set_yticks(np.arange(round((1 - bottom) / step) + 1) * step + bottom)
    ax.set_ylim(bottom - 0.02 * (1 - bottom), 1 + 0.03 * (1 - bottom))
    counts = routed.groupby("setting").size()
    notes = [
        "small: runs, Wilson interval over levels",
        f"large: mean over a setting's {_range(counts)}, t interval over runs, hollow below {MIN_FOR_INTERVAL} runs"
        if len(counts)
        else "",
        "dotted: each task's Pareto front of the means" if len(counts) > routed["task_id"].nunique() else "",
        *notes,
        f"{count_of(len(last) - len(shown))} without a success rate not shown" if len(last) > len(shown) else "",
    ]
    finish(ax, notes, own=own, handles=handles)
    return ax


@figure_style()
def plot_task_bars(
    rows: Rows, axes: Sequence[Axes] | None = None, metrics: Sequence[str] = ("success_rate", "mean_lpc")
) -> list[Axes]:
    """Draw a bar per setting, grouped by task: the mean over runs, its t interval, the runs as points, their number.

    Args:
        rows: From `read_results`; the last checkpoint of each run counts.
        axes: One per metric; new ones by default.
        metrics: Of `METRIC_LABELS`.

    Raises:
        ValueError: If there is no such metric.
    """
    own = axes is None
    check_metrics(*metrics)
    runs, notes = collect_runs(rows)
    last = group_settings(last_checkpoints(runs))
    settings = list(last.groupby(["setting", "task_id", "label"]))
    axes = list(use_axes(axes, 1, len(metrics), size=(PAGE_WIDTH, 1.3 + 0.3 * len(settings)), sharey=True)[0])
    tasks = sorted(last["task_id"].unique())
    y = np.array([place + 0.7 * tasks.index(task) for place, ((_, task, _), _) in enumerate(settings)])
    for ax, metric in zip(axes, metrics, strict=True):
        for place, ((_, task, _), members) in zip(y, settings, strict=True):
            _draw_bar(ax, place, members, metric, series_style(tasks.index(task))[0])
        ax.set_xlabel(METRIC_LABELS[metric])
        ax.set_xlim(0, 1.16 if metric in ("success_rate", "agreement") else ax.get_xlim()[1] * 1.12)
    names = [short_task(task) + (f"\n{label}" if label else "") for (_, task, label), _ in settings]
    axes[0].set_yticks(y, names)
    axes[0].set_ylim((y.max() + 0.7 if len(y) else 1.0), -0.7)
    collapsed = (last["collapse"] != "").sum()
    notes = [
        f"bars: mean over n runs, line: t interval (from n = {MIN_FOR_INTERVAL}); points: runs",
        f"crosses: {count_of(collapsed)} with a {COLLAPSED}" if collapsed else "",
        *notes,
    ]
    finish(axes, notes, own=own)
    return axes


# --------------------------------------------------------------------------------------------------------------- parts


def _draw_setting(ax: Axes, members: pd.DataFrame, color: ColorType, marker: str) -> tuple[float, float]:
    """Draw the runs of a setting and their mean; return its LPC and success."""
    for run in members.itertuples():
        ax.vlines(run.mean_lpc, run.success_low, run.success_high, color=color, linewidth=0.7, alpha=0.5, zorder=2)
        if run.collapse:
            ax.plot(run.mean_lpc, run.success_rate, "x", color="black", markersize=4.5, zorder=6)  # over the mean
        else:
            ax.plot(run.mean_lpc, run.success_rate, marker, color=color, markersize=3.0, alpha=0.6, zorder=2)
    lpc, success = mean_interval(members["mean_lpc"]), mean_interval(members["success_rate"])
    x, y = float(lpc.mean), float(success.mean)
    firm = len(members) >= MIN_FOR_INTERVAL
    if firm:
        ax.hlines(y, *clip_to_range("mean_lpc", lpc.low, lpc.high), color=color, linewidth=1.4, zorder=3)
        ax.vlines(x, *clip_to_range("success_rate", success.low, success.high), color=color, linewidth=1.4, zorder=3)
    ax.plot(x, y, marker, color=color, markersize=6.5, markerfacecolor=color if firm else "white", zorder=4)
    return x, y


def _draw_baselines(ax: Axes, members: pd.DataFrame, marker: str) -> list[Line2D]:
    """Draw the success of policies without routers as a line, one per setting of them; return the legend's entries."""
    handles: list[Line2D] = []
    if members.empty:
        return handles
    settings = group_settings(members).groupby(["setting", "task_id", "label"])
    for index, ((_, task, label), same) in enumerate(settings):
        spread = mean_interval(same["success_rate"])
        policy = same["policy"].fillna("unknown policy").iloc[0]
        name = ", ".join(filter(None, [policy, label]))
        style = {"color": GREY, "linestyle": ("--", "-.")[index % 2], "linewidth": 1.0}
        ax.axhline(float(spread.mean), zorder=1, **style)
        edge = ax.get_yaxis_transform()
        ax.plot([1.0], [float(spread.mean)], marker, color=GREY, markersize=5, transform=edge, clip_on=False)
        label = f"{short_task(task)}: {name}, no LPC (n = {len(same)})"
        handles.append(Line2D([], [], marker=marker, markersize=4, label=label, **style))
        if len(same) >= MIN_FOR_INTERVAL:
            low, high = clip_to_range("success_rate", spread.low, spread.high)
            ax.axhspan(low, high, color=GREY, alpha=0.08, linewidth=0, zorder=0)
    return handles


def _draw_bar(ax: Axes, place: float, members: pd.DataFrame, metric: str, color: str) -> None:
    values = members[metric]
    spread = mean_interval(values)
    if not int(spread.n):
        why = "no routers" if metric == "mean_lpc" else "not known"
        ax.text(0, place, f" {why}, n = {len(members)}", va="center", fontsize="x-small", color="0.35")
        return
    ax.barh(place, float(spread.mean), height=0.72, color=color, alpha=0.35, linewidth=0)
    end = values.max()
    if spread.n >= MIN_FOR_INTERVAL:
        low, high = clip_to_range(metric, spread.low, spread.high)
        ax.hlines(place, low, high, color=color, linewidth=1.6, zorder=3)
        end = max(end, high)
    spots = place + np.linspace(-0.18, 0.18, len(members)) if len(members) > 1 else [place]
    for spot, collapse, value in zip(spots, members["collapse"], values, strict=True):
        mark = "x" if collapse else "o"
        ax.plot(value, spot, mark, color=color, markersize=3.2, zorder=4, clip_on=False)
    missing = len(members) - int(spread.n)
    text = f"n = {int(spread.n)}" + (f", {missing} not known" if missing else "")
    write_near(ax, text, (end, place), (5, 0), va="center", color="0.25")


def _range(counts: pd.Series) -> str:
    """Return "3 runs", or "2 to 5 runs"."""
    low = "" if counts.nunique() == 1 else f"{counts.min()} to "
    return low + count_of(counts.max())
