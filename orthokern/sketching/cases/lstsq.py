"""Examples of least squares; judged by the equations that define a solution, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare, real_data
from ..certificate import sketched_lstsq
from ..lstsq import lstsq
from ..normal_equations import normal_equations, residual_gradient, whitened_gram
from ..operators import srht
from ..rough import rough_gram
from ..small import gram_solution
from ..whitening import damped_norms, gram_whitener, triangular_whitener

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
Maker = Callable[[np.random.Generator], Arrays]
FORWARD = 1000.0
TINY = float(np.finfo(float).tiny)


def _h(x: np.ndarray) -> np.ndarray:
    turned: np.ndarray = np.conj(np.swapaxes(x, -1, -2))
    return turned


def _columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return b[..., None] if b.ndim == a.ndim - 1 else b


def _norm(x: np.ndarray, axis: Any = (-2, -1)) -> np.ndarray:
    return np.asarray(np.linalg.norm(x, axis=axis))


def _worst(error: np.ndarray, scale: np.ndarray) -> float:
    return float((error / np.maximum(scale, TINY)).max(initial=0.0))


def backward_error(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """Karlson and Waldén's estimate for the worst of all columns, relative to ``||A||_F``."""
    worst = 0.0
    for index in np.ndindex(*a.shape[:-2]):
        u, s, _ = np.linalg.svd(a[index], full_matrices=False)
        r = b[index] - a[index] @ x[index]
        length = np.maximum(np.linalg.norm(x[index], axis=0), TINY)
        omega = np.linalg.norm(r, axis=0) / length
        # In the range of A and orthogonal to it: the gradient is that of the first part alone.
        inside = s[:, None] * (_h(u) @ r)
        total = np.sqrt(s[:, None] ** 2 + omega**2)
        size = np.linalg.norm(
            np.where(total > 0, np.abs(inside) / np.maximum(total, TINY), 0), axis=0
        )
        worst = max(worst, _worst(size, length * np.linalg.norm(s)))
    return worst


def _stacked(arrays: Arrays, options: Options) -> Arrays:
    """With the rows that ``damp`` stands for."""
    a, b = arrays[0], _columns(*arrays)
    damp = options.get("damp", 0.0)
    if not damp:
        return a, b
    d = a.shape[-1]
    below = np.broadcast_to(damp * np.eye(d), (*a.shape[:-2], d, d))
    zeros = np.zeros((*b.shape[:-2], d, b.shape[-1]))
    return np.concatenate([a, below], axis=-2), np.concatenate([b, zeros], axis=-2)


def _lstsq_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """The backward error, and what the solution has in the null space."""
    a, b = _stacked(arrays, options)
    x, found = _columns(a, out[0]), out[2]
    _, s, vh = np.linalg.svd(a)
    rank = np.count_nonzero(s > 1e-5 * s[..., :1], axis=-1)
    stray = 0.0
    for index in np.ndindex(*a.shape[:-2]):
        null = vh[index][int(rank[index]) :]
        inside = np.linalg.norm(null @ x[index], axis=0)
        stray = max(stray, _worst(inside, np.linalg.norm(x[index], axis=0)))
    return {
        "backward error": Residual(backward_error(a, b, x) / eps, 10.0),
        "null space": Residual(stray / eps, FORWARD),
        "rank": Residual(float(np.abs(found - rank).max(initial=0)), 0.0),
    }


def _stacked_error(arrays: Arrays, x: np.ndarray, options: Options) -> float:
    a, b = _stacked(arrays, options)
    return backward_error(a, b, x)


def _gram_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, _ = arrays
    x, p, _ = out
    damp = options["damp"]
    short = a if a.shape[-2] >= a.shape[-1] or damp else _h(a)
    gram = _h(short) @ short + damp**2 * np.eye(short.shape[-1])
    white = _h(p) @ gram @ p - np.eye(short.shape[-1])
    inside = np.linalg.pinv(a) @ (a @ x)
    return {
        "outside of the rows": Residual(_worst(_norm(x - inside), _norm(x)) / eps, 1000.0),
        "backward error": Residual(_stacked_error(arrays, x, options) / eps, 10.0),
        "whitener": Residual(float(np.abs(white).max(initial=0.0)) / eps, 1e4),
    }


