"""Doing a study: what is stale is made, in stages; what fails is named, and the rest of the report is made.

Exit codes: 0 all is made; 1 something failed or could not be used, and the report says what; 2 refused; 130 and the
like: stopped, with all kept that was done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.command.errors import FolderError
from pipeline.command.folders import LOCK_NAME, HeldError, check_folder, hold_lock, make_writable
from pipeline.command.interruption import Interruption
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.workers import Event, Link, WorkItem
from pipeline.launch.items import launch
from science import stages
from science.adapting import adapt_missing
from science.catalogue import ANALYSES
from science.config import StudyConfig
from science.growth import grow_missing
from science.outputs import write_report
from science.plan import Design, build_design, study_folder
from science.runs import (
    Failures,
    StoppedError,
    evaluate_missing,
    match_baselines,
    train_missing,
)
from science.store import Item, Store

ELSEWHERE = frozenset({"played", "replay", "observe", "force", "grown", "states", "intervene", "calibrate"})
"""Stages whose items a launcher may do elsewhere: each takes along the little that it reads. Films, tables and figures,
which take minutes and read what all others have made, are made here."""


@dataclass
class Progress:
    """What has become of a study's items in this call.

    Attributes:
        made: Names of the items that were made, in order.
        kept: How many were there.
        failed: Why others could not be made.
    """

    made: list[str] = field(default_factory=list)
    kept: int = 0
    failed: Failures = field(default_factory=dict)


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_study(config: StudyConfig, *, only: Sequence[str], jobs: int | None = None, launcher: Launcher = HERE) -> int:
    """Do a study; return the exit code.

    Args:
        config: The study file.
        only: Analyses to be made; the others stay as they are.
        jobs: Processes; None: one for each core.
        launcher: Where runs are trained and evaluated, and the items of the stages `ELSEWHERE` are made.

    Raises:
        FolderError: If the folder cannot be written to, or another process does this study.
        WorldError: If a task does not exist.
    """
    folder = study_folder(config)
    check_folder("out", folder)
    design = build_design(config, match_baselines(config))
    make_writable(folder / "work")
    try:
        with hold_lock(folder / "work" / LOCK_NAME, 0):
            design.trials.save()
            return _do(design, only, jobs, launcher)
    except HeldError as error:
        raise FolderError(f"{folder}: another process is at this study; {error}".rstrip("; ")) from None


def _do(design: Design, only: Sequence[str], asked: int | None, launcher: Launcher) -> int:
    store, progress, jobs = Store(design.folder), Progress(), asked or count_cores()
    try:
        elsewhere = jobs if launcher.is_local else asked
        progress.failed |= train_missing(design, store, elsewhere, print, launcher.part("train"))
        progress.failed |= evaluate_missing(design, store, elsewhere, print, launcher.part("evaluate"))
        if any(ANALYSES[name].adapted for name in only):
            progress.failed |= adapt_missing(design, store, elsewhere, print, launcher.part("adapt"))
        if any(ANALYSES[name].grown for name in only):
            progress.failed |= grow_missing(design, store, elsewhere, print, launcher.part("grow"))
        for stage in stages.STAGES:
            here = launcher.is_local or stage.name not in ELSEWHERE
            where = launcher if launcher.is_local or not here else HERE
            code = _do_stage(stage, design, store, only, jobs if here else asked, progress, where.part(stage.name))
            if code:
                raise StoppedError(code)
    except StoppedError as error:
        print("stopped; what is finished is kept, and the same call does the rest", file=sys.stderr)
        return error.code
    return conclude(design, store, progress, only)


def _do_stage(
    stage: stages.Stage,
    design: Design,
    store: Store,
    only: Sequence[str],
    jobs: int | None,
    progress: Progress,
    launcher: Launcher = HERE,
) -> int:
    """Make the stale items of a stage; return 0, or the exit code of what has stopped it."""
    items = {item.name: item for item in stage.items(design, only)}
    stale = {name: item for name, item in items.items() if not store.is_fresh(item)}
    progress.kept += len(items) - len(stale)
    if not stale:
        return 0
    print(f"{stage.name}: {len(stale)} of {len(items)}")
    with Interruption() as interruption:

        def report(event: Event) -> None:
            item = stale[event.item.name]
            if event.kind == "done":
                files, notes = event.content
                store.write(item, [Path(path) for path in files], notes)
                progress.made.append(item.name)
            elif event.kind in ("failed", "died"):
                store.forget(item, remove=True)
                progress.failed[item.name] = event.content

        work = [
            WorkItem(
                name,
                make,
                (stage.name, design, item),
                inputs=store.inputs_of(item),
                outputs=(design.work / item.kind,),
            )
            for name, item in stale.items()
        ]
        most = jobs and min(jobs, len(work))
        launch(work, launcher=launcher, jobs=most, report=report, stopping=interruption.stopping)
        return interruption.exit_code if interruption.stopping() else 0


def make(link: Link, stage: str, design: Design, item: Item) -> tuple[list[str], dict[str, Any]]:
    """Make an item as a work item; return its files and notes."""
    link.heed()
    store = Store(design.folder)
    files, notes = stages.find_stage(stage).make(design, store, item, link)
    return [str(path) for path in files], notes


def conclude(design: Design, store: Store, progress: Progress, only: Sequence[str]) -> int:
    """Write the report, and say what has become of the study; return the exit code."""
    others = [name for name in design.config.analyses if name not in only]
    items = stages.find_stage("analyse").items(design, others)
    old = {item.name.partition("/")[2] for item in items if not store.is_fresh(item)}
    problems = write_report(design, store, progress.failed, only, old)
    print(f"made {len(progress.made)}, kept {progress.kept}")
    for problem in problems:
        print(f"incomplete: {problem}", file=sys.stderr)
    print(f"report  {design.folder / 'report.html'}")
    return int(bool(problems))
