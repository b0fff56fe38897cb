"""The facts of a step (`babyai.facts`), read from rows of the compiled world.

    memory = allocate_memory(world)
    start_recording(world, row, memory)                        # once a level is loaded
    before = remember_front(world, row); step(world, row, action)
    event, thing_code = find_event(world, row, *before)
    find_nearest(world, row, memory)                           # memory.moves, memory.cells

The results are those of `babyai.plain_facts`, which reads minigrid's own objects; tests/babyai/test_compiled_core.py
compares them.
"""

from typing import NamedTuple

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import (
    AFTER,
    AGENT,
    AND,
    CARRIED,
    D_THINGS,
    DOOR,
    EMPTY_CODE,
    KEY,
    KIND,
    LEAF_DONE,
    PART_DONE,
    PUTNEXT,
    ROOT,
    SINGLE,
    SUCCEEDED,
    THINGS,
    WALL_CODE,
    WALL_NUMBER,
    World,
)
from babyai.compiled.play import front_of, heading_step
from babyai.facts import BOX_OPENED, CLOSED, DROPPED, NOTHING, OPENED, PICKED, PLACES, UNLOCKED

NUM_SOUGHT = len(PLACES)
"""Columns of `Memory.moves` and `Memory.cells`: the nearest door, key and target."""


class Memory(NamedTuple):
    """What recording keeps for each of R rows.

    Attributes:
        locked: uint64 (R,) bit per thing: the doors that were locked when the episode began.
        sought: uint64 (R, 3) bit per thing: doors, keys and targets looked for.
        moves: int32 (R, 3) moves to the nearest of each, -1 where there is none.
        cells: int32 (R, 3) the cells of those.
        queue: int32 (R, C) scratch of the search.
        reached: int32 (R, C) scratch: number of the search that reached a cell last.
        searches: int32 (R,) number of the last search.
    """

    locked: np.ndarray
    sought: np.ndarray
    moves: np.ndarray
    cells: np.ndarray
    queue: np.ndarray
    reached: np.ndarray
    searches: np.ndarray


def allocate_memory(world: World) -> Memory:
    """Return memory for every row of `world`."""
    rows, cells = world.cells.shape
    return Memory(
        locked=np.zeros(rows, np.uint64),
        sought=np.zeros((rows, NUM_SOUGHT), np.uint64),
        moves=np.zeros((rows, NUM_SOUGHT), np.int32),
        cells=np.zeros((rows, NUM_SOUGHT), np.int32),
        queue=np.zeros((rows, cells), np.int32),
        reached=np.zeros((rows, cells), np.int32),
        searches=np.zeros(rows, np.int32),
    )


@compiled
def _bit(number):
    return np.uint64(1) << np.uint64(number)


@compiled
def start_recording(world, row, memory):
    """Note which doors of the level just loaded are locked."""
    locked = np.uint64(0)
    for number in range(1, world.scalars[row, THINGS] + 1):
        code = int(world.codes[row, number])
        if code // 18 == DOOR and code % 3 == 2:
            locked |= _bit(number)
    memory.locked[row] = locked


# -------------------------------------------------------------------------------------------------------------- events


@compiled
def remember_front(world, row):
    """Return what an action may change: the cell in front, the thing there, its byte, and the thing carried."""
    front = front_of(world, row)
    return front, int(world.things[row, front]), int(world.cells[row, front]), world.scalars[row, CARRIED]


