"""What probes tell: sources by targets, one map for each task and price."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import DIFFERENCE_CMAP, figure_style
from science.figures.maps import explain_stars, format_cell, leave_cells_alone
from science.figures.names import Drawn, alpha_of, in_order, label_of, means_of


@figure_style()
def draw_probes(name: str, rows: pd.DataFrame, label: str, level: float = 0.05) -> Drawn:
    """Draw means over runs of each source and target; colours are above and below what is expected of nothing.

    Args:
        name: Of the figure.
        rows: Of one quantity.
        label: What it is.
        level: Of the stars.
    """
    over = means_of(rows)
    alone = over[over["setting"] == ""]  # the observation, which is the same at all prices
    tasks, settings = list(dict.fromkeys(over["task"])), in_order(s for s in over["setting"] if s)
    sources, targets = list(dict.fromkeys(over["condition"])), list(dict.fromkeys(over["group"]))
    height = 1.35 + len(tasks) * (0.55 + 0.17 * len(sources))
    axes = use_axes(None, len(tasks), len(settings), size=(PAGE_WIDTH, height), sharex=True)
    away = (over["value"] - over["null_mean"].fillna(0.0)).abs()
    most = max(float(away.max()), 1e-6) if away.notna().any() else 1.0
    style = {"cmap": DIFFERENCE_CMAP, "norm": TwoSlopeNorm(0.0, -most, most)}
    for across, task in zip(axes, tasks, strict=True):
        for ax, setting in zip(across, settings, strict=True):
            here = pd.concat(
                [alone[alone["task"] == task], over[(over["task"] == task) & (over["setting"] == setting)]]
            )
            grid = np.full((len(sources), len(targets)), np.nan)
            for cell in here.to_dict("records"):
                y, x, value = sources.index(cell["condition"]), targets.index(cell["group"]), cell["value"]
                grid[y, x] = value - (0.0 if np.isnan(cell["null_mean"]) else cell["null_mean"])
                star = "*" if cell["p_adjusted"] <= level else ""
                color = "white" if abs(grid[y, x]) > 0.62 * most else "black"
                ax.text(x, y, format_cell(value) + star, ha="center", va="center", color=color, fontsize=5)
            ax.imshow(grid, aspect="auto", **style)
            n = int(here["n_runs"].max()) if len(here) else 0
            price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
            ax.set_title(f"{price}, n {n}", loc="left", fontsize="small")
            words = [target.replace("_", " ") for target in targets]
            ax.set_xticks(
                range(len(targets)), words, fontsize="xx-small", rotation=60, ha="right", rotation_mode="anchor"
            )
            ax.set_yticks(range(len(sources)), sources if ax is across[0] else [], fontsize="xx-small")
            leave_cells_alone(ax)
        across[0].set_ylabel(short_task(task))
    note = explain_stars(over, level)
    chance = "colour: above or below chance" if over["null_mean"].notna().any() else ""
    finish(list(axes.flat), ["means over runs", chance, note], own=True)
    said = [
        f"{label[:1].upper()}{label[1:]}, of each source (rows) and target (columns): means over runs",
        chance,
        note,
    ]
    return Drawn(name, axes.flat[0].figure, ". ".join(text[:1].upper() + text[1:] for text in said if text) + ".")
