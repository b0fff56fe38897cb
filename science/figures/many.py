"""Figures of many levels, in which a row is a level: maps over experts, a panel for each price; the audit over levels.

One map for each level, as of a few, would be twenty pages. Rows keep all levels in sight beside each other; what a cell
has no room for, its number, is in the table.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, TwoSlopeNorm

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import DIFFERENCE_CMAP, LPC_CMAP, figure_style
from science.figures.experts import list_handles, short_labels, style_of
from science.figures.maps import explain_stars, leave_cells_alone
from science.figures.names import Drawn, alpha_of, in_order, label_of, means_of, runs_of

MOST_HEIGHT = 8.6
"""Inches of a map: a page."""

MOST_ROWS = 60
"""Of a map whose rows are subgoals of levels; more begin another."""

Player = tuple[int, int]
"""Layer and expert."""


def draw_knockout_maps(
    table: pd.DataFrame, effects: Sequence[tuple[str, pd.DataFrame, str]], sizes: Sequence[Sequence[int]]
) -> Iterator[Drawn]:
    """Yield the audit over levels, and a map of each effect.

    Args:
        table: Tidy rows of knock-outs.
        effects: Name of the figure, rows of one quantity and kind of knock-out, and what it is.
        sizes: Hidden sizes of the experts, per layer.
    """
    for name, rows, label in effects:
        if name.endswith("on_ce") and (drawn := draw_audit(table, rows, sizes)) is not None:
            yield drawn
        yield draw_experts(name, means_of(rows), label, sizes)


def average(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means over runs of rows of single runs, by task, setting, layer and expert."""
    by = runs_of(rows).groupby(["task", "setting", "layer", "expert"], sort=False)["value"]
    return by.agg(value="mean", n_runs="count").reset_index().assign(p_adjusted=np.nan)


def draw_experts(
    name: str, over: pd.DataFrame, label: str, sizes: Sequence[Sequence[int]], *, signed: bool = True
) -> Drawn:
    """Draw numbers (task, setting, layer, expert, value) of levels by experts; see `draw_rows`."""
    players = [(layer, expert) for layer, row in enumerate(sizes) for expert in range(len(row))]
    known = set(zip(over["layer"], over["expert"], strict=True))
    over = over.assign(x=list(zip(over["layer"], over["expert"], strict=True)), y=over["task"])
    columns = {p: _size_of(p, sizes) for p in players if p in known}
    return draw_rows(name, over, columns, label, layers=[p[0] for p in columns], signed=signed)


def _size_of(player: Player, sizes: Sequence[Sequence[int]]) -> str:
    return short_labels(sizes[player[0]])[player[1]]


def draw_pairs(name: str, over: pd.DataFrame, label: str, sizes: Sequence[Sequence[int]]) -> Drawn:
    """Draw numbers of each two experts, which their conditions name ("l0e1 with l1e2"), of levels."""
    columns = {}
    for text in dict.fromkeys(over["condition"]):
        pair = [(int(layer), int(expert)) for layer, expert in re.findall(r"l(\d+)e(\d+)", text)]
        columns[text] = " + ".join(f"{player[0]}.{_size_of(player, sizes)}" for player in pair)
    return draw_rows(name, over.assign(x=over["condition"], y=over["task"]), columns, label)


def draw_subgoals(
    name: str, over: pd.DataFrame, label: str, sizes: Sequence[Sequence[int]], most: int = MOST_ROWS
) -> Iterator[Drawn]:
    """Yield numbers by group and expert: a row for each subgoal of each level, as many as a page has room for."""
    known = dict.fromkeys(zip(over["layer"], over["expert"], strict=True))
    columns = {player: _size_of(player, sizes) for player in sorted(known)}
    over = over.assign(
        x=list(zip(over["layer"], over["expert"], strict=True)), y=list(zip(over["task"], over["group"], strict=True))
    )
    parts, rows = [[]], 0
    for task, number in over.groupby("task", sort=False)["group"].nunique().items():
        if rows + number > most and parts[-1]:
            parts.append([])
            rows = 0
        parts[-1].append(task)
        rows += number
    for number, tasks in enumerate(parts, 1):
        here = over[over["task"].isin(tasks)]
        layers = [player[0] for player in columns]
        yield draw_rows(f"{name}_{number}" if len(parts) > 1 else name, here, columns, label, layers=layers)


