"""Needed beside used complexity: by place in the grid, by what is left of the plan, by subgoal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from plotting.cells import lpc_mappable, render_value_heatmap
from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import CATEGORY_COLORS, figure_style, wrap_text
from science.figures.names import Drawn, alpha_of, in_order, label_of, means_of, number_of

MIN_VISITS = 5
"""Levels below which a cell is hatched."""

DRAWN = frozenset(f"{kind}_{by}" for kind in ("needed", "used") for by in ("at", "by_plan", "by_subgoal"))
"""Quantities that are in these figures."""

_COLORS = {"needed": CATEGORY_COLORS[3], "used": CATEGORY_COLORS[7]}


def draw_needed(table: pd.DataFrame) -> Iterator[Drawn]:
    """Yield a map of each task, and what is needed and used in the course of an episode and by subgoal."""
    for task in dict.fromkeys(table["task"][table["quantity"] == "needed_at"]):
        yield draw_maps(f"needed_map_{short_task(task)}", table[table["task"] == task])
    if set(table["quantity"]) >= {"needed_by_plan", "used_by_plan"}:
        yield draw_courses("needed_course", table)


def _settings(rows: pd.DataFrame) -> list[str]:
    return in_order(rows["setting"][rows["setting"] != ""])


def _title(setting: str) -> str:
    return f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)


@figure_style()
def draw_maps(name: str, rows: pd.DataFrame) -> Drawn:
    """Draw one task's grid: the complexity needed above that used, a column for each price, on one scale in each."""
    rows = rows[rows["quantity"].isin(("needed_at", "used_at"))]
    settings = _settings(rows)
    places = {text: tuple(map(int, re.findall(r"-?\d+", text))) for text in dict.fromkeys(rows["condition"])}
    (x_min, y_min), (x_max, y_max) = np.min(list(places.values()), axis=0), np.max(list(places.values()), axis=0)
    grid = {"x_min": int(x_min), "y_min": int(y_min), "x_max": int(x_max), "y_max": int(y_max)}
    grid |= {"grid_width": int(x_max - x_min) + 1, "grid_height": int(y_max - y_min) + 1}
    width = PAGE_WIDTH / max(3, len(settings))
    height = 2 * (width * grid["grid_height"] / grid["grid_width"] + 0.32) + 0.75
    axes = use_axes(None, 2, len(settings), size=(PAGE_WIDTH, height))
    rare = False
    for column, setting in enumerate(settings):
        here = rows[rows["setting"] == setting]
        seen = {places[text]: int(n) for text, n in zip(here["condition"], here["n_episodes"], strict=True)}
        often = here[here["n_episodes"] >= MIN_VISITS]["value"]
        top = float(often.max()) if len(often) else float(here["value"].max())
        scale = lpc_mappable(0.0, top if top > 0 else 1.0)
        rare |= any(n < MIN_VISITS for n in seen.values())
        for row, kind in enumerate(("needed", "used")):
            ax = axes[row, column]
            cells = here[here["quantity"] == f"{kind}_at"]
            values = dict(zip((places[t] for t in cells["condition"]), cells["value"], strict=True))
            render_value_heatmap(ax, values, grid, scale, visits=seen, min_visits=MIN_VISITS)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel("")
            ax.set_ylabel("")
        runs = int(here["n_runs"].max())
        axes[0, column].set_title(f"{_title(setting)}, n {runs}\nneeded", loc="left", fontsize="small")
        axes[1, column].set_title("used", loc="left", fontsize="small")
        _add_bar(axes[:, column], scale)
    notes = ["LPC, means over steps and runs; one scale for both maps of a price"]
    notes += [f"hatched: fewer than {MIN_VISITS} levels" if rare else ""]
    finish(list(axes.flat), notes, own=True)
    task = short_task(str(rows["task"].iloc[0]))
    return Drawn(
        name,
        axes.flat[0].figure,
        f"{task}: complexity needed (above) and used (below) where the agent stands, on the bot's way. Needed is the "
        "cost of the cheapest single path that takes the bot's action there.",
    )


