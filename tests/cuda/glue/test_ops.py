"""Each op against its array-API body on NumPy arrays: scaling, schedules as they stand and as tolerances, the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from orthokern_cupy import spectral
from orthokern_cupy.balance import balance

from orthokern._core import scaling
from orthokern.spectral import factor
from orthokern.spectral.coefficients import polynomials
from orthokern.spectral.plan import Schedule, Stat, Step, StepKind, plan_polar

from . import fake_cupy
from .conftest import read, with_spectrum

DTYPES = ["float64", "float32", "complex128", "complex64"]


def random(rng, shape, dtype):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)


# Scaling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 2.0**100, 3e-30, 0.0])
@pytest.mark.parametrize("shape", [(4, 3), (5, 5), (2, 3, 7, 2), (1, 1)], ids=str)
def test_balance_is_that_of_the_body_bit_for_bit(cp, rng, shape, dtype, scale):
    x = (random(rng, shape, dtype) * scale).astype(dtype)
    y, undo = balance(cp.asarray(x), cp=cp)
    expected = scaling.balance.body(x)
    np.testing.assert_array_equal(read(y), expected[0])
    np.testing.assert_array_equal(read(undo), expected[1])
    assert (y.dtype, undo.dtype) == (x.dtype, expected[1].dtype)
    assert fake_cupy.syncs.count == 0


@pytest.mark.parametrize(
    "entry", [2.0**-125, 2.0**-126, 2.0**126, 0.5, 1.0, 0.75, np.finfo("f").max]
)
def test_balance_at_powers_of_two_and_at_the_ends(cp, entry):
    x = np.array([[entry, -entry], [0, entry / 2]], dtype=np.float32)
    y, undo = balance(cp.asarray(x), cp=cp)
    for found, expected in zip((y, undo), scaling.balance.body(x), strict=True):
        np.testing.assert_array_equal(read(found), expected)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_balance_lifts_subnormal_numbers(cp, dtype):
    x = np.array([[5e-324, 0], [0, -2e-323]], dtype=dtype)
    y, undo = balance(cp.asarray(x), cp=cp)
    np.testing.assert_array_equal(read(y) * read(undo), x)
    assert np.abs(read(y)).max() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_member_that_is_not_finite_becomes_the_identity(cp, rng, dtype, wrong):
    x = random(rng, (3, 4, 2), dtype)
    x[1, 2, 1] = wrong * 1j if "complex" in dtype else wrong
    y, undo = balance(cp.asarray(x), cp=cp)
    np.testing.assert_array_equal(read(y)[1], np.eye(4, 2))
    assert np.isnan(read(undo)[1, 0, 0])
    alone, _ = balance(cp.asarray(x[[0, 2]]), cp=cp)
    np.testing.assert_array_equal(read(y)[[0, 2]], read(alone))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_layout(cp, rng, dtype):
    x = random(rng, (60, 60), dtype)
    whole = spectral.unitary_factor(cp.asarray(x), completion="unitary", cp=cp)[0]
    wide = cp.asarray(np.repeat(x, 2, axis=1))[:, ::2]
    turned = cp.swapaxes(cp.asarray(np.ascontiguousarray(x.T)), -1, -2)
    for laid in (wide, turned):
        before = read(laid).copy()
        found, _ = spectral.unitary_factor(laid, completion="unitary", cp=cp)
        np.testing.assert_allclose(read(found), read(whole), atol=2e4 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(read(laid), before)
        np.testing.assert_array_equal(read(balance(laid, cp=cp)[0]), scaling.balance.body(x)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 4), (3, 9, 9)], ids=str)
def test_hermitian_factor_is_that_of_the_body(cp, rng, shape, dtype):
    u, x = random(rng, shape, dtype), random(rng, shape, dtype)
    h = spectral.hermitian_factor(cp.asarray(u), cp.asarray(x), cp=cp)
    expected = factor.hermitian_factor.body(u, x)
    np.testing.assert_allclose(read(h), expected, atol=20 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(read(h), np.conj(np.swapaxes(read(h), -1, -2)))


# Schedules as they stand

NEWTON = tuple(plan_polar(1e-4, 1e-12, allowed=(StepKind.NEWTON,)))
HALLEY = tuple(plan_polar(1e-4, 1e-12, allowed=(StepKind.HALLEY,), c_max=math.inf))
GENTLE = tuple(plan_polar(5e-2, 1e-12, allowed=(StepKind.HALLEY,)))
QUINTIC = tuple(plan_polar(1e-4, 1e-12, allowed=(StepKind.QUINTIC,)))
JORDAN = tuple(Step(StepKind.QUINTIC, c) for c in polynomials("jordan", kernel="test"))
CUBIC = (Step(StepKind.CUBIC, (1.5, -0.5)),) * 12
SEVENTH = (Step(StepKind.QUINTIC, (35 / 16, -35 / 16, 21 / 16, -5 / 16)),) * 8
SCHEDULES = {
    "newton": Schedule("spectral", NEWTON, None, 0.0),
    "halley by qr": Schedule("spectral", HALLEY, None, 0.0),
    "halley by cholesky": Schedule("spectral", GENTLE, None, 0.0),
    "quintic": Schedule("spectral", QUINTIC, None, 0.0),
    "jordan": Schedule("frobenius", JORDAN, None, 0.0),
    "aol": Schedule("aol", JORDAN, None, 0.0),
    "schatten": Schedule("schatten4", CUBIC, None, 0.0),
    "seventh": Schedule("frobenius", SEVENTH, None, 0.0),
    "gram": Schedule("spectral", QUINTIC, (2, 4), 0.0),
    "gram at once": Schedule("frobenius", JORDAN, (), 0.0),
    "nothing": Schedule("none", (), None, 0.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 20), (30, 12), (2, 9, 9), (5, 1)], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_are_those_of_the_body(cp, rng, name, shape, dtype):
    x = random(rng, shape, dtype)
    given = cp.asarray(x)
    u, stats = spectral.scheduled_factor(given, schedule=SCHEDULES[name], cp=cp)
    expected, figures = factor.scheduled_factor.body(x, schedule=SCHEDULES[name])
    # Steps that stop early amplify what products round.
    tolerance = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(read(u), expected, atol=tolerance)
    np.testing.assert_array_equal(read(stats), figures)
    assert u.dtype == expected.dtype
    assert stats.dtype == figures.dtype
    assert not np.shares_memory(fake_cupy.plain(u), fake_cupy.plain(given))
    assert fake_cupy.syncs.count == 0


@pytest.mark.parametrize("name", ["newton", "halley by qr", "quintic", "jordan", "aol", "gram"])
@pytest.mark.parametrize("completion", ["unitary", "partial"])
def test_zero_matrices_in_schedules(cp, name, completion):
    schedule = SCHEDULES[name]._replace(completion=completion)
    x = np.zeros((2, 7, 4))
    u, _ = spectral.scheduled_factor(cp.asarray(x), schedule=schedule, cp=cp)
    expected, _ = factor.scheduled_factor.body(x, schedule=schedule)
    np.testing.assert_allclose(read(u), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("completion", ["unitary", "partial"])
@pytest.mark.parametrize("steps", [NEWTON, HALLEY, QUINTIC, QUINTIC[:3]], ids=["n", "h", "q", "q3"])
def test_closing_is_that_of_the_body(cp, steps, completion, dtype):
    rng = np.random.default_rng(1)
    schedule = Schedule("spectral", steps, None, 1e-3, completion)
    x = with_spectrum(rng, 24, np.logspace(0, -1.5, 16), dtype)
    u, stats = spectral.scheduled_factor(cp.asarray(x), schedule=schedule, cp=cp)
    expected, figures = factor.scheduled_factor.body(x, schedule=schedule)
    np.testing.assert_allclose(read(u), expected, atol=1e4 * np.finfo(dtype).eps)
    kept = [c for c in range(figures.shape[-1]) if c != Stat.RESIDUAL]
    np.testing.assert_array_equal(read(stats)[kept], figures[kept])
    np.testing.assert_allclose(
        read(stats)[Stat.RESIDUAL], figures[Stat.RESIDUAL], rtol=0.02, atol=1e-3
    )
    looks = 0 if completion == "partial" else 1 + read(stats)[Stat.EXTRA_STEPS]
    assert fake_cupy.syncs.count == looks


def test_newton_closes_what_polynomials_would_throw_away(cp):
    steps = (Step(StepKind.NEWTON, (0.5, 0.5)),)
    schedule = Schedule("none", steps, None, 1e-6)
    x = np.diag([1.0, 0.02, 0.5])
    _, stats = spectral.scheduled_factor(cp.asarray(x), schedule=schedule, cp=cp)
    _, figures = factor.scheduled_factor.body(x, schedule=schedule)
    np.testing.assert_array_equal(read(stats)[2:], figures[2:])
    assert StepKind.NEWTON in read(stats)[5:]


def test_a_singular_matrix_in_newtons_steps(cp):
    steps = plan_polar(4e-16, 1e-12, allowed=(StepKind.NEWTON,))
    schedule = Schedule("spectral", steps, None, 1e-10)
    rng = np.random.default_rng(2)
    x = with_spectrum(rng, 12, np.array([1.0] * 9 + [0.0] * 3), "float64")
    u, _ = spectral.scheduled_factor(cp.asarray(x), schedule=schedule, cp=cp)
    np.testing.assert_allclose(read(u).T @ read(u), np.eye(12), atol=1e-9)


# Tolerances, by any route


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5, 1e-14])
@pytest.mark.parametrize("shape", [(50, 50), (140, 40), (3, 45, 45), (12, 12)], ids=str)
@pytest.mark.parametrize("kappa", [5.0, 1e3, 1e6])
def test_singular_values_end_within_the_tolerance(cp, shape, tol, kappa, dtype):
    eps = np.finfo(dtype).eps
    if kappa > 0.1 / (shape[-1] * eps):
        kappa = 0.1 / (shape[-1] * eps)
    rng = np.random.default_rng(3)
    n = shape[-1]
    members = [
        with_spectrum(rng, shape[-2], np.logspace(0, -np.log10(kappa), n), dtype)
        for _ in range(math.prod(shape[:-2]))
    ]
    x = np.reshape(members, shape)
    schedule = Schedule("spectral", QUINTIC, None, tol, any_route=True)
    u, stats = spectral.scheduled_factor(cp.asarray(x), schedule=schedule, cp=cp)
    values = np.linalg.svd(read(u), compute_uv=False)
    allowed = tol + 10 * n**0.5 * eps
    assert np.abs(values - 1).max() <= allowed
    residual = read(stats)[..., Stat.RESIDUAL]
    measured = np.abs(values**2 - 1).max(axis=-1)
    assert np.all(residual >= 0.5 * measured - 10 * n**0.5 * eps)
    assert np.all(residual <= tol * (2 + tol) + 10 * n**0.5 * eps)
    p, _, qh = np.linalg.svd(x.astype(complex), full_matrices=False)
    if kappa <= 1e3:
        # Whatever the singular values, the singular vectors are those of x.
        product = np.conj(np.swapaxes(p, -1, -2)) @ read(u) @ np.conj(np.swapaxes(qh, -1, -2))
        off = product - np.einsum("...i,ij->...ij", np.einsum("...ii->...i", product), np.eye(n))
        assert np.abs(off).max() <= 200 * n * kappa * eps + 2 * tol * (tol <= 1e-5)


def test_a_looser_tolerance_takes_fewer_steps(cp):
    rng = np.random.default_rng(4)
    x = cp.asarray(with_spectrum(rng, 60, np.logspace(0, -3, 60), "float64"))
    taken = []
    for tol in (0.3, 1e-2, 1e-5, 1e-15):
        schedule = Schedule("spectral", QUINTIC, None, tol, any_route=True)
        _, stats = spectral.scheduled_factor(x, schedule=schedule, cp=cp)
        taken.append(read(stats)[Stat.ITERATIONS])
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]


@pytest.mark.parametrize("completion", ["unitary", "partial"])
def test_a_singular_matrix_gets_what_its_completion_asks_for(cp, completion):
    rng = np.random.default_rng(5)
    x = with_spectrum(rng, 40, np.array([1.0] * 30 + [0.0] * 10), "float64")
    plain = with_spectrum(rng, 40, np.linspace(1, 0.5, 40), "float64")
    schedule = Schedule("spectral", QUINTIC, None, 1e-3, completion, any_route=True)
    u, _ = spectral.scheduled_factor(cp.asarray(np.stack([x, plain])), schedule=schedule, cp=cp)
    values = np.linalg.svd(read(u), compute_uv=False)
    np.testing.assert_allclose(values[0, :30], 1, atol=2e-3)
    np.testing.assert_allclose(values[0, 30:], completion == "unitary", atol=2e-3)
    np.testing.assert_allclose(values[1], 1, atol=2e-3)
