"""Figures over levels: LPC against how hard they are; how alike they are, by subgoals, routing and lesions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from plotting.panels import PAGE_WIDTH, finish, series_style, use_axes
from plotting.runs import short_task
from plotting.style import figure_style, text_width
from science.figures.names import Drawn, alpha_of, in_order, label_of, runs_of

DIFFICULTIES = {
    "difficulty_plan_length": "plan length (steps)",
    "difficulty_subgoals": "subgoals",
    "difficulty_steps_to_learn": "log env-steps to learn",
}
"""What axes say of them."""

_MOST_HEIGHT = 8.0
"""Inches of all matrices below each other."""

OTHER = "other"
"""Family of levels whose name begins like no other one's."""

_NAME_SIZE = 5.0
"""Points."""

MATRICES = {"k_task": "subgoals (cosine)", "k_route": "routing (1 \N{MINUS SIGN} JSD, bits)", "k_lesion": "lesions (r)"}


def draw_levels(analysis: str, table: pd.DataFrame, label: Callable[[str], str]) -> Iterator[Drawn]:
    """Yield the figures over levels that an analysis has."""
    if analysis == "difficulty" and (table["quantity"] == "level_lpc").any():
        yield draw_difficulty("difficulty_lpc", table)
    if analysis == "similarity" and (table["quantity"] == "k_route").any():
        yield from draw_matrices(table)


@figure_style()
def draw_difficulty(name: str, table: pd.DataFrame) -> Drawn:
    """Draw LPC of each level against its difficulties, a column for each difficulty, a row for each price."""
    lpc = runs_of(table[table["quantity"] == "level_lpc"])
    kinds = [kind for kind in DIFFICULTIES if (table["quantity"] == kind).any()]
    settings, families = in_order(lpc["setting"]), group_levels(dict.fromkeys(lpc["task"]))
    size = (PAGE_WIDTH, 0.9 + 2.1 * len(settings))
    axes = use_axes(None, len(settings), len(kinds), size=size, sharex="col", sharey="row")
    for across, setting in zip(axes, settings, strict=True):
        for ax, kind in zip(across, kinds, strict=True):
            hard = table[table["quantity"] == kind].set_index("task")
            if kind == "difficulty_plan_length":
                ax.set_xscale("log")
            _scatter(ax, lpc[lpc["setting"] == setting], hard, families)
        price = f"alpha {label_of(setting)}" if alpha_of(setting) is not None else setting
        across[0].set_ylabel(f"LPC, {price}")
    for ax, kind in zip(axes[-1], kinds, strict=True):
        if kind == "difficulty_plan_length":
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(DIFFICULTIES[kind])
    handles = []
    for index, family in enumerate(dict.fromkeys(families.values())):
        color, marker = family_style(index, family)
        handles.append(Line2D([], [], ls="", color=color, marker=marker, ms=4.5, mec="0.2", mew=0.4, label=family))
    handles.append(Line2D([], [], ls="", color="0.4", marker="o", ms=1.8, alpha=0.6, label="a run"))
    notes = ["large: mean over runs"]
    notes += ["right of the line: never learned"] if _censored(table) else []
    figure = axes.flat[0].figure
    finish(list(axes.flat), notes, own=True, handles=handles)
    figure.draw_without_rendering()  # labels have to know where everything is
    for ax in axes.flat:
        _name_points(ax)
    caption = (
        "LPC on the bot's trajectories against how hard a level is. Large points are levels, means over runs; small "
        "ones are runs. Colours are families, by the first words of a level's name; as many levels are named as there "
        "is room for, the ends first: the easiest, the hardest, the least and the most complex one."
    )
    return Drawn(name, figure, caption)


def group_levels(tasks: Iterable[str]) -> dict[str, str]:
    """Return the family of each level: the first words of its name, that others begin with too, or "other"."""
    first = {}
    for task in tasks:
        words = re.findall(r"[A-Z][a-z]*\d*", short_task(task))
        first[task] = "".join(words[:2] if words[:2] == ["Go", "To"] else words[:1])
    counts = Counter(first.values())
    families = {task: word if counts[word] > 1 else OTHER for task, word in first.items()}
    order = [*dict.fromkeys(word for word in families.values() if word != OTHER), OTHER]
    return {task: word for wanted in order for task, word in families.items() if word == wanted}


def family_style(index: int, family: str) -> tuple[str, str]:
    """Return colour and marker of the family of this number; those of the levels that have none are grey."""
    return ("0.6", "X") if family == OTHER else series_style(index)


def _censored(table: pd.DataFrame) -> bool:
    rows = table[table["quantity"] == "difficulty_steps_to_learn"]
    return bool(rows["condition"].str.startswith("never").any())


def _scatter(ax: Axes, rows: pd.DataFrame, hard: pd.DataFrame, families: Mapping[str, str]) -> None:
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
    order = list(dict.fromkeys(families.values()))
    for index, family in enumerate(order):
        color, marker = family_style(index, family)
        own = (rows["task"].map(families) == family).to_numpy(bool)
        ax.plot(xs[own], rows["value"][own], ls="", marker="o", ms=1.5, color=color, alpha=0.4, zorder=2)
        for task in (task for task in means.index if families[task] == family):
            style = {"ms": 4.2, "color": color, "mec": "0.2", "mew": 0.4, "zorder": 3}
            ax.plot(at.get(task, np.nan), means[task], ls="", marker=marker, gid=short_task(task), **style)


