"""What routing weights are clamped to: a name, weights of each layer, or those by the bot's subgoal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from babyai.facts import SUBGOAL_NAMES
from pipeline.interventions.places import choose, refuse

TARGETS = ("uniform", "one_hot", "mean", "subgoal", "other", "shuffled")
"""Equal weights; all on the expert that `where` names; the policy's own mean over donors; its mean by subgoal, v[x];
v[x] of another policy, which the donors lend; its own v[x] with the subgoals exchanged, none of which keeps its own."""

OF_DONORS = ("mean", "subgoal", "other", "shuffled")
"""Those that need steps of donors."""

Vectors = tuple[tuple[float, ...] | None, ...]
"""Routing weights of each layer, None for a layer that is left alone."""

Target = str | Vectors | tuple[tuple[str, Vectors], ...]
"""A name, vectors, or pairs (subgoal, vectors); at steps of other subgoals weights are left alone."""


def check_target(to: Any) -> Target:
    """Return a target given as a name, lists, or a mapping of subgoals to lists, as one that cannot change.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(to, str):
        choose("to", to, TARGETS)
        return to
    if isinstance(to, tuple) and to and isinstance(to[0], tuple) and to[0] and isinstance(to[0][0], str):
        to = dict(to)  # as this function returns it
    if isinstance(to, Mapping) and to:
        for subgoal in to:
            choose("to", subgoal, SUBGOAL_NAMES)
        return tuple(sorted((subgoal, _check_vectors(vectors)) for subgoal, vectors in to.items()))
    return _check_vectors(to)


def _check_vectors(vectors: Any) -> Vectors:
    expected = f"one of {', '.join(TARGETS)}, or a list with weights of each layer (null for one left alone)"
    if not isinstance(vectors, Sequence) or isinstance(vectors, str) or not vectors:
        refuse("to", expected, vectors)
    try:
        found = tuple(None if row is None else tuple(float(weight) for weight in row) for row in vectors)
    except (TypeError, ValueError):
        refuse("to", expected, vectors)
    for row in found:
        if row is not None and not (all(0 <= w <= 1 for w in row) and math.isclose(sum(row), 1, abs_tol=1e-6)):
            refuse("to", "weights of each layer that are >= 0 and sum to 1", list(row))
    return found


def pair_vectors(to: Target) -> tuple[tuple[str | None, Vectors], ...]:
    """Return vectors as pairs with their subgoal; None is every one."""
    by_subgoal = to[0] is not None and isinstance(to[0][0], str)
    return to if by_subgoal else ((None, to),)


def plain_target(to: Target) -> Any:
    """Return a target in plain types, which `check_target` takes back."""
    if isinstance(to, str):
        return to
    plain = {subgoal: [None if row is None else list(row) for row in rows] for subgoal, rows in pair_vectors(to)}
    return plain.get(None, plain)
