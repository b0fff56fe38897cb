"""What analyses read: traces of own play and of replay, and effects of interventions, one file for each task and price.

Runs that could not be trained or evaluated are left out here; analyses count them by the notes of these items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.errors import UserError
from pipeline.command.files import replace_atomically
from pipeline.command.workers import Link
from science.plan import Design, Run
from science.store import Item, Store

if TYPE_CHECKING:
    from science.traces import Run as TracedRun
    from science.traces import Traces

UNTRAINED = "untrained"
"""Setting of policies as they are before training."""

TRACE_SOURCES = ("science.traces", "science.reading")
REPLAY_SOURCES = (*TRACE_SOURCES, "pipeline.replay")
EFFECT_SOURCES = ("science.conditions", "science.effects", "pipeline.interventions", "pipeline.replay")


class InputError(UserError):
    """Nothing is left of which an item could be made; the message says what is missing."""


def cells(design: Design) -> dict[tuple[str, str], list[Run]]:
    """Return the routed runs of each task and setting."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in design.routed:
        found.setdefault((run.task, run.setting), []).append(run)
    return found


def runs_of(design: Design, item: Item) -> list[Run]:
    """Return the runs of the cell that an item is of."""
    task, setting = item.name.split("/")[-2:]
    return cells(design)[task, setting]


def traced(run: Run, update: int = -1) -> TracedRun:
    """Return a run as traces and tables name it."""
    from science.traces import Run as TracedRun

    return TracedRun(run.task, run.setting, run.config.trial, run.seed, update, run.alpha or 0.0)


def item_path(design: Design, item: Item, ending: str = ".npz") -> Path:
    """Return where an item's file is."""
    return design.work / Path(item.name.replace("=", "_") + ending)


def make_played(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    """Gather the own play of a cell's runs."""
    from science.reading import read_caches, write_traces

    entries, missing = [], {}
    for run in runs_of(design, item):
        files = store.files(f"evaluate/{run.name}")
        if files:
            update = store.read(f"train/{run.name}").notes.get("update", -1)
            entries.append((traced(run, update), files[0]))
        else:
            missing[run.name] = "was not evaluated"
    if not entries:
        raise InputError("expected one evaluated run at least, found none")
    traces, unread = read_caches(entries, source="P")
    path = item_path(design, item)
    with replace_atomically(path) as temporary:
        write_traces(temporary, traces)
    return [path], {"missing": {**missing, **unread}}


def make_replay(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    raise InputError("not yet")


def make_effects(design: Design, store: Store, item: Item, link: Link) -> tuple[list[Path], dict[str, Any]]:
    raise InputError("not yet")


def read_all(store: Store, names: Sequence[str]) -> Traces | None:
    """Return the traces of several items as one, None if none was made."""
    from science.reading import read_traces
    from science.traces import Traces

    files = [path for name in names for path in store.files(name)]
    return Traces.concatenate([read_traces(path) for path in files]) if files else None