def _name_points(ax: Axes) -> None:
    """Name the large points, the ends first, others as far as their name lies on no other name and on no point."""
    points = [line for line in ax.lines if line.get_gid()]
    places = np.array([ax.transData.transform(line.get_xydata()[0]) for line in points]).reshape(-1, 2)
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    if not len(known):
        return
    (x, y), inside = places[known].T, ax.get_window_extent()
    ends = [known[index] for index in (x.argmin(), x.argmax(), y.argmin(), y.argmax())]
    unit = ax.figure.dpi / 72
    taken = [(px - 2.2 * unit, py - 2.2 * unit, px + 2.2 * unit, py + 2.2 * unit) for px, py in places[known]]
    runs = [xy for line in ax.lines if line.get_marker() == "o" and not line.get_gid() for xy in line.get_xydata()]
    runs = [
        (px - unit, py - unit, px + unit, py + unit) for px, py in ax.transData.transform(np.reshape(runs, (-1, 2)))
    ]
    for index in dict.fromkeys([*ends, *known]):
        obstacles = taken if index in ends else [*taken, *runs]
        text, (px, py) = points[index].get_gid(), places[index]
        width, height = 1.1 * text_width(text, _NAME_SIZE) * ax.figure.dpi, _NAME_SIZE * unit
        for dx, dy, ha in ((4, -2, "left"), (-4, -2, "right"), (0, 4, "center"), (0, -8.5, "center")):
            left = px + dx * unit - {"left": 0, "right": width, "center": width / 2}[ha]
            box = (left, py + dy * unit, left + width, py + dy * unit + height)
            if box[0] < inside.x0 or box[2] > inside.x1 + 2 * unit or box[1] < inside.y0 or box[3] > inside.y1:
                continue
            if any(a < box[2] and box[0] < c and b < box[3] and box[1] < d for a, b, c, d in obstacles):
                continue
            taken.append(box)
            style = {"fontsize": _NAME_SIZE, "textcoords": "offset points", "color": "0.25", "zorder": 4}
            note = ax.annotate(text, points[index].get_xydata()[0], (dx, dy), ha=ha, va="bottom", **style)
            note.set_in_layout(False)
            break


def draw_matrices(table: pd.DataFrame) -> Iterator[Drawn]:
    """Yield how alike levels are by subgoals; then by routing and by lesions, at each price; levels in one order."""
    pairs = table[table["quantity"].isin(list(MATRICES))]
    tasks = list(dict.fromkeys([*pairs["condition"], *pairs["group"]]))
    order = order_levels(fill(pairs[pairs["quantity"] == "k_task"], tasks))
    tasks = [tasks[index] for index in order]
    said = "Levels stand in the order of a clustering by subgoals."
    own = pairs[pairs["quantity"] == "k_task"]
    yield _draw_grid(
        "similarity_subgoals", own, tasks, f"How alike levels are by what the bot does there: the cosine of the shares "
        f"of steps in each of its subgoals. {said}"
    )  # fmt: skip
    yield _draw_grid(
        "similarity_matrices", pairs[pairs["quantity"] != "k_task"], tasks, "How alike levels are, means over runs: by "
        f"how policies route them, and by which knock-outs harm; one scale for all prices. {said}"
    )  # fmt: skip


@figure_style()
def _draw_grid(name: str, pairs: pd.DataFrame, tasks: Sequence[str], caption: str) -> Drawn:
    """Draw matrices, a column for each quantity, a row for each price."""
    settings = in_order(pairs["setting"])
    kinds = [kind for kind in MATRICES if (pairs["quantity"] == kind).any()]
    side = min(2.65, _MOST_HEIGHT / len(settings) - 0.25, max(1.4, 0.105 * len(tasks)))
    size = (min(PAGE_WIDTH, 1.9 + (side + 0.35) * 2), 1.15 + (side + 0.25) * len(settings))
    axes = use_axes(None, len(settings), len(kinds), size=size)
    names = [short_task(task) for task in tasks]
    small = min(7.0, 0.92 * 72 * side / len(tasks))
    for column, kind in enumerate(kinds):
        here = pairs[pairs["quantity"] == kind]
        found = {setting: fill(here[here["setting"] == setting], tasks) for setting in settings}
        scale = _range(np.stack(list(found.values())))
        for ax, setting in zip(axes[:, column], settings, strict=True):
            image = ax.imshow(found[setting], cmap="viridis", **scale)
            ax.set_title(MATRICES[kind] if ax is axes[0, column] else " ", loc="left", fontsize="small")
            ax.set_yticks(range(len(names)), names if column == 0 else [], fontsize=small)
            ax.set_xticks([])
            if column == 0 and setting:
                ax.set_ylabel(f"alpha {label_of(setting)}" if alpha_of(setting) is not None else setting)
            ax.tick_params(length=0)
        bar = axes[0, 0].figure.colorbar(
            image, ax=list(axes[:, column]), orientation="horizontal", fraction=0.03, pad=0.02, aspect=25
        )
        bar.locator = MaxNLocator(4)
        bar.ax.tick_params(labelsize="xx-small", length=2)
        bar.outline.set_visible(False)
    finish(list(axes.flat), ["columns in the order of rows"], own=True)
    return Drawn(name, axes.flat[0].figure, caption)


def _range(matrices: np.ndarray) -> dict[str, float]:
    """Return the ends of the colours of matrices (M, G, G), whose diagonals are 1 by themselves."""
    off = matrices[:, ~np.eye(matrices.shape[1], dtype=bool)]
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
