"""What figures call experts, and how they mark them: by the sizes in an expert's own layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.lines import Line2D

from plotting.style import expert_colors, expert_labels

LAYER_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
"""Of points of each layer."""

Sizes = Sequence[Sequence[int]]
"""Hidden sizes of the experts, per layer."""


def short_labels(sizes: Sequence[int]) -> list[str]:
    """Return short names of a layer's experts: skip, small, large; or their sizes: 16, 16 #2."""
    return [re.sub(r" \(\d+\)|^size ", "", name) for name in expert_labels(sizes)]


def are_alike(sizes: Sizes) -> bool:
    """Return whether all layers have experts of the same sizes in the same order."""
    return len({tuple(layer) for layer in sizes}) <= 1


def name_columns(sizes: Sizes) -> list[str]:
    """Return names of the columns of a map of layers by experts: short names, or numbers where layers differ."""
    return short_labels(sizes[0]) if are_alike(sizes) else [str(n) for n in range(max(map(len, sizes)))]


def name_layers(sizes: Sizes, between: str) -> list[str]:
    """Return names of the layers, where they differ with the sizes of their experts after `between`."""
    of_each = ["" if are_alike(sizes) else between + ", ".join(map(str, layer)) for layer in sizes]
    return [f"layer {number}{text}" for number, text in enumerate(of_each)]


def style_of(layer: int, expert: int, sizes: Sizes) -> dict[str, str]:
    """Return colour and marker of an expert's points: the colour is that of its size in its layer."""
    marker = LAYER_MARKERS[layer % len(LAYER_MARKERS)]
    return {"color": expert_colors(sizes[layer], len(sizes[layer]))[expert], "marker": marker}


def name_colors(sizes: Sizes) -> list[tuple[str, str]]:
    """Return colours of experts, each with its name.

    Where layers differ, a colour may stand for another size in each: it has all of their names.
    """
    if are_alike(sizes):
        return list(zip(expert_colors(sizes[0], len(sizes[0])), expert_labels(sizes[0]), strict=True))
    of_color: dict[str, dict[str, None]] = {}
    for layer in sizes:
        for color, name in zip(expert_colors(layer, len(layer)), expert_labels(layer), strict=True):
            of_color.setdefault(color, {})[name] = None
    return [(color, " / ".join(found)) for color, found in of_color.items()]


def list_handles(sizes: Sizes) -> list[Line2D]:
    """Return a legend's entries of points: colours with their experts, markers with their layers.

    Where layers differ, colours have several names, see `name_colors`, and layers their sizes.
    """
    handles = [Line2D([], [], color=color, label=name, ls="", marker="o", ms=4) for color, name in name_colors(sizes)]
    layers = zip(name_layers(sizes, ": "), LAYER_MARKERS, strict=False)
    return handles + [Line2D([], [], ls="", color="0.4", marker=mark, ms=4, label=name) for name, mark in layers]
