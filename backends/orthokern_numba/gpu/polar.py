"""Polar factors of stacks of small square matrices on the device: which team takes a size, and the launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from orthokern.spectral.plan import STATS_WIDTH

from . import polar_kernels as kernels
from .launching import Extent, Launcher, contiguous

# Largest sizes of a thread's matrix and of a warp's.
THREAD_SIZE, WARP_SIZE = 4, kernels.LANES
CAPACITIES = (16, 32)
# Cosine, in eps sqrt(n), of two columns that are orthogonal to rounding.
_ANGLE = 0.9
# Below this multiple of the least normal number the square of a length is not accurate.
_MARGIN = 1024


def _limits(dtype: Any, n: int, completion: str, rcond: float | None) -> tuple[Any, ...]:
    """The numbers that a kernel takes, in the order of `polar_kernels`, in the dtype of its arrays."""
    form = np.finfo(dtype)
    eps = float(form.eps)
    cut = n * eps if rcond is None else float(rcond)
    share = eps if completion == "unitary" else min(eps, cut)
    tolerance = _ANGLE * eps * math.sqrt(n)
    smallest = _MARGIN * float(form.tiny)
    return tuple(map(dtype.type, (share, cut, eps, n * eps, tolerance, smallest)))


def configuration(count: int, n: int, dtype: str) -> tuple[Any, Extent, Extent]:
    """Kernel, blocks and threads for ``count`` matrices of size ``n``."""
    if n <= THREAD_SIZE:
        kernel = kernels.thread_kernel(dtype, n)
        return kernel, math.ceil(count / kernels.THREADS), kernels.THREADS
    if n <= WARP_SIZE:
        grid = math.ceil(count / kernels.SLOTS)
        return kernels.group_kernel(dtype, WARP_SIZE), grid, (32, kernels.SLOTS)
    capacity = next(size for size in CAPACITIES if n <= size)
    # A group for each pair of columns, whole warps.
    threads = 32 * math.ceil(math.ceil(n / 2) * kernels.LANES / 32)
    return kernels.group_kernel(dtype, capacity), count, threads


def _factored(
    launch: Launcher, x: Any, completion: str, rcond: float | None, *, with_h: bool
) -> tuple[Any, Any, Any]:
    n, dtype = x.shape[-1], x.dtype
    stack = contiguous(x).reshape(-1, n, n)
    count = stack.shape[0]
    u = launch.empty(stack.shape, dtype)
    h = launch.empty(stack.shape if with_h else (0, n, n), dtype)
    stats = launch.empty((count, STATS_WIDTH), dtype)
    if count:
        kernel, blocks, threads = configuration(count, n, str(dtype))
        limits = _limits(dtype, n, completion, rcond)
        launch(kernel, blocks, threads, stack, u, h, stats, limits, completion == "unitary")
    shaped = u.reshape(x.shape)
    return shaped, h.reshape(x.shape) if with_h else None, stats.reshape(*x.shape[:-2], STATS_WIDTH)


def unitary_factor(
    launch: Launcher, x: Any, *, completion: str, rcond: float | None
) -> tuple[Any, Any]:
    """``(u, stats)``: unitary polar factors of real ``x`` (..., n, n), 1 <= n <= 32, at every condition number.

    Parameters
    ----------
    launch
        Where the kernels run.
    x
        Finite members, each scaled to a largest entry in [0.5, 1), or zero. Any layout; not written to.
    completion
        "unitary": orthonormal columns at every rank. "partial": only the singular directions with
        ``sigma > rcond * sigma_max``; a zero matrix stays zero.
    rcond
        Relative cut of "partial"; None is n eps.

    Returns
    -------
    u
        (..., n, n). ``||u^T u - I||_F`` below 5 n eps and a backward error below 60 eps.
    stats
        (..., 20): the residual and a lower bound of sigma_min / sigma_max at their places, zeros elsewhere.

    Notes
    -----
    flops: about 70 n^3 for each matrix; memory: the results. Demmel and Veselic, SIMAX 13 (1992).
    """
    u, _, stats = _factored(launch, x, completion, rcond, with_h=False)
    return u, stats


def polar_factors(
    launch: Launcher, x: Any, *, completion: str, rcond: float | None
) -> tuple[Any, Any, Any]:
    """``(u, h, stats)``: `unitary_factor` and the bitwise symmetric ``(u^T x + x^T u) / 2``, in one launch."""
    return _factored(launch, x, completion, rcond, with_h=True)
