"""What is done for a level: the bot plays it, a policy is trained on it up to each budget, and evaluated there."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from babyai.level_seeds import EVALUATION_SEED, SeedList, evaluation_seeds
from babyai.vector_env import VectorEnv
from benchmarks.common import collect_machine_facts
from benchmarks.levels.records import CpuClock, Record, clock_path, mark_key, read_record, short_name, write_record
from benchmarks.levels.settings import LevelsSettings, budget_seconds
from pipeline.command.errors import UserError
from pipeline.command.provenance import find_commit, find_versions
from pipeline.command.workers import Link, Stopped
from pipeline.evaluation.checkpoint import evaluate_checkpoint, load_checkpoint
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.training.group import train_group
from pipeline.training.options import Sweep
from pipeline.training.plan import PlannedRun, plan_runs

PACKAGES = ("torch", "numpy", "numba", "minigrid")
KEPT = (
    *("success_rate", "success_low", "success_high", "num_episodes", "failures", "timeouts", "path_ratio"),
    *("path_ratio_n", "mean_lpc", "agreement", "bot_plan_failures"),
)
"""Metrics of an evaluation that a record keeps, of the most probable actions."""
KEPT_OF_SAMPLE = ("success_rate", "success_low", "success_high", "failures", "timeouts", "path_ratio", "mean_lpc")
"""Metrics that it keeps of actions that are drawn, as `sample_success_rate` and so on."""


class LevelError(UserError, RuntimeError):
    """A level that could not be measured; the message says why."""


# ------------------------------------------------------------------------------------------------------------ the bot


def measure_level_bot(link: Link, settings: LevelsSettings, task_id: str) -> None:
    """Let the bot play a level's evaluation levels and keep what it did, unless that is there."""
    record = read_record(settings, task_id)
    if record["bot"] is None:
        record["bot"] = measure_bot(task_id, settings.config.final_eval_episodes, settings.config.max_steps, link)
        write_record(settings, record)


def measure_bot(task_id: str, num_levels: int, max_steps: int | None, link: Link) -> dict[str, Any]:
    """Return what the bot does on the first evaluation levels of a task.

    `levels` it was given, `solved` of them within the step limit, and `mean_steps`, the mean length of the plans that
    solve one; None if none does.

    Args:
        task_id: Full id.
        num_levels: How many.
        max_steps: Step limit; None: each level's own.
        link: Asked at every step whether to stop.
    """
    seeds = SeedList(evaluation_seeds(EVALUATION_SEED, num_levels))
    env = VectorEnv(task_id, min(64, num_levels), seeds, max_steps=max_steps, plan_every=1)
    plans: list[int] = []
    step = env.reset()
    while step.active.any():
        link.heed()
        step = env.step(step.expert_action.clip(min=0))
        plans += [episode.expert_steps for episode in step.ended if episode.expert_steps is not None]
    return {"levels": num_levels, "solved": len(plans), "mean_steps": fmean(plans) if plans else None}


# --------------------------------------------------------------------------------------------------------- the policy


def train_level(link: Link, settings: LevelsSettings, task_id: str, minutes: float) -> None:
    """Train a level's policy up to a budget, from its last checkpoint on, evaluate it there, and keep the result.

    Args:
        link: Is told the seconds of processor time as they pass.
        settings: What is measured.
        task_id: Full id, of a level that the bot can solve.
        minutes: The budget.

    Raises:
        LevelError: If training fails, or has passed a budget without an evaluation.
        Stopped: If a stop is wished; the run is saved.
    """
    record = read_record(settings, task_id)
    path, seconds = train_until(link, settings, task_id, budget_seconds(minutes))
    record["marks"][mark_key(minutes)] = evaluate_mark(link, settings, task_id, path, minutes, seconds)
    write_record(settings, record)


