"""Products of small matrices inside compiled loops: register-tiled, one thread, no BLAS.

BLAS libraries choose their own threads and cost more than the work where a network is 160 wide and a batch a few
replicas. Matrices are packed once into panels of `TILE` rows; a panel meets `lanes` replicas at a time, with all
partial sums in vector registers. Written as LLVM vectors, which the compiler maps to the machine at hand.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))

TILE = 8 if _WIDE else 4
"""Rows of a packed panel: with `lanes` it sets how many registers hold partial sums."""

_VECTORS = 2 if _WIDE else 1
_BYTES = 64


def lanes(dtype: Any) -> int:
    """Replicas that are worked on together, for a floating-point type."""
    return _VECTORS * _BYTES // np.dtype(dtype).itemsize


def pack(matrix: np.ndarray, dtype: Any) -> np.ndarray:
    """A matrix as panels of `TILE` rows, for `multiply` and `multiply_one`.

    Parameters
    ----------
    matrix : ndarray, shape (m, k)
    dtype : dtype

    Returns
    -------
    ndarray, shape (ceil(m / TILE), k, TILE)
        Rows beyond m are zero.
    """
    m, k = matrix.shape
    n = -(-m // TILE)
    whole = np.zeros((n * TILE, k), dtype)
    whole[:m] = matrix
    return np.ascontiguousarray(whole.reshape(n, TILE, k).transpose(0, 2, 1))


def _pointer(context: Any, builder: Any, kind: Any, value: Any, offset: Any) -> Any:
    data = context.make_array(kind)(context, builder, value).data
    return builder.gep(data, [offset])


def _element(kind: Any) -> Any:
    return ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()


def _load(builder: Any, pointer: Any, vector: Any, item: int) -> Any:
    loaded = builder.load(builder.bitcast(pointer, ir.PointerType(vector)))
    loaded.align = item
    return loaded


def _spread(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, cgutils.int32_t(0))
    return builder.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(cgutils.int32_t, vector.count), None)
    )


def _loop(builder: Any, count: Any, start: list[Any], body: Any) -> list[Any]:
    """A counted loop (at least once) whose running values stay in registers."""
    before = builder.block
    block, after = builder.append_basic_block("sum"), builder.append_basic_block("summed")
    builder.branch(block)
    builder.position_at_end(block)
    index = builder.phi(count.type)
    sums = [builder.phi(value.type) for value in start]
    new = body(index, sums)
    following = builder.add(index, count.type(1))
    index.add_incoming(count.type(0), before)
    index.add_incoming(following, builder.block)
    for phi, first, value in zip(sums, start, new):
        phi.add_incoming(first, before)
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), block, after)
    builder.position_at_end(after)
    return new


_FUSE = ("contract",)


@intrinsic
def _panel(typingctx: Any, a: Any, a_offset: Any, x: Any, count: Any, c: Any, c_offset: Any) -> Any:
    """c[j, :] += Σ_k a[k, j] x[k, :] for the rows j of one panel and all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        element = _element(kinds[2])
        item = 4 if isinstance(element, ir.FloatType) else 8
        vector = ir.VectorType(element, _BYTES // item)
        zero = cgutils.intp_t(0)
        pa = _pointer(context, builder, kinds[0], args[0], args[1])
        px = _pointer(context, builder, kinds[2], args[2], zero)
        pc = _pointer(context, builder, kinds[4], args[4], args[5])
        width = _VECTORS * vector.count

        def place(j: int, v: int) -> Any:
            return builder.gep(pc, [cgutils.intp_t(j * width + v * vector.count)])

        tile = [(j, v) for j in range(TILE) for v in range(_VECTORS)]
        start = [_load(builder, place(j, v), vector, item) for j, v in tile]

        def body(k: Any, sums: list[Any]) -> list[Any]:
            row = builder.gep(px, [builder.mul(k, cgutils.intp_t(width))])
            values = [
                _load(builder, builder.gep(row, [cgutils.intp_t(v * vector.count)]), vector, item)
                for v in range(_VECTORS)
            ]
            column = builder.gep(pa, [builder.mul(k, cgutils.intp_t(TILE))])
            new = []
            for j in range(TILE):
                number = builder.load(builder.gep(column, [cgutils.intp_t(j)]))
                if number.type != element:
                    number = builder.fpext(number, element)
                weight = _spread(builder, number, vector)
                for v in range(_VECTORS):
                    product = builder.fmul(weight, values[v], flags=_FUSE)
                    new.append(builder.fadd(sums[j * _VECTORS + v], product, flags=_FUSE))
            return new

        for (j, v), value in zip(tile, _loop(builder, args[3], start, body)):
            stored = builder.store(value, builder.bitcast(place(j, v), ir.PointerType(vector)))
            stored.align = item
        return context.get_dummy_value()

    return types.void(a, types.intp, x, types.intp, c, types.intp), codegen


def _column_kernel(panels: int) -> Any:
    """Several panels times one vector: the partial sums of the panels hide each other's latency."""

    @intrinsic
    def kernel(typingctx: Any, a: Any, a_offset: Any, x: Any, count: Any, c: Any, c_offset: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            stored_as, element = _element(kinds[0]), _element(kinds[2])
            packed, vector = ir.VectorType(stored_as, TILE), ir.VectorType(element, TILE)
            item = 8 if isinstance(element, ir.DoubleType) else 4
            a_item = 8 if isinstance(stored_as, ir.DoubleType) else 4
            pa = _pointer(context, builder, kinds[0], args[0], args[1])
            px = _pointer(context, builder, kinds[2], args[2], cgutils.intp_t(0))
            pc = _pointer(context, builder, kinds[4], args[4], args[5])
            stride = builder.mul(args[3], cgutils.intp_t(TILE))
            starts = [builder.gep(pa, [builder.mul(stride, cgutils.intp_t(p))]) for p in range(panels)]
            places = [builder.gep(pc, [cgutils.intp_t(p * TILE)]) for p in range(panels)]

            def body(k: Any, sums: list[Any]) -> list[Any]:
                value = _spread(builder, builder.load(builder.gep(px, [k])), vector)
                shift = builder.mul(k, cgutils.intp_t(TILE))
                new = []
                for p in range(panels):
                    weight = _load(builder, builder.gep(starts[p], [shift]), packed, a_item)
                    if stored_as != element:
                        weight = builder.fpext(weight, vector)
                    product = builder.fmul(weight, value, flags=_FUSE)
                    new.append(builder.fadd(sums[p], product, flags=_FUSE))
                return new

            sums = _loop(builder, args[3], [_load(builder, place, vector, item) for place in places], body)
            for place, value in zip(places, sums):
                stored = builder.store(value, builder.bitcast(place, ir.PointerType(vector)))
                stored.align = item
            return context.get_dummy_value()

        return types.void(a, types.intp, x, types.intp, c, types.intp), codegen

    return kernel


_GROUP = 10 if _WIDE else 8
_columns_many = _column_kernel(_GROUP)
_columns_one = _column_kernel(1)


@nb.njit(error_model="numpy")
def multiply(packed, first, last, x, c):
    """Panels first ... last - 1 of c += A x for `lanes` replicas; flat arrays: x of (k, lanes), c of (m, lanes)."""
    _, count, tile = packed.shape
    a, step = packed.reshape(-1), tile * (len(x) // count)
    for p in range(first, last):
        _panel(a, p * count * tile, x, count, c, p * step)


@nb.njit(error_model="numpy")
def multiply_one(packed, x, c):
    """c += A x for a single vector; A may be stored in single precision beneath double vectors."""
    panels, count, tile = packed.shape
    a = packed.reshape(-1)
    p = 0
    while p + _GROUP <= panels:
        _columns_many(a, p * count * tile, x, count, c, p * tile)
        p += _GROUP
    while p < panels:
        _columns_one(a, p * count * tile, x, count, c, p * tile)
        p += 1
