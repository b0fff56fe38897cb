"""Coalitions of experts: which there are, how tables name them, and the weights of exact values over all of them.

    players = list_players([[0, 16, 32]] * 3)       # six experts that are no skip, so 64 coalitions
    values = shapley_weights(6) @ worths            # worths (64,), by `code_of` of the experts that are left

A coalition is coded by its bits: player i is in it where bit i is 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import factorial

import numpy as np

MAX_PLAYERS = 10
"""Players of which all coalitions are made, 1,024 of ten."""

Player = tuple[int, int]
"""Layer and expert."""


def list_players(sizes: Sequence[Sequence[int]]) -> list[Player]:
    """Return the experts that are no skip.

    Args:
        sizes: Hidden sizes of the experts, per layer.

    Raises:
        ValueError: If there are more than `MAX_PLAYERS`.
    """
    players = [(layer, expert) for layer, row in enumerate(sizes) for expert, size in enumerate(row) if size]
    if len(players) > MAX_PLAYERS:
        raise ValueError(
            f"coalitions: expected at most {MAX_PLAYERS} experts that are no skip, of which all {2**MAX_PLAYERS:,} "
            f"coalitions are made, found {len(players)}, which have {2 ** len(players):,}; study policies of fewer "
            "experts, or leave out the analyses that need them (analyses: without shapley)"
        )
    return players


def name_without(players: Sequence[Player]) -> str:
    """Return the name of the condition that takes players out."""
    return "without " + "+".join(f"l{layer}e{expert}" for layer, expert in players)


def players_in(condition: str) -> set[Player]:
    """Return the players that a condition takes out, by its name."""
    return {(int(layer), int(expert)) for layer, expert in re.findall(r"l(\d+)e(\d+)", condition)}


def code_of(condition: str, players: Sequence[Player]) -> int:
    """Return the code of the players that are left under a condition; the sham's, which takes none out, is all."""
    gone = players_in(condition)
    return sum(1 << place for place, player in enumerate(players) if player not in gone)


def count_members(players: int) -> np.ndarray:
    """Return the number of players in each coalition, int (2^n,)."""
    return np.array([code.bit_count() for code in range(2**players)])


def shapley_weights(players: int) -> np.ndarray:
    """Return (n, 2^n), by which worths give the Shapley values (Shapley 1953, Ann. Math. Stud. 28:307).

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)).
    """
    n, members = players, count_members(players)
    found = np.zeros((n, 2**n))
    for i in range(n):
        for code in np.flatnonzero(~np.arange(2**n) >> i & 1).tolist():
            weight = factorial(members[code]) * factorial(n - members[code] - 1) / factorial(n)
            found[i, code | 1 << i] += weight
            found[i, code] -= weight
    return found


def list_pairs(players: int) -> list[tuple[int, int]]:
    """Return all pairs of players by place."""
    return [(i, j) for i in range(players) for j in range(i + 1, players)]


def interaction_weights(players: int) -> np.ndarray:
    """Return (pairs, 2^n), by which worths give Shapley interaction indices of pairs.

    I_ij = sum over S without i and j of |S|! (n - |S| - 2)! / (n - 1)! (v(S + i + j) - v(S + i) - v(S + j) + v(S))
    (Grabisch and Roubens 1999, Int. J. Game Theory 28:547).
    """
    n, members = players, count_members(players)
    found = np.zeros((len(list_pairs(n)), 2**n))
    for row, (i, j) in enumerate(list_pairs(n)):
        both = 1 << i | 1 << j
        for code in (code for code in range(2**n) if not code & both):
            weight = factorial(members[code]) * factorial(n - members[code] - 2) / factorial(n - 1)
            found[row, code | both] += weight
            found[row, code] += weight
            found[row, code | 1 << i] -= weight
            found[row, code | 1 << j] -= weight
    return found
