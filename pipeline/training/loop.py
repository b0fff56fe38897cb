"""Batches of runs trained together, each with its own logs and checkpoints; what happens is reported as it happens.

Used by the process that was started and, with `--jobs`, by the processes it starts. A run whose loss is no longer
finite is given up and reported; the others go on from where they are, as if it had never been there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from babyai.errors import ExpertError, MissionEncoderError, UnknownTaskError
from pipeline.checkpoints import CheckpointError, checkpoint_path, read_checkpoint
from pipeline.command.files import replace_atomically
from pipeline.command.folders import make_writable
from pipeline.config import ConfigError, resolved_yaml
from pipeline.tracking import Tracker, TrackingError
from pipeline.training.folders import (
    CONFIG_FILE,
    RunFolderError,
    clear_run,
    describe_held,
    hold_run,
    is_held,
    is_unchanged,
)
from pipeline.training.imitation import ReplicaTrainer, TrainingError, announce_compilation, evaluation_metrics
from pipeline.training.plan import PlannedRun
from pipeline.training.schedule import Due

USER_ERRORS = (
    ConfigError,
    UnknownTaskError,
    MissionEncoderError,
    CheckpointError,
    ExpertError,
    TrainingError,
    TrackingError,
)
"""Errors of training that are told in one line."""

Report = Callable[[str, Any], object]
"""Called with what happened and its content.

    say        a line of text
    started    (number of runs, settings of one as resolved, weights of one policy, update): a batch is ready
    steps      environment steps that all runs of the batch have just taken
    figures    {run's key: (success rate or None, task loss)}
    saved      (run's key, update): its checkpoint was written because the batch was stopped
    failed     (keys of runs, why, update): they were given up; the others go on
    evaluated  (run's key, metrics): the final evaluation
    finished   run's key: all is done for it
"""

Listen = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""Opens a span in which a wish to stop is heard; gives the function that says whether there was one."""


def train_batches(batches: Sequence[Sequence[PlannedRun]], *, overwrite: bool, listen: Listen, report: Report) -> None:
    """Train batches one after another until the end, or until a stop is wished for: then all runs are saved.

    Args:
        batches: Of `group_runs`.
        overwrite: Delete what earlier runs left in the folders of all these runs, once the first batch is known to be
            possible; nothing is deleted if another process trains one of them.
        listen: See `Listen`.
        report: See `Report`.

    Raises:
        Exception: One of `USER_ERRORS` if the first batch cannot even start; nothing has been written or deleted then.
    """
    for number, runs in enumerate(batches):
        with ExitStack() as stack:
            try:
                batch = Batch(runs, report)
                for run in runs:
                    _take(run, stack, cleared=overwrite and number == 0)
                if overwrite and number == 0:
                    _clear(batches)
            except USER_ERRORS as error:
                if number == 0:
                    raise
                report("failed", ([run.key for run in runs], str(error), runs[0].update))
                continue
            if batch.train(listen):
                return


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
    make_writable(run.folder)
    stack.enter_context(hold_run(run.logs))
    if not cleared and not is_unchanged(run.folder, None if run.checkpoint is None else run.update):
        raise RunFolderError(f"{run.folder} has been changed by another process meanwhile; start the command again")


def _clear(batches: Sequence[Sequence[PlannedRun]]) -> None:
    """Delete what earlier runs left in the folders of all batches, of which the first is held."""
    for run in (run for runs in batches[1:] for run in runs):
        if is_held(run.logs):
            raise RunFolderError(describe_held(run.logs))
    for run in (run for runs in batches for run in runs):
        clear_run(run.folder, run.logs)


class Batch:
    """Runs that are trained as one.

    Args:
        runs: All at the same update.
        report: See `Report`.

    Raises:
        Exception: One of `USER_ERRORS` if they cannot be trained; nothing has been written then.
    """

    def __init__(self, runs: Sequence[PlannedRun], report: Report) -> None:
        self._report = report
        self._runs = list(runs)
        self._trackers: dict[tuple[int, int], Tracker] = {}
        fresh = runs[0].checkpoint is None
        announce_compilation(self._say)
        self._trainer = ReplicaTrainer(
            [run.config for run in runs],
            announce=self._say,
            resume=None if fresh else [read_checkpoint(run.checkpoint) for run in runs],
        )
        self._config = self._trainer.configs[0]  # what is asked of it below is alike for all

    def _say(self, line: str) -> None:
        self._report("say", line)

    def train(self, listen: Listen) -> bool:
        """Train to the end and evaluate, or stop and save; return whether a stop was wished for.

        What goes wrong for all runs alike is reported as the failure of each; their last checkpoints stay.
        """
        weights = sum(parameter.numel() for parameter in self._trainer.policies[0].parameters())
        self._report("started", (len(self._runs), self._config, weights, self._trainer.update))
        try:
            with ExitStack() as stack:
                self._open_logs(stack)
                return self._train(listen)
        except (*USER_ERRORS, OSError) as error:
            self._report("failed", ([run.key for run in self._runs], str(error), self._trainer.update))
            return False

    def _open_logs(self, stack: ExitStack) -> None:
        for run, config in zip(self._runs, self._trainer.configs, strict=True):
            tracker = Tracker(
                run.logs,
                config=config.to_dict(),
                tensorboard=config.tensorboard,
                wandb_project=config.wandb_project,
                resume_update=None if run.checkpoint is None else run.update,
                announce=self._say,
            )
            self._trackers[run.key] = stack.enter_context(tracker)
            with replace_atomically(run.logs / CONFIG_FILE) as temporary:
                temporary.write_text(resolved_yaml(config), encoding="utf-8")

    def _train(self, listen: Listen) -> bool:
        target = self._config.num_updates
        wished = False
        if self._trainer.update < target:
            with listen() as stop:
                while self._runs and self._trainer.update < target and not stop():
                    self._update()
                if self._runs and self._trainer.update:  # at update 0 it is not begun
                    self._save(stopped=self._trainer.update < target)
                wished = stop()
        if self._runs and self._trainer.update == target:
            self._finish()
        return wished

    def _update(self) -> None:
        """Do one update and what is due after it."""
        steps = len(self._runs) * self._config.num_envs * self._config.unroll_len
        try:
            self._trainer.run_update()
        except TrainingError as error:
            if not error.replicas:
                raise
            self._give_up(error)
        self._report("steps", steps)
        if not self._runs:
            return
        due = Due(self._config, self._trainer.update)
        if due.log:
            self._log(evaluate=due.evaluation)
        if due.checkpoint:
            for replica, run in enumerate(self._runs):
                self._trainer.save(replica, checkpoint_path(run.folder, self._trainer.update))

    def _give_up(self, error: TrainingError) -> None:
        """Go on without the runs that have diverged; the others have done their update."""
        gone = [self._runs[replica] for replica in error.replicas]
        self._runs = [run for run in self._runs if run not in gone]
        if self._runs:
            self._trainer.drop(error.replicas)
        for run in gone:
            self._trackers[run.key].close(failed=True)
        self._report("failed", ([run.key for run in gone], str(error), self._trainer.update))

    def _log(self, *, evaluate: bool) -> None:
        """Log what has been measured since the last time, and an evaluation if it is due."""
        metrics = self._trainer.take_metrics()
        if evaluate:
            for row, evaluation in zip(metrics, self._trainer.evaluate(self._config.eval_episodes), strict=True):
                row.update(evaluation_metrics(evaluation))
        for run, row in zip(self._runs, metrics, strict=True):
            self._log_run(run, row)
        names = ("rollout/success_rate", "train/task_loss")
        figures = {run.key: tuple(row[name] for name in names) for run, row in zip(self._runs, metrics, strict=True)}
        self._report("figures", figures)

    def _log_run(self, run: PlannedRun, metrics: dict[str, float | int | None]) -> None:
        self._trackers[run.key].log(self._trainer.update, {"env_steps": self._trainer.env_steps, **metrics})

    def _save(self, *, stopped: bool) -> None:
        """Write all runs' final checkpoints, or those of an interruption."""
        for replica, run in enumerate(self._runs):
            self._trainer.save(replica, checkpoint_path(run.folder, self._trainer.update if stopped else None))
            if stopped:
                self._report("saved", (run.key, self._trainer.update))

    def _finish(self) -> None:
        """Evaluate all runs, if that is asked for."""
        episodes = self._config.final_eval_episodes
        if episodes:
            self._say(f"trained; evaluating on {episodes} fixed levels")
            for run, evaluation in zip(self._runs, self._trainer.evaluate(episodes), strict=True):
                metrics = evaluation_metrics(evaluation)
                self._log_run(run, metrics)
                self._report("evaluated", (run.key, metrics))
        for run in self._runs:
            self._report("finished", run.key)
