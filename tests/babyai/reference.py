"""An untouched minigrid: its environments and its bot, which the tests hold the compiled world against."""

import contextlib
import io

import gymnasium
import minigrid  # noqa: F401  (registers the tasks)
from minigrid.utils.baby_ai_bot import BabyAIBot

from babyai.compiled.layout import MAX_PUSHES

LOOPING_TASK = "BabyAI-GoToImpUnlock-v0"
"""On some of whose levels, that of seed 6 for one, the bot replans in circles."""


def make_minigrid(task_id: str, seed: int):
    """Minigrid's own environment: its own generator, step and observation."""
    env = gymnasium.make(task_id, disable_env_checker=True).unwrapped
    with contextlib.redirect_stdout(io.StringIO()):  # "Sampling rejected: ..."
        env.reset(seed=seed)
    return env


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

    @property
    def subgoal(self) -> str | None:
        """What the last suggestion serves."""
        if self.error is not None:
            return None
        if not self.bot.stack:
            return "Done"
        top = self.bot.stack[-1]
        return "Explore" if top.is_exploratory() else type(top).__name__.removesuffix("Subgoal")
