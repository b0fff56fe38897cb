"""Figures of the study: what is reached against new tokens, a panel for each model, bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.maxent_study.reading import collect, over_seeds, pair
from benchmarks.maxent_study.settings import Case, StudySettings
from benchmarks.maxent_study.tables import YARDSTICK, of_method
from maxent.charts.styles import METHOD_COLORS
from maxent.comparison import SINGLE
from pipeline.command.files import replace_atomically

STYLES = {
    "greedy": (":", ""),
    "sample": (":", ""),
    "best_of_n": ("-", "o"),
    "beam": ("--", "s"),
    "mcts": ("--", "^"),
    "mh": ("--", "v"),
    "dts": ("-", "D"),
    "dts_star": ("-", "P"),
    "dts_paper": ("-", "X"),
}
"""Line and mark of each method, the same in every figure."""

PIXELS = 1300
"""Width of a figure's file: small enough for a page of documentation."""


def save_figures(settings: StudySettings, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write the figure of each case that has records; return the files."""
    paths = []
    for case in settings.cases():
        own = [record for record in records if record["case"] == case.name]
        if own:
            path = Path(settings.output) / f"maxent-study-{case.name.replace('_', '-')}.png"
            with replace_atomically(path) as temporary:
                figure = plot_case(settings, case, own)
                dpi = min(150.0, PIXELS / figure.get_figwidth())
                figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
            paths.append(path)
    return paths


def plot_case(settings: StudySettings, case: Case, records: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure of a case: above what is reached, below its difference from best-of-N."""
    models = list(dict.fromkeys(record["model"] for record in records))
    figure = Figure(figsize=(1.6 + 2.6 * max(len(models), 1.7), 5.2), layout="constrained")
    axes = figure.subplots(2, len(models), sharex=True, sharey="row", squeeze=False)
    name, value = (case.score, "score") if case.part == "sums" else ("best reward", "best")
    for column, model in enumerate(models):
        own = [record for record in records if record["model"] == model]
        plot_curves(settings, case, own, value, ax=axes[0, column])
        plot_curves(settings, case, own, value, ax=axes[1, column], paired=True)
        axes[1, column].set_xlabel(case.unit)
        if len(models) > 1:
            axes[0, column].set_title(model, fontsize=9)
    axes[0, 0].set_ylabel(name)
    axes[1, 0].set_ylabel(f"difference from {YARDSTICK}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    seeds = len({record["seed"] for record in records})
    unit = "policies" if case.part == "babyai" else "seeds"
    figure.suptitle(f"{case.name.replace('_', ', ')}: mean and 95 % interval over {seeds} {unit}", fontsize=10)
    return figure


def plot_curves(
    settings: StudySettings,
    case: Case,
    records: Sequence[Mapping[str, Any]],
    value: str,
    *,
    ax: Axes,
    paired: bool = False,
) -> Axes:
    """Draw a curve over budgets for each method, with its interval, and return the axes.

    Args:
        settings: Of the study.
        case: Of the records.
        records: Of one model.
        value: A key of `reading.read_at`.
        ax: Where.
        paired: Differences from best-of-N; single draws, which do not use a budget, are left out, and so is a beam
            where it falls so far behind that the others could not be told apart.
    """
    budgets = settings.case_budgets(case)
    methods = [method for method in settings.case_methods(case) if of_method(records, method)]
    left_out = (*SINGLE, YARDSTICK, *(("beam",) if case.part in ("m4", "har") else ())) if paired else ()
    shown = [method for method in methods if method not in left_out]
    plain = {budget: collect(of_method(records, YARDSTICK), value, budget) for budget in budgets}
    if paired:
        ax.axhline(0.0, color=METHOD_COLORS[YARDSTICK], linewidth=0.8)
    for place, method in enumerate(shown):
        estimates = []
        for budget in budgets:
            values = collect(of_method(records, method), value, budget)
            estimates.append(over_seeds(pair(values, plain[budget]) if paired else values))
        mean, low, high = (np.array([float(getattr(one, end)) for one in estimates]) for end in ("mean", "low", "high"))
        color, (line, mark) = METHOD_COLORS[method], STYLES[method]
        x = np.array(budgets, float) * 1.045 ** (place - (len(shown) - 1) / 2)  # beside one another, not one on another
        ax.plot(x, mean, color=color, linestyle=line, marker=mark, markersize=3.5, linewidth=1.2, label=method)
        if method not in SINGLE:
            ax.vlines(x, low, high, color=color, linewidth=0.8, alpha=0.7)
    ax.set_xscale("log")
    ax.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    ax.minorticks_off()
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
