"""Pictures of levels and of what happens in them."""

from itertools import pairwise

import gymnasium
import numpy as np
import pytest

from babyai.errors import ReplayError, UnknownTaskError
from babyai.render import level_mission, render_level, replay, replay_frames
from tests.short_episodes import TASK, play_short_episodes

TILE = 8
TASKS = [TASK, "BabyAI-UnlockPickup-v0", "BabyAI-KeyInBox-v0", "BabyAI-PutNextS5N2Carrying-v0", "BabyAI-BossLevel-v0"]


@pytest.fixture(scope="module")
def evaluation():
    return play_short_episodes()


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("task_id", TASKS)
@pytest.mark.parametrize("highlight", [False, True])
def test_pictures_are_those_of_minigrid_at_every_step(task_id, highlight):
    env = gymnasium.make(task_id).unwrapped
    env.reset(seed=2)
    actions = np.random.default_rng(0).integers(0, 7, 25).tolist()
    frames = replay_frames(task_id, 2, actions, tile_size=TILE, highlight=highlight)
    for action, frame in zip(actions, frames, strict=False):
        np.testing.assert_array_equal(frame, env.get_frame(highlight=highlight, tile_size=TILE), strict=True)
        if any(env.step(action)[2:4]):
            break
    np.testing.assert_array_equal(next(frames), env.get_frame(highlight=highlight, tile_size=TILE), strict=True)
    assert level_mission(task_id, 2) == env.mission


def test_there_is_one_frame_more_than_actions_and_each_is_its_own():
    actions = [0, 1, 2, 0, 2]
    frames = list(replay_frames(TASK, 1, actions, tile_size=TILE))
    again = list(replay_frames(TASK, 1, np.array(actions, np.int8), tile_size=TILE))
    assert len(frames) == 6
    for step, (one, two) in enumerate(zip(frames, again, strict=True)):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, two)
        shown = render_level(TASK, 1, actions=actions[:step], tile_size=TILE, highlight=True)
        np.testing.assert_array_equal(shown, one)
    assert not any(np.shares_memory(one, two) for one, two in pairwise(frames))
    assert (frames[0] != frames[1]).any()


def test_replay_says_where_the_agent_was_and_how_it_ended(evaluation):
    table, episodes = evaluation.routing, evaluation.episodes
    for k in range(len(episodes)):
        rows = table.select(table.episode == k)
        found = replay(TASK, episodes.level_seed[k], rows.action, max_steps=6)
        np.testing.assert_array_equal(found.position[:-1], rows.position, strict=True)
        np.testing.assert_array_equal(found.direction[:-1], rows.direction, strict=True)
        assert (found.mission, found.outcome) == (episodes.mission[k], episodes.outcome[k])
    assert replay(TASK, 0, []).outcome == 0


def test_impossible_pictures_are_refused():
    with pytest.raises(UnknownTaskError, match="GoToObj"):
        render_level("GoToObjj", 0)
    with pytest.raises(ValueError, match="level seed: expected an int >= 0, found -1"):
        render_level(TASK, -1)
    for tile_size in (0, 129, 2.5):
        with pytest.raises(ValueError, match="tile_size"):
            render_level(TASK, 0, tile_size=tile_size)
    for actions in ([7], [-1], [0.5], [[1]], ["a"]):
        with pytest.raises(ReplayError, match="actions: expected"):
            replay_frames(TASK, 0, actions)  # before the first frame is asked for
    with pytest.raises(ReplayError, match=r"found that it ends after 3 \(timeout\)"):
        list(replay_frames(TASK, 0, [0] * 5, max_steps=3))
