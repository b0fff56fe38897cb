"""What is recorded: a file for each chunk of questions that a method was given, whole or not there.

<output>/records/<case>/seed_<s>/<model>/<method>_<start>-<stop>.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.maxent_study.policies import find_policies
from benchmarks.maxent_study.settings import Case, StudySettings
from more.options import parse_numbers
from pipeline.checkpoints import read_start
from pipeline.command.errors import ConfigError
from pipeline.command.files import write_json


@dataclass(frozen=True)
class Group:
    """What is done with one model at a time.

    Attributes:
        part: Of the study.
        seed: Of data, weights and draws.
        model: Its name: the stand-in's key, variant and r, or the policy.
        source: Of a policy, its checkpoint.
        weights: Of a policy, the digest of its weights: what its records are known by, wherever the file lies.
    """

    part: str
    seed: int
    model: str
    source: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Unit:
    """What a record holds.

    Attributes:
        group: The model.
        case: The questions and the reward.
        method: Of search.
        start: First question.
        stop: Question after the last.
    """

    group: Group
    case: Case
    method: str
    start: int
    stop: int

    def find_path(self, settings: StudySettings) -> Path:
        """Return where its record is."""
        name = f"{self.method}_{self.start}-{self.stop}.json"
        folder = Path(settings.output) / "records" / self.case.name / f"seed_{self.group.seed}"
        return folder / self.group.model / name

    def describe(self, settings: StudySettings) -> dict[str, Any]:
        """Return all that its record depends on, its names apart, as plain values."""
        made = settings.describe(self.case, self.method)
        return made if self.group.weights is None else {**made, "weights": self.group.weights}


def list_groups(settings: StudySettings) -> list[Group]:
    """Return the models, seed by seed, so that an unfinished study is balanced.

    Raises:
        ConfigError: If policies are asked for and there are none.
        CheckpointError: If one cannot be read.
    """
    parts = {case.part for case in settings.cases()}
    seeds = parse_numbers("seeds", settings.seeds)
    found = []
    for seed in seeds:
        found += [Group(part, seed, settings.stand_in) for part in ("m4", "har") if part in parts]
        if "sums" in parts:
            kinds = [("base", 1), *((settings.variant, r) for r in parse_numbers("recurrences", settings.recurrences))]
            found += [Group("sums", seed, f"{variant}_rec{r}") for variant, r in kinds]
    if "babyai" in parts:
        for seed, path in find_policies(settings.policies).items():
            found.append(Group("babyai", seed, "policy", path, read_start(path, itself=True)))
    return found


def list_units(settings: StudySettings, group: Group) -> list[Unit]:
    """Return the records of a model, methods in turns within each chunk of questions."""
    count = settings.num_sums if group.part == "sums" else settings.num_samples
    chunks = [(start, min(start + settings.chunk, count)) for start in range(0, count, settings.chunk)]
    return [
        Unit(group, case, method, *chunk)
        for case in settings.cases()
        if case.part == group.part
        for chunk in chunks
        for method in settings.case_methods(case)
    ]


def read_record(settings: StudySettings, unit: Unit, announce: Callable[[str], object]) -> dict[str, Any] | None:
    """Return a record, None if it is not there or damaged, which is told.

    Raises:
        ConfigError: If it was made with other settings.
    """
    path = unit.find_path(settings)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        stored, complete = record["settings"], len(record["samples"]) == unit.stop - unit.start
    except (ValueError, KeyError, TypeError):
        stored, complete = None, False
    if not complete:
        announce(f"{path}: expected a whole record, found a damaged one; it is made anew")
        return None
    wanted = unit.describe(settings)
    if stored != wanted:
        names = ", ".join(sorted(name for name in {*stored, *wanted} if stored.get(name) != wanted.get(name)))
        raise ConfigError(f"{path}: was made with other settings ({names}); choose another --output, or delete it")
    return record


def write_record(settings: StudySettings, unit: Unit, facts: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Write a record, atomically."""
    group = unit.group
    record = {
        "settings": unit.describe(settings),
        **{"case": unit.case.name, "seed": group.seed, "model": group.model, "method": unit.method},
        **{"facts": facts, "samples": samples},
    }
    write_json(unit.find_path(settings), record)


def iterate_records(settings: StudySettings, announce: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """Yield all records of these settings that are there."""
    for group in list_groups(settings):
        for unit in list_units(settings, group):
            if (record := read_record(settings, unit, announce)) is not None:
                yield record
