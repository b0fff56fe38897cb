"""Mixtures of levels against their levels alone: rows of `benchmarks.training`.

A mixture of L levels has as many environments in all as each single level has. It would take, per step, the mean of
what its levels take alone; `ratio` is that over what it takes. All take turns in every round, so that what else the
machine does meets them alike, and the ratio is the median of the rounds' ratios, by processor time and by the clock.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import time_call
from pipeline.config import TrainConfig
from pipeline.mixtures import short_level
from pipeline.training import loop
from pipeline.training.batch import ReplicaBatch

LEVELS = "GoToRedBallNoDists GoToObj PickupLoc OpenDoor GoToLocal PutNextLocal UnlockPickup GoToObjMazeS4R2".split()
"""Levels of six kinds of missions, small and large."""


@dataclass(frozen=True)
class MixtureRate:
    """A mixture and its levels alone, with the expert's actions.

    Attributes:
        levels: Full ids.
        num_envs: Environments in all, of the mixture and of each level alone.
        env_steps_per_cpu_second: Of the mixture, median over rounds.
        alone_per_cpu_second: Of its levels alone, each taking as many steps.
        ratio: Of the two rates, by processor time.
        ratio_by_the_clock: The same in wall-clock time.
    """

    levels: list[str]
    num_envs: int
    env_steps_per_cpu_second: float
    alone_per_cpu_second: float
    ratio: float
    ratio_by_the_clock: float


def measure_mixtures(
    args: argparse.Namespace, levels: Sequence[str], configure: Callable[[dict[str, Any]], TrainConfig]
) -> list[MixtureRate]:
    """Return the rates of mixtures of the first 2, 4, 8, ... levels, and of all of them.

    Args:
        args: Settings of the benchmark.
        levels: Full ids, at least two.
        configure: Returns the settings of a run from fields.
    """
    sizes = [size for size in (2, 4, 8, 16, 32) if size < min(len(levels), args.num_envs)]
    sizes.append(min(len(levels), args.num_envs))
    fields = {"expert_action_prob": 1.0, "lr": 1e-12}
    alone = [_start(configure({**fields, "task_id": level}), args) for level in levels[: sizes[-1]]]
    mixed = [
        _start(configure({**fields, "task_id": list(levels[:size]), "mixture": f"first{size}"}), args) for size in sizes
    ]
    _, wall, _ = time_call(lambda: loop.run_update(alone[0]))
    updates = max(2, round(args.seconds / args.rounds / max(wall, 1e-6)))
    rounds = []
    for _ in range(args.rounds):
        times = [time_call(lambda b=batch: [loop.run_update(b) for _ in range(updates)])[1:] for batch in alone + mixed]
        rounds.append(times)
    steps = updates * args.num_envs * args.unroll_len
    return [_compare(args, levels[:size], rounds, len(alone), place, steps) for place, size in enumerate(sizes)]


def _start(config: TrainConfig, args: argparse.Namespace) -> ReplicaBatch:
    """Return a run whose episodes are no longer in step with each other."""
    batch = ReplicaBatch([config], announce=lambda line: None)
    for _ in range(args.warmup):
        loop.run_update(batch)
    return batch


def _compare(
    args: argparse.Namespace,
    levels: Sequence[str],
    rounds: Sequence[Sequence[tuple[float, float]]],
    singles: int,
    place: int,
    steps: int,
) -> MixtureRate:
    by_clock, by_cpu = [], []
    for times in rounds:
        ours = times[singles + place]
        by_clock.append(statistics.fmean(wall for wall, _ in times[: len(levels)]) / ours[0])
        by_cpu.append(statistics.fmean(cpu for _, cpu in times[: len(levels)]) / ours[1])
    return MixtureRate(
        levels=list(levels),
        num_envs=args.num_envs,
        env_steps_per_cpu_second=statistics.median(steps / times[singles + place][1] for times in rounds),
        alone_per_cpu_second=statistics.median(
            steps / statistics.fmean(cpu for _, cpu in times[: len(levels)]) for times in rounds
        ),
        ratio=statistics.median(by_cpu),
        ratio_by_the_clock=statistics.median(by_clock),
    )


MIXTURE_COLUMNS = (
    ("levels", lambda row: f"{len(row.levels)}: {', '.join(short_level(level) for level in row.levels[:3])}, ..."
     if len(row.levels) > 3 else f"{len(row.levels)}: {', '.join(map(short_level, row.levels))}"),
    ("environments", "num_envs"),
    ("per CPU second", "env_steps_per_cpu_second:,.0f"),
    ("levels alone", "alone_per_cpu_second:,.0f"),
    ("ratio", "ratio:.2f"),
    ("by the clock", "ratio_by_the_clock:.2f"),
)  # fmt: skip
