"""What a published table has and the folder of results has not is taken over, so that a table can grow elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.levels.page import MARK_COLUMNS
from benchmarks.levels.records import describe, mark_key, read_record, write_record
from benchmarks.levels.settings import LevelsSettings
from pipeline.command.errors import ConfigError

_TEXTS = frozenset({"checkpoint", "digest", "lang_encoder", "commit", "cpu", "date"})
"""Columns that hold no numbers, whatever they look like."""


def take_over(path: Path, settings: LevelsSettings, ready_made: Sequence[LevelsSettings]) -> int:
    """Add what a published table knows to the records of results; return of how many levels there was something.

    A checkpoint does not come with it: to the next budget such a level is trained from its beginning on.

    Args:
        path: Of the CSV.
        settings: Of the table.
        ready_made: The ready-made settings.

    Raises:
        ConfigError: If it is no such table, or rows were made with other settings, which writing it would lose.
    """
    by_name = {one.ready_made or "": one for one in (settings, *ready_made)}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = _read_levels(list(csv.DictReader(file)))
        known = [(by_name[name], level, rows) for (name, level), rows in found.items()]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise ConfigError(f"{path}: expected a table of levels, found something else; delete it") from None
    for one, level, (_, made_with, _) in known:
        wanted = describe(one, level)
        if made_with not in (None, wanted):
            names = sorted(name for name in {*made_with, *wanted} if made_with.get(name) != wanted.get(name))
            raise ConfigError(
                f"{path}: {level} was made with other settings ({', '.join(names)}), and would be lost; name another "
                "--docs, or delete it"
            )
    return sum([_add(read_record(one, level), one, bot, marks) for one, level, (bot, _, marks) in known])


def _add(
    record: dict[str, Any], settings: LevelsSettings, bot: Mapping[str, Any] | None, marks: Mapping[str, Any]
) -> bool:
    """Add to a record what it has not, and write it then; return whether there was something."""
    new = {key: mark for key, mark in marks.items() if key not in record["marks"]}
    same_bot = record["bot"] is not None or bot is None or bot["levels"] != settings.config.final_eval_episodes
    if not new and same_bot:
        return False
    if not same_bot:
        record["bot"] = bot
    record["marks"].update(new)
    write_record(settings, record)
    return True


_Level = tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, dict[str, Any]]]
"""Of a level: what the bot did, the settings, and the results by budget."""


def _read_levels(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], _Level]:
    """Return what is known of each level, by the name of ready-made settings and the level.

    Raises:
        KeyError: If a column is missing.
        ValueError: If a value is none.
    """
    levels: dict[tuple[str, str], _Level] = {}
    for row in rows:
        key = row.get("ready_made") or "", row["level"]
        bot, settings, marks = levels.get(key, (None, None, {}))
        if row["bot_levels"]:
            bot = {name: _read_value(f"bot_{name}", row) for name in ("levels", "solved", "mean_steps")}
        if row["settings"]:
            settings = json.loads(row["settings"])
        if row["cpu_seconds"]:
            own = {name: _read_value(name, row) for name in MARK_COLUMNS}
            own |= {"minutes": float(row["minutes"]), "versions": json.loads(row["versions"])}
            marks[mark_key(own["minutes"])] = own
        levels[key] = bot, settings, marks
    return levels


def _read_value(name: str, row: Mapping[str, str]) -> Any:
    text = row.get(name)
    return None if not text else text if name in _TEXTS else json.loads(text)
