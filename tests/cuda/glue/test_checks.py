"""Wrong numbers from a library are noticed and replaced: each test spoils one routine of the stand-in."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from orthokern_cupy import estimates, library, measured, spectral
from orthokern_cupy.library import affine
from orthokern_cupy.spectral import polar_factors, unitary_factor
from orthokern_cupy.steps import corrected

from orthokern.spectral.plan import Stat, StepKind

from . import fake_cupy
from .conftest import errors, orthonormal, read, with_spectrum


def matrix(kappa=1e3, n=60, m=60, dtype="float64"):
    rng = np.random.default_rng(3)
    return with_spectrum(rng, m, np.logspace(0, -np.log10(kappa), n), dtype)


def spoiled(function):
    """``function`` with a part in a thousand of noise in its result."""
    noise = np.random.default_rng(4)

    def run(*arguments, **options):
        result = fake_cupy.plain(function(*arguments, **options))
        size = np.abs(result).max()
        return fake_cupy.wrapped(result + 1e-3 * size * noise.standard_normal(result.shape))

    return run


def garbage(function):
    """A routine that reports success and leaves what was in memory."""
    return lambda *arguments: fake_cupy.wrapped(np.ones_like(fake_cupy.plain(function(*arguments))))


def assert_good(cp, x, **options):
    """The factors keep the contract; the row of figures."""
    y = cp.asarray(x)
    u, h, stats = polar_factors(y, **{"completion": "unitary", "cp": cp} | options)
    assert max(errors(y, u, h)) <= 1
    return read(stats)


def by_svd(row):
    return (row[Stat.ITERATIONS], row[4]) == (1, StepKind.CUBIC)


@pytest.mark.parametrize("spoil", [spoiled, garbage])
@pytest.mark.parametrize("shape", [(60, 60), (200, 60)])
def test_a_wrong_cholesky_factorization(cp, monkeypatch, spoil, shape):
    monkeypatch.setattr(cp.linalg, "cholesky", spoil(cp.linalg.cholesky))
    assert_good(cp, matrix(m=shape[0]))


@pytest.mark.parametrize("spoil", [spoiled, garbage])
@pytest.mark.parametrize("shape", [(60, 60), (200, 60)])
def test_a_wrong_inverse(cp, monkeypatch, spoil, shape):
    monkeypatch.setattr(cp.linalg, "inv", spoil(cp.linalg.inv))
    row = assert_good(cp, matrix(kappa=1e10, m=shape[0]))
    assert by_svd(row)


def test_a_wrong_qr(cp, monkeypatch):
    qr = cp.linalg.qr
    monkeypatch.setattr(cp.linalg, "qr", lambda a: (spoiled(lambda b: qr(b)[0])(a), qr(a)[1]))
    row = assert_good(cp, matrix(kappa=1e10, m=200))
    assert by_svd(row)


def test_a_wrong_triangular_solve(cp, monkeypatch):
    library = sys.modules["cupyx.scipy.linalg"]
    monkeypatch.setattr(library, "solve_triangular", spoiled(library.solve_triangular))
    for m in (60, 200):
        assert_good(cp, matrix(m=m))


def test_products_that_go_wrong_at_the_end(cp, monkeypatch):
    """The last step's Gram matrix looks right, and only the probes see what its product made."""
    right, calls = measured.corrected, []

    def corrected(x, defect, kind, cp):
        calls.append(kind)
        return spoiled(right)(x, defect, kind, cp)

    monkeypatch.setattr(measured, "corrected", corrected)
    row = assert_good(cp, matrix())
    assert by_svd(row)
    assert calls


def stretched(factors):
    """The closing step, whose results come out too long by the ``factors`` in turn: what only a probe of U^H U sees."""
    right, lengths = measured.corrected, iter(factors)

    def run(x, defect, kind, cp):
        return right(x, defect, kind, cp) * np.float64(next(lengths))

    return run


def test_a_factor_that_is_too_long(cp, monkeypatch):
    monkeypatch.setattr(measured, "corrected", stretched([1 + 1e-10] * 9))
    assert by_svd(assert_good(cp, matrix()))


def test_what_rounding_left_is_mended_by_one_more_step(cp, monkeypatch):
    monkeypatch.setattr(measured, "corrected", stretched([1 + 1e-14, 1.0]))
    row = assert_good(cp, matrix())
    assert row[Stat.EXTRA_STEPS] == 1
    assert not by_svd(row)


def test_an_orthonormal_factor_of_another_matrix(cp, monkeypatch):
    """An inverse whose error has rank one leaves perfect orthogonality and a backward error."""
    right = cp.linalg.inv
    tilt = np.random.default_rng(6).standard_normal((2, 60))

    def inv(a):
        y = fake_cupy.plain(right(a))
        return fake_cupy.wrapped(y + 1e-7 * np.linalg.norm(y) * np.outer(*tilt) / 60)

    monkeypatch.setattr(cp.linalg, "inv", inv)
    row = assert_good(cp, matrix(kappa=1e10))
    assert by_svd(row)


