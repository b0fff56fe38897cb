"""A run from start to end: its folders, the guard against mixing runs, progress, interruption, the closing words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from babyai.levels import resolve_task_id
from pipeline.command.cli import parse_command
from pipeline.command.files import replace_atomically
from pipeline.command.folders import make_writable
from pipeline.command.interruption import Interruption
from pipeline.command.shell import as_command
from pipeline.config import ConfigError, TrainConfig, resolved_yaml
from pipeline.places import checkpoint_path, run_folder
from pipeline.records.metrics import describe_metrics
from pipeline.tracking import Tracker, import_wandb
from pipeline.training.folders import (
    CONFIG_FILE,
    RunFolderError,
    clear_run,
    describe_held,
    differing_settings,
    has_log,
    hold_run,
    is_held,
    is_log_of,
    is_unchanged,
    lacks_evaluation,
    newest_checkpoint,
)
from pipeline.training.imitation import ImitationTrainer, announce_compilation, evaluation_metrics
from pipeline.training.options import OPTIONS, parse_sweep
from pipeline.training.schedule import Due
from pipeline.training.sweep import run_sweep

SWITCHES = {
    "resume": "Continue from the newest checkpoint of this run; starts afresh if there is none.",
    "overwrite": "Delete what an earlier run left in this run's folders, and start afresh.",
}


@as_command()
def main(description: str, argv: Sequence[str] | None = None, **forced: Any) -> int:
    """Parse the command line, run, and return the exit code.

    0: done. 1: some runs of several failed. 2: refused. 128 + signal: interrupted.
    """
    config, beside = parse_command(
        description,
        TrainConfig,
        argv,
        switches=SWITCHES,
        options=OPTIONS,
        replaces={"seeds": "seed", "lpc_alphas": "lpc_alpha"},
        **forced,
    )
    sweep = parse_sweep(config, **{name: beside.pop(name) for name in OPTIONS})
    if beside["resume"] and beside["overwrite"]:
        raise ConfigError("--resume and --overwrite exclude each other: one keeps what is there, the other deletes it")
    return run_training(config, **beside) if sweep is None else run_sweep(sweep, **beside)


def run_training(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train one run to its end, or to an interruption; return the exit code.

    A run that only lacks its final evaluation (it was stopped in it) is evaluated, with `resume` or without.

    Args:
        config: Settings.
        resume: Continue from the newest checkpoint, if there is one.
        overwrite: Delete what an earlier run left.

    Raises:
        RunFolderError: If a folder holds another run, or this one and neither switch is given, if another process
            trains it, or a folder cannot be written.
    """
    named = TrainConfig(**{**config.to_dict(), "task_id": resolve_task_id(config.task_id)})
    folder, logs = run_folder(named.checkpoint_dir, named), run_folder(named.log_dir, named)
    found = None if overwrite else newest_checkpoint(folder)
    newest = None if found is None else found[1]
    trained = newest is not None and newest["update"] == named.num_updates  # but not evaluated, as is seen below
    if newest is not None:
        if differences := differing_settings(newest, named):
            raise RunFolderError(
                f"{folder} holds another run ({differences}). Choose another --trial or --seed, or pass --overwrite "
                "to delete it"
            )
        if newest["update"] > named.num_updates or (trained and not lacks_evaluation(named, logs)):
            print(f"{folder}: this run is complete ({newest['update']} updates); --overwrite starts it afresh")
            _closing_words(folder, logs)
            return 0
    if is_held(logs):
        raise RunFolderError(describe_held(logs))
    if newest is not None and not trained and not resume:
        raise RunFolderError(
            f"{folder} holds this run, up to update {newest['update']}; pass --resume to continue it, --overwrite "
            "to delete it, or choose another --trial or --seed"
        )
    if newest is None and not overwrite and has_log(logs):
        _check_log(folder, logs, named, resume)
    if named.wandb_project is not None:
        import_wandb()
    announce_compilation(tqdm.write)
    trainer = ImitationTrainer(named, announce=tqdm.write, resume=newest)
    make_writable(folder)
    with hold_run(logs):
        if overwrite:  # only now, when the new run is known to be possible
            clear_run(folder, logs)
        elif not is_unchanged(folder, None if newest is None else newest["update"]):
            raise RunFolderError(f"{folder} has been changed by another process meanwhile; start the command again")
        tracker = Tracker(
            logs,
            config=trainer.config.to_dict(),
            tensorboard=named.tensorboard,
            wandb_project=named.wandb_project,
            resume_update=trainer.update if newest is not None else None,
        )
        with tracker:
            return _train_to_the_end(trainer, tracker, folder, logs)


