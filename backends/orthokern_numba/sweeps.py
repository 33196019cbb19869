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
WORD = 8
# Newton steps on one coordinate: they are monotone and end after few.
MOST_STEPS = 60
# Relative excess of a sum at which they stop.
ENOUGH = 1e-3


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
    for e in range(used):
        place[e], value[e] = support.place[e], support.value[e]
    return Support(support.start, support.middle, support.share, place, value)


@numba.njit(cache=True, fastmath=FAST)
def line(costs: Costs, j: int, buffer: np.ndarray) -> np.ndarray:
    """Costs of line ``j``: a row of the matrix, or ``buffer`` filled from the points."""
    if costs.matrix.shape[0] > 0:
        row: np.ndarray = costs.matrix[j]
        return row
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


@numba.njit(cache=True)
def new_marks(m: int) -> np.ndarray:
    """One byte to a place, and as many more as fill the last word of eight."""
    return np.zeros((m + WORD - 1) // WORD * WORD, dtype=np.uint8)


@numba.njit(cache=True)
def collect(marks: np.ndarray, m: int, place: np.ndarray, used: int) -> int:
    """Write the marked places to ``place`` from ``used`` on, eight at a time where any is; where they end."""
    words = marks.view(np.uint64)
    for w in range(len(words)):
        if words[w] != 0:
            for i in range(WORD * w, min(WORD * w + WORD, m)):
                place[used] = i
                used += marks[i]
    return used


@numba.njit(cache=True, fastmath=FAST)
def _mark_positive(row: np.ndarray, p: np.ndarray, q: float, marks: np.ndarray) -> None:
    for i in range(len(row)):
        marks[i] = p[i] + q - row[i] > 0.0


@numba.njit(cache=True)
def slack_support(
    costs: Costs, p: np.ndarray, q: np.ndarray, weight: float, support: Support
) -> Support:
    """Where slacks are positive, and ``weight`` times them; the arrays of ``support`` are used again."""
    m = len(p)
    buffer, marks = np.empty(m), new_marks(m)
    used = 0
    for j in range(len(q)):
        support = with_room(support, used, m + 1)
        row = line(costs, j, buffer)
        _mark_positive(row, p, q[j], marks)
        first = used
        used = collect(marks, m, support.place, used)
        for e in range(first, used):
            i = support.place[e]
            support.value[e] = weight * (p[i] + q[j] - row[i])
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


@numba.njit(cache=True, fastmath=FAST)
def _sum_and_count(row: np.ndarray, p: np.ndarray, q: float) -> tuple[float, float]:
    """Sum and number of the positive slacks of a line."""
    total = count = 0.0
    for i in range(len(row)):
        x = p[i] + q - row[i]
        total += max(x, 0.0)
        count += 1.0 if x > 0.0 else 0.0
    return total, count


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
        total, count = _sum_and_count(row, p, q)
        if count == 0.0 or total <= wanted * (1.0 + ENOUGH):
            break
        q -= (total - wanted) / count
    return q


@numba.njit(cache=True)
def _lowered(
    row: np.ndarray, before: Support, factor: float, j: int, buffer: np.ndarray
) -> np.ndarray:
    """Costs of a line less ``factor`` times the plan ``before``."""
    start, end = before.start[j], before.start[j + 1]
    if start == end:
        return row
    for i in range(len(row)):
        buffer[i] = row[i]
    for e in range(start, end):
        buffer[before.place[e]] -= factor * before.value[e]
    return buffer


@numba.njit(cache=True)
def maximize_lines(
    costs: Costs,
    before: Support,
    factor: float,
    p: np.ndarray,
    q: np.ndarray,
    wanted: np.ndarray,
    chosen: np.ndarray,
) -> bool:
    """Set ``q_j`` where ``chosen`` so that positive slacks sum to ``wanted_j``. False where a line is forbidden.

    Costs are counted less ``factor`` times the plan ``before``.
    """
    buffers = np.empty((2, len(p)))
    possible = True
    for j in range(len(q)):
        if chosen[j]:
            row = _lowered(line(costs, j, buffers[0]), before, factor, j, buffers[1])
            found = _line_maximizer(row, p, wanted[j])
            if found < np.inf:
                q[j] = found
            else:
                possible = False
    return possible


@numba.njit(cache=True, fastmath=FAST)
def _raise_tops(row: np.ndarray, q: float, top: np.ndarray) -> None:
    for i in range(len(row)):
        top[i] = max(top[i], q - row[i])


@numba.njit(cache=True, fastmath=FAST)
def _add_sums_and_counts(
    row: np.ndarray, p: np.ndarray, q: float, total: np.ndarray, count: np.ndarray
) -> None:
    for i in range(len(row)):
        x = p[i] + q - row[i]
        total[i] += max(x, 0.0)
        count[i] += 1.0 if x > 0.0 else 0.0


@numba.njit(cache=True)
def maximize_places(
    costs: Costs,
    before: Support,
    factor: float,
    p: np.ndarray,
    q: np.ndarray,
    wanted: np.ndarray,
    chosen: np.ndarray,
) -> bool:
    """The same for places, all of them together so that costs are read line by line."""
    m = len(p)
    buffers, top, total, count = np.empty((2, m)), np.full(m, -np.inf), np.empty(m), np.empty(m)
    for j in range(len(q)):
        row = _lowered(line(costs, j, buffers[0]), before, factor, j, buffers[1])
        _raise_tops(row, q[j], top)
    possible = True
    for i in range(m):
        if chosen[i]:
            possible = possible and top[i] > -np.inf
            p[i] = wanted[i] - top[i] if top[i] > -np.inf else p[i]
    for _ in range(MOST_STEPS):
        total[:], count[:] = 0.0, 0.0
        for j in range(len(q)):
            row = _lowered(line(costs, j, buffers[0]), before, factor, j, buffers[1])
            _add_sums_and_counts(row, p, q[j], total, count)
        moved = False
        for i in range(m):
            if chosen[i] and count[i] > 0.0 and total[i] > wanted[i] * (1.0 + ENOUGH):
                p[i] -= (total[i] - wanted[i]) / count[i]
                moved = True
        if not moved:
            break
    return possible
