"""The rules of ROOT and AuON: known answers, the papers' figures, what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.spectral import polar_express_coefficients, shape_coefficients
from orthokern.spectral.coefficients import PRESETS
from orthokern.spectral.optimizer import ROOT_TABLE
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from .conftest import eps_of, made, singular_values

BOUNDED = settings(derandomize=True, max_examples=60, deadline=None, database=None)
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)


# Soft threshold and the split


def test_soft_threshold(library, dtype, backend):
    x = made(np.array([[-3.0, -0.5, 0.0], [0.25, 1.0, 7.5]]), library, dtype)
    found = to_numpy(orthokern.soft_threshold(x, 1.0, backend=backend))
    assert np.array_equal(found, [[-2.0, 0.0, 0.0], [0.0, 0.0, 6.5]])


def test_complex_numbers_keep_their_phase(stacking_library, backend):
    x = made(np.array([3 + 4j, 0.3 - 0.4j, 0]), stacking_library, "float64")
    found = to_numpy(orthokern.soft_threshold(x, 2.5, backend=backend))
    np.testing.assert_allclose(found, [1.5 + 2j, 0, 0], atol=1e-15)


def test_thresholds_that_broadcast(stacking_library, dtype, backend):
    x = made(np.array([[1.0, 2.0], [3.0, 4.0]]), stacking_library, dtype)
    t = made(np.array([[0.5], [3.5]]), stacking_library, dtype)
    assert np.array_equal(
        to_numpy(orthokern.soft_threshold(x, t, backend=backend)), [[0.5, 1.5], [0, 0.5]]
    )


def test_not_a_number_stays(backend):
    found = orthokern.soft_threshold(np.array([np.nan, np.inf, -np.inf, 2.0]), 1.0, backend=backend)
    assert np.array_equal(found, [np.nan, np.inf, -np.inf, 1.0], equal_nan=True)


def test_known_split(library, dtype, backend):
    x = made(np.array([[-3.0, 0.5], [1.0, 2.0]]), library, dtype)
    base, outlier, threshold = orthokern.outlier_split(x, quantile=0.9, backend=backend)
    tolerance = 4 * eps_of(x) + 2e-9
    np.testing.assert_allclose(to_numpy(base), [[-2.7, 0.5], [1, 2]], rtol=0, atol=tolerance)
    np.testing.assert_allclose(to_numpy(outlier), [[-0.3, 0], [0, 0]], rtol=0, atol=tolerance)
    np.testing.assert_allclose(to_numpy(threshold), 2.7, rtol=tolerance)
    assert tuple(threshold.shape) == ()


@every_backend
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (2, 3), (7, 5), (3, 4, 6), (40, 33)]),
    quantile=st.floats(0, 1),
    distinct=st.sampled_from([0, 1, 3, 10**6]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@BOUNDED
def test_the_threshold_is_the_quantile(seed, shape, quantile, distinct, dtype, backend):
    """Equal entries, exact places and ends included."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) if distinct else np.zeros(shape)
    x = (np.round(x * distinct) / max(distinct, 1)).astype(dtype)
    base, outlier, threshold = orthokern.outlier_split(x, quantile=quantile, backend=backend)
    flat = np.abs(x).reshape(*shape[:-2], -1).astype(float)
    exact = np.quantile(flat, quantile, axis=-1) + 1e-9
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(threshold, exact, rtol=4 * eps)
    assert np.all(np.abs(base + outlier - x) <= eps * np.abs(x))
    assert np.all(np.abs(base) <= np.asarray(threshold)[..., None, None] * (1 + 2 * eps))


def test_a_given_threshold(rng, backend):
    x = rng.standard_normal((2, 4, 5))
    limits = np.array([0.5, 1.0])
    base, outlier, threshold = orthokern.outlier_split(x, threshold=limits, backend=backend)
    assert np.array_equal(threshold, limits)
    assert np.array_equal(base, np.clip(x, -limits[:, None, None], limits[:, None, None]))
    np.testing.assert_allclose(base + outlier, x, atol=1e-15)


def test_not_a_number_spoils_its_own_matrix_only(rng, backend):
    x = rng.standard_normal((3, 4, 5))
    clean = orthokern.outlier_split(x, backend=backend)
    x[1, 2, 2] = np.nan
    found = orthokern.outlier_split(x, backend=backend)
    assert np.isnan(found.threshold[1])
    for got, expected in zip(found, clean, strict=True):
        assert np.array_equal(got[[0, 2]], expected[[0, 2]])


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
def test_a_threshold_of_another_library_is_refused():
    x = libraries.to_library(X, "torch")
    with pytest.raises(TypeError, match="got a mixture of numpy and torch"):
        orthokern.soft_threshold(x, np.ones((3, 1)))


