"""The table of levels: what the default policy reaches on every level in one to sixty minutes of two cores.

python -m benchmarks.levels
python -m benchmarks.levels --minutes 1 --only GoTo,PickupLoc --out levels
python -m benchmarks.levels --minutes 1,10 --out levels       # goes on from there
python -m benchmarks.levels --ready_made --minutes 10         # the settings of configs/, each on its level
python -m benchmarks.levels --launcher ray                     # a level is an item of work; docs/clusters.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.levels.reference import PAPER
from benchmarks.levels.settings import (
    JOBS,
    OPTIONS,
    READY_MADE,
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
from pipeline.command.launcher import FLAGS, HERE, Launcher, parse_launcher
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, WorkItem
from pipeline.config import TrainConfig
from pipeline.launch.items import launch
from pipeline.places import leave_out_earlier, run_folder

DESCRIPTION = (
    "Train the policy of config.yaml, or of another --config, on each level for some minutes of two cores, evaluate it "
    "on fixed levels, and tabulate: all levels to the first budget, then those that are not solved to the next. Ctrl-C "
    "saves, and the same command goes on. The flags of training change its settings; task_id, num_updates, folders, "
    "device and threads are this command's own."
)


Task = tuple[LevelsSettings, str]
"""A level, by its full id, and the settings with which it is measured."""


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some levels failed, 2 refused, 128 + signal stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(word == "--config" or word.startswith("--config=") for word in words):
        words = ["--config", str(ROOT / "config.yaml"), *words]
    settings, beside = read_settings(words)
    ready_made = [read_settings(words, name)[0] for name in READY_MADE]
    launcher = parse_launcher(**{name: beside[name] for name in FLAGS})
    for name, folder in (("out", settings.out), ("docs", settings.docs)):
        if folder is not None:
            check_folder(name, folder)
    levels = resolve_settings_levels(settings, PAPER)
    own = [(one, level) for one in ready_made if (level := find_level(one)) in levels]
    table = [(settings, level) for level in levels]
    if taken := take_published(settings, ready_made):
        print(f"{taken} levels were published before: {settings.docs}/levels.csv")
    failures = []
    if not beside["tables"]:
        tasks = own if beside["ready_made"] else table
        failures = measure(tasks, bot_only=beside["bot_only"], launcher=launcher)
    report(settings, ready_made)
    for name, why in failures:
        print(f"failed: {name}: {why}", file=sys.stderr)
    return int(bool(failures))


def read_settings(words: Sequence[str], ready_made: str | None = None) -> tuple[LevelsSettings, dict[str, Any]]:
    """Return what is measured, and the values of all flags beside the settings of training.

    Args:
        words: The command line.
        ready_made: Name of the ready-made settings that take the place of those of `--config`; flags win over them too.

    Raises:
        ConfigError: If something cannot be used.
    """
    config = [] if ready_made is None else ["--config", str(ROOT / "configs" / f"{ready_made}.yaml")]
    replaces = {"only": "task_id", "out": "checkpoint_dir"}
    config, beside = parse_command(
        DESCRIPTION,
        TrainConfig,
        [*words, *config],
        switches=SWITCHES,
        options={**OPTIONS, **FLAGS},
        replaces=replaces,
    )
    named = {name: beside[name] for name in OPTIONS}
    return parse_settings(config, to_the_end=beside["to_the_end"], ready_made=ready_made, **named), beside


def find_level(settings: LevelsSettings) -> str:
    """Return the full id of the level that ready-made settings are for."""
    from babyai.levels import resolve_task_id  # only here: --help is told without minigrid

    return resolve_task_id(settings.config.task_id)


def measure(tasks: Sequence[Task], *, bot_only: bool, launcher: Launcher = HERE) -> list[tuple[str, str]]:
    """Measure what is missing; return names of levels that failed, each with why.

    Args:
        tasks: With budgets and jobs alike.
        bot_only: Whether nothing is trained.
        launcher: Where.

    Raises:
        KeyboardInterrupt: If it was stopped.
        ConfigError: If results that are there were made with other settings, or the launcher cannot be had.
    """
    from benchmarks.levels.records import find_seconds, is_due, mark_key, read_record, short_name
    from benchmarks.levels.work import measure_level_bot, train_level  # torch: --help is told without

    if not tasks:
        return []
    shared = tasks[0][0]
    unseen = [task for task in tasks if read_record(*task)["bot"] is None]
    items = [describe_work(*task, measure_level_bot) for task in unseen]
    failures = do_all(shared, items, len(items), "the bot plays", "level", launcher.part("bot"))
    failed = {name for name, _ in failures}
    if bot_only:
        return failures
    for minutes in shared.minutes:
        items, total = [], 0.0
        for settings, level in tasks:
            record = read_record(settings, level)
            if short_name(level) in failed or not is_due(settings, record, minutes):
                continue
            total += max(0.0, budget_seconds(minutes) - find_seconds(settings, level))
            items.append(describe_work(settings, level, train_level, minutes))
        title = f"training, {mark_key(minutes)} min"
        part = launcher.part(f"train_{mark_key(minutes)}")
        failures += do_all(shared, items, total, title, "CPU s", part)
        failed |= {name for name, _ in failures}
    return failures


def describe_work(settings: LevelsSettings, task_id: str, do: Callable[..., None], *more: float) -> WorkItem:
    """Return what is done for a level as a work item: it takes along the level's record, clock, checkpoint and logs.

    Args:
        settings: What is measured.
        task_id: Full id.
        do: What is done; called with a link, these two and what follows.
        more: What follows.
    """
    from benchmarks.levels.records import clock_path, record_path, short_name

    config = settings.level_config(task_id)
    folders = (run_folder(config.checkpoint_dir, config), run_folder(config.log_dir, config))
    files = (record_path(settings, task_id), clock_path(settings, task_id), *folders)
    return WorkItem(
        short_name(task_id), do, (settings, task_id, *more), inputs=files, outputs=files, choose=leave_out_earlier
    )


def do_all(
    settings: LevelsSettings, items: Sequence[WorkItem], total: float, title: str, unit: str, launcher: Launcher
) -> list[tuple[str, str]]:
    """Do items under a bar; return names of those that failed, each with why.

    Args:
        settings: What is measured.
        items: A level each.
        total: Of the bar: what items report, or their number if they report nothing.
        title: Of the bar.
        unit: Of the total.
        launcher: Where.

    Raises:
        KeyboardInterrupt: If it was stopped.
    """
    if not items:
        return []
    failures: list[tuple[str, str]] = []
    at_work: dict[str, None] = {}
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
                at_work[event.item.name] = None
            else:
                at_work.pop(event.item.name, None)
            if event.kind in ("done", "failed", "died"):
                ended += 1
                bar.update(int(counted))
                if event.kind != "done":
                    failures.append((event.item.name, event.content))
            levels = "" if counted else f"{ended} of {len(items)} levels done; "
            bar.set_postfix_str(levels + ", ".join(at_work), refresh=False)

        jobs = min(settings.jobs or JOBS, len(items)) if launcher.is_local else settings.jobs
        launch(items, launcher=launcher, jobs=jobs, report=note, stopping=interruption.stopping)
    if interruption.stopping() and ended < len(items):
        if interruption.reader_gone:
            raise BrokenPipeError
        stop_at_once(interruption.signal_number)
    return failures


def take_published(settings: LevelsSettings, ready_made: Sequence[LevelsSettings]) -> int:
    """Take over what the folder of documents has and the one of results has not; return of how many levels."""
    if settings.docs is None or not (settings.docs / "levels.csv").is_file():
        return 0
    from benchmarks.levels.published import take_over

    return take_over(settings.docs / "levels.csv", settings, ready_made)


def report(settings: LevelsSettings, ready_made: Sequence[LevelsSettings]) -> None:
    """Write page, table and figure of what is there."""
    from benchmarks.levels.page import write_outputs

    for path in write_outputs(settings, ready_made):
        print(path)
