"""Runs in words: settings, success, a table that fits its terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.config import TrainConfig
from pipeline.inspection.runs import RunInfo


def differing_fields(runs: Iterable[RunInfo]) -> list[str]:
    """Return the settings that decide what is learned and are not the same for all of these runs, but for the seed.

    Runs of unknown settings do not count.
    """
    known = [run.settings for run in runs if run.settings]
    names = [name for name in TrainConfig().full_identity() if name not in ("trial", "seed")]
    if not any(isinstance(run.get("task_id"), list) for run in known):  # else the table's title names the level
        names.remove("task_id")
    return [name for name in names if any(other.get(name) != known[0].get(name) for other in known[1:])]


def format_setting(value: Any) -> str:
    """Return a setting as short as it can be written without becoming another one; equal layers as [0,16,32] x 3."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if (
        isinstance(value, list)
        and len(value) > 1
        and isinstance(value[0], list)
        and value.count(value[0]) == len(value)
    ):
        return f"{format_setting(value[0])} x {len(value)}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def short_task(task_id: str) -> str:
    """Return a task's name without what all have in common."""
    return task_id.removeprefix("BabyAI-")


def format_updates(run: RunInfo) -> str:
    """Return the updates done of those in all."""
    return f"{'?' if run.update is None else run.update}/{'?' if run.target is None else run.target}"


def terminal_width() -> int | None:
    """Return the columns of the terminal that is printed to, None if it is none: a file holds lines of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], left: Sequence[bool], width: int | None) -> list[str]:
    """Return rows as lines of columns, each as wide as its widest cell; lines that are too wide end in an ellipsis.

    Args:
        rows: Of equal length; the first one is the head.
        left: Which columns are to the left; the others, numbers, to the right.
        width: Of the terminal; None: lines have any length.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(left))]
    lines = []
    for row in rows:
        cells = [f"{c:<{w}}" if at_left else f"{c:>{w}}" for c, w, at_left in zip(row, widths, left, strict=True)]
        line = "  ".join(cells).rstrip()
        lines.append(line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…")
    return lines