# Coefficients by shape


def gaussian_spectrum(m, n, rng):
    """Singular values of a Gaussian m x n matrix over its Frobenius norm, from the bidiagonal model."""
    m, n = max(m, n), min(m, n)
    d = np.sqrt(rng.chisquare(m - np.arange(n)))
    e = np.sqrt(rng.chisquare(n - 1 - np.arange(n - 1)))
    from scipy.linalg import eigvalsh_tridiagonal

    values = eigvalsh_tridiagonal(d**2 + np.r_[e**2, 0], d[1:] * e)
    s = np.sqrt(np.maximum(values, 0))
    return s / np.linalg.norm(s)


def applied(s, polynomials):
    for a, b, c in polynomials:
        s = s * (a + b * s**2 + c * s**4)
    return s


def error(s):
    return np.mean((s - 1) ** 2)


# Shape: five steps of jordan, of ROOT's table, of the classic quintic.
PUBLISHED = {
    (2048, 2048): (4.99e-2, 3.93e-2, 4.19e-1),
    (2048, 3072): (3.38e-2, 1.64e-2, 3.61e-1),
    (2048, 8192): (3.40e-2, 1.53e-3, 3.03e-1),
    (2048, 16384): (4.25e-2, 4.01e-3, 2.87e-1),
}


@pytest.mark.parametrize("shape", PUBLISHED)
def test_the_table_of_root(shape):
    s = gaussian_spectrum(*shape, np.random.default_rng(1))
    sequences = (PRESETS["jordan"][:1] * 5, (ROOT_TABLE[shape],) * 5, PRESETS["classic"][:1] * 5)
    found = [error(applied(s, polynomials)) for polynomials in sequences]
    np.testing.assert_allclose(found, PUBLISHED[shape], rtol=0.05)


# Shape, steps, the error that the sequence for the shape reaches.
REACHED = {
    ((2048, 3072), 2): 3.4e-3,
    ((2048, 3072), 3): 6.3e-8,
    ((2048, 4096), 2): 2.0e-4,
    ((2048, 8192), 2): 4.6e-7,
    ((2048, 16384), 2): 1.9e-9,
}


@pytest.mark.parametrize(("shape", "steps"), REACHED)
def test_the_sequence_for_the_shape_beats_the_table(shape, steps):
    s = gaussian_spectrum(*shape, np.random.default_rng(1))
    found = error(applied(s, shape_coefficients(*shape, steps)))
    assert found <= 1.5 * REACHED[shape, steps]
    if shape in PUBLISHED:
        assert found < PUBLISHED[shape][1]


@pytest.mark.parametrize("shape", [(60, 60), (60, 20), (20, 90), (1, 7)])
def test_a_gaussian_gradient(shape, rng, stacking_library, dtype):
    x = made(rng.standard_normal(shape), stacking_library, dtype)
    u = to_numpy(orthokern.root_orthogonalize(x)).astype(float)
    s = singular_values(u)
    assert s[0] < 1.2
    assert np.sqrt(error(s)) < (0.25 if shape[0] == shape[1] else 2e-2)


def test_a_spike_does_not_diverge(rng):
    """One singular value far above the limit of a Gaussian matrix."""
    x = rng.standard_normal((40, 100))
    x += 200 * np.outer(rng.standard_normal(40), rng.standard_normal(100))
    s = singular_values(orthokern.root_orthogonalize(x))
    assert s[0] < 1.2


def test_published_coefficients_on_their_shape(rng):
    x = rng.standard_normal((6, 4))
    with_table = orthokern.root_orthogonalize(x, coefficients="table")
    assert np.array_equal(with_table, orthokern.newton_schulz(x, steps=5, coefficients="jordan"))


def test_zero_and_empty(backend):
    assert not np.any(orthokern.root_orthogonalize(np.zeros((4, 3)), backend=backend))
    assert orthokern.root_orthogonalize(np.zeros((0, 3)), backend=backend).shape == (0, 3)
    assert not np.any(orthokern.cosh_rms_scale(np.zeros((4, 3)), backend=backend))
    assert orthokern.cosh_rms_scale(np.zeros((4, 0)), backend=backend).shape == (4, 0)


