"""The optimizers' ops on the device: launches, and what is left to do on one number a matrix."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import elementwise_kernels as kernels
from .launching import Launcher, contiguous

# Enough threads to fill a device; each takes as many entries as are left.
_MOST_BLOCKS, _MOST_GROUPS = 4096, 65535


class _Format(NamedTuple):
    """How a dtype stores numbers: the integers, all bits but the sign, and infinity."""

    word: type[np.unsignedinteger[Any]]
    width: int
    modulus: int
    infinity: int


_FORMATS = {
    "float32": _Format(np.uint32, 32, 0x7FFFFFFF, 0x7F800000),
    "float64": _Format(np.uint64, 64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}


def _rows(x: Any) -> Any:
    """The matrices of ``x`` (..., m, n) as rows, contiguous."""
    return contiguous(x).reshape(-1, x.shape[-2] * x.shape[-1])


def magnitude_quantile(launch: Launcher, x: Any, *, quantile: float) -> Any:
    """Quantile of ``|x|`` in each matrix, interpolated linearly, shape (..., 1, 1); by selection, O(m n).

    The last three operations are the reference's on arrays of the caller's library: a kernel would fuse two of
    them, and round once where the reference rounds twice.
    """
    form = _FORMATS[str(x.dtype)]
    keys = _rows(x).view(form.word)
    place = quantile * (keys.shape[1] - 1)
    rank = math.floor(place)
    found = launch.empty((keys.shape[0], 2), form.word)
    if keys.shape[0]:
        words = map(np.uint64, (form.modulus, form.infinity, form.width))
        launch(kernels.select, keys.shape[0], kernels.THREADS, keys, *words, np.int64(rank), found)
    bounds = found.view(x.dtype)
    lower, upper = bounds[:, 0], bounds[:, 1]
    value = lower + (upper - lower) * x.dtype.type(place - rank)
    return value.reshape(*x.shape[:-2], 1, 1)


def _spread(launch: Launcher, limit: Any, shape: tuple[int, ...]) -> Any:
    """``limit`` written out to ``shape``."""
    full = launch.empty(shape, limit.dtype)
    full[...] = limit
    return full


def shrink(launch: Launcher, x: Any, limit: Any) -> Any:
    """``x - clip(x, -limit, limit)`` in one pass; one limit in all, for each matrix, or for each entry."""
    out = launch.empty(x.shape, x.dtype)
    if not x.size:
        return out
    if limit.size == 1:
        groups = 1
    elif x.ndim > 2 and limit.shape == (*x.shape[:-2], 1, 1):
        groups = limit.size
    else:
        groups, limit = 1, _spread(launch, limit, x.shape)
    rows, limits = contiguous(x).reshape(groups, -1), contiguous(limit).reshape(groups, -1)
    blocks = min(math.ceil(rows.shape[1] / kernels.THREADS), _MOST_BLOCKS)
    grid = (blocks, min(groups, _MOST_GROUPS))
    step = np.int64(limits.shape[1] > 1)
    launch(kernels.shrink, grid, kernels.THREADS, rows, limits, step, out.reshape(groups, -1))
    return out


def cosh_rms(launch: Launcher, x: Any, guard: Any, *, gamma: float) -> Any:
    """``G / (R + 1e-8)``: ``G = x / (||x||_F + guard)``, ``R^2 = mean cosh^2(gamma G)``, ``guard`` (..., 1, 1)."""
    real = x.dtype.type
    rows = _rows(x)
    out = launch.empty(rows.shape, x.dtype)
    if rows.shape[0]:
        kernel = kernels.cosh_kernel(str(x.dtype))
        fixed = contiguous(guard).reshape(-1), real(gamma), real(rows.shape[1])
        launch(kernel, rows.shape[0], kernels.THREADS, rows, *fixed, out)
    return out.reshape(x.shape)
