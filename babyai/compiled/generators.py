"""Missions with a fixed form: what minigrid's level classes put into the rooms and what they ask for.

One function for each family of classes (goto, open, pickup, putnext, unlock), chosen by `kinds`; each takes the draws,
a draft that `build_rooms` has begun, and the program's parameters. minigrid's classes have the same names.
"""

from babyai import facts
from babyai.compiled import kinds
from babyai.compiled import layout as at
from babyai.compiled.draft import (
    CELLS,
    CHOSEN,
    COLORS,
    COLORS_BY_NAME,
    DOORS,
    IN_HAND,
    INSIDE,
    INSTRUCTION,
    STATES,
    TYPES,
    UNTRACKED,
    add_thing,
    describe_thing,
    set_desc,
    set_leaf,
    set_thing,
)
from babyai.compiled.draws import draw, halted, reject
from babyai.compiled.jit import compiled
from babyai.compiled.kinds import P_COUNT, P_FIRST, P_FLAG, P_KIND
from babyai.compiled.rooms import (
    ANY,
    add_distractors,
    add_door,
    add_object,
    agents_room,
    all_reachable,
    choose,
    connect_all,
    draw_color,
    place_agent,
    place_in_room,
    remove_wall,
    require_reachable,
)

_RED, _BLUE, _GREY = (facts.COLORS.index(name) for name in ("red", "blue", "grey"))


@compiled
def _ask(draft, action, thing, strict):
    """Ask for an action on things of this one's type and colour."""
    set_leaf(draft, 0, action, strict)
    describe_thing(draft, 0, thing)


@compiled
def _ask_by_type(draft, action, thing):
    set_leaf(draft, 0, action, 0)
    set_desc(draft, 0, draft[TYPES + thing], ANY, at.LOC_ANY)


@compiled
def generate_goto(draws, draft, params):
    """GoTo classes, and ActionObjDoor."""
    kind, count = params[P_KIND], params[P_COUNT]
    if kind == kinds.GOTO_IMP_UNLOCK:
        _generate_goto_imp_unlock(draws, draft)
        return
    if kind == kinds.GOTO_DOOR:
        first, count = add_door(draws, draft, 1, 1, ANY, ANY, ANY), 4
        for _ in range(3):
            add_door(draws, draft, 1, 1, ANY, ANY, ANY)
        place_agent(draws, draft, 1, 1)
    elif kind == kinds.ACTION_OBJ_DOOR:
        first, count = add_distractors(draws, draft, 1, 1, 5, True), 9
        for _ in range(4):
            add_door(draws, draft, 1, 1, ANY, ANY, 0)
        place_agent(draws, draft, 1, 1)
    elif kind == kinds.GOTO_OBJ_DOOR:
        place_agent(draws, draft, 1, 1)
        first, count = add_distractors(draws, draft, 1, 1, 8, False), 12
        for _ in range(4):
            add_door(draws, draft, 1, 1, ANY, ANY, ANY)
        require_reachable(draws, draft)
    else:
        place_agent(draws, draft, ANY, ANY)
        if kind == kinds.GOTO_RED_BALL or kind == kinds.GOTO_RED_BALL_GREY:
            add_object(draws, draft, 0, 0, at.BALL, _RED)
        if kind == kinds.GOTO_MAZE:
            connect_all(draws, draft, ANY)
        first = add_distractors(draws, draft, ANY, ANY, count, kind == kinds.GOTO_OBJ)
        for thing in range(first, first + count):
            if kind == kinds.GOTO_RED_BALL_GREY:
                draft[COLORS + thing] = _GREY
            elif kind == kinds.GOTO_RED_BLUE_BALL and draft[TYPES + thing] == at.BALL:
                if draft[COLORS + thing] == _RED or draft[COLORS + thing] == _BLUE:
                    reject(draws)
        if kind == kinds.GOTO_RED_BLUE_BALL:
            color = _RED if draw(draws, 0, 2) == 0 else _BLUE
            first = add_object(draws, draft, 0, 0, at.BALL, color)
        if kind != kinds.GOTO_OBJ:
            require_reachable(draws, draft)
    thing = first
    if kind == kinds.GOTO_RED_BALL or kind == kinds.GOTO_RED_BALL_GREY:
        thing = first - 1
    elif kind != kinds.GOTO_OBJ and kind != kinds.GOTO_RED_BLUE_BALL:
        thing = first + draw(draws, 0, count)
    action = at.GOTO
    if kind == kinds.ACTION_OBJ_DOOR and draw(draws, 0, 2) != 0:
        action = at.OPEN if draft[TYPES + thing] == at.DOOR else at.PICK
    _ask(draft, action, thing, 0)
    if kind == kinds.GOTO_MAZE and params[P_FLAG]:
        for door in range(1, first):
            draft[STATES + door] = 0


