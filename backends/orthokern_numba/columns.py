"""Projections on the simplex and the proximal map of the k-support norm, row by row and without sorting."""

from __future__ import annotations

import math

import numba
import numpy as np

from .library import aligned_empty

# Steps towards the level of a proximal map, at most; every so many halve the bracket, whatever Newton says.
MOST_STEPS, HALVING = 100, 4


@numba.njit(cache=True)
def _candidates(
    row: np.ndarray, least: float, top: float, z: float, u: np.ndarray, place: np.ndarray
) -> int:
    """Entries from ``least`` on and less than ``z`` below the largest, as ``(entry - top) / z``; how many.

    No other can be positive.
    """
    count = 0
    half = 0.5 * z
    for i in range(len(row)):
        # In halves, because the difference of the largest numbers of opposite sign is none.
        gap = 0.5 * top - 0.5 * np.float64(row[i])
        if gap < half and row[i] >= least:
            u[count] = -gap / half
            place[count] = i
            count += 1
    return count


@numba.njit(cache=True)
def _first_of_equal(
    row: np.ndarray, least: float, k: int, u: np.ndarray, place: np.ndarray, count: int
) -> int:
    """``k`` of the candidates: of those that equal ``least`` the first. The number left."""
    room = k
    for c in range(count):
        room -= row[place[c]] > least
    kept = 0
    for c in range(count):
        equal = row[place[c]] == least
        if not equal or room > 0:
            room -= equal
            u[kept], place[kept] = u[c], place[c]
            kept += 1
    return kept


@numba.njit(cache=True)
def _threshold(u: np.ndarray, place: np.ndarray, count: int) -> tuple[float, int]:
    """The ``theta`` with ``sum max(u - theta, 0) = 1``, by Newton from the left, and the number of entries above it."""
    total = 0.0
    for c in range(count):
        total += u[c]
    theta = (total - 1.0) / count
    while True:
        kept = 0
        total = 0.0
        for c in range(count):
            if u[c] > theta:
                u[kept], place[kept] = u[c], place[c]
                total += u[c]
                kept += 1
        if not 0 < kept < count:
            break
        count = kept
        theta = (total - 1.0) / count
    return theta, count


@numba.njit(cache=True)
def _write_support(
    u: np.ndarray, place: np.ndarray, count: int, theta: float, z: float, y: np.ndarray
) -> None:
    """Entries above the threshold into ``y``; their sum is brought to ``z`` once more."""
    total = 0.0
    for c in range(count):
        u[c] -= theta
        total += u[c]
    excess = (total - 1.0) / count
    for c in range(count):
        y[place[c]] = max(u[c] - excess, 0.0) * z


@numba.njit(cache=True)
def _project_rows(v: np.ndarray, z: np.ndarray, least: np.ndarray, k: int, out: np.ndarray) -> None:
    n = v.shape[1]
    u, place = np.empty(n), np.empty(n, dtype=np.int64)
    for r in range(v.shape[0]):
        top, known = -np.inf, True
        for i in range(n):
            known = known and not math.isnan(v[r, i])
            top = max(top, v[r, i])
        if not known or math.isinf(top) or math.isnan(z[r]):
            out[r] = np.nan
            continue
        out[r] = 0.0
        if 0.5 * z[r] > 0.0:
            count = _candidates(v[r], least[r], top, z[r], u, place)
            if count > k:
                count = _first_of_equal(v[r], least[r], k, u, place, count)
            theta, count = _threshold(u, place, count)
            _write_support(u, place, count, theta, z[r], out[r])


