"""Polar factor of one tall matrix, by the route that its condition number allows.

Gram route for kappa <= 2.5, CholeskyQR2 while kappa^2 eps is small, Householder QR beyond. Polishing cannot repair
a wrong Gram route: an error in ``G^{-1/2}`` that does not commute with G turns into a skew error of the factor.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from orthokern.spectral.plan import STATS_WIDTH, Stat, StepKind

from . import loops
from .lapack import identity_minus, routines, solve_upper
from .square import Factor, planned_factor

GRAM_LIMIT = 2.5
# Below this size the eigendecomposition is cheaper than a plan and the whole run is a few calls.
CHOLESKY_LIMIT = 1e-2


def tall_factor(a: np.ndarray, tol: float | None, cutoff: float) -> Factor | None:
    """Unitary factor of ``a`` (m, n), m > n; None if it is rank-deficient to working precision.

    About 5 m n^2 flops, 3 m n^2 for kappa <= 2.5.
    """
    eps = float(np.finfo(a.dtype).eps)
    g = _gram(a)
    values, vectors = scipy.linalg.eigh(g, driver="evd", check_finite=False)
    lowest, highest = float(values[0]), float(values[-1])
    if lowest > 0 and highest <= GRAM_LIMIT**2 * lowest:
        factor = _by_gram(a, g, values, vectors, eps)
        if factor is not None:
            return factor
    if lowest > 0 and eps * highest <= CHOLESKY_LIMIT * lowest:
        factor = _by_cholesky(a, g, tol, cutoff)
        if factor is not None:
            return factor
    return _by_householder(a, tol, cutoff)


def _gram(a: np.ndarray) -> np.ndarray:
    """``A^H A`` in full, without a copy of ``a`` whichever way it lies."""
    f = routines(a.dtype)
    if a.flags.c_contiguous:
        # The transpose of a row-major matrix is column-major: A^T (A^T)^H is the conjugate of A^H A.
        g = np.conj(f.rank_k(1.0, a.T))
    else:
        g = f.rank_k(1.0, a, trans=f.turn)
    loops.mirror(g.T)
    return g  # type: ignore[no-any-return]


def _by_gram(
    a: np.ndarray, g: np.ndarray, values: np.ndarray, vectors: np.ndarray, eps: float
) -> Factor | None:
    """``A G^{-1/2}``, the inverse root corrected once; None if a probe finds the columns not orthonormal."""
    root = (vectors * values**-0.5) @ vectors.conj().T
    # The correction W (I - W G W) / 2 removes the rounding of the eigendecomposition, not that of G.
    root += root @ identity_minus(root @ g @ root) / 2
    u = _product(a, root)
    n = a.shape[1]
    probe = np.random.default_rng(11).standard_normal(n).astype(a.dtype)
    missed = np.linalg.norm(u.conj().T @ (u @ probe) - probe) / np.linalg.norm(probe)
    # For a random probe this estimates the Frobenius norm divided by sqrt(n).
    if not missed <= 5 * eps:
        return None
    stats = np.zeros(STATS_WIDTH, dtype=values.dtype)
    stats[Stat.ITERATIONS] = 1
    stats[Stat.RESIDUAL] = max(float(missed) * n**0.5, eps)
    stats[Stat.LOWER_BOUND] = (values[0] / values[-1]) ** 0.5
    stats[len(Stat)] = StepKind.CUBIC
    return Factor(u, stats)


def _product(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``A W`` in the layout of ``a``."""
    f = routines(a.dtype)
    if a.flags.c_contiguous:
        return f.gemm(1.0, np.asfortranarray(w), a.T, trans_a=1).T  # type: ignore[no-any-return]
    return f.gemm(1.0, a, np.asfortranarray(w))  # type: ignore[no-any-return]


def _by_cholesky(a: np.ndarray, g: np.ndarray, tol: float | None, cutoff: float) -> Factor | None:
    """CholeskyQR2, then the polar factor of R; None if a Cholesky factorization breaks down."""
    f = routines(a.dtype)
    first, info = f.potrf(g, clean=1)
    if info:
        return None
    q = solve_upper(first, np.array(a, order="F"))
    again = f.rank_k(1.0, q, trans=f.turn)
    second, info = f.potrf(again, clean=1)
    if info:
        return None
    inner = planned_factor(np.triu(second) @ np.triu(first), tol, cutoff)
    if inner is None:
        return None
    weights = f.trsm(1.0, second, inner.u)
    return Factor(f.gemm(1.0, q, weights), inner.stats)


def _by_householder(a: np.ndarray, tol: float | None, cutoff: float) -> Factor | None:
    q, r = scipy.linalg.qr(a, mode="economic", check_finite=False)
    inner = planned_factor(r, tol, cutoff)
    return None if inner is None else Factor(q @ inner.u, inner.stats)
