"""Examples of entropic transport and of routing; a plan is judged by its marginals, which with its form define it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..clouds import entropic_potentials_points
from ..codes import Stat
from ..sinkhorn import entropic_potentials, sinkhorn_route, unbalanced_potentials

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
LAYOUTS = ("transposed", "strided", "reversed", "read-only")
TO_TOLERANCE = {"tol": 1e-10, "max_iter": 5000}


def _density(f: np.ndarray, g: np.ndarray, cost: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    plan: np.ndarray = np.exp((f[..., :, None] + g[..., None, :] - cost) / epsilon)
    return plan


def _departure(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    error: np.ndarray = np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)
    return error


def _limit(epsilon: np.ndarray, options: Options, eps: float) -> np.ndarray:
    """The tolerance, or what rounding of potentials makes of it, in eps."""
    limit: np.ndarray = np.maximum(1.01 * options["tol"] / eps, 8.0 + 4.0 / epsilon[..., 0, 0])
    return limit


def _judged(
    error: np.ndarray, stats: np.ndarray, epsilon: np.ndarray, options: Options, eps: float
) -> dict[str, Residual]:
    limit = _limit(epsilon, options, eps)
    told = np.abs(stats[..., Stat.ERROR] - error) / eps / limit
    return {
        "marginals, of their limit": Residual(float(np.max(error / eps / limit)), 1.0),
        "error told, of the same": Residual(float(np.max(told)), 1.0),
    }


def _entropic_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    a, b, cost, epsilon = arrays
    f, g, stats = out
    plan = _density(f, g, cost, epsilon)
    return _judged(_departure(plan, a, b), stats, epsilon, options, eps)


def _unbalanced_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    a, b, cost, epsilon, rho = arrays
    f, g, stats = out
    plan = a[..., :, None] * b[..., None, :] * _density(f, g, cost, epsilon)
    wanted = (x * np.exp(-h / rho[..., 0]) for x, h in ((a, f), (b, g)))
    return _judged(_departure(plan, *wanted), stats, epsilon, options, eps)


def _cloud_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    x, y, a, b, epsilon, scale = arrays
    distance = np.sqrt(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))
    f, g, stats = out
    plan = _density(f, g, distance ** options["p"] * scale, epsilon)
    return _judged(_departure(plan, a, b), stats, epsilon, options, eps)


def _route_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """The assignment by sweeps in the scaling form, and that no token left out has more of it than one taken."""
    (scores,), (tokens, weights) = arrays, out
    strength = options.get("epsilon", 1.0)
    kernel = np.exp((scores - scores.max((-2, -1), keepdims=True)) / strength)
    count, experts = scores.shape[-2:]
    v = np.ones(scores.shape[:-1])
    u = v[..., :experts]
    for _ in range(options["n_iter"]):
        u = count / experts / (kernel * v[..., None]).sum(-2)
        v = 1 / (kernel * u[..., None, :]).sum(-1)
    share = np.swapaxes(v[..., None] * kernel * u[..., None, :], -1, -2)
    exact = np.take_along_axis(share, tokens.astype(int), -1)
    best = -np.sort(-share, axis=-1)[..., : options["capacity"]]
    limit = 40.0 + 16.0 * float(np.max(np.abs(scores))) / strength
    return {
        "weights": Residual(float(np.max(np.abs(weights / exact - 1))) / eps, limit),
        "left out": Residual(float(np.max(1 - weights / best)) / eps, limit),
    }


def _masses(g: np.random.Generator, n: int, batch: tuple[int, ...] = ()) -> np.ndarray:
    x = g.random((*batch, n)) + 0.01
    masses: np.ndarray = x / x.sum(-1, keepdims=True)
    return masses


def _problem(m: int, n: int, epsilons: tuple[float, ...], g: np.random.Generator) -> Arrays:
    """One problem of two clouds in the plane for each epsilon."""
    batch = (len(epsilons),)
    x, y = g.standard_normal((*batch, m, 2)), g.standard_normal((*batch, n, 2))
    cost = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    cost = cost / cost.max((-2, -1), keepdims=True)
    return _masses(g, m, batch), _masses(g, n, batch), cost, np.array(epsilons)[:, None, None]


def _with_gaps(g: np.random.Generator) -> Arrays:
    """Bins without mass, and pairs that are forbidden though a plan exists."""
    plan = g.random((9, 12)) * (g.random((9, 12)) < 0.6)
    plan[0, 0] = 1
    plan[3] = 0
    plan /= plan.sum()
    cost = np.where(plan > 0, g.random((9, 12)), np.inf)
    return plan.sum(1), plan.sum(0), cost, np.array([[0.05]])


def _colours(g: np.random.Generator) -> Arrays:
    """Two histograms of colours, of which many are empty, at the squared distances of the colours."""
    data = {key: np.asarray(x, dtype=float) for key, x in real_data("histograms").items()}
    colours = data["colours"]
    cost = ((colours[:, None] - colours) ** 2).sum(-1)
    a, b = (data[key] / data[key].sum() for key in ("source", "target"))
    cost = np.where((a > 0)[:, None] & (b > 0), cost / cost.max(), np.inf)
    return a, b, cost, np.array([[0.05]])


def _unbalanced(g: np.random.Generator) -> Arrays:
    """Prices from almost none to one that forces the marginals."""
    a, b, cost, epsilon = _problem(10, 7, (0.05, 0.2, 0.01), g)
    return (
        a,
        b * np.array([[0.5], [2.0], [1.0]]),
        cost,
        epsilon,
        np.array([0.1, 1.0, 50.0])[:, None, None],
    )


def _clouds(m: int, n: int, d: int, p: float, g: np.random.Generator) -> Arrays:
    x, y = g.standard_normal((2, m, d)), g.standard_normal((2, n, d)) + 0.5
    distance = np.sqrt(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))
    scale = 1 / (distance**p).max((-2, -1), keepdims=True)
    return (
        x,
        y,
        _masses(g, m, (2,)),
        _masses(g, n, (2,)),
        np.array([0.05, 0.5])[:, None, None],
        scale,
    )


def _scores(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: (g.standard_normal(shape) + np.arange(shape[-1]),)


def _sweeps(cost: int, count: float) -> Callable[[Arrays, Options], float]:
    """Flops of so many sweeps over the entries of one of the arrays, two passes each."""
    return lambda arrays, options: 4.0 * count * arrays[cost].size


def _cloud_flops(arrays: Arrays, options: Options) -> float:
    x, y = arrays[:2]
    return 100.0 * float(x.size * y.shape[-2])


declare(
    entropic_potentials,
    residuals=_entropic_residuals,
    flops=_sweeps(2, 100.0),
    cases=[
        Case("clouds", partial(_problem, 12, 17, (1e-3, 0.02, 0.1, 1.0, 100.0)), TO_TOLERANCE),
        Case("tall", partial(_problem, 31, 6, (0.03,)), TO_TOLERANCE),
        Case("gaps", _with_gaps, TO_TOLERANCE),
        Case("colours", _colours, TO_TOLERANCE, real=True),
        Case("300 points", partial(_problem, 300, 300, (2e-3,)), TO_TOLERANCE),
        *(
            Case(layout, partial(_problem, 8, 9, (0.05, 0.2)), TO_TOLERANCE, layout=layout)
            for layout in LAYOUTS
        ),
    ],
)

declare(
    unbalanced_potentials,
    residuals=_unbalanced_residuals,
    flops=_sweeps(2, 100.0),
    cases=[
        Case("prices", _unbalanced, TO_TOLERANCE),
        Case("strided", _unbalanced, TO_TOLERANCE, layout="strided"),
    ],
)

declare(
    entropic_potentials_points,
    residuals=_cloud_residuals,
    flops=_cloud_flops,
    cases=[
        Case("plane", partial(_clouds, 12, 17, 2, 2.0), {"p": 2.0, **TO_TOLERANCE}),
        Case("distance", partial(_clouds, 9, 8, 3, 1.0), {"p": 1.0, **TO_TOLERANCE}),
        Case("cubes", partial(_clouds, 9, 8, 4, 3.0), {"p": 3.0, **TO_TOLERANCE}),
        *(
            Case(layout, partial(_clouds, 6, 7, 2, 2.0), {"p": 2.0, **TO_TOLERANCE}, layout=layout)
            for layout in LAYOUTS
        ),
    ],
)

declare(
    sinkhorn_route,
    residuals=_route_residuals,
    flops=lambda arrays, options: 8.0 * arrays[0].size * float(options["n_iter"]),
    outputs=(1,),
    cases=[
        Case("tokens", _scores(32, 4), {"capacity": 8, "n_iter": 10}, forward=100.0),
        Case("batch", _scores(2, 3, 20, 5), {"capacity": 6, "n_iter": 5}, forward=100.0),
        Case("cold", _scores(40, 8), {"capacity": 5, "n_iter": 20, "epsilon": 0.1}, forward=1e3),
        Case("one expert", _scores(6, 1), {"capacity": 6, "n_iter": 1}, forward=100.0),
    ],
)
