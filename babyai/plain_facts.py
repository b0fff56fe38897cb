"""The facts of a step (`babyai.facts`) and a level's description, read from minigrid's own objects.

recorder = Recorder(simulator, expert)
simulator.load(seed)
recorder.start()                                 # recorder.env_context describes the level
simulator.step(action)
event, event_object = recorder.follow()          # after every step
recorder.describe(facts, slot)                   # writes position, distances, ...
"""

from collections import deque
from math import hypot
from typing import Any

import babyai.minigrid_import  # noqa: F401

# isort: split
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import AfterInstr, AndInstr, BeforeInstr, Instr, PutNextInstr

from babyai.facts import (
    BOX_OPENED,
    CLOSED,
    DROPPED,
    NOTHING,
    OBJECT_NAMES,
    OPENED,
    PICKED,
    SUBGOAL_NAMES,
    TARGET,
    UNLOCKED,
    StepFacts,
)
from babyai.plain_world import Expert, Simulator

Cell = tuple[int, int]

_LISTS = {"goal": "goals", "key": "keys", "ball": "balls", "box": "boxes", "door": "doors"}


class Recorder:
    """Facts about the level that one simulator is playing.

    Attributes:
        env_context: the level at its start, see `describe_level`.
    """

    def __init__(self, simulator: Simulator, expert: Expert) -> None:
        """A recorder of `simulator` and of the subgoals of `expert`; call `start` once a level is loaded."""
        self._env, self._expert = simulator.env, expert
        self.env_context: dict[str, Any] = {}

    def start(self) -> None:
        """Forgets the last level and takes in the one that the simulator has just loaded."""
        doors = [thing for thing in _find_things(self._env) if thing.type == "door"]
        self._locked_doors = [door for door in doors if door.is_locked]
        self._doors = self._locked_doors or doors
        self._remember()
        target = self._find_nearest()[TARGET]
        self.env_context = describe_level(self._env, None if target is None else target[1])

    def follow(self) -> tuple[int, int]:
        """What the simulator's last step did: codes of the event and of its object, (0, -1) if nothing.

        Read off the state before and after. An action changes at most the cell in front of the agent and its hand.
        """
        held, now, before = self._env.carrying, self._env.grid.get(*self._front), self._ahead
        event, thing = NOTHING, before
        if held is not self._held:
            event, thing = (DROPPED, self._held) if held is None else (PICKED, held)
        elif now is not before:
            event = BOX_OPENED  # nothing else gives way without being picked up
        elif self._door_state is not None:
            was_locked, was_open = self._door_state
            if was_locked and not now.is_locked:
                event = UNLOCKED
            elif was_open != now.is_open:
                event = OPENED if now.is_open else CLOSED
        self._remember()
        return (event, OBJECT_NAMES.index(f"{thing.color} {thing.type}")) if event else (NOTHING, -1)

    def describe(self, facts: StepFacts, slot: int) -> None:
        """Writes all but the events into row `slot` of `facts`."""
        facts.position[slot] = x, y = self._env.agent_pos
        if self._locked_doors:
            facts.door_unlocked[slot] = any(not door.is_locked for door in self._locked_doors)
        if self._expert.subgoal is not None:
            facts.subgoal[slot] = SUBGOAL_NAMES.index(self._expert.subgoal)
        for column, found in enumerate(self._find_nearest()):
            if found is not None:
                facts.walking[slot, column], (object_x, object_y) = found
                facts.straight[slot, column] = hypot(object_x - x, object_y - y)

    def _remember(self) -> None:
        """Keeps what the next action may change."""
        self._front = tuple(self._env.front_pos)
        self._ahead = ahead = self._env.grid.get(*self._front)
        self._held = self._env.carrying
        is_door = ahead is not None and ahead.type == "door"
        self._door_state = (ahead.is_locked, ahead.is_open) if is_door else None

    def _find_nearest(self) -> list[tuple[int, Cell] | None]:
        """Moves to the nearest door, key and target, and their cells."""
        env, held = self._env, self._env.carrying
        places = _find_things(env)
        keys = [thing for thing in (*places, held) if thing is not None and thing.type == "key"]
        colors = {door.color for door in self._locked_doors}
        keys = [key for key in keys if key.color in colors] or keys
        walks = _walk(env, False), _walk(env, True)
        found: list[tuple[int, Cell] | None] = []
        for things in (self._doors, keys, _sought_objects(env.instrs, held)):
            nearest = None
            if any(thing is held for thing in things):
                nearest = 0, _position(env.agent_pos)
            cells = [places[thing] for thing in things if thing in places]
            for moves in walks:
                if nearest is None and any(cell in moves for cell in cells):
                    x, y = min((c for c in cells if c in moves), key=lambda c, moves=moves: (moves[c], c[1], c[0]))
                    nearest = moves[x, y], (x, y)
            found.append(nearest)
        return found


