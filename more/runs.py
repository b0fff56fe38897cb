"""A training run from start to end: its folders, the guard against mixing runs, progress, interruption."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from more.checkpoints import FINAL_NAME, list_numbered, numbered_path, read_checkpoint
from more.model import count_parameters
from more.settings import TrainingConfig
from more.training import METRICS, Trainer
from pipeline.command.cli import parse_command
from pipeline.command.files import replace_atomically
from pipeline.command.folders import check_folder, hold_folder
from pipeline.command.interruption import Interruption
from pipeline.command.shell import as_command
from pipeline.config import ConfigError
from pipeline.tracking import METRICS_FILE, Tracker, import_wandb

SWITCHES = {
    "resume": "Continue from the newest checkpoint of this run; starts afresh if there is none.",
    "overwrite": "Delete what an earlier run left in this run's folders, and start afresh.",
}


class RunFolderError(ConfigError):
    """A run's folder holds something that must not be overwritten by accident."""


@as_command()
def main(description: str, argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit code: 0 done, 2 refused, 128 + signal when interrupted.

    A file that cannot be read or written is also 2.
    """
    config, switches = parse_command(description, TrainingConfig, argv, switches=SWITCHES)
    return run_training(config, **switches)


def run_training(config: TrainingConfig, *, resume: bool = False, overwrite: bool = False, quiet: bool = False) -> int:
    """Train one run to its end, or to an interruption; return the exit code.

    Args:
        config: Settings.
        resume: Continue from the newest checkpoint, if there is one.
        overwrite: Delete what an earlier run left.
        quiet: Print nothing and show no bar.

    Raises:
        RunFolderError: If a folder holds another run, or this one and neither switch is given.
        FolderError: If a folder cannot be written to, or another process is training there.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: one keeps what is there, the other deletes it")
    config = config.resolve()
    say = (lambda _: None) if quiet else print
    folder, logs = (Path(root) / config.run_name() for root in (config.checkpoint_dir, config.log_dir))
    for name, place in (("checkpoint_dir", folder), ("log_dir", logs)):
        check_folder(name, place)
    with ExitStack() as held:
        for place in sorted({folder.resolve(), logs.resolve()}):
            held.enter_context(hold_folder(place))
        return _run_held(config, folder, logs, say, resume=resume, overwrite=overwrite, quiet=quiet)


def _run_held(
    config: TrainingConfig,
    folder: Path,
    logs: Path,
    say: Callable[[str], object],
    *,
    resume: bool,
    overwrite: bool,
    quiet: bool,
) -> int:
    """Do the run in folders that no other process trains in."""
    final = folder / FINAL_NAME
    newest = None if overwrite else _newest(folder)
    if newest is not None:
        _check_same_run(folder, newest, config)
        if final.is_file():
            say(f"{final}: this run is complete ({newest['update']} updates); --overwrite starts it afresh")
            return 0
        if not resume:
            raise RunFolderError(
                f"{folder} holds this run, up to update {newest['update']}; pass --resume to continue it, or "
                "--overwrite to delete it"
            )
    if not overwrite:
        _check_same_log(logs, config, known=newest is not None, resume=resume)
    if config.wandb_project is not None:
        import_wandb()
    trainer = Trainer(config, announce=say, resume=newest)
    if overwrite:  # only now, when the new run is known to be possible
        _clear(folder, logs)
    with replace_atomically(logs / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False), encoding="utf-8")
    say(_opening_words(trainer))
    try:
        tracker = Tracker(
            logs,
            config=dataclasses.asdict(config),
            tensorboard=config.tensorboard,
            wandb_project=config.wandb_project,
            resume_update=trainer.update if newest is not None else None,
            announce=say,
            table=METRICS,
            counter="tokens",
        )
    except ValueError as error:  # the metrics to go on from are damaged
        raise RunFolderError(str(error)) from None
    with tracker, Interruption() as interruption:
        _train(trainer, tracker, folder, interruption, quiet)
        if trainer.update < trainer.total:
            path = numbered_path(folder, trainer.update)
            trainer.save(path, resumable=True)
            say(f"interrupted after update {trainer.update}; saved {path}; --resume continues from there")
            return 128 + interruption.signal_number
        trainer.save(final, resumable=False)
    say(f"checkpoint  {final}")
    say(f"logs        {logs} (metrics.jsonl; tensorboard --logdir {logs})")
    say(f"next        python more/evaluate.py --checkpoint_path {final}")
    return 0


