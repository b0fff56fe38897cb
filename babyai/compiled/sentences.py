"""The instruction's sentence from a row of the world, word for word minigrid's `env.mission`."""

import numpy as np

from babyai.compiled import layout as at
from babyai.compiled.jit import compiled
from babyai.compiled.layout import World
from babyai.facts import COLORS, KINDS

_WORDS_OF_DESC = 4  # D_TYPE, D_COLOR, D_LOC, D_PLURAL
KEY_LENGTH = 7 + _WORDS_OF_DESC * at.NUM_DESCS  # root, two conjunctions, four verbs, descriptions
_TYPES = {0: "object", **{at.DOOR + k: name for k, name in enumerate(KINDS)}}
_COLORS = (*(f"{color} " for color in COLORS), "")  # the last for any, -1
_LOCATIONS = ("", " on your left", " on your right", " in front of you", " behind you")
_VERBS = ("go to ", "open ", "pick up ", "put ")
_LINKS = {at.BEFORE: ", then ", at.AFTER: " after you "}


@compiled
def write_mission_key(world, row, key):
    """Write what the sentence of a row depends on into `key`, int8 (KEY_LENGTH,)."""
    instruction = world.instruction
    key[0] = instruction[row, at.ROOT]
    for part in range(2):
        key[1 + part] = instruction[row, at.AND + part]
    for leaf in range(4):
        key[3 + leaf] = instruction[row, at.KIND + leaf]
    for desc in range(at.NUM_DESCS):
        for k in range(_WORDS_OF_DESC):
            key[7 + _WORDS_OF_DESC * desc + k] = world.desc[row, desc, k]


def mission_key(world: World, row: int) -> bytes:
    """Return what the sentence of a row depends on, KEY_LENGTH bytes; equal keys have equal sentences."""
    key = np.zeros(KEY_LENGTH, np.int8)
    write_mission_key(world, row, key)
    return key.tobytes()


def mission_text(key: bytes) -> str:
    """Return the sentence of a `mission_key`."""
    codes = np.frombuffer(key, np.int8).tolist()
    root, conjunctions, verbs, descs = codes[0], codes[1:3], codes[3:7], codes[7:]

    def name(desc: int) -> str:
        kind, color, location, plural = descs[_WORDS_OF_DESC * desc : _WORDS_OF_DESC * (desc + 1)]
        return f"{'a' if plural else 'the'} {_COLORS[color]}{_TYPES[kind]}{_LOCATIONS[location]}"

    def say_leaf(leaf: int) -> str:
        target = f" next to {name(2 * leaf + 1)}" if verbs[leaf] == at.PUTNEXT else ""
        return f"{_VERBS[verbs[leaf]]}{name(2 * leaf)}{target}"

    def say_part(part: int) -> str:
        leaves = (2 * part, 2 * part + 1) if conjunctions[part] else (2 * part,)
        return " and ".join(map(say_leaf, leaves))

    return say_part(0) if root == at.SINGLE else say_part(0) + _LINKS[root] + say_part(1)
