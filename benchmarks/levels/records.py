"""What is kept of each level: one small file with what the bot and the policy did; and the clock of its training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babyai.level_seeds import EVALUATION_SEED
from benchmarks.levels.settings import LevelsSettings
from pipeline.command.errors import ConfigError
from pipeline.command.files import Lines, write_json

VERSION = 1
"""Of what is recorded; raised whenever the same settings come to give other records."""

SOLVED = 0.99
"""Success from which a level counts as solved, that of the BabyAI paper."""

Record = dict[str, Any]
"""Of a level: `level`; `settings`; `bot`, see `work.measure_bot`; `marks`, by budget: see `work.evaluate_mark`."""


def short_name(task_id: str) -> str:
    """Return BabyAI-GoTo-v0 as GoTo, and of a later version with it: GoToObjS6-v1."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def mark_key(minutes: float) -> str:
    """Return the name of a budget in a record: 10 or 0.05."""
    return f"{minutes:g}"


def record_path(settings: LevelsSettings, task_id: str) -> Path:
    """Return where a level's record is."""
    return settings.out / "results" / f"{short_name(task_id)}.json"


def clock_path(settings: LevelsSettings, task_id: str) -> Path:
    """Return where a level's clock is kept."""
    return settings.out / "clocks" / f"{short_name(task_id)}.csv"


def describe(settings: LevelsSettings, task_id: str) -> dict[str, Any]:
    """Return what decides a level's results, as plain types.

    The sentence encoder is not among it: `auto` says only later which one it is, and each result names its own.
    """
    config = settings.level_config(task_id)
    return {
        **config.identity(),
        "eval_episodes": config.final_eval_episodes,
        "eval_seed": EVALUATION_SEED,
        "version": VERSION,
    }


def read_record(settings: LevelsSettings, task_id: str) -> Record:
    """Return a level's record, an empty one if there is none.

    Raises:
        ConfigError: If it cannot be read, or was made with other settings.
    """
    path, wanted = record_path(settings, task_id), describe(settings, task_id)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found, _, _ = record["settings"], record["marks"].items(), record["bot"]
    except FileNotFoundError:
        return {"level": task_id, "settings": wanted, "bot": None, "marks": {}}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: expected a level's results, found something else; delete it") from None
    if found != wanted:
        names = ", ".join(sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)))
        raise ConfigError(f"{path}: was made with other settings ({names}); choose another --out, or move it away")
    return record


def write_record(settings: LevelsSettings, record: Mapping[str, Any]) -> None:
    """Write a level's record, atomically."""
    write_json(record_path(settings, record["level"]), dict(record), indent=1)


def is_solved(mark: Mapping[str, Any]) -> bool:
    """Return whether a result counts as solved: with the most probable actions, or with actions that are drawn."""
    return any((mark.get(name) or 0.0) >= SOLVED for name in ("success_rate", "sample_success_rate"))


def solved_before(record: Mapping[str, Any], minutes: float) -> bool:
    """Return whether a level was solved after a smaller budget."""
    return any(float(key) < minutes and is_solved(mark) for key, mark in record["marks"].items())


def find_last(record: Mapping[str, Any], budgets: Sequence[float] | None = None) -> Record | None:
    """Return a level's result after the largest budget that it was trained to; None without one.

    Args:
        record: Of the level.
        budgets: Minutes that count; None: all.
    """
    known = {mark_key(m) for m in budgets} if budgets is not None else record["marks"].keys()
    found = [key for key in record["marks"] if key in known]
    return record["marks"][max(found, key=float)] if found else None


def is_due(settings: LevelsSettings, record: Mapping[str, Any], minutes: float) -> bool:
    """Return whether a level is to be trained to a budget: the bot can solve it, and no result says that it is done."""
    if mark_key(minutes) in record["marks"] or not record["bot"]["solved"]:
        return False
    return settings.to_the_end or not solved_before(record, minutes)


class CpuClock:
    """The processor time that a run has taken, kept as rows `update,seconds` beside it.

    A checkpoint does not tell it; with the rows the time of any update is known, also where a run goes on from a
    checkpoint older than the last row because its process was killed.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there, and make the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = _read_rows(path)
        self._lines = Lines(path)

    def seconds_at(self, update: int) -> float:
        """Return the seconds that the first updates have taken; between two rows on a straight line.

        Past the last row, updates count as long as those before it on average; without rows as nothing.
        """
        before = (0, 0.0)
        for row in self._rows:
            if row[0] >= update:
                return before[1] + (row[1] - before[1]) * (update - before[0]) / (row[0] - before[0])
            before = row
        return before[1] * update / before[0] if before[0] else 0.0

    def note(self, update: int, seconds: float) -> None:
        """Keep the time of an update. Rows of later ones, of a part of the run that was lost, go."""
        self._lines.append(f"{update},{seconds:.3f}")
        self._rows = [row for row in self._rows if row[0] < update] + [(update, seconds)]

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def find_seconds(settings: LevelsSettings, task_id: str) -> float:
    """Return the processor time that a level's run has taken here; 0 of one that is known from a published table."""
    rows = _read_rows(clock_path(settings, task_id))
    return rows[-1][1] if rows else 0.0


def _read_rows(path: Path) -> list[tuple[int, float]]:
    """Return the rows of a file, later lines in the place of earlier ones of the same or later updates."""
    rows: list[tuple[int, float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return rows
    for line in lines:
        try:
            update, seconds = line.split(",")
            row = int(update), float(seconds)
        except ValueError as error:
            raise ConfigError(f"{path}: expected rows update,seconds, found {line!r}; delete it") from error
        rows = [other for other in rows if other[0] < row[0]] + [row]
    return rows
