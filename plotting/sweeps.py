"""Figures of runs over weight updates and over the price of complexity. From rows of `evaluation_results.csv`.

    rows = read_results("evaluation_results.csv")
    plot_learning_over_updates(rows, logs=read_logs(rows)[0])
    plot_alpha_sweep(rows, "success_rate").figure.savefig("alpha.png")

The unit is the run, see `plotting.runs`; every run is drawn, and seeds are the replicates of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from pipeline.records.results import Rows
from plotting.across import AGREE, mean_row, replaced_levels, runs_table
from plotting.collapse import COLLAPSED
from plotting.logs import LOGGED
from plotting.marks import fade, mark_collapsed, mark_runs
from plotting.panels import COLUMN_WIDTH, GREY, PAGE_WIDTH, finish, use_axes, width_of_axes
from plotting.runs import (
    METRIC_LABELS,
    check_metrics,
    clip_to_range,
    collect_runs,
    last_checkpoints,
    short_task,
)
from plotting.settings import (
    Encoded,
    encode_settings,
    lpc_label,
    set_lpc_axis,
    spread_over_runs,
)
from plotting.source import add_source
from plotting.style import count_of, figure_style, wrap_text


@figure_style()
def plot_learning_over_updates(
    rows: Rows,
    axes: np.ndarray | None = None,
    metrics: Sequence[str] = ("success_rate", "mean_lpc"),
    logs: pd.DataFrame | None = None,
    log_notes: Sequence[str] = (),
) -> np.ndarray:
    """Draw metrics against weight updates, a row of axes per task: thin lines are runs, thick ones means over runs.

    Lines are what the runs logged while they trained, dots their evaluated checkpoints; without a log a line joins the
    dots. Means, with t bands over runs, are at the updates at which all runs of the setting have a value, so that a
    step in the curve is never a change of who is averaged. Colours tell alpha if it differs, line styles all else;
    baselines without experts are grey, with line styles of their own, and have no LPC.

    Args:
        rows: From `read_results`, all checkpoints.
        axes: To draw on, (tasks, metrics), tasks in alphabetical order; new ones by default.
        metrics: Of `METRIC_LABELS`.
        logs: From `read_logs`; none by default.
        log_notes: Of the same.

    Raises:
        ValueError: If there is no such metric.
    """
    own = axes is None
    check_metrics(*metrics)
    runs, notes = collect_runs(rows)
    told = encode_settings(last_checkpoints(runs), lines=True)
    last = told.rows
    runs = runs.drop(columns="policy").merge(last[["run", "setting", "label", "rest", "policy"]], on="run")
    curves = _curves_of(last, logs)
    height = max(1, len(told.tasks))
    size = (PAGE_WIDTH, 1.0 + 1.9 * height)
    axes = use_axes(axes, height, len(metrics), size=size, sharex="col", sharey="col")
    if not told.tasks:
        axes[0, 0].set_title(f"n = {count_of(0)}", loc="left")
    for task, across in zip(told.tasks, axes[: len(told.tasks)], strict=True):
        for ax, metric in zip(across, metrics, strict=True):
            here = runs[runs["task_id"] == task]
            for _, members in here.groupby("setting"):
                _draw_curves(ax, members, curves, metric, told)
            title = f"{short_task(task)}, {_count(here, curves, metric)}"
            room = width_of_axes(ax, len(metrics)) if own else 99.0
            ax.set_title("\n".join(wrap_text(title, room, ax.title.get_fontsize())), loc="left")
    for column, metric in enumerate(metrics):
        _label_metric(axes[:, column], metric, [*runs[metric].dropna(), *curves[metric].dropna()])
        axes[-1, column].set_xlabel("Weight updates")
    handles = [*told.alpha_handles(), *(told.line_handles() if len(told.letters) > 1 else [])]
    handles += told.baseline_handles()
    unknown, collapsed = runs["update"].isna().sum(), (last["collapse"] != "").sum()
    trained = "lines: training, as logged; dots: evaluated checkpoints"
    notes = [
        f"thin: runs; thick, band: mean and t interval over the runs of a setting (from {MIN_FOR_INTERVAL} runs)",
        trained if len(curves) else "",
        told.shared,
        *notes,
        *log_notes,
        f"{collapsed} of {count_of(len(last))} end with a {COLLAPSED}" if collapsed else "",
        f"{unknown} checkpoint(s) of unknown update not shown" if unknown else "",
        replaced_levels(last),
        told.key(),
    ]
    finish(list(axes.flat), notes, own=own, handles=handles)
    return axes


@figure_style()
def plot_alpha_sweep(rows: Rows, metric: str = "mean_lpc", ax: Axes | None = None) -> Axes:
    """Draw a metric of the last checkpoints against the price of complexity, `lpc_alpha`.

    Small points are runs, crosses those with a collapsed router, lines join the means of settings that differ in alpha
    only; colours and markers tell tasks, line styles all else. alpha = 0 has a place of its own, left of the
    logarithmic axis. LPC is on a logarithmic axis where it spans decades.

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
    told = encode_settings(priced[priced[metric].notna()], lines=True)
    shown = told.rows
    places = _alpha_places(shown["lpc_alpha"].unique())
    lines = list(shown.groupby(["task_id", "rest"], sort=True))
    agree, shift = False, min(0.12, 0.6 / max(1, len(lines)))
    for index, ((task, rest), members) in enumerate(lines):
        offset = shift * (index - (len(lines) - 1) / 2)
        members = members.assign(x=members["lpc_alpha"].map(places) + offset)
        agree |= _draw_sweep(
            ax, members, metric, (told.task_color(task), told.marker(task), told.line(rest)), 0.75 * shift
        )
    _label_alphas(ax, shown, places)
    _label_metric([ax], metric, shown[metric].tolist())
    handles = [
        Line2D([], [], color=told.task_color(task), marker=told.marker(task), markersize=5, label=short_task(task))
        for task in told.tasks
    ]
    handles += told.line_handles() if len(told.letters) > 1 else []
    if (shown["collapse"] != "").any():
        handles.append(Line2D([], [], color="black", marker="x", linestyle="None", markersize=5, label=COLLAPSED))
    notes = [
        f"dots: runs; lines: means, t interval over runs (from {MIN_FOR_INTERVAL} runs)",
        AGREE if agree else "",
        told.shared,
        *notes,
        f"{count_of(len(last) - len(priced))} without LPC or alpha not shown" if len(last) > len(priced) else "",
        f"{count_of(len(priced) - len(shown))} without this metric not shown" if len(priced) > len(shown) else "",
        replaced_levels(shown),
        told.key(),
    ]
    finish(ax, notes, own=own, handles=handles)
    return ax


