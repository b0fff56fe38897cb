"""A level at its start as plain ints, strings and lists: enough to draw it and to tell its rooms, without minigrid.

    context = describe_level(world, row, memory)                # after find_nearest()
    json.dumps(context)
    context["walls"]                                            # a picture, one string per row

Positions are [x, y] with [0, 0] the top left corner; lists of objects go row by row.
"""

from typing import Any

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.layout import World
from babyai.compiled.record import Memory
from babyai.facts import COLORS, KINDS, TARGET

_LISTS = {at.KEY: "keys", at.BALL: "balls", at.BOX: "boxes", at.DOOR: "doors"}


def describe_level(world: World, row: int, memory: Memory) -> dict[str, Any]:
    """Describe the level just loaded into `row`.

    Rooms are those of the grid in which the level was laid out. Where walls between rooms were removed they still count
    as separate rooms.

    Args:
        world: No step has been taken in `row` yet.
        row: Which level.
        memory: After `find_nearest` for this row: its nearest target is the context's `target_pos`.

    Returns:
        a dict with
            grid_size: [width, height] in cells, outer walls included.
            agent_start_pos, agent_start_dir: [x, y]; 0..3: right, down, left, up.
            agent_start_room: top left [x, y] of the room in which the agent starts, a cell of its wall.
            room_grid_shape: [columns, rows].
            room_bounds: [x, y, width, height] of each room, row by row, walls included: neighbours share a wall.
            target_pos: [x, y] of the instruction's first target, None if there is none.
            goals, keys, balls, boxes: [x, y, color] of each; without what a box contains and the agent carries.
            doors: [x, y, color, is_open, is_locked] of each.
            carrying_at_start: what the agent carries already, such as "red ball", else None.
            walls: one string per row, "#" for a wall, "." for any other cell.
    """
    width, height, stride, room_size, cols, rows, size = world.geometry[row].tolist()
    pitch = room_size - 1
    scalars = world.scalars[row].tolist()
    x, y = _position(scalars[at.AGENT], stride)
    padded = world.cells[row, :size].reshape(-1, stride)
    cells = padded[at.PAD : at.PAD + height, at.PAD : at.PAD + width]  # (height, width)
    objects: dict[str, list[list]] = {"goals": [], **{_LISTS[kind]: [] for kind in (at.KEY, at.BALL, at.BOX, at.DOOR)}}
    occupied = np.flatnonzero((cells != at.EMPTY_CODE) & (cells != at.WALL_CODE))
    codes = cells.reshape(-1)[occupied].tolist()
    for index, code in zip(occupied.tolist(), codes, strict=True):
        entry = [index % width, index // width, COLORS[code // 3 % 6]]
        if code // 18 == at.DOOR:
            entry += [code % 3 == 0, code % 3 == 2]
        objects[_LISTS[code // 18]].append(entry)
    marks = np.where(cells == at.WALL_CODE, b"#", b".").astype("S1")
    room_x, room_y = x // pitch * pitch, y // pitch * pitch
    held = scalars[at.CARRIED]
    target = None
    if memory.moves[row, TARGET] >= 0:
        target = list(_position(int(memory.cells[row, TARGET]), stride))
    return {
        "grid_size": [width, height],
        "agent_start_pos": [x, y],
        "agent_start_dir": scalars[at.DIRECTION],
        "agent_start_room": [room_x, room_y],
        "room_grid_shape": [cols, rows],
        "room_bounds": [[i * pitch, j * pitch, room_size, room_size] for j in range(rows) for i in range(cols)],
        "target_pos": target,
        **objects,
        "carrying_at_start": _name(int(world.codes[row, held])) if held else None,
        "walls": [line.tobytes().decode() for line in marks],
    }


def _position(cell: int, stride: int) -> tuple[int, int]:
    return cell % stride - at.PAD, cell // stride - at.PAD


def _name(code: int) -> str:
    return f"{COLORS[code // 3 % 6]} {KINDS[code // 18 - at.DOOR]}"
