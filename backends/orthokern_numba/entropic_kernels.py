"""Compiled loops of entropic transport: passes over a matrix of exponentials, and what is solved with them.

The plan is ``T = diag(u) K diag(v)`` with ``K = exp((f + g - C) / e)``. A pass reads every row of K once: a product
of the row with a vector gives a coefficient, by which the row is added to a sum. So one pass is a whole sweep of
Sinkhorn's iteration, or a whole step of conjugate gradients on the Schur complement of its Newton equations. Kept in
one file, because Numba's cache watches only the file of the decorated function.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

FAST = {"reassoc", "contract", "nsz", "nnan", "arcp"}
# Adding this rounds to an integer, which then stands in the low bits of the sum.
ROUNDER = 1.5 * 2.0**52
LOG2E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
LEAST_EXPONENT, MOST_EXPONENT = -708.0, 709.0
# Rows that a pass takes together.
ROWS = 4
# Why a loop ended.
DONE, OUT, STUCK, STRAYED, SLOW, VANISHED = range(6)
# Sweeps between two looks at the rate of convergence; the largest theta of a relaxed sweep.
WINDOW, MOST_RELAXATION = 10, 0.95
# Where scalings beyond these are absorbed into the potentials.
SCALING_LIMIT, NEWTON_LIMIT = 1e80, 1e13
RIDGE, MOST_PASSES, ASCENT, SLACK = 1.0 + 1e-13, 300, 1e-4, 1e-14
# Newton steps move no logarithm of a scaling by more than REACH, but where longer ones pay, up to LEAP.
REACH, LEAP, HALVINGS = 2.0, 200.0, 12
# Continuation in epsilon below 1 / DIRECT: from the first value, a quarter at a time, each stage to this error.
DIRECT, FIRST_EPSILON, EPSILON_STEP, STAGE_ERROR = 500.0, 0.5, 0.25, 0.05
# Sweeps that may seem to be left before Newton steps take over.
DIRECT_PATIENCE, STAGE_PATIENCE = 400, 30
# A row whose largest exponent lies below this has vanished.
LIFTED = 300.0
# Newton steps without progress after which it gives up.
PATIENCE = 20


@intrinsic
def _times_power(typing: Any, x: Any, rounded: Any) -> Any:
    """``x`` times two to the integer in the low bits of ``rounded``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        shift = builder.shl(builder.bitcast(args[1], word), ir.Constant(word, 52))
        moved = builder.add(builder.bitcast(args[0], word), shift)
        return builder.bitcast(moved, ir.DoubleType())

    return types.float64(types.float64, types.float64), codegen


@numba.njit(cache=True, forceinline=True, fastmath={"contract"})
def exponential(x: float) -> float:
    """``exp(x)`` to 2 ulp for x <= 709, 0 below -708: without branches or calls, so that loops over it vectorize."""
    y = min(max(x, LEAST_EXPONENT), MOST_EXPONENT)
    rounded = y * LOG2E + ROUNDER
    k = rounded - ROUNDER
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return _times_power(p, rounded) if x >= LEAST_EXPONENT else 0.0


@numba.njit(cache=True, fastmath={"contract"})
def fill(cost: np.ndarray, f: np.ndarray, g: np.ndarray, e: float, k: np.ndarray) -> None:
    """``K = exp((f + g - C) / e)``."""
    inverse = 1.0 / e
    for i in range(cost.shape[0]):
        row, out, fi = cost[i], k[i], f[i]
        for j in range(len(row)):
            out[j] = exponential(((fi + g[j]) - row[j]) * inverse)


@numba.njit(cache=True, fastmath={"contract", "nnan"})
def least_reduced(cost: np.ndarray, f: np.ndarray, g: np.ndarray) -> None:
    """``g_j = min_i (C_ij - f_i)``."""
    g[:] = np.inf
    for i in range(cost.shape[0]):
        row, fi = cost[i], f[i]
        for j in range(len(row)):
            x = row[j] - fi
            g[j] = x if x < g[j] else g[j]


@numba.njit(cache=True, fastmath=FAST)
def _products(k: np.ndarray, i: int, w: np.ndarray, s: np.ndarray) -> None:
    """``s = K w`` for the rows i to i + 4."""
    if i + ROWS <= k.shape[0]:
        k0, k1, k2, k3 = k[i], k[i + 1], k[i + 2], k[i + 3]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(len(w)):
            s0 += k0[j] * w[j]
            s1 += k1[j] * w[j]
            s2 += k2[j] * w[j]
            s3 += k3[j] * w[j]
        s[i], s[i + 1], s[i + 2], s[i + 3] = s0, s1, s2, s3
        return
    for r in range(i, k.shape[0]):
        row, total = k[r], 0.0
        for j in range(len(w)):
            total += row[j] * w[j]
        s[r] = total


@numba.njit(cache=True, fastmath=FAST)
def _gathered(k: np.ndarray, i: int, c: np.ndarray, total: np.ndarray) -> None:
    """``total += c^T K`` over the rows i to i + 4."""
    if i + ROWS <= k.shape[0]:
        k0, k1, k2, k3 = k[i], k[i + 1], k[i + 2], k[i + 3]
        c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
        for j in range(len(total)):
            total[j] += (c0 * k0[j] + c1 * k1[j]) + (c2 * k2[j] + c3 * k3[j])
        return
    for r in range(i, k.shape[0]):
        row, cr = k[r], c[r]
        for j in range(len(total)):
            total[j] += cr * row[j]


@numba.njit(cache=True, forceinline=True, fastmath={"contract"})
def relaxed(x: float, found: float, wanted: float, theta: float) -> float:
    """``x (wanted / found)^(1 + theta)``, the power theta by the nearest bilinear function: bounded and positive."""
    p = (1.0 + theta) * wanted + (1.0 - theta) * found
    q = (1.0 - theta) * wanted + (1.0 + theta) * found
    return x * (wanted / found) * (p / q)


@numba.njit(cache=True)
def _sweep_rows(
    k: np.ndarray,
    a: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    theta: float,
    rows: np.ndarray,
    total: np.ndarray,
) -> float:
    """Relaxed update of u for v, and ``total = K^T u``; the error that the rows had, infinite if one vanished."""
    m = k.shape[0]
    s, old = rows[0], rows[1]
    old[:] = u
    total[:] = 0.0
    error = 0.0
    for i in range(0, m, ROWS):
        _products(k, i, v, s)
        for r in range(i, min(i + ROWS, m)):
            found = u[r] * s[r]
            error += abs(found - a[r])
            if s[r] > 0.0:
                u[r] = relaxed(u[r], found, a[r], theta)
            else:
                error = np.inf
        _gathered(k, i, u, total)
    return error


@numba.njit(cache=True, fastmath=FAST)
def _sweep_columns(b: np.ndarray, v: np.ndarray, theta: float, total: np.ndarray) -> float:
    """Relaxed update of v for ``total = K^T u``; the error that the columns have after it."""
    error = 0.0
    for j in range(len(b)):
        v[j] = relaxed(v[j], v[j] * total[j], b[j], theta)
        error += abs(v[j] * total[j] - b[j])
    return error


@numba.njit(cache=True, fastmath=FAST)
def _strays(x: np.ndarray, limit: float) -> bool:
    low, high = x[0], x[0]
    for i in range(len(x)):
        low = x[i] if x[i] < low else low
        high = x[i] if x[i] > high else high
    return bool(high > limit or low * limit < 1.0)


@numba.njit(cache=True)
def better(theta: float, rate: float) -> float:
    """Relaxation that is best for the rate of plain sweeps which ``rate``, observed under ``theta``, points to."""
    plain = (rate + theta) ** 2 / (rate * (1.0 + theta) ** 2) if rate > theta else 0.0
    if not 0.0 < plain < 1.0:
        return 0.0 if rate >= 1.0 else theta
    return min(2.0 / (1.0 + math.sqrt(1.0 - plain)) - 1.0, MOST_RELAXATION)


@numba.njit(cache=True)
def _fit_columns(
    k: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray, total: np.ndarray
) -> None:
    """The v with which the columns are exact for u."""
    total[:] = 0.0
    for i in range(0, k.shape[0], ROWS):
        _gathered(k, i, u, total)
    v[:] = b / total


@numba.njit(cache=True)
def scale(
    k: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    tol: float,
    steps: int,
    patience: int,
    rows: np.ndarray,
    columns: np.ndarray,
) -> tuple[int, float, int]:
    """Relaxed sweeps: ``(sweeps, error, reason)``; ``patience`` is the number of sweeps that may seem to be left."""
    total = columns[0]
    theta, column_error, before = 0.0, 0.0, np.inf
    error = np.inf
    _fit_columns(k, b, u, v, total)
    for count in range(steps):
        row_error = _sweep_rows(k, a, u, v, theta, rows, total)
        error = row_error + column_error
        if error <= tol:
            u[:] = rows[1]
            return count, error, DONE
        if error == np.inf:
            return count + 1, error, VANISHED
        column_error = _sweep_columns(b, v, theta, total)
        if _strays(u, SCALING_LIMIT) or _strays(v, SCALING_LIMIT):
            return count + 1, error, STRAYED
        if count % WINDOW == WINDOW - 1:
            rate = (error / before) ** (1.0 / WINDOW)
            if before < np.inf:
                theta = better(theta, rate)
                pace = max(rate, theta) if theta > 0.0 else rate
                if pace >= 1.0 or math.log(tol / error) < patience * math.log(pace):
                    _sweep_columns(b, v, 0.0, total)
                    return count + 1, error, SLOW
            before = error
    return steps, error, OUT


@numba.njit(cache=True)
def _start(
    k: np.ndarray, a: np.ndarray, u: np.ndarray, v: np.ndarray, rows: np.ndarray, total: np.ndarray
) -> float:
    """Sums of the rows, what they lack, their quotient z, and ``K^T U z``; the error of the rows."""
    m = k.shape[0]
    s, sums, lack, z = rows[0], rows[1], rows[2], rows[3]
    total[:] = 0.0
    error = 0.0
    for i in range(0, m, ROWS):
        _products(k, i, v, s)
        for r in range(i, min(i + ROWS, m)):
            sums[r] = u[r] * s[r]
            lack[r] = a[r] - sums[r]
            error += abs(lack[r])
            z[r] = lack[r] / sums[r] if sums[r] > 0.0 else 0.0
            s[r] = u[r] * z[r]
        _gathered(k, i, s, total)
    return error


@numba.njit(cache=True)
def _schur_pass(
    k: np.ndarray,
    u: np.ndarray,
    p: np.ndarray,
    w: np.ndarray,
    rows: np.ndarray,
    q: np.ndarray,
    total: np.ndarray,
) -> float:
    """``q = S p`` for ``S = R - T B^-1 T^T`` where ``w = B^-1 V^2 K^T U p``; ``total = K^T U R^-1 q``; ``<p, q>``."""
    m = k.shape[0]
    s, sums = rows[0], rows[1]
    total[:] = 0.0
    inner = 0.0
    for i in range(0, m, ROWS):
        _products(k, i, w, s)
        for r in range(i, min(i + ROWS, m)):
            q[r] = sums[r] * p[r] * RIDGE - u[r] * s[r]
            inner += p[r] * q[r]
            s[r] = u[r] * q[r] / sums[r] if sums[r] > 0.0 else 0.0
        _gathered(k, i, s, total)
    return inner


