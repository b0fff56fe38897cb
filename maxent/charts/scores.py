"""Monotonicity as bars, and time against best reward."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maxent.charts.records import Experiment, RunRecord, describe_experiment, find_warning
from maxent.charts.styles import channel, edge_color, find_channel, mark_logarithms, pad_limits, text_color
from maxent.evaluation.metrics.intervals import MIN_SAMPLES, Interval, bootstrap_mean
from plotting.sheet import MARGIN, Sheet, full_width, lines_height
from plotting.style import current_size, figure_style, text_width

_ROW = 0.27  # inches of a bar with its space
_BETWEEN = 0.1  # inches between the bars of two models
_CHANCE = 0.5


def plot_monotonicity(experiment: Experiment) -> Figure:
    """Return the share of steps on which rewards rise, as a bar for each run, beside what chance gives."""
    runs = experiment.drawn
    rates = {
        run.label: [[one for sample in run.samples if (one := getattr(sample, name)) is not None]
                    for name in ("strict", "non_strict")]
        for run in runs
    }  # fmt: skip
    title = "Steps on which the reward rises"
    if not any(strict for strict, _ in rates.values()):
        lines = [
            "Every search has a single rollout: there are no steps from one to the next.",
            *describe_experiment(experiment),
        ]
        with figure_style():
            full = full_width(6.2)
            return Sheet(full, lines_height(full, "", *lines) + 0.1 + MARGIN, title, *lines).figure
    notes = [
        "bars: steps from rollout to rollout on which the reward rises, mean over samples; ticks: on which it does not "
        "fall; " + "; ".join(_explain(runs, "whiskers", "points")),
        "A sampler that learns nothing rises and falls equally often: 50 % each, less with ties. Higher is not better.",
    ]
    lines, banner = [*describe_experiment(experiment), *notes], find_warning(experiment)
    models = [run.model for run in runs]
    gaps = np.cumsum([0.0] + [_BETWEEN * (a != b) for a, b in itertools.pairwise(models)])
    places = (np.arange(len(runs)) + 0.5) * _ROW + gaps
    height = places[-1] + 0.5 * _ROW
    with figure_style():
        names = max(text_width(run.label, 8.0) for run in runs) + 0.12
        full = full_width(max(6.2, names + 4.6))
        numbers = 1.25
        width = full - 2 * MARGIN - names - numbers
        if width < 1.0:
            raise ValueError(
                f"width: expected at least {full - width + 1:.1f} inches for these names, found {full:.1f}"
            )
        top = lines_height(full, banner, *lines) + 0.34
        sheet = Sheet(full, top + height + 0.5 + MARGIN, title, *lines, banner=banner)
        ax = sheet.axes(MARGIN + names, top, width, height)
        scale = current_size().scale
        for run, place in zip(runs, places, strict=True):
            strict, non_strict = rates[run.label]
            if not strict:
                ax.text(1.02, place, "no steps", transform=ax.get_yaxis_transform(), va="center", fontsize="small")
                continue
            mean, edge = bootstrap_mean(strict), edge_color(run)
            ax.barh(
                place,
                mean.value,
                0.62 * _ROW,
                color=run.color,
                ec=edge,
                lw=0.7 * scale,
                gid=f"strict/{run.model}/{run.method}",
            )
            _draw_spread(ax, mean, strict, place, edge, scale)
            ax.plot(
                np.mean(non_strict),
                place,
                "|",
                color=edge,
                ms=11 * scale,
                mew=1.4 * scale,
                gid=f"non_strict/{run.model}/{run.method}",
            )
            ax.text(1.02, place, _format(mean), transform=ax.get_yaxis_transform(), va="center", fontsize="small")
        ax.axvline(_CHANCE, color="0.2", lw=0.9 * scale, ls=(0, (4, 2)), zorder=1, gid="chance")
        ax.text(_CHANCE, 1.0, "50 %", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize="small")
        ax.set_xlim(0, 1)
        ax.set_ylim(height, 0)
        marks = [0, 25, 50, 75, 100] if width > 2 else [0, 50, 100]
        ax.set_xticks(
            [mark / 100 for mark in marks], labels=[f"{mark} %" if mark == 100 else str(mark) for mark in marks]
        )
        ax.set_xlabel("share of steps")
        ax.set_yticks(places, labels=[run.label for run in runs])
        ax.tick_params(axis="y", length=0)
    return sheet.figure


def _draw_spread(ax: Axes, mean: Interval, values: Sequence[float], place: float, edge: str, scale: float) -> None:
    """Draw the interval of a bar, or the samples where they are too few for one."""
    if mean.low is None:
        ax.plot(values, [place] * len(values), "o", ms=3 * scale, mfc="none", mec=edge, mew=0.8 * scale, clip_on=False)
    else:
        ax.plot([mean.low, mean.high], [place] * 2, color="0.1", lw=1.2 * scale, solid_capstyle="butt")


def _format(mean: Interval) -> str:
    value = f"{mean.value:.0%}".replace("%", " %")
    return value if mean.low is None else f"{value} [{100 * mean.low:.0f}, {100 * mean.high:.0f}]"


def _explain(runs: Sequence[RunRecord], interval: str, points: str) -> list[str]:
    few = any(len(run.samples) < MIN_SAMPLES for run in runs)
    many = any(len(run.samples) >= MIN_SAMPLES for run in runs)
    return [f"{interval}: 95 % bootstrap intervals over samples"] * many + [
        f"{points}: single samples (no intervals below {MIN_SAMPLES})"
    ] * few


# --------------------------------------------------------------------------------------------------- time and reward


def plot_time(experiment: Experiment) -> Figure:
    """Return the mean time of a sample against the mean best reward, as a point for each run."""
    runs = experiment.drawn
    several = len({run.method for run in runs}) > 1
    crossed = several and len({run.model for run in runs}) > 1  # then markers are methods, and some colours are close
    by = find_channel(runs)
    notes = ["means over samples; " + "; ".join(_explain(runs, "whiskers", "small points"))]
    if crossed:
        notes.append("bars: from a model's fastest method to its slowest")
    lines, banner = [*describe_experiment(experiment), *notes], find_warning(experiment)
    seconds = {run.label: np.array([sample.seconds for sample in run.samples]) for run in runs}
    best = {run.label: np.array([sample.best_reward for sample in run.samples]) for run in runs}
    with figure_style():
        entries = _list_entries(runs, several, crossed)
        legend = max(text_width(text, 7.5) for text, _ in entries) + 0.42
        full = full_width(5.4 + legend)
        width = full - 2 * MARGIN - 0.62 - 0.15 - legend
        if width < 1.0:
            raise ValueError(
                f"width: expected at least {full - width + 1:.1f} inches for these names, found {full:.1f}"
            )
        height = max(min(0.7 * width, 3.2), 0.165 * len(entries))
        above = 0.16 * len({run.model for run in runs}) + 0.06 if crossed else 0.0
        top = lines_height(full, banner, *lines) + 0.15 + above
        sheet = Sheet(full, top + height + 0.5 + MARGIN, "Time against best reward", *lines, banner=banner)
        ax, scale = sheet.axes(MARGIN + 0.62, top, width, height), current_size().scale
        spans: dict[str, list[np.ndarray]] = {"x": [], "y": []}
        for run in runs:
            x, y, edge = seconds[run.label], best[run.label], edge_color(run)
            time, reward = bootstrap_mean(x), bootstrap_mean(y)
            _, marker = channel(run, by)
            spans["x"].append(x if time.low is None else np.array([time.low, time.high]))
            spans["y"].append(y if time.low is None else np.array([reward.low, reward.high]))
            if time.low is None:
                ax.plot(x, y, ls="none", marker=marker, ms=4 * scale, mfc=run.color, mec="none", alpha=0.6, zorder=2)
            else:
                ax.plot([time.low, time.high], [reward.value] * 2, color=edge, lw=0.8 * scale, zorder=2)
                ax.plot([time.value] * 2, [reward.low, reward.high], color=edge, lw=0.8 * scale, zorder=2)
            ax.plot(time.value, reward.value, ls="none", marker=marker, ms=7 * scale, mfc=run.color, mec=edge,
                    mew=0.9 * scale, zorder=3, gid=f"time/{run.model}/{run.method}")  # fmt: skip
        shown, heights = np.concatenate(spans["x"]), np.concatenate(spans["y"])
        if shown.min() > 0 and shown.max() > 10 * shown.min():
            ax.set_xscale("log")
            ax.set_xlim(shown.min() / 1.2, shown.max() * 1.2)
            mark_logarithms(ax, *ax.get_xlim())
        else:
            ax.set_xlim(0, 1.05 * shown.max() or 1.0)
        ax.set_ylim(*pad_limits(heights))
        if crossed:
            strip = sheet.axes(MARGIN + 0.62, top - above, width, above - 0.06)
            _name_models(strip, ax, runs, seconds, width)
        ax.set_xlabel("seconds per sample")
        ax.set_ylabel("best reward")
        holder = sheet.axes(full - MARGIN - legend, top, legend, height)
        holder.set_axis_off()
        handles = [handle for _, handle in entries]
        names = [text for text, _ in entries]
        holder.legend(handles, names, loc="upper left", bbox_to_anchor=(0, 1), fontsize=7.5 * scale, borderaxespad=0,
                      borderpad=0, handlelength=1.2, labelspacing=0.45)  # fmt: skip
    return sheet.figure


def _name_models(
    strip: Axes, ax: Axes, runs: Sequence[RunRecord], seconds: Mapping[str, np.ndarray], width: float
) -> None:
    """Draw a bar for each model above its points, from its shortest mean time to its longest, and its name.

    Args:
        strip: Above the axes, as wide.
        ax: Whose limits are final.
        runs: Whose points there are.
        seconds: By label of the run.
        width: Of the axes in inches of the sheet.
    """
    scale = current_size().scale
    models = list(dict.fromkeys(run.model for run in runs))
    strip.set_axis_off()
    strip.set_xlim(0, width)
    strip.set_ylim(len(models), 0)
    to_axes = (ax.transData + ax.transAxes.inverted()).transform
    for row, model in enumerate(models):
        members = [run for run in runs if run.model == model]
        times = [float(to_axes((seconds[run.label].mean(), 0.0))[0]) * width for run in members]
        low, high, edge = min(times) - 0.04, max(times) + 0.04, edge_color(members[0])
        strip.plot([low, high], [row + 0.5] * 2, color=edge, lw=5 * scale, solid_capstyle="butt")
        strip.plot([low, high], [row + 0.5] * 2, color=members[0].color, lw=3.6 * scale, solid_capstyle="butt")
        left = high + 0.08 + text_width(members[0].name, 7.5) > width
        strip.text(low - 0.06 if left else high + 0.06, row + 0.5, members[0].name, ha="right" if left else "left",
                   va="center", color=text_color(members[0]), fontsize=7.5 * scale)  # fmt: skip


def _list_entries(runs: Sequence[RunRecord], several: bool, crossed: bool) -> list[tuple[str, Line2D]]:
    """Return what the legend explains: colours of models unless the strip does, markers of methods if several."""
    found: dict[str, Line2D] = {}
    scale = current_size().scale
    for run in () if crossed else runs:
        marker = "s" if several else channel(run, find_channel(runs))[1]
        found.setdefault(
            run.name, Line2D([], [], ls="none", marker=marker, ms=6 * scale, mfc=run.color, mec=edge_color(run))
        )
    for run in runs if several else ():
        marker = channel(run, "method")[1]
        found.setdefault(run.method, Line2D([], [], ls="none", marker=marker, ms=6 * scale, mfc="white", mec="0.3"))
    return list(found.items())
