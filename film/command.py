"""The command line of films: an episode as GIF or MP4: the level as it is played, and beside it what the router does.

    python -m film --checkpoint checkpoints/.../checkpoint_final.pt --output film.gif
    python -m film --cache evaluation_cache/.../routing_data.json --episode 7 --output film.mp4
    python -m film --task_id UnlockPickup --level_seed 3 --output bot.gif

With --checkpoint the policy plays; with --cache an episode is shown that was played before, a typical success unless
you name one; with neither the bot plays. GIF files are read everywhere, MP4 files are smaller (pip install
imageio-ffmpeg).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.displays import draw_without_display
from pipeline.command.shell import as_command
from pipeline.config import ConfigError

if TYPE_CHECKING:
    from film.episodes import FilmEpisode
    from pipeline.records.cache import Cache


@dataclass(frozen=True)
class FilmSettings:
    """What is filmed, and how.

    Attributes:
        episode: Row of the cache's episodes, from 0; null for a typical success.
        level_seed: Level to play; null for the first that is evaluated.
        max_steps: Steps after which the episode is cut; null for what the checkpoint was trained with.
        fps: Steps per second.
        tile_size: Pixels along each side of a cell; null for what fits.
        dpi: Pixels per inch of the charts and the text.
        lang_encoder: Folder or id to load the sentence encoder from instead of the recorded one (same weights).
    """

    episode: int | None = None
    level_seed: int | None = None
    max_steps: int | None = None
    fps: float = 4.0
    tile_size: int | None = None
    dpi: int = 100
    lang_encoder: str | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, low, high in (("fps", 0.1, 50), ("dpi", 50, 400), ("tile_size", 4, 128)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, found {value}")
        check_numbers(self, 0, "episode", "level_seed")
        check_numbers(self, 1, "max_steps")


@as_command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    options = {
        "output": "The film: a path that ends in .gif or .mp4.",
        "checkpoint": "A .pt file: its policy plays.",
        "cache": "A routing_data.json: an episode that was played before.",
        "task_id": "BabyAI task. Without checkpoint and cache the bot plays it.",
    }
    settings, values = parse_command(
        "Film an episode and what the router does.", FilmSettings, argv, options=options, required=["output"]
    )
    run(settings, **values)


def run(settings: FilmSettings, *, output: str, checkpoint: str | None, cache: str | None, task_id: str | None) -> None:
    """Find the episode that is asked for and film it."""
    draw_without_display()
    from film.episodes import film_bot, film_checkpoint  # here: --help is told without minigrid and matplotlib
    from film.files import check_format
    from film.make import make_film
    from pipeline.records.cache import read_cache

    check_format(output)
    if checkpoint is not None and cache is not None:
        raise ConfigError("expected --checkpoint or --cache, found both")
    if checkpoint is None and cache is None and task_id is None:
        raise ConfigError("expected --checkpoint, --cache or --task_id, found none; --help explains them")
    if cache is None and settings.episode is not None:
        raise ConfigError("--episode: expected a --cache that it is a row of, found none")
    if cache is not None and (settings.level_seed is not None or settings.max_steps is not None):
        raise ConfigError("--level_seed and --max_steps: the cache tells them; choose its --episode")
    if checkpoint is None and settings.lang_encoder is not None:
        raise ConfigError("--lang_encoder: expected a --checkpoint that reads sentences with it, found none")
    if checkpoint is not None:
        options = {"max_steps": settings.max_steps, "lang_encoder": settings.lang_encoder}
        film = film_checkpoint(checkpoint, task_id, settings.level_seed, **options)
    elif cache is not None:
        film = _film_of_cache(read_cache(cache), settings.episode, task_id)
    else:
        film = film_bot(task_id, settings.level_seed, max_steps=settings.max_steps)
    make_film(film, output, fps=settings.fps, tile_size=settings.tile_size, dpi=settings.dpi)
    print(f"{output}: {film.mission!r}, level seed {film.level_seed}, {film.outcome} after {len(film)} steps")


def _film_of_cache(cache: Cache, episode: int | None, task_id: str | None) -> FilmEpisode:
    from babyai.facts import SUCCESS
    from film.episodes import FilmError, film_cached
    from pipeline.records.metrics import choose_episode

    if episode is None:
        if not len(cache.episodes):
            raise FilmError(f"{cache.path}: expected at least one episode, found none")
        episode = choose_episode(cache.episodes)
        kind = "a success" if cache.episodes.outcome[episode] == SUCCESS else "no success is there, so an episode"
        print(f"episode {episode}: {kind} of median length ({cache.episodes.steps[episode]} steps)")
    return film_cached(cache, episode, task_id)
