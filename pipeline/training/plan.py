"""What is to be done for the runs of a call, and the guard against mixing them with others; nothing is written."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.checkpoints import CheckpointError, read_header
from pipeline.command.devices import resolve_device
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.guard import Conflict, RunFolderError, describe_held, differing_settings, find_conflict, is_held
from pipeline.mixtures import short_level
from pipeline.places import find_trials, list_checkpoints, list_run_folders, run_folder
from pipeline.tracking import import_wandb
from pipeline.training.folders import (
    Stamp,
    check_newest,
    has_checkpoints,
    has_final,
    lacks_evaluation,
    newest_checkpoint,
    stamp_checkpoints,
)
from pipeline.training.options import Sweep, default_replicas
from pipeline.training.start import check_fit, check_starts, spell_start

Key = tuple[int, int]
"""Trial and seed, which name a run within its sweep."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        config: Its settings.
        folder: Of its checkpoints.
        logs: Of its metrics.
        update: Updates done; 0: it starts afresh.
        checkpoint: To go on from, None if it starts afresh.
        encoder: Fingerprint of that checkpoint's sentence encoder, "" without one.
        complete: Whether nothing is left to do.
        stamp: Of the folder when the plan was made.
    """

    config: TrainConfig
    folder: Path
    logs: Path
    update: int = 0
    checkpoint: Path | None = None
    encoder: str = ""
    complete: bool = False
    stamp: Stamp = ()

    @property
    def key(self) -> Key:
        """Trial and seed, which name the run within its sweep."""
        return self.config.trial, self.config.seed


def plan_runs(sweep: Sweep, *, resume: bool, overwrite: bool) -> list[PlannedRun]:
    """Return the runs of a sweep with what is left to do for each.

    A run is complete when it has all updates, its final checkpoint and, if one is asked for, its final evaluation. One
    that only lacks these (it was stopped there) is taken up at its last update without --resume: nothing is trained.

    Raises:
        ConfigError: If a run starts from a checkpoint of the same call, or one that is to begin from a checkpoint that
            cannot be read or does not fit.
        RunFolderError: If a mixture's name stands for other levels, a trial holds runs of other settings, a run is
            begun and neither switch is given, or another process trains one.
        CheckpointError: If the newest checkpoint of a run is damaged; nothing goes on from an older one unasked.
    """
    _check_mixture_name(sweep, overwrite)
    check_starts(sweep.configs)
    runs: list[PlannedRun] = []
    problems: dict[str, list[str]] = {"other": [], "begun": [], "held": [], "damaged": []}
    for config in sweep.configs:
        folder, logs = run_folder(config.checkpoint_dir, config), run_folder(config.log_dir, config)
        run = PlannedRun(config, folder, logs)
        if not overwrite:
            try:
                run, conflict = _look_up(run, resume)
            except CheckpointError as error:
                problems["damaged"].append(str(error))
                continue
            if conflict is not None:
                problems[conflict.kind].append(conflict.text)
        if not run.complete and is_held(logs):
            problems["held"].append(describe_held(logs))
        runs.append(run)
    _refuse(sweep, **problems)
    check_fit(run.config for run in runs if run.checkpoint is None and not run.complete)
    return runs


def _look_up(run: PlannedRun, resume: bool) -> tuple[PlannedRun, Conflict | None]:
    """Return a run with what its folders hold of it, and why it may not go on from there, None if it may.

    Raises:
        CheckpointError: If its newest checkpoint is damaged.
    """
    config, folder, logs = run.config, run.folder, run.logs
    stamp = stamp_checkpoints(folder)
    found = newest_checkpoint(folder)
    update = found[1].update if found else 0
    wanted, own_text = config.full_identity(), config.start_from
    if found:
        wanted["start_from"] = spell_start(config, found[1].config, found[0])

    def respell(logged: Mapping[str, Any]) -> dict[str, Any]:  # metrics may be newer than the checkpoint
        return {**logged, **({"start_from": wanted["start_from"]} if logged.get("start_from") == own_text else {})}

    trained = found is not None and update >= config.num_updates
    conflict = find_conflict(
        folder,
        logs,
        wanted,
        found and found[1].config,
        update=update,
        go_on=resume or trained,
        defaults=TrainConfig().to_dict(),
        migrate=respell,
        is_elsewhere=partial(has_checkpoints, config=config),
    )
    if found is None:
        return replace(run, stamp=stamp), conflict
    path, header = found
    encoder = str(header.lang_encoder.get("fingerprint", ""))
    last = update == config.num_updates  # and not beyond: then there is nothing to do, whatever else is there
    complete = trained and not (last and (lacks_evaluation(config, logs) or not has_final(folder, update)))
    if conflict is None:
        check_newest(path, complete=complete)
    return PlannedRun(config, folder, logs, update, path, encoder, complete, stamp), conflict


def renew_run(run: PlannedRun) -> PlannedRun:
    """Return a run as its folders have it now, for one that another process may have begun since it was planned.

    Raises:
        RunFolderError: If they hold another run.
        CheckpointError: If its newest checkpoint is damaged.
    """
    renewed, conflict = _look_up(run, True)
    if conflict is not None:
        raise RunFolderError(conflict.text)
    return renewed


def _refuse(sweep: Sweep, other: list[str], begun: list[str], held: list[str], damaged: list[str]) -> None:
    """Raise an error for the worst of what stands in the way, if anything does."""
    total = len(sweep.configs)
    free = f"(--trial {_first_free_trial(sweep.configs[0])} and up are free)"
    if other:
        what = "it" if total == 1 else f"what the folders of these {total} runs hold"
        raise RunFolderError(
            f"{_first_of(other, total)}. Choose another --trial {free}, or pass --overwrite to delete {what}"
        )
    if held:
        raise RunFolderError(_first_of(held, total))
    if damaged:
        raise CheckpointError(_first_of(damaged, total))
    if begun:
        raise RunFolderError(
            f"{_first_of(begun, total)}. Pass --resume to continue, --overwrite to delete, or choose another --trial "
            f"{free}"
        )
    strangers = [text for config in _one_per_trial(sweep) for text in _find_strangers(config, sweep)]
    if strangers:
        raise RunFolderError(
            f"{_first_of(strangers)}. One trial is one setting: choose another --trial {free}, or move that folder away"
        )


def _first_of(problems: Sequence[str], total: int | None = None) -> str:
    """Return the first problem, and how many there are besides."""
    rest = len(problems) - 1
    if not rest:
        return problems[0]
    return f"{problems[0]}; likewise {rest} other" + (
        f" of these {total} runs" if total else " folders of these trials"
    )


def _one_per_trial(sweep: Sweep) -> Iterator[TrainConfig]:
    """Yield one configuration of each trial."""
    yield from {config.trial: config for config in sweep.configs}.values()


def _find_strangers(config: TrainConfig, sweep: Sweep) -> Iterator[str]:
    """Yield what a trial's folder holds besides the sweep's runs that has other settings than they."""
    ours = {run_folder(other.checkpoint_dir, other) for other in sweep.configs}
    for folder in list_run_folders(config.checkpoint_dir, config):
        if folder in ours:
            continue
        for path in list_checkpoints(folder)[-1:]:  # any tells the setting
            try:
                header = read_header(path)
            except CheckpointError:  # nobody's run
                continue
            but = {"seed", *header.unknown_fields}
            wanted = {**config.full_identity(), "start_from": spell_start(config, header.config, path)}
            if differences := differing_settings(header.config, wanted, but):
                yield f"{folder} holds a run of another setting ({differences})"


def _check_mixture_name(sweep: Sweep, overwrite: bool) -> None:
    """Refuse a mixture whose name stands for another list of levels in a folder of checkpoints.

    A list is known by its name in paths and figures. Trials of a mixture differ in all else.

    Raises:
        RunFolderError: If it does; with both lists.
    """
    config = sweep.configs[0]
    if config.mixture is None:
        return
    replaced = {run_folder(other.checkpoint_dir, other) for other in sweep.configs} if overwrite else set()
    for trial in find_trials(config.checkpoint_dir, config.run_name):
        for folder in list_run_folders(config.checkpoint_dir, replace(config, trial=trial)):
            if folder in replaced or not (checkpoints := list_checkpoints(folder)):
                continue
            try:
                levels = read_header(checkpoints[-1]).config.get("task_id")
            except CheckpointError:  # told of where it stands in the way
                continue
            if levels != config.task_id:
                raise RunFolderError(
                    f"{folder} holds a run of mixture {config.mixture} on {_name_levels(levels)}; found "
                    f"{_name_levels(config.task_id)}. A mixture's name stands for one list of levels, in one order: "
                    "choose another --mixture for these levels, or move those runs away"
                )
            break  # of one trial one run tells


def _name_levels(levels: str | Sequence[str] | None) -> str:
    """Return short names of levels."""
    names = [levels] if isinstance(levels, str) else list(levels or ("unknown levels",))
    return ", ".join(map(short_level, names))


def _first_free_trial(config: TrainConfig) -> int:
    """Return a number from which on no trial of the task has a folder."""
    roots = config.checkpoint_dir, config.log_dir
    return 1 + max((trial for root in roots for trial in find_trials(root, config.run_name)), default=0)


def group_runs(runs: Iterable[PlannedRun], max_replicas: int) -> list[list[PlannedRun]]:
    """Return groups of runs that are at the same update, of almost equal size, each to be trained as one.

    They come seed by seed, so that an unfinished sweep has the same seeds of all prices.
    """
    by_state: dict[tuple[int, str], list[PlannedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.config.seed, run.config.trial)):
        by_state.setdefault((run.update, run.encoder), []).append(run)
    groups = []
    for together in by_state.values():
        count = math.ceil(len(together) / max_replicas)
        bounds = [len(together) * i // count for i in range(count + 1)]
        groups += [together[low:high] for low, high in itertools.pairwise(bounds)]
    return groups


def choose_replicas(sweep: Sweep) -> int:
    """Return how many runs one process trains as one program.

    Raises:
        ConfigError: If more than one is asked for with Weights & Biases, or a GPU that torch does not see.
        TrackingError: If Weights & Biases is asked for and not installed.
    """
    config = sweep.configs[0]
    if config.wandb_project is not None:
        import_wandb()
        if sweep.max_replicas is not None and sweep.max_replicas > 1 and len(sweep.configs) > 1:
            raise ConfigError(
                "wandb_project: Weights & Biases follows one run per process; leave --max_replicas out to train the "
                "runs one after another, or pass --wandb_project null"
            )
        return 1
    if sweep.max_replicas is not None:
        return sweep.max_replicas
    return default_replicas(config, on_cpu=resolve_device(config.device).type == "cpu")


def count_jobs(config: TrainConfig) -> int:
    """Return how many processes the cores that this one may use are enough for; 1 on a GPU.

    Raises:
        ConfigError: If a GPU is asked for and torch sees none.
    """
    if resolve_device(config.device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config.torch_threads)
