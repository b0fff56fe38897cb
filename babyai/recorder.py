"""Follows one simulator and says where things are and what the last action did: one slot's row of `StepFacts`.

    recorder = Recorder(simulator, expert)
    simulator.load(seed)
    recorder.start()                                 # recorder.env_context describes the level
    simulator.step(action)
    event, event_object = recorder.follow()          # after every step
    recorder.describe(facts, slot)                   # writes position, distances, ...

`babyai.facts` defines the terms. Sets of cells are Python ints, bit y * width + x for cell (x, y): one step of the
breadth-first search, for the whole grid at once, is four shifts. Levels are walled in, so no shift leaves a row.
"""

import babyai.minigrid_import  # noqa: F401

# isort: split
from math import hypot
from typing import Any

from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import AfterInstr, AndInstr, BeforeInstr, Instr, PutNextInstr

from babyai.context import build_env_context
from babyai.expert import Expert
from babyai.facts import EVENT_NAMES, OBJECT_NAMES, SUBGOAL_NAMES, TARGET, StepFacts
from babyai.simulator import DIRECTIONS, Simulator

_NONE, _PICKED, _DROPPED, _UNLOCKED, _OPENED, _CLOSED, _BOX_OPENED = range(len(EVENT_NAMES))
_OBJECT_CODES = {name: code for code, name in enumerate(OBJECT_NAMES)}
_SUBGOAL_CODES = {name: code for code, name in enumerate(SUBGOAL_NAMES)}

Found = tuple[int, int]  # moves to an object, and its cell's number


class Recorder:
    """Facts about the level that one simulator is playing.

    Attributes:
        env_context: the level at its start, see `babyai.context`.
    """

    def __init__(self, simulator: Simulator, expert: Expert) -> None:
        """A recorder of `simulator` and of the subgoals of `expert`; call `start` once a level is loaded."""
        self._simulator, self._expert = simulator, expert
        self._env, self._width = simulator.env, simulator.width
        self.env_context: dict[str, Any] = {}

    def start(self) -> None:
        """Forgets the last level and takes in the one that the simulator has just loaded."""
        cells = self._env.grid.grid
        self._floor = _as_bits(index for index, cell in enumerate(cells) if cell is None or cell.type != "wall")
        # Where every object is; objects are told apart by identity
        self._cells_of = {cell: k for k, cell in enumerate(cells) if cell is not None and cell.type != "wall"}
        doors = [thing for thing in self._cells_of if thing.type == "door"]
        self._locked_doors = [door for door in doors if door.is_locked]
        self._door_bits = _as_bits(self._cells_of[door] for door in self._locked_doors or doors)
        self._locked_colors = {door.color for door in self._locked_doors}
        self._take_in_objects()
        self._remember()
        target = self._find_nearest()[TARGET]
        self.env_context = build_env_context(self._simulator, None if target is None else self._cell(target[1]))

    def follow(self) -> tuple[int, int]:
        """What the simulator's last step did: codes of the event and of its object, (0, -1) if nothing.

        Read off the state before and after. An action changes at most the cell in front of the agent and its hand.
        """
        held, now = self._env.carrying, self._env.grid.grid[self._front]
        before = self._ahead
        event, thing = _NONE, before
        if held is not self._held:
            event, thing = (_DROPPED, self._held) if held is None else (_PICKED, held)
        elif now is not before:
            event = _BOX_OPENED  # nothing else gives way without being picked up
        elif self._door_state is not None:
            was_locked, was_open = self._door_state
            if was_locked and not now.is_locked:
                event = _UNLOCKED
            elif was_open != now.is_open:
                event = _OPENED if now.is_open else _CLOSED
        if now is not before:
            if before is not None:
                del self._cells_of[before]
            if now is not None:
                self._cells_of[now] = self._front
            self._take_in_objects()
        self._remember()
        return (event, _OBJECT_CODES[f"{thing.color} {thing.type}"]) if event else (_NONE, -1)

    def describe(self, facts: StepFacts, slot: int) -> None:
        """Writes all but the events into row `slot` of `facts`."""
        facts.position[slot] = x, y = self._env.agent_pos
        if self._locked_doors:
            facts.door_unlocked[slot] = any(not door.is_locked for door in self._locked_doors)
        subgoal = self._expert.subgoal
        if subgoal is not None:
            facts.subgoal[slot] = _SUBGOAL_CODES[subgoal]
        for column, found in enumerate(self._find_nearest()):
            if found is not None:
                moves, index = found
                object_x, object_y = self._cell(index)
                facts.walking[slot, column] = moves
                facts.straight[slot, column] = hypot(object_x - x, object_y - y)

    def _remember(self) -> None:
        """Keeps what the next action may change."""
        env = self._env
        (x, y), (dx, dy) = env.agent_pos, DIRECTIONS[env.agent_dir]
        self._front = (y + dy) * self._width + x + dx
        self._ahead = ahead = env.grid.grid[self._front]
        self._held = env.carrying
        is_door = ahead is not None and ahead.type == "door"
        self._door_state = (ahead.is_locked, ahead.is_open) if is_door else None

    def _take_in_objects(self) -> None:
        """Keeps what depends on where objects are, after one was moved."""
        cells_of, held = self._cells_of, self._env.carrying
        self._passable = self._floor & ~_as_bits(k for thing, k in cells_of.items() if thing.type != "door")
        keys = [thing for thing in (*cells_of, held) if thing is not None and thing.type == "key"]
        self._keys = [key for key in keys if key.color in self._locked_colors] or keys

    def _find_nearest(self) -> list[Found | None]:
        """The nearest door, key and target."""
        held = self._env.carrying
        x, y = self._env.agent_pos
        here = y * self._width + x
        wanted, found = [self._door_bits], [None]
        for things in (self._keys, _sought_objects(self._env.instrs, held)):
            in_hand = any(thing is held for thing in things)
            found.append((0, here) if in_hand else None)
            cells = (self._cells_of.get(thing) for thing in things)
            wanted.append(0 if in_hand else _as_bits(k for k in cells if k is not None))
        _search(here, self._width, self._floor, self._passable, wanted, found)
        if any(bits and hit is None for bits, hit in zip(wanted, found, strict=True)):
            _search(here, self._width, self._floor, self._floor, wanted, found)
        return found

    def _cell(self, index: int) -> tuple[int, int]:
        return index % self._width, index // self._width


def _as_bits(indices) -> int:
    bits = 0
    for index in indices:
        bits |= 1 << index
    return bits


def _search(start: int, width: int, floor: int, passable: int, wanted: list[int], found: list[Found | None]) -> None:
    """Breadth-first search from cell `start`, until the nearest cell of every set is known.

    Args:
        start: number of a cell.
        width: cells per row.
        floor: the cells that may be entered.
        passable: those of them that may also be left again.
        wanted: sets of cells; an empty one is not looked for.
        found: for each set (moves, cell) or None; the Nones are filled in where a cell of the set can be reached.
    """
    missing = [k for k, bits in enumerate(wanted) if bits and found[k] is None]
    sought = 0
    for k in missing:
        sought |= wanted[k]
    passable |= 1 << start
    reached, unseen, moves = 1 << start, floor, 0
    while reached and missing:
        if reached & sought:
            for k in missing:
                hits = reached & wanted[k]
                if hits:
                    found[k] = moves, (hits & -hits).bit_length() - 1  # lowest bit: lowest y, then x
            missing = [k for k in missing if found[k] is None]
        unseen &= ~reached
        edge = reached & passable
        reached = (edge << 1 | edge >> 1 | edge << width | edge >> width) & unseen
        moves += 1


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
