"""What the bot's trajectories show at each step, in a file of its own: the same for all runs of a task.

    write_observations("observed.npz", observe(way)); read_observations("observed.npz").encode()

Traces have a number for each distinct observation; this has the observations, for probes that are to tell what can be
known from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from science.npz import open_npz, write_npz
from science.traces import TraceError

SCHEMA_VERSION = 1
_ARRAYS = ("level_seed", "length", "mission", "view", "direction", "carrying")


@dataclass(frozen=True, eq=False)
class Observations:
    """S steps of N episodes, in the order of the episodes, then of time.

    Attributes:
        level_seed: int64 (N,).
        length: int32 (N,), steps of each episode.
        missions: Distinct sentences.
        mission: int32 (N,), index into `missions`.
        view: uint8 (S, V), the partial view, every number in it a column.
        direction: uint8 (S,).
        carrying: uint8 (S,).
    """

    level_seed: np.ndarray
    length: np.ndarray
    missions: tuple[str, ...]
    mission: np.ndarray
    view: np.ndarray
    direction: np.ndarray
    carrying: np.ndarray

    def __post_init__(self) -> None:
        """Check lengths.

        Raises:
            TraceError: If they do not fit.
        """
        steps, episodes = int(self.length.sum()), len(self.level_seed)
        for name, count in (("length", episodes), ("mission", episodes), *((n, steps) for n in _ARRAYS[3:])):
            if len(getattr(self, name)) != count:
                raise TraceError(f"observations: {name}: expected {count} entries, found {len(getattr(self, name))}")

    @property
    def episode(self) -> np.ndarray:
        """Each step's episode, int (S,)."""
        return np.repeat(np.arange(len(self.length)), self.length)

    def encode(self) -> np.ndarray:
        """Return float32 (S, F): each value of each number that varies, and each word of the mission, as 0 or 1."""
        words = [set(re.findall(r"[a-z]+", text.lower())) for text in self.missions]
        known = sorted(set().union(*words))
        bag = np.array([[word in own for word in known] for own in words], np.float32).reshape(len(words), -1)
        columns = np.column_stack([self.view, self.direction, self.carrying])
        parts = [bag[self.mission][self.episode]]
        for column in columns.T:
            values = np.unique(column)
            if len(values) > 1:
                parts.append((column[:, None] == values).astype(np.float32))
        return np.concatenate(parts, axis=1)


def observe(way: Any) -> Observations:
    """Return what `pipeline.replay.trajectories.Trajectories` show."""
    return Observations(
        level_seed=np.asarray(way.level_seeds, np.int64),
        length=np.diff(way.begins).astype(np.int32),
        missions=tuple(way.missions),
        mission=np.asarray(way.mission, np.int32),
        view=np.asarray(way.steps["view"]).reshape(len(way), -1).astype(np.uint8),
        direction=np.asarray(way.steps["direction"]).astype(np.uint8),
        carrying=np.asarray(way.steps["carrying"]).astype(np.uint8),
    )


def write_observations(path: str | Path, observations: Observations) -> None:
    """Write observations as .npz, without pickles."""
    arrays = {name: getattr(observations, name) for name in _ARRAYS}
    write_npz(path, schema_version=np.array(SCHEMA_VERSION), missions=np.array(observations.missions), **arrays)


def read_observations(path: str | Path) -> Observations:
    """Return what `write_observations` wrote.

    Raises:
        TraceError: If the file cannot be read, or is of another version.
    """
    with open_npz(path, "observations", SCHEMA_VERSION) as file:
        arrays = {name: file[name] for name in _ARRAYS}
        return Observations(missions=tuple(map(str, file["missions"])), **arrays)
