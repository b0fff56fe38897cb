"""`rlmop ls`: which runs there are, how far they are and how well they do.

rlmop ls                                     # of the current folder
rlmop ls checkpoints/BabyAI-GoToObj-v0       # of one task
rlmop ls --json | jq '.[] | select(.state == "stopped") | .name'
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.names import name_command
from pipeline.command.shell import as_command
from pipeline.inspection.runs import RunInfo, Score, find_runs, read_known_rows
from pipeline.inspection.sources import InspectionSettings, find_sources
from pipeline.inspection.texts import (
    differing_fields,
    format_setting,
    format_updates,
    short_task,
    table,
    terminal_width,
)

SWITCHES = {
    "json": "Print a JSON list, with all settings and paths.",
    "csv": "Print CSV, with a column for each setting that differs.",
}

_OPTIONAL = ("levels", "95 %")
"""Columns that go first where the terminal is narrow."""

_LEAST_FOR_SETTINGS = 24


@dataclass(frozen=True)
class ListSettings(InspectionSettings):
    """What is listed, and where runs are.

    Attributes:
        folder: In which checkpoints and runs lie; or one of these; or one in them, of a task, a trial or a run.
    """

    folder: str = field(default=".", metadata={"positional": True})


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    settings, switches = parse_command(
        "List runs: state, success, complexity (LPC), and the settings in which runs of a task differ.",
        ListSettings,
        argv,
        switches=SWITCHES,
    )
    if switches["json"] and switches["csv"]:
        raise ConfigError("--json and --csv exclude each other: choose one form")
    sources = find_sources(settings.folder, settings)
    runs = find_runs(sources, read_known_rows(sources.results))
    if switches["json"]:
        print(json.dumps([as_plain(run) for run in runs], indent=1))
    elif switches["csv"]:
        _print_csv(runs)
    elif not runs:
        print(f"{settings.folder}: no runs yet; train one: {name_command('train')} --config config.yaml")
    else:
        print("\n".join([*list_lines(runs, terminal_width()), "", *mixture_lines(runs), summary(runs)]))
        for run in runs:
            if run.problem is not None:
                print(f"{run.state}: {run.problem}", file=sys.stderr)
    return 0


def list_lines(runs: Sequence[RunInfo], width: int | None) -> list[str]:
    """Return a line for each run, below a head.

    Args:
        runs: To list.
        width: Of the terminal, for which columns of less use are left out; None: any.
    """
    differing = {task: differing_fields(r for r in runs if r.task_id == task) for task in {r.task_id for r in runs}}
    head = ["task", "trial", "seed", "state", "updates", "success", "95 %", "LPC", "levels", "settings that differ"]
    left = [True, False, False, True, False, False, False, False, False, True]
    rows = [_row(run, differing[run.task_id]) for run in runs]
    if not any(row[-1] for row in rows):
        head, left, rows = head[:-1], left[:-1], [row[:-1] for row in rows]
    for name in _OPTIONAL:
        fixed = sum(2 + max(len(row[i]) for row in [head, *rows]) for i in range(9 if len(head) > 9 else len(head)))
        if width is None or fixed + _LEAST_FOR_SETTINGS <= width:
            break
        if name in head:
            drop = head.index(name)
            head, left, *rows = [[*row[:drop], *row[drop + 1 :]] for row in (head, left, *rows)]
    return table([head, *rows], left, width)


def _row(run: RunInfo, differing: Sequence[str]) -> list[str]:
    seed = "-" if run.seed is None else str(run.seed)
    if not run.settings:
        settings = "unknown" if differing else ""
    else:
        settings = ", ".join(f"{name}={format_setting(run.settings.get(name))}" for name in differing)
    return [short_task(run.task_id), str(run.trial), seed, run.state, format_updates(run), *_score(run.score), settings]


def _score(score: Score | None) -> list[str]:
    if score is None:
        return ["-", "", "-", ""]
    interval = "" if score.low is None or score.high is None else f"{score.low:.1%} to {score.high:.1%}"
    levels = str(score.levels) if score.fixed else f"last {score.levels} of training"
    levels += ", actions drawn" if score.drawn else ""
    return [f"{score.success:.1%}", interval, "-" if score.lpc is None else f"{score.lpc:.0f}", levels]


def mixture_lines(runs: Sequence[RunInfo]) -> list[str]:
    """Return a line for each mixture of the runs, with its levels; one for each list where a name has several."""
    lists = {(run.task_id, tuple(levels)) for run in runs if isinstance(levels := run.settings.get("task_id"), list)}
    return [f"{name}: {', '.join(map(short_task, levels))}" for name, levels in sorted(lists)]


def summary(runs: Sequence[RunInfo]) -> str:
    """Return how many runs there are, and in which states."""
    counts = Counter(run.state for run in runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {states}"


def as_plain(run: RunInfo) -> dict[str, Any]:
    """Return a run as plain types."""
    score = run.score
    return {
        "name": run.name,
        "task_id": run.task_id,
        "trial": run.trial,
        "seed": run.seed,
        "state": run.state,
        "update": run.update,
        "num_updates": run.target,
        "success_rate": score and score.success,
        "success_low": score and score.low,
        "success_high": score and score.high,
        "mean_lpc": score and score.lpc,
        "num_episodes": score and score.levels,
        "evaluated_update": score and score.update,
        "fixed_levels": score and score.fixed,
        "actions_drawn": score and score.drawn,
        "checkpoints": str(run.folder),
        "logs": str(run.logs),
        "problem": run.problem,
        "settings": run.settings,
    }


def _print_csv(runs: Sequence[RunInfo]) -> None:
    differing = differing_fields(runs)
    writer = None
    for run in runs:
        plain = as_plain(run)
        settings: Mapping[str, Any] = plain.pop("settings")
        row = {**plain, **{name: format_setting(settings[name]) if settings else "" for name in differing}}
        if writer is None:
            writer = csv.DictWriter(sys.stdout, row, lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
