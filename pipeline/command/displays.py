"""Drawing into files, whatever display there is or is not, and pages in a browser where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def draw_without_display() -> None:
    """Let matplotlib draw without a display; to be called before it is imported.

    What Jupyter and Colab set for their own processes, MPLBACKEND, is inherited by all that is started from them. Where
    the backend that it names is not installed, importing matplotlib fails.
    """
    os.environ["MPLBACKEND"] = "agg"


def has_display() -> bool:
    """Return whether somebody sits before this machine's screen: a terminal, a display, and no line from elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("win32", "darwin") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def open_page(path: Path) -> bool:
    """Show an HTML file in the browser if there is one to see it in; return whether it was opened."""
    if not has_display():
        return False
    import webbrowser

    try:
        return webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        return False