def describe_level(env: RoomGridLevel, target_pos: Cell | None) -> dict[str, Any]:
    """What `babyai.compiled.context.describe_level` returns, of a level without a step taken.

    Rooms are those of the grid in which the level was laid out. Where walls between rooms were removed they still count
    as separate rooms.

    Args:
        env: reset to the level.
        target_pos: [x, y] of the instruction's first target, None if there is none.
    """
    objects: dict[str, list[list]] = {name: [] for name in _LISTS.values()}
    for thing, place in _find_things(env).items():
        if thing.type in _LISTS:
            state = [bool(thing.is_open), bool(thing.is_locked)] if thing.type == "door" else []
            objects[_LISTS[thing.type]].append([*place, thing.color, *state])
    marks = ["#" if cell is not None and cell.type == "wall" else "." for cell in env.grid.grid]
    held = env.carrying
    return {
        "grid_size": [env.width, env.height],
        "agent_start_pos": list(_position(env.agent_pos)),
        "agent_start_dir": int(env.agent_dir),
        "agent_start_room": list(_position(env.room_from_pos(*env.agent_pos).top)),
        "room_grid_shape": [env.num_cols, env.num_rows],
        "room_bounds": [[*_position(room.top), *room.size] for row in env.room_grid for room in row],
        "target_pos": None if target_pos is None else list(target_pos),
        **objects,
        "carrying_at_start": None if held is None else f"{held.color} {held.type}",
        "walls": ["".join(marks[start : start + env.width]) for start in range(0, len(marks), env.width)],
    }


def _position(pair: Any) -> Cell:
    """As plain ints: some of minigrid's positions are numpy's."""
    x, y = pair
    return int(x), int(y)


def _find_things(env: RoomGridLevel) -> dict[WorldObj, Cell]:
    """All but the walls and where they are, row by row; objects are told apart by identity."""
    return {
        thing: (index % env.width, index // env.width)
        for index, thing in enumerate(env.grid.grid)
        if thing is not None and thing.type != "wall"
    }


def _walk(env: RoomGridLevel, through_things: bool) -> dict[Cell, int]:
    """Moves from the agent's cell to every cell that can be reached."""
    start = _position(env.agent_pos)
    moves, queue = {start: 0}, deque([start])
    while queue:
        x, y = cell = queue.popleft()
        thing = env.grid.get(x, y)
        if cell != start and not through_things and thing is not None and thing.type != "door":
            continue
        for neighbour in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)):
            if neighbour not in moves:
                beyond = env.grid.get(*neighbour)
                if beyond is None or beyond.type != "wall":
                    moves[neighbour] = moves[cell] + 1
                    queue.append(neighbour)
    return moves


def _sought_objects(instr: Instr, held: WorldObj | None) -> list[WorldObj]:
    """The objects that the part of the instruction to be carried out next speaks of."""
    if isinstance(instr, BeforeInstr):
        return _sought_objects(instr.instr_b if instr.a_done == "success" else instr.instr_a, held)
    if isinstance(instr, AfterInstr):
        return _sought_objects(instr.instr_a if instr.b_done == "success" else instr.instr_b, held)
    if isinstance(instr, AndInstr):
        parts = ((instr.instr_a, instr.a_done), (instr.instr_b, instr.b_done))
        return [thing for part, done in parts if done != "success" for thing in _sought_objects(part, held)]
    if isinstance(instr, PutNextInstr):
        if any(thing is held for thing in instr.desc_move.obj_set):
            # One object may fit both descriptions
            return [thing for thing in instr.desc_fixed.obj_set if thing is not held]
        return instr.desc_move.obj_set
    return instr.desc.obj_set
