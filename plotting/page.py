"""Figures as HTML that holds all it shows, for notebooks and for pages to keep.

    mo.Html(show_figure(figure, "routing_heatmap"))
    write_page("routing.html", "Routing", [show_table(frame), show_figure(figure, "routing_heatmap")])

Nothing is fetched, from a server or from elsewhere: marimo's own pictures and interactive figures are files of the
session that drew them first, and gone for everybody when it ends.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline.command.files import write_text
from plotting.style import figure_style

_PIXELS_PER_INCH = 200  # sharp when zoomed, and on fine screens
_SHOWN_PER_INCH = 170  # at most, so that what is small does not grow to the size of a poster
_CONTROLS_PIXELS = 72  # a line; two where it is narrow

# A picture is as wide as its column. A click shows it pixel by pixel, and the column scrolls; no script is needed.
# marimo's editor scrolls what is higher than 610 pixels: pictures are not.
_FIGURE_STYLE = """
.figure { display: block; width: 100%; margin: 0; overflow-x: auto; background: white; }
.figure input { position: absolute; opacity: 0; pointer-events: none; }
.figure img { display: block; width: 100%; height: auto; margin: 0; cursor: zoom-in; }
.figure input:checked + img { width: auto; max-width: none !important; cursor: zoom-out; }
.output-area:has(.figure) { max-height: none !important; }
.figure input:focus-visible + img { outline: 2px solid #0B4FD1; outline-offset: -2px; }
"""
_PAGE_STYLE = """
body { max-width: 1200px; margin: 0 auto; padding: 24px; background: white; color: #1A1A1A;
       font: 16px/1.5 system-ui, "Liberation Sans", Arial, sans-serif; overflow-wrap: break-word; }
h1 { margin: 0 0 8px; } body > * { margin-bottom: 24px; }
"""


def show_figure(figure: Figure, name: str) -> str:
    """Return a figure as HTML: laid out as in the saved file, as wide as its column; a click zooms in and out.

    Args:
        figure: Any.
        name: Of its file; said to those who do not see the picture.
    """
    content = io.BytesIO()
    with figure_style():
        quick = {"compress_level": 1}  # nobody keeps it
        figure.savefig(content, format="png", dpi=_PIXELS_PER_INCH, pil_kwargs=quick)
    return show_picture(content.getvalue(), name.replace("_", " "), figure.get_figwidth())


def show_picture(content: bytes, words: str, inches: float) -> str:
    """Return a PNG as HTML, as wide as its column; a click zooms in and out.

    Args:
        content: Of the file.
        words: Said to those who do not see it.
        inches: Its width on paper, which bounds that on a screen.
    """
    source = data_url(content, "image/png")
    words = html.escape(words, quote=True)
    most = round(inches * _SHOWN_PER_INCH)
    return (
        f'<style>{_FIGURE_STYLE}</style><label class="figure"><input type="checkbox" aria-label="zoom: {words}">'
        f'<img src="{source}" alt="{words}" title="click to zoom in and out" style="max-width: {most}px"></label>'
    )


def data_url(content: bytes, kind: str) -> str:
    """Return bytes of a MIME type as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def show_player(page: str, size: tuple[int, int]) -> str:
    """Return a page with scripts of its own as HTML, as wide as its column.

    Args:
        page: HTML, such as that of `film.player.Player`.
        size: (width, height) of what it shows below its line of controls.
    """
    width, height = size
    return (
        f'<div style="position: relative; width: 100%; padding-top: calc({height / width:.4%} + {_CONTROLS_PIXELS}px)">'
        f'<iframe srcdoc="{html.escape(page, quote=True)}" sandbox="allow-scripts" title="film of an episode" '
        'style="position: absolute; inset: 0; width: 100%; height: 100%; border: 0"></iframe></div>'
    )


def show_table(table: pd.DataFrame) -> str:
    """Return a table as HTML; where it is wider than its column it scrolls."""
    style = "text-align: left; vertical-align: top; padding: 4px 24px 4px 0; border-bottom: 1px solid #D9D9D9"
    rows = [("th", table.columns), *(("td", row) for row in table.itertuples(index=False))]
    lines = [
        "".join(f'<{tag} style="{style}">{html.escape("" if pd.isna(cell) else str(cell))}</{tag}>' for cell in cells)
        for tag, cells in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div style="overflow-x: auto"><table style="border-collapse: collapse">{body}</table></div>'


def show_heading(text: str, below: str = "") -> str:
    """Return a heading as HTML, and smaller text below it."""
    small = f'<p style="margin: 0; color: #444; overflow-wrap: anywhere">{html.escape(below)}</p>' if below else ""
    return f'<h2 style="margin: 24px 0 4px; font-size: 1.25em; font-weight: 600">{html.escape(text)}</h2>{small}'


def show_caption(text: str) -> str:
    """Return what stands below a picture as HTML."""
    return f'<p style="margin: 4px 0 16px; color: #444; font-size: 0.9em">{html.escape(text)}</p>'


def show_folded(title: str, part: str) -> str:
    """Return HTML that is shown when its title is clicked."""
    summary = f'<summary style="cursor: pointer">{html.escape(title)}</summary>'
    return f'<details style="margin: 4px 0">{summary}{part}</details>'


def show_note(text: str) -> str:
    """Return what is missing and why as HTML, framed."""
    style = "padding: 12px 16px; border: 1px solid #DBBA68; border-radius: 6px; background: #FFF8E1; color: #1A1A1A"
    return f'<div style="{style}">{html.escape(text)}</div>'


def write_page(path: str | Path, title: str, parts: Iterable[str]) -> Path:
    """Write HTML that a browser shows from its file, without a server and without a network; return where it is.

    Args:
        path: Of the file.
        title: Of the page.
        parts: Pieces of HTML, from the functions above.

    Raises:
        OSError: If the file cannot be written; nothing of it is left.
    """
    title = html.escape(title)
    write_text(
        Path(path),
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_PAGE_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n",
    )
    return Path(path)
