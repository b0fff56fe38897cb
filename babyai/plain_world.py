"""One level of any task played by minigrid's own environment and bot: the compiled world's yardstick and fallback.

    simulator = Simulator("GoToObj")
    expert = Expert(simulator)
    simulator.load(seed=3)
    expert.reset()
    action = expert.suggest(None)                    # first observation
    reward, outcome = simulator.step(taken)
    action = expert.suggest(taken)                   # the student took `taken`; None once the bot has given up

Everything is as slow as minigrid. Its generator and its bot are not sure to end; both are held to a bound.
"""

from typing import NamedTuple

import babyai.minigrid_import  # noqa: F401

# isort: split
import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot, Subgoal

from babyai.compiled.layout import MAX_PUSHES
from babyai.errors import LevelError
from babyai.facts import FAILURE, NUM_ACTIONS, OUTCOME_NAMES, RUNNING, SUCCESS, TIMEOUT
from babyai.levels import build_env, resolve_task_id


class Transition(NamedTuple):
    """What a step brought; `babyai.facts` numbers the outcomes."""

    reward: float
    outcome: int


class Simulator:
    """One level being played.

    Attributes:
        env: minigrid's environment; for use inside `babyai` only.
        task_id: full id.
        level_seed: of the level loaded last.
    """

    def __init__(self, task_id: str, max_steps: int | None = None) -> None:
        """Prepares to play levels of a task; arguments and errors are those of `babyai.levels.build_env`."""
        self.task_id = resolve_task_id(task_id)
        self.env = build_env(task_id, max_steps)
        self.level_seed = -1
        self._outcome = TIMEOUT  # nothing loaded: no step allowed

    @property
    def mission(self) -> str:
        """The instruction."""
        return self.env.mission

    @property
    def steps(self) -> int:
        """Steps taken in this episode."""
        return self.env.step_count

    @property
    def draws(self) -> int:
        """Random draws that the level took: the unit in which a generator's work is bounded."""
        return self.env.np_random.count

    def load(self, seed: int) -> None:
        """Starts the level of `seed` (an int >= 0).

        Raises:
            LevelError: minigrid's generator found no level for this seed in bounded work; nothing is loaded then.
            ValueError: `seed` is not a non-negative int.
        """
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"level seed: expected an int >= 0, found {seed!r}")
        self._outcome = TIMEOUT
        try:
            self.env.reset(seed=int(seed))
        except LevelError as error:
            raise LevelError(f"{self.task_id}, level seed {seed}: {error}") from None
        self.level_seed, self._outcome = int(seed), RUNNING

    def step(self, action: int) -> Transition:
        """Takes an action.

        Raises:
            RuntimeError: the episode is over, or no level is loaded.
            ValueError: no such action.
        """
        if self._outcome != RUNNING:
            found = OUTCOME_NAMES[self._outcome].upper()
            raise RuntimeError(f"expected a running episode, found outcome {found}; load a level first")
        if not 0 <= action < NUM_ACTIONS:
            raise ValueError(f"action: expected 0..{NUM_ACTIONS - 1}, found {action!r}")
        _, reward, terminated, truncated, _ = self.env.step(action)
        if terminated:
            self._outcome = SUCCESS if reward > 0 else FAILURE
        elif truncated:
            self._outcome = TIMEOUT
        return Transition(float(reward), self._outcome)

    def observe(self, view_out: np.ndarray) -> tuple[int, bool]:
        """Writes what the agent sees into `view_out`, uint8 (7, 7, 3), indexed [x, y, channel].

        Returns:
            direction (0..3: right, down, left, up) and whether the agent carries something.
        """
        view_out[...] = self.env.gen_obs()["image"]
        return int(self.env.agent_dir), self.env.carrying is not None


class ExpertGaveUp(Exception):
    """The bot replans without coming to a decision."""


class _BoundedStack(list):
    """The bot's subgoals; pushing is what bounds its work."""

    pushes = 0

    def append(self, subgoal: Subgoal) -> None:
        self.pushes += 1
        if self.pushes > MAX_PUSHES:
            raise ExpertGaveUp(f"more than {MAX_PUSHES} subgoals for one action")
        super().append(subgoal)


class Expert:
    """minigrid's bot, following one simulator.

    Attributes:
        gave_up: why the bot is silent, None while it is not.
    """

    def __init__(self, simulator: Simulator) -> None:
        """An expert for `simulator`; call `reset` once a level is loaded."""
        self._simulator = simulator
        self._bot: BabyAIBot | None = None
        self.gave_up: str | None = "no level yet: call reset() after Simulator.load()"

    def reset(self) -> None:
        """Forgets the last level and plans for the one that the simulator has just loaded."""
        self.gave_up = None
        try:
            self._bot = BabyAIBot(self._simulator.env)
            self._bot.stack = _BoundedStack(self._bot.stack)
        except Exception as error:
            self._give_up(error)

    def suggest(self, action_taken: int | None) -> int | None:
        """The bot's action (0..6) for the current state.

        Call it once for the first observation and once after every step: the bot follows what the agent does.

        Args:
            action_taken: the agent's last action; None on an episode's first observation.

        Returns:
            the action, or None from the moment the bot gives up until `reset`: a plan that missed a step would yield
            wrong labels.
        """
        if self.gave_up is not None:
            return None
        self._bot.stack.pushes = 0
        try:
            return int(self._bot.replan(action_taken))
        # Whatever the bot raises (failed assertions, type errors on missing positions, opened boxes) means that it has
        # no plan.
        except Exception as error:
            self._give_up(error)
            return None

    @property
    def subgoal(self) -> str | None:
        """What the last suggestion serves, one of `babyai.facts.SUBGOAL_NAMES`; None once the bot has given up."""
        if self._bot is None:
            return None
        if not self._bot.stack:
            return "Done"
        # The bot decides by the top of its stack, and deciding on an action leaves the stack as it is
        top = self._bot.stack[-1]
        return "Explore" if top.is_exploratory() else type(top).__name__.removesuffix("Subgoal")

    def _give_up(self, error: Exception) -> None:
        self._bot = None
        self.gave_up = f"{type(error).__name__}: {error}".rstrip(": ")


def plan_length(simulator: Simulator, level_seed: int) -> int | None:
    """The number of steps in which the expert solves a level, None if it does not within the level's step limit.

    Args:
        simulator: one that nobody else is playing on: it loads the level anew.
        level_seed: the level.
    """
    try:
        simulator.load(level_seed)
    except LevelError:
        return None
    expert = Expert(simulator)
    expert.reset()
    action, outcome = expert.suggest(None), RUNNING
    while action is not None and outcome == RUNNING:
        outcome = simulator.step(action).outcome
        if outcome == RUNNING:
            action = expert.suggest(action)
    return simulator.steps if outcome == SUCCESS else None
