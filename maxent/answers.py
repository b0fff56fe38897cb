"""What is done before and after one search: a prompt made to fit, labels read, answers scored, a line about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maxent.data.prompts import fit_prompt, parse_answer, read_line
from maxent.data.sample import Dataset, Sample
from maxent.dts_implementation.search.maxent_ts import Parse
from maxent.dts_implementation.search.result import SearchResult
from maxent.evaluation.metrics.intervals import Interval, bootstrap_mean
from maxent.evaluation.metrics.task_metrics import score_answers


def fit_sample(
    sample: Sample, count: Callable[[str], int], context: int | None, max_tokens: int
) -> tuple[Sample, str | None]:
    """Return a sample whose prompt leaves room for an answer, and what was done to it; see `fit_prompt`.

    A prompt without a series stays as it is: the search cuts answers where the model has no more room.
    """
    if context is None or not sample.series.size:
        return sample, None
    return fit_prompt(sample, count, context - max_tokens)


def build_parse(dataset: Dataset) -> Parse | None:
    """Return what reads the label of an answer; None for captions and episodes, which have none."""
    task = dataset.splits["test"][0].task
    if task in ("caption", "episode"):
        return None
    if task in ("sum", "story"):
        return read_line
    return lambda text: parse_answer(text, dataset.labels)


def score_run(run: Mapping[str, Any], samples: Sequence[Sample], dataset: Dataset) -> dict[str, Interval]:
    """Return how good the answers of a run are: what their task is measured by; of episodes, how many are solved.

    Args:
        run: Its part of the results.
        samples: That were asked, in order.
        dataset: Where they are from.
    """
    answers = [sample["rollouts"][sample["answer"]["rollout"] - 1] for sample in run["samples"]]
    if samples[0].task != "episode":
        return score_answers(samples, [answer["text"] for answer in answers], dataset.labels)
    solved = [answer["parts"]["solved"] for answer in answers if "solved" in answer["parts"]]
    return {"solved": bootstrap_mean(solved)} if solved else {}


def describe_progress(method: str, index: int, num_samples: int, result: SearchResult) -> str:
    """Return a line on a sample that is done."""
    steps = measure_rises(result)
    cost, count = result.cost, len(result.rollouts)
    fed = cost.new + cost.reused
    rate = cost.new / cost.seconds if cost.seconds else 0.0
    reuse = cost.reused / fed if fed else 0.0
    return (
        f"  {method}, sample {index + 1}/{num_samples}: best reward {result.rewards.max():.4f}, monotonicity {steps}, "
        f"{count} rollout{'s' * (count != 1)}, {len(result.tree) - 1} nodes, {cost.seconds:.2f} s, "
        f"{cost.new} new token{'s' * (cost.new != 1)} ({rate:.0f}/s, {reuse:.0%} reused)"
    )


def measure_rises(result: SearchResult) -> str:
    """Return the share of steps on which rewards rise, in words."""
    rewards = result.rewards
    return f"{(np.diff(rewards) > 0).mean():.0%}" if len(rewards) > 1 else "-"
