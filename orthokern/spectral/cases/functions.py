"""Examples of functions of singular values, of roots and signs, and of the optimizers' rules; how each is judged.

Every judge computes the result anew from a decomposition in float64, or tests the equation that defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, Residuals, declare
from ..functions import (
    clipped,
    lmo_spectral_ball,
    pressed,
    soft_spectral_clip,
    spectral_clip,
    spectral_norm_bounds,
)
from ..optimizer import (
    QUANTILE_GUARD,
    cosh_rms,
    cosh_rms_scale,
    magnitude_quantile,
    outlier_split,
    root_orthogonalize,
    soft_threshold,
)
from ..roots import inverse_pth_root, inverse_root, matrix_sign, sign_factor
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

Options = Mapping[str, Any]
FORWARD = 500.0
TINY = float(np.finfo(float).tiny)


def _worst(difference: np.ndarray, scale: np.ndarray) -> float:
    """Largest Frobenius norm of a member relative to its scale; NaN where one is NaN."""
    return float((norm(difference) / np.maximum(scale, TINY)).max(initial=0.0))


def _mapped(x: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``P f(S) Q^H`` of each matrix."""
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    mapped: np.ndarray = (p * function(s)[..., None, :]) @ qh
    return mapped


def _size(x: np.ndarray) -> float:
    return float(min(x.shape[-2:]) ** 0.5)


def _members(x: np.ndarray) -> float:
    return float(np.prod(x.shape[:-2], dtype=float))


def _bounds_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """What the lower bound exceeds the norm by, what the upper one misses, and how loose the lower one is."""
    (x,), (lower, upper) = arrays, out
    top = np.linalg.norm(x, 2, axis=(-2, -1))
    scale = np.maximum(top, TINY)
    limit = 10 * max(x.shape[-2:]) ** 0.5
    return {
        "lower above the norm": Residual(float(((lower - top) / scale).max()) / eps, limit),
        "upper below the norm": Residual(float(((top - upper) / scale).max()) / eps, limit),
        "lower below 0.9 norm": Residual(float((0.9 - lower / scale).max()) / eps, 0.0),
    }


