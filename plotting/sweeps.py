"""Figures of runs over weight updates and over the price of complexity. From rows of `evaluation_results.csv`.

    rows = read_results("evaluation_results.csv")
    plot_learning_over_updates(rows)
    plot_alpha_sweep(rows, "success_rate").figure.savefig("alpha.png")

The unit is the run, see `plotting.runs`; every run is drawn, and seeds are the replicates of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from pipeline.records.results import Rows
from plotting.collapse import COLLAPSED
from plotting.panels import COLUMN_WIDTH, PAGE_WIDTH, finish, series_style, use_axes
from plotting.runs import (
    METRIC_LABELS,
    check_metrics,
    clip_to_range,
    collect_runs,
    group_settings,
    last_checkpoints,
    short_task,
)
from plotting.style import count_of, figure_style


@figure_style()
def plot_learning_over_updates(
    rows: Rows, axes: np.ndarray | None = None, metrics: Sequence[str] = ("success_rate", "mean_lpc")
) -> np.ndarray:
    """Draw metrics against weight updates, a row of axes per task: thin lines are runs, thick ones means over runs.

    Means, with t bands over runs, are at the updates at which all runs of the setting were evaluated, so that a step in
    the curve is never a change of who is averaged.

    Args:
        rows: From `read_results`, all checkpoints.
        axes: To draw on, (tasks, metrics), tasks in alphabetical order; new ones by default.
        metrics: Of `METRIC_LABELS`.

    Raises:
        ValueError: If there is no such metric.
    """
    own = axes is None
    check_metrics(*metrics)
    runs, notes = collect_runs(rows)
    last = group_settings(last_checkpoints(runs))
    runs = runs.merge(last[["run", "setting", "label"]], on="run")
    names = last["label"].unique().tolist()
    tasks = sorted(last["task_id"].unique())
    height = max(1, len(tasks))
    size = (PAGE_WIDTH, 1.0 + 1.9 * height)
    axes = use_axes(axes, height, len(metrics), size=size, sharex="col", sharey="col")
    if not tasks:
        axes[0, 0].set_title(f"n = {count_of(0)}", loc="left")
    for task, across in zip(tasks, axes[: len(tasks)], strict=True):
        for ax, metric in zip(across, metrics, strict=True):
            here = runs[runs["task_id"] == task]
            for (_, label), members in here.groupby(["setting", "label"]):
                _draw_curves(ax, members, metric, *series_style(names.index(label)))
            ax.set_title(f"{short_task(task)}, {_count(here, metric)}", loc="left")
    for column, metric in enumerate(metrics):
        for ax in axes[:, column]:
            ax.set_ylabel(METRIC_LABELS[metric])
            if metric in ("success_rate", "agreement"):
                ax.set_ylim(-0.03, 1.03)
            elif metric == "mean_lpc":
                ax.set_ylim(0, max(ax.get_ylim()[1], 1.05 * _highest(runs, metric)))
        axes[-1, column].set_xlabel("Weight updates")
    styles = [series_style(index) for index in range(len(names))]
    handles = [
        Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in zip(names, styles, strict=True) if name
    ]
    unknown, collapsed = runs["update"].isna().sum(), (last["collapse"] != "").sum()
    notes = [
        f"thin: runs; thick, band: mean and t interval over the runs of a setting (from {MIN_FOR_INTERVAL} runs)",
        *notes,
        f"{collapsed} of {count_of(len(last))} end with a {COLLAPSED}" if collapsed else "",
        f"{unknown} checkpoint(s) of unknown update not shown" if unknown else "",
    ]
    finish(list(axes.flat), notes, own=own, handles=handles)
    return axes


@figure_style()
def plot_alpha_sweep(rows: Rows, metric: str = "mean_lpc", ax: Axes | None = None) -> Axes:
    """Draw a metric of the last checkpoints against the price of complexity, `lpc_alpha`.

    Small points are runs, crosses those with a collapsed router, lines join the means of settings that differ in alpha
    only. alpha = 0 has a place of its own, left of the logarithmic axis.

    Args:
        rows: From `read_results`.
        metric: Of `METRIC_LABELS`.
        ax: To draw on; new ones by default.

    Raises:
        ValueError: If there is no such metric.
    """
    check_metrics(metric)
    own = ax is None
    runs, notes = collect_runs(rows)
    ax = use_axes(ax, size=(COLUMN_WIDTH * 1.3, 3.6))[0, 0]
    last = last_checkpoints(runs)
    priced = last[last["lpc_alpha"].notna() & last["mean_lpc"].notna()]
    shown = group_settings(priced[priced[metric].notna()])
    places = _alpha_places(shown["lpc_alpha"].unique())
    series = group_settings(shown, ignore="lpc_alpha").loc[shown.index]
    lines = list(series.groupby(["setting", "task_id", "label"], sort=False))
    for index, ((_, task, label), members) in enumerate(lines):
        shift = 0.12 * (index - (len(lines) - 1) / 2)
        members = members.assign(x=members["lpc_alpha"].map(places) + shift)
        _draw_sweep(ax, members, metric, index, ", ".join(filter(None, [short_task(task), label])))
    _label_alphas(ax, shown, places)
    ax.set_ylabel(METRIC_LABELS[metric])
    if metric in ("success_rate", "agreement"):
        ax.set_ylim(-0.03, 1.03)
    elif metric == "mean_lpc":
        top = max(ax.get_ylim()[1], 1.05 * _highest(runs[runs["run"].isin(shown["run"])], metric))
        ax.set_ylim(-0.03 * top, top)
    if (shown["collapse"] != "").any():
        ax.plot([], [], "x", color="black", markersize=5, label=COLLAPSED)
    notes = [
        f"dots: runs; lines: means, t interval over runs (from {MIN_FOR_INTERVAL} runs)",
        *notes,
        f"{count_of(len(last) - len(priced))} without LPC or alpha not shown" if len(last) > len(priced) else "",
        f"{count_of(len(priced) - len(shown))} without this metric not shown" if len(priced) > len(shown) else "",
    ]
    finish(ax, notes, own=own)
    return ax


# --------------------------------------------------------------------------------------------------------------- parts


def _draw_curves(ax: Axes, members: pd.DataFrame, metric: str, color: str, marker: str) -> None:
    """Draw the curves of a setting's runs, and their mean where it has enough of them."""
    points = _known_points(members, metric)
    for _, curve in points.groupby("run"):
        ax.plot(curve["update"], curve[metric], color=color, linewidth=0.6, alpha=0.7, marker=".", markersize=3)
    shared = points.pivot(index="update", columns="run", values=metric).dropna()
    if shared.shape[1] < MIN_FOR_INTERVAL:
        return
    spread = mean_interval(shared.T)
    ax.plot(shared.index, spread.mean, color=color, marker=marker, markersize=4)
    ax.fill_between(shared.index, *clip_to_range(metric, spread.low, spread.high), color=color, alpha=0.16, linewidth=0)


