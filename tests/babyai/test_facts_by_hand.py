"""Recorded facts on levels drawn by hand, and distances against a plain search."""

from collections import deque
from math import hypot, nan, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from minigrid.core.world_object import Ball, Box, Door, Key, Wall, WorldObj
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from babyai.facts import (
    DOOR,
    DROP,
    EVENT_NAMES,
    FORWARD,
    KEY,
    LEFT,
    OBJECT_NAMES,
    PICKUP,
    RIGHT,
    RUNNING,
    TARGET,
    TOGGLE,
    StepFacts,
)
from babyai.plain_facts import Recorder
from babyai.plain_world import Expert, Simulator

EAST, SOUTH, WEST, NORTH = range(4)


class HandMade:
    """A level given as a picture, "A" the agent, other letters objects; recorded from its start."""

    def __init__(self, picture: str, things: dict[str, WorldObj], instr, facing: int = EAST) -> None:
        self.simulator = Simulator("GoToObj")
        self.simulator.load(0)
        env = self.env = self.simulator.env
        rows = picture.split()
        rows += ["########"] * (8 - len(rows))
        for y, row in enumerate(rows):
            assert len(row) == 8
            for x, letter in enumerate(row):
                thing = Wall() if letter == "#" else things.get(letter)
                env.grid.set(x, y, thing)
                if thing is not None and letter != "#":
                    thing.cur_pos = thing.init_pos = (x, y)
                if letter == "A":
                    env.agent_pos, env.agent_dir = (x, y), facing
        env.instrs = instr
        instr.reset_verifier(env)
        self.recorder = Recorder(self.simulator, SimpleNamespace(subgoal=None))
        self.recorder.start()

    def act(self, action: int) -> tuple[str, str | None]:
        """Takes an action; the event that it caused."""
        self.outcome = self.simulator.step(action).outcome
        event, thing = self.recorder.follow()
        return EVENT_NAMES[event], OBJECT_NAMES[thing] if thing >= 0 else None

    def facts(self) -> StepFacts:
        facts = StepFacts.empty(1)
        self.recorder.describe(facts, 0)
        return facts

    def distances(self, column: int) -> tuple[float, float]:
        facts = self.facts()
        return facts.walking[0, column].item(), pytest.approx(facts.straight[0, column].item(), abs=1e-5)


def go_to(color: str, kind: str) -> GoToInstr:
    return GoToInstr(ObjDesc(kind, color))


def test_walking_goes_around_walls():
    level = HandMade("######## #A.....# ######.# #.b....#", {"b": Ball("red")}, go_to("red", "ball"))
    assert level.distances(TARGET) == (5 + 2 + 4, hypot(1, 2))
    assert level.facts().position.tolist() == [[1, 1]]
    np.testing.assert_array_equal(level.facts().walking[0], [nan, nan, 11])  # neither door nor key
    assert level.act(FORWARD) == ("none", None)
    assert level.distances(TARGET) == (10, 2)


@pytest.mark.parametrize(
    "door", [Door("red"), Door("red", is_open=True), Door("red", is_locked=True)], ids=["closed", "open", "locked"]
)
def test_walking_goes_through_doors(door):
    level = HandMade("######## #A.D..b# #..#...#", {"b": Ball("red"), "D": door}, go_to("red", "ball"))
    assert level.distances(TARGET) == (5, 5)
    assert level.distances(DOOR) == (2, 2)


def test_the_agent_in_a_door_is_at_distance_zero():
    level = HandMade("######## #.AD..b#", {"b": Ball("red"), "D": Door("red", is_open=True)}, go_to("red", "ball"))
    level.act(FORWARD)
    assert level.distances(DOOR) == (0, 0)
    assert level.distances(TARGET) == (3, 3)


