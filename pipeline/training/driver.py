"""The driver of training: the plan, its runs as work for one process or several, and the words at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

from pipeline.command.errors import ConfigError
from pipeline.command.interruption import Interruption
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.workers import Event, WorkItem
from pipeline.launch.items import RESUME, launch
from pipeline.places import leave_out_earlier
from pipeline.tracking import check_wandb
from pipeline.training.group import clear_runs, go_on_with_group, train_group
from pipeline.training.mapping import mapping_lines
from pipeline.training.options import Sweep
from pipeline.training.plan import PlannedRun, choose_replicas, count_jobs, group_runs, plan_runs
from pipeline.training.progress import Progress, name_runs
from pipeline.training.summary import print_places, print_results


def train_runs(
    sweep: Sweep,
    *,
    resume: bool = False,
    overwrite: bool = False,
    launcher: Launcher = HERE,
    again: Sequence[str] = RESUME,
) -> int:
    """Train the runs of a call to their end, or to an interruption; return the exit code.

    0: all done. 1: some runs failed or lack metrics; the others are done. 128 + signal: interrupted, everything saved.

    Args:
        sweep: The runs.
        resume: Continue those that are begun.
        overwrite: Delete what is there of exactly these runs.
        launcher: Where groups of runs are trained; elsewhere `jobs` of the sweep is the most at once.
        again: Words that the command needs besides when it is called again for runs that are left.

    Raises:
        RunFolderError: If a folder holds another run, a run is begun and neither switch is given, another process
            trains one, or a folder cannot be written.
        TrackingError: If Weights & Biases is asked for and cannot be used; nothing is touched then.
    """
    runs = plan_runs(sweep, resume=resume, overwrite=overwrite)
    pending = [run for run in runs if not run.complete]
    if launcher.is_local:
        most_jobs = count_jobs(sweep.configs[0]) if sweep.jobs is None else sweep.jobs
        jobs = max(1, min(most_jobs, len(pending)))
        replicas = min(choose_replicas(sweep), math.ceil(len(pending) / jobs))
    else:  # how many machines there are, and which cores and GPUs they have, is not known here
        jobs, replicas = sweep.jobs, sweep.max_replicas or 1
    groups = group_runs(pending, replicas)
    if not sweep.single:
        print("\n".join(mapping_lines(runs)))
        if launcher.is_local and sweep.jobs is None and jobs > 1:
            print(f"{jobs} processes share the runs; --jobs changes that")
    progress = Progress(runs, sweep.single)
    try:
        if pending and pending[0].config.wandb_project is not None:
            check_wandb()
        if overwrite:
            clear_runs(groups, progress.report)
        with Interruption() as interruption:
            _train_groups(groups, jobs, progress, interruption, launcher, again)
            progress.close()
            return _conclude(sweep, runs, progress, interruption)
    finally:
        progress.close()


def _conclude(sweep: Sweep, runs: Sequence[PlannedRun], progress: Progress, interruption: Interruption) -> int:
    """Print what became of the runs, and return the exit code."""
    if not sweep.single:
        print_results(runs, progress.evaluations)
    for word, found in (("failed", progress.failed), ("incomplete", progress.incomplete)):
        for why in dict.fromkeys(found.values()):
            keys = [key for key, reason in found.items() if reason == why]
            print(f"{word}: {why}" if sweep.single else f"{word}: {name_runs(keys)}: {why}", file=sys.stderr)
    if progress.is_cut_short():  # also if a signal has reached a process of the work alone
        print(progress.describe_interruption())
        return interruption.exit_code
    if progress.failed:
        return 1
    if all(run.complete for run in runs):
        which = f"{runs[0].folder}: this run is complete" if sweep.single else "all runs are complete"
        updates = f" ({runs[0].update} updates)" if sweep.single else ""
        print(f"{which}{updates}; --overwrite starts {'it' if sweep.single else 'them'} afresh")
    print_places(sweep, runs)
    return int(bool(progress.incomplete))


def _train_groups(
    groups: Sequence[Sequence[PlannedRun]],
    jobs: int | None,
    progress: Progress,
    interruption: Interruption,
    launcher: Launcher,
    again: Sequence[str],
) -> None:
    """Train groups of runs, here, in several processes, or on other machines.

    Raises:
        ConfigError: If no group could begin; with the reasons of all that tried.
    """
    refused: list[tuple[Sequence[PlannedRun], str]] = []
    at_work: set[str] = set()
    items = {name_runs([run.key for run in runs]): runs for runs in groups}

    def report(event: Event) -> None:
        if event.kind == "progress":
            progress.report(*event.content)
            return
        if event.kind == "started":
            at_work.add(event.item.name)
            return
        at_work.discard(event.item.name)
        if event.kind in ("failed", "died"):
            why = f"{event.content}; its last checkpoint stays" if event.kind == "died" else event.content
            if progress.begun:
                progress.fail(items[event.item.name], why)
            else:
                refused.append((items[event.item.name], why))

    def stopping() -> bool:
        if interruption.stopping() and jobs != 1:
            progress.report("say", "stopping: every process finishes its update and saves; Ctrl-C again ends them")
        hopeless = bool(refused) and not progress.begun and not at_work  # what runs differ in is checked by now
        return interruption.stopping() or hopeless

    do = train_group if launcher.is_local else go_on_with_group
    work = (_describe_work(name, do, runs) for name, runs in items.items())
    launch(work, launcher=launcher, jobs=jobs, report=report, stopping=stopping, again=again)
    if refused and not progress.begun:
        raise ConfigError("; ".join(dict.fromkeys(why for _, why in refused)))
    for runs, why in refused:
        progress.fail(runs, why)


def _describe_work(name: str, do: Callable[..., None], runs: Sequence[PlannedRun]) -> WorkItem:
    folders = tuple(folder for run in runs for folder in (run.folder, run.logs))
    starts = tuple(dict.fromkeys(run.config.start for run in runs if run.config.start is not None))
    return WorkItem(name, do, (runs,), inputs=(*folders, *starts), outputs=folders, choose=leave_out_earlier)
