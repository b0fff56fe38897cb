"""One policy on many levels: environments shared out, and what of a step's level the loss and logs need.

A single level has none of this: all that is by level is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from babyai.level_seeds import SeedStreams
from babyai.vector_env import VectorEnv
from pipeline.config import TrainConfig
from pipeline.mixtures import count_slots, short_level
from pipeline.records.metrics import EpisodeWindow, spread
from pipeline.training.losses import StepLevels

_OF_WINDOWS = ("success_rate", "window_episodes", "path_ratio", "episodes_total")
_AVERAGED = ("success_rate", "path_ratio")


def slots_of(config: TrainConfig) -> list[int]:
    """Return how many environments each level has."""
    return count_slots(config.task_weights or [1.0] * len(config.levels), config.num_envs)


def solo_slots(config: TrainConfig) -> np.ndarray | None:
    """Return in which environments the student acts alone, bool (num_envs,), spread over each level's; None: nowhere.

    None is also said where it acts alone everywhere, for want of an expert that acts.
    """
    if config.expert_action_prob == 0 or config.solo_env_share == 0:
        return None
    solo = np.zeros(config.num_envs, dtype=bool)
    first = 0
    for count in slots_of(config):
        number = min(count - 1, max(1, round(config.solo_env_share * count)))
        solo[first + np.arange(number) * count // max(number, 1)] = True
        first += count
    return solo


def describe_slots(config: TrainConfig) -> str:
    """Return how many environments each level has, in words."""
    pairs = zip(config.levels, slots_of(config), strict=True)
    return ", ".join(f"{short_level(level)} {slots}" for level, slots in pairs)


def describe_unaided(config: TrainConfig) -> str:
    """Return of which levels nobody can tell how the student does alone, for want of a second environment; or ""."""
    if not config.expert_action_prob or not config.solo_env_share:
        return ""
    pairs = zip(config.levels, slots_of(config), strict=True)
    found = [short_level(level) for level, slots in pairs if slots < 2]
    return (
        ""
        if not found
        else (
            f"success while training is not known of {', '.join(found)}: in the one environment the bot acts too; with "
            "more num_envs, or solo_env_share 0 (success of both together), it is"
        )
    )


def build_env(config: TrainConfig) -> VectorEnv:
    """Return the environment of a run, its levels with full ids: each of several has slots and seeds of its own."""
    slots = slots_of(config)
    keys = config.levels if len(slots) > 1 else [None]
    seeds = [SeedStreams(config.seed, count, key) for count, key in zip(slots, keys, strict=True)]
    options = {"max_steps": config.max_steps, "plan_every": config.plan_every, "threads": config.torch_threads}
    return VectorEnv(config.levels, slots, seeds, **options)


@dataclass(frozen=True)
class Levels:
    """Which level is played in which environment of a run.

    Attributes:
        names: Of the levels, as metrics have them; none for a single level.
        slots: How many environments each has.
        index: Of each environment, the number of its level; empty for a single level.
    """

    names: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    index: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, config: TrainConfig) -> Levels:
        """Return those of a run."""
        if len(config.levels) == 1:
            return cls()
        slots = slots_of(config)
        index = tuple(level for level, count in enumerate(slots) for _ in range(count))
        return cls(tuple(map(short_level, config.levels)), tuple(slots), index)

    def told(self, config: TrainConfig) -> Tensor | None:
        """Return what the policy is told of each environment's level, one-hot (N, levels); None: nothing."""
        if config.task_input == "none":
            return None
        index = torch.tensor(self.index or [0] * config.num_envs)
        return torch.nn.functional.one_hot(index, len(config.levels)).float()

    def of_steps(self, unroll_len: int, groups: int, device: torch.device) -> StepLevels | None:
        """Return the levels of an unroll's steps, in the order of `Rollout.expert_action`; None for a single level."""
        if not self.names:
            return None
        index = torch.tensor(self.index).view(groups, 1, -1).expand(-1, unroll_len, -1).flatten()
        member = index == torch.arange(len(self.names)).unsqueeze(1)
        shares = torch.tensor(self.slots, dtype=torch.float32) / sum(self.slots)
        return StepLevels(member.to(device), shares.to(device))

    def summary(self, windows: Sequence[EpisodeWindow], env: VectorEnv) -> dict[str, Any]:
        """Return the `rollout/` metrics of each level, by their keys in `pipeline.tracking.METRICS`."""
        if not self.names:
            return {}
        rows = [window.summary() for window in windows]
        found: dict[str, Any] = {}
        for name in _OF_WINDOWS:
            of_levels = spread(f"rollout/{name}", self.names, [row[f"rollout/{name}"] for row in rows])
            if name not in _AVERAGED:
                of_levels.popitem()
            found |= of_levels
        for name, part in zip(self.names, env.parts, strict=True):
            found[f"rollout/unsolvable_levels/{name}"] = part.counters["levels_unsolvable"]
        return found

    def state(self, windows: Sequence[EpisodeWindow]) -> dict[str, Any]:
        """Return what resuming needs of the levels' windows; nothing for a single level."""
        return {"level_windows": [window.state() for window in windows]} if self.names else {}
