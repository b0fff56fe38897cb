"""Evaluate every checkpoint into `evaluation_results.csv` and a cache of each step's routing.

    python batch_eval.py                                   # all that is not done yet, 100 levels each
    python batch_eval.py --num_episodes 1000 --jobs 2      # more levels, two processes
    python batch_eval.py --task GoToObj --final-only       # some of them
    python batch_eval.py --eval_actions sample --results_path sampled.csv --cache_dir sampled    # actions drawn

A checkpoint is done when the results hold its weights' digest with the same settings, and its cache is there; --force
evaluates it all the same, and on fewer levels than are kept of it, which is refused otherwise. Several calls may run at
once on the same files. docs/cache.md describes what is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command.cli import check_numbers, parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.folders import make_writable
from pipeline.command.launcher import FLAGS, Launcher, parse_launcher
from pipeline.command.names import name_command
from pipeline.command.shell import as_command
from pipeline.evaluation.settings import TOGETHER, EvaluationSettings
from pipeline.mixtures import short_level
from pipeline.places import find_strays
from pipeline.records.metrics import describe_replaced

if TYPE_CHECKING:
    from pipeline.evaluation.select import BatchPlan
    from pipeline.evaluation.work import Report

SWITCHES = {
    "final_only": "Only each run's final checkpoint.",
    "force": "Evaluate also what is done, and in place of more levels.",
    "skip_routing": "Only the results: keep no routing in memory and write no cache.",
    "inline_context": "Repeat each level's context in every step of the cache, for readers that expect it there.",
    "compact": "Write caches through gzip, routing_data.json.gz, much smaller; whatever reads caches reads those too.",
    "reindex": "Evaluate nothing; rebuild the rows of the results from the caches.",
}


@dataclass(frozen=True)
class BatchSettings(EvaluationSettings):
    """What is evaluated, how, and where results go.

    Attributes:
        checkpoint_dir: Folder of checkpoints.
        results_path: The CSV.
        cache_dir: Folder of the caches.
        task: Only these tasks, levels or mixtures; may be given as a list, full or short names. A mixture plays all its
            levels; where it is not named itself, those that are.
        eval_task: Play these levels in place of a checkpoint's own, such as levels that it has not seen.
        trial: Only this trial.
        seed: Only this seed.
        update: Only checkpoints of this update.
        jobs: Groups of checkpoints evaluated at a time, each in a process of its own. Default: one; with --launcher as
            many as there is room for.
        together: Checkpoints evaluated at once if alike (task, architecture, sentence encoder, step limit,
            lpc_exponent); 1 is one by one. Changes speed and memory, not the result. A crash loses those being
            evaluated, nothing else.
    """

    checkpoint_dir: str = "checkpoints"
    results_path: str = "evaluation_results.csv"
    cache_dir: str = "evaluation_cache"
    task: str | list[str] = field(default_factory=list)
    eval_task: str | list[str] = field(default_factory=list)
    trial: int | None = None
    seed: int | None = None
    update: int | None = None
    jobs: int | None = None
    together: int = TOGETHER

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_numbers(self, 1, "jobs", "together")


@as_command(stopped="stopped; what is finished is kept, and the same call does the rest")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 all done, 1 some failed, 2 refused, 130 stopped by Ctrl-C."""
    settings, beside = parse_command(
        "Evaluate checkpoints on a fixed list of levels.", BatchSettings, argv, switches=SWITCHES, options=FLAGS
    )
    launcher = parse_launcher(**{name: beside.pop(name) for name in FLAGS})
    return run(settings, launcher, **beside)


