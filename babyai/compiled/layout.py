"""The compiled world's memory: one row of plain arrays for each level being played.

    world = allocate(geometry, rows=16)
    world.cells[3]                       # the padded byte map of row 3
    world.scalars[3, AGENT]              # where its agent stands

Compiled functions take `(world, row)` and touch that row alone, so that rows can be computed by several threads.
Nothing is allocated after `allocate`.

Cells are numbered in the padded map: cell (x, y) is `(y + PAD) * stride + x + PAD`. Its byte is
`(type * 6 + colour) * 3 + state`, so that 0 is minigrid's "unseen". Doors, keys, balls and boxes are things; a row
numbers them from 1, because BabyAI's instructions ask which thing it is, not only what it looks like. A thing keeps its
number for the whole episode. Walls are no things.
"""

from typing import NamedTuple

import numpy as np

from babyai.facts import COLORS, TIMEOUT, VIEW_SIZE

PAD = VIEW_SIZE - 1

# ------------------------------------------------------------------------------------------------------------ bounds
# tests/babyai/test_compiled_levels.py holds every registered task against them.

MAX_THINGS = 63
"""Things of one level. The fullest registered task (Unlock) has fewer than 50."""

MAX_LISTED = 96
"""Length of an instruction's list of matching things or positions; "a grey object" matches walls too."""

MAX_PUSHES = 400
"""Subgoals that the bot may push while deciding on one action. Over all registered tasks no decision that led to an
action was seen to need more than 11; a bot that replans in circles pushes for ever."""

MAX_DEPTH = 2048
"""Subgoals on the bot's stack; a bot that would plan deeper gives up. A wrong action of the student adds one or two."""

MAX_KEY_LISTS = 64
"""Lists of keys that the bot's stack can refer to at the same time."""

# -------------------------------------------------------------------------------------------------------------- codes

# minigrid.core.constants.OBJECT_TO_IDX
UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, BALL, BOX = range(8)
# Colours are numbered as in babyai.facts.COLORS, which is the order of minigrid's COLOR_TO_IDX
EMPTY_CODE = EMPTY * 18
GREY = COLORS.index("grey")
WALL_CODE = (WALL * 6 + GREY) * 3
NUM_CODES = 11 * 18

WALL_NUMBER = 255  # stands for any wall in the lists of an instruction

NOWHERE = -1  # a cell: minigrid's cur_pos (-1, -1) of a carried thing
UNPLACED = -2  # a cell: minigrid's cur_pos None, of a thing that was never put on the grid

# ------------------------------------------------------------------------------------------------------------ geometry

(G_WIDTH, G_HEIGHT, G_STRIDE, G_ROOM_SIZE, G_COLS, G_ROWS, G_CELLS) = range(7)
"""Columns of `World.geometry`; G_CELLS is the length of the padded map."""

# ------------------------------------------------------------------------------------------------------------- scalars

(
    AGENT,  # cell
    DIRECTION,  # 0..3: right, down, left, up
    CARRIED,  # thing, 0 for none
    STEPS,
    MAX_STEPS,
    OUTCOME,
    THINGS,  # how many things the level has; they are numbered 1..THINGS
    # the bot's
    DEPTH,  # of its stack
    GAVE_UP,  # 0 while it has a plan, else one of GAVE_UP_REASONS
    PUSHES,  # while deciding on this action
    PREV_AGENT,
    PREV_CARRIED,
    DOOR_WAS_OPEN,  # the last door that it stood before: 0, 1, or -1 before the first
    FACED_BOX,  # whether it stood before a box when it decided last
    KEY_LISTS,  # next place to look for a free key list
    NUM_SCALARS,
) = range(16)
"""Columns of `World.scalars`."""

# --------------------------------------------------------------------------------------------------------- instruction
# "A", "A and B", "A, then B", "A after you B", where A and B may be "a and b". Part p has leaves 2p and 2p + 1; leaf l
# has descriptions 2l (what it is about) and 2l + 1 (put next: what to put it next to). An instruction that is a bare
# conjunction is part 0 with AND set.

