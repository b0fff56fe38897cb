"""A figure laid out in inches: titles, axes, colour bars and legends at exact places, maps of equal size.

The inches are those of a figure with text of `BASE_FONT`; with other text all of it is so much larger or smaller.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from plotting.aggregate import GridInfo
from plotting.cells import draw_expert_legend
from plotting.data import PlotError
from plotting.style import WARNING_COLOR, current_size, text_width, wrap_text

MARGIN = 0.12
"""Inches around a figure."""

_HEADING, _LINE = 0.25, 0.17  # inches: height of a title, of a line below it
_LEAST_MAP = 0.25  # inches
_MOST_OF_NATURAL = 1.5  # how much larger than it would be by itself a map is in a wide figure
_STRIP, _ENTRY = 0.15, 0.165  # inches: height of an expert's strip, of an entry of a legend


class Sheet:
    """A figure of the given size in inches; places are inches from its top left.

    Attributes:
        figure: The figure; not one of pyplot's.
        top: Where the title ends.
    """

    def __init__(self, width: float, height: float, title: str, *lines: str, banner: str = "") -> None:
        self.width, self.height, self.scale = width, height, current_size().scale
        self.figure = Figure(figsize=(width * self.scale, height * self.scale))
        self.top = MARGIN
        room = width - 2 * MARGIN
        written = [(title, 13.0, _HEADING, {"fontweight": "bold"})]
        warning = {"color": WARNING_COLOR, "fontweight": "bold"}
        written += [(line, 9.0, _LINE, warning) for line in _wrap(banner, width, "bold")]
        written += [(part, 9.0, _LINE, {"color": "0.3"}) for line in lines for part in _wrap(line, width)]
        for line, size, step, style in written:
            wide = text_width(line, size, style.get("fontweight", "normal"))
            self.text(MARGIN, self.top, line, fontsize=size * min(1.0, room / max(wide, 0.01)) * self.scale, **style)
            self.top += step

    def axes(self, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
        """Add axes, their title above them."""
        w, h = self.width, self.height
        ax = self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
        if title:
            ax.set_title(title, pad=4 * self.scale)
        return ax

    def text(self, left: float, top: float, text: str, **style: object) -> None:
        """Write below and right of a place."""
        self.figure.text(left / self.width, 1 - top / self.height, text, va="top", **style)

    def patch(self, left: float, top: float, width: float, height: float, color: str) -> None:
        """Add a rectangle of one colour, as beside the name of an expert."""
        corner = (left / self.width, 1 - (top + height) / self.height)
        size = (width / self.width, height / self.height)
        self.figure.add_artist(Rectangle(corner, *size, fc=color, lw=0, transform=self.figure.transFigure))

    def bar(
        self,
        mappable: ScalarMappable,
        left: float,
        top: float,
        width: float,
        height: float,
        label: str = "",
        span: tuple[float, float] | None = None,
    ) -> None:
        """Add a colour bar; the longer side tells its direction, labels are right of or below it.

        Args:
            mappable: What has the colours.
            left: Of the bar.
            top: Of it.
            width: Of it.
            height: Of it.
            label: Of the bar.
            span: Part of the scale to be framed: where the values of the maps are.
        """
        orientation = "vertical" if height > width else "horizontal"
        if orientation == "horizontal":  # labels stand out at the ends
            left, width = left + 0.08 * width, 0.84 * width
        bar = self.figure.colorbar(mappable, cax=self.axes(left, top, width, height), orientation=orientation)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2 * self.scale, pad=1.5 * self.scale, labelsize="x-small")
        bar.set_label(label, fontsize="small", labelpad=4 * self.scale)
        low, high = mappable.norm.vmin, mappable.norm.vmax
        if isinstance(mappable.norm, LogNorm):  # 50, 100, 200 rather than powers of ten, of which there may be none
            ticks = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
            ticks = [tick for tick in ticks if low <= tick <= high]
            ticks = ticks[:: 1 + len(ticks) // (8 if orientation == "vertical" else 1 + int(3 * width))]
            bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks])
            bar.minorticks_off()
        else:
            most = max(1, min(6, int(height / 0.2))) if orientation == "vertical" else 3
            ticks = MaxNLocator(nbins=most).tick_values(low, high)
            ticks = [tick for tick in ticks if low <= tick <= high]
            whole = all(float(tick).is_integer() for tick in ticks)
            bar.set_ticks(ticks, labels=[f"{tick:,.0f}" for tick in ticks] if whole else None)
        if span is not None and np.isfinite(span).all():
            least = 0.012 * (high - low)  # else a frame around a constant would not be seen
            start, end = max(low, span[0] - least), min(high, span[1] + least)
            frame = {"fill": False, "ec": "black", "lw": 1.0, "clip_on": False, "zorder": 5}
            bar.ax.axhspan(start, end, **frame) if orientation == "vertical" else bar.ax.axvspan(start, end, **frame)

    def legend(
        self,
        left: float,
        top: float,
        entries: Sequence[tuple[str, int]],
        num_experts: Sequence[int],
        handles: Sequence[Patch],
        *,
        beside: bool,
    ) -> None:
        """Add the legend of hue and intensity, and `handles` beside or below it.

        Args:
            left: Of the experts' names.
            top: Of the whole.
            entries: Names and hues of experts.
            num_experts: Per layer.
            handles: Legend entries of other cells.
            beside: Where they are.
        """
        labels, hues = [name for name, _ in entries], [hue for _, hue in entries]
        strips = self.axes(left + names_width(labels), top + 0.2, 0.85, _STRIP * len(labels))
        draw_expert_legend(strips, labels, num_experts[0] if len(set(num_experts)) == 1 else 0, hues)
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


def compute_map_size(
    grid_info: GridInfo, area: float, columns: int | None = None, rest: float = 0.0
) -> tuple[float, float]:
    """Return width and height, in inches, of a map of the grid's shape, within limits.

    Args:
        grid_info: From `compute_grid_bounds`.
        area: In square inches, if the figure may be as wide as it likes.
        columns: Of maps beside each other, if its width is given; None for a figure that does not follow it.
        rest: Of that width, what else takes of it.
    """
    ratio = min(max(grid_info["grid_width"] / grid_info["grid_height"], 0.25), 4.0)
    size = current_size()
    if size.width is not None and columns is not None:
        width = max(_LEAST_MAP, (size.width / size.scale - rest) / columns)
        return width, width / ratio
    return float(np.sqrt(area * ratio)), float(np.sqrt(area / ratio))


def fit_maps(grid_info: GridInfo, area: float, columns: int, rest: float, least: float = 0.7) -> tuple[float, float]:
    """Return width and height of a map as `compute_map_size` does, of a figure that cannot be folded.

    Args:
        grid_info: As there.
        area: As there.
        columns: As there.
        rest: As there.
        least: Width of a map in inches below which nothing can be read.

    Raises:
        PlotError: If the width that is given leaves the maps less than that; the message names the least width.
    """
    width, height = compute_map_size(grid_info, area, columns, rest)
    most = _MOST_OF_NATURAL * compute_map_size(grid_info, area)[0]
    if width > most:  # one map needs not fill a page
        width, height = most, most * height / width
    size = current_size()
    if size.width is not None and width < least:
        wanted = 25.4 * size.scale * (rest + columns * least)
        maps = "a map" if columns == 1 else f"{columns} maps beside each other"
        raise PlotError(
            f"width: expected at least {wanted:.0f}mm for {maps} at this font, found {25.4 * size.width:.0f}mm"
        )
    return width, height


def full_width(natural: float) -> float:
    """Return the width of a sheet in inches: that which was asked for, else the natural one."""
    size = current_size()
    return natural if size.width is None else size.width / size.scale


def lines_height(width: float, banner: str, *lines: str) -> float:
    """Return the height of a sheet's title, banner and lines below it."""
    count = len(_wrap(banner, width, "bold")) + sum(len(_wrap(line, width)) for line in lines)
    return MARGIN + _HEADING + _LINE * count


def _wrap(text: str, width: float, weight: str = "normal") -> list[str]:
    """Return a text in lines that fit into a sheet of that width; [] for none."""
    return wrap_text(text, width - MARGIN, 9.0, weight) if text else []


def build_message(title: str, text: str) -> Figure:
    """Return a figure that says why there is nothing to see."""
    lines = textwrap.fill(text, 80)
    sheet = Sheet(6.0, 0.75 + 0.15 * lines.count("\n") + MARGIN, title)
    sheet.text(MARGIN, sheet.top + 0.08, lines, color=WARNING_COLOR)
    return sheet.figure
