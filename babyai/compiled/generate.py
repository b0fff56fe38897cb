"""(program, seed) -> the level that minigrid makes, written into a row of the world."""

from babyai import facts
from babyai.compiled import kinds
from babyai.compiled import layout as at
from babyai.compiled.describe import is_used, validate, write_matches
from babyai.compiled.draft import (
    AGENT_X,
    AGENT_Y,
    CELLS,
    COLORS,
    COUNT,
    DIRECTION,
    IN_HAND,
    INSIDE,
    INSTRUCTION,
    MAPS,
    STATES,
    TYPES,
    UNTRACKED,
    cell_of,
)
from babyai.compiled.draws import halted, start, try_again
from babyai.compiled.generators import (
    generate_goto,
    generate_open,
    generate_pickup,
    generate_putnext,
    generate_unlock,
)
from babyai.compiled.jit import compiled
from babyai.compiled.kinds import P_DRAWS, P_KIND, P_MAX_STEPS, P_UNBLOCKING
from babyai.compiled.level_gen import generate_any
from babyai.compiled.rooms import build_rooms


@compiled
def generate(world, row, seed, params, scratch, scratch_row):
    """Write the level of `seed` into `row`, as it is after minigrid's reset; the bot's part of the row is left alone.

    Args:
        world: The world.
        row: Where to, int.
        seed: Int in [0, 2**63).
        params: int64 (P,), `LevelProgram.params`.
        scratch: `draft.Scratch` of the world's geometry.
        scratch_row: Row of the scratch, int; no other thread may use it meanwhile.

    Returns:
        1, or 0 where minigrid's generator finds no level in the allowed number of draws; the row then keeps its level.
    """
    draws, draft = scratch.draws[scratch_row], scratch.draft[scratch_row]
    if not draft_level(draws, draft, seed, params):
        return 0
    _write_map(draft, world.cells[row], world.things[row])
    _write_things(draft, world.codes[row], world.places[row], world.inside[row])
    _write_scalars(draft, world.scalars[row], params)
    for k in range(at.NUM_INSTRUCTION):
        world.instruction[row, k] = draft[INSTRUCTION + k]
    for desc in range(at.NUM_DESCS):
        put = draft[INSTRUCTION + at.KIND + desc // 2] == at.PUTNEXT
        if is_used(draft, desc // 2) and (put or desc % 2 == 0):
            write_matches(
                draft, desc, world.desc[row, desc], world.desc_things[row, desc], world.desc_places[row, desc]
            )
        else:
            world.desc[row, desc, :] = 0
    held = draft[IN_HAND]
    if held != 0:  # minigrid takes it off the map after the lists are made, and leaves its `cur_pos`
        cell = draft[CELLS + held]
        world.cells[row, cell], world.things[row, cell] = at.EMPTY_CODE, 0
    return 1


@compiled
def draft_level(draws, draft, seed, params):
    """Make the level of `seed` in the draft; False where none is found in the allowed number of draws."""
    start(draws, seed, params[P_DRAWS])
    family = params[P_KIND] // 16
    while True:  # every attempt counts
        build_rooms(draws, draft)
        if family == kinds.GO:
            generate_goto(draws, draft, params)
        elif family == kinds.OPENING:
            generate_open(draws, draft, params)
        elif family == kinds.PICKING:
            generate_pickup(draws, draft, params)
        elif family == kinds.PUTTING:
            generate_putnext(draws, draft, params)
        elif family == kinds.UNLOCKING:
            generate_unlock(draws, draft, params)
        else:
            generate_any(draws, draft, params)
        validate(draws, draft, params[P_UNBLOCKING])
        if not halted(draws):
            return True
        if not try_again(draws):
            return False


@compiled
def _code(draft, thing):
    return (draft[TYPES + thing] * 6 + draft[COLORS + thing]) * 3 + draft[STATES + thing]


@compiled
def _write_map(draft, cells, things):
    cells[:] = at.WALL_CODE
    things[:] = 0
    for y in range(draft[at.G_HEIGHT]):
        first = cell_of(draft, 0, y)
        for cell in range(first, first + draft[at.G_WIDTH]):
            thing = draft[MAPS + cell]
            if thing == 0:
                cells[cell] = at.EMPTY_CODE
            elif thing != at.WALL_NUMBER:
                cells[cell], things[cell] = _code(draft, thing), thing


@compiled
def _write_things(draft, codes, places, inside):
    for thing in range(1, draft[COUNT] + 1):
        codes[thing] = _code(draft, thing)
        places[thing] = at.UNPLACED if draft[UNTRACKED + thing] else draft[CELLS + thing]
        inside[thing] = draft[INSIDE + thing]


@compiled
def _write_scalars(draft, scalars, params):
    scalars[at.AGENT] = cell_of(draft, draft[AGENT_X], draft[AGENT_Y])
    scalars[at.DIRECTION] = draft[DIRECTION]
    scalars[at.CARRIED] = draft[IN_HAND]
    scalars[at.STEPS], scalars[at.OUTCOME], scalars[at.THINGS] = 0, facts.RUNNING, draft[COUNT]
    walks = 0
    for leaf in range(4):
        if is_used(draft, leaf):
            walks += 2 if draft[INSTRUCTION + at.KIND + leaf] == at.PUTNEXT else 1
    rooms = draft[at.G_COLS] * draft[at.G_ROWS]
    own = walks * draft[at.G_ROOM_SIZE] * draft[at.G_ROOM_SIZE] * rooms
    scalars[at.MAX_STEPS] = params[P_MAX_STEPS] if params[P_MAX_STEPS] else own
