"""Evaluating all checkpoints of a folder: which they are, and what of it is done.

A checkpoint is done when the results hold a row with the digest of its weights and the same evaluation settings (at
least as many episodes), and its cache is there. `pipeline/evaluation/work.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from babyai.levels import resolve_task_id
from pipeline.checkpoints import CheckpointError
from pipeline.checkpoints import read_header as read_checkpoint_header
from pipeline.evaluation.checkpoint import build_row, name_of
from pipeline.evaluation.kept import LossError, refuse_loss, refuse_older
from pipeline.evaluation.settings import TOGETHER, EvaluationSettings
from pipeline.places import Place, cache_path, find_caches, find_checkpoints
from pipeline.records.adding import note_result, settled
from pipeline.records.cache import CacheError, find_actions, other_level, read_header
from pipeline.records.results import ResultsError, find_done, read_rows


@dataclass(frozen=True)
class BatchPlan:
    """Which checkpoints are evaluated, how, and where results go.

    Attributes:
        settings: How each is evaluated.
        results_path: The CSV.
        cache_dir: Folder of the caches.
        force: Evaluate also what is done.
        skip_routing: Record no routing and write no cache.
        inline_context: Repeat each level's context in every step of the cache, for readers that expect it there.
        compact: Write the cache through gzip.
        together: Checkpoints of one kind evaluated at once, at most.
    """

    settings: EvaluationSettings
    results_path: Path
    cache_dir: Path
    force: bool = False
    skip_routing: bool = False
    inline_context: bool = False
    compact: bool = False
    together: int = TOGETHER

    def cache_of(self, found: Place) -> Path:
        """Return where the cache of a checkpoint belongs."""
        return cache_path(self.cache_dir, found.task_id, found.trial, found.seed, found.update, found.eval_task_id)


def select_checkpoints(
    root: Path,
    *,
    tasks: Sequence[str] = (),
    eval_tasks: Sequence[str] = (),
    trial: int | None = None,
    seed: int | None = None,
    update: int | None = None,
    final_only: bool = False,
) -> list[Place]:
    """Return the checkpoints of a folder that pass the filters, each with the level that it is to play.

    One of a mixture is there once for each level, level by level, with `eval_task_id`. A run's final checkpoint and the
    numbered one of the same update are one: the final stands for both. A final one that cannot be read may be of any
    update, and stays in unless its run has another one of the update asked for.

    Args:
        root: The folder.
        tasks: Names of levels and mixtures; of a mixture that is not named itself, the named levels alone. None: all.
        eval_tasks: Levels to be played in place of their own.
        trial: Only this one.
        seed: Only this one.
        update: Only this one.
        final_only: No numbered ones.

    Raises:
        UnknownTaskError: If a task does not exist.
        PlaceError: If `root` is no folder.
    """
    everything = find_checkpoints(root)
    mixtures = {place.task_id for place in everything if place.is_mixture}
    wanted = {task if task in mixtures else resolve_task_id(task) for task in tasks}
    played = tuple(map(resolve_task_id, eval_tasks))
    found = [
        place
        for place in everything
        if (not wanted or place.task_id in wanted or place.is_mixture)
        and (trial is None or place.trial == trial)
        and (seed is None or place.seed == seed)
        and not (final_only and place.update is not None)
    ]
    numbered = {place.run for place in found if place.update is not None}
    updates = {place: place.update for place in found}
    for place in found:  # which update a final checkpoint is of, it says itself; it is read where that counts
        if place.update is None and (update is not None or place.run in numbered):
            updates[place] = _update_of(place)
    finals = {place.run: updates[place] for place in found if place.update is None}
    present = {place.run for place in found if update is not None and updates[place] == update}
    meant = [
        place
        for place in found
        if (update is None or updates[place] == update or (updates[place] is None and place.run not in present))
        and (place.update is None or place.update != finals.get(place.run))
    ]
    spread = [part for place in meant for part in _spread(place, wanted, played)]
    order = {name: number for number, name in enumerate(dict.fromkeys(place.task_id for place in spread))}
    # Level by level: neighbours of one level are evaluated at once.
    return sorted(spread, key=lambda place: (order[place.task_id], place.eval_task_id or ""))


def _spread(place: Place, wanted: set[str], played: Sequence[str]) -> list[Place]:
    """Return a checkpoint once for each level that it is to play; one that cannot be read once, to be told of."""
    if played:
        if wanted and place.task_id not in wanted:
            return []
        own = None if place.is_mixture else resolve_task_id(place.task_id)
        return [replace(place, eval_task_id=None if level == own else level) for level in played]
    if not place.is_mixture:
        return [place]
    config = _config_of(place.path)
    if config is None:
        return [place] if not wanted or place.task_id in wanted else []
    if config.get("mixture") != place.task_id:  # a copy of runs, say, under a name of its own
        return []
    levels = _levels_in(config)
    return [
        replace(place, eval_task_id=level)
        for level in levels
        if not wanted or place.task_id in wanted or level in wanted
    ]


def spread_levels(places: Iterable[Place]) -> list[Place]:
    """Return checkpoints in their order, one of a mixture once for each of its levels, with `eval_task_id`.

    Args:
        places: From `pipeline.places.find_checkpoints`.
    """
    return [part for place in places for part in _spread(place, set(), ())]


def levels_of(path: Path) -> list[str] | None:
    """Return the levels that a checkpoint was trained on, None if it cannot be read."""
    config = _config_of(path)
    return None if config is None else _levels_in(config)


def _levels_in(config: Mapping[str, Any]) -> list[str]:
    levels = config.get("task_id")
    return [levels] if isinstance(levels, str) else list(levels or ())


def _config_of(path: Path) -> Mapping[str, Any] | None:
    try:
        return read_checkpoint_header(path).config
    except CheckpointError:
        return None


def _update_of(found: Place) -> int | None:
    """Return the update of a checkpoint file, None if it cannot be read (that is reported when its turn comes)."""
    try:
        return read_checkpoint_header(found.path).update
    except CheckpointError:
        return None


def find_row(plan: BatchPlan, found: Place, digest: str, max_steps: int | None) -> dict[str, Any] | None:
    """Return the row of a checkpoint whose results and cache already hold what is asked for, else None."""
    if plan.force or not plan.results_path.exists():
        return None
    settings = plan.settings
    asked = {"eval_seed": settings.eval_seed, "max_steps": max_steps, "num_episodes": settings.num_episodes}
    asked |= {"eval_actions": settings.eval_actions}
    asked |= {"checkpoint_path": name_of(found.path), "checkpoint_digest": digest, "eval_task_id": found.eval_task_id}
    row = find_done(read_rows(plan.results_path, name_of(found.path)), **asked)
    if row is None or plan.skip_routing:
        return row
    try:
        header = read_header(plan.cache_of(found))
    except (CacheError, OSError):
        return None
    # A row may be younger than the cache: --skip_routing writes rows only.
    same = all(header.get(key) == row[key] for key in ("checkpoint_digest", "num_episodes", "eval_seed", "max_steps"))
    return row if same and find_actions(header) == settings.eval_actions else None


def reindex(plan: BatchPlan) -> tuple[int, list[str]]:
    """Write a row for every readable cache into the results; return how many, and what was left out and why."""
    with settled(plan.results_path):
        return _reindex(plan)


def _reindex(plan: BatchPlan) -> tuple[int, list[str]]:
    written, problems = 0, []
    for path in find_caches(plan.cache_dir):
        try:
            header = read_header(path)
            if not plan.force:
                refuse_older(path, header, plan.results_path)
                identity = (header["checkpoint_path"], header.get("checkpoint_digest"), header["num_episodes"])
                refuse_loss(
                    *identity,
                    cache=None,
                    results_path=plan.results_path,
                    advice="leave it, or give --force",
                    eval_task_id=other_level(header),
                )
            note_result(plan.results_path, build_row(header, header["metrics"], has_routing=True))
        except (CacheError, ResultsError, LossError, OSError) as error:
            problems.append(str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(
                f"{path}: its header lacks what a row needs ({type(error).__name__}: {error}); it is of an older form, "
                "foreign or damaged. Evaluate its checkpoint again"
            )
        else:
            written += 1
    return written, problems
