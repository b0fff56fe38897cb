"""Levels, the simulator and the expert against an untouched minigrid, in lock-step, for every registered task."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.utils.baby_ai_bot import BabyAIBot

import babyai.levels
from babyai.errors import LevelError, UnknownTaskError
from babyai.expert import MAX_PUSHES, Expert, plan_length
from babyai.facts import FAILURE, RUNNING, SUCCESS, TIMEOUT
from babyai.levels import LevelMaker, list_tasks, resolve_task_id
from babyai.simulator import Simulator, encode_cell

TASKS = list_tasks()
LOOPING_TASK = "BabyAI-GoToImpUnlock-v0"


def build_reference(task_id: str):
    """Minigrid's own environment: its own generator, step and observation."""
    return gymnasium.make(task_id, disable_env_checker=True).unwrapped


def reset_reference(reference, seed: int):
    with contextlib.redirect_stdout(io.StringIO()):  # "Sampling rejected: ..."
        reference.reset(seed=seed)
    # Not what reset returns: in the PutNext*Carrying tasks that observation is older than the carried object
    return reference.gen_obs()


class Endless(Exception):
    """The untouched bot replans in circles."""


class BoundedStack(list):
    """Lets the otherwise untouched bot end."""

    pushes = 0

    def append(self, subgoal) -> None:
        self.pushes += 1
        if self.pushes > MAX_PUSHES:
            raise Endless
        super().append(subgoal)


class ReferenceBot:
    """minigrid's own bot; silent once it has raised."""

    def __init__(self, reference) -> None:
        self.error: Exception | None = None
        try:
            self.bot = BabyAIBot(reference)
            self.bot.stack = BoundedStack(self.bot.stack)
        except Exception as error:
            self.error = error

    def suggest(self, action_taken: int | None) -> int | None:
        if self.error is None:
            self.bot.stack.pushes = 0
            try:
                return int(self.bot.replan(action_taken))
            except Exception as error:
                self.error = error
        return None


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
    reference, simulator = build_reference(task_id), Simulator(task_id)
    obs = reset_reference(reference, seed)
    simulator.load(seed)
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


@pytest.mark.parametrize("task_id", TASKS)
def test_equals_minigrid(task_id):
    """Levels, observations, rewards, outcomes, the bot's actions; played by the expert, with noise, at random."""
    for seed, noise, steps in ((0, 0.0, 60), (1, 0.25, 60), (2, 1.0, 40)):
        events = list(play_in_lock_step(task_id, seed, noise, steps))
        assert events


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


@pytest.mark.parametrize("task_id", TASKS)
def test_level_depends_on_task_and_seed_only(task_id):
    """A maker that has made other levels, and had one played on, makes the same level as a fresh one."""
    used = Simulator(task_id)
    rng = np.random.default_rng(0)
    for seed in (7, 8, 9):
        used.load(seed)
        for action in rng.integers(7, size=12):
            if used.step(int(action)).outcome:
                break
    used.load(4)
    fresh = LevelMaker(task_id).make(4)
    assert level_facts(used.env) == level_facts(fresh.env)
    assert (used.mission, used.max_steps) == (fresh.mission, fresh.max_steps)
    assert level_facts(LevelMaker(task_id).make(5).env) != level_facts(fresh.env)


def test_levels_can_be_made_with_evaluation_seeds():
    assert LevelMaker("GoToObj").make(2**32 - 1).mission.startswith("go to")


def test_step_limit():
    assert LevelMaker("GoToObj").make(0).max_steps == 64
    for task_id in ("GoToObj", "PutNextS4N1", "OpenDoorsOrderN2Debug"):
        simulator = Simulator(task_id, max_steps=5)
        simulator.load(0)
        outcomes = [simulator.step(0).outcome for _ in range(5)]
        assert outcomes == [RUNNING] * 4 + [TIMEOUT]
        with pytest.raises(RuntimeError, match="TIMEOUT"):
            simulator.step(0)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="max_steps"):
            LevelMaker("GoToObj", max_steps=wrong)


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
        LevelMaker("GoToObj").make(seed)


