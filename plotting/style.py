"""How all figures look: what a colour means, fonts, sizes, and saving.

    with figure_size(width=parse_width("180mm"), font=7.0):
        figure = plot_overall_routing(cache)
        save_figure(figure, "plots/BabyAI-GoToObj-v0/trial_1/routing_heatmap.png", formats=("png", "pdf"))

A colour means one thing in every figure, film and diagram:

- *experts*, by kind: skip is blue, the smallest size orange, the largest plum, sizes between teal, sand and so on
  (`expert_hues`). An expert is a hue, its routing weight the intensity. The eight hues were searched so that any two of
  them stay apart for full colour vision and for protan, deutan and tritan vision (simulated after Machado et al. 2009,
  IEEE TVCG 15:1291): the least distance in OKLab is 0.136 between saturated ends (0.20 among the first three, which
  most policies use) and 0.070 between light ends (0.11 among the first three); 0.02 is about what one can just see.
  More than eight cannot be told apart by colour: those after share one grey, "other".
- *alpha*, the price of complexity: grey for 0, then green, the darker the dearer, on one logarithmic scale for all
  figures (`alpha_color`).
- *layers*: greys with a line style and a marker each (`layer_style`).
- *LPC*: viridis. *Visits*: magma. *Outcomes*: `OUTCOME_COLORS`. *Tasks* and anything else: `CATEGORY_COLORS`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from pipeline.command.files import replace_atomically
from plotting.origin import Origin, describe_origin, format_metadata

_EXPERT_ENDS = (
    ("blue", "#BDD1FD", "#0B4FD1"),
    ("orange", "#F5BE98", "#D4610C"),
    ("plum", "#BEA0BA", "#601D58"),
    ("teal", "#4FE7C5", "#009C87"),
    ("sand", "#F5E196", "#DBBA68"),
    ("violet", "#C3AFFF", "#AA7EE9"),
    ("red", "#F28C7A", "#A31400"),
    ("ink", "#66707A", "#141414"),
)
_OTHER_ENDS = ("other", "#D9D9D9", "#9A9A9A")

EXPERT_CMAPS: list[Colormap] = [
    LinearSegmentedColormap.from_list(f"expert_{name}", [light, full]) for name, light, full in _EXPERT_ENDS
]
"""Colour map of each expert of a layer, light to saturated; experts beyond them have that of `OTHER_CMAP`."""

OTHER_CMAP = LinearSegmentedColormap.from_list("expert_other", _OTHER_ENDS[1:])
"""Colour map that the ninth expert of a layer and those after it share."""

EXPERT_COLORS = [full for _, _, full in _EXPERT_ENDS]
"""Saturated ends of `EXPERT_CMAPS`."""

UNVISITED_COLOR = "#F4F4F4"
WALL_COLOR = "#8A8A8A"
DOOR_COLOR = "#1A1A1A"
WARNING_COLOR = "#CC3311"
LPC_CMAP, VISITS_CMAP = "viridis", "magma_r"
DIFFERENCE_CMAP = "RdBu_r"
"""Of differences, white at 0."""

SKIP_HUE, SMALL_HUE, LARGE_HUE = 0, 1, 2
"""Places in `EXPERT_CMAPS` of what an expert is."""

_MIDDLE_HUES = (3, 4, 5, 6, 7)
_OTHER_HUE = len(_EXPERT_ENDS)

_FREE_COLOR = "#9A9A9A"
_ALPHA_CMAP = LinearSegmentedColormap.from_list("alpha", ["#D3EE9B", "#8CCB3F", "#3F9A2E", "#12602A", "#03260F"])
_LEAST_ALPHA, _MOST_ALPHA = -6.0, -2.0  # powers of ten between which colours change

_LAYER_STYLES = (("#000000", "-", "o"), ("#6E6E6E", "--", "s"), ("#A9A9A9", "-.", "^"), ("#454545", ":", "D"))

OUTCOME_COLORS = {"success": "#009988", "failure": "#CC3311", "timeout": "#8C8C8C", "unknown": "#C8C8C8"}
"""Colours of outcomes; teal, red and grey stay apart for colour-blind readers."""

CATEGORY_COLORS = ["#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#999933", "#882255", "#44AA99", "#AA4499"]
"""Colours of anything else (tasks, runs, subgoals): Paul Tol's "muted" scheme."""