def _sums_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, b = arrays
    exact = (_h(a) @ a, _h(a) @ b, np.sum(np.abs(b) ** 2, axis=-2))
    norms = _norm(a, -2)[..., :, None], _norm(b, -2)[..., None, :]
    scales = norms[0] * np.real(_h(norms[0])), norms[0] * norms[1], norms[1][..., 0, :] ** 2
    names = ("A^H A", "A^H B", "squares")
    return {
        name: Residual(_worst(np.abs(found - right), scale) / eps, 30.0)
        for name, found, right, scale in zip(names, out, exact, scales, strict=True)
    }


def _gradient_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    a, b, x = arrays
    r = b - a @ x
    size = _norm(b, -2) + _norm(a)[..., None] * _norm(x, -2)
    gradient, squares = out
    error = np.abs(gradient - _h(a) @ r)
    return {
        "gradient": Residual(
            _worst(error, _norm(a, -2)[..., :, None] * size[..., None, :]) / eps, 30.0
        ),
        "squares": Residual(_worst(np.abs(squares - _norm(r, -2) ** 2), size**2) / eps, 30.0),
    }


def _rough_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """The sums are in single precision, whatever the matrix is in."""
    a = arrays[0]
    exact = _h(a) @ a
    error = _worst(_norm(out - exact), _norm(a) ** 2)
    return {"sums": Residual(error / max(eps, float(np.finfo(np.float32).eps)), 20.0)}


def _white_residuals(arrays: Arrays, g: Any, options: Options, eps: float) -> dict[str, Residual]:
    a, p = arrays
    y = a @ p
    scale = (_norm(a)[..., None, None] * _norm(p)[..., None, None]) ** 2
    return {"distance": Residual(_worst(np.abs(g - _h(y) @ y), scale) / eps, 30.0)}


def _whitener_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    (g,) = arrays
    p, f, _ = out
    eye = np.eye(g.shape[-1])
    return {
        "factor": Residual(_worst(_norm(_h(f) @ f - g), _norm(g)) / eps, 100.0),
        "inverse": Residual(_worst(_norm(f @ p - eye), np.linalg.cond(f)) / eps, 100.0),
    }


def _triangular_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    (r,) = arrays
    p, f, rank, _ = out
    s = np.linalg.svd(r, compute_uv=False)
    kept = s > options["cutoff"] * s[..., :1]
    condition = s[..., 0] / np.where(kept, s, np.inf).min(axis=-1, initial=np.inf)
    white = _h(p) @ _h(r) @ r @ p
    norms = _norm(white - np.where(np.abs(white) > 0.5, 1.0, 0.0))
    return {
        "orthonormal": Residual(_worst(norms, condition) / eps, 300.0),
        "factor": Residual(_worst(_norm(_h(f) @ f - _h(r) @ r), _norm(r) ** 2) / eps, 300.0),
        "rank": Residual(float(np.abs(rank - kept.sum(-1)).max()), 0.0),
    }


def _damped_residuals(
    arrays: Arrays, norms: Any, options: Options, eps: float
) -> dict[str, Residual]:
    f, shift, v = arrays
    _, s, vh = np.linalg.svd(f)
    exact = np.linalg.norm((vh @ v) / np.sqrt(s[..., :, None] ** 2 + shift[..., None, :]), axis=-2)
    return {"distance": Residual(_worst(np.abs(norms - exact), exact) / eps, 1e4)}


def _sketched_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    """The equations of the small problem, and the covariance of the certificate."""
    a, b = arrays[0], _columns(*arrays)
    s = options["sketch_size"]
    dense = srht(s, a.shape[-2], seed=options.get("seed", 0)).to_dense()
    sa, sb = dense @ a, dense @ b
    x, sd = (_columns(a, part) for part in out[:2])
    r = sb - sa @ x
    inverse = np.linalg.inv(_h(sa) @ sa)
    variance = np.real(np.diagonal(inverse, axis1=-2, axis2=-1))[..., :, None]
    exact = np.sqrt(variance * np.sum(np.abs(r) ** 2, axis=-2)[..., None, :] / (s - a.shape[-1]))
    return {
        "backward error": Residual(backward_error(sa, sb, x) / eps, 100.0),
        "deviation": Residual(_worst(np.abs(sd - exact), exact) / eps, 1e4),
    }


