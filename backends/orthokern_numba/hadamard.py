"""Fast Walsh-Hadamard transforms: butterflies of whole registers in a buffer that stays in cache."""

from __future__ import annotations

import math

import numba
import numpy as np

from .lanes import lane_count, load_lanes, splat, store_lanes
from .library import aligned_empty, real_columns
from .random import fill_words, key_of

REGISTER = 64
# Bits of the order that one pass over memory does, at most; registers of the buffer it does them in.
BITS, BUFFER = 9, 2048
# Registers of a block of memory that is transformed where it lies.
BLOCK = 4096


@numba.njit(cache=True)
def _eights(x: np.ndarray, size: int, h: int) -> None:
    """Three stages at once, of distances h, 2 h and 4 h registers."""
    for base in range(0, size, 8 * h):
        for i in range(base, base + h):
            a, b = load_lanes(x, i), load_lanes(x, i + h)
            c, d = load_lanes(x, i + 2 * h), load_lanes(x, i + 3 * h)
            e, f = load_lanes(x, i + 4 * h), load_lanes(x, i + 5 * h)
            g, k = load_lanes(x, i + 6 * h), load_lanes(x, i + 7 * h)
            a, b, c, d = a + b, a - b, c + d, c - d
            e, f, g, k = e + f, e - f, g + k, g - k
            a, b, c, d = a + c, b + d, a - c, b - d
            e, f, g, k = e + g, f + k, e - g, f - k
            store_lanes(x, i, a + e)
            store_lanes(x, i + h, b + f)
            store_lanes(x, i + 2 * h, c + g)
            store_lanes(x, i + 3 * h, d + k)
            store_lanes(x, i + 4 * h, a - e)
            store_lanes(x, i + 5 * h, b - f)
            store_lanes(x, i + 6 * h, c - g)
            store_lanes(x, i + 7 * h, d - k)


@numba.njit(cache=True)
def _fours(x: np.ndarray, size: int, h: int) -> None:
    """Two stages at once, of distances h and 2 h registers."""
    for base in range(0, size, 4 * h):
        for i in range(base, base + h):
            a, b = load_lanes(x, i), load_lanes(x, i + h)
            c, d = load_lanes(x, i + 2 * h), load_lanes(x, i + 3 * h)
            a, b, c, d = a + b, a - b, c + d, c - d
            store_lanes(x, i, a + c)
            store_lanes(x, i + h, b + d)
            store_lanes(x, i + 2 * h, a - c)
            store_lanes(x, i + 3 * h, b - d)


@numba.njit(cache=True)
def _twos(x: np.ndarray, size: int, h: int) -> None:
    """One stage, of distance h registers."""
    for base in range(0, size, 2 * h):
        for i in range(base, base + h):
            a, b = load_lanes(x, i), load_lanes(x, i + h)
            store_lanes(x, i, a + b)
            store_lanes(x, i + h, a - b)


@numba.njit(cache=True)
def _transform(buffer: np.ndarray, rows: int, width: int) -> None:
    """Transform ``rows`` rows of ``width`` registers in place."""
    size, h = rows * width, width
    while 8 * h <= size:
        _eights(buffer, size, h)
        h *= 8
    if 4 * h <= size:
        _fours(buffer, size, h)
    elif 2 * h <= size:
        _twos(buffer, size, h)