def run(
    settings: BatchSettings,
    launcher: Launcher,
    *,
    final_only: bool,
    force: bool,
    skip_routing: bool,
    inline_context: bool,
    compact: bool,
    reindex: bool,
) -> int:
    """Evaluate or reindex; print a table; return the exit code."""
    from pipeline.evaluation.select import BatchPlan, select_checkpoints  # here: --help is told without torch
    from pipeline.evaluation.work import run_batch
    from pipeline.records.results import read_results

    plan = BatchPlan(
        settings,
        Path(settings.results_path),
        Path(settings.cache_dir),
        force=force,
        skip_routing=skip_routing,
        inline_context=inline_context,
        compact=compact,
        together=settings.together,
    )
    if reindex:
        chosen = {name: getattr(settings, name) for name in ("task", "eval_task", "trial", "seed", "update")}
        chosen["final_only"] = final_only or None
        if given := [f"--{name}" for name, value in chosen.items() if value not in (None, [])]:
            raise ConfigError(f"--reindex takes all caches of --cache_dir: leave out {', '.join(given)}")
        return run_reindex(plan)
    todo = select_checkpoints(
        Path(settings.checkpoint_dir),
        tasks=[settings.task] if isinstance(settings.task, str) else settings.task,
        eval_tasks=[settings.eval_task] if isinstance(settings.eval_task, str) else settings.eval_task,
        trial=settings.trial,
        seed=settings.seed,
        update=settings.update,
        final_only=final_only,
    )
    if strays := find_strays(settings.checkpoint_dir):
        print(
            f"passed over: {len(strays)} checkpoints that lie in no <task>/trial_<N>/[seed_<S>/] (numbers below 2^63, "
            f"without leading zeros), such as {strays[0]}",
            file=sys.stderr,
        )
    if not todo:
        train = f"{name_command('train')} --config config.yaml"
        print(f"{settings.checkpoint_dir}: no checkpoint matches; train one: {train}")
        return 0
    results = plan.results_path.resolve() if plan.results_path.is_symlink() else plan.results_path
    for folder in (plan.cache_dir, results.parent):  # before the work, not after it
        make_writable(folder)
    if plan.results_path.exists():
        read_results(plan.results_path)
    if launcher.is_local:
        outcome = run_batch(plan, todo, jobs=min(settings.jobs or 1, len(todo)), launcher=launcher)
    else:
        from pipeline.evaluation.elsewhere import run_batch_elsewhere

        outcome = run_batch_elsewhere(plan, todo, launcher, jobs=settings.jobs)
    print_table([outcome[found.item] for found in todo])
    failed = [report for report in outcome.values() if report[0] == "failed"]
    for _, found, reason in failed:
        print(f"failed: {found.item}: {reason}", file=sys.stderr)
    if len(failed) < len(todo):
        where = "" if skip_routing else f"; caches in {plan.cache_dir}"
        print(f"results in {plan.results_path}{where}")
    return 1 if failed else 0


def run_reindex(plan: BatchPlan) -> int:
    """Rebuild rows from the caches; return the exit code."""
    from pipeline.evaluation.select import reindex

    written, problems = reindex(plan)
    print(f"{plan.results_path}: {written} rows from the caches in {plan.cache_dir}")
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


def print_table(reports: Sequence[Report]) -> None:
    """Print what became of each checkpoint."""
    from pipeline.records.cache import find_actions  # here: --help is told without numpy

    print(f"{'task':<34} {'trial':>5} {'seed':>5} {'update':>7} {'success':>8} {'path ratio':>10} {'LPC':>7}  levels")
    for kind, found, row in reports:
        task = found.task_id if found.eval_task_id is None else f"{found.task_id}: {short_level(found.played)}"
        name = f"{task:<34} {found.trial:>5} {_text(found.seed, 'd'):>5}"
        if kind in ("failed", "claimed"):
            update = "final" if found.update is None else found.update
            holder = f"left to another call that is at it{row and f': {row}'}"
            print(f"{name} {update:>7} {'failed' if kind == 'failed' else holder}")
            continue
        success, ratio = _text(row["success_rate"], ".1%"), _text(row["path_ratio"], ".3f")
        before = " (done before)" if kind == "already" else ""
        drawn = ["actions drawn"] if find_actions(row) == "sample" else []
        levels = ", ".join([str(row["num_episodes"]), *drawn, *describe_replaced(row)])
        print(
            f"{name} {_text(row['update'], 'd'):>7} {success:>8} {ratio:>10} {_text(row['mean_lpc'], '.1f'):>7}  "
            f"{levels}{before}"
        )


def _text(value: float | int | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
