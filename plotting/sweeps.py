"""Figures of runs over weight updates and over the price of complexity. From rows of `evaluation_results.csv`.

    rows = read_results("evaluation_results.csv")
    plot_learning_over_updates(rows)
    plot_alpha_sweep(rows, "success_rate").figure.savefig("alpha.png")

The unit is the run, see `plotting.runs`; every run is drawn, and seeds are the replicates of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from plotting.across import COLLAPSED
from plotting.panels import COLUMN_WIDTH, PAGE_WIDTH, finish, new_axes, series_style
from plotting.runs import (
    METRIC_LABELS,
    SETTING_COLUMNS,
    Row,
    Run,
    check_metric,
    clip_to_range,
    collect_runs,
    count_of,
    describe_collapse,
    group_settings,
    has_lpc,
    label_settings,
    number,
    short_task,
)
from plotting.style import figure_style

_ALPHA = SETTING_COLUMNS.index("lpc_alpha")


@figure_style()
def plot_learning_over_updates(
    rows: Sequence[Row], axes: np.ndarray | None = None, metrics: Sequence[str] = ("success_rate", "mean_lpc")
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
    for metric in metrics:
        check_metric(metric)
    runs, notes = collect_runs(rows)
    settings = group_settings(runs)
    labels = label_settings(list(settings))
    names = list(dict.fromkeys(labels.values()))
    tasks = sorted({run.task_id for run in runs})
    if axes is None:
        size = (PAGE_WIDTH, 1.0 + 1.9 * max(1, len(tasks)))
        axes = new_axes(max(1, len(tasks)), len(metrics), size=size, sharex="col", sharey="col")
    axes = np.asarray(axes).reshape(max(1, len(tasks)), len(metrics))
    if not tasks:
        axes[0, 0].set_title(f"n = {count_of(0)}", loc="left")
    for task, across in zip(tasks, axes[: len(tasks)], strict=True):
        for ax, metric in zip(across, metrics, strict=True):
            for key, members in settings.items():
                if key[0] == task:
                    _draw_curves(ax, members, metric, *series_style(names.index(labels[key])))
            ax.set_title(
                f"{short_task(task)}, {_count([run for run in runs if run.task_id == task], metric)}", loc="left"
            )
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
    unknown = sum(row.get("update") is None for run in runs for row in run.rows)
    collapsed = sum(bool(describe_collapse(run.final)) for run in runs)
    notes = [
        f"thin: runs; thick, band: mean and t interval over the runs of a setting (from {MIN_FOR_INTERVAL} runs)",
        *notes,
        f"{collapsed} of {count_of(len(runs))} end with a {COLLAPSED}" if collapsed else "",
        f"{unknown} checkpoint(s) of unknown update not shown" if unknown else "",
    ]
    finish(list(axes.flat), notes, own=own, handles=handles)
    return axes


@figure_style()
def plot_alpha_sweep(rows: Sequence[Row], metric: str = "mean_lpc", ax: Axes | None = None) -> Axes:
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
    check_metric(metric)
    own = ax is None
    runs, notes = collect_runs(rows)
    ax = new_axes(size=(COLUMN_WIDTH * 1.3, 3.6))[0, 0] if ax is None else ax
    priced = [run for run in runs if run.final.get("lpc_alpha") is not None and has_lpc(run.final)]
    shown = [run for run in priced if math.isfinite(run.value(metric))]
    places = _alpha_places({run.setting[_ALPHA] for run in shown})
    series: dict[tuple, dict[float, list[Run]]] = {}
    for key, members in group_settings(shown).items():
        series.setdefault((*key[:_ALPHA], None, *key[_ALPHA + 1 :]), {})[key[_ALPHA]] = members
    labels = label_settings(list(series))
    for index, (key, by_alpha) in enumerate(series.items()):
        label = ", ".join(part for part in (short_task(key[0]), labels[key]) if part)
        shift = 0.12 * (index - (len(series) - 1) / 2)
        _draw_sweep(ax, {places[alpha] + shift: by_alpha[alpha] for alpha in by_alpha}, metric, index, label)
    _label_alphas(ax, shown, places)
    ax.set_ylabel(METRIC_LABELS[metric])
    if metric in ("success_rate", "agreement"):
        ax.set_ylim(-0.03, 1.03)
    elif metric == "mean_lpc":
        top = max(ax.get_ylim()[1], 1.05 * _highest(shown, metric))
        ax.set_ylim(-0.03 * top, top)
    if any(describe_collapse(run.final) for run in shown):
        ax.plot([], [], "x", color="black", markersize=5, label=COLLAPSED)
    notes = [
        f"dots: runs; lines: means, t interval over runs (from {MIN_FOR_INTERVAL} runs)",
        *notes,
        f"{count_of(len(runs) - len(priced))} without LPC or alpha not shown" if len(runs) > len(priced) else "",
        f"{count_of(len(priced) - len(shown))} without this metric not shown" if len(priced) > len(shown) else "",
    ]
    finish(ax, notes, own=own)
    return ax


# --------------------------------------------------------------------------------------------------------------- parts


def _draw_curves(ax: Axes, members: Sequence[Run], metric: str, color: str, marker: str) -> None:
    """Draw the curves of a setting's runs, and their mean where it has enough of them."""
    curves = [curve for run in members if (curve := _curve(run, metric))]
    for curve in curves:
        ax.plot(list(curve), list(curve.values()), color=color, linewidth=0.6, alpha=0.7, marker=".", markersize=3)
    if len(curves) < MIN_FOR_INTERVAL:
        return
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    spread = mean_interval([[curve[update] for update in shared] for curve in curves])
    ax.plot(shared, spread.mean, color=color, marker=marker, markersize=4)
    ax.fill_between(shared, *clip_to_range(metric, spread.low, spread.high), color=color, alpha=0.16, linewidth=0)


