"""Where a rollout goes: one policy for each method that searches a tree, and all speak the same four words.

Within a wave the tree's values stand still. A child that was born within it has no visit and counts as unvisited; below
the last visited node every policy but `GreedyPolicy` draws from the prior.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from maxent.dts_implementation.search.tree import Tree


class Policy(Protocol):
    """Chooses the children of a wave's rollouts.

    Attributes:
        draws_twice: It may draw an answer again; one that never does ends when the tree is exhausted.
    """

    draws_twice: bool

    def begin_wave(self, count: int) -> None:
        """Begin a wave of so many rollouts, numbered from 0."""
        ...

    def choose(self, rollout: int, node: int) -> int:
        """Return the child, made if need be, that a rollout goes to from an open node with a distribution."""
        ...

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """Return the log-density with which an answer was proposed, None without one.

        To be asked before any rollout of the wave is entered.

        Args:
            log_p: Of the answer under the prior, nats.
            last: The deepest node of its path that has been visited, 0 where there is none.
        """
        ...

    def learn(self, path: list[int], reward: float) -> None:
        """Take in a rollout that the tree has just taken in: nodes from the root to its leaf."""
        ...


def draw_child(tree: Tree, node: int, draw: float) -> int:
    """Return a child drawn from the prior by a number in [0, 1)."""
    return tree.grow(node, int(tree.distribution[node].cumulative.searchsorted(draw, side="right")))


def draw_other(tree: Tree, node: int, taken: list[int], draw: float) -> int | None:
    """Return a child drawn from the prior outside some slots, None if no other is left; `draw` is in [0, 1)."""
    distribution = tree.distribution[node]
    if len(taken) == len(distribution.ids):
        return None
    probs = np.exp(distribution.log_probs)
    probs[taken] = 0.0
    cumulative = probs.cumsum()
    slot = int(cumulative.searchsorted(draw * cumulative[-1], side="right"))
    if slot == len(probs) or probs[slot] == 0.0:  # rounding, at the upper end
        slot = int(np.flatnonzero(probs)[-1])
    return tree.grow(node, slot)


class PriorPolicy:
    """Draws from the prior, whatever was seen: `sample`, `best_of_n`, and the suffixes of `mh`."""

    draws_twice = True

    def __init__(self, tree: Tree, rng: np.random.Generator) -> None:
        self._tree = tree
        self._rng = rng

    def begin_wave(self, count: int) -> None:
        """See `Policy`."""

    def choose(self, rollout: int, node: int) -> int:
        """See `Policy`."""
        return draw_child(self._tree, node, self._rng.random())

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """See `Policy`; the prior's own."""
        return log_p

    def learn(self, path: list[int], reward: float) -> None:
        """See `Policy`."""


class GreedyPolicy:
    """Takes the most probable token each time; has no density."""

    draws_twice = True

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def begin_wave(self, count: int) -> None:
        """See `Policy`."""

    def choose(self, rollout: int, node: int) -> int:
        """See `Policy`."""
        return self._tree.grow(node, 0)

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """See `Policy`."""
        return None

    def learn(self, path: list[int], reward: float) -> None:
        """See `Policy`."""


class SoftPolicy:
    """`dts`: draws from the posterior that the tree estimates, all unvisited children together taken at their parent's.

    A visited child a of s has q(a|s) = p(a|s) exp((value(a) - value(s)) / lambda), any other q(a|s) = p(a|s): these sum
    to 1, because value(s) is the prior-weighted soft mean over the visited children. Down a path the exponents
    telescope: an answer's density is the prior's times exp((value(last visited node) - value(root)) / lambda).

    With probability epsilon a whole rollout follows the prior; the density recorded is that of the mixture.
    """

    draws_twice = True

    def __init__(self, tree: Tree, rng: np.random.Generator, epsilon: float) -> None:
        self._tree = tree
        self._rng = rng
        self._epsilon = epsilon
        self._defended: list[bool] = []

    def begin_wave(self, count: int) -> None:
        """See `Policy`; decides which rollouts follow the prior. In the first wave all do, and nothing is drawn."""
        tried = self._tree.visits[0]
        self._defended = (self._rng.random(count) < self._epsilon).tolist() if tried else [True] * count

    def choose(self, rollout: int, node: int) -> int:
        """See `Policy`."""
        tree, draw = self._tree, self._rng.random()
        if self._defended[rollout] or not tree.visits[node]:
            return draw_child(tree, node, draw)
        value, visits, prior, exp = tree.value, tree.visits, tree.prior, math.exp
        base, lam = value[node], tree.lam
        seen = []
        mass = 0.0  # of the visited children, under q and under the prior alike
        for slot, child in tree.children[node].items():
            if visits[child]:
                share = prior[child] * exp((value[child] - base) / lam)
                if draw < mass + share:
                    return child
                mass += share
                seen.append(slot)
        other = draw_other(tree, node, seen, min((draw - mass) / max(1.0 - mass, 1e-300), 1.0 - 1e-16))
        return tree.children[node][seen[-1]] if other is None else other

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """See `Policy`."""
        tree = self._tree
        gain = (tree.value[last] - tree.value[0]) / tree.lam
        if self._epsilon == 0:
            return log_p + gain
        high = max(gain, 0.0)  # against overflow
        mixed = (1 - self._epsilon) * math.exp(gain - high) + self._epsilon * math.exp(-high)
        return log_p + high + math.log(mixed)

    def learn(self, path: list[int], reward: float) -> None:
        """See `Policy`; the tree's values are all it needs."""


