"""The sparse sketches on the device: launches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import hashing_kernels as kernels
from .launching import Launcher, contiguous

# Rows of a chunk at least; blocks in all, about, that make more chunks needless.
_ROWS, _BLOCKS, _MOST_GROUPS = 512, 1024, 65535
_MASK = 0xFFFFFFFF


def real_columns(x: Any) -> Any:
    """``x`` (..., n, d) as one contiguous stack (b, n, d) of real numbers: complex ones are two columns each."""
    n, d = x.shape[-2:]
    real = np.dtype(x.dtype.char.lower())
    parts = 1 + (x.dtype.kind == "c")
    return contiguous(x).view(real).reshape(math.prod(x.shape[:-2]), n, d * parts)


def _fixed(start: int, seed: int, group: int, stream: int, block: int) -> tuple[Any, ...]:
    given = (start, seed & _MASK, (seed >> 32) & _MASK, group, stream, block)
    return tuple(map(np.uint64, given))


def _groups(x: Any) -> int:
    """Pairs of a matrix and 32 of its columns, as far as they are blocks of their own."""
    batch, _, d = x.shape
    return min(max(int(batch) * math.ceil(int(d) / kernels.WARP), 1), _MOST_GROUPS)


def scattered_rows(
    launch: Launcher,
    a: Any,
    *,
    rows: int,
    nnz: int,
    seed: int,
    start: int,
    stream: int,
    group: int,
) -> Any:
    """Rows of ``a`` (..., m, d) added up where their hash says: (..., rows, d); the bits repeat."""
    x = real_columns(a)
    batch, n, d = x.shape
    out = launch.empty((*a.shape[:-2], rows, a.shape[-1]), a.dtype)
    if not out.size:
        return out
    tiles = nnz * math.ceil(rows // nnz / kernels.TARGETS)
    wanted = max(1, _BLOCKS // (tiles * _groups(x)))
    chunk = max(_ROWS, math.ceil(n / wanted))
    chunks = max(1, math.ceil(n / chunk))
    parts = launch.empty((chunks, batch, rows, d), x.dtype)
    given = (*_fixed(start, seed, group, stream, rows // nnz), np.int64(nnz), np.int64(chunk))
    grid = (chunks * tiles, _groups(x))
    launch(kernels.scatter_kernel(str(x.dtype)), grid, kernels.THREADS, x, *given, parts)
    flat = real_columns(out).reshape(-1)
    blocks = min(math.ceil(flat.size / kernels.THREADS), _MOST_GROUPS)
    factor = x.dtype.type(nnz**-0.5)
    kernel = kernels.total_kernel(str(x.dtype))
    launch(kernel, blocks, kernels.THREADS, parts.reshape(chunks, -1), factor, flat)
    return out


def gathered_rows(
    launch: Launcher,
    y: Any,
    *,
    stop: int,
    nnz: int,
    seed: int,
    start: int,
    stream: int,
    group: int,
) -> Any:
    """The transpose: for each row from ``start`` to ``stop`` the sum of the rows of ``y`` that its hash names."""
    x = real_columns(y)
    out = launch.empty((*y.shape[:-2], stop - start, y.shape[-1]), y.dtype)
    if out.size:
        given = (*_fixed(start, seed, group, stream, x.shape[1] // nnz), np.int64(nnz))
        grid = (math.ceil((stop - start) / kernels.WARPS), _groups(x))
        factor = x.dtype.type(nnz**-0.5)
        kernel = kernels.gather_kernel(str(x.dtype))
        launch(kernel, grid, kernels.THREADS, x, *given, factor, real_columns(out))
    return out
