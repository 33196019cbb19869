"""Rows scattered and gathered by a hash that is computed on the way: no index is stored for longer than a block."""

from __future__ import annotations

import numba
import numpy as np

from .lanes import fma, lane_count, load_lanes, splat, store_lanes
from .library import aligned_empty, real_columns
from .random import fill_words, key_of

# Rows whose hashes are made at a time; bytes of the targets that one tile of columns touches, about.
ROWS, TILE = 1024, 2**20


@numba.njit(cache=True)
def _hash(
    first: int,
    block: int,
    key: tuple[int, int, int, int],
    target: np.ndarray,
    sign: np.ndarray,
    words: np.ndarray,
) -> None:
    """Targets and signs of the rows from ``first`` on, one row of the two tables for each."""
    seed, high, group, stream = key
    for lane in range(0, target.shape[1], 4):
        fill_words(first, (seed, high, group + lane // 4, stream), words)
        for k in range(lane, min(lane + 4, target.shape[1])):
            for i in range(target.shape[0]):
                word = np.uint64(words[k - lane, i])
                chosen = ((word >> np.uint64(1)) * np.uint64(block)) >> np.uint64(31)
                target[i, k] = chosen + np.uint64(k * block)
                sign[i, k] = 2 * np.int64(word & np.uint64(1)) - 1


@numba.njit(cache=True, fastmath={"contract"}, inline="always")
def _add_signed(to: np.ndarray, sign: float, row: np.ndarray) -> None:
    """``to += sign row``, by whole registers as far as they go."""
    step = lane_count(row)
    whole = len(row) // step
    signs = splat(row, sign)
    for r in range(whole):
        store_lanes(to, r, fma(signs, load_lanes(row, r), load_lanes(to, r)))
    for c in range(whole * step, len(row)):
        to[c] += sign * row[c]


@numba.njit(cache=True, fastmath={"contract"})
def _scatter(
    a: np.ndarray,
    nnz: int,
    first: int,
    key: tuple[int, int, int, int],
    width: int,
    scale: float,
    out: np.ndarray,
) -> None:
    batch, n, d = a.shape
    target, sign = np.empty((ROWS, nnz), np.uint32), np.empty((ROWS, nnz), a.dtype)
    words = np.empty((4, ROWS), np.uint32)
    out[:] = 0
    for begin in range(0, n, ROWS):
        end = min(begin + ROWS, n)
        _hash(first + begin, out.shape[1] // nnz, key, target[: end - begin], sign, words)
        for m in range(batch):
            for left in range(0, d, width):
                rows, sums = a[m, begin:end, left : left + width], out[m, :, left : left + width]
                for i in range(rows.shape[0]):
                    for k in range(nnz):
                        _add_signed(sums[target[i, k]], sign[i, k], rows[i])
    if nnz > 1:
        flat = out.reshape(-1)
        for i in range(flat.size):
            flat[i] *= scale


@numba.njit(cache=True, fastmath={"contract"})
def _gather(
    y: np.ndarray,
    nnz: int,
    first: int,
    key: tuple[int, int, int, int],
    width: int,
    scale: float,
    out: np.ndarray,
) -> None:
    batch, n, d = out.shape
    target, sign = np.empty((ROWS, nnz), np.uint32), np.empty((ROWS, nnz), y.dtype)
    words = np.empty((4, ROWS), np.uint32)
    out[:] = 0
    for begin in range(0, n, ROWS):
        end = min(begin + ROWS, n)
        _hash(first + begin, y.shape[1] // nnz, key, target[: end - begin], sign, words)
        for m in range(batch):
            for left in range(0, d, width):
                rows, sums = y[m, :, left : left + width], out[m, begin:end, left : left + width]
                for i in range(sums.shape[0]):
                    for k in range(nnz):
                        _add_signed(sums[i], sign[i, k] * scale, rows[target[i, k]])


def _width(rows: int, columns: np.ndarray) -> int:
    """Columns of a tile whose targets stay in cache, a multiple of a cache line."""
    line = 64 // columns.itemsize
    return max(line, TILE // max(rows, 1) // 64 * line)


def scattered_rows(
    a: np.ndarray, *, rows: int, nnz: int, seed: int, start: int, stream: int, group: int
) -> np.ndarray:
    """Rows of ``a`` (..., m, d) added up where their hash says: (..., rows, d).

    a is read once, in tiles of columns whose targets stay in cache; the order of the sums is that of the rows.
    """
    x = real_columns(a)
    out = aligned_empty((*a.shape[:-2], rows, a.shape[-1]), a.dtype)
    scale = x.dtype.type(nnz**-0.5)
    key = key_of(seed, group, stream)
    _scatter(x, nnz, start, key, _width(rows, x), scale, real_columns(out))
    return out


def gathered_rows(
    y: np.ndarray, *, stop: int, nnz: int, seed: int, start: int, stream: int, group: int
) -> np.ndarray:
    """The transpose: for each row from ``start`` to ``stop`` the sum of the rows of ``y`` that its hash names."""
    x = real_columns(y)
    out = aligned_empty((*y.shape[:-2], stop - start, y.shape[-1]), y.dtype)
    scale = x.dtype.type(nnz**-0.5)
    key = key_of(seed, group, stream)
    _gather(x, nnz, start, key, _width(y.shape[-2], x), scale, real_columns(out))
    return out
