"""What tests of analyses and of whole studies share."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imsave

from plotting import style
from science.synthetic import Design, draw_template
from science.traces import Traces


@pytest.fixture(scope="module")
def template() -> Traces:
    """Eight runs of forty episodes in which nothing is planted yet."""
    return draw_template(Design(runs=8, episodes=40), np.random.default_rng(0))


@pytest.fixture
def plain_pictures(monkeypatch):
    """Let every figure be saved as one gray dot: saving them is half of what so small a study takes."""
    dot = io.BytesIO()
    imsave(dot, np.full((1, 1, 3), 127, np.uint8))

    def save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        paths = [path.with_suffix(f".{name}") for name in formats]
        for each in paths:
            each.write_bytes(dot.getvalue())
        return paths

    monkeypatch.setattr(style, "save_figure", save)
