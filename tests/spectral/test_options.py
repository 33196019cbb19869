"""Every option: what it changes, what it refuses and in which words, low precision, and warnings where they are due."""

from __future__ import annotations

import inspect
import re
import warnings

import numpy as np
import pytest

import orthokern
from orthokern.spectral import Method, StepKind, polar_express_coefficients
from orthokern.testing.libraries import to_numpy

from .conftest import (
    SPECTRA,
    adjoint,
    contract_errors,
    norm,
    orthogonality,
    singular_values,
    unitary,
    with_spectrum,
)

METHODS = ("auto", "svd", "newton", "dwh", "newton_schulz", "polar_express", "gram")
POLYNOMIAL = ("newton_schulz", "polar_express", "gram")
KERNELS = [orthokern.polar, orthokern.orthogonalize]
SHAPES = {
    "square": (20, 20),
    "large square": (45, 45),
    "tall": (60, 20),
    "wide": (20, 60),
    "stack": (3, 30, 12),
    "wide stack": (2, 2, 7, 16),
    "2x2": (2, 2),
    "3x3 stack": (5, 3, 3),
}


def matrices(rng, shape, kappa=50.0, *, complex_=False):
    m, n = shape[-2:]
    spectrum = SPECTRA["logarithmic"](min(m, n), kappa)
    count = int(np.prod(shape[:-2]))
    found = [with_spectrum(rng, m, n, spectrum, complex_=complex_) for _ in range(count)]
    return np.stack(found).reshape(shape)


def reference(x):
    """The unitary factor from the singular vectors."""
    p, _, qh = np.linalg.svd(x, full_matrices=False)
    return p @ qh


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_methods_agree_with_the_svd(method, shape, complex_, backend, rng):
    x = matrices(rng, shape, complex_=complex_)
    u, h, info = orthokern.polar(x, method=method, backend=backend)
    # kappa = 50 amplifies the backward errors of both.
    limit = 2 * 50 * max(60, 20 * min(shape[-2:]) ** 0.5) * np.finfo(float).eps * norm(x)
    assert norm(u - reference(x)) <= limit
    assert norm(h - adjoint(u) @ x) <= limit
    assert np.all(info.converged)
    assert int(info.method) == Method[method.upper()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-4])
def test_methods_keep_the_tolerance(method, shape, tol, backend, rng):
    x = matrices(rng, shape)
    u, h, info = orthokern.polar(x, method=method, tol=tol, backend=backend)
    s = np.linalg.svd(u, compute_uv=False)
    assert np.abs(s - 1).max() <= tol * (1 + 1e-9)
    # The singular vectors are those of x: no step leaves them.
    assert norm(u @ adjoint(reference(x)) - reference(x) @ adjoint(u)) <= 1e-11 * norm(u)
    assert norm(h - (adjoint(u) @ x + adjoint(x) @ u) / 2) <= 1e-13 * norm(x)
    assert np.all(info.converged)


def test_a_looser_tolerance_takes_fewer_steps(rng):
    x = matrices(rng, (60, 60), 500.0)
    for method in ("auto", "newton", "dwh", "newton_schulz", "polar_express", "gram"):
        counts = [
            int(orthokern.polar(x, method=method, tol=tol, backend="array-api").info.iterations)
            for tol in (1e-5, 1e-2, 0.3)
        ]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] < counts[0]


@pytest.mark.parametrize("method", ["newton", "dwh", "newton_schulz", "polar_express"])
def test_full_accuracy_appends_no_idle_steps(method, backend, rng):
    """What rounding leaves cannot be improved: the closing check has to know that."""
    x = matrices(rng, (40, 40), 10.0)
    info = orthokern.polar(x, method=method, backend=backend).info
    assert int(info.extra_steps) <= 2


