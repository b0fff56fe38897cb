"""What tree search buys, and what not: every method at equal new tokens, on captions, activities, sums and levels.

    python -m benchmarks.maxent_study --part all --seeds 0-4 --output maxent_study --policies "checkpoints/*.pt"

What is there is not done again, so that the command can be stopped and started again, or given more seeds. Tables
(Markdown) and figures are written anew at its end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.maxent_study.settings import StudySettings
from pipeline.command.bars import Bar
from pipeline.command.cli import parse_command
from pipeline.command.files import write_text
from pipeline.command.folders import check_folder
from pipeline.command.interruption import Interruption, stop_at_once
from pipeline.command.launcher import FLAGS, HERE, Launcher, parse_launcher
from pipeline.command.shell import as_command
from pipeline.command.workers import Event, WorkItem
from pipeline.launch.items import launch

if TYPE_CHECKING:
    from benchmarks.maxent_study.units import Group


@as_command(stopped="stopped; the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 some of it failed, 2 refused, 128 + signal stopped."""
    description = "Search with every method at equal new tokens, over seeds, and tabulate what that buys."
    switches = {"tables": "Write tables and figures of what is there, and search no more."}
    settings, values = parse_command(description, StudySettings, argv, switches=switches, options=FLAGS)
    launcher = parse_launcher(**{name: values[name] for name in FLAGS})
    check_folder("output", Path(settings.output))
    failures = [] if values["tables"] else do_study(settings, launcher)
    report(settings)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failures))


def do_study(settings: StudySettings, launcher: Launcher = HERE) -> list[str]:
    """Do what is missing; return what failed, a line each.

    Raises:
        KeyboardInterrupt: If it was stopped.
        UserError: If what is there was made with other settings.
    """
    from benchmarks.maxent_study.units import list_groups, list_units, read_record

    groups = list_groups(settings)
    failures: list[str] = []
    with Interruption() as interruption:
        sizes = [(unit, unit.stop - unit.start) for group in groups for unit in list_units(settings, group)]
        total = sum(size for _, size in sizes)
        done = sum(size for unit, size in sizes if read_record(settings, unit, print) is not None)
        items = [describe_work(settings, group) for group in groups]
        ended = 0
        with Bar(total=total, initial=done, desc="searching", unit="search") as bar:

            def note(event: Event) -> None:
                nonlocal ended
                if event.kind == "progress":
                    bar.update(event.content)
                elif event.kind == "started":
                    bar.set_postfix_str(event.item.name, refresh=False)
                elif event.kind != "stopped":
                    ended += 1
                    if event.kind != "done":
                        failures.append(f"{event.item.name}: {event.content}")

            launch(items, launcher=launcher, jobs=settings.jobs, report=note, stopping=interruption.stopping)
    if ended < len(items):
        if interruption.reader_gone:
            raise BrokenPipeError
        stop_at_once(interruption.signal_number)
    return failures


def describe_work(settings: StudySettings, group: Group) -> WorkItem:
    """Return what is done with a model as a work item: it takes along that model and its records."""
    from benchmarks.maxent_study.searching import do_group
    from benchmarks.maxent_study.units import list_units

    output = Path(settings.output)
    records = sorted({unit.find_path(settings).parent for unit in list_units(settings, group)})
    models = (output / "sums",) if group.part == "sums" else (output / "stand_ins",)
    source = () if group.source is None else (Path(group.source),)
    name = f"{group.part} {group.model} seed {group.seed}"
    outputs = (*records, *models)
    return WorkItem(name, do_group, (settings, group), inputs=(*outputs, *source), outputs=outputs)


def report(settings: StudySettings) -> None:
    """Write and print the tables of what is there, and write the figures."""
    from benchmarks.maxent_study.figures import save_figures
    from benchmarks.maxent_study.tables import write_tables
    from benchmarks.maxent_study.units import iterate_records

    records = list(iterate_records(settings, print))
    text = write_tables(settings, records)
    write_text(Path(settings.output) / "tables.md", text)
    print(text)
    for path in save_figures(settings, records):
        print(f"figure: {path}")
