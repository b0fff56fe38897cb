"""A policy run's folders: its newest checkpoint, whether others have changed them, its final evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoints import CheckpointHeader, read_header
from pipeline.config import TrainConfig
from pipeline.guard import has_log
from pipeline.places import list_checkpoints, run_folder
from pipeline.tracking import METRICS_FILE

Stamp = tuple[tuple[str, int, int], ...]


def newest_checkpoint(folder: Path) -> tuple[Path, CheckpointHeader] | None:
    """Return path and header of the checkpoint with the most updates, None where there is none.

    Raises:
        CheckpointError: If one cannot be read.
    """
    newest = None
    for path in list_checkpoints(folder)[-2:]:  # the last numbered one and the final one
        header = read_header(path)
        if newest is None or header.update > newest[1].update:
            newest = path, header
    return newest


def stamp_checkpoints(folder: Path) -> Stamp:
    """Return what changes when another process writes or deletes a checkpoint of the folder."""
    return tuple((path.name, (s := path.stat()).st_mtime_ns, s.st_size) for path in list_checkpoints(folder))


def has_checkpoints(logged: Mapping[str, Any], config: TrainConfig) -> bool:
    """Return whether the run whose metrics lie beside these settings has checkpoints where they say."""
    return bool(list_checkpoints(run_folder(logged["checkpoint_dir"], config)))


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
