"""Examples of the sweeps over costs; each is judged against sums of longer numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare
from ..sweep import entropic_sweep, quadratic_sweep
from .columns import LAYOUTS, TINY, Arrays, Options, _colours, _passes, _worst

# A sum of n numbers errs by less than n roundings, and by about their root where they are random.
LIMIT = 8.0


def _long(arrays: Arrays) -> list[Any]:
    return [np.asarray(x, dtype=np.longdouble) for x in arrays]


def _quadratic_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """Each sum, relative to what the roundings of its slacks, and its own, may do to it."""
    alpha, beta, cost, gamma = _long(arrays)
    sums = alpha[..., :, None] + beta[..., None, :]
    active = sums - cost > 0
    plan = np.where(active, sums - cost, 0) / gamma
    parts = np.abs(alpha[..., :, None]) + np.abs(beta[..., None, :]) + np.abs(cost)
    size = np.where(active, parts, 0) / gamma
    found = {
        "rows": (out[0] - plan.sum(-1), size.sum(-1)),
        "columns": (out[1] - plan.sum(-2), size.sum(-2)),
        "value": (
            out[2] - (plan**2 * gamma).sum((-2, -1)) / 2,
            (plan * size * gamma).sum((-2, -1)),
        ),
    }
    # Next to zero a slack is rounding, and may be active in one dtype alone.
    floor = eps * float(np.max(np.where(np.isfinite(parts), parts, 0) / gamma, initial=TINY))
    return {
        name: Residual(_worst(np.abs(error) / (scale + floor)) / eps, LIMIT)
        for name, (error, scale) in found.items()
    }


def _entropic_residuals(
    arrays: Arrays, found: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """The logarithm, relative to one and to the exponents that it is made of."""
    beta, cost, epsilon = _long(arrays)
    exponents = (beta[..., None, :] - cost) / epsilon
    top = exponents.max(-1, keepdims=True)
    empty = top[..., 0] == -np.inf
    shift = np.where(top == -np.inf, 0, top)
    with np.errstate(divide="ignore"):
        exact = shift[..., 0] + np.log(np.exp(exponents - shift).sum(-1))
    largest = np.where(np.isfinite(cost), np.abs(beta[..., None, :]) + np.abs(cost), 0) / epsilon
    scale = 1 + np.where(np.exp(exponents - shift) > eps, largest, 0).max(-1)
    error = np.where(empty, 0, found - np.where(empty, 0, exact)) / scale
    return {
        "logarithm": Residual(_worst(np.abs(error)) / eps, LIMIT),
        "empty rows": Residual(float(np.count_nonzero((found == -np.inf) != empty)), 0.0),
    }


def _quadratic(
    m: int,
    n: int,
    g: np.random.Generator,
    batch: tuple[int, ...] = (),
    gamma: float = 0.1,
    forbidden: float = 0.0,
    shift: float = 0.4,
) -> Arrays:
    """Potentials at which some of the pairs are active; more with a larger shift."""
    cost = g.random((*batch, m, n))
    cost[g.random(cost.shape) < forbidden] = np.inf
    alpha, beta = (g.standard_normal((*batch, size)) / 8 + shift / 2 for size in (m, n))
    return alpha, beta, cost, gamma * 2.0 ** g.integers(-2, 3, (*batch, 1, 1))


def _entropic(
    m: int,
    n: int,
    g: np.random.Generator,
    batch: tuple[int, ...] = (),
    epsilon: float = 0.05,
    forbidden: float = 0.0,
    dead: int = 0,
) -> Arrays:
    _, beta, cost, epsilons = _quadratic(m, n, g, batch, epsilon, forbidden)
    cost[..., :dead, :] = np.inf
    return beta, cost, epsilons


def _quadratic_colours(g: np.random.Generator) -> Arrays:
    """The problem of the colours at rough potentials of its own."""
    _, _, cost = _colours()
    cost = cost / cost.max()
    beta = np.partition(cost, 8, axis=0)[8]
    return np.zeros(cost.shape[0]), beta, cost, np.full((1, 1), 1e-3)


def _entropic_colours(g: np.random.Generator) -> Arrays:
    _, beta, cost, _ = _quadratic_colours(g)
    return beta, cost, np.full((1, 1), 1e-3)


declare(
    quadratic_sweep,
    residuals=_quadratic_residuals,
    flops=_passes(6.0),
    cases=[
        Case("one pair", partial(_quadratic, 1, 1, shift=2.0)),
        Case("few rows", partial(_quadratic, 5, 12)),
        Case("few columns", partial(_quadratic, 12, 5)),
        Case("batch", partial(_quadratic, 9, 6, batch=(2, 1))),
        Case("forbidden pairs", partial(_quadratic, 11, 12, forbidden=0.4)),
        Case("no active pair", partial(_quadratic, 6, 7, shift=-4.0)),
        Case("every pair active", partial(_quadratic, 33, 65, shift=4.0)),
        Case("colours", _quadratic_colours, real=True),
        *(
            Case(layout, partial(_quadratic, 10, 6, batch=(2,)), layout=layout)
            for layout in LAYOUTS
        ),
        Case("500 x 400", partial(_quadratic, 500, 400)),
    ],
    outputs=(0, 1, 2),
)

declare(
    entropic_sweep,
    residuals=_entropic_residuals,
    flops=_passes(6.0),
    cases=[
        Case("one pair", partial(_entropic, 1, 1)),
        Case("few rows", partial(_entropic, 5, 12)),
        Case("batch", partial(_entropic, 9, 6, batch=(2, 1))),
        Case("forbidden pairs", partial(_entropic, 11, 12, forbidden=0.4)),
        Case("empty rows", partial(_entropic, 11, 12, dead=2)),
        Case("next to nothing", partial(_entropic, 11, 12, epsilon=1e-6)),
        Case("long rows", partial(_entropic, 3, 3000)),
        Case("colours", _entropic_colours, real=True),
        *(Case(layout, partial(_entropic, 10, 6, batch=(2,)), layout=layout) for layout in LAYOUTS),
        Case("500 x 400", partial(_entropic, 500, 400)),
    ],
)
