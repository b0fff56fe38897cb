"""Rewards over rollouts, and the best reward against new tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from maxent.charts.records import Experiment, RunRecord, describe_experiment, find_warning
from maxent.charts.styles import (
    Panel,
    channel,
    draw_curve,
    draw_extension,
    edge_color,
    label_ends,
    mark_logarithms,
    names_width,
    pad_limits,
    split_panels,
)
from maxent.evaluation.metrics.intervals import MIN_SAMPLES, bootstrap
from plotting.sheet import MARGIN, Sheet, full_width, lines_height
from plotting.style import current_size, figure_style

_PANEL, _ALONE = 2.75, 3.7  # inches, width of axes in a figure that chooses its own, of several panels or one
_LEAST_PANEL = 1.5
_HEIGHT = 1.65
_LEFT, _GAP = 0.78, 0.25  # inches: beside the first axes, between names and the next axes
_CROWD = 4
"""Runs of a panel from which on bands are faint and have no edges, and axes are higher."""
_MOST_PLACES = 80
"""More rollouts than that are drawn several together: their rewards would be a block of ink."""
_BANDS = "bands: 95 % bootstrap intervals over samples"
_FAINT = f"faint lines: single samples (no intervals below {MIN_SAMPLES})"
_ENDED = "dotted: the search had ended"


@dataclass(frozen=True)
class Curve:
    """A mean over samples along an axis; p places.

    Attributes:
        x: (p,) float64.
        samples: (samples, p), NaN where a sample has no value.
        mean: (p,) over the samples that have one.
        low: (p,), lower end of the interval; None with too few samples for one.
        high: (p,), upper end.
    """

    x: np.ndarray
    samples: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def average(x: np.ndarray, samples: np.ndarray) -> Curve:
    """Return the mean of samples (samples, p) at places (p,), with its interval; every place has a value of some."""

    def compute(rows: np.ndarray) -> np.ndarray:
        known = ~np.isnan(samples[rows])
        count = known.sum(axis=0)
        total = np.where(known, samples[rows], 0.0).sum(axis=0)
        return np.divide(total, count, out=np.full(len(x), np.nan), where=count > 0)

    found = bootstrap(compute, len(samples))
    mean = np.array([one.value for one in found])
    if found[0].low is None:
        return Curve(x, samples, mean, None, None)
    low, high = (np.array([getattr(one, end) for one in found], np.float64) for end in ("low", "high"))
    return Curve(x, samples, mean, low, high)


def average_rewards(run: RunRecord, bundle: int = 1) -> Curve:
    """Return the reward of each rollout, of the samples that have it; or of so many together, in their middle."""
    most = max(len(sample.rewards) for sample in run.samples)
    bundles = -(-most // bundle)
    samples = np.full((len(run.samples), bundles), np.nan)
    for row, sample in zip(samples, run.samples, strict=True):
        starts = np.arange(0, len(sample.rewards), bundle)
        counts = np.diff(np.append(starts, len(sample.rewards)))
        row[: len(starts)] = np.add.reduceat(sample.rewards, starts) / counts
    ends = np.minimum(np.arange(1, bundles + 1) * bundle, most)
    return average((np.arange(bundles) * bundle + 1 + ends) / 2, samples)


def average_best(run: RunRecord) -> Curve:
    """Return the best reward up to each rollout; a search that has ended keeps its best."""
    most = max(len(sample.rewards) for sample in run.samples)
    samples = [
        np.maximum.accumulate(np.pad(sample.rewards, (0, most - len(sample.rewards)), mode="edge"))
        for sample in run.samples
    ]
    return average(np.arange(1.0, most + 1), np.array(samples))


def average_by_tokens(run: RunRecord) -> Curve:
    """Return the best reward within so many new tokens, at every number at which that of a sample changes or ends.

    It begins where the last of the samples has its first rollout; a search that has ended keeps its best. As a curve of
    steps this is the exact mean. Less than one token counts as one, for the sake of the logarithm.
    """
    tokens = [np.maximum(sample.tokens, 1.0) for sample in run.samples]
    best = [np.maximum.accumulate(sample.rewards) for sample in run.samples]
    begin = max(one[0] for one in tokens)
    changes = [one[np.append(True, np.diff(values) > 0)] for one, values in zip(tokens, best, strict=True)]
    places = np.unique(np.concatenate([*changes, [begin], [max(one[-1] for one in tokens)]]))
    places = places[places >= begin]
    rows = [values[np.searchsorted(one, places, side="right") - 1] for one, values in zip(tokens, best, strict=True)]
    return average(places, np.array(rows))


def plot_rewards(experiment: Experiment) -> Figure:
    """Return the reward of each rollout above the best so far, both over rollouts."""
    runs = experiment.drawn
    lengths = {run.label: max(len(sample.rewards) for sample in run.samples) for run in runs}
    most = max(lengths.values())
    bundle = -(-most // _MOST_PLACES)
    curves = {run.label: (average_rewards(run, bundle), average_best(run)) for run in runs}
    notes = [_note(runs)]
    if bundle > 1:
        notes.append(f"reward of the rollout: means of {bundle} rollouts each")
    if any(len({len(sample.rewards) for sample in run.samples}) > 1 for run in runs):
        notes.append("where searches of a run end at different rollouts, rewards are means over those that go on")
    if any(length < most for length in lengths.values()):
        notes.append(_ENDED)
    limits = _find_limits([curve for pair in curves.values() for curve in pair])

    def draw(ax: Axes, panel: Panel, row: int, height: float) -> None:
        ends = []
        for run in panel.runs:
            curve = curves[run.label][row]
            gid = f"{('reward', 'best_so_far')[row]}/{run.model}/{run.method}"
            _draw(ax, curve, run, panel, gid, width=1.6 if row else 1.1)
            if row and lengths[run.label] < most:
                draw_extension(ax, [curve.x[-1], most], [curve.mean[-1]] * 2, run)
            ends.append((curve.mean[-1], run, panel.name(run)))
        ax.set_xlim(1 - 0.03 * max(most - 1, 10), most + 0.03 * max(most - 1, 10))
        ax.set_ylim(*limits)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        label_ends(ax, height, [end for end in ends if row or lengths[end[1].label] == most])

    return _lay_out(
        experiment, "Reward over rollouts", notes, ("reward of\nthe rollout", "best\nso far"), "rollout", draw
    )


def plot_tokens(experiment: Experiment) -> Figure:
    """Return the best reward against new tokens, on a logarithmic axis."""
    runs = experiment.drawn
    curves = {run.label: average_by_tokens(run) for run in runs}
    first, last = (pick(curve.x[at] for curve in curves.values()) for pick, at in ((min, 0), (max, -1)))
    limits = _find_limits(list(curves.values()))
    notes = [f"new tokens: fed for a sample, the prompt not counted; {_note(runs)}"]
    if any(curve.x[-1] < last for curve in curves.values()):
        notes.append(_ENDED)

    def draw(ax: Axes, panel: Panel, _row: int, height: float) -> None:
        ends = []
        for run in panel.runs:
            curve = curves[run.label]
            _draw(ax, curve, run, panel, f"tokens/{run.model}/{run.method}", steps=True)
            if curve.x[-1] < last:
                draw_extension(ax, [curve.x[-1], last], [curve.mean[-1]] * 2, run)
            ends.append((curve.mean[-1], run, panel.name(run)))
        ax.set_xscale("log")
        ax.set_xlim(first / 1.1, last * 1.1)
        ax.set_ylim(*limits)
        mark_logarithms(ax, first / 1.1, last * 1.1)
        label_ends(ax, height, ends)

    return _lay_out(experiment, "Best reward against new tokens", notes, ("best reward",), "new tokens", draw)


def _note(runs: Sequence[RunRecord]) -> str:
    few = any(len(run.samples) < MIN_SAMPLES for run in runs)
    many = any(len(run.samples) >= MIN_SAMPLES for run in runs)
    return "lines: means over samples; " + "; ".join([_BANDS] * many + [_FAINT] * few)


def _find_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the ends of the axis of rewards for all panels."""
    shown = [curve.samples.ravel() if curve.low is None else np.append(curve.low, curve.high) for curve in curves]
    return pad_limits(np.concatenate(shown))


