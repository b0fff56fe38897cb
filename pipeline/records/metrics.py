"""Metrics of played episodes, in plain numbers. Needs no torch, minigrid or files.

compute_metrics(episodes, bot_plan_failures=0)["success_rate"]     # of an `EpisodeTable`
window = EpisodeWindow(100)                                        # or of the last episodes while training
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from babyai.facts import FAILURE, OUTCOME_NAMES, SUCCESS, TIMEOUT
from pipeline.mixtures import MACRO_MEAN
from pipeline.records.intervals import wilson_interval
from pipeline.records.tables import EpisodeTable


class EpisodeWindow:
    """The last `size` ended episodes, and their rates over how many there really are.

    Attributes:
        total: episodes added since the beginning, those no longer kept included.
    """

    def __init__(self, size: int):
        """Start empty.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            raise ValueError(f"expected a window of at least 1 episode, found {size}")
        self.total = 0
        self._episodes: deque[tuple[int, int, int | None]] = deque(maxlen=size)

    def __len__(self) -> int:
        """Return how many episodes are kept, at most `size`."""
        return len(self._episodes)

    def add(self, outcome: int, steps: int, expert_steps: int | None = None) -> None:
        """Add an ended episode.

        Args:
            outcome: `SUCCESS`, `FAILURE` or `TIMEOUT`.
            steps: the episode's length, at least 1.
            expert_steps: length of an expert's plan that solves the same level, at least 1; None when unknown.

        Raises:
            ValueError: a value outside its range.
        """
        if outcome not in (SUCCESS, FAILURE, TIMEOUT):
            raise ValueError(f"expected outcome 1 (success), 2 (failure) or 3 (timeout), found {outcome}")
        if steps < 1 or (expert_steps is not None and expert_steps < 1):
            raise ValueError(f"expected episodes of at least 1 step, found {steps} (expert {expert_steps})")
        self._episodes.append((int(outcome), int(steps), None if expert_steps is None else int(expert_steps)))
        self.total += 1

    def skip(self) -> None:
        """Count an ended episode that tells nothing of the policy, since another acted too."""
        self.total += 1

    def summary(self) -> dict[str, float | int | None]:
        """Return the `rollout/` metrics of the window, by their keys in `pipeline.tracking.METRICS`.

        Rates and means are None while there is nothing to take them over.
        """
        n = len(self._episodes)
        outcomes = [outcome for outcome, _, _ in self._episodes]
        ratios = [
            steps / expert_steps
            for outcome, steps, expert_steps in self._episodes
            if outcome == SUCCESS and expert_steps is not None
        ]
        return {
            "rollout/success_rate": outcomes.count(SUCCESS) / n if n else None,
            "rollout/failure_rate": outcomes.count(FAILURE) / n if n else None,
            "rollout/timeout_rate": outcomes.count(TIMEOUT) / n if n else None,
            "rollout/window_episodes": n,
            "rollout/path_ratio": fmean(ratios) if ratios else None,
            "rollout/path_ratio_episodes": len(ratios),
            "rollout/episodes_total": self.total,
            "rollout/episode_steps": fmean(steps for _, steps, _ in self._episodes) if n else None,
        }

    def state(self) -> list:
        """Return what `load` needs, in plain types: [total, [outcome, steps, expert_steps], ...]."""
        return [self.total, *(list(episode) for episode in self._episodes)]

    def load(self, state: Sequence) -> None:
        """Continue from a `state`; a smaller window keeps the latest episodes.

        Raises:
            ValueError: `state` is not what `state()` returns.
        """
        if not state or not isinstance(state[0], int) or state[0] < len(state) - 1:
            raise ValueError(f"expected [total, [outcome, steps, expert_steps], ...], found {list(state)[:3]!r}")
        self._episodes.clear()
        for outcome, steps, expert_steps in state[1:]:
            self.add(outcome, steps, expert_steps)
        self.total = state[0]


# ----------------------------------------------------------------------------------------------------------- metrics


def compute_metrics(episodes: EpisodeTable, *, bot_plan_failures: int | None) -> dict[str, float | int | None]:
    """Return the metrics of an evaluation in plain types; None where there is nothing to take one over.

    Success is outcome `SUCCESS`, its interval Wilson's at 95 %. `path_ratio` is the mean of steps / expert's steps over
    successful episodes whose `expert_steps` is known, `path_ratio_n` of them. `mean_lpc` and
    `mean_lpc_{success,failure,timeout}` are means over time steps, `mean_lpc_per_episode` a mean of episodes' means.
    `agreement` is the share of the steps labelled by the expert at which the policy did the same. If an outcome (or
    length, or LPC) is not known for every episode, what depends on it is None.

    Args:
        episodes: all episodes played.
        bot_plan_failures: levels that the expert could not solve and that were replaced.
    """
    n = len(episodes)
    known = bool(n) and bool((episodes.outcome > 0).all())
    counts = {code: int((episodes.outcome == code).sum()) if known or not n else None for code in OUTCOME_NAMES}
    successes = counts[SUCCESS]
    low, high = wilson_interval(successes, n) if known else (None, None)
    timed = (episodes.outcome == SUCCESS) & (episodes.expert_steps > 0) & (episodes.steps > 0)
    ratios = (episodes.steps[timed] / episodes.expert_steps[timed]).tolist()
    has_steps = bool((episodes.steps > 0).all())
    has_lpc = bool(n) and has_steps and bool(np.isfinite(episodes.mean_lpc).all())
    by_outcome = {code: _mean_lpc(episodes, episodes.outcome == code) if has_lpc and known else None for code in counts}
    labelled = int(episodes.labelled.sum()) if bool((episodes.labelled >= 0).all()) else None
    total_steps = int(episodes.steps.sum()) if has_steps else None
    return {
        "success_rate": successes / n if known else None,
        "successes": successes,
        "num_episodes": n,
        "success_low": low,
        "success_high": high,
        "failures": counts[FAILURE],
        "timeouts": counts[TIMEOUT],
        "path_ratio": fmean(ratios) if ratios else None,
        "path_ratio_median": float(median(ratios)) if ratios else None,
        "path_ratio_n": len(ratios),
        "mean_lpc": _mean_lpc(episodes, np.ones(n, bool)) if has_lpc else None,
        "mean_lpc_per_episode": fmean(episodes.mean_lpc.tolist()) if has_lpc else None,
        "mean_lpc_success": by_outcome[SUCCESS],
        "mean_lpc_failure": by_outcome[FAILURE],
        "mean_lpc_timeout": by_outcome[TIMEOUT],
        "agreement": int(episodes.agreed.sum()) / labelled if labelled else None,
        "labelled_steps": labelled,
        "mean_steps": total_steps / n if n and total_steps is not None else None,
        "total_steps": total_steps,
        "bot_plan_failures": None if bot_plan_failures is None else int(bot_plan_failures),
    }


