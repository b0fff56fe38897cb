"""Pictures of recorded episodes for a notebook: a level for each group, and an episode step by step.

pictures, problems = render_examples(cache, find_examples(cache, "starting_room"))
player = EpisodePlayer(cache, episode=7)
picture = player.draw(step=3)                # the grid, and beside it the routing weights up to then
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from babyai.errors import LevelError
from babyai.render import render_level, replay_frames
from pipeline.records.cache import Cache
from plotting.browsing import Example

SCENE_ERRORS = (LevelError, ValueError)  # FilmError is a ValueError
"""What is raised if a level cannot be made again, or the recorded actions do not fit it."""

_PICTURE_PIXELS = 240  # as large as pictures are in figures; minigrid takes 10 ms to draw each kind of 32-pixel tile
_DPI = 100


def render_examples(cache: Cache, examples: Iterable[Example]) -> tuple[dict[Hashable, np.ndarray], list[str]]:
    """Return a picture of each group's example by the group's key, and why others have none.

    Args:
        cache: That the examples are of.
        examples: From `plotting.browsing.find_examples`.
    """
    pictures, problems = {}, []
    task_id, limit = cache.header.get("task_id"), cache.header.get("max_steps")
    if not isinstance(task_id, str):
        return {}, ["the cache does not tell its task"]
    for example in examples:
        grid = cache.episodes.env_context[example.episode].get("grid_size") or [8, 8]
        tile_size = max(6, min(24, _PICTURE_PIXELS // max(grid)))
        options = {"actions": example.actions, "tile_size": tile_size, "max_steps": limit}
        try:
            pictures[example.key] = render_level(task_id, example.level_seed, **options)
        except SCENE_ERRORS as error:
            problems.append(f"{example.label}: {error}")
    return pictures, problems


class EpisodePlayer:
    """An episode of a cache, any step of which can be drawn.

    Attributes:
        steps: T, its length; steps 0..T can be drawn.
    """

    def __init__(self, cache: Cache, episode: int) -> None:
        """Play the episode once.

        Args:
            cache: From `read_cache`.
            episode: Row of its episodes.

        Raises:
            Exception: One of `SCENE_ERRORS`.
        """
        # Only here: a notebook opens sooner without what films need
        from film.episodes import film_cached
        from film.frames import FilmCanvas
        from film.make import choose_tile_size

        film = film_cached(cache, episode)
        tile_size = choose_tile_size(film.task_id, film.level_seed, _DPI)
        options = {"tile_size": tile_size, "highlight": True, "max_steps": film.max_steps}
        self._pictures = list(replay_frames(film.task_id, film.level_seed, film.actions, **options))
        self._canvas = FilmCanvas(film, self._pictures[0].shape[:2], dpi=_DPI)
        self.steps = len(film)

    def draw(self, step: int) -> np.ndarray:
        """Return the frame of a step, uint8 (H, W, 3); steps outside 0..T are moved to its ends."""
        step = min(max(step, 0), self.steps)
        return self._canvas.draw(step, self._pictures[step])
