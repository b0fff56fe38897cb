"""The two tables that evaluation hands on: one row per time step, one row per episode. Numpy columns, checked.

Whoever uses them imports them from `pipeline.records.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from babyai.facts import OUTCOME_NAMES

STEP_COLUMNS = {
    "episode": (np.dtype(np.int32), ()),
    "t_step": (np.dtype(np.int32), ()),
    "position": (np.dtype(np.int16), (2,)),
    "direction": (np.dtype(np.int8), ()),
    "carrying": (np.dtype(bool), ()),
    "door_unlocked": (np.dtype(np.int8), ()),
    "action": (np.dtype(np.int8), ()),
    "action_logits": (np.dtype(np.float32), (None,)),
    "expert_action": (np.dtype(np.int8), ()),
    "subgoal": (np.dtype(np.int8), ()),
    "event": (np.dtype(np.int8), ()),
    "event_object": (np.dtype(np.int16), ()),
    "lpc": (np.dtype(np.float32), ()),
    "entropy": (np.dtype(np.float32), ()),
    "walking": (np.dtype(np.float32), (3,)),
    "straight": (np.dtype(np.float32), (3,)),
}
"""Type and shape of one step of each column of `RoutingTable` but `weights`; None is any width."""

EPISODE_COLUMNS = {
    "level_seed": np.dtype(np.int64),
    "outcome": np.dtype(np.int8),
    "steps": np.dtype(np.int32),
    "expert_steps": np.dtype(np.int32),
    "mean_lpc": np.dtype(np.float64),
    "labelled": np.dtype(np.int32),
    "agreed": np.dtype(np.int32),
    "t_pick": np.dtype(np.int32),
    "t_unlocked": np.dtype(np.int32),
    "t_drop": np.dtype(np.int32),
}
"""Types of the array columns of `EpisodeTable`."""


@dataclass(frozen=True, eq=False)
class RoutingTable:
    """What the policy did at each of S time steps, and what its routers did, in order of episode, then time.

    Everything but the event describes the state in which the policy acted; the event is what the action brought about.

    Attributes:
        episode: int32 (S,), row of the `EpisodeTable`.
        t_step: int32 (S,), steps since the episode began, from 0; -1 not known.
        position: int16 (S, 2), the agent's [x, y] in cells from the top left.
        direction: int8 (S,), 0..3 right, down, left, up; -1 not known.
        carrying: bool (S,), whether the agent carries anything.
        door_unlocked: int8 (S,), -1 no door was locked at the start (or not known), 0 none unlocked, 1 at least one.
        action: int8 (S,), taken; -1 not known.
        action_logits: float32 (S, A).
        expert_action: int8 (S,), what the expert would do here; -1 it had no answer.
        subgoal: int8 (S,), the expert's current subgoal, index into `subgoal_names`; -1 none.
        event: int8 (S,), index into `event_names`; 0 nothing happened.
        event_object: int16 (S,), what it happened to, index into `object_names`; -1 nothing.
        weights: per layer float32 (S, E_l), the routing weights; empty for a policy without routers.
        lpc: float32 (S,), Learned Pathway Complexity; NaN without routers.
        entropy: float32 (S,), nats, mean over layers of the entropy of the routing weights; NaN without routers.
        walking: float32 (S, 3), moves to the nearest door, key and target; NaN where there is none.
        straight: float32 (S, 3), Euclidean distances in cells to the same objects.
        expert_hidden_sizes: hidden size of each expert, per layer; empty without routers (or not known).
        subgoal_names: what `subgoal` numbers.
        event_names: what `event` numbers; the first stands for nothing.
        object_names: what `event_object` numbers.
        unknown: names of columns that hold nothing but filling, because the source never recorded them.
    """

    episode: np.ndarray
    t_step: np.ndarray
    position: np.ndarray
    direction: np.ndarray
    carrying: np.ndarray
    door_unlocked: np.ndarray
    action: np.ndarray
    action_logits: np.ndarray
    expert_action: np.ndarray
    subgoal: np.ndarray
    event: np.ndarray
    event_object: np.ndarray
    weights: tuple[np.ndarray, ...]
    lpc: np.ndarray
    entropy: np.ndarray
    walking: np.ndarray
    straight: np.ndarray
    expert_hidden_sizes: list[list[int]]
    subgoal_names: tuple[str, ...]
    event_names: tuple[str, ...]
    object_names: tuple[str, ...]
    unknown: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check types and lengths.

        Raises:
            ValueError: If a column does not fit; the message names it.
        """
        steps = len(self.episode)
        for name, (dtype, shape) in STEP_COLUMNS.items():
            _check_column(name, getattr(self, name), dtype, (steps, *shape))
        widths = [len(layer) for layer in self.expert_hidden_sizes]
        if widths and len(widths) != len(self.weights):
            raise ValueError(
                f"weights: expected {len(widths)} layers as expert_hidden_sizes, found {len(self.weights)}"
            )
        for layer, column in enumerate(self.weights):
            width = widths[layer] if widths else None
            _check_column(f"weights[{layer}]", column, np.dtype(np.float32), (steps, width))
        for name, names in (("subgoal", "subgoal_names"), ("event", "event_names"), ("event_object", "object_names")):
            highest = int(getattr(self, name).max(initial=-1))
            known = len(getattr(self, names))
            if highest >= max(known, name == "event"):  # event 0, nothing, needs no name
                raise ValueError(f"{name}: expected codes below {known}, as many as {names}, found {highest}")
        if steps and self.episode.min() < 0:
            raise ValueError(f"episode: expected rows of the episode table, 0 or more, found {self.episode.min()}")
        if not self.unknown <= STEP_COLUMNS.keys():
            raise ValueError(f"unknown: expected names of columns, found {sorted(self.unknown - STEP_COLUMNS.keys())}")

    def __len__(self) -> int:
        """Return the number of steps, S."""
        return len(self.episode)

    def select(self, rows: np.ndarray | slice) -> RoutingTable:
        """Return the table of some steps; `episode` still numbers the rows of the same episode table.

        Args:
            rows: boolean mask (S,), integer indices, or a slice.
        """
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.dtype == bool and rows.shape != (len(self),):
                raise ValueError(f"rows: expected a mask of shape ({len(self)},), found {rows.shape}")
            rows = rows.astype(np.intp) if rows.size == 0 and rows.dtype != bool else rows
        columns = {name: getattr(self, name)[rows] for name in STEP_COLUMNS}
        return replace(self, **columns, weights=tuple(column[rows] for column in self.weights))

    @staticmethod
    def concatenate(tables: Sequence[RoutingTable], num_episodes: Sequence[int] | None = None) -> RoutingTable:
        """Return the steps of several tables, one after the other, as of `EpisodeTable.concatenate`.

        Args:
            tables: at least one, of equal layers and names.
            num_episodes: length of each table's episode table, by which `episode` of those that follow is moved up. By
                default the highest `episode` + 1, which is right unless the last episodes were deselected.

        Raises:
            ValueError: If the tables do not fit together.
        """
        if not tables:
            raise ValueError("tables: expected at least one, found none")
        first = tables[0]
        for name in ("expert_hidden_sizes", "subgoal_names", "event_names", "object_names"):
            for table in tables:
                if getattr(table, name) != getattr(first, name):
                    raise ValueError(f"{name}: expected the same in all tables, found {getattr(table, name)!r}")
        shapes = {(table.action_logits.shape[1], *(w.shape[1] for w in table.weights)) for table in tables}
        if len(shapes) > 1:
            raise ValueError(f"expected equal numbers of actions and experts in all tables, found {sorted(shapes)}")
        lengths = num_episodes or [int(table.episode.max(initial=-1)) + 1 for table in tables]
        starts = np.cumsum([0, *lengths[:-1]])
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in STEP_COLUMNS}
        moved = [table.episode + start for table, start in zip(tables, starts, strict=True)]
        columns["episode"] = np.concatenate(moved).astype(np.int32)
        return replace(
            first,
            **columns,
            weights=tuple(np.concatenate(layers) for layers in zip(*(t.weights for t in tables), strict=True)),
            unknown=frozenset().union(*(table.unknown for table in tables)),
        )


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """The n episodes played; -1, NaN and "" stand for what is not known.

    Attributes:
        level_seed: int64 (n,).
        mission: n instructions.
        outcome: int8 (n,), `SUCCESS`, `FAILURE`, `TIMEOUT` or -1.
        steps: int32 (n,).
        expert_steps: int32 (n,), length of the expert's plan that solves the level.
        mean_lpc: float64 (n,), mean over the episode's steps; NaN without routers.
        labelled: int32 (n,), steps for which the expert had an answer.
        agreed: int32 (n,), those of them at which the policy did the same.
        t_pick, t_unlocked, t_drop: int32 (n,), t_step at which anything was first picked up, a door first unlocked,
            anything first dropped; -1 never.
        env_context: n descriptions of the level at its start, in plain types; read-only, records share them.
    """

    level_seed: np.ndarray
    mission: tuple[str, ...]
    outcome: np.ndarray
    steps: np.ndarray
    expert_steps: np.ndarray
    mean_lpc: np.ndarray
    labelled: np.ndarray
    agreed: np.ndarray
    t_pick: np.ndarray
    t_unlocked: np.ndarray
    t_drop: np.ndarray
    env_context: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        """Check types and lengths.

        Raises:
            ValueError: If a column does not fit; the message names it.
        """
        n = len(self.outcome)
        for name, dtype in EPISODE_COLUMNS.items():
            _check_column(name, getattr(self, name), dtype, (n,))
        for name in ("mission", "env_context"):
            column = getattr(self, name)
            if not isinstance(column, tuple) or len(column) != n:
                raise ValueError(f"{name}: expected a tuple of {n}, found {type(column).__name__} of {len(column)}")
        found = set(np.unique(self.outcome).tolist()) - {-1, *OUTCOME_NAMES}
        if found:
            raise ValueError(f"outcome: expected 1 success, 2 failure, 3 timeout, -1 not known, found {sorted(found)}")

    def __len__(self) -> int:
        """Return the number of episodes, n."""
        return len(self.outcome)

    def select(self, rows: np.ndarray | Sequence[int]) -> EpisodeTable:
        """Return the table of some episodes, by boolean mask (n,) or indices; renumbering steps is the caller's."""
        index = np.arange(len(self))[np.asarray(rows, dtype=None if len(rows) else np.intp)]
        columns = {name: getattr(self, name)[index] for name in EPISODE_COLUMNS}
        columns |= {name: tuple(getattr(self, name)[i] for i in index) for name in ("mission", "env_context")}
        return EpisodeTable(**columns)

    @staticmethod
    def concatenate(tables: Sequence[EpisodeTable]) -> EpisodeTable:
        """Return the episodes of at least one table, one after the other."""
        if not tables:
            raise ValueError("tables: expected at least one, found none")
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in EPISODE_COLUMNS}
        for name in ("mission", "env_context"):
            columns[name] = tuple(chain.from_iterable(getattr(table, name) for table in tables))
        return EpisodeTable(**columns)


def _check_column(name: str, column: np.ndarray, dtype: np.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless a column is an array of this type and shape; None is any width."""
    found = getattr(column, "shape", None)
    fits = found is not None and len(found) == len(shape)
    if not fits or column.dtype != dtype or any(w not in (None, f) for w, f in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if width is None else str(width) for width in shape)
        what = type(column).__name__ if found is None else f"{column.dtype} {found}"
        raise ValueError(f"{name}: expected {dtype} ({wanted}), found {what}")
