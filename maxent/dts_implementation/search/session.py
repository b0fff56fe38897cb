"""One search under way: a model, a tree and a reward brought together, and everything counted and recorded.

All methods decode and record here, so that all pay the same way: each distinct prefix that is continued is fed once,
and the reward is asked once for each distinct answer.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maxent.dts_implementation.models.sequence_model import Cost, SequenceModel
from maxent.dts_implementation.search.policies import Policy
from maxent.dts_implementation.search.result import Rollout, SearchSettings
from maxent.dts_implementation.search.tree import OPEN, TERMINAL, Tree
from maxent.rewards.result import Answer, Reward, RewardResult


@dataclass
class Draw:
    """An answer that has been decoded and not entered yet.

    Attributes:
        path: Nodes from the root to its leaf.
        nodes: Added to the tree by it.
        fed: Tokens fed for it.
        visited: Nodes of its path, after the root, that had been visited when it was drawn.
        log_q: Its log-density, None without one.
    """

    path: list[int]
    nodes: int = 0
    fed: int = 0
    visited: int = 0
    log_q: float | None = None


class Session:
    """A search under way.

    Args:
        model: Reads the prompt now.
        prompt: Of a kind that the model knows.
        reward: Asked once for each distinct answer.
        settings: How to search.
        on_rollout: Called with each rollout once the tree's values include it.

    Attributes:
        tree: The tree.
        rollouts: Recorded so far.
        max_tokens: The length limit that holds: the settings', or what the model has room for.
        rng: Of the search's draws.

    Raises:
        ValueError: If the model has no room for a token, rules all out, or not even one answer fits in the budget.
    """

    def __init__(
        self,
        model: SequenceModel,
        prompt: Any,
        reward: Reward,
        settings: SearchSettings,
        on_rollout: Callable[[Rollout], None] | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self._model = model
        self._reward = reward
        self._settings = settings
        self._on_rollout = on_rollout
        self._rewarded: dict[int, tuple[Answer, RewardResult, tuple[float, ...]]] = {}  # leaf -> ...
        self._reused = 0
        self._waves = 0
        self._rows: int | None = None  # at most so many go into one step, once the model has refused more
        logits = np.asarray(model.start(prompt))
        self.max_tokens = settings.max_tokens if model.limit is None else min(settings.max_tokens, model.limit)
        if self.max_tokens < 1:
            raise ValueError("prompt: expected room for at least one new token, found none; shorten the prompt")
        self._check_budget()
        self.tree = Tree(settings.lam, self.max_tokens, frozenset(model.eos))
        (first,) = settings.prior.compute_distributions(logits[None])
        if first is None:
            raise ValueError("logits: the model rules out every token after the prompt")
        self.tree.feed(0, first)
        self.rollouts: list[Rollout] = []
        self.rng = np.random.default_rng(settings.seed)

    # ---------------------------------------------------------------------------------------------------------- budget

    @property
    def longest(self) -> int:
        """The most tokens that one rollout can feed: all but the last, which nothing follows."""
        return self.max_tokens - 1

    def _check_budget(self) -> None:
        budget = self._settings.budget_tokens
        if budget is not None and budget < self.longest:
            raise ValueError(
                f"budget_tokens: expected at least {self.longest}, so that one answer of max_tokens "
                f"{self.max_tokens} fits, found {budget}"
            )

    def count_affordable(self) -> int:
        """Return how many rollouts fit in what is left of the rollouts and of the budget, however long they get.

        It does not look at where they would go: one that was dropped for its length would bias the weights of the rest.
        """
        left = self._settings.num_rollouts - len(self.rollouts)
        budget = self._settings.budget_tokens
        if budget is None or not self.longest:
            return left
        return min(left, (budget - self._model.cost.new) // self.longest)

    # ---------------------------------------------------------------------------------------------------------- decode

    def decode(self, policy: Policy, starts: Sequence[int]) -> list[Draw]:
        """Draw an answer from each of some nodes, all together: each step feeds every distinct prefix that goes on.

        Args:
            policy: Chooses the children; its wave begins here.
            starts: Nodes that have been fed; one for each rollout.
        """
        policy.begin_wave(len(starts))
        tree = self.tree
        draws = [Draw(tree.find_path(start)) for start in starts]
        waiting: dict[int, list[int]] = {}  # node -> rollouts that need its distribution
        for rollout, draw in enumerate(draws):
            self._walk(policy, rollout, draw, waiting)
        if waiting:
            with self.opened(dict.fromkeys(tree.parent[node] for node in waiting)):
                while waiting:
                    groups, waiting = waiting, {}
                    self.feed(list(groups))
                    for rollouts in groups.values():
                        draws[rollouts[0]].fed += 1
                        for rollout in rollouts:
                            self._walk(policy, rollout, draws[rollout], waiting)
        visits = tree.visits
        for draw in draws:
            visited = 0
            for node in draw.path[1:]:
                if not visits[node]:
                    break
                visited += 1
            draw.visited = visited
            draw.log_q = policy.compute_log_q(tree.log_p[draw.path[-1]], draw.path[visited])
        return draws

    def _walk(self, policy: Policy, rollout: int, draw: Draw, waiting: dict[int, list[int]]) -> None:
        """Lead a rollout on until it ends or needs a distribution that is not there."""
        tree, path = self.tree, draw.path
        before, node = len(tree), path[-1]
        while tree.status[node] == OPEN:
            if tree.distribution[node] is None:
                waiting.setdefault(node, []).append(rollout)
                break
            node = policy.choose(rollout, node)
            path.append(node)
        draw.nodes += len(tree) - before

    @contextlib.contextmanager
    def opened(self, nodes: Iterable[int]) -> Iterator[None]:
        """Open a wave of the model that goes on from some distinct nodes, which have been fed."""
        self._model.open([self.tree.find_columns(node) for node in nodes])
        try:
            yield
        finally:
            self._model.close()

    def feed(self, nodes: Sequence[int]) -> None:
        """Feed distinct nodes, of which none continues another, to the model within an open wave."""
        tree = self.tree
        todo = list(nodes)
        while todo:
            rows = todo[: self._rows]
            try:
                logits = self._model.step(
                    [tree.token[node] for node in rows], [tree.column[tree.parent[node]] for node in rows]
                )
            except MemoryError:
                if len(rows) == 1:
                    raise
                self._rows = len(rows) // 2
                continue
            todo = todo[len(rows) :]
            found = self._settings.prior.compute_distributions(np.asarray(logits))
            for node, distribution in zip(rows, found, strict=True):
                tree.feed(node, distribution)

    # ---------------------------------------------------------------------------------------------------------- record

    def enter(self, draws: Sequence[Draw], policy: Policy | None, seconds: float) -> None:
        """Reward the answers of a wave and enter them into tree and records, in order.

        Args:
            draws: The wave.
            policy: Learns from each, if there is one.
            seconds: That it took to draw them all.
        """
        self._waves += 1
        tree, lam = self.tree, self._settings.lam
        for draw in draws:
            began = time.perf_counter()
            leaf = draw.path[-1]
            repeated = leaf in self._rewarded
            if not repeated:
                self._rewarded[leaf] = self._ask_reward(draw.path)
            answer, result, token_log_probs = self._rewarded[leaf]
            self._reused += self._count_reused(draw.path)
            tree.backup(draw.path, result.total)
            if policy is not None:
                policy.learn(draw.path, result.total)
            last = self.rollouts[-1] if self.rollouts else None
            rollout = Rollout(
                index=len(self.rollouts) + 1,
                wave=self._waves,
                leaf=leaf,
                tokens=answer.tokens,
                text=answer.text,
                ended=answer.ended,
                reward=result.total,
                parts=result.parts,
                token_log_probs=token_log_probs,
                log_p=answer.log_p,
                log_q=draw.log_q,
                log_weight=None if draw.log_q is None else answer.log_p - draw.log_q + result.total / lam,
                branch_depth=draw.visited,
                nodes=draw.nodes,
                new_tokens=draw.fed,
                total_new_tokens=draw.fed + (last.total_new_tokens if last else 0),
                repeated=repeated,
                best_so_far=max(result.total, last.best_so_far) if last else result.total,
                seconds=seconds / len(draws) + time.perf_counter() - began,
            )
            self.rollouts.append(rollout)
            if self._on_rollout is not None:
                self._on_rollout(rollout)

    def _ask_reward(self, path: list[int]) -> tuple[Answer, RewardResult, tuple[float, ...]]:
        """Return the answer at the end of a path, its reward, and log p of each of its tokens."""
        tree, leaf = self.tree, path[-1]
        tokens = tuple(tree.token[node] for node in path[1:])
        answer = Answer(tokens, self._model.decode(tokens), tree.status[leaf] == TERMINAL, tree.log_p[leaf])
        steps = tuple(
            float(tree.distribution[parent].log_probs[tree.slot[node]]) for parent, node in itertools.pairwise(path)
        )
        return answer, self._reward(answer), steps

    def _count_reused(self, path: list[int]) -> int:
        """Return how many tokens of a path, not entered yet, some earlier rollout had fed already."""
        tree = self.tree
        return sum(1 for node in path[1:] if tree.column[node] >= 0 and tree.visits[node])

    def count_cost(self) -> Cost:
        """Return the account so far."""
        return replace(
            self._model.cost,
            reused=self._reused,
            reward_calls=len(self._rewarded),
            seconds=time.perf_counter() - self._began,
        )
