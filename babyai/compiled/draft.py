"""The draft of a level while it is being generated: one int64 array, so that compiled helpers take two arguments.

    scratch = allocate_scratch(geometry, rows=16)
    scratch.draft[3, AGENT_X]

Most attempts of some tasks are rejected; `generate` copies a draft into the world when it is accepted. Cells are
numbered as in `layout`; the draft's map holds thing numbers. Room (i, j), column i and row j, is `j * columns + i`.
Sides of rooms: 0..3 = right, down, left, up.
"""

from typing import NamedTuple

import numpy as np

from babyai import facts
from babyai.compiled import layout as at
from babyai.compiled.draws import NUM_DRAWS, reject
from babyai.compiled.jit import compiled

MAX_ROOMS = 16
"""Rooms of one level; the registered tasks have at most nine."""

# The first columns are World.geometry's, then
(AGENT_X, AGENT_Y, DIRECTION, COUNT, PRESENT, STAMP, LOCKED_ROOM, IN_HAND) = range(8, 16)
"""Agent's position; things so far; bit set of (type, colour) of the objects in rooms; number of the last flood;
room behind LevelGen's locked door, -1 for none; thing that the episode starts with in the agent's hands, 0 for none."""

INSTRUCTION = 16  # + column of World.instruction
DESCS = INSTRUCTION + at.NUM_INSTRUCTION  # + 3 * description: type, colour, location, as in World.desc
DOORS = DESCS + 3 * at.NUM_DESCS  # + 4 * room + side: thing, OPENING, or 0
DOOR_CELLS = DOORS + 4 * MAX_ROOMS  # + 4 * room + side: where a door would be, 0 where no room is behind the wall
LOCKED = DOOR_CELLS + 4 * MAX_ROOMS  # + room: whether the door added to it last is locked
_ROOMS_END = LOCKED + MAX_ROOMS
_THINGS = at.MAX_THINGS + 1
TYPES = _ROOMS_END  # + thing
COLORS = TYPES + _THINGS  # + thing
STATES = COLORS + _THINGS  # + thing: of a door
CELLS = STATES + _THINGS  # + thing: its cell on the map, 0 for none
UNTRACKED = CELLS + _THINGS  # + thing: whether it never got a `cur_pos`
INSIDE = UNTRACKED + _THINGS  # + thing: the thing within, 0 for none
CHOSEN = INSIDE + _THINGS  # what `choose` chose
LEFT_OVER = CHOSEN + 8  # its scratch
MAPS = LEFT_OVER + _THINGS
"""From here four maps of G_CELLS columns: the level (thing numbers, WALL_NUMBER), marks of the flood, its stack, and
the empty level with its walls, which is never written."""

OPENING = -1  # in DOORS: a wall that was removed

# minigrid.core.constants.COLOR_NAMES, sorted by name: blue, green, grey, purple, red, yellow
COLORS_BY_NAME = tuple(facts.COLORS.index(name) for name in sorted(facts.COLORS))


class Scratch(NamedTuple):
    """What generating needs besides the world: R rows, or one for each thread.

    Attributes:
        draws: uint64 (R, NUM_DRAWS), see `draws`.
        draft: int64 (R, D), see this module.
    """

    draws: np.ndarray
    draft: np.ndarray


def allocate_scratch(geometry: np.ndarray, rows: int) -> Scratch:
    """Return scratch for `rows` rows of worlds of this geometry, (G,), or each of its own, (R, G)."""
    geometry = np.broadcast_to(geometry, (rows, geometry.shape[-1]))
    draft = np.zeros((rows, MAPS + 4 * int(geometry[:, at.G_CELLS].max())), np.int64)
    draft[:, : geometry.shape[1]] = geometry
    for row, (width, height, stride, room_size, _, _, cells) in zip(draft, geometry.tolist(), strict=True):
        walls = np.full((height + 2 * at.PAD, stride), at.WALL_NUMBER, np.int64)
        y, x = np.mgrid[:height, :width]
        inner = (x % (room_size - 1) != 0) & (y % (room_size - 1) != 0)
        walls[at.PAD : at.PAD + height, at.PAD : at.PAD + width][inner] = 0
        row[MAPS + 3 * cells : MAPS + 4 * cells] = walls.ravel()
    return Scratch(np.zeros((rows, NUM_DRAWS), np.uint64), draft)


@compiled
def cell_of(draft, x, y):
    """Return the number of cell (x, y)."""
    return (y + at.PAD) * draft[at.G_STRIDE] + x + at.PAD


@compiled
def add_thing(draws, draft, kind, color):
    """Make a thing that is nowhere yet; return its number. A level with too many things is given up."""
    if draft[COUNT] >= at.MAX_THINGS:
        reject(draws)
        return draft[COUNT]
    draft[COUNT] += 1
    thing = draft[COUNT]
    draft[TYPES + thing], draft[COLORS + thing], draft[STATES + thing] = kind, color, 0
    draft[CELLS + thing], draft[UNTRACKED + thing], draft[INSIDE + thing] = 0, 0, 0
    return thing


@compiled
def set_thing(draft, thing, cell):
    """Put a thing into a cell."""
    draft[CELLS + thing] = cell
    draft[MAPS + cell] = thing


@compiled
def set_leaf(draft, leaf, kind, strict):
    """Let a leaf of the instruction be an action: GOTO, OPEN, PICK or PUTNEXT."""
    draft[INSTRUCTION + at.KIND + leaf] = kind
    draft[INSTRUCTION + at.STRICT + leaf] = strict


@compiled
def set_desc(draft, desc, kind, color, location):
    """Describe what a leaf is about; columns as in `World.desc`."""
    draft[DESCS + 3 * desc] = kind
    draft[DESCS + 3 * desc + 1] = color
    draft[DESCS + 3 * desc + 2] = location


@compiled
def describe_thing(draft, desc, thing):
    """Describe a thing by its type and colour."""
    set_desc(draft, desc, draft[TYPES + thing], draft[COLORS + thing], at.LOC_ANY)
