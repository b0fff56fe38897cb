"""A batch evaluation by machines that share no files with this one: checkpoints go there, caches and rows come back.

Rows are written here alone, one after the other, once their caches are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.launcher import Launcher
from pipeline.command.workers import Event, WorkItem
from pipeline.evaluation.checkpoint import name_of
from pipeline.evaluation.progress import EvaluationBar
from pipeline.evaluation.select import BatchPlan
from pipeline.evaluation.work import Report, take_up, work_share
from pipeline.launch.items import launch
from pipeline.places import Place, stored_cache
from pipeline.records.adding import note_result, settled
from pipeline.records.results import read_results

MOST_SHARES = 64
"""Shares of the work where nobody says how many machines there are."""

OWN_RESULTS = Path("evaluation_results.csv")
"""Rows of a machine that shares no files, in its item's own folder, do not come back: they are written here."""


def run_batch_elsewhere(
    plan: BatchPlan, todo: Sequence[Place], launcher: Launcher, *, jobs: int | None = None
) -> dict[Path, Report]:
    """Evaluate checkpoints on other machines; return what became of each, by `Place.item`.

    Args:
        plan: How, and where results go.
        todo: The checkpoints; their folder, and that of the caches, are below the current one.
        launcher: Where.
        jobs: Shares of the work that are done at once, at most; None: as many as there is room for.

    Raises:
        KeyboardInterrupt: If it was stopped; what is finished is kept.
    """
    outcome: dict[Path, Report] = {}
    lost: dict[Path, str] = {}  # why nothing came back of a checkpoint
    with (
        EvaluationBar(len(todo), plan.settings.num_episodes) as bar,
        settled(plan.results_path),
        Interruption() as interruption,
    ):

        def keep(kind: str, found: Place, content: Any) -> None:
            if kind == "done":
                content = {**content, "checkpoint_path": name_of(found.path)}  # a link leads elsewhere only here
                try:
                    note_result(plan.results_path, content)
                except MISTAKES as error:
                    kind, content = "failed", explain(error)
            if found.item not in outcome:
                bar.end()
            outcome[found.item] = kind, found, content

        def note(event: Event) -> None:
            if event.kind == "progress" and event.content[0] == "tick":
                bar.play(event.content[2])
            elif event.kind == "progress":
                keep(*event.content)
            elif event.kind in ("died", "failed"):
                lost.update({found.item: str(event.content) for found in shares[event.item.name]})

        left = _leave_out_done(plan, todo, keep)
        size = min(plan.together, max(1, math.ceil(len(left) / (jobs or MOST_SHARES))))
        parts = [left[start : start + size] for start in range(0, len(left), size)]
        shares = {_name_share(part): part for part in parts}
        there = replace(plan, force=True)  # what is done has been left out
        if launcher.name != "slurm":  # whose jobs share the results, and go on without this process
            there = replace(there, results_path=OWN_RESULTS)
        items = [_describe_work(name, there, share) for name, share in shares.items()]
        launch(items, launcher=launcher, jobs=jobs, report=note, stopping=interruption.stopping)
        if interruption.reader_gone:
            raise BrokenPipeError
        if interruption.stopping():
            stop_at_once(interruption.signal_number)
    for found in todo:
        why = lost.get(found.item, "nothing came back of it; the same call retries")
        outcome.setdefault(found.item, ("failed", found, why))
    return outcome


def _name_share(share: Sequence[Place]) -> str:
    first, last = share[0].item, share[-1].item
    return str(first) if first == last else f"{first} to {last}"


def _describe_work(name: str, plan: BatchPlan, share: Sequence[Place]) -> WorkItem:
    return WorkItem(
        name,
        work_share,
        (plan, share),
        inputs=tuple(dict.fromkeys(found.path for found in share)),
        outputs=tuple(dict.fromkeys(plan.cache_of(found).parent for found in share)),
    )


def _leave_out_done(plan: BatchPlan, todo: Sequence[Place], keep: Any) -> list[Place]:
    """Return what is to be evaluated; of the rest, tell what is there or why it may not give way."""
    here = replace(plan, settings=replace(plan.settings, device="cpu"))  # a driver need not have a GPU
    known: set[str] = set()
    if plan.results_path.exists():
        known = set(read_results(plan.results_path)["checkpoint_path"])
    left = []
    for found in todo:
        if name_of(found.path) in known or stored_cache(plan.cache_of(found)).exists():
            try:
                taken = take_up(here, found)
            except MISTAKES as error:
                keep("failed", found, str(error).removeprefix(f"{found.path}: "))
                continue
            if isinstance(taken, dict):
                keep("already", found, taken)
                continue
        left.append(found)
    return left
