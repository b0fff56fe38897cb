"""The runs of a sweep shared out over processes.

Each trains its share as one process would and reports through a pipe. Ctrl-C and SIGTERM reach the process that was
started; it asks the others to stop, and each saves its runs. If it is killed, they notice and save too.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.command.errors import MISTAKES
from pipeline.command.interruption import deaf_to_ctrl_c
from pipeline.config import ConfigError
from pipeline.training.outputs import Report
from pipeline.training.plan import PlannedRun
from pipeline.training.work import train_groups

POLL_SECONDS = 0.2


def share_out(runs: Sequence[PlannedRun], jobs: int) -> list[list[PlannedRun]]:
    """Return the runs dealt to at most `jobs` processes, those at the same update evenly."""
    ordered = sorted(runs, key=lambda run: run.update)  # stable: trials and seeds stay in order
    return [ordered[job::jobs] for job in range(min(jobs, len(ordered)))]


def train_in_processes(
    shares: Sequence[Sequence[Sequence[PlannedRun]]], *, overwrite: bool, stopping: Callable[[], bool], report: Report
) -> None:
    """Train each share of batches in a process of its own; see `train_batches`.

    A process that dies takes its own runs with it: they are reported as failed, and keep their last checkpoints.

    Raises:
        ConfigError: If no process could start to train; with the reasons of all.
    """
    context = multiprocessing.get_context("spawn")  # a forked torch can deadlock
    stop = context.Event()
    workers: list[Any] = []
    pipes: dict[Any, int] = {}
    open_runs = [{run.key: run for batch in share for run in batch} for share in shares]
    refusals: list[str] = []
    begun = False
    if True:
        try:
            for number, share in enumerate(shares):
                receiver, sender = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(share, overwrite, stop, sender), daemon=True)
                with deaf_to_ctrl_c():
                    worker.start()
                sender.close()
                workers.append(worker)
                pipes[receiver] = number
            while pipes:
                if stopping() and not stop.is_set():
                    stop.set()
                    report(
                        "say", "stopping: every process finishes its update and saves; Ctrl-C again ends them at once"
                    )
                for pipe in multiprocessing.connection.wait(list(pipes), timeout=POLL_SECONDS):
                    number = pipes[pipe]
                    try:
                        kind, content = pipe.recv()
                    except (EOFError, OSError):  # it has finished, or died, perhaps within a message
                        del pipes[pipe]
                        continue
                    if kind == "refused":
                        refusals.append(content)
                        continue
                    begun = begun or kind == "started"
                    for key in _closed_by(kind, content):
                        open_runs[number].pop(key, None)
                    report(kind, content)
        except BaseException:
            for worker in workers:
                worker.kill()
            raise
        finally:
            for worker in workers:
                worker.join()
    if refusals and not begun:
        raise ConfigError("; ".join(dict.fromkeys(refusals)))
    for number, worker in enumerate(workers):
        if worker.exitcode == 0 and (stop.is_set() or not refusals):
            continue  # what it has left open, it has not begun
        left = list(open_runs[number].values())
        if left:
            died = f"the process that trained it died (exit code {worker.exitcode}); its last checkpoint stays"
            why = "; ".join(dict.fromkeys(refusals)) or died
            report("failed", ([run.key for run in left], why, left[0].update))


def _closed_by(kind: str, content: Any) -> list[tuple[int, int]]:
    """Return the keys of the runs of which nothing more is to be expected after a report."""
    if kind == "failed":
        return content[0]
    return {"saved": lambda: [content[0]], "finished": lambda: [content]}.get(kind, list)()


def _work(batches: Sequence[Sequence[PlannedRun]], overwrite: bool, stop: Any, pipe: Any) -> None:
    """Train in a process that was started by `train_in_processes`."""
    alone = False  # whether nobody listens at the other end

    def note(*_: object) -> None:
        stop.set()

    def report(kind: str, content: Any) -> None:
        nonlocal alone
        try:
            pipe.send((kind, content))
        except OSError:
            alone = True

    signal.signal(signal.SIGTERM, note)
    try:
        train_groups(batches, overwrite=overwrite, stopping=lambda: alone or stop.is_set(), report=report)
    except MISTAKES as error:
        report("refused", str(error))
    pipe.close()
