"""Information that behaviour carries about states, in bits, with brackets instead of corrected point estimates.

    policy = policies_from_logits(logits)                       # (S, A)
    bracket = bracket_information(policy, states, episodes)     # I(state; action)
    bracket.low, bracket.high, bracket.covered

The channel is the policy itself, pi_t = softmax(logits) at each step, so that nothing is estimated from the actions
that happened to be taken. What remains to be estimated are the means over the steps in a state, pi_z, and a mean over
few steps is too sure of itself. So each quantity is a bracket of two estimates whose errors have opposite signs:

- plug-in: the entropy of pi_z itself. Too low an entropy, too high an information.
- held out: each step's cross-entropy with the mean of the steps of *other* episodes in its state, which counts one step
  of the mean over all states besides. Too high an entropy, too low an information.

From about 20 steps a state the truth lies between. Where policies were not recorded, `entropy_of_counts` estimates the
entropy of the actions taken after Grassberger (2003), https://arxiv.org/abs/physics/0307138, equation 35.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_STEPS = 20
"""Steps of a state from which on its bracket holds the truth."""

MIN_COUNTS = 5
"""Actions of a state from which on Grassberger's estimate is used."""


@dataclass(frozen=True)
class Bracket:
    """Two estimates between which a quantity lies.

    Attributes:
        low: The smaller one, bits.
        high: The greater one, bits.
        covered: Share of all steps that are in states with enough steps; the quantity is of these.
        num_states: States with enough steps.
    """

    low: float
    high: float
    covered: float
    num_states: int

    @property
    def middle(self) -> float:
        """Halfway between."""
        return (self.low + self.high) / 2


def policies_from_logits(logits: np.ndarray) -> np.ndarray:
    """Return softmax of logits (S, A) as float64."""
    logits = np.asarray(logits, np.float64)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy over the last axis, bits; 0 log 0 is 0."""
    p = np.asarray(probabilities, np.float64)
    return -np.sum(np.where(p > 0, p * np.log2(np.where(p > 0, p, 1.0)), 0.0), axis=-1)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence of p from a reference q over the last axis, bits; inf where q is 0."""
    p, q = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(q, np.float64))
    with np.errstate(divide="ignore"):
        ratio = np.log2(np.where(p > 0, p, 1.0)) - np.log2(np.where(p > 0, q, 1.0))
    return np.sum(np.where(p > 0, p * ratio, 0.0), axis=-1)


def number_states(*columns: np.ndarray) -> np.ndarray:
    """Return one number for each distinct combination of columns (S,) or (S, K), int (S,), from 0."""
    table = np.column_stack([np.asarray(column).reshape(len(column), -1) for column in columns])
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)


