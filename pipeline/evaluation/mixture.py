"""A policy of many levels evaluated on each: the same fixed seeds for every level, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import TrainConfig
from pipeline.evaluation.play import Agent, Evaluation, PlaySettings, Progress, evaluate_task_many
from pipeline.mixtures import short_level
from pipeline.policies import fix_level
from pipeline.records.metrics import compute_metrics
from pipeline.records.tables import EpisodeTable


def evaluate_levels(
    agents: Sequence[Agent],
    config: TrainConfig,
    num_episodes: int,
    settings: PlaySettings,
    *,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Return what each agent does on the first `num_episodes` levels of each task that it was trained on.

    Of several tasks the metrics are those of all episodes together, of which each task has as many, so that their
    success is the mean over tasks; `by_level` has those of each task. No steps are recorded.

    Args:
        agents: Policies of one architecture, see `evaluate_many`.
        config: Their settings, with the full ids of the tasks.
        num_episodes: Levels of each task.
        settings: How they are played.
        progress: Called with the number of episodes that have just ended.
    """
    found = []
    for level in config.levels:
        fixed = [(fix_level(policy, config, level), encoder, projection) for policy, encoder, projection in agents]
        found.append(evaluate_task_many(fixed, level, num_episodes, settings, progress=progress))
    if len(found) == 1:
        return found[0]
    return [_join(config.levels, evaluations) for evaluations in zip(*found, strict=True)]


def _join(levels: Sequence[str], evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return one agent's evaluations on several tasks as one."""
    episodes = EpisodeTable.concatenate([evaluation.episodes for evaluation in evaluations])
    failures = sum(evaluation.metrics["bot_plan_failures"] for evaluation in evaluations)
    by_level = {short_level(level): found.metrics for level, found in zip(levels, evaluations, strict=True)}
    return Evaluation(compute_metrics(episodes, bot_plan_failures=failures), episodes, None, by_level=by_level)
