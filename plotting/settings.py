"""How settings are told apart in a figure: a colour for alpha, a letter for all else, and what they share.

    encoded = encode_settings(last_checkpoints(runs))
    encoded.rows["rest"], encoded.letters, encoded.shared

A setting that differs from others in six values has no room in a legend for all of them beside each mark. Alpha is
ordered and has its own colours; the values of all else get a letter together, which the legend explains once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.records.intervals import Estimates, mean_interval, success_over_runs
from plotting.panels import GREY, SERIES_COLORS, series_style
from plotting.runs import METRIC_LABELS, describe_shared, group_settings, short_task
from plotting.style import alpha_color, current_size

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Line styles of settings by their letter."""

BASELINE_LINES = ((0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 2)))
"""Line styles of settings without routers: of them alone, so that a baseline is no setting with a letter."""

_SHORT = 14  # letters of a label that needs no letter
_DECADES = 30.0  # ratio from which LPC is on a logarithmic axis


@dataclass(frozen=True)
class Encoded:
    """Runs with what tells their settings.

    Attributes:
        rows: Of runs, `policy` "" where it is not known, with the columns `setting`, `label` (of all that differs),
            `rest` (the same without alpha).
        tasks: Ids in alphabetical order.
        alphas: Those of runs with routers, ascending, if there are several; else empty.
        letters: {rest: letter or a short text}; empty if settings differ in alpha and policy only.
        shared: What all have in common, in words.
        baselines: `rest` of the runs of policy gru, in order.
    """

    rows: pd.DataFrame
    tasks: list[str]
    alphas: list[float]
    letters: dict[str, str]
    shared: str
    baselines: tuple[str, ...] = ()

    def color(self, task: str, alpha: float | None) -> str:
        """Return the colour of a mark: that of alpha if it differs, else of the task."""
        if self.alphas and alpha is not None and np.isfinite(alpha):
            return alpha_color(alpha)
        return GREY if self.alphas else self.task_color(task)

    def task_color(self, task: str) -> str:
        """Return the colour of a task among those of the figure."""
        return SERIES_COLORS[self.tasks.index(task) % len(SERIES_COLORS)]

    def marker(self, task: str) -> str:
        """Return the marker of a task."""
        return series_style(self.tasks.index(task))[1]

    def line(self, rest: str) -> object:
        """Return the line style of a setting by what it differs in besides alpha."""
        names = list(self.letters)
        return LINES[names.index(rest) % len(LINES)] if rest in names else "-"

    def baseline_line(self, rest: str) -> object:
        """Return the line style of a setting of policy gru, which is drawn in `GREY`."""
        return BASELINE_LINES[self.baselines.index(rest) % len(BASELINE_LINES)]

    def baseline_handles(self) -> list[Line2D]:
        """Return the legend's entries of policy gru: one for each of its settings."""
        handles = []
        for rest in self.baselines:
            name = rest if rest.split(", ")[0] == "gru" else ", ".join(filter(None, ["gru", rest]))
            handles.append(Line2D([], [], color=GREY, linestyle=self.baseline_line(rest), label=name))
        return handles

    def alpha_handles(self) -> list[Line2D]:
        """Return the legend's entries of alpha, in order."""
        return [Line2D([], [], color=alpha_color(a), linewidth=3, label=f"{ALPHA} = {a:g}") for a in self.alphas]

    def line_handles(self) -> list[Line2D]:
        """Return the legend's entries of what differs besides alpha: the line style of each letter."""
        return [
            Line2D([], [], color=GREY, linestyle=self.line(rest), label=letter or "as most")
            for rest, letter in self.letters.items()
        ]

    def key(self) -> str:
        """Return what the letters stand for, a line for each, to be written among the notes; "" if there are none."""
        told = [(letter, rest) for rest, letter in self.letters.items() if letter != rest]
        return "".join(f"\n{letter}: {rest or 'none of these'}" for letter, rest in told)

    def name(self, alpha: float | None, rest: str) -> str:
        """Return the short name of a setting, such as "alpha = 1e-05, B"."""
        price = f"{ALPHA} = {alpha:g}" if self.alphas and alpha is not None and np.isfinite(alpha) else ""
        return ", ".join(part for part in (price, self.letters.get(rest, rest)) if part)


