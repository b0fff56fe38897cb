"""Items done by Slurm through submitit, one job array for a list; machines share their folders, as Slurm's do.

https://github.com/facebookincubator/submitit. A job that is told to end (its time is nearly up, or it is preempted)
lets its item save and goes back into the queue. Each item keeps its own record and its own events, which the driver
reads: jobs do not need it, and go on if it ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.command.errors import ConfigError, explain
from pipeline.command.interruption import signals_handled
from pipeline.command.launcher import Launcher
from pipeline.command.names import program
from pipeline.command.workers import Event, Link, WorkItem, do_item
from pipeline.launch.code import compute_code, describe_code, refuse_other_code
from pipeline.launch.journal import TASKS, Journal
from pipeline.launch.packages import need_package
from pipeline.launch.pickling import pickle_item

POLL_SECONDS = 1.0
"""Between looks at the items' files; and for which events wait for company, and how soon a stop is heard."""

LATE_SECONDS = 10.0
"""After which a job that has ended is taken to have written all, whatever the file system delays."""

ARRAY_SIZE = 1000
"""Most jobs of one array: Slurm's MaxArraySize is 1001 where nobody has raised it."""

STOP_FILE = "stop"
_GIVING_BACK = tuple(n for name in ("SIGUSR1", "SIGUSR2") if (n := getattr(signal, name, None)) is not None)
"""Signals that announce the end of a job's time; after SIGTERM Slurm itself decides whether it is requeued."""


# ------------------------------------------------------------------------------------------------------------ the job