def _rows(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _one_for_each(values: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.broadcast_to(values, (*v.shape[:-1], 1)).astype(np.float64).reshape(-1)


def simplex_projection(v: np.ndarray, z: np.ndarray, *, k: int) -> np.ndarray:
    """Projection of the ``k`` largest entries of each row of ``v`` (..., n) on the simplex of sum ``z`` (..., 1).

    Newton steps on the threshold over the entries that are left: O(n), where a sort is O(n log n).
    """
    out = aligned_empty(v.shape, v.dtype)
    rows, n = _rows(v), v.shape[-1]
    least = np.full(len(rows), -np.inf, dtype=v.dtype)
    if k < n:
        # NumPy selects with vector instructions.
        least[:] = np.partition(rows, n - k, axis=1)[:, n - k]
    _project_rows(rows, _one_for_each(z, v), least, k, out.reshape(-1, n))
    return out


@numba.njit(cache=True)
def _bracket(p: np.ndarray, lam: float, k: int) -> tuple[float, float, float]:
    """``(low, high, next)``: bounds of the level, and the largest entry that is not among the first k."""
    n = len(p)
    parted = np.partition(p, (n - k - 1, n - k))
    last, following, tail = float(parted[n - k]), float(parted[n - k - 1]), 0.0
    for i in range(n - k + 1):
        tail += parted[i]
    high = tail if lam * tail <= following else following / lam
    return last / (1.0 + lam), high, following


@numba.njit(cache=True)
def _level(p: np.ndarray, lam: float, k: int) -> float:
    """Root ``w`` of ``sum_i clip(p_i / w - lam, 0, 1) = k``, by Newton steps inside a bracket."""
    bracket: tuple[float, float, float] = _bracket(p, lam, k)
    low, high, following = bracket
    if following <= 0.0:
        return 0.0
    w = low
    if low >= high:
        return w
    eps = 2.0**-52
    w, low, high = high, low * (1 - 4 * eps), high * (1 + 4 * eps)
    for step in range(MOST_STEPS):
        bound, full = lam * w, (1.0 + lam) * w
        number, size, weight = 0, 0, 0.0
        for i in range(len(p)):
            part = p[i] > bound and p[i] < full
            number += p[i] >= full
            size += part
            weight += p[i] if part else 0.0
        slope = k - number + lam * size
        found = weight / slope if slope > 0 else -1.0
        if weight == slope * w or abs(found - w) <= 2 * eps * w:
            break
        if weight > slope * w:
            low = w
        else:
            high = w
        if found <= low or found >= high or step % HALVING == HALVING - 1:
            found = math.sqrt(low) * math.sqrt(high)
        moved = abs(found - w)
        w = found
        if moved <= 2 * eps * w:
            break
    return w


@numba.njit(cache=True)
def _prox_rows(v: np.ndarray, lam: np.ndarray, k: int, t: np.ndarray, level: np.ndarray) -> None:
    n = v.shape[1]
    p = np.empty(n)
    for r in range(v.shape[0]):
        top, known = 0.0, True
        for i in range(n):
            known = known and not math.isnan(v[r, i])
            top = max(top, v[r, i])
        if not known or math.isinf(top) or math.isnan(lam[r]):
            t[r], level[r] = np.nan, np.nan
            continue
        exponent = math.frexp(top)[1]
        for i in range(n):
            p[i] = math.ldexp(np.float64(max(v[r, i], 0.0)), -exponent)
        w = _level(p, lam[r], k) if k < n else 0.0
        for i in range(n):
            t[r, i] = math.ldexp(min(max(p[i] - lam[r] * w, 0.0), p[i] / (1.0 + lam[r])), exponent)
        level[r] = math.ldexp(w, exponent)


def ksupport_prox(v: np.ndarray, lam: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``(t, w)``: the proximal map of each row of ``v`` (..., n) and its level (..., 1); ``lam`` (..., 1).

    A selection brackets the level, Newton steps over the row find it.
    """
    t, w = aligned_empty(v.shape, v.dtype), aligned_empty((*v.shape[:-1], 1), v.dtype)
    _prox_rows(_rows(v), _one_for_each(lam, v), k, t.reshape(-1, v.shape[-1]), w.reshape(-1))
    return t, w