def _curve(run: Run, metric: str) -> dict[int, float]:
    """Return a metric by update, where both are known."""
    points = {row["update"]: number(row, metric) for row in run.rows if row.get("update") is not None}
    return {update: points[update] for update in sorted(points) if math.isfinite(points[update])}


def _highest(runs: Sequence[Run], metric: str) -> float:
    """Return the highest value of any checkpoint, above which there is only interval."""
    values = [number(row, metric) for run in runs for row in run.rows]
    return max((value for value in values if math.isfinite(value) and value > 0), default=1.0)


def _count(runs: Sequence[Run], metric: str) -> str:
    """Return how many runs a panel shows, and how many it cannot."""
    without = sum(not _curve(run, metric) for run in runs)
    reason = "no LPC" if metric == "mean_lpc" else "not known"
    return f"n = {count_of(len(runs) - without)}" + (f" ({without} more: {reason})" if without else "")


def _draw_sweep(ax: Axes, members: dict[float, list[Run]], metric: str, index: int, label: str) -> None:
    """Draw one line of settings: runs by their place on the axis."""
    color, marker = series_style(index)
    spreads = {x: mean_interval([run.value(metric) for run in runs]) for x, runs in sorted(members.items())}
    ax.plot(list(spreads), [float(s.mean) for s in spreads.values()], color=color, linewidth=1.2, zorder=2)
    ax.plot([], [], color=color, marker=marker, markersize=5, label=label)
    for x, spread in spreads.items():
        firm = spread.n >= MIN_FOR_INTERVAL
        if firm:
            ax.vlines(x, *clip_to_range(metric, spread.low, spread.high), color=color, linewidth=1.4, zorder=3)
        ax.plot(x, spread.mean, marker, color=color, markersize=5, markerfacecolor=color if firm else "white", zorder=4)
        for run in members[x]:
            mark = "x" if describe_collapse(run.final) else "."
            ax.plot(x + 0.09, run.value(metric), mark, color=color, markersize=4, alpha=0.8, zorder=5)


def _alpha_places(alphas: Iterable[float]) -> dict[float, float]:
    """Return where each alpha stands on the axis: its logarithm; 0 a decade left of the least other one."""
    places = {alpha: math.log10(alpha) for alpha in sorted(alphas) if alpha > 0}
    zero = {alpha: min(places.values(), default=1.0) - 1.0 for alpha in alphas if alpha == 0}
    return zero | places


def _label_alphas(ax: Axes, runs: Sequence[Run], places: dict[float, float]) -> None:
    ticks = []
    for alpha in places:
        here = [run for run in runs if run.setting[_ALPHA] == alpha]
        collapsed = sum(bool(describe_collapse(run.final)) for run in here)
        ticks.append(f"{alpha:g}\nn = {len(here)}" + (f"\n{collapsed} collapsed" if collapsed else ""))
    ax.set_xticks(list(places.values()), ticks)
    if places:
        ax.set_xlim(min(places.values()) - 0.4, max(places.values()) + 0.4)
    ax.set_xlabel("LPC weight \N{GREEK SMALL LETTER ALPHA} in the loss, and n runs")
