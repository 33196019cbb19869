"""Every kernel with the types that the launches give it, and what it may take on a device."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from orthokern_numba.gpu import (
    columns_kernels,
    elementwise_kernels,
    hadamard_kernels,
    hashing_kernels,
    polar,
    polar_kernels,
    random_kernels,
    sweep_kernels,
)

ARCHITECTURES = ((8, 0), (9, 0))
# Registers a thread: 64 let 1024 threads share a processor, 128 let 512.
NARROW, WIDE = 64, 128
# With 3 blocks of 128 threads.
WIDEST = 136


class Specialisation(NamedTuple):
    """A kernel for one dtype; ``single`` ones may do nothing in float64."""

    name: str
    kernel: Any
    arguments: Any
    registers: int
    shared: int = 0
    single: bool = True


def array(kind, ndim):
    return nb.types.Array(kind, ndim, "C")


def polar_arguments(kind):
    stack, stats = array(kind, 3), array(kind, 2)
    return nb.void(stack, stack, stack, stats, nb.types.UniTuple(kind, 6), nb.boolean)


def shared_of(capacity, size):
    """Three arrays of a matrix, and two vectors."""
    slots = polar_kernels.SLOTS if capacity == polar.WARP_SIZE else 1
    return slots * (3 * capacity * (capacity + 1) + 2 * capacity) * size


def of_dtype(dtype):
    """The kernels whose arrays are of a floating dtype."""
    kind, size, single = getattr(nb, dtype), np.dtype(dtype).itemsize, dtype == "float32"
    arguments = polar_arguments(kind)
    for n in range(1, polar.THREAD_SIZE + 1):
        kernel = polar_kernels.thread_kernel(dtype, n)
        budget = NARROW if single else WIDE
        yield Specialisation(f"polar of threads {n} {dtype}", kernel, arguments, budget, 0, single)
    for n in (polar.WARP_SIZE, *polar.CAPACITIES):
        kernel = polar_kernels.group_kernel(dtype, n)
        budget, shared = WIDE if single else WIDEST, shared_of(n, size)
        yield Specialisation(
            f"polar of groups {n} {dtype}", kernel, arguments, budget, shared, single
        )
    rows, row = array(kind, 2), array(kind, 1)
    arguments = nb.void(rows, row, kind, kind, rows)
    kernel, shared = elementwise_kernels.cosh_kernel(dtype), elementwise_kernels.THREADS * size
    yield Specialisation(f"cosh_rms {dtype}", kernel, arguments, NARROW, shared, single)
    arguments = nb.void(rows, rows, nb.int64, rows)
    kernel = elementwise_kernels.shrink
    yield Specialisation(f"shrink {dtype}", kernel, arguments, NARROW, 0, single)
    yield from of_columns(dtype)
    yield from of_sweeps(dtype)
    yield from of_sketches(dtype)


def of_columns(dtype):
    """One number of each kind for each warp is shared."""
    kind, size, single = getattr(nb, dtype), np.dtype(dtype).itemsize, dtype == "float32"
    rows, row, words = array(kind, 2), array(kind, 1), array(getattr(nb, f"uint{8 * size}"), 2)
    shared = columns_kernels.MOST_WARPS * (size + 8)
    common = (rows, words, row, nb.uint64, nb.int64, rows)
    kernel = columns_kernels.projection_kernel(dtype)
    yield Specialisation(f"projection {dtype}", kernel, nb.void(*common), NARROW, shared, single)
    kernel = columns_kernels.prox_kernel(dtype)
    arguments = nb.void(*common, row)
    yield Specialisation(f"prox {dtype}", kernel, arguments, NARROW, shared, single)


def of_sweeps(dtype):
    kind, size, single = getattr(nb, dtype), np.dtype(dtype).itemsize, dtype == "float32"
    stack, rows, row = array(kind, 3), array(kind, 2), array(kind, 1)
    kernel, arguments = sweep_kernels.exponents_kernel(dtype), nb.void(rows, stack, row, rows)
    shared = columns_kernels.MOST_WARPS * size
    yield Specialisation(f"exponents {dtype}", kernel, arguments, NARROW, shared, single)


def of_sketches(dtype):
    """A tile of numbers is shared, or the sums of a block and the places of its rows, or those of a row."""
    kind, size, single = getattr(nb, dtype), np.dtype(dtype).itemsize, dtype == "float32"
    stack, rows, row, whole = array(kind, 3), array(kind, 2), array(kind, 1), nb.int64
    hashed = (nb.uint64,) * 6
    k = hashing_kernels
    places = 8 * k.WARPS * k.PLACES
    for kernel, arguments, shared in (
        (hadamard_kernels.stages_kernel, (row, *(whole,) * 3, row), hadamard_kernels.TILE * size),
        (
            k.scatter_kernel,
            (stack, *hashed, whole, whole, array(kind, 4)),
            k.TARGETS * k.WARP * size + 8 * k.THREADS,
        ),
        (k.total_kernel, (rows, kind, row), 0),
        (k.gather_kernel, (stack, *hashed, whole, kind, stack), places),
    ):
        name = f"sketch {kernel.__name__} {dtype}"
        # A block that shares so much leaves registers for as many threads.
        budget = WIDE if shared > places else NARROW
        yield Specialisation(name, kernel(dtype), nb.void(*arguments), budget, shared, single)


def of_words(word):
    """The kernels whose arrays are of integers; they may hold no floating number at all."""
    kind, wide = getattr(nb, word), nb.uint64
    rows, row = array(kind, 2), array(kind, 1)
    threads = elementwise_kernels.THREADS
    # Histograms, their running totals, the choice, and the least of each thread.
    shared = 4 * threads * (elementwise_kernels.WARPS + 1) + 16 + 8 * threads
    arguments = nb.void(rows, wide, wide, wide, nb.int64, rows)
    yield Specialisation(f"select {word}", elementwise_kernels.select, arguments, NARROW, shared)
    arguments = nb.void(row, wide, wide, wide, wide, rows)
    yield Specialisation(f"philox {word}", random_kernels.philox, arguments, 32)


EVERY = (
    *of_dtype("float64"),
    *of_dtype("float32"),
    *of_words("uint64"),
    *of_words("uint32"),
)
