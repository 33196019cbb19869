"""The sweeps over the costs of transport problems on the device: launches."""

from __future__ import annotations

import math
from typing import Any

from . import sweep_kernels as kernels
from .columns import team_size
from .columns_kernels import WARP
from .launching import Launcher, contiguous

# Members of a batch side by side; a block goes on to further ones.
_MOST_MEMBERS = 65535


def _by_member(x: Any, *shape: int) -> Any:
    """``x`` (..., *shape) with one axis for the batch, contiguous."""
    return contiguous(x).reshape(-1, *shape)


def quadratic_sweep(
    launch: Launcher, alpha: Any, beta: Any, cost: Any, gamma: Any
) -> tuple[Any, Any, Any]:
    """``(row_sums, column_sums, value)`` of ``max(alpha_i + beta_j - cost_ij, 0) / gamma``; a pass and three sums."""
    dtype, (m, n) = str(cost.dtype), cost.shape[-2:]
    rows, columns = launch.empty(alpha.shape, cost.dtype), launch.empty(beta.shape, cost.dtype)
    value = launch.empty(cost.shape[:-2], cost.dtype)
    if not cost.size:
        return rows, columns, value
    costs, weights = _by_member(cost, m, n), contiguous(gamma).reshape(-1)
    batch, bands = costs.shape[0], math.ceil(m / kernels.BAND)
    across, members = math.ceil(n / kernels.THREADS), min(costs.shape[0], _MOST_MEMBERS)
    by_rows = launch.empty((batch, m, math.ceil(n / WARP)), cost.dtype)
    by_columns = launch.empty((batch, bands, n), cost.dtype)
    squares = launch.empty((batch, 1, bands * across), cost.dtype)
    potentials = _by_member(alpha, m), _by_member(beta, n)
    parts = by_rows, by_columns, squares.reshape(batch, -1)
    grid = bands * across, members
    launch(kernels.tile_kernel(dtype), grid, kernels.THREADS, *potentials, costs, *parts)
    real, add = cost.dtype.type, kernels.rows_kernel(dtype)
    for part, factor, out in ((by_rows, 1, rows), (squares, 2, value)):
        count, team = part.shape[0] * part.shape[1], team_size(part.shape[2])
        launch(add, count, team, part, weights, real(factor), out.reshape(batch, -1))
    add = kernels.columns_kernel(dtype)
    launch(add, (across, members), kernels.THREADS, by_columns, weights, _by_member(columns, n))
    return rows, columns, value


def entropic_sweep(launch: Launcher, beta: Any, cost: Any, epsilon: Any) -> Any:
    """Logarithm of the sum over j of ``exp((beta_j - cost_ij) / epsilon)``, shape (..., m); one pass."""
    m, n = cost.shape[-2:]
    out = launch.empty(cost.shape[:-1], cost.dtype)
    if cost.size:
        costs = _by_member(cost, m, n)
        given = _by_member(beta, n), costs, contiguous(epsilon).reshape(-1)
        kernel = kernels.exponents_kernel(str(cost.dtype))
        launch(kernel, costs.shape[0] * m, team_size(n), *given, _by_member(out, m))
    return out
