"""Fixed polynomial iterations against their formula, on every library; what optimizers feed them; published figures."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from .conftest import adjoint, eps_of, made, norm, with_spectrum

JORDAN = (3.4445, -4.7750, 2.0315)
CLASSIC = (1.875, -1.25, 0.375)
ROOT = {
    (2048, 2048): (3.4916, -4.8224, 2.1095),
    (2048, 3072): (3.4509, -4.5790, 1.9325),
    (2048, 8192): (2.9794, -3.6674, 1.6207),
    (2048, 16384): (3.1943, -3.8221, 1.5322),
}
FIGURES = {
    (2048, 2048): (4.99e-2, 3.93e-2, 4.19e-1),
    (2048, 3072): (3.38e-2, 1.64e-2, 3.61e-1),
    (2048, 8192): (3.40e-2, 1.53e-3, 3.03e-1),
    (2048, 16384): (4.25e-2, 4.01e-3, 2.87e-1),
}
SHAPES = [(12, 12), (40, 15), (15, 40), (1, 9), (9, 1), (1, 1), (3, 20, 8), (3, 8, 20)]


def plain(x, coefficients, steps, dtype=np.float64):
    """The textbook iteration on the shorter side, Frobenius-normalized, nothing fused and nothing balanced."""
    x = np.asarray(x, dtype=np.result_type(dtype, np.complex64) if np.iscomplexobj(x) else dtype)
    wide = x.shape[-2] < x.shape[-1]
    y = x if wide else adjoint(x)
    y = y / np.sqrt(np.sum(np.abs(y) ** 2, axis=(-2, -1), keepdims=True))
    for i in range(steps):
        a, b, c = (*coefficients[min(i, len(coefficients) - 1)], 0)[:3]
        g = y @ adjoint(y)
        y = a * y + (b * g + c * g @ g) @ y
    return y if wide else adjoint(y)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_formula(shape, complex_, steps, backend, rng):
    x = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)
    found = orthokern.newton_schulz(x, steps=steps, backend=backend)
    assert found.dtype == x.dtype
    # Each step multiplies errors by 3.4445 at most.
    assert norm(found - plain(x, [JORDAN], steps)) <= 50 * 3.5**steps * np.finfo(float).eps * norm(
        found
    )


@pytest.mark.parametrize("shape", [(48, 48), (96, 32), (32, 96)])
def test_single_precision_equals_the_plain_formula(shape, stacking_library, backend, rng):
    """Muon in float32: within 1e-5."""
    x = rng.standard_normal(shape).astype(np.float32)
    found = to_numpy(orthokern.newton_schulz(made(x, stacking_library, "float32"), backend=backend))
    expected = plain(x, [JORDAN], 5, np.float32)
    assert norm(found - expected) <= 1e-5 * norm(expected)


@pytest.mark.parametrize("name", ["jordan", "you", "classic"])
def test_presets(name, backend, rng):
    from orthokern.spectral.coefficients import PRESETS

    x = rng.standard_normal((20, 13))
    for steps in (1, 3, 5, 8):
        found = orthokern.newton_schulz(x, steps=steps, coefficients=name, backend=backend)
        assert norm(found - plain(x, PRESETS[name], steps)) <= 1e-9 * norm(found)


@pytest.mark.parametrize(
    "coefficients",
    [((1.5, -0.5),), ((2.0, -1.5, 0.5), (1.5, -0.5)), [[1.875, -1.25, 0.375], [3.0, -3.0, 1.0]]],
)
def test_mixed_sequences(coefficients, backend, rng):
    x = rng.standard_normal((11, 30))
    for steps in (1, 2, 4):
        found = orthokern.newton_schulz(x, steps=steps, coefficients=coefficients, backend=backend)
        assert norm(found - plain(x, coefficients, steps)) <= 1e-12 * norm(found)


def test_more_steps_of_the_classic_preset_converge(library, dtype, rng):
    x = with_spectrum(rng, 24, 16, np.linspace(1, 0.1, 16))
    given = made(x, library, dtype)
    found = orthokern.newton_schulz(given, steps=14, coefficients="classic")
    p, _, qh = np.linalg.svd(x, full_matrices=False)
    assert norm(to_numpy(found) - p @ qh) <= 400 * eps_of(found)


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (1, 1), (40, 40), (2, 5, 5), (64, 8)])
@pytest.mark.parametrize("normalization", ["frobenius", "schatten4", "spectral", "aol"])
def test_a_zero_gradient_gives_exactly_zero(shape, normalization, stacking_library, dtype, backend):
    x = made(np.zeros(shape), stacking_library, dtype)
    found = orthokern.newton_schulz(x, normalization=normalization, backend=backend)
    np.testing.assert_array_equal(to_numpy(found), np.zeros(shape))
    assert found.dtype == x.dtype


def test_zero_members_of_a_stack(stacking_library, backend, rng):
    a = rng.standard_normal((4, 6, 5))
    a[[1, 3]] = 0
    found = to_numpy(orthokern.newton_schulz(made(a, stacking_library, "float32"), backend=backend))
    assert not np.any(found[[1, 3]])
    assert norm(found[0] - plain(a[0], [JORDAN], 5)) <= 1e-5 * norm(found[0])
    assert norm(found[2] - plain(a[2], [JORDAN], 5)) <= 1e-5 * norm(found[2])


@pytest.mark.parametrize(
    ("scale", "precision"),
    [(1e-30, "float32"), (1e30, "float32"), (1e-300, "float64"), (1e300, "float64")],
)
@pytest.mark.parametrize("normalization", ["frobenius", "schatten4", "spectral", "aol"])
def test_tiny_and_huge_gradients(scale, precision, normalization, stacking_library, backend, rng):
    """1e-30 I is no smaller than I: an iteration with an additive guard makes 1e-20 I of it."""
    if stacking_library == "jax" and abs(np.log10(scale)) > 100:
        scale = scale**0.1
    for a in (np.eye(6), rng.standard_normal((9, 5))):
        options = {"normalization": normalization, "backend": backend}
        found = orthokern.newton_schulz(made(scale * a, stacking_library, precision), **options)
        expected = orthokern.newton_schulz(made(a, stacking_library, precision), **options)
        error = norm(to_numpy(found) - to_numpy(expected))
        assert error <= 1e3 * eps_of(found) * norm(to_numpy(expected))
    value = 6**-0.5
    for _ in range(5):
        value = JORDAN[0] * value + JORDAN[1] * value**3 + JORDAN[2] * value**5
    if normalization == "frobenius":
        tiny = orthokern.newton_schulz(
            made(scale * np.eye(6), stacking_library, precision), backend=backend
        )
        np.testing.assert_allclose(
            to_numpy(tiny), value * np.eye(6), rtol=0, atol=1e3 * eps_of(tiny)
        )


@pytest.mark.parametrize("shape", [(16, 16), (50, 20), (20, 50), (3, 30, 30)])
def test_normalizations(shape, backend, rng):
    """What each divides by: known norms of the singular values."""
    x = np.stack(
        [with_spectrum(rng, *shape[-2:], np.linspace(1, 0.2, min(shape[-2:]))) for _ in range(3)]
    )
    x = x if len(shape) == 3 else x[0]
    s = np.linalg.svd(x, compute_uv=False)
    norms = {"frobenius": np.sum(s**2, axis=-1) ** 0.5, "schatten4": np.sum(s**4, axis=-1) ** 0.25}
    identity = ((1.0, 0.0),)
    for name, value in norms.items():
        found = orthokern.newton_schulz(
            x, steps=1, coefficients=identity, normalization=name, backend=backend
        )
        assert norm(found - x / np.reshape(value, (*shape[:-2], 1, 1))) <= 1e-14 * norm(found)
    found = orthokern.newton_schulz(
        x, steps=1, coefficients=identity, normalization="spectral", backend=backend
    )
    top = np.linalg.svd(found, compute_uv=False)[..., 0]
    assert np.all(top <= 1 + 1e-14)
    assert np.all(top >= 1 / 1.11)


@pytest.mark.parametrize("shape", [(16, 16), (50, 20), (20, 50), (3, 9, 4)])
@pytest.mark.parametrize("complex_", [False, True])
def test_columns_scaled_one_by_one(shape, complex_, stacking_place, rng):
    """``s_j = (sum_i |G_ij|)^(-1/2)``, rows if there are fewer of them; the largest singular value is at most 1."""
    x = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)
    x[..., 2, :] = 0
    x[..., :, 1] = 0
    tall = x if shape[-2] >= shape[-1] else adjoint(x)
    sums = np.sum(np.abs(adjoint(tall) @ tall), axis=-2, keepdims=True)
    expected = tall / np.sqrt(np.where(sums > 0, sums, 1))
    expected = expected if shape[-2] >= shape[-1] else adjoint(expected)
    found = to_numpy(
        orthokern.newton_schulz(
            made(x, stacking_place.library, "float64"),
            steps=1,
            coefficients=((1.0, 0.0),),
            normalization="aol",
            backend=stacking_place.backend,
        )
    )
    eps = 2.0**-23 if libraries.dtypes_of(stacking_place.library) == ("float32",) else 2.0**-52
    assert norm(found - expected) <= 50 * eps * norm(expected)
    assert np.linalg.norm(found, 2, axis=(-2, -1)).max() <= 1 + 50 * eps
    assert not np.any(found[..., 2, :])
    assert not np.any(found[..., :, 1])


def test_the_spectral_norm_is_never_underestimated(backend, rng):
    """Above it the polynomials of the presets diverge."""
    identity = ((1.0, 0.0),)
    for _ in range(300):
        m, n = rng.integers(1, 60, 2)
        k = min(m, n)
        decay = rng.uniform(0, 3)
        x = with_spectrum(rng, m, n, np.logspace(0, -decay, k))
        found = orthokern.newton_schulz(
            x, steps=1, coefficients=identity, normalization="spectral", backend=backend
        )
        assert np.linalg.norm(found, 2) <= 1 + 1e-14


def test_singular_values_end_near_one(backend, rng):
    """Muon's promise: from above 0.005 of the norm to about [0.7, 1.2]."""
    x = with_spectrum(rng, 64, 48, np.linspace(1, 0.05, 48))
    s = np.linalg.svd(orthokern.newton_schulz(x, backend=backend), compute_uv=False)
    assert s.min() >= 0.65
    assert s.max() <= 1.25


