"""The sweep over the costs of a transport problem on the device: its launch."""

from __future__ import annotations

from typing import Any

from . import sweep_kernels as kernels
from .columns import team_size
from .launching import Launcher, contiguous


def _by_member(x: Any, *shape: int) -> Any:
    """``x`` (..., *shape) with one axis for the batch, contiguous."""
    return contiguous(x).reshape(-1, *shape)


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