@compiled
def _lock_a_room(draws, draft):
    """Lock the door of a random room and put its key anywhere; return the room and the door.

    minigrid means to keep the key out of that room, but compares numpy's integers with `is`, which is never true. For
    the same reason the locked room gets distractors.
    """
    i = draw(draws, 0, draft[at.G_COLS])
    j = draw(draws, 0, draft[at.G_ROWS])
    door = add_door(draws, draft, i, j, ANY, ANY, 1)
    key_i = draw(draws, 0, draft[at.G_COLS])
    key_j = draw(draws, 0, draft[at.G_ROWS])
    add_object(draws, draft, key_i, key_j, at.KEY, draft[COLORS + door])
    return j * draft[at.G_COLS] + i, door


@compiled
def _furnish_all(draws, draft, count, locked_room):
    """Put objects into every room, then the agent anywhere but into the locked one."""
    for i in range(draft[at.G_COLS]):
        for j in range(draft[at.G_ROWS]):
            add_distractors(draws, draft, i, j, count, False)
    while not halted(draws):  # every turn draws
        place_agent(draws, draft, ANY, ANY)
        if agents_room(draft) != locked_room:
            break
    require_reachable(draws, draft)


@compiled
def _generate_goto_imp_unlock(draws, draft):
    room, _ = _lock_a_room(draws, draft)
    connect_all(draws, draft, ANY)
    _furnish_all(draws, draft, 2, room)
    cols = draft[at.G_COLS]
    _ask(draft, at.GOTO, add_distractors(draws, draft, room % cols, room // cols, 1, False), 0)


@compiled
def generate_open(draws, draft, params):
    """Open classes."""
    kind, flag = params[P_KIND], params[P_FLAG]
    if kind == kinds.OPEN_ANY:
        place_agent(draws, draft, ANY, ANY)
        connect_all(draws, draft, ANY)
        add_distractors(draws, draft, ANY, ANY, 18, False)
        require_reachable(draws, draft)
        _ask(draft, at.OPEN, _draw_door(draws, draft), 0)
    elif kind == kinds.OPEN_RED_DOOR:
        door = add_door(draws, draft, 0, 0, 0, _RED, 0)
        place_agent(draws, draft, 0, 0)
        _ask(draft, at.OPEN, door, 0)
    elif kind == kinds.OPEN_DOOR:
        choose(draws, draft, 6, 4)
        for side in range(4):
            add_door(draws, draft, 1, 1, side, COLORS_BY_NAME[draft[CHOSEN + side]], 0)
        selected = params[P_FIRST]
        if selected == ANY:
            selected = draw(draws, 0, 2)
        _ask(draft, at.OPEN, 1, flag)
        if selected == kinds.BY_LOCATION:
            set_desc(draft, 0, at.DOOR, ANY, at.LOC_LEFT + draw(draws, 0, 4))
        place_agent(draws, draft, 1, 1)
    elif kind == kinds.OPEN_TWO_DOORS:
        choose(draws, draft, 6, 2)
        for k in range(2):
            color = params[P_FIRST + k]
            if color == ANY:
                color = COLORS_BY_NAME[draft[CHOSEN + k]]
            door = add_door(draws, draft, 1, 1, 2 - 2 * k, color, 0)
            set_leaf(draft, 2 * k, at.OPEN, flag if k == 0 else 0)
            describe_thing(draft, 4 * k, door)
        place_agent(draws, draft, 1, 1)
        draft[INSTRUCTION + at.ROOT] = at.BEFORE
    else:
        count = params[P_COUNT]
        choose(draws, draft, 6, count)
        for k in range(count):
            add_door(draws, draft, 1, 1, ANY, COLORS_BY_NAME[draft[CHOSEN + k]], 0)
        place_agent(draws, draft, 1, 1)
        choose(draws, draft, count, 2)
        draft[INSTRUCTION + at.ROOT] = draw(draws, 0, 3)  # SINGLE, BEFORE, AFTER
        for k in range(2):
            if k == 0 or draft[INSTRUCTION + at.ROOT] != at.SINGLE:
                set_leaf(draft, 2 * k, at.OPEN, flag)
                describe_thing(draft, 4 * k, 1 + draft[CHOSEN + k])


@compiled
def _draw_door(draws, draft):
    """Draw a door from the list of every room's doors, columns of rooms first: each is in it twice."""
    cols, rows = draft[at.G_COLS], draft[at.G_ROWS]
    total = 0
    for k in range(4 * cols * rows):
        total += draft[DOORS + k] > 0
    left = draw(draws, 0, total)
    for i in range(cols):
        for j in range(rows):
            for side in range(4):
                door = draft[DOORS + 4 * (j * cols + i) + side]
                if door > 0:
                    if left == 0:
                        return door
                    left -= 1
    reject(draws)
    return 0


@compiled
def generate_pickup(draws, draft, params):
    """Pickup classes, FindObj, KeyCorridor and OneRoom."""
    kind = params[P_KIND]
    rows = draft[at.G_ROWS]
    if kind == kinds.PICKUP or kind == kinds.UNBLOCK_PICKUP:
        count = 18 if kind == kinds.PICKUP else 20
        place_agent(draws, draft, ANY, ANY)
        connect_all(draws, draft, ANY)
        first = add_distractors(draws, draft, ANY, ANY, count, False)
        if not halted(draws) and all_reachable(draft) != (kind == kinds.PICKUP):
            reject(draws)
        _ask(draft, at.PICK, first + draw(draws, 0, count), 0)
    elif kind == kinds.PICKUP_DIST:
        first = add_distractors(draws, draft, ANY, ANY, 5, True)
        place_agent(draws, draft, 0, 0)
        thing = first + draw(draws, 0, 5)
        selected = draw(draws, 0, 3)  # by type, by colour, by both
        set_leaf(draft, 0, at.PICK, params[P_FLAG])
        kept_type, kept_color = draft[TYPES + thing], draft[COLORS + thing]
        set_desc(draft, 0, 0 if selected == 1 else kept_type, ANY if selected == 0 else kept_color, at.LOC_ANY)
    elif kind == kinds.PICKUP_ABOVE:
        thing = add_object(draws, draft, 1, 0, ANY, ANY)
        add_door(draws, draft, 1, 1, 3, ANY, 0)
        place_agent(draws, draft, 1, 1)
        connect_all(draws, draft, ANY)
        _ask(draft, at.PICK, thing, 0)
    elif kind == kinds.FIND_OBJ:
        i = draw(draws, 0, rows)  # minigrid mixes up rows and columns
        j = draw(draws, 0, draft[at.G_COLS])
        thing = add_object(draws, draft, i, j, ANY, ANY)
        place_agent(draws, draft, 1, 1)
        connect_all(draws, draft, ANY)
        _ask_by_type(draft, at.PICK, thing)
    elif kind == kinds.KEY_CORRIDOR:
        for j in range(1, rows):
            remove_wall(draft, 1, j, 3)
        row = draw(draws, 0, rows)
        door = add_door(draws, draft, 2, row, 2, ANY, 1)
        thing = add_object(draws, draft, 2, row, params[P_FIRST], ANY)
        key_row = draw(draws, 0, rows)
        add_object(draws, draft, 0, key_row, at.KEY, draft[COLORS + door])
        place_agent(draws, draft, 1, rows // 2)
        connect_all(draws, draft, ANY)
        _ask_by_type(draft, at.PICK, thing)
    else:
        thing = add_object(draws, draft, 0, 0, at.BALL, ANY)
        place_agent(draws, draft, ANY, ANY)
        _ask_by_type(draft, at.PICK, thing)


@compiled
def generate_putnext(draws, draft, params):
    """PutNext classes, and MoveTwoAcross."""
    kind, count = params[P_KIND], params[P_COUNT]
    if kind == kinds.PUT_NEXT_LOCAL:
        place_agent(draws, draft, ANY, ANY)
        first = add_distractors(draws, draft, ANY, ANY, count, True)
        require_reachable(draws, draft)
        choose(draws, draft, count, 2)
        _ask_put_next(draft, 0, first + draft[CHOSEN], first + draft[CHOSEN + 1])
        return
    place_agent(draws, draft, 0, 0)
    left = add_distractors(draws, draft, 0, 0, count, True)
    right = add_distractors(draws, draft, 1, 0, count, True)
    remove_wall(draft, 0, 0, 0)
    if kind == kinds.PUT_NEXT:
        moved = left + draw(draws, 0, count)
        fixed = right + draw(draws, 0, count)
        if draw(draws, 0, 2) == 0:
            moved, fixed = fixed, moved
        _ask_put_next(draft, 0, moved, fixed)
        if params[P_FLAG]:
            draft[IN_HAND] = moved
    else:
        choose(draws, draft, count, 2)
        a, d = left + draft[CHOSEN], left + draft[CHOSEN + 1]
        choose(draws, draft, count, 2)
        b, c = right + draft[CHOSEN], right + draft[CHOSEN + 1]
        draft[INSTRUCTION + at.ROOT] = at.BEFORE
        _ask_put_next(draft, 0, a, b)
        _ask_put_next(draft, 2, c, d)


@compiled
def _ask_put_next(draft, leaf, moved, fixed):
    set_leaf(draft, leaf, at.PUTNEXT, 0)
    describe_thing(draft, 2 * leaf, moved)
    describe_thing(draft, 2 * leaf + 1, fixed)


@compiled
def generate_unlock(draws, draft, params):
    """Unlock classes, and KeyInBox."""
    kind = params[P_KIND]
    if kind == kinds.UNLOCK:
        room, door = _lock_a_room(draws, draft)
        only = draw(draws, 0, 2) == 0  # door of its colour
        connect_all(draws, draft, draft[COLORS + door] if only else ANY)
        _furnish_all(draws, draft, 3, room)
        _ask(draft, at.OPEN, door, 0)
    elif kind == kinds.UNLOCK_LOCAL:
        door = add_door(draws, draft, 1, 1, ANY, ANY, 1)
        add_object(draws, draft, 1, 1, at.KEY, draft[COLORS + door])
        if params[P_FLAG]:
            add_distractors(draws, draft, 1, 1, 3, True)
        place_agent(draws, draft, 1, 1)
        _ask_by_type(draft, at.OPEN, door)
    elif kind == kinds.KEY_IN_BOX:
        door = add_door(draws, draft, 1, 1, ANY, ANY, 1)
        key = add_thing(draws, draft, at.KEY, draft[COLORS + door])
        box = add_thing(draws, draft, at.BOX, draw_color(draws))
        draft[UNTRACKED + key], draft[INSIDE + box] = 1, key
        place_in_room(draws, draft, draft[at.G_COLS] + 1, box)
        place_agent(draws, draft, 1, 1)
        _ask_by_type(draft, at.OPEN, door)
    elif kind == kinds.UNLOCK_PICKUP or kind == kinds.BLOCKED_UNLOCK_PICKUP:
        blocked = kind == kinds.BLOCKED_UNLOCK_PICKUP
        box = add_object(draws, draft, 1, 0, at.BOX, ANY)
        door = add_door(draws, draft, 0, 0, 0, ANY, 1)
        if blocked:
            ball = add_thing(draws, draft, at.BALL, draw_color(draws))
            if not halted(draws):
                set_thing(draft, ball, draft[CELLS + door] - 1)
                draft[UNTRACKED + ball] = 1
        add_object(draws, draft, 0, 0, at.KEY, draft[COLORS + door])
        if params[P_FLAG]:
            add_distractors(draws, draft, ANY, ANY, 4, True)
        place_agent(draws, draft, 0, 0)
        if blocked:
            _ask_by_type(draft, at.PICK, box)
        else:
            _ask(draft, at.PICK, box, 0)
    else:
        choose(draws, draft, 6, 2)
        first, second = COLORS_BY_NAME[draft[CHOSEN]], COLORS_BY_NAME[draft[CHOSEN + 1]]
        add_door(draws, draft, 0, 0, 0, first, 1)
        add_object(draws, draft, 2, 0, at.KEY, first)
        add_door(draws, draft, 1, 0, 0, second, 1)
        add_object(draws, draft, 1, 0, at.KEY, second)
        ball = add_object(draws, draft, 0, 0, at.BALL, ANY)
        place_agent(draws, draft, 1, 0)
        _ask_by_type(draft, at.PICK, ball)
