"""A level's description at its start equals minigrid's own; so do the codes."""

import contextlib
import io
import json
import subprocess
import sys
from math import hypot
from pathlib import Path

import gymnasium
import pytest
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from babyai.compiled import layout
from babyai.facts import ACTION_NAMES, COLORS, KINDS, LEFT, OBJECT_NAMES, TARGET
from babyai.level_seeds import SeedList
from babyai.levels import list_tasks
from babyai.plain_facts import Recorder
from babyai.plain_world import Expert, Simulator
from babyai.vector_env import VectorEnv
from tests.babyai.played_facts import play


@pytest.mark.parametrize("task_id", list_tasks())
def test_env_context_equals_minigrid(task_id):
    simulator = Simulator(task_id)
    recorder = Recorder(simulator, Expert(simulator))
    reference = gymnasium.make(task_id, disable_env_checker=True).unwrapped
    seed = 2
    simulator.load(seed)
    recorder.start()
    context = recorder.env_context
    with contextlib.redirect_stdout(io.StringIO()):  # "Sampling rejected: ..."
        reference.reset(seed=seed)
    assert json.loads(json.dumps(context, allow_nan=False)) == context
    grid = reference.grid
    assert context["grid_size"] == [reference.width, reference.height]
    assert context["agent_start_pos"] == [*reference.agent_pos]
    assert context["agent_start_dir"] == reference.agent_dir
    room = reference.room_from_pos(*reference.agent_pos)
    assert context["agent_start_room"] == [*room.top]
    assert context["room_grid_shape"] == [reference.num_cols, reference.num_rows]
    rooms = [room for row in reference.room_grid for room in row]
    assert context["room_bounds"] == [[*room.top, *room.size] for room in rooms]
    held = reference.carrying
    assert context["carrying_at_start"] == (None if held is None else f"{held.color} {held.type}")
    assert (held is not None) == ("Carrying" in task_id)
    found: dict[str, list] = {name: [] for name in ("goals", "keys", "balls", "boxes", "doors")}
    for y in range(reference.height):
        for x in range(reference.width):
            cell = grid.get(x, y)
            kind = None if cell is None else cell.type
            assert (context["walls"][y][x] == "#") == (kind == "wall")
            if kind == "door":
                found["doors"].append([x, y, cell.color, cell.is_open, cell.is_locked])
            elif kind not in (None, "wall"):
                found["boxes" if kind == "box" else f"{kind}s"].append([x, y, cell.color])
    for name, objects in found.items():
        assert context[name] == objects, name
    x, y = context["target_pos"]
    target = grid.get(x, y)
    assert target.color in reference.mission or "object" in reference.mission or target.type in reference.mission


def test_first_targets():
    """Of a known kind of level, by its mission."""
    for task_id, seed in (("GoToLocal", 3), ("PickupDist", 1), ("OpenRedDoor", 0), ("PutNextLocal", 4)):
        ((end, rows),) = play(task_id, [seed]).values()
        x, y = end.env_context["target_pos"]
        objects = {
            (k[0], k[1]): (k[2], kind) for kind in ("keys", "balls", "boxes", "doors") for k in end.env_context[kind]
        }
        color, kind = objects[x, y]
        first_part = end.mission.split(" next to ")[0]
        assert color in first_part or kind.removesuffix("s").removesuffix("e") in first_part
        position = end.env_context["agent_start_pos"]
        assert rows[0]["straight"][TARGET] == pytest.approx(hypot(x - position[0], y - position[1]))


def test_what_is_carried_from_the_start_is_not_on_the_grid():
    env = VectorEnv("PutNextS5N2Carrying", 1, SeedList(range(3)), max_steps=5, record=True)
    step = env.reset()
    contexts = []
    while step.active.any():
        assert step.carrying[0] and step.facts.walking[0, TARGET] > 0  # the object to put it next to
        step = env.step([LEFT])
        contexts += [end.env_context for end in step.ended]
    assert contexts
    for context in contexts:
        assert context["carrying_at_start"] in OBJECT_NAMES
        assert context["room_grid_shape"] == [2, 1] and len(context["room_bounds"]) == 2
        # The wall between the two rooms was removed
        assert [row[4] for row in context["walls"]] == ["#", ".", ".", ".", "#"]


@pytest.mark.parametrize(
    "module", ["facts", "errors", "observations", "level_seeds", "steps", "compiled.layout", "compiled.visibility"]
)
def test_the_vocabulary_needs_numpy_only(module):
    program = f"import sys, babyai.{module}; print({{'minigrid', 'gymnasium', 'torch'}} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


def test_codes_are_minigrids():
    assert tuple(action.name for action in Actions) == ACTION_NAMES
    assert [*COLOR_TO_IDX] == list(COLORS)
    assert [OBJECT_TO_IDX[kind] for kind in KINDS] == [layout.DOOR, layout.KEY, layout.BALL, layout.BOX]
