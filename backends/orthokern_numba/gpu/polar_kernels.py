"""Device code of the polar factors of small square matrices: a one-sided Jacobi SVD and one closing cubic step.

Why Jacobi, at every condition number. A sweep makes all n (n - 1) / 2 pairs of columns orthogonal, at 18 n flops for
a pair: 9 n^3, and 5 to 10 sweeps are taken (up to 20 where the columns differ by many orders of magnitude), so about
70 n^3 in all. Newton's iteration by Gauss-Jordan elimination takes 9 steps of 2 n^3, or 18 n^3, but each of its n
pivots is a search, an exchange and an elimination, one after the other: 3 barriers for each pivot, about 27 n in all.
A round of Jacobi rotates n / 2 pairs at once behind one barrier, n - 1 rounds a sweep: about 8 n. Blocks as small as
these wait for barriers and for shared memory much more than for arithmetic, and Newton's result must be verified, and
done again by Jacobi where it fails. Jacobi needs neither: its columns come out orthogonal to rounding, however small
they are.

A team works on one matrix: a thread alone (n <= 4), a warp (n <= 8), or a block (n <= 32). In a warp or a block 8
lanes form a group, and a group rotates one pair of columns at a time. Arrays of a team hold the matrix by columns.

Every number is written in the dtype of the arrays: one literal would turn float32 into float64.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

from orthokern.spectral.plan import Stat

THREAD, WARP, BLOCK = 0, 1, 2
LANES = 8
# Matrices to a block where a warp has one, threads to a block where a thread has one.
SLOTS, THREADS = 4, 64
_EVERYONE = 0xFFFFFFFF
_MAX_SWEEPS = 40
# Square of this number, and 1 beside that square, are exact enough in either dtype.
_LARGE = 1e9
_RESIDUAL, _LOWER_BOUND = int(Stat.RESIDUAL), int(Stat.LOWER_BOUND)


@cuda.jit(device=True)
def _lanes(team: Any) -> Any:
    """Threads that work on one column together."""
    return 1 if team[0] == THREAD else LANES


@cuda.jit(device=True)
def _meet(team: Any) -> None:
    """Wait for the team; what it wrote before is seen after."""
    if team[0] == WARP:
        cuda.syncwarp()
    elif team[0] == BLOCK:
        cuda.syncthreads()


@cuda.jit(device=True)
def _any(flag: Any, team: Any) -> Any:
    """Whether ``flag`` holds for one thread of the team; also a meeting."""
    if team[0] == WARP:
        return cuda.any_sync(_EVERYONE, flag)
    if team[0] == BLOCK:
        return cuda.syncthreads_or(np.int32(flag)) != 0
    return flag


@cuda.jit(device=True)
def _together(value: Any, team: Any) -> Any:
    """Sum over the lanes of a group, the same bits in each of them."""
    if team[0] != THREAD:
        value += cuda.shfl_xor_sync(_EVERYONE, value, 4)
        value += cuda.shfl_xor_sync(_EVERYONE, value, 2)
        value += cuda.shfl_xor_sync(_EVERYONE, value, 1)
    return value


@cuda.jit(device=True)
def _load(x: Any, w: Any, v: Any, n: Any, team: Any) -> None:
    """Columns of ``x`` to ``w``, those of the identity to ``v``."""
    _, rank, size = team
    zero, one = w.dtype.type(0), w.dtype.type(1)
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        w[j, i] = x[i, j]
        v[j, i] = one if i == j else zero
    _meet(team)


@cuda.jit(device=True)
def _squares(a: Any, found: Any, n: Any, team: Any) -> None:
    """Squared length of each row of ``a``, that is of each column of a matrix, to ``found``."""
    _, rank, size = team
    lanes = _lanes(team)
    for first in range(0, n, size // lanes):
        row = first + rank // lanes
        total = a.dtype.type(0)
        if row < n:
            for i in range(rank % lanes, n, lanes):
                total += a[row, i] * a[row, i]
        total = _together(total, team)
        if row < n and rank % lanes == 0:
            found[row] = total
    _meet(team)


@cuda.jit(device=True)
def _sum(values: Any, n: Any) -> Any:
    """Sum of ``n`` values, by each thread for itself."""
    total = values[0]
    for i in range(1, n):
        total += values[i]
    return total


@cuda.jit(device=True)
def _extremes(values: Any, n: Any) -> Any:
    """Largest and least of ``n`` values, by each thread for itself."""
    top, least = values[0], values[0]
    for i in range(1, n):
        top, least = max(top, values[i]), min(least, values[i])
    return top, least


@cuda.jit(device=True)
def _pair(turn: Any, index: Any, players: Any) -> Any:
    """Columns that meet at table ``index`` of round ``turn``: in ``players - 1`` rounds each meets each once."""
    others = players - 1
    if index == 0:
        return others, turn
    return (turn + index) % others, (turn + others - index) % others


@cuda.jit(device=True)
def _products(w: Any, p: Any, q: Any, n: Any, team: Any) -> Any:
    """Squared lengths of columns ``p`` and ``q`` and their scalar product; zeros where there is no such pair."""
    _, rank, _ = team
    alpha, beta, gamma = w.dtype.type(0), w.dtype.type(0), w.dtype.type(0)
    lanes = _lanes(team)
    if p < n and q < n:
        for i in range(rank % lanes, n, lanes):
            x, y = w[p, i], w[q, i]
            alpha += x * x
            beta += y * y
            gamma += x * y
    return _together(alpha, team), _together(beta, team), _together(gamma, team)


@cuda.jit(device=True)
def _tangent(alpha: Any, beta: Any, gamma: Any, one: Any, large: Any) -> Any:
    """Tangent of the smaller angle whose rotation makes the two columns orthogonal."""
    zeta = (beta - alpha) / (gamma + gamma)
    magnitude = abs(zeta)
    root = magnitude
    if magnitude < large:
        root = math.sqrt(one + zeta * zeta)
    return math.copysign(one / (magnitude + root), zeta)


@cuda.jit(device=True)
def _rotate(a: Any, p: Any, q: Any, c: Any, s: Any, n: Any, team: Any) -> None:
    """Rows ``p`` and ``q`` of ``a`` to ``c a_p - s a_q`` and ``s a_p + c a_q``."""
    _, rank, _ = team
    lanes = _lanes(team)
    for i in range(rank % lanes, n, lanes):
        x, y = a[p, i], a[q, i]
        a[p, i] = c * x - s * y
        a[q, i] = s * x + c * y


@cuda.jit(device=True)
def _turn(w: Any, v: Any, p: Any, q: Any, n: Any, floor: Any, tolerance: Any, team: Any) -> Any:
    """Make columns ``p`` and ``q`` of ``w`` orthogonal, and turn those of ``v`` with them; whether it was needed."""
    one, large = w.dtype.type(1), w.dtype.type(_LARGE)
    alpha, beta, gamma = _products(w, p, q, n, team)
    limit = tolerance * math.sqrt(alpha) * math.sqrt(beta)
    if not (alpha > floor and beta > floor and abs(gamma) > limit):
        return False
    t = _tangent(alpha, beta, gamma, one, large)
    c = one / math.sqrt(one + t * t)
    _rotate(w, p, q, c, c * t, n, team)
    _rotate(v, p, q, c, c * t, n, team)
    return True


@cuda.jit(device=True)
def _sweep(w: Any, v: Any, n: Any, floor: Any, tolerance: Any, team: Any) -> Any:
    """Rotate every pair of columns once; whether one rotation was needed."""
    _, rank, size = team
    players = n + n % 2
    lanes = _lanes(team)
    turned = False
    for turn in range(players - 1):
        for first in range(0, players // 2, size // lanes):
            index = first + rank // lanes
            p, q = _pair(turn, index, players)
            if index >= players // 2:
                p = n
            turned = _turn(w, v, p, q, n, floor, tolerance, team) or turned
        _meet(team)
    return _any(turned, team)


@cuda.jit(device=True)
def _keep_lengths(
    squares: Any, lengths: Any, n: Any, floor: Any, cut: Any, complete: Any, team: Any
) -> None:
    """Lengths of the columns that have a direction which counts, 0 for the others."""
    _, rank, size = team
    top, _ = _extremes(squares, n)
    least = cut * math.sqrt(top)
    for j in range(rank, n, size):
        sigma = math.sqrt(squares[j])
        kept = squares[j] > floor and (complete or sigma > least)
        lengths[j] = sigma if kept else squares.dtype.type(0)


@cuda.jit(device=True)
def _normalize(w: Any, lengths: Any, n: Any, team: Any) -> None:
    """Columns of ``w`` to unit length, or to zero."""
    _, rank, size = team
    zero = w.dtype.type(0)
    for e in range(rank, n * n, size):
        j, i = e // n, e % n
        w[j, i] = w[j, i] / lengths[j] if lengths[j] > zero else zero
    _meet(team)


@cuda.jit(device=True)
def _emptiest(w: Any, weights: Any, n: Any, team: Any) -> Any:
    """The coordinate in which the columns of ``w`` have the least weight."""
    _, rank, size = team
    for i in range(rank, n, size):
        total = w.dtype.type(0)
        for j in range(n):
            total += w[j, i] * w[j, i]
        weights[i] = total
    _meet(team)
    place, lightest = 0, weights[0]
    for i in range(1, n):
        if weights[i] < lightest:
            place, lightest = i, weights[i]
    _meet(team)
    return place


@cuda.jit(device=True)
def _project(w: Any, missing: Any, weights: Any, n: Any, team: Any) -> None:
    """Take the other columns' share out of column ``missing``, and bring it to unit length."""
    _, rank, size = team
    zero = w.dtype.type(0)
    for j in range(rank, n, size):
        total = zero
        for i in range(n):
            total += w[j, i] * w[missing, i]
        weights[j] = zero if j == missing else total
    _meet(team)
    for i in range(rank, n, size):
        share = zero
        for j in range(n):
            share += weights[j] * w[j, i]
        w[missing, i] -= share
    _meet(team)
    total = zero
    for i in range(n):
        total += w[missing, i] * w[missing, i]
    _meet(team)
    for i in range(rank, n, size):
        w[missing, i] /= math.sqrt(total)
    _meet(team)