@pytest.mark.parametrize("method", METHODS)
def test_methods_run_the_steps_that_they_are_named_after(method, rng):
    x = matrices(rng, (30, 30))
    info = orthokern.polar(x, method=method, backend="array-api").info
    ran = {StepKind(int(code)) for code in info.schedule if code}
    names = {
        "newton": StepKind.NEWTON,
        "dwh": StepKind.HALLEY,
        "auto": StepKind.CUBIC,
        "svd": StepKind.CUBIC,
    }
    assert names.get(method, StepKind.QUINTIC) in ran


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (40, 40), (2, 2), (3, 4, 4), (0, 3)])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("options", [{}, {"tol": 0.1}, {"steps": 3}])
def test_compute_h_false(shape, side, options, backend, rng):
    x = rng.standard_normal(shape)
    with_h = orthokern.polar(x, side=side, backend=backend, **options)
    without = orthokern.polar(x, side=side, compute_h=False, backend=backend, **options)
    assert without.h.shape == (*shape[:-2], 0, 0)
    assert without.h.dtype == x.dtype
    np.testing.assert_array_equal(without.info.schedule, with_h.info.schedule)
    assert norm(without.u - with_h.u) <= 1e-12 * max(norm(with_h.u), 1)
    assert len(without) == 3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (50, 50)])
@pytest.mark.parametrize("tol", [None, 0.1])
def test_side(side, shape, tol, backend, rng):
    x = matrices(rng, shape)
    u, h, _ = orthokern.polar(x, side=side, tol=tol, backend=backend)
    k = shape[1] if side == "right" else shape[0]
    assert h.shape == (k, k)
    np.testing.assert_array_equal(h, adjoint(h))
    if tol is None:
        assert contract_errors(x, u, h, side=side).worst <= 1
        assert np.linalg.matrix_rank(h, hermitian=True, rtol=1e-10) == min(shape)


@pytest.mark.parametrize("kernel", KERNELS)
def test_orthogonalize_is_the_factor_of_polar(kernel, backend, rng):
    for shape in SHAPES.values():
        x = matrices(rng, shape)
        for options in ({}, {"tol": 0.1}, {"method": "svd"}, {"steps": 4}, {"lower_bound": 0.01}):
            u = orthokern.polar(
                x, completion="partial", compute_h=False, backend=backend, **options
            ).u
            np.testing.assert_array_equal(orthokern.orthogonalize(x, backend=backend, **options), u)


def test_defaults():
    """An optimizer wants a zero gradient back, a factorization orthonormal columns."""
    assert inspect.signature(orthokern.polar).parameters["completion"].default == "unitary"
    assert inspect.signature(orthokern.orthogonalize).parameters["completion"].default == "partial"
    for kernel in (*KERNELS, orthokern.newton_schulz):
        x, *options = inspect.signature(kernel).parameters.values()
        assert x.kind is inspect.Parameter.POSITIONAL_ONLY
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in options)


@pytest.mark.parametrize("rcond", [None, 1e-10, 1e-5, 0.05, 0.3])
def test_rcond_cuts_the_spectrum(rcond, backend, rng):
    for m, n in ((6, 6), (40, 40), (60, 9), (9, 60), (45, 30)):
        k = min(m, n)
        spectrum = np.concatenate([np.linspace(1, 0.5, k - 4), [0.1, 1e-3, 1e-7, 1e-13]])
        p, q = unitary(rng, m, k), unitary(rng, n, k)
        x = (p * spectrum) @ q.T
        u = orthokern.polar(x, completion="partial", rcond=rcond, backend=backend).u
        rank = np.count_nonzero(spectrum > (rcond or 0))
        # 1e-13 leaves three digits of the last direction; elsewhere the cut decides.
        limit = 2e-6 if rcond == 1e-10 else 2e-10 if rank < k else 0.5
        assert abs(norm(u) ** 2 - rank) <= 1e-10
        assert norm(u - p[:, :rank] @ q[:, :rank].T) <= limit


def test_rcond_is_relative_to_the_largest(backend, rng):
    x = with_spectrum(rng, 30, 30, np.where(np.arange(30) < 20, 1.0, 1e-4))
    for scale in (1e-200, 1.0, 1e200):
        for rcond, rank in ((1e-3, 20), (1e-5, 30)):
            u = orthokern.orthogonalize(scale * x, rcond=rcond, backend=backend)
            assert abs(norm(u) ** 2 - rank) <= 1e-10