def _clip_residuals(arrays: Arrays, y: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Distance to the clipped singular value decomposition, relative to the norm of the input."""
    x, c = arrays
    limit = np.asarray(c)[..., None]
    exact = _mapped(x, lambda s: np.minimum(np.maximum(s, options.get("lower", 0.0)), limit))
    error = _worst(y - exact, norm(x)) / eps
    over = np.linalg.norm(y, 2, axis=(-2, -1)) / np.asarray(c) - 1
    reach = np.linalg.norm(x, 2, axis=(-2, -1)).max() / np.min(c)
    return {
        "distance to SVD": Residual(error, 30.0 * _size(x)),
        "above the limit": Residual(float(over.max()) / eps, 30.0 * _size(x) * max(reach, 1.0)),
    }


def _soft_residuals(arrays: Arrays, y: Any, options: Options, eps: float) -> dict[str, Residual]:
    x, c = arrays
    exact = _mapped(x, lambda s: s / np.sqrt(1 + (s / np.asarray(c)[..., None]) ** 2))
    # What rounding of the input alone moves the result by.
    reach = float((np.linalg.norm(x, 2, axis=(-2, -1)) / np.asarray(c)).max())
    condition = float(np.linalg.cond(x).max())
    limit = 20.0 * _size(x) * (1 + min(reach, condition))
    return {"distance to SVD": Residual(_worst(y - exact, norm(exact)) / eps, limit)}


def _oracle_residuals(arrays: Arrays, y: Any, options: Options, eps: float) -> dict[str, Residual]:
    """The optimal value ``-radius ||G||_*`` and the norm of the minimizer."""
    g, radius = arrays
    nuclear = np.linalg.svd(g, compute_uv=False).sum(-1) * radius
    value = np.sum((np.conj(g) * y).real, axis=(-2, -1))
    gap = float(((value + nuclear) / np.maximum(nuclear, TINY)).max())
    over = float((np.linalg.norm(y, 2, axis=(-2, -1)) / radius - 1).max())
    limit = 30 * _size(g)
    return {
        "above the optimum": Residual(gap / eps, limit),
        "outside the ball": Residual(over / eps, limit),
    }


def _root_residuals(arrays: Arrays, x: Any, options: Options, eps: float) -> dict[str, Residual]:
    """``X^p G = I`` relative to what the rounding of G and X explains: eps times the condition number."""
    (g,) = arrays
    p = options["p"]
    g = (g + adjoint(g)) / 2
    values = np.linalg.eigvalsh(g)
    eye = np.eye(g.shape[-1])
    g = g + options.get("ridge", 0.0) * values[..., -1:, None] * eye
    values = np.linalg.eigvalsh(g)
    condition = values[..., -1] / values[..., 0]
    error = _worst(np.linalg.matrix_power(x, p) @ g - eye, p * condition * _size(g))
    return {
        # cuSOLVER's eigenvalues of matrices in single precision leave twenty times as much as LAPACK's.
        "X^p G - I": Residual(error / eps, 40.0),
        "hermitian": Residual(_worst(x - adjoint(x), norm(x)) / eps, 0.0),
    }


def _sign_residuals(arrays: Arrays, s: Any, options: Options, eps: float) -> dict[str, Residual]:
    """``S^2 = I``, ``S A = A S``, and the trace: how many eigenvalues lie right and left of the axis."""
    (a,) = arrays
    eigenvalues = np.linalg.eigvals(a)
    balance = np.sign(eigenvalues.real).sum(-1)
    scale = norm(s) ** 2
    limit = 5.0 * _size(a)
    commutes = _worst(s @ a - a @ s, norm(s) * norm(a) * np.linalg.cond(s))
    return {
        "S^2 - I": Residual(_worst(s @ s - np.eye(a.shape[-1]), scale) / eps, limit),
        "S A - A S": Residual(commutes / eps, limit),
        "wrong signs": Residual(
            float(np.abs(np.trace(s, axis1=-2, axis2=-1) - balance).max().round()), 0.0
        ),
    }


def _shrunk(x: np.ndarray, threshold: Any) -> np.ndarray:
    size = np.abs(x)
    kept: np.ndarray = np.sign(x) * np.maximum(size - threshold, 0.0)
    return kept


def _threshold_residuals(
    arrays: Arrays, y: Any, options: Options, eps: float
) -> dict[str, Residual]:
    x, threshold = arrays
    exact = _shrunk(x, threshold)
    return {"distance": Residual(float(np.abs(y - exact).max()) / np.abs(x).max() / eps, 2.0)}


def _split_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Against the quantile and the threshold of NumPy; the two parts add up."""
    (x,) = arrays
    base, outlier, threshold = out
    flat = np.abs(x).reshape(*x.shape[:-2], -1)
    exact = np.quantile(flat, options.get("quantile", 0.9), axis=-1) + QUANTILE_GUARD
    split = _shrunk(x, exact[..., None, None])
    largest = np.abs(x).max()
    return {
        "threshold": Residual(float((np.abs(threshold - exact) / exact).max()) / eps, 4.0),
        "outlier": Residual(float(np.abs(outlier - split).max() / largest) / eps, 8.0),
        "sum": Residual(float(np.abs(base + outlier - x).max() / largest) / eps, 1.0),
        "base above threshold": Residual(
            float((np.abs(base).max((-2, -1)) / threshold - 1).max()) / eps, 4.0
        ),
    }


def _shape_residuals(arrays: Arrays, u: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Singular values above 1 by more than the sequence's own error; commutes with the exact factor."""
    (x,) = arrays
    exact = _mapped(x, np.ones_like)
    product = adjoint(exact) @ u
    skew = _worst(product - adjoint(product), norm(u)) / eps
    top = np.linalg.norm(u, 2, axis=(-2, -1)).max()
    return {
        "alignment": Residual(skew, 100.0 * _size(x)),
        "overshoot": Residual(max(float(top) - 1.5, 0.0) / eps, 0.0),
    }


def _cosh_residuals(arrays: Arrays, y: Any, options: Options, eps: float) -> dict[str, Residual]:
    (x,) = arrays
    gamma, normalize = options.get("gamma", 1.0), options.get("normalize", True)
    g = x / (norm(x)[..., None, None] + 1e-7)
    root = np.sqrt(np.mean(np.cosh(gamma * g) ** 2, axis=(-2, -1), keepdims=True))
    exact = (g if normalize else x) / (root + 1e-8)
    return {"distance": Residual(_worst(y - exact, norm(exact)) / eps, 20.0)}


def _with(
    value: float, make: Callable[[np.random.Generator], np.ndarray]
) -> Callable[[np.random.Generator], Arrays]:
    """A matrix and one number for all of a stack."""
    return lambda g: (make(g), np.asarray(value))


def _shipped_with(value: float, *names: str) -> Callable[[np.random.Generator], Arrays]:
    """A shipped stack and a limit relative to its largest norm."""

    def make(g: np.random.Generator) -> Arrays:
        (x,) = shipped(*names)(g)
        return x, value * np.linalg.norm(x, 2, axis=(-2, -1))

    return make


def _half_at_the_limit(g: np.random.Generator) -> np.ndarray:
    """30 of 60 singular values equal to 1."""
    return with_spectrum(g, 60, 60, np.r_[np.linspace(3, 1.1, 15), np.ones(30), np.full(15, 0.3)])


def _wishart(g: np.random.Generator, n: int, samples: int) -> np.ndarray:
    z = g.standard_normal((n, samples))
    product: np.ndarray = z @ z.T / samples
    return product


def _definite(g: np.random.Generator, n: int, kappa: float, **kind: Any) -> np.ndarray:
    q = np.linalg.qr(graded(g, n, n, 1, **kind))[0]
    product: np.ndarray = (q * np.logspace(0, -np.log10(kappa), n)) @ adjoint(q)
    return product


def _covariance(g: np.random.Generator) -> Arrays:
    """Covariance of the digits' pixels, which is singular: some pixels never change."""
    (images,) = shipped("digits", "images")(g)
    centred = images - images.mean(0)
    return (centred.T @ centred / len(images),)


def _separated(g: np.random.Generator, n: int) -> np.ndarray:
    """Not normal, with eigenvalues 1 or more away from the imaginary axis."""
    values = np.where(np.arange(n) % 3 == 0, -1.0, 1.0) * (1 + g.random(n))
    s = np.eye(n) + 0.3 * g.standard_normal((n, n)) / n**0.5
    product: np.ndarray = s @ np.diag(values) @ np.linalg.inv(s)
    return product


def _products(factor: float) -> Callable[[Arrays, Options], float]:
    """``factor`` products of the matrix with a square one."""

    def count(arrays: Arrays, options: Options) -> float:
        m, n = max(arrays[0].shape[-2:]), min(arrays[0].shape[-2:])
        return float(_members(arrays[0]) * factor * 2.0 * m * n**2)

    return count


def _passes(factor: float) -> Callable[[Arrays, Options], float]:
    """``factor`` operations for each entry."""
    return lambda arrays, options: factor * arrays[0].size


declare(
    spectral_norm_bounds,
    residuals=_bounds_residuals,
    flops=lambda arrays, options: 4.0 * arrays[0].size * 8 * options.get("steps", 12),
    outputs=(0, 1),
    cases=[
        Case("tall", matrix(partial(graded, m=70, n=30, kappa=10)), forward=FORWARD),
        Case("batch", matrix(lambda g: batch(g, 9, 20, 33))),
        Case("complex", matrix(partial(graded, m=20, n=26, kappa=5, dtype=np.complex128))),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
    ],
)

declare(
    spectral_clip,
    residuals=_clip_residuals,
    flops=_products(25.0),
    cases=[
        Case("square", _with(0.3, partial(graded, m=40, n=40, kappa=10)), forward=FORWARD),
        Case("tall", _with(0.5, partial(graded, m=90, n=21, kappa=10)), forward=FORWARD),
        Case("wide", _with(0.5, partial(graded, m=17, n=55, kappa=1e3))),
        Case("half at the limit", _with(1.0, _half_at_the_limit)),
        Case("inside", _with(9.0, partial(graded, m=30, n=30, kappa=10)), forward=2.0),
        Case("larger", _with(0.1, partial(graded, m=80, n=61, kappa=10)), forward=FORWARD),
        Case("larger, far outside", _with(1e-3, partial(graded, m=61, n=80, kappa=10))),
        Case("far outside", _with(1e-3, partial(graded, m=33, n=20, kappa=10))),
        Case("both limits", _with(0.5, partial(graded, m=40, n=40, kappa=10)), {"lower": 0.2}),
        Case("batch", _with(0.25, lambda g: batch(g, 7, 12, 9))),
        Case("complex", _with(0.5, partial(graded, m=26, n=17, kappa=10, dtype=np.complex128))),
        Case("gaussian", _with(8.0, lambda g: g.standard_normal((256, 256))), bench=True),
        Case("gradients", _shipped_with(0.2, "gradients", *GRADIENTS), real=True),
    ],
)

declare(
    soft_spectral_clip,
    residuals=_soft_residuals,
    flops=_products(15.0),
    cases=[
        Case("square", _with(0.3, partial(graded, m=40, n=40, kappa=10)), forward=FORWARD),
        Case("wide", _with(0.5, partial(graded, m=17, n=55, kappa=1e3))),
        Case("larger", _with(0.2, partial(graded, m=80, n=61, kappa=10)), forward=FORWARD),
        Case(
            "larger, norm 1000 c",
            _with(1e-3, partial(graded, m=50, n=70, kappa=10)),
            forward=2000.0,
        ),
        Case("norm 1000 c", _with(1e-3, partial(graded, m=50, n=30, kappa=10)), forward=2000.0),
        Case("norm 1e-6 c", _with(1e6, partial(graded, m=30, n=30, kappa=10)), forward=FORWARD),
        Case("batch", _with(0.25, lambda g: batch(g, 7, 12, 9))),
        Case("gaussian", _with(4.0, lambda g: g.standard_normal((256, 256))), bench=True),
        Case("gradients", _shipped_with(0.2, "gradients", *GRADIENTS), real=True),
    ],
)

declare(
    lmo_spectral_ball,
    residuals=_oracle_residuals,
    flops=_products(11.0),
    cases=[
        Case("tall", _with(2.5, partial(graded, m=50, n=30, kappa=10)), forward=FORWARD),
        Case("gradients", _shipped_with(1.0, "gradients", *GRADIENTS), real=True),
    ],
)

declare(
    inverse_pth_root,
    residuals=_root_residuals,
    flops=_products(11.0),
    cases=[
        Case("square root", matrix(partial(_definite, n=40, kappa=10)), {"p": 2}, forward=FORWARD),
        Case("fourth root", matrix(partial(_definite, n=31, kappa=1e3)), {"p": 4}),
        Case(
            "Newton",
            matrix(partial(_definite, n=31, kappa=10)),
            {"p": 4, "method": "newton"},
            forward=2000.0,
        ),
        Case("inverse", matrix(partial(_definite, n=20, kappa=100)), {"p": 1}),
        Case("complex", matrix(partial(_definite, n=22, kappa=10, dtype=np.complex128)), {"p": 2}),
        Case(
            "batch",
            matrix(lambda g: np.stack([_definite(g, 12, 10.0**k) for k in range(4)])),
            {"p": 2},
        ),
        Case("Wishart", matrix(lambda g: _wishart(g, 128, 512)), {"p": 4}, bench=True),
        Case("covariance of digits", _covariance, {"p": 2, "ridge": 1e-3}, real=True),
    ],
)

declare(
    matrix_sign,
    residuals=_sign_residuals,
    flops=_products(10.0),
    cases=[
        Case("not normal", matrix(partial(_separated, n=30)), forward=5000.0),
        Case("odd", matrix(partial(_separated, n=17)), forward=5000.0),
        Case("batch", matrix(lambda g: np.stack([_separated(g, 9) for _ in range(6)]))),
        Case(
            "Hermitian",
            matrix(lambda g: _definite(g, 20, 10) - 0.3 * np.eye(20)),
        ),
        Case("larger", matrix(partial(_separated, n=200)), bench=True),
    ],
)

declare(
    soft_threshold,
    residuals=_threshold_residuals,
    flops=_passes(3.0),
    cases=[
        Case("matrix", _with(0.7, lambda g: g.standard_normal((30, 41))), forward=10.0),
        Case("vector", _with(0.0, lambda g: g.standard_normal(50)), forward=10.0),
        *(
            Case(
                f"{layout} matrix",
                lambda g: (g.standard_normal((9, 14)), np.array([[0.7]])),
                forward=10.0,
                layout=layout,
            )
            for layout in ("transposed", "strided", "reversed", "read-only")
        ),
        Case(
            "threshold for each row",
            lambda g: (g.standard_normal((4, 20, 9)), g.random((20, 1))),
            forward=10.0,
        ),
    ],
)

declare(
    outlier_split,
    residuals=_split_residuals,
    flops=_passes(12.0),
    outputs=(0, 1),
    cases=[
        Case("default", matrix(lambda g: g.standard_normal((37, 23))), forward=50.0),
        Case("median", matrix(lambda g: g.standard_normal((4, 8, 8))), {"quantile": 0.5}),
        Case("largest", matrix(lambda g: g.standard_normal((9, 7))), {"quantile": 1.0}),
        Case("equal entries", matrix(lambda g: np.full((6, 5), 0.25))),
        Case("large", matrix(lambda g: g.standard_normal((512, 512))), bench=True),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
    ],
)

declare(
    root_orthogonalize,
    residuals=_shape_residuals,
    flops=_products(15.0),
    cases=[
        Case("wide", matrix(lambda g: g.standard_normal((20, 60))), forward=5000.0),
        Case(
            "table",
            matrix(partial(graded, m=30, n=30, kappa=5)),
            {"coefficients": "table"},
            forward=5000.0,
        ),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
    ],
)

declare(
    cosh_rms_scale,
    residuals=_cosh_residuals,
    flops=_passes(12.0),
    cases=[
        Case("matrix", matrix(lambda g: g.standard_normal((31, 20))), forward=50.0),
        Case(
            "as the repository",
            matrix(lambda g: g.standard_normal((4, 3))),
            {"gamma": 1.5, "normalize": False},
            forward=50.0,
        ),
        Case("batch of scales", matrix(lambda g: batch(g, 5, 6, 6) * 1e3)),
        Case("large", matrix(lambda g: g.standard_normal((512, 512))), bench=True),
        Case("gradients", shipped("gradients", *GRADIENTS), real=True),
    ],
)

# The ops see memory layouts that the kernels, which scale their input first, never hand on.
OP_LAYOUTS = ("transposed", "strided", "reversed", "read-only")


def _quantile_residuals(
    arrays: Arrays, found: Any, options: Options, eps: float
) -> dict[str, Residual]:
    (x,) = arrays
    exact = np.quantile(np.abs(x), options["quantile"], axis=(-2, -1), keepdims=True)
    return {"distance": Residual(float((np.abs(found - exact) / exact).max()) / eps, 4.0)}


def _limited(m: int, n: int) -> Callable[[np.random.Generator], Arrays]:
    """A matrix and its limit in the shape that the ops take it in."""
    return lambda g: (graded(g, m, n, 10), np.array([[0.4]]))


def _with_flat_limit(judge: Residuals) -> Residuals:
    """The judge of the kernel, for an op that takes its limit with two axes more."""
    return lambda arrays, y, options, eps: judge((arrays[0], arrays[1][..., 0, 0]), y, options, eps)


for _op, _judge, _count in ((clipped, _clip_residuals, 25.0), (pressed, _soft_residuals, 15.0)):
    declare(
        _op,
        residuals=_with_flat_limit(_judge),
        flops=_products(_count),
        cases=[
            Case(f"{layout} {m}x{n}", _limited(m, n), forward=FORWARD, layout=layout)
            for layout in OP_LAYOUTS
            for m, n in ((40, 40), (50, 19))
        ],
    )

declare(
    inverse_root,
    residuals=lambda arrays, out, options, eps: _root_residuals(arrays, out[0], options, eps),
    flops=_products(11.0),
    cases=[
        Case(
            layout,
            matrix(partial(_definite, n=23, kappa=10)),
            {"p": 2, "ridge": 0.0, "method": method},
            forward=2000.0,
            layout=layout,
        )
        for layout, method in zip(OP_LAYOUTS, ("eigh", "newton", "eigh", "newton"), strict=True)
    ],
)

declare(
    sign_factor,
    residuals=lambda arrays, out, options, eps: _sign_residuals(arrays, out[0], options, eps),
    flops=_products(10.0),
    cases=[
        Case(layout, matrix(partial(_separated, n=21)), forward=5000.0, layout=layout)
        for layout in OP_LAYOUTS
    ],
)

declare(
    magnitude_quantile,
    residuals=_quantile_residuals,
    flops=_passes(12.0),
    cases=[
        Case(
            layout,
            matrix(lambda g: g.standard_normal((3, 12, 7))),
            {"quantile": 0.8},
            forward=4.0,
            layout=layout,
        )
        for layout in OP_LAYOUTS
    ],
)

declare(
    cosh_rms,
    residuals=lambda arrays, y, options, eps: _cosh_residuals(arrays[:1], y, options, eps),
    flops=_passes(12.0),
    cases=[
        Case(
            layout,
            lambda g: (graded(g, 15, 12, 10), np.array([[1e-7]])),
            {"gamma": 1.0},
            forward=50.0,
            layout=layout,
        )
        for layout in OP_LAYOUTS
    ],
)