def _train(trainer: Trainer, tracker: Tracker, folder: Path, interruption: Interruption, quiet: bool) -> None:
    """Run updates, logging, validation and checkpoints until the end or an interruption."""
    config = trainer.config
    with tqdm(
        total=trainer.total,
        initial=trainer.update,
        desc=config.run_name(),
        unit="update",
        dynamic_ncols=True,
        disable=quiet,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
    ) as bar:
        while trainer.update < trainer.total and interruption.signal_number is None:
            trainer.run_update()
            bar.update()
            last = trainer.update == trainer.total
            validate = last or (config.eval_interval > 0 and trainer.update % config.eval_interval == 0)
            if validate or trainer.update % config.log_interval == 0:
                metrics, figures = trainer.take_metrics()
                if validate:
                    metrics.update(trainer.validate())
                loads = {f"Layer_{i}/Expert_Load_Distribution": layer.load for i, layer in enumerate(figures)}
                tracker.log(trainer.update, metrics, loads)
                bar.set_postfix_str(_progress(metrics), refresh=False)
            if config.checkpoint_interval and trainer.update % config.checkpoint_interval == 0 and not last:
                older = list_numbered(folder)
                trainer.save(numbered_path(folder, trainer.update), resumable=True)
                for path in older:
                    path.unlink()


def _progress(metrics: dict[str, float]) -> str:
    """Return the figures one watches."""
    valid = f", valid perplexity {metrics['Perplexity_valid']:.3f}" if "Perplexity_valid" in metrics else ""
    return (
        f"loss {metrics['Loss/train']:.3f}, perplexity {metrics['Perplexity']:.3f}{valid}, "
        f"{metrics['Tokens_per_Second']:,.0f} tokens/s"
    )


def _newest(folder: Path) -> dict[str, Any] | None:
    """Return the content of the run's final checkpoint, else of its newest one; None where there is none."""
    paths = [folder / FINAL_NAME] if (folder / FINAL_NAME).is_file() else list_numbered(folder)
    return read_checkpoint(paths[-1]) if paths else None


def _check_same_run(folder: Path, newest: dict[str, Any], config: TrainingConfig) -> None:
    """Refuse to mix runs: compare the settings that decide what is learned.

    Raises:
        RunFolderError: If the folder's newest checkpoint was trained with other settings.
    """
    if differences := _differing_settings(newest["training_config"], config):
        raise RunFolderError(
            f"{folder} holds another run ({differences}). Choose another --checkpoint_dir and --log_dir, or pass "
            "--overwrite to delete it"
        )


def _check_same_log(logs: Path, config: TrainingConfig, *, known: bool, resume: bool) -> None:
    """Refuse to replace the metrics of another run.

    Args:
        logs: The run's folder of metrics.
        config: Settings.
        known: Whether the run has a checkpoint.
        resume: Without a checkpoint, start afresh over this run's own metrics.

    Raises:
        RunFolderError: If there are metrics which are not this run's, or which nothing says are to be replaced.
    """
    path = logs / METRICS_FILE
    if not (path.is_file() and path.stat().st_size):
        return
    stored = _read_settings(logs / "config.yaml")
    differences = "its settings are unknown" if stored is None else _differing_settings(stored, config)
    if differences and not (known and stored is None):
        raise RunFolderError(
            f"{path} is of another run ({differences}). Choose another --log_dir, or pass --overwrite to delete it"
        )
    if not known and not resume:
        raise RunFolderError(
            f"{path} is of a run with these settings that has no checkpoint in --checkpoint_dir; pass --resume or "
            "--overwrite to start afresh and replace it, or choose another --log_dir"
        )


def _read_settings(path: Path) -> Mapping[str, Any] | None:
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return stored if isinstance(stored, dict) else None


def _differing_settings(stored: Mapping[str, Any], config: TrainingConfig) -> str:
    """Return which settings that decide what is learned differ, "" if none does."""
    wanted = config.identity()
    return "; ".join(
        f"{name} is {stored.get(name)!r} there, {wanted[name]!r} here"
        for name in wanted
        if stored.get(name) != wanted[name]
    )


def _clear(folder: Path, logs: Path) -> None:
    """Delete the files of an earlier run, and only those that a run writes."""
    for path in [folder / FINAL_NAME, *list_numbered(folder), logs / "config.yaml", logs / METRICS_FILE]:
        path.unlink(missing_ok=True)
    for path in logs.glob("events.out.tfevents.*"):
        path.unlink()
    shutil.rmtree(logs / "wandb", ignore_errors=True)


def _opening_words(trainer: Trainer) -> str:
    config, count = trainer.config, count_parameters(trainer.model)
    return (
        f"{config.run_name()}: {count.total:,} parameters, {count.active:,} active, seed {config.seed}, "
        f"{trainer.total} updates of at most {config.batch_size * config.seq_length} tokens on {trainer.device}"
        + (f"; resumed at update {trainer.update}" if trainer.update else "")
    )
