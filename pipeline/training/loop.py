"""The training loop: collect, loss, gradient, step; then log, evaluate, save. Start reading here.

On-policy imitation with truncated back-propagation: the student acts, the expert labels every state the student gets
into (the setting of DAgger, https://arxiv.org/abs/1011.0686), and after `unroll_len` steps the weights take one step of
Adam on the loss of those states. The policy's memory runs on across unrolls; gradients stop at their borders.

A batch is R runs that differ in the fields of `MAY_DIFFER` alone, as one tensor program; one run is R = 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.command.stopwatch import Stopwatch
from pipeline.command.workers import Link, Stopped
from pipeline.records.metrics import evaluation_metrics
from pipeline.training.batch import ReplicaBatch
from pipeline.training.outputs import Outputs
from pipeline.training.schedule import Due


def train(batch: ReplicaBatch, outputs: Outputs, link: Link, clock: Callable[[], float] | None = None) -> None:
    """Train runs to their last update and evaluate them; or, once a stop is wished for, save them as they are.

    Args:
        batch: The runs.
        outputs: Where their metrics and checkpoints go.
        link: Says whether a stop is wished for.
        clock: See `Stopwatch`.
    """
    config = batch.config
    unsaved = Stopwatch(config.checkpoint_minutes, clock)
    while batch.update < config.num_updates and not link.stopping():
        failures = run_update(batch)
        outputs.count_steps()
        if failures:
            outputs.give_up(failures, batch.update)
            if len(failures) == len(batch.configs):
                return
            batch = batch.without(list(failures))
        due = Due(config, batch.update)
        if due.log:
            rows = batch.take_metrics()
            if due.evaluation:
                for row, evaluation in zip(rows, batch.evaluate(config.eval_episodes), strict=True):
                    row |= evaluation_metrics(evaluation.metrics, evaluation.by_level)
            outputs.log(batch.update, rows)
        if due.checkpoint or (unsaved.is_over() and not due.last):
            outputs.save_on_the_way(batch, timed=not due.checkpoint)
            unsaved.restart()
    if batch.update < config.num_updates:
        outputs.save_stopped(batch)
        return
    if outputs.lacks_final(batch.update) and (failures := outputs.save(batch, None)):
        outputs.give_up_unsaved(failures, batch.update)
        if len(failures) == len(batch.configs):
            return
        batch = batch.without(list(failures))
    if config.final_eval_episodes:
        try:
            evaluate_finally(batch, outputs, link)
        except Stopped:
            outputs.report_stopped(batch.update, None)
            return
    outputs.finish()


def run_update(batch: ReplicaBatch) -> dict[int, str]:
    """Act for one unroll and take one optimiser step in every run; return why a run could not, by its number.

    A run whose loss is no longer finite keeps its weights; the others have taken their step.
    """
    started = time.perf_counter()
    config, weights = batch.config, batch.weights
    batch.rollout.collect(batch.acting())
    losses = batch.objective.differentiate()
    norms = weights.norms()
    finite = norms.isfinite().tolist()  # the update's only wait for the device besides the actions
    weights.step(norms, finite, config.grad_clip)
    if any(finite):
        batch.note_update(losses, norms, time.perf_counter() - started)
    if all(finite):
        return {}
    update = batch.update + (not any(finite))
    numbers = zip(finite, losses.total.tolist(), norms.tolist(), strict=True)
    return {
        replica: f"update {update}: loss {loss:g}, gradient norm {norm:g}. The weights are as before this update. "
        "Lower lr, set grad_clip (e.g. 1.0), or raise lpc_eps if lpc_denominator is paper"
        for replica, (fine, loss, norm) in enumerate(numbers)
        if not fine
    }


def evaluate_finally(batch: ReplicaBatch, outputs: Outputs, link: Link) -> None:
    """Evaluate trained runs on the fixed levels.

    Raises:
        Stopped: If a stop is wished for before the end.
    """
    each = f" of each of {len(batch.config.levels)} tasks" if len(batch.config.levels) > 1 else ""
    outputs.say(f"trained; evaluating on {batch.config.final_eval_episodes} fixed levels{each}")
    evaluations = batch.evaluate(batch.config.final_eval_episodes, progress=link.heed)
    found = [evaluation_metrics(evaluation.metrics, evaluation.by_level) for evaluation in evaluations]
    rows = [{"env_steps": batch.env_steps, **metrics} for metrics in found]
    outputs.log_evaluation(batch.update, rows, evaluations)
