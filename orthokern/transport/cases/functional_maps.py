"""Examples of functional maps and maps of points; judged by the equations that define them, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..functional_maps import (
    fmap_losses,
    fmap_to_pointmap,
    functional_map,
    pointmap_to_fmap,
    zoomout,
)
from ..rows import nearest_rows, regularized_rows

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
FORWARD = 1000.0
TINY = float(np.finfo(float).tiny)


def _t(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2)


def _largest(error: np.ndarray, scale: np.ndarray) -> float:
    return float((np.abs(error) / np.maximum(scale, TINY)).max(initial=0.0))


def mask(evals_x: np.ndarray, evals_y: np.ndarray, options: Options) -> np.ndarray:
    """``D`` by complex numbers."""
    if options.get("mask") == "laplacian":
        gap: np.ndarray = evals_y[..., :, None] - evals_x[..., None, :]
        squared: np.ndarray = gap * gap
        return squared
    top = np.maximum(evals_x.max(-1), evals_y.max(-1))[..., None]
    power = options.get("resolvent_power", 0.5)
    z_x, z_y = (1 / ((e / top) ** power - 1j) for e in (evals_x, evals_y))
    distance: np.ndarray = np.abs(z_y[..., :, None] - z_x[..., None, :]) ** 2
    return distance


def _map_residuals(arrays: Arrays, c: Any, options: Options, eps: float) -> dict[str, Residual]:
    """How far the energy lies above its minimum, and the gradient that is left, each in its own scale."""
    a, b, evals_x, evals_y = arrays
    penalty = options.get("weight", 100.0) * mask(evals_x, evals_y, options)
    left = (c @ a - b) @ _t(a) + penalty * c
    g = a @ _t(a)
    scale = np.abs(c) @ np.abs(g) + penalty * np.abs(c) + np.abs(b @ _t(a))
    system = g[..., None, :, :] + penalty[..., None] * np.eye(a.shape[-2])
    # The energy is its minimum and the square of the distance to the minimizer.
    off = np.linalg.solve(system, left[..., None])[..., 0]
    energy = np.sum((c @ a - b) ** 2, (-2, -1)) + np.sum(penalty * c**2, (-2, -1))
    above = _largest(np.sum(off * left, (-2, -1)), energy + np.sum(b**2, (-2, -1)))
    return {
        "energy above the minimum": Residual(above / eps, 50.0),
        "gradient": Residual(_largest(left, scale.max((-2, -1), keepdims=True)) / eps, 50.0),
    }


def _rows_residuals(arrays: Arrays, c: Any, options: Options, eps: float) -> dict[str, Residual]:
    g, penalty, r = arrays
    left = c @ g + penalty * c - r
    scale = np.abs(c) @ np.abs(g) + penalty * np.abs(c) + np.abs(r)
    return {"equation": Residual(_largest(left, scale.max((-2, -1), keepdims=True)) / eps, 50.0)}


def _losses_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    u, v, lx, ly = arrays
    eye_x, eye_y = np.eye(u.shape[-1]), np.eye(u.shape[-2])
    parts = [
        [u @ v - eye_y, v @ u - eye_x],
        [_t(u) @ u - eye_x, _t(v) @ v - eye_y],
        [u * lx[..., None, :] - ly[..., :, None] * u, v * ly[..., None, :] - lx[..., :, None] * v],
    ]
    exact = [np.sum(one**2, (-2, -1)) + np.sum(two**2, (-2, -1)) for one, two in parts]
    names = ("bijectivity", "orthogonality", "laplacian")
    found = zip(names, out, exact, strict=False)
    return {name: Residual(_largest(w - value, value) / eps, 100.0) for name, w, value in found}


def _excess(points: np.ndarray, queries: np.ndarray, index: Any, eps: float) -> dict[str, Residual]:
    """How much farther than the nearest the chosen points lie, squared, in units of the largest squares."""
    squares = np.sum((queries[..., :, None, :] - points[..., None, :, :]) ** 2, axis=-1)
    chosen = np.take_along_axis(squares, np.asarray(index).astype(int)[..., None], axis=-1)[..., 0]
    scale = np.sum(points**2, -1).max() + np.sum(queries**2, -1).max()
    return {
        "farther than the nearest": Residual(_largest(chosen - squares.min(-1), scale) / eps, 10.0)
    }


def _nearest_residuals(arrays: Arrays, p: Any, options: Options, eps: float) -> dict[str, Residual]:
    points, queries = arrays
    return _excess(points, queries, p, eps)


def _pointmap_residuals(
    arrays: Arrays, p: Any, options: Options, eps: float
) -> dict[str, Residual]:
    c, x, y = arrays
    x, y = x[..., : c.shape[-1]], y[..., : c.shape[-2]]
    return _excess(x, y @ c, p, eps) if options.get("adjoint") else _excess(x @ _t(c), y, p, eps)


def _as_map(p: np.ndarray, x: np.ndarray, y: np.ndarray, mass: Any = None) -> np.ndarray:
    rows = np.take_along_axis(x, p.astype(int)[..., None], axis=-2)
    weighted = y if mass is None else y * mass[..., None]
    product: np.ndarray = _t(weighted) @ rows
    return product


def _fmap_residuals(arrays: Arrays, c: Any, options: Options, eps: float) -> dict[str, Residual]:
    p, *rest = arrays
    exact = _as_map(p, *rest)
    rest[:2] = [np.abs(part) for part in rest[:2]]
    return {"distance": Residual(_largest(c - exact, _as_map(p, *rest)) / eps, 30.0)}


def _zoomout_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """Y is a copy of X with its vertices in another order, which is to be found."""
    _, x, y, *mass = arrays
    c, p = out
    exact = np.argmin(np.sum((y[:, None, :] - x[None, :, :]) ** 2, axis=-1), axis=-1)
    k = c.shape[-1]
    error = _largest(c - _as_map(exact, x[:, :k], y[:, :k], *mass), np.asarray(1.0))
    return {
        "wrong vertices": Residual(float(np.count_nonzero(p != exact)), 0.0),
        "map": Residual(error / eps, 100.0),
    }


def _problem(
    k_x: int, k_y: int, d: int, batch: tuple[int, ...] = ()
) -> Callable[[np.random.Generator], Arrays]:
    """Descriptors that a map close to the identity explains, and spectra that grow as those of surfaces do."""

    def make(g: np.random.Generator) -> Arrays:
        a = g.standard_normal((*batch, k_x, d)) / (1 + np.arange(k_x)[:, None]) ** 0.5
        c = np.eye(k_y, k_x) + 0.1 * g.standard_normal((*batch, k_y, k_x))
        evals = [(np.arange(k) + 0.3 * g.random((*batch, k))) * 12.0 for k in (k_x, k_y)]
        return a, c @ a + 0.05 * g.standard_normal((*batch, k_y, d)), *evals

    return make


def _systems(
    m: int, k: int, batch: tuple[int, ...] = ()
) -> Callable[[np.random.Generator], Arrays]:
    def make(g: np.random.Generator) -> Arrays:
        a = g.standard_normal((*batch, k, 2 * k))
        return a @ _t(a) / k, g.random((*batch, m, k)) * 5, g.standard_normal((*batch, m, k))

    return make


def _two_maps(
    k_x: int, k_y: int, batch: tuple[int, ...] = ()
) -> Callable[[np.random.Generator], Arrays]:
    def make(g: np.random.Generator) -> Arrays:
        maps = [g.standard_normal((*batch, *size)) for size in ((k_y, k_x), (k_x, k_y))]
        return (*maps, np.sort(g.random(k_x)) * 9, np.sort(g.random(k_y)) * 9)

    return make


def _bases(
    k: tuple[int, int], columns: int, vertices: tuple[int, int], batch: tuple[int, ...] = ()
) -> Callable[[np.random.Generator], Arrays]:
    """A map (k_y, k_x) and two bases of so many columns."""

    def make(g: np.random.Generator) -> Arrays:
        bases = [g.standard_normal((*batch, v, columns)) for v in vertices]
        return (g.standard_normal((*batch, *k)), *bases)

    return make


def _vertex_map(
    v_x: int, v_y: int, batch: tuple[int, ...] = ()
) -> Callable[[np.random.Generator], Arrays]:
    def make(g: np.random.Generator) -> Arrays:
        p = g.integers(0, v_x, (*batch, v_y))
        bases = g.standard_normal((*batch, v_x, 7)), g.standard_normal((*batch, v_y, 5))
        return (p, *bases, g.random((*batch, v_y)))

    return make


def _reordered(g: np.random.Generator) -> Arrays:
    """A rough start, a basis, and the same with its rows in another order."""
    x = np.linalg.qr(g.standard_normal((60, 15)))[0]
    return np.eye(5) + 0.05 * g.standard_normal((5, 5)), x, x[g.permutation(60)], np.ones(60)


def _digits(g: np.random.Generator) -> Arrays:
    """Pixels of images of two digits as two shapes: their principal components, and shared pixel functions."""
    data = real_data("digits")
    images, labels = np.asarray(data["images"], dtype=np.float64) / 16, np.asarray(data["labels"])
    parts = [np.linalg.svd(images[labels == digit].T, full_matrices=False) for digit in (3, 8)]
    shared = images[labels == 9][:40].T
    a, b = (u[:, :30].T @ shared for u, _, _ in parts)
    return a, b, *(s[:30] ** -2 for _, s, _ in parts)


def _distances(arrays: Arrays, options: Options) -> float:
    _, x, y = arrays[-3:]
    return float(2.0 * x[..., 0].size * y.shape[-2] * min(x.shape[-1], y.shape[-1]))


declare(
    functional_map,
    residuals=_map_residuals,
    flops=lambda arrays, options: float(arrays[1][..., 0].size * arrays[0].shape[-2] ** 3 / 3),
    cases=[
        Case("square", _problem(30, 30, 50), forward=FORWARD),
        Case("odd", _problem(21, 14, 30), {"weight": 3.0}, forward=FORWARD),
        Case("few descriptors", _problem(24, 24, 5), {"resolvent_power": 1.0}),
        Case(
            "laplacian",
            _problem(16, 19, 20),
            {"mask": "laplacian", "weight": 0.01},
            forward=FORWARD,
        ),
        Case("batch", _problem(11, 13, 20, (2, 3))),
        Case("K = 100", _problem(100, 100, 120), bench=True),
        Case("components of digits", _digits, real=True),
    ],
)

declare(
    regularized_rows,
    residuals=_rows_residuals,
    flops=lambda arrays, options: float(arrays[2][..., 0].size * arrays[0].shape[-1] ** 3 / 3),
    cases=[
        Case("tall", _systems(9, 6), forward=FORWARD),
        Case("odd, batch", _systems(4, 7, (3,)), forward=FORWARD),
        Case("strided", _systems(5, 8), layout="strided"),
        Case("transposed", _systems(5, 8, (2,)), layout="transposed"),
    ],
)

declare(
    fmap_losses,
    residuals=_losses_residuals,
    flops=lambda arrays, options: float(8 * arrays[0].size * max(arrays[0].shape[-2:])),
    outputs=(0, 1, 2),
    cases=[
        Case("square", _two_maps(20, 20), forward=FORWARD),
        Case("batch", _two_maps(8, 11, (2, 3)), forward=FORWARD),
    ],
)

declare(
    fmap_to_pointmap,
    residuals=_pointmap_residuals,
    flops=_distances,
    cases=[
        Case("equal sizes", _bases((10, 10), 10, (90, 80))),
        Case("leading columns", _bases((9, 12), 14, (70, 50))),
        Case("adjoint", _bases((9, 12), 14, (70, 50)), {"adjoint": True}),
        Case("batch", _bases((5, 7), 7, (40, 30), (2, 3))),
    ],
)

declare(
    nearest_rows,
    residuals=_nearest_residuals,
    flops=lambda arrays, options: 2.0 * arrays[0].size * arrays[1].shape[-2],
    cases=[
        Case("tall", lambda g: (g.standard_normal((50, 6)), g.standard_normal((41, 6)))),
        Case(
            "odd, batch", lambda g: (g.standard_normal((3, 20, 5)), g.standard_normal((3, 30, 5)))
        ),
        Case(
            "strided",
            lambda g: (g.standard_normal((50, 6)), g.standard_normal((41, 6))),
            layout="strided",
        ),
    ],
)

declare(
    pointmap_to_fmap,
    residuals=_fmap_residuals,
    flops=lambda arrays, options: 2.0 * arrays[2].size * arrays[1].shape[-1],
    cases=[
        Case("masses", _vertex_map(40, 60)),
        Case("batch", _vertex_map(20, 30, (2, 2))),
        Case("strided", _vertex_map(20, 30), layout="strided"),
    ],
)

declare(
    zoomout,
    residuals=_zoomout_residuals,
    flops=lambda arrays, options: 2.0 * 10 * 60 * 60 * 10,
    cases=[
        Case("reordered", _reordered),
        Case("by threes", _reordered, {"step": 3, "k_final": 12}),
        Case("closest points", _reordered, {"k_final": 5, "repeats": 9, "orthogonal": True}),
    ],
)
