"""Examples of quadratically regularized transport: the form of the plan and its marginals define it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..accelerated import accelerated_potentials
from ..clouds import quadratic_potentials_points
from ..codes import Stat
from ..newton import quadratic_potentials

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
LAYOUTS = ("transposed", "strided", "reversed", "read-only")
TO_TOLERANCE = {"tol": 1e-10, "max_iter": 1000}
STEPS = {"max_iter": 300}


def departure(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The l1 error of both marginals."""
    error: np.ndarray = np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)
    return error


def _rounding(alpha: np.ndarray, beta: np.ndarray, cost: np.ndarray, gamma: Any) -> np.ndarray:
    """What rounding of potentials and costs does to the sum of a plan, in eps."""
    size = np.abs(alpha)[..., :, None] + np.abs(beta)[..., None, :]
    used = np.where(alpha[..., :, None] + beta[..., None, :] > cost, size, 0)
    limit: np.ndarray = (used / gamma).sum((-2, -1))
    return limit


def _residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, b, cost, gamma = arrays
    alpha, beta, stats = out
    plan = np.maximum(alpha[..., :, None] + beta[..., None, :] - cost, 0) / gamma
    error = departure(plan, a, b)
    limit = np.maximum(1.01 * options["tol"] / eps, 50) + 2 * _rounding(alpha, beta, cost, gamma)
    told = np.abs(stats[..., Stat.ERROR] - error)
    return {
        "marginals": Residual(float(np.max(error / eps / limit)), 1.0),
        "error told": Residual(float(np.max(told / eps / limit)), 1.0),
        "without mass": Residual(float(np.count_nonzero(plan[a == 0])), 0.0),
    }


def problem(
    g: np.random.Generator,
    m: int = 12,
    n: int = 9,
    batch: tuple[int, ...] = (),
    forbidden: float = 0.0,
) -> Arrays:
    """Random masses and costs; the first row and column have neither mass nor a finite cost."""
    a, b = g.random((*batch, m)) + 0.05, g.random((*batch, n)) + 0.05
    cost = g.random((*batch, m, n))
    cost[g.random(cost.shape) < forbidden] = np.inf
    a[..., 0] = b[..., 0] = 0
    cost[..., 0, :] = cost[..., :, 0] = np.inf
    return a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True), cost


def points(g: np.random.Generator, m: int, n: int) -> Arrays:
    """Squared distances of points in the plane."""
    x, y = g.random((m, 2)), g.random((n, 2))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = g.random(m) + 0.05, g.random(n) + 0.05
    return a / a.sum(), b / b.sum(), cost / cost.max()


def colours(g: np.random.Generator) -> Arrays:
    """Two histograms of colours without their empty bins, and the squared distances of the colours."""
    data = {key: np.asarray(x, dtype=float) for key, x in real_data("histograms").items()}
    a, b = data["source"], data["target"]
    x, y = data["colours"][a > 0], data["colours"][b > 0]
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = a[a > 0], b[b > 0]
    return a / a.sum(), b / b.sum(), cost / cost.max()


def _fixed_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Columns have their masses after any number of steps, and rows nearly so after many."""
    a, b, cost, gamma = arrays
    alpha, beta, stats = out
    plan = np.maximum(alpha[..., :, None] + beta[..., None, :] - cost, 0) / gamma
    limit = 200.0 + 2 * np.max(_rounding(alpha, beta, cost, gamma))
    columns = np.abs(plan.sum(-2) - b).sum(-1)
    told = np.abs(stats[..., Stat.ERROR] - np.abs(plan.sum(-1) - a).sum(-1))
    return {
        "columns": Residual(float(np.max(columns)) / eps, limit),
        "rows": Residual(float(np.max(np.abs(plan.sum(-1) - a).sum(-1))) / eps, limit),
        "error told": Residual(float(np.max(told)) / eps, limit),
    }


def _between_points(arrays: Arrays, p: float) -> Arrays:
    """The problem with its costs formed."""
    x, y, a, b, gamma, scale = arrays
    apart = np.sqrt(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))
    return a, b, apart**p * scale, gamma


def _points_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    return _residuals(_between_points(arrays, options["p"]), out, options, eps)


def _clouds(g: np.random.Generator, m: int, n: int, p: float) -> Arrays:
    """Two stacks of two clouds in space, with what brings their costs to 1 at most."""
    x, y = g.standard_normal((2, m, 3)), g.standard_normal((2, n, 3))
    a, b = g.random((2, m)) + 0.05, g.random((2, n)) + 0.05
    square = ((x[:, :, None] - y[:, None]) ** 2).sum(-1).max((-2, -1), keepdims=True)
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    return x, y, a, b, np.ones((2, 1, 1)), 1 / square ** (p / 2)


def weighted(make: Callable[[np.random.Generator], Arrays], *gammas: float) -> Any:
    """``gammas`` over and over beside a problem, one for each member."""

    def arrays(g: np.random.Generator) -> Arrays:
        given = make(g)
        return *given, np.resize(np.array(gammas), (*given[2].shape[:-2], 1, 1))

    return arrays


def newton_flops(arrays: Arrays, options: Options) -> float:
    """Twenty steps, each with a Schur complement and its factorization."""
    cost = arrays[2]
    m, n = cost.shape[-2:]
    return float(20 * (cost.size // (m * n)) * (2 * m * m * n + 2 * m**3 / 3))


declare(
    quadratic_potentials,
    residuals=_residuals,
    flops=newton_flops,
    cases=[
        Case("many entries", weighted(problem, 10.0), TO_TOLERANCE),
        Case("few entries", weighted(problem, 0.01), TO_TOLERANCE),
        Case("batch", weighted(partial(problem, batch=(2,)), 0.1, 30.0), TO_TOLERANCE),
        Case(
            "forbidden pairs",
            weighted(partial(problem, forbidden=0.2), 1.0),
            TO_TOLERANCE,
        ),
        Case("one row", weighted(partial(problem, m=2, n=7), 1.0), TO_TOLERANCE),
        Case("points", weighted(partial(points, m=60, n=80), 1.0), TO_TOLERANCE),
        Case("colours", weighted(colours, 1.0), TO_TOLERANCE, real=True),
        *(
            Case(layout, weighted(partial(problem, batch=(2,)), 1.0), TO_TOLERANCE, layout=layout)
            for layout in LAYOUTS
        ),
    ],
)

declare(
    quadratic_potentials_points,
    residuals=_points_residuals,
    flops=lambda arrays, options: 100.0 * arrays[2].size * arrays[3].size,
    cases=[
        Case("squares", partial(_clouds, m=12, n=17, p=2.0), {"p": 2.0, **TO_TOLERANCE}),
        Case("distances", partial(_clouds, m=9, n=8, p=1.0), {"p": 1.0, **TO_TOLERANCE}),
        *(
            Case(
                layout, partial(_clouds, m=9, n=8, p=2.0), {"p": 2.0, **TO_TOLERANCE}, layout=layout
            )
            for layout in LAYOUTS
        ),
    ],
)

declare(
    accelerated_potentials,
    residuals=_fixed_residuals,
    flops=lambda arrays, options: 30.0 * arrays[2].size * options["max_iter"],
    cases=[
        Case("steps", weighted(problem, 10.0), STEPS),
        Case("batch", weighted(partial(problem, batch=(2,)), 10.0, 30.0), STEPS),
        *(
            Case(layout, weighted(partial(problem, batch=(2,)), 10.0), STEPS, layout=layout)
            for layout in LAYOUTS
        ),
    ],
)
