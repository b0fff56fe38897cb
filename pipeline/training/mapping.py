"""Which trial has which price of complexity, which seeds, and where: as a table, and as a file beside the trials.

The file is `<checkpoint_dir>/<task_id>/sweep_trial_<first trial>.json`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.command.files import write_text
from pipeline.command.folders import HeldError, hold_lock
from pipeline.config import TrainConfig
from pipeline.guard import RunFolderError
from pipeline.places import list_checkpoints, run_folder, sweep_path
from pipeline.training.plan import PlannedRun

SCHEMA_VERSION = 1
_LOCK_SECONDS = 60.0


def format_alpha(alpha: float) -> str:
    """Return a price as short as it can be written without becoming another number."""
    short = f"{alpha:g}"
    return short if float(short) == alpha else repr(alpha)


def format_seeds(seeds: Iterable[int]) -> str:
    """Return seeds as `--seeds` takes them, neighbours as ranges."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def mapping_lines(runs: Sequence[PlannedRun]) -> list[str]:
    """Return a table of the trials: price, seeds, where they are, and how far."""
    trials: dict[int, list[PlannedRun]] = {}
    for run in runs:
        trials.setdefault(run.config.trial, []).append(run)
    rows = [("trial", "alpha", "seeds", "checkpoints", "")]
    for trial, members in trials.items():
        rows.append(
            (
                str(trial),
                format_alpha(members[0].config.lpc_alpha),
                format_seeds(run.config.seed for run in members),
                f"{members[0].folder.parent}/seed_*",
                _describe_progress(members),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        f"{t:>{widths[0]}}  {a:>{widths[1]}}  {s:<{widths[2]}}  {c:<{widths[3]}}  {p}".rstrip()
        for t, a, s, c, p in rows
    ]


def _describe_progress(members: Sequence[PlannedRun]) -> str:
    """Return what has been done of a trial's runs."""
    parts = []
    complete = sum(run.complete for run in members)
    if complete:
        parts.append(f"{complete} complete, skipped")
    for update in sorted({run.update for run in members if run.checkpoint is not None and not run.complete}):
        count = sum(run.update == update and not run.complete and run.checkpoint is not None for run in members)
        last = update >= members[0].config.num_updates
        parts.append(f"{count} trained, to be evaluated" if last else f"{count} from update {update}")
    fresh = sum(run.checkpoint is None for run in members)
    if fresh and parts:
        parts.append(f"{fresh} from the start")
    return "; ".join(parts)


def write_mapping(runs: Sequence[PlannedRun], resolved: TrainConfig) -> Path:
    """Write trial -> alpha, seeds and paths, and the shared settings, and return the file's path.

    A file of the same first trial is taken up: its other trials stay, and so do other seeds of the same price whose
    checkpoints or logs are there.

    Args:
        runs: All of the sweep.
        resolved: Settings of one of them as it is trained.

    Raises:
        RunFolderError: If another process holds the file's lock for a minute.
    """
    path = sweep_path(runs[0].config.checkpoint_dir, runs[0].config)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(path.with_name(f".{path.name}.lock"), _LOCK_SECONDS):
            _merge_mapping(path, runs, resolved)
    except HeldError as error:
        holder = error.args[0] and f" ({error})"
        raise RunFolderError(f"{path}: another process has kept it locked for {_LOCK_SECONDS:.0f} s{holder}") from None
    return path


def _merge_mapping(path: Path, runs: Sequence[PlannedRun], resolved: TrainConfig) -> None:
    """Read, change and write the mapping; only one process at a time may."""
    trials = {entry["trial"]: entry for entry in _read_trials(path)}
    for trial in dict.fromkeys(run.config.trial for run in runs):
        members = {run.config.seed: run.config for run in runs if run.config.trial == trial}
        first = next(iter(members.values()))
        known = trials.get(trial, {})
        if known.get("lpc_alpha") == first.lpc_alpha:
            for seed in known["seeds"]:
                config = dataclasses.replace(first, seed=seed)
                logs = run_folder(config.log_dir, config)
                if logs.is_dir() or list_checkpoints(run_folder(config.checkpoint_dir, config)):
                    members.setdefault(seed, config)
        trials[trial] = {
            "trial": trial,
            "lpc_alpha": first.lpc_alpha,
            "seeds": sorted(members),
            "runs": [
                {
                    "seed": seed,
                    "checkpoints": run_folder(config.checkpoint_dir, config).as_posix(),
                    "logs": run_folder(config.log_dir, config).as_posix(),
                }
                for seed, config in sorted(members.items())
            ],
        }
    config = {key: value for key, value in resolved.to_dict().items() if key not in ("trial", "seed", "lpc_alpha")}
    content = {
        "schema_version": SCHEMA_VERSION,
        "task_id": resolved.run_name,
        "config": config,
        "trials": [trials[trial] for trial in sorted(trials)],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def _read_trials(path: Path) -> list[dict[str, Any]]:
    """Return the trials of an earlier mapping, none if there is no usable one."""
    try:
        trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
        numbers = [number for entry in trials for number in (entry["trial"], *entry["seeds"])]
        return trials if all(type(number) is int and 0 <= number < 2**63 for number in numbers) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
