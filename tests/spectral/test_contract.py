"""The accuracy contract on many matrices: random spectra, all scales, hard structures, on every library.

For condition numbers up to 1/(10 n eps): ``||U^H U - I||_F <= 10 sqrt(n) eps`` (5 n eps for n <= 32),
``||A - U H||_F <= max(60, 20 sqrt(n)) eps ||A||_F``, H Hermitian bit for bit, its least eigenvalue above
``-10 n eps ||A||``. Beyond, orthonormal columns and finite numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import orthokern
from orthokern.spectral.cases.matrices import hilbert
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from .conftest import (
    SPECTRA,
    contract_errors,
    largest_condition,
    made,
    orthogonality,
    singular_values,
    unitary,
    with_spectrum,
)

pytestmark = pytest.mark.slow

LARGEST = 200
SHAPES: dict[str, Callable[[int], tuple[int, int]]] = {
    "square": lambda n: (n, n),
    "tall": lambda n: (8 * n, n),
    "wide": lambda n: (n, 3 * n),
    "nearly square": lambda n: (n + 1 + n // 8, n),
}
DTYPES = ["float64", "float32", "complex128", "complex64"]
SCALES = {"float64": (1.0, 1e300, 1e-300), "float32": (1.0, 1e35, 1e-35)}
PRECISION = {"complex128": "float64", "complex64": "float32"}
MEMBERS = 6


def scaled(x: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """``x`` with a largest entry of ``scale``."""
    return (x / np.abs(x).max() * scale).astype(dtype)


def random_matrices(shape: str, spectrum: str, dtype: str, *, beyond: bool = False):
    """Sizes from 1 to 200, condition numbers up to the limit of the contract or beyond it, all scales."""
    rng = np.random.default_rng(
        [list(SHAPES).index(shape), sorted(SPECTRA).index(spectrum), DTYPES.index(dtype), beyond]
    )
    precision = PRECISION.get(dtype, dtype)
    for member in range(MEMBERS // 2 if beyond else MEMBERS):
        n = int(rng.integers(1, 33)) if member % 3 == 0 else int(rng.integers(33, LARGEST + 1))
        m, k = SHAPES[shape](n)
        limit = np.log10(1 / (10 * n * np.finfo(precision).eps))
        share = rng.uniform(1, 2) if beyond else [rng.uniform(0, 1), 0.999][member % 2]
        values = SPECTRA[spectrum](min(m, k), 10 ** (limit * share))
        x = with_spectrum(rng, m, k, values, complex_=dtype.startswith("complex"))
        yield scaled(x, SCALES[precision][member % 3], dtype)


def assert_contract(x: np.ndarray, result, *, backward: bool = True, slack: float = 1) -> None:
    u, h, info = result
    assert np.all(np.isfinite(to_numpy(u)))
    assert np.all(np.isfinite(to_numpy(h)))
    errors = contract_errors(x, u, h)
    assert errors.orthogonality <= slack
    assert errors.asymmetry == 0
    assert bool(info.converged)
    if backward:
        assert errors.backward <= 1
        assert errors.negativity <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_matrices(shape, spectrum, dtype, backend):
    for x in random_matrices(shape, spectrum, dtype):
        assert_contract(x, orthokern.polar(x, backend=backend))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_matrices_beyond_the_limit(shape, spectrum, dtype, backend):
    for x in random_matrices(shape, spectrum, dtype, beyond=True):
        assert_contract(x, orthokern.polar(x, backend=backend), backward=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_matrices(shape, dtype, backend):
    rng = np.random.default_rng(len(shape))
    for n in (1, 2, 3, 5, 17, 32, 33, 64, 100, 150, LARGEST):
        m, k = SHAPES[shape](n)
        x = rng.standard_normal((m, k)) + 1j * rng.standard_normal((m, k))
        x = (x if dtype.startswith("complex") else x.real).astype(dtype)
        assert_contract(x, orthokern.polar(x, backend=backend), backward=is_within(x))


def condition(x: np.ndarray) -> float:
    """sigma_max / sigma_min, computed on a copy with a largest entry of about 1."""
    wide = x.astype(np.clongdouble if np.iscomplexobj(x) else np.longdouble)
    size = np.abs(wide).max()
    if size == 0:
        return np.inf
    s = singular_values((wide / size).astype(np.complex128))
    return s[0] / s[-1] if s[-1] > 0 else np.inf


def is_within(x: np.ndarray) -> bool:
    """Whether the contract promises the backward error."""
    return condition(x) <= largest_condition(x)


def _orthogonal(rng, n):
    return unitary(rng, n, n)


def _upper(n, value):
    return np.triu(np.full((n, n), value), 1)


HARD: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "graded rows": lambda g, n, p: (
        g.standard_normal((n, n)) * 10.0 ** np.linspace(-p, p, n)[:, None]
    ),
    "graded columns": lambda g, n, p: g.standard_normal((n, n)) * 10.0 ** np.linspace(p, -p, n),
    "scaled rows and columns": lambda g, n, p: (
        g.standard_normal((n, n)) * 10 ** g.uniform(-2, 2, (n, 1)) * 10 ** g.uniform(-2, 2, n)
    ),
    "scaled permutation": lambda g, n, p: np.eye(n)[g.permutation(n)] * 10 ** g.uniform(-p, p, n),
    "mildly scaled permutation": lambda g, n, p: (
        np.eye(n)[g.permutation(n)] * 10 ** g.uniform(-1, 1, n)
    ),
    "Kahan": lambda g, n, p: (
        np.sin(1.2) ** np.arange(n)[:, None] * (np.eye(n) - _upper(n, np.cos(1.2)))
    ),
    "tiny diagonal": lambda g, n, p: np.triu(g.standard_normal((n, n)), 1) + 1e-10 * np.eye(n),
    "Jordan block": lambda g, n, p: np.eye(n) / 2 + np.eye(n, k=1),
    "nilpotent": lambda g, n, p: np.eye(n, k=1),
    "ones": lambda g, n, p: np.ones((n, n)),
    "triangle of ones": lambda g, n, p: np.triu(np.ones((n, n))),
    "rank one": lambda g, n, p: np.outer(g.standard_normal(n), g.standard_normal(n)),
    "half rank": lambda g, n, p: g.standard_normal((n, n // 2)) @ g.standard_normal((n // 2, n)),
    "zero row and column": lambda g, n, p: (
        g.standard_normal((n, n)) * (np.arange(n) != n // 2)[:, None] * (np.arange(n) != n // 3)
    ),
    "equal columns": lambda g, n, p: np.repeat(g.standard_normal((n, n)), 2, axis=1)[:, :n],
    "almost orthogonal": lambda g, n, p: _orthogonal(g, n) + 1e-8 * g.standard_normal((n, n)),
    "orthogonal but for rounding": lambda g, n, p: (
        _orthogonal(g, n) + 1e-15 * g.standard_normal((n, n))
    ),
    "repeated but for rounding": lambda g, n, p: with_spectrum(
        g, n, n, np.where(np.arange(n) == n // 2, 1 + 1e-12, 1.0)
    ),
    "integers": lambda g, n, p: np.round(3 * g.standard_normal((n, n))),
    "signs": lambda g, n, p: np.sign(g.standard_normal((n, n))),
    "zeros and ones": lambda g, n, p: (g.standard_normal((n, n)) > 0) * 1.0,
    "one subnormal entry": lambda g, n, p: np.where(
        np.arange(n * n).reshape(n, n) == 1, 10.0 ** (-2 * p - 10), g.standard_normal((n, n))
    ),
    "Hilbert": lambda g, n, p: hilbert(n),
    "Vandermonde": lambda g, n, p: np.vander(np.linspace(-1, 1, n)),
    "antisymmetric": lambda g, n, p: (z := g.standard_normal((n, n))) - z.T,
    "growth of pivots": lambda g, n, p: (
        np.eye(n)
        - np.tril(np.ones((n, n)), -1)
        + (np.arange(n) == n - 1) * (np.arange(n) < n - 1)[:, None]
    ),
    "last bit": lambda g, n, p: with_spectrum(g, n, n, np.where(np.arange(n) < n // 2, 1.0, 1e-17)),
    "twenty digits": lambda g, n, p: with_spectrum(g, n, n, np.logspace(0, -20, n)),
    "largest numbers": lambda g, n, p: scaled(
        g.standard_normal((n, n)), 10.0 ** (2 * p), np.float64
    ),
    "reflector": lambda g, n, p: np.eye(n) - 2 / n,
    "identity and ones": lambda g, n, p: np.eye(n) + 1,
    "identity above ones": lambda g, n, p: np.vstack([np.eye(n), np.ones((7 * n, n))]),
    "identity above its mean": lambda g, n, p: np.vstack(
        [np.eye(n) - 1.3 / n, np.full((7 * n, n), 1 / n)]
    ),
}


# Equal entries round alike: the errors of sums over them add up instead of averaging out.
EQUAL_ENTRIES = {
    "ones",
    "reflector",
    "identity and ones",
    "identity above ones",
    "identity above its mean",
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", HARD)
def test_hard_matrices(kind, dtype, backend):
    rng = np.random.default_rng(len(kind))
    for n in (1, 2, 3, 7, 20, 33, 64, 100, 150):
        # Largest decimal exponents of the entries: half the range of the format.
        x = HARD[kind](rng, n, 17 if PRECISION.get(dtype, dtype) == "float32" else 150)
        x = (x * np.exp(1j * np.arange(x.shape[1])) if dtype.startswith("complex") else x).astype(
            dtype
        )
        half = max(n // 2, 1)
        for part in (x, x[:, :half], x[:half], np.concatenate([x, x[::-1]])):
            result = orthokern.polar(part, backend=backend)
            slack = 3 if kind in EQUAL_ENTRIES else 1
            assert_contract(part, result, backward=is_within(part), slack=slack)


def test_a_few_large_singular_values_in_single_precision(backend):
    """Elimination loses most there, and the loss is of low rank: a random probe sees it with luck only."""
    rng = np.random.default_rng(11)
    for _ in range(1500):
        n = int(rng.integers(33, 110))
        kappa = largest_condition(np.empty((n, n), np.float32)) * rng.uniform(0.5, 0.999)
        values = np.where(np.arange(n) < rng.integers(1, 4), 1.0, 1 / kappa)
        x = with_spectrum(rng, n, n, values).astype(np.float32)
        assert_contract(x, orthokern.polar(x, backend=backend))


@pytest.mark.parametrize("tol", [0.5, 0.3, 0.1, 0.03, 1e-3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_tolerances_on_many_matrices(tol, dtype, backend):
    """What optimizers ask for, at condition numbers that the default plan takes care of."""
    rng = np.random.default_rng(3)
    for _ in range(150):
        n = int(rng.integers(33, 100))
        x = with_spectrum(rng, n, n, np.logspace(0, -rng.uniform(0, 2.9), n)).astype(dtype)
        u, _, info = orthokern.polar(x, tol=tol, backend=backend)
        assert info.converged
        assert np.abs(singular_values(u) - 1).max() <= tol + 20 * n**0.5 * np.finfo(dtype).eps


@pytest.mark.parametrize("method", ["polar_express", "gram", "newton_schulz", "newton", "dwh"])
def test_methods_on_many_matrices(method, backend):
    """The normalization has to bound every spectrum, and the steps have to forgive it if it does not quite."""
    rng = np.random.default_rng(4)
    for _ in range(250):
        m, n = rng.integers(1, 60, 2)
        values = SPECTRA[sorted(SPECTRA)[rng.integers(len(SPECTRA))]](
            min(m, n), 10 ** rng.uniform(0, 2.9)
        )
        x = with_spectrum(rng, m, n, values)
        u, _, info = orthokern.polar(x, method=method, tol=0.1, backend=backend)
        assert info.converged
        assert np.abs(singular_values(u) - 1).max() <= 0.1 + 1e-12


# XLA compiles for every shape anew: few of them, and many matrices of each.
SHARED = [(1, 1), (2, 2), (3, 3), (24, 24), (65, 65), (150, 150), (120, 30), (20, 90)]


@pytest.mark.parametrize("shape", SHARED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_library(shape, dtype, stacking_library, backend):
    rng = np.random.default_rng([*shape, DTYPES.index(dtype)])
    precision = PRECISION.get(dtype, dtype)
    if precision not in libraries.dtypes_of(stacking_library):
        precision, dtype = "float32", dtype.replace("128", "64").replace("float64", "float32")
    for member, spectrum in enumerate(sorted(SPECTRA) * 2):
        limit = largest_condition(np.empty(shape, precision))
        values = SPECTRA[spectrum](min(shape), limit ** [0.999, rng.uniform(0, 1)][member % 2])
        x = with_spectrum(rng, *shape, values, complex_=dtype.startswith("complex"))
        # XLA flushes subnormal entries of h to zero: the smallest scale keeps away from them.
        scales = (1.0, 1e25, 1e-25) if stacking_library == "jax" else SCALES[precision]
        x = scaled(x, scales[member % 3], dtype)
        given = made(x, stacking_library, precision)
        assert_contract(x, orthokern.polar(given, backend=backend))


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (3, 3), (7, 7), (32, 32), (40, 40), (20, 5), (5, 20), (70, 33)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_stacks(shape, dtype, stacking_library, backend):
    """Members of all conditions and scales side by side."""
    rng = np.random.default_rng([*shape, DTYPES.index(dtype), 1])
    precision = PRECISION.get(dtype, dtype)
    if precision not in libraries.dtypes_of(stacking_library):
        precision, dtype = "float32", dtype.replace("128", "64").replace("float64", "float32")
    limit = largest_condition(np.empty(shape, precision))
    scales = (1.0, 1e25, 1e-25) if stacking_library == "jax" else SCALES[precision]
    members = [
        scaled(
            with_spectrum(
                rng,
                *shape,
                SPECTRA[name](min(shape), limit**share),
                complex_=dtype.startswith("complex"),
            ),
            scale,
            dtype,
        )
        for name in sorted(SPECTRA)
        for share in (0.1, 0.6, 0.999)
        for scale in scales
    ]
    x = np.stack(members)
    u, h, info = orthokern.polar(made(x, stacking_library, precision), backend=backend)
    u, h = to_numpy(u), to_numpy(h)
    assert np.all(to_numpy(info.converged))
    for one, v, k in zip(x, u, h, strict=True):
        errors = contract_errors(one, v, k)
        assert errors.worst <= 1
        assert errors.asymmetry == 0


@pytest.mark.parametrize("n", [2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_many_small_matrices(n, precision, backend):
    """Gaussian stacks, integers and nearly singular members: where a closed form goes wrong, it does so rarely."""
    rng = np.random.default_rng(n)
    count = 4000 // n
    stacks = [
        rng.standard_normal((count, n, n)),
        np.round(2 * rng.standard_normal((count, n, n))),
        rng.standard_normal((count, n, n)) * 10 ** rng.uniform(-1, 1, (count, 1, n)),
    ]
    stacks[1][:, 0, 0] += 0.5
    for stack in stacks:
        x = stack.astype(precision)
        u, h, _ = orthokern.polar(x, backend=backend)
        for one, v, k in zip(x, u, h, strict=True):
            assert orthogonality(v, np.finfo(precision).eps) <= 1
            if is_within(one):
                assert contract_errors(one, v, k).worst <= 1
