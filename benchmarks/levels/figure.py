"""Success on each level that was run, dots for budgets, a ring where actions are drawn; by kind and length of plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.levels.records import mark_key
from benchmarks.levels.reference import KINDS, find_reference
from pipeline.command.files import replace_atomically

COLOURS = ("#8fb8de", "#4a86c5", "#1f5a94", "#0b2239")
"""Of the budgets, rising."""


def save_figure(path: Path, rows: Sequence[Mapping[str, Any]], budgets: Sequence[float], dpi: int = 110) -> Path | None:
    """Write the figure as PNG and return its path; None if no level was run.

    Args:
        path: Of the file.
        rows: Of `page.collect_rows`.
        budgets: Minutes.
        dpi: Of the file.
    """
    shown = [row for row in rows if any(mark_key(m) in row["record"]["marks"] for m in budgets)]
    if not shown:
        return None
    figure = Figure(figsize=(7.2, 1.2 + 0.19 * (len(shown) + len(KINDS))), layout="constrained")
    plot_levels(shown, budgets, ax=figure.subplots())
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    return path


def plot_levels(rows: Sequence[Mapping[str, Any]], budgets: Sequence[float], *, ax: Axes) -> Axes:
    """Draw success for each level and budget, with Wilson's interval at 95 %; return the axes.

    A dot is success with the most probable actions, a ring that with actions drawn, after the last budget of a level.

    Args:
        rows: Levels with at least one result, by kind.
        budgets: Minutes.
        ax: To draw on.
    """
    places: list[float] = []
    place = 0.0
    for index, row in enumerate(rows):
        if index and rows[index - 1]["kind"] != row["kind"]:
            place += 0.8
            ax.axhline(place - 0.4, color="0.85", linewidth=0.8)
        places.append(place)
        place += 1.0
    keys = [mark_key(minutes) for minutes in budgets]
    for number, key in enumerate(keys):
        found = []
        for where, row in zip(places, rows, strict=True):
            own = [other for other in keys if other in row["record"]["marks"]]
            if key in own:  # the dots of a level lie around its line, the first one highest
                found.append((where + 0.16 * (own.index(key) - (len(own) - 1) / 2), row["record"]["marks"][key]))
        if not found:
            continue
        colour, ys = COLOURS[min(number, len(COLOURS) - 1)], [where for where, _ in found]
        middle = [100 * mark["success_rate"] for _, mark in found]
        ax.hlines(
            ys,
            [100 * mark["success_low"] for _, mark in found],
            [100 * mark["success_high"] for _, mark in found],
            colors=colour,
            linewidth=1.0,
        )
        ax.plot(middle, ys, "o", color=colour, markersize=4.5, label=f"{key} min of two cores")
    drawn = [(where, _last_drawn(row, keys)) for where, row in zip(places, rows, strict=True)]
    drawn = [(where, 100 * value) for where, value in drawn if value is not None]
    ring = {"markersize": 6.5, "markerfacecolor": "none", "markeredgecolor": "#d08c2c", "markeredgewidth": 1.0}
    ax.plot([v for _, v in drawn], [w for w, _ in drawn], "o", label="the last, actions drawn", **ring)
    quoted = [(where, find_reference(row["name"]).babyai_1_1) for where, row in zip(places, rows, strict=True)]
    quoted = [(where, value) for where, value in quoted if value is not None]
    ax.plot(
        [v for _, v in quoted],
        [w for w, _ in quoted],
        "|",
        color="#c0392b",
        markersize=9,
        label="BabyAI 1.1, 1M demos, quoted",
    )
    ax.set_yticks(places, [row["name"] for row in rows], fontsize=7)
    ax.set_ylim(place - 0.3, -0.7)
    ax.set_xlim(-2, 102)
    ax.set_xlabel("levels solved, %")
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, fontsize=7)
    return ax


def _last_drawn(row: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """Return a level's success with actions drawn after the last of some budgets that it was trained to."""
    own = [key for key in keys if key in row["record"]["marks"]]
    return row["record"]["marks"][own[-1]].get("sample_success_rate") if own else None
