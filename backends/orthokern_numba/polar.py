"""The polar ops on NumPy arrays: which route a matrix takes, batches, and what rank deficiency means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from orthokern.spectral.plan import STATS_WIDTH, Schedule, Stat, Step, StepKind

from . import loops
from .lapack import aligned_empty, routines
from .small import LARGEST, SUPPORTED_DTYPES, batched_polar
from .square import Factor, execute, planned_factor
from .tall import tall_factor

# Below this size one call of the SVD is cheaper than the calls of a plan.
SVD_SIZE = 40
STRIPS = 6


def unitary_factor(x: np.ndarray, *, completion: str, rcond: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Unitary polar factor of each matrix of ``x`` (..., m, n), m >= n, to full accuracy; and the figures."""
    m, n = x.shape[-2:]
    if m == n <= LARGEST and x.ndim > 2 and x.dtype in SUPPORTED_DTYPES:
        u, stats = batched_polar(x.reshape(-1, n, n), completion=completion, rcond=rcond)
        return u.reshape(x.shape), stats.reshape(*x.shape[:-2], STATS_WIDTH)
    return _each(x, lambda a: _factor(a, None, completion, rcond))


def scheduled_factor(x: np.ndarray, *, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Apply ``schedule`` to each matrix; where any route will do, a measured plan takes its place."""
    if not schedule.any_route:
        return _each(x, lambda a: execute(a, schedule))
    if x.shape[-1] <= LARGEST and x.ndim > 2:
        return unitary_factor(x, completion=schedule.completion, rcond=None)
    return _each(x, lambda a: _to_tolerance(a, schedule))


def _each(x: np.ndarray, factor: Callable[[np.ndarray], Factor]) -> tuple[np.ndarray, np.ndarray]:
    """``factor`` of every matrix of a stack; the single matrix keeps the layout that its factor came in."""
    if x.ndim == 2:
        return factor(x)
    u = aligned_empty(x.shape, x.dtype)
    stats = np.empty((*x.shape[:-2], STATS_WIDTH), dtype=x.real.dtype)
    for index in np.ndindex(*x.shape[:-2]):
        u[index], stats[index] = factor(x[index])
    return u, stats


def _to_tolerance(a: np.ndarray, schedule: Schedule) -> Factor:
    """A measured plan; for singular matrices the SVD, or the soft edge of the static schedule if that is asked for."""
    m, n = a.shape
    eps = float(np.finfo(a.dtype).eps)
    route = planned_factor if m == n else tall_factor
    found = route(a, schedule.closing_tol, m * eps)
    if found is not None:
        return found
    if schedule.completion == "partial":
        return execute(a, schedule)
    return _by_svd(a, schedule.completion, None)


def _factor(a: np.ndarray, tol: float | None, completion: str, rcond: float | None) -> Factor:
    m, n = a.shape
    cutoff = m * float(np.finfo(a.dtype).eps) if rcond is None else rcond
    found = None
    if m == n and n >= SVD_SIZE:
        found = planned_factor(a, tol, cutoff)
    elif m > n > 1:
        found = tall_factor(a, tol, cutoff)
    return _by_svd(a, completion, rcond) if found is None else found


def _by_svd(a: np.ndarray, completion: str, rcond: float | None) -> Factor:
    """SVD closed by one cubic step; directions up to ``rcond`` are left out for completion "partial"."""
    eps = float(np.finfo(a.dtype).eps)
    p, s, qh = scipy.linalg.svd(a, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    cutoff = max(a.shape) * eps if rcond is None else rcond
    if completion == "partial":
        kept = s > cutoff * s[0]
        p, qh = p[:, kept], qh[kept]
    u = p @ qh
    u = 1.5 * u - 0.5 * (u @ (u.conj().T @ u))
    stats = np.zeros(STATS_WIDTH, dtype=s.dtype)
    stats[Stat.ITERATIONS], stats[Stat.RESIDUAL], stats[len(Stat)] = 1, eps, StepKind.CUBIC
    stats[Stat.LOWER_BOUND] = s[-1] / s[0] if s[0] > 0 else 0.0
    return Factor(u, stats)


def hermitian_factor(u: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``(U^H X + X^H U) / 2`` of each pair, bitwise Hermitian; 2 m n^2 flops, half of it where U^H X is Hermitian."""
    if x.ndim == 2:
        return _hermitian(u, x)
    if x.shape[-1] <= LARGEST:
        product = np.conj(np.swapaxes(u, -1, -2)) @ x
        return (product + np.conj(np.swapaxes(product, -1, -2))) / 2
    h = aligned_empty((*x.shape[:-2], x.shape[-1], x.shape[-1]), x.dtype)
    for index in np.ndindex(*x.shape[:-2]):
        h[index] = _hermitian(u[index], x[index])
    return h


def _is_hermitian(u: np.ndarray, x: np.ndarray) -> bool:
    """Whether a probe finds ``U^H X`` Hermitian to rounding, as it is for a polar factor."""
    n = x.shape[1]
    probe = np.random.default_rng(5).standard_normal(n).astype(x.dtype)
    skew = u.conj().T @ (x @ probe) - x.conj().T @ (u @ probe)
    bound = 8 * float(np.finfo(x.dtype).eps) * np.linalg.norm(x) * np.linalg.norm(probe)
    return bool(np.linalg.norm(skew) <= bound)


def _hermitian(u: np.ndarray, x: np.ndarray) -> np.ndarray:
    n = x.shape[1]
    if n < 48 or not _is_hermitian(u, x):
        product = u.conj().T @ x
        return (product + product.conj().T) / 2
    h = aligned_empty((n, n), x.dtype, "F")
    step = -(-n // STRIPS)
    for j in range(0, n, step):
        k = min(j + step, n)
        h[:k, j:k] = u[:, :k].conj().T @ x[:, j:k] if x.dtype.kind == "c" else u[:, :k].T @ x[:, j:k]
    loops.mirror(h.T)
    if x.dtype.kind == "c":
        h.T.flat[:: n + 1] = h.diagonal().real
    return h