def test_objects_block_unless_there_is_no_other_way():
    things = {"b": Ball("red"), "x": Box("grey")}
    around = HandMade("######## #Ax.b..# #.#.#..# #......#", things, go_to("red", "ball"))
    assert around.distances(TARGET) == (2 + 2 + 2 + 1, 3)
    blocked = HandMade("######## #Ax.b..#", things, go_to("red", "ball"))
    assert blocked.distances(TARGET) == (3, 3)
    walled_in = HandMade("######## #Ax#b..#", things, go_to("red", "ball"))
    np.testing.assert_array_equal(walled_in.distances(TARGET)[0], nan)


def test_what_can_be_reached_is_nearer_than_what_cannot():
    things = {"b": Ball("red"), "c": Ball("red"), "x": Box("grey")}
    level = HandMade("######## #bxA..c#", things, go_to("red", "ball"))
    assert level.distances(TARGET) == (3, 3)
    level = HandMade("######## #bxA.xc#", things | {"x": Box("grey")}, go_to("red", "ball"))
    assert level.distances(TARGET) == (2, 2)


def test_nearest_is_by_walking_and_ties_go_to_the_lowest_row():
    things = {"b": Ball("red"), "c": Ball("red")}
    level = HandMade("######## #A#b...# #.#....# #...c..#", things, go_to("red", "ball"))
    assert level.distances(TARGET) == (5, sqrt(13))  # b is two cells away, but six moves
    level = HandMade("######## #..b...# #......# #..A...# #....c.#", things, go_to("red", "ball"))
    assert level.distances(TARGET) == (2, 2)
    level = HandMade("######## #..A...# #......# #.b....# #..c...#", things, go_to("red", "ball"))
    assert level.distances(TARGET) == (3, sqrt(5))


def test_the_key_is_one_that_opens_a_door_locked_at_the_start():
    things = {"r": Key("red"), "g": Key("green"), "h": Key("green"), "D": Door("green", is_locked=True)}
    level = HandMade("######## #Ar...D# #..g...# #......# #h.....#", things, OpenInstr(ObjDesc("door")))
    assert level.distances(KEY) == (3, sqrt(5))
    assert level.act(PICKUP) == ("picked", "red key")
    assert level.distances(KEY) == (3, sqrt(5))  # what is carried opens nothing
    assert level.act(DROP) == ("dropped", "red key")

    for action, event in ((RIGHT, "none"), (FORWARD, "none"), (LEFT, "none"), (FORWARD, "none"), (PICKUP, "picked")):
        assert level.act(action)[0] == event
    assert level.distances(KEY) == (0, 0)
    # No locked door: any key
    level = HandMade("######## #Ar...D# #..g...#", things | {"D": Door("green")}, OpenInstr(ObjDesc("door")))
    assert level.distances(KEY) == (1, 1)
    # A locked door for which there is no key: any key
    things["D"] = Door("blue", is_locked=True)
    level = HandMade("######## #Ar...D# #..g...#", things, OpenInstr(ObjDesc("door")))
    assert level.distances(KEY) == (1, 1)


def test_the_door_is_one_that_was_locked_at_the_start():
    things = {"C": Door("red"), "D": Door("green", is_locked=True), "g": Key("green")}
    level = HandMade("######## #gAC..D#", things, go_to("green", "key"), facing=WEST)
    assert level.distances(DOOR) == (4, 4)
    assert level.facts().door_unlocked.tolist() == [0]
    level = HandMade("######## #gAC..D#", things | {"D": Door("green")}, go_to("green", "key"))
    assert level.distances(DOOR) == (1, 1)
    assert level.facts().door_unlocked.tolist() == [-1]


