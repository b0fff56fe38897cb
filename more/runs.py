"""A training run from start to end: its folders, the guard against mixing runs, progress, interruption."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from more.checkpoints import FINAL_NAME, list_numbered, numbered_path, read_checkpoint
from more.config import migrate_settings
from more.model import count_parameters
from more.settings import TrainingConfig
from more.training import METRICS, Trainer, UnsavedError
from pipeline.checkpoint_files import CheckpointError, explain_damage
from pipeline.command.bars import Bar
from pipeline.command.errors import explain
from pipeline.command.folders import check_folder
from pipeline.command.interruption import Interruption
from pipeline.command.stopwatch import Stopwatch
from pipeline.guard import (
    RunFolderError,
    check_switches,
    clear_run,
    describe_stop,
    describe_unsaved,
    find_conflict,
    hold_run,
    write_settings,
)
from pipeline.tracking import Tracker, check_wandb


def run_training(
    config: TrainingConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    stopping: Callable[[], bool] | None = None,
) -> int:
    """Train one run to its end, or to an interruption; return the exit code.

    Args:
        config: Settings.
        resume: Continue from the newest checkpoint, if there is one.
        overwrite: Delete what an earlier run left.
        quiet: Print nothing and show no bar.
        stopping: Says whether a stop is wished; None: Ctrl-C, SIGTERM and SIGHUP do.

    Raises:
        RunFolderError: If a folder holds another run, or this one and neither switch is given.
        FolderError: If a folder cannot be written to, or another process is training there.
        TrackingError: If Weights & Biases is asked for and cannot be used; nothing is touched then.
        UnsavedError: If the last checkpoint cannot be written.
    """
    check_switches(resume=resume, overwrite=overwrite)
    config = config.resolve()
    say = (lambda _: None) if quiet else print
    folder, logs = (Path(root) / config.run_name() for root in (config.checkpoint_dir, config.log_dir))
    for name, place in (("checkpoint_dir", folder), ("log_dir", logs)):
        check_folder(name, place)
    with hold_run(folder, logs):
        newest = None if overwrite else _newest(folder)
        complete = newest is not None and (folder / FINAL_NAME).is_file()
        if not overwrite:
            _refuse_conflict(config, folder, logs, newest, go_on=resume or complete)
        if complete:
            done = f"this run is complete ({newest['update']} updates)"
            say(f"{folder / FINAL_NAME}: {done}; --overwrite starts it afresh")
            return 0
        if config.wandb_project is not None:
            check_wandb()
        trainer = Trainer(config, announce=say, resume=newest)
        if overwrite:  # only now, when the new run is known to be possible
            clear_run(_list_checkpoints(folder), logs)
        interruption = Interruption(stopping)
        timed = numbered_path(folder, newest["update"]) if newest is not None and newest.get("timed") else None
        checkpoints = _Checkpoints(trainer, folder, say, timed)
        return _train_to_the_end(trainer, checkpoints, logs, say, interruption, resumed=newest is not None, quiet=quiet)


def _refuse_conflict(
    config: TrainingConfig, folder: Path, logs: Path, newest: dict[str, Any] | None, *, go_on: bool
) -> None:
    """Refuse to mix runs: to go on with another one, to begin one anew unasked, or to replace another one's metrics.

    Raises:
        RunFolderError: If that would happen.
    """

    def is_elsewhere(logged: Mapping[str, Any]) -> bool:
        return bool(_list_checkpoints(Path(logged.get("checkpoint_dir", config.checkpoint_dir)) / config.run_name()))

    conflict = find_conflict(
        folder,
        logs,
        config.identity(),
        newest and migrate_settings(newest["training_config"]),
        update=newest["update"] if newest else 0,
        go_on=go_on,
        defaults={"expert_attention": "same"},
        is_elsewhere=is_elsewhere,
    )
    if conflict is None:
        return
    if conflict.kind == "other":
        raise RunFolderError(
            f"{conflict.text}. Choose another --checkpoint_dir and --log_dir, or pass --overwrite to delete it"
        )
    raise RunFolderError(f"{conflict.text}; pass --resume to continue it, or --overwrite to delete it")


def _train_to_the_end(
    trainer: Trainer,
    checkpoints: _Checkpoints,
    logs: Path,
    say: Callable[[str], object],
    interruption: Interruption,
    *,
    resumed: bool,
    quiet: bool,
) -> int:
    """Train and save, or what of that is left to do; return the exit code."""
    config = trainer.config
    tracker = Tracker(
        logs,
        config=dataclasses.asdict(config),
        tensorboard=config.tensorboard,
        wandb_project=config.wandb_project,
        resume_update=trainer.update if resumed else None,
        announce=say,
        table=METRICS,
        counter="tokens",
    )
    write_settings(logs, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
    say(_opening_words(trainer))
    with interruption:
        with tracker:
            _train(trainer, tracker, checkpoints, interruption, quiet)
            saved = checkpoints.save_last() if trainer.update else None
        if tracker.missing is not None and not quiet:
            print(f"incomplete: {tracker.missing}", file=sys.stderr)
        if trainer.update < trainer.total:
            say(describe_stop(trainer.update, saved))
            return interruption.exit_code
        say(f"checkpoint  {saved}")
        say(f"logs        {logs} (metrics.jsonl; tensorboard --logdir {logs})")
        say(f"next        python more/evaluate.py --checkpoint_path {saved}")
    return int(tracker.missing is not None)


def _train(
    trainer: Trainer, tracker: Tracker, checkpoints: _Checkpoints, interruption: Interruption, quiet: bool
) -> None:
    """Run updates, logging, validation and checkpoints until the end or an interruption."""
    config = trainer.config
    unsaved = Stopwatch(config.checkpoint_minutes)
    with Bar(
        total=trainer.total,
        initial=trainer.update,
        desc=config.run_name(),
        unit="update",
        disable=quiet,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
    ) as bar:
        while trainer.update < trainer.total and not interruption.stopping():
            trainer.run_update()
            bar.update()
            last = trainer.update == trainer.total
            validate = last or (config.eval_interval > 0 and trainer.update % config.eval_interval == 0)
            if validate or trainer.update % config.log_interval == 0:
                metrics, figures = trainer.take_metrics()
                if validate:
                    metrics.update(trainer.validate())
                loads = {f"Layer_{i}/Expert_Load_Distribution": layer.load for i, layer in enumerate(figures)}
                try:
                    tracker.log(trainer.update, metrics, loads)
                except OSError as error:  # a disk that takes no line ends nothing
                    tracker.note_missing(error)
                bar.set_postfix_str(_progress(metrics), refresh=False)
            asked = config.checkpoint_interval > 0 and trainer.update % config.checkpoint_interval == 0
            if (asked or unsaved.is_over()) and not last:
                checkpoints.save_on_the_way(timed=not asked)
                unsaved.restart()


class _Checkpoints:
    """The checkpoints that a run writes; of those to resume from the newest is kept, a timed one until the end.

    Args:
        trainer: The run.
        folder: Where they go.
        say: Called with each line worth telling.
        timed: The checkpoint that the run was resumed from, if it was a timed one.
    """

    def __init__(self, trainer: Trainer, folder: Path, say: Callable[[str], object], timed: Path | None) -> None:
        self._trainer, self._folder, self._say = trainer, folder, say
        self._timed, self._told = timed, False

    def save_on_the_way(self, *, timed: bool) -> None:
        """Write one to resume from; where that cannot be, say so, once, and let the run go on."""
        older, path = list_numbered(self._folder), numbered_path(self._folder, self._trainer.update)
        try:
            self._trainer.save(path, resumable=True, timed=timed)
        except OSError as error:
            if not self._told:
                why = f"checkpoint not written: {explain(error, path)}"
                self._say(f"{why}; training goes on, and the next one is tried")
            self._told = True
            return
        self._timed, self._told = path if timed else None, False
        for other in older:
            if other != path:
                other.unlink(missing_ok=True)

    def save_last(self) -> Path:
        """Write the one with which the run ends, at its end or where it is stopped, and return its path.

        Raises:
            UnsavedError: If it cannot be written.
        """
        trainer, folder = self._trainer, self._folder
        complete = trainer.update == trainer.total
        path = folder / FINAL_NAME if complete else numbered_path(folder, trainer.update)
        try:
            trainer.save(path, resumable=not complete)
        except OSError as error:
            older = list_numbered(folder)
            why = f"checkpoint not written: {explain(error, path)}"
            raise UnsavedError(describe_unsaved(why, older[-1] if older else None)) from None
        if self._timed not in (None, path):
            self._timed.unlink(missing_ok=True)
        return path


def _progress(metrics: dict[str, float]) -> str:
    """Return the figures one watches."""
    valid = f", valid perplexity {metrics['Perplexity_valid']:.3f}" if "Perplexity_valid" in metrics else ""
    return (
        f"loss {metrics['Loss/train']:.3f}, perplexity {metrics['Perplexity']:.3f}{valid}, "
        f"{metrics['Tokens_per_Second']:,.0f} tokens/s"
    )


def _list_checkpoints(folder: Path) -> list[Path]:
    """Return the run's checkpoints, by their updates; the final one is the last."""
    final = folder / FINAL_NAME
    return [*list_numbered(folder), *([final] if final.is_file() else [])]


def _newest(folder: Path) -> dict[str, Any] | None:
    """Return the content of the run's last checkpoint; None where there is none.

    Raises:
        CheckpointError: If it is damaged; with the newest sound one before it.
    """
    paths = _list_checkpoints(folder)
    if not paths:
        return None
    try:
        return read_checkpoint(paths[-1])
    except CheckpointError as error:
        raise explain_damage(error, paths[-1], reversed(paths[:-1]), _update_of) from None


def _update_of(path: Path) -> int:
    return int(read_checkpoint(path)["update"])


def _opening_words(trainer: Trainer) -> str:
    config, count = trainer.config, count_parameters(trainer.model)
    return (
        f"{config.run_name()}: {count.total:,} parameters, {count.active:,} active, seed {config.seed}, "
        f"{trainer.total} updates of at most {config.batch_size * config.seq_length} tokens on {trainer.device}"
        + (f"; resumed at update {trainer.update}" if trainer.update else "")
    )
