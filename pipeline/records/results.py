"""`evaluation_results.csv`: one row per evaluated checkpoint, added one by one, shared by any number of processes.

    append_result("evaluation_results.csv", {"checkpoint_path": "checkpoints/...", "success_rate": 0.93, ...})
    results = read_results("evaluation_results.csv")              # a DataFrame: Int64, float64, boolean, string
    results.groupby(["task_id", "lpc_alpha"])["success_rate"].describe()

Adding a row rewrites the file under a lock, to a temporary name that then takes its place: whoever is killed, the file
is whole and holds every row added before. docs/cache.md says what the columns mean.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.command.files import replace_atomically
from pipeline.command.folders import HeldError, hold_lock
from pipeline.command.names import name_command
from pipeline.records.cells import COLUMNS, TEXT, build_column, dtype, from_cell, is_typed, kind, to_cell
from pipeline.records.texts import ResultsError, read_texts, write_texts

Rows = pd.DataFrame | Iterable[Mapping[str, Any]]
"""Rows of results: a DataFrame, or dicts with None for what is empty."""

_LOCK_SECONDS = 120.0  # a row takes milliseconds; who waits as long waits for a process that hangs


def append_result(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add the row of a checkpoint, in place of an earlier row with the same `checkpoint_path` and of the same level.

    Other rows are kept as they are, character for character. What the file did not have is empty.

    Args:
        path: The CSV; it and its folder are made where there are none.
        row: Values by column, at least `checkpoint_path`; keys that are no column are left out. Plain types, numpy
            numbers, lists.

    Raises:
        ResultsError: If the file is something else, or another process holds its lock for minutes. It is untouched.
        ValueError: If a value is not finite, or there is no `checkpoint_path`.
    """
    append_results(path, [row])


