"""One pass over the costs of an entropic transport problem: what an engine needs of a plan that it never forms."""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.namespace import namespace


def _tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    """The tangents of the exponents, weighed by the shares that these have of the sum."""
    beta, cost, epsilon = arrays
    d_beta, d_cost, d_epsilon = tangents
    xp = namespace(cost)
    open_ = cost < float("inf")
    exponents = (beta[..., None, :] - xp.where(open_, cost, xp.zeros_like(cost))) / epsilon
    some = xp.isfinite(out)
    level = xp.where(some, out, xp.zeros_like(out))[..., None]
    carried = open_ & some[..., None] & (exponents > -float("inf"))
    exponents = xp.where(carried, exponents, level)
    share = xp.where(carried, xp.exp(exponents - level), xp.zeros_like(exponents))
    moved = (d_beta[..., None, :] - d_cost - exponents * d_epsilon) / epsilon
    return xp.sum(share * moved, axis=-1)


@op(jvp=_tangent)
def entropic_sweep(beta: Any, cost: Any, epsilon: Any, /) -> Any:
    r"""Logarithm of :math:`\sum_j \exp((\beta_j - c_{ij}) / \epsilon)`, shape (..., m).

    ``beta`` (..., n), ``cost`` (..., m, n) and ``epsilon`` (..., 1, 1) > 0 of one batch shape; a cost of plus infinity
    forbids its pair. A row with nothing but forbidden pairs gives minus infinity, never NaN.
    """
    xp = namespace(cost)
    exponents = (beta[..., None, :] - cost) / epsilon
    top = xp.max(exponents, axis=-1, keepdims=True)
    top = xp.where(top == -float("inf"), xp.zeros_like(top), top)
    total = xp.sum(xp.exp(exponents - top), axis=-1)
    empty = total == 0
    logarithm = xp.log(xp.where(empty, xp.ones_like(total), total))
    return xp.where(empty, xp.full_like(total, -float("inf")), top[..., 0] + logarithm)
