"""Evaluating all checkpoints of a folder, with several processes that share one results file.

A checkpoint is done when the results hold a row with the digest of its weights and the same evaluation settings (at
least as many episodes), and its cache is there. Each worker takes the next checkpoint that is not done and that no
other process has claimed; a claim is a file lock, which the system releases when its holder dies.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from babyai.levels import resolve_task_id
from pipeline.cache import CacheError, cache_path, find_caches, read_header
from pipeline.checkpoint_evaluation import (
    EVALUATION_ERRORS,
    EvaluationSettings,
    build_header,
    build_row,
    evaluate_checkpoint,
    load_checkpoint,
    name_of,
    step_limit,
    write_evaluation,
)
from pipeline.checkpoints import CheckpointError, FoundCheckpoint, find_checkpoints, read_checkpoint
from pipeline.imitation import resolve_device
from pipeline.results import ResultsError, append_result, find_done, read_results

# ----------------------------------------------------------------------------------------------------- all checkpoints


@dataclass(frozen=True)
class BatchPlan:
    """Which checkpoints are evaluated, how, and where results go.

    Attributes:
        settings: How each is evaluated.
        results_path: The CSV.
        cache_dir: Folder of the caches.
        force: Evaluate also what is done.
        skip_routing: Record no routing and write no cache.
        inline_context: Repeat each level's context in every step of the cache, for readers that expect it there.
    """

    settings: EvaluationSettings
    results_path: Path
    cache_dir: Path
    force: bool = False
    skip_routing: bool = False
    inline_context: bool = False

    def cache_of(self, found: FoundCheckpoint) -> Path:
        """Return where the cache of a checkpoint belongs."""
        return cache_path(self.cache_dir, found.task_id, found.trial, found.seed, found.update)


def select_checkpoints(
    root: Path,
    *,
    tasks: Sequence[str] = (),
    trial: int | None = None,
    seed: int | None = None,
    update: int | None = None,
    final_only: bool = False,
) -> list[FoundCheckpoint]:
    """Return the checkpoints of a folder that pass the filters.

    A run's final checkpoint and the numbered one of the same update are one: the final stands for both.

    Raises:
        UnknownTaskError: If a task of the filter does not exist.
        CheckpointError: If `root` is no folder.
    """
    wanted = {resolve_task_id(task) for task in tasks}
    found = [
        c
        for c in find_checkpoints(root)
        if (not wanted or c.task_id in wanted)
        and (trial is None or c.trial == trial)
        and (seed is None or c.seed == seed)
    ]
    finals = {(c.task_id, c.trial, c.seed): c for c in found if c.update is None}
    twins = {}
    for run, final in finals.items():
        if any((c.task_id, c.trial, c.seed) == run and c.update is not None for c in found):
            twins[run] = _update_of(final)
    chosen = []
    for c in found:
        run = (c.task_id, c.trial, c.seed)
        reached = _update_of(c) if c.update is None and update is not None else c.update
        if final_only and c.update is not None:
            continue
        if c.update is not None and twins.get(run) == c.update:
            continue
        if update is not None and reached != update:
            continue
        chosen.append(c)
    return chosen


def _update_of(found: FoundCheckpoint) -> int | None:
    """Return the update of a checkpoint file, None if it cannot be read (that is reported when its turn comes)."""
    try:
        return int(read_checkpoint(found.path)["update"])
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return None


def find_row(plan: BatchPlan, found: FoundCheckpoint, digest: str, max_steps: int | None) -> dict[str, Any] | None:
    """Return the row of a checkpoint whose results and cache already hold what is asked for, else None."""
    if plan.force:
        return None
    rows = read_results(plan.results_path) if plan.results_path.exists() else []
    settings = plan.settings
    asked = {"eval_seed": settings.eval_seed, "max_steps": max_steps, "num_episodes": settings.num_episodes}
    row = find_done(rows, checkpoint_path=name_of(found.path), checkpoint_digest=digest, **asked)
    if row is None or plan.skip_routing:
        return row
    try:
        header = read_header(plan.cache_of(found))
    except (CacheError, OSError):
        return None
    # A row may be younger than the cache: --skip_routing writes rows only.
    same = all(header.get(key) == row[key] for key in ("checkpoint_digest", "num_episodes", "eval_seed", "max_steps"))
    return row if same else None


def evaluate_found(
    plan: BatchPlan, found: FoundCheckpoint, progress: Callable[[int], object]
) -> tuple[bool, dict[str, Any]]:
    """Evaluate one checkpoint unless it is done; write its cache, then its row; return (was it done, the row).

    The row comes last: a crash in between leaves a cache without a row, which the next call makes again.
    """
    device = resolve_device(plan.settings.device)
    task_id = resolve_task_id(found.task_id)  # the folder's name: what a checkpoint says of its task is not trusted
    checkpoint = load_checkpoint(found.path, device=device, lang_encoder=plan.settings.lang_encoder)
    known = find_row(plan, found, checkpoint.digest, step_limit(checkpoint, plan.settings))
    if known is not None:
        return True, known
    record = not plan.skip_routing
    evaluation = evaluate_checkpoint(checkpoint, task_id, plan.settings, record=record, progress=progress)
    header = build_header(checkpoint, task_id, plan.settings, trial=found.trial, seed=found.seed)
    if record:
        target = plan.cache_of(found)
        for stray in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed: we hold the claim
            stray.unlink(missing_ok=True)
        write_evaluation(target, header, evaluation, inline_context=plan.inline_context)
    row = build_row(header, evaluation.metrics, has_routing=record)
    append_result(plan.results_path, row)
    return False, row


# ------------------------------------------------------------------------------------------------------------- workers


@contextmanager
def claim(plan: BatchPlan, found: FoundCheckpoint) -> Iterator[bool]:
    """Yield True while this process alone works on a checkpoint, False if another one does."""
    target = plan.cache_of(found)
    lock = target.relative_to(plan.cache_dir).with_suffix("").as_posix().replace("/", "__")
    folder = plan.cache_dir / ".claims"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / f"{lock}.lock", timeout=0)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


Report = tuple[str, FoundCheckpoint | None, Any]
"""(kind, checkpoint, content). Kinds: tick (episodes ended), done and already (the row), failed (why), claimed (another
process is at it)."""


def work(plan: BatchPlan, todo: Sequence[FoundCheckpoint], report: Callable[[Report], object]) -> None:
    """Evaluate checkpoints one by one, leaving out those that another process has claimed.

    Whatever is wrong with one, the others go on.
    """
    for found in todo:
        with claim(plan, found) as mine:
            if not mine:
                report(("claimed", found, None))
                continue
            try:
                already, row = evaluate_found(plan, found, lambda ended: report(("tick", None, ended)))
            except EVALUATION_ERRORS as error:
                report(("failed", found, str(error).removeprefix(f"{found.path}: ")))
            except Exception as error:  # weights that fit no environment, too little memory, our own mistakes
                reason = " ".join(str(error).split())[:400]
                report(("failed", found, f"{type(error).__name__}: {reason}"))
            else:
                report(("already" if already else "done", found, row))


def _work_in_process(plan: BatchPlan, todo: Sequence[FoundCheckpoint], pipe: Any) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a file half written is removed
    try:
        work(plan, todo, pipe.send)
        pipe.close()
    except (KeyboardInterrupt, BrokenPipeError):  # whoever started this process ends it, or is gone
        pass


def run_batch(plan: BatchPlan, todo: Sequence[FoundCheckpoint], *, jobs: int = 1) -> dict[Path, Report]:
    """Evaluate checkpoints with `jobs` processes; return what became of each.

    A worker that dies takes only the checkpoint it was at with it: another worker that comes to it later evaluates it,
    else it is reported as failed. What processes of other calls are still at is reported as claimed.
    """
    outcome: dict[Path, Report] = {}
    with (
        tqdm(total=len(todo), desc="checkpoints", unit="checkpoint", position=0, dynamic_ncols=True) as bar,
        tqdm(desc="episodes", unit="episode", position=1, dynamic_ncols=True, leave=False) as episodes,
    ):

        def take(report: Report) -> None:
            kind, found, content = report
            if kind == "tick":
                episodes.update(content)
            elif kind != "claimed":
                bar.update(found.path not in outcome)
                # A worker that comes later finds the work of another done; what the other said counts.
                if kind != "already" or found.path not in outcome:
                    outcome[found.path] = report

        died = False
        if jobs == 1:
            work(plan, todo, take)
        else:
            died = _run_workers(plan, todo, jobs, take)
        missing = [found for found in todo if found.path not in outcome]
        if missing and not died:  # claimed by another call, which may have finished or died since
            work(plan, missing, take)
    for found in missing:
        if died:
            outcome.setdefault(found.path, ("failed", found, "the process that was at it died; the same call retries"))
        else:
            outcome.setdefault(found.path, ("claimed", found, None))
    return outcome


def _run_workers(plan: BatchPlan, todo: Sequence[FoundCheckpoint], jobs: int, take: Callable[[Report], object]) -> bool:
    """Start workers, each beginning at another place of the list; pass on what they report; tell whether one died."""
    context = multiprocessing.get_context("spawn")  # a forked torch can deadlock
    pipes, workers = [], []
    try:
        for job in range(jobs):
            receiver, sender = context.Pipe(duplex=False)
            shift = job * len(todo) // jobs
            order = [*todo[shift:], *todo[:shift]]
            worker = context.Process(target=_work_in_process, args=(plan, order, sender), daemon=True)
            with _deaf_to_ctrl_c():
                worker.start()
            sender.close()
            pipes.append(receiver)
            workers.append(worker)
        while pipes:
            for pipe in multiprocessing.connection.wait(pipes):
                try:
                    take(pipe.recv())
                except (EOFError, OSError):  # the worker has finished, or died, perhaps within a message
                    pipes.remove(pipe)
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        for worker in workers:
            worker.join()
    return any(worker.exitcode != 0 for worker in workers)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes started within the block ignore Ctrl-C: a terminal sends it to all, and who started them acts."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def reindex(plan: BatchPlan) -> tuple[int, list[str]]:
    """Write a row for every readable cache into the results; return how many, and what could not be read."""
    written, problems = 0, []
    for path in find_caches(plan.cache_dir):
        try:
            header = read_header(path)
            append_result(plan.results_path, build_row(header, header["metrics"], has_routing=True))
        except (CacheError, ResultsError, OSError) as error:
            problems.append(str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(
                f"{path}: its header lacks what a row needs ({type(error).__name__}: {error}); it is of an older form, "
                "foreign or damaged. Evaluate its checkpoint again"
            )
        else:
            written += 1
    return written, problems
