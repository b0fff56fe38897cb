"""Items done by machines that share no files with this one: the driver's side, whatever carries the messages.

An item goes out with its inputs as they are at that moment. What it writes comes back while it is at work; if its node
is lost, it goes out again with what has come back, and goes on from there.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from pipeline.command.errors import ConfigError, explain
from pipeline.command.launcher import Launcher
from pipeline.command.workers import Event, WorkItem
from pipeline.launch.files import apply_changes, check_relative
from pipeline.launch.journal import Journal
from pipeline.launch.remote import open_parcel, write_order
from pipeline.launch.waiting import Patience

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Message:
    """What comes of a try of an item.

    Attributes:
        number: Of the item.
        attempt: Of the try.
        parcel: What the item's machine has sent; None: the try has ended.
        why: Of the end, if it was none of the item's own.
        refused: Why the machine does no item at all.
    """

    number: int
    attempt: int
    parcel: bytes | None = None
    why: str | None = None
    refused: str | None = None


class Carrier(Protocol):
    """Takes orders to machines, and brings what they send."""

    def count_slots(self) -> int:
        """Return how many items the machines can do at once."""

    def find_missing(self) -> str | None:
        """Return what is missing and how to start it, in words, if no machine is there for an item; else None."""

    def send(self, number: int, attempt: int, name: str, order: bytes) -> None:
        """Let a machine do an order when there is room."""

    def receive(self, seconds: float) -> list[Message]:
        """Return what has come, after some time at the latest; of each try its end after all else."""

    def wish_stop(self, begun: set[int]) -> None:
        """Tell all items that a stop is wished, and withdraw those that have not begun.

        Args:
            begun: Numbers of the others.
        """

    def close(self) -> None:
        """End all that is under way."""


@dataclass
class _Try:
    """A try of an item that is under way."""

    attempt: int
    begun: bool = False
    ended: bool = False  # its last event has come
    node: str = ""


def drive(
    carrier: Carrier,
    items: Sequence[WorkItem],
    *,
    launcher: Launcher,
    jobs: int | None,
    report: Callable[[Event], object],
    stopping: Callable[[], bool],
    journal: Journal,
    folder: Path | None = None,
    wait_minutes: float = math.inf,
) -> None:
    """Do items as `pipeline.command.workers.do_items` does, by a carrier.

    Args:
        carrier: Of orders and messages; who has opened it closes it.
        items: Their inputs and outputs are below the current folder.
        launcher: Knows how often an item is tried again, and after what time written files come back.
        jobs: Most at once; None: as many as there is room for.
        report: Called with every event, once an event's files are here.
        stopping: Whether a stop is wished.
        journal: Of states.
        folder: Of the journal.
        wait_minutes: For which no machine may be there before this ends.

    Raises:
        ConfigError: If a machine has other code than this one, a file cannot be named there, or no machine is there for
            too long; what has come back is kept.
    """
    for item in items:
        check_relative(item)
    patience = Patience(wait_minutes, lambda line: tqdm.write(line, file=sys.stderr))
    _Drive(carrier, items, launcher, jobs, report, journal, patience).run(stopping)


class _Drive:
    def __init__(
        self,
        carrier: Carrier,
        items: Sequence[WorkItem],
        launcher: Launcher,
        jobs: int | None,
        report: Callable[[Event], object],
        journal: Journal,
        patience: Patience,
    ) -> None:
        self._carrier, self._items, self._jobs = carrier, items, jobs
        self._retries, self._sync_seconds = launcher["retries"], launcher["sync_seconds"]
        self._report, self._journal, self._patience = report, journal, patience
        self._waiting = deque((number, 1) for number in range(len(items)))  # item and number of its next try
        self._tries: dict[int, _Try] = {}
        self._wished = False
        self._refused: str | None = None

    def run(self, stopping: Callable[[], bool]) -> None:
        while True:
            if not self._wished and (self._refused or stopping()):
                self._wished = True
                self._carrier.wish_stop({number for number, at in self._tries.items() if at.begun})
            if not self._wished:
                self._send_out()
            if not self._tries:
                break
            if not self._wished:
                self._patience.note(self._carrier.find_missing())
            for message in self._carrier.receive(POLL_SECONDS):
                self._take(message)
        if self._refused:
            raise ConfigError(self._refused)

    def _send_out(self) -> None:
        slots = self._carrier.count_slots()
        room = slots + max(2, slots // 4)  # some wait at the machines, so that none is idle
        while self._waiting and len(self._tries) < (room if self._jobs is None else min(room, self._jobs)):
            number, attempt = self._waiting.popleft()
            item = self._items[number]
            try:
                order = write_order(item, self._sync_seconds)
            except OSError as error:  # what it reads may be anything; the others go on
                self._tell(number, _Try(attempt), "failed", f"what it needs cannot be read: {explain(error)}")
                continue
            self._tries[number] = _Try(attempt)
            self._carrier.send(number, attempt, item.name, order)

    def _take(self, message: Message) -> None:
        at = self._tries.get(message.number)
        if at is None or at.attempt != message.attempt:  # of a try that was given up
            return
        if message.parcel is None:
            self._refused = self._refused or message.refused
            if not at.ended and not message.refused:
                self._lose(message.number, at, message.why or "its process ended without a word")
            self._tries.pop(message.number, None)
            return
        item, parcel = self._items[message.number], open_parcel(message.parcel)
        at.node = parcel.node or at.node
        if parcel.refused:
            self._refused, at.ended = parcel.refused, True
            return
        problem = None
        try:
            apply_changes(parcel.changes, item.outputs)
        except (OSError, ValueError) as error:
            problem = f"what it has written cannot be kept here: {explain(error)}"
        for kind, content in parcel.events:
            if kind == "withdrawn":
                at.begun, at.ended = False, True
            elif not problem or kind == "started":  # else it tells of files that are not here
                self._tell(message.number, at, kind, content)
        if problem:
            self._tell(message.number, at, "failed", problem)
            self._tries.pop(message.number)  # what still comes of it is dropped

    def _tell(self, number: int, at: _Try, kind: str, content: object) -> None:
        if kind == "started":
            at.begun = True
        if kind != "progress":
            at.ended |= kind != "started"
            why = str(content) if kind in ("failed", "died") else None
            self._journal.note(number, kind, why=why, attempt=at.attempt, node=at.node)
        self._report(Event(self._items[number], kind, content))

    def _lose(self, number: int, at: _Try, why: str) -> None:
        """Let an item go out once more, or give it up."""
        if self._wished and not at.begun:  # withdrawn
            return
        if self._wished or at.attempt > self._retries:
            tries = f" ({at.attempt} tries)" if at.attempt > 1 else ""
            self._tell(number, at, "died", f"{why}{tries}")
            return
        self._journal.note(number, "lost", why=why, attempt=at.attempt, node=at.node)
        item = self._items[number]
        tqdm.write(f"{item.name}: {why}; it goes on elsewhere from what has come back", file=sys.stderr)
        self._waiting.appendleft((number, at.attempt + 1))
