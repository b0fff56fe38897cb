"""Items done by Slurm through submitit, one job array for a list; machines share their folders, as Slurm's do.

https://github.com/facebookincubator/submitit. Each item keeps its own record and its own events, which the driver
reads: jobs do not need it, and go on if it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.command.errors import ConfigError, explain
from pipeline.command.launcher import Launcher
from pipeline.command.names import program
from pipeline.command.workers import Event, WorkItem
from pipeline.launch.code import ROOT
from pipeline.launch.journal import Journal, tasks_folder
from pipeline.launch.packages import need_package
from pipeline.launch.slurm_job import STOP_FILE, EventReader, SlurmItem, events_path

POLL_SECONDS = 1.0
"""Between looks at the items' files."""

REST = 4.0
"""Looks at all items may take a fifth of the time, however many they are."""

LATE_SECONDS = 10.0
"""After which a job that has ended is taken to have written all, whatever the file system delays."""

ARRAY_SIZE = 1000
"""Most jobs of one array: Slurm's MaxArraySize is 1001 where nobody has raised it."""


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
        ConfigError: If Slurm is not there, or refuses the jobs though none of this call are there.
    """
    folder = folder.absolute()
    (folder / STOP_FILE).unlink(missing_ok=True)
    drive = _Drive(items, launcher, jobs, report, journal, folder)
    try:
        drive.run(stopping)
    except BaseException:
        drive.cancel()
        raise


class _Drive:
    def __init__(
        self,
        items: Sequence[WorkItem],
        launcher: Launcher,
        jobs: int | None,
        report: Callable[[Event], object],
        journal: Journal,
        folder: Path,
    ) -> None:
        self._items, self._launcher, self._report = items, launcher, report
        self._journal, self._folder, self._tasks = journal, folder, tasks_folder(folder)
        self._tasks.mkdir(parents=True, exist_ok=True)
        self._queued = launcher["executor"] == "slurm"
        self._executor = _open_executor(launcher, folder, jobs)
        self._room = len(items) if self._queued else jobs or os.cpu_count() or 1
        self._waiting = list(range(len(items)))
        self._running: dict[int, _Running] = {}
        self._lost: Counter[int] = Counter()
        self._ending: list[Any] = []

    def run(self, stopping: Callable[[], bool]) -> None:
        pause = POLL_SECONDS if self._queued else POLL_SECONDS / 5
        wished = False
        while True:
            if not wished and stopping():
                wished = True
                (self._folder / STOP_FILE).touch()
                _withdraw(self._launcher, self._running)
            if not wished:
                self._submit()
            if not self._running:
                break
            begun = time.monotonic()
            for number in list(self._running):
                self._look_at(number, wished)
            time.sleep(max(pause, REST * (time.monotonic() - begun)))
        deadline = time.monotonic() + LATE_SECONDS
        local = self._launcher["executor"] == "local"
        while local and time.monotonic() < deadline and not all(job.done() for job in self._ending):
            time.sleep(pause)  # processes of this machine, which are not left behind

    def cancel(self) -> None:
        """End all jobs."""
        for at in self._running.values():
            with suppress(Exception):
                at.job.cancel(check=False)

    def _submit(self) -> None:
        """Hand waiting items to submitit, where there is room for some, as few arrays as Slurm takes.

        Raises:
            ConfigError: If Slurm refuses them, and no other job of this call makes room for them when it ends.
        """
        room = self._room - len(self._running)
        if not self._waiting or room < min(len(self._waiting), max(1, self._room // 10)):
            return
        numbers = self._waiting[:room]
        for start in range(0, len(numbers), ARRAY_SIZE):
            part = numbers[start : start + ARRAY_SIZE]
            readers = {number: self._reader_of(number) for number in part}  # before jobs add to what they skip
            try:
                with self._executor.batch():
                    jobs = [
                        self._executor.submit(SlurmItem(self._folder, self._tasks, n, self._items[n])) for n in part
                    ]
            except TypeError:  # of what cannot be pickled
                raise
            except Exception as error:  # submitit's FailedJobError, and what the system says
                why = f"--launcher slurm: the jobs were refused: {explain(error)}"
                if not self._running:
                    raise ConfigError(why) from None
                tqdm.write(f"{why}; they are handed in when others have ended", file=sys.stderr)
                self._room = len(self._running)
                break
            for number, job in zip(part, jobs, strict=True):
                self._running[number] = _Running(job, readers[number])
        self._waiting = [number for number in self._waiting if number not in self._running]

    def _reader_of(self, number: int) -> EventReader:
        """Return a reader of what an item tells from now on; what its earlier tries have told is passed over."""
        reader = EventReader(events_path(self._tasks, number))
        if self._lost[number]:
            for _ in reader.read():
                pass
        return reader

    def _look_at(self, number: int, wished: bool) -> None:
        at = self._running[number]
        for kind, content in at.news(wished):
            if kind == "died" and at.begun and not wished and self._lost[number] < self._launcher["retries"]:
                self._lost[number] += 1
                self._journal.note(number, "lost", why=content, attempt=self._lost[number])
                tqdm.write(f"{self._items[number].name}: {content}; it goes on in another job", file=sys.stderr)
                self._waiting.append(number)
                kind = "lost"
            elif kind == "died":
                tries = f" ({self._lost[number] + 1} tries)" if self._lost[number] else ""
                content = f"{content}{tries}"
                self._journal.note(number, kind, why=content, attempt=self._lost[number] + 1)
            if kind not in ("lost", "withdrawn"):
                self._report(Event(self._items[number], kind, content))
            if kind not in ("started", "progress"):
                self._ending.append(self._running.pop(number).job)


class _Running:
    """An item's job, as the driver sees it.

    Args:
        job: Submitit's.
        reader: Of the item's events.
    """

    def __init__(self, job: Any, reader: EventReader) -> None:
        self.job, self._reader, self._over_since = job, reader, None
        self.begun = False

    def news(self, wished: bool) -> Iterator[tuple[str, Any]]:
        """Yield events; the last one tells how it has ended."""
        over = self.job.done()
        for kind, content in self._reader.read():
            self.begun |= kind == "started"
            yield kind, content
            if kind not in ("started", "progress"):
                return
        if not over:  # or no more: a job that is requeued is out of the queue for a moment
            self._over_since = None
        else:
            self._over_since = self._over_since or time.monotonic()
            if wished and not self.begun:
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
    if (ROOT / "pyproject.toml").exists():  # not installed: jobs find it wherever this was called from
        paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
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


def _withdraw(launcher: Launcher, running: dict[int, _Running]) -> None:
    """Cancel jobs that have not begun."""
    if launcher["executor"] == "slurm" and running:
        arrays = sorted({at.job.job_id.partition("_")[0] for at in running.values()})
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--state=PENDING", *arrays], timeout=60, check=False, stdout=sys.stderr)
