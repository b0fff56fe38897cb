"""Compiled parts of the policy's step and of its gradient, on numpy arrays of float32.

At the sizes of training (16 environments, layers of about 100 units) a tensor operation takes less time than calling
it. Here a step of all layers is one call, and so is the backward pass through an unroll. Each row is computed by itself
in a fixed order: its result depends neither on the rows beside it nor on the number of threads.

sigmoid and tanh are within 2e-7 of the exact value. Products are made of tiles (`pipeline/engine/compiled/tiles.py`).
"""

from __future__ import annotations

import numpy as np

from babyai.facts import NUM_DIRECTIONS
from pipeline.engine.compiled.jit import compiled, compiled_sum
from pipeline.engine.compiled.tiles import LANES, ROWS, add_tile

ONE, TWO, ZERO = np.float32(1), np.float32(2), np.float32(0)
_LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first with so few digits that its multiples by small integers are exact
_LN2_HIGH, _LN2_LOW = np.float32(0.693145751953125), np.float32(1.42860677e-06)
_ROUND = np.float32(1.5 * 2**23)  # adding it rounds to an integer, which the lowest bits then hold
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720, 5040))


@compiled
def exp(x: float) -> float:
    """Return e^x, for x in -87 to 87 and at these limits beyond: x = n ln 2 + r, Taylor's series of e^r."""
    x = min(max(x, np.float32(-87)), np.float32(87))
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    series = ONE + r * (ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    power = np.int32((np.int32(np.float32(shifted).view(np.int32)) + np.int32(127)) << np.int32(23))
    return series * power.view(np.float32)


@compiled
def sigmoid(x: float) -> float:
    """Return 1 / (1 + e^-x)."""
    return ONE / (ONE + exp(-x))


@compiled
def tanh(x: float) -> float:
    """Return the hyperbolic tangent."""
    return ONE - TWO / (ONE + exp(TWO * x))


@compiled_sum
def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of products of two vectors of one length."""
    total = ZERO
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@compiled_sum
def total(a: np.ndarray) -> float:
    """Return the sum of a vector."""
    result = ZERO
    for j in range(len(a)):
        result += a[j]
    return result


@compiled
def fill(out: np.ndarray, value: float) -> None:
    """Set all numbers of a vector. Assigning to a slice would do so too, and take seconds to compile."""
    for j in range(len(out)):
        out[j] = value


@compiled
def copy(out: np.ndarray, a: np.ndarray) -> None:
    """Set a vector to another."""
    for j in range(len(out)):
        out[j] = a[j]


@compiled
def add_to(out: np.ndarray, a: np.ndarray) -> None:
    """Add a vector to another."""
    for j in range(len(out)):
        out[j] += a[j]


@compiled
def add_scaled(out: np.ndarray, scale: float, a: np.ndarray) -> None:
    """Add a multiple of a vector to another."""
    for j in range(len(out)):
        out[j] += scale * a[j]


@compiled
def as_matrix(row: np.ndarray, at: int, rows: int, columns: int) -> np.ndarray:
    """Return the numbers from `at` on as a matrix."""
    return row[at : at + rows * columns].reshape(rows, columns)


@compiled
def multiply_add(
    a: np.ndarray, a_at: int, depth: int, b: np.ndarray, b_at: int, width: int, out: np.ndarray, out_at: int
) -> None:
    """Add a product of matrices: out[:, out_at :][:, :width] += a[:, a_at :][:, :depth] @ b[:, b_at :][:, :width].

    Args:
        a: (rows, at least a_at + depth), as it is in memory or transposed.
        a_at: Its first column.
        depth: Its columns, the rows of b.
        b: (depth, at least b_at + width), row by row in memory, as is `out`.
        b_at: Its first column.
        width: Its columns.
        out: (rows, at least out_at + width).
        out_at: Its first column.
    """
    rows, column = len(a), 0
    while column < width:
        rest = width - column
        vectors = rest // LANES
        vectors = 2 if vectors == 4 else min(vectors, 3)
        row = 0
        while row < rows:
            height = ROWS if row + ROWS <= rows else 4 if row + 4 <= rows else 1
            add_tile(height, vectors, rest, a, row, a_at, depth, b, b_at + column, out, out_at + column)
            row += height
        column += max(vectors, 1) * LANES


@compiled
def find_rows(seen: np.ndarray, codes: np.ndarray, rows: np.ndarray) -> int:
    """Write to `rows` which rows of a matrix the codes of an observation stand for; return how many.

    A code that is no value of its vocabulary stands for none.

    Args:
        seen: The observation, codes first.
        codes: (C, 2) the row of each code's value 0, and how many values it has.
        rows: At least C places, int64.
    """
    found = 0
    for c in range(len(codes)):
        value = seen[c]
        if value >= ZERO and value < codes[c, 1]:  # never true of NaN
            code = int(value)
            if value == code:
                rows[found] = codes[c, 0] + code
                found += 1
    return found


@compiled
def add_rows(out: np.ndarray, matrix: np.ndarray, rows: np.ndarray) -> None:
    """Add rows of a matrix to a vector, four at a time: `out` is then read and written a quarter as often."""
    width, p = len(out), 0
    while p + 3 < len(rows):
        a, b = matrix[rows[p]], matrix[rows[p + 1]]
        c, d = matrix[rows[p + 2]], matrix[rows[p + 3]]
        for j in range(width):
            out[j] = out[j] + a[j] + b[j] + c[j] + d[j]
        p += 4
    while p < len(rows):
        add_to(out, matrix[rows[p]])
        p += 1


@compiled
def gather(rows: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """Write rows[:, index] to out, (R, Q) from (R, P) and (Q,)."""
    for r in range(len(rows)):
        row, to = rows[r], out[r]
        for j in range(len(index)):
            to[j] = row[index[j]]


@compiled
def project(sentence: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Write weight @ sentence + bias to the first numbers of a vector, weight (outputs, inputs)."""
    for j in range(len(bias)):
        out[j] = bias[j] + dot(weight[j], sentence)


@compiled
def project_rows(sentences: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Write `project` of each row of a matrix to the rows of another."""
    for i in range(len(sentences)):
        project(sentences[i], weight, bias, out[i])


@compiled
def write_observations(view: np.ndarray, direction: np.ndarray, carrying: np.ndarray, out: np.ndarray) -> None:
    """Write what `babyai.observations.encode_observations` returns to the first columns of out (N, 152 or more)."""
    for i in range(len(view)):
        write_observation(view[i], direction[i], carrying[i], out[i])


@compiled
def write_observation(view: np.ndarray, direction: int, carrying: bool, out: np.ndarray) -> None:
    """Write one observation to the first numbers of a vector."""
    at = 0
    for channel in range(view.shape[2]):
        for x in range(view.shape[0]):
            for y in range(view.shape[1]):
                out[at] = view[x, y, channel]
                at += 1
    for turn in range(NUM_DIRECTIONS):
        out[at + turn] = ONE if direction == turn else ZERO
    out[at + NUM_DIRECTIONS] = ONE if carrying else ZERO
