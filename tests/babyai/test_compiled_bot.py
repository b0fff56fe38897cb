"""The compiled bot against minigrid's untouched one, in lock-step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.world_object import Ball, Box, Door, Key

from babyai.compiled import layout as at
from babyai.compiled import lists, plan, search
from babyai.compiled.bot import bot_reset, bot_subgoal, bot_suggest
from babyai.compiled.play import look
from babyai.facts import LEFT, SUBGOAL_NAMES
from babyai.levels import list_tasks
from tests.babyai.from_minigrid import geometry_of, load_level
from tests.babyai.reference import LOOPING_TASK, ReferenceBot, make_minigrid
from tests.babyai.test_compiled_play import ROW, THINGS, Pair, build_thing
from tests.fresh_seeds import REPEAT, SEED, draw_level_seed

TASKS = list_tasks()


class Advised(Pair):
    """A pair of levels, each with a bot."""

    def __init__(self, env, told: str, world: at.World | None = None) -> None:
        super().__init__(env, told, world)
        self.bot = ReferenceBot(env)
        bot_reset(self.world, ROW)
        self.taken: int | None = None

    def suggest(self) -> int | None:
        """What both bots suggest; asserts that they agree."""
        look(self.world, ROW)
        found = bot_suggest(self.world, ROW, -1 if self.taken is None else self.taken)
        expected = self.bot.suggest(self.taken)
        assert found == (-1 if expected is None else expected), (self.told, self.bot.error, self.gave_up)
        assert (self.gave_up > 0) == (self.bot.error is not None), (self.told, self.bot.error)
        subgoal = bot_subgoal(self.world, ROW)
        assert (None if subgoal < 0 else SUBGOAL_NAMES[subgoal]) == self.bot.subgoal, self.told
        return expected

    def act(self, action: int) -> bool:
        self.taken = action
        return super().act(action)

    @property
    def gave_up(self) -> int:
        return int(self.world.scalars[ROW, at.GAVE_UP])


@pytest.mark.parametrize("task_id", TASKS)
def test_suggests_what_minigrids_bot_suggests(task_id):
    """Followed, followed with noise, and watching an agent that acts at random."""
    rng = np.random.default_rng([SEED, TASKS.index(task_id)])
    for noise, steps in ((0.0, 60), (0.15, 80), (0.6, 60), (1.0, 40)):
        seed = draw_level_seed(task_id, rng)
        pair = Advised(make_minigrid(task_id, seed), f"{task_id} seed {seed} noise {noise}; {REPEAT}")
        for _ in range(steps):
            suggested = pair.suggest()
            if suggested is None or pair.act(int(rng.integers(7)) if rng.random() < noise else suggested):
                break
        if pair.gave_up:
            pair.act(0)
            assert pair.suggest() is None, "silent from then on"


def test_whole_episodes_in_one_row():
    """In a row that keeps what earlier levels left in it."""
    rng = np.random.default_rng([SEED, 1])
    for task_id in ("BabyAI-UnlockPickup-v0", "BabyAI-GoToSeq-v0", "BabyAI-PutNextLocal-v0", *rng.choice(TASKS, 4)):
        world = None
        for noise in (0.0, 0.05, 0.3):
            seed = draw_level_seed(task_id, rng)
            pair = Advised(make_minigrid(task_id, seed), f"{task_id} seed {seed} noise {noise}; {REPEAT}", world)
            world = pair.world
            for _ in range(250):
                suggested = pair.suggest()
                if suggested is None or pair.act(int(rng.integers(7)) if rng.random() < noise else suggested):
                    break


@given(
    task_id=st.sampled_from(
        ["GoToSeq", "UnlockPickup", "BossLevel", "PutNextS5N2", "OpenTwoDoors", "PickupDist", "GoToImpUnlock"]
    ),
    seed=st.integers(0, 1000),
    things=st.lists(THINGS, max_size=10),
    crowd=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.sampled_from(["ball", "box", "key"]))),
    actions=st.lists(st.sampled_from([None, None, None, 0, 1, 2, 2, 3, 4, 5]), min_size=10, max_size=80),
    carried=st.sampled_from([None, None, "ball", "key", "box with key"]),
)
@settings(max_examples=150, deadline=None)
def test_arranged_situations(task_id, seed, things, crowd, actions, carried):
    """Doors in the middle of rooms, things in doorways and all round the agent, something in hand from the start."""
    env = make_minigrid(f"BabyAI-{task_id}-v0", seed)
    agent = tuple(map(int, env.agent_pos))
    crowd = [(kind, "red", agent[0] + dx, agent[1] + dy) for dx, dy, kind in crowd]
    for kind, color, x, y in [*things, *crowd]:
        if 0 < x < env.width - 1 and 0 < y < env.height - 1 and (x, y) != agent:
            thing = None if kind == "nothing" else build_thing(kind, color)
            if thing is not None:
                thing.cur_pos = (x, y)
            env.grid.set(x, y, thing)
    if carried is not None:
        env.carrying = build_thing(carried, "red")
        env.carrying.cur_pos = np.array([-1, -1])
    env.instrs.reset_verifier(env)
    pair = Advised(env, f"{task_id} seed {seed} {things} {crowd} {actions} {carried}")
    for action in actions:
        suggested = pair.suggest()
        if suggested is None or pair.act(suggested if action is None else action):
            return


def arrange(*placed, task_id: str = "BabyAI-GoToObjDoor-v0", seed: int = 0, agent=(2, 2), direction: int = 0):
    """A level with its rooms emptied, holding the things placed; its own doors stay."""
    env = make_minigrid(task_id, seed)
    for x in range(1, env.width - 1):
        for y in range(1, env.height - 1):
            if x % (env.room_size - 1) and y % (env.room_size - 1):
                env.grid.set(x, y, None)
    env.agent_pos, env.agent_dir = agent, direction
    for thing, x, y in placed:
        thing.cur_pos = (x, y)
        env.grid.set(x, y, thing)
    env.instrs.reset_verifier(env)
    return env


def test_reasons_for_giving_up():
    """One episode for each of the commoner ones, against the untouched bot."""
    seen = {}
    for task_id, seeds, noise in (
        ("BabyAI-PutNextLocalS5N3-v0", range(6), 1.0),
        ("BabyAI-KeyInBox-v0", range(1), 0.0),
        ("BabyAI-PutNextS5N2Carrying-v0", range(2), 0.0),
        (LOOPING_TASK, [6], 0.0),
    ):
        for seed in seeds:
            pair = Advised(make_minigrid(task_id, seed), f"{task_id} seed {seed}")
            rng = np.random.default_rng(seed)
            for _ in range(250):
                suggested = pair.suggest()
                if suggested is None or pair.act(int(rng.integers(7)) if rng.random() < noise else suggested):
                    break
            seen[pair.gave_up] = type(pair.bot.error).__name__
    assert seen[plan.BOX_OPENED] == "DisappearedBoxError"
    assert seen[plan.IN_CIRCLES] == "Endless"
    assert seen[plan.NOTHING_TO_EXPLORE] == "AssertionError"
    assert len(plan.GAVE_UP_REASONS) == len(set(plan.GAVE_UP_REASONS)) == plan.TOO_MANY_KEYS + 1


def test_drop_place_by_hand():
    """A room of 6 x 6 free cells, seen through and through; the agent in its upper left corner."""
    env = arrange(agent=(1, 1), task_id="BabyAI-GoToLocal-v0")
    world = at.allocate(geometry_of(env), 1)
    load_level(world, 0, env)
    bot_reset(world, 0)
    world.seen[0] = 1
    stride = int(world.geometry[0, at.G_STRIDE])

    def cell(x: int, y: int) -> int:
        return (y + at.PAD) * stride + x + at.PAD

    def nearest_drop(reserved: int = 0) -> int:
        search.forget(world, 0)
        return search.find(world, 0, search.DROP_PLACE, reserved)[0]

    # Along the wall a thing blocks no way. With the cell ahead taken, one below the agent would shut it in
    assert nearest_drop() == cell(2, 1)
    assert nearest_drop(cell(2, 1)) == cell(3, 1)
    # A wall with a gap at (3, 3), and nothing else is empty: better there than nowhere
    for y in range(1, 7):
        world.cells[0, cell(3, y)] = at.EMPTY_CODE if y == 3 else at.WALL_CODE
    world.scalars[0, at.AGENT] = cell(2, 3)
    for x, y in [(1, 3), (2, 2), (2, 4), (4, 3)]:
        world.cells[0, cell(x, y)] = at.WALL_CODE
    assert nearest_drop() == cell(3, 3)
    assert nearest_drop(cell(3, 3)) == 0
    world.seen[0, cell(3, 3)] = 0
    assert nearest_drop() == 0


@given(seed=st.integers(0, 10**6), crowded=st.floats(0.0, 0.9), known=st.floats(0.3, 1.0))
@settings(max_examples=60, deadline=None)
def test_drop_places_are_minigrids(seed, crowded, known):
    """In heaps of things and doors, half of it unknown; also for a second thing beside the first."""
    rng = np.random.default_rng(seed)
    kinds = ("ball", "key", "box", "open door", "shut door")
    env = arrange(
        *(
            (build_thing(kinds[rng.integers(5)], "red"), x, y)
            for x in range(1, 7)
            for y in range(1, 7)
            if rng.random() < crowded and (x, y) != (2, 2)
        ),
        task_id="BabyAI-GoToLocal-v0",
        direction=int(rng.integers(4)),
    )
    pair = Advised(env, f"{seed} {crowded} {known}")
    bot, stride = pair.bot.bot, int(pair.world.geometry[0, at.G_STRIDE])
    bot.vis_mask = rng.random(bot.vis_mask.shape) < known
    bot.vis_mask[2, 2] = True
    for (x, y), seen in np.ndenumerate(bot.vis_mask):
        pair.world.seen[ROW, (y + at.PAD) * stride + x + at.PAD] = seen
    bot.bfs_counter = bot.bfs_step_counter = 0
    search.forget(pair.world, ROW)
    first, reserved = None, 0
    for _ in range(2):
        first = bot._find_drop_pos(first)
        reserved = search.find(pair.world, ROW, search.DROP_PLACE, reserved)[0]
        assert reserved == (0 if first is None else (first[1] + at.PAD) * stride + first[0] + at.PAD)


def test_key_lists_are_shared_and_reused():
    env = arrange((Key("red"), 3, 3), (Key("red"), 1, 4), (Key("blue"), 2, 4))
    world = at.allocate(geometry_of(env), 1)
    load_level(world, 0, env)
    bot_reset(world, 0)
    stride = int(world.geometry[0, at.G_STRIDE])
    red_door, blue_door = (at.DOOR * 6 + 0) * 3 + 2, (at.DOOR * 6 + 2) * 3 + 2
    red = lists.list_keys(world, 0, red_door)
    count = world.key_count[0, red]
    places = world.key_places[0, red, :count].tolist()
    columns = [(index % stride - at.PAD, index // stride - at.PAD) for index in places]
    assert columns == [(1, 4), (3, 3)], "column by column, as minigrid scans"
    blue = lists.list_keys(world, 0, blue_door)
    assert blue != red and lists.list_keys(world, 0, red_door) == red
    # With every list in use by the stack there is none left; one that is let go is taken again
    numbers = [red, blue]
    for k in range(at.MAX_KEY_LISTS - 2):
        world.things[0, places[0]] = 10 + k  # another key there: another list
        numbers.append(lists.list_keys(world, 0, red_door))
    assert sorted(numbers) == list(range(at.MAX_KEY_LISTS))
    for number in numbers:
        assert plan.adopt(world, 0, plan.FETCH_KEY, 1, 0, number) == plan.AGAIN
        world.scalars[0, at.PUSHES] = 0
    world.things[0, places[0]] = 9
    assert lists.list_keys(world, 0, red_door) == -1
    world.scalars[0, at.DEPTH] -= 3
    assert lists.list_keys(world, 0, red_door) == numbers[-1]


def test_a_plan_that_grows_too_deep_is_given_up():
    env = make_minigrid("BabyAI-GoToObj-v0", 1)
    world = at.allocate(geometry_of(env), 1)
    load_level(world, 0, env)
    bot_reset(world, 0)
    world.scalars[0, at.DEPTH] = at.MAX_DEPTH - 1
    assert plan.adopt(world, 0, plan.DROP, 0, 0, 0) == plan.AGAIN
    assert plan.adopt(world, 0, plan.DROP, 0, 0, 0) == -plan.TOO_DEEP
    look(world, 0)
    assert bot_suggest(world, 0, LEFT) == -1  # the drop on top would have to be undone
    assert world.scalars[0, at.GAVE_UP] == plan.TOO_DEEP and bot_subgoal(world, 0) == -1
    bot_reset(world, 0)
    assert bot_suggest(world, 0, -1) >= 0


def test_search_numbers_start_anew_before_they_overflow():
    """Rows live long: a search's number is an int32."""
    for start in (2**31 - 3, 2**31 - 1):
        pair = Advised(make_minigrid("BabyAI-UnlockPickup-v0", 5), f"from {start}")
        pair.world.search[ROW, :, 0] = start
        pair.world.mark[ROW] = 1
        while True:
            suggested = pair.suggest()
            assert suggested is not None
            if pair.act(suggested):
                break
        assert pair.world.search[ROW, 0, 0] < 1000


def test_standing_on_the_target_and_doors_that_are_in_the_way():
    """Cases in which an empty path, a doorway or a locked door decides, with the door between two rooms by hand."""
    for state in ("open", "shut", "locked"):
        for things in ([], [(Ball("red"), 5, 3)], [(Box("blue"), 9, 3)], [(Key("grey"), 2, 2), (Ball("green"), 8, 3)]):
            for direction in range(4):
                # Rooms are 8 wide: (7, 3) is in the wall between the first two
                door = Door("grey", is_open=state == "open", is_locked=state == "locked")
                env = arrange((door, 7, 3), *things, agent=(6, 3), direction=direction, task_id="BabyAI-Open-v0")
                env.grid.set(*env.agent_pos, None)
                env.instrs.reset_verifier(env)
                pair = Advised(env, f"{state} {things} {direction}")
                # Onto the doorway where it is open, and about; what has happened has to be undone
                for action in (None, 2, None, 5, None, 0, 4, None, 3, 1, None, None, 2, None, None):
                    suggested = pair.suggest()
                    if suggested is None or pair.act(suggested if action is None else action):
                        break
