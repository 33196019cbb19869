"""Philox4x32-10 in scalar code: the same words as the reference, without its temporaries."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_ROUNDS = 10
# Counters whose words are made at a time.
BLOCK = 512


@numba.njit(cache=True, inline="always")
def philox(counter: int, k0: int, k1: int, group: int, stream: int) -> tuple[Any, ...]:
    """The four words of one counter."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    s0, s1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    c0, c1 = np.uint64(counter) & mask, np.uint64(counter) >> half
    c2, c3 = np.uint64(group), np.uint64(stream)
    a, b = np.uint64(k0), np.uint64(k1)
    for _ in range(_ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ a, p1 & mask, (p0 >> half) ^ c3 ^ b, p0 & mask
        a, b = (a + s0) & mask, (b + s1) & mask
    return c0, c1, c2, c3


@numba.njit(cache=True)
def fill_words(first: int, key: tuple[int, int, int, int], words: np.ndarray) -> None:
    """The words of the counters ``first``, ``first + 1``, ..., a row of ``words`` (4, m) for each of the four.

    In this layout the compiler makes many counters at once. ``key``: two words of the seed, lane-group, stream.
    """
    seed, high, group, stream = key
    for i in range(words.shape[1]):
        words[0, i], words[1, i], words[2, i], words[3, i] = philox(
            first + i, seed, high, group, stream
        )


@numba.njit(cache=True)
def _fill(index: np.ndarray, key: tuple[int, int, int, int], words: np.ndarray) -> None:
    seed, high, group, stream = key
    block = np.empty((4, BLOCK), np.uint32)
    for begin in range(0, index.size, BLOCK):
        part = index[begin : begin + BLOCK]
        for i in range(part.size):
            block[0, i], block[1, i], block[2, i], block[3, i] = philox(
                part[i], seed, high, group, stream
            )
        for i in range(part.size):
            for k in range(4):
                words[begin + i, k] = block[k, i]


def key_of(seed: int, group: int, stream: int) -> tuple[int, int, int, int]:
    """Two words of the seed, lane-group, stream."""
    return seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, group, stream


def random_bits(index: np.ndarray, *, seed: int, stream: int, group: int) -> np.ndarray:
    """Four words for each counter of ``index``, shape (..., 4); uint32 for counters of 32 bits, else int64."""
    flat = np.ascontiguousarray(index).reshape(-1)
    words = np.empty((flat.size, 4), dtype=np.int64 if index.dtype.itemsize > 4 else np.uint32)
    _fill(flat, key_of(seed, group, stream), words)
    return words.reshape(*index.shape, 4)
