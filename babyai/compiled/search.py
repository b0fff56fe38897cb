"""The bot's way-finding: two breadth-first searches over cells, run once for a state and asked often.

    forget(world, row)                                   # a new state
    cell, which = find(world, row, PLACE, cell)          # by which search it is reached
    length, first = way_to(world, row, which, cell)

The FREE search walks through empty cells and open doors. The PUSHING search goes on from everywhere that the FREE one
reaches, through keys, balls and boxes too. Neither goes on from a cell that the bot has never seen. The order in which
cells are reached does not depend on what is looked for, so a search is extended only as far as a question needs and the
next question goes on from there.
"""

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import AGENT, DIRECTION, DOOR, EMPTY, EMPTY_CODE, G_STRIDE, WALL

FREE, PUSHING = 0, 1

# As numpy's integers, here and where something is called with a constant: numba compiles a function anew for each plain
# constant that it is called with.
PLACE, UNSEEN, SHUT_DOOR, DROP_PLACE = np.arange(4)
"""What can be looked for: a given cell; one that the bot has not seen; a door that is shut, better one that is not
locked; where to put something down, better where it blocks no way."""

NO_CELL = np.int64(0)

_NUMBER, _COUNT, _EXPANDED, _STARTS = range(4)
"""Columns of `World.search`: the number that `mark` holds for reached cells, how many cells are reached (0: the search
has not begun), how many of them are expanded, how many it began with."""

_LAST_NUMBER = 2**31 - 1  # of an int32


def _barriers() -> np.ndarray:
    """Return uint8 (2, 256): whether a search does not go on from a cell, by its byte."""
    barriers = np.ones((2, 256), np.uint8)
    for code in range(at.NUM_CODES):
        kind, state = code // 18, code % 3
        way = kind == EMPTY or (kind == DOOR and state == 0)
        barriers[FREE, code] = not way
        barriers[PUSHING, code] = not way and kind in (WALL, DOOR)
    return barriers


_BARRIERS = _barriers()


@compiled
def forget(world, row):
    """Begin a new state: nothing is reached."""
    world.search[row, FREE, _COUNT] = 0
    world.search[row, PUSHING, _COUNT] = 0


