"""What is known of runs from the files they leave: settings, state, updates, success. No weights are read.

    sources = find_sources(".", InspectionSettings())
    for run in find_runs(sources, read_known_rows(sources.results)):
        print(run.name, run.state, run.update, run.score and run.score.success)

Settings and progress come from the logs, success and complexity from `evaluation_results.csv` or else from the log. A
run without logs is known from its checkpoint, for which torch is imported.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.command.errors import explain
from pipeline.config import TrainConfig
from pipeline.guard import has_log, is_held, read_settings
from pipeline.inspection.sources import Sources
from pipeline.mixtures import MACRO_MEAN
from pipeline.places import Place, find_run_folders, list_checkpoints, locate_checkpoint, run_folder
from pipeline.tracking import METRICS_FILE

State = Literal["training", "finished", "stopped", "failed", "damaged"]
"""training: a process is at it. finished: all updates are done. stopped: `--resume` goes on. failed: it has begun and
left no checkpoint. damaged: its newest checkpoint cannot be read."""


@dataclass(frozen=True)
class Score:
    """How well a run does.

    Attributes:
        success: Share of the levels.
        low: Lower end of its 95 % interval over levels; None if unknown.
        high: Upper end.
        lpc: Mean complexity over steps; None if unknown, as of a policy without experts.
        levels: How many were played.
        update: Of the weights; None if unknown.
        fixed: Whether levels are those of an evaluation; otherwise they are the last ones of training.
        drawn: Whether in an evaluation actions were drawn from the policy; otherwise they were its most probable ones.
    """

    success: float
    low: float | None
    high: float | None
    lpc: float | None
    levels: int
    update: int | None
    fixed: bool
    drawn: bool = False


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run.

    Attributes:
        task_id: Its task.
        trial: Its trial.
        seed: Its seed; None where its path has none.
        folder: Of its checkpoints.
        logs: Of its metrics.
        state: See `State`.
        update: Updates done; None if unknown.
        target: Updates in all; None if unknown.
        settings: All of them; empty if unknown.
        score: Of its newest evaluation; of training if there is none; None if there is neither.
        problem: Why it is damaged or has failed.
    """

    task_id: str
    trial: int
    seed: int | None
    folder: Path
    logs: Path
    state: State
    update: int | None
    target: int | None
    settings: dict[str, Any]
    score: Score | None
    problem: str | None = None

    @property
    def name(self) -> str:
        """Task, trial and seed, as `rlmop compare` takes them."""
        return f"{self.task_id}/{self.trial}" + ("" if self.seed is None else f"/{self.seed}")


Rows = Mapping[tuple[str, int, int | None], list[dict[str, Any]]]
"""Rows of the results by task, trial and seed."""


def find_runs(sources: Sources, rows: Rows, update: int | None = None) -> list[RunInfo]:
    """Return the runs that are meant and have a checkpoint or a log, by task, trial and seed.

    Args:
        sources: Where to look.
        rows: Of the results.
        update: If given, only evaluations of this one count.
    """
    places: dict[tuple[str, int, int | None], Place] = {}
    for root in (sources.checkpoints, sources.logs):
        for place in find_run_folders(root):
            meant = place.run[: len(sources.within)] == sources.within
            if meant and (list_checkpoints(place.path) or has_log(place.path)):
                places.setdefault(place.run, place)
    keys = sorted(places, key=lambda key: (key[0], key[1], -1 if key[2] is None else key[2]))
    return [_inspect(places[key], sources, rows, update) for key in keys]


@cache
def _defaults() -> dict[str, Any]:
    """Return the default settings, made once: of each run anew it took as long as reading what the run has written."""
    return TrainConfig().to_dict()


def _inspect(run: Place, sources: Sources, rows: Rows, only: int | None) -> RunInfo:
    folder, logs = run_folder(sources.checkpoints, run), run_folder(sources.logs, run)
    lines = _Log(logs)
    checkpoints = list_checkpoints(folder)
    settings, problem = read_settings(logs), None
    update = max([lines.update, *(_update_of(path) for path in checkpoints)], default=0)
    if checkpoints and (settings is None or not zipfile.is_zipfile(checkpoints[-1])):
        from pipeline.checkpoints import CheckpointError, read_header  # only here: it takes torch

        try:
            header = read_header(checkpoints[-1])
            told = {name: value for name, value in header.config.items() if name not in header.unknown_fields}
            settings, update = settings or told, max(update, header.update)
        except CheckpointError as error:
            problem = str(error)
    target = (settings or {}).get("num_updates")  # not the default: a checkpoint made elsewhere may not tell
    target = target if isinstance(target, int) else None
    mine = [row for row in rows.get(run.run, ()) if _is_of(row, settings or {})]
    settings = {**_defaults(), **settings} if settings else {}
    if _is_trained(logs) or _is_trained(folder):
        state: State = "training"
    elif problem is not None:
        state = "damaged"
    elif not checkpoints:
        state, problem = "failed", f"{folder}: holds no checkpoint, though {logs} holds metrics"
    else:
        state = "finished" if _is_final(checkpoints[-1]) and (not update or update >= (target or 0)) else "stopped"
    found = [score for row in _own_rows(mine, settings) if (score := _score_of_row(row)) is not None]
    # Rows of more updates than the run has are of an earlier one in its place.
    found = [score for score in found if not update or score.update is None or score.update <= update]
    score = _choose_score([*found, *lines.evaluations()], lines.training(settings.get("policy")), only)
    return RunInfo(*run.run, folder, logs, state, update or None, target, settings, score, problem)


