"""Evaluating checkpoints: one; or all of a folder, with several processes that share one results file.

A checkpoint is done when the results hold a row with the digest of its weights and the same evaluation settings (at
least as many episodes), and its cache is there. Each worker takes the next checkpoint that is not done and that no
other process has claimed; a claim is a file lock, which the system releases when its holder dies.
"""

from __future__ import annotations

import datetime
import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm import tqdm

from babyai.expert import ExpertError
from babyai.levels import UnknownTaskError, resolve_task_id
from babyai.missions import MissionEncoder, MissionEncoderError, restore_mission_encoder
from pipeline.cache import CacheError, cache_path, find_caches, read_header, write_cache
from pipeline.checkpoints import CheckpointError, FoundCheckpoint, find_checkpoints, load_policy, read_checkpoint
from pipeline.config import ConfigError, TrainConfig
from pipeline.evaluation import EVALUATION_SEED, Evaluation, evaluate_task
from pipeline.imitation import resolve_device
from pipeline.results import ResultsError, append_result, find_done, read_results

EVALUATION_ERRORS = (
    CheckpointError,
    MissionEncoderError,
    UnknownTaskError,
    ExpertError,
    CacheError,
    ResultsError,
    ConfigError,
    OSError,
)


@dataclass(frozen=True)
class EvaluationSettings:
    """How checkpoints are evaluated.

    Attributes:
        num_episodes: Levels to play, each once to its end.
        num_envs: Environments stepped together; changes the speed, not the result.
        max_steps: Steps after which an episode is cut; null takes what the checkpoint was trained with.
        eval_seed: Which fixed list of levels; the same for all checkpoints unless you want another sample.
        lang_encoder: Folder or id to load the sentence encoder from instead of the recorded one (same weights).
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
        torch_threads: CPU threads of torch.
    """

    num_episodes: int = 100
    num_envs: int = 16
    max_steps: int | None = None
    eval_seed: int = EVALUATION_SEED
    lang_encoder: str | None = None
    device: str = "auto"
    torch_threads: int = 1

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, least in (("num_episodes", 1), ("num_envs", 1), ("torch_threads", 1), ("eval_seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"max_steps: expected at least 1, or null, found {self.max_steps}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint ready to be evaluated.

    Attributes:
        path: The file it came from.
        policy: In evaluation mode.
        encoder: The sentence encoder it was trained with.
        projection: Its mission projection.
        config: Settings of the run that made it.
        update: Weight updates done.
        digest: SHA-256 of the weights, hexadecimal.
        unknown_fields: Fields of `config` that a foreign checkpoint did not tell.
    """

    path: Path
    policy: nn.Module
    encoder: MissionEncoder
    projection: nn.Linear
    config: TrainConfig
    update: int
    digest: str
    unknown_fields: frozenset[str] = frozenset()


# ------------------------------------------------------------------------------------------------------ one checkpoint


def load_checkpoint(
    path: str | Path, *, device: torch.device | str = "cpu", lang_encoder: str | None = None
) -> Checkpoint:
    """Return the policy of a checkpoint with the sentence encoder it was trained with.

        checkpoint = load_checkpoint(path)
        result = evaluate(checkpoint.policy, checkpoint.encoder, checkpoint.projection,
                          checkpoint.config.task_id, level_seeds=range(100))

    Args:
        path: A `.pt` file.
        device: Where policy and encoder are placed.
        lang_encoder: Folder or id to load the encoder from instead of the recorded one; it must hold the same weights.

    Raises:
        CheckpointError: If the file cannot be used.
        MissionEncoderError: If the encoder cannot be had, or is not the one the policy was trained with.
    """
    loaded = load_policy(path, device)
    encoder = restore_mission_encoder(
        loaded.lang_encoder, device=device, override=lang_encoder, announce=lambda line: None
    )
    return Checkpoint(
        Path(path),
        loaded.policy,
        encoder,
        loaded.projection,
        loaded.config,
        loaded.update,
        loaded.digest,
        loaded.unknown_fields,
    )


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    task_id: str,
    settings: EvaluationSettings,
    *,
    record: bool,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Play the evaluation levels of a task with a checkpoint; see `pipeline.evaluation.evaluate`."""
    torch.set_num_threads(settings.torch_threads)
    return evaluate_task(
        checkpoint.policy,
        checkpoint.encoder,
        checkpoint.projection,
        task_id,
        settings.num_episodes,
        eval_seed=settings.eval_seed,
        num_envs=settings.num_envs,
        max_steps=step_limit(checkpoint, settings),
        record=record,
        lpc_exponent=checkpoint.config.lpc_exponent,
        progress=progress,
    )


def step_limit(checkpoint: Checkpoint, settings: EvaluationSettings) -> int | None:
    """Return the limit of an episode: as asked for, else as trained, else None (each level's own)."""
    return checkpoint.config.max_steps if settings.max_steps is None else settings.max_steps


def build_header(
    checkpoint: Checkpoint,
    task_id: str,
    settings: EvaluationSettings,
    *,
    trial: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return what identifies an evaluation: checkpoint, settings and the run's configuration, as plain types."""
    config = checkpoint.config.to_dict()
    return {
        "checkpoint_path": checkpoint.path.as_posix(),
        "checkpoint_digest": checkpoint.digest,
        "task_id": task_id,
        "trial": trial,
        "seed": seed,
        "update": checkpoint.update,
        "num_episodes": settings.num_episodes,
        "eval_seed": settings.eval_seed,
        "max_steps": step_limit(checkpoint, settings),
        "evaluated_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "expert_hidden_sizes": getattr(checkpoint.policy, "layer_expert_sizes", []),
        "config": {name: value for name, value in config.items() if name not in checkpoint.unknown_fields},
    }


def build_row(header: dict[str, Any], metrics: dict[str, Any], *, has_routing: bool) -> dict[str, Any]:
    """Return a row of `evaluation_results.csv`: metrics, settings, and the configuration of the run.

    Sizes that a policy does not have are empty: a baseline has no experts, and its LPC is empty, not zero.
    """
    config = header["config"]
    routed = ("expert_hidden_sizes", "intermediate_dim", "router_hidden_size")
    absent = dict.fromkeys(routed if config.get("policy") == "gru" else ("hidden_size",))
    identity = {name: value for name, value in header.items() if name not in ("config", "expert_hidden_sizes")}
    return {**config, **absent, **metrics, **identity, "has_routing": has_routing}


def write_evaluation(
    path: Path, header: dict[str, Any], evaluation: Evaluation, *, inline_context: bool = False
) -> None:
    """Write the cache of an evaluation."""
    write_cache(
        path,
        header=header,
        metrics=evaluation.metrics,
        episodes=evaluation.episodes,
        routing=evaluation.routing,
        inline_context=inline_context,
    )


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
    except CheckpointError:
        return None


def find_row(plan: BatchPlan, found: FoundCheckpoint, digest: str, max_steps: int | None) -> dict[str, Any] | None:
    """Return the row of a checkpoint whose results and cache already hold what is asked for, else None."""
    if plan.force:
        return None
    rows = read_results(plan.results_path) if plan.results_path.exists() else []
    settings = plan.settings
    asked = {"eval_seed": settings.eval_seed, "max_steps": max_steps, "num_episodes": settings.num_episodes}
    row = find_done(rows, checkpoint_path=found.path.as_posix(), checkpoint_digest=digest, **asked)
    if row is None or plan.skip_routing:
        return row
    try:
        header = read_header(plan.cache_of(found))
    except (CacheError, OSError):
        return None
    same = header.get("checkpoint_digest") == digest and header.get("num_episodes") == row["num_episodes"]
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
        write_evaluation(plan.cache_of(found), header, evaluation, inline_context=plan.inline_context)
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


Report = tuple[str, FoundCheckpoint | None, Any]  # (kind, checkpoint, content); kinds: tick, done, already, failed


def work(plan: BatchPlan, todo: Sequence[FoundCheckpoint], report: Callable[[Report], object]) -> None:
    """Evaluate checkpoints one by one, leaving out those that another process has claimed."""
    for found in todo:
        with claim(plan, found) as mine:
            if not mine:
                report(("claimed", found, None))
                continue
            try:
                already, row = evaluate_found(plan, found, lambda ended: report(("tick", None, ended)))
            except EVALUATION_ERRORS as error:
                report(("failed", found, str(error)))
            else:
                report(("already" if already else "done", found, row))


def _work_in_process(plan: BatchPlan, todo: Sequence[FoundCheckpoint], pipe: Any) -> None:
    work(plan, todo, pipe.send)
    pipe.close()


def run_batch(plan: BatchPlan, todo: Sequence[FoundCheckpoint], *, jobs: int = 1) -> dict[Path, Report]:
    """Evaluate checkpoints with `jobs` processes; return what became of each.

    A worker that dies takes only the checkpoint it was at with it; that one is reported as failed.
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

        if jobs == 1:
            work(plan, todo, take)
        else:
            _run_workers(plan, todo, jobs, take)
    for found in todo:
        if found.path not in outcome:
            outcome[found.path] = ("failed", found, "another process is at it, or the worker that was at it died")
    return outcome


def _run_workers(plan: BatchPlan, todo: Sequence[FoundCheckpoint], jobs: int, take: Callable[[Report], object]) -> None:
    """Start workers, each beginning at another place of the list, and pass on what they report."""
    context = multiprocessing.get_context("spawn")  # a forked torch can deadlock
    pipes, workers = [], []
    for job in range(jobs):
        receiver, sender = context.Pipe(duplex=False)
        shift = job * len(todo) // jobs
        order = [*todo[shift:], *todo[:shift]]
        worker = context.Process(target=_work_in_process, args=(plan, order, sender), daemon=True)
        worker.start()
        sender.close()
        pipes.append(receiver)
        workers.append(worker)
    while pipes:
        for pipe in multiprocessing.connection.wait(pipes):
            try:
                take(pipe.recv())
            except EOFError:  # the worker has finished, or died
                pipes.remove(pipe)
    for worker in workers:
        worker.join()


def reindex(plan: BatchPlan) -> tuple[int, list[str]]:
    """Write a row for every readable cache into the results; return how many, and what could not be read."""
    written, problems = 0, []
    for path in find_caches(plan.cache_dir):
        try:
            header = read_header(path)
            append_result(plan.results_path, build_row(header, header["metrics"], has_routing=True))
        except (CacheError, ResultsError, KeyError, OSError) as error:
            problems.append(f"{path}: {error}")
        else:
            written += 1
    return written, problems
