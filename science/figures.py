"""Figures of a study, from tidy rows: every run's point, intervals, n, and what was dropped, all on the figure.

    for figure in draw_analysis("knockouts", table, labels): save_figure(figure.figure, folder / figure.name, ...)

What a quantity looks like follows from its rows: over layers and experts it is a map, over numbered conditions (a
threshold, the strength of a dial) a curve, else a strip of points for each price.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.records.intervals import MIN_FOR_INTERVAL, mean_interval
from plotting.panels import PAGE_WIDTH, finish, series_style, use_axes, write_near
from plotting.runs import short_task
from plotting.style import (
    CATEGORY_COLORS,
    DIFFERENCE_CMAP,
    WARNING_COLOR,
    alpha_color,
    count_of,
    expert_labels,
    figure_style,
    wrap_text,
)

MOST_PANELS = 9
"""Of one figure; more quantities begin another."""

_NULL_COLOR = "0.45"
_NUMBERED = re.compile(r"^(?P<name>[A-Za-z_ ]+?)[ =]+(?P<value>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$")


@dataclass(frozen=True)
class Drawn:
    """A figure and what is said of it.

    Attributes:
        name: Of its file, without ending.
        figure: The figure.
        caption: What it shows, in sentences.
    """

    name: str
    figure: Figure
    caption: str


def draw_analysis(
    analysis: str, table: pd.DataFrame, labels: Mapping[str, str], sizes: Sequence[Sequence[int]] = ()
) -> Iterator[Drawn]:
    """Yield the figures of an analysis.

    Args:
        analysis: Its name.
        table: Its tidy rows.
        labels: Of axes, by quantity; others stand under their own names.
        sizes: Hidden sizes of the experts, per layer.
    """
    table = table[table["value"].notna() | (table["n_dropped"] > 0)]
    strips = []
    for quantity, rows in table.groupby("quantity", sort=False):
        label = labels.get(quantity, str(quantity).replace("_", " "))
        if is_map(rows):
            yield from _maps(analysis, str(quantity), rows, label, sizes)
        elif is_curve(rows):
            yield _curves(analysis, str(quantity), rows, label)
        else:
            strips += [(quantity, condition, label) for condition in _parts(rows)]
    for number, start in enumerate(range(0, len(strips), MOST_PANELS)):
        name = analysis if len(strips) <= MOST_PANELS else f"{analysis}_{number + 1}"
        yield _strips(name, table, strips[start : start + MOST_PANELS])


def is_map(rows: pd.DataFrame) -> bool:
    """Return whether a quantity is told of each expert."""
    return bool((rows["expert"] >= 0).any())


def is_curve(rows: pd.DataFrame) -> bool:
    """Return whether a quantity is told of numbered conditions, three or more."""
    numbers = {text for text in rows["condition"] if _NUMBERED.match(str(text))}
    return len(numbers) >= 3


def number_of(condition: str) -> float:
    """Return the number in the name of a condition, such as that of "tau 0.1"; NaN for none."""
    match = _NUMBERED.match(str(condition))
    return float(match["value"]) if match else math.nan


def alpha_of(setting: str) -> float | None:
    """Return the price in the name of a setting, such as that of "alpha=1e-05"; None for a baseline."""
    match = re.fullmatch(r"alpha=(.+)", setting)
    return float(match[1]) if match else None


def color_of(setting: str) -> str:
    """Return the colour of a setting: by its price."""
    alpha = alpha_of(setting)
    return CATEGORY_COLORS[0] if alpha is None else alpha_color(alpha)


def label_of(setting: str) -> str:
    """Return how an axis names a setting."""
    alpha = alpha_of(setting)
    return setting.replace("=", "\n") if alpha is None else f"{alpha:g}"


def in_order(settings: Sequence[str]) -> list[str]:
    """Return the names of settings by price, those without one last."""
    return sorted(dict.fromkeys(settings), key=lambda s: (alpha_of(s) is None, alpha_of(s) or 0.0, s))


def _parts(rows: pd.DataFrame) -> list[str]:
    """Return the conditions of a quantity; "" of one that has none."""
    return list(dict.fromkeys(rows["condition"])) or [""]


# -------------------------------------------------------------------------------------------------------------- strips


@figure_style()
def _strips(name: str, table: pd.DataFrame, panels: Sequence[tuple[str, str, str]]) -> Drawn:
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    axes = use_axes(None, height, columns, size=(PAGE_WIDTH, 0.9 + 2.3 * height))
    told = _Told()
    for ax, (quantity, condition, label) in zip(axes.flat, panels, strict=False):
        rows = table[(table["quantity"] == quantity) & (table["condition"] == condition)]
        title = label if not condition or condition == label else f"{label}: {condition}"
        _strip(ax, rows, title, columns, told)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    tasks = list(dict.fromkeys(table["task"][table["task"] != ""]))
    handles = told.handles(tasks)
    finish(list(axes.flat), [told.note()], own=True, handles=handles)
    return Drawn(name, axes.flat[0].figure, told.caption())


@dataclass
class _Told:
    """What occurs in a figure, and so must be explained."""

    null: bool = False
    dropped: bool = False
    interval: bool = False

    def handles(self, tasks: Sequence[str]) -> list[Line2D]:
        found = []
        if len(tasks) > 1:
            for index, task in enumerate(tasks):
                marker = series_style(index)[1]
                found.append(Line2D([], [], ls="", marker=marker, color="0.3", ms=4, label=short_task(task)))
        found.append(Line2D([], [], ls="", marker="o", color="0.6", ms=4, label="a run"))
        if self.interval:
            found.append(Line2D([], [], color="black", marker="_", ms=8, label="mean over runs, 95 % interval"))
        if self.null:
            found.append(Line2D([], [], color=_NULL_COLOR, ls=(0, (2, 1)), label="if there were nothing to see"))
        return found

    def note(self) -> str:
        return f"red: runs without a value; no interval below {MIN_FOR_INTERVAL} runs" if self.dropped else ""

    def caption(self) -> str:
        parts = ["Every point is a run; n is the number of runs with a value."]
        parts += ["Bars are means over runs with 95 % intervals."] if self.interval else []
        parts += ["The dashed line is the mean under the null."] if self.null else []
        parts += ["Runs without a value are counted in red."] if self.dropped else []
        return " ".join(parts)


def _strip(ax: Axes, rows: pd.DataFrame, title: str, columns: int, told: _Told) -> None:
    settings = in_order(rows["setting"])
    tasks = list(dict.fromkeys(rows["task"]))
    groups = [g for g in dict.fromkeys(rows["group"]) if g] if rows["group"].nunique() > 1 else [""]
    by_group = len(groups) > 1
    places = groups if by_group else settings
    shift = 0.7 / max(1, len(tasks) * (len(settings) if by_group else 1))
    texts: dict[float, list[str]] = {}
    for t, task in enumerate(tasks):
        for s, setting in enumerate(settings):
            for g, group in enumerate(groups):
                here = rows[(rows["task"] == task) & (rows["setting"] == setting)]
                here = here[here["group"] == group] if by_group else here
                if not len(here):
                    continue
                number = t * len(settings) + s if by_group else t
                of = len(tasks) * len(settings) if by_group else len(tasks)
                place = (g if by_group else s) + shift * (number - (of - 1) / 2)
                n, lost = _draw_place(ax, here, place, shift, color_of(setting), series_style(t)[1], told)
                texts.setdefault(g if by_group else s, []).append((n, lost))
    ax.set_xticks(range(len(places)), [str(p) if by_group else label_of(p) for p in places])
    if by_group and max(map(len, places)) > 5:
        ax.tick_params(axis="x", labelrotation=35)
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.set_xlabel("" if by_group else "alpha" if any(alpha_of(s) is not None for s in settings) else "")
    ax.set_title("\n".join(wrap_text(title, PAGE_WIDTH / columns - 0.5, 9.0)), loc="left")
    for place, counts in texts.items():
        low = [n for n, _ in counts]
        text = f"n {min(low)}" if min(low) == max(low) else f"n {min(low)}-{max(low)}"
        write_near(ax, text, (place, 1.0), (0, -6), xycoords=("data", "axes fraction"), ha="center", color="0.4",
                   fontsize="xx-small")  # fmt: skip
        if lost := sum(number for _, number in counts):
            told.dropped = True
            write_near(ax, f"-{lost}", (place, 1.0), (0, -13), xycoords=("data", "axes fraction"), ha="center",
                       color=WARNING_COLOR, fontsize="xx-small")  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.16 * (high - low))


def _draw_place(
    ax: Axes, rows: pd.DataFrame, place: float, width: float, color: str, marker: str, told: _Told
) -> tuple[int, int]:
    """Draw the runs of one task and setting, their mean, and the null; return runs with and without a value."""
    single, over = rows[rows["unit"] == "run"], rows[(rows["unit"] != "run") & (rows["estimator"] != "worst")]
    values = single.sort_values("seed")["value"].to_numpy(np.float64)
    known = values[np.isfinite(values)]
    spread = np.linspace(-0.28, 0.28, len(known)) * width if len(known) > 1 else np.zeros(len(known))
    ax.plot(place + spread, known, ls="", marker=marker, ms=3.2, color=color, mec="0.35", mew=0.3, zorder=2)
    for row in over.to_dict("records"):
        if math.isfinite(row["value"]):
            ax.plot([place - 0.36 * width, place + 0.36 * width], [row["value"]] * 2, color="black", lw=1.2, zorder=4)
        if math.isfinite(row["low"]) and math.isfinite(row["high"]):
            told.interval = True
            ax.vlines(place, row["low"], row["high"], color="black", lw=1.0, zorder=4)
        if math.isfinite(row["null_mean"]):
            told.null = True
            ax.plot([place - 0.45 * width, place + 0.45 * width], [row["null_mean"]] * 2, color=_NULL_COLOR,
                    ls=(0, (2, 1)), lw=1.0, zorder=3)  # fmt: skip
    if len(over):
        return int(over["n_runs"].max()), int(over["n_dropped"].max())
    return len(known), len(values) - len(known)


# -------------------------------------------------------------------------------------------------------------- curves


@figure_style()
def _curves(analysis: str, quantity: str, rows: pd.DataFrame, label: str) -> Drawn:
    tasks = list(dict.fromkeys(rows["task"]))
    rows = rows.assign(x=[number_of(text) for text in rows["condition"]])
    rows = rows[rows["x"].notna()]
    name = next((m["name"] for m in map(_NUMBERED.match, rows["condition"]) if m), "condition")
    axes = use_axes(None, 1, len(tasks), size=(PAGE_WIDTH, 3.2), sharey=True)
    for ax, task in zip(axes.flat, tasks, strict=True):
        here = rows[rows["task"] == task]
        counts = []
        for setting in in_order(here["setting"]):
            of = here[here["setting"] == setting]
            single = of[(of["unit"] == "run") & of["value"].notna()]
            for _, run in single.groupby(["trial", "seed"]):
                run = run.groupby("x")["value"].mean()
                ax.plot(run.index, run.to_numpy(), color=color_of(setting), lw=0.5, alpha=0.5)
            wide = single.pivot_table(index=["trial", "seed"], columns="x", values="value")
            if not len(wide):
                continue
            mean = mean_interval(wide.to_numpy())
            x = wide.columns.to_numpy(np.float64)
            ax.plot(x, mean.mean, color=color_of(setting), lw=2.0, label=f"alpha {label_of(setting)}", zorder=3)
            if len(wide) >= MIN_FOR_INTERVAL:
                ax.fill_between(x, mean.low, mean.high, color=color_of(setting), alpha=0.18, lw=0)
            counts.append(len(wide))
        n = f"n = {min(counts)}" if counts and min(counts) == max(counts) else f"n = {min(counts)} to {max(counts)}" if counts else "n = 0"
        ax.set_title(f"{short_task(task)}, {n} runs a price", loc="left")
        ax.set_xlabel(name)
    axes.flat[0].set_ylabel("\n".join(wrap_text(label, 2.6, 9.0)))
    finish(list(axes.flat), ["thin: runs; thick, band: mean and 95 % t interval over runs"], own=True)
    return Drawn(f"{analysis}_{quantity}", axes.flat[0].figure, f"{label} against {name}. Thin lines are runs.")


# ---------------------------------------------------------------------------------------------------------------- maps


@figure_style()
def _map_figure(
    quantity: str, rows: pd.DataFrame, label: str, task: str, sizes: Sequence[Sequence[int]]
) -> tuple[Figure, str]:
    """Draw a quantity of each expert: a map for each setting, rows are layers, columns experts."""
    settings = in_order(rows["setting"])
    layers, experts = int(rows["layer"].max()) + 1, int(rows["expert"].max()) + 1
    columns = min(5, len(settings))
    height = -(-len(settings) // columns)
    axes = use_axes(None, height, columns, size=(PAGE_WIDTH, 0.9 + height * (0.6 + 0.42 * layers)))
    over = rows[(rows["unit"] != "run") & (rows["estimator"] != "worst")]
    over = over if len(over) else rows
    values = over["value"].to_numpy(np.float64)
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    signed = bool((values < 0).any())
    norm = TwoSlopeNorm(0.0, -most or -1.0, most or 1.0) if signed else None
    image = None
    for ax, setting in zip(axes.flat, settings, strict=False):
        here = over[over["setting"] == setting]
        grid, stars = np.full((layers, experts), np.nan), np.zeros((layers, experts), bool)
        for (layer, expert), cell in here.groupby(["layer", "expert"]):
            if layer >= 0 and expert >= 0:
                grid[layer, expert] = cell["value"].mean()
                stars[layer, expert] = bool((cell["p_adjusted"] <= 0.05).any())
        style = {"cmap": DIFFERENCE_CMAP, "norm": norm} if signed else {"cmap": "Greys", "vmin": 0, "vmax": most or 1.0}
        image = ax.imshow(grid, aspect="auto", **style)
        for layer, expert in np.argwhere(np.isfinite(grid)):
            dark = abs(grid[layer, expert]) > 0.6 * most
            text = f"{grid[layer, expert]:.2g}" + ("*" if stars[layer, expert] else "")
            ax.text(expert, layer, text, ha="center", va="center", color="white" if dark else "black", fontsize="x-small")
        n = int(here["n_runs"].max()) if len(here) else 0
        ax.set_title(f"{'alpha ' if alpha_of(setting) is not None else ''}{label_of(setting)}, n {n}", loc="left")
        names = expert_labels(sizes[0]) if sizes and len(sizes[0]) == experts else [str(e) for e in range(experts)]
        ax.set_xticks(range(experts), [n.replace(" (", "\n(") for n in names], fontsize="x-small")
        ax.set_yticks(range(layers), [f"layer {layer}" for layer in range(layers)] if ax in axes[:, 0] else [])
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    for ax in list(axes.flat)[len(settings) :]:
        ax.set_axis_off()
    figure = axes.flat[0].figure
    figure.suptitle(f"{short_task(task)}: {label}" if task else label, x=0.01, ha="left", fontsize=9.5)
    note = "* p adjusted over the map (Benjamini-Hochberg) at most 0.05" if over["p_adjusted"].notna().any() else ""
    finish(list(axes.flat), [note, "mean over runs"], own=True)
    return figure, f"{label}, of each expert, mean over runs. {note}."


def _maps(
    analysis: str, quantity: str, rows: pd.DataFrame, label: str, sizes: Sequence[Sequence[int]]
) -> Iterator[Drawn]:
    conditions = [c for c in dict.fromkeys(rows["condition"])]
    for task in dict.fromkeys(rows["task"]):
        here = rows[rows["task"] == task]
        if here["group"].nunique() > 1:  # whole episodes only: a map for each group would be a book
            here = here[here["group"] == ""] if (here["group"] == "").any() else here
        figure, caption = _map_figure(quantity, here, label, task, sizes)
        suffix = f"_{short_task(task)}" if rows["task"].nunique() > 1 else ""
        yield Drawn(f"{analysis}_{quantity}{suffix}", figure, caption if len(conditions) < 2 else caption)


# --------------------------------------------------------------------------------------------------------- calibration


@figure_style()
def draw_calibration(table: pd.DataFrame, level: float) -> Drawn:
    """Draw how often each test of the design is wrong on noise, and right on what was planted.

    Args:
        table: Columns quantity, false_positives, data_sets, recovered (NaN none), and low, high of the false positives.
        level: Of the tests.
    """
    names = list(table["quantity"])
    axes = use_axes(None, 1, 2, size=(PAGE_WIDTH, 1.1 + 0.26 * max(2, len(names))), sharey=True)
    left, right = axes[0]
    y = np.arange(len(names))[::-1]
    left.axvline(level, color=_NULL_COLOR, ls=(0, (2, 1)), lw=1.0)
    left.hlines(y, table["low"], table["high"], color="black", lw=1.2)
    left.plot(table["false_positives"], y, "o", ms=4, color=CATEGORY_COLORS[0])
    left.set_yticks(y, names)
    left.set_xlim(0, max(0.2, float(table["high"].max()) * 1.1))
    left.set_xlabel("false positives on noise (95 % interval)")
    known = table["recovered"].notna().to_numpy()
    right.plot(table["recovered"][known], y[known], "s", ms=4, color=CATEGORY_COLORS[2])
    right.set_xlim(0, 1.04)
    right.set_xlabel("found where it was planted")
    finish([left, right], [f"n = {count_of(int(table['data_sets'].max()), 'data set')}; dashed: the level, {level:g}"], own=True)
    return Drawn("calibration", left.figure, "How often each test is wrong on noise of this shape, and right on planted effects.")