def test_events_of_doors_and_boxes():
    things = {"D": Door("green", is_locked=True), "g": Key("green"), "r": Key("red"), "x": Box("grey", Key("blue"))}
    things["y"] = Box("purple")
    level = HandMade("######## #.gADbr# #..x...# #..y...#", things, go_to("blue", "key"))
    distances = [level.distances(TARGET)[0]]
    assert np.isnan(distances[0])  # there is no blue key yet
    assert level.act(TOGGLE) == ("none", None)  # locked, no key
    assert [level.act(a) for a in (LEFT, LEFT, PICKUP, LEFT, LEFT)][2] == ("picked", "green key")
    assert level.facts().door_unlocked.tolist() == [0]
    assert level.act(TOGGLE) == ("unlocked", "green door")
    assert level.facts().door_unlocked.tolist() == [1]
    assert level.act(TOGGLE) == ("closed", "green door")
    assert level.act(TOGGLE) == ("opened", "green door")
    assert level.facts().door_unlocked.tolist() == [1]
    assert level.act(DROP) == ("none", None)  # not onto a door
    assert level.act(PICKUP) == ("none", None)
    assert level.distances(KEY) == (0, 0)
    assert level.act(RIGHT) == ("none", None)
    assert level.act(TOGGLE) == ("box_opened", "grey box")
    assert level.distances(KEY) == (0, 0)  # the blue key opens no locked door
    assert level.act(PICKUP) == ("none", None)  # hands full
    assert [level.act(action) for action in (RIGHT, DROP, LEFT, PICKUP)] == [
        ("none", None),
        ("dropped", "green key"),
        ("none", None),
        ("picked", "blue key"),
    ]
    assert level.act(FORWARD) == ("none", None)
    assert level.act(TOGGLE) == ("box_opened", "purple box")
    assert level.act(FORWARD) == ("none", None)
    assert level.facts().position.tolist() == [[3, 3]]


def test_a_wrong_key_unlocks_nothing():
    things = {"D": Door("green", is_locked=True), "r": Key("red")}
    level = HandMade("######## #rAD...#", things, OpenInstr(ObjDesc("door", "green")), facing=WEST)
    assert [level.act(a)[0] for a in (PICKUP, LEFT, LEFT, TOGGLE)] == ["picked", "none", "none", "none"]
    assert level.facts().door_unlocked.tolist() == [0]


def test_a_target_gone_with_its_box_has_no_distance():
    level = HandMade("######## #Ax....#", {"x": Box("red")}, PickupInstr(ObjDesc("box", "red")))
    assert level.distances(TARGET) == (1, 1)
    assert level.act(TOGGLE) == ("box_opened", "red box")
    assert np.isnan(level.facts().walking[0, TARGET]) and np.isnan(level.facts().straight[0, TARGET])


SEQUENCE_PICTURE, SEQUENCE_THINGS = "######## #..A...# #.....## #g...b##", {"g": Key("green"), "b": Ball("blue")}


def test_the_target_of_a_sequence_is_its_current_part():
    """Both of "X, then Y" and "Y after you X" go on to Y once X is done."""
    x, y = go_to("blue", "ball"), go_to("green", "key")
    for instr in (BeforeInstr(x, y), AfterInstr(y, x)):
        level = HandMade(SEQUENCE_PICTURE, SEQUENCE_THINGS, instr)
        assert level.distances(TARGET) == (4, sqrt(8))
        moves = []
        for action in (FORWARD, FORWARD, RIGHT, FORWARD):
            level.act(action)
            moves.append(level.distances(TARGET)[0])
        # Facing the ball carries out the first part
        assert moves == [3, 2, 2, 1 + 4]
        assert level.outcome == RUNNING
    level = HandMade(SEQUENCE_PICTURE, SEQUENCE_THINGS, BeforeInstr(y, x))
    assert level.distances(TARGET) == (4, sqrt(8)) and level.facts().position.tolist() == [[3, 1]]
    level.act(FORWARD)
    assert level.distances(TARGET) == (5, sqrt(13))  # the key's way grows


def test_the_target_of_a_conjunction_is_what_is_left():
    level = HandMade(SEQUENCE_PICTURE, SEQUENCE_THINGS, AndInstr(go_to("green", "key"), go_to("blue", "ball")))
    moves = []
    for action in (FORWARD, FORWARD, RIGHT, FORWARD):
        level.act(action)
        moves.append(level.distances(TARGET)[0])
    assert moves == [3, 2, 2, 1 + 4]


