"""Linear assignment by shortest augmenting paths (Jonker and Volgenant), with the potentials that prove it."""

from __future__ import annotations

import math

import numba
import numpy as np

from .minimum import lowest
from .simplex import PIVOTS_PER_NODE, flows, solve

# Bids of a row for its cheapest column before the shortest paths take over, on the average.
BIDS = 3
# Rows that the shortest paths of one row may look at, on the average, before the simplex method takes over. Random
# costs need 30 at any size, clouds of 2000 points 90, clouds far from each other a fixed share of all rows.
MOST_LOOKS = 60


@numba.njit(cache=True)
def _reduce_columns(cost: np.ndarray, v: np.ndarray, owner: np.ndarray, chosen: np.ndarray) -> None:
    """Potentials of the columns of a square problem are their least costs; rows that have one there take it."""
    m, n = cost.shape
    place = np.zeros(n, np.int32)
    v[:] = cost[0]
    for i in range(1, m):
        for j in range(n):
            smaller = cost[i, j] < v[j]
            v[j] = cost[i, j] if smaller else v[j]
            place[j] = i if smaller else place[j]
    for j in range(n):
        i = place[j]
        if not math.isfinite(v[j]):
            v[j] = 0.0
        elif chosen[i] < 0:
            chosen[i], owner[j] = j, i


@numba.njit(cache=True)
def _two_cheapest(row: np.ndarray, v: np.ndarray) -> tuple[int, float, int, float]:
    """``(column, cost, column, cost)``: the cheapest at these potentials, and the next one."""
    j1, j2, u1, u2 = -1, -1, np.inf, np.inf
    for j in range(len(row)):
        value = row[j] - v[j]
        if value < u2:
            if value < u1:
                j2, u2, j1, u1 = j1, u1, j, value
            else:
                j2, u2 = j, value
    return j1, u1, j2, u2


@numba.njit(cache=True)
def _bid(cost: np.ndarray, v: np.ndarray, owner: np.ndarray, chosen: np.ndarray) -> None:
    """Rows without a column take their cheapest one, and lower its potential until the next one is as cheap."""
    waiting = np.empty((BIDS + 1) * len(cost), np.int32)
    count = 0
    for i in range(len(cost)):
        if chosen[i] < 0:
            waiting[count] = i
            count += 1
    turn, most = 0, BIDS * count
    while turn < min(count, most):
        i = waiting[turn]
        turn += 1
        j, least, other, next_ = _two_cheapest(cost[i], v)
        if next_ == np.inf:
            continue
        if v[j] - (next_ - least) < v[j]:
            v[j] -= next_ - least
        elif owner[j] >= 0:
            j = other
            if owner[j] >= 0:
                continue
        loser = owner[j]
        chosen[i], owner[j] = j, i
        if loser >= 0:
            chosen[loser] = -1
            waiting[count] = loser
            count += 1


@numba.njit(cache=True)
def _relax(
    row: np.ndarray, v: np.ndarray, base: float, i: float, distance: np.ndarray, before: np.ndarray
) -> None:
    """Shorten the ways to the columns by row ``i``."""
    for j in range(len(row)):
        way, known, last = base + (row[j] - v[j]), distance[j], before[j]
        before[j] = i if way < known else last
        distance[j] = way if way < known else known


@numba.njit(cache=True)
def _search(
    cost: np.ndarray,
    v: np.ndarray,
    owner: np.ndarray,
    start: int,
    ways: tuple[np.ndarray, ...],
    scanned: tuple[np.ndarray, np.ndarray],
) -> tuple[int, int]:
    """``(column, looks)``: the nearest free column, -1 if there is none, and the number of rows looked at.

    Its way is in ``before``, and the potentials of the columns make it tight.
    """
    distance, before, taken, level = ways
    order, finals = scanned
    distance[:] = np.inf
    i, base, count = start, 0.0, 0
    while True:
        _relax(cost[i], v, base, float(i), distance, before)
        low = lowest(distance, level)
        if lowest(distance, taken) == low:
            break
        j = 0
        while distance[j] != low:
            j += 1
        i = owner[j]
        base = low - (cost[i, j] - v[j])
        # No way leads to a column a second time.
        order[count], finals[count, 0], finals[count, 1] = j, low, v[j]
        distance[j], v[j] = np.inf, -np.inf
        count += 1
    for k in range(count):
        v[order[k]] = finals[k, 1] - (low - finals[k, 0] if low < np.inf else 0.0)
    if low == np.inf:
        return -1, count + 1
    j = 0
    while distance[j] != low or taken[j] > 0:
        j += 1
    return j, count + 1


