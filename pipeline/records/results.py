"""`evaluation_results.csv`: one row per evaluated checkpoint, added one by one, shared by any number of processes.

    append_result("evaluation_results.csv", {"checkpoint_path": "checkpoints/...", "success_rate": 0.93, ...})
    rows = read_results("evaluation_results.csv")                 # dicts of ints, floats, bools, lists, None

Adding a row rewrites the file under a lock, to a temporary name that then takes its place: whoever is killed, the file
is whole and holds every row added before. docs/cache.md says what the columns mean.
"""

from __future__ import annotations

import csv
import glob
import json
import math
import os
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically

_FLOATS = frozenset(
    "success_rate path_ratio mean_lpc lr lpc_alpha lpc_eps lpc_exponent success_low success_high path_ratio_median "
    "mean_lpc_per_episode mean_lpc_success mean_lpc_failure mean_lpc_timeout agreement mean_steps".split()
)
_BOOLS = frozenset("normalize_lpc expert_dropout train_lang_proj has_routing".split())
_LISTS = frozenset(["expert_hidden_sizes"])
_TEXTS = frozenset(
    "checkpoint_path task_id evaluated_at policy lpc_denominator expert_norm lang_encoder checkpoint_digest".split()
)

FIRST_COLUMNS = tuple(
    "checkpoint_path task_id trial num_episodes success_rate path_ratio mean_lpc bot_plan_failures num_updates "
    "unroll_len lr lpc_alpha expert_hidden_sizes intermediate_dim router_hidden_size max_steps lang_dim "
    "evaluated_at".split()
)
"""What every reader of these files knows, in this order."""

COLUMNS = (
    *FIRST_COLUMNS,
    *"seed update policy hidden_size normalize_lpc lpc_denominator lpc_eps lpc_exponent expert_norm expert_dropout "
    "lang_encoder train_lang_proj successes failures timeouts success_low success_high path_ratio_median path_ratio_n "
    "mean_lpc_per_episode mean_lpc_success mean_lpc_failure mean_lpc_timeout agreement labelled_steps mean_steps "
    "total_steps eval_seed checkpoint_digest has_routing".split(),
)
"""The columns of a new file; one with other columns keeps them at its end."""

_NEEDED = ("checkpoint_path", "task_id", "num_episodes")
_LOCK_SECONDS = 120.0  # a row takes milliseconds; who waits as long waits for a process that hangs


class ResultsError(UserError, ValueError):
    """A results file that cannot be used; the message names it, what was expected and what to do."""


