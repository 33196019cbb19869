"""Examples of the polar factorization, and how its results are judged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare
from ..factor import hermitian_factor, polar_factors, unitary_factor
from ..polar import newton_schulz, orthogonalize, polar
from .matrices import (
    GRADIENTS,
    Arrays,
    adjoint,
    batch,
    graded,
    matrix,
    norm,
    shipped,
    with_spectrum,
)

# Distance to the reference that the conditioning of the "well-conditioned" cases (kappa <= 10) explains.
FORWARD = 500.0
UNITARY = {"completion": "unitary"}


def _orthogonality(u: np.ndarray, eps: float) -> Residual:
    u = adjoint(u) if u.shape[-2] < u.shape[-1] else u
    n = u.shape[-1]
    limit = 5 * n if n <= 32 else 10 * n**0.5
    worst = norm(adjoint(u) @ u - np.eye(n)).max(initial=0.0)
    return Residual(float(worst) / eps, float(max(limit, 5.0)))


def _backward(x: np.ndarray, u: np.ndarray, h: np.ndarray, side: str, eps: float) -> Residual:
    scale = np.abs(x).max(axis=(-2, -1), keepdims=True, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    product = u @ (h / scale) if side == "right" else (h / scale) @ u
    size = np.maximum(norm(x / scale), np.finfo(float).tiny)
    worst = (norm(x / scale - product) / size).max(initial=0.0)
    return Residual(float(worst) / eps, max(60.0, 20 * min(x.shape[-2:]) ** 0.5))


def _hermitian(h: np.ndarray, eps: float) -> dict[str, Residual]:
    if not h.size:
        return {}
    skew = float(np.abs(h - adjoint(h)).max())
    values = np.linalg.eigvalsh(h)
    top = np.maximum(np.abs(values).max(axis=-1), np.finfo(float).tiny)
    return {
        "h hermitian": Residual(skew / eps, 0.0),
        "h positive": Residual(float((-values[..., 0] / top).max()) / eps, 10.0 * h.shape[-1]),
    }


def _polar_residuals(
    arrays: Arrays, out: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    (x,), (u, h) = arrays, out[:2]
    side = options.get("side", "right")
    tolerance = options.get("tol")
    found = {"orthogonality": _orthogonality(u, eps)}
    if tolerance is not None:
        count = min(x.shape[-2:])
        return {
            "orthogonality": found["orthogonality"]._replace(limit=3 * tolerance * count**0.5 / eps)
        }
    if h.size:
        found["backward"] = _backward(x, u, h, side, eps)
    return found | _hermitian(h, eps)


def _factor_residuals(
    arrays: Arrays, out: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    (x,), u = arrays, out[0]
    h = (adjoint(u) @ x + adjoint(x) @ u) / 2
    return {"orthogonality": _orthogonality(u, eps), "backward": _backward(x, u, h, "right", eps)}


def _hermitian_residuals(
    arrays: Arrays, h: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    u, x = arrays
    exact = (adjoint(u) @ x + adjoint(x) @ u) / 2
    error = float((norm(h - exact) / norm(x)).max(initial=0.0))
    return {"product": Residual(error / eps, 4.0 * x.shape[-2] ** 0.5)} | {
        "h hermitian": _hermitian(h, eps)["h hermitian"]
    }


def _polynomial_residuals(
    arrays: Arrays, u: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    """Distance to the same polynomial applied to the singular values."""
    (x,) = arrays
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    s = s / np.maximum(np.linalg.norm(s, axis=-1, keepdims=True), np.finfo(float).tiny)
    for a, b, c in [(3.4445, -4.7750, 2.0315)] * options.get("steps", 5):
        s = s * (a + b * s**2 + c * s**4)
    exact = (p * s[..., None, :]) @ qh
    return {"polynomial": Residual(float((norm(u - exact) / norm(exact)).max()) / eps, 2000.0)}


def _partial_residuals(
    arrays: Arrays, u: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    """A partial isometry: U U^H U = U; and the alignment with x is its nuclear norm."""
    (x,) = arrays
    tolerance = options.get("tol")
    limit = (
        10.0 * min(x.shape[-2:]) ** 0.5
        if tolerance is None
        else 3 * tolerance * min(x.shape[-2:]) ** 0.5 / eps
    )
    isometry = float(norm(u @ adjoint(u) @ u - u).max())
    return {"isometry": Residual(isometry / eps, max(limit, 60.0))}


def _polar_flops(arrays: Arrays, options: Mapping[str, Any]) -> float:
    (x,) = arrays[:1]
    m, n = max(x.shape[-2:]), min(x.shape[-2:])
    members = float(np.prod(x.shape[:-2], dtype=float))
    each = 22.0 * n**3 if m == n else 5.0 * m * n**2 + 22.0 * n**3
    return members * float(each)


def _unrelated(g: np.random.Generator, m: int, n: int) -> Arrays:
    """Orthonormal columns, and a matrix that has nothing to do with them."""
    return np.linalg.qr(g.standard_normal((m, n)))[0], graded(g, m, n, 10)


declare(
    polar,
    residuals=_polar_residuals,
    flops=_polar_flops,
    outputs=(0, 1),
    cases=[
        Case("square", matrix(lambda g: graded(g, 24, 24, 10)), forward=FORWARD),
        Case("odd square", matrix(lambda g: graded(g, 37, 37, 10)), forward=FORWARD),
        Case("tall", matrix(lambda g: graded(g, 90, 33, 10)), forward=FORWARD),
        Case("wide", matrix(lambda g: graded(g, 21, 60, 10)), forward=FORWARD),
        Case("left", matrix(lambda g: graded(g, 40, 25, 10)), {"side": "left"}),
        Case("2x2", matrix(lambda g: np.array([[1.0, 2.0], [3.0, 4.0]])), forward=FORWARD),
        Case("vector", matrix(lambda g: g.standard_normal((9, 1))), forward=FORWARD),
        Case("batch", matrix(lambda g: batch(g, 7, 12, 12))),
        Case("tall batch", matrix(lambda g: batch(g, 5, 40, 9).reshape(5, 1, 40, 9))),
        Case("small batch", matrix(lambda g: batch(g, 50, 3, 3))),
        Case("graded", matrix(lambda g: graded(g, 64, 64, 1e3))),
        Case(
            "repeated",
            matrix(lambda g: with_spectrum(g, 30, 30, np.repeat([2.0, 1.0], 15))),
            forward=FORWARD,
        ),
        Case(
            "complex",
            matrix(lambda g: graded(g, 26, 17, 10, dtype=np.complex128)),
            forward=FORWARD,
        ),
        Case("gaussian", matrix(lambda g: g.standard_normal((128, 128))), bench=True),
        Case("gaussian tall", matrix(lambda g: g.standard_normal((1024, 128))), bench=True),
        Case(
            "many 3x3",
            matrix(lambda g: g.standard_normal((1000, 3, 3))),
            {"compute_h": False},
            bench=True,
        ),
        Case("digits", shipped("digits", "images"), real=True),
        Case("patches", shipped("patches", "patches"), real=True),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
    ],
)

declare(
    orthogonalize,
    residuals=_partial_residuals,
    flops=_polar_flops,
    cases=[
        Case("full rank", matrix(lambda g: graded(g, 48, 30, 10)), forward=FORWARD),
        Case(
            "rank deficient", matrix(lambda g: with_spectrum(g, 40, 24, np.repeat([1.0, 0.5], 6)))
        ),
        Case("zero", matrix(lambda g: np.zeros((6, 4)))),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
        Case("last gradient", shipped("gradients", "layer3_late"), real=True),
        Case("to 0.1", matrix(lambda g: graded(g, 128, 128, 100)), {"tol": 0.1}),
    ],
)

declare(
    newton_schulz,
    residuals=_polynomial_residuals,
    flops=lambda arrays, options: 5 * 4.0 * arrays[0].shape[-2] * arrays[0].shape[-1] ** 2,
    cases=[
        Case("square", matrix(lambda g: graded(g, 32, 32, 10)), forward=2000.0),
        Case("odd square", matrix(lambda g: graded(g, 33, 33, 10)), forward=2000.0),
        Case("wide", matrix(lambda g: graded(g, 16, 48, 10)), forward=2000.0),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True, forward=2000.0),
    ],
)

declare(
    unitary_factor,
    residuals=_factor_residuals,
    flops=_polar_flops,
    cases=[
        Case(
            f"{layout} {m}x{n}",
            matrix(partial(graded, m=m, n=n, kappa=10)),
            UNITARY,
            forward=FORWARD,
            layout=layout,
        )
        for layout in ("transposed", "strided", "reversed", "read-only")
        for m, n in ((45, 45), (71, 20), (5, 5))
    ],
)

declare(
    polar_factors,
    residuals=_polar_residuals,
    flops=_polar_flops,
    outputs=(0, 1),
    cases=[
        Case("square", matrix(lambda g: graded(g, 41, 41, 10)), UNITARY, forward=FORWARD),
        Case("small batch", matrix(lambda g: batch(g, 20, 3, 3)), UNITARY),
        Case("tall, kappa 2", matrix(lambda g: graded(g, 300, 40, 2)), UNITARY, forward=FORWARD),
        Case("tall, kappa 1e3", matrix(lambda g: graded(g, 300, 40, 1e3)), UNITARY),
        Case(
            "tall, rank 20", matrix(lambda g: graded(g, 90, 20, 2) @ graded(g, 20, 40, 2)), UNITARY
        ),
        Case("tall batch", matrix(lambda g: batch(g, 3, 90, 30)), UNITARY, layout="transposed"),
    ],
)

declare(
    hermitian_factor,
    residuals=_hermitian_residuals,
    flops=lambda arrays, options: 2.0 * arrays[1].shape[-2] * arrays[1].shape[-1] ** 2,
    cases=[
        Case(
            f"{layout} {m}x{n}",
            partial(_unrelated, m=m, n=n),
            layout=layout,
        )
        for layout in ("contiguous", "transposed", "strided", "read-only")
        for m, n in ((33, 33), (70, 19))
    ],
)