def _problem(
    n: int,
    d: int,
    k: int = 0,
    batch: tuple[int, ...] = (),
    *,
    kappa: float = 1.0,
    unit: complex = 1.0,
) -> Maker:
    """A with singular values from 1 to 1 / kappa, times roots of n; b with a residual."""

    def make(g: np.random.Generator) -> Arrays:
        shape = (*batch, n, k) if k else (*batch, n)
        a = g.standard_normal((*batch, n, d)) * unit
        if np.iscomplexobj(a):
            a = a + g.standard_normal(a.shape)
        if kappa > 1:
            v, _ = np.linalg.qr(g.standard_normal((d, d)))
            a = (a * np.geomspace(1, 1 / kappa, d)) @ v
        b = g.standard_normal(shape) + (1j * g.standard_normal(shape) if np.iscomplexobj(a) else 0)
        return a, b

    return make


def _deficient(n: int, d: int, rank: int) -> Maker:
    """Exactly dependent columns: sums of others, in small whole numbers."""

    def make(g: np.random.Generator) -> Arrays:
        a = g.integers(-3, 4, (n, rank)) * 1.0
        mix = np.concatenate([np.eye(rank), g.integers(-1, 2, (rank, d - rank)) * 1.0], axis=1)
        return a @ mix, g.standard_normal(n)

    return make


def _digits(g: np.random.Generator) -> Arrays:
    """The last pixels of images of digits by all the others; some are always zero."""
    images = np.asarray(real_data("digits")["images"], dtype=float)[:300] / 16
    return images[:, :48], images[:, 48:52]


def _triangle(d: int, kept: int) -> Maker:
    def make(g: np.random.Generator) -> Arrays:
        r = np.triu(g.standard_normal((d, d))) + 3 * np.eye(d)
        r[kept:] = 0
        return (r,)

    return make


def _flops(arrays: Arrays, options: Options) -> float:
    return float(2.0 * arrays[0].size * arrays[0].shape[-1])


declare(
    lstsq,
    residuals=_lstsq_residuals,
    flops=_flops,
    cases=[
        Case("tall", _problem(60, 7), forward=FORWARD),
        Case("whitened", _problem(90, 6, kappa=30.0), {"method": "pgram"}, forward=FORWARD),
        Case("several right-hand sides", _problem(50, 5, 3), forward=FORWARD),
        Case("square", _problem(12, 12, kappa=10.0)),
        Case("wide", _problem(6, 20), forward=FORWARD),
        Case("complex", _problem(40, 5, 2, unit=1j), forward=FORWARD),
        Case("damped", _problem(30, 8), {"damp": 0.7}, forward=FORWARD),
        Case("rank 5 of 8", _deficient(70, 8, 5), forward=1e4),
        Case("batch", _problem(25, 4, 0, (2, 3)), forward=FORWARD),
        Case("transposed", _problem(40, 6, 2), layout="transposed", forward=FORWARD),
        Case("pixels of digits", _digits, {"rcond": 1e-4}, real=True),
        Case("bench", _problem(100, 30), forward=FORWARD),
    ],
)

declare(
    gram_solution,
    residuals=_gram_residuals,
    flops=_flops,
    cases=[
        Case("tall", _problem(40, 5, 1), {"damp": 0.0, "tol": 1e-15, "max_refine": 4}),
        Case("batch", _problem(20, 4, 2, (3,)), {"damp": 0.5, "tol": 1e-15, "max_refine": 4}),
        Case("wide", _problem(4, 9, 2, (3,)), {"damp": 0.0, "tol": 1e-15, "max_refine": 4}),
        Case("wide, damped", _problem(4, 9, 1), {"damp": 0.5, "tol": 1e-15, "max_refine": 4}),
        Case(
            "strided",
            _problem(30, 6, 2),
            {"damp": 0.0, "tol": 1e-15, "max_refine": 4},
            layout="strided",
        ),
    ],
)

declare(
    normal_equations,
    residuals=_sums_residuals,
    flops=_flops,
    outputs=(0, 1, 2),
    cases=[
        Case("tall", _problem(70, 9, 1), forward=FORWARD),
        Case("complex", _problem(50, 4, 3, unit=1j), forward=FORWARD),
        Case("batch, strided", _problem(20, 3, 2, (2, 2)), layout="strided", forward=FORWARD),
        Case("transposed", _problem(30, 6, 2), layout="transposed", forward=FORWARD),
        Case("two blocks", _problem(90, 90, 1), forward=FORWARD),
    ],
)

