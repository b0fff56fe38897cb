"""The plain world: an untouched minigrid but for two bounds; names of tasks, seeds, step limits, the expert."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import babyai.levels
from babyai.errors import LevelError, UnknownTaskError, WorldError
from babyai.facts import FAILURE, RUNNING, SUCCESS, TIMEOUT
from babyai.levels import build_env, list_tasks, resolve_task_id
from babyai.plain_world import Expert, Simulator, plan_length
from tests.babyai.reference import LOOPING_TASK, ReferenceBot, make_minigrid
from tests.fresh_seeds import REPEAT, SEED, draw_level_seed

TASKS = list_tasks()


def load(task_id: str, seed: int) -> Simulator:
    simulator = Simulator(task_id)
    simulator.load(seed)
    return simulator


def level_facts(env) -> tuple:
    """Everything that defines a level's start."""
    cells = [
        None if cell is None else (*cell.encode(), cell.cur_pos and tuple(map(int, cell.cur_pos)))
        for cell in env.grid.grid
    ]
    agent = (*map(int, env.agent_pos), int(env.agent_dir))
    return env.mission, env.max_steps, agent, cells, None if env.carrying is None else env.carrying.encode()


def play_in_lock_step(task_id: str, seed: int, noise: float, max_steps: int) -> Iterator[tuple[str, int]]:
    """Plays one level on both sides, yielding what happened; asserts that nothing differs."""
    reference, simulator = make_minigrid(task_id, seed), load(task_id, seed)
    # Not what reset returns: in the PutNext*Carrying tasks that observation is older than the carried object
    obs = reference.gen_obs()
    assert level_facts(simulator.env) == level_facts(reference)
    expert, bot = Expert(simulator), ReferenceBot(reference)
    expert.reset()
    rng = np.random.default_rng(seed)
    view = np.full((7, 7, 3), 255, np.uint8)
    action = None
    for t in range(max_steps):
        direction, carrying = simulator.observe(view)
        np.testing.assert_array_equal(view, obs["image"], err_msg=f"{task_id} seed {seed} step {t}")
        assert (direction, carrying) == (obs["direction"], reference.carrying is not None)
        suggested, expected = expert.suggest(action), bot.suggest(action)
        assert suggested == expected, (task_id, seed, t, expert.gave_up, bot.error)
        assert (expert.gave_up is None) == (bot.error is None)
        if bot.error is not None:
            yield type(bot.error).__name__, t
        random_move = suggested is None or rng.random() < noise
        action = int(rng.integers(7)) if random_move else suggested
        obs, reward, terminated, truncated, _ = reference.step(action)
        transition = simulator.step(action)
        assert transition.reward == reward
        assert (simulator.steps, simulator.mission) == (reference.step_count, obs["mission"])
        if terminated:
            assert transition.outcome == (SUCCESS if reward > 0 else FAILURE)
        else:
            assert transition.outcome == (TIMEOUT if truncated else RUNNING)
        yield transition.outcome, t
        if terminated or truncated:
            return


def test_bounds_change_nothing():
    """Levels, observations, rewards, outcomes, the bot's actions; played by the expert, with noise, at random."""
    rng = np.random.default_rng(SEED)
    for task_id in rng.choice(TASKS, 12).tolist():
        for noise in (0.0, 0.25, 1.0):
            assert list(play_in_lock_step(task_id, draw_level_seed(task_id, rng), noise, 50)), REPEAT


def test_bot_exceptions_happen_in_lock_step():
    """The comparison above is only worth something if the bot's failures occur too."""
    seen = set()
    for task_id, seed, noise in (
        ("BabyAI-PutNextLocalS5N3-v0", 4, 1.0),
        ("BabyAI-KeyInBox-v0", 0, 0),
        (LOOPING_TASK, 6, 0),
    ):
        seen |= {name for name, _ in play_in_lock_step(task_id, seed, noise, 250)}
    assert {"DisappearedBoxError", "AssertionError", "Endless"} <= seen


@pytest.mark.parametrize("task_id", ["GoToObj", "UnlockToUnlock", "PutNextS5N2Carrying", "BossLevel"])
def test_level_depends_on_task_and_seed_only(task_id):
    """A simulator that has made other levels, and had one played on, makes the same level as a fresh one."""
    used = Simulator(task_id)
    rng = np.random.default_rng(0)
    for seed in (7, 8, 9):
        used.load(seed)
        for action in rng.integers(7, size=12):
            if used.step(int(action)).outcome:
                break
    used.load(4)
    assert level_facts(used.env) == level_facts(load(task_id, 4).env) != level_facts(load(task_id, 5).env)


def test_levels_can_be_made_with_evaluation_seeds():
    assert load("GoToObj", 2**32 - 1).mission.startswith("go to")


def test_step_limit():
    assert load("GoToObj", 0).env.max_steps == 64
    for task_id in ("GoToObj", "PutNextS4N1", "OpenDoorsOrderN2Debug"):
        simulator = Simulator(task_id, max_steps=5)
        simulator.load(0)
        outcomes = [simulator.step(0).outcome for _ in range(5)]
        assert outcomes == [RUNNING] * 4 + [TIMEOUT]
        with pytest.raises(RuntimeError, match="TIMEOUT"):
            simulator.step(0)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="max_steps"):
            build_env("GoToObj", max_steps=wrong)