def train_until(link: Link, settings: LevelsSettings, task_id: str, budget: float) -> tuple[Path, float]:
    """Train a level's policy until it has taken a budget of processor time, from its last checkpoint on.

    Args:
        link: See `train_level`.
        settings: What is measured.
        task_id: Full id.
        budget: Seconds.

    Returns:
        The checkpoint, and the seconds that it has taken.

    Raises:
        LevelError: If training fails, or is far past the budget already.
        Stopped: If a stop is wished; the run is saved.
    """
    with closing(CpuClock(clock_path(settings, task_id))) as clock:
        run = plan_run(settings, task_id)
        if clock.seconds_at(run.update) < budget:
            meter = CpuMeter(clock, link.report)
            train_group(Link(meter.note, lambda: link.stopping() or meter.seconds >= budget), [run])
            if meter.failure is not None:
                raise LevelError(f"{short_name(task_id)}: {meter.failure}")
            link.heed()
            run = plan_run(settings, task_id)
        seconds = clock.seconds_at(run.update)
    if run.checkpoint is None:
        raise Stopped
    if seconds > 1.1 * budget + 5.0:
        raise LevelError(
            f"{short_name(task_id)}: its run has {seconds / 120:.3g} minutes of two cores and no evaluation at "
            f"{budget / 120:.3g}; leave that budget out, or move {run.folder} away to train it anew"
        )
    return run.checkpoint, seconds


def plan_run(settings: LevelsSettings, task_id: str) -> PlannedRun:
    """Return a level's run, to go on from its newest checkpoint.

    Raises:
        RunFolderError: If its folder holds a run of other settings.
        CheckpointError: If its newest checkpoint is damaged.
    """
    (run,) = plan_runs(Sweep((settings.level_config(task_id),), single=True), resume=True, overwrite=False)
    return run


class CpuMeter:
    """Reads the processor time of a run off its reports, from the end of its first update in this process on.

    What comes before is compiling, reading and allocating; the one update is a gift.

    Args:
        clock: Keeps the time.
        tell: Called with the seconds that have passed since the last call.

    Attributes:
        seconds: Of processor time, those of the run's earlier parts included.
        failure: Why the run was given up; None if it was not.
    """

    def __init__(self, clock: CpuClock, tell: Callable[[float], object]) -> None:
        self._clock, self._tell = clock, tell
        self._since: float | None = None
        self._update = 0
        self.seconds = 0.0
        self.failure: str | None = None

    def note(self, report: tuple[str, Any]) -> None:
        """Take a report of training; see `pipeline.training.outputs.Report`."""
        kind, content = report
        if kind == "started":
            self._update = content[-1]
            self.seconds = self._clock.seconds_at(self._update)
        elif kind == "steps":
            self._update += 1
            now = time.process_time()
            if self._since is not None:
                self.seconds += now - self._since
                self._tell(now - self._since)
            self._since = now
        elif kind in ("figures", "saved"):
            self._clock.note(self._update, self.seconds)
        elif kind == "failed":
            self.failure = content[1]


def evaluate_mark(
    link: Link, settings: LevelsSettings, task_id: str, path: Path, minutes: float, seconds: float
) -> Record:
    """Return the results of a checkpoint on the fixed levels, greedily and with actions drawn, and what they depend on.

    Args:
        link: Asked whether to stop.
        settings: What is measured.
        task_id: Full id.
        path: The checkpoint.
        minutes: Budget, of two cores.
        seconds: Of processor time that it has taken.

    Raises:
        Stopped: If a stop is wished before the end.
    """
    checkpoint = load_checkpoint(path)
    how = EvaluationSettings(num_episodes=settings.config.final_eval_episodes, num_envs=64, device="cpu")
    metrics, drawn = (
        evaluate_checkpoint(checkpoint, task_id, each, record=False, progress=link.heed).metrics
        for each in (how, dataclasses.replace(how, eval_actions="sample"))
    )
    config = checkpoint.config
    return {
        "minutes": minutes,
        "cpu_seconds": round(seconds, 1),
        "updates": checkpoint.update,
        "env_steps": checkpoint.update * config.num_envs * config.unroll_len,
        **{name: metrics[name] for name in KEPT},
        **{f"sample_{name}": drawn[name] for name in KEPT_OF_SAMPLE},
        "checkpoint": path.relative_to(settings.out).as_posix(),
        "digest": checkpoint.digest,
        "seed": config.seed,
        "lang_encoder": config.lang_encoder,
        "commit": find_commit(12),
        "versions": {"python": platform.python_version(), **find_versions(PACKAGES)},
        "cpu": collect_machine_facts()["cpu"],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }
