"""Small least-squares problems by the normal equations and refinement, each in one compiled call.

What these fail with few columns is solved by reflections.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .small_qr import damped_factor, factorized, most_condition

# Figures of a right-hand side, in the order of the op.
ERROR, RESIDUAL, SQUARES, CONDITION, BOUND, STEPS, METHOD, STATUS, RANK, PASSES, SKETCH = range(11)
# Codes of the op: by the Gram matrix, by QR; not backward stable. Errors of so many times the tolerance are good.
GRAM, QR, UNSTABLE, ENOUGH = 1.0, 4.0, 1.0, 4.0
# Columns up to which reflections one by one are quicker than LAPACK's and all that is around them.
FEW = 48
# The largest condition number of a factor that a Gram matrix can hold.
MOST_CONDITION = 1e8
# Squared norms that are neither zero nor out of range.
LIMITS = (2.0**-900, 2.0**900)


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _cholesky(g: np.ndarray, shift: float, r: np.ndarray) -> bool:
    """Upper triangular R with ``R^T R = G + shift I``; False where there is none."""
    d = g.shape[0]
    for i in range(d):
        for j in range(i, d):
            r[i, j] = g[i, j]
        r[i, i] += shift
    for i in range(d):
        pivot = r[i, i]
        if not pivot > 0.0:
            return False
        root = math.sqrt(pivot)
        inverse = 1.0 / root
        r[i, i] = root
        for j in range(i + 1, d):
            r[i, j] *= inverse
        for m in range(i + 1, d):
            factor = r[i, m]
            for j in range(m, d):
                r[m, j] -= factor * r[i, j]
    return True


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _invert(r: np.ndarray, p: np.ndarray) -> None:
    """``P = R^{-1}``, upper triangular: row i of ``R P = I`` from the rows below it."""
    d = r.shape[0]
    for i in range(d - 1, -1, -1):
        for j in range(d):
            p[i, j] = 0.0
        p[i, i] = 1.0
        for m in range(i + 1, d):
            factor = r[i, m]
            for j in range(m, d):
                p[i, j] -= factor * p[m, j]
        inverse = 1.0 / r[i, i]
        for j in range(i, d):
            p[i, j] *= inverse


@numba.njit(cache=True)
def _norm_of_columns(r: np.ndarray) -> float:
    """1-norm of an upper triangular matrix."""
    largest = 0.0
    for j in range(r.shape[0]):
        total = 0.0
        for i in range(j + 1):
            total += abs(r[i, j])
        largest = max(largest, total)
    return largest


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _damped_norm(r: np.ndarray, v: np.ndarray) -> float:
    """``||R^{-T} v||``; ``v`` is overwritten."""
    d, total = r.shape[0], 0.0
    for i in range(d):
        z = v[i] / r[i, i]
        total += z * z
        for j in range(i + 1, d):
            v[j] -= r[i, j] * z
    return math.sqrt(total)


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _step(p: np.ndarray, v: np.ndarray, w: np.ndarray, x: np.ndarray) -> None:
    """``x += P P^T v`` for the upper triangular ``p``."""
    d = p.shape[0]
    for j in range(d):
        w[j] = 0.0
    for i in range(d):
        for j in range(i, d):
            w[j] += p[i, j] * v[i]
    for i in range(d):
        total = 0.0
        for j in range(i, d):
            total += p[i, j] * w[j]
        x[i] += total


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _gradient(a: np.ndarray, b: np.ndarray, x: np.ndarray, ridge: float, g: np.ndarray) -> float:
    """``g = A^T (b - A x) - ridge x``; the squared norm of the residual."""
    n, d = a.shape
    for j in range(d):
        g[j] = -ridge * x[j]
    total = 0.0
    for i in range(n):
        row = a[i]
        r = b[i]
        inner = 0.0
        for j in range(d):
            inner += row[j] * x[j]
        r -= inner
        total += r * r
        for j in range(d):
            g[j] += row[j] * r
    return total


@numba.njit(cache=True)
def _refine(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    ridge: float,
    tol: float,
    most: int,
    unit: np.ndarray,
    triangular: bool,
    scale: np.ndarray,
    p: np.ndarray,
    best: np.ndarray,
    figures: np.ndarray,
) -> None:
    """One right-hand side: the best iterate into ``best``, its backward error, residual norm and steps.

    ``c`` is ``A^T b``. ``unit`` is the Gram matrix of the columns of norm 1, or its factor if ``triangular``.
    """
    d = p.shape[0]
    x, g, w, damped, work = np.zeros(d), np.empty(d), np.empty(d), np.empty((d, d)), unit
    if triangular:
        work = np.empty((d, d))
    _step(p, c, w, x)
    squares_of_b = np.dot(b, b)
    theta = d / squares_of_b
    figures[ERROR], figures[RESIDUAL], figures[STEPS] = np.inf, np.inf, most
    _gradient(a, b, x, ridge, g)
    for step in range(1, most + 1):
        _step(p, g, w, x)
        total = _gradient(a, b, x, ridge, g)
        length = 0.0
        for j in range(d):
            total += ridge * x[j] * x[j]
            length += (scale[j] * x[j]) ** 2
            w[j] = g[j] / scale[j]
        weight = 1.0 + theta * length
        if triangular:
            damped_factor(unit, theta * total / weight, work, damped)
        elif not _cholesky(unit, theta * total / weight, damped):
            return
        error = _damped_norm(damped, w) * math.sqrt(theta / (weight * d))
        if error < figures[ERROR]:
            figures[ERROR], figures[RESIDUAL], figures[SQUARES] = error, math.sqrt(total), total
            worst = figures[CONDITION] * math.sqrt(d)
            share = math.sqrt(total / (d * length)) if length > 0.0 else 0.0
            figures[BOUND] = error * worst * (1.0 + worst * share)
            best[:] = x
        if not figures[ERROR] > tol:
            figures[STEPS] = step
            return


@numba.njit(cache=True)
def _factor(
    g: np.ndarray,
    ridge: float,
    limits: tuple[float, float],
    scale: np.ndarray,
    p: np.ndarray,
) -> float:
    """Scale G to a unit diagonal, and write its whitener; the condition number of its factor, zero where none is."""
    d = g.shape[0]
    r = np.empty((d, d))
    for i in range(d):
        total = g[i, i] + ridge
        if not limits[0] < total < limits[1]:
            return 0.0
        scale[i] = math.sqrt(total)
    for i in range(d):
        for j in range(d):
            g[i, j] /= scale[i] * scale[j]
        g[i, i] = 1.0
    if not _cholesky(g, 0.0, r):
        return 0.0
    _invert(r, p)
    condition: float = _norm_of_columns(r) * _norm_of_columns(p)
    for i in range(d):
        for j in range(d):
            p[i, j] /= scale[i]
    return condition


@numba.njit(cache=True)
def _refine_wide(
    a: np.ndarray,
    b: np.ndarray,
    size: float,
    tol: float,
    most: int,
    p: np.ndarray,
    best: np.ndarray,
    figures: np.ndarray,
) -> None:
    """One right-hand side in the span of the rows: what ``_refine`` does, for residuals that can vanish."""
    n, d = a.shape
    x, w, y, r = np.zeros(d), np.empty(n), np.empty(n), b.copy()
    norm_b = math.sqrt(np.dot(b, b))
    figures[ERROR] = np.inf
    for step in range(most + 1):
        y[:] = 0.0
        _step(p, r, w, y)
        x += np.dot(y, a)
        r = b - np.dot(a, x)
        residual, length = math.sqrt(np.dot(r, r)), math.sqrt(np.dot(x, x))
        error = residual / (size * length + norm_b)
        if error < figures[ERROR]:
            figures[ERROR], figures[RESIDUAL], figures[SQUARES] = error, residual, residual**2
            worst = figures[CONDITION] * math.sqrt(n)
            share = residual / (size * length) if length > 0.0 else 0.0
            figures[BOUND] = error * worst * (1.0 + worst * share)
            best[:] = x
        figures[STEPS] = step
        if step > 0 and not figures[ERROR] > tol:
            return


@numba.njit(cache=True)
def _solve_wide(
    a: np.ndarray,
    b: np.ndarray,
    tol: float,
    most: int,
    limits: tuple[float, float],
    x: np.ndarray,
    p: np.ndarray,
    figures: np.ndarray,
) -> bool:
    """``_solve`` for fewer rows than columns."""
    n, k = a.shape[0], b.shape[0]
    g = np.dot(a, a.T)
    size = math.sqrt(np.trace(g))
    condition = _factor(g, 0.0, limits, np.empty(n), p)
    if condition == 0.0:
        return False
    for column in range(k):
        if not limits[0] < np.dot(b[column], b[column]) < limits[1]:
            return False
        row = figures[column]
        row[METHOD], row[RANK], row[SKETCH], row[CONDITION] = GRAM, n, 0.0, condition
        _refine_wide(a, b[column], size, tol, most, p, x[column], row)
        good = row[ERROR] <= ENOUGH * tol and row[CONDITION] < MOST_CONDITION
        row[STATUS] = 0.0 if good else UNSTABLE
        row[PASSES] = row[STEPS] + 2
    return True


@numba.njit(cache=True)
def _solve_columns(
    a: np.ndarray,
    b: np.ndarray,
    ridge: float,
    tol: float,
    most: int,
    limits: tuple[float, float],
    unit: np.ndarray,
    triangular: bool,
    scale: np.ndarray,
    condition: float,
    x: np.ndarray,
    p: np.ndarray,
    figures: np.ndarray,
) -> bool:
    """All right-hand sides by the whitener ``p``; ``unit`` is what ``_refine`` wants."""
    for column in range(b.shape[0]):
        squares_of_b = np.dot(b[column], b[column])
        if not limits[0] < squares_of_b < limits[1]:
            return False
        row = figures[column]
        row[METHOD] = QR if triangular else GRAM
        row[RANK], row[SKETCH], row[CONDITION] = a.shape[1], 0.0, condition
        c = np.dot(b[column], a)
        _refine(a, b[column], c, ridge, tol, most, unit, triangular, scale, p, x[column], row)
        good = row[ERROR] <= ENOUGH * tol and (triangular or condition < MOST_CONDITION)
        row[STATUS] = 0.0 if good else UNSTABLE
        row[PASSES] = row[STEPS] + 2
    return True


@numba.njit(cache=True)
def _solve(
    a: np.ndarray,
    b: np.ndarray,
    ridge: float,
    tol: float,
    most: int,
    limits: tuple[float, float],
    x: np.ndarray,
    p: np.ndarray,
    figures: np.ndarray,
) -> bool:
    """One matrix; ``x`` and ``b`` hold their columns as rows. False where another way has to be taken."""
    d = a.shape[1]
    g, scale = np.dot(a.T, a), np.empty(d)
    condition = _factor(g, ridge, limits, scale, p)
    if condition == 0.0:
        return False
    done: bool = _solve_columns(
        a, b, ridge, tol, most, limits, g, False, scale, condition, x, p, figures
    )
    return done


@numba.njit(cache=True)
def _solve_by_reflections(
    a: np.ndarray,
    b: np.ndarray,
    tol: float,
    most: int,
    limits: tuple[float, float],
    x: np.ndarray,
    p: np.ndarray,
    figures: np.ndarray,
) -> bool:
    """``_solve`` without damping for condition numbers whose squares are too large."""
    n, d = a.shape
    scale, columns, r = np.empty(d), a.T.copy(), np.empty((d, d))
    for j in range(d):
        total = np.dot(columns[j], columns[j])
        if not limits[0] < total < limits[1]:
            return False
        scale[j] = math.sqrt(total)
        columns[j] /= scale[j]
    factorized(columns, b[:0].copy(), r)
    for j in range(d):
        if r[j, j] == 0.0:
            return False
    _invert(r, p)
    condition = _norm_of_columns(r) * _norm_of_columns(p)
    if not condition < most_condition(n, d):
        return False
    for i in range(d):
        for j in range(d):
            p[i, j] /= scale[i]
    done: bool = _solve_columns(
        a, b, 0.0, tol, most, limits, r, True, scale, condition, x, p, figures
    )
    return done


@numba.njit(cache=True)
def _solve_all(
    a: np.ndarray,
    b: np.ndarray,
    ridge: float,
    tol: float,
    most: int,
    limits: tuple[float, float],
    x: np.ndarray,
    p: np.ndarray,
    figures: np.ndarray,
) -> None:
    wide = a.shape[1] < a.shape[2] and ridge == 0.0
    for i in range(a.shape[0]):
        if wide:
            done = _solve_wide(a[i], b[i], tol, most, limits, x[i], p[i], figures[i])
        else:
            done = _solve(a[i], b[i], ridge, tol, most, limits, x[i], p[i], figures[i])
            done = done and not figures[i, :, STATUS].any()
            if not done and ridge == 0.0 and a.shape[2] <= FEW:
                x[i] = 0.0
                done = _solve_by_reflections(a[i], b[i], tol, most, limits, x[i], p[i], figures[i])
        if not done:
            figures[i, :, :] = 0.0
            figures[i, :, ERROR] = figures[i, :, CONDITION] = np.inf
            figures[i, :, STATUS] = UNSTABLE
            x[i], p[i] = np.nan, np.nan


def gram_solution(
    a: np.ndarray, b: np.ndarray, *, damp: float, tol: float, max_refine: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(x, p, figures)`` of real matrices (..., n, d) and right-hand sides (..., n, k) in double precision."""
    *batch, n, d = a.shape
    k = b.shape[-1]
    rows = np.ascontiguousarray(a, dtype=np.float64).reshape(-1, n, d)
    right = b if k == 1 else np.swapaxes(b, -1, -2)
    columns = np.ascontiguousarray(right, dtype=np.float64).reshape(-1, k, n)
    order = n if n < d and not damp else d
    x, p = np.zeros((len(rows), k, d)), np.empty((len(rows), order, order))
    figures = np.empty((len(rows), k, SKETCH + 1))
    _solve_all(rows, columns, damp**2, tol, max_refine, LIMITS, x, p, figures)
    found = x if k == 1 else np.swapaxes(x, -1, -2)
    shape = figures.shape[1:]
    return (
        found.reshape(*batch, d, k),
        p.reshape(*batch, order, order),
        figures.reshape(*batch, *shape),
    )
