"""Figures across tasks: success against LPC, bars by task. From rows of `evaluation_results.csv`.

    rows = read_results("evaluation_results.csv")
    plot_success_against_lpc(rows).figure.savefig("success_lpc.png")
    plot_task_bars(rows)

The unit is the run, see `plotting.runs`; every run is drawn. Means are over the runs of a setting, with Student's t
interval where there are three or more. Runs without LPC, without success or with a collapsed router are drawn or named,
never left out in silence. `plotting.settings` says how settings are told apart, `plotting.sweeps` has the figures over
updates and over alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from pipeline.records.intervals import MIN_FOR_INTERVAL
from pipeline.records.results import Rows
from plotting.collapse import COLLAPSED
from plotting.marks import fade, mark_collapsed, mark_runs
from plotting.panels import GREY, PAGE_WIDTH, describe_replaced, finish, fold_label, use_axes, write_near
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
from plotting.settings import (
    Encoded,
    encode_settings,
    lpc_label,
    set_lpc_axis,
    spread_over_runs,
    task_handles,
)
from plotting.source import add_source
from plotting.style import count_of, figure_style

AGREE = (
    f"where all runs (from {MIN_FOR_INTERVAL}) agree exactly: Wilson interval over levels for success, none for others"
)


@figure_style()
def plot_success_against_lpc(rows: Rows, ax: Axes | None = None) -> Axes:
    """Draw each run's success against its LPC, the means of settings, and each task's Pareto front.

    Tasks have markers; alpha has colours if it differs, else tasks have; a letter beside the mean tells what else
    differs. Thin vertical lines are Wilson intervals over a run's levels, thick crosses t intervals over a setting's
    runs. The front is that of the settings' means, because the best single runs are in part the lucky ones. Policies
    without routers are dashed lines at their mean success. LPC is on a logarithmic axis where it spans decades.

    Args:
        rows: From `read_results`; the last checkpoint of each run counts.
        ax: To draw on; new ones by default.
    """
    own = ax is None
    runs, notes = collect_runs(rows)
    last = last_checkpoints(runs)
    ax = use_axes(ax, size=(PAGE_WIDTH * 0.75, 4.2))[0, 0]
    shown = last[last["success_rate"].notna()]
    told = encode_settings(shown[shown["mean_lpc"].notna()])
    routed, baselines = told.rows, shown[shown["mean_lpc"].isna()]
    told = Encoded(routed, sorted(shown["task_id"].unique()), told.alphas, told.letters, told.shared)
    handles = task_handles(told) if len(told.tasks) > 1 or not told.alphas else []
    agree = False
    for task in told.tasks:
        means = []
        for (_, alpha, rest), members in routed[routed["task_id"] == task].groupby(
            ["setting", "lpc_alpha", "rest"], dropna=False
        ):
            mean, over_levels = _draw_setting(ax, members, told.color(task, alpha), told.marker(task))
            if told.letters:
                write_near(ax, told.letters[rest], mean, (5, 4), color="0.2")
            means.append(mean)
            agree |= over_levels
        points = np.array(means).reshape(-1, 2)
        front = points[pareto_front(points[:, 1], points[:, 0])]
        if len(front) > 1:
            ax.plot(*front.T, drawstyle="steps-post", color=GREY, linewidth=0.9, linestyle=":", zorder=1)
            add_source(
                ax.figure, {"panel": "Pareto front", "task": task, "mean_lpc": front[:, 0], "success_rate": front[:, 1]}
            )
        handles += _draw_baselines(ax, baselines[baselines["task_id"] == task], told.marker(task))
    handles += told.alpha_handles()
    if (shown["collapse"] != "").any():
        handles.append(Line2D([], [], color="black", marker="x", linestyle="None", label=COLLAPSED))
    logarithmic = set_lpc_axis(ax, routed["mean_lpc"].tolist(), vertical=False)
    ax.set_xlabel(lpc_label(logarithmic))
    ax.set_ylabel(METRIC_LABELS["success_rate"])
    _set_success_axis(ax, shown)
    counts = routed.groupby("setting").size()
    notes = [
        "small: runs, Wilson interval over levels",
        f"large: mean over a setting's {_range(counts)}, t interval over runs, hollow below {MIN_FOR_INTERVAL} runs"
        if len(counts)
        else "",
        "dotted: each task's Pareto front of the means" if len(counts) > routed["task_id"].nunique() else "",
        AGREE if agree else "",
        told.shared,
        *notes,
        f"{count_of(len(last) - len(shown))} without a success rate not shown" if len(last) > len(shown) else "",
        replaced_levels(shown),
        told.key(),
    ]
    finish(ax, notes, own=own, handles=handles)
    return ax


@figure_style()
def plot_task_bars(
    rows: Rows, axes: Sequence[Axes] | None = None, metrics: Sequence[str] = ("success_rate", "mean_lpc")
) -> list[Axes]:
    """Draw a bar per setting, grouped by task: the mean over runs, its interval, the runs as points, their number.

    Labels tell alpha and a letter for all else that differs. Where LPC spans decades its axis is logarithmic, and a
    diamond stands for the bar, whose length would tell nothing.

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
    told = encode_settings(last_checkpoints(runs), lines=True)
    last = told.rows
    settings = list(last.groupby(["setting", "task_id", "rest"]))
    bars, labels = _places_of_bars(settings, told)
    step = 0.27 if len(labels) <= 24 else 0.2
    size = (PAGE_WIDTH, 1.3 + step * (max((y for y, _, _ in labels), default=0) + 1))
    axes = list(use_axes(axes, 1, len(metrics), size=size, sharey=True)[0])
    agree = False
    for ax, metric in zip(axes, metrics, strict=True):
        known = last[metric].dropna().tolist()
        logarithmic = metric == "mean_lpc" and set_lpc_axis(ax, known, vertical=False)
        if not logarithmic:
            ax.autoscale(axis="x")  # again: intervals reach beyond the runs
        for y, ((_, task, _), members) in zip(bars, settings, strict=True):
            agree |= _draw_bar(ax, y, members, metric, told.task_color(task), logarithmic)
        if metric == "mean_lpc":
            set_lpc_axis(ax, known, vertical=False)
            ax.set_xlim(None, ax.get_xlim()[1] * (4.0 if logarithmic else 1.15))  # for "n = 3"
        else:
            ax.set_xlim(0, 1.16 if metric in ("success_rate", "agreement") else ax.get_xlim()[1] * 1.12)
        name = lpc_label(logarithmic) if metric == "mean_lpc" else METRIC_LABELS[metric]
        ax.set_xlabel(fold_label(ax, name, len(metrics) + 1))  # names of settings take about a column
    axes[0].set_yticks([y for y, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, bold) in zip(axes[0].get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if bold else "normal")
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    axes[0].set_ylim((max(y for y, _, _ in labels) + 0.7 if labels else 1.0), -0.7)
    collapsed = (last["collapse"] != "").sum()
    notes = [
        f"bars: mean over n runs, line: t interval (from n = {MIN_FOR_INTERVAL}); points: runs",
        f"crosses: {count_of(collapsed)} with a {COLLAPSED}" if collapsed else "",
        AGREE if agree else "",
        told.shared,
        *notes,
        replaced_levels(last),
        told.key(),
    ]
    finish(axes, notes, own=own)
    return axes


def replaced_levels(rows: pd.DataFrame) -> str:
    """Return how many levels of some runs were replaced because the expert cannot solve them; "" if none.

    Args:
        rows: Last checkpoints. Runs of a task are evaluated on the same levels, of which each counts once.
    """
    counts = rows.dropna(subset=["bot_plan_failures"]).groupby("task_id")["bot_plan_failures"].max()
    counts = counts[counts > 0]
    if not len(counts):
        return ""
    tasks = ", ".join(f"{count:,.0f} of {short_task(task)}" for task, count in counts.items())
    return f"{describe_replaced(int(counts.sum()))} ({tasks})"


# --------------------------------------------------------------------------------------------------------------- parts


def _set_success_axis(ax: Axes, shown: pd.DataFrame) -> None:
    """Set the axis of success: to 1, from the tenth below the least end of an interval if that is above one half."""
    lowest = shown["success_low"].min() if len(shown) else 0.0
    bottom = math.floor(lowest * 10) / 10 if lowest > 0.5 else 0.0
    step = next(size for size, span in ((0.02, 0.11), (0.05, 0.21), (0.1, 0.51), (0.2, 1.01)) if 1 - bottom < span)
    ax.set_yticks(np.arange(round((1 - bottom) / step) + 1) * step + bottom)
    ax.set_ylim(bottom - 0.02 * (1 - bottom), 1 + 0.03 * (1 - bottom))


def _places_of_bars(settings: Iterable, told: Encoded) -> tuple[list[float], list[tuple[float, str, bool]]]:
    """Return where each setting's bar is, and the labels with their places; headings of tasks are bold."""
    by_task: dict[str, list[str]] = {}
    for (_, task, rest), members in settings:
        gru = (members["policy"] == "gru").all()
        alpha = None if gru else members["lpc_alpha"].iloc[0]
        by_task.setdefault(task, []).append(told.name(alpha, rest))
    bars, labels, y = [], [], 0.0
    for task, names in by_task.items():
        if names == [""]:
            labels.append((y, short_task(task), True))
        else:
            labels.append((y, short_task(task), True))
            for name in names:
                y += 1
                labels.append((y, name, False))
        bars += [place for place, _, bold in labels[-len(names) :]]
        y += 1.4
    return bars, labels


def _draw_setting(ax: Axes, members: pd.DataFrame, color: ColorType, marker: str) -> tuple[tuple[float, float], bool]:
    """Draw runs of a setting and their mean; return its LPC and success, and whether its interval is over levels."""
    columns = ["mean_lpc", "success_rate", "success_low", "success_high"]
    x, y, low, high = members[columns].astype("float64").to_numpy().T
    ax.vlines(x, low, high, color=color, linewidth=0.7, zorder=2, **fade(len(members), 0.5))
    mark_runs(ax, x, y, members["collapse"], marker, color=color, markersize=3.0, alpha=0.6, zorder=2)
    mark_collapsed(ax, x, y, members["collapse"], color="black", markersize=4.5, zorder=6)  # over the mean
    lpc, (success, over_levels) = spread_over_runs(members, "mean_lpc")[0], spread_over_runs(members, "success_rate")
    x, y = float(lpc.mean), float(success.mean)
    firm = len(members) >= MIN_FOR_INTERVAL
    if firm and np.isfinite(lpc.low):
        ax.hlines(y, *clip_to_range("mean_lpc", lpc.low, lpc.high), color=color, linewidth=1.4, zorder=3)
    if firm and np.isfinite(success.low):
        ax.vlines(x, *clip_to_range("success_rate", success.low, success.high), color=color, linewidth=1.4, zorder=3)
    ax.plot(x, y, marker, color=color, markersize=6.5, markerfacecolor=color if firm else "white", zorder=4)
    add_source(ax.figure, runs_table(members, ["success_rate", "success_low", "success_high", "mean_lpc"]))
    add_source(ax.figure, mean_row(members, {"success_rate": success, "mean_lpc": lpc}))
    return (x, y), over_levels


def runs_table(members: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return what is drawn of single runs, for the table of a figure."""
    table = members[["task_id", "label", "lpc_alpha", "trial", "seed", *columns, "collapse"]]
    return table.rename(columns={"task_id": "task", "label": "setting"}).assign(panel="run")


def mean_row(members: pd.DataFrame, spreads: dict) -> dict:
    """Return what is drawn of the mean of a setting, for the table of a figure."""
    first = members.iloc[0]
    row = {
        "panel": ["mean over runs"],
        "task": first["task_id"],
        "setting": first["label"],
        "lpc_alpha": first["lpc_alpha"],
    }
    for name, spread in spreads.items():
        low, high = clip_to_range(name, spread.low, spread.high)
        row |= {name: float(spread.mean), f"{name}_low": float(low), f"{name}_high": float(high), "n": int(spread.n)}
    return row


def _draw_baselines(ax: Axes, members: pd.DataFrame, marker: str) -> list[Line2D]:
    """Draw the success of policies without routers as a line, one per setting of them; return the legend's entries."""
    handles: list[Line2D] = []
    if members.empty:
        return handles
    settings = group_settings(members).groupby(["setting", "task_id", "label"])
    for index, ((_, task, label), same) in enumerate(settings):
        spread, _ = spread_over_runs(same, "success_rate")
        policy = same["policy"].fillna("unknown policy").iloc[0]
        name = ", ".join(filter(None, [policy, label]))
        style = {"color": GREY, "linestyle": ("--", "-.")[index % 2], "linewidth": 1.0}
        ax.axhline(float(spread.mean), zorder=1, **style)
        edge = ax.get_yaxis_transform()
        ax.plot([1.0], [float(spread.mean)], marker, color=GREY, markersize=5, transform=edge, clip_on=False)
        label = f"{short_task(task)}: {name}, no LPC (n = {len(same)})"
        handles.append(Line2D([], [], marker=marker, markersize=4, label=label, **style))
        add_source(ax.figure, mean_row(same, {"success_rate": spread}))
        if len(same) >= MIN_FOR_INTERVAL:
            low, high = clip_to_range("success_rate", spread.low, spread.high)
            ax.axhspan(low, high, color=GREY, alpha=0.08, linewidth=0, zorder=0)
    return handles


def _draw_bar(ax: Axes, place: float, members: pd.DataFrame, metric: str, color: str, logarithmic: bool) -> bool:
    """Draw the bar of a setting; return whether its interval is over levels."""
    values = members[metric]
    spread, over_levels = spread_over_runs(members, metric)
    if not int(spread.n):
        why = "no routers" if metric == "mean_lpc" else "not known"
        style = {"va": "center", "fontsize": "x-small", "color": "0.35", "transform": ax.get_yaxis_transform()}
        ax.text(0, place, f" {why}, n = {len(members)}", **style)
        return False
    mean = float(spread.mean)
    if logarithmic:
        ax.plot(mean, place, "D", color=color, markersize=5, alpha=0.45, zorder=3)
    else:
        ax.barh(place, mean, height=0.72, color=color, alpha=0.35, linewidth=0)
    end = values.max()
    if np.isfinite(spread.low):
        low, high = clip_to_range(metric, spread.low, spread.high)
        ax.hlines(place, low, high, color=color, linewidth=1.6, zorder=3)
        end = np.fmax(end, high)
    spots = place + np.linspace(-0.18, 0.18, len(members)) if len(members) > 1 else [place]
    style = {"color": color, "markersize": 3.2, "zorder": 4, "clip_on": False}
    mark_runs(ax, values.astype("float64"), spots, members["collapse"], "o", **style)
    mark_collapsed(ax, values.astype("float64"), spots, members["collapse"], **style)
    missing = len(members) - int(spread.n)
    text = f"n = {int(spread.n)}" + (f", {missing} not known" if missing else "")
    write_near(ax, text, (end, place), (5, 0), va="center", color="0.25")
    add_source(ax.figure, runs_table(members, [metric]))
    add_source(ax.figure, mean_row(members, {metric: spread}))
    return over_levels


def _range(counts: pd.Series) -> str:
    """Return "3 runs", or "2 to 5 runs"."""
    low = "" if counts.nunique() == 1 else f"{counts.min()} to "
    return low + count_of(counts.max())
