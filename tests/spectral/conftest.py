"""What the tests of the polar family share: matrices with given spectra, and the errors that the contract limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from orthokern._core.dtypes import EPS, dtype_name
from orthokern.testing import libraries


@pytest.fixture(params=[name for name in libraries.available() if name != "dask"])
def stacking_library(request: pytest.FixtureRequest) -> str:
    """Each installed library that decomposes stacks of matrices."""
    return str(request.param)


@pytest.fixture(params=[None, "array-api"], ids=["default", "reference"])
def backend(request: pytest.FixtureRequest) -> str | None:
    """Whatever serves by default, and the reference."""
    return request.param


class Place(NamedTuple):
    """Where a call runs."""

    library: str
    backend: str | None

    def __str__(self) -> str:
        return f"{self.library}-{self.backend or 'default'}"


# The default backend sees the arrays of all libraries as NumPy arrays; the reference differs with each of them.
PLACES = [Place("numpy", None), *(Place(name, "array-api") for name in libraries.available())]


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """The default backend on NumPy arrays, and the reference on the arrays of each installed library."""
    return request.param


@pytest.fixture(params=[place for place in PLACES if place.library != "dask"], ids=str)
def stacking_place(request: pytest.FixtureRequest) -> Place:
    """Those places that take stacks of matrices."""
    return request.param


def made(array: np.ndarray, library: str, dtype: str):
    """``array`` as an array of ``library`` in that precision; complex stays complex."""
    array = np.asarray(array)
    wide = array.astype(libraries.dtype_for(array, dtype))
    return libraries.to_library(wide, library)


def eps_of(x) -> float:
    """Unit of rounding of the dtype that ``x`` really has (JAX may have halved it)."""
    return EPS[dtype_name(x)]


def adjoint(x: np.ndarray) -> np.ndarray:
    """Conjugate transpose of the last two dimensions."""
    return np.conj(np.swapaxes(x, -1, -2))


def norm(x: np.ndarray) -> float:
    """Frobenius norm of one matrix, without the dtype that np.linalg.norm falls back to."""
    return float(np.sqrt(np.sum(np.abs(x) ** 2)))


def unitary(rng: np.random.Generator, m: int, n: int, *, complex_: bool = False) -> np.ndarray:
    """A random m x n matrix with orthonormal columns."""
    z = rng.standard_normal((m, n))
    return np.linalg.qr(z + 1j * rng.standard_normal((m, n)) if complex_ else z)[0]


SPECTRA: dict[str, Callable[[int, float], np.ndarray]] = {
    "logarithmic": lambda k, kappa: np.logspace(0, -np.log10(kappa), k),
    "one tiny": lambda k, kappa: np.where(np.arange(k) == k - 1, 1 / kappa, 1.0),
    "one large": lambda k, kappa: np.where(np.arange(k) == 0, 1.0, 1 / kappa),
    "two clusters": lambda k, kappa: np.where(np.arange(k) < k // 2, 1.0, 1 / kappa),
    "repeated": lambda k, kappa: np.logspace(0, -np.log10(kappa), 3)[np.arange(k) * 3 // k],
}


def with_spectrum(
    rng: np.random.Generator, m: int, n: int, spectrum: np.ndarray, *, complex_: bool = False
) -> np.ndarray:
    """A random m x n matrix with these min(m, n) singular values."""
    k = len(spectrum)
    p, q = (unitary(rng, size, k, complex_=complex_) for size in (m, n))
    return (p * spectrum) @ adjoint(q)


def singular_values(x) -> np.ndarray:
    """Singular values of a finite matrix in float64, in decreasing order."""
    array = libraries.to_numpy(x)
    assert np.all(np.isfinite(array))
    return np.linalg.svd(array, compute_uv=False)


class Errors(NamedTuple):
    """Errors of one polar factorization, each divided by its limit; ``asymmetry`` is absolute."""

    orthogonality: float
    backward: float
    negativity: float
    asymmetry: float

    @property
    def worst(self) -> float:
        """The largest of the three ratios."""
        return max(self.orthogonality, self.backward, self.negativity)


def _wider(x: np.ndarray, eps: float) -> np.ndarray:
    """In twice the digits, or all that there are: double sums of equal numbers are off by as much as they measure."""
    real = np.float64 if eps > 1e-10 else np.longdouble
    return x.astype(np.result_type(real, np.complex64) if np.iscomplexobj(x) else real)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Without BLAS, which has no extended precision, dot of contiguous rows is the fastest.
    return np.dot(np.ascontiguousarray(a), b)


def orthogonality(u: np.ndarray, eps: float) -> float:
    """``||U^H U - I||_F`` of the shorter side, over its limit."""
    thin = _wider(adjoint(u) if u.shape[0] < u.shape[1] else u, eps)
    n = thin.shape[1]
    limit = 5 * n if n <= 32 else 10 * n**0.5
    return norm(_product(adjoint(thin), thin) - np.eye(n)) / (limit * eps)


def contract_errors(x: np.ndarray, u, h, *, side: str = "right") -> Errors:
    """Errors of ``x = u h`` or ``x = h u``, with ``x`` in the precision that was computed in."""
    u, h = libraries.to_numpy(u), libraries.to_numpy(h)
    eps, n = float(np.finfo(x.dtype).eps), min(x.shape)
    # A power of two keeps the norms of huge and tiny matrices in range and costs no accuracy.
    power = -int(np.frexp(np.max(np.abs(_wider(x, 0.0))))[1])
    first, second = np.ldexp(1.0, power // 2), np.ldexp(1.0, power - power // 2)
    a, b = (_wider(second * (first * _wider(y, 0.0)), eps) for y in (x, h))
    v = _wider(u, eps)
    product = _product(v, b) if side == "right" else _product(b, v)
    values = np.linalg.eigvalsh(b.astype(np.complex128 if np.iscomplexobj(x) else np.float64))
    return Errors(
        orthogonality(u, eps),
        norm(a - product) / (max(60.0, 20 * n**0.5) * eps * (norm(a) or 1.0)),
        float(-values[0] / (np.abs(values).max() or 1.0)) / (10 * h.shape[0] * eps),
        float(np.max(np.abs(h - adjoint(h)), initial=0.0)),
    )


def largest_condition(x: np.ndarray) -> float:
    """Up to which condition number the contract promises the backward error of a matrix of this size and dtype."""
    return 1 / (10 * max(min(x.shape), 1) * float(np.finfo(x.dtype).eps))
