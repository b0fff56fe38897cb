"""A share of the runs, as one process trains it: group after group, each in folders that no other process holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from babyai.compiled.core import is_on_disk
from pipeline.checkpoints import read_checkpoint
from pipeline.command.errors import MISTAKES, explain
from pipeline.guard import RunFolderError, clear_run, describe_held, hold_run, is_held
from pipeline.places import list_checkpoints
from pipeline.training.batch import ReplicaBatch
from pipeline.training.folders import stamp_checkpoints
from pipeline.training.loop import train
from pipeline.training.outputs import Outputs, Report
from pipeline.training.plan import PlannedRun


def train_groups(
    groups: Sequence[Sequence[PlannedRun]], *, overwrite: bool, stopping: Callable[[], bool], report: Report
) -> None:
    """Train groups of runs one after another to their end, or until a stop is wished for: then all runs are saved.

    What goes wrong once a group is at work is reported as the failure of its runs; their last checkpoints stay.

    Args:
        groups: Of `group_runs`.
        overwrite: Delete what earlier runs left in the folders of all these runs, once the first group is known to be
            possible; nothing is deleted if another process trains one of them.
        stopping: Says whether a stop is wished for.
        report: See `Report`.

    Raises:
        Exception: One of `MISTAKES` if the first group cannot even start; no checkpoint has been written or, unless
            it is for damaged metrics, deleted then.
    """
    for number, runs in enumerate(groups):
        if stopping():
            return
        with ExitStack() as stack:
            try:
                batch = build_batch(runs, report)
                for run in runs:
                    _take(run, stack, cleared=overwrite and number == 0)
                if overwrite and number == 0:
                    _clear(groups)
                outputs = Outputs(runs, batch, report, stack)
            except MISTAKES as error:
                if number == 0:
                    raise
                report("failed", ([run.key for run in runs], explain(error), runs[0].update))
                continue
            try:
                train(batch, outputs, stopping)
            except MISTAKES as error:
                report("failed", ([run.key for run in outputs.runs], explain(error), batch.update))


def build_batch(runs: Sequence[PlannedRun], report: Report) -> ReplicaBatch:
    """Return runs at their beginning, or as their checkpoints left them."""

    def say(line: str) -> None:
        report("say", line)

    if not is_on_disk():
        say("compiling the world and the policy: about a minute, once for this copy of the code")
    fresh = runs[0].checkpoint is None
    resume = None if fresh else [read_checkpoint(run.checkpoint) for run in runs]
    return ReplicaBatch([run.config for run in runs], resume=resume, announce=say)


def _take(run: PlannedRun, stack: ExitStack, *, cleared: bool) -> None:
    """Keep other processes from a run until the stack is closed.

    Args:
        run: To be trained.
        stack: Closed when it is trained.
        cleared: Whether all that is there is to be deleted, whatever it is.

    Raises:
        RunFolderError: If another process trains it or has done so since the plan was made, or a folder cannot be
            written.
    """
    stack.enter_context(hold_run(run.folder, run.logs))
    if not cleared and stamp_checkpoints(run.folder) != run.stamp:
        raise RunFolderError(f"{run.folder} has been changed by another process meanwhile; start the command again")


def _clear(groups: Sequence[Sequence[PlannedRun]]) -> None:
    """Delete what earlier runs left in the folders of all groups, of which the first is held."""
    for run in (run for runs in groups[1:] for run in runs):
        if is_held(run.logs):
            raise RunFolderError(describe_held(run.logs))
    for run in (run for runs in groups for run in runs):
        clear_run(list_checkpoints(run.folder), run.logs)
