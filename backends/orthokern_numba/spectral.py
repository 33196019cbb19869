"""The polar ops on NumPy arrays: which route a matrix takes, batches, and what rank deficiency means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.linalg

from orthokern.spectral.plan import STATS_WIDTH, Schedule, Stat, StepKind

from . import layout
from .library import aligned_empty, probe, real_dtype
from .newton import Core, Factor, backward_limit, square_factor
from .products import adjoint_multiplied, tiles_pay
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
    found = _together(x, completion, rcond)
    if found is not None:
        return found.u, found.stats
    return _each(x, lambda a: _factor(a, completion, rcond))


def polar_factors(
    x: np.ndarray, *, completion: str, rcond: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(u, h, stats)``: ``unitary_factor`` and ``hermitian_factor`` of each matrix (..., m, n), m >= n.

    A tall matrix that came down to a square core has its Hermitian factor, at a cost without m.
    """
    found = _together(x, completion, rcond)
    if found is not None:
        return found.u, hermitian_factor(*(found.core or (found.u, x))), found.stats
    h = aligned_empty((*x.shape[:-2], x.shape[-1], x.shape[-1]), x.dtype)
    u, stats = _each(x, lambda a: _factor(a, completion, rcond), h)
    return u, h, stats


def scheduled_factor(x: np.ndarray, *, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Run a static schedule on each matrix of ``x`` (..., m, n), m >= n; ``(u, stats)`` as ``unitary_factor``.

    With ``closing_tol > 0`` the result is measured and steps are appended until its singular values are
    that close to 1; a schedule with ``any_route`` is replaced by the cheapest measured plan to that tolerance.
    """
    if not schedule.any_route:
        return _each(x, lambda a: execute(a, schedule))
    found = _together(x, schedule.completion, None)
    if found is not None:
        return found.u, found.stats
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


def _hermitian_of(found: Factor, a: np.ndarray, h: np.ndarray) -> None:
    """Hermitian factor of ``a`` from its core, if a probe finds ``A = U H`` with it to a part of the promise."""
    if found.core is not None:
        h[...] = hermitian_factor(*found.core)
        v = probe(a.shape[1], a.dtype)
        missed = np.linalg.norm(a @ v - found.u @ (h @ v))
        if missed <= backward_limit(a):
            return
    h[...] = hermitian_factor(found.u, a)


def _each(
    x: np.ndarray, factor: Callable[[np.ndarray], Factor], h: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """``factor`` of every matrix, the Hermitian ones into ``h``; a single one keeps the layout that it came in."""
    if x.ndim == 2 and x.size:
        found = factor(x)
        if h is not None:
            _hermitian_of(found, x, h)
        return found.u, found.stats
    u = aligned_empty(x.shape, x.dtype)
    stats = np.zeros((*x.shape[:-2], STATS_WIDTH), dtype=real_dtype(x))
    for index in np.ndindex(*x.shape[:-2]) if x.size else ():
        found = factor(x[index])
        u[index], stats[index] = found.u, found.stats
        if h is not None:
            _hermitian_of(found, x[index], h[index])
    return u, stats


def _route(a: np.ndarray, cutoff: float, goal: float | None) -> Factor | None:
    m, n = a.shape
    return square_factor(a, cutoff, goal) if m == n else tall_factor(a, cutoff, goal)


def _rank_cut(x: np.ndarray, rcond: float | None) -> float:
    return max(x.shape[-2:]) * float(np.finfo(x.dtype).eps) if rcond is None else rcond


def _inverse_exists(x: np.ndarray) -> float:
    """Relative singular value above which an inverse is worth its name; completion needs no decision on the rank."""
    return float(x.shape[-1] ** 0.5 * np.finfo(x.dtype).eps)


def _together(x: np.ndarray, completion: str, rcond: float | None) -> Factor | None:
    """All matrices of a stack at once where that is the fastest way, which is while they are small; else None."""
    m, n = x.shape[-2:]
    if n == 1:
        return _columns(x, completion)
    if n <= LARGEST and x.dtype in SUPPORTED_DTYPES:
        cut = _rank_cut(x, rcond)
        return _in_lanes(x, completion, cut) if m == n else _tall_in_lanes(x, completion, cut)
    return _by_svd(x, completion, _rank_cut(x, rcond)) if n < SVD_SIZE else None


def _in_lanes(x: np.ndarray, completion: str, cut: float) -> Factor:
    n = x.shape[-1]
    u, stats = batched_polar(x.reshape(-1, n, n), completion=completion, rcond=cut)
    return Factor(u.reshape(x.shape), stats.reshape(*x.shape[:-2], STATS_WIDTH))


def _tall_in_lanes(x: np.ndarray, completion: str, cut: float) -> Factor:
    """``Q polar(R)`` of ``A = Q R``, closed by a cubic step."""
    q, r = np.linalg.qr(x)
    inner = _in_lanes(r, completion, cut)
    return Factor(_closed(q @ inner.u), inner.stats, Core(inner.u, r))


def _factor(a: np.ndarray, completion: str, rcond: float | None) -> Factor:
    rank_cut = _rank_cut(a, rcond)
    found = _route(a, rank_cut if completion == "partial" else _inverse_exists(a), None)
    return _by_svd(a, completion, rank_cut) if found is None else found


def _to_tolerance(a: np.ndarray, schedule: Schedule) -> Factor:
    """The cheapest measured plan; for a singular matrix what the completion asks for."""
    tol = schedule.closing_tol
    # The half-width whose squares stay within tol (2 - tol) of 1, which is what convergence asks for.
    found = _route(a, _inverse_exists(a), math.sqrt(1 + tol * (2 - tol)) - 1)
    if found is not None:
        return found
    return execute(a, schedule) if schedule.completion == "partial" else _by_svd(a, "unitary", 0.0)


def _columns(x: np.ndarray, completion: str) -> Factor:
    """``x / ||x||`` of each column; of a zero column the first unit vector, or zero."""
    stats = np.zeros((*x.shape[:-2], STATS_WIDTH), dtype=real_dtype(x))
    stats[..., Stat.RESIDUAL], stats[..., Stat.LOWER_BOUND] = np.finfo(x.dtype).eps, 1
    u = aligned_empty(x.shape, x.dtype)
    norm = np.linalg.norm(x, axis=-2, keepdims=True)
    np.divide(x, np.where(norm > 0, norm, 1), out=u)
    # Once more: the first division may leave 2 eps.
    u /= np.where(norm > 0, np.linalg.norm(u, axis=-2, keepdims=True), 1)
    if completion == "unitary":
        u[..., 0, 0] += norm[..., 0, 0] == 0
    return Factor(u, stats)


def thin_svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(p, s, qh)`` with ``a = (p * s) @ qh``, of one matrix or a stack."""
    try:
        return _svd(a)
    except np.linalg.LinAlgError:
        return _slow_svd(a)


def _svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Small matrices as in a stack: the same numbers, and a cheaper call.
    if a.ndim > 2 or a.shape[1] < SVD_SIZE:
        p, s, qh = np.linalg.svd(a, full_matrices=False)
        return p, s, qh
    return scipy.linalg.svd(a, full_matrices=False, check_finite=False, lapack_driver="gesdd")  # type: ignore[no-any-return]


def _slow_svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By QR iteration, which converges where divide and conquer may not."""
    parts = [
        scipy.linalg.svd(member, full_matrices=False, check_finite=False, lapack_driver="gesvd")
        for member in a.reshape(-1, *a.shape[-2:])
    ]
    p, s, qh = (np.stack([part[i] for part in parts]) for i in range(3))
    batch = a.shape[:-2]
    return (
        p.reshape(batch + p.shape[1:]),
        s.reshape(batch + s.shape[1:]),
        qh.reshape(batch + qh.shape[1:]),
    )


def _by_svd(a: np.ndarray, completion: str, rcond: float) -> Factor:
    """SVD of each matrix, closed by a cubic step, which removes its own loss of orthogonality."""
    p, s, qh = thin_svd(a)
    if completion == "partial":
        p = p * (s > rcond * s[..., :1])[..., None, :]
    stats = np.zeros((*a.shape[:-2], STATS_WIDTH), dtype=s.dtype)
    stats[..., Stat.ITERATIONS], stats[..., len(Stat)] = 1, StepKind.CUBIC
    stats[..., Stat.RESIDUAL] = np.finfo(a.dtype).eps
    stats[..., Stat.LOWER_BOUND] = s[..., -1] / np.where(s[..., 0] > 0, s[..., 0], 1)
    return Factor(_closed(p @ qh), stats)


def _gram(u: np.ndarray) -> np.ndarray:
    """``U^H U``, summed in blocks of rows: the errors of one long sum of like numbers all have the same sign."""
    m, n = u.shape[-2:]
    if m <= max(STRIP_WIDTH, n):
        return np.conj(np.swapaxes(u, -1, -2)) @ u  # type: ignore[no-any-return]
    half = m // 2
    total: np.ndarray = _gram(u[..., :half, :]) + _gram(u[..., half:, :])
    return total


def _closed(u: np.ndarray) -> np.ndarray:
    """``U - U (U^H U - I) / 2``: only the small correction suffers from the rounding errors of a product."""
    closed = aligned_empty(u.shape, u.dtype)
    defect = _gram(u)
    defect -= np.eye(u.shape[-1], dtype=u.dtype)
    np.matmul(u, defect, out=closed)
    closed *= -0.5
    closed += u
    return closed


def _skewness(uh: np.ndarray, u: np.ndarray, x: np.ndarray) -> float:
    """``||U^H X - X^H U||_F / (2 ||X||_F)`` by one random probe."""
    v = probe(x.shape[1], x.dtype)
    skew = uh @ (x @ v) - x.conj().T @ (u @ v)
    norm = np.linalg.norm(x)
    return float(np.linalg.norm(skew) / (2 * norm)) if norm > 0 else 0.0


def _hermitian(u: np.ndarray, x: np.ndarray, h: np.ndarray) -> None:
    uh = u.conj().T
    if _skewness(uh, u, x) > HERMITIAN_TO_ROUNDING * float(np.finfo(x.dtype).eps):
        product = adjoint_multiplied(u, x)
        np.add(product, product.conj().T, out=h)
        h *= 0.5
    elif tiles_pay(x.dtype, x.size * x.shape[1]):
        h[...] = adjoint_multiplied(u, x, hermitian=True)
    else:
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