def test_generation_is_bounded(monkeypatch):
    """A generator that would go on for ever ends with a LevelError, and the maker can be used again."""
    simulator = Simulator("GoToObj")
    monkeypatch.setattr(type(simulator.env), "gen_mission", lambda env: [env._rand_int(0, 2) for _ in iter(int, 1)])
    with pytest.raises(LevelError, match=f"GoToObj-v0, level seed 3.*{babyai.levels.MAX_DRAWS}"):
        simulator.load(3)
    with pytest.raises(RuntimeError):
        simulator.step(0)
    monkeypatch.undo()
    simulator.load(3)
    assert simulator.mission == LevelMaker("GoToObj").make(3).mission


def test_generation_prints_nothing(capfd):
    maker, reference = LevelMaker("GoToSeq"), build_reference("BabyAI-GoToSeq-v0")
    for seed in range(10):
        maker.make(seed)
    assert capfd.readouterr().out == ""
    for seed in range(10):
        reference.reset(seed=seed)
    assert "Sampling rejected" in capfd.readouterr().out  # so there was something to be silent about


BOUNDS = st.tuples(st.integers(-5, 5), st.integers(1, 2**32 - 1))


@given(seed=st.integers(0, 2**63), bounds=st.lists(BOUNDS, max_size=200))
@settings(max_examples=50, deadline=None)
def test_draws_equal_numpy(seed, bounds):
    ours = babyai.levels._Draws(np.random.PCG64(seed))
    numpys = np.random.Generator(np.random.PCG64(seed))
    for k, (low, span) in enumerate(bounds):
        assert ours.integers(low, low + span) == numpys.integers(low, low + span)
        if k % 3 == 0:
            assert ours.uniform(0, 1) == numpys.uniform(0, 1)
    assert ours.count == len(bounds) + len(bounds[::3])


def test_levels_without_emulated_draws(monkeypatch):
    """With a numpy whose streams differ, levels come from numpy itself: the same ones today."""
    level = level_facts(LevelMaker("BossLevel").make(1).env)
    monkeypatch.setattr(babyai.levels, "_make_draws", babyai.levels._NumpyDraws)
    assert level_facts(LevelMaker("BossLevel").make(1).env) == level


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


def test_map_follows_every_change():
    """The incremental byte map equals the grid after moves, pick-ups, drops and opened doors and boxes."""
    simulator = Simulator("BossLevel")
    expert = Expert(simulator)
    rng = np.random.default_rng(3)
    carried = 0
    for seed in range(4):
        simulator.load(seed)
        expert.reset()
        action = None
        for _ in range(80):
            suggested = expert.suggest(action)
            action = suggested if suggested is not None and rng.random() < 0.8 else int(rng.integers(7))
            done = simulator.step(action).outcome
            carried += simulator.env.carrying is not None
            expected = [encode_cell(cell) for cell in simulator.env.grid.grid]
            assert simulator._inner.ravel().tolist() == expected
            if done:
                break
    assert carried > 10


def test_instruction_follows_moved_objects():
    """Positions of the objects in an instruction: refreshed at drops as minigrid's, though only if something moved."""
    reference, simulator = build_reference("BabyAI-PutNextLocalS5N3-v0"), Simulator("PutNextLocalS5N3")
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(6):
        reset_reference(reference, seed)
        simulator.load(seed)
        for action in rng.choice([0, 2, 2, 3, 4], size=90):
            _, _, terminated, truncated, _ = reference.step(action)
            simulator.step(int(action))
            ours, theirs = simulator.env.instrs, reference.instrs
            assert ours.desc_move.obj_poss == theirs.desc_move.obj_poss
            assert ours.desc_fixed.obj_poss == theirs.desc_fixed.obj_poss
            seen.add((seed, str(theirs.desc_move.obj_poss + theirs.desc_fixed.obj_poss)))
            if terminated or truncated:
                break
    assert len(seen) > 6  # something moved in one of the six levels


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
        "from babyai.simulator import Simulator; import pygame; s = Simulator('GoToObj'); s.load(0); s.step(2);"
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
