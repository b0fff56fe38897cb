"""An episode made into a film: the level as it is played, and beside it what the router does."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from babyai.render import render_level, replay_frames
from film.episodes import FilmEpisode
from film.files import check_format, write_film
from film.frames import FilmCanvas

GRID_INCHES = 4.0
MAX_AUTO_TILE = 48


def choose_tile_size(task_id: str, level_seed: int, dpi: int) -> int:
    """Return the pixels per cell with which a level's longer side takes about `GRID_INCHES`."""
    cells = max(render_level(task_id, level_seed, tile_size=1).shape[:2])
    return max(4, min(MAX_AUTO_TILE * dpi // 100, int(GRID_INCHES * dpi / cells)))


def make_film(
    film: FilmEpisode, output: str | Path, *, fps: float = 4.0, tile_size: int | None = None, dpi: int = 100
) -> None:
    """Write an episode as a film of T + 1 steps, atomically; the last one stays for a while.

    Args:
        film: From `film.episodes`.
        output: A path that ends in .gif or .mp4.
        fps: Steps per second.
        tile_size: Pixels along each side of a cell; None for what fits.
        dpi: Pixels per inch of the charts and the text.

    Raises:
        ConfigError: If the format is none of these, or what writes it is not installed.
        OSError: If the file cannot be written.
    """
    check_format(output)
    tile_size = tile_size or choose_tile_size(film.task_id, film.level_seed, dpi)
    options = {"tile_size": tile_size, "highlight": True, "max_steps": film.max_steps}
    pictures = replay_frames(film.task_id, film.level_seed, film.actions, **options)
    # The first, a middle and the last frame tell which colours there are
    samples = sorted({0, len(film) // 2, len(film)})
    shown = [render_level(film.task_id, film.level_seed, actions=film.actions[:step], **options) for step in samples]
    canvas = FilmCanvas(film, shown[0].shape[:2], dpi=dpi)
    drawn = [canvas.draw(step, picture) for step, picture in zip(samples, shown, strict=True)]
    with tqdm(pictures, total=len(film) + 1, desc=Path(output).name, unit="frame", dynamic_ncols=True) as bar:
        frames = (canvas.draw(step, picture) for step, picture in enumerate(bar))
        write_film(output, frames, len(film) + 1, fps=fps, samples=drawn)
