"""The training logs of runs, `metrics.jsonl`, found from where their checkpoints are.

    logs, notes = read_logs(read_results("evaluation_results.csv"))
    plot_learning_over_updates(results, logs=logs)

A run logs to `<log_dir>/<task>/trial_<N>/seed_<S>/`, as its checkpoints lie below `<checkpoint_dir>`. No row of
results says where `log_dir` is: it is looked for as `runs` beside the folder of checkpoints and here, or is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from pipeline.mixtures import MACRO_MEAN
from pipeline.places import FINAL_NAME, PlaceError, locate_checkpoint, run_folder
from pipeline.records.results import Rows, as_results
from pipeline.tracking import METRICS_FILE, TrackingError, read_metrics
from plotting.style import count_of

LOGGED = {
    "success_rate": "rollout/success_rate",
    "mean_lpc": "train/lpc",
    "path_ratio": "rollout/path_ratio",
    "agreement": "train/accuracy",
}
"""What a log holds of each metric that can be drawn over updates: of training, not of the evaluation levels."""

_LOG_DIR = "runs"


def read_logs(rows: Rows, log_dir: str | Path | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Return the training curves of the runs of results, and notes on runs whose log was not found.

    Args:
        rows: From `read_results`.
        log_dir: Folder of logs; by default `runs` beside the checkpoints, or here.

    Returns:
        A row per line of a log, with the columns `folder` (of the run's checkpoints), `level`, `update` and those of
        `LOGGED`. Of a mixture there is one for each level, told by its short name; elsewhere `level` is "".
    """
    paths = as_results(rows)["checkpoint_path"].dropna().astype(str)
    folders = dict.fromkeys(Path(path).parent.as_posix() for path in paths)
    tables, lacking, damaged = [], 0, []
    for folder in folders:
        file = _find_log(folder, log_dir)
        try:
            lines = None if file is None else _read_lines(file)
        except (OSError, TrackingError) as error:
            damaged.append(f"{file}: cannot be read ({str(error)[:80]})")
            lines = None
        if lines:
            tables.append(pd.DataFrame(lines).assign(folder=folder))
        lacking += not lines
    known = (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["folder", "level", "update", *LOGGED])
    )
    notes = (
        [f"{count_of(lacking)} of {len(folders)} without a training log: evaluated checkpoints alone"]
        if lacking
        else []
    )
    return known, [*notes, *damaged]


def _find_log(folder: str, log_dir: str | Path | None) -> Path | None:
    """Return the log of the run whose checkpoints are in a folder."""
    try:
        place = locate_checkpoint(Path(folder) / FINAL_NAME)
    except (PlaceError, OSError):
        return None
    if place is None:
        return None
    root = place.path.parents[2 if place.seed is None else 3]
    roots: Iterable[Path] = [Path(log_dir)] if log_dir is not None else [root.parent / _LOG_DIR, Path(_LOG_DIR)]
    files = (run_folder(root, place) / METRICS_FILE for root in roots)
    return next((file for file in files if file.is_file()), None)


def _read_lines(file: Path) -> list[dict[str, str | float | None]]:
    """Return the training lines of a log: its update and the metrics."""
    lines = []
    for line in read_metrics(file):
        for level, keys in _keys_by_level(line).items():
            found = {name: line.get(key) for name, key in keys.items()}
            if any(value is not None for value in found.values()):
                lines.append({"level": level, "update": line["update"], **found})
    return lines


def _keys_by_level(line: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Return what a line calls the metrics of `LOGGED`, of each level of a mixture, or under "" of the run."""
    begin = f"{LOGGED['success_rate']}/"
    levels = [key.removeprefix(begin) for key in line if key.startswith(begin)]
    names = [level for level in levels if level != MACRO_MEAN]
    return {level: {name: f"{key}/{level}" for name, key in LOGGED.items()} for level in names} or {"": LOGGED}
