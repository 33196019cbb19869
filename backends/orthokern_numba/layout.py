"""Compiled loops of the spectral backend: what BLAS has no routine for, in one pass over the data each.

Matrices are seen transposed: a Fortran-ordered matrix ``A`` comes as the C-ordered view ``a = A.T``, so that
``a[j]`` is the contiguous column j. Kept in one file, because Numba's cache watches only the file of the
decorated function.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .panels import add_product

TILE = 32
# Columns that one leaf of the Gauss-Jordan recursion eliminates without BLAS.
LEAF = 8
# Narrower products are left to BLAS.
LEAST_TILED = 32


@intrinsic
def _gemm(
    typing: Any,
    address: Any,
    shape: Any,
    alpha: Any,
    a: Any,
    lda: Any,
    b: Any,
    ldb: Any,
    c: Any,
    ldc: Any,
) -> Any:
    """``C += alpha A B`` by the Fortran gemm at ``address``, on column-major data with leading dimensions.

    The address is an argument, not a global: that keeps the callers in Numba's cache.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def stored(value: Any) -> Any:
            return cgutils.alloca_once_value(builder, value)

        def integer(value: Any) -> Any:
            return stored(builder.trunc(value, ir.IntType(32)))

        def data(position: int) -> Any:
            kind = signature.args[position]
            return context.make_array(kind)(context, builder, args[position]).data

        plain = stored(ir.Constant(ir.IntType(8), ord("N")))
        m, n, k = (integer(v) for v in cgutils.unpack_tuple(builder, args[1], 3))
        one = stored(context.get_constant_generic(builder, signature.args[2], 1))
        pointers = [plain, plain, m, n, k, stored(args[2]), data(3), integer(args[4]), data(5)]
        pointers += [integer(args[6]), one, data(7), integer(args[8])]
        kind = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), pointers)
        return context.get_dummy_value()

    size = types.intp
    triple = types.containers.UniTuple(size, 3)
    return types.void(size, triple, c.dtype, a, size, b, size, c, size), codegen