@compiled
def find_event(world, row, front, thing, code, held):
    """Return the code of what the action did since `remember_front`, and of the object (-1 if it did nothing)."""
    now = world.scalars[row, CARRIED]
    event = NOTHING
    if now != held:
        if now == 0:
            event, thing = DROPPED, held
        else:
            event, thing = PICKED, now
    elif int(world.things[row, front]) != thing:
        event = BOX_OPENED  # nothing else gives way without being picked up
    elif code // 18 == DOOR:
        was, state = code % 3, int(world.cells[row, front]) % 3
        if was == 2 and state != 2:
            event = UNLOCKED
        elif (was == 0) != (state == 0):
            event = OPENED if state == 0 else CLOSED
    if event == NOTHING:
        return NOTHING, -1
    code = int(world.codes[row, thing])
    return event, (code // 18 - DOOR) * 6 + code // 3 % 6  # as babyai.facts.OBJECT_NAMES lists them


@compiled
def door_unlocked(world, row, memory):
    """Return whether a door that was locked at the start no longer is: 0, 1, or -1 if none was."""
    locked = memory.locked[row]
    if locked == np.uint64(0):
        return -1
    for number in range(1, world.scalars[row, THINGS] + 1):
        if locked & _bit(number) != np.uint64(0) and world.codes[row, number] % 3 != 2:
            return 1
    return 0


# ----------------------------------------------------------------------------------------------------------- distances


@compiled
def _listed(world, row, desc):
    """Return the things of a description, bit per thing."""
    bits = np.uint64(0)
    for k in range(world.desc[row, desc, D_THINGS]):
        number = world.desc_things[row, desc, k]
        if number != WALL_NUMBER:
            bits |= _bit(number)
    return bits


@compiled
def _leaf_targets(world, row, leaf):
    """Return the things that one action instruction speaks of now, bit per thing."""
    things = _listed(world, row, 2 * leaf)
    if world.instruction[row, KIND + leaf] != PUTNEXT:
        return things
    held = world.scalars[row, CARRIED]
    if held != 0 and things & _bit(held) != np.uint64(0):
        return _listed(world, row, 2 * leaf + 1) & ~_bit(held)  # one thing may fit both descriptions
    return things


@compiled
def _targets(world, row):
    """Return the things that the part of the instruction to be carried out next speaks of, bit per thing."""
    instruction = world.instruction
    part = 0
    if instruction[row, ROOT] != SINGLE:
        first = 1 if instruction[row, ROOT] == AFTER else 0
        part = 1 - first if instruction[row, PART_DONE + first] == SUCCEEDED else first
    if instruction[row, AND + part] == 0:
        return _leaf_targets(world, row, 2 * part)
    things = np.uint64(0)
    for leaf in range(2 * part, 2 * part + 2):
        if instruction[row, LEAF_DONE + leaf] != SUCCEEDED:
            things |= _leaf_targets(world, row, leaf)
    return things


@compiled
def _is_there(world, row, number):
    """Return whether a thing can be found: carried, or on the grid and not in a box or gone."""
    if world.scalars[row, CARRIED] == number:
        return True
    place = world.places[row, number]
    return place >= 0 and world.things[row, place] == number


@compiled
def find_nearest(world, row, memory):
    """Find the nearest door, key and target, by the rules of `babyai.facts`; `moves` and `cells` hold them."""
    doors, keys, fitting = np.uint64(0), np.uint64(0), np.uint64(0)
    locked_colors = 0
    locked = memory.locked[row]
    for number in range(1, world.scalars[row, THINGS] + 1):
        code = int(world.codes[row, number])
        if code // 18 == DOOR:
            doors |= _bit(number)
            if locked & _bit(number) != np.uint64(0):
                locked_colors |= 1 << code // 3 % 6
    held = world.scalars[row, CARRIED]
    for number in range(1, world.scalars[row, THINGS] + 1):
        code = int(world.codes[row, number])
        if code // 18 == KEY and _key_is_out(world, row, number):
            keys |= _bit(number)
            if locked_colors >> (code // 3 % 6) & 1:
                fitting |= _bit(number)
    sought = memory.sought
    sought[row, 0] = doors if locked == np.uint64(0) else locked
    sought[row, 1] = keys if fitting == np.uint64(0) else fitting
    sought[row, 2] = _targets(world, row)
    for k in range(NUM_SOUGHT):
        memory.moves[row, k] = -1
        if held != 0 and sought[row, k] & _bit(held) != np.uint64(0):
            memory.moves[row, k] = 0
            memory.cells[row, k] = world.scalars[row, AGENT]
    if _search(world, row, memory, False) > 0:
        _search(world, row, memory, True)


@compiled
def _key_is_out(world, row, number):
    """Return whether a key lies on the grid or is carried; one that came out of a box has no place of its own."""
    if _is_there(world, row, number):
        return True
    if world.places[row, number] != at.UNPLACED:
        return False
    for index in range(world.things.shape[1]):
        if world.things[row, index] == number:
            return True
    return False


@compiled
def _search(world, row, memory, through_things):
    """Go out from the agent until the nearest of all that is missing is known; return how many are still missing.

    All cells at the same distance are looked at before the nearest is chosen: ties go to the first cell, row by row.
    """
    queue, reached = memory.queue, memory.reached
    wanted, missing = 0, 0  # bit per column
    for k in range(NUM_SOUGHT):
        if memory.moves[row, k] < 0 and memory.sought[row, k] != np.uint64(0):
            wanted |= 1 << k
            missing += 1
    memory.searches[row] += 1
    search = memory.searches[row]
    agent = world.scalars[row, AGENT]
    queue[row, 0] = agent
    reached[row, agent] = search
    start, stop, moves = 0, 1, 0
    while start < stop and missing > 0:
        for q in range(start, stop):
            index = queue[row, q]
            number = world.things[row, index]
            if number == 0:
                continue
            for k in range(NUM_SOUGHT):
                if wanted >> k & 1 == 0 or memory.sought[row, k] & _bit(number) == np.uint64(0):
                    continue
                if memory.moves[row, k] < 0:
                    memory.moves[row, k] = moves
                    memory.cells[row, k] = index
                    missing -= 1
                elif memory.moves[row, k] == moves and index < memory.cells[row, k]:
                    memory.cells[row, k] = index
        end = stop
        for q in range(start, stop):
            index = queue[row, q]
            code = int(world.cells[row, index])
            if q > 0 and not through_things and code != EMPTY_CODE and code // 18 != DOOR:
                continue
            for direction in range(4):
                neighbour = index + heading_step(world, row, direction)
                if reached[row, neighbour] != search and world.cells[row, neighbour] != WALL_CODE:
                    reached[row, neighbour] = search
                    queue[row, end] = neighbour
                    end += 1
        start, stop, moves = stop, end, moves + 1
    return missing
