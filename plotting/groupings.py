"""What steps can be grouped by. `plotting.aggregate.group_routing_data` is what others use.

A grouping gives each step the number of its group, or -1 where the question does not apply or the answer was not
recorded; such steps are counted, and the reason is told.

Facts of the level at its start (read from `env_context`)
- *starting room*: the room in which the agent starts, by its top left corner.
- *door location*: where the door is. Doors that are locked count, all doors if none is; it must be exactly one.
- *door and box row*: the y of that door and of the box, of which there must be exactly one.
- *agent, target quadrant*: the quarter of the level in which the agent starts, in which the instruction's first target
  is. The middle row or column of a level of odd size counts as bottom, right.

Facts of a step
- *carrying*: whether anything is carried.
- *key phase*: in levels with a locked door. Before key: none is unlocked, no key to one is carried. With key, locked;
  with key, unlocked: such a key is carried. After: one is unlocked and the key has been put down. Carrying something
  else does not count as carrying the key.
- *subgoal*: what the expert would be about.

Facts of an episode
- any field of `env_context`, by its name: each value is a group. `agent_start_room` is the starting room;
- *outcome*; *mission verb*: "go to", "pick up", "open", "put", in the order of the instruction's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from babyai.facts import OUTCOME_NAMES
from plotting.data import PlotError, RoutingData

Codes = tuple[np.ndarray, list[Hashable]]
"""int (S,), -1 for none; and what the numbers stand for, in the order of display."""

_VERB = re.compile(r"\b(go to|pick up|open|put)\b")
_KEY = re.compile(r"(\w+) key")
_PHASES = ("before_key", "with_key_locked", "with_key_unlocked", "after")


@dataclass(frozen=True)
class Grouping:
    """One way to group steps.

    Attributes:
        title: As in "Routing by starting room".
        missing: Why a step is in no group.
        encode: Gives each step its group.
        label: Name of a group by its key.
    """

    title: str
    missing: str
    encode: Callable[[RoutingData], Codes]
    label: Callable[[Any], str] = str


def _by_episode(key_of: Callable[[dict[str, Any]], Hashable | None], order: Callable | None = None):
    """Return an encoder that asks each level's description once."""

    def encode(data: RoutingData) -> Codes:
        present = data.episodes_present
        return _spread(data, present, [key_of(data.episodes.env_context[e]) for e in present.tolist()], order)

    return encode


def _spread(data: RoutingData, present: np.ndarray, keys: Sequence[Hashable | None], order: Callable | None) -> Codes:
    """Return the codes of steps from the keys of their episodes, None for no key."""
    distinct = sorted({key for key in keys if key is not None}, key=order)
    numbers = {key: number for number, key in enumerate(distinct)} | {None: -1}
    of_episode = np.full(len(data.episodes), -1, np.intp)
    of_episode[present] = [numbers[key] for key in keys]
    return data.of_episode(of_episode), distinct


def drop_unused(codes: np.ndarray, names: Sequence[Hashable]) -> Codes:
    """Return codes and what they stand for without the names that do not occur."""
    used = pd.Categorical.from_codes(codes, names).remove_unused_categories()
    return used.codes, used.categories.tolist()


# ------------------------------------------------------------------------------------------------- facts of the level


def _starting_room(context: dict[str, Any]) -> tuple[int, int] | None:
    room = context.get("agent_start_room")
    return None if room is None else (int(room[0]), int(room[1]))


def _door(context: dict[str, Any]) -> tuple[int, int] | None:
    doors = context.get("doors") or []
    locked = [door for door in doors if len(door) > 4 and door[4]]
    counted = locked or doors
    return (int(counted[0][0]), int(counted[0][1])) if len(counted) == 1 else None


def _door_box_row(context: dict[str, Any]) -> tuple[int, int] | None:
    door, boxes = _door(context), context.get("boxes") or []
    return (door[1], int(boxes[0][1])) if door is not None and len(boxes) == 1 else None


def _quadrant(place: str) -> Callable[[dict[str, Any]], str | None]:
    def quadrant(context: dict[str, Any]) -> str | None:
        position, size = context.get(place), context.get("grid_size")
        if position is None or size is None:
            return None
        down, right = position[1] >= (size[1] - 1) / 2, position[0] >= (size[0] - 1) / 2
        return f"{'Bottom' if down else 'Top'}-{'Right' if right else 'Left'}"

    return quadrant


_QUADRANTS = ("Top-Left", "Top-Right", "Bottom-Left", "Bottom-Right")


def _reading_order(place: tuple[int, int]) -> tuple[int, int]:
    return place[1], place[0]


# ------------------------------------------------------------------------------------------- facts of step and episode


def _overall(data: RoutingData) -> Codes:
    return np.zeros(len(data), np.intp), ["overall"] if len(data) else []


def _carrying(data: RoutingData) -> Codes:
    if "carrying" in data.routing.unknown:
        return np.full(len(data), -1), []
    return drop_unused(data.routing.carrying.astype(np.int8), [False, True])


def _key_phase(data: RoutingData) -> Codes:
    routing = data.routing
    if "door_unlocked" in routing.unknown:
        return np.full(len(data), -1), []
    has_key = np.zeros(len(data), bool)
    for code, name in enumerate(routing.object_names):
        match = _KEY.fullmatch(name)
        if match and (data.held == code).any():
            fits = [_fits_a_lock(context, match[1]) for context in data.episodes.env_context]
            has_key |= (data.held == code) & data.of_episode(fits)
    phase = np.where(routing.door_unlocked == 1, np.where(has_key, 2, 3), np.where(has_key, 1, 0))
    phase[(routing.door_unlocked < 0) | (data.held == -2)] = -1
    return drop_unused(phase, _PHASES)


