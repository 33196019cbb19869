"""A whole call of entropic transport, one problem at a time: into units, the engine, and what is known of its plan."""

from __future__ import annotations

import math

import numba
import numpy as np

from orthokern.transport.codes import Figure, Stat

from .entropic import solved
from .entropic_kernels import FAST, exponential
from .library import aligned_empty

EPS = 2.0**-52
# As the array-API code has them: what rounding leaves of a marginal, and what it makes of potentials over epsilon.
MARGINAL_ROUNDING, SHARPNESS, WORST_ROUNDING = 16.0, 4.0, 1e-3


@numba.njit(cache=True, fastmath=FAST)
def _extent(cost: np.ndarray) -> tuple[float, float]:
    """Least and largest cost; without NaN."""
    low, high = cost[0, 0], cost[0, 0]
    for i in range(cost.shape[0]):
        row = cost[i]
        for j in range(len(row)):
            x = row[j]
            low = x if x < low else low
            high = x if x > high else high
    return low, high


def declined(a: np.ndarray, b: np.ndarray, cost: np.ndarray, *, tol: float | None) -> str | None:
    """Why the array-API code, which calls the engine, has to go about this problem."""
    if tol is None:
        return "a fixed number of sweeps runs as the array-API body"
    if cost.dtype != np.float64 or not cost.flags.c_contiguous:
        return f"expected contiguous float64 costs, not {cost.dtype}"
    if cost.size == 0 or not (a.min() > 0.0 and b.min() > 0.0):
        return "bins without mass are left out by the array-API body"
    return None if cost.max() < np.inf else "forbidden pairs are handled by the array-API body"


@numba.njit(cache=True, fastmath={"contract"})
def _scaled(cost: np.ndarray, shift: float, unit: float, out: np.ndarray) -> None:
    for i in range(cost.shape[0]):
        row, to = cost[i], out[i]
        for j in range(len(row)):
            to[j] = (row[j] - shift) / unit


@numba.njit(cache=True, fastmath=FAST)
def _plan_row(
    cost: np.ndarray,
    f: float,
    beta: np.ndarray,
    inverse: float,
    row: np.ndarray,
    of_column: np.ndarray,
) -> tuple[float, float]:
    """``row <- exp((f + beta - cost) / epsilon)``; its sum and linear cost; added to the sums of the columns."""
    total, linear = 0.0, 0.0
    for j in range(len(row)):
        t = exponential(((f + beta[j]) - cost[j]) * inverse)
        row[j] = t
        total += t
        linear += t * cost[j]
        of_column[j] += t
    return total, linear


@numba.njit(cache=True)
def _entries(plan: np.ndarray) -> int:
    """Entries of the fullest column."""
    counts = np.zeros(plan.shape[1], dtype=np.int64)
    for i in range(plan.shape[0]):
        row = plan[i]
        for j in range(len(row)):
            counts[j] += 1 if row[j] > 0.0 else 0
    return int(counts.max())


@numba.njit(cache=True, fastmath=FAST)
def _trimmed_row(
    row: np.ndarray, cost: np.ndarray, factor: np.ndarray, weighed: np.ndarray
) -> tuple[float, float, float]:
    """Sums of a row whose entries are multiplied by ``factor``: of itself, by its costs, by ``weighed``."""
    total, linear, level = 0.0, 0.0, 0.0
    for j in range(len(row)):
        t = row[j] * factor[j]
        total += t
        linear += t * cost[j]
        level += row[j] * weighed[j]
    return total, linear, level


@numba.njit(cache=True, fastmath=FAST)
def _add(share: float, row: np.ndarray, factor: np.ndarray, total: np.ndarray) -> None:
    for j in range(len(row)):
        total[j] += share * (row[j] * factor[j])


@numba.njit(cache=True)
def _lowered(found: float, wanted: float) -> float:
    return wanted / found if found > wanted else 1.0


@numba.njit(cache=True)
def _times_log(x: float) -> float:
    return x * math.log(x) if x > 0.0 else 0.0


