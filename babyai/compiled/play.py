"""Playing a row: step, verify the instruction, look around, observe. All of it compiled.

    outcome = step(world, row, action)          # one of RUNNING, SUCCESS, FAILURE, TIMEOUT
    look(world, row)                            # once per state, before the bot thinks or the agent observes
    observe(world, row, view)                   # uint8 (7, 7, 3), as minigrid's obs["image"]

The rules are minigrid 3.2's, including those that surprise (docs/LOG.md): an instruction's places are those of the last
drop action, not of now, and "put next" is only checked by a drop. tests/babyai/test_compiled_play.py plays every
registered task in lock-step with minigrid.
"""

import numpy as np

from babyai import facts
from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import (
    AGENT,
    AND,
    BEFORE,
    BOX,
    CARRIED,
    CONTINUE,
    D_PLACES,
    D_THINGS,
    DIRECTION,
    DOOR,
    EMPTY_CODE,
    FAILED,
    G_HEIGHT,
    G_STRIDE,
    G_WIDTH,
    GOTO,
    KEY,
    KIND,
    LEAF_DONE,
    MAX_STEPS,
    NOWHERE,
    NUM_CODES,
    OPEN,
    OUTCOME,
    PAD,
    PART_DONE,
    PICK,
    PRE_CARRYING,
    ROOT,
    ROOT_STRICT,
    SINGLE,
    STEPS,
    STRICT,
    SUCCEEDED,
    WALL_CODE,
    WALL_NUMBER,
)
from babyai.compiled.visibility import AHEAD, LIT
from babyai.facts import DROP, FORWARD, PICKUP, TOGGLE, VIEW_SIZE

# -------------------------------------------------------------------------------------------------------------- tables


