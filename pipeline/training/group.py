"""A group of runs as a work item: trained as one, in folders that no other process holds meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from pipeline.checkpoints import read_checkpoint
from pipeline.command.devices import resolve_device
from pipeline.command.errors import UserError
from pipeline.command.files import remove_leftovers
from pipeline.command.workers import Link
from pipeline.engine.compiled.engine import is_on_disk
from pipeline.guard import RunFolderError, clear_run, describe_held, hold_run, is_held
from pipeline.places import ANY_NAME, list_checkpoints
from pipeline.training.batch import ReplicaBatch
from pipeline.training.folders import stamp_checkpoints
from pipeline.training.loop import train
from pipeline.training.outputs import Outputs, Report
from pipeline.training.plan import PlannedRun, group_runs, renew_run


def train_group(link: Link, runs: Sequence[PlannedRun]) -> None:
    """Train runs to their end, or until a stop is wished for: then all are saved.

    Args:
        link: Takes reports, see `Report`.
        runs: Of `group_runs`.

    Raises:
        Exception: One of `MISTAKES`. Before `started` is reported, no checkpoint has been written. After it, the runs'
            last checkpoints stay.
    """

    def report(kind: str, content: object) -> None:
        link.report((kind, content))

    with ExitStack() as stack:
        batch = build_batch(runs, report)
        for run in runs:
            stack.enter_context(hold_run(run.folder, run.logs))
            if stamp_checkpoints(run.folder) != run.stamp:
                raise RunFolderError(
                    f"{run.folder} has been changed by another process meanwhile; start the command again"
                )
            remove_leftovers(run.folder, ANY_NAME)
        train(batch, Outputs(runs, batch, report, stack), link)


def go_on_with_group(link: Link, runs: Sequence[PlannedRun]) -> None:
    """Do `train_group` for runs that an earlier try of this item may have begun: each goes on where it is.

    Raises:
        Stopped: If a stop was wished and something is left to do.
        Exception: As `train_group`; also if what is there cannot be gone on from, or a run was given up.
    """
    renewed = [renew_run(run) for run in runs]
    for run in renewed:
        if run.complete:
            link.report(("finished", run.key))
    for group in group_runs([run for run in renewed if not run.complete], len(runs)):
        train_group(link, group)
    if left := [run.key for run in runs if not renew_run(run).complete]:
        link.heed()
        raise UserError(f"{len(left)} of {len(runs)} runs given up")


def build_batch(runs: Sequence[PlannedRun], report: Report) -> ReplicaBatch:
    """Return runs at their beginning, or as their checkpoints left them."""

    def say(line: str) -> None:
        report("say", line)

    config = runs[0].config
    if not is_on_disk(on_cpu=resolve_device(config.device).type == "cpu" and not config.compile_policy):
        say("compiling the world and the policy: half a minute or more, once for this copy of the code")
    fresh = runs[0].checkpoint is None
    resume = None if fresh else [read_checkpoint(run.checkpoint) for run in runs]
    return ReplicaBatch([run.config for run in runs], resume=resume, announce=say)


def clear_runs(groups: Sequence[Sequence[PlannedRun]], report: Report) -> None:
    """Delete what earlier runs left in the folders of groups, once the first is known to be possible.

    Raises:
        RunFolderError: If another process trains one of the runs; nothing is deleted then.
    """
    build_batch(groups[0], report)
    runs = [run for group in groups for run in group]
    for run in runs:
        for folder in (run.folder, run.logs):
            if is_held(folder):
                raise RunFolderError(describe_held(folder))
    for run in runs:  # one after the other: so many locks at once may be more than a process may have files open
        with hold_run(run.folder, run.logs):
            clear_run(list_checkpoints(run.folder), run.logs)