ACTION_COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Colours of the seven actions: Paul Tol's "bright" scheme."""

_FONTS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")  # the first three have equal widths

BASE_FONT = 9.0
"""Size of the text of figures, in points, for which all inches and points of the layouts are meant."""

_POINTS = (
    *("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"),
    *("figure.titlesize", "xtick.major.size", "ytick.major.size", "xtick.major.pad", "ytick.major.pad"),
    *("axes.labelpad", "axes.titlepad"),
)

_RC: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titley": 1.0,  # looking for ticks above, of which there are none, takes a tenth of the time of drawing
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "figure.titlesize": 11.0,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.major.pad": 3.5,
    "ytick.major.pad": 3.5,
    "axes.labelpad": 4.0,
    "axes.titlepad": 6.0,
    "figure.dpi": 110.0,
    "savefig.dpi": 300.0,
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.5,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,  # text stays text that can be searched and edited
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "routing",
}


@dataclass(frozen=True)
class FigureSize:
    """How large figures are to be.

    Attributes:
        width: In inches; None for what suits each figure.
        font: Size of usual text, in points; titles and small print keep their proportion to it.
    """

    width: float | None = None
    font: float = BASE_FONT

    @property
    def scale(self) -> float:
        """Of everything that goes with the size of text."""
        return self.font / BASE_FONT


_SIZE: ContextVar[FigureSize] = ContextVar("figure_size", default=FigureSize())  # noqa: B039 (it is frozen)


@contextmanager
def figure_size(width: float | None = None, font: float | None = None) -> Iterator[None]:
    """Make the figures drawn within the block as wide as a column or page of a paper, with text of a size.

    Args:
        width: In inches, see `plotting.options.parse_width`; None for what is set already, at first what suits each
            figure.
        font: In points; None for what is set already, at first `BASE_FONT`.
    """
    before = current_size()
    token = _SIZE.set(FigureSize(before.width if width is None else width, before.font if font is None else font))
    try:
        yield
    finally:
        _SIZE.reset(token)


def current_size() -> FigureSize:
    """Return how large figures are to be here."""
    return _SIZE.get()


@contextmanager
def figure_style() -> Iterator[None]:
    """Set fonts, sizes and resolution for the figures made and saved within the block; nothing stays set after it.

    Figure functions of this package use it themselves.
    """
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in _FONTS if name in known]  # an absent one would be warned of at every text
    scaled = {name: current_size().scale * _RC[name] for name in _POINTS}
    with mpl.rc_context({**_RC, **scaled, "font.family": fonts}):
        yield


def save_figure(
    figure: Figure, path: str | Path, formats: Sequence[str] = ("png",), origin: Origin | None = None
) -> list[Path]:
    """Write a figure once per format and return the paths written; the figure stays open.

    Each file appears complete or not at all, missing folders are made. The same figure gives the same bytes.

    Args:
        figure: any figure.
        path: of the file; its ending, if it is a format that matplotlib writes, is replaced by each of `formats`, or
            stays as it is written (.PNG) where it is that one.
        formats: such as "png" (300 dpi), "pdf", "svg". With `path` ending in none of them its ending is one more.
        origin: What the files are to say of where the figure comes from; by default the version that drew it.

    Raises:
        ValueError: If matplotlib cannot write a format.
    """
    path = Path(path)
    supported = figure.canvas.get_supported_filetypes()
    for name in formats:
        if name.lower() not in supported:
            raise ValueError(f"formats: expected some of {', '.join(sorted(supported))}, found {name!r}")
    stem = path.with_suffix("") if path.suffix.lower().lstrip(".") in supported else path
    paths = []
    with figure_style():
        for name in formats:
            asked = path.suffix.lower() == f".{name.lower()}"
            target = path if asked else stem.with_name(f"{stem.name}.{name.lower()}")
            with replace_atomically(target) as temporary:
                metadata = format_metadata(origin or describe_origin(), name.lower(), stem.name) or None
                figure.savefig(temporary, format=name.lower(), dpi=_RC["savefig.dpi"], metadata=metadata)
            paths.append(target)
    return paths


