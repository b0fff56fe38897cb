"""Work items done here or in processes of their own, through one interface.

    def train(link: Link, seed: int) -> float:              # at the top of a module, so that a process can import it
        while not link.stopping():
            ...
            link.report(seed)

    do_items([WorkItem(f"seed {s}", train, (s,)) for s in range(9)], jobs=4, report=print, stopping=lambda: False)

Nothing of the interface says that processes are of this machine: `pipeline/launch/` hands the items to a cluster where
a command is told to, and where machines share no files it takes along those that an item names. Ctrl-C, SIGTERM and
SIGHUP are the caller's: his `stopping` turns them into a wish to stop, an exception in him (such as a second Ctrl-C's)
ends all work at once. Workers are deaf to what a terminal sends to all, Ctrl-C and SIGHUP; they take SIGTERM, and the
death of who started them, for a wish to stop. What they print is dropped, for it would cross the caller's bar.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.interruption import deaf_to_the_terminal, stop_at_once

POLL_SECONDS = 0.2
END_SECONDS = 30.0  # that a worker may take to remove files half written when it must end at once; then it is killed
_STOP = b""


class Stopped(KeyboardInterrupt):
    """An item ends because a stop is wished; no `except Exception` on its way takes it for a failure."""


@dataclass(frozen=True)
class WorkItem:
    """A piece of work.

    Attributes:
        name: For messages.
        function: Called with a `Link` and the arguments; what it returns is the result. Like arguments and result it is
            pickled where it goes elsewhere, so that it must be a function of a module.
        arguments: All but the link.
        inputs: Files, and folders whose files, it reads where they are there; on this machine nobody asks.
        outputs: Files and folders below which it writes what is to be kept.
        choose: Of the files that folders of `inputs` hold when the item goes out, returns those that it needs, a
            function of a module; None: all. What is left out stays where it is, and is no part of what comes back.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    choose: Callable[[Sequence[str]], Sequence[str]] | None = None


@dataclass(frozen=True)
class Event:
    """What has happened to an item.

    Attributes:
        item: Which one.
        kind: started; progress, any number of times; and one of done, stopped, failed, died.
        content: Of progress what was reported, of done the result, of failed and died why, in one line.
    """

    item: WorkItem
    kind: Literal["started", "progress", "done", "stopped", "failed", "died"]
    content: Any = None


@dataclass(frozen=True)
class Link:
    """What an item has of who started it.

    Attributes:
        report: Called with what becomes the content of an event of progress.
        stopping: Whether it is wished that the item saves what it has and returns.
    """

    report: Callable[[Any], object]
    stopping: Callable[[], bool]

    def heed(self, *_: object) -> None:
        """End the item here if a stop is wished: for work of which nothing need be saved. Fits where progress is told.

        Raises:
            Stopped: If it is.
        """
        if self.stopping():
            raise Stopped


