"""Doing what a batch evaluation has to do: claims, groups of checkpoints evaluated at once, several processes.

A worker goes through the list, claims each checkpoint that nobody else has claimed, and loads it; a claim is a file
lock, which the system releases when its holder dies. Neighbours in the list that are alike (task, step limit, cost
exponent, sentence encoder, architecture) are evaluated at once, in groups of at most `BatchPlan.together`. Results are
those of each alone. A worker that dies loses the group it was at and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from babyai.levels import resolve_task_id
from pipeline.checkpoints import read_header as read_checkpoint_header
from pipeline.command.devices import resolve_device
from pipeline.command.errors import MISTAKES, UserError
from pipeline.command.folders import HeldError, describe_holder, hold_lock
from pipeline.command.launcher import HERE, Launcher
from pipeline.command.names import name_command
from pipeline.command.workers import Event, Link, WorkItem
from pipeline.evaluation.checkpoint import (
    Checkpoint,
    build_header,
    build_row,
    evaluate_checkpoints,
    load_checkpoint,
    name_of,
    step_limit,
    write_evaluation,
)
from pipeline.evaluation.kept import refuse_loss
from pipeline.evaluation.play import Evaluation
from pipeline.evaluation.progress import EvaluationBar
from pipeline.evaluation.select import BatchPlan, find_row, levels_of
from pipeline.launch.items import launch
from pipeline.places import Place
from pipeline.records.adding import note_result, settled

Report = tuple[str, Place | None, Any]
"""(kind, checkpoint, content). Kinds: tick (episodes ended), done and already (the row), failed (why), claimed (another
process is at it; who, where that is known)."""


# ------------------------------------------------------------------------------------------------------ one by one


@contextmanager
def claim(plan: BatchPlan, found: Place) -> Iterator[bool]:
    """Yield True while this process alone works on a checkpoint, False if another one does."""
    lock = _claim_path(plan, found)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(lock, timeout=0))
        except HeldError:
            yield False
            return
        yield True


def _claim_path(plan: BatchPlan, found: Place) -> Path:
    target = plan.cache_of(found)
    name = target.relative_to(plan.cache_dir).with_suffix("").as_posix().replace("/", "__")
    return plan.cache_dir / ".claims" / f"{name}.lock"


@dataclass(frozen=True)
class Pending:
    """A checkpoint that is claimed, loaded and not done.

    Attributes:
        found: The file.
        task_id: The level to be played, of its folder: what a checkpoint says of its task is not trusted.
        checkpoint: What was loaded.
        kind: Equal for checkpoints that can be evaluated at once.
    """

    found: Place
    task_id: str
    checkpoint: Checkpoint
    kind: Hashable


def level_to_play(found: Place) -> str:
    """Return the full id of the level that a checkpoint is to play.

    Raises:
        UnknownTaskError: If there is no such level.
        UserError: If it is of a mixture and no level is named.
    """
    if found.eval_task_id is None and found.is_mixture:
        levels = levels_of(found.path)
        read_checkpoint_header(found.path)  # says why it cannot be read
        raise UserError(
            f"{found.path}: expected a level to be played, found a policy of several ({', '.join(levels or ())}); "
            f"{name_command('evaluate')} plays them all"
        )
    return resolve_task_id(found.played)


def take_up(plan: BatchPlan, found: Place) -> Pending | dict[str, Any]:
    """Load a checkpoint; return it, or its row if it is done.

    Raises:
        Exception: One of `MISTAKES`: it cannot be used, or more levels of it are kept than are asked for.
    """
    device = resolve_device(plan.settings.device)
    task_id = level_to_play(found)
    checkpoint = load_checkpoint(found.path, device=device, lang_encoder=plan.settings.lang_encoder)
    limit = step_limit(checkpoint, plan.settings)
    row = find_row(plan, found, checkpoint.digest, limit)
    if row is not None:
        return row
    if not plan.force:
        cache = None if plan.skip_routing else plan.cache_of(found)
        refuse_loss(
            name_of(found.path),
            checkpoint.digest,
            plan.settings.num_episodes,
            cache=cache,
            results_path=plan.results_path,
            eval_task_id=found.eval_task_id,
        )
    config, encoder = checkpoint.config, checkpoint.encoder
    shapes = tuple((name, weight.shape, weight.dtype) for name, weight in checkpoint.policy.named_parameters())
    played = (task_id, limit, config.lpc_exponent, encoder.kind, encoder.fingerprint)
    return Pending(found, task_id, checkpoint, (*played, type(checkpoint.policy), config.expert_norm, shapes))


def write_results(plan: BatchPlan, pending: Pending, evaluation: Evaluation) -> dict[str, Any]:
    """Write a checkpoint's cache, then its row; return the row.

    The row comes last: a crash in between leaves a cache without a row, which the next call makes again.
    """
    found, record = pending.found, not plan.skip_routing
    header = build_header(
        pending.checkpoint,
        pending.task_id,
        plan.settings,
        trial=found.trial,
        seed=found.seed,
        run_name=None if found.eval_task_id is None else found.task_id,
    )
    if record:
        target = plan.cache_of(found)
        for stray in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed: we hold the claim
            stray.unlink(missing_ok=True)
        write_evaluation(target, header, evaluation, inline_context=plan.inline_context, compact=plan.compact)
    row = build_row(header, evaluation.metrics, has_routing=record)
    note_result(plan.results_path, row)
    return row


# ------------------------------------------------------------------------------------------------------------- groups


def work(plan: BatchPlan, todo: Sequence[Place], report: Callable[[Report], object]) -> None:
    """Evaluate checkpoints, neighbours that are alike at once, leaving out those that another process has claimed.

    Whatever is wrong with one, the others go on.
    """
    group: list[Pending] = []
    with ExitStack() as held:  # the claims of the group

        def finish_group() -> None:
            _evaluate_group(plan, group, report)
            group.clear()
            held.close()

        for found in todo:
            with ExitStack() as mine:
                try:
                    if not mine.enter_context(claim(plan, found)):
                        report(("claimed", found, None))
                        continue
                    taken = take_up(plan, found)
                except Exception as error:
                    report(_failure(found, error))
                    continue
                if not isinstance(taken, Pending):
                    report(("already", found, taken))
                    continue
                if group and taken.kind != group[0].kind:
                    finish_group()
                if group:  # of equal fingerprint: one encoder serves all, its sentences are encoded once
                    taken = replace(taken, checkpoint=replace(taken.checkpoint, encoder=group[0].checkpoint.encoder))
                group.append(taken)
                held.push(mine.pop_all())
            if len(group) >= plan.together:
                finish_group()
        if group:
            finish_group()


def _evaluate_group(plan: BatchPlan, group: Sequence[Pending], report: Callable[[Report], object]) -> None:
    """Evaluate alike checkpoints at once, or one by one where that fails, and report what became of each."""
    try:
        evaluations = evaluate_checkpoints(
            [pending.checkpoint for pending in group],
            group[0].task_id,
            plan.settings,
            record=not plan.skip_routing,
            progress=lambda ended: report(("tick", None, ended)),
        )
    except Exception as error:
        if len(group) == 1:
            report(_failure(group[0].found, error))
        else:
            for pending in group:
                _evaluate_group(plan, [pending], report)
        return
    for pending, evaluation in zip(group, evaluations, strict=True):
        try:
            row = write_results(plan, pending, evaluation)
        except Exception as error:
            report(_failure(pending.found, error))
        else:
            report(("done", pending.found, row))


def _failure(found: Place, error: Exception) -> Report:
    if isinstance(error, MISTAKES):
        return "failed", found, str(error).removeprefix(f"{found.path}: ")
    # Weights that fit no environment, too little memory, our own mistakes
    return "failed", found, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


# ---------------------------------------------------------------------------------------------------------- processes


def work_share(link: Link, plan: BatchPlan, todo: Sequence[Place]) -> None:
    """Do `work` as an item of work; if a stop is wished, it ends where it is: what is finished is kept."""

    def report(content: Report) -> None:
        link.report(content)
        link.heed()

    work(plan, todo, report)


def run_batch(
    plan: BatchPlan, todo: Sequence[Place], *, jobs: int = 1, launcher: Launcher = HERE
) -> dict[Path, Report]:
    """Evaluate checkpoints with `jobs` processes of this machine; return what became of each, by `Place.item`.

    A worker that dies takes only the group it was at with it: another worker that comes to it later evaluates it, else
    it is reported as failed. What processes of other calls are still at is reported as claimed.
    """
    plan = replace(plan, together=min(plan.together, max(1, -(-len(todo) // jobs))))  # a share of the work for each
    outcome: dict[Path, Report] = {}
    with EvaluationBar(len(todo), plan.settings.num_episodes) as bar, settled(plan.results_path):

        def take(report: Report) -> None:
            kind, found, content = report
            if kind == "tick":
                bar.play(content)
            elif kind != "claimed":
                if found.item not in outcome:
                    bar.end()
                # A worker that comes later finds the work of another done; what the other said counts.
                if kind != "already" or found.item not in outcome:
                    outcome[found.item] = report

        lost = []  # why shares of the work were not done to their end

        def note(event: Event) -> None:
            if event.kind == "progress":
                take(event.content)
            elif event.kind in ("died", "stopped"):
                lost.append(f"the process that was at it {event.kind}; the same call retries")
            elif event.kind == "failed":
                lost.append(event.content)

        shares = [choose_share(plan, todo, job, jobs) for job in range(jobs)]
        items = [WorkItem(f"share {job}", work_share, (plan, share)) for job, share in enumerate(shares)]
        launch(items, launcher=launcher, jobs=jobs, report=note)
        missing = [found for found in todo if found.item not in outcome]
        if missing and not lost:  # claimed by another call, which may have finished or died since
            work(plan, missing, take)
    for found in missing:
        claimed = ("claimed", found, describe_holder(_claim_path(plan, found)))
        outcome.setdefault(found.item, ("failed", found, lost[0]) if lost else claimed)
    return outcome


def choose_share(plan: BatchPlan, todo: Sequence[Place], job: int, jobs: int) -> list[Place]:
    """Return what one of `jobs` workers goes through: all, each beginning at another place, so that none is left.

    With `force` each has its own part: what another has just evaluated would look like what is to be done again.
    """
    begin, end = job * len(todo) // jobs, (job + 1) * len(todo) // jobs
    return list(todo[begin:end]) if plan.force else [*todo[begin:], *todo[:begin]]
