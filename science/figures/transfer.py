"""How soon new levels are learned, arm by arm; and by how many doublings one arm is sooner than another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from plotting.panels import PAGE_WIDTH, finish, series_style, use_axes
from plotting.runs import short_task
from plotting.style import figure_style
from science.arms import ALL_PARTS, PARTS, SCRATCH, untrained
from science.figures.names import DROPPED_COLOR, Drawn, count_text, means_of, runs_of
from science.levels import ALL_TASKS

COLUMNS = 3
"""Levels beside each other."""

MOST_LEVELS = 9
"""Of one figure of steps; more begin another."""

ARMS = (SCRATCH, *PARTS, *(untrained(part) for part in PARTS if part != ALL_PARTS))
"""From top to bottom."""

_TRAINED, _UNTRAINED = "trained policy", "minus untrained policy"

GAINS: tuple[tuple[str, dict[str, str]], ...] = (
    ("against scratch", {f"gain_{part}": part for part in PARTS}),
    (
        "against the same part\nof an untrained policy",
        {f"gain_{part}_above_untrained": part for part in PARTS if part != ALL_PARTS},
    ),
    (
        "router against experts",
        {"router_against_experts": _TRAINED, "router_against_experts_above_untrained": _UNTRAINED},
    ),
)
"""Panels: title, and what each quantity in it is called."""

_COLORS = {SCRATCH: "0.15", **{part: series_style(index)[0] for index, part in enumerate(PARTS)}}
_COLORS |= {_TRAINED: "0.15", _UNTRAINED: "0.55"}


def draw_transfer(table: pd.DataFrame) -> Iterator[Drawn]:
    """Yield the figures of an analysis's tidy rows."""
    steps = table[table["quantity"] == "steps_to_learn"]
    levels = list(dict.fromkeys(steps["task"]))
    for number, start in enumerate(range(0, len(levels), MOST_LEVELS)):
        name = "transfer_steps" if len(levels) <= MOST_LEVELS else f"transfer_steps_{number + 1}"
        yield draw_steps(name, steps[steps["task"].isin(levels[start : start + MOST_LEVELS])])
    if table["quantity"].isin([quantity for _, of_panel in GAINS for quantity in of_panel]).any():
        yield draw_gains("transfer_gains", table)


@figure_style()
def draw_steps(name: str, rows: pd.DataFrame) -> Drawn:
    """Draw env-steps of each arm and run, a panel for each level; runs that never learned it at the right edge."""
    levels = list(dict.fromkeys(rows["task"]))
    arms = [arm for arm in ARMS if (rows["condition"] == arm).any()]
    columns, height = min(COLUMNS, len(levels)), -(-len(levels) // COLUMNS)
    size = (PAGE_WIDTH, 0.9 + (0.55 + 0.19 * len(arms)) * height)
    axes = use_axes(None, height, columns, size=size, sharex=True, sharey=True)
    known = runs_of(rows)["value"].to_numpy(np.float64)
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (1.0, 10.0)
    edge = high * (high / low) ** 0.12 * 1.15
    never = False
    for ax, level in zip(axes.flat, levels, strict=False):
        never |= _draw_level(ax, rows[rows["task"] == level], arms, edge)
        ax.set_title(short_task(level), loc="left", fontsize="small")
    for ax in list(axes.flat)[len(levels) :]:
        ax.set_axis_off()
    first = axes.flat[0]
    first.set_xscale("log")
    first.set_xlim(low / 1.15, edge * 1.12)
    first.set_ylim(len(arms) - 0.4, -0.6)
    first.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if edge < 60 * low else (1.0,)))
    first.xaxis.set_minor_locator(NullLocator())
    first.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    for place, ax in enumerate(axes.flat):
        if place >= len(levels) - columns and place < len(levels):
            ax.tick_params(axis="x", labelbottom=True)
            ax.set_xlabel("env-steps to learn it")
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(arms)), arms, fontsize="x-small")
    style = {"ls": "", "color": "0.4"}
    handles = [Line2D([], [], marker="o", ms=3.5, label="a run", **style)]
    handles += [Line2D([], [], color="0.4", marker="|", ms=9, mew=1.8, ls="", label="median")]
    handles += [Line2D([], [], marker=">", ms=4, mfc="white", label="never", **style)] if never else []
    finish(list(axes.flat), ["red: runs that never learned it"] if never else [], own=True, handles=handles)
    caption = (
        "Env-steps until a new level is learned, from scratch, from a trained policy with a part of it free (or all of "
        "it), and with the same part free in an untrained one. Points are runs."
    )
    return Drawn(name, axes.flat[0].figure, caption + (" Triangles never learned it within the budget." * never))


