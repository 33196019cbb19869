"""Examples of solved problems, judged by their own proof: marginals, and a gap computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..kinds import SHARPNESS
from ..regularizers import Entropy, SparsityConstrained, SquaredL2, Unregularized
from ..request import FINEST
from ..solution import entropic_solution
from ..solve import sinkhorn, solve_ot

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
TOL = 1e-11


def _regularizer(options: Options) -> Any:
    return options.get("regularizer") or Entropy(
        options["epsilon"], options.get("reference", "counting")
    )


def _positive_part(alpha: np.ndarray, beta: np.ndarray, cost: np.ndarray) -> np.ndarray:
    y: np.ndarray = np.maximum(alpha[..., :, None] + beta[..., None, :] - cost, 0.0)
    return y


def _conjugate(regularizer: Any, arrays: Arrays, alpha: np.ndarray, beta: np.ndarray) -> Any:
    """What the dual subtracts, or how much too large its potentials are."""
    a, b, cost = arrays
    if isinstance(regularizer, Entropy):
        slack = alpha[..., :, None] + beta[..., None, :] - cost
        share = a[..., :, None] * b[..., None, :] if regularizer.reference == "product" else 1.0
        return regularizer.epsilon * (share * np.exp(slack / regularizer.epsilon)).sum((-2, -1))
    y = _positive_part(alpha, beta, cost)
    if isinstance(regularizer, Unregularized):
        return y.max((-2, -1)) * a.sum(-1)
    if isinstance(regularizer, SparsityConstrained):
        y = np.sort(y, axis=-2)[..., -regularizer.k :, :]
    return (y * y).sum((-2, -1)) / (2 * regularizer.gamma)


def _judged(arrays: Arrays, result: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, b, cost = arrays
    regularizer = _regularizer(options)
    plan, alpha, beta, value = result[:4]
    mass = np.maximum(a.sum(-1), np.finfo(float).tiny)
    finite = np.where(np.isfinite(cost), cost, 0.0)
    strength = getattr(regularizer, "gamma", getattr(regularizer, "epsilon", 0.0))
    scale = mass * (np.abs(finite).max((-2, -1)) + strength * np.maximum(mass, 1.0))
    rows, columns = np.abs(plan.sum(-1) - a).sum(-1), np.abs(plan.sum(-2) - b).sum(-1)
    known = [np.where(x > -np.inf, x, 0.0) for x in (alpha, beta)]
    dual = (known[0] * a).sum(-1) + (known[1] * b).sum(-1)
    dual = dual - _conjugate(regularizer, arrays, alpha, beta)
    sharpness = SHARPNESS * np.ptp(finite) / strength if isinstance(regularizer, Entropy) else 0.0
    tol = max(options["tol"] / eps, FINEST, sharpness)
    return {
        "negative": Residual(float(np.count_nonzero(plan < 0)), 0.0),
        "marginals": Residual(float(((rows + columns) / mass).max()) / eps, 4 * tol),
        "gap": Residual(float((np.abs(value - dual) / scale).max()) / eps, 20 * tol),
    }


def _clouds(
    g: np.random.Generator, m: int = 12, n: int = 9, batch: tuple[int, ...] = (), dead: bool = False
) -> Arrays:
    """Two clouds of points in the plane with random masses."""
    x, y = g.standard_normal((*batch, m, 2)), g.standard_normal((*batch, n, 2)) + 0.5
    cost = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    a, b = g.random((*batch, m)) + 0.05, g.random((*batch, n)) + 0.05
    if dead:
        a[..., 2], b[..., 1] = 0.0, 0.0
    cost = cost / cost.max((-2, -1), keepdims=True)
    return a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True), cost


def _colours(g: np.random.Generator, size: int = 60) -> Arrays:
    """The heaviest colours of two photographs."""
    data = real_data("histograms")
    masses: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for name in ("source", "target"):
        heaviest = np.argsort(data[name])[-size:]
        weights = data[name][heaviest].astype(float)
        masses.append(weights / weights.sum())
        places.append(data["colours"][heaviest].astype(float))
    cost = ((places[0][:, None] - places[1][None]) ** 2).sum(-1)
    return masses[0], masses[1], cost / cost.max()


def _closed(g: np.random.Generator) -> Arrays:
    """A third of the pairs forbidden, with a plan that avoids them."""
    a, _, cost = _clouds(g, 10, 10)
    forbidden = (g.random((10, 10)) < 0.3) & ~np.eye(10, dtype=bool)
    return a, a, np.where(forbidden, np.inf, cost)


def _flops(passes: float) -> Any:
    return lambda arrays, options: passes * arrays[2].size


def _cases(regularizer: Any) -> list[Case]:
    options = {"regularizer": regularizer, "tol": TOL}
    return [
        Case("clouds", _clouds, options),
        Case("colours", _colours, options, real=True),
        Case("batch", partial(_clouds, m=7, n=8, batch=(3,)), options),
        Case("bins without mass", partial(_clouds, dead=True), options),
        Case("forbidden pairs", _closed, options),
    ]


def _named(cases: list[Case], prefix: str) -> list[Case]:
    return [
        Case(f"{prefix}, {c.name}", c.arrays, c.options, c.forward, c.layout, c.real, c.bench)
        for c in cases
    ]


declare(
    solve_ot,
    residuals=_judged,
    flops=_flops(500.0),
    outputs=(),
    cases=[
        *_named(_cases(SquaredL2(0.5)), "squares"),
        *_named(_cases(SparsityConstrained(3, 0.5)), "three entries"),
        *_named(_cases(Unregularized()), "linear"),
        Case(
            "squares, 400 points",
            partial(_clouds, m=400, n=400),
            {"regularizer": SquaredL2(1.0), "tol": TOL},
        ),
    ],
)

declare(
    sinkhorn,
    residuals=_judged,
    flops=_flops(500.0),
    outputs=(),
    cases=[
        Case("clouds", _clouds, {"epsilon": 0.1, "tol": TOL}),
        Case("product", _clouds, {"epsilon": 0.1, "reference": "product", "tol": TOL}),
        Case("colours", _colours, {"epsilon": 0.02, "tol": TOL}, real=True),
        Case("batch", partial(_clouds, m=7, n=8, batch=(3,)), {"epsilon": 0.1, "tol": TOL}),
        Case("bins without mass", partial(_clouds, dead=True), {"epsilon": 0.1, "tol": TOL}),
        Case("small strength", _clouds, {"epsilon": 1e-3, "tol": TOL}),
        Case("400 points", partial(_clouds, m=400, n=400), {"epsilon": 0.01, "tol": TOL}),
    ],
)


def _with_strength(given: Any, epsilon: float) -> Any:
    """The problems of ``given`` with the strength as an array."""

    def arrays(g: np.random.Generator) -> Arrays:
        problem = given(g)
        batch = problem[2].shape[:-2]
        return *problem, np.full((*batch, 1, 1), epsilon)

    return arrays


def _figures(arrays: Arrays, result: Any, options: Options, eps: float) -> dict[str, Residual]:
    """The proof of the result, and its own figures against ones that are computed anew."""
    a, b, cost, epsilon = arrays
    plan, alpha, beta, figures, _ = result
    value, linear, dual, error, upper = (figures[..., i] for i in range(5))
    strength = float(epsilon.flat[0])
    given = {"epsilon": strength, "tol": options["tol"]}
    found = _judged((a, b, cost), (plan, alpha, beta, value), given, eps)
    rows, columns = np.abs(plan.sum(-1) - a).sum(-1), np.abs(plan.sum(-2) - b).sum(-1)
    flow = (plan * np.where(np.isfinite(cost), cost, 0.0)).sum((-2, -1))
    size = 1 + np.log1p(plan.shape[-1] * plan.shape[-2]) * strength
    few = 64.0 + plan.shape[-1] + plan.shape[-2]
    found["linear cost"] = Residual(float(np.abs(linear - flow).max()) / eps, few)
    found["error"] = Residual(float(np.abs(error - rows - columns).max()) / eps, few)
    # A marginal error moves a value by as much.
    apart = np.abs(upper - value) - 16 * (error + options["tol"]) * size
    found["bounds"] = Residual(float(np.maximum(apart, dual - upper).max()) / eps, few * size)
    return found


declare(
    entropic_solution,
    residuals=_figures,
    flops=_flops(500.0),
    outputs=(0,),
    cases=[
        Case(
            "strided",
            _with_strength(_clouds, 0.1),
            {"tol": TOL, "max_iter": 20000},
            layout="strided",
        ),
    ]
    + [
        Case(name, _with_strength(given, epsilon), {"tol": tol, "max_iter": 20000}, real=real)
        for name, given, epsilon, tol, real in (
            ("clouds", _clouds, 0.1, TOL, False),
            ("stopped at a part in a million", _clouds, 0.02, 1e-6, False),
            ("batch", partial(_clouds, m=7, n=8, batch=(3,)), 0.1, TOL, False),
            ("odd columns", partial(_clouds, m=8, n=9), 0.1, TOL, False),
            ("bins without mass", partial(_clouds, dead=True), 0.1, TOL, False),
            ("colours", _colours, 0.02, TOL, True),
        )
    ],
)
