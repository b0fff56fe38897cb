"""Where the runs of a batch write: metrics, checkpoints, and reports of what happens, each run under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from pipeline.command.errors import explain
from pipeline.config import resolved_yaml
from pipeline.evaluation.play import Evaluation
from pipeline.guard import describe_unsaved, write_settings
from pipeline.places import checkpoint_path, list_checkpoints
from pipeline.tracking import Tracker
from pipeline.training.batch import ReplicaBatch
from pipeline.training.folders import has_final
from pipeline.training.plan import Key, PlannedRun

Metrics = Mapping[str, float | int | None]
Report = Callable[[str, Any], object]
"""Called with what happened and its content.

    say        a line of text
    started    (keys of the runs, settings of one as resolved, weights of one policy, device, update)
    steps      environment steps that all runs of the batch have just taken
    figures    {run's key: its metrics}
    saved      (run's key, update, path): its checkpoint was written because the batch was stopped
    failed     (keys of runs, why, update): they were given up; the others go on
    incomplete (run's key, why): some of its metrics could not be written
    evaluated  (run's key, metrics, those by level of a mixture): the final evaluation
    finished   run's key: all is done for it
"""


class Outputs:
    """Files and reports of the runs of a batch, in the order of its replicas.

    Args:
        runs: The runs.
        batch: As which they are trained.
        report: See `Report`.
        stack: Closes the metrics' files.

    Raises:
        TrackingError: If metrics to go on from are damaged, or a tracker cannot be had.
    """

    def __init__(self, runs: Sequence[PlannedRun], batch: ReplicaBatch, report: Report, stack: ExitStack) -> None:
        self.runs = list(runs)
        self._report = report
        self._steps = batch.config.num_envs * batch.config.unroll_len
        self._trackers: dict[Key, Tracker] = {}
        timed = zip(runs, batch.timed, strict=True)
        self._timed = {run.key: run.checkpoint for run, was in timed if was and run.checkpoint is not None}
        self._unsaved: set[Key] = set()  # of which the last checkpoint could not be written, which has been told
        for run, config in zip(runs, batch.configs, strict=True):
            tracker = Tracker(
                run.logs,
                config=config.to_dict(),
                tensorboard=config.tensorboard,
                wandb_project=config.wandb_project,
                resume_update=None if run.checkpoint is None else run.update,
                announce=self.say,
            )
            self._trackers[run.key] = stack.enter_context(tracker)
            write_settings(run.logs, resolved_yaml(config))
        weights = sum(parameter.numel() for parameter in batch.policies[0].parameters())
        keys = [run.key for run in runs]
        report("started", (keys, batch.config, weights, str(batch.device), batch.update))

    def say(self, line: str) -> None:
        """Tell a line."""
        self._report("say", line)

    def count_steps(self) -> None:
        """Report that each run has done an update."""
        self._report("steps", len(self.runs) * self._steps)

    def log(self, update: int, rows: Sequence[Metrics]) -> None:
        """Write a line of metrics for each run."""
        for run, row in zip(self.runs, rows, strict=True):
            self._write(run, update, row)
        self._report("figures", {run.key: row for run, row in zip(self.runs, rows, strict=True)})

    def _write(self, run: PlannedRun, update: int, row: Metrics) -> None:
        """Write a line of a run; a disk that takes none is told, and ends nothing."""
        tracker = self._trackers[run.key]
        try:
            tracker.log(update, row)
        except OSError as error:
            tracker.note_missing(error)

    def log_evaluation(self, update: int, rows: Sequence[Metrics], found: Sequence[Evaluation]) -> None:
        """Write and report what the final evaluation has found."""
        for run, row, evaluation in zip(self.runs, rows, found, strict=True):
            self._write(run, update, row)
            self._report("evaluated", (run.key, evaluation.metrics, evaluation.by_level))

    def save(self, batch: ReplicaBatch, update: int | None, *, timed: bool = False) -> dict[int, str]:
        """Write all runs' checkpoints of an update; return why one could not be written, by the run's number.

        A run's timed checkpoint goes once a newer one is there; what the settings or a stop asked for stays.

        Args:
            batch: The runs.
            update: Of the checkpoints' names; None: the final ones.
            timed: They are timed ones.
        """
        failures = {}
        for replica, run in enumerate(self.runs):
            path = checkpoint_path(run.folder, update)
            try:
                batch.save(replica, path, timed=timed)
            except OSError as error:
                failures[replica] = f"checkpoint not written: {explain(error, path)}"
                continue
            older = self._timed.pop(run.key, path)
            if older != path:
                with suppress(OSError):
                    older.unlink()
            if timed:
                self._timed[run.key] = path
        return failures

    def lacks_final(self, update: int) -> bool:
        """Return whether some run has no final checkpoint of this update."""
        return not all(has_final(run.folder, update) for run in self.runs)

    def save_on_the_way(self, batch: ReplicaBatch, *, timed: bool) -> None:
        """Write all runs' checkpoints after an update; one that cannot be written is told of, and the run goes on."""
        failures = self.save(batch, batch.update, timed=timed)
        for replica, why in failures.items():
            if self.runs[replica].key not in self._unsaved:
                self.say(f"{why}; training goes on, and the next one is tried")
        self._unsaved = {self.runs[replica].key for replica in failures}

    def save_stopped(self, batch: ReplicaBatch) -> None:
        """Write and report the checkpoints from which runs that were stopped go on; at update 0 none is begun."""
        if batch.update:
            self.give_up_unsaved(self.save(batch, batch.update), batch.update)
            self.report_stopped(batch.update, batch.update)

    def report_stopped(self, update: int, number: int | None) -> None:
        """Report that runs were stopped after an update and have their checkpoints of this number; None: final ones."""
        for run in self.runs:
            self._close(run)
            self._report("saved", (run.key, update, checkpoint_path(run.folder, number)))

    def give_up_unsaved(self, failures: Mapping[int, str], update: int) -> None:
        """Give up runs whose last checkpoint cannot be written; see `give_up`."""
        told = {}
        for replica, why in failures.items():
            paths = list_checkpoints(self.runs[replica].folder)
            told[replica] = describe_unsaved(why, paths[-1] if paths else None)
        self.give_up(told, update)

    def give_up(self, failures: Mapping[int, str], update: int) -> None:
        """Close and report runs that cannot go on.

        Args:
            failures: Why, by the number of the run; the others are renumbered in their order.
            update: Updates done.
        """
        for replica, why in failures.items():
            run = self.runs[replica]
            self._close(run, failed=True)
            self._report("failed", ([run.key], why, update))
        self.runs = [run for replica, run in enumerate(self.runs) if replica not in failures]

    def finish(self) -> None:
        """Report that all is done."""
        for run in self.runs:
            self._close(run)
            self._report("finished", run.key)

    def _close(self, run: PlannedRun, *, failed: bool = False) -> None:
        """Close a run's metrics, and report if some could not be written."""
        tracker = self._trackers[run.key]
        tracker.close(failed=failed)
        if tracker.missing is not None:
            self._report("incomplete", (run.key, tracker.missing))
