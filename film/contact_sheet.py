"""Draw a contact sheet of a task's levels: many small pictures, with seed and mission under each.

python -m film.contact_sheet --task_id GoToObjMazeS4R2 --num_levels 12 --output sheet.png
python -m film.contact_sheet --task_id UnlockPickup --evaluated --output sheet.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.command.cli import parse_command
from pipeline.command.displays import draw_without_display
from pipeline.command.folders import check_file
from pipeline.command.shell import as_command
from pipeline.config import ConfigError

FORMATS = (".png", ".pdf", ".svg")
MAX_LEVELS = 200


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


def run(settings: SheetSettings, *, task_id: str, output: str, evaluated: bool) -> None:
    """Draw the levels that are asked for and write the sheet."""
    draw_without_display()
    from tqdm import tqdm  # here: --help is told without minigrid and matplotlib

    from babyai.level_seeds import EVALUATION_SEED, evaluation_seeds
    from babyai.levels import resolve_task_id
    from babyai.render import level_mission, render_level
    from film.sheet import draw_sheet
    from plotting.style import save_figure

    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output {output}: expected a path that ends in {', '.join(FORMATS)}")
    check_file("--output", path)
    task_id = resolve_task_id(task_id)
    if evaluated and settings.first_seed:
        raise ConfigError("--first_seed: expected none with --evaluated, whose levels are fixed; leave one of them out")
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
    print(f"{written}: {len(seeds)} level{'s' if len(seeds) != 1 else ''}")


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
