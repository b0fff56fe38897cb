"""Random draws as `numpy.random.default_rng(seed)` makes them, in compiled code, counted and bounded.

    draws = np.zeros(NUM_DRAWS, np.uint64)
    start(draws, seed=3, limit=500_000)
    draw(draws, 0, 6)                    # Generator.integers(0, 6)

gymnasium seeds an environment with PCG64(SeedSequence(seed)). Sources: SeedSequence hashes the seed into a pool of four
32-bit words (https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html; numpy's constants); PCG64 is a
128-bit linear congruential generator with the output XSL-RR (https://www.pcg-random.org/paper.html); bounded integers
take 32 bits at a time, the low half of a word first, with Lemire's rejection (https://arxiv.org/abs/1805.10941).
128-bit numbers are two uint64.

minigrid leaves a failed attempt by raising. Compiled code cannot, so a generator that gives up halts its draws:
from then on `draw` takes nothing from the stream, and the rest of the attempt runs idle until `generate` sees it.
"""

import numpy as np

from babyai.compiled.jit import compiled

(STATE_HIGH, STATE_LOW, STEP_HIGH, STEP_LOW, HIGH_HALF, HAS_HALF, COUNT, LIMIT, HALT, POOL) = range(10)
NUM_DRAWS = POOL + 4
"""Length of the uint64 array that holds a stream: the generator's state and increment, the half word not used yet, how
many draws were made and are allowed, why it halted, scratch of the seeding."""

RUNNING, REJECTED, EXHAUSTED = range(3)
"""HALT: drawing; this attempt is given up (minigrid's RejectSampling or RecursionError); no draws are left."""

_RUNNING, _REJECTED, _EXHAUSTED = np.uint64(RUNNING), np.uint64(REJECTED), np.uint64(EXHAUSTED)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_LOW32, _TWO32 = np.uint64(0xFFFFFFFF), np.uint64(0x100000000)
_HALF, _WORD16, _TOP, _WORD = np.uint64(32), np.uint64(16), np.uint64(63), np.uint64(64)
_ROTATE, _MANTISSA = np.uint64(58), np.uint64(11)
_MULTIPLIER_HIGH, _MULTIPLIER_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
_INIT_A, _MULT_A = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)
_INIT_B, _MULT_B = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)
_MIX_LEFT, _MIX_RIGHT = np.uint64(0xCA01F9DD), np.uint64(0x4973F715)
_MAX_REJECTIONS = 128  # of Lemire's method in one draw; each has a chance below 1/2, in levels below 1e-7


@compiled
def start(draws, seed, limit):
    """Begin the stream of `seed`, an int in [0, 2**63), with no draws made and `limit` allowed."""
    seed = np.uint64(seed)
    _fill_pool(draws, seed)
    constant = _INIT_B
    for k in range(4):  # four 64-bit words: starting point high and low, sequence high and low
        word = _ZERO
        for half in range(2):
            value = draws[POOL + (2 * k + half) % 4] ^ constant
            constant = (constant * _MULT_B) & _LOW32
            value = (value * constant) & _LOW32
            value = value ^ (value >> _WORD16)
            word = word | (value << (_HALF if half == 1 else _ZERO))
        draws[STATE_HIGH + k] = word
    start_high, start_low = draws[STATE_HIGH], draws[STATE_LOW]
    draws[STEP_HIGH] = (draws[STEP_HIGH] << _ONE) | (draws[STEP_LOW] >> _TOP)
    draws[STEP_LOW] = (draws[STEP_LOW] << _ONE) | _ONE
    # From state 0 the first advance gives the increment; then the starting point is added
    low = draws[STEP_LOW] + start_low
    draws[STATE_HIGH] = draws[STEP_HIGH] + start_high + (_ONE if low < start_low else _ZERO)
    draws[STATE_LOW] = low
    _advance(draws)
    draws[HAS_HALF], draws[HIGH_HALF] = _ZERO, _ZERO
    draws[COUNT], draws[LIMIT], draws[HALT] = _ZERO, np.uint64(limit), _RUNNING


