"""What a sweep has found: a row for each run, and means over seeds for each price of complexity."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

from pipeline.command.names import name_command
from pipeline.config import TrainConfig
from pipeline.places import checkpoint_path, sweep_path
from pipeline.records.intervals import MIN_FOR_INTERVAL, Estimates, mean_interval, success_over_runs
from pipeline.records.metrics import evaluation_metrics
from pipeline.training.folders import count_final_episodes, has_final, newest_checkpoint, read_final_evaluation
from pipeline.training.mapping import format_alpha
from pipeline.training.options import Sweep
from pipeline.training.plan import Key, PlannedRun

Metrics = Mapping[str, float | int | None]


def run_lines(runs: Sequence[PlannedRun], found: Mapping[Key, Metrics]) -> list[str]:
    """Return a table of the runs' final evaluations.

    Args:
        runs: All of the sweep.
        found: `eval/...` metrics by run's key; a run that is not there has none.
    """
    rows = [("trial", "alpha", "seed", "success", "95% interval over levels", "LPC", "levels")]
    for run in runs:
        metrics = found.get(run.key)
        name = (str(run.config.trial), format_alpha(run.config.lpc_alpha), str(run.config.seed))
        if metrics is None:
            rows.append((*name, "-", "not evaluated", "-", "-"))
            continue
        rate, low, high = (metrics.get(f"eval/success_{end}") for end in ("rate", "low", "high"))
        interval = "-" if low is None or high is None else f"{low:.1%} to {high:.1%}"
        lpc, levels = metrics.get("eval/mean_lpc"), metrics.get("eval/episodes")
        rows.append((*name, _text(rate, ".1%"), interval, _text(lpc, ".0f"), _text(levels, "d")))
    return align_right(rows)


def alpha_lines(runs: Sequence[PlannedRun], found: Mapping[Key, Metrics]) -> list[str]:
    """Return a table of means over the runs of each trial, with t intervals over runs.

    Runs that agree exactly have none over runs, see `success_over_runs`: their success has one over levels, their LPC
    none.
    """
    rows = [("trial", "alpha", "runs", "mean success", "95% interval", "mean LPC", "95% interval")]
    marked = False
    for trial in dict.fromkeys(run.config.trial for run in runs):
        members = [run for run in runs if run.config.trial == trial]
        metrics = [found[run.key] for run in members if run.key in found]
        rates = [row["eval/success_rate"] for row in metrics if row.get("eval/success_rate") is not None]
        lpcs = [row["eval/mean_lpc"] for row in metrics if row.get("eval/mean_lpc") is not None]
        levels = min((int(row.get("eval/episodes") or 0) for row in metrics), default=0)
        success, over_levels = success_over_runs(rates, levels) if rates else (None, False)
        marked |= over_levels
        count = str(len(rates)) if len(rates) == len(members) else f"{len(rates)} of {len(members)}"
        rows.append(
            (
                str(trial),
                format_alpha(members[0].config.lpc_alpha),
                count,
                *_mean_texts(success, ".1%", highest=1.0, mark="*" if over_levels else ""),
                *_mean_texts(mean_interval(lpcs).where_units_differ() if lpcs else None, ".0f", highest=math.inf),
            )
        )
    lines = align_right(rows)
    if any("-" in (row[4], row[6]) for row in rows[1:]):
        lines.append(f"intervals are Student's t over runs; they take {MIN_FOR_INTERVAL} runs or more that differ")
    if marked:
        lines.append("* all runs have the same success: Wilson's interval over the levels, which they share")
    return lines


def _mean_texts(estimate: Estimates | None, form: str, highest: float, mark: str = "") -> tuple[str, str]:
    """Return the mean of runs and its interval as text, the interval cut to what the metric can take; "-" for none."""
    if estimate is None:
        return "-", "-"
    mean, low, high = float(estimate.mean), float(estimate.low), float(estimate.high)
    if math.isnan(low):
        return format(mean, form), "-"
    return format(mean, form), f"{format(max(low, 0.0), form)} to {format(min(high, highest), form)}{mark}"


def _text(value: float | int | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def align_right(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's rows as lines, every column to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def print_results(runs: Sequence[PlannedRun], evaluations: Mapping[Key, Metrics]) -> None:
    """Print the tables of runs and of prices, if any run has been evaluated."""
    found: dict[Key, Metrics] = {key: evaluation_metrics(m) for key, m in evaluations.items()}
    for run in runs:
        episodes = count_final_episodes(run.config)
        if run.complete and (line := read_final_evaluation(run.logs, run.update, episodes)) is not None:
            found[run.key] = line
    if found:
        print("\n".join([*run_lines(runs, found), "", *alpha_lines(runs, found)]))


def print_places(sweep: Sweep, runs: Sequence[PlannedRun]) -> None:
    """Print where everything is, and what to do next."""
    logs = runs[0].logs if sweep.single else runs[0].logs.parents[1]
    if sweep.single:
        folder = runs[0].folder
        found = newest_checkpoint(folder)
        final = found is None or has_final(folder, found[1].update)
        print(f"checkpoint   {checkpoint_path(folder, None) if final else found[0]}")
    else:
        # Of the first trial: a part of a sweep that is complete has none.
        path = sweep_path(runs[0].config.checkpoint_dir, runs[0].config)
        print(f"checkpoints  {path.parent}" + (f" (which trial is what: {path.name})" if path.exists() else ""))
    print(f"logs         {logs} (metrics.jsonl; tensorboard --logdir {shlex.quote(str(logs))})")
    folder = runs[0].config.checkpoint_dir
    flags = "" if folder == TrainConfig().checkpoint_dir else f" --checkpoint_dir {shlex.quote(folder)}"
    print(f"next         {name_command('evaluate')}{flags}")