@numba.njit(cache=True)
def _value_near(
    plan: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    cost: np.ndarray,
    epsilon: float,
    alpha: np.ndarray,
    beta: np.ndarray,
    of_column: np.ndarray,
) -> float:
    """Bound of the value of a plan with these marginals: see ``Entropic.value_near``, whose formula this is."""
    m, n = plan.shape
    factor, weighed, columns = np.empty(n), np.empty(n), np.zeros(n)
    for j in range(n):
        factor[j] = _lowered(of_column[j], b[j])
        weighed[j] = factor[j] * (beta[j] / epsilon + math.log(factor[j]))
    linear, entropy, kept = 0.0, 0.0, 0.0
    lacking, wanting = np.empty(m), np.empty(n)
    for i in range(m):
        total, of_cost, level = _trimmed_row(plan[i], cost[i], factor, weighed)
        r = _lowered(total, a[i])
        _add(r, plan[i], factor, columns)
        linear += r * of_cost
        entropy += r * ((alpha[i] / epsilon + math.log(r)) * total + level - of_cost / epsilon)
        kept += r * total
        lacking[i] = max(a[i] - r * total, 0.0)
    for j in range(n):
        wanting[j] = max(b[j] - columns[j], 0.0)
    rest = lacking.sum()
    if rest > 0.0:
        for i in range(m):
            if lacking[i] > 0.0:
                linear += lacking[i] * np.dot(cost[i], wanting) / rest
            entropy += _times_log(lacking[i])
        for j in range(n):
            entropy += _times_log(wanting[j])
    mixed = _times_log(rest + kept) - _times_log(kept) - 2.0 * _times_log(rest)
    return float(linear + epsilon * (entropy + mixed - rest - kept))


@numba.njit(cache=True)
def _known(
    a: np.ndarray,
    b: np.ndarray,
    cost: np.ndarray,
    epsilon: float,
    alpha: np.ndarray,
    beta: np.ndarray,
    plan: np.ndarray,
    figures: np.ndarray,
) -> None:
    """The plan of the potentials, and the first figures of it."""
    m, n = plan.shape
    of_column, total, linear, error, level = np.zeros(n), 0.0, 0.0, 0.0, 0.0
    for i in range(m):
        of_row, of_cost = _plan_row(cost[i], alpha[i], beta, 1.0 / epsilon, plan[i], of_column)
        total += of_row
        linear += of_cost
        level += alpha[i] * of_row
        error += abs(a[i] - of_row)
    level += np.dot(beta, of_column)
    error += np.abs(b - of_column).sum()
    value = level - epsilon * total
    figures[0], figures[1] = value, linear
    figures[2] = np.dot(alpha, a) + np.dot(beta, b) - epsilon * total
    figures[3], figures[4] = error, value
    if error > MARGINAL_ROUNDING * EPS * a.sum():
        figures[4] = _value_near(plan, a, b, cost, epsilon, alpha, beta, of_column)


def entropic_solution(
    a: np.ndarray,
    b: np.ndarray,
    cost: np.ndarray,
    epsilon: np.ndarray,
    *,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(plan, alpha, beta, figures, stats)``; masses are positive, costs finite."""
    batch = cost.shape[:-2]
    plan = aligned_empty(cost.shape, cost.dtype)
    alpha, beta = aligned_empty(a.shape, a.dtype), aligned_empty(b.shape, b.dtype)
    figures = aligned_empty((*batch, len(Figure)), cost.dtype)
    stats = aligned_empty((*batch, len(Stat)), cost.dtype)
    limit = tol
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    for index in np.ndindex(batch):
        strength, mass = float(epsilon[index][0, 0]), float(a[index].sum())
        low, high = _extent(cost[index])
        unit = high - low if high > low else 1.0
        limit = max(tol, min(SHARPNESS * EPS * unit / strength, WORST_ROUNDING))
        # Room for the plan: until then it holds the costs in the units of the engine.
        _scaled(cost[index], low, unit, plan[index])
        shares = a[index] / mass, b[index] / b[index].sum()
        f, g, stats[index] = solved(*shares, plan[index], strength / unit, limit, max_iter)
        lift = (low + strength * math.log(mass)) / 2
        f, g = unit * f + lift, unit * g + lift
        move = (g @ b[index] - f @ a[index]) / (2 * mass)
        alpha[index], beta[index] = f + move, g - move
        known = (a[index], b[index], cost[index], strength, alpha[index], beta[index])
        _known(*known, plan[index], figures[index])
        figures[index][Figure.UNIT :] = unit, low, _entries(plan[index]), limit
    return plan, alpha, beta, figures, stats