def test_shape_coefficients_are_polar_express_for_an_interval():
    first, *rest = shape_coefficients(100, 400, 3)
    low, high = 0.9 * (20 - 10) / 200, 1.03 * (20 + 10) / 200
    expected = polar_express_coefficients(low / high, 3, safety=0.0)
    np.testing.assert_allclose(first, np.array(expected[0]) / high ** np.array([1, 3, 5]))
    np.testing.assert_allclose(rest, expected[1:])


# AuON


def test_known_scales(library, dtype, backend):
    x = made(np.array([[1.0, -2.0], [3.0, 4.0]]), library, dtype)
    expected = {
        (1.0, True): [[0.161068646859566, -0.322137293719132], [0.483205940578698, 0.644274587438264]],
        (1.5, False): [[0.755223148182472, -1.510446296364944], [2.265669444547417, 3.020892592729889]],
    }  # fmt: skip
    for (gamma, normalize), out in expected.items():
        found = orthokern.cosh_rms_scale(x, gamma=gamma, normalize=normalize, backend=backend)
        np.testing.assert_allclose(to_numpy(found), out, rtol=2e-8 + 8 * eps_of(x))


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e300])
def test_the_scale_of_a_gradient_does_not_matter(rng, backend, scale):
    """But where the guard of the published formula takes over."""
    x = rng.standard_normal((3, 8, 5))
    found = orthokern.cosh_rms_scale(x * scale, backend=backend)
    assert np.all(np.isfinite(found))
    if scale >= 1:
        np.testing.assert_allclose(found, orthokern.cosh_rms_scale(x, backend=backend), rtol=1e-6)


def test_it_divides_by_little_more_than_the_norm(rng):
    """R is between 1 and cosh(gamma), and tends to 1."""
    for n, limit in ((1, np.cosh(1.0)), (4, 1.05), (64, 1.0002)):
        x = rng.standard_normal((n, n))
        ratio = np.linalg.norm(x / np.linalg.norm(x)) / np.linalg.norm(orthokern.cosh_rms_scale(x))
        assert 1 - 1e-6 <= ratio <= limit + 1e-6


def test_a_member_that_is_not_finite(rng, backend):
    x = rng.standard_normal((3, 4, 5))
    clean = orthokern.cosh_rms_scale(x, backend=backend)
    x[1, 0, 0] = np.inf
    found = orthokern.cosh_rms_scale(x, backend=backend)
    assert np.all(np.isnan(found[1]))
    assert np.array_equal(found[[0, 2]], clean[[0, 2]])


X = np.ones((3, 3))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: orthokern.soft_threshold(X, -1.0), ValueError, "expected threshold to be a finite number >= 0"),
        (lambda: orthokern.soft_threshold(X, np.full((3, 3), -1.0)), ValueError, "expected every entry of threshold"),
        (lambda: orthokern.soft_threshold(X.astype(int), 1.0), TypeError, "cast to a floating dtype"),
        (lambda: orthokern.soft_threshold(X, np.ones(4)), ValueError, "expected threshold to broadcast"),
        (lambda: orthokern.soft_threshold(X, np.ones((2, 3, 3))), ValueError, "expected threshold to broadcast"),
        (lambda: orthokern.outlier_split(X, quantile=1.5), ValueError, "expected quantile to be a number from 0"),
        (lambda: orthokern.outlier_split(X, quantile=np.nan), ValueError, "expected quantile to be a number from 0"),
        (lambda: orthokern.outlier_split(X, quantile="a"), ValueError, "expected quantile to be a number from 0"),
        (lambda: orthokern.outlier_split(X, threshold=np.ones(4)), ValueError, "expected threshold to broadcast"),
        (lambda: orthokern.outlier_split(np.ones((0, 3))), ValueError, "expected at least one entry in x"),
        (lambda: orthokern.root_orthogonalize(X, coefficients="own"), ValueError, "'shape', 'table', got 'own'"),
        (lambda: orthokern.root_orthogonalize(X, steps=0), ValueError, "expected steps"),
        (lambda: shape_coefficients(0, 3), ValueError, "expected m to be an integer >= 1"),
        (lambda: orthokern.cosh_rms_scale(X, gamma=0.0), ValueError, "expected gamma"),
        (lambda: orthokern.cosh_rms_scale(X * 1j), TypeError, "real"),
        (lambda: orthokern.cosh_rms_scale(X, normalize="yes"), ValueError, "expected normalize to be True or False"),
    ],
)  # fmt: skip
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