@numba.njit(cache=True)
def _augment(cost: np.ndarray, v: np.ndarray, owner: np.ndarray, chosen: np.ndarray) -> bool:
    """Each row that has no column gets one along the shortest path to a free column; False if that takes too long."""
    m, n = cost.shape
    # The rows before are kept as numbers of the width of a distance, so that one loop has lanes of one width.
    distance, before, level = np.empty(n), np.empty(n), np.zeros(n)
    taken = np.where(owner < 0, 0.0, np.inf)
    scanned = np.empty(n, np.int64), np.empty((n, 2))
    left = MOST_LOOKS * m
    for start in range(m):
        if chosen[start] >= 0:
            continue
        j, looks = _search(cost, v, owner, start, (distance, before, taken, level), scanned)
        left -= looks
        if left < 0:
            return False
        if j < 0:
            continue
        taken[j] = np.inf
        while j >= 0:
            i = int(before[j])
            owner[j], chosen[i], j = i, j, chosen[i]
    return True


@numba.njit(cache=True)
def _row_potentials(cost: np.ndarray, v: np.ndarray, u: np.ndarray) -> None:
    """The greatest that are feasible; zero for a row that no column is open to."""
    lifted = -v
    for i in range(len(cost)):
        low = lowest(cost[i], lifted)
        u[i] = low if low < np.inf else 0.0


@numba.njit(cache=True)
def _by_paths(
    cost: np.ndarray, chosen: np.ndarray, u: np.ndarray, v: np.ndarray, done: np.ndarray
) -> None:
    """Assign the rows of each problem; ``done`` says which ones did not take too long."""
    batch, m, n = cost.shape
    for k in range(batch):
        owner = np.full(n, -1, np.int64)
        chosen[k], v[k] = -1, 0.0
        if m == n:
            _reduce_columns(cost[k], v[k], owner, chosen[k])
        _bid(cost[k], v[k], owner, chosen[k])
        done[k] = _augment(cost[k], v[k], owner, chosen[k])
        _row_potentials(cost[k], v[k], u[k])


def _by_simplex(cost: np.ndarray, chosen: np.ndarray, v: np.ndarray) -> None:
    """The same by the network simplex method; one more row, at no cost, takes the columns that are left over."""
    m, n = cost.shape
    spare = int(m < n)
    full = np.zeros((m + spare, n))
    exponent = math.frexp(np.max(np.abs(cost), where=np.isfinite(cost), initial=0.0))[1]
    np.ldexp(cost, -exponent, out=full[:m])
    supply = np.ones(m + spare, np.int64)
    supply[m:] = n - m
    tree, height, *_ = solve(supply, np.ones(n, np.int64), full, PIVOTS_PER_NODE * (m + n))
    rows, columns, amounts = flows(tree, m + spare)
    real = (rows < m) & (amounts > 0)
    chosen[:] = -1
    chosen[rows[real]] = columns[real]
    level = height[m] if spare else 0.0
    v[:] = np.ldexp(level - height[m + spare : -1], exponent)
    if spare:
        np.minimum(v, 0.0, out=v)


def assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(columns, alpha, beta)`` of each problem (m, n), m <= n, of the batch; -1 for a row that gets no column."""
    batch, (m, n) = cost.shape[:-2], cost.shape[-2:]
    problems = np.ascontiguousarray(cost, dtype=np.float64).reshape(-1, m, n)
    chosen = np.empty((len(problems), m), np.int64)
    u, v = np.empty((len(problems), m)), np.empty((len(problems), n))
    done = np.empty(len(problems), np.bool_)
    _by_paths(problems, chosen, u, v, done)
    for k in np.flatnonzero(~done):
        _by_simplex(problems[k], chosen[k], v[k])
        _row_potentials(problems[k], v[k], u[k])
    alpha, beta = (x.astype(cost.dtype, copy=False).reshape(*batch, -1) for x in (u, v))
    return chosen.reshape(*batch, m), alpha, beta
