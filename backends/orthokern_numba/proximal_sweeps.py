"""Passes of the proximal method: from slacks and the plan before to the next plan, line by line.

The next plan minimizes cost and regularizer, plus ``|T - T_before|^2 / (2 tau)``: a line of it is the proximal map of
``lam = tau gamma`` times half the squared k-support norm at ``v = t_before + tau slack``.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .sweeps import FAST, MOST_STEPS, Costs, Support, collect, line, new_marks, with_room


class Proximal(NamedTuple):
    """The regularizer ``gamma / 2 |t|^2`` of a line in the k-support norm, and the proximal step ``tau``."""

    gamma: float
    k: int
    tau: float


class Terms(NamedTuple):
    """Sums over the lines: the conjugate function, the squared norms of the plan and its linear cost."""

    conjugate: float
    squares: float
    linear: float


@numba.njit(cache=True)
def share_level(v: np.ndarray, count: int, lam: float, k: int, guess: float) -> float:
    """Root ``w`` of ``sum_i clip(v_i / w - lam, 0, 1) = k`` for more than k positive ``v``, by Newton in a bracket."""
    top = 0.0
    for c in range(count):
        top = max(top, v[c])
    low, high = 0.0, top / lam
    w = guess if 0.0 < guess < high else top / (1.0 + lam)
    for _ in range(2 * MOST_STEPS):
        bound, full = lam * w, (1.0 + lam) * w
        number, size, weight = 0, 0, 0.0
        for c in range(count):
            if v[c] >= full:
                number += 1
            elif v[c] > bound:
                size += 1
                weight += v[c]
        slope = k - number + lam * size
        if weight == slope * w:
            break
        if weight > slope * w:
            low = w
        else:
            high = w
        found = weight / slope if slope > 0.0 else -1.0
        if abs(found - w) <= 4e-16 * w:
            break
        if not low < found < high:
            found = 0.5 * (low + high)
        if found in (low, high):
            break
        w = found
    return w


@numba.njit(cache=True, fastmath=FAST)
def _mark_positive(
    row: np.ndarray, p: np.ndarray, q: float, held: np.ndarray, tau: float, marks: np.ndarray
) -> None:
    for i in range(len(row)):
        marks[i] = held[i] + tau * (p[i] + q - row[i]) > 0.0


@numba.njit(cache=True)
def _positive(
    row: np.ndarray,
    p: np.ndarray,
    q: float,
    held: np.ndarray,
    tau: float,
    marks: np.ndarray,
    v: np.ndarray,
    place: np.ndarray,
) -> int:
    """Positive ``held + tau slack`` of a line, and their places; how many."""
    _mark_positive(row, p, q, held, tau, marks)
    count: int = collect(marks, len(p), place, 0)
    for c in range(count):
        i = place[c]
        v[c] = held[i] + tau * (p[i] + q - row[i])
    return count


@numba.njit(cache=True)
def _plan_line(
    v: np.ndarray,
    place: np.ndarray,
    count: int,
    step: Proximal,
    w: float,
    row: np.ndarray,
    support: Support,
    used: int,
    of_places: np.ndarray,
) -> tuple[int, int, float, Terms]:
    """Proximal map of one line at level ``w``, written to ``support`` from ``used`` on.

    Returns where it has its middle and its end, its sum and its terms.
    """
    tau, lam = step.tau, step.tau * step.gamma
    full, bound = (1.0 + lam) * w, lam * w
    total = conjugate = squares = linear = 0.0
    for c in range(count):
        if v[c] >= full:
            t = v[c] / (1.0 + lam)
            support.place[used], support.value[used] = place[c], t
            used += 1
            total += t
            squares += t * t
            conjugate += v[c] * t
            linear += t * row[place[c]]
            of_places[place[c]] += t
    middle = used
    conjugate *= 0.5 / tau
    if w > 0.0:
        for c in range(count):
            if bound < v[c] < full:
                t = v[c] - bound
                support.place[used], support.value[used] = place[c], t
                used += 1
                total += t
                squares += w * t
                conjugate += t * (v[c] - 0.5 * t) / tau - 0.5 * step.gamma * w * t
                linear += t * row[place[c]]
                of_places[place[c]] += t
    return middle, used, total, Terms(conjugate, squares, linear)


@numba.njit(cache=True)
def plan_sums(
    costs: Costs,
    p: np.ndarray,
    q: np.ndarray,
    step: Proximal,
    before: Support,
    levels: np.ndarray,
    of_places: np.ndarray,
    of_lines: np.ndarray,
    support: Support,
) -> tuple[Support, Terms]:
    """The next plan into ``support``, and its sums over places and lines.

    ``levels`` holds those of the last pass and gets those of this one, 0 for a line with at most k entries.
    """
    n, m = len(q), len(p)
    tau, lam = step.tau, step.tau * step.gamma
    buffer, held, v, marks = np.empty(m), np.zeros(m), np.empty(m), new_marks(m)
    place = np.empty(m + 1, dtype=np.int32)
    of_places[:] = 0.0
    used = 0
    conjugate = squares = linear = 0.0
    for j in range(n):
        start, end = before.start[j], before.start[j + 1]
        for e in range(start, end):
            held[before.place[e]] = before.value[e]
        row = line(costs, j, buffer)
        count = _positive(row, p, q[j], held, tau, marks, v, place)
        levels[j] = (
            share_level(v, count, lam, step.k, levels[j]) if count > step.k and lam > 0 else 0.0
        )
        support = with_room(support, used, count)
        middle, used, total, terms = _plan_line(
            v, place, count, step, levels[j], row, support, used, of_places
        )
        support.middle[j], support.start[j + 1] = middle, used
        shared = used - middle
        remaining = step.k - (middle - support.start[j]) + lam * shared
        support.share[j] = lam / remaining if shared > 0 and remaining > 0.0 else 0.0
        of_lines[j] = total
        conjugate += terms.conjugate
        squares += terms.squares
        linear += terms.linear
        for e in range(start, end):
            conjugate -= 0.5 * before.value[e] * before.value[e] / tau
            held[before.place[e]] = 0.0
    return support, Terms(conjugate, squares, linear)


@numba.njit(cache=True)
def _bring_largest_last(v: np.ndarray, count: int, k: int) -> None:
    """Reorder the first ``count`` entries so that the k largest of them come last, by Hoare's selection."""
    low, high, target = 0, count - 1, count - k
    while low < high:
        pivot, i, j = v[(low + high) // 2], low, high
        while i <= j:
            while v[i] < pivot:
                i += 1
            while v[j] > pivot:
                j -= 1
            if i <= j:
                v[i], v[j] = v[j], v[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break


@numba.njit(cache=True)
def regularizer_conjugate(
    costs: Costs, p: np.ndarray, q: np.ndarray, gamma: float, k: int
) -> float:
    """Sum over the lines of the k largest squares of positive slacks, over ``2 gamma``."""
    m = len(p)
    buffer, held, v, marks = np.empty(m), np.zeros(m), np.empty(m), new_marks(m)
    place = np.empty(m + 1, dtype=np.int32)
    total = 0.0
    for j in range(len(q)):
        row = line(costs, j, buffer)
        count = _positive(row, p, q[j], held, 1.0, marks, v, place)
        if count > k:
            _bring_largest_last(v, count, k)
        for c in range(max(count - k, 0), count):
            total += v[c] * v[c]
    return 0.5 * total / gamma
