"""Figures over levels: LPC against how hard they are; how alike they are, by subgoals, routing and lesions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import figure_style
from science.figures.names import Drawn, alpha_of, color_of, in_order, label_of, runs_of

DIFFICULTIES = {
    "difficulty_plan_length": "plan length (steps)",
    "difficulty_subgoals": "subgoals",
    "difficulty_steps_to_learn": "log env-steps to learn",
}
"""What axes say of them."""

MATRICES = {"k_task": "subgoals (cosine)", "k_route": "routing (1 \N{MINUS SIGN} JSD, bits)", "k_lesion": "lesions (r)"}


def draw_levels(analysis: str, table: pd.DataFrame, label: Callable[[str], str]) -> Iterator[Drawn]:
    """Yield the figures over levels that an analysis has."""
    if analysis == "difficulty" and (table["quantity"] == "level_lpc").any():
        yield draw_difficulty("difficulty_lpc", table)
    if analysis == "similarity" and (table["quantity"] == "k_route").any():
        yield draw_matrices("similarity_matrices", table)


@figure_style()
def draw_difficulty(name: str, table: pd.DataFrame) -> Drawn:
    """Draw LPC of each level against its difficulties, a column for each difficulty, a row for each price."""
    lpc = runs_of(table[table["quantity"] == "level_lpc"])
    kinds = [kind for kind in DIFFICULTIES if (table["quantity"] == kind).any()]
    settings = in_order(lpc["setting"])
    size = (PAGE_WIDTH, 0.9 + 2.1 * len(settings))
    axes = use_axes(None, len(settings), len(kinds), size=size, sharex="col", sharey="row")
    for across, setting in zip(axes, settings, strict=True):
        for ax, kind in zip(across, kinds, strict=True):
            hard = table[table["quantity"] == kind].set_index("task")
            _scatter(ax, lpc[lpc["setting"] == setting], hard, color_of(setting))
        price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else setting
        across[0].set_ylabel(f"LPC, {price}")
    for ax, kind in zip(axes[-1], kinds, strict=True):
        if kind == "difficulty_plan_length":
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(DIFFICULTIES[kind])
    style = {"ls": "", "color": "0.4"}
    handles = [
        Line2D([], [], marker="o", ms=4.5, label="mean over runs", **style),
        Line2D([], [], marker="o", ms=1.8, alpha=0.6, label="a run", **style),
    ]
    finish(list(axes.flat), ["right of the line: never learned"] if _censored(table) else [], own=True, handles=handles)
    caption = (
        "LPC on the bot's trajectories against how hard a level is. Large points are levels, means over runs; small "
        "ones are runs. Ends are named: the easiest, the hardest, the least and the most complex level."
    )
    return Drawn(name, axes.flat[0].figure, caption)


def _censored(table: pd.DataFrame) -> bool:
    rows = table[table["quantity"] == "difficulty_steps_to_learn"]
    return bool(rows["condition"].str.startswith("never").any())


def _scatter(ax: Axes, rows: pd.DataFrame, hard: pd.DataFrame, color: str) -> None:
    values = hard["value"].to_dict()
    known = [value for value in values.values() if np.isfinite(value)]
    if not known:
        return
    span = max(known) - min(known) or 1.0
    beyond = max(known) + 0.12 * span
    if any(str(text).startswith("never") for text in hard["condition"]):
        ax.axvline(max(known) + 0.06 * span, color="0.8", lw=0.8)
    at = {task: value if np.isfinite(value) else beyond for task, value in values.items()}
    means = rows.groupby("task", sort=False)["value"].mean()
    xs = rows["task"].map(at).to_numpy(np.float64)
    ax.plot(xs, rows["value"], ls="", marker="o", ms=1.6, color=color, alpha=0.45, zorder=2)
    x, y = means.index.map(at).to_numpy(np.float64), means.to_numpy(np.float64)
    ax.plot(x, y, ls="", marker="o", ms=4.2, color=color, mec="0.2", mew=0.4, zorder=3)
    if not np.isfinite(x).any():
        return
    named = {int(np.nanargmin(x)), int(np.nanargmax(x)), int(np.nanargmin(y)), int(np.nanargmax(y))}
    low, high = ax.get_xlim()
    for index in named:
        right = x[index] > (low + high) / 2 if ax.get_xscale() == "linear" else x[index] > np.nanmedian(x)
        ax.annotate(short_task(means.index[index]), (x[index], y[index]), (-4 if right else 4, 3), fontsize="xx-small",
                    textcoords="offset points", ha="right" if right else "left", color="0.25", zorder=4)  # fmt: skip


@figure_style()
def draw_matrices(name: str, table: pd.DataFrame) -> Drawn:
    """Draw how alike levels are: by subgoals, then by routing and by lesions at each price; levels in one order."""
    pairs = table[table["quantity"].isin(list(MATRICES))]
    tasks = list(dict.fromkeys([*pairs["condition"], *pairs["group"]]))
    settings = in_order(pairs.loc[pairs["quantity"] == "k_route", "setting"])
    order = order_levels(fill(pairs[pairs["quantity"] == "k_task"], tasks))
    kinds = [kind for kind in MATRICES if (pairs["quantity"] == kind).any()]
    side = (PAGE_WIDTH - 1.4) / len(kinds)
    axes = use_axes(None, len(settings), len(kinds), size=(PAGE_WIDTH, 0.6 + (side + 0.5) * len(settings)))
    names = [short_task(tasks[index]) for index in order]
    small = {"fontsize": 5 if len(names) > 12 else "xx-small"}
    for row, (across, setting) in enumerate(zip(axes, settings, strict=True)):
        for ax, kind in zip(across, kinds, strict=True):
            here = pairs[pairs["quantity"] == kind]
            here = here if kind == "k_task" else here[here["setting"] == setting]
            matrix = fill(here, tasks)[np.ix_(order, order)]
            image = ax.imshow(matrix, cmap="viridis", **_range(matrix))
            ax.set_title(" " if row else MATRICES[kind], loc="left", fontsize="small")
            ax.set_yticks(range(len(names)), names if ax is across[0] else [], **small)
            ax.set_xticks([])
            if ax is across[0]:
                ax.set_ylabel(f"alpha {label_of(setting)}" if alpha_of(setting) is not None else setting)
            bar = ax.figure.colorbar(image, ax=ax, orientation="horizontal", fraction=0.05, pad=0.04)
            bar.locator = MaxNLocator(4)
            bar.ax.tick_params(labelsize="xx-small", length=2)
            ax.tick_params(length=0)
    finish(list(axes.flat), ["columns in the order of rows"], own=True)
    caption = (
        "How alike levels are, means over runs: by what the bot does there, by how policies route them, by which "
        "knock-outs harm. Levels stand in the order of a clustering of the first matrix."
    )
    return Drawn(name, axes.flat[0].figure, caption)


def _range(matrix: np.ndarray) -> dict[str, float]:
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    off = off[np.isfinite(off)]
    if not len(off):
        return {"vmin": 0.0, "vmax": 1.0}
    return {"vmin": float(min(off.min(), 0.99)), "vmax": 1.0}


def fill(pairs: pd.DataFrame, tasks: Sequence[str]) -> np.ndarray:
    """Return the symmetric matrix (G, G) of rows of pairs, 1 on the diagonal."""
    found = np.full((len(tasks), len(tasks)), np.nan)
    np.fill_diagonal(found, 1.0)
    for row in pairs.to_dict("records"):
        i, j = tasks.index(row["group"]), tasks.index(row["condition"])
        found[i, j] = found[j, i] = row["value"]
    return found


def order_levels(matrix: np.ndarray) -> list[int]:
    """Return an order in which like levels stand beside each other: leaves of an average linkage."""
    if len(matrix) < 3 or not np.isfinite(matrix).all():
        return list(range(len(matrix)))
    from scipy.cluster.hierarchy import leaves_list, linkage  # takes 0.2 s

    at = np.triu_indices(len(matrix), 1)
    return leaves_list(linkage(np.maximum(1 - matrix[at], 0), "average", optimal_ordering=True)).tolist()
