"""Compiled loops of entropic transport: exponentials, passes, relaxation, and the ways that lead round underflow."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

import numba
from orthokern_numba import cloud_kernels
from orthokern_numba import entropic_kernels as kernels

import orthokern
from orthokern.transport.codes import OTStatus, Stat
from orthokern.transport.sinkhorn import entropic_potentials


@numba.njit
def exponentials(x, y):
    for i in range(len(x)):
        y[i] = kernels.exponential(x[i])


def exponential(x):
    y = np.empty_like(x)
    exponentials(x, y)
    return y


def test_exponentials_to_two_units(rng):
    x = np.concatenate([rng.uniform(-707, 709, 200_000), rng.uniform(-1, 1, 200_000)])
    exact = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(exponential(x) - exact) / np.spacing(exact.astype(float))) <= 2


def test_exponentials_at_the_ends():
    x = np.array([-np.inf, -1e308, -708.5, -708.0, -0.0, 0.0, np.log(2)])
    found = exponential(x)
    assert found[:3].tolist() == [0, 0, 0]
    assert 0 < found[3] < 4e-308
    np.testing.assert_allclose(found[4:], [1, 1, 2], rtol=4e-16)


def example(rng, m, n):
    k, a, b = rng.random((m, n)), rng.random(m) + 0.1, rng.random(n) + 0.1
    return k, a / a.sum(), b / b.sum(), rng.random(m) + 0.5, rng.random(n) + 0.5


@pytest.mark.parametrize("m", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_a_pass_is_a_sweep(m, n, rng):
    k, a, b, u, v = example(rng, m, n)
    rows, total = np.empty((7, m)), np.empty(n)
    found = u.copy()
    error = kernels._sweep_rows(k, a, found, v, 0.0, rows, total)
    np.testing.assert_allclose(found, a / (k @ v), rtol=1e-13)
    np.testing.assert_allclose(total, k.T @ found, rtol=1e-13)
    np.testing.assert_allclose(error, np.abs(u * (k @ v) - a).sum(), rtol=1e-12)
    np.testing.assert_array_equal(rows[1], u)
    assert kernels._sweep_columns(b, v, 0.0, total) < 1e-14
    np.testing.assert_allclose(v * total, b, rtol=1e-13)


def test_relaxation_is_a_power_near_its_fixed_point():
    for theta in (0.0, 0.5, 0.9):
        for ratio in (0.999, 1.0, 1.001):
            found = kernels.relaxed(3.0, 1.0, ratio, theta)
            np.testing.assert_allclose(found, 3 * ratio ** (1 + theta), rtol=1e-8)
        far = kernels.relaxed(1.0, 1.0, 1e12, theta)
        assert 1e12 <= far <= 1e12 * (1 + theta) / (1 - theta)


def test_the_best_relaxation_of_a_known_rate():
    """Plain sweeps of rate r are fastest with omega = 2 / (1 + sqrt(1 - r)); a rate seen under it leads back to r."""
    best = 2 / (1 + np.sqrt(1 - 0.99)) - 1
    np.testing.assert_allclose(kernels.better(0.0, 0.99), best)
    theta, plain = 0.5, 0.99
    # The larger root of (rate + theta)^2 = rate (1 + theta)^2 plain.
    half = (1 + theta) ** 2 * plain / 2 - theta
    rate = half + np.sqrt(half**2 - theta**2)
    np.testing.assert_allclose(kernels.better(theta, rate), best)
    assert kernels.better(0.7, 1.2) == 0
    assert kernels.better(0.7, 0.6) == 0.7
    assert kernels.better(0.0, 1 - 1e-9) == kernels.MOST_RELAXATION


def test_conjugate_gradients_solve_the_newton_equations(rng):
    k, a, b, u, _ = example(rng, 9, 13)
    rows, columns, v = np.empty((7, 9)), np.empty((5, 13)), np.empty(13)
    kernels._fit_columns(k, b, u, v, columns[0])
    kernels._start(k, a, u, v, rows, columns[0])
    assert kernels._solve_schur(k, b, u, v, 1e-10, rows, columns) <= 12
    plan = u[:, None] * k * v
    x, y = rows[5], columns[3]
    np.testing.assert_allclose(plan.sum(1) * x + plan @ y, a - plan.sum(1), atol=1e-9)
    np.testing.assert_allclose(plan.T @ x + plan.sum(0) * y, 0, atol=1e-9)


def clouds(n, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 2)), 0.8 * rng.standard_normal((n, 2)) + 0.7
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = rng.random(n) + 0.01, rng.random(n) + 0.01
    return a / a.sum(), b / b.sum(), cost / cost.max()


@pytest.mark.parametrize("patience", [0, 10**9])
@pytest.mark.parametrize("epsilon", [0.02, 0.004])
def test_sweeps_and_newton_steps_find_the_same(patience, epsilon, monkeypatch):
    """``patience``: at the first look to Newton steps, or sweeps to the end."""
    a, b, cost = clouds(60)
    k, f, g = np.empty((60, 60)), np.zeros(60), np.empty(60)
    steps, error, reason = kernels.stage(cost, a, b, epsilon, 1e-11, 10**6, patience, f, g, k)
    assert reason == kernels.DONE
    assert error <= 1e-11
    plan = np.exp((f[:, None] + g - cost) / epsilon)
    assert np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum() <= 2e-11
    with orthokern.use_backend("array-api"):
        options = {"tol": 1e-11, "max_iter": 1000}
        alpha, beta, _ = entropic_potentials(a, b, cost, np.array([[epsilon]]), **options)
    np.testing.assert_allclose(plan, np.exp((alpha[:, None] + beta - cost) / epsilon), atol=1e-9)
    assert (steps < 30) == (patience == 0)


def test_rows_that_vanish_are_lifted(rng):
    a, b, cost = clouds(12)
    k, f, g = np.empty((12, 12)), np.zeros(12), np.empty(12)
    f[3] = -40.0
    steps, error, reason = kernels.stage(cost, a, b, 0.02, 1e-10, 10_000, 400, f, g, k)
    assert reason == kernels.DONE
    assert error <= 1e-10
    assert steps < 200


@pytest.mark.parametrize("potential", [-100.0, 30.0])
def test_clouds_from_potentials_far_away(potential, rng):
    """What nothing is seen of is raised until it shows."""
    x, y = rng.standard_normal((8, 2)), np.ascontiguousarray(rng.standard_normal((9, 2)).T)
    a, row, total = np.full(8, 1 / 8), np.empty(9), np.empty(9)
    f, g = np.full(8, potential / 0.02), np.zeros(9)
    b = np.full(9, 1 / 9)
    errors = []
    for _ in range(100):
        error = cloud_kernels._cloud_rows(x, y, a, 2.0, 1 / 0.5, 0.0, f, g, row, total)
        cloud_kernels._cloud_columns(b, 0.0, g, total)
        errors.append(error)
    assert errors[-1] < 1e-3
    assert np.all(np.isfinite(f))
    assert np.all(np.isfinite(g))


def test_masses_of_single_precision_have_no_common_sum(rng):
    a, b, cost = clouds(50)
    given = [x.astype(np.float32) for x in (a, b, cost)]
    given[0] *= np.float32(1 + 3e-7)
    epsilon = np.array([[0.02]], np.float32)
    alpha, beta, stats = entropic_potentials(*given, epsilon, tol=1e-10, max_iter=1000)
    assert stats[Stat.STATUS] == OTStatus.STALLED
    assert stats[Stat.ERROR] < 2e-5
    assert np.max(np.abs(alpha)) < 3
    plan = np.exp((alpha.astype(float)[:, None] + beta - given[2]) / float(epsilon[0, 0]))
    error = np.abs(plan.sum(1) - given[0]).sum() + np.abs(plan.sum(0) - given[1]).sum()
    np.testing.assert_allclose(stats[Stat.ERROR], error, rtol=0.05)


def test_who_runs(rng):
    a, b, cost = clouds(5)
    for tol, expected in ((1e-6, "numba"), (None, "array-api")):
        with orthokern.explain() as report:
            entropic_potentials(a, b, cost, np.array([[0.1]]), tol=tol, max_iter=5)
        assert report[-1].backend == expected