def encode_settings(last: pd.DataFrame, *, lines: bool = False) -> Encoded:
    """Return runs with what tells their settings.

    Args:
        last: From `last_checkpoints`, some or all.
        lines: Letters go with line styles, so that short texts do without them; else they are marks.
    """
    rows = group_settings(last)
    rest = group_settings(last, ignore="lpc_alpha")["label"]
    rows = rows.assign(rest=rest.loc[rows.index], policy=rows["policy"].fillna(""))
    routed = rows[rows["policy"] != "gru"]
    alphas = sorted(routed["lpc_alpha"].dropna().unique().tolist())
    names = sorted(routed["rest"].unique().tolist())
    letters: dict[str, str] = {}
    if len(names) > 1:
        short = lines and all(len(name) <= _SHORT for name in names)
        letters = {name: name if short else _letter(place) for place, name in enumerate(names)}
    tasks = sorted(rows["task_id"].unique().tolist())
    baselines = tuple(sorted(rows[rows["policy"] == "gru"]["rest"].unique().tolist()))
    return Encoded(rows, tasks, alphas if len(alphas) > 1 else [], letters, describe_shared(rows), baselines)


def _letter(place: int) -> str:
    """Return A, B, ..., Z, AA, AB, ..."""
    high, low = divmod(place, len(ascii_uppercase))
    return (ascii_uppercase[high - 1] if high else "") + ascii_uppercase[low]


def task_handles(encoded: Encoded) -> list[Line2D]:
    """Return the legend's entries of tasks: markers, in their colours if alpha has none."""
    handles = []
    for task in encoded.tasks:
        color = GREY if encoded.alphas else encoded.task_color(task)
        style = {"color": color, "marker": encoded.marker(task), "linestyle": "None"}
        handles.append(Line2D([], [], label=short_task(task), **style))
    return handles


def spread_over_runs(members: pd.DataFrame, metric: str) -> tuple[Estimates, bool]:
    """Return the mean of a metric over runs, its interval, and whether that is over levels, see `success_over_runs`.

    Runs that agree exactly in another metric than success have no interval.
    """
    if metric == "success_rate":
        return success_over_runs(members[metric].to_numpy(float), int(members["num_episodes"].fillna(0).min()))
    return mean_interval(members[metric].to_numpy(float)).where_units_differ(), False


def set_lpc_axis(ax: Axes, values: Sequence[float], *, vertical: bool) -> bool:
    """Set the axis of LPC: from 0, and logarithmic where values span decades; return whether it is.

    Args:
        ax: Drawn on already.
        values: Of LPC, those of single runs; intervals beyond twice the largest are cut.
        vertical: It is the axis of y.
    """
    found = np.array([value for value in values if np.isfinite(value)])
    top = float(found.max(initial=0.0)) or 1.0
    positive = found[found > 0]
    spans = len(positive) > 1 and positive.max() / positive.min() >= _DECADES
    axis = ax.yaxis if vertical else ax.xaxis
    set_limits = ax.set_ylim if vertical else ax.set_xlim
    if not spans:
        drawn = (ax.get_ylim() if vertical else ax.get_xlim())[1]
        set_limits(-0.03 * top, max(1.05 * top, min(drawn, 2.0 * top)))
        return False
    least = 10.0 ** max(0.0, np.floor(np.log10(positive.min())))
    (ax.set_yscale if vertical else ax.set_xscale)("symlog", linthresh=least, linscale=0.5)
    room = ax.get_position().size[int(vertical)] * ax.figure.get_size_inches()[int(vertical)] / current_size().scale
    powers = range(int(np.log10(least)), int(np.ceil(np.log10(top))) + 1)
    step = 1 if vertical or room / len(powers) > 0.42 else 2 if room / len(powers) > 0.21 else 3
    ticks = [0.0, *(10.0**power for power in powers[::step])]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= 2 * top]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())
    set_limits(-0.15 * least if found.min() < least else 0.8 * least, 1.6 * top)
    return True


def lpc_label(logarithmic: bool) -> str:
    """Return the name of the axis of LPC."""
    return METRIC_LABELS["mean_lpc"] + (", logarithmic" if logarithmic else "")