def do_items(
    items: Iterable[WorkItem],
    *,
    jobs: int,
    report: Callable[[Event], object],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Do items in their order, `jobs` at a time, until all are done or a stop is wished and those begun have ended.

    An item that fails, or whose process dies, ends with an event that says so; the others go on. If it fails by a
    mistake of the program's, its traceback goes to stderr.

    Args:
        items: Taken one by one when there is room, and not kept.
        jobs: 1: here, one after the other. Else in so many processes.
        report: Called here with every event, as it happens.
        stopping: Asked now and then whether a stop is wished.

    Raises:
        TypeError: If an item cannot be pickled.
        BaseException: What `report` and `stopping` raise, and KeyboardInterrupt, when all work has been ended.
    """
    if jobs > 1:
        _do_elsewhere(iter(items), jobs, report, stopping)
        return
    for item in items:
        if stopping():
            return
        report(Event(item, "started"))
        link = Link(lambda content, item=item: report(Event(item, "progress", content)), stopping)
        report(Event(item, *do_item(link, item)))


def do_item(link: Link, item: WorkItem) -> tuple[str, Any]:
    """Do an item here; return the kind and the content of its last event: done, stopped or failed."""
    try:
        return "done", item.function(link, *item.arguments)
    except Stopped:
        return "stopped", None
    except MISTAKES as error:
        return "failed", explain(error)
    except Exception as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {explain(error)}"


# ----------------------------------------------------------------------------------------------------- who starts them


class _Worker:
    """A process that does one item after the other, as who has started it sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked torch can deadlock
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        with deaf_to_the_terminal():
            self.process.start()
        other.close()
        self.item: WorkItem | None = None
        self.begun = False

    def take(self, item: WorkItem) -> bool:
        """Send it an item; return whether it is there to take it."""
        try:
            pickled = pickle.dumps(item)
        except Exception as error:
            raise TypeError(f"{item.name}: expected a module's function and what can be pickled: {error}") from error
        self.item, self.begun = item, False
        with suppress(OSError):
            self.pipe.send_bytes(pickled)
            return True
        return False


def _do_elsewhere(
    items: Iterator[WorkItem], jobs: int, report: Callable[[Event], object], stopping: Callable[[], bool]
) -> None:
    workers: list[_Worker] = []
    wished = False
    try:
        while True:
            if not wished and stopping():
                wished = True
                for worker in workers:
                    with suppress(OSError):  # one that has died says so when its pipe is read
                        worker.pipe.send_bytes(_STOP)
            if not wished:
                _hand_out(items, workers, jobs)
            busy = {worker.pipe: worker for worker in workers if worker.item is not None}
            if not busy:
                break
            for pipe in multiprocessing.connection.wait(list(busy), timeout=POLL_SECONDS):
                worker = busy[pipe]
                item = worker.item
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):  # it has ended, perhaps within a message
                    workers.remove(worker)
                    worker.process.join()
                    code = worker.process.exitcode
                    if not worker.begun and code == 0:  # stopped by a signal of its own before it read the item
                        items = chain([item], items)
                    elif worker.begun or not stopping():
                        report(Event(item, "died", f"its process died (exit code {code})"))
                    continue
                worker.begun = True
                if kind not in ("started", "progress"):
                    worker.item = None
                report(Event(item, kind, content))
    except BaseException:
        for worker in workers:
            if worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGUSR1)
        for worker in workers:
            worker.process.join(END_SECONDS)
            worker.process.kill()
        raise
    finally:
        for worker in workers:
            worker.pipe.close()  # it ends when it has read all
            worker.process.join()


def _hand_out(items: Iterator[WorkItem], workers: list[_Worker], jobs: int) -> None:
    """Give each idle worker an item, start as many as there is work and room for, and let go those without any."""
    idle = [worker for worker in workers if worker.item is None]
    while (idle or len(workers) < jobs) and (item := next(items, None)) is not None:
        while idle:
            worker = idle.pop(0)
            if worker.take(item):
                break
            workers.remove(worker)  # it has died since its last item
        else:
            workers.append(_Worker())
            workers[-1].take(item)
    for worker in idle:
        worker.pipe.close()


# ---------------------------------------------------------------------------------------------------------- the worker


def _serve(pipe: Connection) -> None:
    """Do items until there are no more or a stop is wished."""
    told = False  # by a signal, or because nobody is there any more

    def note(*_: object) -> None:
        nonlocal told
        told = True

    def tell(kind: str, content: Any = None) -> None:
        try:
            pipe.send((kind, content))
        except OSError:
            note()

    link = Link(lambda content: tell("progress", content), lambda: told or pipe.poll())
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGUSR1, stop_at_once)
    sys.stdout = open(os.devnull, "w", encoding="utf-8")
    with suppress(EOFError, OSError, KeyboardInterrupt):  # who started it is gone, or ends it
        while not told and (pickled := pipe.recv_bytes()) != _STOP:
            tell("started")
            try:
                tell(*do_item(link, pickle.loads(pickled)))
            except Exception as error:  # what cannot be found here, or a result that cannot be pickled
                tell("failed", f"{type(error).__name__}: {explain(error)}")
