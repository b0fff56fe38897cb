"""Training and evaluating the runs of a study, by the project's own sweep and batch evaluation; what fails, and why.

Nothing is trained or played that is there: checkpoints are resumed, evaluations kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.errors import MISTAKES, explain
from pipeline.command.launcher import HERE, Launcher
from science import learning
from science.plan import ADAPTED, BASELINE, LEARNER, Design, Run, identify, path_experts
from science.store import Item, Store

if TYPE_CHECKING:
    from pipeline.config import TrainConfig

STEPS_OF_A_PROCESS = 500_000
"""Env-steps for which another process is started: it takes some seconds until it trains."""

Failures = dict[str, str]
"""Name of an item -> why it could not be made."""


class StoppedError(Exception):
    """Training was interrupted, and has saved what it had.

    Args:
        code: Exit code that says by what.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def train_item(run: Run) -> Item:
    """Return the item of training a run."""
    settings = {**identify(run.config), "trial": None, "num_updates": run.config.num_updates}
    if run.setting == LEARNER:
        settings |= {"lines": run.config.log_interval, "learning": learning.VERSION}
    return Item(f"train/{run.training}", settings)


def evaluate_item(design: Design, run: Run) -> Item:
    """Return the item of a run's own play on the fixed levels."""
    settings = {"episodes": design.config.episodes, "eval_seed": design.config.eval_seed}
    return Item(f"evaluate/{run.name}", settings, (f"train/{run.training}",))


def match_baselines(config: Any) -> dict[str, int]:
    """Return the hidden size of the dense GRU that has as many parameters as are active on each path of the policy.

    Active are all parameters but those of the experts that are not on the path: of each layer the largest expert, or
    the smallest that is no skip. The GRU of the nearest size is taken.

    Args:
        config: The study file.
    """
    if not config.baselines:
        return {}
    from pipeline.policies import build_policy

    settings = config.shared
    if config.mixture is not None:
        settings = replace(settings, task_id=config.tasks, mixture=config.mixture, task_weights=config.task_weights)
    counts = _count_parameters(build_policy(settings))
    dense = fit_sizes(settings)
    found = {}
    for path in config.baselines:
        active = counts[None]
        for place in enumerate(path_experts(settings.expert_hidden_sizes, path)):
            active += counts.get(place, 0)
        found[path] = min(range(1, 2048), key=lambda width: abs(dense(width) - active))
    return found


def fit_sizes(settings: TrainConfig) -> Callable[[int], int]:
    """Return a function that has the number of parameters of the dense baseline of a width.

    It is a polynomial of the second degree, found from three that are built: so it counts what a policy really takes,
    however observations are shown to it.
    """
    from pipeline.policies import build_policy

    dense = [build_policy(replace(settings, policy=BASELINE, hidden_size=width)) for width in (1, 2, 3)]
    one, two, three = (sum(weight.numel() for weight in policy.parameters()) for policy in dense)
    bend = one - 2 * two + three
    return lambda width: one + (width - 1) * (two - one) + (width - 1) * (width - 2) // 2 * bend


def _count_parameters(policy: Any) -> dict[Any, int]:
    """Return the number of parameters of each expert, by layer and place, and under None that of all else."""
    import re

    counts: dict[Any, int] = {None: 0}
    for name, weight in policy.named_parameters():
        match = re.search(r"(?:^|\.)(?:moe_)?layers\.(\d+)\.experts\.(\d+)\.", name)
        key = (int(match[1]), int(match[2])) if match else None
        counts[key] = counts.get(key, 0) + weight.numel()
    return counts


# ------------------------------------------------------------------------------------------------------------ training


