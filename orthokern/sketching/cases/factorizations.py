"""Examples of the randomized factorizations; each is judged by the equations and norms that define it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..cholesky_qr import rand_cholqr, thin_qr
from ..nystrom import nystrom
from ..products import adjoint_product, product
from ..randomized import leverage_scores, randomized_svd

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]


def _size(x: np.ndarray) -> float:
    return float(np.max(np.linalg.norm(x, axis=(-2, -1)), initial=0.0))


def _departure(q: np.ndarray) -> float:
    return _size(np.swapaxes(q, -1, -2).conj() @ q - np.eye(q.shape[-1]))


def _ratio(x: np.ndarray, a: np.ndarray, eps: float) -> float:
    return _size(x) / max(_size(a), float(np.finfo(float).tiny)) / eps


def _qr_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    (a,), q, r = arrays, out[0], out[1]
    if options.get("pivot"):
        a = np.take_along_axis(a, out[2].astype(int)[..., None, :], axis=-1)
    limit = 30.0 * a.shape[-1] ** 0.5
    return {
        "factors": Residual(_ratio(a - q @ r, a, eps), limit),
        "orthogonality": Residual(_departure(q) / eps, limit),
        "below the diagonal": Residual(float(np.count_nonzero(np.tril(r, -1))), 0.0),
    }


def _svd_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """All cases have a rank of at most k, or all values wanted."""
    (a,), (u, s, vh) = arrays, out
    limit = 60.0 * max(a.shape[-2:]) ** 0.5
    return {
        "product": Residual(_ratio(a - (u * s[..., None, :]) @ vh, a, eps), limit),
        "left": Residual(_departure(u) / eps, limit),
        "right": Residual(_departure(np.swapaxes(vh, -1, -2).conj()) / eps, limit),
    }


def _off(expected: np.ndarray, arrays: Arrays, out: Any, eps: float) -> dict[str, Residual]:
    a, b = (np.linalg.norm(x, axis=(-2, -1), keepdims=True) for x in arrays)
    error = np.abs(out - expected) / np.maximum(a * b, np.finfo(float).tiny)
    return {"distance": Residual(float(error.max(initial=0.0)) / eps, 10.0)}


def _product_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    return _off(arrays[0] @ arrays[1], arrays, out, eps)


def _adjoint_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    return _off(np.swapaxes(arrays[0], -1, -2).conj() @ arrays[1], arrays, out, eps)


def _nystrom_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    (a,), (values, v) = arrays, out
    rest = a - (v * values[..., None, :]) @ np.swapaxes(v, -1, -2).conj()
    return {
        "product": Residual(_ratio(rest, a, eps), 60.0 * a.shape[-1]),
        "vectors": Residual(_departure(v) / eps, 60.0 * a.shape[-1] ** 0.5),
    }


def _leverage_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    u = np.linalg.svd(arrays[0], full_matrices=False)[0]
    error = float(np.max(np.abs((np.abs(u) ** 2).sum(-1) - out)))
    return {"scores": Residual(error / eps, 60.0)}


def _flops(arrays: Arrays, options: Options) -> float:
    return float(4.0 * arrays[0].size * min(arrays[0].shape[-2:]))


def _normal(*shape: int) -> Any:
    return lambda g: (g.standard_normal(shape),)


def _complex(*shape: int) -> Any:
    return lambda g: (g.standard_normal(shape) + 1j * g.standard_normal(shape),)


def _rank_three(g: np.random.Generator) -> Arrays:
    return (g.standard_normal((60, 3)) @ g.standard_normal((3, 20)),)


def _gram(g: np.random.Generator) -> Arrays:
    x = g.standard_normal((40, 4))
    return (x @ x.T,)


def _digits(g: np.random.Generator) -> Arrays:
    images = np.asarray(real_data("digits")["images"], dtype=float)
    flat = images.reshape(len(images), -1)[:100]
    return (flat[:, flat.any(axis=0)][:, :20] + 1e-3 * np.eye(100, 20),)


def _pair(first: tuple[int, ...], second: tuple[int, ...], unit: complex = 0) -> Any:
    """Makes two Gaussian arrays, whose imaginary parts are ``unit`` times another one."""

    def made(g: np.random.Generator) -> Arrays:
        parts = [(g.standard_normal(shape), g.standard_normal(shape)) for shape in (first, second)]
        return tuple(real + unit * other if unit else real for real, other in parts)

    return made


def _product_flops(arrays: Arrays, options: Options) -> float:
    return float(2 * arrays[0].size * arrays[1].shape[-1])


# The larger ones are worth packing.
declare(
    product,
    residuals=_product_residuals,
    flops=_product_flops,
    cases=[
        Case("small", _pair((20, 9), (9, 4))),
        Case("large", _pair((203, 130), (130, 35))),
        Case("stack", _pair((2, 101, 90), (2, 90, 31))),
        Case("complex", _pair((30, 20), (20, 5), 1j)),
        Case("strided", _pair((203, 130), (130, 35)), layout="strided"),
    ],
)
declare(
    adjoint_product,
    residuals=_adjoint_residuals,
    flops=_product_flops,
    cases=[
        Case("small", _pair((20, 9), (20, 4))),
        Case("large", _pair((203, 131), (203, 35))),
        Case("stack", _pair((2, 101, 91), (2, 101, 31))),
        Case("complex", _pair((30, 21), (30, 5), 1j)),
        Case("strided", _pair((203, 131), (203, 35)), layout="strided"),
    ],
)
declare(
    rand_cholqr,
    residuals=_qr_residuals,
    flops=_flops,
    outputs=(1,),
    cases=[
        Case("tall", _normal(90, 10)),
        Case("complex stack", _complex(2, 30, 4)),
        Case("digits", _digits, real=True),
    ],
)
declare(
    thin_qr,
    residuals=_qr_residuals,
    flops=_flops,
    outputs=(1,),
    cases=[
        Case("tall", _normal(90, 10), {"seed": 0}),
        Case("wide", _complex(5, 9), {"seed": 3}),
        Case("strided", _normal(60, 8), {"seed": 0}, layout="strided"),
    ],
)
declare(
    randomized_svd,
    residuals=_svd_residuals,
    flops=_flops,
    outputs=(1,),
    cases=[
        Case("rank three", _rank_three, {"k": 5, "oversample": 0}),
        Case("all values", _complex(2, 9, 6), {"k": 6}),
        Case("digits", _digits, {"k": 20}, real=True),
    ],
)
declare(
    leverage_scores,
    residuals=_leverage_residuals,
    flops=_flops,
    cases=[Case("tall", _normal(90, 10)), Case("complex stack", _complex(2, 30, 4))],
)
declare(
    nystrom, residuals=_nystrom_residuals, flops=_flops, cases=[Case("rank four", _gram, {"k": 6})]
)
