"""Recorded facts: distances, doors, events, targets, a level's description; by hand and against untouched minigrid."""

import contextlib
import io
import json
import subprocess
import sys
from collections import deque
from math import hypot, nan, sqrt
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
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

from babyai.compiled import layout
from babyai.facts import (
    ACTION_NAMES,
    COLORS,
    DONE,
    DOOR,
    DROP,
    EVENT_NAMES,
    FACT_FIELDS,
    FORWARD,
    KEY,
    KINDS,
    LEFT,
    OBJECT_NAMES,
    PICKUP,
    RIGHT,
    RUNNING,
    SUBGOAL_NAMES,
    SUCCESS,
    TARGET,
    TOGGLE,
    StepFacts,
)
from babyai.level_seeds import SeedList, SeedStreams
from babyai.levels import list_tasks
from babyai.plain_facts import Recorder
from babyai.plain_world import Expert, Simulator
from babyai.steps import VectorStep
from babyai.vector_env import VectorEnv

FIELDS = [name for name, *_ in FACT_FIELDS]
EAST, SOUTH, WEST, NORTH = range(4)

# ---------------------------------------------------------------------------------------------------------------------
# Levels drawn by hand, 8 x 8


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


# ---------------------------------------------------------------------------------------------------------------------
# Through the vector environment


def follow_expert(step: VectorStep) -> np.ndarray:
    return np.where(step.expert_valid, step.expert_action, FORWARD)


def play(task_id: str, seeds, num_envs: int = 1, act=follow_expert, **options) -> dict[int, tuple]:
    """Every episode by level seed: its end, its rows of facts, the actions taken, the events that these caused."""
    env = VectorEnv(task_id, num_envs, SeedList(seeds), plan_every=1, record=True, **options)
    step, episodes = env.reset(), {}
    open_rows: list[list] = [[] for _ in range(num_envs)]
    while step.active.any():
        actions = act(step)
        following = env.step(actions)
        for slot in np.flatnonzero(step.active):
            row = {name: getattr(step.facts, name)[slot] for name in FIELDS if not name.startswith("event")}
            row["event"] = EVENT_NAMES[following.facts.event[slot]]
            thing = following.facts.event_object[slot]
            row["object"] = OBJECT_NAMES[thing] if thing >= 0 else None
            row["action"], row["valid"] = int(actions[slot]), bool(step.expert_valid[slot])
            open_rows[slot].append(row)
        for end in following.ended:
            assert len(open_rows[end.slot]) == end.steps
            episodes[end.level_seed] = end, open_rows[end.slot]
            open_rows[end.slot] = []
        step = following
    return episodes


def events_of(rows: list[dict]) -> list[tuple]:
    return [(row["event"], row["object"]) for row in rows if row["event"] != "none"]


def test_unlock_pickup_event_sequence():
    for end, rows in play("UnlockPickup", range(6), 2).values():
        ((*_, key_color),) = end.env_context["keys"]
        ((*_, door_color, is_open, is_locked),) = end.env_context["doors"]
        ((*_, box_color),) = end.env_context["boxes"]
        assert key_color == door_color and is_locked and not is_open
        assert events_of(rows) == [
            ("picked", f"{key_color} key"),
            ("unlocked", f"{door_color} door"),
            ("dropped", f"{key_color} key"),
            ("picked", f"{box_color} box"),
        ]
        assert end.outcome == SUCCESS
        assert rows[-1]["event"] == "picked"  # ends the episode, and belongs to it
        assert rows[-1]["walking"][TARGET] == 1


def test_door_unlocked_turns_with_the_unlocking():
    for end, rows in play("UnlockLocal", range(5), 2).values():
        assert rows[-1]["event"] == "unlocked" and end.outcome == SUCCESS
        assert {int(row["door_unlocked"]) for row in rows} == {0}
    for _, rows in play("UnlockPickup", range(5), 2).values():
        unlocking = [row["event"] for row in rows].index("unlocked")
        assert [int(row["door_unlocked"]) for row in rows] == [0] * (unlocking + 1) + [1] * (len(rows) - unlocking - 1)