def read_known_rows(path: Path) -> Rows:
    """Return the rows of the results by run: none if there is no such file, or a line says why it cannot be read."""
    from pipeline.records.results import ResultsError, read_plain  # here: --help is told without pandas

    rows: dict[tuple[str, int, int | None], list[dict[str, Any]]] = {}
    try:
        for row in read_plain(path) if path.exists() else ():
            rows.setdefault((row["task_id"], row["trial"], row["seed"]), []).append(row)
    except ResultsError as error:
        print(f"left out: {explain(error)}", file=sys.stderr)
    return rows


@cache
def _told_by_rows() -> dict[str, str]:
    """Return the columns of rows that hold a run's settings, by setting.

    Not those that its place tells, which may be another one's copy, nor its start, which may be spelled differently.
    """
    from pipeline.records.cells import OF_TRAINING  # pandas, which is there if there are rows

    names = {name: name for name in TrainConfig().full_identity() if name not in ("trial", "seed", "start_from")}
    return names | OF_TRAINING


def _is_of(row: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether a row may be of a run: an earlier one in its place may have had other settings.

    Args:
        row: Of the results; what it does not tell may be anything.
        settings: As the run tells them, without defaults; "auto" may have become anything.
    """
    told = [(row.get(column), settings[name]) for name, column in _told_by_rows().items() if name in settings]
    return all(found in (None, value) or value == "auto" for found, value in told)


def _own_rows(rows: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a run's own level; of a mixture one for each evaluation of all its levels, of their means."""
    if not isinstance(settings.get("task_id"), list):
        return [row for row in rows if row.get("eval_task_id") in (None, row["task_id"])]
    together: dict[tuple, dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("update", "eval_seed", "eval_actions", "max_steps", "checkpoint_digest"))
        together.setdefault(key, {})[row["eval_task_id"]] = row
    found = []
    for by_level in together.values():
        if set(settings["task_id"]) <= by_level.keys():
            mine = [by_level[level] for level in settings["task_id"]]
            if len(mine) == 1:
                found.append(mine[0])
                continue
            means = {name: _mean([row[name] for row in mine]) for name in ("success_rate", "mean_lpc")}
            ends = {"success_low": None, "success_high": None}  # of a mean over levels there is none
            found.append({**mine[0], **means, **ends, "num_episodes": sum(row["num_episodes"] or 0 for row in mine)})
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)


def _is_trained(folder: Path) -> bool:
    try:
        return is_held(folder)
    except OSError:  # somebody else's: a lock that may not be opened, and would be gone if it were not held
        return True


def _update_of(checkpoint: Path) -> int:
    place = locate_checkpoint(checkpoint)
    return 0 if place is None or place.update is None else place.update


def _is_final(checkpoint: Path) -> bool:
    place = locate_checkpoint(checkpoint)
    return place is not None and place.update is None


# ----------------------------------------------------------------------------------------------------------- success


class _Log:
    """The metrics of a run, of which as few lines as possible are parsed.

    Attributes:
        update: Of the last line; 0 without one.
    """

    def __init__(self, logs: Path) -> None:
        try:
            self._lines = (logs / METRICS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            self._lines = []
        self.update = next((line["update"] for line in self._parsed("update")), 0)

    def _parsed(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the lines that have a metric, last first; what is no line, as a kill may leave it, is passed over."""
        for text in reversed(self._lines):
            if f'"{key}"' not in text:
                continue
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("update"), int) and line.get(key) is not None:
                yield line

    def evaluations(self) -> Iterator[Score]:
        """Yield the evaluations, last first."""
        for line in self._parsed("eval/success_rate"):
            low, high = line.get("eval/success_low"), line.get("eval/success_high")
            levels = int(line.get("eval/episodes") or 0)
            yield Score(
                line["eval/success_rate"], low, high, line.get("eval/mean_lpc"), levels, line["update"], fixed=True
            )

    def training(self, policy: str | None = None) -> Score | None:
        """Return how well the last episodes of training went.

        Args:
            policy: Of the run; gru has no experts, and its log holds 0 for LPC.
        """
        for line in self._parsed("rollout/success_rate"):
            levels = int(line.get("rollout/window_episodes") or 0)
            rate, lpc = (
                line.get(f"{key}/{MACRO_MEAN}", line.get(key)) for key in ("rollout/success_rate", "train/lpc")
            )
            if rate is None:  # a level of a mixture has no episode yet
                continue
            lpc = None if policy == "gru" else lpc
            return Score(rate, None, None, lpc, levels, line["update"], fixed=False)
        return None


def _choose_score(found: Sequence[Score], training: Score | None, only: int | None) -> Score | None:
    """Return the evaluation of the most updates, of these the one of most levels; training's for want of one.

    Args:
        found: Evaluations.
        training: How well training goes.
        only: If given, only evaluations of this update count.
    """
    if only is not None:
        found = [score for score in found if score.update == only]
    if found:
        return max(found, key=lambda score: (-1 if score.update is None else score.update, score.levels))
    return training if only is None else None


def _score_of_row(row: Mapping[str, Any]) -> Score | None:
    if row["success_rate"] is None:
        return None
    numbers = (row[name] for name in ("success_rate", "success_low", "success_high", "mean_lpc"))
    drawn = row["eval_actions"] == "sample"
    return Score(*numbers, row["num_episodes"] or 0, row["update"], fixed=True, drawn=drawn)
