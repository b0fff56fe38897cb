"""A block of a matrix product in registers, written in LLVM's language: what `multiply_add` is made of.

A tile is a block of some rows and vectors of the result. It is read, every term of the product is added to it, and it
is written: what the compiler makes of loops reads and writes it after every fourth term, at a third of the speed. Terms
are added one by one in their order, by fused multiply-adds where the processor has them, so that a number depends
neither on the size of tiles nor on which of them it is in.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.core.cgutils import unpack_tuple
from numba.core.errors import TypingError
from numba.extending import intrinsic

FLOAT, WORD, INDEX, BIT = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(1)
FLOAT_BYTES = 4


def _has(feature: str) -> bool:
    features = config.CPU_FEATURES
    return bool(binding.get_host_cpu_features().get(feature)) if features is None else f"+{feature}" in features


LANES = 16 if _has("avx512f") else 8 if _has("avx") else 4
"""Numbers of a vector."""

ROWS = 8 if _has("avx512f") or platform.machine() in ("aarch64", "arm64") else 4
"""Rows of the largest tile. With three vectors each it fills the processor's registers, 32 or 16."""

HEIGHTS = tuple(sorted({ROWS, 4, 1}))
WIDTHS = 0, 1, 2, 3
"""Rows and vectors that a tile may have; a tile of 0 vectors has a part of one."""


@intrinsic
def add_tile(
    typing: Any,
    rows: Any,
    vectors: Any,
    rest: Any,
    a: Any,
    a_row: Any,
    a_at: Any,
    depth: Any,
    b: Any,
    b_at: Any,
    out: Any,
    out_at: Any,
) -> Any:
    """Add a block of a product: out[a_row :, out_at :] += a[a_row :, a_at :][:, :depth] @ b[:, b_at :].

    Args:
        typing: Of numba.
        rows: Of the block, one of `HEIGHTS`.
        vectors: Of each of its rows, one of `WIDTHS`.
        rest: Numbers of each of its rows where it has no whole vector.
        a: Matrix, which may be a transposed one.
        a_row: First row, of `out` too.
        a_at: First column.
        depth: Columns, rows of b.
        b: Matrix.
        b_at: First column.
        out: Matrix.
        out_at: First column.
    """
    matrices = a, b, out
    if any(not isinstance(m, types.Array) or m.ndim != 2 or m.dtype != types.float32 for m in matrices):
        raise TypingError("expected three matrices of float32")
    if b.layout != "C" or out.layout != "C":
        raise TypingError("expected the product and its second factor row by row in memory")
    numbers = [types.int64] * 3, [types.int64] * 3, [types.int64], [types.int64]
    signature = types.void(*numbers[0], a, *numbers[1], b, *numbers[2], out, *numbers[3])

    def generate(context: Any, builder: ir.IRBuilder, _: Any, given: Any) -> Any:
        rows, vectors, rest, a, a_row, a_at, depth, b, b_at, out, out_at = given
        found = [
            context.make_array(kind)(context, builder, value) for kind, value in zip(matrices, (a, b, out), strict=True)
        ]
        first, second, third = (builder.ptrtoint(array.data, WORD) for array in found)
        (a_stride, a_step), (b_stride, _), (out_stride, _) = (unpack_tuple(builder, m.strides, 2) for m in found)
        first = builder.add(first, builder.add(builder.mul(a_row, a_stride), builder.mul(a_at, a_step)))
        second = builder.add(second, builder.mul(b_at, WORD(FLOAT_BYTES)))
        third = builder.add(third, builder.mul(a_row, out_stride))
        third = builder.add(third, builder.mul(out_at, WORD(FLOAT_BYTES)))
        numbers = first, a_stride, a_step, depth, second, b_stride, third, out_stride, rest
        done = builder.append_basic_block("tile.done")
        which = builder.add(builder.mul(rows, WORD(len(WIDTHS))), vectors)
        choice = builder.switch(which, done)
        for height in HEIGHTS:
            for width in WIDTHS:
                block = builder.append_basic_block(f"tile.{height}.{width}")
                choice.add_case(WORD(height * len(WIDTHS) + width), block)
                with builder.goto_block(block):
                    builder.call(_define(builder.module, height, width), numbers)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


