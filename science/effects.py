"""What interventions did, one row for each (run, level seed, condition), whole episodes or groups of their steps apart.

    effects = read_effects("knockouts.npz")
    effects.per_run("ce", condition=3)          # mean difference of each run, float64 (R,)

All differences are changed minus intact, paired by run and level seed. Rows are those of `pipeline.records.effects`,
with runs and conditions as analyses name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.records import effects as records
from science.traces import Run, TraceError, sum_over

Measure = Literal["success", "agreement", "ce", "kl"]

_FLOATS = ("success", "success_intact", "agreement", "agreement_intact", "ce", "ce_intact", "kl", "lpc")
_INTS = ("run", "level_seed", "condition", "group", "steps")


@dataclass(frozen=True)
class Condition:
    """What was changed.

    Attributes:
        name: Unique in its table.
        kind: sham, knockout, random_direction, threshold, random_drop, transplant_own, transplant_other,
            transplant_shuffled, dial, zero_states, swap_mission, coalition (several experts out).
        layer: Of a single expert; -1 none.
        expert: The expert; -1 none.
        size: Its hidden size; -1 none.
        what: zero, mean, resample, skip, ...; empty if the kind says it all.
        renormalise: Whether the remaining weights are made to sum to 1.
        tau: Threshold, or strength of a dial; NaN none.
        control_of: Name of the condition that this one is a control of.
    """

    name: str
    kind: str
    layer: int = -1
    expert: int = -1
    size: int = -1
    what: str = ""
    renormalise: bool = True
    tau: float = float("nan")
    control_of: str = ""


@dataclass(frozen=True, eq=False)
class Effects:
    """K rows.

    Attributes:
        source: R (on the bot's trajectories) or P (closed loop).
        runs: What `run` numbers; each once.
        conditions: What `condition` numbers.
        groups: What `group` numbers.
        run: int32 (K,).
        level_seed: int64 (K,).
        condition: int32 (K,).
        group: int32 (K,), -1: the whole episode.
        steps: int32 (K,), labelled steps that means are over.
        success: float32 (K,), 1 or 0; NaN on R.
        success_intact: float32 (K,).
        agreement: float32 (K,), share of the labelled steps in which the bot does the same.
        agreement_intact: float32 (K,).
        ce: float32 (K,), mean cross-entropy to the bot's actions, nats.
        ce_intact: float32 (K,).
        kl: float32 (K,), mean divergence of the changed from the intact policy, nats; NaN not defined.
        lpc: float32 (K,), mean LPC with the change; NaN not known.
    """

    source: Literal["R", "P"]
    runs: tuple[Run, ...]
    conditions: tuple[Condition, ...]
    groups: tuple[str, ...]
    run: np.ndarray
    level_seed: np.ndarray
    condition: np.ndarray
    group: np.ndarray
    steps: np.ndarray
    success: np.ndarray
    success_intact: np.ndarray
    agreement: np.ndarray
    agreement_intact: np.ndarray
    ce: np.ndarray
    ce_intact: np.ndarray
    kl: np.ndarray
    lpc: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths and ranges.

        Raises:
            TraceError: If something does not fit; the message names it.
        """
        rows = len(self.run)
        for name in (*_INTS, *_FLOATS):
            if (found := getattr(self, name).shape) != (rows,):
                raise TraceError(f"effects: {name}: expected shape ({rows},), found {found}")
        for name, known in (("run", self.runs), ("condition", self.conditions), ("group", self.groups)):
            values = getattr(self, name)
            lowest = -1 if name == "group" else 0
            if rows and not lowest <= values.min() <= values.max() < len(known):
                raise TraceError(f"effects: {name}: expected {lowest} to {len(known) - 1}, found {values.max()}")
        names = [condition.name for condition in self.conditions]
        if len(set(names)) < len(names):
            raise TraceError(f"effects: conditions: expected unique names, found {names}")

    def __len__(self) -> int:
        """Return the number of rows, K."""
        return len(self.run)

    def difference(self, measure: Measure) -> np.ndarray:
        """Return changed minus intact, float64 (K,); the divergence as it is."""
        if measure == "kl":
            return np.asarray(self.kl, np.float64)
        return np.asarray(getattr(self, measure), np.float64) - getattr(self, f"{measure}_intact")

    def of_kind(self, *kinds: str, **wanted: Any) -> list[int]:
        """Return the conditions, by index, of these kinds whose attributes are as given."""
        return [
            index
            for index, condition in enumerate(self.conditions)
            if condition.kind in kinds and all(getattr(condition, key) == value for key, value in wanted.items())
        ]

    def per_run(
        self, values: Measure | np.ndarray, condition: int, group: int = -1, min_episodes: int = 1
    ) -> np.ndarray:
        """Return each run's mean over level seeds, float64 (R,); NaN where a run has none.

        Args:
            values: A measure's difference, or (K,) of your own.
            condition: Index.
            group: Index; -1: whole episodes.
            min_episodes: Runs with fewer have no mean.
        """
        values = self.difference(values) if isinstance(values, str) else values
        used = (self.condition == condition) & (self.group == group) & np.isfinite(values)
        count = np.bincount(self.run[used], minlength=len(self.runs))
        total = np.bincount(self.run[used], values[used], minlength=len(self.runs))
        return np.where(count >= min_episodes, total / np.maximum(count, 1), np.nan)

    @cached_property
    def level_seeds(self) -> np.ndarray:
        """All level seeds, ascending int64 (G,)."""
        return np.unique(self.level_seed)

    def by_level(self, values: Measure | np.ndarray, condition: int, group: int = -1) -> np.ndarray:
        """Return values by run and level seed (R, G); NaN where there is no row."""
        values = self.difference(values) if isinstance(values, str) else values
        used = np.flatnonzero((self.condition == condition) & (self.group == group))
        found = np.full((len(self.runs), len(self.level_seeds)), np.nan)
        found[self.run[used], np.searchsorted(self.level_seeds, self.level_seed[used])] = values[used]
        return found

    def mean_by_level(self, values: Measure | np.ndarray, conditions: Sequence[int]) -> np.ndarray:
        """Return the mean over some conditions by run and level seed (R, G)."""
        tables = np.array([self.by_level(values, condition) for condition in conditions])
        known = np.isfinite(tables)
        total = np.where(known, tables, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    def matrix(self, measure: Measure, conditions: Sequence[int], *, by_group: bool = False) -> np.ndarray:
        """Return means over level seeds (R, C), or (R, C, G) by group; NaN where there is no row."""
        values = self.difference(measure)
        place = np.full(len(self.conditions), -1)
        place[list(conditions)] = np.arange(len(conditions))
        groups = len(self.groups) if by_group else 1
        group = self.group if by_group else np.where(self.group == -1, 0, -1)
        used = (place[self.condition] >= 0) & (group >= 0) & np.isfinite(values)
        code = (self.run.astype(np.int64) * len(conditions) + place[self.condition]) * groups + group
        shape = (len(self.runs), len(conditions), groups)
        total = sum_over(np.where(used, code, -1), np.where(used, values, 0.0), int(np.prod(shape)))
        count = np.bincount(code[used], minlength=int(np.prod(shape)))
        found = np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(shape)
        return found if by_group else found[:, :, 0]

    def select(self, runs: Sequence[int]) -> Effects:
        """Return the rows of some runs, by index, in that order."""
        back = np.full(len(self.runs), -1, np.int32)
        back[list(runs)] = np.arange(len(runs))
        rows = np.flatnonzero(back[self.run] >= 0)
        columns = {name: getattr(self, name)[rows] for name in (*_INTS, *_FLOATS)}
        columns["run"] = back[columns["run"]]
        return replace(self, runs=tuple(self.runs[run] for run in runs), **columns)

    def cells(self) -> list[Effects]:
        """Return the rows of each task and setting, in order of appearance."""
        keys = [(run.task, run.setting) for run in self.runs]
        return [self.select([i for i, k in enumerate(keys) if k == key]) for key in dict.fromkeys(keys)]

    @staticmethod
    def concatenate(parts: Sequence[Effects]) -> Effects:
        """Return the rows of several tables of one source; runs, conditions and groups that are equal become one.

        Raises:
            TraceError: If there is none, or their sources differ.
        """
        if not parts or len({part.source for part in parts}) > 1:
            raise TraceError("effects: expected tables of one source, found " + str([p.source for p in parts]))
        joined: dict[str, Any] = {}
        for many, one in (("runs", "run"), ("conditions", "condition"), ("groups", "group")):
            known = {
                repr(entry): entry for part in parts for entry in getattr(part, many)
            }  # NaN is not equal to itself
            place = {text: index for index, text in enumerate(known)}
            codes = [np.array([*(place[repr(e)] for e in getattr(part, many)), -1], np.int32) for part in parts]
            joined[one] = np.concatenate([c[getattr(part, one)] for c, part in zip(codes, parts, strict=True)])
            joined[many] = tuple(known.values())
        plain = [name for name in (*_INTS, *_FLOATS) if name not in joined]
        joined |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in plain}
        return replace(parts[0], **joined)


# ------------------------------------------------------------------------------------------------------------- files


def read_effects(path: str | Path) -> Effects:
    """Return the table of a file that `pipeline.records.effects.write_effects` wrote.

    Raises:
        TraceError: If the file cannot be read or is not what it should be.
    """
    try:
        table = records.read_effects(path)
        header = table.header
        shared = {key: header[key] for key in ("task", "setting") if header.get(key)}
        return Effects(
            source=header["source"],
            runs=tuple(_build(Run, {"task": "", "setting": "", **shared, **run}) for run in header["runs"]),
            conditions=tuple(_build(Condition, condition) for condition in header["conditions"]),
            groups=tuple(header["groups"]),
            **{name: getattr(table, name) for name in (*_INTS, *_FLOATS)},
        )
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise TraceError(f"{path}: expected effects of interventions, found: {reason}; intervene again") from None


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return a run or condition; null is not known, and the strength of a dial, called lambda in the file, its tau."""
    known = {key: value for key, value in values.items() if value is not None}
    known |= {"tau": known["lambda"]} if "lambda" in known else {}
    names = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in known.items() if key in names})
