"""The expert: minigrid's BabyAIBot for a row of the compiled world, in bounded work.

    bot_reset(world, row)                        # once a level is in the row
    look(world, row)
    action = bot_suggest(world, row, -1)         # first observation
    step(world, row, taken)
    look(world, row)
    action = bot_suggest(world, row, taken)      # the student took `taken`; -1 once the bot has given up

The bot keeps a stack of subgoals (layout.S_*). To decide, it first takes in what the agent did, which may have to be
undone; then the top of the stack yields an action or changes the stack, until there is an action. Its errors are kept:
where minigrid's bot raises, or replans in circles, this one gives up, as `babyai.plain_world.Expert` does;
tests/babyai/test_compiled_bot.py compares the two.
"""

import numpy as np

from babyai import facts
from babyai.compiled import layout as at
from babyai.compiled import plan
from babyai.compiled.jit import compiled
from babyai.compiled.layout import (
    AGENT,
    BOX,
    CARRIED,
    DEPTH,
    DIRECTION,
    DOOR,
    EMPTY_CODE,
    G_STRIDE,
    GAVE_UP,
    KEY,
    PREV_AGENT,
    PREV_CARRIED,
    R_EXPLORE,
    R_NONE,
    R_OPEN,
    R_PUT_NEXT,
    R_UNLOCK,
    S_CLOSE,
    S_DROP,
    S_EXPLORE,
    S_GO_NEXT,
    S_OPEN,
    S_PICKUP,
)
from babyai.compiled.lists import list_keys, nearest_listed
from babyai.compiled.plan import AGAIN, adopt
from babyai.compiled.play import front_of, heading_step
from babyai.compiled.search import DROP_PLACE, NO_CELL, PLACE, SHUT_DOOR, UNSEEN, find, forget, way_to


@compiled
def bot_reset(world, row):
    """Forget everything and plan for the level that is in the row, at its start."""
    scalars, instruction = world.scalars, world.instruction
    for index in range(world.geometry[row, at.G_CELLS]):
        world.seen[row, index] = 0
    for column in (DEPTH, GAVE_UP, at.PUSHES, at.KEY_LISTS, PREV_AGENT, PREV_CARRIED, at.FACED_BOX):
        scalars[row, column] = 0
    scalars[row, at.DOOR_WAS_OPEN] = -1
    root = instruction[row, at.ROOT]
    for k in range(3, -1, -1):  # what comes last is pushed first
        leaf = (k + 2) % 4 if root == at.AFTER else k
        part = leaf // 2
        if (part == 0 or root != at.SINGLE) and (leaf % 2 == 0 or instruction[row, at.AND + part] != 0):
            # Plans for instructions are numbered as those are
            adopt(world, row, plan.DO_GOTO + instruction[row, at.KIND + leaf], 2 * leaf, NO_CELL, NO_CELL)


@compiled
def bot_suggest(world, row, action_taken):
    """Return the bot's action (0..6) for the present state, -1 from the moment it gives up until `bot_reset`.

    Call it once for the first observation and once after every step, each time after `look`.

    Args:
        world: The rows.
        row: Which.
        action_taken: The agent's last action; -1 on an episode's first observation.
    """
    scalars = world.scalars
    if scalars[row, GAVE_UP] != 0:
        return -1
    for k in range(facts.VIEW_SIZE * facts.VIEW_SIZE):
        if world.lit[row, k] != 0:
            world.seen[row, world.window[row, k]] = 1
    forget(world, row)
    scalars[row, at.PUSHES] = 0
    answer = AGAIN
    if action_taken == facts.TOGGLE and scalars[row, at.FACED_BOX] != 0:
        answer = -plan.BOX_OPENED
    elif scalars[row, DEPTH] > 0:
        answer = _take_in(world, row, action_taken)
    while scalars[row, DEPTH] > 0 and _is_exploring(world.stack[row, scalars[row, DEPTH] - 1]):
        scalars[row, DEPTH] -= 1
    while answer == AGAIN and scalars[row, DEPTH] > 0:  # bounded: each round pops a subgoal or pushes some
        subgoal = np.int64(world.stack[row, scalars[row, DEPTH] - 1])
        answer = _go_next(world, row, subgoal) if subgoal & 15 == S_GO_NEXT else _decide(world, row, subgoal)
    if answer < 0:
        scalars[row, GAVE_UP] = -answer
        return -1
    scalars[row, PREV_AGENT], scalars[row, PREV_CARRIED] = scalars[row, AGENT], scalars[row, CARRIED]
    code = np.int64(world.cells[row, front_of(world, row)])
    scalars[row, at.FACED_BOX] = code // 18 == BOX
    if code // 18 == DOOR:
        scalars[row, at.DOOR_WAS_OPEN] = code % 3 == 0
    return facts.DONE if answer == AGAIN else answer


