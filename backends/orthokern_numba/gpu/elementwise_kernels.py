"""Device code of the optimizers' ops: selection by digits, soft threshold, hyperbolic scaling. One block a matrix.

Selection is exact: floating numbers without their sign compare as the integers that store them, and every pass fixes
the next 8 bits of the wanted one from a histogram. That is 4 passes over float32 and 8 over float64, and one more for
the next larger number. All words are unsigned and of 64 bits, so that no mixture of signs becomes floating.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

# As many threads as bins: each sums up one.
THREADS = 256
WARPS = THREADS // 32
DIGIT = np.uint64(8)
_LOW_DIGIT = np.uint64(255)
_SCALE_GUARD = 1e-8


@cuda.jit
def shrink(x: Any, limit: Any, step: Any, out: Any) -> None:
    """``out = x - clip(x, -limit, limit)`` for ``x`` (groups, size); ``step`` 0 takes one limit for a group."""
    for group in range(cuda.blockIdx.y, x.shape[0], cuda.gridDim.y):
        for e in range(cuda.grid(1), x.shape[1], cuda.gridsize(1)):
            value, bound = x[group, e], limit[group, e * step]
            if value > bound:
                out[group, e] = value - bound
            elif value < -bound:
                out[group, e] = value + bound
            elif bound == bound:  # noqa: PLR0124 - NaN is not
                # Zero, but NaN where the value is NaN or as infinite as its bound.
                out[group, e] = value - value
            else:
                out[group, e] = bound


@cuda.jit(device=True)
def _count(keys: Any, modulus: Any, prefix: Any, shift: Any, histogram: Any, thread: Any) -> None:
    """Counts of the digit at ``shift`` among the keys that begin with ``prefix``, one histogram for each warp."""
    for warp in range(WARPS):
        histogram[warp, thread] = 0
    cuda.syncthreads()
    for e in range(thread, keys.size, THREADS):
        front = (np.uint64(keys[e]) & modulus) >> shift
        if front >> DIGIT == prefix:
            cuda.atomic.add(histogram, (thread // 32, front & _LOW_DIGIT), 1)
    cuda.syncthreads()


@cuda.jit(device=True)
def _accumulate(histogram: Any, totals: Any, thread: Any) -> None:
    """Running totals over the bins of all histograms."""
    total = 0
    for warp in range(WARPS):
        total += histogram[warp, thread]
    totals[thread] = total
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        before = totals[thread - step] if thread >= step else 0
        cuda.syncthreads()
        totals[thread] += before
        cuda.syncthreads()
        step *= 2


@cuda.jit(device=True)
def _choose(totals: Any, rank: Any, choice: Any, thread: Any) -> None:
    """The bin that holds the number of that rank, and the running totals below and above it, to ``choice``."""
    below = totals[thread - 1] if thread > 0 else 0
    if below <= rank < totals[thread]:
        choice[0], choice[1], choice[2] = thread, below, totals[thread]
    cuda.syncthreads()


@cuda.jit(device=True)
def _least(values: Any, value: Any, thread: Any) -> Any:
    """The least ``value`` of all threads."""
    values[thread] = value
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step and values[thread + step] < values[thread]:
            values[thread] = values[thread + step]
        cuda.syncthreads()
        step //= 2
    return values[0]


@cuda.jit(device=True)
def _next(keys: Any, modulus: Any, infinity: Any, least: Any, values: Any, thread: Any) -> Any:
    """The least key above ``least``, or the largest word if there is none; and whether one stands for NaN."""
    best = modulus
    unknown = False
    for e in range(thread, keys.size, THREADS):
        key = np.uint64(keys[e]) & modulus
        if least < key < best:
            best = key
        unknown = unknown or key > infinity
    unknown = cuda.syncthreads_or(np.int32(unknown)) != 0
    return _least(values, best, thread), unknown


@cuda.jit
def select(keys: Any, modulus: Any, infinity: Any, width: Any, rank: Any, found: Any) -> None:
    """Moduli of rank ``rank`` and ``rank + 1`` in each row of ``keys``, as words, to ``found`` (b, 2).

    ``width`` is that of a key in bits. A row with NaN gives NaN, a rank past the last the last.
    """
    histogram = cuda.shared.array((WARPS, THREADS), np.int32)
    totals = cuda.shared.array(THREADS, np.int32)
    choice = cuda.shared.array(3, np.int32)
    values = cuda.shared.array(THREADS, np.uint64)
    row, thread = cuda.blockIdx.x, cuda.threadIdx.x
    shift, prefix = width, np.uint64(0)
    while shift > 0:
        shift -= DIGIT
        _count(keys[row], modulus, prefix, shift, histogram, thread)
        _accumulate(histogram, totals, thread)
        _choose(totals, rank, choice, thread)
        prefix = (prefix << DIGIT) | np.uint64(choice[0])
        rank -= choice[1]
    repeated = rank + 1 < choice[2] - choice[1]
    above, unknown = _next(keys[row], modulus, infinity, prefix, values, thread)
    if thread == 0:
        last = repeated or above == modulus
        found[row, 0] = modulus if unknown else prefix
        found[row, 1] = modulus if unknown else (prefix if last else above)


@cuda.jit(device=True)
def _sum(values: Any, value: Any, thread: Any) -> Any:
    """Sum of ``value`` over all threads in a binary tree: the same order, and bits, each time."""
    values[thread] = value
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            values[thread] += values[thread + step]
        cuda.syncthreads()
        step //= 2
    total = values[0]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def _square_sum(x: Any, divisor: Any, gamma: Any, hyperbolic: Any, values: Any, thread: Any) -> Any:
    """Sum of the squares of ``x``, or of ``sinh(gamma x / divisor)``; what each addition loses is made up for."""
    total = values.dtype.type(0)
    lost = values.dtype.type(0)
    for e in range(thread, x.size, THREADS):
        term = x[e]
        if hyperbolic:
            term = values.dtype.type(math.sinh(gamma * (term / divisor)))
        term = term * term - lost
        new = total + term
        lost = (new - total) - term
        total = new
    return _sum(values, total, thread)


@functools.cache
def cosh_kernel(dtype: str) -> Any:
    """Kernel of ``cosh_rms`` for float32 or float64, on ``x`` (b, size): two sums and one pass that writes."""
    real = np.dtype(dtype).type
    one, tiny = real(1), real(_SCALE_GUARD)

    @cuda.jit
    def cosh_rms(x: Any, guard: Any, gamma: Any, count: Any, out: Any) -> None:
        values = cuda.shared.array(THREADS, real)
        row, thread = cuda.blockIdx.x, cuda.threadIdx.x
        norm = real(math.sqrt(_square_sum(x[row], one, gamma, False, values, thread)))
        norm += guard[row]
        mean = one + _square_sum(x[row], norm, gamma, True, values, thread) / count
        root = real(math.sqrt(mean)) + tiny
        for e in range(thread, x.shape[1], THREADS):
            out[row, e] = (x[row, e] / norm) / root

    return cosh_rms
