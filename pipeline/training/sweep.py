"""Many runs at once from start to end: the plan, training as one batch or several, the tables at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from tqdm import tqdm

from pipeline.command.devices import resolve_device
from pipeline.command.interruption import Interruption
from pipeline.config import ConfigError, TrainConfig
from pipeline.tracking import import_wandb
from pipeline.training.folders import read_final_evaluation
from pipeline.training.jobs import share_out, train_in_processes
from pipeline.training.loop import train_batches
from pipeline.training.mapping import format_seeds, mapping_lines, sweep_path, write_mapping
from pipeline.training.options import Sweep
from pipeline.training.plan import PlannedRun, group_runs, plan_runs
from pipeline.training.summary import alpha_lines, run_lines

Key = tuple[int, int]


def run_sweep(sweep: Sweep, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train the runs of a sweep to their end, or to an interruption; return the exit code.

    0: all done. 1: some runs failed; the others are done. 128 + signal: interrupted, everything saved.

    Args:
        sweep: The runs.
        resume: Continue those that are begun.
        overwrite: Delete what is there of exactly these runs.

    Raises:
        RunFolderError: If a folder holds another run, a run is begun and neither switch is given, another process
            trains one, or a folder cannot be written.
    """
    runs = plan_runs(sweep, resume=resume, overwrite=overwrite)
    config = sweep.configs[0]
    pending = [run for run in runs if not run.complete]
    jobs = count_jobs(config) if sweep.jobs is None else sweep.jobs
    shares = [group_runs(share, sweep.max_replicas) for share in share_out(pending, jobs)]
    if config.wandb_project is not None:
        import_wandb()
        if any(len(batch) > 1 for share in shares for batch in share):
            raise ConfigError(
                "wandb_project: Weights & Biases follows one run per process; pass --max_replicas 1 to train the runs "
                "one after another, or --wandb_project null"
            )
    for line in mapping_lines(runs):
        print(line)
    if sweep.jobs is None and len(shares) > 1:
        print(f"{len(shares)} processes share the runs; --jobs changes that")
    progress = _Progress(runs, shares)
    signals = _Signals()
    try:
        if len(shares) > 1:
            train_in_processes(shares, overwrite=overwrite, listen=signals.listen, report=progress.report)
        elif shares:
            train_batches(shares[0], overwrite=overwrite, listen=signals.listen, report=progress.report)
        else:
            print("all runs are complete; --overwrite starts them afresh")
    except KeyboardInterrupt:  # a second Ctrl-C, or one while nothing needs saving
        progress.close()
        print("stopped; the same command with --resume goes on from the last checkpoints", file=sys.stderr)
        return 130
    finally:
        progress.close()
    _print_results(runs, progress)
    for why in dict.fromkeys(progress.failed.values()):
        keys = [key for key, reason in progress.failed.items() if reason == why]
        print(f"failed: {_name_runs(keys)}: {why}", file=sys.stderr)
    if signals.number is not None and len(progress.finished) + len(progress.failed) < len(pending):
        print(progress.describe_interruption())
        return 128 + signals.number
    path = sweep_path(config)  # of the first trial: a part of a sweep that is complete has none
    print(f"checkpoints  {path.parent}" + (f" (which trial is what: {path.name})" if path.exists() else ""))
    print(f"logs         {runs[0].logs.parents[1]} (tensorboard --logdir {runs[0].logs.parents[1]})")
    print("next         python batch_eval.py")
    return 1 if progress.failed else 0


def count_jobs(config: TrainConfig) -> int:
    """Return how many processes the cores that this one may use are enough for; 1 on a GPU.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    if resolve_device(config.device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config.torch_threads)


class _Signals:
    """The signal that has asked for a stop, if one has."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listen(self) -> Iterator[Callable[[], bool]]:
        with Interruption() as interruption:
            try:
                yield lambda: interruption.signal_number is not None
            finally:
                self.number = interruption.signal_number