@pytest.mark.parametrize("task_id", ["GoToOpen", "OpenDoor", "GoToObj"])
def test_levels_without_locked_doors_are_never_unlocked(task_id):
    for end, rows in play(task_id, range(3), 3).values():
        assert {int(row["door_unlocked"]) for row in rows} == {-1}
        if task_id == "GoToOpen":
            assert end.env_context["doors"] and all(door[3] for door in end.env_context["doors"])
        if task_id == "OpenDoor":
            assert rows[-1]["event"] == "opened"


def test_subgoals_serve_the_suggested_actions():
    serving = {PICKUP: {"Pickup"}, DROP: {"Drop"}, TOGGLE: {"Open", "Close"}, DONE: {"Done"}}
    met = set()
    for task_id in ("UnlockPickup", "GoToSeq", "OpenDoorsOrderN4"):

        def stray(step: VectorStep) -> np.ndarray:
            """Not always the expert, so that it also has to undo things."""
            mark = step.view.reshape(len(step.view), -1).astype(int).sum(1)
            return np.where(mark % 5 > 0, follow_expert(step), mark % 6)

        for act in (follow_expert, stray):
            for _, rows in play(task_id, range(3), 3, act, max_steps=150).values():
                for row in rows:
                    if act is follow_expert and row["valid"]:
                        name = SUBGOAL_NAMES[row["subgoal"]]
                        assert name in serving.get(row["action"], {"GoNextTo", "Explore"})
                    met |= {SUBGOAL_NAMES[row["subgoal"]]} if row["valid"] else {-1}
                    assert (row["subgoal"] >= 0) == row["valid"]
    assert met >= {"GoNextTo", "Explore", "Open", "Pickup", "Drop"}


def test_no_subgoal_without_label():
    env = VectorEnv("GoToImpUnlock", 1, SeedList([6]), max_steps=300, record=True)  # a level on which the bot loops
    step, unlabelled = env.reset(), 0
    while step.active.any():
        assert (step.facts.subgoal[0] == -1) == (not step.expert_valid[0])
        unlabelled += not step.expert_valid[0]
        step = env.step(follow_expert(step))
    assert unlabelled > 0


def test_facts_do_not_depend_on_the_number_of_slots():
    def stray(step: VectorStep) -> np.ndarray:
        mark = (step.view.reshape(len(step.view), -1).astype(np.int64) * np.arange(147)).sum(1)
        return np.where(mark % 6 > 0, follow_expert(step), mark % 6)

    alone, *others = [play("KeyCorridorS3R2", range(9), n, stray, max_steps=60) for n in (1, 3, 7)]
    assert sum(len(events_of(rows)) for _, rows in alone.values()) > 10
    for other in others:
        assert other.keys() == alone.keys()
        for seed, (end, rows) in alone.items():
            other_end, other_rows = other[seed]
            assert (end.steps, end.outcome, end.env_context) == (
                other_end.steps,
                other_end.outcome,
                other_end.env_context,
            )
            for row, other_row in zip(rows, other_rows, strict=True):
                assert row.keys() == other_row.keys()
                for name in row:
                    np.testing.assert_array_equal(row[name], other_row[name], err_msg=name)


