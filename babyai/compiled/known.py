"""Missions that have a number, found by what their sentences depend on (`babyai.compiled.sentences`)."""

from typing import NamedTuple

import numpy as np

from babyai.compiled.jit import compiled
from babyai.compiled.sentences import KEY_LENGTH
from babyai.compiled.slots import UNKNOWN

_OFFSET, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)  # of FNV-1a, RFC 9923


class Known(NamedTuple):
    """A hash table with open addressing.

    Attributes:
        places: int64 (P,) number of a key, -1 for a free place; P is a power of two, and over half are free.
        keys: int8 (K, KEY_LENGTH).
        ids: int64 (K,) the mission's number; several keys may have one.
        count: int64 (1,) keys.
    """

    places: np.ndarray
    keys: np.ndarray
    ids: np.ndarray
    count: np.ndarray


@compiled
def _find_place(known, key):
    """Return the place of a key, or the free one where it would be."""
    hashed = _OFFSET
    for k in range(len(key)):
        hashed = (hashed ^ np.uint64(np.uint8(key[k]))) * _PRIME
    last = np.uint64(len(known.places) - 1)
    place = hashed & last
    while known.places[place] >= 0:
        found, same = known.keys[known.places[place]], True
        for k in range(len(key)):
            if found[k] != key[k]:
                same = False
        if same:
            break
        place = (place + np.uint64(1)) & last
    return place


@compiled
def find_known(known, key):
    """Return the number of a key's mission, or UNKNOWN."""
    number = known.places[_find_place(known, key)]
    return known.ids[number] if number >= 0 else UNKNOWN


@compiled
def put_known(known, keys, ids):
    """Take up keys that are not known, int8 (n, KEY_LENGTH), there being room."""
    for k in range(len(keys)):
        number = known.count[0]
        known.places[_find_place(known, keys[k])] = number
        for j in range(keys.shape[1]):
            known.keys[number, j] = keys[k, j]
        known.ids[number] = ids[k]
        known.count[0] += 1


def allocate_known(room: int = 64) -> Known:
    """Return a table without missions that has room for some, a power of two."""
    return Known(
        np.full(4 * room, -1, np.int64),
        np.zeros((room, KEY_LENGTH), np.int8),
        np.zeros(room, np.int64),
        np.zeros(1, np.int64),
    )


def learn(known: Known, key: np.ndarray, mission_id: int) -> Known:
    """Return the table with a key, int8 (KEY_LENGTH,); a larger one where it is full."""
    if find_known(known, key) != UNKNOWN:  # two slots have met it at once
        return known
    count = int(known.count[0])
    if count == len(known.keys):
        grown = allocate_known(2 * count)
        put_known(grown, known.keys, known.ids)
        known = grown
    put_known(known, key[None], np.array([mission_id]))
    return known
