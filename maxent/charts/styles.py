"""How runs look in all charts: colour by model, line and marker by what else tells them apart.

Colours are those of the results file, exactly; some are pale, and some close to each other, hence a dark edge around
lines and markers, a second channel, and names at the ends of lines. Curves of one model by several methods would all
have its colour: they have those of the methods instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory

from maxent.charts.records import RunRecord
from plotting.style import current_size, text_width

_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2, 2, 2)), (0, (8, 4)))
_MARKERS = ("o", "s", "D", "^", "P", "v", "X", "*", "h")
_METHODS = ("dts", "best_of_n", "mh", "dts_star", "mcts", "beam", "dts_paper", "greedy", "sample")
_MODELS = ("llama-7b", "llama-13b", "mistral-7b", "phi-2", "gemma-7b", "toy", "more", "babyai")
METHOD_COLORS = {
    "greedy": "#777777",
    "sample": "#BBBBBB",
    "best_of_n": "#000000",
    "beam": "#999933",
    "mcts": "#117733",
    "mh": "#AA4499",
    "dts": "#332288",
    "dts_star": "#CC6677",
    "dts_paper": "#88CCEE",
}
"""Of methods where one model has several: Paul Tol's muted scheme, which colour-blind readers can tell apart."""

_TEXT_CONTRAST = 4.5
_MOST_MARKERS = 15
_LINE = 0.15  # inches from one name to the next


@dataclass(frozen=True)
class Panel:
    """Axes and what is in them.

    Attributes:
        title: Above; "" for none.
        runs: Whose lines it has.
        by: What tells them apart besides colour: `method` or `model`.
    """

    title: str
    runs: tuple[RunRecord, ...]
    by: str

    def name(self, run: RunRecord) -> str:
        """Return what a line is called within the panel."""
        return run.method if self.by == "method" else run.name


def split_panels(runs: Sequence[RunRecord]) -> list[Panel]:
    """Return a panel for each model, or one for all models if they have one method.

    Runs have the colour of their model, but those of one model alone, by several methods, the colours of the methods.
    """
    if find_channel(runs) == "model":
        return [Panel(f"method: {runs[0].method}", tuple(runs), "model")]
    models = dict.fromkeys(run.model for run in runs)
    if len(models) == 1 < len(runs):
        runs = [replace(run, color=METHOD_COLORS.get(run.method, run.color)) for run in runs]
    members = [tuple(run for run in runs if run.model == model) for model in models]
    return [Panel(found[0].name, found, "method") for found in members]


def find_channel(runs: Sequence[RunRecord]) -> str:
    """Return what tells runs apart besides colour: `method`, or `model` where there are several of one method."""
    alone = len({run.method for run in runs}) == 1 < len({run.model for run in runs})
    return "model" if alone else "method"


def channel(run: RunRecord, by: str) -> tuple[object, str]:
    """Return line style and marker of a run: the same in all charts."""
    known, key = (_METHODS, run.method) if by == "method" else (_MODELS, run.model)
    place = known.index(key) if key in known else len(known)
    return _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)]


