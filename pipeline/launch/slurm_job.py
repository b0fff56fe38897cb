"""An item as a job of Slurm's: what it does on its node, and the files by which it tells the driver of that.

A job that is told to end (its time is nearly up, or it is preempted) lets its item save and goes back into the queue.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.command.errors import explain
from pipeline.command.files import Lines
from pipeline.command.interruption import signals_handled
from pipeline.command.workers import Link, WorkItem, do_item
from pipeline.launch.code import compute_code, describe_code, list_beside, refuse_other_code
from pipeline.launch.journal import Journal
from pipeline.launch.pickling import pickle_item

POLL_SECONDS = 1.0
"""For which events wait for company, and how soon a stop is heard."""

STOP_FILE = "stop"
_GIVING_BACK = tuple(n for name in ("SIGUSR1", "SIGUSR2") if (n := getattr(signal, name, None)) is not None)
"""Signals that announce the end of a job's time; after SIGTERM Slurm itself decides whether it is requeued."""


class SlurmItem:
    """An item as submitit's job: called there, and called again there after it was requeued.

    Args:
        folder: Of the call's record, absolute.
        tasks: Of the items' files, below it; where it is gone a later call has taken the record's place.
        number: Of the item.
        item: What is done.
    """

    def __init__(self, folder: Path, tasks: Path, number: int, item: WorkItem) -> None:
        self._folder, self._tasks, self._number, self._item = folder, tasks, number, pickle_item(item)
        self._place, self._beside = os.getcwd(), list_beside(item.function)
        self._code, self._described = compute_code(self._beside), describe_code(self._beside)

    def __call__(self) -> None:
        """Do the item, and let the job be requeued if a signal has stopped it."""
        if not self._tasks.is_dir():
            print(f"{self._tasks}: gone, for a later call has taken the record's place; nothing is done")
            return
        os.chdir(self._place)
        told: list[int] = []
        with (
            Journal(self._tasks / f"{self._number}.jsonl") as journal,
            EventWriter(events_path(self._tasks, self._number)) as events,
            signals_handled((signal.SIGTERM, *_GIVING_BACK), lambda number, _: told.append(number)),
        ):
            attempt = events.count_tries() + 1
            kind, content = self._do(journal, events, attempt, told)
            again = kind == "stopped" and bool(set(told) & set(_GIVING_BACK))
            why = str(content) if kind == "failed" else None
            journal.note(self._number, "lost" if again else kind, why=why, attempt=attempt)
            if not again:
                events.add(kind, content)
        if again:
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's own handler requeues, and ends this process

    def _do(self, journal: Journal, events: EventWriter, attempt: int, told: list[int]) -> tuple[str, Any]:
        stop = Stopping(self._folder / STOP_FILE, told)
        if stop():
            return "stopped", None
        journal.note(self._number, "started", attempt=attempt)
        events.add("started", None, now=True)
        if refused := refuse_other_code(self._code, self._described, self._beside):
            return "failed", refused
        return do_item(Link(lambda content: events.add("progress", content), stop), pickle.loads(self._item))

    def checkpoint(self) -> Any:
        """Return what submitit puts back into the queue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Stopping:
    """Says whether a stop is wished: by a signal, or by the driver's file, at which it looks now and then."""

    def __init__(self, path: Path, told: list[int]) -> None:
        self._path, self._told, self._next, self._found = path, told, 0.0, False

    def __call__(self) -> bool:
        """Return whether it is."""
        if not self._found and time.monotonic() >= self._next:
            self._found, self._next = self._path.exists(), time.monotonic() + POLL_SECONDS
        return self._found or bool(self._told)


# ------------------------------------------------------------------------------------------------------------- events


def events_path(tasks: Path, number: int) -> Path:
    """Return the file of an item's events."""
    return tasks / f"{number}.events"


class EventWriter:
    """Adds events to a file, each as a length and a pickle."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._waiting, self._written = path, b"", 0.0

    def __enter__(self) -> EventWriter:
        """Cut off what a kill has left half written."""
        whole = EventReader(self._path)
        self._tries = sum(kind == "started" for kind, _ in whole.read())
        with self._path.open("ab") as file:
            file.truncate(whole.offset)
        self._lines = Lines(self._path)
        return self

    def count_tries(self) -> int:
        """Return how often the item had been begun before."""
        return self._tries

    def add(self, kind: str, content: Any, *, now: bool = False) -> None:
        """Add an event; it is written soon, or now."""
        try:
            pickled = pickle.dumps((kind, content))
        except Exception as error:  # a result that cannot be pickled
            pickled = pickle.dumps(("failed", f"{type(error).__name__}: {explain(error)}"))
        self._waiting += struct.pack("<Q", len(pickled)) + pickled
        if now or kind != "progress" or time.monotonic() > self._written + POLL_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with suppress(OSError):  # a full disk ends nothing: the events wait for the next time
            self._lines.write(self._waiting)
            self._waiting = b""

    def __exit__(self, *_: object) -> None:
        """Write what waits."""
        self._write()
        self._lines.close()


class EventReader:
    """Reads the events of a file that have been added since it last read.

    Attributes:
        offset: Bytes read so far.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.offset = path, 0

    def read(self) -> Iterator[tuple[str, Any]]:
        """Yield kind and content of whole events."""
        try:
            with self._path.open("rb") as file:
                file.seek(self.offset)
                content = file.read()
        except FileNotFoundError:
            return
        start = 0
        while start + 8 <= len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            if start + 8 + length > len(content):
                break
            self.offset += 8 + length
            yield pickle.loads(content[start + 8 : start + 8 + length])
            start += 8 + length
