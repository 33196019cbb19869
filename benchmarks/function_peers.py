"""The routines that functions of singular values, roots, signs and optimizers' rules are compared with.

Each is what a user writes with NumPy or SciPy today; it takes the arrays of the benchmark case of its kernel and has
that case's options built in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from peers import Peer


def _mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    return (p * function(s)) @ qh


def _clip() -> Callable[..., Any]:
    return lambda x, c: _mapped(x, lambda s: np.minimum(s, c))


def _press() -> Callable[..., Any]:
    return lambda x, c: _mapped(x, lambda s: s / np.sqrt(1 + (s / c) ** 2))


def _power() -> Callable[..., Any]:
    from scipy.linalg import fractional_matrix_power

    return lambda g: fractional_matrix_power(g, -0.25)


def _eigenvalues() -> Callable[..., Any]:
    def root(g: Any) -> Any:
        values, q = np.linalg.eigh(g)
        return (q * values**-0.25) @ q.T

    return root


def _sign() -> Callable[..., Any]:
    from scipy.linalg import signm

    return signm  # type: ignore[no-any-return]


def _split() -> Callable[..., Any]:
    def split(x: Any) -> Any:
        threshold = np.quantile(np.abs(x), 0.9) + 1e-9
        outlier = np.sign(x) * np.maximum(np.abs(x) - threshold, 0)
        return x - outlier, outlier, threshold

    return split


def _cosh() -> Callable[..., Any]:
    def scale(x: Any) -> Any:
        g = x / (np.linalg.norm(x) + 1e-7)
        return g / (np.sqrt(np.mean(np.cosh(g) ** 2)) + 1e-8)

    return scale


def _projection(z: float, k: int | None) -> Callable[..., Any]:
    """The threshold from the cumulative sums of the sorted entries."""

    def project(v: Any, *weights: Any) -> Any:
        if k is not None:
            least = np.partition(v, -k, axis=-1)[..., -k, None]
            v = np.where(v >= least, v, -np.inf)
        ordered = np.sort(v, axis=-1)[..., ::-1][..., :k]
        counts = np.arange(1, ordered.shape[-1] + 1)
        candidates = (np.cumsum(ordered, axis=-1) - z) / counts
        rho = np.count_nonzero(ordered > candidates, axis=-1)[..., None]
        theta = np.take_along_axis(candidates, rho - 1, axis=-1)
        return np.maximum(v - theta, 0)

    return project


def _norm() -> Callable[..., Any]:
    k = 16

    def norm(t: Any) -> Any:
        a = np.sort(np.abs(t), axis=-1)[..., ::-1]
        heads = np.cumsum(a[..., :k] ** 2, axis=-1) - a[..., :k] ** 2
        tails = a.sum(-1, keepdims=True) - np.cumsum(a[..., :k], axis=-1) + a[..., :k]
        rooms = k - np.arange(k)
        split = np.argmin(tails / rooms, axis=-1)[..., None]
        values = heads + tails**2 / rooms
        return np.take_along_axis(values, split, axis=-1)[..., 0]

    return norm


def _prox() -> Callable[..., Any]:
    """By bisection for the level, all vectors at once."""
    k, lam, steps = 16, 0.5, 60

    def prox(v: Any, *weights: Any) -> Any:
        p = np.maximum(v, 0)
        high = p.max(axis=-1, keepdims=True) / lam
        low = np.zeros_like(high)
        for _ in range(steps):
            w = (low + high) / 2
            above = np.clip(p / w - lam, 0, 1).sum(-1, keepdims=True) > k
            low, high = np.where(above, w, low), np.where(above, high, w)
        return np.minimum(np.maximum(p - lam * high, 0), p / (1 + lam))

    return prox


def _descent() -> Callable[..., Any]:
    """The energy of a functional map and its gradient, handed to L-BFGS with tolerances tight enough to compare."""
    from scipy.optimize import minimize

    def mapped(a: Any, b: Any, evals_x: Any, evals_y: Any) -> Any:
        top = max(evals_x.max(), evals_y.max())
        x, y = ((evals / top) ** 0.5 for evals in (evals_x, evals_y))
        real = (y / (y**2 + 1))[:, None] - x / (x**2 + 1)
        imaginary = (1 / (y**2 + 1))[:, None] - 1 / (x**2 + 1)
        mask = 100.0 * (real**2 + imaginary**2)

        def energy(flat: Any) -> tuple[float, Any]:
            c = flat.reshape(mask.shape)
            left = c @ a - b
            return np.sum(left**2) + np.sum(mask * c**2), 2 * (left @ a.T + mask * c).ravel()

        options = {"maxiter": 10000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-6}
        found = minimize(energy, np.zeros(mask.size), jac=True, method="L-BFGS-B", options=options)
        return found.x.reshape(mask.shape)

    return mapped


@cache
def _drawn(d: int) -> Any:
    """The hundred directions of the sliced distances, in columns; made before the clock starts."""
    from orthokern.transport.sliced import directions

    return directions(100, d, like=np.zeros(1), seed=0).T


def _columns() -> Callable[..., Any]:
    """A direction per column, sorted along columns."""

    def sliced(x: Any, y: Any) -> Any:
        theta = _drawn(x.shape[1]).astype(x.dtype)
        gaps = np.sort(x @ theta, axis=0) - np.sort(y @ theta, axis=0)
        return np.mean(np.abs(gaps) ** 2) ** 0.5

    return sliced


def _pot() -> Callable[..., Any]:
    from ot.sliced import sliced_wasserstein_distance

    return lambda x, y: sliced_wasserstein_distance(
        x, y, projections=_drawn(x.shape[1]).astype(x.dtype)
    )


def _in_numpy(name: str, load: Callable[[], Callable[..., Any]]) -> Peer:
    return Peer(name, "numpy", load, gives_h=False, stacks=False)


SVD_CLIP = _in_numpy("numpy.linalg.svd, clipped", _clip)
SVD_PRESS = _in_numpy("numpy.linalg.svd, pressed", _press)
SCIPY_POWER = _in_numpy("scipy.linalg.fractional_matrix_power", _power)
NUMPY_EIGH = _in_numpy("numpy.linalg.eigh, to the power", _eigenvalues)
SCIPY_SIGN = _in_numpy("scipy.linalg.signm", _sign)
NUMPY_QUANTILE = _in_numpy("numpy.quantile, thresholded", _split)
NUMPY_COSH = _in_numpy("the formula in NumPy", _cosh)
NUMPY_SIMPLEX = _in_numpy("numpy.sort, thresholded", partial(_projection, 1.0, None))
NUMPY_SPARSE = _in_numpy("numpy.partition, sorted and thresholded", partial(_projection, 100.0, 16))
NUMPY_NORM = _in_numpy("numpy.sort, split", _norm)
NUMPY_PROX = _in_numpy("bisection in NumPy", _prox)
NUMPY_COLUMNS = _in_numpy("numpy.sort of columns", _columns)
POT_SLICED = _in_numpy("ot.sliced_wasserstein_distance", _pot)
SCIPY_LBFGS = _in_numpy("scipy.optimize.minimize (L-BFGS-B)", _descent)

PEERS = (
    SVD_CLIP,
    SVD_PRESS,
    SCIPY_POWER,
    NUMPY_EIGH,
    SCIPY_SIGN,
    NUMPY_QUANTILE,
    NUMPY_COSH,
    NUMPY_SIMPLEX,
    NUMPY_SPARSE,
    NUMPY_NORM,
    NUMPY_PROX,
    NUMPY_COLUMNS,
    POT_SLICED,
    SCIPY_LBFGS,
)
