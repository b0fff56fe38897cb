"""A policy run's folders: its newest checkpoint, whether others have changed them, its final evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.checkpoint_files import CheckpointError, explain_damage
from pipeline.checkpoints import CheckpointHeader, read_header, verify_checkpoint
from pipeline.config import TrainConfig
from pipeline.guard import has_log
from pipeline.places import checkpoint_path, list_checkpoints, named_update, run_folder
from pipeline.tracking import METRICS_FILE

Stamp = tuple[tuple[str, int, int], ...]


def newest_checkpoint(folder: Path) -> tuple[Path, CheckpointHeader] | None:
    """Return path and header of the checkpoint with the most updates, None where there is none.

    Raises:
        CheckpointError: If the newest one, or what may be it, says nothing that can be read; with what to do.
    """
    newest, damaged = None, {}
    for path in list_checkpoints(folder)[-2:]:  # the last numbered one and the final one
        try:
            header = read_header(path)
        except CheckpointError as error:
            damaged[path] = error
            continue
        if newest is None or header.update > newest[1].update:
            newest = path, header
    for path, error in reversed(damaged.items()):
        number = named_update(path)  # of a final one nobody knows
        if newest is None or number is None or number > newest[1].update:
            raise _explain(path, error)
    return newest


def has_final(folder: Path, update: int) -> bool:
    """Return whether a run's final checkpoint can be read and is of this update; a lengthened run's may be older."""
    path = checkpoint_path(folder, None)
    try:
        return path.is_file() and read_header(path).update == update
    except CheckpointError:
        return False


def check_newest(path: Path, *, complete: bool) -> None:
    """Refuse a run's newest checkpoint if its weights, or what going on from it needs, are not what was saved.

    Args:
        path: The checkpoint.
        complete: Nothing is to go on from it: the weights alone count.

    Raises:
        CheckpointError: If they are not; with what to do.
    """
    try:
        verify_checkpoint(path, resumable=not complete)
    except CheckpointError as error:
        raise _explain(path, error) from None


def _explain(path: Path, error: CheckpointError) -> CheckpointError:
    """Return what to say of a damaged checkpoint, with the newest one before it from which its run can go on."""
    others = sorted((other for other in list_checkpoints(path.parent) if other != path), key=_claimed_update)[::-1]
    return explain_damage(error, path, others, partial(verify_checkpoint, resumable=True))


def _claimed_update(path: Path) -> int:
    """Return the update that a checkpoint's name says, or a final one itself; -1 if that cannot be read."""
    update = named_update(path)
    try:
        return read_header(path).update if update is None else update
    except CheckpointError:
        return -1


def stamp_checkpoints(folder: Path) -> Stamp:
    """Return what changes when another process writes or deletes a checkpoint of the folder."""
    return tuple((path.name, (s := path.stat()).st_mtime_ns, s.st_size) for path in list_checkpoints(folder))


def has_checkpoints(logged: Mapping[str, Any], config: TrainConfig) -> bool:
    """Return whether the run whose metrics lie beside these settings has checkpoints where they say."""
    return bool(list_checkpoints(run_folder(logged["checkpoint_dir"], config)))


def count_final_episodes(config: TrainConfig) -> int:
    """Return how many episodes the final evaluation plays, over all levels."""
    return config.final_eval_episodes * len(config.levels)


def lacks_evaluation(config: TrainConfig, logs: Path) -> bool:
    """Return whether a run that has all its updates is to be evaluated and its log says that it never was."""
    wanted = count_final_episodes(config)
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
