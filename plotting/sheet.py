"""A figure laid out in inches: titles, axes, colour bars and legends at exact places, maps of equal size."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from plotting.aggregate import GridInfo
from plotting.cells import draw_expert_legend

MARGIN = 0.12
"""Inches around a figure."""

_LETTER = 0.56  # mean width of a letter, of its font size
_STRIP, _ENTRY = 0.15, 0.165  # inches: height of an expert's strip, of an entry of a legend


class Sheet:
    """A figure of the given size in inches; places are inches from its top left.

    Attributes:
        figure: The figure; not one of pyplot's.
        top: Where the title ends.
    """

    def __init__(self, width: float, height: float, title: str, *lines: str) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.top = MARGIN
        room = 72 * (width - 2 * MARGIN)
        heading = (title, 13.0, 0.25, {"fontweight": "bold"})
        for line, size, step, style in [heading, *((line, 9.0, 0.17, {"color": "0.3"}) for line in lines if line)]:
            self.text(MARGIN, self.top, line, fontsize=min(size, room / max(1, len(line)) / _LETTER), **style)
            self.top += step

    def axes(self, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
        """Add axes, their title above them."""
        w, h = self.width, self.height
        ax = self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
        if title:
            ax.set_title(title, pad=4)
        return ax

    def text(self, left: float, top: float, text: str, **style: object) -> None:
        """Write below and right of a place."""
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **style)

    def bar(
        self, mappable: ScalarMappable, left: float, top: float, width: float, height: float, label: str = ""
    ) -> None:
        """Add a colour bar; the longer side tells its direction, labels are right of or below it."""
        orientation = "vertical" if height > width else "horizontal"
        if orientation == "horizontal":  # labels stand out at the ends
            left, width = left + 0.08 * width, 0.84 * width
        bar = self.figure.colorbar(mappable, cax=self.axes(left, top, width, height), orientation=orientation)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2, pad=1.5, labelsize="x-small")
        bar.set_label(label, fontsize="small", labelpad=4)
        low, high = mappable.norm.vmin, mappable.norm.vmax
        if isinstance(mappable.norm, LogNorm):  # 50, 100, 200 rather than powers of ten, of which there may be none
            ticks = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
            ticks = [tick for tick in ticks if low <= tick <= high]
            ticks = ticks[:: 1 + len(ticks) // 8]
            bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks])
            bar.minorticks_off()
        else:
            ticks = MaxNLocator(nbins=6 if orientation == "vertical" else 4).tick_values(low, high)
            bar.set_ticks([tick for tick in ticks if low <= tick <= high])

    def legend(
        self,
        left: float,
        top: float,
        labels: Sequence[str],
        num_experts: int,
        handles: Sequence[Patch],
        *,
        beside: bool,
    ) -> None:
        """Add the legend of hue and intensity, and `handles` beside or below it.

        Args:
            left: Of the experts' names.
            top: Of the whole.
            labels: Of experts.
            num_experts: Per layer.
            handles: Legend entries of other cells.
            beside: Where they are.
        """
        strips = self.axes(left + names_width(labels), top + 0.2, 0.85, _STRIP * len(labels))
        draw_expert_legend(strips, labels, num_experts[0] if len(set(num_experts)) == 1 else 0)
        if beside:
            place = (left + names_width(labels) + 1.0, top + 0.04)
        else:
            place = (left + names_width(labels) - 0.2, top + 0.2 + _STRIP * len(labels) + 0.42)
        holder = self.axes(*place, 1.4, _ENTRY * len(handles))
        holder.set_axis_off()
        holder.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1), fontsize="small", handlelength=1.1,
                      handleheight=1.0, borderaxespad=0, borderpad=0, labelspacing=0.35)  # fmt: skip


def names_width(labels: Sequence[str]) -> float:
    """Return the room, in inches, that experts' names take beside their strips."""
    return 0.07 * max(len(label) for label in labels) + 0.04


def legend_height(labels: Sequence[str], num_handles: int, *, beside: bool) -> float:
    """Return the height, in inches, of `Sheet.legend`."""
    strips, entries = 0.2 + _STRIP * len(labels) + 0.32, _ENTRY * num_handles
    return max(strips, entries + 0.06) if beside else strips + 0.12 + entries


def compute_map_size(grid_info: GridInfo, area: float) -> tuple[float, float]:
    """Return width and height, in inches, of a map of the grid's shape, within limits.

    Args:
        grid_info: From `compute_grid_bounds`.
        area: In square inches.
    """
    ratio = min(max(grid_info["grid_width"] / grid_info["grid_height"], 0.25), 4.0)
    return float(np.sqrt(area * ratio)), float(np.sqrt(area / ratio))


def build_message(title: str, text: str) -> Figure:
    """Return a figure that says why there is nothing to see."""
    lines = textwrap.fill(text, 80)
    sheet = Sheet(6.0, 0.75 + 0.15 * lines.count("\n") + MARGIN, title)
    sheet.text(MARGIN, sheet.top + 0.08, lines, color="#CC3311")
    return sheet.figure
