"""How checkpoints are evaluated: the settings, without torch, so that `--help` and mistakes are told at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from babyai.level_seeds import EVALUATION_SEED
from pipeline.command.cli import check_numbers

TOGETHER = 16
"""Checkpoints evaluated at once where nothing else is asked for."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How checkpoints are evaluated.

    Attributes:
        num_episodes: Levels to play, each once to its end.
        num_envs: Environments stepped together, of each checkpoint; changes the speed, not the result.
        max_steps: Steps after which an episode is cut; null takes what the checkpoint was trained with.
        eval_seed: Which fixed list of levels; the same for all checkpoints unless you want another sample.
        eval_actions: greedy takes the most probable action, sample draws one from the policy, the same at every call.
        lang_encoder: Folder or id to load the sentence encoder from instead of the recorded one (same weights).
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
        torch_threads: CPU threads of torch.
    """

    num_episodes: int = 100
    num_envs: int = 16
    max_steps: int | None = None
    eval_seed: int = EVALUATION_SEED
    eval_actions: Literal["greedy", "sample"] = "greedy"
    lang_encoder: str | None = None
    device: str = "auto"
    torch_threads: int = 1

    def __post_init__(self) -> None:
        """Check ranges."""
        check_numbers(self, 1, "num_episodes", "num_envs", "max_steps", "torch_threads")
        check_numbers(self, 0, "eval_seed")