@cuda.jit(device=True)
def _complete(w: Any, lengths: Any, weights: Any, n: Any, team: Any) -> None:
    """Columns without a direction made orthonormal to the others, by Gram-Schmidt, twice."""
    _, rank, size = team
    zero, one = w.dtype.type(0), w.dtype.type(1)
    for missing in range(n):
        if not lengths[missing] > zero:
            place = _emptiest(w, weights, n, team)
            for i in range(rank, n, size):
                w[missing, i] = one if i == place else zero
            _meet(team)
            _project(w, missing, weights, n, team)
            _project(w, missing, weights, n, team)


@cuda.jit(device=True)
def _product(a: Any, b: Any, c: Any, shift: Any, n: Any, team: Any) -> None:
    """``c = a^T b - shift I``."""
    _, rank, size = team
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        total = -shift if i == j else a.dtype.type(0)
        for k in range(n):
            total += a[k, i] * b[k, j]
        c[i, j] = total
    _meet(team)


@cuda.jit(device=True)
def _times(a: Any, b: Any, c: Any, n: Any, team: Any) -> None:
    """``c = a b``."""
    _, rank, size = team
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        total = a.dtype.type(0)
        for k in range(n):
            total += a[i, k] * b[k, j]
        c[i, j] = total
    _meet(team)


