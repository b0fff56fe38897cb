"""Several processes at a time, all of which Ctrl-C stops."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

from pipeline.command.interruption import Interruption

Item = TypeVar("Item")
Result = TypeVar("Result")


class Children:
    """Processes that are running, and the way to stop them.

    Each is in a process group of its own, so that Ctrl-C in the terminal reaches it once, through `stop`: a second
    signal would end it before it has saved.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it wrote to stderr."""
        with self._lock:
            if self._stopped:
                return 130, "stopped"
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
            )
            self._running.add(process)
        try:
            _, err = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode, err

    def stop(self) -> None:
        """Ask all to save and end; start no other."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def do_apart(
    items: Sequence[Item], jobs: int, do: Callable[[Children, Item], Result], finish: Callable[[Item, Result], object]
) -> None:
    """Do something with each item, `jobs` at a time, in the order in which they stand.

    Args:
        items: What is to be done.
        jobs: Items at a time.
        do: Called in a thread of its own; starts its processes with `Children.run`.
        finish: Called here with an item and what `do` returned, as soon as it is done.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, when the processes that run have ended; no other item is begun. They
            are asked to end by SIGTERM, and once more by a second signal.
    """
    children, pool = Children(), ThreadPoolExecutor(jobs)
    with Interruption() as interruption:
        waiting = {pool.submit(do, children, item): item for item in items}
        pending = set(waiting)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    finish(waiting[future], future.result())
                if pending and interruption.signal_number is not None:
                    raise KeyboardInterrupt
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
        finally:
            try:
                pool.shutdown()
            except KeyboardInterrupt:
                children.stop()
                raise
