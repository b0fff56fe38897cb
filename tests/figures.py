"""What tests ask of a figure: what is written in it, and whether anything is cut off or lies on something else."""

import itertools

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plotting.groupings import GROUPINGS
from plotting.views import list_views

VIEWS = (
    *GROUPINGS,
    *("episode", "events", "weights", "entropy", "paths", "actions", "distances", "specialisation"),
    *("elapsed", "actions_by_carrying", "association"),
)
"""Views of a cache that follow a given width and have their numbers as a table."""


def known_views(data) -> list[str]:
    """Return those of `VIEWS` that data supports."""
    return [view for view in list_views(data) if view in VIEWS]


def texts(figure: Figure) -> list[str]:
    """Return all that is written in a figure."""
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def visible_text(ax) -> str:
    """Return all that can be read in the figure of an Axes, a line for each text."""
    return "\n".join(
        " ".join(text.get_text().split()) for text in ax.figure.findobj(mpl.text.Text) if text.get_visible()
    )


def layout_problems(figure: Figure) -> list:
    """Return texts that stick out of the figure or lie on other texts."""
    outside, boxes = texts_outside(figure), text_boxes(figure)
    crossing = [
        (s, t) for (s, a), (t, b) in itertools.combinations(boxes, 2) if _common(a, b) > 0.1 * min(_size(a), _size(b))
    ]
    return outside + crossing


def texts_outside(figure: Figure) -> list[str]:
    """Return texts that stick out of the figure."""
    right, top = figure.bbox.x1 + 1, figure.bbox.y1 + 1
    return [t for t, b in text_boxes(figure) if min(b.x0, b.y0) < -1 or b.x1 > right or b.y1 > top]


def text_boxes(figure: Figure) -> list[tuple]:
    """Return the texts that are shown, each with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    beyond = set()  # labels of ticks beyond the ends of an axis, which are not drawn
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    shown = [t for t in figure.findobj(mpl.text.Text) if t.get_text().strip() and t.get_visible() and t not in beyond]
    boxes = []
    for text in shown:
        box = text.get_window_extent(renderer)
        if box.width > 0 and not (text.axes is not None and not text.axes.axison and text.axes.get_legend() is None):
            boxes.append((text.get_text(), box))
    return boxes


def _size(box) -> float:
    return box.width * box.height


def _common(a, b) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0) * max(height, 0)