@numba.njit(cache=True)
def _solve_schur(
    k: np.ndarray,
    b: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    accuracy: float,
    rows: np.ndarray,
    columns: np.ndarray,
) -> int:
    """Newton step (x, y) into rows[5], columns[3], by conjugate gradients with one pass each; the number of passes."""
    sums, lack, z, p, x, q = rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    total, hz, h, hx, w = columns[0], columns[1], columns[2], columns[3], columns[4]
    hz[:], h[:], p[:] = total, total, z
    x[:], hx[:] = 0.0, 0.0
    size = np.dot(lack, z)
    enough = size * accuracy**2
    count = 0
    for _ in range(MOST_PASSES):
        w[:] = h * v * v / b
        inner = _schur_pass(k, u, p, w, rows, q, total)
        count += 1
        if not inner > 0.0:
            break
        length = size / inner
        x += length * p
        hx += length * h
        lack -= length * q
        z[:] = np.where(sums > 0.0, lack / sums, 0.0)
        hz -= length * total
        new = np.dot(lack, z)
        if not new > enough:
            break
        p[:] = z + (new / size) * p
        h[:] = hz + (new / size) * h
        size = new
    hx *= -v / b
    return count


@numba.njit(cache=True)
def _rise(
    k: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    step: float,
    rows: np.ndarray,
    columns: np.ndarray,
) -> float:
    """What the dual gains, in units of epsilon, by this step; the new u into rows[6], ``K^T u`` into columns[0]."""
    x, y, ahead, total = rows[5], columns[3], rows[6], columns[0]
    ahead[:] = u * np.exp(step * x)
    total[:] = 0.0
    for i in range(0, k.shape[0], ROWS):
        _gathered(k, i, ahead, total)
    mass = np.dot(v * np.exp(step * y), total)
    return float(step * (np.dot(a, x) + np.dot(b, y)) - (mass - np.sum(rows[1])))


