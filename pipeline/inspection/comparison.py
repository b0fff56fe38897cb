"""`rlmop compare`: runs, or all seeds of trials, side by side: what differs, how far they are, how well they do.

rlmop compare GoToObj/1/0 GoToObj/2/0        # two runs of the current folder
rlmop compare GoToObj/1 GoToObj/2            # all seeds of two trials
rlmop compare old/checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_500.pt GoToObj/1/0
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.names import name_command
from pipeline.command.shell import as_command
from pipeline.inspection.listing import as_plain
from pipeline.inspection.runs import RunInfo, find_runs, read_known_rows
from pipeline.inspection.sources import InspectionSettings, find_run
from pipeline.inspection.texts import (
    differing_fields,
    format_setting,
    format_updates,
    short_task,
    table,
    terminal_width,
)
from pipeline.records.intervals import mean_interval, success_over_runs

SWITCHES = {"json": "Print a JSON list, with all settings of all runs."}


@dataclass(frozen=True)
class CompareSettings(InspectionSettings):
    """What is compared, and where runs are.

    Attributes:
        runs: Two or more: task/trial/seed, task/trial for all its seeds, or paths of runs, trials or checkpoints.
    """

    runs: list[str] = field(default_factory=list, metadata={"positional": True})


@dataclass(frozen=True)
class Item:
    """What is compared with others: a run, or those of a trial.

    Attributes:
        text: How it was called.
        runs: One or more.
        update: Of the checkpoint that is meant, None for the newest.
    """

    text: str
    runs: tuple[RunInfo, ...]
    update: int | None

    @property
    def label(self) -> str:
        """What its column is headed by."""
        first = self.runs[0]
        seed = "" if len(self.runs) > 1 or first.seed is None else f"/{first.seed}"
        at = "" if self.update is None else f" at {self.update}"
        return f"{short_task(first.task_id)}/{first.trial}{seed}{at}"


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused."""
    settings, switches = parse_command(
        "Set runs side by side: settings that differ, state, success, complexity (LPC).",
        CompareSettings,
        argv,
        switches=SWITCHES,
    )
    if len(settings.runs) < 2:
        raise ConfigError(
            f"runs: expected two or more, as in {name_command('compare')} GoToObj/1 GoToObj/2, found "
            f"{len(settings.runs)}; {name_command('ls')} lists them"
        )
    items = [find_item(text, settings) for text in settings.runs]
    if switches["json"]:
        plain = [
            {"item": item.text, "update": item.update, "runs": [as_plain(run) for run in item.runs]} for item in items
        ]
        print(json.dumps(plain, indent=1))
    else:
        print("\n".join(comparison_lines(items, terminal_width())))
    return 0


def find_item(text: str, settings: InspectionSettings) -> Item:
    """Return the runs that a text names.

    Raises:
        ConfigError: If there are none.
    """
    sources, update = find_run(text, settings)
    runs = find_runs(sources, read_known_rows(sources.results), update)
    if not runs:
        raise ConfigError(
            f"{text}: expected a run with a checkpoint or metrics, found none in {sources.checkpoints} and "
            f"{sources.logs}; {name_command('ls')} lists what is there"
        )
    return Item(text, tuple(runs), update)


def comparison_lines(items: Sequence[Item], width: int | None) -> list[str]:
    """Return a table with a column for each item, and what its numbers mean.

    Args:
        items: To compare.
        width: Of the terminal; None: lines of any length.
    """
    everything = [run for item in items for run in item.runs]
    rows: list[tuple[str, Callable[[Item], str]]] = [
        ("runs", lambda item: str(len(item.runs))),
        ("state", _states),
        ("updates", _updates),
        ("success", format_success),
        ("LPC", format_lpc),
    ]
    cells = [["", *(item.label for item in items)], *([name, *map(show, items)] for name, show in rows)]
    differing = differing_fields(everything)
    if len({run.task_id for run in everything}) > 1:
        differing = ["task_id", *(name for name in differing if name != "task_id")]  # of a mixture it is a setting too
    if differing:
        empty = [""] * len(items)
        cells += [["", *empty], ["settings that differ", *empty]]
        cells += [[name, *(_setting(item, name) for item in items)] for name in differing]
    lines = table(cells, [True] * (1 + len(items)), width)
    if not differing:
        lines += ["", "no setting that decides what is learned differs"]
    if any(not run.settings for run in everything):
        lines += ["", "settings of some runs are unknown"]
    return [*lines, "", "intervals are 95 %: of one run over its levels (Wilson); of several over runs (Student's t)"]


def _states(item: Item) -> str:
    counts = Counter(run.state for run in item.runs)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def _updates(item: Item) -> str:
    runs = ", ".join(dict.fromkeys(format_updates(run) for run in item.runs))
    return runs if item.update is None else f"{item.update} (the run: {runs})"


def _setting(item: Item, name: str) -> str:
    return " | ".join(dict.fromkeys(format_setting(run.settings[name]) if run.settings else "?" for run in item.runs))


def format_success(item: Item) -> str:
    """Return the success of an item with an interval and what that is over."""
    scores = [run.score for run in item.runs if run.score is not None and run.score.fixed]
    if not scores:
        return "not evaluated"
    if len(item.runs) == 1:
        (score,) = scores
        interval = "" if score.low is None or score.high is None else f" ({score.low:.1%} to {score.high:.1%})"
        return f"{score.success:.1%}{interval}, {score.levels} levels{', actions drawn' if score.drawn else ''}"
    levels = min(score.levels for score in scores)
    estimate, over_levels = success_over_runs([score.success for score in scores], levels)
    mean, low, high = float(estimate.mean), float(estimate.low), float(estimate.high)
    count = f"{len(scores)} runs" if len(scores) == len(item.runs) else f"{len(scores)} of {len(item.runs)} runs"
    if drawn := sum(score.drawn for score in scores):
        count += ", actions drawn" if drawn == len(scores) else f", {drawn} of them with actions drawn"
    over = f" over {levels} levels" if over_levels else ""
    interval = "" if math.isnan(low) else f" ({max(low, 0):.1%} to {min(high, 1):.1%}{over})"
    return f"{mean:.1%}{interval}, {count}"


def format_lpc(item: Item) -> str:
    """Return the complexity of an item, of several runs with its interval."""
    values = [
        run.score.lpc for run in item.runs if run.score is not None and run.score.fixed and run.score.lpc is not None
    ]
    if not values:
        return "-"
    mean, low, high = _mean(values)
    return f"{mean:.0f}" + ("" if math.isnan(low) else f" ({max(low, 0):.0f} to {high:.0f})")


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    estimate: Any = mean_interval(list(values)).where_units_differ()
    return float(estimate.mean), float(estimate.low), float(estimate.high)
