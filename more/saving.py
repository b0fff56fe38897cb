"""The checkpoints of a run's folder: which are there, from which to go on, which are written and which go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from more.checkpoints import FINAL_NAME, list_numbered, number_of, numbered_path, read_checkpoint
from more.training import Trainer, UnsavedError
from pipeline.checkpoint_files import CheckpointError, explain_damage
from pipeline.command.errors import explain
from pipeline.command.files import remove_leftovers
from pipeline.guard import describe_unsaved


class RunCheckpoints:
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
        _remove_others(older, path)

    def save_last(self) -> Path:
        """Write the one with which the run ends, at its end or where it is stopped, and return its path.

        Those to resume from are then removed but for the newest, at the end that one too if it was a timed one.

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
        if numbered := list_numbered(folder):
            _remove_others(numbered, numbered[-1] if complete else path)
        return path


def _remove_others(paths: Sequence[Path], kept: Path) -> None:
    """Remove files but for one."""
    for path in paths:
        if path != kept:
            path.unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the run's checkpoints, by their updates; the final one is the last."""
    final = folder / FINAL_NAME
    return [*list_numbered(folder), *([final] if final.is_file() else [])]


def clear_leftovers(folder: Path, say: Callable[[str], object]) -> None:
    """Remove what a process that was killed while it saved has left; only the one who holds the run may."""
    removed = [path for name in ("checkpoint_*.pth", FINAL_NAME) for path in remove_leftovers(folder, name)]
    if removed:
        say(f"removed what a run that was killed while saving has left: {', '.join(map(str, removed))}")


def read_newest(folder: Path) -> dict[str, Any] | None:
    """Return the content of the run's last checkpoint; None where there is none.

    The final one is the last, unless a run that was complete has been lengthened and not come to its new end.

    Raises:
        CheckpointError: If it is damaged; with the newest sound one before it.
    """
    paths = list_checkpoints(folder)
    if not paths:
        return None
    try:
        newest = read_checkpoint(paths[-1])
    except CheckpointError as error:
        raise explain_damage(error, paths[-1], reversed(paths[:-1]), _update_of) from None
    if paths[-1].name == FINAL_NAME and len(paths) > 1 and number_of(paths[-2]) > newest["update"]:
        return read_checkpoint(paths[-2])
    return newest


def read_to_lengthen(folder: Path, newest: dict[str, Any]) -> dict[str, Any]:
    """Return what a longer training of a run goes on from: the newest checkpoint with the optimiser's state.

    Args:
        folder: Of the run.
        newest: Of `read_newest`; it is taken itself where no other has that state.
    """
    if "optimizer_state_dict" in newest or not (numbered := list_numbered(folder)):
        return newest
    return read_checkpoint(numbered[-1])


def _update_of(path: Path) -> int:
    return int(read_checkpoint(path)["update"])
