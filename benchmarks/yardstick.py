"""The environment with its expert against minigrid's own, both labelling the same kind of actions on one core.

    rates = compare_environments("BabyAI-GoToObj-v0", num_envs=16, seconds=1.5, rounds=3, seed=0)
    rates.ours / rates.minigrid

Both step and verify, ask the bot for its action after every step, and go on with a new level where one ends. Neither
plans levels beforehand (`plan_every=0`), which minigrid's does not do either.
"""

from __future__ import annotations

import contextlib
import io
import statistics
from dataclasses import dataclass

import gymnasium
import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot

from babyai.facts import NUM_ACTIONS
from babyai.vector_env import SeedStreams, VectorEnv
from benchmarks.common import measure_rate


@dataclass(frozen=True)
class EnvironmentRates:
    """Env-steps per second, medians over rounds.

    Attributes:
        minigrid: Of minigrid's environment and bot, both unchanged.
        ours: Of `VectorEnv`.
    """

    minigrid: float
    ours: float


class _MinigridPlayer:
    """One environment as minigrid makes it; where its bot raises, the rest of the episode goes without labels."""

    num_envs = 1

    def __init__(self, task_id: str, seed: int, follow: bool) -> None:
        self._follow = follow
        # Without gymnasium's wrappers, which only check arguments: that much is given to the yardstick for free.
        self._env = gymnasium.make(task_id, disable_env_checker=True).unwrapped
        self._random = np.random.default_rng(seed)
        self._start()

    def step(self) -> None:
        action = int(self._random.integers(NUM_ACTIONS)) if self._advice is None else self._advice
        _, _, terminated, truncated, _ = self._env.step(action)
        if terminated or truncated:
            self._start()
        else:
            self._ask(action)

    def _start(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # minigrid prints every rejected level
            self._env.reset(seed=int(self._random.integers(2**31)))
        self._bot = BabyAIBot(self._env)
        self._ask(None)

    def _ask(self, action: int | None) -> None:
        self._advice = None
        if self._bot is None:
            return
        try:
            advice = int(self._bot.replan(action))
        except Exception:  # failed assertions, type errors: the bot has no plan
            self._bot = None
        else:
            self._advice = advice if self._follow else None


class _OurPlayer:
    def __init__(self, task_id: str, num_envs: int, seed: int, follow: bool, threads: int) -> None:
        self._follow, self.num_envs = follow, num_envs
        self._env = VectorEnv(task_id, num_envs, SeedStreams(seed, num_envs), plan_every=0, threads=threads)
        self._random = np.random.default_rng(seed)
        self._current = self._env.reset()

    def step(self) -> None:
        actions = self._random.integers(NUM_ACTIONS, size=self.num_envs)
        if self._follow:
            actions = np.where(self._current.expert_valid, self._current.expert_action, actions)
        self._current = self._env.step(actions)


def compare_environments(
    task_id: str, num_envs: int, seconds: float, rounds: int, seed: int, *, follow: bool = False, threads: int = 1
) -> EnvironmentRates:
    """Return the rates of both, measured in turns so that a busy machine treats them alike.

    Args:
        task_id: Full id of a BabyAI task on which minigrid's bot comes to an end (GoToImpUnlock has levels without).
        num_envs: Environments of ours; minigrid's has one.
        seconds: Length of a round of each.
        rounds: Rounds of each.
        seed: Of levels and actions.
        follow: Take the expert's actions instead of random ones.
        threads: Of ours.
    """
    players = _MinigridPlayer(task_id, seed, follow), _OurPlayer(task_id, num_envs, seed, follow, threads)
    rates: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for player, found in zip(players, rates, strict=True):
            found.append(player.num_envs * measure_rate(player.step, seconds))
    return EnvironmentRates(*map(statistics.median, rates))
