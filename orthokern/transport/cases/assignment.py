"""Examples of linear assignment: pairs are judged by the potentials that come with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..assignment import assignment, linear_assignment

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
Make = Callable[[np.random.Generator], Arrays]
# The value is the only field that ties leave unique.
VALUE = 2
FORWARD = 30.0
LAYOUTS = ("transposed", "strided", "reversed", "read-only")


def _scale(cost: np.ndarray) -> float:
    return float(np.max(np.abs(cost), where=np.isfinite(cost), initial=1e-300))


def _certificate(
    cost: np.ndarray, alpha: np.ndarray, beta: np.ndarray, value: Any, eps: float
) -> dict[str, Residual]:
    """How far the potentials are from feasible, and their value from the pairs'."""
    alpha, beta = alpha.astype(float), beta.astype(float)
    over = np.max(alpha[..., :, None] + beta[..., None, :] - cost, initial=0.0)
    m, n = cost.shape[-2:]
    longer = beta if n >= m else alpha
    sign = np.max(longer, initial=0.0) if m != n else 0.0
    size = np.abs(alpha).sum(-1) + np.abs(beta).sum(-1) + _scale(cost)
    known = np.isfinite(value)
    gap = np.where(known, value, 0.0) - alpha.sum(-1) - beta.sum(-1)
    limit = 4.0 + max(m, n)
    return {
        "infeasible": Residual(float(over) / _scale(cost) / eps, limit),
        "sign": Residual(float(sign) / _scale(cost) / eps, 0.0),
        "gap": Residual(float(np.max(np.abs(gap) / size, where=known, initial=0.0)) / eps, limit),
    }


def _pairs(cost: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, int]:
    """Total cost of the pairs of each problem, and how many ends serve twice."""
    batch = cost.shape[:-2]
    totals, twice = np.zeros(batch), 0
    for k in np.ndindex(*batch):
        i, j = rows[k].astype(int), columns[k].astype(int)
        whole = (i >= 0) & (j >= 0)
        twice += sum(len(x) - len(set(x.tolist())) for x in (i[whole], j[whole]))
        totals[k] = cost[k][i[whole], j[whole]].sum() if whole.all() else np.inf
    return totals, twice


def _result_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    sign = -1.0 if options.get("maximize") else 1.0
    rows, columns, value, alpha, beta = out
    cost, value = sign * arrays[0], sign * np.asarray(value, dtype=float)
    totals, twice = _pairs(cost, rows, columns)
    known = np.isfinite(totals)
    error = np.where(known, value, 0.0) - np.where(known, totals, 0.0)
    worst = float(np.max(np.abs(error), initial=0.0)) / _scale(cost) / eps
    return {
        "twice": Residual(float(twice + np.count_nonzero(np.isfinite(value) != known)), 0.0),
        "value": Residual(worst, 4.0 + min(cost.shape[-2:])),
        **_certificate(cost, sign * alpha, sign * beta, totals, eps),
    }


def _op_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    (cost,), (columns, alpha, beta) = arrays, out
    rows = np.broadcast_to(np.arange(cost.shape[-2]), columns.shape)
    totals, twice = _pairs(cost, rows, columns)
    return {
        "twice": Residual(float(twice), 0.0),
        **_certificate(cost, alpha, beta, totals, eps),
    }


def _flops(arrays: Arrays, options: Options) -> float:
    m, n = arrays[0].shape[-2:]
    return float(min(m, n) * arrays[0].size)


def _normal(*shape: int) -> Make:
    return lambda g: (g.standard_normal(shape),)


def _ties(g: np.random.Generator) -> Arrays:
    return (g.integers(0, 4, (3, 10, 10)).astype(float),)


def _forbidden(share: float, g: np.random.Generator) -> Arrays:
    """A permutation stays open."""
    cost = g.random((3, 10, 10))
    closed = g.random(cost.shape) < share
    closed[..., np.arange(10), g.permutation(10)] = False
    cost[closed] = np.inf
    return (cost,)


def _impossible(g: np.random.Generator) -> Arrays:
    """Three rows that share two columns, and a row without any; its neighbours in the batch are whole."""
    cost = g.random((3, 10, 10))
    cost[1, :3, 2:] = np.inf
    cost[2, 4] = np.inf
    return (cost,)


def _far_clouds(g: np.random.Generator) -> Arrays:
    x, y = g.random((12, 2)), g.random((12, 2)) + 3
    return (((x[:, None] - y) ** 2).sum(-1),)


def _digits(g: np.random.Generator) -> Arrays:
    """Images matched with others."""
    images = np.asarray(real_data("digits")["images"], dtype=float)[:45].reshape(45, -1) / 16
    return (((images[:20, None] - images[20:]) ** 2).sum(-1),)


# Few shapes, because some libraries compile every operation anew for each.
declare(
    linear_assignment,
    residuals=_result_residuals,
    flops=_flops,
    outputs=(VALUE,),
    cases=[
        Case("square", _normal(12, 12), forward=FORWARD),
        Case("wide", _normal(8, 15), forward=FORWARD),
        Case("tall", _normal(15, 8), forward=FORWARD),
        Case("dearest", _normal(15, 8), {"maximize": True}, forward=FORWARD),
        Case("batch", _normal(3, 10, 10), forward=FORWARD),
        Case("one row", _normal(1, 6), forward=FORWARD),
        Case("one entry", _normal(1, 1), forward=FORWARD),
        Case("ties", _ties, forward=FORWARD),
        Case("forbidden pairs", partial(_forbidden, 0.7), forward=FORWARD),
        Case("no pairing", _impossible),
        Case("far clouds", _far_clouds, forward=FORWARD),
        Case("digits", _digits, real=True, forward=FORWARD),
        Case("60 rows", _normal(60, 60)),
    ],
)

declare(
    assignment,
    residuals=_op_residuals,
    flops=_flops,
    cases=[Case(layout, _normal(2, 5, 8), layout=layout) for layout in LAYOUTS],
)
