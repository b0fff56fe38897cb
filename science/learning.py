"""How soon a run has learned its level, told by the episodes that ended while it learned.

Episodes that succeed end sooner than those that are cut at the step limit. The first that end, of many environments
that began together, are therefore successes, whoever acts; and again when those that were cut have all begun anew. What
is counted are all episodes that end within a stretch that is as long as the longest episode, after a first such stretch
in which every environment has had time for one: 288 steps of 208 environments are 59,904 env-steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from pipeline.command.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import TrainConfig

VERSION = 2
"""Of what is kept of a run; raised whenever that changes, so that it is read anew."""
SAMPLED = 50
"""Levels whose step limits are looked at where a task's own hold: they depend on the mission."""

Line = tuple[int, int, float]
"""Env-steps, episodes that have ended by then, and the share of successes among the last of them."""


def read_learning(config: TrainConfig) -> list[Line]:
    """Return what the metrics of a run with these settings say of how it learned; nothing where it has left none.

    Raises:
        TrackingError: If they are damaged.
    """
    from pipeline.places import run_folder
    from pipeline.tracking import METRICS_FILE, read_metrics

    return [
        (int(row["env_steps"]), int(row["rollout/episodes_total"]), float(row["rollout/success_rate"] or 0.0))
        for row in read_metrics(run_folder(config.log_dir, config) / METRICS_FILE)
        if "rollout/episodes_total" in row
    ]


def find_learned(lines: Sequence[Line], success: float, *, whole: int, window: int) -> tuple[float, bool]:
    """Return the env-steps after which a run acts with a success, and whether it did as soon as that could be told.

    That is the first line at which a stretch begins, of at least `whole` env-steps and `window` episodes, of which so
    many succeed. A line tells of the episodes that ended since the one before; where these are more than `window`, of
    the last of them. Infinity where there is no such stretch within the lines.

    Args:
        lines: Of `read_learning`.
        success: Share of episodes.
        whole: Env-steps within which every environment has time for an episode of full length, see `find_whole`;
            earlier stretches do not count.
        window: Episodes.
    """
    steps = [0, *(line[0] for line in lines)]
    ended, succeeded = [0], [0.0]
    for _, now, share in lines:
        succeeded.append(succeeded[-1] + (now - ended[-1]) * share)
        ended.append(now)
    first = last = None
    for start, since in enumerate(steps[:-1]):
        if since < whole:
            continue
        first = start if first is None else first
        last = max(start + 1, last or 0)
        while last < len(steps) and (steps[last] - since < whole or ended[last] - ended[start] < window):
            last += 1
        if last == len(steps):
            break
        if succeeded[last] - succeeded[start] >= success * (ended[last] - ended[start]):
            return float(steps[start + 1]), start == first
    return float("inf"), False


def find_whole(config: TrainConfig) -> int:
    """Return the env-steps within which every environment of a run has time for an episode of full length."""
    return config.num_envs * _limit(config)


def check_time(setting: str, configs: Iterable[TrainConfig]) -> None:
    """Refuse runs of which it cannot be told whether they have learned their level.

    They are too short, or the expert acts in the episodes that would tell it.

    Args:
        setting: Whose they are, for words.
        configs: Of the runs, each of one level.

    Raises:
        ConfigError: If there is one.
    """
    for config in configs:
        if config.expert_action_prob > 0:
            raise ConfigError(
                f"{setting}: expected train.expert_action_prob 0, for episodes tell when a level is learned, and the "
                f"expert would act in them, found {config.expert_action_prob:g}; leave it out, or leave {setting} out"
            )
        limit = _limit(config)
        fewest = 2 * -(-limit // config.unroll_len)
        if config.num_updates < fewest:
            raise ConfigError(
                f"{setting}: num_updates: expected at least {fewest} for {config.task_id}, whose episodes take up to "
                f"{limit} steps (all that end in as many, after as many before, tell whether it is learned), found "
                f"{config.num_updates}"
            )


def _limit(config: TrainConfig) -> int:
    return find_step_limit(str(config.task_id)) if config.max_steps is None else config.max_steps


@cache
def find_step_limit(task_id: str) -> int:
    """Return the largest step limit among the first levels of a task.

    Args:
        task_id: Full id.

    Raises:
        LevelError: If its generator makes no valid level of one of them.
    """
    from babyai.levels import build_env

    env, limits = build_env(task_id), []
    for seed in range(SAMPLED):
        env.reset(seed=seed)
        limits.append(int(env.max_steps))
    return max(limits)
