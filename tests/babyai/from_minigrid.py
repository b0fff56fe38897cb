"""A level of minigrid's own objects, or any situation arranged by hand, copied into a row of the compiled world."""

from typing import Any

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from babyai.compiled import layout as at
from babyai.compiled.layout import World
from babyai.facts import RUNNING

_LOCATIONS = {None: at.LOC_ANY, "left": at.LOC_LEFT, "right": at.LOC_RIGHT, "front": at.LOC_FRONT}
_LOCATIONS["behind"] = at.LOC_BEHIND
_KINDS = {GoToInstr: at.GOTO, OpenInstr: at.OPEN, PickupInstr: at.PICK, PutNextInstr: at.PUTNEXT}
_STATUS = {False: at.CONTINUE, "continue": at.CONTINUE, "success": at.SUCCEEDED, "failure": at.FAILED}


class UnknownInstructionError(ValueError):
    """The compiled world has no form for this instruction or level."""


def geometry_of(env: Any) -> np.ndarray:
    """Return the geometry of a minigrid RoomGrid environment, see `layout.build_geometry`."""
    geometry = at.build_geometry(env.room_size, env.num_cols, env.num_rows)
    if (env.width, env.height) != (geometry[at.G_WIDTH], geometry[at.G_HEIGHT]):
        raise UnknownInstructionError(f"expected a level of its rooms' size, found {env.width} x {env.height} cells")
    return geometry


def load_level(world: World, row: int, env: Any) -> None:
    """Copy the present state of a minigrid environment into `row`; the bot's part of the row is left alone.

    Args:
        world: Of the environment's geometry.
        row: Where to.
        env: A `RoomGridLevel`, reset.

    Raises:
        UnknownInstructionError: The level cannot be expressed.
    """
    numbers: dict[int, int] = {}  # id of a minigrid object -> thing
    stride = int(world.geometry[0, at.G_STRIDE])

    def cell_at(x: int, y: int) -> int:
        return (int(y) + at.PAD) * stride + int(x) + at.PAD

    def number_of(thing: WorldObj | None) -> int:
        if thing is None:
            return 0
        if thing.type == "wall":
            return at.WALL_NUMBER
        if id(thing) not in numbers:
            number = len(numbers) + 1
            if number > at.MAX_THINGS or thing.type not in ("door", "key", "ball", "box"):
                raise UnknownInstructionError(f"expected at most {at.MAX_THINGS} doors, keys, balls and boxes")
            if thing.type == "door" and thing.is_open and thing.is_locked:
                raise UnknownInstructionError("expected doors to be open, shut or locked, found one open and locked")
            numbers[id(thing)] = number
            kind, color, state = thing.encode()
            world.codes[row, number] = (kind * 6 + color) * 3 + state
            place = thing.cur_pos
            if place is None:
                world.places[row, number] = at.UNPLACED
            else:
                world.places[row, number] = at.NOWHERE if tuple(place) == (-1, -1) else cell_at(*place)
            world.inside[row, number] = number_of(thing.contains) if thing.type == "box" else 0
        return numbers[id(thing)]

    world.cells[row] = at.WALL_CODE
    world.things[row] = 0
    for y in range(env.height):
        for x in range(env.width):
            thing = env.grid.get(x, y)
            index = cell_at(x, y)
            if thing is None:
                world.cells[row, index] = at.EMPTY_CODE
            elif thing.type != "wall":
                number = number_of(thing)
                world.things[row, index] = number
                world.cells[row, index] = world.codes[row, number]
            elif thing.color != "grey":
                raise UnknownInstructionError(f"expected grey walls, found a {thing.color} one")
    scalars = world.scalars[row]
    scalars[at.AGENT] = cell_at(*env.agent_pos)
    scalars[at.DIRECTION] = env.agent_dir
    scalars[at.CARRIED] = number_of(env.carrying)
    scalars[at.STEPS], scalars[at.MAX_STEPS] = env.step_count, env.max_steps
    scalars[at.OUTCOME] = RUNNING
    _load_instruction(world, row, env.instrs, number_of, cell_at)
    scalars[at.THINGS] = len(numbers)


def _load_instruction(world: World, row: int, instr: Instr, number_of: Any, cell_at: Any) -> None:
    out = world.instruction[row]
    out[:] = 0
    world.desc[row] = 0
    if isinstance(instr, BeforeInstr | AfterInstr):
        out[at.ROOT] = at.BEFORE if isinstance(instr, BeforeInstr) else at.AFTER
        out[at.ROOT_STRICT] = instr.strict
        parts = [instr.instr_a, instr.instr_b]
        for k, done in enumerate((instr.a_done, instr.b_done)):
            out[at.PART_DONE + k] = _STATUS[done]
    else:
        parts = [instr]
    for p, part in enumerate(parts):
        leaves = [part]
        if isinstance(part, AndInstr):
            out[at.AND + p] = 1
            leaves = [part.instr_a, part.instr_b]
            for k, done in enumerate((part.a_done, part.b_done)):
                out[at.LEAF_DONE + 2 * p + k] = _STATUS[done]
        for k, leaf in enumerate(leaves):
            if type(leaf) not in _KINDS:
                raise UnknownInstructionError(f"expected one of minigrid's four action instructions, found {leaf!r}")
            number = 2 * p + k
            out[at.KIND + number] = _KINDS[type(leaf)]
            out[at.STRICT + number] = getattr(leaf, "strict", False)
            out[at.PRE_CARRYING + number] = number_of(getattr(leaf, "preCarrying", None))
            putting = isinstance(leaf, PutNextInstr)
            descs = (leaf.desc_move, leaf.desc_fixed) if putting else (leaf.desc,)
            for d, desc in enumerate(descs):
                _load_desc(world, row, 2 * number + d, desc, number_of, cell_at)


def _load_desc(world: World, row: int, index: int, desc: ObjDesc, number_of: Any, cell_at: Any) -> None:
    if max(len(desc.obj_set), len(desc.obj_poss)) > at.MAX_LISTED:
        raise UnknownInstructionError(f"expected at most {at.MAX_LISTED} matches of {desc!r}")
    out = world.desc[row, index]
    out[at.D_TYPE] = 0 if desc.type is None else OBJECT_TO_IDX[desc.type]
    out[at.D_COLOR] = -1 if desc.color is None else COLOR_TO_IDX[desc.color]
    out[at.D_LOC] = _LOCATIONS[desc.loc]
    out[at.D_PLURAL] = len(desc.obj_set) > 1
    out[at.D_THINGS], out[at.D_PLACES] = len(desc.obj_set), len(desc.obj_poss)
    for k, thing in enumerate(desc.obj_set):
        world.desc_things[row, index, k] = number_of(thing)
    for k, place in enumerate(desc.obj_poss):
        world.desc_places[row, index, k] = cell_at(*place)
