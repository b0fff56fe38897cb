"""What a run says of itself before its first update and after some: parameters, memory, and how long it takes."""

from __future__ import annotations

from more.data import Source
from more.estimate import (
    Pace,
    count_validations,
    format_bytes,
    format_duration,
    measure_free_memory,
)
from more.evaluation import build_question_sets, find_misfit
from more.model import count_parameters
from more.training import Trainer

READING = 1 / 3
"""Time of reading a batch in a validation over that of learning from it: no backward pass."""

LONG = 3600.0
"""Seconds from which on a smaller preset is proposed on a CPU."""


def describe_start(trainer: Trainer) -> list[str]:
    """Return what is to be said before the first update; some batches are read to measure the time.

    Memory is the least that training takes, time what forward and backward take; what else there is, `describe_pace`
    says as soon as updates have been measured.
    """
    config, count = trainer.config, count_parameters(trainer.model)
    free = measure_free_memory(trainer.device)
    processes = trainer.group.size
    how = f"{trainer.device.type} in {processes} processes" if processes > 1 else str(trainer.device)
    how += f", each read in {config.accumulate} parts" if config.accumulate > 1 else ""
    lines = [
        f"{config.run_name()}: {count.total:,} parameters, {count.active:,} active, seed {config.seed}, "
        f"{trainer.total} updates of at most {config.batch_size * config.seq_length} tokens on {how}"
        + (f"; resumed at update {trainer.update}" if trainer.update else ""),
        f"memory: at least {format_bytes(trainer.least_memory)}"
        + (f" of {format_bytes(free)} that are free" if free is not None else "")
        + f"; a checkpoint to resume from takes {format_bytes(12 * count.total)}",
    ]
    if isinstance(trainer.source, Source):  # a generated task is asked in training's sequences
        sets = build_question_sets(trainer.source.questions("valid"), trainer.source.sums("valid"))
        for name, questions in sets.items():
            if why := find_misfit(questions, trainer.tokenizer, config.seq_length):
                lines.append(f"{name}: evaluation will leave these questions out, for {why} (--seq_length)")
    seconds = trainer.time_trial() * estimate_updates(trainer) * trainer.mean_tokens / processes
    lines.append(f"time: about {format_duration(seconds)} by a first trial{_propose(trainer, seconds)}")
    return lines


def describe_pace(trainer: Trainer, pace: Pace) -> str:
    """Return what is to be said after the first updates: loss, tokens per second, and the time that is left."""
    seconds = pace.seconds_for(estimate_updates(trainer) * trainer.mean_work)
    return (
        f"update {trainer.update}: loss {trainer.loss:.3f}, {pace.tokens_per_second:,.0f} tokens/s, "
        f"{format_duration(seconds)} to go{_propose(trainer, seconds)}"
    )


def estimate_updates(trainer: Trainer) -> float:
    """Return the updates that are left, and what validations take in the time of updates."""
    config = trainer.config
    batches = min(config.eval_batches, trainer.valid_plan.batches_per_epoch)
    validations = count_validations(trainer.update, trainer.total, config.eval_interval)
    return trainer.total - trainer.update + READING * batches * validations


def _propose(trainer: Trainer, seconds: float) -> str:
    if trainer.device.type != "cpu" or trainer.config.preset != "standard" or seconds < LONG:
        return ""
    return "; --preset debug trains a small model on this CPU in minutes"
