"""Inverse roots and the matrix sign: known answers, defining equations, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern import ConvergenceWarning, ValuesError
from orthokern.testing.libraries import to_numpy

from .conftest import adjoint, eps_of, made, norm, unitary

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
METHODS = ("eigh", "newton")
EPS = 2.0**-52
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)


def definite(rng, n, values, *, complex_=False):
    q = unitary(rng, n, n, complex_=complex_)
    return (q * values) @ adjoint(q)


def wishart(rng, n, samples):
    z = rng.standard_normal((n, samples))
    return z @ z.T / samples


# Inverse roots


@pytest.mark.parametrize("method", METHODS)
def test_known_roots(library, dtype, backend, method):
    x = made(np.array([[5.0, 4.0], [4.0, 5.0]]), library, dtype)
    if library == "dask" and method == "eigh":
        pytest.skip("Dask has no eigenvalues")
    expected = {
        1: [[5 / 9, -4 / 9], [-4 / 9, 5 / 9]],
        2: [[2 / 3, -1 / 3], [-1 / 3, 2 / 3]],
        4: [[0.788675134594813, -0.211324865405187], [-0.211324865405187, 0.788675134594813]],
    }
    for p, root in expected.items():
        found = to_numpy(orthokern.inverse_pth_root(x, p=p, method=method, backend=backend))
        np.testing.assert_allclose(found, root, rtol=0, atol=40 * eps_of(x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_roots_of_a_wishart_matrix(rng, p, method, backend):
    g = wishart(rng, 60, 240)
    x = orthokern.inverse_pth_root(g, p=p, method=method, backend=backend)
    assert np.array_equal(x, x.T)
    assert norm(np.linalg.matrix_power(x, p) @ g - np.eye(60)) / 60**0.5 <= 1e-13


@pytest.mark.parametrize("p", [2, 4])
def test_the_methods_agree(rng, p):
    g = definite(rng, 20, np.logspace(0, -4, 20))
    by_eigh, by_newton = (orthokern.inverse_pth_root(g, p=p, method=m) for m in METHODS)
    assert norm(by_eigh - by_newton) <= 1e-10 * norm(by_eigh)


@every_backend
@pytest.mark.parametrize("method", METHODS)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 20),
    p=st.integers(1, 6),
    depth=st.floats(0, 5),
    scale=st.integers(-300, 300),
    complex_=st.booleans(),
)
@BOUNDED
def test_the_equation_holds(seed, n, p, depth, scale, complex_, method, backend):
    rng = np.random.default_rng(seed)
    g = definite(rng, n, np.logspace(0, -depth, n), complex_=complex_)
    x = orthokern.inverse_pth_root(g * 2.0**scale, p=p, method=method, backend=backend)
    x = x * 2.0 ** (scale / p)
    error = norm(np.linalg.matrix_power(x, p) @ g - np.eye(n))
    assert error <= 50 * p * n * 10**depth * EPS


def test_ridge_is_relative_to_the_largest_eigenvalue(rng):
    g = definite(rng, 8, np.r_[8.0, np.zeros(7)])
    for method in METHODS:
        x = orthokern.inverse_pth_root(g, p=2, ridge=1e-2, method=method)
        values = np.linalg.eigvalsh(x)
        assert np.allclose(values[1:], 0.08**-0.5, rtol=1e-6)
        assert np.allclose(values[0], 8.08**-0.5, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [[1.0, 0.5, 0.0], [1.0, 0.5, -0.1], [0.0, 0.0, 0.0]],
    ids=["singular", "indefinite", "zero"],
)
def test_what_is_not_definite_is_refused(rng, method, values):
    q = np.eye(3)
    with pytest.raises(ValuesError, match=r"expected positive definite matrices in g.*ridge"):
        orthokern.inverse_pth_root((q * values) @ q.T, p=2, method=method)


def test_a_member_that_is_not_finite(rng, backend):
    g = np.stack([wishart(rng, 5, 20) for _ in range(3)])
    clean = orthokern.inverse_pth_root(g, p=2, backend=backend)
    g[1, 0, 0] = np.nan
    found = orthokern.inverse_pth_root(g, p=2, backend=backend)
    assert np.all(np.isnan(found[1]))
    assert np.array_equal(found[[0, 2]], clean[[0, 2]])


def test_only_the_hermitian_part_counts(rng):
    g = wishart(rng, 6, 30)
    skew = np.triu(rng.standard_normal((6, 6)), 1)
    tilted = orthokern.inverse_pth_root(g + skew - skew.T, p=2)
    assert norm(tilted - orthokern.inverse_pth_root(g, p=2)) <= 1e-13


# The sign


KNOWN_SIGNS = {
    "triangular": ([[3.0, 10.0], [0.0, -2.0]], [[1.0, 4.0], [0.0, -1.0]]),
    "swap": ([[0.0, 2.0], [8.0, 0.0]], [[0.0, 0.5], [2.0, 0.0]]),
    "negative": ([[-5.0]], [[-1.0]]),
    "rotation to the right": ([[1.0, -3.0], [3.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize("name", KNOWN_SIGNS)
def test_known_signs(name, stacking_library, dtype, backend):
    a, s = map(np.array, KNOWN_SIGNS[name])
    x = made(a, stacking_library, dtype)
    found = to_numpy(orthokern.matrix_sign(x, backend=backend))
    np.testing.assert_allclose(found, s, rtol=0, atol=60 * eps_of(x))


def separated(rng, n, distance, *, complex_=False):
    """Not normal; ``distance`` from the imaginary axis at least."""
    values = rng.choice([-1.0, 1.0], n) * (distance + rng.random(n))
    z = rng.standard_normal((2, n, n))
    s = np.eye(n) + 0.4 * (z[0] + 1j * z[1] if complex_ else z[0]) / (2 * n) ** 0.5
    return s @ np.diag(values) @ np.linalg.inv(s), s @ np.diag(np.sign(values)) @ np.linalg.inv(s)


@every_backend
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 25),
    distance=st.sampled_from([1.0, 1e-2, 1e-4]),
    scale=st.sampled_from([1.0, 1e-200, 1e200]),
    complex_=st.booleans(),
)
@BOUNDED
def test_signs_of_separated_spectra(seed, n, distance, scale, complex_, backend):
    a, s = separated(np.random.default_rng(seed), n, distance, complex_=complex_)
    found = orthokern.matrix_sign(a * scale, backend=backend)
    assert norm(found - s) <= 1e3 * n / distance * EPS * norm(s) ** 2
    assert norm(found @ found - np.eye(n)) <= 1e2 * n * EPS * norm(s) ** 2


def test_the_sign_of_a_hermitian_matrix_is_its_polar_factor(rng, dtype):
    a = definite(rng, 12, np.r_[np.linspace(1, 3, 7), -np.linspace(1, 2, 5)]).astype(dtype)
    a = (a + a.T) / 2
    found = orthokern.matrix_sign(a)
    assert norm(found - orthokern.polar(a).u) <= 200 * eps_of(a)


def test_an_eigenvalue_on_the_axis_is_reported():
    with pytest.warns(ConvergenceWarning, match="matrix_sign.*imaginary axis"):
        orthokern.matrix_sign(np.array([[0.0, 1.0], [-1.0, 0.0]]))


def test_a_singular_matrix_is_reported():
    with pytest.warns(ConvergenceWarning, match="matrix_sign"):
        found = orthokern.matrix_sign(np.diag([1.0, 0.0]))
    assert not np.all(np.isfinite(found))


def test_members_are_independent(rng, backend):
    a = np.stack([separated(rng, 6, 1.0)[0] for _ in range(4)])
    clean = orthokern.matrix_sign(a, backend=backend)
    a[2, 3, 3] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = orthokern.matrix_sign(a, backend=backend)
    assert np.all(np.isnan(found[2]))
    kept = [0, 1, 3]
    np.testing.assert_allclose(found[kept], clean[kept], atol=1e-13)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 2, 2)])
def test_empty(shape, stacking_library):
    x = made(np.zeros(shape), stacking_library, "float64")
    assert tuple(orthokern.matrix_sign(x).shape) == shape
    assert tuple(orthokern.inverse_pth_root(x).shape) == shape


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda a: orthokern.inverse_pth_root(a[:2]), ValueError, "expected square matrices"),
        (lambda a: orthokern.inverse_pth_root(a, p=0), ValueError, "expected p to be an integer >= 1, got 0"),
        (lambda a: orthokern.inverse_pth_root(a, p=2.5), ValueError, "expected p to be an integer"),
        (lambda a: orthokern.inverse_pth_root(a, ridge=-1), ValueError, "expected ridge"),
        (lambda a: orthokern.inverse_pth_root(a, method="svd"), ValueError, "'eigh', 'newton', got 'svd'"),
        (lambda a: orthokern.inverse_pth_root(a.astype(int)), TypeError, "cast to a floating dtype"),
        (lambda a: orthokern.inverse_pth_root(a / 0, check_finite=True), ValueError, "expected finite values in g"),
        (lambda a: orthokern.matrix_sign(a[:2]), ValueError, "expected square matrices"),
        (lambda a: orthokern.matrix_sign(a.astype(int)), TypeError, "cast to a floating dtype"),
        (lambda a: orthokern.matrix_sign(a / 0, check_finite=True), ValueError, "expected finite values in x"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.eye(3))
