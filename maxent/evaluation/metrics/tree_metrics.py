"""The shape of a search's tree, and how much its answers differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maxent.data.overlap import count_ngrams, split_words
from maxent.dts_implementation.search.result import SearchResult


def measure_tree(result: SearchResult) -> dict[str, float]:
    """Return figures of a finished search by name.

    - `nodes`: prefixes met, the prompt not counted.
    - `depth`: tokens of the longest answer.
    - `branching`: mean number of children of the nodes that have any.
    - `effective_width`: exp of the entropy of the rollouts over distinct answers: as many equally frequent ones.
    - `branch_depth`: mean number of leading tokens that a rollout found in the tree.
    - `unique_answers`: distinct answers.
    - `distinct_1`, `distinct_2`: distinct words and pairs over all of them, in the texts of all rollouts.
    """
    tree = result.tree
    children = [len(below) for below in tree.children if below]
    _, counts = np.unique([rollout.leaf for rollout in result.rollouts], return_counts=True)
    shares = counts / counts.sum()
    texts = [rollout.text for rollout in result.rollouts]
    return {
        "nodes": float(len(tree) - 1),
        "depth": float(max(tree.depth)),
        "branching": float(np.mean(children)) if children else 0.0,
        "effective_width": float(np.exp(-(shares @ np.log(shares)))),
        "branch_depth": float(np.mean([rollout.branch_depth for rollout in result.rollouts])),
        "unique_answers": float(len(counts)),
        "distinct_1": compute_distinct(texts, 1),
        "distinct_2": compute_distinct(texts, 2),
    }


def compute_distinct(texts: Sequence[str], order: int) -> float:
    """Return distinct runs of `order` words over all of them, within texts; 0 if there are none (Li et al. 2016)."""
    counts = sum((count_ngrams(split_words(text), order) for text in texts), start=count_ngrams([], order))
    return len(counts) / counts.total() if counts else 0.0
