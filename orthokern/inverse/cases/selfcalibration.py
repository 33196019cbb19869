"""Examples of self-calibration: known gains and signals, found again without noise, and stationarity with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.registry import Case, Residual, declare
from ..eigenpairs import lowest_pairs
from ..elimination import alternating_gains, inverse_gains
from ..selfcalibration import self_calibrate

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
FORWARD = 2000.0


def _stack(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrices (..., p, m, n) for every model."""
    return a[..., None, :, :] if a.ndim <= y.ndim else a


def _misfit(y: np.ndarray, a: np.ndarray, s: np.ndarray, model: str) -> np.ndarray:
    """Squared distance of ``diag(y_l) s`` from what signals explain, over its own square."""
    t = y * s[..., None, :]
    whole = _stack(a, y)
    if model == "shared":
        whole = whole.reshape(*whole.shape[:-3], 1, -1, whole.shape[-1])
        t = t.reshape(*t.shape[:-2], 1, -1)
    q = np.linalg.qr(whole)[0]
    inner = np.swapaxes(q, -1, -2).conj() @ t[..., None]
    left = np.sum(np.abs(t[..., None] - q @ inner) ** 2, axis=(-3, -2, -1))
    share: np.ndarray = left / np.sum(np.abs(t) ** 2, axis=(-2, -1))
    return share


def _model(arrays: Arrays, options: Options) -> str:
    return str(options.get("model", "snapshots"))