def _draw_level(ax: Axes, rows: pd.DataFrame, arms: Sequence[str], edge: float) -> bool:
    """Draw a level; return whether some run never learned it."""
    never = False
    for y, arm in enumerate(arms):
        part = arm.removeprefix(untrained(""))
        color, hollow = _COLORS[part], arm != part
        single = runs_of(rows[rows["condition"] == arm]).sort_values("seed")
        values = single["value"].to_numpy(np.float64)
        shift = np.linspace(-0.26, 0.26, len(values)) if len(values) > 1 else np.zeros(len(values))
        done = np.isfinite(values)
        face = "white" if hollow else color
        ax.plot(values[done], y + shift[done], ls="", marker="o", ms=2.8, color=color, mfc=face, mew=0.7, zorder=3)
        lost = ~done & (single["drop_reason"] != "was not trained").to_numpy(bool)
        if lost.any():
            never = True
            style = {"marker": ">", "ms": 3.2, "color": color, "mfc": "white", "mew": 0.7, "clip_on": False}
            ax.plot(np.full(lost.sum(), edge), y + shift[lost], ls="", zorder=3, **style)
            ax.annotate(str(int(lost.sum())), (1, y), (3, 0), xycoords=("axes fraction", "data"), va="center",
                        textcoords="offset points", fontsize="xx-small", color=DROPPED_COLOR)  # fmt: skip
        for value in means_of(rows[rows["condition"] == arm])["value"]:
            if math.isfinite(value):
                ax.vlines(value, y - 0.36, y + 0.36, color=color, lw=1.8, zorder=2)
        if y % 2 == 0:
            ax.axhspan(y - 0.5, y + 0.5, color="0.96", zorder=-1, lw=0)
    ax.tick_params(axis="y", length=0)
    return never


def _short(value: float) -> str:
    """Return a number of steps in few letters: 20k, 1.5M."""
    for unit, sign in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"