@cuda.jit(device=True)
def _close(u: Any, g: Any, step: Any, squares: Any, n: Any, team: Any) -> Any:
    """One cubic step ``u <- u - u (u^T u - I) / 2``; the squared norm of ``u (u^T u - I)``.

    It takes out what rounding left of the loss of orthogonality, and leaves a partial isometry one.
    """
    _, rank, size = team
    half, one = u.dtype.type(0.5), u.dtype.type(1)
    _product(u, u, g, one, n, team)
    _times(u, g, step, n, team)
    _squares(step, squares, n, team)
    change = _sum(squares, n)
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        u[i, j] -= half * step[i, j]
    _meet(team)
    return change


@cuda.jit(device=True)
def _store(u: Any, found: Any, n: Any, team: Any) -> None:
    """``u`` to the result."""
    _, rank, size = team
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        found[i, j] = u[i, j]


@cuda.jit(device=True)
def _hermitian(x: Any, u: Any, a: Any, found: Any, n: Any, team: Any) -> None:
    """``(u^T x + x^T u) / 2``, bitwise symmetric; ``a`` is room for ``x``."""
    _, rank, size = team
    half = u.dtype.type(0.5)
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        a[i, j] = x[i, j]
    _meet(team)
    for e in range(rank, n * n, size):
        i, j = e // n, e % n
        if i <= j:
            total, mirrored = u.dtype.type(0), u.dtype.type(0)
            for k in range(n):
                total += u[k, i] * a[k, j]
                mirrored += u[k, j] * a[k, i]
            value = half * (total + mirrored)
            found[i, j] = value
            found[j, i] = value


