"""Passes over the costs of a transport problem: positive slacks, their sums, where they are, and coordinate maxima.

A problem is seen as n lines of m places. ``p`` (m,) and ``q`` (n,) are the potentials of places and lines; the slack of
an entry is ``p_i + q_j - c_ji``. A line of costs is a row of a matrix, or is computed from points when it is needed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

# Sums may be taken in any order, so that they run in vector registers. Costs may be infinite: no flag says otherwise.
FAST = {"reassoc", "contract", "nsz"}
BLOCK = 64
# Newton steps on one coordinate: they are monotone and end after few.
MOST_STEPS = 60


class Costs(NamedTuple):
    """Costs of n lines of m places: ``matrix`` (n, m), or where that is empty ``scale |place - line|_2^power``.

    ``places`` is (d, m) and ``lines`` is (n, d).
    """

    matrix: np.ndarray
    places: np.ndarray
    lines: np.ndarray
    power: float
    scale: float


class Support(NamedTuple):
    """Positive entries of a plan, line by line, ``place[start[j]:start[j + 1]]`` with ``value``.

    Entries from ``middle[j]`` on share what the ``k`` largest of the line leave them: their derivative is the identity
    less ``share[j]`` times the matrix of ones. The arrays of entries may be longer than there are entries.
    """

    start: np.ndarray
    middle: np.ndarray
    share: np.ndarray
    place: np.ndarray
    value: np.ndarray


@numba.njit(cache=True)
def empty_support(n: int, room: int) -> Support:
    """A support of n lines without entries."""
    return Support(
        np.zeros(n + 1, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n),
        np.empty(room, dtype=np.int32),
        np.empty(room),
    )


@numba.njit(cache=True)
def with_room(support: Support, used: int, more: int) -> Support:
    """``support`` with room for ``more`` entries after the first ``used`` ones."""
    room = len(support.place)
    if used + more <= room:
        return support
    place = np.empty(max(2 * room, used + more), dtype=np.int32)
    value = np.empty(len(place))
    place[:used] = support.place[:used]
    value[:used] = support.value[:used]
    return Support(support.start, support.middle, support.share, place, value)


@numba.njit(cache=True, fastmath=FAST)
def line(costs: Costs, j: int, buffer: np.ndarray) -> np.ndarray:
    """Costs of line ``j``: a row of the matrix, or ``buffer`` filled from the points."""
    if costs.matrix.shape[0] > 0:
        return costs.matrix[j]
    buffer[:] = 0.0
    for d in range(costs.places.shape[0]):
        here = costs.lines[j, d]
        place = costs.places[d]
        for i in range(len(buffer)):
            step = place[i] - here
            buffer[i] += step * step
    if costs.power == 2.0:
        for i in range(len(buffer)):
            buffer[i] *= costs.scale
    elif costs.power == 1.0:
        for i in range(len(buffer)):
            buffer[i] = math.sqrt(buffer[i]) * costs.scale
    else:
        for i in range(len(buffer)):
            buffer[i] = buffer[i] ** (0.5 * costs.power) * costs.scale
    return buffer


@numba.njit(cache=True)
def entry(costs: Costs, j: int, i: int) -> float:
    """One cost."""
    if costs.matrix.shape[0] > 0:
        return costs.matrix[j, i]  # type: ignore[no-any-return]
    total = 0.0
    for d in range(costs.places.shape[0]):
        step = costs.places[d, i] - costs.lines[j, d]
        total += step * step
    return float(total ** (0.5 * costs.power) * costs.scale)


@numba.njit(cache=True, fastmath=FAST)
def _one_line(row: np.ndarray, p: np.ndarray, q: float, sums: np.ndarray) -> tuple[float, float]:
    """Sum and sum of squares of the positive slacks of a line; each is added to the sum of its place."""
    total = squares = 0.0
    for i in range(len(row)):
        x = max(p[i] + q - row[i], 0.0)
        total += x
        squares += x * x
        sums[i] += x
    return total, squares


@numba.njit(cache=True, fastmath=FAST)
def _two_lines(
    row: np.ndarray, other: np.ndarray, p: np.ndarray, q: float, r: float, sums: np.ndarray
) -> tuple[float, float, float]:
    """Two lines at once: the potentials and sums of the places are read and written half as often."""
    total = second = squares = 0.0
    for i in range(len(row)):
        x = max(p[i] + q - row[i], 0.0)
        y = max(p[i] + r - other[i], 0.0)
        total += x
        second += y
        squares += x * x + y * y
        sums[i] += x + y
    return total, second, squares


@numba.njit(cache=True)
def slack_sums(
    costs: Costs, p: np.ndarray, q: np.ndarray, of_places: np.ndarray, of_lines: np.ndarray
) -> float:
    """Sums of the positive slacks of every place and line into the two last arguments; the sum of their squares."""
    n, m = len(q), len(p)
    buffers = np.empty((2, m))
    of_places[:] = 0.0
    squares = 0.0
    for j in range(0, n - 1, 2):
        row, other = line(costs, j, buffers[0]), line(costs, j + 1, buffers[1])
        first, second, both = _two_lines(row, other, p, q[j], q[j + 1], of_places)
        of_lines[j], of_lines[j + 1] = first, second
        squares += both
    if n % 2 == 1:
        total, last = _one_line(line(costs, n - 1, buffers[0]), p, q[n - 1], of_places)
        of_lines[n - 1] = total
        squares += last
    return squares


@numba.njit(cache=True, fastmath=FAST)
def _any_positive(row: np.ndarray, p: np.ndarray, q: float, low: int, high: int) -> bool:
    total = 0.0
    for i in range(low, high):
        total += max(p[i] + q - row[i], 0.0)
    return total > 0.0


@numba.njit(cache=True)
def slack_support(
    costs: Costs, p: np.ndarray, q: np.ndarray, weight: float, support: Support
) -> Support:
    """Where slacks are positive, and ``weight`` times them; the arrays of ``support`` are used again."""
    m = len(p)
    buffer = np.empty(m)
    used = 0
    for j in range(len(q)):
        support = with_room(support, used, m)
        place, value = support.place, support.value
        row = line(costs, j, buffer)
        for low in range(0, m, BLOCK):
            high = min(m, low + BLOCK)
            if not _any_positive(row, p, q[j], low, high):
                continue
            for i in range(low, high):
                x = p[i] + q[j] - row[i]
                place[used], value[used] = i, weight * x
                used += x > 0.0
        support.start[j + 1] = support.middle[j] = used
    support.share[:] = 0.0
    return support


@numba.njit(cache=True)
def cheapest(costs: Costs, p: np.ndarray, n: int) -> np.ndarray:
    """``min_i c_ji - p_i`` for each line; 0 where everything is forbidden."""
    buffer = np.empty(len(p))
    found = np.zeros(n)
    for j in range(n):
        row = line(costs, j, buffer)
        least = np.inf
        for i in range(len(p)):
            least = min(least, row[i] - p[i])
        if least < np.inf:
            found[j] = least
    return found


@numba.njit(cache=True)
def _line_maximizer(row: np.ndarray, p: np.ndarray, wanted: float) -> float:
    """The potential of a line whose positive slacks sum to ``wanted``; infinite where everything is forbidden.

    Newton's method from the right, where the sum is convex and too large.
    """
    top = -np.inf
    for i in range(len(p)):
        top = max(top, p[i] - row[i])
    q = wanted - top
    if top == -np.inf:
        return q
    for _ in range(MOST_STEPS):
        total, count = 0.0, 0
        for i in range(len(p)):
            x = p[i] + q - row[i]
            if x > 0.0:
                total += x
                count += 1
        if count == 0 or total <= wanted:
            break
        q -= (total - wanted) / count
    return q


@numba.njit(cache=True)
def maximize_lines(
    costs: Costs, p: np.ndarray, q: np.ndarray, wanted: np.ndarray, chosen: np.ndarray
) -> bool:
    """Set ``q_j`` where ``chosen`` so that positive slacks sum to ``wanted_j``. False where a line is forbidden."""
    buffer = np.empty(len(p))
    possible = True
    for j in range(len(q)):
        if chosen[j]:
            found = _line_maximizer(line(costs, j, buffer), p, wanted[j])
            if found < np.inf:
                q[j] = found
            else:
                possible = False
    return possible


@numba.njit(cache=True)
def _place_tops(costs: Costs, q: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``max_j q_j - c_ji`` for the places ``where``."""
    top = np.full(len(where), -np.inf)
    for j in range(len(q)):
        for s in range(len(where)):
            top[s] = max(top[s], q[j] - entry(costs, j, where[s]))
    return top


@numba.njit(cache=True)
def maximize_places(
    costs: Costs, p: np.ndarray, q: np.ndarray, wanted: np.ndarray, chosen: np.ndarray
) -> bool:
    """The same for places, all of them together so that costs are read line by line."""
    where = np.flatnonzero(chosen)
    top = _place_tops(costs, q, where)
    total, count = np.empty(len(where)), np.empty(len(where))
    possible = True
    for s in range(len(where)):
        if top[s] > -np.inf:
            p[where[s]] = wanted[where[s]] - top[s]
        else:
            possible = False
    for _ in range(MOST_STEPS):
        total[:], count[:] = 0.0, 0.0
        for j in range(len(q)):
            for s in range(len(where)):
                x = p[where[s]] + q[j] - entry(costs, j, where[s])
                if x > 0.0:
                    total[s] += x
                    count[s] += 1.0
        moved = False
        for s in range(len(where)):
            excess = total[s] - wanted[where[s]]
            if count[s] > 0.0 and excess > 1e-15 * wanted[where[s]]:
                p[where[s]] -= excess / count[s]
                moved = True
        if not moved:
            break
    return possible