@numba.njit(cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest_below(column: np.ndarray, start: int) -> int:
    """Index of an entry of largest modulus in ``column[start:]``; -1 if all are zero."""
    best = abs(column[start].real) + abs(column[start].imag)
    for i in range(start + 1, len(column)):
        best = max(best, abs(column[i].real) + abs(column[i].imag))
    if not best > 0:
        return -1
    for i in range(start, len(column)):
        if abs(column[i].real) + abs(column[i].imag) == best:
            return i
    return -1


@numba.njit(cache=True, fastmath={"contract"})
def _eliminate(a: np.ndarray, pivots: np.ndarray, start: int, stop: int) -> bool:
    """Gauss-Jordan elimination of the columns start..stop with row pivoting; False at a zero pivot."""
    for c in range(start, stop):
        p = _largest_below(a[c], c)
        if p < 0:
            return False
        pivots[c] = p
        for j in range(start, stop):
            a[j, c], a[j, p] = a[j, p], a[j, c]
        column = a[c]
        inverse = 1 / column[c]
        for j in range(start, stop):
            if j != c:
                target = a[j]
                factor = target[c] * inverse
                for i in range(len(column)):
                    target[i] -= column[i] * factor
                target[c] = factor
        for i in range(len(column)):
            column[i] *= -inverse
        column[c] = inverse
    return True


@numba.njit(cache=True)
def _carry(
    gemm: int,
    panels: np.ndarray | None,
    a: np.ndarray,
    pivots: np.ndarray,
    done: Any,
    columns: Any,
    work: np.ndarray,
) -> None:
    """Apply to ``columns`` the elimination that the columns ``done`` hold."""
    n, start, first = a.shape[0], done[0], columns[0]
    depth, width = done[1] - done[0], columns[1] - columns[0]
    for j in range(width):
        column = a[first + j]
        for k in range(depth):
            p = pivots[start + k]
            work[j * depth + k] = column[p]
            column[p] = column[start + k]
            column[start + k] = 0
    if panels is not None and min(width, depth) >= LEAST_TILED:
        factors = work[: width * depth].reshape(width, depth)
        add_product(factors, a[start : start + depth], panels, a[first : first + width])
        return
    one = a.dtype.type(1)
    _gemm(gemm, (n, width, depth), one, a[start], n, work, depth, a[first], n)


@functools.cache
def _program(n: int) -> np.ndarray:
    """The recursion on halves of the columns 0..n as a list of (start, middle, stop, direction).

    Direction 0 eliminates start..stop, 1 carries the left half over to the right one, 2 back. A list and not a
    recursive function: Numba's cache reloads those as code that crashes.
    """
    steps: list[tuple[int, int, int, int]] = []

    def halve(start: int, stop: int) -> None:
        if stop - start <= LEAF:
            steps.append((start, stop, stop, 0))
            return
        middle = start + LEAF * ((stop - start + 2 * LEAF - 1) // (2 * LEAF))
        halve(start, middle)
        steps.append((start, middle, stop, 1))
        halve(middle, stop)
        steps.append((start, middle, stop, 2))

    halve(0, n)
    return np.array(steps, dtype=np.int64)


@numba.njit(cache=True)
def _run(
    gemm: int,
    panels: np.ndarray | None,
    program: np.ndarray,
    a: np.ndarray,
    work: np.ndarray,
    order: np.ndarray,
) -> bool:
    n = a.shape[0]
    pivots = np.empty(n, np.int64)
    for step in range(program.shape[0]):
        start, middle, stop, direction = program[step]
        if direction == 0:
            if not _eliminate(a, pivots, start, stop):
                return False
        else:
            done, columns = (start, middle), (middle, stop)
            if direction == 2:
                done, columns = columns, done
            _carry(gemm, panels, a, pivots, done, columns, work)
    for i in range(n):
        order[i] = i
    for i in range(n):
        p = pivots[i]
        order[i], order[p] = order[p], order[i]
    return True


def invert(carrier: Any, a: np.ndarray, work: np.ndarray, order: np.ndarray) -> bool:
    """Overwrite ``a`` by the inverse of the row-permuted matrix; False if a pivot vanishes.

    Recursive Gauss-Jordan elimination with partial pivoting: the left half of the columns, its effect on the
    right half by one product, the right half, and back. 2 n^3 flops, of which all but n^2 LEAF are products of
    matrices. ``order`` receives the permutation: column i of the result belongs to row ``order[i]`` of the
    matrix. ``work``: flat, (n/2 + LEAF)^2 entries. ``carrier`` as `products.carrier` gives it.
    """
    return bool(_run(*carrier, _program(a.shape[0]), a, work, order))


@numba.njit(cache=True)
def newton_average(x: np.ndarray, y: np.ndarray, order: np.ndarray, a: float, b: float) -> None:
    """``X <- a X + b Y^H``, where row ``order[i]`` of X meets column i of Y."""
    n = x.shape[0]
    for j0 in range(0, n, TILE):
        for i0 in range(0, n, TILE):
            for j in range(j0, min(j0 + TILE, n)):
                target = x[j]
                for i in range(i0, min(i0 + TILE, n)):
                    p = order[i]
                    target[p] = a * target[p] + b * np.conj(y[i, j])


@numba.njit(cache=True)
def mirror(g: np.ndarray) -> None:
    """Fill the lower triangle of a Hermitian matrix from the upper one."""
    n = g.shape[0]
    for j0 in range(0, n, TILE):
        for i0 in range(0, j0 + TILE, TILE):
            for j in range(j0, min(j0 + TILE, n)):
                for i in range(i0, min(i0 + TILE, j)):
                    g[i, j] = np.conj(g[j, i])


@numba.njit(cache=True, fastmath={"contract"})
def add_upper(p: np.ndarray, g: np.ndarray, b: float, c: float) -> None:
    """``P <- P + b G + c I`` in the upper triangle."""
    for j in range(p.shape[0]):
        for i in range(j + 1):
            p[j, i] += b * g[j, i]
        p[j, j] += c


@numba.njit(cache=True)
def scale_upper(g: np.ndarray, b: float, c: float) -> None:
    """``G <- b G + c I`` in the upper triangle."""
    for j in range(g.shape[0]):
        for i in range(j + 1):
            g[j, i] *= b
        g[j, j] += c


@numba.njit(cache=True, fastmath={"contract"})
def add_scaled(x: np.ndarray, y: np.ndarray, a: float) -> None:
    """``Y <- Y + a X``."""
    for j in range(x.shape[0]):
        source, target = x[j], y[j]
        for i in range(len(source)):
            target[i] += a * source[i]


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def square_sum(x: np.ndarray) -> float:
    """Square of the Frobenius norm."""
    total = 0.0
    for j in range(x.shape[0]):
        row = x[j]
        part = row[0].real * 0
        for i in range(len(row)):
            part += row[i].real * row[i].real + row[i].imag * row[i].imag
        total += part
    return total


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def gain(x: np.ndarray, start: np.ndarray, steps: int) -> float:
    """Estimate, from below, of the largest singular value: power steps on ``X X^H``, one pass each."""
    n, m = x.shape
    v = start[:m].copy()
    found = 0.0
    for _ in range(steps):
        y = np.zeros_like(v)
        inner = 0.0
        for j in range(n):
            column = x[j]
            w = column[0] * 0
            for i in range(m):
                w += np.conj(column[i]) * v[i]
            for i in range(m):
                y[i] += w * column[i]
            inner += w.real * w.real + w.imag * w.imag
        outer = 0.0
        for i in range(m):
            outer += y[i].real * y[i].real + y[i].imag * y[i].imag
        if not (inner > 0 and outer > 0):
            return 0.0
        found = np.sqrt(outer / inner)
        shrink = x.dtype.type(1 / np.sqrt(outer))
        for i in range(m):
            v[i] = y[i] * shrink
    return found


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def departure(g: np.ndarray, start: np.ndarray, steps: int) -> float:
    """Estimate, from below, of ``||G - I||_2`` of a Hermitian matrix given by its upper triangle."""
    n = g.shape[0]
    v = start[:n].copy()
    norm = np.sqrt(square_sum(v.reshape(1, n)))
    for _ in range(steps):
        shrink = g.dtype.type(1 / norm)
        for i in range(n):
            v[i] *= shrink
        y = -v
        for j in range(n):
            column, vj = g[j], v[j]
            dot = column[0] * 0
            for i in range(j):
                y[i] += column[i] * vj
                dot += np.conj(column[i]) * v[i]
            y[j] += dot + column[j] * vj
        v = y
        norm = np.sqrt(square_sum(v.reshape(1, n)))
        if not norm > 0:
            break
    return float(norm)


@numba.njit(cache=True)
def half_defect(g: np.ndarray, p: np.ndarray) -> None:
    """``P <- (I - G) / 2`` in the upper triangle, in the precision of P."""
    for j in range(g.shape[0]):
        for i in range(j):
            p[j, i] = -0.5 * g[j, i]
        p[j, j] = 0.5 * (1 - g[j, j].real)


@numba.njit(cache=True)
def blend(x: np.ndarray, y: np.ndarray, a: float) -> None:
    """``Y <- a Y + X``."""
    for j in range(x.shape[0]):
        source, target = x[j], y[j]
        for i in range(len(source)):
            target[i] = a * target[i] + source[i]


@numba.njit(cache=True)
def shift_diagonal(g: np.ndarray, a: float) -> None:
    """``G <- G + a I``."""
    for j in range(g.shape[0]):
        g[j, j] += a


@numba.njit(cache=True)
def lift_diagonal(x: np.ndarray, share: float) -> None:
    """Add ``share`` times the largest modulus to the diagonal, which makes an exactly singular matrix regular."""
    top = 0.0
    for j in range(x.shape[0]):
        for i in range(x.shape[1]):
            top = max(top, abs(x[j, i]))
    for j in range(x.shape[0]):
        x[j, j] += share * (top if top > 0 else 1.0)
