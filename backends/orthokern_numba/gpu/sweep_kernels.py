"""Device code of the sweeps over the costs of transport problems. The slack of the potentials is never stored.

The quadratic sweep reads every cost once. A block takes a tile of 32 rows and a column for each thread: a thread adds
up its column, a warp each row of its 32 columns, and what they find goes to arrays of partial sums that a second
kernel adds up. No addition is atomic, so the bits repeat. The entropic sweep has a team for each row, whose threads
keep a largest exponent and the sum relative to it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

from .columns_kernels import MOST_WARPS, WARP, team_max, team_sum

# Threads, that is columns, and rows of a tile.
THREADS, BAND = 128, 32
_EVERYONE = 0xFFFFFFFF


@cuda.jit(device=True)
def _warp_sum(value: Any) -> Any:
    step = 16
    while step > 0:
        value += cuda.shfl_xor_sync(_EVERYONE, value, step)
        step //= 2
    return value


@functools.cache
def tile_kernel(dtype: str) -> Any:
    """Kernel of the partial sums of slacks: of rows (b, m, warps), of columns (b, bands, n), of squares (b, tiles)."""
    real = np.dtype(dtype).type
    zero = real(0)

    @cuda.jit
    def tile(alpha: Any, beta: Any, cost: Any, by_rows: Any, by_columns: Any, squares: Any) -> None:
        sums = cuda.shared.array(MOST_WARPS, real)
        batch, m, n = cost.shape
        across = (n + THREADS - 1) // THREADS
        band, column = cuda.blockIdx.x // across, cuda.grid(1) % (across * THREADS)
        inside = column < n
        for member in range(cuda.blockIdx.y, batch, cuda.gridDim.y):
            potential = beta[member, column] if inside else zero
            total, square = zero, zero
            for i in range(band * BAND, min(m, (band + 1) * BAND)):
                slack = zero
                if inside:
                    slack = (alpha[member, i] + potential) - cost[member, i, column]
                    if slack <= zero:  # noqa: PLR1730 - NaN stays
                        slack = zero
                total += slack
                square += slack * slack
                of_row = _warp_sum(slack)
                if column % WARP == 0 and inside:
                    by_rows[member, i, column // WARP] = of_row
            if inside:
                by_columns[member, band, column] = total
            square = team_sum(square, sums)
            if cuda.threadIdx.x == 0:
                squares[member, cuda.blockIdx.x] = square

    return tile


@functools.cache
def rows_kernel(dtype: str) -> Any:
    """Kernel of ``sum(parts, axis=-1) / (factor gamma)`` for ``parts`` (b, r, p), a team for each row."""
    real = np.dtype(dtype).type

    @cuda.jit
    def rows(parts: Any, gamma: Any, factor: Any, out: Any) -> None:
        sums = cuda.shared.array(MOST_WARPS, real)
        member, i = cuda.blockIdx.x // parts.shape[1], cuda.blockIdx.x % parts.shape[1]
        total = real(0)
        for p in range(cuda.threadIdx.x, parts.shape[2], cuda.blockDim.x):
            total += parts[member, i, p]
        total = team_sum(total, sums)
        if cuda.threadIdx.x == 0:
            out[member, i] = total / (factor * gamma[member])

    return rows


@functools.cache
def columns_kernel(dtype: str) -> Any:
    """Kernel of ``sum(parts, axis=-2) / gamma`` for ``parts`` (b, p, n), a thread for each column."""
    real = np.dtype(dtype).type

    @cuda.jit
    def columns(parts: Any, gamma: Any, out: Any) -> None:
        column = cuda.grid(1)
        if column < parts.shape[2]:
            for member in range(cuda.blockIdx.y, parts.shape[0], cuda.gridDim.y):
                total = real(0)
                for p in range(parts.shape[1]):
                    total += parts[member, p, column]
                out[member, column] = total / gamma[member]

    return columns


@functools.cache
def exponents_kernel(dtype: str) -> Any:
    """Kernel of ``entropic_sweep``, a team for each row of ``cost`` (b, m, n)."""
    real = np.dtype(dtype).type
    zero, one = real(0), real(1)

    @cuda.jit
    def exponents(beta: Any, cost: Any, epsilon: Any, out: Any) -> None:
        sums = cuda.shared.array(MOST_WARPS, real)
        member, i = cuda.blockIdx.x // cost.shape[1], cuda.blockIdx.x % cost.shape[1]
        top, total, unknown = real(-math.inf), zero, False
        for j in range(cuda.threadIdx.x, cost.shape[2], cuda.blockDim.x):
            x = (beta[member, j] - cost[member, i, j]) / epsilon[member]
            if x > top:
                total = total * real(math.exp(top - x)) + one
                top = x
            elif x == top:
                # Also where both are minus infinity, whose difference is none.
                total += one
            else:
                total += real(math.exp(x - top))
                unknown = unknown or not x < top
        unknown = cuda.syncthreads_or(np.int32(unknown)) != 0
        best = team_max(top, sums)
        if top < best:
            total *= real(math.exp(top - best))
        total = team_sum(total, sums)
        if cuda.threadIdx.x == 0:
            out[member, i] = real(math.nan) if unknown else best + real(math.log(total))

    return exponents
