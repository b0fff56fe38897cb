"""A level at its start as plain ints, strings and lists: enough to draw it and to tell its rooms, without minigrid.

    context = build_env_context(simulator, target_pos)         # after Simulator.load()
    json.dumps(context)
    context["walls"]                                            # a picture, one string per row

Positions are [x, y] with [0, 0] the top left corner; lists of objects go row by row.
"""

from typing import Any

from babyai.simulator import Simulator

_LISTS = {"goal": "goals", "key": "keys", "ball": "balls", "box": "boxes", "door": "doors"}


def build_env_context(simulator: Simulator, target_pos: tuple[int, int] | None) -> dict[str, Any]:
    """Describes the level that `simulator` has just loaded.

    Rooms are those of the grid in which the level was laid out. Where walls between rooms were removed they still count
    as separate rooms.

    Args:
        simulator: no step taken yet.
        target_pos: [x, y] of the instruction's first target, None if there is none.

    Returns:
        a dict with
            grid_size: [width, height] in cells, outer walls included.
            agent_start_pos, agent_start_dir: [x, y]; 0..3: right, down, left, up.
            agent_start_room: top left [x, y] of the room in which the agent starts, a cell of its wall.
            room_grid_shape: [columns, rows].
            room_bounds: [x, y, width, height] of each room, row by row, walls included: neighbours share a wall.
            target_pos: [x, y] or None.
            goals, keys, balls, boxes: [x, y, color] of each; without what a box contains and the agent carries.
            doors: [x, y, color, is_open, is_locked] of each.
            carrying_at_start: what the agent carries already, such as "red ball", else None.
            walls: one string per row, "#" for a wall, "." for any other cell.
    """
    env = simulator.env
    width, height = simulator.width, simulator.height
    cells = env.grid.grid
    agent_x, agent_y = (int(coordinate) for coordinate in env.agent_pos)
    objects: dict[str, list[list]] = {name: [] for name in _LISTS.values()}
    for index, cell in enumerate(cells):
        if cell is not None and cell.type in _LISTS:
            entry = [index % width, index // width, cell.color]
            if cell.type == "door":
                entry += [bool(cell.is_open), bool(cell.is_locked)]
            objects[_LISTS[cell.type]].append(entry)
    marks = "".join("#" if cell is not None and cell.type == "wall" else "." for cell in cells)
    rooms = [room for row in env.room_grid for room in row]
    held = env.carrying
    return {
        "grid_size": [width, height],
        "agent_start_pos": [agent_x, agent_y],
        "agent_start_dir": int(env.agent_dir),
        "agent_start_room": _bounds(env.room_from_pos(agent_x, agent_y))[:2],
        "room_grid_shape": [int(env.num_cols), int(env.num_rows)],
        "room_bounds": [_bounds(room) for room in rooms],
        "target_pos": None if target_pos is None else [int(coordinate) for coordinate in target_pos],
        **objects,
        "carrying_at_start": None if held is None else f"{held.color} {held.type}",
        "walls": [marks[start : start + width] for start in range(0, width * height, width)],
    }


def _bounds(room: Any) -> list[int]:
    return [int(number) for number in (*room.top, *room.size)]