def _known_points(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return `run`, `update` and a metric, where both are known, by update."""
    return runs[["run", "update", metric]].dropna().astype({"update": "int64"}).sort_values("update")


def _highest(runs: pd.DataFrame, metric: str) -> float:
    """Return the highest value of any checkpoint, above which there is only interval."""
    highest = runs[metric].max()
    return highest if highest > 0 else 1.0


def _count(runs: pd.DataFrame, metric: str) -> str:
    """Return how many runs a panel shows, and how many it cannot."""
    total, shown = runs["run"].nunique(), _known_points(runs, metric)["run"].nunique()
    reason = "no LPC" if metric == "mean_lpc" else "not known"
    return f"n = {count_of(shown)}" + (f" ({total - shown} more: {reason})" if shown < total else "")


def _draw_sweep(ax: Axes, members: pd.DataFrame, metric: str, index: int, label: str) -> None:
    """Draw one line of settings: runs by their place on the axis, `x`."""
    color, marker = series_style(index)
    spreads = {x: mean_interval(values) for x, values in members.groupby("x")[metric]}
    ax.plot(list(spreads), [float(s.mean) for s in spreads.values()], color=color, linewidth=1.2, zorder=2)
    ax.plot([], [], color=color, marker=marker, markersize=5, label=label)
    for x, spread in spreads.items():
        firm = spread.n >= MIN_FOR_INTERVAL
        if firm:
            ax.vlines(x, *clip_to_range(metric, spread.low, spread.high), color=color, linewidth=1.4, zorder=3)
        ax.plot(x, spread.mean, marker, color=color, markersize=5, markerfacecolor=color if firm else "white", zorder=4)
    for x, value, collapse in members[["x", metric, "collapse"]].itertuples(index=False):
        ax.plot(x + 0.09, value, "x" if collapse else ".", color=color, markersize=4, alpha=0.8, zorder=5)


def _alpha_places(alphas: np.ndarray) -> dict[float, float]:
    """Return where each alpha stands on the axis: its logarithm; 0 a decade left of the least other one."""
    places = {alpha: math.log10(alpha) for alpha in sorted(alphas) if alpha > 0}
    zero = {alpha: min(places.values(), default=1.0) - 1.0 for alpha in alphas if alpha == 0}
    return zero | places


def _label_alphas(ax: Axes, runs: pd.DataFrame, places: dict[float, float]) -> None:
    ticks = []
    for alpha in places:
        here = runs[runs["lpc_alpha"] == alpha]
        collapsed = (here["collapse"] != "").sum()
        ticks.append(f"{alpha:g}\nn = {len(here)}" + (f"\n{collapsed} collapsed" if collapsed else ""))
    ax.set_xticks(list(places.values()), ticks)
    if places:
        ax.set_xlim(min(places.values()) - 0.4, max(places.values()) + 0.4)
    ax.set_xlabel("LPC weight \N{GREEK SMALL LETTER ALPHA} in the loss, and n runs")