@pytest.mark.parametrize("method", POLYNOMIAL)
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_exactly_these_steps_run(method, steps, backend, rng):
    x = matrices(rng, (20, 12), 5.0)
    info = orthokern.polar(x, method=method, steps=steps, lower_bound=0.1, backend=backend).info
    assert int(info.iterations) == steps
    assert int(info.extra_steps) == 0
    np.testing.assert_array_equal(info.schedule, [StepKind.QUINTIC] * steps + [0] * (16 - steps))


@pytest.mark.parametrize(
    ("options", "polynomials", "normalized"),
    [
        ({"steps": 3}, [(1.875, -1.25, 0.375)] * 3, "frobenius"),
        ({"steps": 3, "method": "newton_schulz"}, [(1.875, -1.25, 0.375)] * 3, "frobenius"),
        ({"steps": 2, "coefficients": "jordan"}, [(3.4445, -4.7750, 2.0315)] * 2, "frobenius"),
        ({"coefficients": "jordan"}, [(3.4445, -4.7750, 2.0315)] * 5, "frobenius"),
        ({"coefficients": ((1.5, -0.5),), "steps": 4}, [(1.5, -0.5)] * 4, "frobenius"),
        (
            {"coefficients": np.array([[1.5, -0.5], [2.0, -1.0]])},
            [(1.5, -0.5), (2.0, -1.0)],
            "frobenius",
        ),
        (
            {"coefficients": [[1.5, -0.5], (1.875, -1.25, 0.375)]},
            [(1.5, -0.5), (1.875, -1.25, 0.375)],
            "frobenius",
        ),
        (
            {"steps": 3, "method": "polar_express", "lower_bound": 0.02},
            polar_express_coefficients(0.02, 3),
            "spectral",
        ),
        (
            {"steps": 3, "method": "gram", "lower_bound": 0.02},
            polar_express_coefficients(0.02, 3),
            "spectral",
        ),
        ({"method": "gram", "coefficients": "jordan"}, [(3.4445, -4.7750, 2.0315)] * 5, "spectral"),
    ],
)
def test_steps_are_polynomials_of_the_singular_values(
    options, polynomials, normalized, backend, rng
):
    """u has the singular vectors of x; its singular values are the polynomials of the normalized ones."""
    for m, n in ((14, 14), (30, 9), (9, 30)):
        p, s, qh = np.linalg.svd(matrices(rng, (m, n), 8.0), full_matrices=False)
        x = (p * s) @ qh
        u = orthokern.polar(x, backend=backend, **options).u
        found = np.diag(p.T @ u @ qh.T)
        # The spectral bound is an estimate: the scale is free there, between 1 and 1.15 times the norm.
        top = (
            [np.linalg.norm(s)] if normalized == "frobenius" else s[0] * np.linspace(1, 1.15, 1501)
        )
        values = np.stack([s / t for t in top])
        for polynomial in polynomials:
            values = sum(c * values ** (2 * i + 1) for i, c in enumerate(polynomial))
        difference = np.abs(values - found).max(axis=1).min()
        assert difference <= (1e-13 if normalized == "frobenius" else 2e-2)
        assert norm(u - (p * found) @ qh) <= 1e-12


def test_residual_of_given_steps_is_measured(backend, rng):
    x = matrices(rng, (20, 12), 5.0)
    u, _, info = orthokern.polar(x, steps=2, backend=backend)
    measured = norm(u.T @ u - np.eye(12))
    assert abs(float(info.residual) - measured) <= 1e-12
    assert measured > 0.1
    assert not info.converged


