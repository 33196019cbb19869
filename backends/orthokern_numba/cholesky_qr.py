"""Thin QR by Cholesky: a sketch gives R0, and the Gram matrix of ``A R0^{-1}`` is well conditioned."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_lapack_funcs

from .hashing import scattered_rows
from .library import aligned_empty, library
from .panels import divide, times_upper
from .products import divisor_of, gram_sum, panels_of, tiles_pay

# Rows of a block that stays in cache while it is divided and its Gram matrix summed.
BLOCK = 1024
# Below so many rows a column, or so many entries, Householder's method is as quick.
ROWS_A_COLUMN, ENTRIES = 6, 1 << 14
# The Gram matrix of a whitened A has eigenvalues between about 0.3 and 12. From these reciprocal condition numbers of
# its Cholesky factor in the 1-norm, times d^0.9 and d^0.5, Q is orthonormal to rounding, and worth a second pass.
WHITE, LEAST_CONDITION = 0.35, 1e-3
# Entries of a column of the sketch: with so many columns half of them embed as well.
MANY_COLUMNS, NNZ, FEWER = 32, 8, 4


class _Lapack(NamedTuple):
    geqrf: Any
    trcon: Any
    trtri: Any


@functools.cache
def _lapack(dtype: np.dtype) -> _Lapack:
    return _Lapack(*get_lapack_funcs(("geqrf", "trcon", "trtri"), dtype=dtype))


def thin_qr(a: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``(q, r)`` of each matrix, with a diagonal of r that is not negative."""
    n, d = a.shape[-2:]
    k = min(n, d)
    q, r = (
        aligned_empty((*a.shape[:-2], n, k), a.dtype),
        aligned_empty((*a.shape[:-2], k, d), a.dtype),
    )
    for index in np.ndindex(*a.shape[:-2]):
        tall = n >= ROWS_A_COLUMN * d and n * d >= ENTRIES
        if not (tall and _sketched(a[index], q[index], r[index], seed)):
            _householder(a[index], q[index], r[index])
    return q, r


def _householder(a: np.ndarray, q: np.ndarray, r: np.ndarray) -> None:
    full, upper = np.linalg.qr(a)
    diagonal = np.diagonal(upper)
    size = np.abs(diagonal)
    phase = np.where(size > 0, diagonal, 1) / np.where(size > 0, size, 1)
    np.multiply(full, phase, out=q)
    np.multiply(phase.conj()[:, None], upper, out=r)


def _sketched(a: np.ndarray, q: np.ndarray, r: np.ndarray, seed: int) -> bool:
    """Write the factors into ``q`` and ``r``; False where they would not be accurate."""
    d = a.shape[1]
    f, lapack = library(a.dtype), _lapack(a.dtype)
    nnz = NNZ if d < MANY_COLUMNS else FEWER
    rows = -(-2 * d // nnz) * nnz
    sketch = scattered_rows(a, rows=rows, nnz=nnz, seed=seed, start=0, stream=1, group=0)
    r0 = np.asfortranarray(np.triu(lapack.geqrf(sketch)[0][:d]))
    diagonal = np.abs(np.diagonal(r0))
    if not (np.isfinite(r0).all() and diagonal.min() > 0):
        return False
    r0 *= (np.diagonal(r0).conj() / diagonal)[:, None]
    g, condition = _whitened_gram(a, r0, q), 0.0
    # Where R0 is nearly singular Y need not be white; then its Q is whitened once more.
    while not condition > WHITE / d**0.9:
        low, failed = f.potrf(g, lower=0, clean=1, overwrite_a=1)
        condition = 0.0 if failed else lapack.trcon(low, norm="1", uplo="U", diag="N")[0]
        if not condition > LEAST_CONDITION / d**0.5:
            return False
        _multiply(q, low)
        r0 = f.trmm(1.0, low, r0)
        g = _gram(q) if condition <= WHITE / d**0.9 else g
    r[...] = r0
    return True


def _whitened_gram(a: np.ndarray, r0: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``Y = A R0^{-1}`` into ``q``; both triangles of ``Y^H Y``."""
    sums, g = gram_sum(r0.shape[0], a.dtype), np.empty_like(r0, order="C")
    trsm, panels = library(a.dtype).trsm, divisor_of(r0) if tiles_pay(a.dtype) else None
    for start in range(0, len(a), BLOCK):
        rows, block = a[start : start + BLOCK], q[start : start + BLOCK]
        if panels is None:
            block[...] = trsm(1.0, r0, rows.T, trans_a=1).T
        else:
            divide(np.ascontiguousarray(rows), panels, block)
        sums.add(block)
    sums.write(g)
    return g


def _gram(q: np.ndarray) -> np.ndarray:
    sums, g = gram_sum(q.shape[1], q.dtype), np.empty((q.shape[1],) * 2, q.dtype)
    for start in range(0, len(q), BLOCK):
        sums.add(q[start : start + BLOCK])
    sums.write(g)
    return g


def _multiply(q: np.ndarray, r: np.ndarray) -> None:
    """``Q <- Q R^{-1}`` of a well conditioned R, by its inverse."""
    inverse, _ = _lapack(q.dtype).trtri(r)
    if tiles_pay(q.dtype):
        times_upper(q, panels_of(inverse), q)
        return
    trmm = library(q.dtype).trmm
    for start in range(0, len(q), BLOCK):
        block = q[start : start + BLOCK]
        block[...] = trmm(1.0, inverse, block.T, trans_a=1).T
