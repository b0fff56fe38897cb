"""Compiled parts of the policy's step and of its gradient, on numpy arrays of float32.

At the sizes of training (16 environments, layers of about 100 units) a tensor operation takes less time than calling
it. Here a step of all layers is one call, and so is the backward pass through an unroll. Each row is computed by itself
in a fixed order: its result depends neither on the rows beside it nor on the number of threads.

sigmoid and tanh are within 2e-7 of the exact value. Products go four rows and four columns of `a` at a time. Tiles kept
in registers, written in LLVM's language, gave the same bits and made training 5 % faster: too little to be worth them.
"""

from __future__ import annotations

import numpy as np

from babyai.facts import NUM_DIRECTIONS
from pipeline.engine.compiled.jit import compiled, compiled_sum

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
        a: (rows, at least a_at + depth).
        a_at: Its first column.
        depth: Its columns, the rows of b.
        b: (depth, at least b_at + width).
        b_at: Its first column.
        width: Its columns.
        out: (rows, at least out_at + width).
        out_at: Its first column.
    """
    rows = len(a)
    unread = np.empty((3, width), np.float32)  # where rows go that fill up the last group of four
    for i in range(0, rows, 4):
        row0, out0 = a[i], out[i][out_at : out_at + width]
        row1, out1 = row0, unread[0]
        row2, out2 = row0, unread[1]
        row3, out3 = row0, unread[2]
        if i + 1 < rows:
            row1, out1 = a[i + 1], out[i + 1][out_at : out_at + width]
        if i + 2 < rows:
            row2, out2 = a[i + 2], out[i + 2][out_at : out_at + width]
        if i + 3 < rows:
            row3, out3 = a[i + 3], out[i + 3][out_at : out_at + width]
        p = 0
        while p + 3 < depth:
            k = a_at + p
            w0, w1, w2, w3 = row0[k], row0[k + 1], row0[k + 2], row0[k + 3]
            x0, x1, x2, x3 = row1[k], row1[k + 1], row1[k + 2], row1[k + 3]
            y0, y1, y2, y3 = row2[k], row2[k + 1], row2[k + 2], row2[k + 3]
            z0, z1, z2, z3 = row3[k], row3[k + 1], row3[k + 2], row3[k + 3]
            b0, b1 = b[p][b_at : b_at + width], b[p + 1][b_at : b_at + width]
            b2, b3 = b[p + 2][b_at : b_at + width], b[p + 3][b_at : b_at + width]
            for j in range(width):
                c0, c1, c2, c3 = b0[j], b1[j], b2[j], b3[j]
                out0[j] = out0[j] + w0 * c0 + w1 * c1 + w2 * c2 + w3 * c3
                out1[j] = out1[j] + x0 * c0 + x1 * c1 + x2 * c2 + x3 * c3
                out2[j] = out2[j] + y0 * c0 + y1 * c1 + y2 * c2 + y3 * c3
                out3[j] = out3[j] + z0 * c0 + z1 * c1 + z2 * c2 + z3 * c3
            p += 4
        while p < depth:
            k = a_at + p
            w0, x0, y0, z0 = row0[k], row1[k], row2[k], row3[k]
            b0 = b[p][b_at : b_at + width]
            for j in range(width):
                out0[j] += w0 * b0[j]
                out1[j] += x0 * b0[j]
                out2[j] += y0 * b0[j]
                out3[j] += z0 * b0[j]
            p += 1


@compiled_sum
def multiply_add_rows(
    a: np.ndarray, a_at: int, depth: int, b: np.ndarray, width: int, out: np.ndarray, out_at: int
) -> None:
    """Add a product with a transposed matrix: out[:, out_at :][:, :width] += a[:, a_at :][:, :depth] @ b.T.

    Each number is a sum along a row of b: quicker than `multiply_add` where rows are long and few.

    Args:
        a: (rows, at least a_at + depth).
        a_at: Its first column.
        depth: Its columns, and those of b.
        b: (width, depth).
        width: Rows of b.
        out: (rows, at least out_at + width).
        out_at: Its first column.
    """
    rows = len(a)
    for i in range(0, rows, 4):
        left = rows - i
        # Rows that fill up the last group of four are computed and left.
        row0 = a[i][a_at : a_at + depth]
        row1 = a[i + 1][a_at : a_at + depth] if left > 1 else row0
        row2 = a[i + 2][a_at : a_at + depth] if left > 2 else row0
        row3 = a[i + 3][a_at : a_at + depth] if left > 3 else row0
        d = 0
        while d < width:
            b0, b1, b2 = b[d], b[min(d + 1, width - 1)], b[min(d + 2, width - 1)]
            w0 = w1 = w2 = x0 = x1 = x2 = y0 = y1 = y2 = z0 = z1 = z2 = ZERO
            for j in range(depth):
                c0, c1, c2 = b0[j], b1[j], b2[j]
                w0 += row0[j] * c0
                w1 += row0[j] * c1
                w2 += row0[j] * c2
                x0 += row1[j] * c0
                x1 += row1[j] * c1
                x2 += row1[j] * c2
                y0 += row2[j] * c0
                y1 += row2[j] * c1
                y2 += row2[j] * c2
                z0 += row3[j] * c0
                z1 += row3[j] * c1
                z2 += row3[j] * c2
            few = min(3, width - d)
            _add_few(out[i], out_at + d, few, w0, w1, w2)
            if left > 1:
                _add_few(out[i + 1], out_at + d, few, x0, x1, x2)
            if left > 2:
                _add_few(out[i + 2], out_at + d, few, y0, y1, y2)
            if left > 3:
                _add_few(out[i + 3], out_at + d, few, z0, z1, z2)
            d += 3


@compiled
def _add_few(out: np.ndarray, at: int, few: int, first: float, second: float, third: float) -> None:
    out[at] += first
    if few > 1:
        out[at + 1] += second
    if few > 2:
        out[at + 2] += third


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
def write_observations(view: np.ndarray, direction: np.ndarray, carrying: np.ndarray, out: np.ndarray) -> None:
    """Write what `babyai.observations.encode_observations` returns to the first columns of out (N, 152 or more)."""
    for i in range(len(view)):
        row, at = out[i], 0
        for channel in range(view.shape[3]):
            for x in range(view.shape[1]):
                for y in range(view.shape[2]):
                    row[at] = view[i, x, y, channel]
                    at += 1
        for turn in range(NUM_DIRECTIONS):
            row[at + turn] = ONE if direction[i] == turn else ZERO
        row[at + NUM_DIRECTIONS] = ONE if carrying[i] else ZERO
