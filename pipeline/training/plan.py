"""What is to be done for many runs, and the guard against mixing them with others; nothing is written or deleted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints import CheckpointError
from pipeline.config import TrainConfig
from pipeline.places import find_trials, run_folder
from pipeline.training.folders import (
    RunFolderError,
    describe_held,
    differing_settings,
    has_log,
    is_held,
    is_log_of,
    lacks_evaluation,
    newest_checkpoint,
)
from pipeline.training.options import Sweep


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
    """

    config: TrainConfig
    folder: Path
    logs: Path
    update: int = 0
    checkpoint: Path | None = None
    encoder: str = ""
    complete: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Trial and seed, which name the run within its sweep."""
        return self.config.trial, self.config.seed


def plan_runs(sweep: Sweep, *, resume: bool, overwrite: bool) -> list[PlannedRun]:
    """Return the runs of a sweep with what is left to do for each; nothing is written or deleted.

    A run is complete when it has all updates and, if one is asked for, its final evaluation. One that only lacks that
    (it was stopped in it) is taken up at its last update without --resume: nothing of it is replaced.

    Raises:
        RunFolderError: If a trial holds runs of other settings, a run is begun and neither switch is given, or another
            process trains one.
        CheckpointError: If a checkpoint cannot be read.
    """
    runs: list[PlannedRun] = []
    others: list[str] = []
    begun: list[str] = []
    held: list[str] = []
    for config in sweep.configs:
        folder, logs = run_folder(config.checkpoint_dir, config), run_folder(config.log_dir, config)
        run = PlannedRun(config, folder, logs)
        found = None if overwrite else newest_checkpoint(folder)
        if found is not None:
            path, content = found
            if differences := differing_settings(content, config):
                others.append(f"{folder} holds another run ({differences})")
                continue
            update = content["update"]
            trained = update >= config.num_updates
            if not trained and not resume:
                begun.append(f"{folder} holds this run, up to update {update}")
            encoder = str(content["lang_encoder"].get("fingerprint", ""))
            complete = trained and not (update == config.num_updates and lacks_evaluation(config, logs))
            run = PlannedRun(config, folder, logs, update, path, encoder, complete)
        elif not overwrite and has_log(logs):
            if not is_log_of(logs, config):
                others.append(f"{logs} holds the metrics of another run: {folder} has no checkpoint of theirs")
                continue
            if not resume:
                begun.append(f"{logs} holds metrics of this run, which has no checkpoint yet")
        if not run.complete and is_held(logs):
            held.append(describe_held(logs))
        runs.append(run)
    total = len(sweep.configs)
    free = _first_free_trial(sweep.configs[0])
    if others:
        raise RunFolderError(
            f"{_first_of(others, total)}. Choose other trials (--trial {free} and up are free), or pass --overwrite to "
            f"delete what the folders of these {total} runs hold"
        )
    if held:
        raise RunFolderError(_first_of(held, total))
    if begun:
        raise RunFolderError(
            f"{_first_of(begun, total)}. Pass --resume to continue, --overwrite to delete, or choose other trials "
            f"(--trial {free} and up are free)"
        )
    strangers = [text for config in _one_per_trial(sweep) for text in _find_strangers(config, sweep)]
    if strangers:
        raise RunFolderError(
            f"{_first_of(strangers)}. One trial is one setting: choose other trials (--trial {free} and up are free), "
            "or move that folder away"
        )
    return runs


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
    trial = run_folder(config.checkpoint_dir, config).parent
    ours = {f"seed_{other.seed}" for other in sweep.configs}
    for folder in [trial, *sorted(trial.glob("seed_*"))]:
        if folder.name in ours:
            continue
        try:
            found = newest_checkpoint(folder)
        except CheckpointError:  # nobody's run
            continue
        if found is not None:
            content = found[1]
            differences = differing_settings(content, config, but={"seed", *content.get("unknown_fields", ())})
            if differences:
                yield f"{folder} holds a run of another setting ({differences})"


def _first_free_trial(config: TrainConfig) -> int:
    """Return a number from which on no trial of the task has a folder."""
    roots = config.checkpoint_dir, config.log_dir
    return 1 + max((trial for root in roots for trial in find_trials(root, config.task_id)), default=0)


def group_runs(runs: Iterable[PlannedRun], max_replicas: int) -> list[list[PlannedRun]]:
    """Return batches of runs that are at the same update, in their order, of almost equal size."""
    by_state: dict[tuple[int, str], list[PlannedRun]] = {}
    for run in runs:
        by_state.setdefault((run.update, run.encoder), []).append(run)
    groups = []
    for together in by_state.values():
        count = math.ceil(len(together) / max_replicas)
        bounds = [len(together) * i // count for i in range(count + 1)]
        groups += [together[low:high] for low, high in itertools.pairwise(bounds)]
    return groups
