"""Products of matrices a tile at a time: the sums of a tile stay in registers while its rows and columns pass by.

A tile is one or four rows of the result by one, two or three vectors of eight numbers; twelve vectors, what they are
multiplied by and one more are the sixteen registers that AVX2 has (the idea: Goto and van de Geijn 2008, "Anatomy of
high-performance matrix multiplication", ACM TOMS 34:12). Numba has no vectors, so the loop is written in LLVM's
language; where a machine has shorter ones, LLVM splits them. Each number is summed in the order of the columns of `a`,
whatever the tile, so that a result does not depend on what is computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.typing import Signature
from numba.extending import intrinsic

from pipeline.engine.compiled.jit import compiled

LANES = 8
BYTES = 4  # of a number
_NUMBER, _INDEX = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_NUMBER, LANES)
_FUSED = {"flags": ["contract"]}


def _tile(rows: int, vectors: int) -> Callable[..., Any]:
    """Return a function of compiled code that adds to a tile of `rows` rows by `vectors` x LANES columns.

    It takes the addresses in memory of the tile's first row in `a`, its first column in `b` and its first number in
    `out`, each followed by the bytes from row to row, and the number of products in each sum.
    """

    def emit(context: BaseContext, builder: ir.IRBuilder, _: Signature, given: tuple[ir.Value, ...]) -> ir.Value:
        a, a_step, b, b_step, out, out_step, depth = given
        size = a.type

        def at(base: ir.Value, step: ir.Value, times: int, offset: int = 0) -> ir.Value:
            return builder.add(base, builder.add(builder.mul(step, size(times)), size(offset)))

        def load(address: ir.Value, kind: ir.Type) -> ir.Value:
            loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
            loaded.align = BYTES
            return loaded

        places = [at(out, out_step, row, BYTES * LANES * v) for row in range(rows) for v in range(vectors)]
        starts = [load(place, _VECTOR) for place in places]
        a_rows = [at(a, a_step, row) for row in range(rows)]
        before = builder.block
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)

        builder.position_at_end(head)
        begun = [size(0), size(0), b, *starts]
        now = [builder.phi(value.type) for value in begun]
        for variable, value in zip(now, begun, strict=True):
            variable.add_incoming(value, before)
        done, offset, b_row, *sums = now
        builder.cbranch(builder.icmp_signed("<", done, depth), body, end)

        builder.position_at_end(body)
        others = [load(builder.add(b_row, size(BYTES * LANES * v)), _VECTOR) for v in range(vectors)]
        added = []
        for row in range(rows):
            number = builder.insert_element(
                ir.Constant(_VECTOR, ir.Undefined), load(builder.add(a_rows[row], offset), _NUMBER), _INDEX(0)
            )
            same = builder.shuffle_vector(number, number, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))
            for v in range(vectors):
                product = builder.fmul(same, others[v], **_FUSED)
                added.append(builder.fadd(sums[row * vectors + v], product, **_FUSED))
        following = [builder.add(done, size(1)), builder.add(offset, size(BYTES)), builder.add(b_row, b_step), *added]
        for variable, value in zip(now, following, strict=True):
            variable.add_incoming(value, builder.block)
        builder.branch(head)

        builder.position_at_end(end)
        for place, value in zip(places, sums, strict=True):
            builder.store(value, builder.inttoptr(place, _VECTOR.as_pointer())).align = BYTES
        return context.get_dummy_value()

    def tile(typing_context, a, a_step, b, b_step, out, out_step, depth):
        return types.void(*[types.intp] * 7), emit

    return intrinsic(tile)


_four_by_three, _four_by_two, _four_by_one = _tile(4, 3), _tile(4, 2), _tile(4, 1)
_one_by_three, _one_by_two, _one_by_one = _tile(1, 3), _tile(1, 2), _tile(1, 1)


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
    a_step, b_step, out_step = a.strides[0], b.strides[0], out.strides[0]
    a_from = a.ctypes.data + BYTES * a_at
    b_from = b.ctypes.data + BYTES * b_at
    out_from = out.ctypes.data + BYTES * out_at
    column = 0
    while column + LANES <= width:
        vectors = min((width - column) // LANES, 3)
        b_now, out_now = b_from + BYTES * column, out_from + BYTES * column
        i = 0
        while i < rows:
            a_row, out_row = a_from + i * a_step, out_now + i * out_step
            four = i + 4 <= rows
            if four and vectors == 3:
                _four_by_three(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            elif four and vectors == 2:
                _four_by_two(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            elif four:
                _four_by_one(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            elif vectors == 3:
                _one_by_three(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            elif vectors == 2:
                _one_by_two(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            else:
                _one_by_one(a_row, a_step, b_now, b_step, out_row, out_step, depth)
            i += 4 if four else 1
        column += vectors * LANES
    for i in range(rows):
        for j in range(column, width):
            total = out[i, out_at + j]
            for k in range(depth):
                total += a[i, a_at + k] * b[k, b_at + j]
            out[i, out_at + j] = total
