"""Examples of ridge regression; judged by the normal equations in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..ridge import ridge_curve, ridge_path, ridge_solution, ridge_solve

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
FORWARD = 1000.0


def _columns(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    return b[..., None] if b.ndim == a.ndim - 1 else b


def _h(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2).conj()


def _optimality(a: np.ndarray, b: np.ndarray, w: np.ndarray, x: np.ndarray) -> float:
    """What is left of the normal equations, in units of what rounding the solution and the data leaves."""
    root = np.sqrt(w)[..., :, None]
    left = (_h(a) @ (b - a @ x) - w[..., :, None] * x) / np.maximum(root, 1e-300)
    # Of the stacked problem [A; R] x = [b; 0]: columns divided by the weights.
    size = np.linalg.norm(a / root.swapaxes(-1, -2), axis=(-2, -1)) + np.sqrt(w.shape[-1])
    scale = np.linalg.norm(root * x, axis=(-2, -1)) * size + np.linalg.norm(b, axis=(-2, -1))
    worst = np.linalg.norm(left, axis=(-2, -1)) / (size * np.maximum(scale, 1e-300))
    return float(worst.max())


def _solution_residuals(
    arrays: Arrays, x: Any, options: Options, eps: float
) -> dict[str, Residual]:
    a, b, w = arrays
    value = _optimality(a, _columns(b, a), w, _columns(x, a) if b.ndim < a.ndim else x)
    return {"normal equations": Residual(value / eps, 3.0)}


def _path_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Every solution by its equations; the scores by the matrix that takes ``b`` to its fit."""
    a, b, weights = arrays
    x, gcv, loo, dof = out
    n = a.shape[-2]
    b = _columns(b, a)
    worst = {"normal equations": 0.0, "scores": 0.0}
    for i, w in enumerate(weights):
        one = x[..., i, :, None] if x.ndim == a.ndim else x[..., i, :, :]
        worst["normal equations"] = max(
            worst["normal equations"], _optimality(a, b, np.full(a.shape[-1], w), one)
        )
        # I - H, without a difference.
        free = w * np.linalg.inv(a @ _h(a) + w * np.eye(n))
        r, h = free @ b, np.real(np.diagonal(free, axis1=-2, axis2=-1))
        rest = h.sum(-1)
        exact = (
            n * np.sum(np.abs(r) ** 2, -2) / rest[..., None] ** 2,
            np.mean(np.abs(r / h[..., None]) ** 2, -2),
        )
        for found, known in zip((gcv, loo), exact, strict=True):
            score = found[..., i, None] if x.ndim == a.ndim else found[..., i, :]
            worst["scores"] = max(worst["scores"], float(np.max(np.abs(score / known - 1))))
        worst["scores"] = max(worst["scores"], float(np.max(np.abs(dof[..., i] / (n - rest) - 1))))
    return {
        "normal equations": Residual(worst["normal equations"] / eps, 3.0),
        "scores": Residual(worst["scores"] / eps, 100.0),
    }


def _system(
    n: int, d: int, k: int = 0, batch: tuple[int, ...] = (), *, spread: float = 3.0
) -> Callable[[np.random.Generator], Arrays]:
    """Weights over so many powers of ten; k right-hand sides, or a single one."""

    def make(g: np.random.Generator) -> Arrays:
        a = g.standard_normal((*batch, n, d))
        b = g.standard_normal((*batch, n, k) if k else (*batch, n))
        return a, b, 10 ** (spread * (g.random((*batch, d)) - 0.5))

    return make


def _complex(g: np.random.Generator) -> Arrays:
    a = g.standard_normal((20, 7)) + 1j * g.standard_normal((20, 7))
    b = g.standard_normal((20, 2)) + 1j * g.standard_normal((20, 2))
    return a, b, g.random(7) + 0.1


def _path(n: int, d: int, k: int = 0) -> Callable[[np.random.Generator], Arrays]:
    def make(g: np.random.Generator) -> Arrays:
        a, b, _ = _system(n, d, k)(g)
        return a, b, np.asarray([0.1, 1.0, 30.0])

    return make


def _stack(g: np.random.Generator) -> Arrays:
    """Three systems, each with two right-hand sides."""
    shape = (3, 12)
    return g.standard_normal((*shape, 4)), g.standard_normal((*shape, 2)), np.asarray([0.1, 3.0])


def _pixels(g: np.random.Generator) -> Arrays:
    """The middle of an image of a digit from its border."""
    images = np.asarray(real_data("digits")["images"], dtype=np.float64)[:90] / 16
    images = images.reshape(len(images), -1)
    return images[:, :27], images[:, 36], np.full(27, 0.5)


def _flops(arrays: Arrays, options: Options) -> float:
    n, d = arrays[0].shape[-2:]
    return float(2 * arrays[0][..., 0, 0].size * (n + d) * min(n, d) ** 2)


declare(
    ridge_solve,
    residuals=_solution_residuals,
    flops=_flops,
    cases=[
        Case("tall", _system(40, 12), forward=FORWARD),
        Case("wide", _system(9, 30, 2), forward=FORWARD),
        Case("weights over ten decades", _system(30, 30, spread=10.0)),
        Case("complex", _complex, forward=FORWARD),
        Case("batch", _system(15, 6, 3, (2, 3)), forward=FORWARD),
        Case("strided", _system(21, 8), layout="strided"),
        Case("pixels of digits", _pixels, real=True),
    ],
)

declare(
    ridge_solution,
    residuals=_solution_residuals,
    flops=_flops,
    cases=[
        Case("tall", _system(40, 12, 2), forward=FORWARD),
        Case("wide, strided", _system(9, 30, 2), layout="strided"),
    ],
)

declare(
    ridge_path,
    residuals=_path_residuals,
    flops=lambda arrays, options: 3 * _flops(arrays, options),
    outputs=(0, 1, 2, 3),
    cases=[
        Case("tall", _path(30, 8), forward=FORWARD),
        Case("wide, two sides", _path(12, 20, 2), forward=FORWARD),
    ],
)

declare(
    ridge_curve,
    residuals=_path_residuals,
    flops=lambda arrays, options: 3 * _flops(arrays, options),
    outputs=(0, 1, 2, 3),
    cases=[
        Case("tall", _path(30, 8, 2), forward=FORWARD),
        Case("strided", _path(30, 8, 2), layout="strided"),
        Case("batch", _stack),
    ],
)