def expert_hues(sizes: Sequence[int] | None, count: int) -> list[int]:
    """Return the place in `EXPERT_CMAPS` of each expert of a layer: by its kind, or by its index if sizes are unknown.

    Skip, the smallest and the largest size have hues of their own, sizes between them the others in order. A second
    expert of the same size takes a hue that no kind has; when they run out it is "other".

    Args:
        sizes: Hidden sizes of the layer's experts; None or empty for not known.
        count: Of experts.
    """
    if not sizes:
        return [min(expert, _OTHER_HUE) for expert in range(count)]
    distinct = sorted({size for size in sizes if size > 0})
    middle = iter((*_MIDDLE_HUES, *[_OTHER_HUE] * (len(sizes) + len(distinct))))
    hues = {0: SKIP_HUE}
    for rank, size in enumerate(distinct):
        hues[size] = SMALL_HUE if rank == 0 else LARGE_HUE if rank == len(distinct) - 1 else next(middle)
    sizes = list(sizes)
    return [hues[size] if size not in sizes[:place] else next(middle) for place, size in enumerate(sizes)]


def expert_cmap(hue: int) -> Colormap:
    """Return the colour map of an expert by its hue, see `expert_hues`."""
    return EXPERT_CMAPS[hue] if hue < len(EXPERT_CMAPS) else OTHER_CMAP


def expert_color(hue: int) -> str:
    """Return the saturated colour of an expert by its hue, see `expert_hues`."""
    return EXPERT_COLORS[hue] if hue < len(EXPERT_COLORS) else _OTHER_ENDS[2]


def expert_colors(sizes: Sequence[int] | None, count: int) -> list[str]:
    """Return the saturated colour of each expert of a layer; as `expert_hues`."""
    return [expert_color(hue) for hue in expert_hues(sizes, count)]


def alpha_color(alpha: float) -> str:
    """Return the colour of a price of complexity: grey for 0, else the darker green, the larger its logarithm.

    The same price has the same colour whichever others are in the figure.
    """
    if alpha <= 0:
        return _FREE_COLOR
    share = (log10(alpha) - _LEAST_ALPHA) / (_MOST_ALPHA - _LEAST_ALPHA)
    return to_hex(_ALPHA_CMAP(min(max(share, 0.0), 1.0)))


def layer_style(layer: int) -> tuple[str, str, str]:
    """Return colour, line style and marker of a layer, by its number; eight are told apart."""
    color, line, marker = _LAYER_STYLES[layer % len(_LAYER_STYLES)]
    return color, line, marker if layer < len(_LAYER_STYLES) else "x"


def expert_labels(sizes: Sequence[int]) -> list[str]:
    """Return names of a layer's experts, in their order: [0, 16, 32] gives skip, small (16), large (32).

    Up to three different sizes are small, medium and large, more are told by their number. Experts of equal size are
    numbered.
    """
    distinct = sorted({size for size in sizes if size > 0})
    words = {1: [""], 2: ["small", "large"], 3: ["small", "medium", "large"]}.get(len(distinct))
    names = {0: "skip"}
    for rank, size in enumerate(distinct):
        names[size] = f"{words[rank]} ({size})" if words and words[rank] else f"size {size}"
    sizes = list(sizes)
    numbers = [
        f" #{sizes[:place].count(size) + 1}" if sizes.count(size) > 1 else "" for place, size in enumerate(sizes)
    ]
    return [names[size] + number for size, number in zip(sizes, numbers, strict=True)]


def count_of(n: int, word: str = "run") -> str:
    """Return "1 run", "2 runs"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def layer_title(layer_name: str) -> str:
    """Return "Layer 0" for "layer_0"; layers are counted from 0, as in the files."""
    return layer_name.replace("_", " ").capitalize()


_RENDERER = RendererAgg(1, 1, 72)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text, in inches.

    Args:
        text: One line.
        size: Of the font, in points.
        weight: Of the font.
    """
    return _RENDERER.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)[0] / 72


def wrap_text(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Return a text in lines that fit into a figure of a width in inches; [] for no text. U+00A0 does not break."""
    room, gap = 0.97 * width - 0.12, text_width("n n", size, weight) - text_width("nn", size, weight)
    lines, end = [], 0.0
    for word in re.findall(r"[^ \n]+", text):
        wide = text_width(word, size, weight)
        if lines and end + gap + wide <= room:
            lines[-1] += f" {word}"
            end += gap + wide
        else:
            parts = textwrap.wrap(word, max(8, int(len(word) * room / wide))) if wide > room else [word]
            lines += parts
            end = text_width(parts[-1], size, weight)
    return lines
