"""Credit of experts by subgoal, and how each two of them interact."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from plotting.panels import PAGE_WIDTH, finish, use_axes
from plotting.runs import short_task
from plotting.style import DIFFERENCE_CMAP, figure_style
from science.figures import many
from science.figures.experts import short_labels
from science.figures.maps import draw_map, explain_stars, format_cell, leave_cells_alone
from science.figures.names import Drawn, alpha_of, in_order, label_of, means_of

DRAWN = frozenset(
    {"credit", "credit_by_subgoal", "credit_of_agreement", "interaction", "interaction_by_subgoal", "worth_by_subgoal"}
)
"""Quantities that are in these figures, or in the table alone."""


_WORDS = {
    "credit_by_subgoal": "Shapley values by subgoal (nats)",
    "interaction": "Shapley interactions (nats): below 0 one stands in for the other",
}


def draw_credit(table: pd.DataFrame, label: object, sizes: Sequence[Sequence[int]]) -> Iterator[Drawn]:
    """Yield maps of credit, over all steps and by subgoal, and of interactions."""
    credit = table[table["quantity"] == "credit"]
    if len(credit):
        yield draw_map("shapley_credit", credit, label("credit"), sizes)
    by_subgoal = table[table["quantity"] == "credit_by_subgoal"]
    players = [(layer, expert) for layer, row in enumerate(sizes) for expert, size in enumerate(row) if size]
    if len(by_subgoal):
        cells = {(e, x): None for x in dict.fromkeys(by_subgoal["group"]) for e in players}
        columns = list(dict.fromkeys(x for _, x in cells))
        yield _draw_matrix(
            "shapley_by_subgoal",
            by_subgoal.assign(x=by_subgoal["group"]),
            players,
            columns,
            sizes,
            _WORDS["credit_by_subgoal"],
        )
    pairs = table[table["quantity"] == "interaction"]
    if len(pairs):
        yield _draw_matrix(
            "shapley_interactions",
            _both_ways(pairs),
            players,
            players,
            sizes,
            _WORDS["interaction"],
        )


def draw_many(table: pd.DataFrame, label: object, sizes: Sequence[Sequence[int]]) -> Iterator[Drawn]:
    """Yield the same of many levels: a row for each level, or for each of its subgoals."""
    over = means_of(table)
    parts = {quantity: over[over["quantity"] == quantity] for quantity in ("credit", *_WORDS)}
    if len(rows := parts["credit"]):
        yield many.draw_experts("shapley_credit", rows, label("credit"), sizes)
    if len(rows := parts["credit_by_subgoal"]):
        yield from many.draw_subgoals("shapley_by_subgoal", rows, _WORDS["credit_by_subgoal"], sizes)
    if len(rows := parts["interaction"]):
        yield many.draw_pairs("shapley_interactions", rows, _WORDS["interaction"], sizes)


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return each pair twice, once from either of its experts."""
    found = [re.findall(r"l(\d+)e(\d+)", text) for text in pairs["condition"]]
    parts = []
    for first, second in ((0, 1), (1, 0)):
        own = [(int(pair[first][0]), int(pair[first][1])) for pair in found]
        other = [(int(pair[second][0]), int(pair[second][1])) for pair in found]
        parts.append(pairs.assign(layer=[e[0] for e in own], expert=[e[1] for e in own], x=other))
    return pd.concat(parts)


@figure_style()
def _draw_matrix(
    name: str,
    rows: pd.DataFrame,
    players: Sequence[tuple[int, int]],
    columns: Sequence[object],
    sizes: Sequence[Sequence[int]],
    label: str,
    level: float = 0.05,
) -> Drawn:
    """Draw means over runs of experts (rows) by column `x`; a star where p over the map is small enough."""
    over = means_of(rows)
    tasks, settings = list(dict.fromkeys(over["task"])), in_order(over["setting"])
    size = (PAGE_WIDTH, 0.9 + len(tasks) * (0.75 + 0.19 * len(players)))
    axes = use_axes(None, len(tasks), len(settings), size=size)
    values = np.abs(over["value"].to_numpy(np.float64))
    most = float(np.nanmax(values)) if np.isfinite(values).any() and np.nanmax(values) > 0 else 1.0
    names = [_name(player, sizes) for player in players]
    across_names = [_name(c, sizes) if isinstance(c, tuple) else str(c) for c in columns]
    for row, task in enumerate(tasks):
        for column, setting in enumerate(settings):
            ax = axes[row, column]
            here = over[(over["task"] == task) & (over["setting"] == setting)]
            _draw_cells(ax, here, players, columns, most, level, len(settings))
            price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else label_of(setting)
            n = int(here["n_runs"].max()) if len(here) else 0
            ax.set_title(f"{price}, n {n}", loc="left", fontsize="small")
            ax.set_yticks(range(len(players)), names if column == 0 else [], fontsize="xx-small")
            last = row == len(tasks) - 1
            ax.set_xticks(range(len(columns)), across_names if last else [], fontsize="xx-small", rotation=90)
        axes[row, 0].set_ylabel(short_task(task))
    note = explain_stars(over, level)
    finish(list(axes.flat), ["means over runs; layer.size of each expert", note], own=True)
    return Drawn(name, axes.flat[0].figure, f"{label}: means over runs. {note}{'.' if note else ''}")


def _name(player: tuple[int, int], sizes: Sequence[Sequence[int]]) -> str:
    layer, expert = player
    return f"{layer}.{short_labels(sizes[layer])[expert]}"


def _draw_cells(
    ax: Axes,
    rows: pd.DataFrame,
    players: Sequence[tuple[int, int]],
    columns: Sequence[object],
    most: float,
    level: float,
    panels: int,
) -> None:
    grid = np.full((len(players), len(columns)), np.nan)
    written = len(columns) * panels <= 22  # more numbers than this cannot be read
    for cell in rows.to_dict("records"):
        y, x = list(players).index((cell["layer"], cell["expert"])), list(columns).index(cell["x"])
        grid[y, x] = cell["value"]
        star = "*" if cell["p_adjusted"] <= level else ""
        text = format_cell(cell["value"]) + star if written else star
        color = "white" if abs(cell["value"]) > 0.62 * most else "black"
        ax.text(x, y, text, ha="center", va="center", color=color, fontsize="xx-small")
    image = ax.imshow(grid, aspect="auto", cmap=DIFFERENCE_CMAP, norm=TwoSlopeNorm(0.0, -most, most))
    if not written and ax.get_subplotspec().is_last_col():
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.08, pad=0.05)
        bar.ax.tick_params(labelsize="xx-small", length=2)
        bar.outline.set_visible(False)
    leave_cells_alone(ax)
