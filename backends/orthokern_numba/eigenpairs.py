"""The lower end of a Hermitian spectrum by LAPACK: two vectors where all of them would take twice the time."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from .library import real_dtype

# An eigenvalue below this part of the largest, in eps of the order, has no inverse that Cholesky could give.
FLOOR = 1e3
# Residuals and inner products that vectors may leave, in eps.
WRONG = 10.0
# Columns of a panel of reflections.
PANEL = 64
# From this order on the inverse and two vectors are quicker than all vectors.
LEAST = 32


class _Lapack(NamedTuple):
    tridiagonal: Any
    values: Any
    vectors: Any
    turned: Any
    potrf: Any
    trtri: Any
    rank_one: Any


@functools.cache
def _lapack(dtype: np.dtype) -> _Lapack:
    is_complex = dtype.kind == "c"
    names = ("hetrd", "unmqr") if is_complex else ("sytrd", "ormqr")
    rank_one = get_blas_funcs("her" if is_complex else "syr", dtype=dtype)
    tridiagonal, turned, potrf, trtri = get_lapack_funcs((*names, "potrf", "trtri"), dtype=dtype)
    values, vectors = get_lapack_funcs(("sterf", "stein"), dtype=np.finfo(dtype).dtype)
    return _Lapack(tridiagonal, values, vectors, turned, potrf, trtri, rank_one)


def lowest_pairs(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(values, pair, root)`` of Hermitian positive semidefinite matrices (..., n, n)."""
    if h.ndim == 2:
        return _pairs(h)
    values = np.empty(h.shape[:-1], real_dtype(h))
    pair, root = np.empty((*h.shape[:-1], 2), h.dtype), np.empty_like(h)
    for index in np.ndindex(*h.shape[:-2]):
        values[index], pair[index], root[index] = _pairs(h[index])
    return values, pair, root


def _pairs(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = _by_two_vectors(h) if len(h) >= LEAST else None
    return _by_all_vectors(h) if found is None else found


def _by_all_vectors(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(h)
    kept = values > np.finfo(h.dtype).eps * values[-1]
    kept[0] = False
    inverse = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)
    return values, vectors[:, :2], vectors * inverse.astype(h.dtype)


def _by_two_vectors(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """None where the second eigenvalue is too small for Cholesky, or a routine gives up."""
    # LAPACK holds columns: what it sees without a copy is the transpose, which is the conjugate.
    turned = h.T if h.flags.c_contiguous else np.asfortranarray(h.conj())
    found = _pair(turned)
    root = None if found is None else _root(turned, found[1][:, :1], found[0][-1])
    if found is None or root is None:
        return None
    return found[0], found[1].conj(), np.conjugate(root, out=root)


def _pair(h: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Eigenvalues and two vectors."""
    lapack, n = _lapack(h.dtype), len(h)
    reduced, diagonal, off, tau, failed = lapack.tridiagonal(h, lower=1, lwork=PANEL * n)
    if failed or not np.isfinite(diagonal).all():
        return None
    values, failed = lapack.values(diagonal, off)
    if failed or not values[1] > FLOOR * n * np.finfo(h.dtype).eps * values[-1]:
        return None
    found = lapack.vectors(diagonal, off, values[:2], *_one_block(n))
    pair = np.asfortranarray(found[0][:, :2], dtype=h.dtype)
    if found[-1]:
        return None
    # The reflections leave the first row alone.
    pair[1:], _, failed = lapack.turned("L", "N", reduced[1:, :-1], tau, pair[1:], 2 * PANEL)
    return None if failed or not _are_eigenvectors(h, pair, values) else (values, pair)


def _are_eigenvectors(h: np.ndarray, pair: np.ndarray, values: np.ndarray) -> bool:
    """Inverse iteration may return vectors of a cluster that are none."""
    enough = WRONG * np.finfo(h.dtype).eps * len(h) ** 0.5
    missed = np.linalg.norm(h @ pair - pair * values[:2].astype(h.dtype))
    tilt = np.linalg.norm(pair.conj().T @ pair - np.eye(2))
    return bool(missed <= enough * values[-1] and tilt <= enough)


def _one_block(n: int) -> tuple[np.ndarray, np.ndarray]:
    """How LAPACK is told that a tridiagonal matrix does not fall apart."""
    return np.ones(n, np.int32), np.full(n, n, np.int32)


def _root(h: np.ndarray, first: np.ndarray, top: float) -> np.ndarray | None:
    """``R^{-1}`` of H with its least eigenvalue moved to the other end of the spectrum."""
    lapack = _lapack(h.dtype)
    moved = lapack.rank_one(top, first[:, 0], a=h)
    r, failed = lapack.potrf(moved, overwrite_a=1, clean=1)
    if failed:
        return None
    inverse, failed = lapack.trtri(r, overwrite_c=1)
    return None if failed else inverse
