"""The things that the bot may go to: those of an instruction's descriptions, and its own lists of keys.

Thing k is taken to lie at place k, as minigrid's bot has it, also where the two no longer match: places of descriptions
are those of the last drop action, keys are listed once.
"""

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import CARRIED, DEPTH, KEY
from babyai.compiled.plan import NO_MATCH, OUT_OF_REACH
from babyai.compiled.search import PLACE, PUSHING, find, way_to


@compiled
def nearest_listed(world, row, datum_kind, datum, adjacent):
    """Find the nearest of the things of a description or key list that the bot has seen.

    Returns:
        the thing and its place. Place 0: none was seen; below 0: minus a reason for giving up. Thing k is taken to lie
        at place k, as minigrid's bot has it, also where the two lists no longer match.
    """
    described = datum_kind == at.DATUM_DESC
    if described:
        listed, placed = world.desc[row, datum, at.D_THINGS], world.desc[row, datum, at.D_PLACES]
    else:
        listed = placed = world.key_count[row, datum]
    best, best_thing, best_place = 999, 0, 0
    if listed == 0:
        return best_thing, -NO_MATCH
    carried = world.scalars[row, CARRIED]
    for k in range(min(listed, placed)):
        if described:
            thing, place = np.int64(world.desc_things[row, datum, k]), np.int64(world.desc_places[row, datum, k])
        else:
            thing, place = np.int64(world.key_things[row, datum, k]), np.int64(world.key_places[row, datum, k])
        if thing == at.WALL_NUMBER or thing == carried or world.seen[row, place] == 0:
            continue
        cell, which = find(world, row, PLACE, place)
        if cell == 0:
            return best_thing, -OUT_OF_REACH
        distance, _ = way_to(world, row, which, place)
        if which == PUSHING:
            distance += 4 if carried == 0 else 7  # moves for clearing the way, at least
        if distance == 0:
            distance = 3 if adjacent else 2
        if adjacent and distance == 1:
            distance = 3
        if distance < best:
            best, best_thing, best_place = distance, thing, place
    return best_thing, best_place


@compiled
def list_keys(world, row, door_code):
    """Return a list of the keys of a door's colour that lie around now, -1 if there is no room for it.

    The bot follows it even when keys have been moved meanwhile, as minigrid's does.
    """
    number = _room_for_list(world, row)
    if number < 0:
        return -1
    code = KEY * 18 + door_code // 3 % 6 * 3
    first = at.PAD * np.int64(world.geometry[row, at.G_STRIDE]) + at.PAD
    width, height = world.geometry[row, at.G_WIDTH], world.geometry[row, at.G_HEIGHT]
    stride = np.int64(world.geometry[row, at.G_STRIDE])
    count = 0
    for x in range(width):  # column by column: of keys equally near the first counts
        for y in range(height):
            cell = first + y * stride + x
            if world.cells[row, cell] == code:
                world.key_things[row, number, count] = world.things[row, cell]
                world.key_places[row, number, count] = cell
                count += 1
    world.key_count[row, number] = count
    # Equal lists are one, so that a plan that goes round in circles does not use them up
    for other in range(world.scalars[row, at.KEY_LISTS]):
        equal = other != number and world.key_count[row, other] == count
        for k in range(count if equal else 0):
            equal = equal and world.key_things[row, other, k] == world.key_things[row, number, k]
            equal = equal and world.key_places[row, other, k] == world.key_places[row, number, k]
        if equal:
            if number == world.scalars[row, at.KEY_LISTS] - 1:
                world.scalars[row, at.KEY_LISTS] -= 1
            return other
    return number


@compiled
def _room_for_list(world, row):
    """Return a key list that no subgoal refers to, -1 if there is none."""
    fresh = np.int64(world.scalars[row, at.KEY_LISTS])
    if fresh < at.MAX_KEY_LISTS:
        world.scalars[row, at.KEY_LISTS] += 1
        return fresh
    used = np.int64(0)
    for k in range(world.scalars[row, DEPTH]):
        subgoal = np.int64(world.stack[row, k])
        if subgoal >> 8 & 15 == at.DATUM_KEYS:
            used |= np.int64(1) << (subgoal >> 12)
    for k in range(at.MAX_KEY_LISTS):
        if not used >> k & 1:
            return k
    return -1