def test_one_bad_member_of_a_stack_is_done_again_alone(cp, monkeypatch):
    right, seen = cp.linalg.inv, []
    bad = np.random.default_rng(7).standard_normal((60, 60))

    def inv(a):
        y = np.array(fake_cupy.plain(right(a)))
        if not seen:
            y[1] = bad
        seen.append(a.shape)
        return fake_cupy.wrapped(y)

    monkeypatch.setattr(cp.linalg, "inv", inv)
    stack = np.stack([matrix(kappa=k) for k in (2, 3, 4)])
    y = cp.asarray(stack)
    u, h, stats = polar_factors(y, completion="unitary", cp=cp)
    for member in range(3):
        assert max(errors(y[member], u[member], h[member])) <= 1
    assert [by_svd(row) for row in read(stats)] == [False, True, False]


def test_bounds_that_are_far_off(cp, monkeypatch):
    """A lower bound that is a thousand times too large leaves small singular values behind; an upper one diverges."""
    right = measured.bounds_by_gram

    def too_high(g, cp):
        return right(g, cp)._replace(lower=np.array([0.5]))

    def too_low(g, cp):
        bounds = right(g, cp)
        return bounds._replace(upper=bounds.upper / 3)

    for wrong in (too_high, too_low):
        monkeypatch.setattr(measured, "bounds_by_gram", wrong)
        assert_good(cp, matrix())


def test_steps_are_appended_where_a_bound_was_a_little_off(cp, monkeypatch):
    right = measured.bounds_by_gram

    def high(g, cp):
        bounds = right(g, cp)
        return bounds._replace(lower=np.minimum(3 * bounds.lower, 1))

    monkeypatch.setattr(measured, "bounds_by_gram", high)
    row = assert_good(cp, matrix())
    assert 1 <= row[Stat.EXTRA_STEPS] <= 6
    assert not by_svd(row)
    assert row[3 + int(row[Stat.ITERATIONS])] == StepKind.QUINTIC
    assert fake_cupy.syncs.count == 2 + row[Stat.EXTRA_STEPS]


def test_an_svd_that_did_not_converge_shows_in_the_residual(cp, monkeypatch):
    right = cp.linalg.svd

    def svd(a, full_matrices=True):
        p, s, qh = right(a, full_matrices=full_matrices)
        return p * cp.asarray(np.float64(1.01)), s, qh

    monkeypatch.setattr(cp.linalg, "svd", svd)
    _, stats = unitary_factor(cp.asarray(matrix(n=9, m=9)), completion="unitary", cp=cp)
    assert read(stats)[Stat.RESIDUAL] > 1e-4


def one_after_the_other(a, b):
    """A product whose terms are added up as devices do it; blocks of the processor's library err by less."""
    a, b = fake_cupy.plain(a), fake_cupy.plain(b)
    total = np.zeros((*a.shape[:-1], b.shape[-1]), a.dtype)
    for k in range(a.shape[-1]):
        total += a[..., :, k : k + 1] * b[..., k : k + 1, :]
    return fake_cupy.wrapped(total)


def test_sums_of_devices_neither_spoil_a_factor_nor_the_look_at_it(cp, monkeypatch):
    """With one long sum the factor comes out at 140 eps from orthonormal, and the probe sees 260 of 240 allowed."""
    rng = np.random.default_rng(0)
    n = 1024
    near = orthonormal(rng, n, n, "float64").astype(np.float32)
    monkeypatch.setattr(cp, "matmul", one_after_the_other)
    monkeypatch.setattr(library, "TRIANGLE_SIZE", 2 * n)
    u = cp.asarray(near)
    defect = affine(library.careful_gram(u, cp), -1.0, 1.0, cp)
    closed = corrected(u, defect, StepKind.CUBIC, cp)
    eps = np.finfo("float32").eps
    exact = read(closed).T @ read(closed) - np.eye(n)
    assert np.linalg.norm(exact) <= 120 * eps
    assert read(estimates.departure(closed, cp)) <= 0.75 * measured._departure_limit(u)
    careless = affine(library.gram(u, cp), -1.0, 1.0, cp)
    spoilt = read(corrected(u, careless, StepKind.CUBIC, cp))
    assert np.linalg.norm(spoilt.T @ spoilt - np.eye(n)) > 120 * eps


@pytest.mark.parametrize("module", [measured, spectral])
def test_what_closes_a_factor_is_summed_in_parts(cp, monkeypatch, module):
    calls, right = [], library.careful_gram
    monkeypatch.setattr(module, "careful_gram", lambda u, cp: calls.append(1) or right(u, cp))
    x = matrix(kappa=1e3) if module is measured else matrix(kappa=1e20)
    unitary_factor(cp.asarray(x), completion="unitary", rcond=None, cp=cp)
    assert calls


@pytest.mark.parametrize("shape", [(3000, 4), (1025, 700), (2, 1500, 3), (40, 5)])
def test_a_careful_gram_matrix_is_one(cp, rng, shape):
    x = rng.standard_normal(shape)
    found = read(library.careful_gram(cp.asarray(x), cp))
    np.testing.assert_allclose(found, np.swapaxes(x, -1, -2) @ x, atol=1e-11)
