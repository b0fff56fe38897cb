"""An episode's own reward, less what thinking cost: for policies that plan in their simulator.

reward = EpisodeReward(model.play, alpha=0.1)
search(model, level_seed, reward, SearchSettings(max_tokens=64))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maxent.rewards.result import Answer, RewardResult


class Episode(NamedTuple):
    """What a sequence of actions led to.

    Attributes:
        reward: Of the environment, in [0, 1]: 0 unless the mission was fulfilled.
        steps: Actions taken; those after the end count for nothing and are not possible.
        over: The episode has ended; False where it was cut at the length limit.
        solved: The mission was fulfilled.
        lpc: Mean over the decisions of the policy's pathway complexity, as a share of its largest, in [0, 1].
    """

    reward: float
    steps: int
    over: bool
    solved: bool
    lpc: float


@dataclass(frozen=True)
class EpisodeReward:
    """Reward of the environment minus alpha times complexity, in [-1, 1].

    Attributes:
        play: Actions -> their episode. An answer that was cut is judged after its last action, which the search had no
            need to feed.
        alpha: Price of complexity, in [0, 1], in units of the environment's reward.

    Raises:
        ValueError: If `alpha` is out of range.
    """

    play: Callable[[Sequence[int]], Episode]
    alpha: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: expected a number from 0 to 1, found {self.alpha}")

    def __call__(self, answer: Answer) -> RewardResult:
        """Return the reward of a sequence of actions."""
        episode = self.play(answer.tokens)
        parts = {
            "episode": episode.reward,
            "lpc": episode.lpc,
            "steps": float(episode.steps),
            "solved": float(episode.solved),
        }
        return RewardResult(episode.reward - self.alpha * episode.lpc, parts)
