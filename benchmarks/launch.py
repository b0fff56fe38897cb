"""What lists of work items cost at 100, 1,000 and 10,000 of them, with items that do nothing.

    python -m benchmarks.launch
    python -m benchmarks.launch --counts 100 1000 --json launch.json

Per count: the items done here one by one with a record; by the driver and the far side that Ray and Modal share, both
in this process, each item with a file that goes and one that comes back; beside both, what these files cost alone, for
folders of many entries are slower in the system itself; what the record takes on disk and its reading; a sweep planned.
Linear growth is a constant number of milliseconds per item. `benchmarks.scale` measures what comes after the work.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import as_benchmark, format_machine_facts, format_records, parse_positive, time_call
from pipeline.command.cli import Parser
from pipeline.command.launcher import parse_launcher
from pipeline.command.workers import Event, Link, WorkItem
from pipeline.config import TrainConfig
from pipeline.launch.driver import Message, drive
from pipeline.launch.items import launch
from pipeline.launch.journal import Journal, read_states
from pipeline.launch.remote import serve
from pipeline.training.options import Sweep
from pipeline.training.plan import plan_runs


def do_nothing(link: Link, folder: str) -> None:
    """Write a byte, as an item."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "out").write_bytes(b"1")


class HereCarrier:
    """Does each order in this process at once."""

    def __init__(self) -> None:
        self._found: list[Message] = []

    def count_slots(self) -> int:
        """Return how many are handed out before the first one is asked for."""
        return 16

    def find_missing(self) -> None:
        """Return None: this process is there."""

    def send(self, number: int, attempt: int, name: str, order: bytes) -> None:
        """Do an order."""

        def post(parcel: bytes) -> bool:
            self._found.append(Message(number, attempt, parcel))
            return False

        serve(order, post)
        self._found.append(Message(number, attempt))

    def receive(self, seconds: float) -> list[Message]:
        """Return what was sent."""
        found, self._found = self._found, []
        return found

    def wish_stop(self, begun: set[int]) -> None:
        """Do nothing: all is done."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class LaunchCost:
    """What a list costs.

    Attributes:
        items: How many.
        local_ms: Milliseconds of the processor per item done here, with a record.
        remote_ms: The same by driver and far side.
        files_ms: The same for the items' files alone.
        megabytes: Largest memory of this process so far.
        record_bytes: Of the record, per item.
        status_seconds: Reading the record.
        plan_seconds: Planning a sweep of as many runs that have not begun.
    """

    items: int
    local_ms: float
    remote_ms: float
    files_ms: float
    megabytes: float
    record_bytes: float
    status_seconds: float
    plan_seconds: float


COLUMNS = [
    ("items", "items:,"),
    ("here, ms/item", "local_ms:.2f"),
    ("elsewhere, ms/item", "remote_ms:.2f"),
    ("its files alone, ms/item", "files_ms:.2f"),
    ("memory, MB", "megabytes:.0f"),
    ("record, bytes/item", "record_bytes:.0f"),
    ("status, s", "status_seconds:.2f"),
    ("plan, s", "plan_seconds:.2f"),
]


def measure_list(count: int) -> LaunchCost:
    """Return the cost of a list of so many items, in the current folder."""
    folders = [Path("out") / str(number) for number in range(count)]
    items = [
        WorkItem(f"item {n}", do_nothing, (str(folder),), inputs=(folder,), outputs=(folder,))
        for n, folder in enumerate(folders)
    ]
    link = Link(bool, bool)
    _, _, alone = time_call(lambda: [do_nothing(link, str(Path("alone") / str(n))) for n in range(count)])
    ended = 0

    def report(event: Event) -> None:
        nonlocal ended
        ended += event.kind == "done"

    told = parse_launcher("local", "folder=here")
    _, _, local = time_call(lambda: launch(items, launcher=told, jobs=1, report=report))
    record = sum(path.stat().st_size for path in Path("here").iterdir())
    states, _, status = time_call(lambda: read_states(Path("here")))
    far = parse_launcher("ray", "folder=there,sync_seconds=60")
    with Journal(Path("there") / "events.jsonl") as journal:
        _, _, remote = time_call(
            lambda: drive(HereCarrier(), items, launcher=far, jobs=None, report=report, stopping=bool, journal=journal)
        )
    if ended != 2 * count or {state.state for state in states} != {"done"}:
        raise RuntimeError(f"expected {2 * count} items done, found {ended}")
    configs = tuple(TrainConfig(task_id="BabyAI-GoToObj-v0", seed=seed, device="cpu") for seed in range(count))
    _, _, plan = time_call(lambda: plan_runs(Sweep(configs), resume=True, overwrite=False))
    return LaunchCost(
        count,
        1e3 * local / count,
        1e3 * remote / count,
        1e3 * alone / count,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        record / count,
        status,
        plan,
    )


def add_flags(parser: Parser) -> None:
    """Add this benchmark's flags."""
    counts = [100, 1000, 10_000]
    parser.add_argument("--counts", nargs="+", type=parse_positive(int), default=counts, help="of items")


@as_benchmark(add_flags)
def main(args: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Measure and print; return what was found."""
    costs = []
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            costs.append(measure_list(count))
    print("Lists of items that do nothing; seconds are the processor's")
    print(format_machine_facts(machine, [int(os.environ.get("OMP_NUM_THREADS", 1))]))
    print()
    print(format_records(COLUMNS, costs))
    return {"launch": costs}


if __name__ == "__main__":
    sys.exit(main())