@compiled
def find(world, row, what, where):
    """Find the nearest cell that is looked for: by the FREE search if that reaches one, else by the PUSHING search.

    Args:
        world: The rows.
        row: Which.
        what: PLACE, UNSEEN, SHUT_DOOR or DROP_PLACE.
        where: PLACE: the cell. DROP_PLACE: a cell that will soon be taken, 0 for none.

    Returns:
        the cell, 0 if there is none, and the search that reaches it.
    """
    state = world.search
    cells, seen = world.cells[row], world.seen[row]
    agent, stride = np.int64(world.scalars[row, AGENT]), np.int64(world.geometry[row, G_STRIDE])
    target = where if what == PLACE else 0  # cell 0 is never reached
    locked, locked_by = 0, 0
    for which in range(PUSHING + 1):
        queue, parent = world.queue[row, which], world.parent[row, which]
        heading, mark = world.heading[row, which], world.mark[row, which]
        barriers = _BARRIERS[which]
        number, count = state[row, which, _NUMBER], np.int64(state[row, which, _COUNT])
        if count == 0:
            if number == _LAST_NUMBER:
                for index in range(len(mark)):
                    mark[index] = 0
                number = 0
            number += 1
            if which == FREE:
                count = 1
                queue[0], heading[agent] = agent, world.scalars[row, DIRECTION]
                mark[agent], parent[agent] = number, -1
            else:  # the FREE search has reached all it can, or this line would not be reached
                count = np.int64(state[row, FREE, _COUNT])
                for k in range(count):
                    index = np.int64(world.queue[row, FREE, k])
                    queue[k], heading[index] = index, 0
                    mark[index], parent[index] = number, -1
            state[row, which, _NUMBER], state[row, which, _EXPANDED], state[row, which, _STARTS] = number, 0, count
        expanded = np.int64(state[row, which, _EXPANDED])

        found, any_empty = 0, 0
        # What the PUSHING search begins with, the FREE one has tried
        k = 0 if which == FREE else np.int64(state[row, which, _STARTS])
        while True:
            if what == PLACE:
                if mark[target] == number:
                    found = target
            else:
                while k < count and found == 0:
                    index = np.int64(queue[k])
                    k += 1
                    if what == UNSEEN:
                        if seen[index] == 0:
                            found = index
                    elif what == SHUT_DOOR:
                        code = np.int64(cells[index])
                        if code // 18 == DOOR and code % 3 > 0:
                            if code % 3 == 1:
                                found = index
                            elif locked == 0:
                                locked, locked_by = index, which
                    elif cells[index] == EMPTY_CODE and seen[index] != 0 and index != agent and index != where:
                        if _blocks_no_way(cells, seen, agent, stride, index, where):
                            found = index
                        elif any_empty == 0:
                            any_empty = index
            if found > 0 or expanded == count:
                break
            # Go on from all cells reached so far, or until the target is reached
            until = _LAST_NUMBER if what == PLACE else count
            while expanded < count and expanded < until and mark[target] != number:
                index = np.int64(queue[expanded])
                expanded += 1
                if seen[index] == 0 or barriers[cells[index]] != 0:
                    continue
                # Straight on first, then in the direction of entry ^ 1, its opposite, and backwards
                entry = np.int64(heading[index])
                straight = stride if entry & 1 else 1
                aside = stride + 1 - straight
                if entry & 2:
                    straight, aside = -straight, -aside
                for turn in range(4):
                    if turn == 0:
                        neighbour, entered = index + straight, entry
                    elif turn == 1:
                        neighbour, entered = index + aside, entry ^ 1
                    elif turn == 2:
                        neighbour, entered = index - aside, entry ^ 3
                    else:
                        neighbour, entered = index - straight, entry ^ 2
                    if mark[neighbour] != number:
                        mark[neighbour], parent[neighbour], heading[neighbour] = number, index, entered
                        queue[count] = neighbour
                        count += 1

        state[row, which, _COUNT], state[row, which, _EXPANDED] = count, expanded
        if found == 0:
            found = any_empty
        if found > 0:
            return found, which
    return locked, locked_by


@compiled
def _blocks_no_way(cells, seen, agent, stride, cell, reserved):
    """Return whether the eight cells around stay connected when something lies in `cell`, as minigrid's bot judges."""
    shut = 0  # bits: not free to walk on
    things = 0  # bits: of these, not known to be a wall: a thing, unseen, or about to hold a thing
    for k in range(8):  # clockwise from the upper left
        if k < 3:
            index = cell - stride + k - 1
        elif k == 3:
            index = cell + 1
        elif k < 7:
            index = cell + stride + 5 - k
        else:
            index = cell - 1
        code, known = np.int64(cells[index]), seen[index] != 0
        if known and code // 18 == WALL:
            shut |= 1 << k
        elif (
            not known
            or index == reserved
            or not (code == EMPTY_CODE or index == agent or (code // 18 == DOOR and code % 3 == 0))
        ):
            shut |= 1 << k
            things |= 1 << k
    after = (shut >> 1 | shut << 7) & 255  # bit k: the next one is shut
    before = (shut << 1 | shut >> 7) & 255
    if things & after & before:
        return False  # nothing could reach that thing any more
    changes = shut ^ after
    changes &= changes - 1
    changes &= changes - 1
    return changes == 0  # at most two changes between free and shut: the free cells hang together


@compiled
def way_to(world, row, which, target):
    """Return the number of moves to a cell that a search has reached, and the first cell of the way (0: no move)."""
    length, first, index = 0, 0, np.int64(target)
    for search in range(which, -1, -1):
        before = np.int64(world.parent[row, search, index])
        while before >= 0:
            length, first, index = length + 1, index, before
            before = np.int64(world.parent[row, search, index])
    return length, first