@figure_style()
def draw_gains(name: str, table: pd.DataFrame) -> Drawn:
    """Draw by how many doublings one arm is sooner than another: a line for each level, and for all of them."""
    quantities = [quantity for _, of_panel in GAINS for quantity in of_panel]
    rows = table[table["quantity"].isin(quantities)]
    tasks = [task for task in dict.fromkeys(rows["task"]) if task != ALL_TASKS]
    tasks += [ALL_TASKS] if len(tasks) > 1 else []
    panels = [(title, of_panel) for title, of_panel in GAINS if rows["quantity"].isin(list(of_panel)).any()]
    most = max(len(of_panel) for _, of_panel in panels)
    size = (PAGE_WIDTH, 1.4 + len(tasks) * max(0.4, 0.13 * most + 0.1))
    axes = use_axes(None, 1, len(panels), size=size, sharex=True, sharey=True)
    used: dict[str, str] = {}
    lost = bounded = False
    for ax, (title, of_panel) in zip(axes.flat, panels, strict=True):
        here = {q: words for q, words in of_panel.items() if (rows["quantity"] == q).any()}
        used |= {words: _COLORS[words] for words in here.values()}
        found = _draw_gain(ax, rows, here, tasks)
        lost, bounded = lost | found[0], bounded | found[1]
        ax.set_title(title, loc="left", fontsize="small")
        ax.set_xlabel("doublings sooner")
    first = axes.flat[0]
    first.set_yticks(range(len(tasks)), [task if task == ALL_TASKS else short_task(task) for task in tasks])
    first.tick_params(axis="y", labelsize="x-small")
    first.set_ylim(len(tasks) - 0.5, -0.5)
    low, high = first.get_xlim()  # shared by all panels
    first.set_xlim(min(low, -0.5), max(high, 0.5))
    handles = [Line2D([], [], color=color, marker="o", ms=3.5, lw=1.2, label=words) for words, color in used.items()]
    notes = ["point, line: mean over runs, 95 % interval; small: runs"]
    notes += (
        ["triangles: at least, or at most, so much: one arm never learned it, or could have been told no sooner"]
        if bounded
        else []
    )
    notes += ["hollow: some runs or levels without a value, for neither arm learned it"] if lost else []
    finish(list(axes.flat), notes, own=True, handles=handles)
    caption = (
        "By how many doublings of env-steps a new level is learned sooner (right of 0): with a part of the trained "
        "policy free against scratch, against the same part free in an untrained policy, and by routers against "
        "experts. A run that never learned it stands at the budget, one that is there as soon as it can be told stands "
        "there: triangles point to where the truth is then. Small points are runs."
    )
    return Drawn(name, first.figure, caption)


def _mark_bounds(single: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return values of runs by their markers: triangles point to where the truth is, of which they are a bound."""
    known = single[np.isfinite(single["value"].to_numpy(np.float64))]
    low, high = (np.isfinite(known[side].to_numpy(np.float64)) for side in ("low", "high"))
    sides = {">": low & ~high, "<": high & ~low, "o": low == high}
    return {marker: known["value"].to_numpy(np.float64)[there] for marker, there in sides.items() if there.any()}


def _draw_gain(ax: Axes, rows: pd.DataFrame, of_panel: dict[str, str], tasks: Sequence[str]) -> tuple[bool, bool]:
    """Draw the quantities of a panel; return whether some run has no value, and whether one has but a bound."""
    lost, bounded, counts = False, False, []
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    for place, (quantity, words) in enumerate(of_panel.items()):
        shift, color = 0.76 * ((place + 0.5) / len(of_panel) - 0.5), _COLORS[words]
        for y, task in enumerate(tasks):
            own = rows[(rows["quantity"] == quantity) & (rows["task"] == task)]
            markers = _mark_bounds(runs_of(own))
            for marker, known in markers.items():
                place_of = np.full(len(known), y + shift)
                ax.plot(known, place_of, ls="", marker=marker, ms=1.5, color=color, alpha=0.45, zorder=2)
            bounds = [marker for marker in markers if marker != "o"]
            bounded |= bool(bounds)
            marker = bounds[0] if len(bounds) == 1 else "o"
            for row in means_of(own).to_dict("records"):
                counts.append(int(row["n_runs"]))
                dropped = row["n_dropped"] > 0 or (own["estimator"] == "worst").any()
                lost |= dropped
                if math.isfinite(row["low"]) and math.isfinite(row["high"]):
                    ax.hlines(y + shift, row["low"], row["high"], color=color, lw=1.1, zorder=3)
                face = "white" if dropped else color
                ax.plot(row["value"], y + shift, marker=marker, ms=3.4, color=color, mfc=face, mew=0.8, zorder=4)
    for y in range(0, len(tasks), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="0.96", zorder=-1, lw=0)
    ax.annotate(f"n {count_text(counts)}", (1, 1), (0, 2), xycoords="axes fraction", textcoords="offset points",
                ha="right", fontsize="xx-small", color="0.4")  # fmt: skip
    ax.tick_params(axis="y", length=0)
    return bool(lost), bounded