# S_* -> its place in babyai.facts.SUBGOAL_NAMES: close, open, drop, pickup, go next, explore
_NUMBERED = ("Close", "Open", "Drop", "Pickup", "GoNextTo", "Explore")  # S_CLOSE to S_EXPLORE
_SUBGOALS = np.array([facts.SUBGOAL_NAMES.index(name) for name in _NUMBERED], np.int64)
_EXPLORE, _DONE = facts.SUBGOAL_NAMES.index("Explore"), facts.SUBGOAL_NAMES.index("Done")


@compiled
def bot_subgoal(world, row):
    """Return what the last suggestion serves, an index into `babyai.facts.SUBGOAL_NAMES`; -1 if the bot gave up."""
    if world.scalars[row, GAVE_UP] != 0:
        return -1
    depth = world.scalars[row, DEPTH]
    if depth == 0:
        return _DONE
    subgoal = world.stack[row, depth - 1]
    return _EXPLORE if _is_exploring(subgoal) else _SUBGOALS[subgoal & 15]


# ------------------------------------------------------------------------------------------------------ after an action

# Per S_*: the action that the subgoal waits for, and bits: after which others there may be something to undo
_TURNS = 1 << facts.LEFT | 1 << facts.RIGHT
_MOVES = _TURNS | 1 << facts.FORWARD
_OWN = np.array([facts.TOGGLE, facts.TOGGLE, facts.DROP, facts.PICKUP, -2, -2], np.int64)
_UNDONE = np.array([_MOVES, 127, _MOVES, _TURNS, 1 << facts.PICKUP | 1 << facts.DROP | 1 << facts.TOGGLE, 0], np.int64)


@compiled
def _is_exploring(subgoal):
    """Return whether a subgoal only serves to see more."""
    return subgoal & 15 == S_EXPLORE or (subgoal & 15 == S_GO_NEXT and subgoal >> 4 & 15 == R_EXPLORE)


@compiled
def _take_in(world, row, action):
    """Let the subgoal on top know what the agent did; -1 (unknown) counts as what it waits for."""
    scalars = world.scalars
    subgoal = np.int64(world.stack[row, scalars[row, DEPTH] - 1])
    kind = subgoal & 15
    own = _OWN[kind]
    if own >= 0 and (action < 0 or action == own):
        scalars[row, DEPTH] -= 1
        if kind == S_OPEN and subgoal >> 4 & 15 == R_UNLOCK:
            # Not earlier: by now something else could lie where the key was to go
            cell, _ = find(world, row, DROP_PLACE, NO_CELL)
            return adopt(world, row, plan.PUT_DOWN, cell, NO_CELL, NO_CELL)
        return AGAIN
    if action < 0 or not _UNDONE[kind] >> action & 1:
        return AGAIN
    agent, direction = np.int64(scalars[row, AGENT]), scalars[row, DIRECTION]
    code = np.int64(world.cells[row, front_of(world, row)])
    handed = scalars[row, PREV_CARRIED] != scalars[row, CARRIED]
    undo, cell = -1, agent
    if action == facts.FORWARD:
        if scalars[row, PREV_AGENT] != agent:
            undo = plan.GO
    elif action == facts.LEFT or action == facts.RIGHT:
        undo = plan.GO
        cell += heading_step(world, row, (direction + (1 if action == facts.LEFT else 3)) % 4)
    elif action == facts.DROP and handed:
        if not KEY <= code // 18 <= BOX:
            return -plan.NOT_DROPPED
        undo = plan.PICKUP
    elif action == facts.PICKUP and handed:
        undo = plan.DROP
    elif action == facts.TOGGLE and code // 18 == DOOR:
        is_open = code % 3 == 0
        if (scalars[row, at.DOOR_WAS_OPEN] != 0) != is_open:
            undo = plan.CLOSE if is_open else plan.OPEN
    return adopt(world, row, undo, cell, NO_CELL, NO_CELL) if undo >= 0 else AGAIN