DECODED = np.array([(code // 18, code // 3 % 6, code % 3) for code in range(NUM_CODES)], np.uint8)
"""The three numbers of a byte: type, colour, state."""
OPAQUE = np.array([kind == at.WALL or (kind == DOOR and state > 0) for kind, _, state in DECODED.tolist()], np.uint8)
_AGENT_CELL = VIEW_SIZE * VIEW_SIZE - 1 - VIEW_SIZE // 2  # in the window: bottom row, middle
_TAKEABLE_FROM, _TAKEABLE_TO = KEY * 18, (BOX + 1) * 18  # bytes of keys, balls and boxes


@compiled
def front_of(world, row):
    """Return the cell in front of the agent."""
    return world.scalars[row, AGENT] + heading_step(world, row, world.scalars[row, DIRECTION])


@compiled
def heading_step(world, row, direction):
    """Return what one move in a direction (0..3: right, down, left, up) adds to a cell's number."""
    if direction == 0:
        return 1
    if direction == 1:
        return world.geometry[row, G_STRIDE]
    if direction == 2:
        return -1
    return -world.geometry[row, G_STRIDE]


# ---------------------------------------------------------------------------------------------------------------- step


@compiled
def step(world, row, action):
    """Take an action (0..6) in a running row and return the outcome; the last look is out of date then."""
    scalars = world.scalars
    scalars[row, STEPS] += 1
    if action == facts.LEFT:
        scalars[row, DIRECTION] = (scalars[row, DIRECTION] + 3) % 4
    elif action == facts.RIGHT:
        scalars[row, DIRECTION] = (scalars[row, DIRECTION] + 1) % 4
    elif action <= TOGGLE:
        act_on_front(world, row, action)
        if action == DROP:
            _update_places(world, row)
    status = _verify(world, row, action)
    if status == SUCCEEDED:
        outcome = facts.SUCCESS
    elif status == FAILED:
        outcome = facts.FAILURE
    elif scalars[row, STEPS] >= scalars[row, MAX_STEPS]:
        outcome = facts.TIMEOUT
    else:
        outcome = facts.RUNNING
    scalars[row, OUTCOME] = outcome
    return outcome


@compiled
def act_on_front(world, row, action):
    """Carry out forward, pickup, drop or toggle."""
    scalars = world.scalars
    front = front_of(world, row)
    code = int(world.cells[row, front])
    held = scalars[row, CARRIED]
    if action == FORWARD:
        if code == EMPTY_CODE or (code // 18 == DOOR and code % 3 == 0):
            scalars[row, AGENT] = front
    elif action == PICKUP:
        if _TAKEABLE_FROM <= code < _TAKEABLE_TO and held == 0:
            number = world.things[row, front]
            scalars[row, CARRIED] = number
            world.places[row, number] = NOWHERE
            world.things[row, front] = 0
            world.cells[row, front] = EMPTY_CODE
    elif action == DROP:
        if code == EMPTY_CODE and held != 0:
            world.things[row, front] = held
            world.cells[row, front] = world.codes[row, held]
            world.places[row, held] = front
            scalars[row, CARRIED] = 0
    elif code // 18 == DOOR:
        state = code % 3
        if state == 2:
            key = KEY * 18 + code // 3 % 6 * 3
            opens = held != 0 and world.codes[row, held] == key
            state = 0 if opens else 2
        else:
            state = 1 - state
        code = code // 3 * 3 + state
        world.cells[row, front] = code
        world.codes[row, world.things[row, front]] = code
    elif code // 18 == BOX:
        number = world.inside[row, world.things[row, front]]
        world.things[row, front] = number
        world.cells[row, front] = EMPTY_CODE if number == 0 else world.codes[row, number]


# -------------------------------------------------------------------------------------------------------------- verify


@compiled
def _update_places(world, row):
    """Find the instruction's things again, wherever they lie now; minigrid does so at every drop action."""
    width, height, stride = world.geometry[row, G_WIDTH], world.geometry[row, G_HEIGHT], world.geometry[row, G_STRIDE]
    for d in range(at.NUM_DESCS):
        listed = world.desc[row, d, D_THINGS]
        if listed == 0:
            continue
        wanted = np.uint64(0)
        walls = False
        for k in range(listed):
            number = world.desc_things[row, d, k]
            if number == WALL_NUMBER:
                walls = True
            else:
                wanted |= np.uint64(1) << np.uint64(number)
        found = 0
        for x in range(PAD, width + PAD):  # column by column, as minigrid lists places
            for index in range(PAD * stride + x, (height + PAD) * stride + x, stride):
                number = world.things[row, index]
                if number == 0:
                    matches = walls and world.cells[row, index] == WALL_CODE
                else:
                    matches = (wanted >> np.uint64(number)) & np.uint64(1) != 0
                if matches:
                    world.desc_places[row, d, found] = index
                    found += 1
        world.desc[row, d, D_PLACES] = found


@compiled
def _is_listed(world, row, desc, number):
    """Return whether a thing is among those of a description."""
    for k in range(world.desc[row, desc, D_THINGS]):
        if world.desc_things[row, desc, k] == number:
            return True
    return False


@compiled
def _verify_leaf(world, row, leaf, action):
    """Return what the verifier of one action instruction says."""
    instruction = world.instruction
    kind = instruction[row, KIND + leaf]
    strict = instruction[row, STRICT + leaf] != 0
    desc = 2 * leaf
    if kind == GOTO:
        front = front_of(world, row)
        for k in range(world.desc[row, desc, D_PLACES]):
            if world.desc_places[row, desc, k] == front:
                return SUCCEEDED
        return CONTINUE
    if kind == OPEN:
        if action != TOGGLE:
            return CONTINUE
        front = front_of(world, row)
        code = int(world.cells[row, front])
        if code // 18 != DOOR:
            return CONTINUE
        if code % 3 == 0 and _is_listed(world, row, desc, world.things[row, front]):
            return SUCCEEDED
        return FAILED if strict else CONTINUE
    held = world.scalars[row, CARRIED]
    before = instruction[row, PRE_CARRYING + leaf]
    instruction[row, PRE_CARRYING + leaf] = held
    if kind == PICK:
        if action != PICKUP or held == 0:
            return CONTINUE
        if before == 0 and _is_listed(world, row, desc, held):
            return SUCCEEDED
        return FAILED if strict else CONTINUE
    if strict and action == PICKUP and held != 0:
        return FAILED
    if action != DROP or before == 0 or not _is_listed(world, row, desc, before):
        return CONTINUE
    place = world.places[row, before]
    if place < 0:
        return CONTINUE
    stride = world.geometry[row, G_STRIDE]
    for k in range(world.desc[row, desc + 1, D_PLACES]):
        apart = abs(world.desc_places[row, desc + 1, k] - place)
        if apart == 1 or apart == stride:  # next to each other: padding keeps rows from touching
            return SUCCEEDED
    return CONTINUE


@compiled
def _verify_part(world, row, part, action):
    """Return what the verifier of one part says: an action instruction, or two of them joined by "and"."""
    leaf = 2 * part
    instruction = world.instruction
    if instruction[row, AND + part] == 0:
        return _verify_leaf(world, row, leaf, action)
    for k in range(leaf, leaf + 2):
        if instruction[row, LEAF_DONE + k] != SUCCEEDED:
            instruction[row, LEAF_DONE + k] = _verify_leaf(world, row, k, action)
    if instruction[row, LEAF_DONE + leaf] == SUCCEEDED and instruction[row, LEAF_DONE + leaf + 1] == SUCCEEDED:
        return SUCCEEDED
    return CONTINUE


@compiled
def _verify(world, row, action):
    """Return what the verifier of the whole instruction says."""
    instruction = world.instruction
    root = instruction[row, ROOT]
    if root == SINGLE:
        return _verify_part(world, row, 0, action)
    first = 0 if root == BEFORE else 1
    second = 1 - first
    if instruction[row, PART_DONE + first] != SUCCEEDED:
        status = _verify_part(world, row, first, action)
        instruction[row, PART_DONE + first] = status
        if status == FAILED:
            return FAILED
        if status != SUCCEEDED:
            # Strict: doing the second part first is a failure
            if instruction[row, ROOT_STRICT] != 0 and _verify_part(world, row, second, action) == SUCCEEDED:
                return FAILED
            return CONTINUE
    status = _verify_part(world, row, second, action)
    instruction[row, PART_DONE + second] = status
    return status


# ------------------------------------------------------------------------------------------------------------- observe


@compiled
def look(world, row):
    """Find the cells in the agent's view and which of them it sees; `window` and `lit` hold them."""
    agent, direction = world.scalars[row, AGENT], world.scalars[row, DIRECTION]
    ahead = heading_step(world, row, direction)
    aside = heading_step(world, row, (direction + 1) % 4)
    window, lit, cells = world.window, world.lit, world.cells
    light = 1 << VIEW_SIZE // 2
    for j in range(VIEW_SIZE - 1, -1, -1):  # nearest row first
        start = agent + (VIEW_SIZE - 1 - j) * ahead - VIEW_SIZE // 2 * aside
        blocked = 0
        for i in range(VIEW_SIZE):
            index = start + i * aside
            window[row, j * VIEW_SIZE + i] = index
            blocked |= int(OPAQUE[cells[row, index]]) << i
        bits = int(LIT[light, blocked])
        for i in range(VIEW_SIZE):
            lit[row, j * VIEW_SIZE + i] = bits >> i & 1
        light = int(AHEAD[light, blocked])


@compiled
def observe(world, row, view):
    """Write what the agent sees into `view`, uint8 (7, 7, 3), indexed [x, y, channel]; after `look`."""
    held = world.scalars[row, CARRIED]
    for j in range(VIEW_SIZE):
        for i in range(VIEW_SIZE):
            k = j * VIEW_SIZE + i
            code = int(world.cells[row, world.window[row, k]])
            if k == _AGENT_CELL:
                code = EMPTY_CODE if held == 0 else int(world.codes[row, held])
            elif world.lit[row, k] == 0:
                code = 0
            view[i, j, 0] = DECODED[code, 0]
            view[i, j, 1] = DECODED[code, 1]
            view[i, j, 2] = DECODED[code, 2]