def train_missing(
    design: Design, store: Store, jobs: int | None, say: Callable[[str], object], launcher: Launcher = HERE
) -> Failures:
    """Train the runs that are not there, task by task, and stamp those that are.

    Args:
        design: Of the study.
        store: Of its stamps.
        jobs: Processes; elsewhere None is as many as there is room for.
        say: Takes a line.
        launcher: Where.

    Returns:
        Why runs could not be trained.

    Raises:
        StoppedError: If it was interrupted.
    """
    failures: Failures = {}
    everyone = [*design.trainings, *design.learners]
    stale = [run for run in everyone if not store.is_fresh(train_item(run))]
    if not stale:
        return failures
    say(f"train: {len(stale)} of {len(everyone)} runs; what training says is in {design.work / 'training.log'}")

    def kind(run: Run) -> tuple[str, bool, int]:
        return (
            run.config.run_name,
            run.config.policy == BASELINE,
            run.config.hidden_size if run.config.policy == BASELINE else 0,
        )

    for _, members in groupby(sorted(stale, key=kind), key=kind):
        train_together(design, store, list(members), train_item, failures, jobs=jobs, launcher=launcher)
    return failures


def list_ready(store: Store, runs: Sequence[Run], item_of: Callable[[Run], Item]) -> list[Run]:
    """Return the runs whose items are stale though what they need is there; forget those whose needs are missing."""
    ready = []
    for run in runs:
        item = item_of(run)
        if any(store.read(name) is None for name in item.needs):
            store.forget(item)
        elif not store.is_fresh(item):
            ready.append(run)
    return ready


