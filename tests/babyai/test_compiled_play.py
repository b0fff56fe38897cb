"""Stepping, verifying and observing in compiled code, in lock-step with an untouched minigrid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Door, Key

from babyai.compiled import layout as at
from babyai.compiled.play import look, observe, step
from babyai.facts import DONE, FAILURE, PICKUP, RUNNING, SUCCESS, TIMEOUT, TOGGLE
from babyai.levels import list_tasks
from tests.babyai.from_minigrid import UnknownInstructionError, geometry_of, load_level
from tests.babyai.reference import ReferenceBot, make_minigrid
from tests.fresh_seeds import REPEAT, SEED, draw_level_seed

TASKS = list_tasks()
ROW = 1  # of two, so that writing elsewhere shows


class Pair:
    """minigrid's environment and the same level in a row of the compiled world."""

    def __init__(self, env, told: str, world: at.World | None = None) -> None:
        self.env, self.told = env, told
        self.world = at.allocate(geometry_of(env), 2) if world is None else world
        load_level(self.world, ROW, env)
        self.view = np.full((7, 7, 3), 255, np.uint8)

    def check_state(self) -> None:
        obs = self.env.gen_obs()
        look(self.world, ROW)
        observe(self.world, ROW, self.view)
        np.testing.assert_array_equal(self.view, obs["image"], err_msg=self.told)
        scalars = self.world.scalars[ROW]
        assert scalars[at.DIRECTION] == obs["direction"], self.told
        assert (scalars[at.CARRIED] > 0) == (self.env.carrying is not None), self.told
        assert self.places() == [[tuple(map(int, place)) for place in desc.obj_poss] for desc in self.descs()], (
            self.told
        )

    def descs(self) -> list:
        """The descriptions, those of the row's leaves in order."""

        def walk(instr):
            if hasattr(instr, "instr_a"):
                return walk(instr.instr_a) + walk(instr.instr_b)
            return [getattr(instr, name) for name in ("desc", "desc_move", "desc_fixed") if hasattr(instr, name)]

        return walk(self.env.instrs)

    def places(self) -> list:
        stride = int(self.world.geometry[0, at.G_STRIDE])
        found = []
        for d in range(at.NUM_DESCS):
            if self.world.desc[ROW, d, at.D_THINGS]:
                cells = self.world.desc_places[ROW, d, : self.world.desc[ROW, d, at.D_PLACES]].tolist()
                found.append([(cell % stride - at.PAD, cell // stride - at.PAD) for cell in cells])
        return found

    def act(self, action: int) -> bool:
        """Act on both sides; whether the episode is over."""
        _, reward, terminated, truncated, _ = self.env.step(action)
        outcome = step(self.world, ROW, action)
        expected = TIMEOUT if truncated else RUNNING
        if terminated:
            expected = SUCCESS if reward > 0 else FAILURE
        assert outcome == expected, self.told
        assert self.world.scalars[ROW, at.STEPS] == self.env.step_count
        return outcome != RUNNING


@pytest.mark.parametrize("task_id", TASKS)
def test_equals_minigrid(task_id):
    """Views, outcomes and the instruction's places; played by the bot, with noise, at random."""
    rng = np.random.default_rng([SEED, TASKS.index(task_id)])
    for noise, steps in ((0.0, 60), (0.3, 60), (1.0, 60)):
        seed = draw_level_seed(task_id, rng)
        pair = Pair(make_minigrid(task_id, seed), f"{task_id} seed {seed} noise {noise}; {REPEAT}")
        bot, action = ReferenceBot(pair.env), None
        for _ in range(steps):
            pair.check_state()
            suggested = bot.suggest(action)
            action = int(rng.integers(7)) if suggested is None or rng.random() < noise else suggested
            if pair.act(action):
                break
        assert not pair.world.cells[0].any() or (pair.world.cells[0] == at.WALL_CODE).all()  # the other row


THINGS = st.tuples(
    st.sampled_from(["ball", "key", "box", "box with key", "open door", "shut door", "locked door", "nothing"]),
    st.sampled_from(COLOR_NAMES),
    st.integers(1, 20),
    st.integers(1, 20),
)


def build_thing(kind: str, color: str):
    if kind.endswith("door"):
        return Door(color, is_open=kind.startswith("open"), is_locked=kind.startswith("locked"))
    return {"ball": Ball, "key": Key, "box": Box}[kind.split()[0]](
        color, *([Key(color)] if kind == "box with key" else [])
    )


@given(
    task_id=st.sampled_from(["GoToSeq", "UnlockPickup", "BossLevel", "PutNextS5N2", "OpenTwoDoors", "PickupDist"]),
    seed=st.integers(0, 1000),
    things=st.lists(THINGS, max_size=8),
    actions=st.lists(st.sampled_from([0, 1, 2, 2, 2, 3, 4, 5, 5, 6]), min_size=10, max_size=60),
    carried=st.sampled_from([None, "ball", "key", "box with key"]),
)
@settings(max_examples=60, deadline=None)
def test_arranged_situations_equal_minigrid(task_id, seed, things, actions, carried):
    """Doors in the middle of rooms, things in doorways, boxes that hold keys, something in hand from the start."""
    env = make_minigrid(f"BabyAI-{task_id}-v0", seed)
    for kind, color, x, y in things:
        if x < env.width - 1 and y < env.height - 1 and (x, y) != tuple(env.agent_pos):
            thing = None if kind == "nothing" else build_thing(kind, color)
            if thing is not None:
                thing.cur_pos = (x, y)
            env.grid.set(x, y, thing)
    if carried is not None:
        env.carrying = build_thing(carried, "red")
        env.carrying.cur_pos = np.array([-1, -1])
    env.instrs.reset_verifier(env)
    if not all(desc.obj_set for desc in Pair(env, "").descs()):
        return  # nothing left that the instruction speaks of
    pair = Pair(env, f"{task_id} seed {seed} {things} {actions}")
    for action in actions:
        pair.check_state()
        if pair.act(action):
            return


def test_outcomes_by_hand():
    """A ball right before the agent: "go to" succeeds with the first turn towards it, "pick up" by picking it up."""
    env = make_minigrid("BabyAI-PickupLoc-v0", 3)
    target = env.instrs.desc.obj_set[0]
    x, y = target.cur_pos
    for direction, (dx, dy) in enumerate(((-1, 0), (0, -1), (1, 0), (0, 1))):  # noqa: B007
        if env.grid.get(x + dx, y + dy) is None:
            break
    env.agent_pos, env.agent_dir = (x + dx, y + dy), direction
    world = at.allocate(geometry_of(env), 2)
    load_level(world, ROW, env)
    assert step(world, ROW, DONE) == RUNNING
    assert step(world, ROW, TOGGLE if target.type != "box" else DONE) == RUNNING
    assert step(world, ROW, PICKUP) == SUCCESS
    assert world.scalars[ROW, at.STEPS] == 3
    load_level(world, ROW, env)
    world.scalars[ROW, at.MAX_STEPS] = 2
    assert [step(world, ROW, DONE) for _ in range(2)] == [RUNNING, TIMEOUT]


def test_levels_that_cannot_be_expressed_are_refused():
    env = make_minigrid("BabyAI-GoToObj-v0", 0)
    world = at.allocate(geometry_of(env), 1)
    env.grid.set(2, 2, Door("red", is_open=True, is_locked=True))
    with pytest.raises(UnknownInstructionError, match="open and locked"):
        load_level(world, 0, env)
    env.grid.set(2, 2, None)
    env.instrs = object()
    with pytest.raises(UnknownInstructionError, match="four action instructions"):
        load_level(world, 0, env)