SINGLE, BEFORE, AFTER = range(3)  # ROOT
GOTO, OPEN, PICK, PUTNEXT = range(4)  # KIND of a leaf
CONTINUE, SUCCEEDED, FAILED = range(3)  # what a verifier says; CONTINUE also stands for "not asked yet"

ROOT, ROOT_STRICT = 0, 1
AND = 2  # + part: whether it is a conjunction
PART_DONE = 4  # + part: what its verifier said last
KIND = 6  # + leaf
STRICT = 10  # + leaf
LEAF_DONE = 14  # + leaf, in a conjunction: what its verifier said last
PRE_CARRYING = 18  # + leaf: the thing carried before, 0 for none
NUM_INSTRUCTION = 22
"""Columns of `World.instruction`."""

NUM_DESCS = 8
D_TYPE, D_COLOR, D_LOC, D_PLURAL, D_THINGS, D_PLACES = range(6)
NUM_DESC = 6
"""Columns of `World.desc`: type (DOOR..BOX, 0 for any), colour (-1 for any), location (LOC_*), whether several things
matched when the sentence was made, lengths of the lists of things and of places."""

LOC_ANY, LOC_LEFT, LOC_RIGHT, LOC_FRONT, LOC_BEHIND = range(5)

# --------------------------------------------------------------------------------------------------------- bot's stack
# A subgoal is one int32: kind | reason << 4 | datum kind << 8 | datum << 12. The datum is a cell (may be NOWHERE), a
# thing, a description or a key list.

S_CLOSE, S_OPEN, S_DROP, S_PICKUP, S_GO_NEXT, S_EXPLORE = range(6)
R_NONE, R_UNLOCK, R_KEEP_KEY, R_PUT_NEXT, R_EXPLORE, R_OPEN = range(6)
DATUM_NONE, DATUM_CELL, DATUM_THING, DATUM_DESC, DATUM_KEYS = range(5)


class World(NamedTuple):
    """R rows of levels; see the module's docstring and the names of the columns above.

    Attributes:
        geometry: int32 (R, G); rows of several tasks can have several sizes.
        cells: uint8 (R, C) byte of each cell of the padded map, of which the largest has C cells.
        things: uint8 (R, C) number of the thing in a cell, 0 for none (also for a wall).
        codes: uint8 (R, MAX_THINGS + 1) byte of each thing, as `cells` has it.
        places: int32 (R, MAX_THINGS + 1) minigrid's `cur_pos` of each thing: a cell, NOWHERE or UNPLACED.
        inside: uint8 (R, MAX_THINGS + 1) thing in a box, 0 for none.
        scalars: int32 (R, NUM_SCALARS).
        instruction: int32 (R, NUM_INSTRUCTION).
        desc: int32 (R, NUM_DESCS, NUM_DESC) descriptions of the instruction.
        desc_things: uint8 (R, NUM_DESCS, MAX_LISTED) minigrid's `obj_set`, in order; WALL_NUMBER for walls.
        desc_places: int32 (R, NUM_DESCS, MAX_LISTED) its `obj_poss`, cells, in order. The two lists can differ in
            length and order, as minigrid's do.
        window: int32 (R, 49) cells in the agent's view, row by row as it sees them, for the state last looked at.
        lit: uint8 (R, 49) which of them it sees.
        seen: uint8 (R, C) the bot's memory of what it saw.
        stack: int32 (R, MAX_DEPTH) the bot's subgoals, the last is the top.
        key_count: int32 (R, MAX_KEY_LISTS) lengths of the bot's key lists.
        key_things: uint8 (R, MAX_KEY_LISTS, MAX_THINGS).
        key_places: int32 (R, MAX_KEY_LISTS, MAX_THINGS).
        queue: int32 (R, 2, C) scratch of the two searches (free; through things): cells in the order reached.
        parent: int32 (R, 2, C) scratch: the cell before on the way, -1 for a start, valid where `mark` is current.
        heading: uint8 (R, 2, C) scratch: direction in which a cell was entered.
        mark: int32 (R, 2, C) scratch: the number of the search that reached a cell last.
        search: int32 (R, 2, 4) scratch: state of the two searches (columns are the bot's business).
    """

    geometry: np.ndarray
    cells: np.ndarray
    things: np.ndarray
    codes: np.ndarray
    places: np.ndarray
    inside: np.ndarray
    scalars: np.ndarray
    instruction: np.ndarray
    desc: np.ndarray
    desc_things: np.ndarray
    desc_places: np.ndarray
    window: np.ndarray
    lit: np.ndarray
    seen: np.ndarray
    stack: np.ndarray
    key_count: np.ndarray
    key_things: np.ndarray
    key_places: np.ndarray
    queue: np.ndarray
    parent: np.ndarray
    heading: np.ndarray
    mark: np.ndarray
    search: np.ndarray


