"""Examples of the sweep over costs, judged against sums of longer numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare
from ..sweep import entropic_sweep
from .columns import LAYOUTS, Arrays, Options, _colours, _passes, _worst

# A sum of n numbers errs by less than n roundings, and by about their root where they are random.
LIMIT = 8.0


def _long(arrays: Arrays) -> list[Any]:
    return [np.asarray(x, dtype=np.longdouble) for x in arrays]


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


def _entropic(
    m: int,
    n: int,
    g: np.random.Generator,
    batch: tuple[int, ...] = (),
    epsilon: float = 0.05,
    forbidden: float = 0.0,
    dead: int = 0,
) -> Arrays:
    """Potentials, costs and a strength for each member; nothing may leave the first ``dead`` rows."""
    cost = g.random((*batch, m, n))
    cost[g.random(cost.shape) < forbidden] = np.inf
    cost[..., :dead, :] = np.inf
    beta = g.standard_normal((*batch, n)) / 8
    return beta, cost, epsilon * 2.0 ** g.integers(-2, 3, (*batch, 1, 1))


def _entropic_colours(g: np.random.Generator) -> Arrays:
    """The problem of the colours at rough potentials of its own."""
    cost = _colours()[2]
    cost = cost / cost.max()
    return np.partition(cost, 8, axis=0)[8], cost, np.full((1, 1), 1e-3)


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
