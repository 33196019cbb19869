"""Device code of the sweep over the costs of an entropic problem, whose exponents are never stored.

A team takes each row; its threads keep a largest exponent and the sum relative to it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import cuda

from .columns_kernels import MOST_WARPS, team_max, team_sum


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
