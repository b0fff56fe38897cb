"""The table of levels: what the default policy reaches on every level in ten minutes and in an hour of two cores.

python -m benchmarks.levels
python -m benchmarks.levels --minutes 10 --only GoTo,PickupLoc --out levels
python -m benchmarks.levels --minutes 10,60 --out levels       # goes on from there
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.levels.reference import PAPER
from benchmarks.levels.settings import (
    OPTIONS,
    ROOT,
    SWITCHES,
    LevelsSettings,
    budget_seconds,
    parse_settings,
    resolve_settings_levels,
)
from pipeline.command.bars import Bar
from pipeline.command.cli import parse_command
from pipeline.command.folders import check_folder
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, WorkItem, do_items
from pipeline.config import TrainConfig

DESCRIPTION = (
    "Train the policy of config.yaml, or of another --config, on each level for some minutes of two cores, evaluate it "
    "on fixed levels, and tabulate. Ctrl-C saves, and the same command goes on. The flags of training change its "
    "settings; task_id, num_updates, folders, device and threads are this command's own."
)


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some levels failed, 2 refused, 128 + signal stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(word == "--config" or word.startswith("--config=") for word in words):
        words = ["--config", str(ROOT / "config.yaml"), *words]
    replaces = {"only": "task_id", "out": "checkpoint_dir"}
    config, beside = parse_command(
        DESCRIPTION, TrainConfig, words, switches=SWITCHES, options=OPTIONS, replaces=replaces
    )
    settings = parse_settings(config, **{name: beside[name] for name in OPTIONS})
    for name, folder in (("out", settings.out), ("docs", settings.docs)):
        if folder is not None:
            check_folder(name, folder)
    levels = resolve_settings_levels(settings, PAPER)
    failures = [] if beside["tables"] else measure(settings, levels, bot_only=beside["bot_only"])
    report(settings)
    for name, why in failures:
        print(f"failed: {name}: {why}", file=sys.stderr)
    return int(bool(failures))


def measure(settings: LevelsSettings, levels: Sequence[str], *, bot_only: bool) -> list[tuple[str, str]]:
    """Measure what is missing; return names of levels that failed, each with why.

    Raises:
        KeyboardInterrupt: If it was stopped.
        ConfigError: If results that are there were made with other settings.
    """
    from benchmarks.levels.records import mark_key, read_record, short_name
    from benchmarks.levels.work import measure_level_bot, train_level  # torch: --help is told without

    records = {task: read_record(settings, task) for task in levels}
    names = {task: short_name(task) for task in levels}
    unseen = [task for task in levels if records[task]["bot"] is None]
    items = [WorkItem(names[task], measure_level_bot, (settings, task)) for task in unseen]
    failures = do_all(settings, items, len(items), "the bot plays", "level")
    failed = {name for name, _ in failures}
    if bot_only:
        return failures
    items, total = [], 0.0
    for task in levels:
        if names[task] in failed:
            continue
        record = read_record(settings, task)
        missing = [m for m in settings.minutes if mark_key(m) not in record["marks"]]
        if missing and record["bot"]["solved"]:
            done = [mark["cpu_seconds"] for mark in record["marks"].values()]
            total += max(0.0, budget_seconds(missing[-1]) - max(done, default=0.0))
            items.append(WorkItem(names[task], train_level, (settings, task)))
    return failures + do_all(settings, items, total, "training", "CPU s")


def do_all(
    settings: LevelsSettings, items: Sequence[WorkItem], total: float, title: str, unit: str
) -> list[tuple[str, str]]:
    """Do items under a bar; return names of those that failed, each with why.

    Args:
        settings: What is measured.
        items: A level each.
        total: Of the bar: what items report, or their number if they report nothing.
        title: Of the bar.
        unit: Of the total.

    Raises:
        KeyboardInterrupt: If it was stopped.
    """
    if not items:
        return []
    failures: list[tuple[str, str]] = []
    at_work: list[str] = []
    ended = 0
    options = {"unit_scale": True, "mininterval": 0.5 if sys.stderr.isatty() else 60.0}  # a log file needs fewer lines
    with Interruption() as interruption, Bar(total=max(1, round(total)), desc=title, unit=f" {unit}", **options) as bar:
        counted = unit == "level"

        def note(event: Event) -> None:
            nonlocal ended
            if event.kind == "progress":
                bar.update(max(0.0, min(event.content, bar.total - bar.n)))
                return
            if event.kind == "started":
                at_work.append(event.item.name)
            else:
                at_work.remove(event.item.name)
            if event.kind in ("done", "failed", "died"):
                ended += 1
                bar.update(int(counted))
                if event.kind != "done":
                    failures.append((event.item.name, event.content))
            levels = "" if counted else f"{ended} of {len(items)} levels done; "
            bar.set_postfix_str(levels + ", ".join(at_work), refresh=False)

        do_items(items, jobs=min(settings.jobs, len(items)), report=note, stopping=interruption.stopping)
    if interruption.stopping() and ended < len(items):
        if interruption.reader_gone:
            raise BrokenPipeError
        stop_at_once(interruption.signal_number)
    return failures


def report(settings: LevelsSettings) -> None:
    """Write page, table and figure of what is there."""
    from benchmarks.levels.page import write_outputs

    for path in write_outputs(settings):
        print(path)