def _check_log(folder: Path, logs: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse to replace metrics to which no checkpoint belongs, but for a resumed run that has not come to its first.

    Raises:
        RunFolderError: If they are another run's, or this run's and it is not to be resumed.
    """
    if not is_log_of(logs, config):
        raise RunFolderError(
            f"{logs} holds the metrics of another run: {folder} has no checkpoint of theirs. Choose another --log_dir, "
            "--trial or --seed, or pass --overwrite to delete them"
        )
    if not resume:
        raise RunFolderError(
            f"{logs} holds metrics of this run, which has no checkpoint yet; pass --resume or --overwrite to start it "
            "afresh, or choose another --log_dir, --trial or --seed"
        )


def _train_to_the_end(trainer: ImitationTrainer, tracker: Tracker, folder: Path, logs: Path) -> int:
    """Train, save and evaluate, or what of that is left to do; return the exit code."""
    with replace_atomically(logs / CONFIG_FILE) as temporary:
        temporary.write_text(resolved_yaml(trainer.config), encoding="utf-8")
    print(_opening_words(trainer), flush=True)
    target = trainer.config.num_updates
    if trainer.update < target:
        with Interruption() as interruption:
            _train(trainer, tracker, folder, interruption)
            stopped = trainer.update < target
            path = checkpoint_path(folder, trainer.update if stopped else None)
            trainer.save(path)
        if stopped:
            print(f"interrupted after update {trainer.update}; saved {path}; --resume continues from there")
            return 128 + interruption.signal_number
    if trainer.config.final_eval_episodes:
        _final_evaluation(trainer, tracker)
    _closing_words(folder, logs)
    return 0


def _train(trainer: ImitationTrainer, tracker: Tracker, folder: Path, interruption: Interruption) -> None:
    """Run updates, logging, periodic evaluation and checkpoints until the end or an interruption."""
    config = trainer.config
    with tqdm(
        total=config.num_updates,
        initial=trainer.update,
        desc="training",
        unit="update",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
    ) as bar:
        while trainer.update < config.num_updates and interruption.signal_number is None:
            trainer.run_update()
            bar.update()
            due = Due(config, trainer.update)
            if due.log:
                metrics = trainer.take_metrics()
                if due.evaluation:
                    metrics.update(evaluation_metrics(trainer.evaluate(config.eval_episodes)))
                tracker.log(trainer.update, {"env_steps": trainer.env_steps, **metrics})
                bar.set_postfix_str(_progress(metrics), refresh=False)
            if due.checkpoint:
                trainer.save(checkpoint_path(folder, trainer.update))


def _progress(metrics: dict[str, float | int | None]) -> str:
    """Return the figures one watches: success, loss, LPC, speed."""
    success = metrics.get("rollout/success_rate")
    parts = [
        "success -" if success is None else f"success {success:.2f}",
        f"loss {metrics['train/task_loss']:.3f}",
        f"LPC {metrics['train/lpc']:.0f}",
        f"{metrics['time/env_steps_per_second']:.0f} env-steps/s",
    ]
    return ", ".join(parts)


# --------------------------------------------------------------------------------------------------------------- words


def _opening_words(trainer: ImitationTrainer) -> str:
    config = trainer.config
    weights = sum(parameter.numel() for parameter in trainer.policy.parameters())
    model = f"hidden size {config.hidden_size}" if config.policy == "gru" else f"experts {config.expert_hidden_sizes}"
    return (
        f"{config.task_id}: policy {config.policy}, {model}, {weights:,} weights, seed {config.seed}, "
        f"{config.num_updates} updates of {config.num_envs} environments x {config.unroll_len} steps "
        f"on {trainer.device}" + (f"; resumed at update {trainer.update}" if trainer.update else "")
    )


def _final_evaluation(trainer: ImitationTrainer, tracker: Tracker) -> None:
    evaluation = trainer.evaluate(trainer.config.final_eval_episodes)
    tracker.log(trainer.update, {"env_steps": trainer.env_steps, **evaluation_metrics(evaluation)})
    print(f"final evaluation: {describe_metrics(evaluation.metrics)}")


def _closing_words(folder: Path, logs: Path) -> None:
    print(f"checkpoint  {checkpoint_path(folder, None)}")
    print(f"logs        {logs} (metrics.jsonl; tensorboard --logdir {logs})")
    print("next        python batch_eval.py")
