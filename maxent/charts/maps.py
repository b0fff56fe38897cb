"""Rewards of all rollouts, as a map of samples and rollouts for each run."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from maxent.charts.records import Experiment, RunRecord, describe_experiment, find_warning
from maxent.charts.styles import edge_color, text_color
from plotting.sheet import MARGIN, Sheet, full_width, lines_height
from plotting.style import UNVISITED_COLOR, current_size, figure_style, text_width

_CMAP = "YlGnBu_r"
_PANEL, _LEAST_PANEL = 2.3, 1.1  # inches
_LEFT, _ACROSS, _DOWN, _TICKS = 0.55, 0.3, 0.36, 0.36  # inches: left of the first map, between maps, below the last


def build_matrix(run: RunRecord) -> np.ndarray:
    """Return rewards (samples, rollouts), NaN where a sample has no such rollout."""
    matrix = np.full((len(run.samples), max(len(sample.rewards) for sample in run.samples)), np.nan)
    for row, sample in zip(matrix, run.samples, strict=True):
        row[: len(sample.rewards)] = sample.rewards
    return matrix


def plot_heatmaps(experiment: Experiment) -> Figure:
    """Return a map of rewards for each run, on one scale of colours; a point marks each answer."""
    runs = experiment.drawn
    matrices = [build_matrix(run) for run in runs]
    alike = len({matrix.shape[1] for matrix in matrices}) == 1
    rows = max(matrix.shape[0] for matrix in matrices)
    low = min(float(np.nanmin(matrix)) for matrix in matrices)
    high = max(float(np.nanmax(matrix)) for matrix in matrices)
    norm = Normalize(low, high) if high > low else Normalize(low - 0.5, low + 0.5)
    notes = ["points: the rollout that is the answer"]
    if any(np.isnan(matrix).any() or len(matrix) != rows for matrix in matrices):
        notes.append("hatched: nothing was drawn")
    lines, banner = [*describe_experiment(experiment), "; ".join(notes)], find_warning(experiment)
    methods = len({run.method for run in runs})
    models = len({run.model for run in runs})
    columns = min(len(runs), methods if models > 1 and 1 < methods <= 4 else 4)
    titles = [run.label for run in runs]
    with figure_style():
        widest = max(text_width(title, 8.0) for title in titles)
        natural = max(_PANEL, widest)
        full = full_width(max(4.2, 2 * MARGIN + _LEFT + columns * (natural + _ACROSS) - _ACROSS + 0.15))
        while columns > 1 and _width(full, columns) < max(_LEAST_PANEL, min(widest, 2.2)):
            columns -= 1
        width = _width(full, columns)
        if width < 0.8:
            raise ValueError(f"width: expected at least {full - width + 0.8:.1f} inches, found {full:.1f}")
        width = min(width, 1.6 * natural)
        height = min(max(0.16 * rows, 0.5), 2.4)
        blocks = -(-len(runs) // columns)
        down = _DOWN if alike else _DOWN + 0.16
        top = lines_height(full, banner, *lines) + 0.32
        end = top + blocks * (height + down) - down + _TICKS
        sheet = Sheet(full, end + 0.66 + MARGIN, "Rewards of all rollouts", *lines, banner=banner)
        for at, (run, matrix) in enumerate(zip(runs, matrices, strict=True)):
            left = MARGIN + _LEFT + (at % columns) * (width + _ACROSS)
            ax = sheet.axes(left, top + at // columns * (height + down), width, height)
            size = 8.0 * min(1.0, (width + _ACROSS - 0.08) / max(text_width(run.label, 8.0), 0.01))
            ax.set_title(run.label, fontsize=size * current_size().scale, color=text_color(run), loc="left")
            _draw_map(ax, run, matrix, norm, rows)
            last_of_column = at + columns >= len(runs)
            ax.tick_params(labelleft=at % columns == 0, labelbottom=last_of_column or not alike)
            if at % columns == 0:
                ax.set_ylabel("sample")
            if last_of_column:
                ax.set_xlabel("rollout")
        bar = min(2.6, full - 2 * MARGIN - _LEFT)
        sheet.bar(ScalarMappable(norm, _CMAP), MARGIN + _LEFT, end + 0.14, bar, 0.11, "reward", (low, high))
    return sheet.figure


def _draw_map(ax: Axes, run: RunRecord, matrix: np.ndarray, norm: Normalize, rows: int) -> None:
    """Draw one map, of as many rows as the others; a run of single rollouts would be a thread on an axis of theirs."""
    most = matrix.shape[1]
    nothing = {"fc": UNVISITED_COLOR, "ec": "0.75", "hatch": "////", "lw": 0}
    ax.add_patch(Rectangle((0.5, 0.5), most, rows, zorder=0, **nothing))
    extent = (0.5, matrix.shape[1] + 0.5, matrix.shape[0] + 0.5, 0.5)
    image = ax.imshow(matrix, cmap=_CMAP, norm=norm, aspect="auto", extent=extent, zorder=1)
    image.set_gid(f"map/{run.model}/{run.method}")
    size = max(1.8, min(4.0, 90.0 / most, 140.0 / rows)) * current_size().scale
    places = [sample.answer + 1 for sample in run.samples]
    ax.plot(places, np.arange(1, len(places) + 1), ls="none", marker="o", ms=size, mfc="white", mec="black",
            mew=0.15 * size, gid=f"answers/{run.model}/{run.method}")  # fmt: skip
    ax.set_xlim(0.5, most + 0.5)
    ax.set_ylim(rows + 0.5, 0.5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    for spine in ax.spines.values():
        spine.set(visible=True, color=edge_color(run))


def _width(full: float, columns: int) -> float:
    return (full - 2 * MARGIN - _LEFT - 0.15 - (columns - 1) * _ACROSS) / columns
