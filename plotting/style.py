"""How all figures look: colours of experts and outcomes, fonts, sizes, and saving.

    with figure_style():
        figure = plot_overall_routing(cache)
        save_figure(figure, "plots/BabyAI-GoToObj-v0/trial_1/routing_heatmap.png", formats=("png", "pdf"))

Colours of experts. An expert is a hue, its routing weight the intensity. The eight were searched so that any two of
them stay apart for full colour vision and for protan, deutan and tritan vision (simulated after Machado et al. 2009,
IEEE TVCG 15:1291): the least distance in OKLab is 0.136 between saturated ends (0.20 among the first three, which most
policies use) and 0.070 between light ends (0.11 among the first three); 0.02 is about what one can just see. More than
eight cannot be told apart by colour: the ninth expert of a layer and all after it share one grey, "other".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from pipeline.command.files import replace_atomically

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
LPC_CMAP = "viridis"
DIFFERENCE_CMAP = "RdBu_r"
"""Of differences, white at 0."""

OUTCOME_COLORS = {"success": "#009988", "failure": "#CC3311", "timeout": "#8C8C8C", "unknown": "#C8C8C8"}
"""Colours of outcomes; teal, red and grey stay apart for colour-blind readers."""

CATEGORY_COLORS = ["#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#999933", "#882255", "#44AA99", "#AA4499"]
"""Colours of anything else (tasks, runs, subgoals): Paul Tol's "muted" scheme."""

ACTION_COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Colours of the seven actions: Paul Tol's "bright" scheme."""

_FONTS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")  # the first three have equal widths

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


@contextmanager
def figure_style() -> Iterator[None]:
    """Set fonts, sizes and resolution for the figures made and saved within the block; nothing stays set after it.

    Figure functions of this package use it themselves.
    """
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in _FONTS if name in known]  # an absent one would be warned of at every text
    with mpl.rc_context({**_RC, "font.family": fonts}):
        yield


def save_figure(figure: Figure, path: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write a figure once per format and return the paths written; the figure stays open.

    Each file appears complete or not at all, missing folders are made.

    Args:
        figure: any figure.
        path: of the file; its ending, if it is a format that matplotlib writes, is replaced by each of `formats`.
        formats: such as "png" (300 dpi), "pdf", "svg". With `path` ending in none of them its ending is one more.

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
            target = stem.with_name(f"{stem.name}.{name.lower()}")
            with replace_atomically(target) as temporary:
                metadata = {"CreationDate": None} if name.lower() == "pdf" else None  # same figure, same bytes
                figure.savefig(temporary, format=name.lower(), dpi=_RC["savefig.dpi"], metadata=metadata)
            paths.append(target)
    return paths


def expert_color(expert: int) -> str:
    """Return the saturated colour of an expert, by its index within the layer."""
    return EXPERT_COLORS[expert] if expert < len(EXPERT_COLORS) else _OTHER_ENDS[2]


def expert_cmap(expert: int) -> Colormap:
    """Return the colour map of an expert, by its index within the layer."""
    return EXPERT_CMAPS[expert] if expert < len(EXPERT_CMAPS) else OTHER_CMAP


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
