"""Many positive definite systems that differ in a diagonal: Cholesky factors in one buffer."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from scipy.linalg import get_lapack_funcs

from .library import aligned_empty


@functools.cache
def _posv(dtype: np.dtype) -> Any:
    (posv,) = get_lapack_funcs(("posv",), dtype=dtype)
    return posv


@numba.njit(cache=True)
def _scales(g: np.ndarray, penalty: np.ndarray, s: np.ndarray) -> None:
    """What brings the diagonal of the system to 1; 1 where it is zero."""
    for j in range(g.shape[0]):
        total = g[j, j] + penalty[j]
        s[j] = 1 / np.sqrt(total) if total > 0 else 1


@numba.njit(cache=True)
def _fill(g: np.ndarray, s: np.ndarray, diagonal: float, system: np.ndarray) -> None:
    """The half of the scaled system that LAPACK reads of the transposed buffer."""
    for i in range(g.shape[0]):
        for j in range(i):
            system[i, j] = g[i, j] * s[i] * s[j]
        system[i, i] = diagonal


def _one(g: np.ndarray, penalty: np.ndarray, r: np.ndarray, c: np.ndarray) -> None:
    """All rows of one member."""
    k = g.shape[0]
    diagonal = g.dtype.type(1 + 2 * np.finfo(g.dtype).eps * k**0.5)
    system, s = aligned_empty((k, k), g.dtype), np.empty(k, dtype=g.dtype)
    posv = _posv(g.dtype)
    for i in range(r.shape[0]):
        _scales(g, penalty[i], s)
        _fill(g, s, diagonal, system)
        _, y, info = posv(system.T, s * r[i], lower=0, overwrite_a=1, overwrite_b=1)
        c[i] = s * (y if info == 0 else _by_lu(g, s, diagonal, s * r[i]))


def _by_lu(g: np.ndarray, s: np.ndarray, diagonal: float, r: np.ndarray) -> np.ndarray:
    """Where rounding errors made the system indefinite."""
    system = g * s[:, None] * s
    np.fill_diagonal(system, diagonal)
    return np.linalg.solve(system, r)


def regularized_rows(g: np.ndarray, penalty: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Rows ``c_i`` with ``(G + diag(P_i)) c_i = r_i``; G (..., k, k), P and r (..., m, k).

    Notes
    -----
    Flops: m k^3 / 3; memory k^2. G + diag(P_i) is symmetric positive semidefinite, scaled to a unit diagonal.
    """
    c = aligned_empty(r.shape, r.dtype)
    batch = r.shape[:-2]
    systems = np.broadcast_to(g, (*batch, *g.shape[-2:]))
    penalties = np.broadcast_to(penalty, r.shape)
    for index in np.ndindex(*batch):
        _one(systems[index], penalties[index], r[index], c[index])
    return c
