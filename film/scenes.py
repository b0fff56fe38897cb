"""Pictures of recorded levels for a notebook: one for each group.

pictures, problems = render_examples(cache, find_examples(cache, "starting_room"))
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from babyai.errors import LevelError
from babyai.render import render_level
from pipeline.records.cache import Cache, played_level
from plotting.examples import Example

SCENE_ERRORS = (LevelError, ValueError)  # FilmError is a ValueError
"""What is raised if a level cannot be made again, or the recorded actions do not fit it."""

_PICTURE_PIXELS = 240  # as large as pictures are in figures; minigrid takes 10 ms to draw each kind of 32-pixel tile


def render_examples(cache: Cache, examples: Iterable[Example]) -> tuple[dict[Hashable, np.ndarray], list[str]]:
    """Return a picture of each group's example by the group's key, and why others have none.

    Args:
        cache: That the examples are of.
        examples: From `plotting.examples.find_examples`.
    """
    pictures, problems = {}, []
    task_id, limit = played_level(cache.header), cache.header.get("max_steps")
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