def _fits_a_lock(context: dict[str, Any], color: str) -> bool:
    doors = context.get("doors")
    return doors is None or any(len(door) > 4 and door[4] and door[2] == color for door in doors)


def _subgoal(data: RoutingData) -> Codes:
    subgoals = pd.Series(pd.Categorical.from_codes(data.routing.subgoal, data.routing.subgoal_names))
    counts = subgoals.value_counts()
    names = sorted(counts.index[counts > 0], key=lambda name: (-counts[name], name))
    return subgoals.cat.set_categories(names).cat.codes.to_numpy(), names


def _outcome(data: RoutingData) -> Codes:
    outcome = data.of_episode("outcome")
    return drop_unused(np.where(outcome > 0, outcome - 1, -1), [OUTCOME_NAMES[code] for code in (1, 2, 3)])


def _mission_verb(data: RoutingData) -> Codes:
    present = data.episodes_present
    missions = data.episodes.mission
    verbs = [" + ".join(_VERB.findall(missions[e].lower())) or None for e in present.tolist()]
    return _spread(data, present, verbs, None)


# ----------------------------------------------------------------------------------------------------------- the table

GROUPINGS = {
    "overall": Grouping("overall", "", _overall, lambda key: "All steps"),
    "starting_room": Grouping(
        "starting room",
        "the starting room is not known",
        _by_episode(_starting_room, _reading_order),
        lambda key: f"Room at {key}",
    ),
    "door_location": Grouping(
        "door location",
        "the level has no door or several",
        _by_episode(_door, _reading_order),
        lambda key: f"Door at {key}",
    ),
    "door_box_row": Grouping(
        "door and box row",
        "the level has not exactly one door and one box",
        _by_episode(_door_box_row),
        lambda key: f"Door row {key[0]}, box row {key[1]}",
    ),
    "carrying": Grouping(
        "what is carried",
        "it is not known whether something is carried",
        _carrying,
        lambda key: "Carrying" if key else "Empty-handed",
    ),
    "key_phase": Grouping(
        "key phase",
        "no door of the level is locked, or it is not known what is carried",
        _key_phase,
        {
            "before_key": "Before key",
            "with_key_locked": "With key, locked",
            "with_key_unlocked": "With key, unlocked",
            "after": "After",
        }.__getitem__,
    ),
    "agent_quadrant": Grouping(
        "the agent's starting quadrant",
        "the agent's start is not known",
        _by_episode(_quadrant("agent_start_pos"), _QUADRANTS.index),
    ),
    "target_quadrant": Grouping(
        "the target's quadrant", "the target is not known", _by_episode(_quadrant("target_pos"), _QUADRANTS.index)
    ),
    "subgoal": Grouping("the expert's subgoal", "the expert has no subgoal", _subgoal),
    "outcome": Grouping("outcome", "the outcome is not known", _outcome, str.capitalize),
    "mission_verb": Grouping("instruction", "the instruction is not known", _mission_verb, str.capitalize),
}
"""By the name that `group_routing_data` takes."""

_OF_LEVEL = ("starting_room", "door_location", "door_box_row", "agent_quadrant", "target_quadrant")
_FIELDS_WITH_NAMES = {"agent_start_room": "starting_room"}  # fields of `env_context` whose values have names to show


def encode_groups(data: RoutingData, name: str) -> Codes:
    """Return the group of each step, see `Codes`; read them, do not change them.

    Args:
        data: The steps.
        name: From `find_grouping`.
    """
    return data.remember(f"groups by {name}", lambda: grouping_of(name, data).encode(data))


def find_grouping(group_by: str, data: RoutingData | None = None) -> str:
    """Return the name of a grouping, which may be given as `by_starting_room` too.

    Args:
        group_by: One of `GROUPINGS`, or a field of the data's `env_context`.
        data: The steps; None to ask for the names of `GROUPINGS` only.

    Raises:
        ValueError: If there is none of that name, or the steps tell nothing of the levels that it is by.
    """
    name = group_by.removeprefix("by_")
    name = _FIELDS_WITH_NAMES.get(name, name)
    contexts = data.contexts if data is not None and len(data) else []
    fields = sorted({field for context in contexts for field in context})
    if name in GROUPINGS:
        if name in _OF_LEVEL and contexts and not fields:
            raise PlotError(
                f"group_by: expected steps whose levels are described, found none with an env_context, so that {name} "
                "cannot be told; of a cache's JSON pass the whole dict, not its list routing_data alone"
            )
        return name
    if name not in fields:
        known = f"; or a field of env_context: {', '.join(fields)}" if fields else ""
        raise PlotError(f"group_by: expected one of {', '.join(GROUPINGS)}{known}; found {group_by!r}")
    return name


def grouping_of(name: str, data: RoutingData) -> Grouping:
    """Return a grouping by its name, which `find_grouping` gives."""
    return GROUPINGS[name] if name in GROUPINGS else _by_field(name, data)


def _by_field(name: str, data: RoutingData) -> Grouping:
    """Return the grouping by a field of `env_context`, each value a group."""
    title = name.replace("_", " ")

    def label(key: Hashable) -> str:
        return f"{title.capitalize()} {key}".replace("'", "")

    keys = {_frozen(context.get(name)) for context in data.contexts} - {None}
    places = all(isinstance(key, tuple) and len(key) == 2 and all(type(x) is int for x in key) for key in keys)
    order = _reading_order if places else repr if len({type(key) for key in keys}) > 1 else None
    encode = _by_episode(lambda context: _frozen(context.get(name)), order)
    return Grouping(title, f"{name} is not known", encode, label)


def _frozen(value: Any) -> Hashable:
    """Return a value of JSON as one that can be a key."""
    if isinstance(value, Mapping):
        return tuple((key, _frozen(part)) for key, part in sorted(value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
