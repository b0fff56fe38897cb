"""Maps over experts: layers by experts, one for each task and price; and each expert's usage against its knock-out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import DIFFERENCE_CMAP, figure_style
from science.figures.experts import Sizes, are_alike, list_handles, name_columns, name_layers, style_of
from science.figures.names import Drawn, alpha_of, in_order, label_of, means_of, runs_of


@figure_style()
def draw_map(name: str, rows: pd.DataFrame, label: str, sizes: Sizes, level: float = 0.05) -> Drawn:
    """Draw means over runs of each expert; a star where p over the map is small enough.

    Args:
        name: Of the figure.
        rows: Of one quantity and kind of knock-out, over runs.
        label: What it is.
        sizes: Hidden sizes of the experts, per layer.
        level: Of the stars.
    """
    over = means_of(rows)
    tasks, settings = list(dict.fromkeys(over["task"])), in_order(over["setting"])
    layers, experts = len(sizes), max(map(len, sizes))
    axes = use_axes(None, len(tasks), len(settings), size=(PAGE_WIDTH, 1.0 + len(tasks) * (0.65 + 0.36 * layers)))
    values = over["value"].to_numpy(np.float64)
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() and np.nanmax(np.abs(values)) > 0 else 1.0
    style = {"cmap": DIFFERENCE_CMAP, "norm": TwoSlopeNorm(0.0, -most, most)}
    for across, task in zip(axes, tasks, strict=True):
        for ax, setting in zip(across, settings, strict=True):
            here = over[(over["task"] == task) & (over["setting"] == setting)]
            grid = np.full((layers, experts), np.nan)
            for cell in here.to_dict("records"):
                layer, expert, value = cell["layer"], cell["expert"], cell["value"]
                grid[layer, expert] = value
                star = "*" if cell["p_adjusted"] <= level else ""
                color = "white" if abs(value) > 0.62 * most else "black"
                ax.text(
                    expert, layer, format_cell(value) + star, ha="center", va="center", color=color, fontsize="xx-small"
                )
            ax.imshow(grid, aspect="auto", **style)
            n = int(here["n_runs"].max()) if len(here) else 0
            price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
            ax.set_title(f"{price}\nn {n}", loc="left", fontsize="small")
            ax.set_xticks(range(experts), name_columns(sizes), fontsize="xx-small")
            small = {} if are_alike(sizes) else {"fontsize": "xx-small"}
            ax.set_yticks(range(layers), name_layers(sizes, "\n") if ax is across[0] else [], **small)
            leave_cells_alone(ax)
        across[0].set_ylabel(short_task(task))
    note = explain_stars(over, level)
    words = "" if are_alike(sizes) else "columns are experts by number; their sizes stand below their layer"
    finish(list(axes.flat), ["means over runs", words, note], own=True)
    return Drawn(name, axes.flat[0].figure, f"{label}, of each expert: means over runs. {note}{'.' if note else ''}")


def explain_stars(rows: pd.DataFrame, level: float) -> str:
    """Return what a star in a map of these rows means, "" where there can be none."""
    starred = rows["p_adjusted"].notna().any()
    return f"* p at most {level:g}, adjusted over the map after Benjamini and Hochberg" if starred else ""


def leave_cells_alone(ax: Axes) -> None:
    """Take the frame and the ticks from around a map's cells."""
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def format_cell(value: float) -> str:
    """Return a number as a cell of a map has it, "" for none."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.2f}" if abs(value) >= 0.005 else "0" if abs(value) < 5e-4 else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


@figure_style()
def draw_audit(name: str, usage: pd.DataFrame, effects: pd.DataFrame, label: str, sizes: Sizes) -> Drawn | None:
    """Draw each expert's usage against what its knock-out does: every expert of every run a point; None without any.

    Args:
        name: Of the figure.
        usage: Rows of single runs, by layer and expert.
        effects: Rows of single runs of one kind of knock-out, by layer and expert.
        label: Of the effect.
        sizes: Hidden sizes of the experts, per layer.
    """
    keys = ["task", "setting", "seed", "layer", "expert"]
    joined = runs_of(usage)[[*keys, "value"]].merge(runs_of(effects)[[*keys, "value"]], on=keys, suffixes=("_x", "_y"))
    joined = joined.dropna()
    if not len(joined):
        return None
    tasks, settings = list(dict.fromkeys(joined["task"])), in_order(joined["setting"])
    size = (PAGE_WIDTH, 1.1 + 1.6 * len(tasks))
    axes = use_axes(None, len(tasks), len(settings), size=size, sharex=True, sharey="row")
    for across, task in zip(axes, tasks, strict=True):
        for ax, setting in zip(across, settings, strict=True):
            here = joined[(joined["task"] == task) & (joined["setting"] == setting)]
            _scatter(ax, here, sizes)
            price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
            ax.set_title(f"{price}, n {here['seed'].nunique()}", loc="left", fontsize="small")
        across[0].set_ylabel(f"{short_task(task)}\n{label}", fontsize="small")
    for ax in axes[-1]:
        ax.set_xlabel("usage", fontsize="small")
    finish(list(axes.flat), ["a point: an expert of a run"], own=True, handles=list_handles(sizes))
    return Drawn(
        name,
        axes.flat[0].figure,
        f"Does the map of usage predict the lesion? {label[:1].upper()}{label[1:]} against usage: "
        "every expert of every run is a point.",
    )


def _scatter(ax: Axes, rows: pd.DataFrame, sizes: Sizes) -> None:
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    for (layer, expert), points in rows.groupby(["layer", "expert"]):
        style = style_of(layer, expert, sizes)
        ax.plot(points["value_x"], points["value_y"], ls="", ms=2.8, alpha=0.8, **style)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1])