class SlurmItem:
    """An item as submitit's job: called there, and called again there after it was requeued.

    Args:
        folder: Of the call's record, absolute.
        number: Of the item.
        item: What is done.
    """

    def __init__(self, folder: Path, number: int, item: WorkItem) -> None:
        self._folder, self._number, self._item = folder, number, pickle_item(item)
        self._place, self._code, self._described = os.getcwd(), compute_code(), describe_code()

    def __call__(self) -> None:
        """Do the item, and let the job be requeued if a signal has stopped it."""
        os.chdir(self._place)
        told: list[int] = []
        with (
            Journal(self._folder / TASKS / f"{self._number}.jsonl") as journal,
            EventWriter(events_path(self._folder, self._number)) as events,
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
        if refused := refuse_other_code(self._code, self._described):
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


def events_path(folder: Path, number: int) -> Path:
    """Return the file of an item's events."""
    return folder / TASKS / f"{number}.events"


class EventWriter:
    """Adds events to a file, each as a length and a pickle."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._waiting, self._written = path, b"", 0.0

    def __enter__(self) -> EventWriter:
        """Cut off what a kill has left half written."""
        whole = EventReader(self._path)
        self._tries = sum(kind == "started" for kind, _ in whole.read())
        self._file = self._path.open("ab", buffering=0)
        self._file.truncate(whole.offset)
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
        waiting, self._waiting, self._written = self._waiting, b"", time.monotonic()
        with suppress(OSError):  # a full disk ends nothing: the item's own files tell how far it is
            self._file.write(waiting)

    def __exit__(self, *_: object) -> None:
        """Write what waits."""
        self._write()
        self._file.close()


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
            yield pickle.loads(content[start + 8 : start + 8 + length])
            start += 8 + length
            self.offset += 8 + length


# ------------------------------------------------------------------------------------------------------------- driver


def do_items_by_slurm(
    items: Sequence[WorkItem],
    *,
    launcher: Launcher,
    jobs: int | None,
    report: Callable[[Event], object],
    stopping: Callable[[], bool],
    journal: Journal,
    folder: Path,
) -> None:
    """Do items as `pipeline.command.workers.do_items` does, by Slurm.

    Raises:
        ConfigError: If Slurm is not there, or refuses the job.
    """
    folder = folder.absolute()
    (folder / STOP_FILE).unlink(missing_ok=True)
    executor = _open_executor(launcher, folder, jobs)
    at_once = len(items) if launcher["executor"] == "slurm" else jobs or os.cpu_count() or 1
    waiting = list(enumerate(items))
    running: dict[int, _Running] = {}
    ending: list[Any] = []
    pause = POLL_SECONDS if launcher["executor"] == "slurm" else POLL_SECONDS / 5
    wished = False
    try:
        while True:
            if not wished and stopping():
                wished = True
                (folder / STOP_FILE).touch()
                _withdraw(launcher, running)
            if not wished and waiting and len(running) < at_once:
                some, waiting = waiting[: at_once - len(running)], waiting[at_once - len(running) :]
                for number, job in _submit(executor, folder, some, launcher).items():
                    running[number] = _Running(job, EventReader(events_path(folder, number)))
            if not running:
                break
            for number, at in list(running.items()):
                for kind, content in at.news(wished):
                    if kind == "died":
                        journal.note(number, kind, why=content)
                    if kind != "withdrawn":
                        report(Event(items[number], kind, content))
                    if kind not in ("started", "progress"):
                        ending.append(running.pop(number).job)
            time.sleep(pause)
        deadline = time.monotonic() + LATE_SECONDS
        while launcher["executor"] == "local" and time.monotonic() < deadline and not all(j.done() for j in ending):
            time.sleep(pause)  # processes of this machine, which are not left behind
    except BaseException:
        for at in running.values():
            with suppress(Exception):
                at.job.cancel(check=False)
        raise


class _Running:
    """An item's job, as the driver sees it."""

    def __init__(self, job: Any, reader: EventReader) -> None:
        self.job, self._reader, self._begun, self._over_since = job, reader, False, None

    def news(self, wished: bool) -> Iterator[tuple[str, Any]]:
        """Yield events; the last one tells how it has ended."""
        over = self.job.done()
        for kind, content in self._reader.read():
            self._begun |= kind == "started"
            yield kind, content
            if kind not in ("started", "progress"):
                return
        if over:
            self._over_since = self._over_since or time.monotonic()
            if wished and not self._begun:
                yield "withdrawn", None
            elif time.monotonic() > self._over_since + LATE_SECONDS:
                yield (
                    "died",
                    f"its job {self.job.job_id} ended without a word ({self.job.state}); {self.job.paths.stderr}",
                )


def _open_executor(launcher: Launcher, folder: Path, jobs: int | None) -> Any:
    """Return submitit's executor.

    Raises:
        ConfigError: If there is no Slurm, or it does not take an option.
    """
    submitit = need_package("submitit")
    try:
        executor = submitit.AutoExecutor(
            folder / "jobs", cluster=launcher["executor"], slurm_max_num_timeout=launcher["max_timeouts"]
        )
        wanted = {name: launcher[name] for name in ("timeout_min", "cpus_per_task", "mem_gb", "gpus_per_node")}
        only = {f"slurm_{name}": launcher[name] for name in ("partition", "account", "qos", "constraint")}
        only |= {"slurm_array_parallelism": jobs or ARRAY_SIZE, "slurm_signal_delay_s": launcher["signal_seconds"]}
        only |= {"slurm_additional_parameters": {"requeue": True}}
        wanted |= {name: value for name, value in only.items() if value is not None}
        executor.update_parameters(name=program().split()[-1].removesuffix(".py"), **wanted)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"--launcher slurm: expected Slurm here (sbatch) and options that it takes, found none ({explain(error)}); "
            "executor=local does without"
        ) from None
    return executor


def _submit(executor: Any, folder: Path, items: Sequence[tuple[int, WorkItem]], launcher: Launcher) -> dict[int, Any]:
    """Hand items to submitit, as few arrays as Slurm takes; return their jobs by number.

    Raises:
        ConfigError: If Slurm refuses them.
    """
    found: dict[int, Any] = {}
    for start in range(0, len(items), ARRAY_SIZE):
        part = items[start : start + ARRAY_SIZE]
        try:
            with executor.batch():
                jobs = {number: executor.submit(SlurmItem(folder, number, item)) for number, item in part}
        except Exception as error:  # submitit's FailedJobError, and what the system says
            raise ConfigError(f"--launcher slurm: the job was refused: {explain(error)}") from None
        found |= jobs
    return found


def _withdraw(launcher: Launcher, running: dict[int, _Running]) -> None:
    """Cancel jobs that have not begun."""
    if launcher["executor"] == "slurm" and running:
        arrays = sorted({at.job.job_id.partition("_")[0] for at in running.values()})
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--state=PENDING", *arrays], timeout=60, check=False, stdout=sys.stderr)
