"""Maximum-entropy tree search: the loop, and the one call behind which all methods are.

    result = search(model, prompt, reward, SearchSettings(num_rollouts=30, lam=0.1))
    result.best.text, result.best.reward, estimates.summarise(result)

The posterior is p(x) exp(r(x) / lambda) / Z over answers x, p being the prior of `sequence_model`. A search reads the
prompt once, then goes in waves: choose paths in the tree as it stands, decode them together, enter them in order. The
first wave of `dts` is plain sampling, since nothing was visited yet: with one wave for all it is best-of-N.

After Diffusion Tree Sampling (Jain et al., arXiv 2506.20701), with deviations: children are weighted with the prior
where the paper counts draws, what was not tried keeps its prior mass where the paper widens by a schedule, and each
draw's density is recorded, so that the search is an estimator too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from maxent.dts_implementation.models.sequence_model import SequenceModel
from maxent.dts_implementation.search.baselines import run_beam, run_chain
from maxent.dts_implementation.search.estimates import compute_label_posterior, compute_voting_weights
from maxent.dts_implementation.search.policies import (
    ClimbingPolicy,
    GreedyPolicy,
    PaperPolicy,
    Policy,
    PriorPolicy,
    SoftPolicy,
)
from maxent.dts_implementation.search.result import Rollout, SearchResult, SearchSettings
from maxent.dts_implementation.search.session import Session
from maxent.rewards.result import Reward

Parse = Callable[[str], Hashable | None]
"""Text of an answer -> its label, None if it has none."""


def search(
    model: SequenceModel,
    prompt: Any,
    reward: Reward,
    settings: SearchSettings,
    *,
    parse: Parse | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> SearchResult:
    """Search for answers to a prompt by any of the methods, stopping at the rollouts or at the budget of new tokens.

    The same model, prompt, reward and settings give the same result, times apart.

    Args:
        model: Reads the prompt anew; its account starts at 0.
        prompt: Of a kind that the model knows.
        reward: Deterministic; asked once for each distinct answer.
        settings: The method and its settings.
        parse: Labels of answers, for the answer rule `vote`.
        on_rollout: Called with each rollout, in order, once the tree's values include it.

    Raises:
        ValueError: If `vote` has nothing to parse labels with, not even one answer fits in model or budget, or what
            model or reward gave is no number.
    """
    if settings.answer == "vote" and parse is None:
        raise ValueError("answer: vote needs labels, which this dataset has none of; use max or sample")
    single = settings.method in ("greedy", "sample")
    session = Session(model, prompt, reward, replace(settings, num_rollouts=1) if single else settings, on_rollout)
    chain = None
    stopped = ""
    if settings.method == "beam":
        stopped = run_beam(session)
    elif settings.method == "mh":
        chain = run_chain(session, settings.lam)
    else:
        stopped = run_waves(session, build_policy(session, settings), settings.wave or compute_wave(session, settings))
    if not stopped:
        budget = settings.budget_tokens is not None and len(session.rollouts) < settings.num_rollouts and not single
        stopped = "budget" if budget else "rollouts"
    return SearchResult(
        settings=settings,
        rollouts=tuple(session.rollouts),
        answer=choose_answer(session, settings, chain, parse),
        chain=chain,
        cost=session.count_cost(),
        stopped=stopped,
        max_tokens=session.max_tokens,
        tree=session.tree,
    )


def build_policy(session: Session, settings: SearchSettings) -> Policy:
    """Return the policy of a method that walks down the tree."""
    tree, rng = session.tree, session.rng
    match settings.method:
        case "dts":
            return SoftPolicy(tree, rng, settings.epsilon)
        case "dts_star" | "mcts":
            return ClimbingPolicy(tree, rng, settings.exploration, by_mean=settings.method == "mcts")
        case "dts_paper":
            return PaperPolicy(tree, rng)
        case "greedy":
            return GreedyPolicy(tree)
        case _:
            return PriorPolicy(tree, rng)


WAVE = 16
"""A wave is no larger unless asked for: later choices know more. docs/LOG.md has what larger ones lose."""


def compute_wave(session: Session, settings: SearchSettings) -> int:
    """Return how many rollouts go together if the settings leave it open: a fifth, or all if none learns of another."""
    expected = max(session.count_affordable(), 1)
    return expected if settings.method == "best_of_n" else min(math.ceil(expected / 5), WAVE)


def run_waves(session: Session, policy: Policy, wave: int) -> str:
    """Draw waves until rollouts or budget are used up; return "exhausted" if all answers were drawn before, else ""."""
    while (count := min(wave, session.count_affordable())) > 0:
        if not policy.draws_twice and session.tree.closed[0]:
            return "exhausted"
        began = time.perf_counter()
        draws = session.decode(policy, [0] * count)
        session.enter(draws, policy, time.perf_counter() - began)
    return ""


def choose_answer(session: Session, settings: SearchSettings, chain: Sequence[int] | None, parse: Parse | None) -> int:
    """Return the place of the answer among the rollouts; see `SearchSettings.answer`.

    `sample` is where the chain ended for `mh`. If no answer has a label, `vote` falls back on `max`.
    """
    rollouts = session.rollouts
    places: Sequence[int] = range(len(rollouts))
    if settings.answer == "sample":
        if chain is not None:
            return chain[-1]
        leaf = session.tree.descend(np.random.default_rng([settings.seed, 1]))  # not the search's: it ends as it would
        return next(place for place in places if rollouts[place].leaf == leaf)
    if settings.answer == "vote":
        labels = [parse(rollout.text) for rollout in rollouts]
        shares = compute_label_posterior(labels, compute_voting_weights(rollouts, chain, settings.lam))
        if shares:
            winner = next(iter(shares))
            places = [place for place in places if labels[place] == winner]
    return max(places, key=lambda place: rollouts[place].reward)  # the first of equals