def build_geometry(room_size: int, cols: int, rows: int) -> np.ndarray:
    """Return `World.geometry`, int32 (G,), of a grid of `cols` x `rows` rooms of `room_size` cells, walls included."""
    width, height = (room_size - 1) * cols + 1, (room_size - 1) * rows + 1
    stride = width + 2 * PAD
    return np.array([width, height, stride, room_size, cols, rows, stride * (height + 2 * PAD)], np.int32)


def allocate(geometry: np.ndarray, rows: int) -> World:
    """Return `rows` rows without a level; their outcome is TIMEOUT, so that no step is taken by mistake.

    Args:
        geometry: int32 (G,) of all, or (R, G).
        rows: R.
    """
    geometry = np.array(np.broadcast_to(geometry, (rows, geometry.shape[-1])))
    cells = int(geometry[:, G_CELLS].max(initial=0))
    world = World(
        geometry=geometry,
        cells=np.full((rows, cells), WALL_CODE, np.uint8),
        things=np.zeros((rows, cells), np.uint8),
        codes=np.zeros((rows, MAX_THINGS + 1), np.uint8),
        places=np.zeros((rows, MAX_THINGS + 1), np.int32),
        inside=np.zeros((rows, MAX_THINGS + 1), np.uint8),
        scalars=np.zeros((rows, NUM_SCALARS), np.int32),
        instruction=np.zeros((rows, NUM_INSTRUCTION), np.int32),
        desc=np.zeros((rows, NUM_DESCS, NUM_DESC), np.int32),
        desc_things=np.zeros((rows, NUM_DESCS, MAX_LISTED), np.uint8),
        desc_places=np.zeros((rows, NUM_DESCS, MAX_LISTED), np.int32),
        window=np.zeros((rows, VIEW_SIZE * VIEW_SIZE), np.int32),
        lit=np.zeros((rows, VIEW_SIZE * VIEW_SIZE), np.uint8),
        seen=np.zeros((rows, cells), np.uint8),
        stack=np.zeros((rows, MAX_DEPTH), np.int32),
        key_count=np.zeros((rows, MAX_KEY_LISTS), np.int32),
        key_things=np.zeros((rows, MAX_KEY_LISTS, MAX_THINGS), np.uint8),
        key_places=np.zeros((rows, MAX_KEY_LISTS, MAX_THINGS), np.int32),
        queue=np.zeros((rows, 2, cells), np.int32),
        parent=np.zeros((rows, 2, cells), np.int32),
        heading=np.zeros((rows, 2, cells), np.uint8),
        mark=np.zeros((rows, 2, cells), np.int32),
        search=np.zeros((rows, 2, 4), np.int32),
    )
    world.scalars[:, OUTCOME] = TIMEOUT
    return world
