"""Recorded facts in play: events, doors, subgoals; the same whatever the slots, and after a resume."""

import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX

from babyai.facts import (
    COLORS,
    DONE,
    DROP,
    EVENT_NAMES,
    LEFT,
    OBJECT_NAMES,
    PICKUP,
    SUBGOAL_NAMES,
    SUCCESS,
    TARGET,
    TOGGLE,
    StepFacts,
)
from babyai.level_seeds import SeedList, SeedStreams
from babyai.steps import VectorStep
from babyai.vector_env import VectorEnv
from tests.babyai.played_facts import FIELDS, follow_expert, play


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
