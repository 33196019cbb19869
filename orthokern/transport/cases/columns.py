"""Examples of the column functions, of transforms and rounding; how each is judged.

Every judge tests the conditions that define the result, or finds it anew by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..certificate import c_transform, round_to_marginals
from ..columns import (
    ksupport_norm_squared,
    ksupport_prox,
    project_simplex,
    project_sparse_simplex,
    prox_ksupport,
    simplex_projection,
)

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
Make = Callable[[np.random.Generator], Arrays]
FORWARD = 30.0
TINY = float(np.finfo(float).tiny)
LAYOUTS = ("transposed", "strided", "reversed", "read-only")
BISECTIONS = 64


def _last(x: np.ndarray, options: Options) -> np.ndarray:
    return np.moveaxis(x, options.get("axis", -1), -1)


def _weight(arrays: Arrays, default: float, rank: int) -> np.ndarray:
    """The second argument as an array (..., 1): one for each vector, or that of an op, which has the axis already."""
    given = arrays[1] if len(arrays) > 1 else np.asarray(default)
    return given if given.ndim == rank else given[..., None]


def _limit(n: int, options: Options) -> int:
    return min(options.get("k") or n, n)


def _largest(v: np.ndarray, k: int) -> np.ndarray:
    """Mask of the k largest, the first of equal ones."""
    order = np.argsort(-v, axis=-1, kind="stable")
    return np.argsort(order, axis=-1, kind="stable") < k


def _worst(figure: np.ndarray) -> float:
    return float(np.max(figure, initial=0.0))


def _simplex_residuals(arrays: Arrays, y: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Sum, signs, and one threshold: what is taken off every entry of the support, and exceeded by no other."""
    v, y = _last(arrays[0], options), _last(y, options)
    z = _weight(arrays, 1.0, v.ndim)
    inside = _largest(v, _limit(v.shape[-1], options))
    u = np.where(inside, v - v.max(axis=-1, keepdims=True), -np.inf)
    scale = np.maximum(z, TINY)
    taken = np.where(y > 0, u - y, np.nan)
    rows = np.any(y > 0, axis=-1, keepdims=True)
    low, high = (
        np.where(rows, f(np.where(y > 0, taken, fill), axis=-1, keepdims=True), 0.0)
        for f, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    missed = np.where((y > 0) | ~rows, -np.inf, u - low)
    limit = 4.0 + v.shape[-1] ** 0.5
    return {
        "sum": Residual(_worst(np.abs(y.sum(-1, keepdims=True) - z) / scale) / eps, limit),
        "threshold": Residual(_worst((high - low) / scale) / eps, limit),
        "left out": Residual(_worst(missed / scale) / eps, limit),
        "outside": Residual(float(np.count_nonzero(np.where(inside, y < 0, y != 0))), 0.0),
    }


def _shares(p: np.ndarray, w: np.ndarray, lam: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.clip(p / w - lam, 0, 1).sum(-1, keepdims=True)
    return total


def _prox(v: np.ndarray, lam: np.ndarray, k: int) -> np.ndarray:
    """By bisection for the level of each row."""
    p = np.maximum(v, 0)
    ordered = np.sort(p, axis=-1)[..., ::-1]
    if k >= v.shape[-1]:
        return np.asarray(p / (1 + lam))
    few = ordered[..., k : k + 1] == 0
    low = np.where(few, 1, ordered[..., k - 1 : k] / (1 + lam) / 2)
    high = np.where(few, 1, ordered[..., k - 1 :].sum(-1, keepdims=True) * 2)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        above = _shares(p, middle, lam) > k
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    w = np.where(few, 0, high)
    t: np.ndarray = np.minimum(np.maximum(p - lam * w, 0), p / (1 + lam))
    return t


def _prox_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    v = _last(arrays[0], options)
    t = _last(out[0] if isinstance(out, tuple) else out, options)
    lam = _weight(arrays, 0.0, v.ndim)
    error = np.abs(t - _prox(v, lam, _limit(v.shape[-1], options)))
    scale = np.maximum(np.max(v, axis=-1, keepdims=True, initial=0.0), TINY)
    return {
        "distance to bisection": Residual(_worst(error / scale) / eps, 8.0),
        "negative": Residual(float(np.count_nonzero(t < 0)), 0.0),
    }


def norm_squared(t: np.ndarray, k: int) -> float:
    """The definition for one vector: the split at which the head exceeds the mean of the tail."""
    a = np.sort(np.abs(t))[::-1].astype(np.longdouble)
    for h in range(k):
        mean = a[h:].sum() / (k - h)
        if (h == 0 or a[h - 1] > mean) and mean >= a[h]:
            return float((a[:h] ** 2).sum() + mean * a[h:].sum())
    return float((a**2).sum())


def _norm_residuals(
    arrays: Arrays, value: Any, options: Options, eps: float
) -> dict[str, Residual]:
    t = _last(arrays[0], options)
    k = _limit(t.shape[-1], options)
    exact = np.reshape([norm_squared(row, k) for row in t.reshape(-1, t.shape[-1])], t.shape[:-1])
    error = np.abs(value - exact) / np.maximum(exact, TINY)
    return {"definition": Residual(_worst(error) / eps, 4.0 + t.shape[-1] ** 0.5)}


def _transform_residuals(
    arrays: Arrays, found: Any, options: Options, eps: float
) -> dict[str, Residual]:
    potential, cost = arrays
    axis = options.get("axis", -1)
    exact = np.min(cost - np.expand_dims(potential, -1 if axis == -2 else -2), axis=axis)
    scale = np.max(np.abs(cost[np.isfinite(cost)])) + np.max(np.abs(potential))
    return {"minimum": Residual(_worst(np.abs(found - exact)) / float(scale) / eps, 2.0)}


def _rounding_residuals(
    arrays: Arrays, found: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """Marginals, signs, and how much farther than the bound the plan has moved."""
    plan, a, b = arrays
    mass = np.maximum(a.sum(-1), TINY)
    b = b * (mass / b.sum(-1))[..., None]

    def missed(t: np.ndarray) -> np.ndarray:
        rows, columns = t.sum(-1) - a, t.sum(-2) - b
        return np.asarray(np.abs(rows).sum(-1) + np.abs(columns).sum(-1))

    moved = np.abs(found - plan).sum((-2, -1)) - 2 * missed(plan)
    limit = 4.0 + max(plan.shape[-2:]) ** 0.5
    return {
        "marginals": Residual(_worst(missed(found) / mass) / eps, limit),
        "too far": Residual(_worst(moved / mass) / eps, limit),
        "negative": Residual(float(np.count_nonzero(found < 0)), 0.0),
    }


def _passes(count: float) -> Callable[[Arrays, Options], float]:
    """So many operations for each entry of the largest argument."""
    return lambda arrays, options: count * max(a.size for a in arrays)


def _normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Make:
    return lambda g: (g.standard_normal(shape) * scale + shift,)


def _forbidden(g: np.random.Generator) -> Arrays:
    v = g.standard_normal((6, 20))
    v[g.random(v.shape) < 0.4] = -np.inf
    v[:, 3] = 0.1
    return (v,)


def _graded(g: np.random.Generator) -> Arrays:
    """Scales from 1e-12 to 1e12 in one batch, each with the weight of its own."""
    scales = 10.0 ** np.arange(-12, 13, 4.0)
    return g.standard_normal((7, 30)) * scales[:, None], scales


def _repeated(g: np.random.Generator) -> Arrays:
    return (np.round(2 * g.standard_normal((4, 5, 12))) / 4,)


def _weighted(make: Make, *weights: float) -> Make:
    """One weight for each vector, over and over, beside the array."""

    def arrays(g: np.random.Generator) -> Arrays:
        (v,) = make(g)
        return v, np.resize(np.array(weights), v.shape[:-1])

    return arrays


def _digits(g: np.random.Generator) -> Arrays:
    return (np.asarray(real_data("digits")["images"], dtype=float)[:200] / 4,)


def _op_case(*weights: float) -> Make:
    """An array and the weights of its vectors as the ops take them."""

    def arrays(g: np.random.Generator) -> Arrays:
        return g.standard_normal((5, 4, 13)), np.resize(np.array(weights), (5, 4, 1))

    return arrays


def _problem(
    g: np.random.Generator, m: int = 9, n: int = 13, batch: tuple[int, ...] = ()
) -> Arrays:
    """A plan whose marginals are off by a tenth."""
    t = g.random((*batch, m, n)) * (g.random((*batch, m, n)) < 0.5)
    t = t / t.sum((-2, -1), keepdims=True)
    a, b = (t.sum(axis) * g.uniform(0.9, 1.1, t.sum(axis).shape) for axis in (-1, -2))
    return t, a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)


def _colours() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two histograms of colours, and the squared distances of the colours."""
    data = {key: np.asarray(x, dtype=float) for key, x in real_data("histograms").items()}
    colours = data["colours"]
    cost = ((colours[:, None] - colours) ** 2).sum(-1)
    return data["source"] / data["source"].sum(), data["target"] / data["target"].sum(), cost


def _colour_costs(g: np.random.Generator) -> Arrays:
    _, target, cost = _colours()
    return target, cost / cost.max()


def _colour_plan(g: np.random.Generator) -> Arrays:
    """What an entropic solver starts from: far from feasible."""
    source, target, cost = _colours()
    plan = np.exp(-50 * cost / cost.max())
    return plan / plan.sum(), source, target


def _transform(
    shape: tuple[int, ...], size: int, forbidden: float, g: np.random.Generator
) -> Arrays:
    cost = g.random(shape)
    cost[g.random(shape) < forbidden] = np.inf
    return g.standard_normal((*shape[:-2], size)), cost


declare(
    project_simplex,
    residuals=_simplex_residuals,
    flops=_passes(12.0),
    cases=[
        Case("vector", _normal(17), forward=FORWARD),
        Case("one entry", _normal(3, 1), forward=FORWARD),
        Case("batch", _normal(3, 4, 10), forward=FORWARD),
        Case("first axis", _normal(12, 5), {"axis": 0}, forward=FORWARD),
        Case("common shift", _normal(8, 40, shift=4096.0)),
        Case("sums", _weighted(_normal(6, 30), 0.0, 1e-3, 1.0, 50.0), forward=FORWARD),
        Case("scales", _graded),
        Case("equal entries", _repeated, forward=FORWARD),
        Case("forbidden entries", _forbidden, forward=FORWARD),
        Case("wide support", _normal(2, 3000, scale=1e-4)),
        Case("digits", _digits, real=True),
        Case("rows of 400", _normal(400, 400), bench=True),
        Case("long row", _normal(1, 20_000, scale=0.01)),
    ],
)

declare(
    project_sparse_simplex,
    residuals=_simplex_residuals,
    flops=_passes(15.0),
    cases=[
        Case("vector", _normal(17), {"k": 4}, forward=FORWARD),
        Case("one", _normal(3, 9), {"k": 1}, forward=FORWARD),
        Case("more than there are", _normal(3, 9), {"k": 12}, forward=FORWARD),
        Case("equal entries", _repeated, {"k": 2}, forward=FORWARD),
        Case("sums", _weighted(_normal(6, 30), 0.0, 5.0, 50.0), {"k": 7}, forward=FORWARD),
        Case("digits", _digits, {"k": 3}, real=True),
        Case("rows of 400", _weighted(_normal(400, 400), 100.0), {"k": 16}, bench=True),
    ],
)

declare(
    ksupport_norm_squared,
    residuals=_norm_residuals,
    flops=_passes(8.0),
    cases=[
        Case("vector", _normal(17), {"k": 4}, forward=FORWARD),
        Case("one", _normal(3, 9), {"k": 1}, forward=FORWARD),
        Case("Euclidean", _normal(3, 9), {"k": 9}, forward=FORWARD),
        Case("equal entries", _repeated, {"k": 5}, forward=FORWARD),
        Case("first axis", _normal(12, 5), {"axis": 0, "k": 6}, forward=FORWARD),
        Case("digits", _digits, {"k": 10}, real=True),
        Case("rows of 400", _normal(400, 400), {"k": 16}, bench=True),
    ],
)

declare(
    prox_ksupport,
    residuals=_prox_residuals,
    flops=_passes(50.0),
    cases=[
        Case("vector", _weighted(_normal(17), 0.5), {"k": 4}, forward=FORWARD),
        Case("weights", _weighted(_normal(5, 30), 0.0, 1e-3, 1.0, 20.0), {"k": 3}),
        Case("one", _weighted(_normal(3, 9), 1.0), {"k": 1}, forward=FORWARD),
        Case("Euclidean", _weighted(_normal(3, 9), 1.0), {"k": 9}, forward=FORWARD),
        Case("equal entries", _weighted(_repeated, 0.5, 2.0), {"k": 3}),
        Case("scales", _graded, {"k": 6}),
        Case("few positive", _weighted(_normal(6, 20, shift=-1.5), 0.5), {"k": 5}, forward=FORWARD),
        Case("digits", _weighted(_digits, 0.3), {"k": 10}, real=True),
        Case("rows of 400", _weighted(_normal(400, 400), 0.5), {"k": 16}, bench=True),
    ],
)

declare(
    c_transform,
    residuals=_transform_residuals,
    flops=_passes(2.0),
    cases=[
        Case("columns", partial(_transform, (7, 12), 12, 0.0), forward=FORWARD),
        Case("rows", partial(_transform, (7, 12), 7, 0.0), {"axis": -2}, forward=FORWARD),
        Case("batch", partial(_transform, (3, 6, 5), 5, 0.0), forward=FORWARD),
        Case("colours", _colour_costs, real=True),
        Case("forbidden pairs", partial(_transform, (9, 30), 30, 0.3)),
    ],
)

declare(
    round_to_marginals,
    residuals=_rounding_residuals,
    flops=_passes(6.0),
    cases=[
        Case("plan", _problem, forward=100.0),
        Case("batch", partial(_problem, batch=(4,)), forward=100.0),
        Case("few entries", partial(_problem, m=11, n=6), {"sparse": True}),
        Case("wide", partial(_problem, m=3, n=80)),
        Case("colours", _colour_plan, real=True),
    ],
)

# The ops see memory layouts that the kernels hand on as they are.
declare(
    simplex_projection,
    residuals=_simplex_residuals,
    flops=_passes(12.0),
    cases=[
        Case(f"{layout}, k = {k}", _op_case(0.5, 3.0, 20.0), {"k": k}, layout=layout)
        for layout in LAYOUTS
        for k in (13, 4)
    ],
)

declare(
    ksupport_prox,
    residuals=_prox_residuals,
    flops=_passes(50.0),
    cases=[
        Case(f"{layout}, k = {k}", _op_case(0.0, 0.5, 3.0), {"k": k}, layout=layout)
        for layout in LAYOUTS
        for k in (13, 4)
    ],
)