# --------------------------------------------------------------------------------------------------------------- parts


def _curves_of(last: pd.DataFrame, logs: pd.DataFrame | None) -> pd.DataFrame:
    """Return the lines of logs with the run that each is of; LPC is NaN of a policy without experts, which logs 0."""
    if logs is None or logs.empty:
        return pd.DataFrame(columns=["run", "update", *LOGGED], dtype=float)
    paths = last["checkpoint_path"].fillna("").astype(str)
    alone = [
        pd.isna(run) or (isinstance(levels, list) and levels == [task])
        for task, run, levels in zip(last["task_id"], last["trained_on"], last["trained_levels"], strict=True)
    ]
    levels = last["task_id"].map(short_task).mask(np.array(alone, bool), "")  # a log of one level does not name it
    folders = [PurePosixPath(path).parent.as_posix() for path in paths]
    of_runs = pd.DataFrame({"run": last["run"], "folder": folders, "level": levels, "gru": last["policy"] == "gru"})
    logs = logs if "level" in logs else logs.assign(level="")
    curves = logs.merge(of_runs, on=["folder", "level"])
    return curves.assign(mean_lpc=curves["mean_lpc"].mask(curves["gru"])).drop(columns="gru")


def _draw_curves(ax: Axes, members: pd.DataFrame, curves: pd.DataFrame, metric: str, told: Encoded) -> None:
    """Draw the curves of a setting's runs, and their mean where it has enough of them."""
    first = members.iloc[0]
    if first["policy"] == "gru":
        color, line = GREY, told.baseline_line(first["rest"])
    else:
        color, line = told.color(first["task_id"], first["lpc_alpha"]), told.line(first["rest"])
    marker = told.marker(first["task_id"])
    logged = _known_points(curves[curves["run"].isin(members["run"])], metric)
    points = _known_points(members, metric)
    count = members["run"].nunique()
    with_log = points["run"].isin(logged["run"])
    dots = {"color": color, "marker": ".", "markersize": 4.5, **fade(count, 0.8)}
    if with_log.any():
        ax.plot(points["update"][with_log], points[metric][with_log], linestyle="None", **dots)
    for _, curve in points[~with_log].groupby("run"):
        ax.plot(curve["update"], curve[metric], linewidth=0.6, linestyle=line, **dots)
    thin = {"linewidth": 0.5 if count >= MIN_FOR_INTERVAL else 1.1, **fade(count, 0.7)}  # else there is no mean beside
    for _, curve in logged.groupby("run"):
        ax.plot(curve["update"], curve[metric], color=color, linestyle=line, marker=",", **thin)
    for table, name in ((points, "run, evaluated"), (logged, "run, training")):
        keys = {"panel": name, "task": first["task_id"], "setting": first["label"], "lpc_alpha": first["lpc_alpha"]}
        add_source(ax.figure, table.merge(members[["run", "trial", "seed"]].drop_duplicates("run"), on="run")
                   .drop(columns="run").rename(columns={metric: "value"}).assign(metric=metric, **keys))  # fmt: skip
    averaged = logged if logged["run"].nunique() == count and count else points
    shared = averaged.pivot_table(index="update", columns="run", values=metric).dropna()
    if shared.shape[1] < MIN_FOR_INTERVAL or shared.empty:
        return
    spread = mean_interval(shared.T.to_numpy()).where_units_differ()
    low, high = clip_to_range(metric, spread.low, spread.high)
    many = averaged is logged or len(shared) > 30
    ax.plot(shared.index, spread.mean, color=color, linestyle=line, marker="" if many else marker, markersize=4)
    ax.fill_between(shared.index, low, high, color=color, alpha=0.16, linewidth=0)
    table = {"panel": "mean over runs", "task": first["task_id"], "setting": first["label"], "metric": metric}
    values = {"value": spread.mean, "low": low, "high": high, "n": shared.shape[1]}
    add_source(
        ax.figure, pd.DataFrame({"update": shared.index, **values}).assign(**table, lpc_alpha=first["lpc_alpha"])
    )