declare(
    residual_gradient,
    residuals=_gradient_residuals,
    flops=lambda arrays, options: 4.0 * arrays[0].size * arrays[1].shape[-1],
    cases=[
        Case("one", lambda g: (*_problem(60, 7, 1)(g), g.standard_normal((7, 1)))),
        Case(
            "complex", lambda g: (*_problem(40, 5, 2, unit=1j)(g), g.standard_normal((5, 2)) * 1j)
        ),
        Case("batch", lambda g: (*_problem(20, 4, 2, (3,))(g), g.standard_normal((3, 4, 2)))),
        Case(
            "strided",
            lambda g: (*_problem(60, 7, 1)(g), g.standard_normal((7, 1))),
            layout="strided",
        ),
    ],
)

declare(
    rough_gram,
    residuals=_rough_residuals,
    flops=_flops,
    cases=[
        Case("real", lambda g: (g.standard_normal((200, 6)),)),
        Case("strided", lambda g: (g.standard_normal((40, 20)),), layout="strided"),
        Case("stack", lambda g: (g.standard_normal((2, 30, 5)),)),
        Case("complex", lambda g: (g.standard_normal((30, 5)) * (1 + 2j),)),
    ],
)

declare(
    whitened_gram,
    residuals=_white_residuals,
    flops=_flops,
    cases=[
        Case(
            "triangle", lambda g: (g.standard_normal((60, 6)), np.triu(g.standard_normal((6, 6))))
        ),
        Case("full", lambda g: (g.standard_normal((2, 30, 5)), g.standard_normal((2, 5, 5)))),
        Case(
            "complex",
            lambda g: (
                g.standard_normal((30, 5)) + 1j * g.standard_normal((30, 5)),
                np.triu(g.standard_normal((5, 5)) * (1 + 2j)),
            ),
        ),
        Case(
            "strided",
            lambda g: (g.standard_normal((60, 6)), np.triu(g.standard_normal((6, 6)))),
            layout="strided",
        ),
    ],
)

declare(
    gram_whitener,
    residuals=_whitener_residuals,
    flops=lambda arrays, options: arrays[0].size * arrays[0].shape[-1] * 2 / 3,
    cases=[
        Case("one", lambda g: (np.cov(g.standard_normal((8, 40))),)),
        Case("batch", lambda g: (_squared(g.standard_normal((2, 3, 20, 4))),)),
        Case(
            "complex",
            lambda g: (_squared(g.standard_normal((20, 4)) + 1j * g.standard_normal((20, 4))),),
        ),
        Case("strided", lambda g: (np.cov(g.standard_normal((8, 40))),), layout="strided"),
    ],
)


def _squared(a: np.ndarray) -> np.ndarray:
    product: np.ndarray = _h(a) @ a
    return product


declare(
    triangular_whitener,
    residuals=_triangular_residuals,
    flops=lambda arrays, options: arrays[0].size * arrays[0].shape[-1] / 3,
    cases=[
        Case("whole", _triangle(9, 9), {"cutoff": 1e-5}),
        Case("rank 6 of 9", _triangle(9, 6), {"cutoff": 1e-5}),
        Case(
            "batch",
            lambda g: (np.triu(g.standard_normal((3, 5, 5))) + 4 * np.eye(5),),
            {"cutoff": 1e-5},
        ),
        Case("strided", _triangle(9, 9), {"cutoff": 1e-5}, layout="strided"),
    ],
)

declare(
    damped_norms,
    residuals=_damped_residuals,
    flops=lambda arrays, options: arrays[0].size * arrays[0].shape[-1] * 4 / 3,
    cases=[
        Case(
            "one",
            lambda g: (
                np.triu(g.standard_normal((7, 7))) + 3 * np.eye(7),
                np.asarray([0.3]),
                g.standard_normal((7, 1)),
            ),
        ),
        Case(
            "several",
            lambda g: (
                g.standard_normal((2, 5, 5)) + 3 * np.eye(5),
                g.random((2, 4)),
                g.standard_normal((2, 5, 4)),
            ),
        ),
        Case(
            "strided",
            lambda g: (
                np.triu(g.standard_normal((7, 7))) + 3 * np.eye(7),
                np.asarray([0.3]),
                g.standard_normal((7, 1)),
            ),
            layout="strided",
        ),
    ],
)

declare(
    sketched_lstsq,
    residuals=_sketched_residuals,
    flops=_flops,
    outputs=(0, 1, 2),
    cases=[
        Case("one vector", _problem(90, 4), {"sketch_size": 40}, forward=1e4),
        Case("columns", _problem(64, 3, 2), {"sketch_size": 32, "seed": 5}, forward=1e4),
        Case("complex", _problem(50, 3, unit=1j), {"sketch_size": 30}, forward=1e4),
    ],
)
