"""Compiled loops behind `small`: one matrix to a SIMD lane, or one matrix at a time, always with its own arithmetic.

A value of type `Lanes` is one 64-byte vector register: 8 float64 or 16 float32 numbers. The lane kernels hold one
matrix in each lane (lane index innermost), and no operation moves a number from one lane to another, so a matrix
gets the same bits whatever its neighbours are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, overload, register_model

REGISTER_BYTES = 64
_MAX_NEWTON = 20
_MAX_POLISH = 4
_MAX_SWEEPS = 60
# Backward error, in eps of the norm, above which a member leaves the fast route (the contract allows 60).
_SKEW_LIMIT = 20.0
# A diagonal entry this large against its column is pivot enough.
_THRESHOLD = 0.25
# Shorter vectors have no direction to full precision: their squares near the end of the exponent range.
_TINY = 1e-140
# Cosine, to be multiplied by sqrt(n), of two vectors that are orthogonal to float64 rounding.
_ANGLE = 2e-16


class Lanes(types.Type):
    """One vector register of a floating dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.count = REGISTER_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")


class Mask(types.Type):
    """One truth value to a lane."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Mask({count})")


def _register(dtype: Any) -> ir.VectorType:
    scalar = ir.DoubleType() if dtype.bitwidth == 64 else ir.FloatType()
    return ir.VectorType(scalar, REGISTER_BYTES * 8 // dtype.bitwidth)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _register(lanes.dtype))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.count))


def _address(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    registers = builder.bitcast(data, _register(array_type.dtype).as_pointer())
    return builder.gep(registers, [place], inbounds=True)


@intrinsic
def _count(typing: Any, array: Any) -> Any:
    """Numbers of the dtype of ``array`` in a register, a constant to the compiler."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, _register(array.dtype).count)

    return types.intp(array), generate


