"""Compiled loops behind `small` that take one matrix at a time: signs, the closed form in the plane, Jacobi's SVD."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_MAX_SWEEPS = 60
# Backward error, in eps of the norm, above which a member leaves the fast route (the contract allows 60).
SKEW_LIMIT = 20.0
# Shorter vectors have no direction to full precision: their squares near the end of the exponent range.
_TINY = 1e-140
# Cosine, to be multiplied by sqrt(n), of two vectors that are orthogonal to float64 rounding.
_ANGLE = 2e-16


@njit(cache=True, error_model="numpy")
def sign_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """Signs of ``x`` (b, 1); a zero is left to the fallback."""
    for t in range(x.shape[0]):
        u[t, 0] = 1 if x[t, 0] > 0 else -1
        stats[t, 1] = eps
        stats[t, 3] = 1
        failed[t] = x[t, 0] == 0


@njit(cache=True, error_model="numpy")
def plane_polar(
    x: np.ndarray, u: np.ndarray, stats: np.ndarray, failed: np.ndarray, eps: float
) -> None:
    """Unitary factors of real 2 x 2 matrices ``x`` (b, 4) in closed form.

    ``u`` is ``a + s adj(a)^T``, s the sign of det a, over its norm sigma_1 + sigma_2. Each entry of the sum is
    rounded once, so ``u`` is accurate to a few eps. A determinant whose computed sign is wrong has sigma_2 of the
    size of eps sigma_1, and then ``u`` is the factor of a matrix as near as that.
    """
    for t in range(x.shape[0]):
        a, b, c, d = x[t, 0], x[t, 1], x[t, 2], x[t, 3]
        det = a * d - b * c
        s = x.dtype.type(1 if det >= 0 else -1)
        p, q = a + s * d, b - s * c
        norm = np.sqrt(p * p + q * q)
        p, q = p / norm, q / norm
        u[t, 0], u[t, 1], u[t, 2], u[t, 3] = p, q, -s * q, s * p
        skew = p * b - s * q * d - (q * a + s * p * c)
        size = a * a + b * b + c * c + d * d
        largest = (norm + np.sqrt(max(norm * norm - 4 * abs(det), 0))) / 2
        stats[t, 1] = max(abs(p * p + q * q - 1), eps)
        stats[t, 3] = max(abs(det) / (largest * largest) - 4 * eps, 0)
        failed[t] = not (skew * skew <= 2 * (SKEW_LIMIT * eps) ** 2 * size)


@njit(cache=True, error_model="numpy")
def _rotate(w: np.ndarray, p: int, q: int, c: float, s: float) -> None:
    """Rows ``p`` and ``q`` to ``c w_p - s w_q`` and ``s w_p + c w_q``."""
    for k in range(w.shape[1]):
        x, y = w[p, k], w[q, k]
        w[p, k] = c * x - s * y
        w[q, k] = s * x + c * y


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    """Scalar product."""
    total = 0.0
    for k in range(x.size):
        total += x[k] * y[k]
    return total


@njit(cache=True, error_model="numpy")
def _jacobi_sweep(w: np.ndarray, v: np.ndarray, floor: float, tolerance: float) -> int:
    """Make each pair of rows of ``w`` orthogonal once, and those of ``v`` with it; the number of rotations."""
    rotations = 0
    for p in range(w.shape[0] - 1):
        for q in range(p + 1, w.shape[0]):
            alpha, beta, gamma = _dot(w[p], w[p]), _dot(w[q], w[q]), _dot(w[p], w[q])
            if alpha <= floor or beta <= floor:
                continue
            if abs(gamma) > tolerance * np.sqrt(alpha) * np.sqrt(beta):
                rotations += 1
                zeta = (beta - alpha) / (2 * gamma)
                tangent = (1.0 if zeta >= 0 else -1.0) / (abs(zeta) + np.sqrt(1 + zeta * zeta))
                c = 1 / np.sqrt(1 + tangent * tangent)
                _rotate(w, p, q, c, c * tangent)
                _rotate(v, p, q, c, c * tangent)
    return rotations


@njit(cache=True, error_model="numpy")
def _complete(w: np.ndarray, missing: int) -> None:
    """Row ``missing`` of ``w`` orthonormal to the others, which are orthonormal or zero."""
    emptiest, least = 0, np.inf
    for k in range(w.shape[1]):
        weight = _dot(w[:, k], w[:, k])
        if weight < least:
            emptiest, least = k, weight
    w[missing, emptiest] = 1
    for _ in range(2):
        for i in range(w.shape[0]):
            if i != missing:
                overlap = _dot(w[i], w[missing])
                for k in range(w.shape[1]):
                    w[missing, k] -= overlap * w[i, k]
        length = np.sqrt(_dot(w[missing], w[missing]))
        for k in range(w.shape[1]):
            w[missing, k] /= length


@njit(cache=True, error_model="numpy")
def _normalize(
    w: np.ndarray, sigma: np.ndarray, floor: float, threshold: float, complete: bool
) -> None:
    """Rows of ``w`` to unit length; rows without a direction, or not above ``threshold``, completed or zero."""
    for i in range(w.shape[0]):
        keep = sigma[i] > floor if complete else sigma[i] > max(floor, threshold)
        for k in range(w.shape[1]):
            w[i, k] = w[i, k] / sigma[i] if keep else 0.0
        sigma[i] = sigma[i] if keep else -1.0
    if complete:
        for i in range(w.shape[0]):
            if sigma[i] < 0:
                _complete(w, i)


@njit(cache=True, error_model="numpy")
def _accumulate(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """``c += a^T b`` for ``a``, ``b`` and ``c`` (n, n), rows contiguous."""
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            factor = a[k, i]
            for j in range(b.shape[1]):
                c[i, j] += factor * b[k, j]


@njit(cache=True, error_model="numpy")
def _close(u: np.ndarray) -> float:
    """One cubic step on ``u`` (n, n), which also leaves a partial isometry one; norm of ``u (u^T u - I)``."""
    n = u.shape[1]
    gram, step = np.zeros((n, n)), np.zeros(u.shape)
    for i in range(n):
        gram[i, i] = -1.0
    _accumulate(u, u, gram)
    _accumulate(u.T.copy(), gram, step)
    change = 0.0
    for i in range(u.shape[0]):
        for j in range(n):
            u[i, j] -= step[i, j] / 2
            change += step[i, j] * step[i, j]
    return float(np.sqrt(change))


@njit(cache=True, error_model="numpy")
def _jacobi(
    a: np.ndarray, sigma: np.ndarray, cut: float, complete: bool, eps: float
) -> tuple[np.ndarray, float]:
    """Unitary factor of ``a`` (n, n) from a one-sided Jacobi SVD in float64, and the change its closing made.

    Directions below eps of the norm are left alone: they are the rounding errors of the others. flops: about
    50 n^3 in 6 to 10 sweeps. ``sigma`` gets the singular values, then the largest and the smallest.
    """
    n = a.shape[1]
    w, v, u = np.empty((n, a.shape[0])), np.eye(n), np.zeros(a.shape)
    size = 0.0
    for i in range(n):
        for k in range(a.shape[0]):
            w[i, k] = a[k, i]
        size += _dot(w[i], w[i])
    floor = max((eps if complete else min(eps, cut)) * np.sqrt(size), _TINY)
    for _ in range(_MAX_SWEEPS):
        if _jacobi_sweep(w, v, floor * floor, _ANGLE * math.sqrt(n)) == 0:
            break
    for i in range(n):
        sigma[i] = np.sqrt(_dot(w[i], w[i]))
    sigma[n], sigma[n + 1] = sigma[:n].max(), sigma[:n].min()
    _normalize(w, sigma[:n], floor, float(cut * sigma[n]), complete)
    _accumulate(w, v, u)
    return u, _close(u)


@njit(cache=True, error_model="numpy")
def jacobi_polar(
    x: np.ndarray,
    members: np.ndarray,
    u: np.ndarray,
    stats: np.ndarray,
    cut: float,
    complete: bool,
    eps: float,
) -> None:
    """Unitary factors of the ``members`` of ``x`` (b, n, n) by Jacobi SVD; ``complete`` fills the rank."""
    n = x.shape[2]
    sigma = np.empty(n + 2)
    for t in members:
        factor, change = _jacobi(x[t], sigma, cut, complete, eps)
        for i in range(x.shape[1]):
            for j in range(n):
                u[t, i, j] = factor[i, j]
        stats[t] = 0
        stats[t, 1] = max(0.75 * change * change, eps)
        ratio = sigma[n + 1] / sigma[n] if sigma[n] > 0 else 0.0
        stats[t, 3] = max(ratio - n * eps, 0.0)