def test_the_target_of_put_next_changes_with_the_hand():
    things = {"b": Ball("red"), "x": Box("blue")}
    instr = PutNextInstr(ObjDesc("ball", "red"), ObjDesc("box", "blue"))
    level = HandMade("######## #bA...x#", things, instr, facing=WEST)
    assert level.distances(TARGET) == (1, 1)
    assert level.act(PICKUP) == ("picked", "red ball")
    assert level.distances(TARGET) == (4, 4)
    assert level.act(DROP) == ("dropped", "red ball")
    assert level.distances(TARGET) == (1, 1)
    # Objects of one description: the one in the hand is not the one to go to
    things = {"b": Ball("red"), "c": Ball("red")}
    instr = PutNextInstr(ObjDesc("ball", "red"), ObjDesc("ball", "red"))
    level = HandMade("######## #bA...c#", things, instr, facing=WEST)
    level.act(PICKUP)
    assert level.distances(TARGET) == (4, 4)


def test_a_carried_target_is_at_distance_zero():
    level = HandMade("######## #Ab...g#", {"b": Ball("red"), "g": Key("green")}, go_to("red", "ball"), facing=EAST)
    level.act(PICKUP)
    assert level.distances(TARGET) == (0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Against a plain search, in play


def plain_distance(env, goal: tuple[int, int], things_block: bool) -> float:
    start = tuple(env.agent_pos)
    distance, queue = {start: 0}, deque([start])
    while queue:
        x, y = cell = queue.popleft()
        if cell == goal:
            return distance[cell]
        content = env.grid.get(x, y)
        if things_block and cell != start and content is not None and content.type != "door":
            continue
        for neighbour in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            beyond = env.grid.get(*neighbour)
            if neighbour not in distance and (beyond is None or beyond.type != "wall"):
                distance[neighbour] = distance[cell] + 1
                queue.append(neighbour)
    return nan


def plain_nearest(env, accept) -> tuple[float, float]:
    if env.carrying is not None and accept(env.carrying):
        return 0.0, 0.0
    rated = []
    for y in range(env.height):
        for x in range(env.width):
            cell = env.grid.get(x, y)
            if cell is not None and cell.type != "wall" and accept(cell):
                for things_block in (True, False):
                    moves = plain_distance(env, (x, y), things_block)
                    if moves == moves:
                        straight = hypot(x - env.agent_pos[0], y - env.agent_pos[1])
                        rated.append((not things_block, moves, y, x, straight))
                        break
    return (min(rated)[1], min(rated)[4]) if rated else (nan, nan)


@pytest.mark.parametrize("task_id", ["KeyCorridorS3R3", "BlockedUnlockPickup", "Unlock", "KeyInBox", "FindObjS5"])
def test_doors_and_keys_equal_a_plain_search(task_id):
    simulator = Simulator(task_id, 60)
    recorder = Recorder(simulator, Expert(simulator))
    rng = np.random.default_rng(0)
    for seed in range(2):
        simulator.load(seed)
        recorder.start()
        env = simulator.env
        locked = [cell for cell in env.grid.grid if cell is not None and cell.type == "door" and cell.is_locked]
        colors = {door.color for door in locked}
        while simulator.step(int(rng.choice([0, 1, 2, 2, 2, 3, 4, 5]))).outcome == RUNNING:
            recorder.follow()
            if rng.random() < 0.5:
                continue
            facts = StepFacts.empty(1)
            recorder.describe(facts, 0)
            things = [thing for thing in (*env.grid.grid, env.carrying) if thing is not None]
            fits = any(thing.type == "key" and thing.color in colors for thing in things)
            door = plain_nearest(env, lambda t, locked=locked: t in locked if locked else t.type == "door")
            key = plain_nearest(
                env, lambda t, fits=fits, colors=colors: t.type == "key" and (not fits or t.color in colors)
            )
            for column, expected in ((DOOR, door), (KEY, key)):
                found = [facts.walking[0, column], facts.straight[0, column]]
                np.testing.assert_allclose(found, expected, rtol=1e-6)