# ---------------------------------------------------------------------------------------------------- before an action


@compiled
def _has_key_for(world, row, door_code):
    """Return whether the agent carries a key of a door's colour."""
    carried = world.scalars[row, CARRIED]
    return carried != 0 and world.codes[row, carried] == KEY * 18 + door_code // 3 % 6 * 3


@compiled
def _decide(world, row, subgoal):
    """Return the action for the subgoal on top unless that is "go next to", or AGAIN, or minus a reason."""
    scalars = world.scalars
    kind, reason = subgoal & 15, subgoal >> 4 & 15
    front = front_of(world, row)
    code = np.int64(world.cells[row, front])
    state = code % 3 if code // 18 == DOOR else -1
    carries = scalars[row, CARRIED] != 0
    if kind == S_PICKUP:
        return -plan.HANDS if carries else facts.PICKUP
    if kind == S_DROP:
        if not carries:
            return -plan.HANDS
        return facts.DROP if code == EMPTY_CODE else -plan.NOT_EMPTY
    if kind == S_CLOSE:
        return facts.TOGGLE if state == 0 else -plan.NO_SUCH_DOOR

    chosen, a, b, c = 0, 0, 0, 0
    if kind == S_OPEN:
        if state < 0:
            return -plan.NO_SUCH_DOOR
        if state == 2 and not _has_key_for(world, row, code):
            scalars[row, DEPTH] -= 1
            b, c = front, list_keys(world, row, code)
            if c < 0:
                return -plan.TOO_MANY_KEYS
            chosen = plan.FETCH_KEY_HERE
            if carries:
                chosen = plan.SWAP_FOR_KEY
                a, _ = find(world, row, DROP_PLACE, NO_CELL)
        elif state == 0:
            chosen = plan.CLOSE
        elif state == 2 and reason == R_NONE:
            scalars[row, DEPTH] -= 1
            chosen = plan.UNLOCK
        else:
            return facts.TOGGLE
    else:  # explore: to the nearest cell not seen yet, else through the nearest shut door
        a, _ = find(world, row, UNSEEN, NO_CELL)
        chosen = plan.GO_EXPLORE
        if a == 0:
            # Locked doors last: one of them may be the one that the bot is looking for a key for
            cell, _ = find(world, row, SHUT_DOOR, NO_CELL)
            if cell == 0:
                return -plan.NOTHING_TO_EXPLORE
            code = np.int64(world.cells[row, cell])
            keeps_key = code % 3 == 2 and _has_key_for(world, row, code)
            chosen, a = plan.OPEN_DOOR_KEEPING_KEY if keeps_key else plan.OPEN_DOOR, np.int64(world.things[row, cell])
            scalars[row, DEPTH] -= 1
    return adopt(world, row, chosen, a, b, c)


