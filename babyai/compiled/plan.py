"""The bot's stack of subgoals, and the plans that can be put on it.

    answer = adopt(world, row, CLEAR, a, 0, 0)           # AGAIN, or minus a reason for giving up

A plan is a short list of subgoals, the last is carried out first. Its gaps (a cell to go to, a thing, a list of keys)
are filled when it is adopted.
"""

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import (
    DEPTH,
    R_EXPLORE,
    R_KEEP_KEY,
    R_NONE,
    R_OPEN,
    R_PUT_NEXT,
    R_UNLOCK,
    S_CLOSE,
    S_DROP,
    S_EXPLORE,
    S_GO_NEXT,
    S_OPEN,
    S_PICKUP,
)

GAVE_UP_REASONS = (
    "it has a plan",
    "nothing is left to explore",
    "a box was opened",
    f"more than {at.MAX_PUSHES} subgoals for one action",
    f"more than {at.MAX_DEPTH} subgoals on the stack",
    "nothing matches a description",
    "it sees a thing that no way leads to",
    "there is no place to go to: nowhere to put something down, or a thing that was never placed",
    "a locked door is in the way",
    "it does not stand before the door that it wants to open or close",
    "its hands are empty and should not be, or the other way round",
    "what is before it is not empty",
    "what the agent dropped is not before it",
    f"more than {at.MAX_KEY_LISTS} different lists of keys in its plan",
)
"""What the numbers in `World.scalars[:, GAVE_UP]` mean."""

(
    _,
    NOTHING_TO_EXPLORE,
    BOX_OPENED,
    IN_CIRCLES,
    TOO_DEEP,
    NO_MATCH,
    OUT_OF_REACH,
    NO_PLACE,
    LOCKED_WAY,
    NO_SUCH_DOOR,
    HANDS,
    NOT_EMPTY,
    NOT_DROPPED,
    TOO_MANY_KEYS,
) = range(len(GAVE_UP_REASONS))

AGAIN = 7
"""Where an action is expected: there is none yet, the stack has changed. Below 0: minus a reason for giving up."""

# --------------------------------------------------------------------------------------------------------------- plans

# How a gap is filled: with the cells a, b or c (0: with nothing), the thing a, the description a or the one after it,
# or the key list c
_NOTHING, _A, _B, _C, _THING_A, _DESC_A, _NEXT_DESC_A, _KEYS_C = range(8)


def _go(gap: int, reason: int = R_NONE) -> tuple[int, int, int]:
    return S_GO_NEXT, reason, gap


_OPEN, _CLOSE = (S_OPEN, R_NONE, _NOTHING), (S_CLOSE, R_NONE, _NOTHING)
_PICKUP, _DROP = (S_PICKUP, R_NONE, _NOTHING), (S_DROP, R_NONE, _NOTHING)

_LISTS = (
    # Instructions: to pick something up ends with dropping it, so that something else can be carried next
    [_go(_DESC_A)],
    [_OPEN, _go(_DESC_A, R_OPEN)],
    [_DROP, _PICKUP, _go(_DESC_A)],
    [_DROP, _go(_NEXT_DESC_A, R_PUT_NEXT), _PICKUP, _go(_DESC_A)],
    # Single subgoals
    [_go(_A)],
    [_go(_A, R_EXPLORE)],
    [(S_EXPLORE, R_NONE, _NOTHING)],
    [_PICKUP],
    [_DROP],
    [_OPEN],
    [_CLOSE],
    [(S_OPEN, R_UNLOCK, _NOTHING)],
    # Doors
    [_OPEN, _go(_THING_A, R_OPEN)],
    [(S_OPEN, R_KEEP_KEY, _NOTHING), _go(_THING_A, R_OPEN)],
    [_go(_THING_A, R_OPEN), _PICKUP, _go(_KEYS_C)],
    [_OPEN, _go(_B), _PICKUP, _go(_KEYS_C)],
    [_PICKUP, _go(_A), _OPEN, _go(_B), _PICKUP, _go(_KEYS_C), _DROP, _go(_A)],
    # Putting things aside
    [_DROP, _go(_A)],
    [_DROP, _go(_A), _PICKUP],
    [_PICKUP, _go(_A), _DROP, _go(_B), _PICKUP, _go(_C), _DROP, _go(_A)],
)
(
    DO_GOTO,
    DO_OPEN,
    DO_PICK,
    DO_PUTNEXT,
    GO,
    GO_EXPLORE,
    EXPLORE,
    PICKUP,
    DROP,
    OPEN,
    CLOSE,
    UNLOCK,
    OPEN_DOOR,  # a
    OPEN_DOOR_KEEPING_KEY,  # a
    FETCH_KEY,  # one of list c, for the door a that it is on the way to
    FETCH_KEY_HERE,  # for the door in cell b, before it
    SWAP_FOR_KEY,  # the same, when it carries something, which it leaves at a meanwhile
    PUT_DOWN,  # at a
    CLEAR,  # put what is before it down at a
    SWAP_AND_CLEAR,  # put what is before it, in cell c, down at b, leaving what it carries at a meanwhile
) = range(len(_LISTS))

_LENGTHS = np.array([len(plan) for plan in _LISTS], np.int64)
_PLANS = np.zeros((len(_LISTS), 8, 3), np.int64)
for _k, _plan in enumerate(_LISTS):
    _PLANS[_k, : len(_plan)] = _plan


@compiled
def adopt(world, row, plan, a, b, c):
    """Put a plan on the stack; return AGAIN, or minus the reason for giving up where the stack grows without end."""
    scalars = world.scalars
    depth, length = np.int64(scalars[row, DEPTH]), _LENGTHS[plan]
    scalars[row, at.PUSHES] += length
    if scalars[row, at.PUSHES] > at.MAX_PUSHES:
        return -IN_CIRCLES
    if depth + length > at.MAX_DEPTH:
        return -TOO_DEEP
    for k in range(length):
        kind, reason, gap = _PLANS[plan, k, 0], _PLANS[plan, k, 1], _PLANS[plan, k, 2]
        datum_kind, datum = at.DATUM_NONE, 0
        if gap == _A or gap == _B or gap == _C:
            datum = a if gap == _A else b if gap == _B else c
            if datum > 0:
                datum_kind = at.DATUM_CELL
        elif gap == _THING_A:
            datum_kind, datum = at.DATUM_THING, a
        elif gap == _DESC_A or gap == _NEXT_DESC_A:
            datum_kind, datum = at.DATUM_DESC, a + (gap - _DESC_A)
        elif gap == _KEYS_C:
            datum_kind, datum = at.DATUM_KEYS, c
        world.stack[row, depth] = kind | reason << 4 | datum_kind << 8 | datum << 12
        depth += 1
    scalars[row, DEPTH] = depth
    return AGAIN