@numba.njit(cache=True)
def _pass(
    source: np.ndarray, out: np.ndarray, rows: int, width: int, scale: float, buffer: np.ndarray
) -> None:
    """Transform the middle axis of (left, rows, width) registers, by tiles of columns that fit the buffer."""
    factor = splat(out, scale)
    size = rows * width
    tile = min(width, max(1, BUFFER // rows))
    lanes = lane_count(out)
    for left in range(0, out.size // lanes, size):
        if size <= BLOCK:
            whole = out[left * lanes : (left + size) * lanes]
            for i in range(size):
                store_lanes(whole, i, load_lanes(source, left + i))
            _transform(whole, rows, width)
            if scale != 1:
                for i in range(size):
                    store_lanes(whole, i, factor * load_lanes(whole, i))
            continue
        for begin in range(left, left + width, tile):
            w = min(tile, left + width - begin)
            for r in range(rows):
                for c in range(w):
                    store_lanes(buffer, r * w + c, load_lanes(source, begin + r * width + c))
            _transform(buffer, rows, w)
            for r in range(rows):
                for c in range(w):
                    value = load_lanes(buffer, r * w + c)
                    store_lanes(out, begin + r * width + c, factor * value)


@numba.njit(cache=True)
def _eight_numbers(x: np.ndarray) -> None:
    """Transform each eight neighbours of the flat ``x``."""
    for i in range(0, x.size, 8):
        a, b, c, d = x[i] + x[i + 1], x[i] - x[i + 1], x[i + 2] + x[i + 3], x[i + 2] - x[i + 3]
        e, f, g, k = (
            x[i + 4] + x[i + 5],
            x[i + 4] - x[i + 5],
            x[i + 6] + x[i + 7],
            x[i + 6] - x[i + 7],
        )
        a, b, c, d = a + c, b + d, a - c, b - d
        e, f, g, k = e + g, f + k, e - g, f - k
        x[i], x[i + 1], x[i + 2], x[i + 3] = a + e, b + f, c + g, d + k
        x[i + 4], x[i + 5], x[i + 6], x[i + 7] = a - e, b - f, c - g, d - k


@numba.njit(cache=True)
def _stage(x: np.ndarray, h: int) -> None:
    """One stage of distance ``h`` numbers, on the flat ``x``."""
    for base in range(0, x.size, 2 * h):
        low, high = x[base : base + h], x[base + h : base + 2 * h]
        for i in range(h):
            low[i], high[i] = low[i] + high[i], low[i] - high[i]


def transform(source: np.ndarray, out: np.ndarray, scale: float = 1.0) -> None:
    """``out = scale H source`` for contiguous stacks (batch, q, d) of real numbers; they may be one array.

    Neighbouring rows are joined until their numbers fill whole registers: what is left of the order is done a register
    at a time, in passes over memory of at most BITS bits, the rest number by number before.
    """
    q, d = source.shape[1:]
    lanes = REGISTER // source.itemsize
    joined = min(lanes // math.gcd(d, lanes), q)
    flat, x = out.reshape(-1), source.reshape(-1)
    if joined > 1:
        flat[:] = x
        x, h = flat, 1
        if d == 1 and joined >= 8:
            _eight_numbers(flat)
            h = 8
        while h < joined:
            _stage(flat, h * d)
            h *= 2
    bits, width = (q // joined).bit_length() - 1, joined * d // lanes
    if not bits:
        np.multiply(x, scale, out=flat)
        return
    buffer = np.empty((BUFFER + 2**BITS) * lanes, source.dtype)
    # The first pass needs no buffer where it takes whole blocks of memory; another pass would cost more than that.
    first = min(bits, (BLOCK // width).bit_length() - 1)
    more = -(-(bits - first) // BITS)
    if first < 1 or more >= -(-bits // BITS) > 1:
        more = -(-bits // BITS) - 1
        first = bits // (more + 1)
    *others, last = (first, *((bits - first + i) // more for i in range(more)))
    one = source.dtype.type(1)
    for part in others:
        _pass(x, flat, 2**part, width, one, buffer)
        x, width = flat, width * 2**part
    _pass(x, flat, 2**last, width, source.dtype.type(scale), buffer)


def hadamard(x: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """``scale H x`` for ``x`` (..., q, d), q a power of two."""
    out = aligned_empty(x.shape, x.dtype)
    transform(real_columns(x), real_columns(out), scale)
    return out


@numba.njit(cache=True)
def _keyed(words: np.ndarray) -> np.ndarray:
    """Words with their own number in the lower half: sorted, they hold the stable order of the words."""
    keys = np.empty(words.size, np.uint64)
    for i in range(words.size):
        keys[i] = (np.uint64(words[i]) << np.uint64(32)) | np.uint64(i)
    return keys


def _order(words: np.ndarray) -> np.ndarray:
    keys: np.ndarray = _keyed(words)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys


def _plan(q: int, seed: int, permute: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs (words whose bit 0 is set for +), the order of the rows to take, and the order in which rows enter."""
    words, entry = np.empty((4, q), np.uint32), np.arange(q, dtype=np.uint64)
    if permute:
        fill_words(0, key_of(seed, 0, 3), words)
        entry = _order(words[0])
    fill_words(0, key_of(seed, 0, 2), words)
    return words[0], _order(words[1]), entry


@numba.njit(cache=True, inline="always")
def _copy_signed(to: np.ndarray, sign: float, row: np.ndarray) -> None:
    """``to = sign row``, without a branch: the next rows are on their way from memory meanwhile."""
    step = lane_count(row)
    whole = len(row) // step
    signs = splat(row, sign)
    for r in range(whole):
        store_lanes(to, r, signs * load_lanes(row, r))
    for c in range(whole * step, len(row)):
        to[c] = sign * row[c]


@numba.njit(cache=True)
def _enter(a: np.ndarray, signs: np.ndarray, entry: np.ndarray, out: np.ndarray) -> None:
    """``D P a`` for one matrix, with zeros for the rows that it does not have."""
    one = a.dtype.type(1)
    for i in range(out.shape[0]):
        row, sign = entry[i], one if signs[i] & 1 else -one
        if row < a.shape[0]:
            _copy_signed(out[i], sign, a[row])
        else:
            out[i] = 0


@numba.njit(cache=True)
def _leave(x: np.ndarray, order: np.ndarray, scale: float, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        row = order[i]
        for c in range(out.shape[1]):
            out[i, c] = scale * x[row, c]


@numba.njit(cache=True)
def _leave_all(
    x: np.ndarray, signs: np.ndarray, entry: np.ndarray, scale: float, out: np.ndarray
) -> None:
    for i in range(x.shape[0]):
        row, factor = entry[i], scale if signs[i] & 1 else -scale
        if row < out.shape[0]:
            for c in range(out.shape[1]):
                out[row, c] = factor * x[i, c]


def mixed_rows(a: np.ndarray, *, rows: int, seed: int, permute: bool) -> np.ndarray:
    """Random rows of ``H D P a / sqrt(rows)``: three passes over a, one matrix of the stack at a time."""
    x = real_columns(a)
    n, d = x.shape[1:]
    signs, order, entry = _plan(1 << (n - 1).bit_length(), seed, permute)
    out = aligned_empty((*a.shape[:-2], rows, a.shape[-1]), a.dtype)
    work = aligned_empty((1, len(signs), d), x.dtype)
    scale = x.dtype.type(rows**-0.5)
    for matrix, result in zip(x, real_columns(out), strict=True):
        _enter(matrix, signs, entry, work[0])
        transform(work, work)
        _leave(work[0], order[:rows], scale, result)
    return out


def unmixed_rows(y: np.ndarray, *, n: int, seed: int, permute: bool) -> np.ndarray:
    """The transpose of ``mixed_rows``: (..., rows, d) to (..., n, d)."""
    x = real_columns(y)
    s, d = x.shape[1:]
    signs, order, entry = _plan(1 << (n - 1).bit_length(), seed, permute)
    out = aligned_empty((*y.shape[:-2], n, y.shape[-1]), y.dtype)
    work = aligned_empty((1, len(signs), d), x.dtype)
    scale = x.dtype.type(s**-0.5)
    for matrix, result in zip(x, real_columns(out), strict=True):
        work[:] = 0
        work[0, order[:s]] = matrix
        transform(work, work)
        _leave_all(work[0], signs, entry, scale, result)
    return out
