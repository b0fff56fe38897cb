"""Tables as data frames, against what stands in them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.tables import random_tables


@pytest.fixture
def tables():
    routing, episodes = random_tables(0, [2, 1])
    routing = dataclasses.replace(
        routing,
        t_step=np.array([0, 1, -1], np.int32),
        position=np.array([[1, 2], [3, 4], [5, 6]], np.int16),
        direction=np.array([3, -1, 0], np.int8),
        carrying=np.array([True, False, False]),
        door_unlocked=np.array([-1, 0, 1], np.int8),
        action=np.array([2, 0, 6], np.int8),
        action_logits=np.array([[0.5, 2.0], [1.0, 0.0], [0.0, -1.0]], np.float32),
        expert_action=np.array([-1, 1, 2], np.int8),
        subgoal=np.array([1, -1, 0], np.int8),
        event=np.array([0, 3, 1], np.int8),
        event_object=np.array([-1, 2, 0], np.int16),
        weights=tuple(np.array(w, np.float32) for w in ([[0.5, 0.25, 0.25]] * 3, [[1, 0], [0, 1], [0.5, 0.5]])),
        lpc=np.array([320.0, np.nan, 64.0], np.float32),
        entropy=np.array([0.5, 0.25, 0.0], np.float32),
        walking=np.array([[np.nan, 2, 3], [0, 1, 2], [4, 4, 4]], np.float32),
        straight=np.array([[np.nan, 2, 1.5], [0, 1, 2], [4, 4, 4]], np.float32),
    )
    episodes = dataclasses.replace(
        episodes,
        level_seed=np.array([2**61 + 1, -1]),
        mission=("go to the red ball", ""),
        outcome=np.array([3, -1], np.int8),
        steps=np.array([2, -1], np.int32),
        mean_lpc=np.array([192.0, np.nan]),
        t_pick=np.array([-1, 4], np.int32),
    )
    return routing, episodes


def test_steps_by_hand(tables):
    frame = tables[0].to_frame()
    expected = {
        "episode": pd.array([0, 0, 1], "Int32"),
        "x": pd.array([1, 3, 5], "Int16"),
        "y": pd.array([2, 4, 6], "Int16"),
        "lpc": np.array([320, np.nan, 64], np.float32),
        "t_step": pd.array([0, 1, None], "Int32"),
        "direction": pd.array([3, None, 0], "Int8"),
        "carrying": pd.array([True, False, False], "boolean"),
        "door_unlocked": pd.array([None, False, True], "boolean"),
        "action": pd.array([2, 0, 6], "Int8"),
        "action_logits/0": np.array([0.5, 1, 0], np.float32),
        "action_logits/1": np.array([2, 0, -1], np.float32),
        "expert_action": pd.array([None, 1, 2], "Int8"),
        "entropy": np.array([0.5, 0.25, 0], np.float32),
        "dist_to_door": np.array([np.nan, 0, 4], np.float32),
        "dist_to_key": np.array([2, 1, 4], np.float32),
        "dist_to_target": np.array([3, 2, 4], np.float32),
        "straight_to_door": np.array([np.nan, 0, 4], np.float32),
        "straight_to_key": np.array([2, 1, 4], np.float32),
        "straight_to_target": np.array([1.5, 2, 4], np.float32),
        "subgoal": pd.Categorical(["Open", None, "GoNextTo"], ["GoNextTo", "Open"]),
        "event": pd.Categorical(["none", "unlocked", "picked"], ["none", "picked", "dropped", "unlocked"]),
        "event_object": pd.Categorical([None, "blue door", "red ball"], ["red ball", "grey key", "blue door"]),
        "layer_0/expert_0": np.array([0.5] * 3, np.float32),
        "layer_0/expert_1": np.array([0.25] * 3, np.float32),
        "layer_0/expert_2": np.array([0.25] * 3, np.float32),
        "layer_1/expert_0": np.array([1, 0, 0.5], np.float32),
        "layer_1/expert_1": np.array([0, 1, 0.5], np.float32),
    }
    pd.testing.assert_frame_equal(frame, pd.DataFrame(expected))


def test_episodes_by_hand(tables):
    frame = tables[1].to_frame()
    assert frame.index.name == "episode" and "env_context" not in frame
    kept = ["level_seed", "mission", "outcome", "steps", "mean_lpc", "t_pick"]
    expected = {
        "level_seed": pd.array([2**61 + 1, None], "Int64"),
        "mission": pd.array(["go to the red ball", None], "string"),
        "outcome": pd.Categorical(["timeout", None], ["success", "failure", "timeout"]),
        "steps": pd.array([2, None], "Int32"),
        "mean_lpc": np.array([192.0, np.nan]),
        "t_pick": pd.array([None, 4], "Int32"),
    }
    pd.testing.assert_frame_equal(frame[kept], pd.DataFrame(expected, index=pd.RangeIndex(2, name="episode")))


def test_steps_join_their_episodes(tables):
    routing, episodes = tables
    joined = routing.to_frame().join(episodes.to_frame(), on="episode")
    assert joined["outcome"].tolist()[:2] == ["timeout", "timeout"]
    assert joined.groupby("episode")["layer_1/expert_0"].mean().tolist() == [0.5, 0.5]


def test_columns_that_are_not_known_are_missing_throughout(tables):
    unknown = frozenset({"carrying", "event", "action", "walking", "door_unlocked"})
    frame = dataclasses.replace(tables[0], unknown=unknown).to_frame()
    missing = {name for name in frame if frame[name].isna().all()}
    distances = {"dist_to_door", "dist_to_key", "dist_to_target"}
    assert missing == {"carrying", "door_unlocked", "action", "event", *distances}
    assert frame.dtypes.equals(tables[0].to_frame().dtypes)


def test_frames_do_not_share_memory_with_tables(tables):
    routing, episodes = tables
    frame = routing.to_frame()
    frame.loc[0, ["action", "lpc", "carrying", "x", "layer_0/expert_0"]] = [5, 7.0, False, 9, 1.0]
    assert frame["action"].tolist() == [5, 0, 6]
    assert (routing.action[0], routing.lpc[0], routing.carrying[0], routing.position[0, 0]) == (2, 320, True, 1)
    assert routing.weights[0][0, 0] == 0.5
    levels = episodes.to_frame()
    levels.loc[0, "steps"] = 7
    assert episodes.steps[0] == 2


@pytest.mark.parametrize("lengths", [[], [3]])
def test_policies_without_routers_and_tables_without_rows(lengths):
    routing, episodes = random_tables(0, lengths, sizes=[])
    frame = routing.to_frame()
    assert len(frame) == sum(lengths) and not [name for name in frame if name.startswith("layer_")]
    assert frame["lpc"].isna().all()
    assert len(episodes.to_frame()) == len(lengths)


def test_pandas_is_imported_with_the_first_frame():
    program = "import sys, pipeline.records.tables, pipeline.records.cache; sys.exit('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], timeout=120, check=False)
    assert done.returncode == 0