def _define(module: ir.Module, rows: int, vectors: int) -> ir.Function:
    """Return a function of a module that adds a tile of so many rows and vectors; 0 vectors: a part of one."""
    name = f"tile.{rows}.{vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * 9), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, a_stride, a_step, depth, b, b_stride, out, out_stride, rest = function.args
    start, loop, end = (function.append_basic_block(name) for name in ("start", "loop", "end"))
    columns = range(max(vectors, 1))

    builder = ir.IRBuilder(start)
    memory = _Memory(module, None if vectors else _mask(builder, rest))
    places = [
        [
            builder.add(out, builder.add(builder.mul(out_stride, WORD(r)), WORD(v * LANES * FLOAT_BYTES)))
            for v in columns
        ]
        for r in range(rows)
    ]
    before = [[memory.load(builder, place) for place in row] for row in places]
    beside = [builder.mul(a_stride, WORD(r)) for r in range(rows)]
    builder.cbranch(builder.icmp_signed(">", depth, WORD(0)), loop, end)

    builder = ir.IRBuilder(loop)
    at, a_here, b_here = (_carry(builder, WORD, number, start) for number in (WORD(0), a, b))
    tile = [[_carry(builder, memory.vector, number, start) for number in row] for row in before]
    factors = [memory.load(builder, builder.add(b_here, WORD(v * LANES * FLOAT_BYTES))) for v in columns]
    after = []
    for r in range(rows):
        factor = builder.load(builder.inttoptr(builder.add(a_here, beside[r]), FLOAT.as_pointer()), align=FLOAT_BYTES)
        spread = _spread(builder, factor)
        after.append([builder.call(memory.multiply_add, [spread, factors[v], tile[r][v]]) for v in columns])
    steps = [(at, WORD(1)), (a_here, a_step), (b_here, b_stride)]
    following = [builder.add(place, step) for place, step in steps]
    for place, number in zip((at, a_here, b_here), following, strict=True):
        place.add_incoming(number, loop)
    for r in range(rows):
        for v in columns:
            tile[r][v].add_incoming(after[r][v], loop)
    builder.cbranch(builder.icmp_signed("<", following[0], depth), loop, end)

    builder = ir.IRBuilder(end)
    results = [[_carry(builder, memory.vector, before[r][v], start) for v in columns] for r in range(rows)]
    for r in range(rows):
        for v in columns:
            results[r][v].add_incoming(after[r][v], loop)
            memory.store(builder, results[r][v], places[r][v])
    builder.ret_void()
    return function


class _Memory:
    """Vectors read and written, whole or in part, and multiplied.

    Attributes:
        vector: Their type.
        multiply_add: The function x, y, z -> x * y + z.
    """

    def __init__(self, module: ir.Module, mask: ir.Value | None) -> None:
        self.vector = vector = ir.VectorType(FLOAT, LANES)
        self.multiply_add = _declare(module, f"llvm.fmuladd.v{LANES}f32", vector, [vector] * 3)
        self._mask, masked = mask, ir.VectorType(BIT, LANES)
        place = vector.as_pointer()
        if mask is not None:
            self._load = _declare(module, f"llvm.masked.load.v{LANES}f32.p0", vector, [place, INDEX, masked, vector])
            self._store = _declare(
                module, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), [vector, place, INDEX, masked]
            )

    def load(self, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        """Return the vector at an address, zero where it is not to be read."""
        place = builder.inttoptr(address, self.vector.as_pointer())
        if self._mask is None:
            return builder.load(place, align=FLOAT_BYTES)
        return builder.call(self._load, [place, INDEX(FLOAT_BYTES), self._mask, self.vector([0.0] * LANES)])

    def store(self, builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
        """Write a vector to an address, or what of it is to be written."""
        place = builder.inttoptr(address, self.vector.as_pointer())
        if self._mask is None:
            builder.store(value, place, align=FLOAT_BYTES)
        else:
            builder.call(self._store, [value, place, INDEX(FLOAT_BYTES), self._mask])


def _declare(module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def _carry(builder: ir.IRBuilder, kind: ir.Type, number: ir.Value, start: ir.Block) -> ir.PhiInstr:
    """Return what is `number` when `start` was before; what it is otherwise must be added."""
    carried = builder.phi(kind)
    carried.add_incoming(number, start)
    return carried


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Return a vector of one number."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    single = builder.insert_element(nothing, value, INDEX(0))
    return builder.shuffle_vector(single, nothing, ir.VectorType(INDEX, LANES)([0] * LANES))


def _mask(builder: ir.IRBuilder, few: ir.Value) -> ir.Value:
    """Return which of a vector's numbers are the first few."""
    return builder.icmp_signed("<", ir.VectorType(WORD, LANES)(list(range(LANES))), _spread(builder, few))
