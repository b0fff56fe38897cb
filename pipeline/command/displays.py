"""Drawing into files, whatever display there is or is not."""

from __future__ import annotations

import os


def draw_without_display() -> None:
    """Let matplotlib draw without a display; to be called before it is imported.

    What Jupyter and Colab set for their own processes, MPLBACKEND, is inherited by all that is started from them. Where
    the backend that it names is not installed, importing matplotlib fails.
    """
    os.environ["MPLBACKEND"] = "agg"
