"""The driver of training: the plan, its runs as work for one process or several, and the words at the end."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.command.devices import resolve_device
from pipeline.command.interruption import Interruption
from pipeline.command.workers import Event, WorkItem, do_items
from pipeline.config import ConfigError, TrainConfig
from pipeline.places import checkpoint_path
from pipeline.tracking import import_wandb
from pipeline.training.folders import read_final_evaluation
from pipeline.training.loop import evaluation_metrics
from pipeline.training.mapping import mapping_lines, sweep_path
from pipeline.training.options import Sweep, default_replicas
from pipeline.training.plan import PlannedRun, group_runs, plan_runs
from pipeline.training.progress import Key, Progress, name_runs
from pipeline.training.summary import alpha_lines, run_lines
from pipeline.training.work import clear_runs, train_group


def train_runs(sweep: Sweep, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train the runs of a call to their end, or to an interruption; return the exit code.

    0: all done. 1: some runs failed; the others are done. 128 + signal: interrupted, everything saved.

    Args:
        sweep: The runs.
        resume: Continue those that are begun.
        overwrite: Delete what is there of exactly these runs.

    Raises:
        RunFolderError: If a folder holds another run, a run is begun and neither switch is given, another process
            trains one, or a folder cannot be written.
    """
    runs = plan_runs(sweep, resume=resume, overwrite=overwrite)
    pending = [run for run in runs if not run.complete]
    most_jobs = count_jobs(sweep.configs[0]) if sweep.jobs is None else sweep.jobs
    jobs = max(1, min(most_jobs, len(pending)))
    groups = group_runs(pending, min(choose_replicas(sweep), math.ceil(len(pending) / jobs)))
    if not sweep.single:
        print("\n".join(mapping_lines(runs)))
        if sweep.jobs is None and jobs > 1:
            print(f"{jobs} processes share the runs; --jobs changes that")
    progress = Progress(runs, sweep.single)
    try:
        if overwrite:
            clear_runs(groups, progress.report)
        signal_number = _train_groups(groups, jobs, progress)
    finally:
        progress.close()
    if not sweep.single:
        _print_results(runs, progress)
    for why in dict.fromkeys(progress.failed.values()):
        keys = [key for key, reason in progress.failed.items() if reason == why]
        print(f"failed: {why}" if sweep.single else f"failed: {name_runs(keys)}: {why}", file=sys.stderr)
    if signal_number is not None and progress.is_cut_short():
        print(progress.describe_interruption())
        return 128 + signal_number
    if progress.failed:
        return 1
    if not pending:
        which = f"{runs[0].folder}: this run is complete" if sweep.single else "all runs are complete"
        updates = f" ({runs[0].update} updates)" if sweep.single else ""
        print(f"{which}{updates}; --overwrite starts {'it' if sweep.single else 'them'} afresh")
    _print_places(sweep, runs)
    return 0


def _train_groups(groups: Sequence[Sequence[PlannedRun]], jobs: int, progress: Progress) -> int | None:
    """Train groups of runs, here or in several processes; return the signal that has asked for a stop, if one has.

    Raises:
        ConfigError: If no group could begin; with the reasons of all that tried.
    """
    refused: list[tuple[Sequence[PlannedRun], str]] = []
    items = {name_runs([run.key for run in runs]): runs for runs in groups}

    def report(event: Event) -> None:
        if event.kind == "progress":
            progress.report(*event.content)
        elif event.kind in ("failed", "died"):
            why = f"{event.content}; its last checkpoint stays" if event.kind == "died" else event.content
            if progress.begun:
                progress.fail(items[event.item.name], why)
            else:
                refused.append((items[event.item.name], why))

    with Interruption() as interruption:

        def stopping() -> bool:
            if interruption.signal_number is not None and jobs > 1:
                progress.report("say", "stopping: every process finishes its update and saves; Ctrl-C again ends them")
            return interruption.signal_number is not None or (bool(refused) and not progress.begun)

        work = (WorkItem(name, train_group, (runs,)) for name, runs in items.items())
        do_items(work, jobs=jobs, report=report, stopping=stopping)
    if refused and not progress.begun:
        raise ConfigError("; ".join(dict.fromkeys(why for _, why in refused)))
    for runs, why in refused:
        progress.fail(runs, why)
    return interruption.signal_number


def choose_replicas(sweep: Sweep) -> int:
    """Return how many runs one process trains as one program.

    Raises:
        ConfigError: If more than one is asked for with Weights & Biases, or a GPU that torch does not see.
        TrackingError: If Weights & Biases is asked for and not installed.
    """
    config = sweep.configs[0]
    if config.wandb_project is not None:
        import_wandb()
        if sweep.max_replicas is not None and sweep.max_replicas > 1 and len(sweep.configs) > 1:
            raise ConfigError(
                "wandb_project: Weights & Biases follows one run per process; leave --max_replicas out to train the "
                "runs one after another, or pass --wandb_project null"
            )
        return 1
    if sweep.max_replicas is not None:
        return sweep.max_replicas
    return default_replicas(config, on_cpu=resolve_device(config.device).type == "cpu")


def count_jobs(config: TrainConfig) -> int:
    """Return how many processes the cores that this one may use are enough for; 1 on a GPU.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    if resolve_device(config.device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config.torch_threads)


def _print_results(runs: Sequence[PlannedRun], progress: Progress) -> None:
    """Print the tables of runs and of prices, if any run has been evaluated."""
    found: dict[Key, dict[str, Any]] = {key: evaluation_metrics(m) for key, m in progress.evaluations.items()}
    for run in runs:
        episodes = run.config.final_eval_episodes
        if run.complete and (line := read_final_evaluation(run.logs, run.update, episodes)) is not None:
            found[run.key] = line
    if found:
        print("\n".join([*run_lines(runs, found), "", *alpha_lines(runs, found)]))


def _print_places(sweep: Sweep, runs: Sequence[PlannedRun]) -> None:
    """Print where everything is, and what to do next."""
    logs = runs[0].logs if sweep.single else runs[0].logs.parents[1]
    if sweep.single:
        print(f"checkpoint   {checkpoint_path(runs[0].folder, None)}")
    else:
        path = sweep_path(runs[0].config)  # of the first trial: a part of a sweep that is complete has none
        print(f"checkpoints  {path.parent}" + (f" (which trial is what: {path.name})" if path.exists() else ""))
    print(f"logs         {logs} (metrics.jsonl; tensorboard --logdir {logs})")
    print("next         python batch_eval.py")