def _label_metric(axes: Sequence[Axes], metric: str, values: Sequence[float]) -> None:
    """Set name and limits of an axis of y."""
    for ax in axes:
        logarithmic = metric == "mean_lpc" and set_lpc_axis(ax, values, vertical=True)
        name = lpc_label(logarithmic) if metric == "mean_lpc" else METRIC_LABELS[metric]
        ax.set_ylabel(name.replace(", log", ",\nlog"))
        if metric in ("success_rate", "agreement"):
            ax.set_ylim(-0.03, 1.03)


def _known_points(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return `run`, `update` and a metric, where both are known, by update."""
    known = runs[["run", "update", metric]].dropna()
    return known.astype({"update": "int64", metric: "float64"}).sort_values("update")


def _count(runs: pd.DataFrame, curves: pd.DataFrame, metric: str) -> str:
    """Return how many runs a panel shows, and how many it cannot."""
    here = curves[curves["run"].isin(runs["run"])]
    total = runs["run"].nunique()
    shown = len({*_known_points(runs, metric)["run"], *_known_points(here, metric)["run"]})
    reason = "no LPC" if metric == "mean_lpc" else "not known"
    return f"n = {count_of(shown)}" + (f" ({total - shown} more: {reason})" if shown < total else "")


def _draw_sweep(ax: Axes, members: pd.DataFrame, metric: str, style: tuple, aside: float) -> bool:
    """Draw one line of settings: runs by their place on the axis, `x`; return whether an interval is over levels.

    Args:
        ax: To draw on.
        members: Runs.
        metric: Of them.
        style: Colour, marker, line style.
        aside: How far from the mean the runs are, to its right.
    """
    color, marker, line = style
    spreads = {x: spread_over_runs(same, metric) for x, same in members.groupby("x")}
    ax.plot(
        list(spreads),
        [float(s.mean) for s, _ in spreads.values()],
        color=color,
        linestyle=line,
        linewidth=1.2,
        zorder=2,
    )
    for x, (spread, _) in spreads.items():
        firm = spread.n >= MIN_FOR_INTERVAL
        if np.isfinite(spread.low):
            ax.vlines(x, *clip_to_range(metric, spread.low, spread.high), color=color, linewidth=1.4, zorder=3)
        ax.plot(x, spread.mean, marker, color=color, markersize=5, markerfacecolor=color if firm else "white", zorder=4)
        add_source(ax.figure, mean_row(members[members["x"] == x], {metric: spread}))
    x, values = members["x"].astype("float64") + aside, members[metric].astype("float64")
    style = {"color": color, "markersize": 4, "alpha": 0.8, "zorder": 5}
    mark_runs(ax, x, values, members["collapse"], ".", **style)
    mark_collapsed(ax, x, values, members["collapse"], **style)
    add_source(ax.figure, runs_table(members, [metric]))
    return any(over_levels for _, over_levels in spreads.values())


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
