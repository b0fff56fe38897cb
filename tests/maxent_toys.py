"""Toys of the search's tests: rewards, exact posteriors, and models that watch what they are asked."""

import zlib
from collections.abc import Sequence

import numpy as np

from maxent.dts_implementation.models.sequence_model import Cost, Prior, ToyModel, enumerate_answers
from maxent.dts_implementation.search.tree import Tree
from maxent.rewards.result import Answer, Reward, RewardResult

PLAIN = Prior(temperature=1.0, top_k=None, top_p=1.0)
DEPTH = 4
Posterior = dict[tuple[int, ...], float]


def make_reward(seed: int = 0, low: float = 0.0, high: float = 1.0) -> Reward:
    """Return a reward that is uniform over answers, and remembers nothing."""

    def reward(answer: Answer) -> RewardResult:
        draw = np.random.default_rng([seed, zlib.crc32(bytes(answer.tokens))]).uniform(low, high)
        return RewardResult(float(draw), {"length": float(len(answer.tokens))})

    return reward


def compute_exact(model: ToyModel, reward: Reward, lam: float, prior: Prior = PLAIN) -> tuple[Posterior, float]:
    """Return the posterior over all answers, and log Z."""
    answers = enumerate_answers(model, "", prior, DEPTH)
    weights = [log_p + reward(Answer(tokens, "", False, log_p)).total / lam for tokens, log_p in answers]
    log_z = float(np.logaddexp.reduce(weights))
    return {tokens: float(np.exp(w - log_z)) for (tokens, _), w in zip(answers, weights, strict=True)}, log_z


def find_visited(tree: Tree, tokens: tuple[int, ...]) -> int:
    """Return the deepest visited node on the way of some tokens from the root; the root if there is none."""
    node = 0
    for token in tokens:
        children = (c for c in tree.children[node].values() if tree.token[c] == token and tree.visits[c])
        if (child := next(children, None)) is None:
            break
        node = child
    return node


def compute_proposal(model: ToyModel, tree: Tree, prior: Prior = PLAIN) -> Posterior:
    """Return what `dts` would draw next without its defence: the posterior as the tree knows it."""
    value = tree.value
    return {
        tokens: float(np.exp(log_p + (value[find_visited(tree, tokens)] - value[0]) / tree.lam))
        for tokens, log_p in enumerate_answers(model, "", prior, DEPTH)
    }


def compute_distance(one: Posterior, other: Posterior) -> float:
    """Return the total variation distance."""
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2


class WatchedModel:
    """A toy that holds its caller to the protocol.

    Args:
        toy: What it computes with.
        limit: New tokens that fit.
        rows: Most rows that one step takes.
        ends: An answer whose tokens add up to a multiple of this is over, as a simulator would have it.
    """

    def __init__(self, toy: ToyModel, *, limit: int | None = None, rows: int | None = None, ends: int | None = None):
        self.toy, self.limit, self.rows, self.ends = toy, limit, rows, ends
        self.eos = toy.eos
        self.prefixes: list[tuple[int, ...]] = []
        self.is_open = False
        self.waves = 0
        self.largest = 0

    @property
    def cost(self) -> Cost:
        return self.toy.cost

    def start(self, prompt: str) -> np.ndarray:
        assert not self.is_open
        self.prefixes = [()]
        return self.toy.start(prompt)

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        assert not self.is_open
        assert len(set(map(tuple, paths))) == len(paths) > 0
        self.is_open = True
        self.waves += 1
        self.reachable = {0}
        for path in paths:
            for depth, column in enumerate(path, 1):
                prefix = self.prefixes[column]
                assert len(prefix) == depth
                assert prefix[:-1] == (self.prefixes[path[depth - 2]] if depth > 1 else ())
            self.reachable |= set(path)

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        assert self.is_open
        assert len(tokens) == len(nodes) > 0
        assert set(nodes) <= self.reachable
        if self.rows is not None and len(tokens) > self.rows:
            raise MemoryError
        fed = [(*self.prefixes[node], token) for token, node in zip(tokens, nodes, strict=True)]
        assert len({*fed, *self.prefixes}) == len(fed) + len(self.prefixes), "a prefix was fed twice"
        assert not any(token in self.eos for token in tokens), "an end token was fed"
        assert self.limit is None or max(map(len, fed)) < self.limit
        self.largest = max(self.largest, len(fed))
        self.reachable |= set(range(len(self.prefixes), len(self.prefixes) + len(fed)))
        self.prefixes += fed
        logits = self.toy.step(tokens, nodes)
        if self.ends is not None:
            logits = np.where([[sum(prefix) % self.ends == 0] for prefix in fed], -np.inf, logits)
        return logits

    def close(self) -> None:
        assert self.is_open
        self.is_open = False

    def decode(self, tokens: Sequence[int]) -> str:
        return self.toy.decode(tokens)
