"""The runs of a sweep shared out over processes.

Each trains its share as one process would. Ctrl-C and SIGTERM reach the process that was started; it asks the others to
stop, and each saves its runs. If it is killed, they notice and save too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.command.workers import Event, Link, WorkItem, do_items
from pipeline.config import ConfigError
from pipeline.training.outputs import Report
from pipeline.training.plan import PlannedRun
from pipeline.training.work import train_groups


def share_out(runs: Sequence[PlannedRun], jobs: int) -> list[list[PlannedRun]]:
    """Return the runs dealt to at most `jobs` processes, those at the same update evenly."""
    ordered = sorted(runs, key=lambda run: run.update)  # stable: trials and seeds stay in order
    return [ordered[job::jobs] for job in range(min(jobs, len(ordered)))]


def train_in_processes(
    shares: Sequence[Sequence[Sequence[PlannedRun]]], *, overwrite: bool, stopping: Callable[[], bool], report: Report
) -> None:
    """Train each share of groups in a process of its own; see `train_groups`.

    A process that dies takes its own runs with it: they are reported as failed, and keep their last checkpoints.

    Raises:
        ConfigError: If no process could start to train; with the reasons of all.
    """
    open_runs = [{run.key: run for group in share for run in group} for share in shares]
    lost: dict[int, str] = {}  # why a share was not trained to its end
    refusals: list[str] = []
    begun = said = False

    def note(event: Event) -> None:
        nonlocal begun
        number = event.item.arguments[0]
        if event.kind == "progress":
            kind, content = event.content
            begun = begun or kind == "started"
            for key in _closed_by(kind, content):
                open_runs[number].pop(key, None)
            report(kind, content)
        elif event.kind == "failed":
            refusals.append(event.content)
            lost[number] = event.content
        elif event.kind == "died":
            lost[number] = f"the process that trained it died (exit code {event.content}); its last checkpoint stays"

    def is_wished() -> bool:
        nonlocal said
        if stopping() and not said:
            said = True
            report("say", "stopping: every process finishes its update and saves; Ctrl-C again ends them at once")
        return said

    items = [WorkItem(f"share {k}", train_share, (k, share, overwrite)) for k, share in enumerate(shares)]
    do_items(items, jobs=len(shares), report=note, stopping=is_wished)
    if refusals and not begun:
        raise ConfigError("; ".join(dict.fromkeys(refusals)))
    for number, why in lost.items():
        if left := list(open_runs[number].values()):
            report("failed", ([run.key for run in left], why, left[0].update))


def train_share(link: Link, _number: int, groups: Sequence[Sequence[PlannedRun]], overwrite: bool) -> None:
    """Train groups as an item of work."""
    train_groups(
        groups,
        overwrite=overwrite,
        stopping=link.stopping,
        report=lambda kind, content: link.report((kind, content)),
    )


def _closed_by(kind: str, content: Any) -> list[tuple[int, int]]:
    """Return the keys of the runs of which nothing more is to be expected after a report."""
    if kind == "failed":
        return content[0]
    return {"saved": lambda: [content[0]], "finished": lambda: [content]}.get(kind, list)()
