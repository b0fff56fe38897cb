"""The methods that are no walk down a tree of values: beam search and a Markov chain. Both pay as all the others do."""

from __future__ import annotations

import math
import time

from maxent.dts_implementation.search.policies import PriorPolicy
from maxent.dts_implementation.search.session import Draw, Session
from maxent.dts_implementation.search.tree import OPEN


def run_beam(session: Session) -> str:
    """Find the most probable answers by beam search and enter them, the most probable first.

    Return "exhausted" if there are fewer answers than places in the beam, so that all were found, else "".

    The beam is as wide as there are rollouts to make, or as the budget allows; a finished answer keeps its place in it
    as long as no more probable prefix takes it. The reward has no part in this: the answer rule ranks what was found.
    All that was fed counts for the first answer, since none is known before the end.
    """
    began = time.perf_counter()
    tree = session.tree
    nodes, columns = len(tree), tree.columns
    width = session.count_affordable()
    beam = [0]
    with session.opened([0]):
        while any(tree.status[node] == OPEN for node in beam):
            offers = [(-tree.log_p[node], node, -1) for node in beam if tree.status[node] != OPEN]
            for node in beam:
                if tree.status[node] == OPEN:
                    log_probs = tree.distribution[node].log_probs[:width].tolist()  # in falling order
                    offers += [(-tree.log_p[node] - step, node, slot) for slot, step in enumerate(log_probs)]
            beam = [node if slot < 0 else tree.grow(node, slot) for _, node, slot in sorted(offers)[:width]]
            session.feed([node for node in beam if tree.status[node] == OPEN])
    draws = [Draw(tree.find_path(node)) for node in beam]
    draws[0].nodes, draws[0].fed = len(tree) - nodes, tree.columns - columns
    session.enter(draws, None, time.perf_counter() - began)
    return "exhausted" if len(beam) < width else ""


def run_chain(session: Session, lam: float) -> tuple[int, ...]:
    """Run Metropolis-Hastings on whole answers and return the chain: the place of its state after each rollout.

    Each step cuts the answer x at a uniform place, draws the rest anew from the prior, which gives y, and accepts it
    with probability min(1, exp((r(y) - r(x)) / lambda) |x| / |y|), lengths in tokens: the kernel of power sampling for
    any reward. Its stationary distribution is the posterior. The first draw is from the prior.
    """
    policy = PriorPolicy(session.tree, session.rng)
    chain: list[int] = []
    path = [0]
    while session.count_affordable() > 0:
        began = time.perf_counter()
        cut = int(session.rng.integers(len(path) - 1)) if chain else 0
        (draw,) = session.decode(policy, [path[cut]])
        draw.log_q = None  # given the state, which the weights of other methods know nothing of
        session.enter([draw], None, time.perf_counter() - began)
        place = len(session.rollouts) - 1
        if chain:
            new, old = session.rollouts[place], session.rollouts[chain[-1]]
            ratio = math.log(len(old.tokens) / len(new.tokens)) + (new.reward - old.reward) / lam
            if session.rng.random() >= math.exp(min(ratio, 0.0)):
                chain.append(chain[-1])
                continue
        chain.append(place)
        path = draw.path
    return tuple(chain)
