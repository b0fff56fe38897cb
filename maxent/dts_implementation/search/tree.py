"""The tree of all prefixes that a search has met, with their soft values.

A node is a prefix of an answer; node 0 is the prompt. Values are in units of the reward:

    value(leaf) = reward,   value(s) = lambda * log( sum_c p(c|s) exp(value(c) / lambda) / sum_c p(c|s) )

over the children c that have been visited, weighted with the prior. So a value lies between the lowest and the highest
reward below, and does not depend on how often a child was met. From it follow the posterior below a node and the
density of a draw: p(c|s) exp((value(c) - value(s)) / lambda) is normalised over visited children and all others, these
taken at value(s).
"""

from __future__ import annotations

import math

import numpy as np

from maxent.dts_implementation.models.sequence_model import Distribution

OPEN, TERMINAL, TRUNCATED = "open", "terminal", "truncated"
"""Status of a node: can go on; ended by itself; cut at the length limit."""


class Tree:
    """Columns of numbers by node, as lists: they grow, and single numbers of them are read far more often than slices.

    Args:
        lam: Lambda, the temperature of the posterior, in units of the reward; above 0.
        max_tokens: Depth at which answers are cut.
        eos: Tokens that end an answer.

    Attributes:
        token: Token by which a node continues its parent; -1 at the root.
        parent: Node; -1 at the root.
        slot: Place of the token in the parent's distribution.
        depth: Number of tokens.
        prior: p(token | parent).
        log_p: Log-probability, nats, of all tokens up to here.
        status: OPEN, TERMINAL or TRUNCATED.
        closed: All answers below have been visited.
        column: The model's name of this prefix; -1 as long as it was not fed.
        distribution: Of the next token; None as long as it was not fed, and of what is not open.
        children: Slot -> node.
        visits: Rollouts that have passed, backed up.
        value: Soft value; 0 before the first visit, when nobody may read it.
        total: Sum of the rewards of those rollouts, for methods that search by means.
        columns: How many columns there are, the prompt's included.
    """

    def __init__(self, lam: float, max_tokens: int, eos: frozenset[int]) -> None:
        self.lam = lam
        self.max_tokens = max_tokens
        self.eos = eos
        self.token: list[int] = []
        self.parent: list[int] = []
        self.slot: list[int] = []
        self.depth: list[int] = []
        self.prior: list[float] = []
        self.log_p: list[float] = []
        self.status: list[str] = []
        self.closed: list[bool] = []
        self.column: list[int] = []
        self.distribution: list[Distribution | None] = []
        self.children: list[dict[int, int]] = []
        self.visits: list[int] = []
        self.value: list[float] = []
        self.total: list[float] = []
        self.columns = 0
        self._closed_children: list[int] = []
        self._append(token=-1, parent=-1, slot=-1, depth=0, log_prob=0.0, status=OPEN)

    def __len__(self) -> int:
        return len(self.token)

    def _append(self, *, token: int, parent: int, slot: int, depth: int, log_prob: float, status: str) -> int:
        """Add a node that has not been fed or visited and return it."""
        self.token.append(token)
        self.parent.append(parent)
        self.slot.append(slot)
        self.depth.append(depth)
        self.prior.append(math.exp(log_prob))
        self.log_p.append(log_prob if parent < 0 else self.log_p[parent] + log_prob)
        self.status.append(status)
        self.closed.append(False)
        self.column.append(-1)
        self.distribution.append(None)
        self.children.append({})
        self.visits.append(0)
        self.value.append(0.0)
        self.total.append(0.0)
        self._closed_children.append(0)
        return len(self.token) - 1

    def feed(self, node: int, distribution: Distribution | None) -> None:
        """Note that a node has been fed to the model: it gets the next column.

        Args:
            node: Open, not fed before.
            distribution: Of the next token; None says that the answer has ended here.
        """
        self.column[node] = self.columns
        self.columns += 1
        self.distribution[node] = distribution
        if distribution is None:
            self.status[node] = TERMINAL

    def grow(self, node: int, slot: int) -> int:
        """Return the child at a slot of a node's distribution, made if there is none."""
        child = self.children[node].get(slot)
        if child is None:
            distribution = self.distribution[node]
            token, depth = int(distribution.ids[slot]), self.depth[node] + 1
            status = TERMINAL if token in self.eos else TRUNCATED if depth == self.max_tokens else OPEN
            log_prob = float(distribution.log_probs[slot])
            child = self._append(token=token, parent=node, slot=slot, depth=depth, log_prob=log_prob, status=status)
            self.children[node][slot] = child
        return child

    def find_path(self, node: int) -> list[int]:
        """Return the nodes from the root to a node, both included."""
        path = [node]
        while node:
            node = self.parent[node]
            path.append(node)
        return path[::-1]

    def find_columns(self, node: int) -> tuple[int, ...]:
        """Return the columns of a prefix after the prompt, as `SequenceModel.open` takes them; all have been fed."""
        return tuple(self.column[node] for node in self.find_path(node)[1:])

    def find_tokens(self, node: int) -> tuple[int, ...]:
        """Return the tokens of a prefix."""
        return tuple(self.token[node] for node in self.find_path(node)[1:])

    # ---------------------------------------------------------------------------------------------------------- values

    def backup(self, path: list[int], reward: float) -> None:
        """Enter one rollout: visits, sums and values of its nodes from the leaf up, and what it has exhausted.

        Args:
            path: Nodes from the root to a leaf.
            reward: Of the leaf; the same each time.
        """
        leaf = path[-1]
        visits, value, total = self.visits, self.value, self.total
        if not visits[leaf]:
            value[leaf] = reward
            self._close(leaf)
        visits[leaf] += 1
        total[leaf] += reward
        for node in path[-2::-1]:
            visits[node] += 1
            total[node] += reward
            value[node] = self._compute_value(node)

    def _compute_value(self, node: int) -> float:
        """Return the soft value of an inner node from its visited children, of which there is at least one."""
        visits, value, prior, lam = self.visits, self.value, self.prior, self.lam
        seen = [child for child in self.children[node].values() if visits[child]]
        if len(seen) == 1:
            return value[seen[0]]
        values = [value[child] for child in seen]
        highest, lowest = max(values), min(values)
        if highest == lowest:
            return highest
        mass = part = 0.0
        if highest - lowest < lam:  # a large lambda would lose every digit to log(1 - tiny)
            for child, one in zip(seen, values, strict=True):
                mass += prior[child]
                part += prior[child] * math.expm1((one - highest) / lam)
            return highest + lam * math.log1p(part / mass)
        for child, one in zip(seen, values, strict=True):
            mass += prior[child]
            part += prior[child] * math.exp((one - highest) / lam)
        return highest + lam * math.log(part / mass)

    def _close(self, node: int) -> None:
        """Note that nothing new is below a node, and the same of its ancestors where it is so."""
        while not self.closed[node]:
            self.closed[node] = True
            if not node:
                return
            node = self.parent[node]
            self._closed_children[node] += 1
            if self._closed_children[node] < len(self.distribution[node].ids):
                return

    def compute_posterior(self) -> dict[int, float]:
        """Return leaf -> probability that a descent of the visited tree ends there; it estimates the posterior."""
        found: dict[int, float] = {}
        stack = [(0, 1.0)] if self.visits[0] else []
        while stack:
            node, prob = stack.pop()
            seen = [child for child in self.children[node].values() if self.visits[child]]
            if not seen:
                found[node] = prob
            for child, share in zip(seen, self._compute_shares(node, seen), strict=True):
                stack.append((child, prob * share))
        return found

    def descend(self, rng: np.random.Generator) -> int:
        """Return a leaf drawn by one descent of the visited tree, see `compute_posterior`."""
        node = 0
        while seen := [child for child in self.children[node].values() if self.visits[child]]:
            node = seen[int(rng.choice(len(seen), p=self._compute_shares(node, seen)))]
        return node

    def _compute_shares(self, node: int, seen: list[int]) -> list[float]:
        """Return the probability of each visited child in a descent."""
        weights = [self.prior[c] * math.exp((self.value[c] - self.value[node]) / self.lam) for c in seen]
        mass = sum(weights)
        return [weight / mass for weight in weights]