@compiled
def _fill_pool(draws, seed):
    constant = _INIT_A
    for k in range(4):  # the seed's 32-bit words, low first, then zeros
        value = ((seed & _LOW32) if k == 0 else (seed >> _HALF) if k == 1 else _ZERO) ^ constant
        constant = (constant * _MULT_A) & _LOW32
        value = (value * constant) & _LOW32
        draws[POOL + k] = value ^ (value >> _WORD16)
    for source in range(4):
        for target in range(4):
            if source != target:
                value = draws[POOL + source] ^ constant
                constant = (constant * _MULT_A) & _LOW32
                value = (value * constant) & _LOW32
                value = value ^ (value >> _WORD16)
                mixed = (_MIX_LEFT * draws[POOL + target] - _MIX_RIGHT * value) & _LOW32
                draws[POOL + target] = mixed ^ (mixed >> _WORD16)


@compiled
def _advance(draws):
    """Go to the next state: state * multiplier + increment, modulo 2**128."""
    high, low = draws[STATE_HIGH], draws[STATE_LOW]
    # The 128-bit product of the low words, by 32-bit halves
    a, b = low >> _HALF, low & _LOW32
    c, d = _MULTIPLIER_LOW >> _HALF, _MULTIPLIER_LOW & _LOW32
    bd = b * d
    middle = a * d + (bd >> _HALF)
    middle_low = (middle & _LOW32) + b * c
    carried = a * c + (middle >> _HALF) + (middle_low >> _HALF)
    new_high = carried + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH
    product_low = low * _MULTIPLIER_LOW
    new_low = product_low + draws[STEP_LOW]
    draws[STATE_HIGH] = new_high + draws[STEP_HIGH] + (_ONE if new_low < product_low else _ZERO)
    draws[STATE_LOW] = new_low


@compiled
def next64(draws):
    """Take the next 64 bits, uint64; not counted."""
    _advance(draws)
    high = draws[STATE_HIGH]
    word = high ^ draws[STATE_LOW]
    turn = high >> _ROTATE
    return (word >> turn) | (word << ((_WORD - turn) & _TOP))


@compiled
def _next32(draws):
    if draws[HAS_HALF] != _ZERO:
        draws[HAS_HALF] = _ZERO
        return draws[HIGH_HALF]
    word = next64(draws)
    draws[HIGH_HALF], draws[HAS_HALF] = word >> _HALF, _ONE
    return word & _LOW32


@compiled
def draw(draws, low, high):
    """Draw an int64 in [low, high), as `Generator.integers`, for spans below 2**32; `low` where the stream halted."""
    if draws[HALT] != _RUNNING:
        return np.int64(low)
    draws[COUNT] += _ONE
    if draws[COUNT] > draws[LIMIT]:
        draws[HALT] = _EXHAUSTED
        return np.int64(low)
    if high - low <= 1:  # numpy takes nothing from the stream either
        return np.int64(low)
    span = np.uint64(high - low)
    product = _next32(draws) * span
    if (product & _LOW32) < span:
        threshold = (_TWO32 - span) % span
        for _ in range(_MAX_REJECTIONS):
            if (product & _LOW32) >= threshold:
                break
            product = _next32(draws) * span
    return np.int64(low) + np.int64(product >> _HALF)


@compiled
def draw_fraction(draws):
    """Draw an int64 k in [0, 2**53); `Generator.uniform(0, 1)` is k / 2**53. No limit is checked, as in `levels`."""
    if draws[HALT] != _RUNNING:
        return np.int64(0)
    draws[COUNT] += _ONE
    return np.int64(next64(draws) >> _MANTISSA)


@compiled
def reject(draws):
    """Give this attempt up, unless the stream has halted already."""
    if draws[HALT] == _RUNNING:
        draws[HALT] = _REJECTED


@compiled
def halted(draws):
    """Whether this attempt is over."""
    return draws[HALT] != _RUNNING


@compiled
def try_again(draws):
    """Resume after a rejected attempt, which counts as a draw; False where no draws are left."""
    if draws[HALT] == _EXHAUSTED:
        return False
    draws[COUNT] += _ONE
    draws[HALT] = _RUNNING
    return draws[COUNT] <= draws[LIMIT]
