"""The guard of a run's folders, for policies and language models: which run is there, who is at work, what may go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.command.errors import ConfigError
from pipeline.command.files import write_text
from pipeline.command.folders import (
    LOCK_NAME,
    HeldError,
    describe_holder,
    hold_lock,
    is_lock_held,
    make_writable,
)
from pipeline.tracking import METRICS_FILE, WANDB_ID_FILE

CONFIG_FILE = "config.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # .3 ms a run instead of 2

SWITCHES = {
    "resume": "Continue from the newest checkpoint of this run; starts afresh if there is none.",
    "overwrite": "Delete what an earlier run left in this run's folders, and start afresh.",
}
"""Flags of every command that trains, with their help."""


class RunFolderError(ConfigError):
    """A run's folder holds something that must not be overwritten by accident."""


@dataclass(frozen=True)
class Conflict:
    """Why a run may not begin in its folders.

    Attributes:
        kind: other: they hold another run. begun: they hold this one, and nothing says to go on with it.
        text: What is there, in words; what to do is for the command to say.
    """

    kind: Literal["other", "begun"]
    text: str


def check_switches(*, resume: bool, overwrite: bool) -> None:
    """Refuse both switches at once.

    Raises:
        ConfigError: If both are given.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: one keeps what is there, the other deletes it")


def describe_stop(update: int, path: Path | None) -> str:
    """Return what to say of a run that was stopped after an update; without a checkpoint none was left to save."""
    if path is None:
        return "interrupted; nothing was left to save: --resume begins where this began"
    return f"interrupted after update {update}; saved {path}; --resume continues from there"


def describe_unsaved(why: str, newest: Path | None) -> str:
    """Return what to say of a run whose last checkpoint could not be written.

    Args:
        why: With the file's name.
        newest: The checkpoint that the run has, if any.
    """
    rest = f"goes on from {newest}" if newest else "starts the run again: there is no earlier one"
    return f"{why}; once there is room, --resume {rest}"


def find_conflict(
    folder: Path,
    logs: Path,
    wanted: Mapping[str, Any],
    stored: Mapping[str, Any] | None,
    *,
    update: int = 0,
    go_on: bool = False,
    defaults: Mapping[str, Any] | None = None,
    migrate: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    is_elsewhere: Callable[[Mapping[str, Any]], bool] = lambda logged: False,
) -> Conflict | None:
    """Return why a run may not begin, None if it may.

    Args:
        folder: Of its checkpoints.
        logs: Of its metrics.
        wanted: Its settings that decide what is learned.
        stored: All settings of the newest checkpoint there; None without one.
        update: Of that checkpoint.
        go_on: Whether the run is to go on, or has nothing left to learn.
        defaults: What the settings beside older metrics may lack.
        migrate: Makes of the settings beside older metrics what they are called now.
        is_elsewhere: Whether the run of the settings beside the metrics has checkpoints in another folder.
    """
    logged = read_settings(logs) if has_log(logs) else None
    logged = logged and migrate({**(defaults or {}), **logged})
    if stored is not None:
        if differences := differing_settings(stored, wanted):
            return Conflict("other", f"{folder} holds another run ({differences})")
        if logged is not None and (differences := differing_settings(logged, wanted)):
            return Conflict("other", f"{logs} holds the metrics of another run ({differences})")
        return None if go_on else Conflict("begun", f"{folder} holds this run, up to update {update}")
    if not has_log(logs):
        return None
    differences = "its settings are unknown" if logged is None else differing_settings(logged, wanted)
    if differences or is_elsewhere(logged):
        why = f" ({differences})" if differences else f": {folder} has no checkpoint of theirs"
        return Conflict("other", f"{logs} holds the metrics of another run{why}")
    return None if go_on else Conflict("begun", f"{logs} holds metrics of this run, which has no checkpoint yet")


def differing_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any], but: Collection[str] = ()) -> str:
    """Return which of the wanted settings are stored differently, "" if none is.

    Args:
        stored: Of the run that is there.
        wanted: Of the run that is to be.
        but: Settings that may differ.
    """
    return "; ".join(
        f"{name} is {stored.get(name)!r} there, {value!r} here"
        for name, value in wanted.items()
        if name not in but and stored.get(name) != value
    )


# --------------------------------------------------------------------------------------------------------------- logs


def has_log(logs: Path) -> bool:
    """Return whether a log folder holds metrics."""
    path = logs / METRICS_FILE
    return path.is_file() and path.stat().st_size > 0


def read_settings(logs: Path) -> dict[str, Any] | None:
    """Return the settings that a run has written beside its metrics, None if there are none that can be read."""
    try:
        stored = yaml.load((logs / CONFIG_FILE).read_text(encoding="utf-8"), _LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return stored if isinstance(stored, dict) else None


def write_settings(logs: Path, text: str) -> None:
    """Write a run's settings, YAML that `--config` reads back, beside its metrics."""
    write_text(logs / CONFIG_FILE, text)


def clear_run(checkpoints: Iterable[Path], logs: Path) -> None:
    """Delete the files of an earlier run, and only those that a run writes."""
    for path in [*checkpoints, logs / CONFIG_FILE, logs / METRICS_FILE, logs / WANDB_ID_FILE]:
        path.unlink(missing_ok=True)
    for path in logs.glob("events.out.tfevents.*"):
        path.unlink()
    shutil.rmtree(logs / "wandb", ignore_errors=True)


# ------------------------------------------------------------------------------------------------- one process at work


@contextmanager
def hold_run(*folders: Path) -> Iterator[None]:
    """Make a run's folders and keep other processes from training it meanwhile; those left empty go in the end.

    Raises:
        RunFolderError: If another process trains it.
        FolderError: If a folder cannot be written.
    """
    places = {folder.resolve(): folder for folder in folders}
    made = [place for folder in places for place in (folder, *folder.parents) if not place.exists()]
    try:
        with ExitStack() as stack:
            for folder in dict(sorted(places.items())).values():  # in one order, or two processes wait for each other
                make_writable(folder)
                try:
                    stack.enter_context(hold_lock(folder / LOCK_NAME, timeout=0))
                except HeldError:
                    raise RunFolderError(describe_held(folder)) from None
            yield
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def is_held(folder: Path) -> bool:
    """Return whether a process trains the run of a folder; nothing is left behind."""
    return is_lock_held(folder / LOCK_NAME)


def describe_held(folder: Path) -> str:
    """Return what to say of a run that another process trains."""
    holder = describe_holder(folder / LOCK_NAME)
    return f"{folder} is being trained by another process" + (holder and f": {holder}")
