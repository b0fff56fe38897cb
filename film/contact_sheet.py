"""Draw a contact sheet of a task's levels: many small pictures, with seed and mission under each.

python -m film.contact_sheet --task_id GoToObjMazeS4R2 --num_levels 12 --output sheet.png
python -m film.contact_sheet --task_id UnlockPickup --evaluated --output sheet.pdf
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from babyai.level_seeds import EVALUATION_SEED, evaluation_seeds
from babyai.levels import resolve_task_id
from babyai.render import level_mission, render_level
from pipeline.command.cli import parse_command
from pipeline.command.shell import as_command
from pipeline.config import ConfigError
from plotting.style import figure_style, save_figure

FORMATS = (".png", ".pdf", ".svg")
MAX_LEVELS = 200

# Inches
_MARGIN, _GAP, _LINE_HEIGHT, _TITLE_HEIGHT = 0.2, 0.22, 0.145, 0.34
_NARROW, _WIDE = 1.7, 2.8


@dataclass(frozen=True)
class SheetSettings:
    """Which levels are drawn, and how.

    Attributes:
        num_levels: How many.
        first_seed: Seed of the first level; those that follow have the next ones.
        columns: Pictures side by side; null for a sheet a little wider than high.
        tile_size: Pixels along each side of a cell; null for what suits the print.
    """

    num_levels: int = 12
    first_seed: int = 0
    columns: int | None = None
    tile_size: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        limits = {"num_levels": (1, MAX_LEVELS), "first_seed": (0, 2**62), "columns": (1, 50), "tile_size": (4, 128)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, found {value}")


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
    page = (2 * _MARGIN + columns * cell[0] - _GAP, 2 * _MARGIN + _TITLE_HEIGHT + rows * cell[1] - _GAP / 2)
    figure = Figure(figsize=page)
    FigureCanvasAgg(figure)
    figure.text(_MARGIN / page[0], 1 - _MARGIN / page[1], task_id, fontsize=11.5, weight="bold", va="top")
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


def run(settings: SheetSettings, *, task_id: str, output: str, evaluated: bool) -> None:
    """Draw the levels that are asked for and write the sheet."""
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output {output}: expected a path that ends in {', '.join(FORMATS)}")
    if path.is_dir():
        raise ConfigError(f"--output {output}: expected a file, found a folder")
    task_id = resolve_task_id(task_id)
    if evaluated:
        seeds = evaluation_seeds(EVALUATION_SEED, settings.num_levels)
    else:
        seeds = list(range(settings.first_seed, settings.first_seed + settings.num_levels))
    tile_size = settings.tile_size
    if tile_size is None:  # sharp at 300 dpi, and no larger than needed: each kind of tile takes time to draw
        tile_size = max(8, min(32, 600 // max(render_level(task_id, seeds[0], tile_size=1).shape[:2])))
    pictures, captions = [], []
    for seed in tqdm(seeds, desc=task_id, unit="level", dynamic_ncols=True):
        pictures.append(render_level(task_id, seed, tile_size=tile_size))
        captions.append((seed, level_mission(task_id, seed)))
    figure = draw_sheet(task_id, pictures, captions, columns=settings.columns)
    (written,) = save_figure(figure, path, formats=(path.suffix[1:],))
    print(f"{written}: {len(seeds)} levels")


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    options = {
        "task_id": "BabyAI task, e.g. GoToObj.",
        "output": "The sheet: a path that ends in .png, .pdf or .svg.",
    }
    settings, values = parse_command(
        "Draw a contact sheet of a task's levels.",
        SheetSettings,
        argv,
        options=options,
        switches={"evaluated": "The levels of the evaluation instead of those from first_seed on."},
        required=["task_id", "output"],
    )
    run(settings, **values)


if __name__ == "__main__":
    sys.exit(main())
