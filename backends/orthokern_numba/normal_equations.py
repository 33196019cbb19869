"""Sums over the rows of a least-squares problem, in blocks of rows that stay in the cache.

A block in single precision is converted as it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from .library import aligned_empty, library, real_dtype
from .panels import times_upper
from .products import gram_sum, panels_of, tiles_pay

# Numbers of a block: 1 MiB in double precision.
BLOCK = 2**17
LEAST_ROWS = 16
# What is not finite, or leaves the range, is the caller's to find.
QUIET = np.errstate(invalid="ignore", over="ignore")
DOUBLE = {"f": np.dtype(np.float64), "F": np.dtype(np.complex128)}


def _sums_dtype(a: np.ndarray) -> np.dtype:
    return DOUBLE.get(a.dtype.char, a.dtype)


def _size(d: int) -> int:
    return max(LEAST_ROWS, BLOCK // max(d, 1))


def _as_it_is(a: np.ndarray) -> bool:
    return a.dtype == _sums_dtype(a) and a.flags.c_contiguous


def _blocks(a: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """``size`` rows of ``a`` (n, d) at a time in the precision of sums, row-major."""
    n, d = a.shape
    buffer = None if _as_it_is(a) else aligned_empty((min(size, n), d), _sums_dtype(a))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        block = a[rows]
        if buffer is not None:
            np.copyto(buffer[: block.shape[0]], block)
            block = buffer[: block.shape[0]]
        yield rows, block


def _columns(b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``b`` (n, k) in the precision of sums; one column as a vector, which products are faster for."""
    wide = np.asarray(b, dtype=dtype)
    return np.ascontiguousarray(wide[:, 0]) if b.shape[1] == 1 else wide


def _adjoint_times(block: np.ndarray, r: np.ndarray) -> np.ndarray:
    """``block^H r`` without a conjugate copy of ``block``."""
    if block.dtype.kind != "c":
        real: np.ndarray = r @ block if r.ndim == 1 else block.T @ r
        return real
    conjugate = np.conj(r)
    turned: np.ndarray = np.conj(conjugate @ block if r.ndim == 1 else block.T @ conjugate)
    return turned


def _squares(r: np.ndarray) -> Any:
    if r.ndim == 1:
        return np.vdot(r, r).real
    return np.einsum("ij,ij->j", r, np.conj(r)).real


@numba.njit(cache=True)
def is_upper(p: np.ndarray) -> bool:
    """Whether nothing but zeros stands below the diagonal."""
    for i in range(p.shape[0]):
        for j in range(i):
            if p[i, j] != 0:
                return False
    return True


def _members(a: np.ndarray, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    for index in np.ndindex(*a.shape[:-2]):
        yield (a[index], *(v[index] for v in arrays))


@QUIET
def normal_equations(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(A^H A, A^H B, squared norms of the columns of B)``, A (..., n, d), B (..., n, k)."""
    dtype, d, k = _sums_dtype(a), a.shape[-1], b.shape[-1]
    g, c = aligned_empty((*a.shape[:-2], d, d), dtype), np.zeros((*a.shape[:-2], d, k), dtype)
    total = np.empty((*a.shape[:-2], k), real_dtype(c))
    for one, right, to_g, to_c, to_total in _members(a, b, g, c, total):
        columns = _columns(right, dtype)
        sums = gram_sum(d, dtype)
        target, size = (to_c[:, 0] if k == 1 else to_c), _size(d)
        if _as_it_is(one):
            size = max(size, 2 * sums.least_rows)
        for rows, block in _blocks(one, size):
            sums.add(block)
            target += _adjoint_times(block, columns[rows])
        sums.write(to_g)
        to_total[...] = _squares(columns)
    return g, c, total


@QUIET
def residual_gradient(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(A^H R, squared norms of the columns of R)`` with ``R = B - A X``; A is read once."""
    dtype, k = _sums_dtype(a), b.shape[-1]
    g = np.zeros(x.shape, dtype)
    total = np.zeros((*a.shape[:-2], k), real_dtype(g))
    for one, right, at, to_g, to_total in _members(a, b, x, g, total):
        columns = _columns(right, dtype)
        vector = np.ascontiguousarray(at[:, 0]) if k == 1 else at
        target, squares = (to_g[:, 0] if k == 1 else to_g), np.zeros(k, to_total.dtype)
        for rows, block in _blocks(one, _size(one.shape[1])):
            r = columns[rows] - block @ vector
            target += _adjoint_times(block, r)
            squares += _squares(r)
        to_total[...] = squares
    return g, total


def _multiplier(p: np.ndarray, rows: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that multiplies blocks of up to so many rows by P; one may overwrite what the last one returned."""
    if not is_upper(p):
        return lambda block: block @ p
    if not tiles_pay(p.dtype):
        trmm, columns = library(p.dtype).trmm, np.asfortranarray(p)
        return lambda block: trmm(1.0, columns, block.T, trans_a=1).T
    panels, buffer = panels_of(p), aligned_empty((rows, len(p)), p.dtype)

    def times(block: np.ndarray) -> np.ndarray:
        out = buffer[: len(block)]
        times_upper(block, panels, out)
        return out

    return times


@QUIET
def whitened_gram(a: np.ndarray, p: np.ndarray) -> np.ndarray:
    """``Y^H Y`` of ``Y = A P``, of which one block is held at a time."""
    dtype, d = _sums_dtype(a), p.shape[-1]
    g = aligned_empty((*a.shape[:-2], d, d), dtype)
    for one, white, to_g in _members(a, p, g):
        sums = gram_sum(d, dtype)
        times = _multiplier(white.astype(dtype, copy=False), _size(d))
        for _, block in _blocks(one, _size(d)):
            sums.add(times(block))
        sums.write(to_g)
    return g


@QUIET
def rough_gram(a: np.ndarray) -> np.ndarray:
    """``A^H A`` summed in single precision, from blocks that are converted as they are read."""
    d, dtype = a.shape[-1], library(a.dtype).single
    g = aligned_empty((*a.shape[:-2], d, d), a.dtype)
    for one, to_g in _members(a, g):
        sums = gram_sum(d, dtype)
        size = max(_size(d), sums.least_rows)
        buffer = aligned_empty((min(size, len(one)), d), dtype)
        for start in range(0, len(one), size):
            block = buffer[: len(one[start : start + size])]
            np.copyto(block, one[start : start + size], casting="same_kind")
            sums.add(block)
        sums.write(to_g)
    return g
