"""Items for tests of launchers, in a module that their processes can import; and a carrier of processes here."""

import multiprocessing
import os
import pickle
import signal
import time
from contextlib import closing
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from pipeline.command.errors import ConfigError
from pipeline.command.workers import Link, WorkItem
from pipeline.launch import items
from pipeline.launch.driver import Message, drive
from pipeline.launch.remote import open_parcel, serve


def count(
    link: Link, folder: str, upto: int, dies_at: int | None = None, preempted_at: int | None = None, pause: float = 0.0
) -> int:
    """Count in a file, from what it holds, and keep each number in a file of its own, as checkpoints are.

    Args:
        link: Of the item.
        folder: Of its files.
        upto: The last number.
        dies_at: Number at which the process dies, if it has begun at the first one.
        preempted_at: Number at which its process is told that its time is over, if it has begun at the first one.
        pause: Seconds between numbers.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    begun_at = max((int(path.stem) for path in place.glob("*.number")), default=0)
    with (place / "log.jsonl").open("a") as log:
        for number in range(begun_at + 1, upto + 1):
            if link.stopping():
                break
            log.write(f"{number}\n")
            log.flush()
            (place / f"{number}.number").write_text(str(sum(range(number + 1))))
            (place / f"{number - 1}.number").unlink(missing_ok=True)
            link.report(number)
            if number == dies_at and begun_at == 0:
                time.sleep(1.0)  # what it has written goes out
                os._exit(9)
            if number == preempted_at and begun_at == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(pause)
    print("what is printed is dropped")
    link.heed()
    return begun_at


def misbehave(link: Link, how: str) -> object:
    if how == "refuse":
        raise ConfigError("lr: expected a number,\nfound none")
    if how == "slip":
        raise KeyError("x")
    if how == "lambda":
        return lambda: None
    if how == "die":
        os._exit(9)
    return how


def count_item(
    name: str, upto: int, *, dies_at: int | None = None, preempted_at: int | None = None, pause: float = 0.0
) -> WorkItem:
    folder = Path("out") / name
    arguments = (str(folder), upto, dies_at, preempted_at, pause)
    return WorkItem(name, count, arguments, inputs=(folder,), outputs=(folder,))


# Each order has a new process, but what all would import is imported once.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.launch_preload"])


class ProcessCarrier:
    """Carries orders to processes of this machine, each in a folder of its own.

    Args:
        slots: Processes at once; `most` is how many there have been, `sent` what each order took along.
        loses: Changed file by whose name a process is known that is killed once it has sent that.
    """

    def __init__(self, slots: int = 2, loses: str | None = None) -> None:
        self._slots, self._loses, self.lost, self.most = slots, loses, 0, 0
        self.sent: list[list[str]] = []
        self._running = {}
        self._stop = FORKED.Event()

    def count_slots(self) -> int:
        return self._slots

    def find_missing(self) -> None:
        return None

    def send(self, number: int, attempt: int, name: str, order: bytes) -> None:
        self.sent.append([path for path, _ in pickle.loads(order)["files"]])
        pipe, other = FORKED.Pipe()
        process = FORKED.Process(target=_serve, args=(other, order, self._stop), daemon=True)
        process.start()
        other.close()
        self._running[pipe] = number, attempt, process
        self.most = max(self.most, len(self._running))

    def receive(self, seconds: float) -> list[Message]:
        found = []
        for pipe in wait(list(self._running), timeout=seconds):
            number, attempt, process = self._running[pipe]
            try:
                parcel = pipe.recv_bytes()
                found.append(Message(number, attempt, parcel))
                names = [change.path for change in open_parcel(parcel).changes]
                if self._loses is not None and not self.lost and any(name.endswith(self._loses) for name in names):
                    self.lost += 1
                    process.kill()
            except EOFError:
                process.join()
                found.append(
                    Message(number, attempt, why=f"exit code {process.exitcode}" if process.exitcode else None)
                )
                del self._running[pipe]
        return found

    def wish_stop(self, begun: set[int]) -> None:
        self._stop.set()

    def close(self) -> None:
        for pipe, (_, _, process) in self._running.items():
            process.kill()
            process.join()
            pipe.close()


class DesertedCarrier(ProcessCarrier):
    """Has no machine at first: what is sent waits until it has been asked for one so often."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._asked, self._held = asked, []

    def find_missing(self) -> str | None:
        self._asked -= 1
        if self._asked >= 0:
            return "expected a machine, found none"
        while self._held:
            super().send(*self._held.pop(0))
        return None

    def send(self, *order) -> None:
        self._held.append(order)

    def receive(self, seconds: float) -> list[Message]:
        withdrawn = [Message(number, attempt, why="withdrawn") for number, attempt, *_ in self._held]
        return withdrawn if self._stop.is_set() else super().receive(seconds)


def _serve(pipe, order: bytes, stop) -> None:
    """Do an order; an update of a training takes long enough for files to come back before it ends."""
    from pipeline.training import loop  # here: other tests need none of it

    run_update = loop.run_update

    def slow(batch: Any) -> dict[int, str]:
        time.sleep(0.05)
        return run_update(batch)

    def post(parcel: bytes) -> bool:
        pipe.send_bytes(parcel)
        return stop.is_set()

    loop.run_update = slow
    serve(order, post)


def take_rays_place(monkeypatch: pytest.MonkeyPatch, **more: Any) -> ProcessCarrier:
    """Let processes of this machine carry what Ray would be given; return their carrier, see there for the rest."""
    carrier = ProcessCarrier(**more)
    monkeypatch.setattr(items, "_open", lambda _, stack: partial(drive, stack.enter_context(closing(carrier))))
    return carrier