def append_result(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add the row of a checkpoint, in place of an earlier row with the same `checkpoint_path`.

    Other rows are kept as they are, character for character. What the file did not have is empty.

    Args:
        path: The CSV; it and its folder are made where there are none.
        row: Values by column, at least `checkpoint_path`; keys that are no column are left out. Plain types, numpy
            numbers, lists.

    Raises:
        ResultsError: If the file is something else, or another process holds its lock for minutes. It is untouched.
        ValueError: If a value is not finite, or there is no `checkpoint_path`.
    """
    identity = row.get("checkpoint_path")
    if not isinstance(identity, str) or not identity:
        raise ValueError(f"checkpoint_path: expected a path as text, found {identity!r}")
    path = Path(os.path.realpath(path))  # one file, one lock, by whatever name it is reached
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            columns, rows = _read(path)
            columns = [*COLUMNS, *(name for name in columns if name not in COLUMNS)]
            cells = {name: _to_cell(name, row[name]) for name in columns if name in row}
            places = [k for k, other in enumerate(rows) if other["checkpoint_path"] == identity]
            kept = [other for k, other in enumerate(rows) if k not in places[1:]]
            if places:
                kept[places[0]] = cells
            else:
                kept.append(cells)
            for stray in glob.glob(f".{glob.escape(path.name)}.*.tmp", root_dir=path.parent, include_hidden=True):
                (path.parent / stray).unlink(missing_ok=True)  # of a process that was killed; we hold the lock
            with replace_atomically(path) as temporary, temporary.open("wb") as file:
                lines = [columns, *([other.get(name, "") for name in columns] for other in kept)]
                file.write("".join(_to_line(line) for line in lines).encode("utf-8", "surrogateescape"))
    except Timeout:
        raise ResultsError(
            f"{path}: another process has kept it locked for {_LOCK_SECONDS:.0f} s; end that process, or choose "
            "another --results_path"
        ) from None


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows with typed values, None for an empty cell; every column of `COLUMNS` is there.

    Columns that are not of `COLUMNS` stay texts.

    Raises:
        ResultsError: If there is no such file, it is something else, or a cell is not what its column holds.
    """
    path = Path(path)
    if not path.exists():
        raise ResultsError(f"{path}: no such file; `python batch_eval.py` writes it")
    typed = []
    for number, cells in enumerate(_read(path)[1], start=1):
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        for name, cell in cells.items():
            try:
                row[name] = _from_cell(name, cell)
            except (ValueError, OverflowError, RecursionError):
                raise ResultsError(
                    f"{path}: row {number}: {name}: expected {_kind(name)}, found {cell[:60]!r}; correct it, or remove "
                    "the row and evaluate that checkpoint again"
                ) from None
        typed.append(row)
    return typed


def find_done(
    rows: Iterable[Mapping[str, Any]],
    *,
    checkpoint_digest: str,
    num_episodes: int,
    eval_seed: int,
    max_steps: int | None = None,
    checkpoint_path: str | None = None,
) -> dict[str, Any] | None:
    """Return the row that already answers an evaluation, the one of most episodes; None if there is none.

    Args:
        rows: From `read_results`.
        checkpoint_digest: Of the weights: a file that was trained again is another checkpoint, whatever its path.
        num_episodes: At least so many.
        eval_seed: Of the levels.
        max_steps: Step limit as in the column, None for each level's own.
        checkpoint_path: If given, only a row of this path will do.
    """
    wanted = {"checkpoint_digest": checkpoint_digest, "eval_seed": eval_seed, "max_steps": max_steps}
    if checkpoint_path is not None:
        wanted["checkpoint_path"] = checkpoint_path
    done = [
        row
        for row in rows
        if all(row.get(key) == value for key, value in wanted.items())
        and (row.get("num_episodes") or 0) >= num_episodes
    ]
    return dict(max(done, key=lambda row: row["num_episodes"])) if done else None


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows as texts; nothing for a file that is missing or empty.

    Raises:
        ResultsError: If it is another kind of file.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except FileNotFoundError:
        return [], []
    advice = "move it away, or choose another --results_path"
    try:
        lines = [line for line in csv.reader(StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise ResultsError(f"{path}: expected a CSV of evaluation results ({error}); {advice}") from None
    if not lines:
        if text.strip():
            raise ResultsError(f"{path}: expected a CSV of evaluation results; {advice}")
        return [], []
    columns = lines[0]
    missing = [name for name in _NEEDED if name not in columns]
    if missing or len(set(columns)) < len(columns):
        found = ", ".join(columns)[:120]
        raise ResultsError(f"{path}: expected the columns {', '.join(_NEEDED)}, ..., found {found!r}; {advice}")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(columns):
            raise ResultsError(
                f"{path}: row {number}: expected {len(columns)} cells as in the first line, found {len(line)}; correct "
                f"it, or {advice}"
            )
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def _to_line(cells: Iterable[str]) -> str:
    """Return a line of CSV. The csv module of Python 3.11 leaves a lone carriage return without quotes."""
    return ",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' if set(c) & set(',"\r\n') else c for c in cells) + "\n"


def _to_cell(name: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, or None where there is none, found {value}")
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, allow_nan=False)
    return str(value)


def _from_cell(name: str, cell: str) -> Any:
    if name not in COLUMNS:
        return cell or None
    if cell == "":
        return None
    if name in _TEXTS:
        return cell
    if name in _BOOLS and cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if name in _LISTS:
        value = json.loads(cell)
        if isinstance(value, list):
            return value
    elif name in _FLOATS:
        number = float(cell)
        if math.isfinite(number):
            return number
    elif name not in _BOOLS:
        number = float(cell)
        if number.is_integer():  # pandas writes whole numbers as 100.0 where others are missing
            return int(number) if "." in cell or "e" in cell.lower() else int(cell)
    raise ValueError


def _kind(name: str) -> str:
    for names, kind in ((_FLOATS, "a finite number"), (_BOOLS, "true or false"), (_LISTS, "a list as JSON")):
        if name in names:
            return kind
    return "a whole number"
