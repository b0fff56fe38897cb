"""What is kept of earlier evaluations of a checkpoint: many levels are never replaced by fewer unasked.

refuse_loss(name_of(path), digest, num_episodes=100, cache=cache_path(...), results_path="evaluation_results.csv")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command.errors import UserError
from pipeline.records.cache import CacheError, other_level, read_header
from pipeline.records.results import find_largest, plain_rows, read_rows


class LossError(UserError, ValueError):
    """An evaluation that would replace one that says more; the message says which, and how to do it all the same."""


def refuse_loss(
    checkpoint: str,
    digest: str,
    num_episodes: int,
    *,
    cache: Path | None,
    results_path: str | Path,
    advice: str = "give --num_episodes {found} or more, or --force",
    eval_task_id: str | None = None,
) -> None:
    """Refuse to replace the cache or the row of a checkpoint by one of fewer levels.

    What is kept of other weights does not count: whoever trains again has no use for it.

    Args:
        checkpoint: As the results name it.
        digest: Of its weights.
        num_episodes: Levels of the evaluation to be written.
        cache: File that it would replace; None if none is written.
        results_path: The CSV, which need not be there.
        advice: What to do instead; {found} stands for the number of levels that are kept.
        eval_task_id: Level that is played, if it is another than the run's own.

    Raises:
        LossError: If more are kept.
    """
    found = {}
    if Path(results_path).exists():
        found[str(results_path)] = find_largest(
            read_rows(results_path, checkpoint),
            checkpoint_path=checkpoint,
            checkpoint_digest=digest,
            eval_task_id=eval_task_id,
        )
    if cache is not None:
        found[str(cache)] = _levels_of(cache, digest)
    for where, kept in found.items():
        if kept > num_episodes:
            raise LossError(
                f"{checkpoint}: {where} holds its evaluation on {kept:,} levels, which one on {num_episodes:,} would "
                f"replace; {advice.format(found=kept)}"
            )


def refuse_older(cache: Path, header: Mapping[str, Any], results_path: str | Path) -> None:
    """Refuse to replace the row of a checkpoint by what a cache tells of weights that it had before.

    Args:
        cache: Its file.
        header: Of the cache.
        results_path: The CSV, which need not be there.

    Raises:
        LossError: If the row is of other weights, and later.
    """
    if not Path(results_path).exists():
        return
    digest, level = header.get("checkpoint_digest"), other_level(header)
    for row in plain_rows(read_rows(results_path, header["checkpoint_path"])):
        later = (row["evaluated_at"] or "") > (header.get("evaluated_at") or "")
        if later and other_level(row) == level and row["checkpoint_digest"] not in (None, digest):
            raise LossError(
                f"{cache}: of weights that {header['checkpoint_path']} had before: {results_path} holds a later "
                "evaluation of others; delete the cache, or give --force"
            )


def _levels_of(cache: Path, digest: str) -> int:
    """Return of how many levels a cache is, 0 if there is none, it cannot be read or is of other weights."""
    try:
        header = read_header(cache)
    except CacheError:
        return 0
    levels = header.get("num_episodes")
    same = header.get("checkpoint_digest") in (None, digest)
    return levels if same and isinstance(levels, int) else 0