def test_an_episodes_last_event_does_not_reach_into_the_next():
    env = VectorEnv("UnlockPickup", 1, SeedList([0, 1]), record=True)
    step = env.reset()
    while not step.ended:
        step = env.step(follow_expert(step))
    assert EVENT_NAMES[step.facts.event[0]] == "picked" and "box" in OBJECT_NAMES[step.facts.event_object[0]]
    # Everything else is the next level's
    fresh = VectorEnv("UnlockPickup", 1, SeedList([1]), record=True).reset().facts
    for name in FIELDS:
        if not name.startswith("event"):
            np.testing.assert_array_equal(getattr(step.facts, name), getattr(fresh, name), err_msg=name)
    assert step.facts.door_unlocked[0] == 0
    assert fresh.event[0] == 0 and fresh.event_object[0] == -1
    step = env.step([LEFT])
    assert step.facts.event[0] == 0 and step.facts.event_object[0] == -1
    while not step.ended:
        step = env.step(follow_expert(step))
    assert EVENT_NAMES[step.facts.event[0]] == "picked" and not step.active[0]
    assert step.facts.position.tolist() == [[-1, -1]] and step.facts.subgoal[0] == step.facts.door_unlocked[0] == -1
    assert np.isnan(step.facts.walking).all() and np.isnan(step.facts.straight).all()


def test_without_recording_there_is_nothing():
    env = VectorEnv("GoToObj", 2, SeedList(range(3)))
    step = env.reset()
    while step.active.any():
        assert step.facts is None
        step = env.step(follow_expert(step))
        assert all(end.env_context is None for end in step.ended)


def test_recording_changes_nothing_else():
    plain, recorded = [VectorEnv("GoToSeq", 2, SeedStreams(0, 2), max_steps=30, record=r) for r in (False, True)]
    step, other = plain.reset(), recorded.reset()
    for _ in range(60):
        for name in ("view", "direction", "carrying", "expert_action", "expert_valid", "outcome", "episode_start"):
            np.testing.assert_array_equal(getattr(step, name), getattr(other, name))
        actions = follow_expert(step)
        step, other = plain.step(actions), recorded.step(actions)


@pytest.mark.parametrize("recorded", [False, True])
def test_recording_can_be_resumed(recorded):
    """Also from the state of an environment that did not record."""

    def build(record: bool) -> VectorEnv:
        return VectorEnv("UnlockPickup", 3, SeedStreams(1, 3), record=record)

    first, saved = build(True), build(recorded)
    step, _ = first.reset(), saved.reset()
    for _ in range(25):
        actions = follow_expert(step)
        step, _ = first.step(actions), saved.step(actions)
    other = build(True)
    resumed = other.load_state_dict(saved.state_dict())
    assert not resumed.facts.event.any() and (resumed.facts.event_object == -1).all()
    for _ in range(40):
        for name in FIELDS:
            if not name.startswith("event") or resumed.reward.any():
                np.testing.assert_array_equal(getattr(step.facts, name), getattr(resumed.facts, name))
        actions = follow_expert(step)
        step, resumed = first.step(actions), other.step(actions)
        np.testing.assert_array_equal(step.facts.event, resumed.facts.event)
        np.testing.assert_array_equal(step.facts.event_object, resumed.facts.event_object)
        assert step.ended == resumed.ended


def test_facts_check_themselves():
    with pytest.raises(ValueError, match="label=True"):
        VectorEnv("GoToObj", 1, SeedList([0]), label=False, record=True)
    facts = StepFacts.empty(2)
    arrays = {name: getattr(facts, name) for name in FIELDS}
    with pytest.raises(ValueError, match=r"walking: expected float32 \(2, 3\), found float64"):
        StepFacts(**{**arrays, "walking": facts.walking.astype(np.float64)})
    with pytest.raises(ValueError, match=r"event: expected int8 \(2,\)"):
        StepFacts(**{**arrays, "event": facts.event[:1]})
    step = VectorStep.zeros(3)
    with pytest.raises(ValueError, match="facts: expected those of 3 slots, found 2"):
        VectorStep(**{**vars(step), "facts": facts})


def test_names_cover_minigrid():
    assert sorted(COLORS, key=COLOR_TO_IDX.get) == list(COLORS) and set(COLORS) == set(COLOR_TO_IDX)
    assert len(set(OBJECT_NAMES)) == 24 and {"red key", "grey box", "blue door", "green ball"} <= set(OBJECT_NAMES)


# ---------------------------------------------------------------------------------------------------------------------
# The level at its start


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
