"""minigrid's room grid on a draft: rooms and walls, objects, doors, the agent, distractors, what can be reached.

Every function draws in the order in which minigrid does. Arguments `i`, `j`, `side`, `kind`, `color` and `locked` may
be ANY, which draws them. Functions that give up reject the attempt, see `draws`.
"""

from babyai.compiled import layout as at
from babyai.compiled.draft import (
    AGENT_X,
    AGENT_Y,
    CELLS,
    CHOSEN,
    COLORS,
    COLORS_BY_NAME,
    COUNT,
    DIRECTION,
    DOOR_CELLS,
    DOORS,
    IN_HAND,
    INSTRUCTION,
    LEFT_OVER,
    LOCKED,
    LOCKED_ROOM,
    MAPS,
    OPENING,
    PRESENT,
    STAMP,
    STATES,
    TYPES,
    add_thing,
    cell_of,
    set_thing,
)
from babyai.compiled.draws import draw, halted, reject
from babyai.compiled.jit import compiled

ANY = -1

_PLACE_TRIES = 1001  # max_tries=1000, and one more
_CONNECT_TRIES = 5001
_OPEN, _CLOSED, _LOCKED = range(3)  # a door's state


@compiled
def build_rooms(draws, draft):
    """Begin an attempt: empty rooms, where their doors may be, the agent in the middle, no instruction."""
    cells, cols, rows = draft[at.G_CELLS], draft[at.G_COLS], draft[at.G_ROWS]
    pitch = draft[at.G_ROOM_SIZE] - 1
    for k in range(cells):
        draft[MAPS + k] = draft[MAPS + 3 * cells + k]
    for k in range(INSTRUCTION, LOCKED + cols * rows):
        draft[k] = 0
    for j in range(rows):
        for i in range(cols):
            room = 4 * (j * cols + i)
            x, y = i * pitch, j * pitch
            if i + 1 < cols:
                cell = cell_of(draft, x + pitch, draw(draws, y + 1, y + pitch))
                draft[DOOR_CELLS + room] = draft[DOOR_CELLS + room + 4 + 2] = cell
            if j + 1 < rows:
                cell = cell_of(draft, draw(draws, x + 1, x + pitch), y + pitch)
                draft[DOOR_CELLS + room + 1] = draft[DOOR_CELLS + room + 4 * cols + 3] = cell
    middle = draft[at.G_ROOM_SIZE] // 2
    draft[AGENT_X], draft[AGENT_Y] = cols // 2 * pitch + middle, rows // 2 * pitch + middle
    draft[DIRECTION], draft[COUNT], draft[PRESENT], draft[IN_HAND], draft[LOCKED_ROOM] = 0, 0, 0, 0, -1


@compiled
def neighbour(draft, room, side):
    """Return the room behind a side, which must have one."""
    if side == 0:
        return room + 1
    if side == 1:
        return room + draft[at.G_COLS]
    if side == 2:
        return room - 1
    return room - draft[at.G_COLS]


@compiled
def agents_room(draft):
    """Return the room in which the agent stands; a gap in a wall belongs to the room on its right or below."""
    pitch = draft[at.G_ROOM_SIZE] - 1
    return draft[AGENT_Y] // pitch * draft[at.G_COLS] + draft[AGENT_X] // pitch


@compiled
def is_inside(draft, room, cell):
    """Whether a cell lies in a room or in one of its walls."""
    cols, size = draft[at.G_COLS], draft[at.G_ROOM_SIZE]
    x = cell % draft[at.G_STRIDE] - at.PAD - room % cols * (size - 1)
    y = cell // draft[at.G_STRIDE] - at.PAD - room // cols * (size - 1)
    return 0 <= x < size and 0 <= y < size


@compiled
def draw_color(draws):
    """Draw one of the six colours."""
    return COLORS_BY_NAME[draw(draws, 0, 6)]


@compiled
def choose(draws, draft, n, k):
    """Draw k different ones of 0..n-1, in order, into CHOSEN."""
    for e in range(n):
        draft[LEFT_OVER + e] = e
    for c in range(k):
        index = draw(draws, 0, n - c)
        draft[CHOSEN + c] = draft[LEFT_OVER + index]
        for e in range(index, n - c - 1):
            draft[LEFT_OVER + e] = draft[LEFT_OVER + e + 1]