class _Progress:
    """What is happening, as one bar and the lines above it; and what became of each run.

    Args:
        runs: All of the sweep.
        shares: Batches of those that are not complete, by process.
    """

    def __init__(self, runs: Sequence[PlannedRun], shares: Sequence[Sequence[Sequence[PlannedRun]]]) -> None:
        self._runs = runs
        self._pending = [run for share in shares for batch in share for run in batch]
        config = runs[0].config
        self._target = config.num_updates
        self._steps = config.num_envs * config.unroll_len  # of an update of one run
        self._figures: dict[Key, tuple[float | None, float | None]] = {}
        self._bar: tqdm | None = None
        self._said: set[str] = set()
        self.found: dict[Key, dict[str, Any]] = {}
        self.finished: set[Key] = set()
        self.saved: dict[Key, int] = {}
        self.failed: dict[Key, str] = {}

    def report(self, kind: str, content: Any) -> None:
        """Take note of what has happened; see `pipeline.training.loop.Report`."""
        getattr(self, f"_on_{kind}")(content)

    def close(self) -> None:
        """Leave the bar as it is; what is printed from now on comes below it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def describe_interruption(self) -> str:
        """Return what was saved and how to go on."""
        updates = sorted(set(self.saved.values()))
        at = f" at update {updates[0]}" + (f" to {updates[-1]}" if len(updates) > 1 else "") if updates else ""
        rest = len(self._pending) - len(self.saved) - len(self.finished) - len(self.failed)
        return (
            f"interrupted: {len(self.finished)} runs done, {len(self.saved)} saved{at}, {rest} not begun; the same "
            "command with --resume goes on from there"
        )

    def _on_say(self, line: str) -> None:
        if line not in self._said:  # each batch and process says which encoder it uses
            self._said.add(line)
            tqdm.write(line)

    def _on_started(self, content: tuple[int, TrainConfig, int, int]) -> None:
        count, config, weights, update = content
        tqdm.write(
            f"{config.task_id}: {count} run{'s' * (count > 1)} of policy {config.policy}, {weights:,} weights each, "
            f"{config.num_updates} updates of {config.num_envs} environments x {config.unroll_len} steps"
            + (f"; resumed at update {update}" if update else "")
        )
        path = write_mapping(self._runs, config)  # with each batch: others may have written before it had folders
        if self._bar is None:
            tqdm.write(f"mapping kept in {path}")
            self._bar = tqdm(
                total=sum(self._remaining(run.update) for run in self._pending),
                desc=f"training {len(self._pending)} runs",
                unit=" env-steps",
                unit_scale=True,
                dynamic_ncols=True,
                mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
            )

    def _remaining(self, update: int) -> int:
        return max(0, self._target - update) * self._steps

    def _on_steps(self, steps: int) -> None:
        self._bar.update(steps)

    def _on_figures(self, figures: dict[Key, tuple[float | None, float | None]]) -> None:
        self._figures.update(figures)
        self._show_figures()

    def _show_figures(self) -> None:
        successes = [success for success, _ in self._figures.values() if success is not None]
        losses = [loss for _, loss in self._figures.values() if loss is not None]
        text = f"success {_spread(successes, '.2f')}, loss {_spread(losses, '.3f')}"
        self._bar.set_postfix_str(text, refresh=False)

    def _on_saved(self, content: tuple[Key, int]) -> None:
        key, self.saved[key] = content[0], content[1]
        self._figures.pop(key, None)

    def _on_failed(self, content: tuple[list[Key], str, int]) -> None:
        keys, why, update = content
        for key in keys:
            self.failed[key] = why
            self._figures.pop(key, None)
        if self._bar is not None:
            self._bar.total -= self._remaining(update) * len(keys)
        tqdm.write(f"given up: {_name_runs(keys)}: {why}", file=sys.stderr)

    def _on_evaluated(self, content: tuple[Key, dict[str, Any]]) -> None:
        key, self.found[key] = content[0], content[1]

    def _on_finished(self, key: Key) -> None:
        self.finished.add(key)
        self._figures.pop(key, None)


def _name_runs(keys: Sequence[Key]) -> str:
    """Return runs as "trial 1, seeds 0-2; trial 2, seed 5"."""
    seeds: dict[int, list[int]] = {}
    for trial, seed in keys:
        seeds.setdefault(trial, []).append(seed)
    return "; ".join(f"trial {trial}, seed{'s' * (len(s) > 1)} {format_seeds(s)}" for trial, s in seeds.items())


def _spread(values: Sequence[float], form: str) -> str:
    """Return the median and the range of the runs."""
    if not values:
        return "-"
    middle = format(median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)} to {format(max(values), form)})"


def _print_results(runs: Sequence[PlannedRun], progress: _Progress) -> None:
    """Print the tables, if any run has been evaluated."""
    found: dict[Key, dict[str, Any]] = dict(progress.found)
    for run in runs:
        episodes = run.config.final_eval_episodes
        if run.complete and (line := read_final_evaluation(run.logs, run.update, episodes)) is not None:
            found[run.key] = line
    if found:
        print("\n".join([*run_lines(runs, found), "", *alpha_lines(runs, found)]))