def append_results(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows as `append_result` does, all of them or, where one cannot be written, none; the file is written once.

    Args:
        path: The CSV.
        rows: See `append_result`; of two of one checkpoint and level the later one stays.

    Raises:
        ResultsError: As for a single row.
        ValueError: Likewise.
    """
    for row in rows:
        if not isinstance(identity := row.get("checkpoint_path"), str) or not identity:
            raise ValueError(f"checkpoint_path: expected a path as text, found {identity!r}")
    path = Path(os.path.realpath(path))  # one file, one lock, by whatever name it is reached
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = hold_lock(path.with_name(f".{path.name}.lock"), _LOCK_SECONDS)
        with lock, pd.option_context("mode.string_storage", "python"):  # as TEXT, where pyarrow is installed
            texts = read_texts(path).reset_index(drop=True)
            columns = [*COLUMNS, *(name for name in texts if name not in COLUMNS)]
            texts = texts.reindex(columns=columns, fill_value="")
            for row in rows:
                texts = _place_row(texts, row)
            for stray in glob.glob(f".{glob.escape(path.name)}.*.tmp", root_dir=path.parent, include_hidden=True):
                (path.parent / stray).unlink(missing_ok=True)  # of a process that was killed; we hold the lock
            with replace_atomically(path) as temporary:
                write_texts(texts, temporary)
    except HeldError as error:
        raise ResultsError(
            f"{path}: another process has kept it locked for {_LOCK_SECONDS:.0f} s; end that process, or choose "
            "another --results_path" + (error.args[0] and f" ({error})")
        ) from None


def _place_row(texts: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Return a file's texts with a row in place of those of its checkpoint and level, or at the end."""
    mine = texts["checkpoint_path"] == row["checkpoint_path"]
    mine &= _other_level(texts) == _other_level(pd.DataFrame([dict(row)])).iloc[0]
    places = texts.index[mine]
    texts = texts.drop(index=places[1:])
    place = places[0] if len(places) else texts.index.max() + 1 if len(texts) else 0
    texts.loc[place] = [to_cell(name, row[name]) if name in row else "" for name in texts]
    return texts


def read_results(path: str | Path) -> pd.DataFrame:
    """Return the rows; every column of `COLUMNS` is there, what is empty is NA.

    Whole numbers are Int64, others float64, yes and no boolean, texts (`evaluated_at`, in ISO form, too) string;
    `expert_hidden_sizes` holds lists, one per layer, however they are spelled; `trained_levels` and `task_weights` hold
    lists where a mixture was trained. NaN, None and the like, and what is not finite, are NA. Columns that are not of
    `COLUMNS` are texts as they stand.

    Raises:
        ResultsError: If there is no such file, it is something else, or a cell is not what its column holds.
    """
    path = Path(path)
    if not path.exists():
        raise ResultsError(f"{path}: no such file; `{name_command('evaluate')}` writes it")
    texts = read_texts(path)
    columns = {}
    for name in dict.fromkeys((*COLUMNS, *texts)):
        values: list[Any] = [None] * len(texts)
        for place, cell in enumerate(texts[name] if name in texts else ()):
            try:
                values[place] = from_cell(name, cell)
            except (ValueError, OverflowError, RecursionError):
                raise ResultsError(
                    f"{path}: line {texts.index[place]}: {name}: expected {kind(name)}, found {cell[:60]!r}; correct "
                    "it, or remove the line and evaluate that checkpoint again"
                ) from None
        columns[name] = pd.Series(values, dtype=dtype(name) if name in COLUMNS else TEXT)
    return pd.DataFrame(columns)


def as_results(rows: Rows) -> pd.DataFrame:
    """Return rows as `read_results` does; of a DataFrame or dicts that lack columns these are NA.

    Sizes of experts may be spelled in any way that the configuration takes, or as JSON. A column that holds anything
    else than it should, as in rows made from other code's files, stays as it is.
    """
    index = None
    if isinstance(rows, pd.DataFrame):
        index = rows.index if rows.index.is_unique else pd.RangeIndex(len(rows))
        if set(COLUMNS) <= set(rows) and all(is_typed(rows[name], name) for name in COLUMNS):
            return rows.set_axis(index) if index is not rows.index else rows
        rows = plain_rows(rows)
    rows = list(rows)
    names = dict.fromkeys((*COLUMNS, *(name for row in rows for name in row)))
    return pd.DataFrame({name: build_column(name, [row.get(name) for row in rows], index) for name in names}, index)


def plain_rows(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dicts of plain types, None for NA, each as `append_result` takes it."""
    return results.astype(object).where(results.notna(), None).to_dict("records")


def find_done(
    results: pd.DataFrame,
    *,
    checkpoint_digest: str,
    num_episodes: int,
    eval_seed: int,
    max_steps: int | None = None,
    checkpoint_path: str | None = None,
    eval_task_id: str | None = None,
) -> dict[str, Any] | None:
    """Return the row, in plain types, that already answers an evaluation, the one of most episodes; None for none.

    Args:
        results: From `read_results`.
        checkpoint_digest: Of the weights: a file that was trained again is another checkpoint, whatever its path.
        num_episodes: At least so many.
        eval_seed: Of the levels.
        max_steps: Step limit as in the column, None for each level's own.
        checkpoint_path: If given, only a row of this path will do.
        eval_task_id: Level that was played, if it is another than the run's own.
    """
    fits = (results["checkpoint_digest"] == checkpoint_digest) & (results["eval_seed"] == eval_seed)
    fits &= results["max_steps"].isna() if max_steps is None else results["max_steps"] == max_steps
    fits &= _other_level(results) == (eval_task_id or "")
    if checkpoint_path is not None:
        fits &= results["checkpoint_path"] == checkpoint_path
    done = results[(fits & (results["num_episodes"] >= num_episodes)).fillna(False)]
    return plain_rows(done.loc[[done["num_episodes"].idxmax()]])[0] if len(done) else None


def find_largest(
    results: pd.DataFrame, *, checkpoint_path: str, checkpoint_digest: str, eval_task_id: str | None = None
) -> int:
    """Return of how many levels the row of a checkpoint is, 0 if there is none or it is of other weights.

    Args:
        results: From `read_results`.
        checkpoint_path: As the row names it.
        checkpoint_digest: Of the weights.
        eval_task_id: Level that was played, if it is another than the run's own.
    """
    mine = (results["checkpoint_path"] == checkpoint_path) & (_other_level(results) == (eval_task_id or ""))
    rows = results[mine.fillna(False)]
    same = (rows["checkpoint_digest"] == checkpoint_digest).fillna(False)
    return int(rows.loc[same, "num_episodes"].fillna(0).max()) if same.any() else 0


def _other_level(rows: pd.DataFrame) -> pd.Series:
    """Return the level that each row's policy was played on, "" where it is the run's own, as in every older row."""
    played = rows.reindex(columns=["eval_task_id"], fill_value="")["eval_task_id"].fillna("").astype(str)
    own = rows.reindex(columns=["task_id"], fill_value="")["task_id"].fillna("").astype(str)
    return played.where(played != own, "")
