"""A moment of an episode that stands for each group, so that its level can be shown."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from plotting.aggregate import group_routing_data
from plotting.data import as_routing_data


@dataclass(frozen=True)
class Example:
    """A moment of an episode that stands for a group.

    Attributes:
        key: Of the group.
        label: Its name.
        episode: Row of the episode table.
        level_seed: Of its level.
        mission: The instruction.
        actions: Taken before that moment, so that the level can be brought to it.
    """

    key: Hashable
    label: str
    episode: int
    level_seed: int
    mission: str
    actions: tuple[int, ...]


def find_examples(routing_data: Any, group_by: str, limit: int = 24) -> list[Example]:
    """Return for each group the first moment that belongs to it; groups whose level cannot be made again are left out.

    Args:
        routing_data: As for `as_routing_data`.
        group_by: As for `group_routing_data`.
        limit: At most so many groups.
    """
    data = as_routing_data(routing_data)
    groups = group_routing_data(data, group_by)
    examples = []
    for key, group in list(groups.items())[:limit]:
        episode, step = int(group.routing.episode[0]), int(group.routing.t_step[0])
        seed = int(group.episodes.level_seed[episode])
        actions = data.routing.action[data.routing.episode == episode][: max(step, 0)].tolist()
        if seed < 0 or step < 0 or len(actions) < step or min(actions, default=0) < 0:
            continue
        examples.append(
            Example(key, groups.labels[key], episode, seed, group.episodes.mission[episode], tuple(actions))
        )
    return examples
