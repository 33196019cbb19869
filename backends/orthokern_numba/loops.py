"""The O(n^2) loops between BLAS calls: tiled, fused, in place.

All compiled helpers of the planner stand in this one file, because Numba's cache notices changes of the decorated
function's file only. Matrices are Fortran-ordered and come transposed, so that ``xt[j, i]`` is entry (i, j).
"""

from __future__ import annotations

import numba
import numpy as np

TILE = 32


@numba.njit(cache=True)
def permutation(pivots: np.ndarray) -> np.ndarray:
    """Row order that LAPACK's sequence of interchanges ``pivots`` produces."""
    order = np.arange(pivots.size)
    for i in range(pivots.size):
        j = pivots[i]
        order[i], order[j] = order[j], order[i]
    return order


@numba.njit(cache=True)
def upper_triangle(source: np.ndarray, target: np.ndarray) -> None:
    """``target`` = upper triangle of ``source``, zeros below."""
    n = source.shape[0]
    for j in range(n):
        target[j, : j + 1] = source[j, : j + 1]
        target[j, j + 1 :] = 0


@numba.njit(cache=True)
def newton_combine(
    xt: np.ndarray, yt: np.ndarray, order: np.ndarray, a: float, b: float, out: np.ndarray
) -> None:
    """``out = a X + b (Y P)^H``: the Newton step, with the columns of ``Y`` put back in order on the way."""
    n = xt.shape[0]
    for j0 in range(0, n, TILE):
        for i0 in range(0, n, TILE):
            for j in range(j0, min(j0 + TILE, n)):
                for i in range(i0, min(i0 + TILE, n)):
                    row = order[i]
                    out[j, row] = a * xt[j, row] + b * np.conj(yt[i, j])


@numba.njit(cache=True)
def mirror(gt: np.ndarray) -> None:
    """Fill the lower triangle of a Hermitian matrix from its upper one."""
    n = gt.shape[0]
    for j0 in range(0, n, TILE):
        for i0 in range(0, j0 + TILE, TILE):
            for j in range(j0, min(j0 + TILE, n)):
                for i in range(i0, min(i0 + TILE, j)):
                    gt[i, j] = np.conj(gt[j, i])


@numba.njit(cache=True)
def shifted_sum(pt: np.ndarray, gt: np.ndarray, b: float, a: float) -> None:
    """``P <- P + b G + a I`` on the upper triangle."""
    n = pt.shape[0]
    for j in range(n):
        for i in range(j + 1):
            pt[j, i] += b * gt[j, i]
        pt[j, j] += a


@numba.njit(cache=True)
def shifted_scale(gt: np.ndarray, b: float, a: float) -> None:
    """``G <- b G + a I`` on the upper triangle."""
    n = gt.shape[0]
    for j in range(n):
        for i in range(j + 1):
            gt[j, i] *= b
        gt[j, j] += a


@numba.njit(cache=True)
def add_multiple(xt: np.ndarray, a: float, out: np.ndarray) -> None:
    """``out <- out + a X``."""
    for j in range(xt.shape[0]):
        for i in range(xt.shape[1]):
            out[j, i] += a * xt[j, i]
