"""Fronts of success against LPC: of prices, each seed a line; of the dial, which retrains nothing; of the baselines."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import CATEGORY_COLORS, figure_style
from science.figures.names import Drawn, color_of, in_order, label_of, number_of, runs_of

_DIAL, _DENSE = CATEGORY_COLORS[3], CATEGORY_COLORS[0]


MOST_WIDE = 4
"""Tasks beside each other; more are small panels."""

COLUMNS = 5
"""Of small panels."""


@figure_style()
def draw_fronts(name: str, table: pd.DataFrame) -> Drawn | None:
    """Draw success against LPC, a column for each task; None without any.

    Args:
        name: Of the figure.
        table: Rows front_lpc and front_success, of single runs by price; dial_lpc and dial_success by lambda;
            baseline_lpc and baseline_success.
    """
    trained = pair_rows(table, "front")
    if not len(trained):
        return None
    dial, dense = pair_rows(table, "dial"), pair_rows(table, "baseline")
    tasks = list(dict.fromkeys(trained["task"]))
    few = len(tasks) <= MOST_WIDE
    columns = len(tasks) if few else COLUMNS
    lines = -(-len(tasks) // columns)
    size = (PAGE_WIDTH, 3.6 if few else 1.2 + 1.3 * lines)
    axes = use_axes(None, lines, columns, size=size, sharey=True, sharex=not few)
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    marker = 4.0 if few else 2.4
    floor = max(0.5, 0.5 * float(trained["lpc"][trained["lpc"] > 0].min()))
    for place, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        here = trained[trained["task"] == task].assign(price=lambda t: [number_of(c) for c in t["condition"]])
        _draw_seeds(ax, here, "price", "0.55", floor)
        for condition in in_order(here["condition"]):
            points = here[here["condition"] == condition]
            x = np.maximum(points["lpc"], floor)
            ax.plot(
                x,
                points["success"],
                ls="",
                marker="o",
                ms=marker,
                color=color_of(condition),
                mec="0.3",
                mew=0.3,
                zorder=4,
            )
        turned = dial[dial["task"] == task].assign(price=lambda t: [number_of(c) for c in t["condition"]])
        _draw_seeds(ax, turned, "price", _DIAL, floor)
        ax.plot(
            np.maximum(turned["lpc"], floor),
            turned["success"],
            ls="",
            marker="x",
            ms=0.85 * marker,
            color=_DIAL,
            zorder=3,
        )
        points = dense[dense["task"] == task]
        ax.plot(points["lpc"], points["success"], ls="", marker="D", ms=0.85 * marker, color=_DENSE, zorder=3)
        ax.set_xscale("log")
        if place >= len(tasks) - columns:
            ax.tick_params(axis="x", labelbottom=True)
        if place // columns == lines - 1:
            ax.set_xlabel("LPC", fontsize="medium" if few else "small")
        n = here["seed"].nunique()
        words = f"{short_task(task)}, n = {n} seeds" if few else f"{short_task(task)}, n {n}"
        ax.set_title(words, loc="left", fontsize="medium" if few else "xx-small")
        if not few:
            ax.tick_params(labelsize="xx-small")
        ax.set_ylim(-0.03, 1.03)
    for ax in axes[:, 0]:
        ax.set_ylabel("success", fontsize="medium" if few else "small")
    conditions = in_order(trained["condition"])
    style = {"ls": "", "marker": "o", "ms": 4}
    handles = [Line2D([], [], color=color_of(c), label=f"trained, alpha {label_of(c)}", **style) for c in conditions]
    if len(dial):
        handles.append(Line2D([], [], color=_DIAL, marker="x", ms=4, lw=0.8, label="dial at inference"))
    if len(dense):
        handles.append(Line2D([], [], color=_DENSE, ls="", marker="D", ms=4, label="dense GRU"))
    finish(list(axes.flat), [f"a line joins the points of a seed; LPC below {floor:.2g} is drawn there"], own=True,
           handles=handles)  # fmt: skip
    dial_text = (
        " Crosses: the policy of the lowest price with its weights turned, without retraining." if len(dial) else ""
    )
    return Drawn(name, axes.flat[0].figure, f"Success against LPC: every run is a point, every seed a line.{dial_text}")


def pair_rows(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Return the rows of single runs with columns lpc and success."""
    keys = ["task", "setting", "seed", "condition"]
    parts = [
        runs_of(table[table["quantity"] == f"{prefix}_{name}"])[[*keys, "value"]].rename(columns={"value": name})
        for name in ("lpc", "success")
    ]
    return parts[0].merge(parts[1], on=keys).dropna()


def _draw_seeds(ax: Axes, rows: pd.DataFrame, order: str, color: str, floor: float) -> None:
    for _, run in rows.groupby(["setting", "seed"]):
        run = run.sort_values(order)
        ax.plot(np.maximum(run["lpc"], floor), run["success"], color=color, lw=0.6, alpha=0.6, zorder=1)
