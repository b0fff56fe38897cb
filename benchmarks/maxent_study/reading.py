"""A search read at several budgets, and seeds compared: pure functions on plain numbers.

    reading = read_at(rollouts, budget=300)             # what a search with that budget would have found
    gain = pair(values["dts"], values["best_of_n"])     # by (seed, sample)
    estimate = over_seeds(gain)                         # Student's t; samples are averaged within a seed

One search with a large budget can be read at every smaller one: which rollouts come first does not depend on the
budget once the wave is fixed. Beam search is the exception, for its width does; it is run anew for each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from maxent.dts_implementation.search.estimates import compute_label_posterior, compute_voting_weights
from maxent.dts_implementation.search.result import Rollout
from pipeline.records.intervals import Estimates, mean_interval

Values = Mapping[tuple[int, str], float]
"""(seed, sample) -> number."""


def count_within(rollouts: Sequence[Rollout], budget: int) -> int:
    """Return how many of the first rollouts had been drawn when no more than `budget` new tokens had been fed."""
    totals = [rollout.total_new_tokens for rollout in rollouts]
    return int(np.searchsorted(totals, budget, side="right"))


def read_at(
    rollouts: Sequence[Rollout],
    budget: int,
    *,
    score: Callable[[Rollout], float],
    parse: Callable[[str], Hashable | None] | None = None,
    truth: Hashable | None = None,
    chain: Sequence[int] | None = None,
    lam: float = 0.1,
) -> dict[str, Any] | None:
    """Return what a search has found within a budget, None where not one answer is finished.

    Args:
        rollouts: Of the search, in order.
        budget: New tokens.
        score: Of an answer.
        parse: Text -> label; None without labels.
        truth: The true label, for the vote.
        chain: Of `mh`.
        lam: Of the search.

    Returns:
        `budget`, `rollouts` and `tokens` (so far), `calls` (distinct answers), `best` and `mean` reward, `score` of
        the answer with the best reward (the first of equals), `vote`: 1.0 if the label of most weight is true, None
        without labels.
    """
    count = count_within(rollouts, budget)
    if not count:
        return None
    seen = rollouts[:count]
    answer = max(seen, key=lambda rollout: rollout.reward)
    vote = None
    if parse is not None:
        weights = compute_voting_weights(seen, None if chain is None else chain[:count], lam)
        shares = compute_label_posterior([parse(rollout.text) for rollout in seen], weights)
        vote = float(bool(shares) and next(iter(shares)) == truth)
    return {
        "budget": budget,
        "rollouts": count,
        "tokens": seen[-1].total_new_tokens,
        "calls": sum(not rollout.repeated for rollout in seen),
        "best": answer.reward,
        "mean": float(np.mean([rollout.reward for rollout in seen])),
        "score": score(answer),
        "vote": vote,
    }


def find_records(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Return [new tokens, reward] of each rollout that was better than all before, the first included."""
    found: list[list[float]] = []
    for rollout in rollouts:
        if not found or rollout.reward > found[-1][1]:
            found.append([rollout.total_new_tokens, rollout.reward])
    return found


def collect(records: Sequence[Mapping[str, Any]], figure: str, budget: int) -> dict[tuple[int, str], float]:
    """Return a figure of all samples of some records at a budget; samples that have none there are left out.

    Args:
        records: As `units` keeps them, of one case, model and method.
        figure: A key of what `read_at` returns.
        budget: One of the case's.
    """
    found = {}
    for record in records:
        for sample in record["samples"]:
            reading = next((one for one in sample["at"] if one is not None and one["budget"] == budget), None)
            if reading is not None and reading[figure] is not None:
                found[record["seed"], sample["id"]] = float(reading[figure])
    return found


def pair(values: Values, others: Values) -> dict[tuple[int, str], float]:
    """Return the differences of two methods on the samples that both have."""
    return {key: value - others[key] for key, value in values.items() if key in others}


def average(values: Values) -> dict[int, float]:
    """Return the mean over samples of each seed, in the order of the seeds."""
    seeds = sorted({seed for seed, _ in values})
    return {seed: float(np.mean([value for (of, _), value in values.items() if of == seed])) for seed in seeds}


def over_seeds(values: Values) -> Estimates:
    """Return the mean over seeds and its t interval; NaN where there are fewer than three."""
    return mean_interval(list(average(values).values()))


def format_estimate(estimate: Estimates, digits: int = 3, *, signed: bool = False) -> str:
    """Return a mean with its interval, as in `0.312 [0.288, 0.336]`; a dash where there is nothing."""
    if not estimate.n:
        return "-"

    def show(number: np.ndarray) -> str:
        return format(round(float(number), digits) + 0.0, f"{'+' if signed else ''}.{digits}f")  # no -0

    if not np.isfinite(estimate.low):
        return show(estimate.mean)
    return f"{show(estimate.mean)} [{show(estimate.low)}, {show(estimate.high)}]"
