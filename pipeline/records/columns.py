"""What is recorded of a time step and of an episode: each column declared once, in the order of the file's keys.

    STEPS[4].name, STEPS[4].dtype, STEPS[4].meaning        # t_step, int32, steps since the episode began, from 0

A new column is a line here and its value where it is observed: `pipeline.evaluation.tally`, or for a fact of the world
`babyai.facts`, which says its type and shape. All else follows from the
declaration: tables and their data frames (`tables`), the lines of `routing_data.json` in both directions and records
(`steps`, `episodes`), what figures know, and by `python -m pipeline.records.documents` the tables of docs/cache.md and
the JSON schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from babyai.facts import DIRECTION_NAMES, FACT_FIELDS, OUTCOME_NAMES, PLACES

_FILLS = {"i": -1, "f": math.nan, "b": False, "U": ""}


@dataclass(frozen=True, eq=False)
class Column:
    """One thing that is recorded of every time step, or of every episode.

    Attributes:
        name: Of the table's attribute.
        dtype: Of the table's array; text is a tuple of str.
        meaning: For docs/cache.md.
        source: What it is observed from: world, expert, policy or routers.
        unit: Of the numbers, if they have one.
        shape: Of one entry; None is a width that the policy decides. The arrays of `weights` are one per layer.
        keys: In the file; one that holds the entry, or one for each of its numbers. By default the name.
        parts: What the numbers of an entry under a single key are called, in data frames.
        names: Field of the table, and of the file's header, with the names that the codes number.
        labels: What the codes stand for in the file, where they are always the same.
        fill: What stands for null in memory; by default -1, NaN, False or "".
        null: What null says; empty if it says that the value is not known.
        required: Null is never written.
        limits: Lowest and highest number that the JSON schema allows; None is any.
    """

    name: str
    dtype: Any
    meaning: str
    source: str
    unit: str = ""
    shape: tuple[int | None, ...] = ()
    keys: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    names: str = ""
    labels: Mapping[int, Any] | None = None
    fill: Any = None
    null: str = ""
    required: bool = False
    limits: tuple[int | None, int | None] = (0, None)

    def __post_init__(self) -> None:
        dtype = np.dtype(self.dtype)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "keys", self.keys or (self.name,))
        object.__setattr__(self, "fill", _FILLS[dtype.kind] if self.fill is None else self.fill)

    def build(self, values: Any) -> np.ndarray | tuple[str, ...]:
        """Return values in memory's form as the table's column: an array, or for text a tuple."""
        return tuple(values) if self.dtype.kind == "U" else np.array(values, self.dtype)

    def known(self, values: np.ndarray) -> np.ndarray:
        """Return which numbers of an array of this column are not `fill`, bool of its shape."""
        return np.isfinite(values) if self.dtype.kind == "f" else (values != self.fill) | (self.dtype.kind == "b")


_FACTS = {name: {"dtype": dtype, "shape": shape, "fill": fill} for name, shape, dtype, fill in FACT_FIELDS}
"""What the world says of the arrays that it hands over."""

FIRST_EVENTS = (
    Column("t_pick", np.int32, "`t_step` at which something was first picked up", "world", "steps", null="never"),
    Column("t_unlocked", np.int32, "`t_step` at which a door was first unlocked", "world", "steps", null="never"),
    Column("t_drop", np.int32, "`t_step` at which something was first dropped", "world", "steps", null="never"),
)
"""Columns of an episode that the file repeats in each of its steps."""

EPISODES = (
    Column("level_seed", np.int64, "makes the level again", "world", required=True, limits=(None, None)),
    Column("mission", str, "the instruction", "world"),
    Column(
        "outcome",
        np.int8,
        "`success` (carried out), `failure` (ended otherwise), `timeout`",
        "world",
        labels=OUTCOME_NAMES,
    ),
    Column("steps", np.int32, "time steps played", "world", "steps"),
    Column("expert_steps", np.int32, "length of the expert's plan that solves this level", "expert", "steps"),
    Column("mean_lpc", np.float64, "mean over the episode's steps", "routers", null="without routers"),
    Column("labelled", np.int32, "steps for which the expert had an answer", "expert", "steps"),
    Column("agreed", np.int32, "those at which the policy did the same", "policy", "steps"),
    *FIRST_EVENTS,
)

WEIGHTS = Column(
    "weights",
    np.float32,
    "`layer_0`, `layer_1`, ...: weight of each expert, summing to 1; `{}` without routers",
    "routers",
    shape=(None,),
    keys=("layer_routing",),
)

STEPS = (
    Column("episode", np.int32, "index into `episodes`", "world", required=True),
    Column(
        "position",
        meaning="of the agent",
        source="world",
        unit="cells",
        parts=("x", "y"),
        required=True,
        **_FACTS["position"],
    ),
    WEIGHTS,
    Column(
        "lpc",
        np.float32,
        "Learned Pathway Complexity, sum over layers and experts of weight x size^`lpc_exponent` (2)",
        "routers",
        null="without routers",
    ),
    Column("t_step", np.int32, "since the episode began, from 0", "world", "steps"),
    Column(
        "direction",
        np.int8,
        "where the agent looks: " + ", ".join(f"{code} {name}" for code, name in enumerate(DIRECTION_NAMES)),
        "world",
        limits=(0, len(DIRECTION_NAMES) - 1),
    ),
    Column("carrying", bool, "whether the agent carries anything", "world"),
    Column(
        "door_unlocked",
        meaning="whether a door that was locked at the start has been unlocked",
        source="world",
        labels={0: False, 1: True},
        null="none was locked",
        **_FACTS["door_unlocked"],
    ),
    Column("action", np.int8, "what the policy did", "policy"),
    Column("action_logits", np.float32, "its logits", "policy", shape=(None,)),
    Column("expert_action", np.int8, "what the expert would do here", "expert", null="it has no answer"),
    Column(
        "entropy",
        np.float32,
        "mean over layers of the entropy of the routing weights",
        "routers",
        "nats",
        null="without routers",
    ),
    *FIRST_EVENTS,
    Column(
        "walking",
        meaning="to the nearest one, around walls",
        source="world",
        unit="moves",
        keys=tuple(f"dist_to_{place}" for place in PLACES),
        null="there is none",
        **_FACTS["walking"],
    ),
    Column(
        "straight",
        meaning="Euclidean distance to the same object",
        source="world",
        unit="cells",
        keys=tuple(f"straight_to_{place}" for place in PLACES),
        null="there is none",
        **_FACTS["straight"],
    ),
    Column(
        "subgoal",
        meaning="what the expert is after",
        source="expert",
        names="subgoal_names",
        null="none",
        **_FACTS["subgoal"],
    ),
    Column(
        "event",
        meaning="what the action brought about",
        source="world",
        names="event_names",
        null="nothing",
        **_FACTS["event"],
    ),
    Column(
        "event_object",
        meaning="what it happened to",
        source="world",
        names="object_names",
        null="nothing",
        **_FACTS["event_object"],
    ),
)

STEP_COLUMNS = {column.name: column for column in STEPS if column not in (WEIGHTS, *FIRST_EVENTS)}
"""Those that are arrays of `RoutingTable`, by name."""

EPISODE_COLUMNS = {column.name: column for column in EPISODES}
"""The fields of `EpisodeTable` but `env_context`, by name."""

CODE_NAMES = {column.name: column.names for column in STEPS if column.names}
"""Columns of codes, and the fields that hold the codes' names."""