@compiled
def draw_cell(draws, draft, room, agent_x, agent_y, near):
    """Draw an empty cell of a room that is at least `near` steps from (agent_x, agent_y); 0 where given up."""
    pitch = draft[at.G_ROOM_SIZE] - 1
    x_low = room % draft[at.G_COLS] * pitch
    y_low = room // draft[at.G_COLS] * pitch
    for _ in range(_PLACE_TRIES):
        x = draw(draws, x_low, x_low + pitch + 1)
        y = draw(draws, y_low, y_low + pitch + 1)
        cell = cell_of(draft, x, y)
        if draft[MAPS + cell] == 0 and abs(x - agent_x) + abs(y - agent_y) >= near:
            return cell
        if halted(draws):
            break
    reject(draws)
    return 0


@compiled
def place_in_room(draws, draft, room, thing):
    """Put an object into a room, not beside the agent."""
    cell = draw_cell(draws, draft, room, draft[AGENT_X], draft[AGENT_Y], 2)
    if not halted(draws):
        set_thing(draft, thing, cell)
        draft[PRESENT] |= 1 << (6 * (draft[TYPES + thing] - at.KEY) + draft[COLORS + thing])


@compiled
def add_object(draws, draft, i, j, kind, color):
    """Put a new key, ball or box into room (i, j); return its number."""
    if kind == ANY:
        kind = at.KEY + draw(draws, 0, 3)
    if color == ANY:
        color = draw_color(draws)
    thing = add_thing(draws, draft, kind, color)
    place_in_room(draws, draft, j * draft[at.G_COLS] + i, thing)
    return thing


@compiled
def add_distractors(draws, draft, i, j, count, unique):
    """Put `count` random objects into room (i, j); return the number of the first, the others follow.

    With `unique` no two objects in rooms get the same type and colour.
    """
    first = draft[COUNT] + 1
    added = 0
    while added < count and not halted(draws):  # every turn draws
        color = draw_color(draws)
        kind = at.KEY + draw(draws, 0, 3)
        if unique and draft[PRESENT] >> (6 * (kind - at.KEY) + color) & 1:
            continue
        column = draw(draws, 0, draft[at.G_COLS]) if i == ANY else i
        row = draw(draws, 0, draft[at.G_ROWS]) if j == ANY else j
        add_object(draws, draft, column, row, kind, color)
        added += 1
    return first


@compiled
def add_door(draws, draft, i, j, side, color, locked):
    """Put a door into a wall of room (i, j); return its number."""
    room = j * draft[at.G_COLS] + i
    if side == ANY:
        while True:
            side = draw(draws, 0, 4)
            free = draft[DOOR_CELLS + 4 * room + side] != 0 and draft[DOORS + 4 * room + side] == 0
            if free or halted(draws):
                break
    if color == ANY:
        color = draw_color(draws)
    if locked == ANY:
        locked = 1 if draw(draws, 0, 2) == 0 else 0
    thing = add_thing(draws, draft, at.DOOR, color)
    if not halted(draws):
        draft[STATES + thing] = _LOCKED if locked else _CLOSED
        draft[LOCKED + room] = locked
        set_thing(draft, thing, draft[DOOR_CELLS + 4 * room + side])
        draft[DOORS + 4 * room + side] = thing
        draft[DOORS + 4 * neighbour(draft, room, side) + (side + 2) % 4] = thing
    return thing


@compiled
def remove_wall(draft, i, j, side):
    """Open the whole wall between room (i, j) and its neighbour."""
    room, pitch = j * draft[at.G_COLS] + i, draft[at.G_ROOM_SIZE] - 1
    x, y = i * pitch + (pitch if side == 0 else 0), j * pitch + (pitch if side == 1 else 0)
    for k in range(1, pitch):
        cell = cell_of(draft, x, y + k) if side % 2 == 0 else cell_of(draft, x + k, y)
        draft[MAPS + cell] = 0
    draft[DOORS + 4 * room + side] = OPENING
    draft[DOORS + 4 * neighbour(draft, room, side) + (side + 2) % 4] = OPENING


