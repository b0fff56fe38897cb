"""A training run from start to end: its folders, the guard against mixing runs, progress, interruption."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from more.checkpoints import FINAL_NAME, numbered_path
from more.config import migrate_settings
from more.estimate import Pace, memory_shortage_told
from more.initialisation import adopt
from more.monitoring import RouterFigures
from more.outlook import describe_pace, describe_start
from more.parallel import ALONE, Group
from more.progress import METRICS
from more.saving import RunCheckpoints, clear_leftovers, list_checkpoints, read_newest, read_to_lengthen
from more.settings import TrainingConfig
from more.training import SMALLER, Trainer
from pipeline.command.bars import Bar
from pipeline.command.folders import check_folder
from pipeline.command.interruption import Interruption
from pipeline.command.names import name_module
from pipeline.command.stopwatch import Stopwatch
from pipeline.config import ConfigError
from pipeline.guard import (
    RunFolderError,
    check_switches,
    clear_run,
    describe_stop,
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
    group: Group = ALONE,
) -> int:
    """Train one run to its end, or to an interruption; return the exit code.

    Of several processes the leading one alone holds the folders, writes and prints.

    Args:
        config: Settings.
        resume: Continue from the newest checkpoint, if there is one.
        overwrite: Delete what an earlier run left.
        quiet: Print nothing and show no bar.
        stopping: Says whether a stop is wished; None: Ctrl-C, SIGTERM and SIGHUP do.
        group: The processes that train it together, all of which call this.

    Raises:
        RunFolderError: If a folder holds another run, or this one and neither switch is given.
        FolderError: If a folder cannot be written to, or another process is training there.
        TrackingError: If Weights & Biases is asked for and cannot be used; nothing is touched then.
        UnsavedError: If the last checkpoint cannot be written.
    """
    check_switches(resume=resume, overwrite=overwrite)
    config = adopt(config).resolve()
    say = (lambda _: None) if quiet or not group.leads else print
    folder, logs = (Path(root) / config.run_name() for root in (config.checkpoint_dir, config.log_dir))
    with ExitStack() as held:
        if group.leads:
            for name, place in (("checkpoint_dir", folder), ("log_dir", logs)):
                check_folder(name, place)
            held.enter_context(hold_run(folder, logs))
            clear_leftovers(folder, say)
        group.wait()  # until the folders are held, and nothing in them moves
        newest = None if overwrite else read_newest(folder)
        complete = newest is not None and "optimizer_state_dict" not in newest
        lengthened = resume and newest is not None and is_longer(config, newest["training_config"])
        if not overwrite:
            _refuse_conflict(config, folder, logs, newest, go_on=resume or complete, lengthened=lengthened)
        if complete and lengthened:
            done, newest = newest["update"], read_to_lengthen(folder, newest)
            how = "" if "optimizer_state_dict" in newest else ", whose optimiser was not kept and begins anew"
            say(f"this run of {done} updates is lengthened from update {newest['update']}{how}")
        elif complete:
            done = f"this run is complete ({newest['update']} updates)"
            say(f"{folder / FINAL_NAME}: {done}; --overwrite starts it afresh")
            return 0
        if config.wandb_project is not None and group.leads:
            check_wandb()
        if overwrite and config.init_from in {str(path.absolute()) for path in list_checkpoints(folder)}:
            raise ConfigError(
                f"init_from: {config.init_from} is of the run that --overwrite deletes; choose another --checkpoint_dir"
            )
        trainer = Trainer(config, announce=say, resume=newest, group=group)
        if trainer.update >= trainer.total:
            raise ConfigError(
                f"this run has done {trainer.update} updates, and {trainer.total} are asked for; ask for more of them"
            )
        if overwrite and group.leads:  # only now, when the new run is known to be possible
            clear_run(list_checkpoints(folder), logs)
        interruption = Interruption(stopping)
        timed = numbered_path(folder, newest["update"]) if newest is not None and newest.get("timed") else None
        checkpoints = RunCheckpoints(trainer, folder, say, timed)
        return _train_to_the_end(trainer, checkpoints, logs, say, interruption, resumed=newest is not None, quiet=quiet)


def is_longer(config: TrainingConfig, stored: Mapping[str, Any]) -> bool:
    """Return whether a (resolved) run asks for more updates, or for another measure of them, than a stored one."""
    for name in ("updates", "epochs"):
        wanted, before = getattr(config, name), stored.get(name)
        if wanted is not None:
            return before is None or wanted > before
    return False


def _refuse_conflict(
    config: TrainingConfig,
    folder: Path,
    logs: Path,
    newest: dict[str, Any] | None,
    *,
    go_on: bool,
    lengthened: bool,
) -> None:
    """Refuse to mix runs: to go on with another one, to begin one anew unasked, or to replace another one's metrics.

    Raises:
        RunFolderError: If that would happen.
    """

    def is_elsewhere(logged: Mapping[str, Any]) -> bool:
        return bool(list_checkpoints(Path(logged.get("checkpoint_dir", config.checkpoint_dir)) / config.run_name()))

    length = ("updates", "epochs") if lengthened else ()
    conflict = find_conflict(
        folder,
        logs,
        {name: value for name, value in config.identity().items() if name not in length},
        newest and migrate_settings(newest["training_config"]),
        update=newest["update"] if newest else 0,
        go_on=go_on,
        migrate=migrate_settings,
        is_elsewhere=is_elsewhere,
    )
    if conflict is None:
        return
    if conflict.kind == "other":
        longer = newest is not None and not lengthened and is_longer(config, newest["training_config"])
        raise RunFolderError(
            f"{conflict.text}. Choose another --checkpoint_dir and --log_dir, or pass --overwrite to delete it"
            + ("; --resume lengthens it if nothing but its length differs" if longer else "")
        )
    raise RunFolderError(f"{conflict.text}; pass --resume to continue it, or --overwrite to delete it")


def _train_to_the_end(
    trainer: Trainer,
    checkpoints: RunCheckpoints,
    logs: Path,
    say: Callable[[str], object],
    interruption: Interruption,
    *,
    resumed: bool,
    quiet: bool,
) -> int:
    """Train and save, or what of that is left to do; return the exit code."""
    config, group = trainer.config, trainer.group
    if not quiet:  # it takes some batches
        with memory_shortage_told(SMALLER):
            for line in describe_start(trainer):
                say(line)
    tracker = None
    if group.leads:
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
    with interruption, memory_shortage_told(SMALLER):
        with tracker or nullcontext():
            stopped = _train(trainer, tracker, checkpoints, interruption, say, quiet=quiet or not group.leads)
            saved = checkpoints.save_last() if trainer.update and group.leads else None
        if tracker is not None and tracker.missing is not None and not quiet:
            print(f"incomplete: {tracker.missing}", file=sys.stderr)
        if stopped:
            say(describe_stop(trainer.update, saved))
        else:
            say(f"checkpoint  {saved}")
            say(f"logs        {logs} (metrics.jsonl; tensorboard --logdir {logs})")
            say(f"next        {name_module('more.evaluate')} --checkpoint_path {shlex.quote(str(saved))}")
        group.wait()  # torchrun ends the others when one has gone, and the leading one may be saving
    return stopped or int(tracker is not None and tracker.missing is not None)


def _train(
    trainer: Trainer,
    tracker: Tracker | None,
    checkpoints: RunCheckpoints,
    interruption: Interruption,
    say: Callable[[str], object],
    *,
    quiet: bool,
) -> int:
    """Run updates, logging, validation and checkpoints; return 0 at the end, or the code of an interruption before it.

    An interruption of one process is one of all, after the same update.
    """
    config = trainer.config
    unsaved, pace = Stopwatch(config.checkpoint_minutes), Pace()
    with Bar(
        total=trainer.total,
        initial=trainer.update,
        desc=config.run_name(),
        unit="update",
        disable=quiet,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
    ) as bar:
        while trainer.update < trainer.total:
            if stopped := trainer.group.largest(interruption.exit_code if interruption.stopping() else 0):
                return stopped
            trainer.run_update()
            bar.update()
            if pace.add(trainer.tokens, trainer.work) and not quiet:
                tqdm.write(describe_pace(trainer, pace), file=sys.stdout)
            last = trainer.update == trainer.total
            validate = last or (config.eval_interval > 0 and trainer.update % config.eval_interval == 0)
            if validate or trainer.update % config.log_interval == 0:
                metrics, figures = trainer.take_metrics()
                if validate:
                    metrics.update(trainer.validate())
                if tracker is not None:
                    _log(tracker, trainer.update, metrics, figures)
                bar.set_postfix_str(_progress(metrics), refresh=False)
            asked = config.checkpoint_interval > 0 and trainer.update % config.checkpoint_interval == 0
            if (asked or unsaved.is_over()) and not last and trainer.group.leads:
                checkpoints.save_on_the_way(timed=not asked)
                unsaved.restart()
    return 0


def _log(tracker: Tracker, update: int, metrics: dict[str, float], figures: list[RouterFigures]) -> None:
    loads = {f"Layer_{i}/Expert_Load_Distribution": layer.load for i, layer in enumerate(figures)}
    try:
        tracker.log(update, metrics, loads)
    except OSError as error:  # a disk that takes no line ends nothing
        tracker.note_missing(error)


def _progress(metrics: dict[str, float]) -> str:
    """Return the figures one watches."""
    valid = f", valid perplexity {metrics['Perplexity_valid']:.3f}" if "Perplexity_valid" in metrics else ""
    return (
        f"loss {metrics['Loss/train']:.3f}, perplexity {metrics['Perplexity']:.3f}{valid}, "
        f"{metrics['Tokens_per_Second']:,.0f} tokens/s"
    )
