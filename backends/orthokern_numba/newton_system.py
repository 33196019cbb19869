"""The linear system of a Newton step on the dual of a transport problem, from the support of its plan.

Lines are eliminated: what is left has one unknown to a place and is solved by conjugate gradients, or by Cholesky's
factorization where that costs less. An entry contributes ``before`` to the second derivative, one past the middle of
its line ``after``, less what the entries there share.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .sweeps import FAST, Support

MOST_PRODUCTS = 300
# Products with the support that cost as much as one multiplication of a Cholesky factorization costs in vectors.
EXCHANGE = 1 / 12


class System(NamedTuple):
    """What elimination needs of a support whose entries weigh ``before`` or ``after``.

    ``pivot`` (n,) is the diagonal of the lines, ``tail`` (n,) couples them to an entry past their middle, ``own`` (m,)
    is the diagonal of the places, ``diagonal`` (m,) that of the matrix which is left.
    """

    before: float
    after: float
    shift: float
    pivot: np.ndarray
    tail: np.ndarray
    own: np.ndarray
    diagonal: np.ndarray


@numba.njit(cache=True)
def assemble(support: Support, before: float, after: float, shift: float, m: int) -> System:
    """The system of a support; ``shift`` is added to its diagonal."""
    n = len(support.middle)
    pivot, tail = np.empty(n), np.empty(n)
    own, diagonal = np.full(m, shift), np.full(m, shift)
    for j in range(n):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        shared = end - middle
        tail[j] = after * (1.0 - support.share[j] * shared)
        pivot[j] = before * (middle - start) + tail[j] * shared + shift
        lead = before * (1.0 - before / pivot[j])
        rest = after * (1.0 - support.share[j]) - tail[j] * (tail[j] / pivot[j])
        for e in range(start, middle):
            own[support.place[e]] += before
            diagonal[support.place[e]] += max(lead, 0.0)
        for e in range(middle, end):
            own[support.place[e]] += after
            diagonal[support.place[e]] += max(rest, 0.0)
    return System(before, after, shift, pivot, tail, own, diagonal)


@numba.njit(cache=True, fastmath=FAST)
def _gathered(place: np.ndarray, start: int, end: int, x: np.ndarray) -> float:
    total = 0.0
    for e in range(start, end):
        total += float(x[place[e]])
    return total


@numba.njit(cache=True, fastmath=FAST)
def _product(system: System, support: Support, x: np.ndarray, out: np.ndarray) -> float:
    """Multiply the matrix that is left by ``x``, into ``out``; returns ``<x, out>``."""
    for i in range(len(x)):
        out[i] = system.own[i] * x[i]
    place = support.place
    for j in range(len(support.middle)):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        lead = _gathered(place, start, middle, x)
        if middle == end:
            push = system.before * system.before * lead / system.pivot[j]
            for e in range(start, end):
                out[place[e]] -= push
            continue
        rest = _gathered(place, middle, end, x)
        common = (system.before * lead + system.tail[j] * rest) / system.pivot[j]
        for e in range(start, middle):
            out[place[e]] -= system.before * common
        push = system.tail[j] * common + system.after * support.share[j] * rest
        for e in range(middle, end):
            out[place[e]] -= push
    total = 0.0
    for i in range(len(x)):
        total += x[i] * out[i]
    return total


@numba.njit(cache=True)
def _eliminated(system: System, support: Support, gp: np.ndarray, gq: np.ndarray) -> np.ndarray:
    """Right side of the system that is left."""
    right = gp.copy()
    for j in range(len(gq)):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        common = gq[j] / system.pivot[j]
        for e in range(start, middle):
            right[support.place[e]] -= system.before * common
        for e in range(middle, end):
            right[support.place[e]] -= system.tail[j] * common
    return right


@numba.njit(cache=True)
def _substituted(
    system: System, support: Support, gq: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    """Steps ``y`` of the lines from those of the places."""
    for j in range(len(gq)):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        lead = _gathered(support.place, start, middle, x)
        rest = _gathered(support.place, middle, end, x)
        y[j] = (gq[j] - system.before * lead - system.tail[j] * rest) / system.pivot[j]


@numba.njit(cache=True, fastmath=FAST)
def _conjugate_gradients(
    system: System, support: Support, right: np.ndarray, tolerance: float, most: int, x: np.ndarray
) -> int:
    """Solve for ``x`` from 0 with the diagonal as preconditioner; the number of products, negative if they ran out."""
    m = len(right)
    residual, z, direction, image = right.copy(), np.empty(m), np.empty(m), np.empty(m)
    x[:] = 0.0
    inner = size = 0.0
    for i in range(m):
        z[i] = residual[i] / system.diagonal[i]
        direction[i] = z[i]
        inner += residual[i] * z[i]
        size += residual[i] * residual[i]
    goal = tolerance * tolerance * size
    if size == 0.0:
        return 0
    for step in range(most):
        curvature = _product(system, support, direction, image)
        if curvature <= 0.0:
            return step + 1
        length = inner / curvature
        size = following = 0.0
        for i in range(m):
            x[i] += length * direction[i]
            residual[i] -= length * image[i]
            z[i] = residual[i] / system.diagonal[i]
            following += residual[i] * z[i]
            size += residual[i] * residual[i]
        if size <= goal:
            return step + 1
        ratio = following / inner
        inner = following
        for i in range(m):
            direction[i] = z[i] + ratio * direction[i]
    return -most


@numba.njit(cache=True)
def _dense(system: System, support: Support) -> np.ndarray:
    """The matrix that is left."""
    m = len(system.own)
    matrix = np.zeros((m, m))
    for i in range(m):
        matrix[i, i] = system.own[i]
    for j in range(len(support.middle)):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        extra = system.after * support.share[j]
        for e in range(start, end):
            i = support.place[e]
            mine = system.before if e < middle else system.tail[j]
            row = matrix[i]
            factor = mine / system.pivot[j]
            for f in range(start, middle):
                row[support.place[f]] -= factor * system.before
            factor = factor * system.tail[j] + (extra if e >= middle else 0.0)
            for f in range(middle, end):
                row[support.place[f]] -= factor
    return matrix


@numba.njit(cache=True, fastmath=FAST)
def _dot(u: np.ndarray, v: np.ndarray, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += u[i] * v[i]
    return total


@numba.njit(cache=True)
def _cholesky_solve(matrix: np.ndarray, right: np.ndarray, x: np.ndarray) -> bool:
    """Solve for ``x`` by Cholesky's factorization; False where the matrix is not positive definite."""
    m = len(right)
    try:
        lower = np.linalg.cholesky(matrix)
    except Exception:  # noqa: BLE001
        return False
    for i in range(m):
        x[i] = (right[i] - _dot(lower[i], x, i)) / lower[i, i]
    for i in range(m - 1, -1, -1):
        x[i] /= lower[i, i]
        for f in range(i):
            x[f] -= lower[i, f] * x[i]
    return True


