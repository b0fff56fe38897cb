"""Random numbers that depend on keys alone: the same for a (seed, intervention, level, step) in whatever batch it is.

    keys = mix_keys(intervention_key, level_seed, step, layer)       # uint64, of the arguments' common shape
    draw_uniform(keys, 3)                                            # float64 (..., 3) in [0, 1)

A counter-based generator: the output function of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied to a chain of keys. numpy's generators would need an object for each key.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _scramble(keys: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        keys = (keys ^ (keys >> np.uint64(30))) * _FIRST
        keys = (keys ^ (keys >> np.uint64(27))) * _SECOND
        return keys ^ (keys >> np.uint64(31))


def mix_keys(*parts: int | np.ndarray) -> np.ndarray:
    """Return keys, uint64, of integers or arrays of integers, broadcast together; the order counts."""
    found = np.zeros(np.broadcast_shapes(*(np.shape(part) for part in parts)), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            found = _scramble((found ^ np.asarray(part).astype(np.uint64)) + _GOLDEN)
    return found


def draw_uniform(keys: np.ndarray, width: int) -> np.ndarray:
    """Return uniform numbers in [0, 1), float64 (..., width), for keys (...)."""
    counted = np.arange(1, width + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        bits = _scramble(keys[..., None] + counted * _GOLDEN)
    return (bits >> np.uint64(11)) * 2.0**-53


def draw_directions(keys: np.ndarray, width: int) -> np.ndarray:
    """Return unit vectors uniform on the sphere, float64 (..., width), for keys (...)."""
    pairs = -(-width // 2)
    uniform = draw_uniform(keys, 2 * pairs)
    radius = np.sqrt(-2 * np.log1p(-uniform[..., :pairs]))  # Box and Muller
    angle = 2 * np.pi * uniform[..., pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)[..., :width]
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)
