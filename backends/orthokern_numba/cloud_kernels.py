"""Compiled sweeps of entropic transport between clouds of points: one row of the cost at a time, in the cache.

Potentials and costs are in units of epsilon. A row of the plan is made, summed, and added to the sums of the columns
with the factor that its update gives it: so one evaluation of every exponential is a whole sweep.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from orthokern.backend import tell

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


class Clouds(NamedTuple):
    """Points x (m, d) and y (d, n), their masses, the strength, and the costs ``scale |x - y|^p``."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    epsilon: float
    scale: float
    p: float


class Progress(NamedTuple):
    """Where it is: epsilon of the stage, relaxation, sweeps of the stage, the last errors, why it ends.

    ``before`` is the error at the last look at the rate, ``column_error`` the part of the columns.
    """

    e: float
    theta: float
    age: int
    error: float
    before: float
    column_error: float
    sweeps: int
    reason: int


@numba.njit(cache=True)
def _sharpen(
    log_a: np.ndarray, log_b: np.ndarray, ratio: float, f: np.ndarray, g: np.ndarray
) -> None:
    """The potentials of another epsilon, ``ratio`` times smaller."""
    f[:] = log_a + (f - log_a) * ratio
    g[:] = log_b + (g - log_b) * ratio


@numba.njit(cache=True)
def _window(
    clouds: Clouds, tol: float, most: int, f: np.ndarray, g: np.ndarray, progress: Progress
) -> Progress:
    """At most ``most`` sweeps, up to the next look at the rate or the end of the stage."""
    x, y, a, b, epsilon, scale, p = clouds
    e, theta, age, error, before, column_error, count, _ = progress
    row, total, old = np.empty(len(b)), np.empty(len(b)), np.empty(len(a))
    for _ in range(most):
        old[:] = f
        error = column_error + _cloud_rows(x, y, a, p, scale / e, theta, f, g, row, total)
        last = e == epsilon
        if error <= (tol if last else STAGE_ERROR):
            f[:] = old
            if last:
                return Progress(e, theta, age, error, before, column_error, count, DONE)
            new = max(epsilon, EPSILON_STEP * e)
            _sharpen(np.log(a), np.log(b), e / new, f, g)
            return Progress(new, 0.0, 0, error, np.inf, np.inf, count + 1, OUT)
        column_error = _cloud_columns(b, theta, g, total)
        age += 1
        count += 1
        if age % WINDOW == 0:
            # Plain sweeps never raise the error: where they do not lower it, it is rounding.
            if theta == 0.0 and error >= STALLING * before:
                return Progress(e, theta, age, error, before, column_error, count, STUCK)
            if before < np.inf and error < np.inf:
                theta = better(theta, (error / before) ** (1.0 / WINDOW))
            return Progress(e, theta, age, error, error, column_error, count, OUT)
    return Progress(e, theta, age, error, before, column_error, count, OUT)


@numba.njit(cache=True)
def _closing(clouds: Clouds, f: np.ndarray, g: np.ndarray) -> float:
    """One plain sweep, and the error after it."""
    x, y, a, b, epsilon, scale, p = clouds
    row, total = np.empty(len(b)), np.empty(len(b))
    _cloud_rows(x, y, a, p, scale / epsilon, 0.0, f, g, row, total)
    error = _cloud_columns(b, 0.0, g, total)
    old = f.copy()
    error += _cloud_rows(x, y, a, p, scale / epsilon, 0.0, f, g, row, total)
    f[:] = old
    return float(error)


def solve_clouds(
    clouds: Clouds, tol: float, max_iter: int, f: np.ndarray, g: np.ndarray
) -> tuple[int, float, int]:
    """Potentials f and g in units of epsilon: ``(sweeps, error, reason)``."""
    log_a, log_b, epsilon = np.log(clouds.a), np.log(clouds.b), clouds.epsilon
    f[:], g[:] = log_a, log_b
    now = Progress(max(epsilon, FIRST_EPSILON), 0.0, 0, np.inf, np.inf, np.inf, 0, OUT)
    while now.reason == OUT and now.sweeps < max_iter:
        now = _window(clouds, tol, max_iter - now.sweeps, f, g, now)
        tell(now.sweeps, float(now.error))
    if now.reason == DONE:
        return now.sweeps, now.error, DONE
    _sharpen(log_a, log_b, now.e / epsilon, f, g)
    return now.sweeps, _closing(clouds, f, g), now.reason