def _residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Without noise the inverse gains leave nothing unexplained, and gains and signals give the measurements."""
    y, a = arrays
    d, x, s = out
    signals = x[..., None, :] if _model(arrays, options) == "shared" else x
    image = (_stack(a, y) @ signals[..., None])[..., 0]
    wrong = np.linalg.norm(y - d[..., None, :] * image, axis=(-2, -1))
    data = wrong / np.linalg.norm(y, axis=(-2, -1))
    misfit = np.sqrt(_misfit(y, a, s, _model(arrays, options)))
    return {
        "measurements": Residual(float(np.max(data)) / eps, 200.0),
        "misfit": Residual(float(np.max(misfit)) / eps, 100.0),
    }


def _op_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    y, a, w = arrays
    misfit = np.sqrt(_misfit(y, a, out[0], options["model"]))
    found = {"misfit": Residual(float(np.max(misfit)) / eps, 100.0)}
    if options["method"] == "lstsq":
        total = np.sum(w.conj() * out[0], axis=-1)
        found["normalization"] = Residual(float(np.max(np.abs(total - 1))) / eps, 100.0)
    return found


def _steps_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    y, a, _ = arrays
    d, x, _ = out
    wrong = np.linalg.norm(y - d[..., None, :] * (a @ x[..., None])[..., 0], axis=(-2, -1))
    data = wrong / np.linalg.norm(y, axis=(-2, -1))
    return {"measurements": Residual(float(np.max(data)) / eps, 200.0)}


def _measured(
    model: str, p: int, m: int, n: int, batch: tuple[int, ...] = (), *, real: bool = True
) -> Callable[[np.random.Generator], Arrays]:
    """Gains from 0.5 to 1.5 in size, of any phase or sign."""

    def draw(g: np.random.Generator, *shape: int) -> np.ndarray:
        z = g.standard_normal((*batch, *shape))
        return z if real else z + 1j * g.standard_normal(z.shape)

    def make(g: np.random.Generator) -> Arrays:
        turn = draw(g, m)
        gains = (0.5 + g.random((*batch, m))) * turn / np.abs(turn)
        a = draw(g, m, n) if model == "snapshots" else draw(g, p, m, n)
        x = draw(g, 1 if model == "shared" else p, n)
        y = (
            gains[..., None, :]
            * ((a if a.ndim > x.ndim else a[..., None, :, :]) @ x[..., None])[..., 0]
        )
        return y, a

    return make


def _with_third(model: str, p: int, m: int, n: int) -> Callable[[np.random.Generator], Arrays]:
    """What the ops take: matrices (p or 1, m, n), and ones."""

    def make(g: np.random.Generator) -> Arrays:
        y, a = _measured(model, p, m, n)(g)
        return y, a[None] if a.ndim == 2 else a, np.ones(m)

    return make


def _solved(g: np.random.Generator) -> Arrays:
    """Measurements with the gains that made them."""
    a, x, gains = g.standard_normal((15, 4)), g.standard_normal((6, 4)), 0.5 + g.random(15)
    return gains * (x @ a.T), a[None], gains


def _flops(arrays: Arrays, options: Options) -> float:
    y, a, *_ = arrays
    m = y.shape[-1]
    return float(10 * y[..., 0, 0].size * m**3 + 2 * a.size * (a.shape[-1] + m))


declare(
    self_calibrate,
    residuals=_residuals,
    flops=_flops,
    outputs=(0, 1, 2),
    cases=[
        Case("snapshots", _measured("snapshots", 8, 20, 5), forward=FORWARD),
        Case("snapshots, complex", _measured("snapshots", 6, 17, 4, real=False), forward=FORWARD),
        Case("shared", _measured("shared", 4, 16, 12), {"model": "shared"}, forward=FORWARD),
        Case(
            "diverse, complex",
            _measured("diverse", 6, 14, 4, real=False),
            {"model": "diverse", "refine": 2},
        ),
        Case("least squares", _measured("snapshots", 8, 20, 5), {"method": "lstsq"}),
        Case(
            "alternating",
            _measured("shared", 5, 12, 6),
            {"model": "shared", "method": "als", "normalize": "mean"},
        ),
        Case("batch", _measured("snapshots", 5, 12, 3, (2, 2)), {"noise_weight": False}),
        Case("strided", _measured("snapshots", 8, 20, 5), layout="strided"),
        Case("many sensors", _measured("snapshots", 16, 100, 20)),
    ],
)

declare(
    inverse_gains,
    residuals=_op_residuals,
    flops=_flops,
    cases=[
        Case(
            "spectral",
            _with_third("snapshots", 8, 20, 5),
            {"model": "snapshots", "method": "spectral", "weighted": True},
            forward=FORWARD,
        ),
        Case(
            "least squares",
            _with_third("shared", 4, 16, 12),
            {"model": "shared", "method": "lstsq", "weighted": False},
        ),
        Case(
            "strided",
            _with_third("shared", 4, 16, 12),
            {"model": "shared", "method": "lstsq", "weighted": False},
            layout="strided",
        ),
    ],
)

declare(
    alternating_gains,
    residuals=_steps_residuals,
    flops=_flops,
    cases=[
        Case(
            "at the solution",
            _solved,
            {"model": "snapshots", "steps": 3, "until_done": False},
        ),
        Case(
            "until done",
            _solved,
            {"model": "snapshots", "steps": 50, "until_done": True},
        ),
        Case(
            "strided",
            _solved,
            {"model": "snapshots", "steps": 3, "until_done": False},
            layout="strided",
        ),
    ],
)


def _definite(
    n: int, decades: float, batch: tuple[int, ...] = (), *, real: bool = True
) -> Callable[[np.random.Generator], Arrays]:
    """Eigenvalues from 1 down to ``10^-decades``."""

    def make(g: np.random.Generator) -> Arrays:
        z = g.standard_normal((*batch, n, n))
        q, _ = np.linalg.qr(z if real else z + 1j * g.standard_normal(z.shape))
        h = (q * np.logspace(0, -decades, n)) @ np.swapaxes(q, -1, -2).conj()
        return ((h + np.swapaxes(h, -1, -2).conj()) / 2,)

    return make


def _pair_residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
    """Relative to the largest eigenvalue; of the inverse, ``H`` times it on the complement, times the smallest."""
    (h,) = arrays
    values, pair, root = out
    top = np.max(np.abs(values), axis=-1)
    missed = np.linalg.norm(h @ pair - pair * values[..., None, :2], axis=(-2, -1)) / top
    exact = np.linalg.eigvalsh(h)
    first = pair[..., :1]
    outside = np.eye(h.shape[-1]) - first @ np.swapaxes(first, -1, -2).conj()
    inverse = outside @ root @ np.swapaxes(root, -1, -2).conj() @ outside
    wrong = np.linalg.norm(h @ inverse - outside, axis=(-2, -1)) * exact[..., 1] / top
    size = h.shape[-1] ** 0.5
    return {
        "vectors": Residual(float(np.max(missed)) / eps, 30 * size),
        "values": Residual(float(np.max(np.abs(values - exact) / top[..., None])) / eps, 30 * size),
        "inverse": Residual(float(np.max(wrong)) / eps, 100 * size),
    }


declare(
    lowest_pairs,
    residuals=_pair_residuals,
    flops=lambda arrays, options: 9.0 * arrays[0].size * arrays[0].shape[-1],
    cases=[
        Case("small", _definite(5, 2.0)),
        Case("larger", _definite(60, 2.0)),
        Case("complex", _definite(50, 3.0, real=False)),
        Case("batch", _definite(40, 1.0, (2,))),
        Case("strided", _definite(40, 2.0), layout="strided"),
        Case("many", _definite(200, 2.0, real=False)),
    ],
)
