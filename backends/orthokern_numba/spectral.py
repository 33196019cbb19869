"""The polar ops on NumPy arrays: which route a matrix takes, batches, and what rank deficiency means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from orthokern.spectral.plan import STATS_WIDTH, Schedule, Stat, StepKind

from . import layout
from .library import aligned_empty, probe, real_dtype
from .newton import Factor, square_factor
from .rectangular import tall_factor
from .schedule import execute
from .small import LARGEST, SUPPORTED_DTYPES, batched_polar

# Below this size one call of the SVD is cheaper than the calls of an iteration.
SVD_SIZE = 24
# Up to this size a Hermitian product is computed in full.
LEAF = 96
STRIP_WIDTH = 64
BLOCK_ROWS = 1024
# In eps ||X||_F: how far U^H X may be from Hermitian for one of its triangles to stand for both.
HERMITIAN_TO_ROUNDING = 8.0


def unitary_factor(
    x: np.ndarray, *, completion: str, rcond: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Unitary polar factor of each matrix to full accuracy.

    Parameters
    ----------
    x : array (..., m, n), m >= n
        Finite, each member scaled to a largest entry in [0.5, 1) or zero. Any layout; not written to.
    completion : {"unitary", "partial"}
        Orthonormal columns at every rank, or only the directions with ``sigma > rcond * sigma_max``.
    rcond : float, optional
        Default max(m, n) eps.

    Returns
    -------
    u : array (..., m, n)
    stats : array (..., 20)
        Figures in the order of ``orthokern.spectral.plan.Stat``, then the codes of the steps that ran.

    Notes
    -----
    Flops: about 18 n^3 square; 3 m n^2 + 18 n^3 tall and well-conditioned, 6 m n^2 + 20 n^3 else. A singular
    matrix, or one whose result fails a check, is done by the SVD and one cubic step. Higham, *Functions of
    Matrices* (2008), ch. 8; Nakatsukasa and Higham, SISC 35 (2013).
    """
    m, n = x.shape[-2:]
    if m == n <= LARGEST and x.dtype in SUPPORTED_DTYPES:
        u, stats = batched_polar(x.reshape(-1, n, n), completion=completion, rcond=rcond)
        return u.reshape(x.shape), stats.reshape(*x.shape[:-2], STATS_WIDTH)
    return _each(x, lambda a: _factor(a, completion, rcond))


