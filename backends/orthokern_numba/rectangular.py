"""Polar factor of one tall matrix, by the route that its condition number allows.

Polishing cannot repair a wrong Gram route: an error in ``G^{-1/2}`` that does not commute with G turns into a skew
error of the factor. Hence the strict limit on its condition number, and the probes of both errors.
"""

from __future__ import annotations

import numpy as np

from . import layout
from .library import aligned_empty, library, probe, thin_qr
from .newton import Core, Factor, Iterate, completed, is_backward_stable, prepared, square_factor
from .products import multiplied, upper_gram

# Above this condition number the Gram route loses kappa^2 eps.
GRAM_CONDITION = 2.5
# CholeskyQR2 is stable while the first factorization leaves its Q with a condition number near 1.
CHOLESKY_CONDITION_SQUARED = 1e-2
ESTIMATE_STEPS = 8


def tall_factor(a: np.ndarray, cutoff: float, goal: float | None = None) -> Factor | None:
    """Unitary polar factor of ``a`` (m, n), m > n; None if it is rank-deficient at ``cutoff`` or a check fails.

    Gram route ``A (R^{-1} polar(R))`` for kappa <= 2.5 (3 m n^2 flops), CholeskyQR2 and ``Q polar(R)`` while
    kappa^2 eps <= 1e-2 (6 m n^2), Householder QR beyond.
    """
    found = _by_cholesky(a, cutoff, goal)
    return _by_householder(a, cutoff, goal) if found is None else found


def _cholesky(g: np.ndarray) -> np.ndarray | None:
    """Upper triangular R with ``R^H R = G``, in place; None if G is not positive definite."""
    r, info = library(g.dtype).potrf(g, clean=1, overwrite_a=1)
    return r if info == 0 else None


def _condition(state: Iterate) -> float:
    """Estimate of the condition number of a prepared iterate, a few percent low at most for spectra this narrow."""
    top = layout.gain(state.x.T, state.start, ESTIMATE_STEPS)
    return float(top * layout.gain(state.y.T, state.start, ESTIMATE_STEPS))


def _by_cholesky(a: np.ndarray, cutoff: float, goal: float | None) -> Factor | None:
    eps = float(np.finfo(a.dtype).eps)
    r = _cholesky(upper_gram(a))
    start = None if r is None else prepared(r, (eps / CHOLESKY_CONDITION_SQUARED) ** 0.5)
    if r is None or start is None:
        return None
    if _condition(start[0]) <= GRAM_CONDITION:
        found = _byupper_gram(a, r, start, goal)
        if found is not None:
            return found
    return _by_two_cholesky(a, r, cutoff, goal)


def _byupper_gram(
    a: np.ndarray, r: np.ndarray, start: tuple[Iterate, float], goal: float | None
) -> Factor | None:
    """``A W`` with ``W = R^{-1} polar(R)``, which is ``G^{-1/2}``."""
    stats = completed(*start, goal)
    core = Core(start[0].x, r)
    u = multiplied(a, library(a.dtype).trsm(1.0, r, core.u))
    return Factor(u, stats, core) if _is_right(a, u, goal) else None


def _is_right(a: np.ndarray, u: np.ndarray, goal: float | None) -> bool:
    # The square core was checked by itself, or has a condition number near 1.
    return (goal is not None or _is_orthonormal(u)) and is_backward_stable(a, u, probes=1)


def _is_orthonormal(u: np.ndarray) -> bool:
    """Whether a probe, which estimates ``||U^H U - I||_F / sqrt(n)``, stays below the promise with a margin."""
    n = u.shape[1]
    v = probe(n, u.dtype)
    missed = np.linalg.norm(u.conj().T @ (u @ v) - v) / np.linalg.norm(v)
    return bool(missed <= min(7.5, 2.5 * n**0.5) * np.finfo(u.dtype).eps)


def _by_two_cholesky(
    a: np.ndarray, r: np.ndarray, cutoff: float, goal: float | None
) -> Factor | None:
    """CholeskyQR2: ``A = Q R2 R1`` with ``Q = A R1^{-1} R2^{-1}``, then ``Q polar(R2 R1)``."""
    f = library(a.dtype)
    q = aligned_empty(a.shape, a.dtype, "F")
    np.copyto(q, a)
    q = f.trsm(1.0, r, q, side=1, overwrite_b=1)
    second = _cholesky(upper_gram(q))
    if second is None:
        return None
    product = f.trmm(1.0, second, r)
    inner = square_factor(product, cutoff, goal)
    if inner is None:
        return None
    u = multiplied(q, f.trsm(1.0, second, inner.u))
    return Factor(u, inner.stats, Core(inner.u, product)) if _is_right(a, u, goal) else None


def _by_householder(a: np.ndarray, cutoff: float, goal: float | None) -> Factor | None:
    q, r = thin_qr(a)
    inner = square_factor(r, cutoff, goal)
    return inner and Factor(q @ inner.u, inner.stats, Core(inner.u, r))
