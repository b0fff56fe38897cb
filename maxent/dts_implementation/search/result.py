"""What a search is told to do, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from maxent.dts_implementation.models.sequence_model import Cost, Prior
from maxent.dts_implementation.search.tree import Tree

METHODS = {
    "dts": "draws from the tree's posterior, recording the density of each draw",
    "dts_star": "takes the best of value plus a bonus for what is probable and rarely tried",
    "best_of_n": "draws from the prior",
    "sample": "one draw from the prior",
    "greedy": "the most probable token each time",
    "beam": "the most probable answers that beam search finds, as many as there are rollouts",
    "mcts": "UCT over mean rewards",
    "mh": "Metropolis-Hastings: cut anywhere, draw the rest anew, accept or stay",
    "dts_paper": "Diffusion Tree Sampling as published: children weighted by counts, progressive widening",
}
ANSWERS = ("max", "sample", "vote")


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes:
        method: One of `METHODS`.
        num_rollouts: At most so many answers are drawn; `greedy` and `sample` draw one.
        max_tokens: New tokens after which an answer is cut; never more than the model has room for.
        budget_tokens: At most so many new tokens are fed, None without bound. A rollout is begun only if the longest
            answer would still fit, so that a search ends at most `max_tokens` - 2 tokens below and never above.
        lam: Lambda, in units of the reward: the posterior is prior * exp(reward / lambda).
        epsilon: Share of `dts` rollouts that follow the prior, in [0, 1]; at 0 weights have no bound.
        wave: Rollouts that are chosen from one state of the tree and decoded together. None: a fifth of those expected,
            up to 16; all of them for `best_of_n`. `mh` has one, for each step of its chain depends on the last.
        exploration: Factor of the bonus of `dts_star` and `mcts`, in units of the range of the rewards so far.
        answer: `max` takes the highest reward, the first of equals; `sample` one descent of the tree; `vote` the label
            of most weight, and of its answers the best.
        prior: The prior.
        seed: Of all draws.

    Raises:
        ValueError: If a setting is out of range; it names the setting.
    """

    method: str = "dts"
    num_rollouts: int = 10
    max_tokens: int = 50
    budget_tokens: int | None = None
    lam: float = 0.1
    epsilon: float = 0.2
    wave: int | None = None
    exploration: float = 0.1
    answer: str = "max"
    prior: Prior = field(default_factory=Prior)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("method", tuple(METHODS)), ("answer", ANSWERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")
        for name in ("num_rollouts", "max_tokens", "budget_tokens", "wave"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        if not 0 < self.lam < math.inf:
            raise ValueError(f"lam: expected a number above 0, found {self.lam}")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon: expected a number from 0 to 1, found {self.epsilon}")
        if not 0 <= self.exploration < math.inf:
            raise ValueError(f"exploration: expected a number of at least 0, found {self.exploration}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, found {self.seed}")


@dataclass(frozen=True)
class Rollout:
    """One answer that a search has drawn, in the order in which they entered the tree.

    Attributes:
        index: From 1.
        wave: From 1; the rollouts of a wave were chosen from the same state of the tree.
        leaf: Node of the tree.
        tokens: New tokens, the one that ended the answer included.
        text: Decoded.
        ended: The answer ended by itself; False where it was cut at the length limit.
        reward: Total.
        parts: What the reward is made of.
        token_log_probs: log p of each token under the prior, nats.
        log_p: Their sum.
        log_q: Log-density with which this answer was proposed, given the tree; None for methods that have none.
        log_weight: log p + reward / lambda - log q; the mean of exp of it is Z. None where `log_q` is.
        branch_depth: Number of leading tokens that the tree had when the wave was chosen.
        nodes: Added to the tree by this rollout.
        new_tokens: Fed for this rollout; a prefix shared within the wave counts for the first.
        total_new_tokens: Fed up to and with this rollout.
        repeated: The answer had been drawn before; its reward is remembered.
        best_so_far: Highest reward up to and with this rollout.
        seconds: Its share of the wave, and its reward.
    """

    index: int
    wave: int
    leaf: int
    tokens: tuple[int, ...]
    text: str
    ended: bool
    reward: float
    parts: Mapping[str, float]
    token_log_probs: tuple[float, ...]
    log_p: float
    log_q: float | None
    log_weight: float | None
    branch_depth: int
    nodes: int
    new_tokens: int
    total_new_tokens: int
    repeated: bool
    best_so_far: float
    seconds: float

    def __post_init__(self) -> None:
        if not 0 < len(self.tokens) == len(self.token_log_probs):
            raise ValueError(f"rollout {self.index}: {len(self.tokens)} tokens, {len(self.token_log_probs)} log-probs")
        if (self.log_q is None) != (self.log_weight is None):
            raise ValueError(f"rollout {self.index}: density and weight go together")


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes:
        settings: As given.
        rollouts: In order.
        answer: Place in `rollouts` of the answer.
        chain: For `mh`, the place in `rollouts` at which the chain is after each of them; else None.
        cost: What it took.
        stopped: `rollouts`, `budget`, or `exhausted` where a method that draws nothing twice has drawn everything.
        max_tokens: The length limit that held.
        tree: All of it.
    """

    settings: SearchSettings
    rollouts: tuple[Rollout, ...]
    answer: int
    chain: tuple[int, ...] | None
    cost: Cost
    stopped: str
    max_tokens: int
    tree: Tree

    def __post_init__(self) -> None:
        count = len(self.rollouts)
        if [rollout.index for rollout in self.rollouts] != list(range(1, count + 1)):
            raise ValueError("rollouts: expected the indices from 1 on")
        if not 0 <= self.answer < count:
            raise ValueError(f"answer: expected one of {count} rollouts, found {self.answer}")
        if self.chain is not None and (len(self.chain) != count or not all(0 <= at < count for at in self.chain)):
            raise ValueError(f"chain: expected {count} places among the rollouts, found {len(self.chain)}")
        if len({rollout.log_q is None for rollout in self.rollouts}) > 1:
            raise ValueError("rollouts: expected a density in all or in none")

    @property
    def best(self) -> Rollout:
        """The answer's rollout: its text and its reward belong together."""
        return self.rollouts[self.answer]

    @property
    def rewards(self) -> np.ndarray:
        """(rollouts,) float64."""
        return np.array([rollout.reward for rollout in self.rollouts])

    @property
    def log_weights(self) -> np.ndarray | None:
        """(rollouts,) float64, None where the method has no density."""
        if self.rollouts[0].log_weight is None:
            return None
        return np.array([rollout.log_weight for rollout in self.rollouts])
