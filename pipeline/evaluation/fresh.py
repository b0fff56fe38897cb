"""Evaluating one checkpoint into a cache that need not be a file, for a notebook.

cache = evaluate_fresh(found, EvaluationSettings(num_episodes=50), progress=bar.update)
keep_fresh(cache, path, "evaluation_results.csv")      # now it is one, with a row of results
"""

from __future__ import annotations

from pathlib import Path

from pipeline.command.devices import resolve_device
from pipeline.evaluation.checkpoint import (
    EvaluationSettings,
    build_header,
    build_row,
    evaluate_checkpoint,
    load_checkpoint,
)
from pipeline.evaluation.kept import refuse_loss
from pipeline.evaluation.play import Progress
from pipeline.evaluation.work import level_to_play
from pipeline.places import Place
from pipeline.records.adding import append_result
from pipeline.records.cache import Cache, other_level, write_cache


def evaluate_fresh(found: Place, settings: EvaluationSettings, *, progress: Progress | None = None) -> Cache:
    """Return what `batch_eval.py` would have written; nothing is written, `path` is the checkpoint's.

    Args:
        found: From `pipeline.places.find_checkpoints`.
        settings: How it is evaluated.
        progress: Called with the number of episodes that ended since the last call.

    Raises:
        Exception: One of `pipeline.command.errors.MISTAKES`.
    """
    task_id = level_to_play(found)
    checkpoint = load_checkpoint(found.path, device=resolve_device(settings.device), lang_encoder=settings.lang_encoder)
    evaluation = evaluate_checkpoint(checkpoint, task_id, settings, record=True, progress=progress)
    run_name = None if found.eval_task_id is None else found.task_id
    header = build_header(checkpoint, task_id, settings, trial=found.trial, seed=found.seed, run_name=run_name)
    return Cache(found.path, header, evaluation.metrics, evaluation.episodes, evaluation.routing)


def keep_fresh(cache: Cache, path: str | Path, results_path: str | Path, *, replace_more: bool = False) -> None:
    """Write a cache from `evaluate_fresh` to its file, in place of an earlier one, then its row of results.

    Args:
        cache: From `evaluate_fresh`.
        path: Of its file.
        results_path: The CSV.
        replace_more: Also in place of an evaluation on more levels.

    Raises:
        LossError: If more levels are kept than these and that was not asked for; nothing is written.
    """
    if not replace_more:
        identity = (cache.header["checkpoint_path"], cache.header["checkpoint_digest"], len(cache.episodes))
        advice = "evaluate {found} episodes or more, or tick that it may replace them"
        where = {"cache": Path(path), "results_path": results_path, "eval_task_id": other_level(cache.header)}
        refuse_loss(*identity, **where, advice=advice)
    write_cache(path, header=cache.header, metrics=cache.metrics, episodes=cache.episodes, routing=cache.routing)
    append_result(results_path, build_row(cache.header, cache.metrics, has_routing=True))