@numba.njit(cache=True)
def _ascend(
    k: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> bool:
    """Update of u by the Newton step and of v for it; whether the step was a long one.

    Groups of bins between which almost nothing flows have to be shifted by many epsilon before anything does. Along
    such a shift the dual is almost linear, so that the step grows as long as it rises like that.
    """
    x, y = rows[5], columns[3]
    slope = np.dot(a - rows[1], x)
    size = max(np.max(np.abs(x)), np.max(np.abs(y)))
    long = size > REACH
    step = REACH / size if long else 1.0
    for _ in range(HALVINGS):
        if _rise(k, a, b, u, v, step, rows, columns) >= ASCENT * step * slope - SLACK:
            break
        step *= 0.5
        long = False
    while long and 2.0 * step <= min(1.0, LEAP / size):
        if not _rise(k, a, b, u, v, 2.0 * step, rows, columns) >= step * slope:
            _rise(k, a, b, u, v, step, rows, columns)
            break
        step *= 2.0
    u[:] = rows[6]
    v[:] = b / columns[0]
    return bool(long)


@numba.njit(cache=True)
def newton(
    k: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    tol: float,
    steps: int,
    rows: np.ndarray,
    columns: np.ndarray,
) -> tuple[int, float, int]:
    """Newton steps from (u, v) with exact columns: ``(steps, error, reason)``."""
    least, waiting, error = np.inf, 0, np.inf
    for count in range(steps):
        error = _start(k, a, u, v, rows, columns[0])
        if error <= tol:
            return count, error, DONE
        waiting = 0 if error < 0.9 * least else waiting + 1
        least = min(least, error)
        if waiting > PATIENCE:
            return count, error, STUCK
        accuracy = max(1e-3, min(0.1, 0.3 * math.sqrt(error)))
        _solve_schur(k, b, u, v, accuracy, rows, columns)
        if _ascend(k, a, b, u, v, rows, columns):
            waiting = 0
        if _strays(u, NEWTON_LIMIT) or _strays(v, NEWTON_LIMIT):
            return count + 1, error, STRAYED
    return steps, error, OUT


@numba.njit(cache=True)
def _absorb(e: float, f: np.ndarray, g: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Scalings become part of the potentials."""
    f += e * np.log(u)
    g += e * np.log(v)
    u[:], v[:] = 1.0, 1.0


@numba.njit(cache=True)
def _lift(cost: np.ndarray, e: float, f: np.ndarray, g: np.ndarray) -> bool:
    """Raise the potentials of rows that vanished; False if one has no finite cost."""
    for i in range(len(f)):
        least = np.inf
        for j in range(len(g)):
            least = min(least, cost[i, j] - g[j])
        if least == np.inf:
            return False
        if f[i] - least < -LIFTED * e:
            f[i] = least
    return True


@numba.njit(cache=True)
def stage(
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    e: float,
    tol: float,
    steps: int,
    patience: int,
    f: np.ndarray,
    g: np.ndarray,
    k: np.ndarray,
) -> tuple[int, float, int]:
    """Potentials for one epsilon from those of the rows, as ``(steps, error, reason)``.

    Masses are positive, a cost is in [0, 1] or infinite; ``k`` is room for a plan.
    """
    m, n = k.shape
    rows, columns = np.empty((7, m)), np.empty((5, n))
    u, v = np.ones(m), np.ones(n)
    least_reduced(cost, f, g)
    if not np.all(np.isfinite(g)):
        return 0, np.inf, VANISHED
    fill(cost, f, g, e, k)
    taken, error, reason, patient = 0, np.inf, OUT, True
    while taken < steps:
        if patient:
            done, error, reason = scale(k, a, b, u, v, tol, steps - taken, patience, rows, columns)
        else:
            done, error, reason = newton(k, a, b, u, v, tol, steps - taken, rows, columns)
        taken += done
        if reason in (DONE, STUCK):
            break
        patient = patient and reason != SLOW
        if reason != SLOW or _strays(u, NEWTON_LIMIT) or _strays(v, NEWTON_LIMIT):
            _absorb(e, f, g, u, v)
            if reason == VANISHED and not _lift(cost, e, f, g):
                break
            # No plan costs more than 1: a dual beyond that is one without bound.
            if np.dot(a, f) + np.dot(b, g) > 1.0 + 2.0 * e:
                reason = STUCK
                break
            fill(cost, f, g, e, k)
    _absorb(e, f, g, u, v)
    return taken, error, reason


@numba.njit(cache=True)
def departure(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, e: float, f: np.ndarray, g: np.ndarray
) -> float:
    """L1 error of both marginals at these potentials."""
    n = cost.shape[1]
    row, columns = np.empty((1, n)), np.zeros(n)
    error = 0.0
    for i in range(len(a)):
        fill(cost[i : i + 1], f[i : i + 1], g, e, row)
        error += abs(np.sum(row) - a[i])
        columns += row[0]
    return float(error + np.sum(np.abs(columns - b)))


@numba.njit(cache=True)
def is_infeasible(
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    e: float,
    f: np.ndarray,
    g: np.ndarray,
    k: np.ndarray,
) -> bool:
    """Whether a sweep is a direction in which the dual grows for ever, so that no plan has the marginals.

    Makes the columns exact first, by g.
    """
    least_reduced(cost, f, g)
    if not np.all(np.isfinite(g)):
        return True
    m, n = k.shape
    u, v, s, total = np.ones(m), np.ones(n), np.empty(m), np.empty(n)
    fill(cost, f, g, e, k)
    _fit_columns(k, b, u, v, total)
    before = v.copy()
    g += e * np.log(v)
    for i in range(0, m, ROWS):
        _products(k, i, v, s)
    for i in range(m):
        if not s[i] > 0.0:
            return not np.any(np.isfinite(cost[i]))
    u[:] = a / s
    _fit_columns(k, b, u, v, total)
    x, y = np.log(u), np.log(v / before)
    most = 0.0
    for i in range(m):
        for j in range(n):
            if cost[i, j] < np.inf:
                most = max(most, x[i] + y[j])
    noise = 1e-13 * (1.0 + (np.max(np.abs(f)) + np.max(np.abs(g))) / e)
    return bool(np.dot(a, x) + np.dot(b, y) > most + noise)
