"""A run's folders: what is there, whether it is the same run, and what may be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoints import list_checkpoints, read_checkpoint
from pipeline.config import ConfigError, TrainConfig


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


def clear_run(folder: Path, logs: Path) -> None:
    """Delete the files of an earlier run, and only those that a run writes."""
    for path in [*list_checkpoints(folder), logs / "config.yaml", logs / "metrics.jsonl"]:
        path.unlink(missing_ok=True)
    for path in logs.glob("events.out.tfevents.*"):
        path.unlink()
    shutil.rmtree(logs / "wandb", ignore_errors=True)
