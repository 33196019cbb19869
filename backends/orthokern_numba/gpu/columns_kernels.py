"""Device code of the column functions: projections on the simplex and the k-support prox, a team for each row.

A team is a block of one warp, or of several for long rows. Each thread has entries of its own, a stride apart, and
keeps what it makes of them in the row of the result, so that rows may have any length and no barrier guards them.
Nothing is sorted: the k largest are found by bisection on the words that store the entries, which stops once k of
them lie above; thresholds and levels by Newton steps. Sums go over the same tree each time: the bits repeat.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

WARP, MOST_WARPS = 32, 8
# Most Newton steps towards a level; every so many halve the bracket. Steps that bring a sum to one.
MOST_STEPS, HALVING, POLISHING = 100, 4, 3
_EVERYONE = 0xFFFFFFFF
_ONE = np.uint64(1)


@cuda.jit(device=True)
def team_sum(value: Any, room: Any) -> Any:
    """Sum of ``value`` over the block, the same bits in each thread; ``room`` (8) is shared, of its dtype."""
    step = 16
    while step > 0:
        value += cuda.shfl_xor_sync(_EVERYONE, value, step)
        step //= 2
    thread = cuda.threadIdx.x
    if thread % WARP == 0:
        room[thread // WARP] = value
    cuda.syncthreads()
    total = room[0]
    for warp in range(1, cuda.blockDim.x // WARP):
        total += room[warp]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def team_max(value: Any, room: Any) -> Any:
    """Largest ``value`` of the block; none may be NaN."""
    step = 16
    while step > 0:
        value = max(value, cuda.shfl_xor_sync(_EVERYONE, value, step))
        step //= 2
    thread = cuda.threadIdx.x
    if thread % WARP == 0:
        room[thread // WARP] = value
    cuda.syncthreads()
    best = room[0]
    for warp in range(1, cuda.blockDim.x // WARP):
        best = max(best, room[warp])
    cuda.syncthreads()
    return best


@cuda.jit(device=True)
def _top(row: Any, room: Any) -> Any:
    """The largest entry, and whether it says what the row is: no NaN is there, and it is not plus infinity."""
    real = room.dtype.type
    best = real(-math.inf)
    unknown = False
    for e in range(cuda.threadIdx.x, row.size, cuda.blockDim.x):
        value = row[e]
        unknown = unknown or not value < real(math.inf)
        best = max(best, value)
    unknown = cuda.syncthreads_or(np.int32(unknown)) != 0
    return team_max(best, room), not unknown


@cuda.jit(device=True)
def _ordered(word: Any, sign: Any) -> Any:
    """The word of a number as one that compares like it; both zeros are one."""
    key = np.uint64(word)
    if key & sign:
        return sign - (key - sign)
    return key + sign


@cuda.jit(device=True)
def _count(words: Any, sign: Any, least: Any, end: Any, counts: Any) -> Any:
    """How many keys lie above ``least``, or equal it at an index below ``end``."""
    count = np.int64(0)
    for e in range(cuda.threadIdx.x, words.size, cuda.blockDim.x):
        key = _ordered(words[e], sign)
        if key > least or (key == least and e < end):
            count += 1
    return team_sum(count, counts)


@cuda.jit(device=True)
def _selected(words: Any, sign: Any, k: Any, counts: Any) -> Any:
    """``(least, end)``: the ``k`` largest are the keys above ``least``, and those equal to it at indices below ``end``.

    ``k`` is less than the number of words.
    """
    size = np.int64(words.size)
    low, high = np.uint64(0), sign + (sign - _ONE)
    while high - low > _ONE:
        middle = low + ((high - low) >> _ONE)
        count = _count(words, sign, middle, size, counts)
        if count == k:
            return middle, size
        if count > k:
            low = middle
        else:
            high = middle
    first, end = np.int64(0), size
    while end - first > 1:
        index = (first + end) // 2
        if _count(words, sign, low, index, counts) >= k:
            end = index
        else:
            first = index
    return low, end


@cuda.jit(device=True)
def _below_the_top(row: Any, top: Any, half: Any, u: Any) -> None:
    """``(entry - top) / z`` to ``u``, for ``z = 2 half``; -1 for what lies lower and is zero in the projection."""
    one = u.dtype.type(1)
    for e in range(cuda.threadIdx.x, row.size, cuda.blockDim.x):
        # In halves, because the difference of the largest numbers of opposite sign is none.
        gap = top / u.dtype.type(2) - row[e] / u.dtype.type(2)
        u[e] = -(gap / half) if gap < half else -one


@cuda.jit(device=True)
def _keep_largest(words: Any, sign: Any, k: Any, u: Any, counts: Any) -> None:
    """-1 to the entries of ``u`` that are not among the ``k`` largest."""
    candidates = np.int64(0)
    for e in range(cuda.threadIdx.x, u.size, cuda.blockDim.x):
        candidates += np.int64(u[e] > -u.dtype.type(1))
    if team_sum(candidates, counts) <= k:
        return
    least, end = _selected(words, sign, k, counts)
    for e in range(cuda.threadIdx.x, u.size, cuda.blockDim.x):
        key = _ordered(words[e], sign)
        if key < least or (key == least and e >= end):
            u[e] = -u.dtype.type(1)


@cuda.jit(device=True)
def _positive(u: Any, theta: Any, sums: Any, counts: Any) -> Any:
    """Sum of ``u - theta`` where that is positive, and the number of such entries."""
    total, count = u.dtype.type(0), np.int64(0)
    for e in range(cuda.threadIdx.x, u.size, cuda.blockDim.x):
        rest = u[e] - theta
        if rest > u.dtype.type(0):
            total += rest
            count += 1
    return team_sum(total, sums), team_sum(count, counts)


@cuda.jit(device=True)
def _threshold(u: Any, sums: Any, counts: Any) -> Any:
    """The ``theta`` with ``sum max(u - theta, 0) = 1``: Newton from the left, until no entry falls below it."""
    one = u.dtype.type(1)
    theta, before = -one, np.int64(u.size + 1)
    while True:
        total, count = _positive(u, theta, sums, counts)
        if not 0 < count < before:
            return theta
        theta += (total - one) / u.dtype.type(count)
        before = count


@cuda.jit(device=True)
def _to_sum(u: Any, theta: Any, z: Any, sums: Any, counts: Any) -> None:
    """``z max(u - theta, 0)`` in the place of ``u``, with ``theta`` carried to more digits than a number has."""
    one, zero = u.dtype.type(1), u.dtype.type(0)
    for e in range(cuda.threadIdx.x, u.size, cuda.blockDim.x):
        u[e] -= theta
    rest = zero
    for _ in range(POLISHING):
        total, count = _positive(u, rest, sums, counts)
        if count > 0:
            rest += (total - one) / u.dtype.type(count)
    for e in range(cuda.threadIdx.x, u.size, cuda.blockDim.x):
        y = u[e] - rest
        u[e] = y * z if y > zero else zero


@cuda.jit(device=True)
def _fill(row: Any, value: Any) -> None:
    for e in range(cuda.threadIdx.x, row.size, cuda.blockDim.x):
        row[e] = value


@functools.cache
def projection_kernel(dtype: str) -> Any:
    """Kernel of ``simplex_projection`` for float32 or float64, on ``v`` (b, n) and its ``words``; ``z`` (b)."""
    real = np.dtype(dtype).type
    zero, half_of, unknown = real(0), real(2), real(math.nan)

    @cuda.jit
    def project(v: Any, words: Any, z: Any, sign: Any, k: Any, out: Any) -> None:
        sums = cuda.shared.array(MOST_WARPS, real)
        counts = cuda.shared.array(MOST_WARPS, np.int64)
        row = cuda.blockIdx.x
        top, known = _top(v[row], sums)
        half = z[row] / half_of
        if not known or top == -real(math.inf) or half != half:  # noqa: PLR0124 - NaN is not
            _fill(out[row], unknown)
        elif half <= zero:
            _fill(out[row], zero)
        else:
            u = out[row]
            _below_the_top(v[row], top, half, u)
            if k < u.size:
                _keep_largest(words[row], sign, k, u, counts)
            _to_sum(u, _threshold(u, sums, counts), z[row], sums, counts)

    return project


@cuda.jit(device=True)
def _bracket(p: Any, words: Any, sign: Any, k: Any, lam: Any, sums: Any, counts: Any) -> Any:
    """``(low, high, next)``: bounds of the level, and the largest entry that is not among the first ``k``."""
    real = p.dtype.type
    least, end = _selected(words, sign, k, counts)
    last, following, tail = real(2), real(0), real(0)
    for e in range(cuda.threadIdx.x, p.size, cuda.blockDim.x):
        key = _ordered(words[e], sign)
        if key > least or (key == least and e < end):
            last = min(last, p[e])
        else:
            following = max(following, p[e])
            tail += p[e]
    last = -team_max(-last, sums)
    following = team_max(following, sums)
    high = last + team_sum(tail, sums)
    if lam * high > following:
        high = following / lam
    return last / (real(1) + lam), high, following


@cuda.jit(device=True)
def _piece(p: Any, lam: Any, w: Any, k: Any, sums: Any, counts: Any) -> Any:
    """``(weight, slope)`` of the piece that ``w`` lies in, whose root is their quotient."""
    real = p.dtype.type
    bound, full = lam * w, (real(1) + lam) * w
    weight, size, number = real(0), np.int64(0), np.int64(0)
    for e in range(cuda.threadIdx.x, p.size, cuda.blockDim.x):
        if p[e] >= full:
            number += 1
        elif p[e] > bound:
            size += 1
            weight += p[e]
    weight = team_sum(weight, sums)
    size, number = team_sum(size, counts), team_sum(number, counts)
    return weight, real(k - number) + lam * real(size)


@cuda.jit(device=True)
def _level(p: Any, lam: Any, k: Any, low: Any, high: Any, near: Any, sums: Any, counts: Any) -> Any:
    """Root ``w`` of ``sum_i clip(p_i / w - lam, 0, 1) = k`` by Newton steps inside the bracket ``(low, high)``."""
    real = p.dtype.type
    w, low, high = high, low * (real(1) - real(2) * near), high * (real(1) + real(2) * near)
    for step in range(MOST_STEPS):
        weight, slope = _piece(p, lam, w, k, sums, counts)
        if weight == slope * w:
            return w
        newton = weight / slope if slope > real(0) else -real(1)
        if abs(newton - w) <= near * w:
            return newton
        if weight > slope * w:
            low = w
        else:
            high = w
        if newton <= low or newton >= high or step % HALVING == HALVING - 1:
            newton = real(math.sqrt(low)) * real(math.sqrt(high))
        moved = abs(newton - w)
        w = newton
        if moved <= near * w:
            return w
    return w


@functools.cache
def prox_kernel(dtype: str) -> Any:
    """Kernel of ``ksupport_prox`` for float32 or float64, on ``v`` (b, n) and its ``words``; ``lam`` (b)."""
    real = np.dtype(dtype).type
    zero, one, unknown = real(0), real(1), real(math.nan)
    near = real(2 * np.finfo(dtype).eps)
    two, tiny = real(2), real(np.finfo(dtype).tiny)

    @cuda.jit
    def prox(v: Any, words: Any, lam: Any, sign: Any, k: Any, t: Any, level: Any) -> None:
        sums = cuda.shared.array(MOST_WARPS, real)
        counts = cuda.shared.array(MOST_WARPS, np.int64)
        row = cuda.blockIdx.x
        weight, p = lam[row], t[row]
        top, known = _top(v[row], sums)
        if not known or weight != weight:  # noqa: PLR0124 - NaN is not
            _fill(p, unknown)
            if cuda.threadIdx.x == 0:
                level[row] = unknown
            return
        # A number by its significand is a power of two, exactly.
        bound = max(top, tiny)
        significand = two * real(math.frexp(bound)[0])
        up, down = bound / significand, significand / bound
        for e in range(cuda.threadIdx.x, p.size, cuda.blockDim.x):
            p[e] = max(v[row, e], zero) * down
        w = zero
        if k < p.size:
            low, high, following = _bracket(p, words[row], sign, k, weight, sums, counts)
            if following > zero:
                w = low
                if low < high:
                    w = _level(p, weight, k, low, high, near, sums, counts)
        taken = weight * w
        for e in range(cuda.threadIdx.x, p.size, cuda.blockDim.x):
            p[e] = min(max(p[e] - taken, zero), p[e] / (one + weight)) * up
        if cuda.threadIdx.x == 0:
            level[row] = w * up

    return prox
