"""BabyAI policies that plan in their environment, on levels that no training sees."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from babyai.level_seeds import evaluation_seeds
from benchmarks.maxent_study.asked import Asked, Question
from benchmarks.maxent_study.settings import StudySettings
from maxent.dts_implementation.models.babyai_policy import load_babyai_policy
from maxent.rewards.episode import EpisodeReward
from pipeline.command.errors import ConfigError

LEVELS = 1000
"""Seed of the first policy's levels; `babyai.level_seeds.EVALUATION_SEED` is 0."""

_SEED = re.compile(r"seed_(\d+)")


def find_policies(pattern: str) -> dict[int, str]:
    """Return number -> checkpoint, numbered by the seed in its path, or by its place.

    Args:
        pattern: One or several with commas between, `*` for anything.

    Raises:
        ConfigError: If there is none.
    """
    paths = sorted(path for one in pattern.split(",") for path in glob.glob(one.strip(), recursive=True))
    if not paths:
        raise ConfigError(f"policies: expected checkpoints, found none at {pattern}; train_mop.py makes some")
    seeds = [int(found[-1]) if (found := _SEED.findall(path)) else None for path in paths]
    distinct = None not in seeds and len(set(seeds)) == len(seeds)
    return dict(zip(seeds if distinct else range(len(paths)), paths, strict=True))


def open_policy(settings: StudySettings, path: str, seed: int) -> Asked:
    """Return a policy with levels of evaluation of its own, others than those on which policies are evaluated."""
    model = load_babyai_policy(path)
    questions = [
        Question(f"level-{level}", level, EpisodeReward(model.play), lambda rollout: rollout.parts["solved"])
        for level in evaluation_seeds(LEVELS + seed, settings.num_samples)
    ]
    return Asked(model, {"babyai": questions}, {"task": model.task_id, "checkpoint": Path(path).name})