@compiled
def place_agent(draws, draft, i, j):
    """Put the agent into room (i, j), where it does not face an object."""
    if i == ANY:
        i = draw(draws, 0, draft[at.G_COLS])
    if j == ANY:
        j = draw(draws, 0, draft[at.G_ROWS])
    while not halted(draws):  # every turn draws
        cell = draw_cell(draws, draft, j * draft[at.G_COLS] + i, -1, -1, 0)
        direction = draw(draws, 0, 4)
        if halted(draws):
            break
        draft[AGENT_X] = cell % draft[at.G_STRIDE] - at.PAD
        draft[AGENT_Y] = cell // draft[at.G_STRIDE] - at.PAD
        draft[DIRECTION] = direction
        ahead = (1 - direction) if direction % 2 == 0 else (2 - direction) * draft[at.G_STRIDE]
        if draft[MAPS + cell + ahead] in (0, at.WALL_NUMBER):
            break


@compiled
def _rooms_reached(draft):
    """Count the rooms that can be reached from the agent's through doors, locked ones too, and openings."""
    reached = 1 << agents_room(draft)
    count = 1
    rooms = draft[at.G_COLS] * draft[at.G_ROWS]
    for _ in range(rooms):
        before = reached
        for room in range(rooms):
            if reached >> room & 1:
                for side in range(4):
                    if draft[DOORS + 4 * room + side] != 0:
                        other = neighbour(draft, room, side)
                        if not reached >> other & 1:
                            reached |= 1 << other
                            count += 1
        if reached == before:
            break
    return count


@compiled
def connect_all(draws, draft, without):
    """Add doors, in any colour but `without` (ANY for all six), until every room can be reached."""
    cols, rows = draft[at.G_COLS], draft[at.G_ROWS]
    missing = cols * rows - _rooms_reached(draft)
    for _ in range(_CONNECT_TRIES):
        if missing == 0 or halted(draws):
            return
        i = draw(draws, 0, cols)
        j = draw(draws, 0, rows)
        side = draw(draws, 0, 4)
        room = j * cols + i
        if draft[DOOR_CELLS + 4 * room + side] == 0 or draft[DOORS + 4 * room + side] != 0:
            continue
        if draft[LOCKED + room] or draft[LOCKED + neighbour(draft, room, side)]:
            continue
        if without == ANY:
            color = draw_color(draws)
        else:
            rank = draw(draws, 0, 5)
            for k in range(rank + 1):
                if COLORS_BY_NAME[k] == without:
                    rank += 1
                    break
            color = COLORS_BY_NAME[rank]
        add_door(draws, draft, i, j, side, color, 0)
        missing = cols * rows - _rooms_reached(draft)
    if missing > 0:
        reject(draws)


@compiled
def all_reachable(draft):
    """Whether the agent could reach every thing on the map if all doors were open and nothing was moved."""
    draft[STAMP] += 1
    stamp, stride, cells = draft[STAMP], draft[at.G_STRIDE], draft[at.G_CELLS]
    marks, stack = MAPS + cells, MAPS + 2 * cells
    missing = 0
    for thing in range(1, draft[COUNT] + 1):
        missing += draft[CELLS + thing] != 0
    start = cell_of(draft, draft[AGENT_X], draft[AGENT_Y])
    draft[stack] = start
    draft[marks + start] = stamp
    depth = 1
    while depth > 0 and missing > 0:  # a cell is stacked at most once
        depth -= 1
        cell = draft[stack + depth]
        for side in range(4):
            other = cell + ((1 - side) if side % 2 == 0 else (2 - side) * stride)
            if draft[marks + other] == stamp:
                continue
            draft[marks + other] = stamp
            thing = draft[MAPS + other]
            if thing == at.WALL_NUMBER:
                continue
            missing -= thing != 0
            if thing == 0 or draft[TYPES + thing] == at.DOOR:
                draft[stack + depth] = other
                depth += 1
    return missing == 0


@compiled
def require_reachable(draws, draft):
    """Reject the attempt unless everything can be reached."""
    if not halted(draws) and not all_reachable(draft):
        reject(draws)
