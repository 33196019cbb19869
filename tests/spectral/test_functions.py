"""Clipped singular values, bounds of the norm, the oracle of the spectral ball: known answers and what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import adjoint, eps_of, made, norm, singular_values, unitary, with_spectrum

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
A = np.array([[3.0, 0.0], [4.0, 5.0]])
HARD_AT_2 = [[1.788854381999831, -0.894427190999916], [0.894427190999916, 1.788854381999831]]
SOFT_AT_2 = [[1.428571428571428, -0.571428571428571], [0.952380952380952, 1.619047619047619]]


def mapped(x, function):
    """``P f(S) Q^H`` in float64."""
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    return (p * function(s)[..., None, :]) @ qh


def assert_near(computed, expected, tolerance, scale=1.0):
    """Frobenius distance in units of ``scale``."""
    error = norm(to_numpy(computed) - expected) / scale
    assert np.all(error <= tolerance), f"{np.max(error):.2e} > {tolerance:.2e}"


# Known answers


def test_hard_clip(library, dtype, backend):
    x = made(A, library, dtype)
    assert_near(
        orthokern.spectral_clip(x, 2.0, backend=backend), HARD_AT_2, 10 * eps_of(x), norm(A)
    )


def test_soft_clip(library, dtype, backend):
    x = made(A, library, dtype)
    assert_near(
        orthokern.soft_spectral_clip(x, 2.0, backend=backend), SOFT_AT_2, 10 * eps_of(x), 2.0
    )


@pytest.mark.parametrize("kernel", [orthokern.spectral_clip, orthokern.soft_spectral_clip])
def test_a_limit_for_each_matrix(kernel, stacking_library, dtype, backend, rng):
    a = rng.standard_normal((3, 2, 5, 4))
    limits = np.array([[0.5], [1.0], [7.0]])
    x, c = made(a, stacking_library, dtype), made(limits, stacking_library, dtype)
    together = to_numpy(kernel(x, c, backend=backend))
    for i in range(3):
        alone = kernel(made(a[i], stacking_library, dtype), float(limits[i, 0]), backend=backend)
        assert_near(together[i], to_numpy(alone), 40 * eps_of(x), norm(a[i]))


def test_lower_limit(library, dtype, backend, rng):
    a = with_spectrum(rng, 9, 6, np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.125]))
    x = made(a, library, dtype)
    clipped = orthokern.spectral_clip(x, 1.5, lower=0.4, backend=backend)
    exact = mapped(to_numpy(x).astype(float), lambda s: np.clip(s, 0.4, 1.5))
    assert_near(clipped, exact, 60 * eps_of(x), norm(a))


# Hard input


def test_half_of_the_values_at_the_limit(place, dtype, rng):
    """Signs of ``H - c I`` are arbitrary there, the result is not."""
    values = np.r_[np.linspace(3, 1.1, 15), np.ones(30), np.full(15, 0.3)]
    x = made(with_spectrum(rng, 60, 60, values), place.library, dtype)
    clipped = orthokern.spectral_clip(x, 1.0, backend=place.backend)
    exact = mapped(to_numpy(x).astype(float), lambda s: np.minimum(s, 1.0))
    assert_near(clipped, exact, 40 * eps_of(x), norm(exact))


@pytest.mark.parametrize("ratio", [3, 30, 100, 1000, 1e6])
def test_soft_clip_far_above_the_limit(place, dtype, rng, ratio):
    """Where a fixed number of Newton-Schulz steps fails."""
    a = with_spectrum(rng, 40, 25, np.logspace(0, -4, 25))
    x = made(a, place.library, dtype)
    soft = orthokern.soft_spectral_clip(x, 1 / ratio, backend=place.backend)
    exact = mapped(to_numpy(x).astype(float), lambda s: s / np.sqrt(1 + (s * ratio) ** 2))
    # Rounding of the input alone moves the result by eps s_1 / c, or by eps times the condition number.
    assert_near(soft, exact, 20 * (1 + min(ratio, 1e4)) * eps_of(x), norm(exact))


def test_steps_of_the_published_code():
    """They lose the singular values below the limit: ten steps half of them where the norm is a hundred limits."""
    errors = []
    for ratio, steps in [(3.0, 5), (3.0, 10), (100.0, 10)]:
        x = np.diag([1.0, 1e-3 / ratio])
        exact = orthokern.soft_spectral_clip(x, 1 / ratio)
        by_steps = orthokern.soft_spectral_clip(x, 1 / ratio, steps=steps)
        errors.append(1 - by_steps[1, 1] / exact[1, 1])
    assert 1e-3 < errors[0] < 5e-3
    assert abs(errors[1]) < 1e-12
    assert 0.45 < errors[2] < 0.5


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("kernel", [orthokern.spectral_clip, orthokern.soft_spectral_clip])
def test_scales(kernel, backend, rng, scale):
    a = rng.standard_normal((12, 8))
    expected = kernel(a, 1.5, backend=backend)
    scaled = kernel(a * scale, 1.5 * scale, backend=backend)
    assert_near(scaled / scale, expected, 1e-13)


@pytest.mark.parametrize("c", [1e-300, 1e-30, 1e30, 1e300])
def test_limits_out_of_all_proportion(backend, rng, c):
    a = rng.standard_normal((12, 8))
    hard, soft = (
        kernel(a, c, backend=backend)
        for kernel in (orthokern.spectral_clip, orthokern.soft_spectral_clip)
    )
    if c > 1:
        assert np.array_equal(hard, a)
        assert_near(soft, a, 1e-14)
    else:
        assert_near(soft / c, orthokern.orthogonalize(a), 1e-13)
        assert np.linalg.norm(hard, 2) <= 1e-13


@pytest.mark.parametrize("kernel", [orthokern.spectral_clip, orthokern.soft_spectral_clip])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_zero_and_rank_one(kernel, place, dtype, rng, shape):
    zero = made(np.zeros(shape), place.library, dtype)
    assert not np.any(to_numpy(kernel(zero, 1.0, backend=place.backend)))
    one = np.outer(np.ones(shape[0]), np.arange(1.0, shape[1] + 1))
    x = made(one, place.library, dtype)
    factor = to_numpy(kernel(x, 1.0, backend=place.backend)) @ np.linalg.pinv(one)
    top = np.linalg.norm(one, 2)
    ends_at = 1.0 if kernel is orthokern.spectral_clip else top / np.sqrt(1 + top**2)
    assert_near(factor, ends_at / top * (one @ np.linalg.pinv(one)), 20 * eps_of(x))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 4), (0, 3, 3)])
def test_empty(shape, stacking_library):
    x = made(np.zeros(shape), stacking_library, "float32")
    for result in (
        orthokern.spectral_clip(x, 1.0),
        orthokern.soft_spectral_clip(x, 1.0),
        orthokern.soft_spectral_clip(x, 1.0, steps=3),
        orthokern.lmo_spectral_ball(x),
    ):
        assert tuple(result.shape) == shape
        assert result.dtype == x.dtype
    lower, upper = orthokern.spectral_norm_bounds(x)
    assert tuple(lower.shape) == tuple(upper.shape) == shape[:-2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kernel", [orthokern.spectral_clip, orthokern.soft_spectral_clip])
def test_members_that_are_not_finite(kernel, stacking_place, rng, bad):
    a = rng.standard_normal((3, 6, 4))
    clean = a.copy()
    clean[1] = np.eye(6, 4)
    a[1, 2, 3] = bad
    result, expected = (
        to_numpy(
            kernel(made(b, stacking_place.library, "float64"), 0.7, backend=stacking_place.backend)
        )
        for b in (a, clean)
    )
    assert np.all(np.isnan(result[1]))
    assert np.array_equal(result[[0, 2]], expected[[0, 2]])


def test_low_precision(rng):
    x = rng.standard_normal((9, 5)).astype(np.float16)
    for kernel in (orthokern.spectral_clip, orthokern.soft_spectral_clip):
        result = kernel(x, 1.0)
        assert result.dtype == np.float16
        assert_near(result, kernel(x.astype(np.float64), 1.0), 2**-10)


# What must hold for every matrix


@st.composite
def problems(draw):
    """A matrix of any shape and spectrum, real or complex, and a limit among its singular values."""
    m, n = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k = min(m, n)
    values = 10.0 ** rng.uniform(-draw(st.floats(0.0, 6.0)), 0.0, k)
    values[: draw(st.integers(0, k))] = values[0]
    a = with_spectrum(rng, m, n, values, complex_=draw(st.booleans()))
    c = float(draw(st.sampled_from([1.0, 1.1, 0.37])) * draw(st.sampled_from(list(values))))
    return a, c, rng


every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)
EPS = 2.0**-52


@every_backend
@given(problem=problems())
@BOUNDED
def test_clip_is_the_projection_on_the_ball(problem, backend):
    """``Re <X - P, Y - P> <= 0`` for every Y in the ball, which only the nearest point satisfies."""
    a, c, rng = problem
    p = orthokern.spectral_clip(a, c, backend=backend)
    size = norm(a)
    assert singular_values(p)[0] <= c + 60 * EPS * size
    for _ in range(3):
        y = rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape)
        y = y if np.iscomplexobj(a) else y.real
        y *= c / np.linalg.norm(y, 2)
        assert np.sum(np.conj(a - p) * (y - p)).real <= 200 * EPS * size**2


@every_backend
@given(problem=problems())
@BOUNDED
def test_clip_is_idempotent_and_does_not_stretch(problem, backend):
    a, c, rng = problem
    p = orthokern.spectral_clip(a, c, backend=backend)
    assert_near(orthokern.spectral_clip(p, c, backend=backend), p, 100 * EPS, norm(a))
    b = a + 0.1 * norm(a) * unitary(rng, *a.shape) if a.shape[0] >= a.shape[1] else 0.5 * a
    q = orthokern.spectral_clip(b, c, backend=backend)
    assert norm(p - q) <= norm(a - b) + 200 * EPS * norm(a)


@every_backend
@given(problem=problems())
@BOUNDED
def test_both_clips_agree_with_the_decomposition(problem, backend):
    a, c, _ = problem
    hard = mapped(a, lambda s: np.minimum(s, c))
    assert_near(orthokern.spectral_clip(a, c, backend=backend), hard, 100 * EPS, norm(a))
    soft = mapped(a, lambda s: s / np.sqrt(1 + (s / c) ** 2))
    found = orthokern.soft_spectral_clip(a, c, backend=backend)
    s = singular_values(a)
    assert_near(found, soft, 60 * (1 + min(s[0] / c, s[0] / s[-1])) * EPS, norm(soft))
    assert singular_values(found)[0] <= min(c, singular_values(a)[0]) * (1 + 100 * EPS)


@every_backend
@given(problem=problems())
@BOUNDED
def test_wide_is_tall_turned(problem, backend):
    a, c, _ = problem
    for kernel in (orthokern.spectral_clip, orthokern.soft_spectral_clip):
        turned = adjoint(kernel(adjoint(a), c, backend=backend))
        assert_near(kernel(a, c, backend=backend), turned, 100 * EPS, norm(a))


@every_backend
@given(problem=problems())
@BOUNDED
def test_bounds_hold(problem, backend):
    a, _, _ = problem
    lower, upper = orthokern.spectral_norm_bounds(a, backend=backend)
    top = singular_values(a)[0]
    assert lower <= top * (1 + 100 * EPS)
    assert upper >= top * (1 - 100 * EPS)
    assert upper <= norm(a) * (1 + 100 * EPS)


@every_backend
@given(problem=problems())
@BOUNDED
def test_the_oracle_is_optimal(problem, backend):
    g, radius, _ = problem
    x = orthokern.lmo_spectral_ball(g, radius, backend=backend)
    assert singular_values(x)[0] <= radius * (1 + 100 * EPS)
    value, best = np.sum(np.conj(g) * x).real, -radius * singular_values(g).sum()
    assert abs(value - best) <= 200 * EPS * abs(best)


def test_lower_bound_on_a_gap():
    """A dominant value is found to rounding."""
    a = np.diag([1.0, 0.3, 0.2, 0.1])
    lower, upper = orthokern.spectral_norm_bounds(a)
    assert abs(lower - 1) <= 4 * EPS
    assert upper == 1.0


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthokern.spectral_clip(A, 0.0), "expected c to be a finite number > 0, got 0.0"),
        (lambda: orthokern.spectral_clip(A, np.nan), "expected c to be a finite number"),
        (lambda: orthokern.spectral_clip(A, 1.0, lower=2.0), "expected c to be a finite number >= 2"),
        (lambda: orthokern.spectral_clip(A, 1.0, lower=-1.0), "expected lower to be a finite number >= 0"),
        (lambda: orthokern.spectral_clip(A, np.ones(3)), "expected c to broadcast against the batch shape"),
        (lambda: orthokern.spectral_clip(A, np.array(-1.0)), "expected every entry of c to be finite and > 0"),
        (lambda: orthokern.soft_spectral_clip(A, "2"), "expected c to be a finite number > 0, got '2'"),
        (lambda: orthokern.soft_spectral_clip(A, 1.0, steps=0), "expected steps to be an integer >= 1"),
        (lambda: orthokern.lmo_spectral_ball(A, 0.0), "expected radius to be a finite number > 0"),
        (lambda: orthokern.lmo_spectral_ball(A, tol=2.0), "tol"),
        (lambda: orthokern.spectral_norm_bounds(A, steps=0), "expected steps to be an integer >= 1"),
        (lambda: orthokern.spectral_norm_bounds(A[0]), "got shape"),
        (lambda: orthokern.spectral_clip(A * np.nan, 1.0, check_finite=True), "expected finite values in x"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [int, bool])
def test_integers_are_refused(dtype):
    x = np.ones((3, 3), dtype=dtype)
    for call in (
        lambda: orthokern.spectral_clip(x, 1.0),
        lambda: orthokern.soft_spectral_clip(x, 1.0),
        lambda: orthokern.lmo_spectral_ball(x),
        lambda: orthokern.spectral_norm_bounds(x),
    ):
        with pytest.raises(TypeError, match="cast to a floating dtype first"):
            call()