class ClimbingPolicy:
    """`dts_star` and `mcts`: takes the best of value plus bonus, each answer once.

    Subtrees whose answers have all been visited are left out. A rollout of the same wave that is under way counts as a
    visit with the lowest reward so far, so that a wave spreads (virtual loss).

    Args:
        tree: The tree.
        rng: Of the draws.
        exploration: c, the factor of the bonus, in units of the range of the rewards so far.
        by_mean: True is UCT: mean reward + c sqrt(log N(s) / N(sa)); every child is tried once first, drawn from the
            prior. False is the rule of `dts_star`: soft value + c p(a|s) sqrt(N(s)) / (1 + N(sa)), an untried child at
            the value of its parent.
    """

    draws_twice = False

    def __init__(self, tree: Tree, rng: np.random.Generator, exploration: float, *, by_mean: bool) -> None:
        self._tree = tree
        self._rng = rng
        self._exploration = exploration
        self._by_mean = by_mean
        self._under_way: dict[int, int] = {0: 0}
        self._lowest, self._highest = math.inf, -math.inf  # reward so far

    def begin_wave(self, count: int) -> None:
        """See `Policy`."""
        self._under_way = {0: 0}

    def choose(self, rollout: int, node: int) -> int:
        """See `Policy`."""
        self._under_way[0] += not node
        if self._tree.visits[node]:
            child = self._find_best(node)
        else:
            child = draw_child(self._tree, node, self._rng.random())
        self._under_way[child] = self._under_way.get(child, 0) + 1
        return child

    def _find_best(self, node: int) -> int:
        """Return the best child of a visited node that is not closed."""
        tree, under_way, prior = self._tree, self._under_way, self._tree.prior
        children = tree.children[node]
        tried = tree.visits[node] + under_way[node]  # this rollout included
        # While all rewards are equal there is no unit; any will do, for the bonus alone decides then.
        bonus = self._exploration * (self._highest - self._lowest or 1.0)
        best, highest = -1, -math.inf
        if len(children) < len(tree.distribution[node].ids):
            if self._by_mean:
                return draw_other(tree, node, list(children), self._rng.random())
            slot = next(slot for slot in range(len(children) + 1) if slot not in children)  # falling probability
            prob = math.exp(float(tree.distribution[node].log_probs[slot]))
            highest = tree.value[node] + bonus * prob * math.sqrt(tried)
            best = -2 - slot
        for child in children.values():
            if tree.closed[child]:
                continue
            visits, lost = tree.visits[child], under_way.get(child, 0)
            reward = tree.total[child] if self._by_mean else tree.value[child] * visits
            count = visits + lost
            score = (reward + self._lowest * lost) / count
            if self._by_mean:
                score += bonus * math.sqrt(math.log(tried) / count)
            else:
                score += bonus * prior[child] * math.sqrt(tried) / (1 + count)
            if score > highest:
                best, highest = child, score
        return tree.grow(node, -2 - best) if best < -1 else best

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """See `Policy`."""
        return None

    def learn(self, path: list[int], reward: float) -> None:
        """See `Policy`."""
        self._lowest, self._highest = min(self._lowest, reward), max(self._highest, reward)


WIDENING = 1.0, 0.5
"""C and alpha: a node visited N times has at least C * N ** alpha draws of a child."""


class PaperPolicy:
    """`dts_paper`: Diffusion Tree Sampling (arXiv 2506.20701) with tokens for states.

    A node is widened, by a child drawn from the prior, until it has C N^alpha draws; else a child is drawn with
    probability proportional to its count times exp(value / lambda), the count being how often it was drawn from the
    prior. Values are soft means weighted with counts. Here a discrete child can be drawn twice, which the paper's
    continuous ones cannot; the constants are ours.

    Attributes:
        counts: Node -> child -> draws from the prior.
        draws: Node -> their sum.
        values: Node -> value, in units of the reward.
    """

    draws_twice = True

    def __init__(self, tree: Tree, rng: np.random.Generator) -> None:
        self._tree = tree
        self._rng = rng
        self.counts: list[dict[int, int]] = []
        self.draws: list[int] = []
        self.values: list[float] = []
        self._drawn: list[list[int]] = []  # children that the wave's rollouts have drawn from the prior
        self._learned = 0

    def begin_wave(self, count: int) -> None:
        """See `Policy`."""
        self._drawn = [[] for _ in range(count)]
        self._learned = 0

    def choose(self, rollout: int, node: int) -> int:
        """See `Policy`."""
        tree = self._tree
        scale, power = WIDENING
        if tree.visits[node] and self.draws[node] >= scale * tree.visits[node] ** power:
            counts = self.counts[node]
            values = np.array([self.values[child] for child in counts])
            weights = np.fromiter(counts.values(), np.float64) * np.exp((values - values.max()) / tree.lam)
            return list(counts)[int(self._rng.choice(len(weights), p=weights / weights.sum()))]
        child = draw_child(tree, node, self._rng.random())
        self._drawn[rollout].append(child)
        return child

    def compute_log_q(self, log_p: float, last: int) -> float | None:
        """See `Policy`; there is none: what is not widened yet cannot be drawn, so weights would miss some answers."""
        return None

    def learn(self, path: list[int], reward: float) -> None:
        """See `Policy`."""
        missing = len(self._tree) - len(self.draws)
        self.counts += [{} for _ in range(missing)]
        self.draws += [0] * missing
        self.values += [reward] * missing
        for child in self._drawn[self._learned]:
            node = self._tree.parent[child]
            self.counts[node][child] = self.counts[node].get(child, 0) + 1
            self.draws[node] += 1
        self._learned += 1
        self.values[path[-1]] = reward
        for node in path[-2::-1]:
            counts = self.counts[node]
            highest = max(self.values[child] for child in counts)
            part = sum(n * math.exp((self.values[c] - highest) / self._tree.lam) for c, n in counts.items())
            self.values[node] = highest + self._tree.lam * math.log(part / self.draws[node])
