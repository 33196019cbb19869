"""One pass over the costs of a transport problem: what first-order and Newton engines need of a plan they never form.

Arrays as everywhere in the family: ``cost`` (..., m, n), potentials ``alpha`` (..., m) of the rows and ``beta``
(..., n) of the columns, parameters (..., 1, 1). A cost of plus infinity forbids its pair.
"""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.namespace import namespace


@op()
def quadratic_sweep(alpha: Any, beta: Any, cost: Any, gamma: Any, /) -> tuple[Any, Any, Any]:
    r"""``(row_sums, column_sums, value)`` of the plan :math:`T_{ij} = \max(\alpha_i + \beta_j - c_{ij}, 0) / \gamma`.

    Shapes (..., m), (..., n) and (...); the value is :math:`\sum_{ij} \gamma T_{ij}^2 / 2`, which is the conjugate of
    the regularizer. ``gamma`` (..., 1, 1) is positive.
    """
    xp = namespace(cost)
    slack = xp.clip(alpha[..., :, None] + beta[..., None, :] - cost, 0.0, None)
    parameter = gamma[..., 0]
    rows = xp.sum(slack, axis=-1) / parameter
    columns = xp.sum(slack, axis=-2) / parameter
    value = xp.sum(slack * slack, axis=(-2, -1)) / (2 * parameter[..., 0])
    return rows, columns, value


@op()
def entropic_sweep(beta: Any, cost: Any, epsilon: Any, /) -> Any:
    r"""Logarithm of :math:`\sum_j \exp((\beta_j - c_{ij}) / \epsilon)`, shape (..., m); ``epsilon`` (..., 1, 1) > 0.

    A row with nothing but forbidden pairs gives minus infinity, never NaN.
    """
    xp = namespace(cost)
    exponents = (beta[..., None, :] - cost) / epsilon
    top = xp.max(exponents, axis=-1, keepdims=True)
    top = xp.where(top == -float("inf"), xp.zeros_like(top), top)
    total = xp.sum(xp.exp(exponents - top), axis=-1)
    empty = total == 0
    logarithm = xp.log(xp.where(empty, xp.ones_like(total), total))
    return xp.where(empty, xp.full_like(total, -float("inf")), top[..., 0] + logarithm)
