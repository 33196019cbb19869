"""Compiled loops behind `small`: one matrix to a SIMD lane (`lanes`), the lane index innermost.

No number moves from one lane to another, so a matrix gets the same bits whatever its neighbours are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .lanes import (
    REGISTER_BYTES,
    absolute,
    any_lane,
    fma,
    lane_count,
    load_lanes,
    root,
    splat,
    store_lanes,
    where,
)
from .single_kernels import SKEW_LIMIT

_MAX_NEWTON = 20
_MAX_POLISH = 4
# A diagonal entry this large against its column is pivot enough.
_THRESHOLD = 0.25


@njit(cache=True, error_model="numpy")
def _stride(n: int) -> int:
    """Registers from one row to the next: odd, so that a column does not crowd into a few sets of the cache."""
    return n | 1


@njit(cache=True, error_model="numpy")
def _pivot_row(column: np.ndarray, first: int, by: int, k: int, n: int) -> Any:
    """Pivot row among ``k`` to ``n - 1`` in each lane: ``k``, unless an entry below it is much larger.

    Entry ``i`` of the column is register ``first + i by``.
    """
    head = absolute(load_lanes(column, first + k * by))
    best = head
    here = splat(column, k)
    row = here
    for i in range(k + 1, n):
        entry = absolute(load_lanes(column, first + i * by))
        larger = entry > best
        best = where(larger, entry, best)
        row = where(larger, splat(column, i), row)
    return where(splat(column, _THRESHOLD) * best <= head, here, row)


@njit(cache=True, error_model="numpy")
def _swap_rows(y: np.ndarray, row: Any, k: int, n: int, columns: int, ld: int) -> None:
    """Exchange row ``k`` with row ``row`` >= k, lane by lane."""
    for j in range(columns):
        old = load_lanes(y, k * ld + j)
        new = old
        for i in range(k + 1, n):
            hit = row == splat(y, i)
            entry = load_lanes(y, i * ld + j)
            new = where(hit, entry, new)
            store_lanes(y, i * ld + j, where(hit, old, entry))
        store_lanes(y, k * ld + j, new)


@njit(cache=True, error_model="numpy")
def _first_pivot(
    y: np.ndarray, side: np.ndarray, rows: np.ndarray, k: int, n: int, pair: bool
) -> None:
    """Scaled pivot row ``k`` to ``rows``, its factors to column 1 of ``side``.

    Column 2 gets the factors of the next column, as they are once this step is done.
    """
    ld = _stride(n)
    zero, one = splat(y, 0), splat(y, 1)
    inverse = one / load_lanes(y, k * ld + k)
    for j in range(n):
        store_lanes(rows, j, load_lanes(y, k * ld + j) * inverse)
    store_lanes(rows, k, inverse)
    for i in range(n):
        store_lanes(side, 3 * i + 1, zero - load_lanes(y, i * ld + k))
        store_lanes(side, 3 * i + 2, zero)
        store_lanes(y, i * ld + k, zero)
    store_lanes(side, 3 * k + 1, one)
    if pair:
        across = load_lanes(rows, k + 1)
        for i in range(n):
            entry = fma(load_lanes(side, 3 * i + 1), across, load_lanes(y, i * ld + k + 1))
            store_lanes(side, 3 * i + 2, zero - entry)
        store_lanes(side, 3 * k + 2, zero - across)


@njit(cache=True, error_model="numpy")
def _second_pivot(y: np.ndarray, side: np.ndarray, rows: np.ndarray, k: int, n: int) -> None:
    """Row ``k + 1`` as the first step leaves it, scaled, to the second half of ``rows``."""
    ld = _stride(n)
    zero = splat(y, 0)
    inverse = zero - splat(y, 1) / load_lanes(side, 3 * k + 5)
    factor = load_lanes(side, 3 * k + 4)
    for j in range(n):
        entry = fma(factor, load_lanes(rows, j), load_lanes(y, k * ld + ld + j))
        store_lanes(rows, n + j, entry * inverse)
        store_lanes(y, k * ld + ld + j, zero)
    store_lanes(rows, n + k + 1, inverse)
    store_lanes(rows, k + 1, zero)
    for i in range(n):
        store_lanes(y, i * ld + k + 1, zero)
    store_lanes(side, 3 * k + 4, zero)
    store_lanes(side, 3 * k + 5, splat(y, 1))


@njit(cache=True, error_model="numpy")
def _update(y: np.ndarray, side: np.ndarray, rows: np.ndarray, n: int) -> None:
    """``y`` plus columns 1 and 2 of ``side`` times the two ``rows``: the bulk of the work."""
    ld = _stride(n)
    for j in range(0, n - 3, 4):
        p0, p1, p2, p3 = (
            load_lanes(rows, j),
            load_lanes(rows, j + 1),
            load_lanes(rows, j + 2),
            load_lanes(rows, j + 3),
        )
        q0, q1, q2, q3 = (
            load_lanes(rows, n + j),
            load_lanes(rows, n + j + 1),
            load_lanes(rows, n + j + 2),
            load_lanes(rows, n + j + 3),
        )
        for i in range(n):
            f, g = load_lanes(side, 3 * i + 1), load_lanes(side, 3 * i + 2)
            at = i * ld + j
            r0, r1 = fma(f, p0, load_lanes(y, at)), fma(f, p1, load_lanes(y, at + 1))
            r2, r3 = fma(f, p2, load_lanes(y, at + 2)), fma(f, p3, load_lanes(y, at + 3))
            store_lanes(y, at, fma(g, q0, r0))
            store_lanes(y, at + 1, fma(g, q1, r1))
            store_lanes(y, at + 2, fma(g, q2, r2))
            store_lanes(y, at + 3, fma(g, q3, r3))
    for j in range(n - n % 4, n):
        p, q = load_lanes(rows, j), load_lanes(rows, n + j)
        for i in range(n):
            entry = fma(load_lanes(side, 3 * i + 1), p, load_lanes(y, i * ld + j))
            store_lanes(y, i * ld + j, fma(load_lanes(side, 3 * i + 2), q, entry))


@njit(cache=True, error_model="numpy")
def _exchange(
    row: Any, k: int, y: np.ndarray, x: np.ndarray, a: np.ndarray, side: np.ndarray, n: int
) -> None:
    """Exchange rows ``k`` and ``row`` of everything, where a lane asks for it."""
    if any_lane(row > splat(y, k)):
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
        row = where(active, _pivot_row(y, k, ld, k, n), splat(y, k))
        _exchange(row, k, y, x, a, side, n)
        _first_pivot(y, side, rows, k, n, pair)
        if pair:
            row = where(active, _pivot_row(side, 2, 3, k + 1, n), splat(y, k + 1))
            _exchange(row, k + 1, y, x, a, side, n)
            _second_pivot(y, side, rows, k, n)
        for j in range(n):
            store_lanes(y, k * ld + j, splat(y, 0))
            if not pair:
                store_lanes(rows, n + j, splat(y, 0))
        _update(y, side, rows, n)


@njit(cache=True, error_model="numpy")
def _square_sum(x: np.ndarray, size: int) -> Any:
    """Squared Frobenius norm in each lane."""
    total = splat(x, 0)
    for e in range(size):
        value = load_lanes(x, e)
        total = fma(value, value, total)
    return total


@njit(cache=True, error_model="numpy")
def _average(x: np.ndarray, y: np.ndarray, scale: Any, active: Any, n: int) -> Any:
    """``x <- (scale x + y^T / scale) / 2`` in the active lanes; squared Frobenius norm of the change."""
    ld = _stride(n)
    half = splat(x, 0.5)
    change = splat(x, 0)
    ahead, back = half * scale, half / scale
    for i in range(n):
        for j in range(n):
            at = i * ld + j
            old = load_lanes(x, at)
            new = fma(ahead, old, back * load_lanes(y, j * ld + i))
            step = new - old
            change = fma(step, step, change)
            store_lanes(x, at, where(active, new, old))
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
    active = splat(x, 0) <= splat(x, 0)
    steps = splat(x, 0)
    for k in range(_MAX_NEWTON):
        for e in range(n * ld):
            store_lanes(y, e, load_lanes(x, e))
        _invert(y, x, a, side, rows, active, n)
        ahead = _square_sum(x, n * ld)
        back = _square_sum(y, n * ld)
        if k == 0:
            store_lanes(summary, 1, splat(x, 1) / root(ahead * back))
        change = _average(x, y, root(root(back / ahead)), active, n)
        steps = steps + where(active, splat(x, 1), splat(x, 0))
        active = active & (change > splat(x, tolerance * tolerance))
        if not any_lane(active):
            break
    store_lanes(summary, 0, steps)


@njit(cache=True, error_model="numpy")
def _four(x: np.ndarray, i: int, by: int, y: np.ndarray, j: int, n: int) -> Any:
    """``sum_k x[i + k by] y[k, j + (0, 1, 2, 3)]``, the four sums in registers."""
    ld = _stride(n)
    s0 = s1 = s2 = s3 = splat(x, 0)
    for k in range(n):
        f = load_lanes(x, i + k * by)
        at = k * ld + j
        s0, s1 = fma(f, load_lanes(y, at), s0), fma(f, load_lanes(y, at + 1), s1)
        s2, s3 = fma(f, load_lanes(y, at + 2), s2), fma(f, load_lanes(y, at + 3), s3)
    return s0, s1, s2, s3


@njit(cache=True, error_model="numpy")
def _one(x: np.ndarray, i: int, by: int, y: np.ndarray, j: int, n: int) -> Any:
    """The first of `_four`."""
    ld = _stride(n)
    total = splat(x, 0)
    for k in range(n):
        total = fma(load_lanes(x, i + k * by), load_lanes(y, k * ld + j), total)
    return total


@njit(cache=True, error_model="numpy")
def _product_row(
    out: np.ndarray, at: int, x: np.ndarray, i: int, by: int, y: np.ndarray, first: int, n: int
) -> None:
    """Entries ``first`` to ``n - 1`` of the row ``sum_k x[i + k by] y[k, :]``, to ``out`` from register ``at``."""
    j = first
    while j + 4 <= n:
        s0, s1, s2, s3 = _four(x, i, by, y, j, n)
        store_lanes(out, at + j, s0)
        store_lanes(out, at + j + 1, s1)
        store_lanes(out, at + j + 2, s2)
        store_lanes(out, at + j + 3, s3)
        j += 4
    while j < n:
        store_lanes(out, at + j, _one(x, i, by, y, j, n))
        j += 1


@njit(cache=True, error_model="numpy")
def _gram_defect(x: np.ndarray, defect: np.ndarray, n: int) -> Any:
    """``defect = (I - x^T x) / 2`` and the squared Frobenius norm of ``x^T x - I``; n^3 flops a matrix."""
    ld = _stride(n)
    half, two = splat(x, 0.5), splat(x, 2)
    total = splat(x, 0)
    for i in range(n):
        _product_row(defect, i * ld, x, i, ld, x, i, n)
        entry = splat(x, 1) - load_lanes(defect, i * ld + i)
        total = fma(entry, entry, total)
        store_lanes(defect, i * ld + i, half * entry)
        for j in range(i + 1, n):
            entry = load_lanes(defect, i * ld + j)
            total = fma(two * entry, entry, total)
            entry = (splat(x, 0) - half) * entry
            store_lanes(defect, i * ld + j, entry)
            store_lanes(defect, j * ld + i, entry)
    return total


@njit(cache=True, error_model="numpy")
def _correct(x: np.ndarray, defect: np.ndarray, row: np.ndarray, pending: Any, n: int) -> None:
    """``x <- x + x defect`` in the pending lanes; 2 n^3 flops a matrix."""
    ld = _stride(n)
    for i in range(n):
        _product_row(row, 0, x, i * ld, 1, defect, 0, n)
        for j in range(n):
            old = load_lanes(x, i * ld + j)
            store_lanes(x, i * ld + j, where(pending, old + load_lanes(row, j), old))


@njit(cache=True, error_model="numpy")
def _polish(
    x: np.ndarray, defect: np.ndarray, row: np.ndarray, summary: np.ndarray, eps: float, n: int
) -> Any:
    """Cubic steps until their predicted defect, 3/4 of the square of the last, is below eps."""
    pending = splat(x, 0) <= splat(x, 0)
    floor = splat(x, eps)
    residual = floor
    rounds = splat(x, 0)
    for _ in range(_MAX_POLISH):
        total = _gram_defect(x, defect, n)
        _correct(x, defect, row, pending, n)
        predicted = splat(x, 0.75) * total
        residual = where(pending, where(predicted <= floor, floor, predicted), residual)
        rounds = rounds + where(pending, splat(x, 1), splat(x, 0))
        pending = pending & (predicted > floor)
        if not any_lane(pending):
            break
    store_lanes(summary, 2, residual)
    store_lanes(summary, 3, rounds - splat(x, 1))
    return residual <= floor


@njit(cache=True, error_model="numpy")
def _is_backward_stable(
    u: np.ndarray, a: np.ndarray, product: np.ndarray, limit: float, n: int
) -> Any:
    """Whether the skew part of ``u^T a`` is below ``limit`` of the norm of ``a``; 2 n^3 flops a matrix."""
    ld = _stride(n)
    total = splat(u, 0)
    for i in range(n):
        _product_row(product, i * ld, u, i, ld, a, 0, n)
    for i in range(n):
        for j in range(i):
            entry = load_lanes(product, i * ld + j) - load_lanes(product, j * ld + i)
            total = fma(entry, entry, total)
    # the skew part holds each entry twice, halved
    return total <= splat(u, 2 * limit * limit) * _square_sum(a, n * ld)


@njit(cache=True, error_model="numpy")
def _gather(x: np.ndarray, a: np.ndarray, first: int, n: int) -> None:
    """Matrices ``first ...`` of ``x`` (b, n * n) into the lanes of ``a``; the identity past the last."""
    wide, ld = lane_count(a), _stride(n)
    for lane in range(wide):
        for i in range(n):
            for j in range(n):
                inside = first + lane < x.shape[0]
                a[(i * ld + j) * wide + lane] = x[first + lane, i * n + j] if inside else i == j


@njit(cache=True, error_model="numpy")
def _scatter(u: np.ndarray, x: np.ndarray, side: np.ndarray, first: int, n: int) -> None:
    """Lanes of ``x``, their rows in their old order, to the rows of ``u``."""
    wide, ld = lane_count(x), _stride(n)
    for lane in range(min(wide, u.shape[0] - first)):
        for i in range(n):
            target = int(side[3 * i * wide + lane]) * n
            for j in range(n):
                u[first + lane, target + j] = x[(i * ld + j) * wide + lane]


@njit(cache=True, error_model="numpy")
def _report(stats: np.ndarray, failed: np.ndarray, summary: np.ndarray, first: int) -> None:
    """Summaries of the lanes to the rows of ``stats`` and ``failed``."""
    wide = lane_count(summary)
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
    wide = lane_count(x)
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
    for first in range(0, x.shape[0], lane_count(x)):
        _gather(x, a, first, n)
        for e in range(n * ld):
            store_lanes(w, e, load_lanes(a, e))
        for i in range(n):
            store_lanes(side, 3 * i, splat(a, i))
        _newton(w, y, a, side, rows, summary, tolerance, n)
        closed = _polish(w, y, rows, summary, eps, n)
        good = closed & _is_backward_stable(w, a, y, SKEW_LIMIT * eps, n)
        store_lanes(summary, 4, where(good, splat(w, 0), splat(w, 1)))
        _scatter(u, w, side, first, n)
        _report(stats, failed, summary, first)


@njit(cache=True, error_model="numpy")
def space_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """`lanes_polar` of 3 x 3 matrices: the size known to the compiler halves the time."""
    lanes_polar(x, u, stats, failed, eps, 3)
