"""Examples of sparse and exact transport: marginals and duality gap prove a plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare
from ..codes import Stat
from ..proximal import exact_plan, proximal_plan
from .columns import norm_squared
from .newton import (
    LAYOUTS,
    TO_TOLERANCE,
    colours,
    departure,
    newton_flops,
    points,
    problem,
    weighted,
)

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
# Pivots of one engine are not Newton steps of another: without a limit.
EXACTLY = {**TO_TOLERANCE, "max_iter": None}


def _gap(
    arrays: Arrays, gamma: np.ndarray, plan: np.ndarray, alpha: np.ndarray, beta: np.ndarray, k: int
) -> np.ndarray:
    """Value of the plan less that of the potentials, by their definitions; potentials of linear transport feasible."""
    a, b, cost = arrays
    g = gamma[..., 0, 0]
    columns = np.swapaxes(plan, -1, -2)
    norms = np.reshape(
        [norm_squared(t, k) for t in columns.reshape(-1, plan.shape[-2])], columns.shape[:-1]
    )
    primal = (np.where(plan > 0, cost, 0) * plan).sum((-2, -1)) + g / 2 * norms.sum(-1)
    slack = np.maximum(alpha[..., :, None] + beta[..., None, :] - cost, 0)
    largest = np.sort(slack, axis=-2)[..., -k:, :]
    penalty = np.where(g > 0, (largest**2).sum((-2, -1)) / np.where(g > 0, 2 * g, 1), 0)
    gap: np.ndarray = primal - (alpha * a).sum(-1) - (beta * b).sum(-1) + penalty
    return gap


def _judged(
    arrays: Arrays, gamma: np.ndarray, k: int, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    plan, alpha, beta, stats = out
    a, b, _ = arrays
    error = departure(plan, a, b)
    limit = max(1.01 * options["tol"] / eps, 60.0)
    size = 1 + np.max(np.abs(alpha), axis=-1) + np.max(np.abs(beta), axis=-1) + gamma[..., 0, 0]
    gap = np.abs(_gap(arrays, gamma, plan, alpha, beta, k)) / size
    return {
        "marginals": Residual(float(np.max(error)) / eps, limit),
        "gap": Residual(float(np.max(gap)) / eps, limit),
        "error told": Residual(float(np.max(np.abs(stats[..., Stat.ERROR] - error))) / eps, limit),
        "negative": Residual(float(np.count_nonzero(plan < 0)), 0.0),
    }


def _sparse_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    return _judged(arrays[:3], arrays[3], options["k"], out, options, eps)


def _exact_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, b, cost = arrays
    _, alpha, beta, _ = out
    bins = (a > 0)[..., :, None] & (b > 0)[..., None, :]
    excess = np.where(bins, alpha[..., :, None] + beta[..., None, :] - cost, -np.inf)
    figures = _judged(arrays, np.zeros((*a.shape[:-1], 1, 1)), cost.shape[-2], out, options, eps)
    return {**figures, "infeasible": Residual(max(float(np.max(excess)), 0.0) / eps, 8.0)}


def _sparse(k: int) -> dict[str, Any]:
    return {"k": k, **TO_TOLERANCE}


declare(
    proximal_plan,
    residuals=_sparse_residuals,
    flops=newton_flops,
    cases=[
        Case("two entries", weighted(problem, 5.0), _sparse(2)),
        Case("one entry", weighted(problem, 1.0), _sparse(1)),
        Case("small gamma", weighted(problem, 0.01), _sparse(3)),
        Case("batch", weighted(partial(problem, batch=(2,)), 0.1, 30.0), _sparse(3)),
        Case(
            "forbidden pairs",
            weighted(partial(problem, forbidden=0.2), 1.0),
            _sparse(4),
        ),
        Case("points", weighted(partial(points, m=60, n=80), 10.0), _sparse(4)),
        Case("colours", weighted(colours, 1.0), _sparse(8), real=True),
        *(
            Case(layout, weighted(partial(problem, batch=(2,)), 1.0), _sparse(3), layout=layout)
            for layout in LAYOUTS
        ),
    ],
)

declare(
    exact_plan,
    residuals=_exact_residuals,
    flops=newton_flops,
    cases=[
        Case("problem", problem, EXACTLY),
        Case("batch", partial(problem, batch=(2,)), EXACTLY),
        Case("forbidden pairs", partial(problem, forbidden=0.2), EXACTLY),
        Case("points", partial(points, m=60, n=80), EXACTLY),
        Case("colours", colours, EXACTLY, real=True),
        *(Case(layout, partial(problem, batch=(2,)), EXACTLY, layout=layout) for layout in LAYOUTS),
    ],
)