@figure_style()
def draw_rows(
    name: str,
    over: pd.DataFrame,
    columns: Mapping[Hashable, str],
    label: str,
    *,
    layers: Sequence[int] = (),
    signed: bool = True,
    level: float = 0.05,
) -> Drawn:
    """Draw means over runs as cells, a panel for each setting; a star where p over the map is small enough.

    Args:
        name: Of the figure.
        over: Columns setting, x, y, value, n_runs, p_adjusted; y is a task, or a task and a part of it.
        columns: Value of x -> what stands below.
        label: What the numbers are.
        layers: Of each column; a line is drawn between two of them. Empty: columns have none.
        signed: Whether colours are about 0; otherwise from 0 on.
        level: Of the stars.
    """
    rows, settings = list(dict.fromkeys(over["y"])), in_order(over["setting"])
    longest = max(map(len, columns.values()), default=0)
    rotate = len(columns) * len(settings) * longest > 100
    below = 0.1 + (0.055 * longest if rotate else 0.1)
    height = min(MOST_HEIGHT, 1.25 + below + 0.165 * len(rows))
    axes = list(use_axes(None, 1, len(settings), size=(PAGE_WIDTH, height), sharey=True).flat)
    values = np.abs(over["value"].to_numpy(np.float64))
    most = float(np.nanmax(values)) if np.isfinite(values).any() and np.nanmax(values) > 0 else 1.0
    norm = TwoSlopeNorm(0.0, -most, most) if signed else Normalize(0.0, most)
    place = {key: number for number, key in enumerate(columns)}
    line = {key: number for number, key in enumerate(rows)}
    small = min(7.0, 0.86 * 72 * (height - 1.25 - below) / len(rows))
    for ax, setting in zip(axes, settings, strict=True):
        grid = np.full((len(rows), len(columns)), np.nan)
        here = over[over["setting"] == setting]
        for cell in here.to_dict("records"):
            y, x = line[cell["y"]], place[cell["x"]]
            grid[y, x] = cell["value"]
            if cell["p_adjusted"] <= level:
                color = "white" if abs(cell["value"]) > 0.62 * most else "black"
                ax.text(x, y + 0.12, "*", ha="center", va="center", color=color, fontsize=min(small, 6))
        image = ax.imshow(grid, aspect="auto", cmap=DIFFERENCE_CMAP if signed else LPC_CMAP, norm=norm)
        counts = here["n_runs"][here["n_runs"] > 0]
        price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
        ax.set_title(f"{price}, n {int(counts.max()) if len(counts) else 0}", loc="left", fontsize="small")
        rotated = {"rotation": 90} if rotate else {}
        ax.set_xticks(range(len(columns)), list(columns.values()), fontsize="xx-small", **rotated)
        for x in np.flatnonzero(np.diff(layers)) if len(layers) else ():
            ax.axvline(x + 0.5, color="white", lw=2.0)
        leave_cells_alone(ax)
    axes[0].set_yticks(range(len(rows)), _name_rows(rows), fontsize=small)
    if layers:
        words = "columns are experts, layer by layer"
    else:
        words = "columns are two experts each, layer.size"
    bar = axes[0].figure.colorbar(image, ax=axes, fraction=0.025, pad=0.015, aspect=40)
    bar.ax.tick_params(labelsize="xx-small", length=2)
    bar.outline.set_visible(False)
    bar.set_label(label.partition(":")[0], fontsize="x-small")
    note = explain_stars(over, level)
    finish(axes, ["means over runs", words, note], own=True)
    what = f"{label[:1].upper()}{label[1:]}: means over runs. A row is a level, {words}"
    return Drawn(name, axes[0].figure, f"{what}. {note[:1].upper()}{note[1:]}{'.' if note else ''}".strip())


def _name_rows(rows: Sequence[object]) -> list[str]:
    """Return what stands beside rows: the level, and of several parts of one the level beside the first alone."""
    names, before = [], None
    for row in rows:
        task, part = row if isinstance(row, tuple) else (row, "")
        level = short_task(str(task))
        names.append(f"{'' if part and task == before else level}  {part}".rstrip() if part else level)
        before = task
    return names


@figure_style()
def draw_audit(table: pd.DataFrame, effects: pd.DataFrame, sizes: Sequence[Sequence[int]]) -> Drawn | None:
    """Draw usage against effect, means over runs: a point for each expert on each level; None without any."""
    keys = ["task", "setting", "layer", "expert"]
    usage = runs_of(table[table["quantity"] == "usage"]).groupby(keys, sort=False)["value"].mean()
    effect = means_of(effects).set_index(keys)[["value", "n_runs"]]
    joined = effect.join(usage.rename("value_used")).dropna().reset_index()
    if not len(joined):
        return None
    settings = in_order(joined["setting"])
    axes = list(use_axes(None, 1, len(settings), size=(PAGE_WIDTH, 3.3), sharex=True, sharey=True).flat)
    for ax, setting in zip(axes, settings, strict=True):
        here = joined[joined["setting"] == setting]
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        for (layer, expert), points in here.groupby(["layer", "expert"]):
            style = style_of(layer, expert, sizes)
            ax.plot(points["value_used"], points["value"], ls="", ms=3.0, alpha=0.75, mew=0, **style)
        price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
        ax.set_title(f"{price}, n {int(here['n_runs'].max())}", loc="left", fontsize="small")
        ax.set_xlabel("usage", fontsize="small")
        ax.set_xlim(-0.04, 1.04)
        ax.set_xticks([0, 0.5, 1])
    axes[0].set_ylabel("effect on cross-entropy (nats)", fontsize="small")
    levels = joined["task"].nunique()
    finish(
        axes, [f"a point: an expert on one of {levels} levels, mean over runs"], own=True, handles=list_handles(sizes)
    )
    caption = (
        f"Does the map of usage predict the lesion? Effect on cross-entropy (nats) of taking an expert out against its "
        f"usage: every expert on every one of {levels} levels is a point, the mean over runs. The correlations within "
        "runs and levels, which the audit is, are in a figure of their own."
    )
    return Drawn("knockouts_audit", axes[0].figure, caption)
