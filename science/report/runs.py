"""Success and LPC of the runs of a study, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from science.plan import Design
from science.report.facts import count_words
from science.report.shares import SAYS_COST, SAYS_SHARE, cost_interval, share_interval
from science.report.tables import MOST_LISTED, Table, short_name
from science.report.text import format_interval
from science.store import Store


def runs_tables(design: Design, store: Store) -> tuple[Table, ...]:
    """Return success and LPC of the runs' own play: a row for each task and setting, or of many tasks a row for each.

    Of many tasks success and LPC are a table each, with a column for each setting.
    """
    cells: dict[tuple[str, str], list[Any]] = {}
    for run in design.runs:
        cells.setdefault((run.task, run.setting), []).append(run)
    found = {}
    for cell, runs in cells.items():
        stamps = [store.read(f"evaluate/{run.name}") for run in runs]
        success = [stamp.notes["success"] for stamp in stamps if stamp is not None]
        lpc = [stamp.notes["lpc"] for stamp in stamps if stamp is not None and stamp.notes["lpc"] is not None]
        told = [
            format_interval(*each) for each in (share_interval(success, design.config.episodes), cost_interval(lpc))
        ]
        found[cell] = (len(success), len(runs) - len(success), *told)
    tasks = list(dict.fromkeys(task for task, _ in cells))
    return _by_level(design, found, tasks) if len(tasks) > MOST_LISTED else _by_cell(found)


_Told = Mapping[tuple[str, str], tuple[int, int, str, str]]
"""Task and setting -> runs, missing runs, success, LPC."""


def _by_cell(found: _Told) -> tuple[Table, ...]:
    head = ("task", "setting", "runs", "missing", "success [95 % interval]", "LPC [95 % interval]")
    rows = [
        (short_name(task), short_name(setting), str(runs), str(missing or ""), *told)
        for (task, setting), (runs, missing, *told) in found.items()
    ]
    kept = [i for i in range(len(head)) if i != 3 or any(row[3] for row in rows)]
    return (
        Table(
            tuple(head[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in rows),
            frozenset(place for place, i in enumerate(kept) if i >= 2),
            caption=f"Own play. {_sentence(SAYS_SHARE)}. {_sentence(SAYS_COST)}.",
        ),
    )


def _by_level(design: Design, found: _Told, tasks: Sequence[str]) -> tuple[Table, ...]:
    settings = list(dict.fromkeys(setting for _, setting in found))
    learned = [task for task in tasks if task not in design.held_out]
    headings = {len(learned): "held out: no policy was trained on these"} if len(learned) < len(tasks) else {}
    most = len(design.config.seeds)
    tables = []
    for place, says in ((2, SAYS_SHARE), (3, SAYS_COST)):
        rows = [
            (short_name(task), *(_told(found.get((task, setting)), place, most) for setting in settings))
            for task in (*learned, *(task for task in tasks if task in design.held_out))
        ]
        kept = [i for i in range(1 + len(settings)) if any(row[i] for row in rows)]
        if len(kept) > 1:
            head = ("level", *(short_name(setting) for setting in settings))
            tables.append(
                Table(
                    tuple(head[i] for i in kept),
                    tuple(tuple(row[i] for i in kept) for row in rows),
                    frozenset(range(1, len(kept))),
                    headings,
                    f"{_sentence(says)}. Own play; {count_words(most, 'run')} each, or as many as a cell says.",
                    pinned=True,
                )
            )
    return tuple(tables)


def _told(cell: tuple[int, int, str, str] | None, place: int, most: int) -> str:
    """Return a cell of the table of levels, with the number of runs where some are missing."""
    if cell is None or not cell[place]:
        return ""
    return cell[place] + (f" (n {cell[0]})" if cell[0] < most else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
