"""One number for each matrix from a pass over its entries: a quantile, a root mean square of hyperbolic cosines."""

from __future__ import annotations

import math

import numba
import numpy as np

# sinh(z)^2 / z^2 in powers of z^2; up to |z| = 0.1 what is cut off is below 2e-12 of the first term, and since the
# squares of all entries sum to gamma^2, below 2e-14 of a mean that is at least 1.
SMALL = 0.1
# Added to R by the published formula.
SCALE_GUARD = 1e-8


def magnitude_quantile(x: np.ndarray, *, quantile: float) -> np.ndarray:
    """Quantile of ``|x|`` in each matrix (..., m, n), shape (..., 1, 1); by selection, O(m n), not by sorting."""
    flat = np.abs(x).reshape(*x.shape[:-2], -1)
    place = quantile * (flat.shape[-1] - 1)
    low = math.floor(place)
    high = min(low + 1, flat.shape[-1] - 1)
    unknown = np.isnan(flat.sum(axis=-1))
    flat.partition((low, high), axis=-1)
    lower, upper = flat[..., low], flat[..., high]
    found = np.where(unknown, np.nan, lower + (place - low) * (upper - lower))
    return found.astype(flat.dtype, copy=False)[..., None, None]


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _square_sum(row: np.ndarray) -> float:
    total = 0.0
    for j in range(len(row)):
        total += np.float64(row[j]) * np.float64(row[j])
    return total


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _series_sum(row: np.ndarray, factor: float) -> float:
    """Sum of ``sinh(factor x)^2`` where every argument is small."""
    total = 0.0
    for j in range(len(row)):
        z = factor * np.float64(row[j])
        t = z * z
        total += t * (1.0 + t * (1 / 3 + t * (2 / 45 + t * (1 / 315 + t * (2 / 14175)))))
    return total


@numba.njit(cache=True)
def _sinh_sum(row: np.ndarray, factor: float) -> float:
    total = 0.0
    for j in range(len(row)):
        total += math.sinh(factor * np.float64(row[j])) ** 2
    return total


@numba.njit(cache=True)
def _scaled(x: np.ndarray, guard: np.ndarray, gamma: float, last: float, out: np.ndarray) -> None:
    """Matrix by matrix of (b, m, n): its norm, the mean over its rows, and the scaled copy."""
    b, m, n = x.shape
    for i in range(b):
        squares = np.empty(m)
        for r in range(m):
            squares[r] = _square_sum(x[i, r])
        scale = 1.0 / (math.sqrt(squares.sum()) + guard[i])
        total = 0.0
        for r in range(m):
            # The largest entry of a row is at most the norm of the row.
            near = gamma * scale * math.sqrt(squares[r]) <= SMALL
            if near:
                total += _series_sum(x[i, r], gamma * scale)
            else:
                total += _sinh_sum(x[i, r], gamma * scale)
        scale /= math.sqrt(1.0 + total / (m * n)) + last
        for r in range(m):
            for j in range(n):
                out[i, r, j] = x[i, r, j] * x.dtype.type(scale)


def cosh_rms(x: np.ndarray, guard: np.ndarray, *, gamma: float) -> np.ndarray:
    """``G / (R + 1e-8)`` with ``G = x / (||x||_F + guard)``, ``R^2 = mean cosh^2(gamma G)`` of real (..., m, n)."""
    shape = x.shape
    stack = np.ascontiguousarray(x).reshape(-1, *shape[-2:])
    guards = np.broadcast_to(guard, (*shape[:-2], 1, 1)).astype(np.float64).reshape(-1)
    out = np.empty_like(stack)
    _scaled(stack, guards, gamma, SCALE_GUARD, out)
    return out.reshape(shape)
