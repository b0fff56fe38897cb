"""Orders and parcels carried by Modal: a call of `modal_app.do_order` for each try of an item.

Each call has a thread here that takes what it yields. `executor=local` calls the same function's `.local()`, each in a
process of this machine: without an account, to try it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from pipeline.command.errors import ConfigError, explain
from pipeline.command.interruption import deaf_to_the_terminal
from pipeline.command.launcher import Launcher
from pipeline.launch.driver import Message
from pipeline.launch.packages import need_package

FUNCTION = "do_order"


class ModalCarrier:
    """See `pipeline.launch.driver.Carrier`.

    Args:
        launcher: The name of the deployed app, and how many containers are used at once.

    Raises:
        ConfigError: If Modal is not installed, knows nobody here, or has no such app.
    """

    def __init__(self, launcher: Launcher) -> None:
        modal = need_package("modal")
        self._containers, self._local = launcher["containers"], launcher["executor"] == "local"
        self._news: queue.Queue[Message] = queue.Queue()
        self._stack = ExitStack()
        if self._local:
            self._stop: Any = multiprocessing.get_context("spawn").Event()
            self._processes: list[Any] = []
            return
        try:
            self._do = modal.Function.from_name(launcher["app"], FUNCTION)
            self._do.hydrate()
            self._stop = self._stack.enter_context(modal.Dict.ephemeral())
        except Exception as error:  # modal.exception.AuthError, NotFoundError, ConnectionError
            raise ConfigError(
                f"--launcher modal: expected an account (modal setup) and the app {launcher['app']} there "
                f"(modal deploy modal_app.py), found none ({type(error).__name__}: {explain(error)[:300]})"
            ) from None

    def count_slots(self) -> int:
        """Return how many containers are used at once."""
        return self._containers

    def find_missing(self) -> None:
        """Return None: Modal starts containers itself."""

    def send(self, number: int, attempt: int, name: str, order: bytes) -> None:
        """Call the function in a thread."""
        call = self._call_here if self._local else self._call_there
        threading.Thread(target=self._follow, args=(number, attempt, call, order), name=name, daemon=True).start()

    def _follow(self, number: int, attempt: int, call: Callable[[bytes], Iterator[bytes]], order: bytes) -> None:
        why = None
        try:
            for parcel in call(order):
                self._news.put(Message(number, attempt, parcel))
        except Exception as error:
            why = f"its container was lost ({type(error).__name__}: {explain(error)[:300]})"
        self._news.put(Message(number, attempt, why=why))

    def _call_there(self, order: bytes) -> Iterator[bytes]:
        return self._do.remote_gen(order, self._stop)

    def _call_here(self, order: bytes) -> Iterator[bytes]:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_do_here, args=(other, order, self._stop), daemon=True)
        with deaf_to_the_terminal():
            process.start()
        self._processes.append(process)
        other.close()
        with pipe, suppress(EOFError):
            while True:
                yield pipe.recv_bytes()
        process.join()
        if process.exitcode:
            raise ChildProcessError(f"exit code {process.exitcode}")

    def receive(self, seconds: float) -> list[Message]:
        """Return what has come; a thread's messages are in their order."""
        found = []
        with suppress(queue.Empty):
            found.append(self._news.get(timeout=seconds))
            while True:
                found.append(self._news.get_nowait())
        return found

    def wish_stop(self, begun: set[int]) -> None:
        """Let calls find it; those that have not begun end with their first parcel."""
        if self._local:
            self._stop.set()
        else:
            self._stop["stop"] = True

    def close(self) -> None:
        """End processes here; calls there end with the dictionary that they ask."""
        for process in self._processes if self._local else ():
            process.kill()
        with suppress(Exception):
            if not self._local:
                self._stop["stop"] = True
        self._stack.close()


def _do_here(pipe: Any, order: bytes, stop: Any) -> None:
    """Call the function's `.local()` as a container would its own, and send what it yields."""
    warnings.simplefilter("ignore")  # Modal says of each call that it has no volume here
    for parcel in importlib.import_module("modal_app").do_order.local(order, _Stop(stop)):
        pipe.send_bytes(parcel)


class _Stop:
    """An event, asked as a `modal.Dict` is."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def contains(self, _key: str) -> bool:
        """Return whether a stop is wished."""
        return self._event.is_set()
