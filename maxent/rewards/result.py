"""What a reward is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """A finished answer, without the prompt.

    Attributes:
        tokens: Its new tokens, the one that ended it included.
        text: The decoded tokens; special tokens are not shown.
        ended: It ended by itself; False where it was cut at the length limit.
        log_p: Log-probability, nats, of the tokens under the prior of the search, at most 0.
    """

    tokens: tuple[int, ...]
    text: str
    ended: bool
    log_p: float


@dataclass(frozen=True)
class RewardResult:
    """A reward and what it is made of.

    Attributes:
        total: What the search maximises.
        parts: Name -> number, for the records; nothing is computed from them.

    Raises:
        ValueError: If the total is no finite number.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.total):
            raise ValueError(f"reward: expected a finite total, found {self.total}; parts: {dict(self.parts)}")


Reward = Callable[[Answer], RewardResult]
"""A reward as the search calls it: deterministic, for it is asked once for each distinct answer."""
