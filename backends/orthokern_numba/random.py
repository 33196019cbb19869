"""Philox4x32-10 in scalar code: the same words as the reference, without its temporaries."""

from __future__ import annotations

import numba
import numpy as np

_ROUNDS = 10


@numba.njit(cache=True)
def _philox(
    index: np.ndarray, k0: int, k1: int, group: int, stream: int, words: np.ndarray
) -> None:
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    s0, s1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    for i in range(index.size):
        counter = np.uint64(index[i])
        c0, c1 = counter & mask, counter >> half
        c2, c3 = np.uint64(group), np.uint64(stream)
        a, b = np.uint64(k0), np.uint64(k1)
        for _ in range(_ROUNDS):
            p0, p1 = c0 * m0, c2 * m1
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ a, p1 & mask, (p0 >> half) ^ c3 ^ b, p0 & mask
            a, b = (a + s0) & mask, (b + s1) & mask
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = c0, c1, c2, c3


def random_bits(index: np.ndarray, *, seed: int, stream: int, group: int) -> np.ndarray:
    """Four words for each counter of ``index``, shape (..., 4); uint32 for counters of 32 bits, else int64."""
    flat = np.ascontiguousarray(index).reshape(-1)
    words = np.empty((flat.size, 4), dtype=np.int64 if index.dtype.itemsize > 4 else np.uint32)
    _philox(flat, seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, group, stream, words)
    return words.reshape(*index.shape, 4)
