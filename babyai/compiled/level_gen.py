"""minigrid's LevelGen on a draft: any sentence of the BabyAI language, in any rooms."""

from babyai.compiled import kinds
from babyai.compiled import layout as at
from babyai.compiled.describe import any_meant
from babyai.compiled.draft import COLORS, COLORS_BY_NAME, DOOR_CELLS, INSTRUCTION, LOCKED_ROOM, set_desc, set_leaf
from babyai.compiled.draws import draw, draw_fraction, halted, reject
from babyai.compiled.jit import compiled
from babyai.compiled.kinds import (
    P_ACTIONS,
    P_COUNT,
    P_FORMS,
    P_IMPLICIT_UNLOCK,
    P_LOCATIONS,
    P_LOCKED_ROOM,
    P_NUM_ACTIONS,
    P_NUM_FORMS,
    P_UNBLOCKING,
)
from babyai.compiled.rooms import (
    ANY,
    add_distractors,
    add_door,
    add_object,
    agents_room,
    connect_all,
    place_agent,
    require_reachable,
)

_DESC_TRIES = 101


@compiled
def generate_any(draws, draft, params):
    """Fill the rooms, place the agent outside the locked one, and draw a sentence about what is there."""
    if draw_fraction(draws) < params[P_LOCKED_ROOM]:
        _add_locked_room(draws, draft)
    connect_all(draws, draft, ANY)
    add_distractors(draws, draft, ANY, ANY, params[P_COUNT], False)
    while not halted(draws):  # every turn draws
        place_agent(draws, draft, ANY, ANY)
        if agents_room(draft) != draft[LOCKED_ROOM]:
            break
    if not params[P_UNBLOCKING]:
        require_reachable(draws, draft)
    if not halted(draws):
        _draw_instruction(draws, draft, params)


@compiled
def _add_locked_room(draws, draft):
    cols, rows = draft[at.G_COLS], draft[at.G_ROWS]
    door = 0
    while not halted(draws):  # every turn draws
        i = draw(draws, 0, cols)
        j = draw(draws, 0, rows)
        side = draw(draws, 0, 4)
        draft[LOCKED_ROOM] = j * cols + i
        if draft[DOOR_CELLS + 4 * (j * cols + i) + side] != 0:
            door = add_door(draws, draft, i, j, side, ANY, 1)
            break
    while not halted(draws):  # every turn draws
        i = draw(draws, 0, cols)
        j = draw(draws, 0, rows)
        if j * cols + i != draft[LOCKED_ROOM]:
            add_object(draws, draft, i, j, at.KEY, draft[COLORS + door])
            break


@compiled
def _draw_instruction(draws, draft, params):
    form = params[P_FORMS + draw(draws, 0, params[P_NUM_FORMS])]
    for part in range(2 if form == kinds.SEQUENCE else 1):
        if form == kinds.SEQUENCE:
            draft[INSTRUCTION + at.AND + part] = draw(draws, 0, 2)  # action, and
        elif form == kinds.BOTH:
            draft[INSTRUCTION + at.AND + part] = 1
        for leaf in range(2 * part, 2 * part + (2 if draft[INSTRUCTION + at.AND + part] else 1)):
            if form != kinds.ACTION and draft[INSTRUCTION + at.AND + part]:
                draw(draws, 0, 1)  # minigrid draws from a list of one; nothing is taken, but it counts
            _draw_action(draws, draft, params, leaf)
    if form == kinds.SEQUENCE:
        draft[INSTRUCTION + at.ROOT] = at.BEFORE + draw(draws, 0, 2)


@compiled
def _draw_action(draws, draft, params, leaf):
    action = params[P_ACTIONS + draw(draws, 0, params[P_NUM_ACTIONS])]
    set_leaf(draft, leaf, action, 0)
    for k in range(2 if action == at.PUTNEXT else 1):
        types = 4  # box, ball, key, door
        if action == at.OPEN:
            types = 1
        elif action == at.PICK or (action == at.PUTNEXT and k == 0):
            types = 3
        _draw_desc(draws, draft, params, 2 * leaf + k, types)


@compiled
def _draw_desc(draws, draft, params, desc, types):
    """Draw a description of something that is there; of a door alone where `types` is 1."""
    for _ in range(_DESC_TRIES):
        rank = draw(draws, 0, 7)
        color = ANY if rank == 0 else COLORS_BY_NAME[rank - 1]
        kind = draw(draws, 0, types)
        kind = at.DOOR if types == 1 else at.BOX - kind
        location = at.LOC_ANY
        if params[P_LOCATIONS] and draw(draws, 0, 2) == 0:
            location = at.LOC_LEFT + draw(draws, 0, 4)
        set_desc(draft, desc, kind, color, location)
        if halted(draws) or any_meant(draft, desc, not params[P_IMPLICIT_UNLOCK]):
            return
    reject(draws)