def darken(color: str, contrast: float) -> str:
    """Return a colour, darkened as far as it takes for a contrast with white (WCAG 2.2)."""
    rgb = np.array(to_rgb(color))
    for share in np.linspace(1, 0, 51):
        linear = np.where(share * rgb <= 0.04045, share * rgb / 12.92, ((share * rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05) >= contrast:
            break
    return to_hex(share * rgb)


def edge_color(run: RunRecord) -> str:
    """Return the dark colour around what has a run's colour."""
    return darken(to_hex(0.62 * np.array(to_rgb(run.color))), _TEXT_CONTRAST)


def text_color(run: RunRecord) -> str:
    """Return the colour of a run's name."""
    return darken(run.color, _TEXT_CONTRAST)


def draw_curve(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    run: RunRecord,
    by: str,
    gid: str,
    *,
    width: float,
    marked: bool = True,
    **style: object,
) -> None:
    """Draw a run's line, in its colour with a dark edge, and markers on it unless they are many.

    Args:
        ax: Where.
        x: Places.
        y: Values there.
        run: Whose.
        by: What tells lines apart besides colour, see `Panel`.
        gid: Name of the line within the figure.
        width: Of the line in points, the edge not counted.
        marked: Whether there are markers, if not many.
        style: Of the line, further.
    """
    dashes, marker = channel(run, by)
    scale, edge = current_size().scale, edge_color(run)
    above = 3.0 if dashes != "-" else 2.5  # of curves that coincide, both are seen
    (line,) = ax.plot(x, y, color=run.color, lw=width * scale, ls=dashes, zorder=above, gid=gid, **style)
    line.set_path_effects([Stroke(linewidth=(width + 1) * scale, foreground=edge), Normal()])
    if marked and len(x) <= _MOST_MARKERS:
        ax.plot(x, y, ls="none", marker=marker, ms=4.2 * scale, mfc=run.color, mec=edge, mew=0.7 * scale, zorder=4)


def draw_extension(ax: Axes, x: Sequence[float], y: Sequence[float], run: RunRecord) -> None:
    """Draw the thin line by which a curve that has ended is held against the others."""
    ax.plot(x, y, color=edge_color(run), lw=0.6 * current_size().scale, ls=(0, (1, 2)), zorder=2)


def label_ends(ax: Axes, height: float, ends: Sequence[tuple[float, RunRecord, str]]) -> None:
    """Write names right of the axes, each as high as the end of its line, or beside it where that is taken.

    Args:
        ax: Whose limits are final.
        height: Of it in inches of the sheet.
        ends: (y of the end, run, name).
    """
    if not ends:
        return
    low, high = ax.get_ylim()
    ends = sorted(ends, key=lambda end: end[0])
    wished = [(y - low) / (high - low) * height for y, _, _ in ends]
    places = spread(wished, _LINE, 0.0, height)
    transform = blended_transform_factory(ax.transAxes, ax.transAxes)
    for (_, run, name), at, place in zip(ends, wished, places, strict=True):
        color = text_color(run)
        ax.plot([1.005, 1.035], [at / height, place / height], transform=transform, color=color, clip_on=False,
                lw=0.7 * current_size().scale)  # fmt: skip
        ax.text(1.045, place / height, name, transform=transform, color=color, va="center", fontsize="small")


def spread(wished: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places in rising order, at least a gap apart, near the wished ones; past the ends if there are too many.

    Args:
        wished: In rising order.
        gap: Between neighbours.
        low: The least place, where all fit.
        high: The greatest.
    """
    up, down = list(wished), list(wished)
    for at in range(1, len(up)):
        up[at] = max(up[at], up[at - 1] + gap)
    for at in range(len(down) - 2, -1, -1):
        down[at] = min(down[at], down[at + 1] - gap)
    found = [(above + below) / 2 for above, below in zip(up, down, strict=True)]  # both keep the gap, so does the mean
    for at in range(len(found)):
        found[at] = max(found[at], low if at == 0 else found[at - 1] + gap)
    for at in range(len(found) - 1, -1, -1):
        found[at] = min(found[at], high if at == len(found) - 1 else found[at + 1] - gap)
    return found


def names_width(names: Sequence[str]) -> float:
    """Return the room in inches of the sheet that names at the ends of lines take."""
    return max((text_width(name, 7.5) for name in names), default=0.0) + 0.22


def pad_limits(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis around values; NaN is none."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * (high - low) or max(0.05, 0.05 * abs(high))
    return low - room, high + room


def mark_logarithms(ax: Axes, low: float, high: float) -> None:
    """Set the ticks of a logarithmic horizontal axis: at most six plain numbers, such as 1, 2, 5, 10, 20."""
    digits = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0) if high / low > 4 else tuple(np.arange(1.0, 10.0))
    ticks = [tick for tick in LogLocator(subs=digits).tick_values(low, high) if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [tick for tick in MaxNLocator(nbins=3, integer=low > 5).tick_values(low, high) if low <= tick <= high]
    ticks = ticks[:: 1 + len(ticks) // 7]
    ax.set_xticks(ticks, labels=[f"{tick:,.0f}" if tick == round(tick) else f"{tick:.3g}" for tick in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
