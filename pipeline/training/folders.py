"""A run's folders: what is there, whether it is the same run, who is at work in them, and what may be deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout

from pipeline.checkpoints import read_checkpoint
from pipeline.command.folders import LOCK_NAME, hold_lock, make_writable
from pipeline.config import ConfigError, TrainConfig
from pipeline.places import list_checkpoints, run_folder
from pipeline.tracking import METRICS_FILE

CONFIG_FILE = "config.yaml"


class RunFolderError(ConfigError):
    """A run's folder holds something that must not be overwritten by accident."""


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return path and content of the checkpoint with the most updates, None where there is none.

    Raises:
        CheckpointError: If one cannot be read.
    """
    newest = None
    for path in list_checkpoints(folder)[-2:]:  # the last numbered one and the final one
        content = read_checkpoint(path)
        if newest is None or content["update"] > newest[1]["update"]:
            newest = path, content
    return newest


def differing_settings(content: Mapping[str, Any], config: TrainConfig, but: Collection[str] = ()) -> str:
    """Return how a checkpoint was trained differently, of the settings that decide what is learned; "" if it was not.

    Args:
        content: Of the checkpoint.
        config: The settings of here.
        but: Settings that may differ.
    """
    stored, wanted = content["config"], config.identity()
    return "; ".join(
        f"{name} is {stored.get(name)!r} there, {wanted[name]!r} here"
        for name in wanted
        if name not in but and stored.get(name) != wanted[name]
    )


def is_unchanged(folder: Path, update: int | None) -> bool:
    """Return whether a folder's newest checkpoint is of this update; None stands for no checkpoint at all."""
    found = newest_checkpoint(folder)
    return (None if found is None else found[1]["update"]) == update


# --------------------------------------------------------------------------------------------------------------- logs


def has_log(logs: Path) -> bool:
    """Return whether a log folder holds metrics."""
    path = logs / METRICS_FILE
    return path.is_file() and path.stat().st_size > 0


def is_log_of(logs: Path, config: TrainConfig) -> bool:
    """Return whether a log folder is of this run, and of one that has no checkpoint where its `config.yaml` says."""
    try:
        stored = yaml.safe_load((logs / CONFIG_FILE).read_text(encoding="utf-8"))
        stored = {**TrainConfig().to_dict(), **stored}
        elsewhere = list_checkpoints(run_folder(stored["checkpoint_dir"], config))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return False
    return not elsewhere and not differing_settings({"config": stored}, config)


def lacks_evaluation(config: TrainConfig, logs: Path) -> bool:
    """Return whether a run that has all its updates is to be evaluated and its log says that it never was."""
    wanted = config.final_eval_episodes
    return wanted > 0 and has_log(logs) and read_final_evaluation(logs, config.num_updates, wanted) is None


def read_final_evaluation(logs: Path, update: int, episodes: int) -> dict[str, float | int | None] | None:
    """Return the last line of a run's metrics if it is the evaluation that ended training, else None.

    Args:
        logs: The run's log folder.
        update: The run's last.
        episodes: Levels of the final evaluation, which tell it from those during training; 0 takes any evaluation.
    """
    try:
        last = (logs / METRICS_FILE).read_text(encoding="utf-8").splitlines()[-1]
        line = json.loads(last)
        played = line.get("eval/episodes")
        return line if played and episodes in (0, played) and line["update"] == update else None
    except (OSError, IndexError, KeyError, ValueError, AttributeError):
        return None


# ------------------------------------------------------------------------------------------------- one process at work


@contextmanager
def hold_run(logs: Path) -> Iterator[None]:
    """Make a run's log folder and keep other processes from training the run meanwhile.

    Raises:
        RunFolderError: If another process trains it, or the folder cannot be written.
    """
    make_writable(logs)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(logs / LOCK_NAME, timeout=0))
        except Timeout:
            raise RunFolderError(describe_held(logs)) from None
        yield


def is_held(logs: Path) -> bool:
    """Return whether a process trains the run; nothing is left behind."""
    path = logs / LOCK_NAME
    if not path.exists():
        return False
    try:
        with hold_lock(path, timeout=0):
            return False
    except Timeout:
        return True


def describe_held(logs: Path) -> str:
    """Return what to say of a run that another process trains."""
    return f"{logs} is being trained by another process"


def clear_run(folder: Path, logs: Path) -> None:
    """Delete the files of an earlier run, and only those that a run writes."""
    for path in [*list_checkpoints(folder), logs / CONFIG_FILE, logs / METRICS_FILE]:
        path.unlink(missing_ok=True)
    for path in logs.glob("events.out.tfevents.*"):
        path.unlink()
    shutil.rmtree(logs / "wandb", ignore_errors=True)