@numba.njit(cache=True)
def _factorization_price(support: Support, m: int) -> float:
    """What Cholesky's factorization costs, in products with one entry of the support."""
    build = 0.0
    for j in range(len(support.middle)):
        size = support.start[j + 1] - support.start[j]
        build += size * size
    return build / 2 + EXCHANGE * m * m * m / 3


@numba.njit(cache=True)
def solve(
    support: Support,
    weights: tuple[float, float],
    shift: float,
    gp: np.ndarray,
    gq: np.ndarray,
    tolerance: float,
    expected: int,
    x: np.ndarray,
    y: np.ndarray,
) -> int:
    """Steps ``x`` of the places and ``y`` of the lines; the number of products to expect the next time.

    ``expected`` is what the last call returned.
    """
    m = len(gp)
    system = assemble(support, weights[0], weights[1], shift, m)
    right = _eliminated(system, support, gp, gq)
    entries = support.start[-1] + m
    price = _factorization_price(support, m)
    solved = price < entries * expected and _cholesky_solve(_dense(system, support), right, x)
    if not solved:
        most = MOST_PRODUCTS
        products = _conjugate_gradients(system, support, right, tolerance, most, x)
        expected = abs(products)
        if products < 0 and price < 4 * entries * most:
            _cholesky_solve(_dense(system, support), right, x)
    _substituted(system, support, gq, x, y)
    return expected
