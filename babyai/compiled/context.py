"""A row's level at its start as plain ints, strings and lists: what `babyai.context` describes, from arrays."""

from typing import Any

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.layout import World
from babyai.compiled.record import Memory
from babyai.facts import COLORS, KINDS, TARGET

_LISTS = {at.KEY: "keys", at.BALL: "balls", at.BOX: "boxes", at.DOOR: "doors"}


def describe_level(world: World, row: int, memory: Memory) -> dict[str, Any]:
    """Return what `babyai.context.build_env_context` says of the level just loaded into `row`.

    Args:
        world: No step has been taken in `row` yet.
        row: Which level.
        memory: After `find_nearest` for this row: its nearest target is the context's `target_pos`.
    """
    width, height, stride, room_size, cols, rows, _ = world.geometry.tolist()
    pitch = room_size - 1
    scalars = world.scalars[row].tolist()
    x, y = _position(scalars[at.AGENT], stride)
    cells = world.cells[row].reshape(-1, stride)[at.PAD : at.PAD + height, at.PAD : at.PAD + width]  # (height, width)
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
