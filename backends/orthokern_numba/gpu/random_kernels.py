"""Philox4x32-10 on the device, one thread for each counter: about 40 multiplications and no memory but the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

_ROUNDS = 10
# Every operand is an unsigned word of 64 bits: a signed one among them would make the result floating.
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_S0, _S1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@cuda.jit(device=True)
def words_of(counter: Any, k0: Any, k1: Any, group: Any, stream: Any) -> Any:
    """The four words of one counter, all unsigned and of 64 bits."""
    c0, c1, c2, c3 = counter & _MASK, counter >> _HALF, group, stream
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _MASK, (p0 >> _HALF) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _S0) & _MASK, (k1 + _S1) & _MASK
    return c0, c1, c2, c3


@cuda.jit
def philox(index: Any, k0: Any, k1: Any, group: Any, stream: Any, words: Any) -> None:
    """Four words for each of the counters ``index`` (unsigned), to ``words`` (size, 4)."""
    i = cuda.grid(1)
    if i < index.size:
        found = words_of(np.uint64(index[i]), k0, k1, group, stream)
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = found