def _draw(
    ax: Axes, curve: Curve, run: RunRecord, panel: Panel, gid: str, *, width: float = 1.6, steps: bool = False
) -> None:
    """Draw a mean with its band, or with its samples where they are too few for one."""
    how = {"drawstyle": "steps-post"} if steps else {}
    dashes, _ = channel(run, panel.by)
    thin = {"lw": 0.6 * current_size().scale, "ls": dashes, "color": edge_color(run), "zorder": 1, **how}
    crowded = len(panel.runs) > _CROWD
    if curve.low is None:
        ax.plot(curve.x, curve.samples.T, alpha=0.15 if crowded else 0.35, **thin)
    else:
        step = {"step": "post"} if steps else {}
        share = 0.1 if crowded else 0.2
        ax.fill_between(curve.x, curve.low, curve.high, color=run.color, alpha=share, lw=0, zorder=1, **step)
        if not crowded:  # bands of one colour overlap
            ax.plot(curve.x, np.stack([curve.low, curve.high], axis=1), alpha=0.5, **thin)
    marked = not steps or len(curve.x) == 1
    draw_curve(ax, curve.x, curve.mean, run, panel.by, gid, width=width, marked=marked, **how)


def _lay_out(
    experiment: Experiment,
    title: str,
    notes: Sequence[str],
    rows: Sequence[str],
    x_label: str,
    draw: Callable[[Axes, Panel, int, float], None],
) -> Figure:
    """Return a figure of panels side by side, each of one or several axes above each other.

    Args:
        experiment: What is drawn.
        title: Of the figure.
        notes: What its marks mean.
        rows: What is along the vertical axis of each of the axes of a panel.
        x_label: What is along the horizontal one.
        draw: Fills axes: of a panel, of a row, of a height in inches.
    """
    panels = split_panels(experiment.drawn)
    names = names_width([panel.name(run) for panel in panels for run in panel.runs])
    columns = min(len(panels), 2 if len(panels) <= 4 else 3)
    natural = _ALONE if columns == 1 else _PANEL
    full = full_width(2 * MARGIN + _LEFT + columns * (natural + names) + (columns - 1) * _GAP)
    while columns > 1 and _axes_width(full, columns, names) < _LEAST_PANEL:
        columns -= 1
    width = _axes_width(full, columns, names)
    if width < 0.8:
        raise ValueError(f"width: expected at least {full - width + 0.8:.1f} inches for these names, found {full:.1f}")
    blocks = -(-len(panels) // columns)
    high = _HEIGHT + 0.12 * max(0, max(len(panel.runs) for panel in panels) - _CROWD)
    lines = [*describe_experiment(experiment), *notes]
    with figure_style():
        banner = find_warning(experiment)
        top = lines_height(full, banner, *lines) + 0.12
        block = 0.28 + len(rows) * (high + 0.16) + 0.42
        sheet = Sheet(full, top + blocks * block + MARGIN, title, *lines, banner=banner)
        for at, panel in enumerate(panels):
            left = MARGIN + _LEFT + (at % columns) * (width + names + _GAP)
            upper = top + at // columns * block + 0.28
            for row, label in enumerate(rows):
                here = upper + row * (high + 0.16)
                ax = sheet.axes(left, here, width, high, panel.title if row == 0 else "")
                draw(ax, panel, row, high)
                if at % columns == 0:
                    ax.set_ylabel(label)
                else:
                    ax.tick_params(labelleft=False)
                if row == len(rows) - 1:
                    ax.set_xlabel(x_label)
                else:
                    ax.tick_params(labelbottom=False)
    return sheet.figure


def _axes_width(full: float, columns: int, names: float) -> float:
    return (full - 2 * MARGIN - _LEFT - (columns - 1) * _GAP) / columns - names
