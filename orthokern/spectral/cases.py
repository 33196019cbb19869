"""Examples of the polar family, and how its results are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .._core.registry import Case, Residual, declare, real_data
from .factor import hermitian_factor, polar_factors, unitary_factor
from .polar import newton_schulz, orthogonalize, polar

Arrays = tuple[np.ndarray, ...]
# Distance to the reference that the conditioning of the "well-conditioned" cases (kappa <= 10) explains.
FORWARD = 500.0
UNITARY = {"completion": "unitary"}


def with_spectrum(
    g: np.random.Generator, m: int, n: int, spectrum: np.ndarray, *, dtype: type = np.float64
) -> np.ndarray:
    """A random m x n matrix with the given singular values."""
    k = len(spectrum)

    def unitary(size: int) -> np.ndarray:
        z = g.standard_normal((size, k))
        return np.linalg.qr(z + 1j * g.standard_normal((size, k)) if dtype is np.complex128 else z)[
            0
        ]

    product: np.ndarray = (unitary(m) * spectrum) @ unitary(n).conj().T
    return product


def graded(
    g: np.random.Generator, m: int, n: int, kappa: float, *, dtype: type = np.float64
) -> np.ndarray:
    """Singular values spaced evenly on a log scale from 1 to 1/kappa."""
    return with_spectrum(g, m, n, np.logspace(0, -np.log10(kappa), min(m, n)), dtype=dtype)


def hilbert(n: int) -> np.ndarray:
    """The Hilbert matrix 1/(i + j + 1)."""
    return 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)


def _batch(g: np.random.Generator, count: int, m: int, n: int) -> np.ndarray:
    return np.stack([graded(g, m, n, 10.0 ** (i % 7)) for i in range(count)])


def _adjoint(x: np.ndarray) -> np.ndarray:
    turned: np.ndarray = np.conj(np.swapaxes(x, -1, -2))
    return turned


def _norm(x: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(x, axis=(-2, -1))
    return norms


def _orthogonality(u: np.ndarray, eps: float) -> Residual:
    u = _adjoint(u) if u.shape[-2] < u.shape[-1] else u
    n = u.shape[-1]
    limit = 5 * n if n <= 32 else 10 * n**0.5
    worst = _norm(_adjoint(u) @ u - np.eye(n)).max(initial=0.0)
    return Residual(float(worst) / eps, float(max(limit, 5.0)))


def _backward(x: np.ndarray, u: np.ndarray, h: np.ndarray, side: str, eps: float) -> Residual:
    scale = np.abs(x).max(axis=(-2, -1), keepdims=True, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    product = u @ (h / scale) if side == "right" else (h / scale) @ u
    norm = np.maximum(_norm(x / scale), np.finfo(float).tiny)
    worst = (_norm(x / scale - product) / norm).max(initial=0.0)
    return Residual(float(worst) / eps, max(60.0, 20 * min(x.shape[-2:]) ** 0.5))


def _hermitian(h: np.ndarray, eps: float) -> dict[str, Residual]:
    if not h.size:
        return {}
    skew = float(np.abs(h - _adjoint(h)).max())
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
    h = (_adjoint(u) @ x + _adjoint(x) @ u) / 2
    return {"orthogonality": _orthogonality(u, eps), "backward": _backward(x, u, h, "right", eps)}


def _hermitian_residuals(
    arrays: Arrays, h: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    u, x = arrays
    exact = (_adjoint(u) @ x + _adjoint(x) @ u) / 2
    error = float((_norm(h - exact) / _norm(x)).max(initial=0.0))
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
    return {"polynomial": Residual(float((_norm(u - exact) / _norm(exact)).max()) / eps, 2000.0)}


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
    isometry = float(_norm(u @ _adjoint(u) @ u - u).max())
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


def _matrix(
    make: Callable[[np.random.Generator], np.ndarray],
) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: (make(g),)


def _real(name: str, *keys: str) -> Callable[[np.random.Generator], Arrays]:
    """A shipped matrix, or several stacked."""

    def make(g: np.random.Generator) -> Arrays:
        stack = np.stack([np.asarray(real_data(name)[key], dtype=np.float64) for key in keys])
        return (stack if len(keys) > 1 else stack[0],)

    return make


GRADIENTS = ("layer1_early", "layer1_middle", "layer1_late")


declare(
    polar,
    residuals=_polar_residuals,
    flops=_polar_flops,
    outputs=(0, 1),
    cases=[
        Case("square", _matrix(lambda g: graded(g, 24, 24, 10)), forward=FORWARD),
        Case("odd square", _matrix(lambda g: graded(g, 37, 37, 10)), forward=FORWARD),
        Case("tall", _matrix(lambda g: graded(g, 90, 33, 10)), forward=FORWARD),
        Case("wide", _matrix(lambda g: graded(g, 21, 60, 10)), forward=FORWARD),
        Case("left", _matrix(lambda g: graded(g, 40, 25, 10)), {"side": "left"}),
        Case("2x2", _matrix(lambda g: np.array([[1.0, 2.0], [3.0, 4.0]])), forward=FORWARD),
        Case("vector", _matrix(lambda g: g.standard_normal((9, 1))), forward=FORWARD),
        Case("batch", _matrix(lambda g: _batch(g, 7, 12, 12))),
        Case("tall batch", _matrix(lambda g: _batch(g, 5, 40, 9).reshape(5, 1, 40, 9))),
        Case("small batch", _matrix(lambda g: _batch(g, 50, 3, 3))),
        Case("graded", _matrix(lambda g: graded(g, 64, 64, 1e3))),
        Case(
            "repeated",
            _matrix(lambda g: with_spectrum(g, 30, 30, np.repeat([2.0, 1.0], 15))),
            forward=FORWARD,
        ),
        Case(
            "complex",
            _matrix(lambda g: graded(g, 26, 17, 10, dtype=np.complex128)),
            forward=FORWARD,
        ),
        Case("gaussian", _matrix(lambda g: g.standard_normal((128, 128))), bench=True),
        Case("gaussian tall", _matrix(lambda g: g.standard_normal((1024, 128))), bench=True),
        Case(
            "many 3x3",
            _matrix(lambda g: g.standard_normal((1000, 3, 3))),
            {"compute_h": False},
            bench=True,
        ),
        Case("digits", _real("digits", "images"), real=True),
        Case("patches", _real("patches", "patches"), real=True),
        Case("gradients", _real("gradients", *GRADIENTS), real=True),
    ],
)

declare(
    orthogonalize,
    residuals=_partial_residuals,
    flops=_polar_flops,
    cases=[
        Case("full rank", _matrix(lambda g: graded(g, 48, 30, 10)), forward=FORWARD),
        Case(
            "rank deficient", _matrix(lambda g: with_spectrum(g, 40, 24, np.repeat([1.0, 0.5], 6)))
        ),
        Case("zero", _matrix(lambda g: np.zeros((6, 4)))),
        Case("gradients", _real("gradients", *GRADIENTS), real=True),
        Case("last gradient", _real("gradients", "layer3_late"), real=True),
        Case("to 0.1", _matrix(lambda g: graded(g, 128, 128, 100)), {"tol": 0.1}),
    ],
)

declare(
    newton_schulz,
    residuals=_polynomial_residuals,
    flops=lambda arrays, options: 5 * 4.0 * arrays[0].shape[-2] * arrays[0].shape[-1] ** 2,
    cases=[
        Case("square", _matrix(lambda g: graded(g, 32, 32, 10)), forward=2000.0),
        Case("odd square", _matrix(lambda g: graded(g, 33, 33, 10)), forward=2000.0),
        Case("wide", _matrix(lambda g: graded(g, 16, 48, 10)), forward=2000.0),
        Case("gradients", _real("gradients", *GRADIENTS), real=True, forward=2000.0),
    ],
)

declare(
    unitary_factor,
    residuals=_factor_residuals,
    flops=_polar_flops,
    cases=[
        Case(
            f"{layout} {m}x{n}",
            _matrix(partial(graded, m=m, n=n, kappa=10)),
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
        Case("square", _matrix(lambda g: graded(g, 41, 41, 10)), UNITARY, forward=FORWARD),
        Case("small batch", _matrix(lambda g: _batch(g, 20, 3, 3)), UNITARY),
        Case("tall, kappa 2", _matrix(lambda g: graded(g, 300, 40, 2)), UNITARY, forward=FORWARD),
        Case("tall, kappa 1e3", _matrix(lambda g: graded(g, 300, 40, 1e3)), UNITARY),
        Case(
            "tall, rank 20", _matrix(lambda g: graded(g, 90, 20, 2) @ graded(g, 20, 40, 2)), UNITARY
        ),
        Case("tall batch", _matrix(lambda g: _batch(g, 3, 90, 30)), UNITARY, layout="transposed"),
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