def message(kernel, **options):
    with pytest.raises((ValueError, TypeError)) as caught:
        kernel(np.eye(3), **options)
    assert isinstance(caught.value, orthokern.OrthokernError)
    text = str(caught.value)
    # One sentence, from the kernel that was called.
    assert text.startswith(f"{kernel.__name__}: expected ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("name", "allowed"),
    [("side", ("right", "left")), ("method", METHODS), ("completion", ("unitary", "partial"))],
)
@pytest.mark.parametrize(
    "value", ["Right", "", None, 0, True, ["right"], "qdwh", b"auto", ("svd",)]
)
def test_names_outside_the_list(kernel, name, allowed, value):
    if name not in inspect.signature(kernel).parameters:
        with pytest.raises(TypeError, match=name):
            kernel(np.eye(3), **{name: value})
        return
    text = message(kernel, **{name: value})
    assert f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}" in text


@pytest.mark.parametrize("value", ["nuclear", "Frobenius", None, 2])
def test_names_of_norms(value):
    text = message(orthokern.newton_schulz, normalization=value)
    assert "expected normalization to be one of 'frobenius', 'schatten4', 'spectral'" in text
    assert text.endswith(f"got {value!r}")


NUMBERS = [
    0,
    1.5,
    -0.1,
    float("nan"),
    float("inf"),
    True,
    False,
    np.True_,
    np.False_,
    "0.1",
    None.__class__,
    [0.1],
    1j,
    np.array([0.1, 0.2]),
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["tol", "rcond", "lower_bound"])
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_out_of_range(kernel, name, value):
    text = message(kernel, **{name: value})
    assert re.search(rf"expected {name} to be a number with 0 < {name} <=? 1", text)
    assert text.endswith(f"got {value!r}")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["tol", "rcond"])
@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1)])
def test_one_is_no_tolerance(kernel, name, value):
    assert f"0 < {name} < 1" in message(kernel, **{name: value})


def test_a_lower_bound_of_one_is_a_statement(backend):
    for one in (1, 1.0, np.float32(1), np.int32(1)):
        u = orthokern.polar(np.diag([1.0, -1, 1]), lower_bound=one, backend=backend).u
        np.testing.assert_allclose(u, np.diag([1.0, -1, 1]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kernel", [*KERNELS, orthokern.newton_schulz])
@pytest.mark.parametrize(
    "value", [0, -1, 2.0, True, np.True_, "3", 1.5, float("nan"), [3], np.array([3, 4])], ids=repr
)
def test_steps_that_are_no_count(kernel, value):
    text = message(kernel, steps=value)
    assert text.endswith(f"expected steps to be an integer >= 1, got {value!r}")


@pytest.mark.parametrize("kernel", [*KERNELS, orthokern.newton_schulz])
@pytest.mark.parametrize(
    "value",
    [
        "Jordan",
        "",
        [],
        (),
        5,
        1.5,
        (3.4445, -4.7750, 2.0315),
        [(1.5,)],
        [()],
        [(1, 2, 3, 4, 5)],
        [(1.5, float("nan"))],
        [(1.5, -float("inf"), 0.1)],
        [("a", "b")],
        [("1", "2")],
        [(1.5, None)],
        [(1.5, 1j)],
        np.array([1.0, 2.0, 3.0]),
        {"a": 1},
    ],
    ids=repr,
)
def test_coefficients_that_are_none(kernel, value):
    text = message(kernel, coefficients=value)
    assert "coefficients" in text
    assert "(a, b, c)" in text
    if isinstance(value, str):
        assert "'jordan', 'you', 'classic'" in text


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0)])
def test_options_are_checked_on_empty_arrays_too(kernel, shape):
    for options in (
        {"coefficients": "none"},
        {"tol": 2},
        {"steps": 0},
        {"method": "x"},
        {"rcond": -1},
    ):
        with pytest.raises(ValueError, match=f"{kernel.__name__}: expected"):
            kernel(np.zeros(shape), **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["compute_h", "check_finite"])
@pytest.mark.parametrize("value", [0, 1, None, "yes", 1.0], ids=repr)
def test_flags_are_true_or_false(kernel, name, value):
    if name in inspect.signature(kernel).parameters:
        text = message(kernel, **{name: value})
        assert text.endswith(f"expected {name} to be True or False, got {value!r}")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("method", ["svd", "newton", "dwh"])
