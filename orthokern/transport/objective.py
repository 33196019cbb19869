"""The two values of transport with quadratic and k-support regularizers, whose difference certifies a plan."""

from __future__ import annotations

from typing import Any

from .._core.namespace import namespace
from .columns import ksupport_norm_squared


def primal_value(plan: Any, cost: Any, gamma: Any, k: int) -> Any:
    """``<T, C> + gamma / 2 sum_j ||t_j||^2`` in the k-support norm of each column, shape (...).

    ``plan`` and ``cost`` are (..., m, n), ``gamma`` is (..., 1, 1); an entry that is forbidden and empty costs nothing.
    """
    xp = namespace(plan)
    paid = xp.where(plan > 0, cost, xp.zeros_like(cost)) * plan
    squares = xp.sum(ksupport_norm_squared(plan, k=k, axis=-2), axis=-1)
    return xp.sum(paid, axis=(-2, -1)) + gamma[..., 0, 0] / 2 * squares


def dual_value(a: Any, b: Any, cost: Any, alpha: Any, beta: Any, gamma: Any, k: int) -> Any:
    """``<alpha, a> + <beta, b>`` less the sum of the k largest ``max(s, 0)^2 / (2 gamma)`` of each column, shape (...).

    ``a`` and ``alpha`` are (..., m), ``b`` and ``beta`` (..., n), ``cost`` (..., m, n), ``gamma`` (..., 1, 1). Where
    gamma is zero ``beta`` is replaced by the transform of ``alpha``, the best that is feasible. Any potentials give a
    lower bound, of the problem with at most k entries in each column too.
    """
    xp = namespace(cost)
    quadratic = gamma[..., 0] > 0
    slack = xp.clip(alpha[..., :, None] + beta[..., None, :] - cost, 0.0, None)
    if k < cost.shape[-2]:
        slack = xp.sort(slack, axis=-2, descending=True)[..., :k, :]
    weight = xp.where(gamma > 0, 2 * gamma, xp.ones_like(gamma))
    excess = xp.sum(slack * slack / weight, axis=(-2, -1))
    feasible = xp.min(cost - alpha[..., :, None], axis=-2)
    prices = xp.where(quadratic, beta, feasible)
    linear = xp.sum(alpha * a, axis=-1) + xp.sum(xp.where(b > 0, prices, 0.0) * b, axis=-1)
    return linear - xp.where(quadratic[..., 0], excess, xp.zeros_like(excess))
