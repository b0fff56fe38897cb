"""Needed beside used complexity on many levels: a small panel for each, every subgoal a point, maps of a few.

A figure with two panels for each level and price, as of a few levels, would be ten pages of twenty-one levels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from plotting.panels import PAGE_WIDTH, finish, series_style, use_axes
from plotting.runs import short_task
from plotting.style import figure_style
from science.figures.names import Drawn, alpha_of, color_of, in_order, label_of, means_of, number_of
from science.figures.needed import draw_maps

COLUMNS = 5
"""Panels beside each other."""

MOST_MAPS = 4
"""Levels that have a map."""

_LINES = {"needed": (0, (2, 1.2)), "used": "-"}


def draw_needed(table: pd.DataFrame) -> Iterator[Drawn]:
    """Yield the course of an episode on each level, subgoals, and maps of a few levels."""
    over = means_of(table)
    if set(table["quantity"]) >= {"needed_by_plan", "used_by_plan"}:
        yield draw_courses("needed_course", over)
    if set(table["quantity"]) >= {"needed_by_subgoal", "used_by_subgoal"}:
        yield draw_subgoals("needed_by_subgoal", over)
    tasks, number = choose_levels(over), over["task"][over["quantity"] == "needed_at"].nunique()
    for task in tasks:
        drawn = draw_maps(f"needed_map_{short_task(task)}", table[table["task"] == task])
        chosen = (
            f"One of {len(tasks)} of {number} levels, chosen evenly from that which needs least to that which needs "
            "most; all are in the table (needed_at, used_at)."
        )
        yield Drawn(drawn.name, drawn.figure, f"{drawn.caption} {chosen}")


def choose_levels(over: pd.DataFrame, most: int = MOST_MAPS) -> list[str]:
    """Return the levels that have a map: of all, evenly spaced in the order of complexity needed at the first price."""
    rows = over[(over["quantity"] == "needed") & over["task"].isin(over["task"][over["quantity"] == "needed_at"])]
    first = in_order(rows["setting"])[:1]
    means = rows[rows["setting"].isin(first)].dropna(subset=["value"]).sort_values("value", kind="stable")
    tasks = list(means["task"])
    places = np.unique(np.linspace(0, len(tasks) - 1, min(most, len(tasks))).round().astype(int)) if tasks else []
    return [tasks[place] for place in places]


@figure_style()
def draw_courses(name: str, over: pd.DataFrame) -> Drawn:
    """Draw what is needed and used against the steps left, means over runs: a panel for each level, all prices."""
    rows = over[over["quantity"].isin(("needed_by_plan", "used_by_plan"))]
    rows = rows.assign(
        left=[number_of(text) for text in rows["condition"]], kind=rows["quantity"].str.partition("_")[0]
    )
    tasks, settings = list(dict.fromkeys(rows["task"])), in_order(rows["setting"])
    columns = min(COLUMNS, len(tasks))
    lines = -(-len(tasks) // columns)
    axes = use_axes(None, lines, columns, size=(PAGE_WIDTH, 1.2 + 1.2 * lines), sharex=True, sharey=True)
    for place, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        here = rows[rows["task"] == task]
        for (setting, kind), course in here.groupby(["setting", "kind"]):
            course = course.sort_values("left")
            ax.plot(course["left"], course["value"], color=color_of(setting), ls=_LINES[kind], lw=1.3)
        ax.set_title(short_task(task), loc="left", fontsize="xx-small")
        ax.tick_params(labelsize="xx-small")
        if place >= len(tasks) - columns:
            ax.tick_params(axis="x", labelbottom=True)
        if place // columns == lines - 1:
            ax.set_xlabel("steps left", fontsize="x-small")
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("LPC", fontsize="x-small")
    first, most = axes.flat[0], float(rows["left"].max())
    first.set_xscale("log")
    ticks = [value for value in (1, 3, 8, 21, 55) if value <= most]
    first.set_xticks(ticks, [f"{value}" for value in ticks])
    first.minorticks_off()
    first.set_xlim(1.15 * most, 0.87)
    _scale(first, rows["value"], "y")
    handles = [Line2D([], [], color="0.3", ls=ls, lw=1.3, label=kind) for kind, ls in _LINES.items()]
    handles += [Line2D([], [], color=color_of(s), lw=1.8, label=_title(s)) for s in settings]
    counts = sorted({int(n) for n in rows["n_runs"] if n > 0})
    said = f"means over {'' if len(counts) != 1 else f'{counts[0]} '}runs; intervals are in the table"
    finish(list(axes.flat), [said], own=True, handles=handles)
    caption = (
        "Complexity needed (dashed: the cost of the cheapest single path that takes the bot's action) and used (full) "
        f"against the steps that the bot has left, on each level at each price: {said}."
    )
    return Drawn(name, first.figure, caption)


def _title(setting: str) -> str:
    return f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)


def _scale(ax: object, values: pd.Series, axis: str) -> None:
    """Give an axis of LPC a logarithmic scale, linear near 0 where there are zeros."""
    above = values[values > 0]
    if not len(above):
        return
    set_scale = ax.set_yscale if axis == "y" else ax.set_xscale
    if (values > 0).all():
        set_scale("log")
    else:
        set_scale("symlog", linthresh=float(above.min()))
    (ax.yaxis if axis == "y" else ax.xaxis).set_minor_formatter(NullFormatter())


@figure_style()
def draw_subgoals(name: str, over: pd.DataFrame) -> Drawn:
    """Draw used against needed, means over runs: every subgoal of every level a point, a panel for each price."""
    keys = ["task", "setting", "group"]
    parts = [over[over["quantity"] == f"{kind}_by_subgoal"].set_index(keys) for kind in ("needed", "used")]
    joined = parts[0][["value", "n_runs"]].join(parts[1]["value"].rename("value_used")).dropna().reset_index()
    settings, groups = in_order(joined["setting"]), list(dict.fromkeys(joined["group"]))
    axes = list(use_axes(None, 1, len(settings), size=(PAGE_WIDTH, 3.2), sharex=True, sharey=True).flat)
    both = pd.concat([joined["value"], joined["value_used"]])
    _scale(axes[0], both, "x")
    _scale(axes[0], both, "y")
    above = both[both > 0]
    ends = (0.8 * float(above.min()), 1.25 * float(above.max())) if len(above) else (0.1, 1.0)
    for ax, setting in zip(axes, settings, strict=True):
        here = joined[joined["setting"] == setting]
        ax.plot(ends, ends, color="0.7", lw=0.8, zorder=0)
        for index, group in enumerate(groups):
            points = here[here["group"] == group]
            color, marker = series_style(index)
            style = {"color": color, "marker": marker, "ms": 3.6, "mec": "0.3", "mew": 0.3}
            ax.plot(points["value"], points["value_used"], ls="", alpha=0.85, **style)
        ax.set_title(f"{_title(setting)}, n {int(here['n_runs'].max())}", loc="left", fontsize="small")
        ax.set_xlabel("needed (LPC)", fontsize="small")
        ax.tick_params(labelsize="x-small")
    axes[0].set_ylabel("used (LPC)", fontsize="small")
    handles = []
    for index, group in enumerate(groups):
        color, marker = series_style(index)
        handles.append(Line2D([], [], ls="", color=color, marker=marker, ms=4, mec="0.3", mew=0.3, label=group))
    finish(axes, ["a point: a subgoal of a level, mean over runs; above the line more is used than needed"],
           own=True, handles=handles)  # fmt: skip
    caption = (
        f"Complexity used against needed, by the bot's subgoal: every subgoal of each of {joined['task'].nunique()} "
        "levels is a point, the mean over runs. Above the line more is used than the cheapest path costs that takes "
        "the bot's action, below it less."
    )
    return Drawn(name, axes[0].figure, caption)