def describe_metrics(metrics: dict[str, float | int | None]) -> str:
    """Return the figures one looks at first, as one line of text."""
    rate = metrics["success_rate"]
    if rate is None:
        return "no level that the expert can solve"
    parts = [
        f"{metrics['num_episodes']} levels, success {rate:.1%} "
        f"(95% interval {metrics['success_low']:.1%} to {metrics['success_high']:.1%})"
    ]
    if metrics["path_ratio"] is not None:
        parts.append(f"path ratio {metrics['path_ratio']:.2f}")
    if metrics["mean_lpc"] is not None:
        parts.append(f"mean LPC {metrics['mean_lpc']:.0f}")
    return ", ".join([*parts, *describe_replaced(metrics)])


def describe_replaced(metrics: Mapping[str, Any]) -> list[str]:
    """Return that levels were replaced and how many, as one text; none if no level was, or if that is not known."""
    replaced = metrics.get("bot_plan_failures")
    if not replaced:
        return []
    return [f"replaced {replaced} of {metrics['num_episodes'] + replaced} levels, which the bot cannot solve"]


def _mean_lpc(episodes: EpisodeTable, rows: np.ndarray) -> float | None:
    """Return the mean LPC over the steps of some episodes, None if there are none."""
    steps = episodes.steps[rows].tolist()
    if not steps:
        return None
    means = episodes.mean_lpc[rows].tolist()
    # The exact sum, so that the order of the episodes does not show in the last bit.
    return math.fsum(mean * count for mean, count in zip(means, steps, strict=True)) / sum(steps)


def choose_episode(episodes: EpisodeTable, steps: np.ndarray | None = None) -> int:
    """Return the row of a typical episode: a success of median length, or if there is none, any of median length.

    Of an even number the shorter of the two in the middle; equally long ones keep their order.

    Args:
        episodes: To choose from.
        steps: (n,), lengths other than `episodes.steps`, such as those of what was recorded; 0 is not to be chosen.

    Raises:
        ValueError: If there is no episode.
    """
    lengths = episodes.steps if steps is None else np.asarray(steps)
    rows = np.arange(len(episodes)) if steps is None else np.flatnonzero(lengths > 0)
    if not len(rows):
        raise ValueError("expected at least one episode with steps, found none")
    successes = rows[episodes.outcome[rows] == SUCCESS]
    rows = successes if len(successes) else rows
    by_length = rows[np.argsort(lengths[rows], kind="stable")]
    return int(by_length[(len(by_length) - 1) // 2])


def spread(name: str, levels: Sequence[str], values: Sequence[float | int | None]) -> dict[str, float | int | None]:
    """Return a metric of each level of a mixture, and of the mean over them: `train/lpc/GoToObj`, `.../macro_mean`.

    The mean is None if it is not known of every level: without a level it would be another mean.

    Args:
        name: Of the metric.
        levels: Names of the levels.
        values: Of each.
    """
    found = {f"{name}/{level}": value for level, value in zip(levels, values, strict=True)}
    known = all(value is not None for value in values)
    return {**found, f"{name}/{MACRO_MEAN}": fmean(values) if known and values else None}


EVALUATION_METRICS = {
    "eval/success_rate": "success_rate",
    "eval/success_low": "success_low",
    "eval/success_high": "success_high",
    "eval/episodes": "num_episodes",
    "eval/mean_lpc": "mean_lpc",
    "eval/path_ratio": "path_ratio",
    "eval/mean_steps": "mean_steps",
}
"""Logged metrics and the names under which an evaluation has them."""


MACRO_MEANS = ("eval/success_rate", "eval/mean_lpc", "eval/path_ratio")
"""Metrics of an evaluation that are also averaged over the levels of a mixture."""


def evaluation_metrics(
    metrics: Mapping[str, Any], by_level: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, float | int | None]:
    """Return the `eval/...` metrics of an evaluation.

    Args:
        metrics: Of all its episodes.
        by_level: Those of each level of a mixture, by its name in metrics.
    """
    found = {key: metrics[name] for key, name in EVALUATION_METRICS.items()}
    for key, name in EVALUATION_METRICS.items():
        if by_level:
            of_levels = spread(key, list(by_level), [level[name] for level in by_level.values()])
            found |= {k: v for k, v in of_levels.items() if key in MACRO_MEANS or not k.endswith(f"/{MACRO_MEAN}")}
    return found
