"""An item done on a machine that shares no files with the driver: its side there.

What passes between both is pickled: an order (a dict of plain values, so that every version of this project can read
which version it asks for) and parcels, of which each holds changes of files and the events that came after them.
"""

from __future__ import annotations

import os
import pickle
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from pipeline.command.errors import explain
from pipeline.command.workers import Link, WorkItem, do_item
from pipeline.launch.code import compute_code, describe_code, list_beside, refuse_other_code
from pipeline.launch.files import Change, Outbox, gather, lay_out
from pipeline.launch.pickling import pickle_item
from pipeline.launch.workplace import work_folder

Post = Callable[[bytes], bool]
"""Takes a parcel to the driver; returns whether a stop is wished."""


@dataclass(frozen=True)
class Parcel:
    """What an item's machine tells the driver.

    Attributes:
        changes: Of files.
        events: Kind and content.
        refused: Why nothing is done on this machine.
        node: Its name.
    """

    changes: tuple[Change, ...] = ()
    events: tuple[tuple[str, Any], ...] = ()
    refused: str | None = None
    node: str = ""


def write_order(item: WorkItem, sync_seconds: float) -> bytes:
    """Return an item with its inputs as they are now, for `serve`.

    Raises:
        TypeError: If the item cannot be pickled.
    """
    beside = list_beside(item.function)
    return pickle.dumps(
        {
            **{"code": compute_code(beside), "described": describe_code(beside), "beside": beside},
            **{"item": pickle_item(item), "files": gather(item), "sync_seconds": sync_seconds},
        }
    )


def serve(order: bytes, post: Post) -> None:
    """Do an item in a folder of its own, with its files and events sent to the driver.

    Args:
        order: See `write_order`.
        post: Called in a thread, one parcel after the other. Where it raises, the driver is gone: the item is stopped.
    """
    wanted = pickle.loads(order)
    if refused := refuse_other_code(wanted["code"], wanted["described"], wanted.get("beside", ())):
        post(pickle.dumps(Parcel(refused=refused)))
        return
    before = os.getcwd()
    with work_folder() as folder:
        os.chdir(folder)
        try:
            _do(wanted, post)
        finally:
            os.chdir(before)


def _do(wanted: dict[str, Any], post: Post) -> None:
    lay_out(wanted["files"])
    item = pickle.loads(wanted["item"])
    courier = _Courier(post, Outbox(item.outputs), wanted["sync_seconds"])
    courier.tell("started", None)
    if courier.deliver():  # a stop is wished already
        courier.tell("withdrawn", None)
        courier.deliver()
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        courier.start()
        try:
            end = do_item(Link(lambda content: courier.tell("progress", content), courier.stopping), item)
        finally:
            courier.end()
    if courier.broken is not None:  # what was on its way then is nowhere: a new try begins where the driver is
        raise courier.broken
    courier.tell(*end)
    courier.deliver()


class _Courier:
    """Sends what has happened, at intervals, from a thread beside the item.

    Attributes:
        broken: Why nothing more can be sent.
    """

    def __init__(self, post: Post, outbox: Outbox, sync_seconds: float) -> None:
        self._post, self._outbox = post, outbox
        self._sync_seconds = sync_seconds
        self._events: list[tuple[str, Any]] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._stop = False
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self.start = self._thread.start

    def tell(self, kind: str, content: Any) -> None:
        """Note an event."""
        with self._lock:
            self._events.append((kind, content))

    def stopping(self) -> bool:
        """Return whether a stop is wished, or nobody is there to take what is done."""
        return self._stop

    def deliver(self) -> bool:
        """Send what has happened, if only to ask; return whether a stop is wished."""
        with self._lock:
            events, self._events = tuple(self._events), []
        changes = tuple(self._outbox.collect())  # after the events: what they tell of is there
        try:
            parcel = pickle.dumps(Parcel(changes, events, node=socket.gethostname()))
        except Exception as error:  # a result that cannot be pickled
            kept = tuple((kind, content) for kind, content in events[:-1])
            failed = ("failed", f"{type(error).__name__}: {explain(error)}")
            parcel = pickle.dumps(Parcel(changes, (*kept, failed), node=socket.gethostname()))
        self._stop |= self._post(parcel)
        return self._stop

    def _run(self) -> None:
        while not self._over.wait(self._sync_seconds):
            try:
                self.deliver()
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                self.broken, self._stop = error, True
                return

    def end(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()


def open_parcel(sent: bytes) -> Parcel:
    """Return a parcel as its machine has sent it."""
    return pickle.loads(sent)


def stream(order: bytes, stopping: Callable[[], bool]) -> Iterator[bytes]:
    """Do `serve` in a thread, and yield its parcels: for what calls functions that yield.

    Args:
        order: See `write_order`.
        stopping: Asked with each parcel whether a stop is wished.
    """
    parcels: queue.Queue[bytes | BaseException | None] = queue.Queue()

    def post(parcel: bytes) -> bool:
        parcels.put(parcel)
        return stopping()

    def work() -> None:
        try:
            serve(order, post)
        except BaseException as error:
            parcels.put(error)
        else:
            parcels.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (parcel := parcels.get()) is not None:
        if isinstance(parcel, BaseException):
            raise parcel
        yield parcel
