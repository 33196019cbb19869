"""How potentials answer to a change of the problem: the derivative of the marginal equations.

The plan is a function of the slacks; ``weights`` (..., m, n) is its derivative by them. Potentials move so that the
marginals follow those asked for: one linear system with the Laplacian of the bipartite graph of the weights.
"""

from __future__ import annotations

from typing import Any

from .._core.autodiff import constant
from .._core.dtypes import eps
from .._core.namespace import device, namespace
from .canonical import INFINITY, positive_or_one

# Share of the largest diagonal entry that makes the singular Laplacian regular, in eps.
RIDGE = 2.0**12
REFINEMENTS = 3


def response(weights: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
    """``(x, y)`` with ``sum_j w_ij (x_i + y_j) = rows_i`` and ``sum_i w_ij (x_i + y_j) = columns_j``.

    Of the many solutions one is returned; what the two sides differ by in sum is spread over the rows first. The
    inverse inside is held constant, so that the result can be differentiated again.
    """
    xp = namespace(weights)
    row_sums, column_sums = xp.sum(weights, axis=-1), xp.sum(weights, axis=-2)
    share = weights / positive_or_one(column_sums)[..., None, :]
    right = rows - xp.sum(share * columns[..., None, :], axis=-1)
    live = xp.astype(row_sums > 0, weights.dtype)
    right = live * right
    count = positive_or_one(xp.sum(live, axis=-1, keepdims=True))
    right = right - live * xp.sum(right, axis=-1, keepdims=True) / count
    inverse = constant(_regular_inverse(_laplacian(weights, share, row_sums)))

    def residual(x: Any) -> Any:
        back = xp.sum(share * x[..., :, None], axis=-2)
        return right - row_sums * x + xp.sum(weights * back[..., None, :], axis=-1)

    x = (inverse @ right[..., None])[..., 0]
    for _ in range(REFINEMENTS):
        x = x + (inverse @ residual(x)[..., None])[..., 0]
    pulled = columns - xp.sum(weights * x[..., :, None], axis=-2)
    return x, pulled / positive_or_one(column_sums)


def _laplacian(weights: Any, share: Any, row_sums: Any) -> Any:
    """The system for the rows alone."""
    xp = namespace(weights)
    eye = xp.eye(weights.shape[-2], dtype=weights.dtype, device=device(weights))
    return eye * row_sums[..., None] - share @ xp.matrix_transpose(weights)


def _regular_inverse(matrix: Any) -> Any:
    xp = namespace(matrix)
    eye = xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=device(matrix))
    diagonal = xp.sum(eye * matrix, axis=-1, keepdims=True)
    top = xp.max(diagonal, axis=-2, keepdims=True)
    ridge = xp.where(diagonal > 0, RIDGE * eps(matrix) * top, positive_or_one(top))
    return xp.linalg.inv(matrix + eye * ridge)


def potentials_tangent(weights: Any, drift: Any, da: Any, db: Any, stats: Any) -> Any:
    """Tangents of ``(alpha, beta, stats)``; ``drift`` is what the plan changes by at fixed potentials."""
    xp = namespace(weights)
    rows, columns = da - xp.sum(drift, axis=-1), db - xp.sum(drift, axis=-2)
    return *response(weights, rows, columns), xp.zeros_like(stats)


def quadratic_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    """The active entries stay; each moves with its slack."""
    (_, _, cost, gamma), (da, db, dcost, dgamma), (alpha, beta, stats) = arrays, tangents, out
    xp = namespace(cost)
    slack = alpha[..., :, None] + beta[..., None, :] - cost
    active = slack > 0
    weights = xp.astype(active, cost.dtype) / gamma
    plan = xp.where(active, slack, xp.zeros_like(slack)) / gamma
    drift = -weights * dcost - plan * (dgamma / gamma)
    return potentials_tangent(weights, drift, da, db, stats)


def entropic_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    """Every entry moves in proportion to itself."""
    (_, _, cost, epsilon), (da, db, dcost, depsilon), (alpha, beta, stats) = arrays, tangents, out
    xp = namespace(cost)
    # Infinite exponents would leave the second derivatives nothing.
    open_ = cost < INFINITY
    finite = xp.where(open_, cost, xp.zeros_like(cost))
    exponent = (alpha[..., :, None] + beta[..., None, :] - finite) / epsilon
    exponent = xp.where(open_, exponent, xp.zeros_like(exponent))
    plan = xp.where(open_, xp.exp(exponent), xp.zeros_like(exponent))
    weights = plan / epsilon
    drift = -weights * dcost - plan * exponent * (depsilon / epsilon)
    return potentials_tangent(weights, drift, da, db, stats)
