"""When a run has learned its level: nothing that those episodes which end first have in common."""

import dataclasses

import numpy as np
import pytest

from babyai.levels import build_env, resolve_task_id
from pipeline.config import TrainConfig
from science.learning import SAMPLED, find_learned, find_step_limit, find_whole

ENVS, LIMIT, QUICK, WINDOW, UNROLL = 64, 500, 12, 100, 16
WHOLE = ENVS * LIMIT


def act(skill, *, updates: int = 400, seed: int = 0) -> list[tuple[int, int, float]]:
    """Return the lines of a run whose episodes succeed after about `QUICK` steps, or are cut after `LIMIT`.

    Args:
        skill: Probability of success of an episode that begins at a step.
        updates: Lines, one each.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    ends: list[tuple[int, bool]] = []
    for _ in range(ENVS):
        step = 0
        while step < updates * UNROLL:
            good = rng.random() < skill(step)
            step += int(rng.integers(1, 2 * QUICK)) if good else LIMIT
            ends.append((step, good))
    ends.sort(key=lambda end: end[0])
    lines, ended = [], 0
    for update in range(1, updates + 1):
        while ended < len(ends) and ends[ended][0] <= update * UNROLL:
            ended += 1
        last = [good for _, good in ends[max(0, ended - WINDOW) : ended]]
        lines.append((update * UNROLL * ENVS, ended, float(np.mean(last)) if last else 0.0))
    return lines


def find(lines, success: float = 0.9) -> tuple[float, bool]:
    return find_learned(lines, success, whole=WHOLE, window=WINDOW)


@pytest.mark.parametrize("skill", [0.0, 0.5, 0.7, 0.8])
def test_who_never_has_the_success_never_learned_though_the_first_to_end_succeed(skill):
    for seed in range(5):
        lines = act(lambda step: skill, seed=seed)
        assert find(lines) == (float("inf"), False)
        full = [share for _, ended, share in lines if ended >= WINDOW]
        assert (max(full) >= 0.9) == (skill >= 0.7)  # what the last hundred alone would have been taken for


@pytest.mark.parametrize("skill", [0.95, 1.0])
def test_who_has_it_from_the_start_is_there_as_soon_as_it_can_be_told(skill):
    for seed in range(5):
        steps, at_once = find(act(lambda step: skill, seed=seed))
        assert at_once
        assert WHOLE < steps <= WHOLE + 2 * UNROLL * ENVS


def test_who_learns_it_later_is_told_within_one_longest_episode():
    learned = 3000
    for seed in range(5):
        steps, at_once = find(act(lambda step: 0.98 if step >= learned else 0.3, seed=seed))
        assert not at_once
        assert abs(steps / ENVS - learned) <= LIMIT


def test_what_the_end_of_training_cuts_is_not_told():
    lines = act(lambda step: 1.0, updates=2 * LIMIT // UNROLL)
    assert lines[-1][0] < 2 * WHOLE
    assert find(lines) == (float("inf"), False)
    assert find([]) == (float("inf"), False)


def test_shares_are_exact_where_every_line_is_counted():
    """Three lines of ten episodes: all, eight and six of ten succeed."""
    lines = [(10, 10, 0.0), (20, 20, 1.0), (30, 30, 0.8), (40, 40, 0.6)]
    about = {"whole": 10, "window": 10}
    assert find_learned(lines, 1.0, **about) == (20.0, True)
    assert find_learned([lines[0], (20, 20, 0.6), (30, 30, 0.8)], 0.8, **about) == (30.0, False)
    assert find_learned(lines, 0.9, whole=10, window=20) == (20.0, True)  # two lines, eighteen of twenty
    assert find_learned(lines, 0.91, whole=10, window=20) == (float("inf"), False)


def test_an_episode_is_as_long_as_the_levels_own_limits_let_it_be():
    task = resolve_task_id("MiniBossLevel")
    env, limits = build_env(task), set()
    for seed in range(SAMPLED):
        env.reset(seed=seed)
        limits.add(env.max_steps)
    assert len(limits) > 1
    assert find_step_limit(task) == max(limits)
    config = TrainConfig(task_id=task, num_envs=7)
    assert find_whole(config) == 7 * max(limits)
    assert find_whole(dataclasses.replace(config, max_steps=20)) == 140