def test_steps_belong_to_polynomial_methods(kernel, method):
    text = message(kernel, method=method, steps=3)
    assert f"expected no steps with method={method!r}; they belong to" in text
    assert all(name in text for name in POLYNOMIAL)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("method", ["svd", "newton", "dwh", "polar_express"])
def test_coefficients_belong_to_polynomial_methods(kernel, method):
    text = message(kernel, method=method, coefficients="jordan")
    assert f"expected no coefficients with method={method!r}" in text


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "given", [{"steps": 3}, {"coefficients": "jordan"}, {"steps": 3, "coefficients": "you"}]
)
@pytest.mark.parametrize("method", ["auto", "newton_schulz", "gram"])
def test_steps_or_tol(kernel, given, method):
    text = message(kernel, tol=0.1, method=method, **given)
    assert "either tol or steps/coefficients, got both" in text


def test_unknown_options_are_refused():
    for kernel in (*KERNELS, orthokern.newton_schulz):
        with pytest.raises(TypeError, match="tolerance"):
            kernel(np.eye(2), tolerance=0.1)
        with pytest.raises(TypeError, match="positional"):
            kernel(np.eye(2), "right")


def test_numpy_scalars_are_options(backend, rng):
    x = matrices(rng, (12, 12))
    expected = orthokern.polar(x, tol=0.1, lower_bound=0.01, backend=backend)
    found = orthokern.polar(
        x,
        side=np.str_("right"),
        compute_h=np.True_,
        check_finite=np.False_,
        tol=np.float64(0.1),
        lower_bound=np.float64(0.01),
        backend=backend,
    )
    np.testing.assert_array_equal(found.u, expected.u)
    np.testing.assert_array_equal(found.h, expected.h)
    steps = orthokern.newton_schulz(x, steps=np.int64(3), backend=backend)
    np.testing.assert_array_equal(steps, orthokern.newton_schulz(x, steps=3, backend=backend))
    tol = orthokern.polar(x, tol=np.array(0.1), rcond=np.float32(1e-6), backend=backend)
    np.testing.assert_array_equal(tol.u, orthokern.polar(x, tol=0.1, backend=backend).u)


@pytest.mark.parametrize(
    "method", ["auto", "svd", "newton", "dwh", "newton_schulz", "polar_express", "gram"]
)
@pytest.mark.parametrize("shape", [(4, 4), (40, 40), (20, 6), (6, 20), (2, 5, 3)])
def test_float16(method, shape, backend, rng):
    """Computed in float32, returned as it came: within rounding to float16 of the factor of the rounded matrix."""
    x = matrices(rng, shape, 20.0).astype(np.float16)
    u, h, info = orthokern.polar(x, method=method, backend=backend)
    assert u.dtype == h.dtype == np.float16
    wide = x.astype(np.float64)
    exact = reference(wide)
    assert np.abs(u - exact).max() <= 2.0**-11 + 1e-4
    assert np.abs(h - adjoint(exact) @ wide).max() <= 2.0**-11 * np.abs(wide).max() * 4
    assert np.all(info.converged)
    assert info.residual.dtype == np.float32
    found = orthokern.orthogonalize(x, method=method, tol=0.1, backend=backend)
    assert found.dtype == np.float16
    assert np.abs(np.linalg.svd(found.astype(float), compute_uv=False) - 1).max() <= 0.1 + 2e-3


