"""Device code of the Walsh-Hadamard transform: some stages of it on a tile in shared memory, two at a time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda

THREADS = 256
# Numbers of a tile.
TILE = 4096


@cuda.jit(device=True)
def _fours(tile: Any, size: Any, h: Any) -> None:
    """The stages of distances h and 2 h."""
    for p in range(cuda.threadIdx.x, size // 4, THREADS):
        i = (p // h) * 4 * h + p % h
        a, b, c, d = tile[i], tile[i + h], tile[i + 2 * h], tile[i + 3 * h]
        a, b, c, d = a + b, a - b, c + d, c - d
        tile[i], tile[i + h], tile[i + 2 * h], tile[i + 3 * h] = a + c, b + d, a - c, b - d
    cuda.syncthreads()


@cuda.jit(device=True)
def _twos(tile: Any, size: Any, h: Any) -> None:
    """The stage of distance h."""
    for p in range(cuda.threadIdx.x, size // 2, THREADS):
        i = (p // h) * 2 * h + p % h
        a, b = tile[i], tile[i + h]
        tile[i], tile[i + h] = a + b, a - b
    cuda.syncthreads()


@functools.cache
def stages_kernel(dtype: str) -> Any:
    """Kernel that transforms the middle axis of ``x`` (left, rows, width), all flat, a tile of columns to a block.

    ``rows * span <= TILE``, where ``span`` is the number of columns of a tile. ``x`` may be ``out``.
    """
    real = np.dtype(dtype).type

    @cuda.jit
    def stages(x: Any, rows: Any, width: Any, span: Any, out: Any) -> None:
        tile = cuda.shared.array(TILE, real)
        across = (width + span - 1) // span
        tiles = x.size // (rows * width) * across
        for place in range(cuda.blockIdx.x, tiles, cuda.gridDim.x):
            begin = (place % across) * span
            w = min(span, width - begin)
            base = place // across * rows * width + begin
            for e in range(cuda.threadIdx.x, rows * w, THREADS):
                tile[e] = x[base + e // w * width + e % w]
            cuda.syncthreads()
            h = w
            while 4 * h <= rows * w:
                _fours(tile, rows * w, h)
                h *= 4
            if 2 * h <= rows * w:
                _twos(tile, rows * w, h)
            for e in range(cuda.threadIdx.x, rows * w, THREADS):
                out[base + e // w * width + e % w] = tile[e]
            cuda.syncthreads()

    return stages