def _add_bar(axes: np.ndarray, scale: ScalarMappable) -> None:
    bar = axes[0].figure.colorbar(scale, ax=list(axes), orientation="horizontal", fraction=0.06, pad=0.03, aspect=18)
    bar.ax.tick_params(labelsize="xx-small", length=2)
    bar.ax.locator_params(nbins=3)
    bar.outline.set_visible(False)


@figure_style()
def draw_courses(name: str, table: pd.DataFrame) -> Drawn:
    """Draw what is needed and used against the steps left, and by subgoal: a column for each price."""
    table = table[table["quantity"].isin(DRAWN)]
    tasks, settings = list(dict.fromkeys(table["task"])), _settings(table)
    size = (PAGE_WIDTH, 0.9 + 3.4 * len(tasks))
    axes = use_axes(None, 2 * len(tasks), len(settings), size=size)
    for t, task in enumerate(tasks):
        of_task = table[table["task"] == task]
        names = list(dict.fromkeys(of_task["group"][of_task["quantity"] == "needed_by_subgoal"]))
        for column, setting in enumerate(settings):
            here = of_task[of_task["setting"] == setting]
            above, below = axes[2 * t, column], axes[2 * t + 1, column]
            for kind, color in _COLORS.items():
                _draw_course(above, means_of(here[here["quantity"] == f"{kind}_by_plan"]), color)
                _draw_subgoals(below, means_of(here[here["quantity"] == f"{kind}_by_subgoal"]), names, color, kind)
            top = max(above.get_ylim()[1], below.get_xlim()[1])
            above.set_ylim(0, top)
            below.set_xlim(0, top)
            n = int(here["n_runs"].max()) if len(here) else 0
            above.set_title(f"{_title(setting)}, n {n}", loc="left", fontsize="small")
            above.set_xlabel("steps left", fontsize="small")
            below.set_xlabel("LPC", fontsize="small")
            below.set_yticks(range(len(names)), names if column == 0 else [], fontsize="x-small")
            below.set_ylim(len(names) - 0.5, -0.5)
            for ax in (above, below):
                ax.tick_params(labelsize="x-small")
        axes[2 * t, 0].set_ylabel("\n".join(wrap_text(f"{short_task(task)}: LPC", 1.6, 9.0)), fontsize="small")
    handles = [Line2D([], [], color=color, marker="o", ms=3.5, label=kind) for kind, color in _COLORS.items()]
    finish(list(axes.flat), ["means over runs, 95 % t intervals"], own=True, handles=handles)
    return Drawn(
        name,
        axes.flat[0].figure,
        "Complexity needed, the cost of the cheapest single path that takes the bot's action, beside that used: "
        "against the steps that the bot has left, and by its subgoal.",
    )


def _draw_course(ax: Axes, rows: pd.DataFrame, color: str) -> None:
    rows = rows.assign(left=[number_of(text) for text in rows["condition"]]).sort_values("left")
    x = rows["left"].to_numpy(np.float64)
    ax.plot(x, rows["value"], color=color, marker="o", ms=2.5, lw=1.2)
    ax.fill_between(x, rows["low"].astype(float), rows["high"].astype(float), color=color, alpha=0.18, lw=0)
    ax.set_xscale("log")
    ticks = [value for value in (1, 3, 8, 21, 55) if len(x) and value <= x.max()]
    ax.set_xticks(ticks, [f"{value}" for value in ticks])
    ax.minorticks_off()
    ax.set_xlim(1.15 * x.max(initial=1), 0.87)


def _draw_subgoals(ax: Axes, rows: pd.DataFrame, names: list[str], color: str, kind: str) -> None:
    offset = -0.14 if kind == "needed" else 0.14
    for row in rows.to_dict("records"):
        y = names.index(row["group"]) + offset
        ax.plot(row["value"], y, ls="", marker="o", ms=3.5, color=color)
        if np.isfinite(row["low"]):
            ax.hlines(y, row["low"], row["high"], color=color, lw=1.2)