def sum_by(values: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the sums (G, ...) of values (S, ...) over groups int (S,); a negative group counts nowhere."""
    values = np.asarray(values, np.float64)
    found = np.zeros((num_groups, *values.shape[1:]))
    np.add.at(found, groups[groups >= 0], values[groups >= 0])
    return found


@dataclass(frozen=True, eq=False)
class StateEntropies:
    """The brackets of each state's action entropy H(A | z), entry k for states[k].

    Attributes:
        states: Ascending int (Z,).
        steps: int (Z,).
        low: float64 (Z,), plug-in, bits.
        high: float64 (Z,), held out, bits; NaN where all steps of a state are of one episode.
        policy: float64 (Z, A), mean policies.
    """

    states: np.ndarray
    steps: np.ndarray
    low: np.ndarray
    high: np.ndarray
    policy: np.ndarray


def state_entropies(policies: np.ndarray, states: np.ndarray, episodes: np.ndarray) -> StateEntropies:
    """Return the entropy of the actions in each state, as brackets.

    Args:
        policies: (S, A), rows sum to 1.
        states: int (S,).
        episodes: int (S,).
    """
    policies = np.asarray(policies, np.float64)
    found, place, count = np.unique(states, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    total = sum_by(policies, place, len(found))
    mean = total / count[:, None]
    surprise, others = _held_out(policies, place, np.asarray(episodes), total, count)
    high = sum_by(surprise, place, len(found)) / count
    alone = sum_by(others > 0, place, len(found)) == 0
    return StateEntropies(found, count, entropy(mean), np.where(alone, np.nan, high), mean)


def _held_out(
    policies: np.ndarray, place: np.ndarray, episodes: np.ndarray, total: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each step's cross-entropy with its state's mean over other episodes, and how many steps these have."""
    pair = number_states(place, episodes)
    own, size = sum_by(policies, pair, pair.max(initial=-1) + 1), np.bincount(pair)
    others = count[place] - size[pair]
    overall = policies.mean(axis=0)
    reference = (np.maximum(total[place] - own[pair], 0.0) + overall) / (others + 1)[:, None]
    return -np.sum(np.where(policies > 0, policies * np.log2(np.maximum(reference, 1e-300)), 0.0), axis=1), others


def bracket_information(
    policies: np.ndarray, states: np.ndarray, episodes: np.ndarray, *, min_steps: int = MIN_STEPS
) -> Bracket:
    """Return the bracket of the mutual information of state and action, I(Z; A), bits.

    high = H(pi) - sum_z P(z) H(pi_z), low = H(pi) + mean_t sum_a pi_t(a) log2 q_z(a), with pi the mean over all steps
    and q_z the mean over the steps of other episodes in the state, one step of pi added.

    Args:
        policies: (S, A), rows sum to 1; or the routing weights of a layer, for I(E; X).
        states: int (S,).
        episodes: int (S,).
        min_steps: Steps of states with fewer are left out, and `covered` says what is left.
    """
    policies, states = np.asarray(policies, np.float64), np.asarray(states)
    _, place, count = np.unique(states, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    kept = count[place] >= min_steps
    if not kept.any():
        return Bracket(float("nan"), float("nan"), 0.0, 0)
    each = state_entropies(policies[kept], states[kept], np.asarray(episodes)[kept])
    whole = float(entropy(policies[kept].mean(axis=0)))
    high = whole - float(each.steps @ each.low) / int(each.steps.sum())
    place = np.searchsorted(each.states, states[kept])
    surprise, _ = _held_out(
        policies[kept], place, np.asarray(episodes)[kept], each.policy * each.steps[:, None], each.steps
    )
    return Bracket(min(whole - float(surprise.mean()), high), high, float(kept.mean()), len(each.states))


# ------------------------------------------------------------------------------------------------- of actions taken


def entropy_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return Grassberger's estimate of the entropy of a distribution from counts (..., A), bits; NaN without counts.

    H = log N - (1/N) sum_i n_i G(n_i), with G(n) = psi(n) + (-1)^n / 2 (psi((n+1)/2) - psi(n/2)).
    """
    from scipy.special import digamma  # takes 0.1 s, which only caches without policies need

    n = np.asarray(counts, np.float64)
    total = n.sum(axis=-1)
    safe = np.maximum(n, 1)
    sign = np.where(np.rint(safe) % 2 == 0, 1.0, -1.0)
    g = digamma(safe) + sign / 2 * (digamma((safe + 1) / 2) - digamma(safe / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.log(total) - np.sum(np.where(n > 0, n * g, 0.0), axis=-1) / total
    return np.where(total > 0, nats / np.log(2), np.nan)


def information_of_counts(
    actions: np.ndarray, states: np.ndarray, num_actions: int, *, min_counts: int = MIN_COUNTS
) -> Bracket:
    """Return I(Z; A) from actions taken alone, both ends of the bracket being Grassberger's estimate.

    Args:
        actions: int (S,), 0 .. num_actions - 1.
        states: int (S,).
        num_actions: A.
        min_counts: Steps of states with fewer are left out.
    """
    found, place, count = np.unique(states, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    kept = count[place] >= min_counts
    if not kept.any():
        return Bracket(float("nan"), float("nan"), 0.0, 0)
    table = np.zeros((len(found), num_actions))
    np.add.at(table, (place[kept], np.asarray(actions)[kept]), 1)
    table = table[count >= min_counts]
    inside = float(table.sum(axis=1) @ entropy_of_counts(table)) / int(kept.sum())
    found_information = float(entropy_of_counts(table.sum(axis=0))) - inside
    return Bracket(found_information, found_information, float(kept.mean()), len(table))