def gaussian_singular_values(m, n, rng):
    """Singular values of an n x m Gaussian matrix with n >= m, from its bidiagonal form, Frobenius-normalized."""
    diagonal = np.sqrt(rng.chisquare(n - np.arange(m)))
    beside = np.sqrt(rng.chisquare(m - 1 - np.arange(m - 1)))
    from scipy.linalg import eigvalsh_tridiagonal

    squares = eigvalsh_tridiagonal(
        diagonal**2 + np.concatenate([[0.0], beside**2]), diagonal[:-1] * beside
    )
    s = np.sqrt(np.maximum(squares, 0))
    return s / np.linalg.norm(s)


@pytest.mark.slow
@pytest.mark.parametrize("shape", FIGURES)
def test_published_figures(shape, rng):
    """Mean of (p(s) - 1)^2 after five steps on Gaussian matrices, through the kernel itself on diagonal matrices."""
    columns = {"jordan": "jordan", "table": (ROOT[shape],), "classic": (CLASSIC,)}
    s = gaussian_singular_values(*shape, rng)
    for (name, coefficients), expected in zip(columns.items(), FIGURES[shape], strict=True):
        # Diagonal blocks of 2048 values share one norm: a vector of the whole, cut into 16 matrices.
        values = s
        for a, b, c in ([JORDAN] if name == "jordan" else coefficients) * 5:
            values = values * (a + b * values**2 + c * values**4)
        assert abs(np.mean((values - 1) ** 2) / expected - 1) <= 0.05
        small = s[::16]
        size = np.linalg.norm(small)
        found = np.diag(orthokern.newton_schulz(np.diag(small), coefficients=coefficients))
        check = small / size
        for a, b, c in ([JORDAN] if name == "jordan" else coefficients) * 5:
            check = check * (a + b * check**2 + c * check**4)
        np.testing.assert_allclose(found, check, rtol=0, atol=1e-12)