def test_task_names():
    assert resolve_task_id("GoToObj") == resolve_task_id("BabyAI-GoToObj") == "BabyAI-GoToObj-v0"
    assert resolve_task_id("GoToObj-v0") == "BabyAI-GoToObj-v0"
    assert resolve_task_id("GoToObjS6") == "BabyAI-GoToObjS6-v1"
    assert all(resolve_task_id(task_id) == task_id for task_id in TASKS)
    with pytest.raises(UnknownTaskError, match=r"found 'GoToObject'.*GoToObj"):
        resolve_task_id("GoToObject")
    with pytest.raises(UnknownTaskError, match="list_tasks"):
        resolve_task_id("%")


@pytest.mark.parametrize("seed", [-1, 1.0, "3", True, None])
def test_bad_level_seed(seed):
    with pytest.raises(ValueError, match="level seed"):
        load("GoToObj", seed)


def test_generation_is_bounded(monkeypatch):
    """A generator that would go on for ever ends with a LevelError, and the simulator can be used again."""
    simulator = Simulator("GoToObj")
    monkeypatch.setattr(type(simulator.env), "gen_mission", lambda env: [env._rand_int(0, 2) for _ in iter(int, 1)])
    with pytest.raises(LevelError, match=f"GoToObj-v0, level seed 3.*{babyai.levels.MAX_DRAWS}"):
        simulator.load(3)
    with pytest.raises(RuntimeError):
        simulator.step(0)
    monkeypatch.undo()
    simulator.load(3)
    assert simulator.mission == load("GoToObj", 3).mission


def test_generation_prints_nothing(capfd):
    env, reference = build_env("GoToSeq"), make_minigrid("BabyAI-GoToSeq-v0", 0)
    for seed in range(10):
        env.reset(seed=seed)
    assert capfd.readouterr().out == ""
    for seed in range(10):
        reference.reset(seed=seed)
    assert "Sampling rejected" in capfd.readouterr().out  # so there was something to be silent about


def test_failure_is_not_success():
    """OpenDoorsOrderN2Debug terminates on failure too; success needs a reward (a random agent: few solve it)."""
    simulator = Simulator("OpenDoorsOrderN2Debug")
    rng = np.random.default_rng(0)
    counts = dict.fromkeys((RUNNING, SUCCESS, FAILURE, TIMEOUT), 0)
    for seed in range(40):
        simulator.load(seed)
        outcome = RUNNING
        while outcome == RUNNING:
            reward, outcome = simulator.step(int(rng.integers(7)))
            assert (reward > 0) == (outcome == SUCCESS)
        counts[outcome] += 1
    assert counts[FAILURE] > counts[SUCCESS] > 0


def test_step_needs_a_level_and_a_valid_action():
    simulator = Simulator("GoToObj")
    with pytest.raises(RuntimeError, match="load a level first"):
        simulator.step(0)
    simulator.load(0)
    for action in (-1, 7):
        with pytest.raises(ValueError, match="action"):
            simulator.step(action)
    assert simulator.steps == 0


# ---------------------------------------------------------------------------------------------------------------------
# The expert


def test_plan_length_is_the_experts_episode():
    simulator, other = Simulator("UnlockPickup"), Simulator("UnlockPickup")
    expert = Expert(simulator)
    for seed in range(5):
        simulator.load(seed)
        expert.reset()
        action = expert.suggest(None)
        while not simulator.step(action).outcome:
            action = expert.suggest(action)
        assert simulator._outcome == SUCCESS
        assert plan_length(other, seed) == simulator.steps
    assert plan_length(Simulator("UnlockPickup", max_steps=3), 0) is None


def test_expert_stays_silent_until_reset():
    simulator = Simulator("GoToObj")
    expert = Expert(simulator)
    assert expert.suggest(None) is None
    assert "reset" in expert.gave_up
    simulator.load(0)
    expert.reset()
    assert expert.gave_up is None
    first = expert.suggest(None)
    assert first in range(7)
    expert._bot.stack.append(None)  # any exception means that it has no plan
    assert expert.suggest(first) is None
    reason = expert.gave_up
    assert "AttributeError" in reason
    assert expert.suggest(0) is None and expert.gave_up == reason
    expert.reset()
    assert expert.suggest(None) == first


def test_nothing_opens_a_window():
    """Making and playing levels initialises no part of pygame and greets nobody."""
    code = (
        "from babyai.plain_world import Simulator; import pygame; s = Simulator('GoToObj'); s.load(0); s.step(2);"
        "print(pygame.get_init(), pygame.display.get_init())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYGAME_HIDE_SUPPORT_PROMPT"}
    root = str(Path(__file__).parents[2])
    result = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert result.stdout == "False False\n", result.stderr


def test_networkx_waits_until_minigrid_uses_it():
    program = (
        "import sys, babyai.levels; print('networkx' in sys.modules); "
        "from minigrid.envs.wfc import wfcenv; graph = wfcenv.nx.Graph([(1, 2)]); "
        "import networkx; print(type(graph) is networkx.Graph, wfcenv.nx.DiGraph is networkx.DiGraph)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "True", "True"]


def test_what_users_can_do_something_about_has_one_base():
    with pytest.raises(WorldError):
        resolve_task_id("GoToNowhere")
