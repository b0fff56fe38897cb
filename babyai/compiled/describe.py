"""Which things a description means, on a draft; and the lists that minigrid's verifiers begin with."""

from babyai.compiled import layout as at
from babyai.compiled.draft import (
    AGENT_X,
    AGENT_Y,
    CELLS,
    COLORS,
    COUNT,
    DESCS,
    DIRECTION,
    INSTRUCTION,
    LOCKED_ROOM,
    MAPS,
    STATES,
    TYPES,
    cell_of,
)
from babyai.compiled.draws import halted, reject
from babyai.compiled.jit import compiled
from babyai.compiled.rooms import agents_room, is_inside

_LOCKED = 2


@compiled
def is_at(draft, cell, location):
    """Whether a cell lies in the agent's room, on the side of the agent that LOC_* says."""
    if location == at.LOC_ANY:
        return True
    if not is_inside(draft, agents_room(draft), cell):
        return False
    x = cell % draft[at.G_STRIDE] - at.PAD - draft[AGENT_X]
    y = cell // draft[at.G_STRIDE] - at.PAD - draft[AGENT_Y]
    direction = draft[DIRECTION]
    ahead = x if direction % 2 == 0 else y
    aside = y if direction % 2 == 0 else -x  # to the agent's right, for directions 0 and 1
    if direction >= 2:
        ahead, aside = -ahead, -aside
    if location == at.LOC_LEFT:
        return aside < 0
    if location == at.LOC_RIGHT:
        return aside > 0
    if location == at.LOC_FRONT:
        return ahead > 0
    return ahead < 0


@compiled
def means(draft, desc, kind, color, cell):
    """Whether a description fits something of this type and colour in this cell."""
    wanted_kind, wanted_color, location = (
        draft[DESCS + 3 * desc],
        draft[DESCS + 3 * desc + 1],
        draft[DESCS + 3 * desc + 2],
    )
    if (wanted_kind != 0 and wanted_kind != kind) or (wanted_color >= 0 and wanted_color != color):
        return False
    return is_at(draft, cell, location)


@compiled
def means_thing(draft, desc, thing):
    """Whether a description fits a thing on the map."""
    cell = draft[CELLS + thing]
    return cell != 0 and means(draft, desc, draft[TYPES + thing], draft[COLORS + thing], cell)


@compiled
def any_meant(draft, desc, outside_locked):
    """Whether there is a thing that a description fits; with `outside_locked` one not in the locked room."""
    room = draft[LOCKED_ROOM]
    for thing in range(1, draft[COUNT] + 1):
        if means_thing(draft, desc, thing):
            if not (outside_locked and room >= 0 and is_inside(draft, room, draft[CELLS + thing])):
                return True
    return False


@compiled
def is_used(draft, leaf):
    """Whether the instruction has this leaf."""
    part = leaf // 2
    if part == 1 and draft[INSTRUCTION + at.ROOT] == at.SINGLE:
        return False
    return leaf % 2 == 0 or draft[INSTRUCTION + at.AND + part] != 0


@compiled
def validate(draws, draft, keep_keys):
    """Reject an instruction that minigrid would reject.

    These ask to put things next to each other that are the same or stand so already, or, with `keep_keys`, for a key in
    the colour of a locked door.
    """
    if halted(draws):
        return
    for leaf in range(4):
        if not is_used(draft, leaf):
            continue
        putting = draft[INSTRUCTION + at.KIND + leaf] == at.PUTNEXT
        if putting and _is_done(draft, 2 * leaf):
            reject(draws)
        if keep_keys:
            for desc in range(2 * leaf, 2 * leaf + (2 if putting else 1)):
                if draft[DESCS + 3 * desc] == at.KEY and _opens_a_door(draft, draft[DESCS + 3 * desc + 1]):
                    reject(draws)


@compiled
def _is_done(draft, desc):
    stride = draft[at.G_STRIDE]
    for moved in range(1, draft[COUNT] + 1):
        if not means_thing(draft, desc, moved):
            continue
        for fixed in range(1, draft[COUNT] + 1):
            if means_thing(draft, desc + 1, fixed):
                distance = abs(draft[CELLS + moved] - draft[CELLS + fixed])
                if distance == 0 or distance == 1 or distance == stride:
                    return True
    return False


@compiled
def _opens_a_door(draft, color):
    for thing in range(1, draft[COUNT] + 1):
        if draft[TYPES + thing] == at.DOOR and draft[STATES + thing] == _LOCKED and draft[COLORS + thing] == color:
            return True
    return False


@compiled
def write_matches(draft, desc, out, things, places):
    """Write what a description means, in minigrid's order: column by column, walls included.

    Args:
        draft: The draft.
        desc: Number of the description.
        out: int32 (NUM_DESC,), the description's row of `World.desc`.
        things: uint8 (MAX_LISTED,), its row of `World.desc_things`.
        places: int32 (MAX_LISTED,), its row of `World.desc_places`.
    """
    count = 0
    for x in range(draft[at.G_WIDTH]):
        for y in range(draft[at.G_HEIGHT]):
            cell = cell_of(draft, x, y)
            thing = draft[MAPS + cell]
            if thing == 0:
                continue
            if thing == at.WALL_NUMBER:
                meant = draft[DESCS + 3 * desc] == 0 and means(draft, desc, at.WALL, at.GREY, cell)
            else:
                meant = means_thing(draft, desc, thing)
            if meant and count < at.MAX_LISTED:
                things[count], places[count] = thing, cell
                count += 1
    for column in range(3):
        out[column] = draft[DESCS + 3 * desc + column]
    out[at.D_PLURAL] = count > 1
    out[at.D_THINGS] = out[at.D_PLACES] = count
