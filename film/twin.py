"""Two episodes of one level as one film, one above the other, the first step at which they part marked.

    make_twin(intact, changed, "twin.gif")

What two policies, or one policy before and after an intervention, make of the same level: until the actions differ for
the first time both see the same. The shorter one stays at its end until the other has ended too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb

from babyai.render import render_level, replay_frames
from film.episodes import FilmEpisode
from film.files import check_format, write_film
from film.frames import FilmCanvas
from film.make import choose_tile_size
from plotting.style import WARNING_COLOR

_BAND = 6
"""Pixels of the band between the two, which is red from the step on at which they part."""


def find_parting(one: FilmEpisode, other: FilmEpisode) -> int | None:
    """Return the first step at which the actions differ, or at which one has ended; None: they are alike."""
    shared = min(len(one), len(other))
    different = np.flatnonzero(one.actions[:shared] != other.actions[:shared])
    if len(different):
        return int(different[0])
    return None if len(one) == len(other) else shared


def make_twin(
    one: FilmEpisode, other: FilmEpisode, output: str | Path, *, fps: float = 4.0, dpi: int = 80, most: int = 120
) -> None:
    """Write two episodes of one level as a film, atomically.

    Args:
        one: Above.
        other: Below.
        output: A path that ends in .gif or .mp4.
        fps: Steps per second.
        dpi: Pixels per inch.
        most: Steps shown; what comes after is left out.

    Raises:
        ValueError: If they are not of one level.
        ConfigError: If the format is none of these, or what writes it is not installed.
        OSError: If the file cannot be written.
    """
    check_format(output)
    if (one.task_id, one.level_seed) != (other.task_id, other.level_seed):
        raise ValueError(f"twin: expected one level, found {one.level_seed} and {other.level_seed}")
    count = min(most, max(len(one), len(other))) + 1
    parting = find_parting(one, other)
    tile = choose_tile_size(one.task_id, one.level_seed, dpi)
    samples = [_stack([_still(e, step, tile, dpi) for e in (one, other)], True) for step in (0, count - 1)]
    halves = [_play(episode, tile, dpi, count) for episode in (one, other)]
    frames = (
        _stack(pair, parting is not None and step >= parting) for step, pair in enumerate(zip(*halves, strict=True))
    )
    write_film(output, frames, count, fps=fps, samples=samples)


def _play(episode: FilmEpisode, tile: int, dpi: int, count: int) -> Iterator[np.ndarray]:
    """Yield an episode's frames, the last one again until there are so many."""
    options = {"tile_size": tile, "highlight": True, "max_steps": episode.max_steps}
    canvas, frame = None, None
    pictures = iter(replay_frames(episode.task_id, episode.level_seed, episode.actions, **options))
    for step in range(count):
        picture = next(pictures, None)
        if picture is not None:
            canvas = canvas or FilmCanvas(episode, picture.shape[:2], dpi=dpi)
            frame = canvas.draw(step, picture)
        yield frame


def _still(episode: FilmEpisode, step: int, tile: int, dpi: int) -> np.ndarray:
    step = min(step, len(episode))
    options = {"tile_size": tile, "highlight": True, "max_steps": episode.max_steps}
    picture = render_level(episode.task_id, episode.level_seed, actions=episode.actions[:step], **options)
    return FilmCanvas(episode, picture.shape[:2], dpi=dpi).draw(step, picture)


def _stack(pair: tuple[np.ndarray, ...] | list[np.ndarray], parted: bool) -> np.ndarray:
    """Return two frames, one above the other, as even numbers of pixels."""
    width = max(frame.shape[1] for frame in pair)
    parts = [np.pad(f, ((0, 0), (0, width - f.shape[1]), (0, 0)), constant_values=255) for f in pair]
    color = [round(255 * part) for part in to_rgb(WARNING_COLOR)] if parted else [220, 220, 220]
    band = np.broadcast_to(np.array(color, np.uint8), (_BAND, width, 3))
    return np.concatenate([parts[0], band, parts[1]])