@cuda.jit(device=True)
def _report(stats: Any, change: Any, top: Any, least: Any, eps: Any, slack: Any, team: Any) -> None:
    """The figures of one matrix; a decomposition leaves 0 iterations."""
    _, rank, size = team
    zero = stats.dtype.type(0)
    ratio = math.sqrt(least) / math.sqrt(top) - slack if top > zero else zero
    for column in range(rank, stats.size, size):
        value = zero
        if column == _RESIDUAL:
            value = max(stats.dtype.type(0.75) * change, eps)
        elif column == _LOWER_BOUND:
            value = max(ratio, zero)
        stats[column] = value


@cuda.jit(device=True)
def _decompose(
    w: Any, v: Any, squares: Any, share: Any, smallest: Any, tolerance: Any, n: Any, team: Any
) -> Any:
    """Turn the columns of ``w``, and those of ``v`` with them, until all of ``w`` are orthogonal.

    Returns the square of the length, ``share`` of the norm, from which a column has a direction.
    """
    quarter = w.dtype.type(0.25)
    _squares(w, squares, n, team)
    floor = max(share * share * _sum(squares, n), smallest)
    for _ in range(_MAX_SWEEPS):
        # A column that the caller finds just above the floor was above this one when it was last compared.
        if not _sweep(w, v, n, quarter * floor, tolerance, team):
            break
    _squares(w, squares, n, team)
    return floor


@cuda.jit(device=True)
def _factor(
    x: Any, u: Any, stats: Any, room: Any, limits: Any, complete: Any, n: Any, team: Any
) -> Any:
    """Unitary factor of one matrix, in the last array of ``room`` and in ``u``."""
    w, v, z, squares, lengths = room
    share, cut, eps, slack, tolerance, smallest = limits
    _load(x, w, v, n, team)
    floor = _decompose(w, v, squares, share, smallest, tolerance, n, team)
    top, least = _extremes(squares, n)
    _keep_lengths(squares, lengths, n, floor, cut, complete, team)
    _meet(team)
    _normalize(w, lengths, n, team)
    if complete:
        _complete(w, lengths, squares, n, team)
    _product(w, v, z, w.dtype.type(0), n, team)
    change = _close(z, w, v, squares, n, team)
    _store(z, u, n, team)
    _report(stats, change, top, least, eps, slack, team)


@functools.cache
def thread_kernel(dtype: str, n: int) -> Any:
    """Kernel for matrices of size ``n``, one to a thread; the arrays of a thread are its own."""
    real = np.dtype(dtype).type

    @cuda.jit
    def polar_by_threads(x: Any, u: Any, h: Any, stats: Any, limits: Any, complete: Any) -> None:
        member = cuda.grid(1)
        if member < x.shape[0]:
            w = cuda.local.array((n, n), real)
            v = cuda.local.array((n, n), real)
            z = cuda.local.array((n, n), real)
            squares = cuda.local.array(n, real)
            lengths = cuda.local.array(n, real)
            team = (THREAD, 0, 1)
            room = (w, v, z, squares, lengths)
            _factor(x[member], u[member], stats[member], room, limits, complete, n, team)
            if h.shape[0] > 0:
                _hermitian(x[member], z, w, h[member], n, team)

    return polar_by_threads


@functools.cache
def group_kernel(dtype: str, capacity: int) -> Any:
    """Kernel for matrices of size up to ``capacity``: 8, one to a warp, or 16 or 32, one to a block."""
    real = np.dtype(dtype).type
    slots = SLOTS if capacity == LANES else 1
    kind = WARP if capacity == LANES else BLOCK
    # A row more than the banks of shared memory divide evenly.
    shape = (slots, capacity, capacity + 1)

    @cuda.jit
    def polar_by_groups(x: Any, u: Any, h: Any, stats: Any, limits: Any, complete: Any) -> None:
        ws = cuda.shared.array(shape, real)
        vs = cuda.shared.array(shape, real)
        zs = cuda.shared.array(shape, real)
        squares = cuda.shared.array((slots, capacity), real)
        lengths = cuda.shared.array((slots, capacity), real)
        slot = cuda.threadIdx.y
        member = cuda.blockIdx.x * slots + slot
        # A warp leaves as a whole, and a block has one matrix.
        if member < x.shape[0]:
            n = x.shape[1]
            team = (kind, cuda.threadIdx.x, cuda.blockDim.x)
            room = (ws[slot], vs[slot], zs[slot], squares[slot], lengths[slot])
            _factor(x[member], u[member], stats[member], room, limits, complete, n, team)
            if h.shape[0] > 0:
                _hermitian(x[member], zs[slot], ws[slot], h[member], n, team)

    return polar_by_groups
