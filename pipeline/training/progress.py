"""What is happening to the runs of a call, as one bar and the lines above it; and what became of each run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from pipeline.command.bars import Bar
from pipeline.command.errors import explain
from pipeline.config import TrainConfig
from pipeline.guard import describe_stop
from pipeline.mixtures import MACRO_MEAN
from pipeline.records.metrics import describe_metrics
from pipeline.training.levels import describe_slots, describe_unaided
from pipeline.training.mapping import format_seeds, write_mapping
from pipeline.training.plan import Key, PlannedRun

WATCHED = {
    "success": ("rollout/success_rate", ".2f"),
    "loss": ("train/task_loss", ".3f"),
    "LPC": ("train/lpc", ".0f"),
}
"""The figures beside the bar, by their names there: metric and form. A GRU has no LPC."""


class Progress:
    """The bar, and what became of each run.

    Args:
        runs: All of the call.
        single: Whether they are one run, told in its own words and without a table of trials.

    Attributes:
        begun: Whether a group of runs has begun to train.
        evaluations: What final evaluations have found, by the run's key.
        finished: Runs that are done.
        saved: Update and checkpoint of the runs that were stopped.
        failed: Why runs were given up.
        incomplete: Why some metrics of runs could not be written.
    """

    def __init__(self, runs: Sequence[PlannedRun], single: bool) -> None:
        self._runs, self._single = runs, single
        self._pending = [run for run in runs if not run.complete]
        config = runs[0].config
        self._watched = {name: what for name, what in WATCHED.items() if config.policy != "gru" or name != "LPC"}
        self._target = config.num_updates
        self._steps = config.num_envs * config.unroll_len  # of an update of one run
        self._figures: dict[Key, dict[str, Any]] = {}
        self._bar: tqdm | None = None
        self._said: set[str] = set()
        self.begun = False
        self.evaluations: dict[Key, dict[str, Any]] = {}
        self.finished: set[Key] = set()
        self.saved: dict[Key, tuple[int, Path]] = {}
        self.failed: dict[Key, str] = {}
        self.incomplete: dict[Key, str] = {}

    def report(self, kind: str, content: Any) -> None:
        """Take note of what has happened; see `pipeline.training.outputs.Report`."""
        getattr(self, f"_on_{kind}")(content)

    def fail(self, runs: Sequence[PlannedRun], why: str) -> None:
        """Note that work on a group has failed, but for the runs of which the end is known already."""
        ended = {*self.finished, *self.saved, *self.failed}
        left = [run for run in runs if run.key not in ended]
        if left:
            self.report("failed", ([run.key for run in left], why, left[0].update))

    def close(self) -> None:
        """Leave the bar as it is; what is printed from now on comes below it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def is_cut_short(self) -> bool:
        """Return whether some runs are neither done nor failed."""
        return len(self.finished) + len(self.failed) < len(self._pending)

    def describe_interruption(self) -> str:
        """Return what was saved and how to go on."""
        if self._single:
            return describe_stop(*next(iter(self.saved.values()), (0, None)))
        updates = sorted({update for update, _ in self.saved.values()})
        at = f" at update {updates[0]}" + (f" to {updates[-1]}" if len(updates) > 1 else "") if updates else ""
        rest = len(self._pending) - len(self.saved) - len(self.finished) - len(self.failed)
        return (
            f"interrupted: {len(self.finished)} runs done, {len(self.saved)} saved{at}, {rest} not begun; the same "
            "command with --resume goes on from there"
        )

    def _on_say(self, line: str) -> None:
        if line not in self._said:  # each group and process says which encoder it uses
            self._said.add(line)
            tqdm.write(line)

    def _on_started(self, content: tuple[list[Key], TrainConfig, int, str, int]) -> None:
        keys, config, weights, device, update = content
        model = (
            f"hidden size {config.hidden_size}" if config.policy == "gru" else f"experts {config.expert_hidden_sizes}"
        )
        self.begun = True
        if config.mixture is not None:
            self._on_say(f"{config.run_name}: environments: {describe_slots(config)}")
        if unaided := describe_unaided(config):
            self._on_say(f"{config.run_name}: {unaided}")
        tqdm.write(
            f"{config.run_name}: {name_runs(keys)}: policy {config.policy}, {model}, {weights:,} weights, "
            f"{config.num_updates} updates of {config.num_envs} environments x {config.unroll_len} steps on {device}"
            + (f"; resumed at update {update}" if update else "")
        )
        if not self._single:  # with each group: others may have written before it had folders
            try:
                self._on_say(f"mapping kept in {write_mapping(self._runs, config)}")
            except OSError as error:  # no reason to end the work
                self._on_say(f"mapping not kept: {explain(error)}")
        if self._bar is None:
            self._bar = Bar(
                total=sum(self._remaining(run.update) for run in self._pending),
                desc="training" if self._single else f"training {len(self._pending)} runs",
                unit=" env-steps",
                unit_scale=True,
                mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a terminal
            )

    def _remaining(self, update: int) -> int:
        return max(0, self._target - update) * self._steps

    def _on_steps(self, steps: int) -> None:
        self._bar.update(steps)

    def _on_figures(self, figures: dict[Key, dict[str, Any]]) -> None:
        self._figures.update(figures)
        texts = []
        for name, (metric, form) in self._watched.items():
            # Of a mixture the mean over levels: of all episodes together short ones, the successful, end more often.
            found = [row.get(f"{metric}/{MACRO_MEAN}", row.get(metric)) for row in self._figures.values()]
            values = [value for value in found if value is not None]
            texts.append(f"{name} {_spread(values, form)}")
        self._bar.set_postfix_str(", ".join(texts), refresh=False)

    def _on_saved(self, content: tuple[Key, int, Path]) -> None:
        key, update, path = content
        self.saved[key] = update, path
        self._figures.pop(key, None)

    def _on_failed(self, content: tuple[list[Key], str, int]) -> None:
        keys, why, update = content
        for key in keys:
            self.failed[key] = why
            self._figures.pop(key, None)
        if self._bar is not None:
            self._bar.total = max(self._bar.n, self._bar.total - self._remaining(update) * len(keys))
        if not self._single:
            tqdm.write(f"given up: {name_runs(keys)}: {why}", file=sys.stderr)

    def _on_incomplete(self, content: tuple[Key, str]) -> None:
        key, self.incomplete[key] = content

    def _on_evaluated(self, content: tuple[Key, dict[str, Any], dict[str, dict[str, Any]] | None]) -> None:
        key, self.evaluations[key], by_level = content
        if self._single:
            tqdm.write(f"final evaluation: {describe_metrics(self.evaluations[key])}")
            for level, metrics in (by_level or {}).items():
                tqdm.write(f"  {level}: {describe_metrics(metrics)}")

    def _on_finished(self, key: Key) -> None:
        self.finished.add(key)
        self._figures.pop(key, None)


def name_runs(keys: Sequence[Key]) -> str:
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
