"""The charts of a comparison on a generated task, from its JSON: by depth, and by r at test.

draw_charts(Path("more_chains.json"))                      # more_chains_depth.png, more_chains_r.png beside it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from more.task_plan import TASK_VARIANTS
from plotting.style import figure_style, save_figure

Row = Mapping[str, Any]

TITLES = {
    **{"base": "base", "base_deep": "base, r layers", "looped": "looped", "more_a": "more_a"},
    **{"more_a_all": "more_a,\nattending to all", "more_b": "more_b", "more_c": "more_c", "more_d": "more_d"},
}
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v")
_GREY, _LIGHT = "#6E6E6E", "#E9E9E9"


def draw_charts(path: Path) -> list[Path]:
    """Draw both charts of a comparison's JSON as PNG beside it, and return the files written.

    Args:
        path: With at least one row.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    written = []
    for name, draw in (("depth", draw_by_depth), ("r", draw_by_recurrences)):
        figure = draw(content)
        if figure is not None:
            written += save_figure(figure, path.with_name(f"{path.stem}_{name}.png"))
    return written


def draw_by_depth(content: Mapping[str, Any]) -> Figure:
    """Return accuracy by depth: a column for each model, a row for each number of experts, a line for each r."""
    return _draw_grid(content, content["rows"], plot_by_depth, "steps to the answer (depth)", "accuracy")


def draw_by_recurrences(content: Mapping[str, Any]) -> Figure | None:
    """Return accuracy by r at test, means over trained depths, with a line for each r in training; None without."""
    rows = [row for row in content["rows"] if len(row["accuracy"]) > 1]
    if not rows:
        return None
    label = f"accuracy, depth 2-{content['task']['train_depth']}"
    return _draw_grid(content, rows, plot_by_recurrences, "r at test", label)


def plot_by_depth(rows: Sequence[Row], content: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Plot accuracy by depth of the rows, a line each, at the r of training.

    Args:
        rows: Of one model and number of experts.
        content: For what guessing reaches and which depths were trained.
        ax: Where.
    """
    guessing, trained = content["guessing"], content["task"]["train_depth"]
    depths = [int(depth) for depth in guessing["n"]]
    ax.axvspan(trained + 0.5, depths[-1] + 0.5, color=_LIGHT, lw=0, zorder=0, label="deeper than trained")
    rules = [guessing["chance"], guessing["majority"], *guessing["heuristics"].values()]
    best = [max(rule[str(depth)] for rule in rules) for depth in depths]
    ax.plot(depths, best, color=_GREY, ls=":", lw=1.2, zorder=1, label="best rule without steps")
    for row in rows:
        _plot_line(ax, depths, [row["accuracy"][row["trained_r"]].get(str(depth)) for depth in depths], row, content)
    ax.set_xlim(-0.5, depths[-1] + 0.5)
    ax.set_xticks(range(0, depths[-1] + 1, 2))
    return ax


def plot_by_recurrences(rows: Sequence[Row], content: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Plot accuracy over trained depths by r at test, a line for each row; a ring marks the r of training.

    Args:
        rows: Of one model and number of experts.
        content: For the colours.
        ax: Where.
    """
    for row in rows:
        steps = [int(count) for count in row["summary"]]
        found = [row["summary"][str(count)]["trained"] for count in steps]
        _plot_line(ax, steps, found, row, content, marked=False)
        own = row["summary"].get(row["trained_r"])
        if own is not None:
            style = {"mfc": "white", "mec": _style(row, content)[0], "mew": 1.3, "ms": 5, "zorder": 4}
            ax.plot([int(row["trained_r"])], [own["trained"]["mean"]], ls="none", marker="o", **style)
    ax.set_xscale("log", base=2)
    ticks = [count for count in (1, 2, 4, 8, 16, 32) if steps[0] <= count <= steps[-1]]
    ax.set_xticks(ticks, [str(count) for count in ticks])
    ax.minorticks_off()
    return ax


def _style(row: Row, content: Mapping[str, Any]) -> tuple[str, str]:
    known = sorted({other["recurrences"] for other in content["rows"]})
    place = known.index(row["recurrences"])
    return _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def _plot_line(
    ax: Axes,
    x: Sequence[int],
    found: Sequence[Mapping[str, Any] | None],
    row: Row,
    content: Mapping[str, Any],
    *,
    marked: bool = True,
) -> None:
    """Draw the means, and their intervals as a band cut to what a share can be."""
    color, marker = _style(row, content)
    known = [(place, part) for place, part in zip(x, found, strict=True) if part is not None]
    places, means = [place for place, _ in known], [part["mean"] for _, part in known]
    low = [part["mean"] if part["low"] is None else max(part["low"], 0.0) for _, part in known]
    high = [part["mean"] if part["high"] is None else min(part["high"], 1.0) for _, part in known]
    ax.fill_between(places, low, high, color=color, alpha=0.18, lw=0, zorder=2)
    ax.plot(places, means, color=color, lw=1.4, marker=marker if marked else "", ms=3.2, zorder=3, label=_label(row))


def _label(row: Row) -> str:
    return f"r = {row['recurrences']} in training"


def _draw_grid(
    content: Mapping[str, Any], rows: Sequence[Row], plot: Callable[..., Axes], xlabel: str, ylabel: str
) -> Figure:
    variants = [name for name in TASK_VARIANTS if any(row["variant"] == name for row in rows)]
    experts = sorted({row["experts"] for row in rows})
    with figure_style():
        width, height = max(4.2, 1.0 + 1.35 * len(variants)), 0.95 + 1.55 * len(experts)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(experts), len(variants), sharex=True, sharey=True, squeeze=False)
        handles: dict[str, Any] = {}
        for line, count in enumerate(experts):
            for column, variant in enumerate(variants):
                ax = axes[line, column]
                chosen = [row for row in rows if row["variant"] == variant and row["experts"] == count]
                if not chosen:
                    ax.axis("off")
                    if variant == "more_a_all" and count == 1:
                        ax.text(0.5, 0.5, "with one expert\nmore_a", ha="center", va="center", transform=ax.transAxes)
                    continue
                plot(chosen, content, ax=ax)
                ax.set_ylim(0, 1.03)
                ax.spines[["top", "right"]].set_visible(False)
                handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
            word = "expert" if count == 1 else "experts"
            axes[line, 0].set_ylabel(f"{count} {word}\n{ylabel}")
        for column, variant in enumerate(variants):
            axes[0, column].set_title(TITLES[variant], fontsize="medium")
        figure.supxlabel(xlabel, fontsize="medium")
        order = sorted(handles, key=lambda label: (not label.startswith("r = "), len(label), label))
        figure.legend([handles[label] for label in order], order, loc="outside upper center", ncols=len(order))
        return figure
