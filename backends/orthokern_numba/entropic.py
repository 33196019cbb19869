"""Entropic transport by scaling, over-relaxation, and Newton steps where these are slow; one problem at a time."""

from __future__ import annotations

import numpy as np

from orthokern.backend import is_heard, tell
from orthokern.transport.codes import OTStatus, Stat

from . import entropic_kernels as kernels
from .cloud_kernels import Clouds, solve_clouds
from .library import aligned_empty

STATUS = {kernels.DONE: OTStatus.CONVERGED, kernels.OUT: OTStatus.MAX_ITER}
# What rounding makes of potentials changes the error by about this over epsilon.
ROUNDING = 2e-15
# Sweeps between two words to who listens.
SPELL = 20
Found = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]


def entropic_potentials(
    a: np.ndarray,
    b: np.ndarray,
    cost: np.ndarray,
    epsilon: np.ndarray,
    *,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Potentials ``(alpha, beta, stats)`` in the counting reference; computed in double precision."""
    alpha, beta = aligned_empty(a.shape, a.dtype), aligned_empty(b.shape, b.dtype)
    stats = aligned_empty((*cost.shape[:-2], len(Stat)), a.dtype)
    for index in np.ndindex(cost.shape[:-2]):
        strength = float(epsilon[index][0, 0])
        found = solved(a[index], b[index], cost[index], strength, tol, max_iter)
        alpha[index], beta[index], stats[index] = found
    return alpha, beta, stats


def solved(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, epsilon: float, tol: float, max_iter: int
) -> Found:
    """The same for one problem: bins without mass are left out."""
    rows, columns = a > 0, b > 0
    alpha, beta = np.zeros_like(a), np.zeros_like(b)
    live = cost if rows.all() and columns.all() else cost[np.ix_(rows, columns)]
    live = np.ascontiguousarray(live, dtype=np.float64)
    p, q = a[rows].astype(np.float64), b[columns].astype(np.float64)
    f, g, k = np.empty(len(p)), np.empty(len(q)), np.empty(live.shape)
    # Sums that differ by the rounding of single precision would be a dual without bound.
    masses = p / p.sum(), q / q.sum()
    steps, error, reason = _in_stages(live, *masses, epsilon, tol, max_iter, f, g, k)
    status = STATUS.get(reason, OTStatus.STALLED)
    if reason != kernels.DONE and kernels.is_infeasible(live, *masses, epsilon, f, g, k):
        status = OTStatus.INFEASIBLE
    alpha[rows], beta[columns] = _finite(f), _finite(g)
    rounded = a.dtype != np.float64 or ROUNDING / epsilon > 0.1 * tol
    if rounded or reason != kernels.DONE:
        near = alpha[rows].astype(np.float64), beta[columns].astype(np.float64)
        error = kernels.departure(live, p, q, epsilon, *near)
        if status == OTStatus.CONVERGED and error > tol:
            status = OTStatus.STALLED
    return alpha, beta, (float(steps), error, float(status))


def _in_stages(
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    tol: float,
    max_iter: int,
    f: np.ndarray,
    g: np.ndarray,
    k: np.ndarray,
) -> tuple[int, float, int]:
    """Potentials f, g for a falling sequence of strengths: ``(steps, error, reason)``; ``k`` is room for a plan."""
    direct = epsilon * kernels.DIRECT >= 1.0
    patience = kernels.DIRECT_PATIENCE if direct else kernels.STAGE_PATIENCE
    e = epsilon if direct else max(epsilon, kernels.FIRST_EPSILON)
    f[:] = 0.0
    taken = 0
    while True:
        last = e == epsilon
        goal, left = (tol if last else kernels.STAGE_ERROR), max_iter - taken
        most = min(left, SPELL) if is_heard() else left
        done, error, reason = kernels.stage(cost, a, b, e, goal, most, patience, f, g, k)
        taken += done
        tell(taken, float(error))
        if reason == kernels.OUT and done < left:
            continue
        if last or taken >= max_iter or reason == kernels.VANISHED:
            return taken, error, reason
        new = max(epsilon, kernels.EPSILON_STEP * e)
        f += (new - e) * np.log(a)
        e = new


def _finite(potential: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(potential), potential, 0.0)


def entropic_potentials_points(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: np.ndarray,
    scale: np.ndarray,
    *,
    p: float,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for the cost ``scale |x_i - y_j|^p``, of which one row is held at a time."""
    alpha, beta = np.zeros_like(a), np.zeros_like(b)
    stats = aligned_empty((*a.shape[:-1], len(Stat)), a.dtype)
    for index in np.ndindex(a.shape[:-1]):
        strength, unit = float(epsilon[index][0, 0]), float(scale[index][0, 0])
        rows, columns = a[index] > 0, b[index] > 0
        points = (
            np.ascontiguousarray(x[index][rows], dtype=np.float64),
            np.ascontiguousarray(y[index][columns].T, dtype=np.float64),
        )
        p_mass, q_mass = (z.astype(np.float64) for z in (a[index][rows], b[index][columns]))
        masses = (p_mass / p_mass.sum(), q_mass / q_mass.sum())
        f, g = np.empty(len(p_mass)), np.empty(len(q_mass))
        clouds = Clouds(*points, *masses, strength, unit, float(p))
        steps, error, reason = solve_clouds(clouds, tol, max_iter, f, g)
        alpha[index][rows], beta[index][columns] = strength * f, strength * g
        stats[index] = steps, error, STATUS.get(reason, OTStatus.STALLED)
    return alpha, beta, stats