@compiled
def _is_way(code):
    """Return whether an agent can step onto a cell, by its byte."""
    return code == EMPTY_CODE or (code // 18 == DOOR and code % 3 == 0)


@compiled
def _room_aside(world, row, step):
    """Return the distance to a wall or door beside the agent, at most 3: as far as it sees to the side."""
    index = np.int64(world.scalars[row, AGENT])
    for distance in range(1, 4):
        index += step
        kind = world.cells[row, index] // 18
        if kind == DOOR or kind == at.WALL:
            return distance
    return 3


@compiled
def _go_next(world, row, subgoal):
    """Return the action for "go next to" on top of the stack, or AGAIN, or minus a reason for giving up."""
    scalars, cells = world.scalars, world.cells
    reason, datum_kind, datum = subgoal >> 4 & 15, subgoal >> 8 & 15, subgoal >> 12
    putting = reason == R_PUT_NEXT
    carries = scalars[row, CARRIED] != 0
    thing, target = 0, datum
    if datum_kind == at.DATUM_THING:
        thing, target = datum, np.int64(world.places[row, datum])
    elif datum_kind == at.DATUM_NONE:
        target = -plan.NO_PLACE
    elif datum_kind != at.DATUM_CELL:
        thing, target = nearest_listed(world, row, datum_kind, datum, putting)
    chosen, a, b, c = -1, 0, 0, 0
    if target == 0:
        chosen = plan.EXPLORE
    elif reason == R_OPEN and thing > 0 and not carries:
        code = np.int64(world.codes[row, thing])
        if code // 18 == DOOR and code % 3 == 2:
            # Straight for the key, and from now on for this one of the doors
            scalars[row, DEPTH] -= 1
            chosen, a, c = plan.FETCH_KEY, thing, list_keys(world, row, code)
            if c < 0:
                return -plan.TOO_MANY_KEYS
    if chosen < 0:
        if target < 0:
            return -plan.NO_PLACE if datum_kind == at.DATUM_THING else target
        agent, direction = np.int64(scalars[row, AGENT]), scalars[row, DIRECTION]
        stride = np.int64(world.geometry[row, G_STRIDE])
        ahead = np.int64(heading_step(world, row, direction))
        right = np.int64(heading_step(world, row, (direction + 1) % 4))
        front = agent + ahead
        code = np.int64(cells[row, front])
        away, away_front = abs(target - agent), abs(target - front)
        if (away == 1 or away == stride) if putting else away == 0:
            # On the very place that it should be next to: away from it
            if _is_way(code):
                return facts.FORWARD
            return facts.RIGHT if _is_way(np.int64(cells[row, agent + right])) else facts.LEFT
        if putting:
            if away_front == 1 or away_front == stride:
                if code == EMPTY_CODE:
                    scalars[row, DEPTH] -= 1
                    return AGAIN
                if code // 18 == DOOR and code % 3 == 0:  # nothing can be dropped in a doorway
                    chosen, a = plan.GO, front + 2 * ahead
        elif away_front == 0:
            scalars[row, DEPTH] -= 1
            return AGAIN
        if chosen < 0:
            following = 0
            cell, which = find(world, row, PLACE, target)
            if cell > 0:
                _, following = way_to(world, row, which, target)
            if following == 0:  # there is no way, or the agent stands on the target
                chosen = plan.EXPLORE
            elif following == agent + right:
                return facts.RIGHT
            elif following == agent - right:
                return facts.LEFT
            elif following != front:  # behind: turn to the side where there is more room
                return facts.LEFT if _room_aside(world, row, -right) > _room_aside(world, row, right) else facts.RIGHT
            elif _is_way(code):
                return facts.FORWARD
            elif code // 18 == DOOR:
                if code % 3 == 2:
                    return -plan.LOCKED_WAY
                chosen = plan.OPEN
            else:  # put aside what is in the way, and before that what the agent carries
                chosen, c = plan.CLEAR, front
                a, _ = find(world, row, DROP_PLACE, NO_CELL)
                if carries:
                    chosen = plan.SWAP_AND_CLEAR
                    b, _ = find(world, row, DROP_PLACE, a)
    return adopt(world, row, chosen, a, b, c)