@intrinsic
def _load(typing: Any, array: Any, place: Any) -> Any:
    """Register number ``place`` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def _store(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Write register number ``place`` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def _splat(typing: Any, array: Any, value: Any) -> Any:
    """The same number in every lane, in the dtype of ``array``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _register(array.dtype)
        first = builder.insert_element(
            ir.Constant(vector, ir.Undefined), args[1], ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    return Lanes(array.dtype)(array, array.dtype), generate


def _lanewise(emit: Callable[[Any, Any], Any]) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        return a(a, b), lambda context, builder, signature, args: emit(builder, args)

    return function


def _compared(symbol: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fcmp_ordered(symbol, *args)

        return Mask(a.count)(a, b), generate

    return function


def _call(name: str) -> Any:
    """Code of LLVM's function ``name`` on registers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        bits = REGISTER_BYTES * 8 // vector.count
        kind = ir.FunctionType(vector, [vector] * len(args))
        full_name = f"llvm.{name}.v{vector.count}f{bits}"
        return builder.call(get_or_insert_function(builder.module, kind, full_name), args)

    return generate


def _named(name: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any) -> Any:
        return a(a), _call(name)

    return function


_add = _lanewise(lambda builder, args: builder.fadd(*args))
_subtract = _lanewise(lambda builder, args: builder.fsub(*args))
_multiply = _lanewise(lambda builder, args: builder.fmul(*args))
_divide = _lanewise(lambda builder, args: builder.fdiv(*args))
_both = _lanewise(lambda builder, args: builder.and_(*args))
_greater = _compared(">")
_at_most = _compared("<=")
_equal = _compared("==")
_absolute = _named("fabs")
_root = _named("sqrt")


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, fused where the processor can; alike in every lane."""
    return a(a, b, c), _call("fmuladd")


@intrinsic
def _where(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """``a`` in the lanes of ``mask``, ``b`` elsewhere."""
    return a(mask, a, b), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def _any(typing: Any, mask: Any) -> Any:
    """Whether one lane is true."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), generate


def _spell(symbol: Any, function: Any, kind: type[types.Type] = Lanes) -> None:
    def apply(a: Any, b: Any) -> Any:
        return function(a, b)

    @overload(symbol)
    def choose(a: Any, b: Any) -> Any:
        return apply if isinstance(a, kind) and isinstance(b, kind) else None


_spell(operator.add, _add)
_spell(operator.sub, _subtract)
_spell(operator.mul, _multiply)
_spell(operator.truediv, _divide)
_spell(operator.gt, _greater)
_spell(operator.le, _at_most)
_spell(operator.eq, _equal)
_spell(operator.and_, _both, Mask)


@njit(cache=True, error_model="numpy")
def _stride(n: int) -> int:
    """Registers from one row to the next: odd, so that a column does not crowd into a few sets of the cache."""
    return n | 1


@njit(cache=True, error_model="numpy")
def _pivot_row(column: np.ndarray, first: int, by: int, k: int, n: int) -> Any:
    """Pivot row among ``k`` to ``n - 1`` in each lane: ``k``, unless an entry below it is much larger.

    Entry ``i`` of the column is register ``first + i by``.
    """
    head = _absolute(_load(column, first + k * by))
    best = head
    here = _splat(column, k)
    row = here
    for i in range(k + 1, n):
        entry = _absolute(_load(column, first + i * by))
        larger = entry > best
        best = _where(larger, entry, best)
        row = _where(larger, _splat(column, i), row)
    return _where(_splat(column, _THRESHOLD) * best <= head, here, row)


@njit(cache=True, error_model="numpy")
def _swap_rows(y: np.ndarray, row: Any, k: int, n: int, columns: int, ld: int) -> None:
    """Exchange row ``k`` with row ``row`` >= k, lane by lane."""
    for j in range(columns):
        old = _load(y, k * ld + j)
        new = old
        for i in range(k + 1, n):
            hit = row == _splat(y, i)
            entry = _load(y, i * ld + j)
            new = _where(hit, entry, new)
            _store(y, i * ld + j, _where(hit, old, entry))
        _store(y, k * ld + j, new)


@njit(cache=True, error_model="numpy")
def _first_pivot(
    y: np.ndarray, side: np.ndarray, rows: np.ndarray, k: int, n: int, pair: bool
) -> None:
    """Scaled pivot row ``k`` to ``rows``, its factors to column 1 of ``side``.

    Column 2 gets the factors of the next column, as they are once this step is done.
    """
    ld = _stride(n)
    zero, one = _splat(y, 0), _splat(y, 1)
    inverse = one / _load(y, k * ld + k)
    for j in range(n):
        _store(rows, j, _load(y, k * ld + j) * inverse)
    _store(rows, k, inverse)
    for i in range(n):
        _store(side, 3 * i + 1, zero - _load(y, i * ld + k))
        _store(side, 3 * i + 2, zero)
        _store(y, i * ld + k, zero)
    _store(side, 3 * k + 1, one)
    if pair:
        across = _load(rows, k + 1)
        for i in range(n):
            entry = _fma(_load(side, 3 * i + 1), across, _load(y, i * ld + k + 1))
            _store(side, 3 * i + 2, zero - entry)
        _store(side, 3 * k + 2, zero - across)


@njit(cache=True, error_model="numpy")
def _second_pivot(y: np.ndarray, side: np.ndarray, rows: np.ndarray, k: int, n: int) -> None:
    """Row ``k + 1`` as the first step leaves it, scaled, to the second half of ``rows``."""
    ld = _stride(n)
    zero = _splat(y, 0)
    inverse = zero - _splat(y, 1) / _load(side, 3 * k + 5)
    factor = _load(side, 3 * k + 4)
    for j in range(n):
        entry = _fma(factor, _load(rows, j), _load(y, k * ld + ld + j))
        _store(rows, n + j, entry * inverse)
        _store(y, k * ld + ld + j, zero)
    _store(rows, n + k + 1, inverse)
    _store(rows, k + 1, zero)
    for i in range(n):
        _store(y, i * ld + k + 1, zero)
    _store(side, 3 * k + 4, zero)
    _store(side, 3 * k + 5, _splat(y, 1))


@njit(cache=True, error_model="numpy")
def _update(y: np.ndarray, side: np.ndarray, rows: np.ndarray, n: int) -> None:
    """``y`` plus columns 1 and 2 of ``side`` times the two ``rows``: the bulk of the work."""
    ld = _stride(n)
    for j in range(0, n - 3, 4):
        p0, p1, p2, p3 = _load(rows, j), _load(rows, j + 1), _load(rows, j + 2), _load(rows, j + 3)
        q0, q1, q2, q3 = (
            _load(rows, n + j),
            _load(rows, n + j + 1),
            _load(rows, n + j + 2),
            _load(rows, n + j + 3),
        )
        for i in range(n):
            f, g = _load(side, 3 * i + 1), _load(side, 3 * i + 2)
            at = i * ld + j
            r0, r1 = _fma(f, p0, _load(y, at)), _fma(f, p1, _load(y, at + 1))
            r2, r3 = _fma(f, p2, _load(y, at + 2)), _fma(f, p3, _load(y, at + 3))
            _store(y, at, _fma(g, q0, r0))
            _store(y, at + 1, _fma(g, q1, r1))
            _store(y, at + 2, _fma(g, q2, r2))
            _store(y, at + 3, _fma(g, q3, r3))
    for j in range(n - n % 4, n):
        p, q = _load(rows, j), _load(rows, n + j)
        for i in range(n):
            entry = _fma(_load(side, 3 * i + 1), p, _load(y, i * ld + j))
            _store(y, i * ld + j, _fma(_load(side, 3 * i + 2), q, entry))


@njit(cache=True, error_model="numpy")
def _exchange(
    row: Any, k: int, y: np.ndarray, x: np.ndarray, a: np.ndarray, side: np.ndarray, n: int
) -> None:
    """Exchange rows ``k`` and ``row`` of everything, where a lane asks for it."""
    if _any(row > _splat(y, k)):
        _swap_rows(y, row, k, n, n, _stride(n))
        _swap_rows(x, row, k, n, n, _stride(n))
        _swap_rows(a, row, k, n, n, _stride(n))
        _swap_rows(side, row, k, n, 3, 3)


@njit(cache=True, error_model="numpy")
def _invert(
    y: np.ndarray,
    x: np.ndarray,
    a: np.ndarray,
    side: np.ndarray,
    rows: np.ndarray,
    active: Any,
    n: int,
) -> None:
    """Inverse of ``y`` = ``x`` in place by Gauss-Jordan, two pivots at a time; the others take its row exchanges.

    The exchanges stay: the factor of a matrix with its rows permuted is the permuted factor, and after the
    first inverse the diagonal is nearly always an acceptable pivot. Column 0 of ``side`` keeps the rows' origins.
    flops: 2 n^3 for each matrix; a singular matrix gives infinities or NaN in its lane.
    """
    ld = _stride(n)
    for k in range(0, n, 2):
        pair = k + 1 < n
        row = _where(active, _pivot_row(y, k, ld, k, n), _splat(y, k))
        _exchange(row, k, y, x, a, side, n)
        _first_pivot(y, side, rows, k, n, pair)
        if pair:
            row = _where(active, _pivot_row(side, 2, 3, k + 1, n), _splat(y, k + 1))
            _exchange(row, k + 1, y, x, a, side, n)
            _second_pivot(y, side, rows, k, n)
        for j in range(n):
            _store(y, k * ld + j, _splat(y, 0))
            if not pair:
                _store(rows, n + j, _splat(y, 0))
        _update(y, side, rows, n)


@njit(cache=True, error_model="numpy")
def _square_sum(x: np.ndarray, size: int) -> Any:
    """Squared Frobenius norm in each lane."""
    total = _splat(x, 0)
    for e in range(size):
        value = _load(x, e)
        total = _fma(value, value, total)
    return total


@njit(cache=True, error_model="numpy")
def _average(x: np.ndarray, y: np.ndarray, scale: Any, active: Any, n: int) -> Any:
    """``x <- (scale x + y^T / scale) / 2`` in the active lanes; squared Frobenius norm of the change."""
    ld = _stride(n)
    half = _splat(x, 0.5)
    change = _splat(x, 0)
    ahead, back = half * scale, half / scale
    for i in range(n):
        for j in range(n):
            at = i * ld + j
            old = _load(x, at)
            new = _fma(ahead, old, back * _load(y, j * ld + i))
            step = new - old
            change = _fma(step, step, change)
            _store(x, at, _where(active, new, old))
    return change


@njit(cache=True, error_model="numpy")
def _newton(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    side: np.ndarray,
    rows: np.ndarray,
    summary: np.ndarray,
    tolerance: float,
    n: int,
) -> None:
    """Newton's iteration with Frobenius scaling (Higham 1986) until the change is below ``tolerance``.

    A converged lane is frozen. ``summary`` gets the iterations and a lower bound of sigma_min / sigma_max.
    """
    ld = _stride(n)
    active = _splat(x, 0) <= _splat(x, 0)
    steps = _splat(x, 0)
    for k in range(_MAX_NEWTON):
        for e in range(n * ld):
            _store(y, e, _load(x, e))
        _invert(y, x, a, side, rows, active, n)
        ahead = _square_sum(x, n * ld)
        back = _square_sum(y, n * ld)
        if k == 0:
            _store(summary, 1, _splat(x, 1) / _root(ahead * back))
        change = _average(x, y, _root(_root(back / ahead)), active, n)
        steps = steps + _where(active, _splat(x, 1), _splat(x, 0))
        active = active & (change > _splat(x, tolerance * tolerance))
        if not _any(active):
            break
    _store(summary, 0, steps)


@njit(cache=True, error_model="numpy")
def _four(x: np.ndarray, i: int, by: int, y: np.ndarray, j: int, n: int) -> Any:
    """``sum_k x[i + k by] y[k, j + (0, 1, 2, 3)]``, the four sums in registers."""
    ld = _stride(n)
    s0 = s1 = s2 = s3 = _splat(x, 0)
    for k in range(n):
        f = _load(x, i + k * by)
        at = k * ld + j
        s0, s1 = _fma(f, _load(y, at), s0), _fma(f, _load(y, at + 1), s1)
        s2, s3 = _fma(f, _load(y, at + 2), s2), _fma(f, _load(y, at + 3), s3)
    return s0, s1, s2, s3


@njit(cache=True, error_model="numpy")
def _one(x: np.ndarray, i: int, by: int, y: np.ndarray, j: int, n: int) -> Any:
    """The first of `_four`."""
    ld = _stride(n)
    total = _splat(x, 0)
    for k in range(n):
        total = _fma(_load(x, i + k * by), _load(y, k * ld + j), total)
    return total


@njit(cache=True, error_model="numpy")
def _product_row(
    out: np.ndarray, at: int, x: np.ndarray, i: int, by: int, y: np.ndarray, first: int, n: int
) -> None:
    """Entries ``first`` to ``n - 1`` of the row ``sum_k x[i + k by] y[k, :]``, to ``out`` from register ``at``."""
    j = first
    while j + 4 <= n:
        s0, s1, s2, s3 = _four(x, i, by, y, j, n)
        _store(out, at + j, s0)
        _store(out, at + j + 1, s1)
        _store(out, at + j + 2, s2)
        _store(out, at + j + 3, s3)
        j += 4
    while j < n:
        _store(out, at + j, _one(x, i, by, y, j, n))
        j += 1


@njit(cache=True, error_model="numpy")
def _gram_defect(x: np.ndarray, defect: np.ndarray, n: int) -> Any:
    """``defect = (I - x^T x) / 2`` and the squared Frobenius norm of ``x^T x - I``; n^3 flops a matrix."""
    ld = _stride(n)
    half, two = _splat(x, 0.5), _splat(x, 2)
    total = _splat(x, 0)
    for i in range(n):
        _product_row(defect, i * ld, x, i, ld, x, i, n)
        entry = _splat(x, 1) - _load(defect, i * ld + i)
        total = _fma(entry, entry, total)
        _store(defect, i * ld + i, half * entry)
        for j in range(i + 1, n):
            entry = _load(defect, i * ld + j)
            total = _fma(two * entry, entry, total)
            entry = (_splat(x, 0) - half) * entry
            _store(defect, i * ld + j, entry)
            _store(defect, j * ld + i, entry)
    return total


@njit(cache=True, error_model="numpy")
def _correct(x: np.ndarray, defect: np.ndarray, row: np.ndarray, pending: Any, n: int) -> None:
    """``x <- x + x defect`` in the pending lanes; 2 n^3 flops a matrix."""
    ld = _stride(n)
    for i in range(n):
        _product_row(row, 0, x, i * ld, 1, defect, 0, n)
        for j in range(n):
            old = _load(x, i * ld + j)
            _store(x, i * ld + j, _where(pending, old + _load(row, j), old))


@njit(cache=True, error_model="numpy")
def _polish(
    x: np.ndarray, defect: np.ndarray, row: np.ndarray, summary: np.ndarray, eps: float, n: int
) -> Any:
    """Cubic steps until their predicted defect, 3/4 of the square of the last, is below eps."""
    pending = _splat(x, 0) <= _splat(x, 0)
    floor = _splat(x, eps)
    residual = floor
    rounds = _splat(x, 0)
    for _ in range(_MAX_POLISH):
        total = _gram_defect(x, defect, n)
        _correct(x, defect, row, pending, n)
        predicted = _splat(x, 0.75) * total
        residual = _where(pending, _where(predicted <= floor, floor, predicted), residual)
        rounds = rounds + _where(pending, _splat(x, 1), _splat(x, 0))
        pending = pending & (predicted > floor)
        if not _any(pending):
            break
    _store(summary, 2, residual)
    _store(summary, 3, rounds - _splat(x, 1))
    return residual <= floor


@njit(cache=True, error_model="numpy")
def _is_backward_stable(
    u: np.ndarray, a: np.ndarray, product: np.ndarray, limit: float, n: int
) -> Any:
    """Whether the skew part of ``u^T a`` is below ``limit`` of the norm of ``a``; 2 n^3 flops a matrix."""
    ld = _stride(n)
    total = _splat(u, 0)
    for i in range(n):
        _product_row(product, i * ld, u, i, ld, a, 0, n)
    for i in range(n):
        for j in range(i):
            entry = _load(product, i * ld + j) - _load(product, j * ld + i)
            total = _fma(entry, entry, total)
    # the skew part holds each entry twice, halved
    return total <= _splat(u, 2 * limit * limit) * _square_sum(a, n * ld)


@njit(cache=True, error_model="numpy")
def _gather(x: np.ndarray, a: np.ndarray, first: int, n: int) -> None:
    """Matrices ``first ...`` of ``x`` (b, n * n) into the lanes of ``a``; the identity past the last."""
    wide, ld = _count(a), _stride(n)
    for lane in range(wide):
        for i in range(n):
            for j in range(n):
                inside = first + lane < x.shape[0]
                a[(i * ld + j) * wide + lane] = x[first + lane, i * n + j] if inside else i == j


@njit(cache=True, error_model="numpy")
def _scatter(u: np.ndarray, x: np.ndarray, side: np.ndarray, first: int, n: int) -> None:
    """Lanes of ``x``, their rows in their old order, to the rows of ``u``."""
    wide, ld = _count(x), _stride(n)
    for lane in range(min(wide, u.shape[0] - first)):
        for i in range(n):
            target = int(side[3 * i * wide + lane]) * n
            for j in range(n):
                u[first + lane, target + j] = x[(i * ld + j) * wide + lane]


@njit(cache=True, error_model="numpy")
def _report(stats: np.ndarray, failed: np.ndarray, summary: np.ndarray, first: int) -> None:
    """Summaries of the lanes to the rows of ``stats`` and ``failed``."""
    wide = _count(summary)
    for lane in range(min(wide, stats.shape[0] - first)):
        steps = int(summary[lane])
        stats[first + lane, 0] = steps
        stats[first + lane, 1] = summary[2 * wide + lane]
        stats[first + lane, 2] = summary[3 * wide + lane]
        stats[first + lane, 3] = summary[wide + lane]
        for k in range(min(steps, stats.shape[1] - 4)):
            stats[first + lane, 4 + k] = 1
        failed[first + lane] = summary[4 * wide + lane] != 0


@njit(cache=True, error_model="numpy")
def _registers(x: np.ndarray, number: int) -> np.ndarray:
    """Uninitialized flat array of that many registers in the dtype of ``x``, on a cache line."""
    wide = _count(x)
    room = np.empty((number + 1) * wide, x.dtype)
    skip = (-room.ctypes.data % REGISTER_BYTES) // x.itemsize
    return room[skip : skip + number * wide]


@njit(cache=True, error_model="numpy")
def lanes_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float, n: int
) -> None:
    """Unitary factors of ``x`` (b, n * n) into ``u``, one matrix to a lane; unproven members are marked.

    Scaled Newton, a closing cubic step, and a check of both errors. flops: about 17 n^3 for each matrix;
    memory: 3 n^2 + 8 n + 5 registers.
    """
    ld = _stride(n)
    a, w, y = _registers(x, n * ld), _registers(x, n * ld), _registers(x, n * ld)
    rows, side, summary = _registers(x, 2 * n), _registers(x, 3 * n), _registers(x, 5)
    a[:] = 0
    # a change d leaves d^2/2, and the cubic step 3/2 of its square: 3/8 d^4 = eps / 8
    tolerance = (eps / 3) ** 0.25
    for first in range(0, x.shape[0], _count(x)):
        _gather(x, a, first, n)
        for e in range(n * ld):
            _store(w, e, _load(a, e))
        for i in range(n):
            _store(side, 3 * i, _splat(a, i))
        _newton(w, y, a, side, rows, summary, tolerance, n)
        closed = _polish(w, y, rows, summary, eps, n)
        good = closed & _is_backward_stable(w, a, y, _SKEW_LIMIT * eps, n)
        _store(summary, 4, _where(good, _splat(w, 0), _splat(w, 1)))
        _scatter(u, w, side, first, n)
        _report(stats, failed, summary, first)


@njit(cache=True, error_model="numpy")
def space_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """`lanes_polar` of 3 x 3 matrices: the size known to the compiler halves the time."""
    lanes_polar(x, u, stats, failed, eps, 3)


@njit(cache=True, error_model="numpy")
def sign_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """Signs of ``x`` (b, 1); a zero is left to the fallback."""
    for t in range(x.shape[0]):
        u[t, 0] = 1 if x[t, 0] > 0 else -1
        stats[t, 1] = eps
        stats[t, 3] = 1
        failed[t] = x[t, 0] == 0


@njit(cache=True, error_model="numpy")
def plane_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """Unitary factors of real 2 x 2 matrices ``x`` (b, 4) in closed form.

    ``u`` is ``a + s adj(a)^T``, s the sign of det a, over its norm sigma_1 + sigma_2. Each entry of the sum is
    rounded once, so ``u`` is accurate to a few eps. A determinant whose computed sign is wrong has sigma_2 of the
    size of eps sigma_1, and then ``u`` is the factor of a matrix as near as that.
    """
    for t in range(x.shape[0]):
        a, b, c, d = x[t, 0], x[t, 1], x[t, 2], x[t, 3]
        det = a * d - b * c
        s = x.dtype.type(1 if det >= 0 else -1)
        p, q = a + s * d, b - s * c
        norm = np.sqrt(p * p + q * q)
        p, q = p / norm, q / norm
        u[t, 0], u[t, 1], u[t, 2], u[t, 3] = p, q, -s * q, s * p
        skew = p * b - s * q * d - (q * a + s * p * c)
        size = a * a + b * b + c * c + d * d
        largest = (norm + np.sqrt(max(norm * norm - 4 * abs(det), 0))) / 2
        stats[t, 1] = max(abs(p * p + q * q - 1), eps)
        stats[t, 3] = max(abs(det) / (largest * largest) - 4 * eps, 0)
        failed[t] = not (skew * skew <= 2 * (_SKEW_LIMIT * eps) ** 2 * size)


@njit(cache=True, error_model="numpy")
def _rotate(w: np.ndarray, p: int, q: int, c: float, s: float) -> None:
    """Rows ``p`` and ``q`` to ``c w_p - s w_q`` and ``s w_p + c w_q``."""
    for k in range(w.shape[1]):
        x, y = w[p, k], w[q, k]
        w[p, k] = c * x - s * y
        w[q, k] = s * x + c * y


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    """Scalar product."""
    total = 0.0
    for k in range(x.size):
        total += x[k] * y[k]
    return total


@njit(cache=True, error_model="numpy")
def _jacobi_sweep(w: np.ndarray, v: np.ndarray, floor: float, tolerance: float) -> int:
    """Make each pair of rows of ``w`` orthogonal once, and those of ``v`` with it; the number of rotations."""
    rotations = 0
    for p in range(w.shape[0] - 1):
        for q in range(p + 1, w.shape[0]):
            alpha, beta, gamma = _dot(w[p], w[p]), _dot(w[q], w[q]), _dot(w[p], w[q])
            if alpha <= floor or beta <= floor:
                continue
            if abs(gamma) > tolerance * np.sqrt(alpha) * np.sqrt(beta):
                rotations += 1
                zeta = (beta - alpha) / (2 * gamma)
                tangent = (1.0 if zeta >= 0 else -1.0) / (abs(zeta) + np.sqrt(1 + zeta * zeta))
                c = 1 / np.sqrt(1 + tangent * tangent)
                _rotate(w, p, q, c, c * tangent)
                _rotate(v, p, q, c, c * tangent)
    return rotations


@njit(cache=True, error_model="numpy")
def _complete(w: np.ndarray, missing: int) -> None:
    """Row ``missing`` of ``w`` orthonormal to the others, which are orthonormal or zero."""
    emptiest, least = 0, np.inf
    for k in range(w.shape[1]):
        weight = _dot(w[:, k], w[:, k])
        if weight < least:
            emptiest, least = k, weight
    w[missing, emptiest] = 1
    for _ in range(2):
        for i in range(w.shape[0]):
            if i != missing:
                overlap = _dot(w[i], w[missing])
                for k in range(w.shape[1]):
                    w[missing, k] -= overlap * w[i, k]
        length = np.sqrt(_dot(w[missing], w[missing]))
        for k in range(w.shape[1]):
            w[missing, k] /= length


@njit(cache=True, error_model="numpy")
def _normalize(
    w: np.ndarray, sigma: np.ndarray, floor: float, threshold: float, complete: bool
) -> None:
    """Rows of ``w`` to unit length; rows without a direction, or not above ``threshold``, completed or zero."""
    for i in range(w.shape[0]):
        keep = sigma[i] > floor if complete else sigma[i] > max(floor, threshold)
        for k in range(w.shape[1]):
            w[i, k] = w[i, k] / sigma[i] if keep else 0.0
        sigma[i] = sigma[i] if keep else -1.0
    if complete:
        for i in range(w.shape[0]):
            if sigma[i] < 0:
                _complete(w, i)


@njit(cache=True, error_model="numpy")
def _accumulate(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """``c += a^T b`` for ``a``, ``b`` and ``c`` (n, n), rows contiguous."""
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            factor = a[k, i]
            for j in range(b.shape[1]):
                c[i, j] += factor * b[k, j]


@njit(cache=True, error_model="numpy")
def _close(u: np.ndarray) -> float:
    """One cubic step on ``u`` (n, n), which also leaves a partial isometry one; norm of ``u (u^T u - I)``."""
    n = u.shape[1]
    gram, step = np.zeros((n, n)), np.zeros(u.shape)
    for i in range(n):
        gram[i, i] = -1.0
    _accumulate(u, u, gram)
    _accumulate(u.T.copy(), gram, step)
    change = 0.0
    for i in range(u.shape[0]):
        for j in range(n):
            u[i, j] -= step[i, j] / 2
            change += step[i, j] * step[i, j]
    return float(np.sqrt(change))


@njit(cache=True, error_model="numpy")
def _jacobi(
    a: np.ndarray, sigma: np.ndarray, cut: float, complete: bool, eps: float
) -> tuple[np.ndarray, float]:
    """Unitary factor of ``a`` (n, n) from a one-sided Jacobi SVD in float64, and the change its closing made.

    Directions below eps of the norm are left alone: they are the rounding errors of the others. flops: about
    50 n^3 in 6 to 10 sweeps. ``sigma`` gets the singular values, then the largest and the smallest.
    """
    n = a.shape[1]
    w, v, u = np.empty((n, a.shape[0])), np.eye(n), np.zeros(a.shape)
    size = 0.0
    for i in range(n):
        for k in range(a.shape[0]):
            w[i, k] = a[k, i]
        size += _dot(w[i], w[i])
    floor = max((eps if complete else min(eps, cut)) * np.sqrt(size), _TINY)
    for _ in range(_MAX_SWEEPS):
        if _jacobi_sweep(w, v, floor * floor, _ANGLE * math.sqrt(n)) == 0:
            break
    for i in range(n):
        sigma[i] = np.sqrt(_dot(w[i], w[i]))
    sigma[n], sigma[n + 1] = sigma[:n].max(), sigma[:n].min()
    _normalize(w, sigma[:n], floor, float(cut * sigma[n]), complete)
    _accumulate(w, v, u)
    return u, _close(u)


@njit(cache=True, error_model="numpy")
def jacobi_polar(
    x: np.ndarray,
    members: np.ndarray,
    u: np.ndarray,
    stats: np.ndarray,
    cut: float,
    complete: bool,
    eps: float,
) -> None:
    """Unitary factors of the ``members`` of ``x`` (b, n, n) by Jacobi SVD; ``complete`` fills the rank."""
    n = x.shape[2]
    sigma = np.empty(n + 2)
    for t in members:
        factor, change = _jacobi(x[t], sigma, cut, complete, eps)
        for i in range(x.shape[1]):
            for j in range(n):
                u[t, i, j] = factor[i, j]
        stats[t] = 0
        stats[t, 1] = max(0.75 * change * change, eps)
        ratio = sigma[n + 1] / sigma[n] if sigma[n] > 0 else 0.0
        stats[t, 3] = max(ratio - n * eps, 0.0)
