"""Arms of a transfer: the ways in which policies learn a level that is new to them, by name.

scratch             everything, from weights drawn from the seed
router, experts, head   that part alone, from the trained policy's weights; the rest stays
all                 everything, from the trained policy's weights: fine-tuning
untrained router, ...   that part alone, from weights drawn from the seed: what the part can do by itself
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SCRATCH = "scratch"

ALL_PARTS = "all"

PARTS = ("router", "experts", "head", ALL_PARTS)
"""What can be left free."""

_UNTRAINED = "untrained "


@dataclass(frozen=True)
class Arm:
    """One way to learn a new level.

    Attributes:
        name: Of it.
        train_only: Parts that are free, as training takes them; None: all.
        trained: Whether it starts from the trained policy.
    """

    name: str
    train_only: list[str] | None
    trained: bool


def untrained(part: str) -> str:
    """Return the name of the arm that trains a part of an untrained policy."""
    return _UNTRAINED + part


def list_arms(parts: Sequence[str], *, twins: bool = True) -> list[Arm]:
    """Return the arms in the order of tables.

    Args:
        parts: That are left free, some of `PARTS`.
        twins: Whether untrained policies learn with each part free, too.
    """
    alone = [part for part in parts if part != ALL_PARTS]
    found = [Arm(SCRATCH, None, False)]
    found += [Arm(part, None if part == ALL_PARTS else [part], True) for part in parts]
    return found + [Arm(untrained(part), [part], False) for part in alone if twins]
