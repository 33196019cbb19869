"""Examples of distances on the line and sliced; judged by walking through the sorted points one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..sliced import directions, sliced_wasserstein, wasserstein_1d

Arrays = tuple[np.ndarray, ...]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Options = Mapping[str, Any]
FORWARD = 300.0
TINY = float(np.finfo(float).tiny)


def walked(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: float) -> float:
    """:math:`W_p^p` of one pair: the mass of the lowest points left is moved first."""
    first, second = np.argsort(x), np.argsort(y)
    x, a, y, b = x[first], a[first].copy(), y[second], b[second] * (a.sum() / b.sum())
    i = j = 0
    total = 0.0
    while i < len(x) and j < len(y):
        mass = min(a[i], b[j])
        total += mass * abs(x[i] - y[j]) ** p
        a[i] -= mass
        b[j] -= mass
        i, j = (i + 1, j) if a[i] <= b[j] else (i, j + 1)
    return total


def cost(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: float) -> float:
    """The same; of many points in equal numbers by matching their order."""
    if len(x) == len(y) > 500 and np.ptp(a) == np.ptp(b) == 0:
        return float(np.mean(np.abs(np.sort(x) - np.sort(y)) ** p))
    return walked(x, y, a, b, p)


def _pairs(arrays: Arrays) -> list[Pair]:
    """Points and weights of each member."""
    x, y, *weights = arrays
    a, b = weights or (np.full(part.shape[-1], 1 / part.shape[-1]) for part in (x, y))
    batch = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    spread = [np.broadcast_to(part, (*batch, part.shape[-1])) for part in (x, y, a, b)]
    return [tuple(part[index] for part in spread) for index in np.ndindex(*batch)]  # type: ignore[misc]


def _line_residuals(arrays: Arrays, w: Any, options: Options, eps: float) -> dict[str, Residual]:
    p = options.get("p", 1.0)
    exact = np.array([walked(*pair, p) for pair in _pairs(arrays)])
    exact = exact ** (1 / p) if options.get("root", True) else exact
    reach = max(float(np.abs(part).max()) for part in arrays[:2])
    scale = np.maximum(exact, reach if options.get("root", True) else reach**p)
    return {"distance": Residual(float((np.abs(np.ravel(w) - exact) / scale).max()) / eps, 50.0)}


def _sliced_residuals(arrays: Arrays, w: Any, options: Options, eps: float) -> dict[str, Residual]:
    x, y = arrays
    p = options.get("p", 2.0)
    theta = directions(
        options.get("n_projections", 50), x.shape[-1], like=x, seed=options.get("seed", 0)
    )
    lines = [np.swapaxes(part @ theta.T, -1, -2) for part in (x, y)]
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    costs = np.reshape(
        [cost(*pair, p) for pair in _pairs((lines[0], lines[1]))], (*batch, len(theta))
    )
    shares = (
        np.exp(costs - costs.max(-1, keepdims=True))
        if options.get("reduce") == "energy"
        else 1 + 0 * costs
    )
    exact = (np.sum(shares * costs, -1) / np.sum(shares, -1)) ** (1 / p)
    error = np.abs(w - exact) / np.maximum(exact, TINY)
    return {"distance": Residual(float(error.max()) / eps, 100.0)}


def _sorts(arrays: Arrays, options: Options) -> float:
    return float(sum(part.size * np.log2(part.shape[-1] + 1) for part in arrays))


def _projections(arrays: Arrays, options: Options) -> float:
    count = options.get("n_projections", 50)
    return float(
        sum(count * part.size * (2 + np.log2(part.shape[-2]) / part.shape[-1]) for part in arrays)
    )


def _points(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: tuple(i + g.standard_normal(shape) for i, shape in enumerate(shapes))


def _weighted(g: np.random.Generator, n: int, m: int, batch: tuple[int, ...] = ()) -> Arrays:
    """Points with random weights of mass 1, some of them zero."""
    parts = []
    for size in (n, m):
        weights = g.random((*batch, size)) * (g.random((*batch, size)) > 0.2) + 1e-3
        parts.append(weights / weights.sum(-1, keepdims=True))
    return (g.standard_normal((*batch, n)), 1 + g.standard_normal((*batch, m)), *parts)


def _brightness(g: np.random.Generator) -> Arrays:
    """Pixels of two photographs by the grey level of their colour."""
    data = real_data("histograms")
    grey = np.asarray(data["colours"], dtype=np.float64) @ np.array([0.3, 0.6, 0.1])
    weights = (np.asarray(data[name], dtype=np.float64) for name in ("source", "target"))
    first, second = (part / part.sum() for part in weights)
    return grey, grey.copy(), first, second


def _digits(g: np.random.Generator) -> Arrays:
    """Images of two digits."""
    data = real_data("digits")
    images, labels = np.asarray(data["images"], dtype=np.float64) / 16, np.asarray(data["labels"])
    return images[labels == 3], images[labels == 8]


declare(
    wasserstein_1d,
    residuals=_line_residuals,
    flops=_sorts,
    cases=[
        Case("equal sizes", _points((40,), (40,)), forward=FORWARD),
        Case("unequal sizes", _points((12,), (31,)), {"p": 2.0}, forward=FORWARD),
        Case("batch", _points((4, 1, 9), (3, 6)), {"p": 1.5}, forward=FORWARD),
        Case("weights", lambda g: _weighted(g, 15, 22), {"p": 2.0}, forward=FORWARD),
        Case("batch of weights", lambda g: _weighted(g, 15, 9, (2, 3)), {"p": 3.0, "root": False}),
        Case("strided", lambda g: _weighted(g, 15, 9, (4,)), layout="strided"),
        Case("brightness of photographs", _brightness, real=True),
    ],
)

declare(
    sliced_wasserstein,
    residuals=_sliced_residuals,
    flops=_projections,
    cases=[
        Case("equal sizes", _points((60, 3), (60, 3)), forward=FORWARD),
        Case("unequal sizes", _points((24, 5), (36, 5)), {"p": 1.0, "seed": 3}, forward=FORWARD),
        Case("batch", _points((2, 1, 20, 4), (3, 17, 4)), {"n_projections": 21}),
        Case("energy", _points((40, 3), (40, 3)), {"reduce": "energy", "n_projections": 30}),
        Case("transposed", _points((33, 6), (33, 6)), {"p": 3.0}, layout="transposed"),
        Case("gaussian", _points((2000, 64), (2000, 64)), {"n_projections": 100}, bench=True),
        Case("digits", _digits, real=True),
    ],
)
