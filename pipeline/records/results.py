"""`evaluation_results.csv`: one row per evaluated checkpoint, shared by any number of processes; reading and finding.

    results = read_results("evaluation_results.csv")              # a DataFrame: Int64, float64, boolean, string
    results.groupby(["task_id", "lpc_alpha"])["success_rate"].describe()

`pipeline.records.adding` adds rows; docs/cache.md says what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.command.names import name_command
from pipeline.records.cells import COLUMNS, TEXT, build_column, dtype, from_cell, is_typed, kind
from pipeline.records.contents import find_contents, read_contents
from pipeline.records.texts import ResultsError, Texts

Rows = pd.DataFrame | Iterable[Mapping[str, Any]]
"""Rows of results: a DataFrame, or dicts with None for what is empty."""


def read_results(path: str | Path) -> pd.DataFrame:
    """Return the rows; every column of `COLUMNS` is there, what is empty is NA.

    Whole numbers are Int64, others float64, yes and no boolean, texts (`evaluated_at`, in ISO form, too) string;
    `expert_hidden_sizes` holds lists, one per layer, however they are spelled; `trained_levels` and `task_weights` hold
    lists where a mixture was trained. NaN, None and the like, and what is not finite, are NA. Columns that are not of
    `COLUMNS` are texts as they stand.

    Raises:
        ResultsError: If there is no such file, it is something else, or a cell is not what its column holds.
    """
    return _build_table(_read_values(Path(path)))


def read_plain(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows as `plain_rows(read_results(path))` does, without a table: quick where they are few.

    Raises:
        ResultsError: As there.
    """
    columns = _read_values(Path(path))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_rows(path: str | Path, checkpoint_path: str) -> pd.DataFrame:
    """Return the rows of one checkpoint as `read_results` does: quick where many are asked for one after the other.

    Args:
        path: The CSV, which is there.
        checkpoint_path: As the rows name it.

    Raises:
        ResultsError: As there, of these rows.
    """
    texts = find_contents(Path(path), checkpoint_path)
    return _build_table(_parse(Path(path), texts)) if texts.lines else _empty_table(*texts.names).copy()


@lru_cache(maxsize=1)
def _empty_table(*names: str) -> pd.DataFrame:
    return _build_table({name: [] for name in (*COLUMNS, *(name for name in names if name not in COLUMNS))})


def _read_values(path: Path) -> dict[str, list[Any]]:
    """Return the values of all rows by column.

    Raises:
        ResultsError: See `read_results`.
    """
    if not path.exists():
        raise ResultsError(f"{path}: no such file; `{name_command('evaluate')}` writes it")
    return _parse(path, read_contents(path))


def _parse(path: Path, texts: Texts) -> dict[str, list[Any]]:
    columns = {}
    for name in dict.fromkeys((*COLUMNS, *texts.names)):
        if name not in texts.names:
            columns[name] = [None] * len(texts.lines)
            continue
        values = columns[name] = []
        for number, cell in zip(texts.numbers, texts.cells(name), strict=True):
            try:
                values.append(from_cell(name, cell))
            except (ValueError, OverflowError, RecursionError):
                raise ResultsError(
                    f"{path}: line {number}: {name}: expected {kind(name)}, found {cell[:60]!r}; correct it, or remove "
                    "the line and evaluate that checkpoint again"
                ) from None
    return columns


def _build_table(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series(values, dtype=dtype(name) if name in COLUMNS else TEXT) for name, values in columns.items()}
    )


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
    eval_actions: str = "greedy",
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
        eval_actions: How actions were chosen, greedy or sample.
        checkpoint_path: If given, only a row of this path will do.
        eval_task_id: Level that was played, if it is another than the run's own.
    """
    fits = (results["checkpoint_digest"] == checkpoint_digest) & (results["eval_seed"] == eval_seed)
    fits &= results["max_steps"].isna() if max_steps is None else results["max_steps"] == max_steps
    fits &= results["eval_actions"].fillna("greedy") == eval_actions
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
