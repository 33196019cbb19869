"""Device code of the sparse sketches: hashes are made where they are used, and no addition is atomic.

A block of the scatter has some rows, 32 columns and some targets. Its threads make the hash of a row each; then every
warp adds the rows of its own targets, a column to a lane, in their order, so that the bits repeat. The sums of the
chunks of rows are added up by a second kernel.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda

from .random_kernels import words_of

WARP, WARPS = 32, 4
THREADS = WARP * WARPS
# Targets of a block; places that a warp of the gather holds at a time.
TARGETS, PLACES = 128, 128
_SUMS = TARGETS * WARP
_ONE, _SHIFT, _FOUR = np.uint64(1), np.uint64(31), np.uint64(4)


@cuda.jit(device=True)
def _place(word: Any, block: Any) -> Any:
    """Target inside the block, doubled, plus the sign bit."""
    target = ((word >> _ONE) * block) >> _SHIFT
    return np.int64((target << _ONE) | (word & _ONE))


@cuda.jit(device=True)
def _word(words: Any, k: Any) -> Any:
    """Word ``k % 4``."""
    low = words[1] if k & 1 else words[0]
    high = words[3] if k & 1 else words[2]
    return high if k & 2 else low


@functools.cache
def scatter_kernel(dtype: str) -> Any:
    """Kernel of the sums of chunks: ``a`` (b, n, d) to ``parts`` (chunks, b, nnz * block, d)."""
    real = np.dtype(dtype).type
    zero = real(0)

    @cuda.jit
    def scatter(
        a: Any,
        first: Any,
        k0: Any,
        k1: Any,
        group: Any,
        stream: Any,
        block: Any,
        nnz: Any,
        chunk: Any,
        parts: Any,
    ) -> None:
        sums = cuda.shared.array(_SUMS, real)
        places = cuda.shared.array(THREADS, np.int64)
        thread = cuda.threadIdx.x
        lane, warp = thread % WARP, thread // WARP
        batch, n, d = a.shape
        size = parts.shape[2] // nnz
        tiles, across = (size + TARGETS - 1) // TARGETS, (d + WARP - 1) // WARP
        low = (cuda.blockIdx.x % tiles) * TARGETS
        k = (cuda.blockIdx.x // tiles) % nnz
        part = cuda.blockIdx.x // (tiles * nnz)
        lane_group = group + np.uint64(k) // _FOUR
        start, stop = part * chunk, min(n, (part + 1) * chunk)
        for where in range(cuda.blockIdx.y, batch * across, cuda.gridDim.y):
            member, column = where // across, (where % across) * WARP + lane
            for t in range(warp, TARGETS, WARPS):
                sums[t * WARP + lane] = zero
            for begin in range(start, stop, THREADS):
                counter = first + np.uint64(begin + thread)
                words = words_of(counter, k0, k1, lane_group, stream)
                places[thread] = _place(_word(words, k), block)
                cuda.syncthreads()
                for r in range(min(THREADS, stop - begin)):
                    t = (places[r] >> 1) - low
                    if 0 <= t < TARGETS and t % WARPS == warp and column < d:
                        value = a[member, begin + r, column]
                        sums[t * WARP + lane] += value if places[r] & 1 else -value
                cuda.syncthreads()
            for t in range(warp, min(TARGETS, size - low), WARPS):
                if column < d:
                    parts[part, member, k * size + low + t, column] = sums[t * WARP + lane]

    return scatter


@functools.cache
def total_kernel(dtype: str) -> Any:
    """Kernel of ``factor * sum(parts, axis=0)`` for ``parts`` (chunks, size), a thread for each number."""
    real = np.dtype(dtype).type

    @cuda.jit
    def total(parts: Any, factor: Any, out: Any) -> None:
        for e in range(cuda.grid(1), parts.shape[1], cuda.gridsize(1)):
            found = real(0)
            for part in range(parts.shape[0]):
                found += parts[part, e]
            out[e] = factor * found

    return total


@functools.cache
def gather_kernel(dtype: str) -> Any:
    """Kernel of the transpose: ``y`` (b, s, d) to ``out`` (b, n, d), a warp for each row."""
    real = np.dtype(dtype).type
    zero = real(0)

    @cuda.jit
    def gather(
        y: Any,
        first: Any,
        k0: Any,
        k1: Any,
        group: Any,
        stream: Any,
        block: Any,
        nnz: Any,
        factor: Any,
        out: Any,
    ) -> None:
        table = cuda.shared.array((WARPS, PLACES), np.int64)
        thread = cuda.threadIdx.x
        lane, warp = thread % WARP, thread // WARP
        batch, n, d = out.shape
        size = y.shape[1] // nnz
        row = cuda.blockIdx.x * WARPS + warp
        across = (d + WARP - 1) // WARP
        for where in range(cuda.blockIdx.y, batch * across, cuda.gridDim.y):
            member, column = where // across, (where % across) * WARP + lane
            found = zero
            for begin in range(0, nnz, PLACES):
                k = begin + 4 * lane
                words = words_of(
                    first + np.uint64(row), k0, k1, group + np.uint64(k) // _FOUR, stream
                )
                for i in range(4):
                    table[warp, 4 * lane + i] = _place(_word(words, i), block)
                cuda.syncthreads()
                for j in range(min(PLACES, nnz - begin)):
                    if row < n and column < d:
                        place = table[warp, j]
                        value = y[member, (begin + j) * size + (place >> 1), column]
                        found += value if place & 1 else -value
                cuda.syncthreads()
            if row < n and column < d:
                out[member, row, column] = factor * found

    return gather
