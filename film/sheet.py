"""A contact sheet: many small pictures of levels as one figure, with seed and mission under each."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plotting.style import figure_style, text_width

# Inches
_MARGIN, _GAP, _LINE_HEIGHT, _TITLE_HEIGHT = 0.2, 0.22, 0.145, 0.34
_NARROW, _WIDE = 1.7, 2.8

_TITLE = {"size": 11.5, "weight": "bold"}


@figure_style()
def draw_sheet(
    task_id: str, pictures: Sequence[np.ndarray], captions: Sequence[tuple[int, str]], *, columns: int | None = None
) -> Figure:
    """Return a contact sheet as a figure.

    Args:
        task_id: For the title.
        pictures: Of equal shape, uint8 (H, W, 3).
        captions: (seed, mission) of each.
        columns: Pictures side by side; None for a sheet a little wider than high.
    """
    height, width = pictures[0].shape[:2]
    picture_width = min(_WIDE, max(_NARROW, _NARROW * width / height))
    picture_height = picture_width * height / width
    missions = [textwrap.wrap(mission, int(picture_width * 15.5)) for _, mission in captions]
    below = _LINE_HEIGHT * (1 + max(map(len, missions))) + 0.1
    cell = (picture_width + _GAP, picture_height + below + _GAP / 2)
    if columns is None:
        wanted = math.ceil(math.sqrt(1.3 * len(pictures) * cell[1] / cell[0]))
        # One more or one less, if that leaves fewer places empty
        columns = min((wanted, wanted + 1, max(1, wanted - 1)), key=lambda count: -len(pictures) % count)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    broad = max(columns * cell[0] - _GAP, text_width(task_id, **_TITLE))  # a single column is narrower than some names
    page = (2 * _MARGIN + broad, 2 * _MARGIN + _TITLE_HEIGHT + rows * cell[1] - _GAP / 2)
    figure = Figure(figsize=page)
    FigureCanvasAgg(figure)
    figure.text(_MARGIN / page[0], 1 - _MARGIN / page[1], task_id, **_TITLE, va="top")
    for k, (picture, (seed, _), lines) in enumerate(zip(pictures, captions, missions, strict=True)):
        left = _MARGIN + k % columns * cell[0]
        top = page[1] - _MARGIN - _TITLE_HEIGHT - k // columns * cell[1]
        place = (left, top - picture_height, picture_width, picture_height)
        ax = figure.add_axes([inches / page[i % 2] for i, inches in enumerate(place)])
        ax.imshow(picture, aspect="auto")
        ax.set_axis_off()
        x, y = left / page[0], (top - picture_height - 0.06) / page[1]
        figure.text(x, y, f"seed {seed}", fontsize=8, color="#6B6B6B", va="top")
        figure.text(x, y - _LINE_HEIGHT / page[1], "\n".join(lines), fontsize=8.5, va="top", linespacing=1.15)
    return figure