def test_float16_of_all_sizes(backend):
    """Squares of 1e-4 and 1e4 leave the range of float16."""
    for scale in (6e-8, 1e-4, 1.0, 6e4):
        x = (np.array([[1.0, -1.0], [1.0, 1.0]]) * scale).astype(np.float16)
        u = orthokern.polar(x, compute_h=False, backend=backend).u
        np.testing.assert_allclose(u, x / np.abs(x).max() / 2**0.5, rtol=0, atol=2.0**-11)
        assert np.all(np.isfinite(orthokern.newton_schulz(x, backend=backend)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tol": 0.1},
        {"method": "svd"},
        {"method": "newton"},
        {"method": "dwh", "tol": 1e-3},
        {"steps": 3, "coefficients": "jordan"},
        {"steps": 1},
        {"lower_bound": 1e-9},
        {"completion": "partial"},
    ],
)
def test_no_warning_without_need(options, backend, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in SHAPES.values():
            orthokern.polar(matrices(rng, shape), backend=backend, **options)
            if "completion" not in options:
                orthokern.polar(
                    matrices(rng, shape), completion="partial", backend=backend, **options
                )


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_missed_accuracy_is_reported(kernel, rng):
    """sigma_min / sigma_max is 1e-9 where the plan was told 0.5, and six closing steps cannot make up for it."""
    x = with_spectrum(rng, 20, 20, SPECTRA["one tiny"](20, 1e9))
    options = {"method": "newton_schulz", "lower_bound": 0.5, "completion": "unitary"}
    with pytest.warns(orthokern.ConvergenceWarning) as caught:
        result = kernel(x, **options)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert text.startswith(
        f"{kernel.__name__}: the accuracy asked for was not reached (worst residual "
    )
    assert "lower_bound" in text
    assert caught[0].filename == __file__
    if kernel is orthokern.polar:
        assert not result.info.converged
        s = singular_values(result.u)
        said = float(re.search(r"residual ([0-9.e+-]+)\)", text)[1])
        assert abs(said - np.abs(s * s - 1).max()) <= 0.11
        assert s[-1] < 1e-6


def test_one_warning_for_a_stack(rng):
    x = np.stack([np.eye(6), with_spectrum(rng, 6, 6, SPECTRA["one tiny"](6, 1e9))] * 3)
    with pytest.warns(orthokern.ConvergenceWarning) as caught:
        info = orthokern.polar(x, method="newton_schulz", lower_bound=0.5).info
    assert len(caught) == 1
    np.testing.assert_array_equal(info.converged, [True, False] * 3)


def test_fixed_steps_never_warn(backend, rng):
    """They promise nothing."""
    x = with_spectrum(rng, 20, 20, SPECTRA["one tiny"](20, 1e9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = orthokern.polar(x, steps=1, backend=backend).info
        orthokern.orthogonalize(x, coefficients="jordan", backend=backend)
        orthokern.newton_schulz(x, steps=1, backend=backend)
    assert not info.converged


@pytest.mark.parametrize("scale", [2.0, 1 / 3, 1e-3])
def test_a_plan_for_a_known_bound_is_not_prolonged(scale, rng):
    """The bound is right: the steps that were planned suffice, on any scale; one more may verify them."""
    x = scale * matrices(rng, (30, 30), 10.0)
    info = orthokern.polar(x, lower_bound=0.08, tol=1e-3, backend="array-api").info
    assert int(info.extra_steps) <= 1
    assert info.converged


def test_low_precision_of_other_libraries(stacking_library, rng):
    """bfloat16 and float16 in and out, where the library has them."""
    x = matrices(rng, (16, 12), 10.0)
    for name in ("bfloat16", "float16"):
        given = low_precision(x, stacking_library, name)
        if given is None:
            continue
        for method in ("auto", "svd", "newton_schulz"):
            u, h, info = orthokern.polar(given, method=method)
            assert str(u.dtype).endswith(name)
            assert str(h.dtype).endswith(name)
            unit = 2.0 ** (-8 if name == "bfloat16" else -11)
            exact = reference(to_numpy(given))
            assert np.abs(to_numpy(u) - exact).max() <= unit
            assert bool(info.converged)
        found = to_numpy(orthokern.orthogonalize(given, tol=0.1))
        assert np.abs(singular_values(found) - 1).max() <= 0.1 + 4 * unit
        assert orthogonality(exact, 2.0**-23) <= 1


def low_precision(x, library, name):
    if library == "torch":
        import torch

        return torch.tensor(x).to(getattr(torch, name))
    if library == "jax":
        import jax.numpy as jnp

        return jnp.asarray(x).astype(getattr(jnp, name))
    return x.astype(np.float16) if (library, name) == ("numpy", "float16") else None