def scheduled_factor(x: np.ndarray, *, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Run a static schedule on each matrix of ``x`` (..., m, n), m >= n; ``(u, stats)`` as ``unitary_factor``.

    With ``closing_tol > 0`` the result is measured and quintic steps are appended until its singular values are
    that close to 1; a schedule with ``any_route`` is replaced by the cheapest measured plan to that tolerance.
    """
    if not schedule.any_route:
        return _each(x, lambda a: execute(a, schedule))
    if x.shape[-2] == x.shape[-1] <= LARGEST and x.dtype in SUPPORTED_DTYPES:
        return unitary_factor(x, completion=schedule.completion)
    return _each(x, lambda a: _to_tolerance(a, schedule))


def hermitian_factor(u: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``(U^H X + X^H U) / 2`` of each pair (..., m, n), bitwise Hermitian (..., n, n).

    2 m n^2 flops, or 1.2 m n^2 where a probe finds ``U^H X`` Hermitian to rounding, as for a polar factor.
    """
    n = x.shape[-1]
    if n <= LEAF:
        product = np.conj(np.swapaxes(u, -1, -2)) @ x
        return (product + np.conj(np.swapaxes(product, -1, -2))) / 2  # type: ignore[no-any-return]
    h = aligned_empty((*x.shape[:-2], n, n), x.dtype)
    for index in np.ndindex(*x.shape[:-2]):
        _hermitian(u[index], x[index], h[index])
    return h


def _each(x: np.ndarray, factor: Callable[[np.ndarray], Factor]) -> tuple[np.ndarray, np.ndarray]:
    """``factor`` of every matrix; a single one keeps the layout that its factor came in."""
    if x.ndim == 2 and x.size:
        found = factor(x)
        return found.u, found.stats
    u = aligned_empty(x.shape, x.dtype)
    stats = np.zeros((*x.shape[:-2], STATS_WIDTH), dtype=real_dtype(x))
    for index in np.ndindex(*x.shape[:-2]) if x.size else ():
        u[index], stats[index] = factor(x[index])
    return u, stats


def _route(a: np.ndarray, cutoff: float, goal: float | None) -> Factor | None:
    m, n = a.shape
    return square_factor(a, cutoff, goal) if m == n else tall_factor(a, cutoff, goal)


def _factor(a: np.ndarray, completion: str, rcond: float | None) -> Factor:
    m, n = a.shape
    eps = float(np.finfo(a.dtype).eps)
    if n == 1:
        return _column(a, completion)
    rank_cut = max(m, n) * eps if rcond is None else rcond
    # Completion needs no decision on the rank: there only the inverse has to exist.
    cutoff = rank_cut if completion == "partial" else n**0.5 * eps
    found = _route(a, cutoff, None) if n >= SVD_SIZE else None
    return _by_svd(a, completion, rank_cut) if found is None else found


def _to_tolerance(a: np.ndarray, schedule: Schedule) -> Factor:
    """The cheapest measured plan; for a singular matrix what the completion asks for."""
    completion = schedule.completion
    cutoff = max(a.shape) * float(np.finfo(a.dtype).eps)
    found = _route(a, cutoff, schedule.closing_tol) if a.shape[1] > 1 else _column(a, completion)
    if found is not None:
        return found
    return execute(a, schedule) if completion == "partial" else _by_svd(a, completion, cutoff)


def _column(a: np.ndarray, completion: str) -> Factor:
    """``x / ||x||``; of a zero column the first unit vector, or zero."""
    stats = np.zeros(STATS_WIDTH, dtype=real_dtype(a))
    stats[Stat.RESIDUAL], stats[Stat.LOWER_BOUND] = np.finfo(a.dtype).eps, 1
    norm = np.linalg.norm(a)
    u = aligned_empty(a.shape, a.dtype)
    np.divide(a, norm if norm > 0 else 1, out=u)
    if norm > 0:
        # Second normalization: the first division may leave 2 eps.
        u /= np.linalg.norm(u)
    elif completion == "unitary":
        u[0, 0] = 1
    return Factor(u, stats)


def _svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        return scipy.linalg.svd(a, full_matrices=False, check_finite=False, lapack_driver="gesdd")  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        return scipy.linalg.svd(a, full_matrices=False, check_finite=False, lapack_driver="gesvd")  # type: ignore[no-any-return]


def _by_svd(a: np.ndarray, completion: str, rcond: float) -> Factor:
    """SVD closed by one cubic step, which removes its own loss of orthogonality."""
    p, s, qh = _svd(a)
    if completion == "partial":
        kept = s > rcond * s[0]
        p, qh = p[:, kept], qh[kept]
    u = p @ qh
    closed = aligned_empty(u.shape, u.dtype)
    np.matmul(u, u.conj().T @ u, out=closed)
    closed *= -0.5
    closed += 1.5 * u
    stats = np.zeros(STATS_WIDTH, dtype=s.dtype)
    stats[Stat.ITERATIONS], stats[Stat.RESIDUAL], stats[len(Stat)] = (
        1,
        np.finfo(a.dtype).eps,
        StepKind.CUBIC,
    )
    stats[Stat.LOWER_BOUND] = s[-1] / s[0] if s[0] > 0 else 0.0
    return Factor(closed, stats)


def _skewness(uh: np.ndarray, u: np.ndarray, x: np.ndarray) -> float:
    """``||U^H X - X^H U||_F / (2 ||X||_F)`` by one random probe."""
    v = probe(x.shape[1], x.dtype)
    skew = uh @ (x @ v) - x.conj().T @ (u @ v)
    norm = np.linalg.norm(x)
    return float(np.linalg.norm(skew) / (2 * norm)) if norm > 0 else 0.0


def _hermitian(u: np.ndarray, x: np.ndarray, h: np.ndarray) -> None:
    uh = u.conj().T
    if _skewness(uh, u, x) > HERMITIAN_TO_ROUNDING * float(np.finfo(x.dtype).eps):
        product = uh @ x
        np.add(product, product.conj().T, out=h)
        h *= 0.5
        return
    _lower_product(uh, x, h)
    layout.mirror(h)
    if h.dtype.kind == "c":
        h.reshape(-1)[:: h.shape[0] + 1].imag = 0


def _lower_product(uh: np.ndarray, x: np.ndarray, h: np.ndarray) -> None:
    """Lower triangle of ``U^H X`` and some of the upper: strips, over blocks of rows that fit a cache."""
    m, n = x.shape
    width = STRIP_WIDTH if n < 4 * LEAF else 2 * STRIP_WIDTH
    for i in range(0, m, BLOCK_ROWS):
        left, right = uh[:, i : i + BLOCK_ROWS], x[i : i + BLOCK_ROWS]
        for j in range(0, n, width):
            k = min(j + width, n)
            if i == 0:
                np.matmul(left[j:k], right[:, :k], out=h[j:k, :k])
            else:
                h[j:k, :k] += left[j:k] @ right[:, :k]
