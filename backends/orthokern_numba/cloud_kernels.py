"""Compiled sweeps of entropic transport between clouds of points: one row of the cost at a time, in the cache.

Potentials and costs are in units of epsilon. A row of the plan is made, summed, and added to the sums of the columns
with the factor that its update gives it: so one evaluation of every exponential is a whole sweep.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .entropic_kernels import (
    DONE,
    EPSILON_STEP,
    FAST,
    FIRST_EPSILON,
    OUT,
    STAGE_ERROR,
    STUCK,
    WINDOW,
    better,
    exponential,
    relaxed,
)

# By how much the potential of a column is raised while nothing is seen of it.
SHOWING = 600.0
# Plain sweeps of a window that leave more than this part of the error have stalled.
STALLING = 1.0 - 1e-4


@numba.njit(cache=True, fastmath={"contract"})
def _cost_row(x: np.ndarray, y: np.ndarray, p: float, scale: float, row: np.ndarray) -> None:
    """``scale |x - y_j|^p`` for the points y (d, n)."""
    row[:] = 0.0
    for c in range(len(x)):
        xc, yc = x[c], y[c]
        for j in range(len(row)):
            gap = xc - yc[j]
            row[j] += gap * gap
    if p == 2.0:
        for j in range(len(row)):
            row[j] *= scale
    elif p == 1.0:
        for j in range(len(row)):
            row[j] = math.sqrt(row[j]) * scale
    else:
        for j in range(len(row)):
            row[j] = row[j] ** (0.5 * p) * scale


@numba.njit(cache=True, fastmath=FAST)
def _exponentials(f: float, g: np.ndarray, row: np.ndarray) -> float:
    """``row <- exp(f + g - row)`` and its sum."""
    total = 0.0
    for j in range(len(row)):
        row[j] = exponential((f + g[j]) - row[j])
        total += row[j]
    return total


@numba.njit(cache=True, fastmath=FAST)
def _add(c: float, row: np.ndarray, total: np.ndarray) -> None:
    for j in range(len(row)):
        total[j] += c * row[j]


@numba.njit(cache=True)
def _cloud_rows(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    p: float,
    scale: float,
    theta: float,
    f: np.ndarray,
    g: np.ndarray,
    row: np.ndarray,
    total: np.ndarray,
) -> float:
    """Relaxed update of f (in units of epsilon, as g and ``scale``), sums of the columns; the error of the rows."""
    total[:] = 0.0
    error = 0.0
    for i in range(len(a)):
        _cost_row(x[i], y, p, scale, row)
        found = _exponentials(f[i], g, row)
        error += abs(found - a[i])
        if not 0.0 < found < np.inf:
            _cost_row(x[i], y, p, scale, row)
            f[i] = -np.max(g - row)
            found = _exponentials(f[i], g, row)
            error = np.inf
        factor = relaxed(1.0, found, a[i], theta)
        f[i] += math.log(factor)
        _add(factor, row, total)
    return error


@numba.njit(cache=True)
def _cloud_columns(b: np.ndarray, theta: float, g: np.ndarray, total: np.ndarray) -> float:
    """Relaxed update of g for sums of the columns; the error that these have after it."""
    error = 0.0
    for j in range(len(b)):
        if total[j] > 0.0:
            factor = relaxed(1.0, total[j], b[j], theta)
            g[j] += math.log(factor)
            error += abs(factor * total[j] - b[j])
        else:
            g[j] += SHOWING
            error = np.inf
    return error


@numba.njit(cache=True)
def solve_clouds(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    scale: float,
    p: float,
    tol: float,
    max_iter: int,
    f: np.ndarray,
    g: np.ndarray,
) -> tuple[int, float, int]:
    """Potentials f, g in units of epsilon for points x (m, d) and y (d, n): ``(sweeps, error, reason)``."""
    row, total, old = np.empty(len(b)), np.empty(len(b)), np.empty(len(a))
    e = max(epsilon, FIRST_EPSILON)
    log_a, log_b = np.log(a), np.log(b)
    f[:], g[:] = log_a, log_b
    theta, age, error, before, column_error = 0.0, 0, np.inf, np.inf, np.inf
    reason, taken = OUT, max_iter
    for count in range(max_iter):
        old[:] = f
        error = column_error + _cloud_rows(x, y, a, p, scale / e, theta, f, g, row, total)
        last = e == epsilon
        if error <= (tol if last else STAGE_ERROR):
            f[:] = old
            if last:
                return count, error, DONE
            new = max(epsilon, EPSILON_STEP * e)
            f[:] = log_a + (f - log_a) * (e / new)
            g[:] = log_b + (g - log_b) * (e / new)
            e = new
            theta, age, before, column_error = 0.0, 0, np.inf, np.inf
            continue
        column_error = _cloud_columns(b, theta, g, total)
        age += 1
        if age % WINDOW == 0:
            # Plain sweeps never raise the error: where they do not lower it, it is rounding.
            if theta == 0.0 and error >= STALLING * before:
                reason, taken = STUCK, count + 1
                break
            if before < np.inf and error < np.inf:
                theta = better(theta, (error / before) ** (1.0 / WINDOW))
            before = error
    if e != epsilon:
        f[:] = log_a + (f - log_a) * (e / epsilon)
        g[:] = log_b + (g - log_b) * (e / epsilon)
    _cloud_rows(x, y, a, p, scale / epsilon, 0.0, f, g, row, total)
    error = _cloud_columns(b, 0.0, g, total)
    old[:] = f
    error += _cloud_rows(x, y, a, p, scale / epsilon, 0.0, f, g, row, total)
    f[:] = old
    return taken, error, reason