def train_together(
    design: Design,
    store: Store,
    runs: Sequence[Run],
    item_of: Callable[[Run], Item],
    failures: Failures,
    *,
    jobs: int | None,
    launcher: Launcher = HERE,
    overwrite: bool = False,
) -> None:
    """Train runs that may be trained together, from where they are, and stamp those that are trained.

    Args:
        design: Of the study.
        store: Of its stamps.
        runs: Whose settings differ in what runs of one batch may.
        item_of: Returns the item of a run.
        failures: Gets why runs could not be trained, by the names of their items.
        jobs: Processes; elsewhere None is as many as there is room for.
        launcher: Where.
        overwrite: Begin anew, whatever is there.

    Raises:
        StoppedError: If it was interrupted.
    """
    from pipeline.training.driver import train_runs
    from pipeline.training.options import Sweep
    from pipeline.training.plan import plan_runs

    able: list[Run] = []
    for run in runs:
        try:  # one by one: whatever is wrong with one, the others are trained
            plan_runs(Sweep((run.config,)), resume=not overwrite, overwrite=overwrite)
        except MISTAKES as error:
            failures[item_of(run).name] = explain(error)
            store.forget(item_of(run))
        else:
            able.append(run)
    if not able:
        return
    able.sort(key=lambda run: (run.config.trial, run.seed))
    why = ""
    steps = sum(run.config.num_updates * run.config.num_envs * run.config.unroll_len for run in able)
    processes = min(jobs, 1 + steps // STEPS_OF_A_PROCESS) if launcher.is_local else jobs
    sweep = Sweep(tuple(run.config for run in able), jobs=processes)
    try:
        with (design.work / "training.log").open("a", encoding="utf-8") as log, redirect_stdout(log):
            code = train_runs(sweep, resume=not overwrite, overwrite=overwrite, launcher=launcher, again=())
    except MISTAKES as error:
        code, why = 1, explain(error)
    stopped = code >= 128
    _stamp_trained(design, able, store, item_of, why, {} if stopped else failures)
    if stopped:
        raise StoppedError(code)


def _stamp_trained(
    design: Design, runs: Sequence[Run], store: Store, item_of: Callable[[Run], Item], why: str, failures: Failures
) -> None:
    """Stamp the runs that are trained; forget the others, and say why they are not."""
    from pipeline.checkpoints import CheckpointError, read_header
    from pipeline.guard import has_log
    from pipeline.places import run_folder

    for run in runs:
        item, update = item_of(run), None
        try:
            update = read_header(run.checkpoint).update
        except CheckpointError as error:
            log = store.folder / "work" / "training.log"
            missing = f"training ended without a final checkpoint, as it does if a run diverges; see {log}"
            failures[item.name] = explain(error) if run.checkpoint.exists() else why or missing
        if update is not None and update < run.config.num_updates:
            failures[item.name] = f"expected {run.config.num_updates} updates, found {update}: {why or 'stopped'}"
        timed = run.setting == LEARNER or item.kind == ADAPTED
        logs = run_folder(run.config.log_dir, run.config)
        if timed and item.name not in failures and not has_log(logs):  # not a run that never learned
            failures[item.name] = (
                "its metrics are gone, which tell how soon it learned; delete its checkpoints to train it again"
            )
        if item.name in failures:
            store.forget(item)
        else:
            notes: dict[str, Any] = {"update": update}
            if timed:
                notes["learning"] = learning.read_learning(run.config)
            store.write(item, [run.checkpoint], notes)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_missing(
    design: Design, store: Store, jobs: int | None, say: Callable[[str], object], launcher: Launcher = HERE
) -> Failures:
    """Play the fixed levels with the runs that have not yet, and stamp those that have.

    Args:
        design: Of the study.
        store: Of its stamps.
        jobs: Processes; elsewhere None is as many as there is room for.
        say: Takes a line.
        launcher: Where.

    Returns:
        Why runs could not be evaluated; of runs without a checkpoint nothing is said.
    """
    ready = [run for run in design.runs if store.read(train_item(run).name) is not None]
    for run in design.runs:
        if run not in ready:
            store.forget(evaluate_item(design, run))
    stale = [run for run in ready if not store.is_fresh(evaluate_item(design, run))]
    if not stale:
        return {}
    what = "runs" if design.config.mixture is None else "runs and tasks"
    say(f"evaluate: {len(stale)} of {len(design.runs)} {what}, {design.config.episodes} levels each")
    from pipeline.evaluation.elsewhere import run_batch_elsewhere
    from pipeline.evaluation.select import BatchPlan
    from pipeline.evaluation.work import run_batch

    plan = BatchPlan(
        evaluation_settings(design), design.work / "evaluation_results.csv", cache_folder(design), compact=True
    )
    places = {_place(run): run for run in stale}
    todo = list(places)
    if launcher.is_local:
        outcome = run_batch(plan, todo, jobs=min(jobs, len(todo)))
    else:
        outcome = run_batch_elsewhere(plan, todo, launcher, jobs=jobs)
    failures: Failures = {}
    for found, run in places.items():
        kind, _, content = outcome[found.item]
        item = evaluate_item(design, run)
        if kind in ("done", "already"):
            store.write(
                item, [played_cache(design, run)], {"success": content["success_rate"], "lpc": content["mean_lpc"]}
            )
        else:
            store.forget(item)
            failures[item.name] = str(content or "another process is at it; call again when it has ended")
    return failures


def _place(run: Run) -> Any:
    """Return a run's checkpoint, with the level that is to be played if it is of a mixture."""
    from pipeline.places import Place

    name, elsewhere = run.config.run_name, run.played_elsewhere
    return Place(run.checkpoint, name, run.config.trial, run.seed, None, eval_task_id=elsewhere)


def evaluation_settings(design: Design) -> Any:
    """Return how runs are evaluated, as `EvaluationSettings`."""
    from pipeline.evaluation.settings import EvaluationSettings

    given = {"num_episodes": design.config.episodes}
    given |= {"eval_seed": design.config.eval_seed} if design.config.eval_seed is not None else {}
    return EvaluationSettings(**given, device=design.runs[0].config.device)


def cache_folder(design: Design) -> Path:
    """Return the folder of the caches of the runs' own play."""
    return design.work / "evaluation_cache"


def played_cache(design: Design, run: Run) -> Path:
    """Return the file of a run's own play."""
    from pipeline.places import cache_path, stored_cache

    name, elsewhere = run.config.run_name, run.played_elsewhere
    return stored_cache(cache_path(cache_folder(design), name, run.config.trial, run.seed, eval_task_id=elsewhere))
