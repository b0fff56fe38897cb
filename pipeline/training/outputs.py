"""Where the runs of a batch write: metrics, checkpoints, and reports of what happens, each run under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pipeline.config import resolved_yaml
from pipeline.guard import write_settings
from pipeline.places import checkpoint_path
from pipeline.tracking import Tracker
from pipeline.training.batch import ReplicaBatch
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
    evaluated  (run's key, metrics): the final evaluation
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
            self._trackers[run.key].log(update, row)
        self._report("figures", {run.key: row for run, row in zip(self.runs, rows, strict=True)})

    def log_evaluation(self, update: int, rows: Sequence[Metrics], found: Sequence[Metrics]) -> None:
        """Write and report what the final evaluation has found."""
        for run, row, metrics in zip(self.runs, rows, found, strict=True):
            self._trackers[run.key].log(update, row)
            self._report("evaluated", (run.key, metrics))

    def save(self, batch: ReplicaBatch, update: int | None) -> None:
        """Write all runs' checkpoints of an update; None: their final ones."""
        for replica, run in enumerate(self.runs):
            batch.save(replica, checkpoint_path(run.folder, update))

    def save_stopped(self, batch: ReplicaBatch) -> None:
        """Write and report the checkpoints from which runs that were stopped go on; at update 0 none is begun."""
        if batch.update:
            self.save(batch, batch.update)
            for run in self.runs:
                self._report("saved", (run.key, batch.update, checkpoint_path(run.folder, batch.update)))

    def give_up(self, failures: Mapping[int, str], update: int) -> None:
        """Close and report runs that cannot go on.

        Args:
            failures: Why, by the number of the run; the others are renumbered in their order.
            update: Updates done.
        """
        for replica, why in failures.items():
            run = self.runs[replica]
            self._trackers[run.key].close(failed=True)
            self._report("failed", ([run.key], why, update))
        self.runs = [run for replica, run in enumerate(self.runs) if replica not in failures]

    def finish(self) -> None:
        """Report that all is done."""
        for run in self.runs:
            self._report("finished", run.key)
