"""Sums of rows that go to the same place: the scatter that the array API does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .namespace import device, library, namespace

# Numbers of a table of zeros and ones held at a time.
TABLE = 2**22


def add_rows(a: Any, target: Any, count: int) -> Any:
    """Rows of ``a`` (..., n, d) summed by ``target`` (n,), integers from 0 to ``count`` - 1: (..., count, d).

    The rows of one target are added in their order, on any processor.
    """
    name = library(a)
    if name == "numpy":
        return _by_runs(a, target, count)
    shape = (*a.shape[:-2], count, a.shape[-1])
    if name == "torch":
        return a.new_zeros(shape).index_add(-2, target, a)
    if name == "jax":
        return namespace(a).zeros(shape, dtype=a.dtype).at[..., target, :].add(a)
    return _by_table(a, target, count)


def _by_runs(a: Any, target: Any, count: int) -> Any:
    order = np.argsort(target, kind="stable")
    begins = np.searchsorted(target[order], np.arange(count + 1))
    occupied = begins[:-1] < begins[1:]
    out = np.zeros((*a.shape[:-2], count, a.shape[-1]), dtype=a.dtype)
    if occupied.any():
        starts = begins[:-1][occupied]
        out[..., occupied, :] = np.add.reduceat(a[..., order, :], starts, axis=-2)
    return out


def _by_table(a: Any, target: Any, count: int) -> Any:
    """By products with zeros and ones, which every library has."""
    xp = namespace(a)
    places = xp.arange(count, dtype=target.dtype, device=device(a))[:, None]
    size = max(1, TABLE // max(count, 1))
    total = None
    for i in range(0, max(a.shape[-2], 1), size):
        block = slice(i, min(i + size, a.shape[-2]))
        part = xp.astype(places == target[None, block], a.dtype) @ a[..., block, :]
        total = part if total is None else total + part
    return total


def block_sum(function: Callable[..., Any], a: Any, count: int, start: int = 0) -> Any:
    """Sum of ``function(block, start)`` (..., count, d) over the stored blocks of rows of a lazy array ``a``."""
    total, begin = None, 0
    for size in a.chunks[-2]:
        block = a[..., begin : begin + size, :]
        part = _mapped(function, block, count, start=start + begin)
        total = part if total is None else total + part
        begin += size
    return total


def per_columns(function: Callable[..., Any], a: Any, count: int) -> Any:
    """``function`` of the lazy array ``a`` (..., n, d), whole columns at a time: (..., count, d)."""
    return _mapped(function, a.rechunk({a.ndim - 2: -1}), count)


def _mapped(function: Callable[..., Any], a: Any, count: int, **options: Any) -> Any:
    chunks = (*a.chunks[:-2], (count,), a.chunks[-1])
    return a.map_blocks(function, chunks=chunks, dtype=a.dtype, **options)


def ranked(order: Any, y: Any) -> Any:
    """The transpose of taking the rows ``order[:s]``: rows of ``y`` (..., s, d) put there, zeros elsewhere.

    ``order`` (n,) holds every number from 0 to n - 1 once; by a gather, because no number repeats.
    """
    xp = namespace(y)
    s = y.shape[-2]
    rank = xp.argsort(order)
    zero = xp.zeros_like(y[..., :1, :])
    last = xp.full_like(rank, s)
    return xp.take(xp.concat([y, zero], axis=-2), xp.minimum(rank, last), axis=-2)
