"""Quadratically regularized transport by Newton steps: known answers, an independent solver, laws, how it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, minimize

from orthokern._core.dispatch import use_backend
from orthokern._core.errors import UnsupportedError
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy
from orthokern.transport.codes import OTStatus, Stat
from orthokern.transport.newton import quadratic_potentials

from . import examples
from .conftest import made
from .examples import canonical, departure, plan_of

BOUNDED = settings(derandomize=True, max_examples=60, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)


def number(x):
    return np.full((1, 1), float(x))


def solved(a, b, cost, gamma, *, tol=1e-10, max_iter=1000, backend=None):
    """``(plan, alpha, beta, stats)``, which have to be in line with each other."""
    gamma = number(gamma) if np.ndim(gamma) == 0 else gamma
    with use_backend(backend):
        alpha, beta, stats = quadratic_potentials(a, b, cost, gamma, tol=tol, max_iter=max_iter)
    plan = plan_of(alpha, beta, cost, gamma)
    told = stats[..., Stat.ERROR]
    np.testing.assert_allclose(departure(plan, a, b), told, rtol=1e-6, atol=1e-12)
    return plan, alpha, beta, stats


@pytest.mark.parametrize(("gamma", "swapped"), [(4.0, 0.125), (1.0, 0.0), (3.0, 1 / 12)])
def test_two_points(gamma, swapped, place, dtype):
    if place.library == "dask":
        pytest.skip("refused, see the test of every library")
    half = made([0.5, 0.5], place.library, dtype)
    cost = made([[0.0, 1.0], [1.0, 0.0]], place.library, dtype)
    weight = made(number(gamma), place.library, dtype)
    with use_backend(place.backend):
        alpha, beta, stats = quadratic_potentials(half, half, cost, weight, tol=1e-5, max_iter=50)
    assert alpha.dtype == beta.dtype == stats.dtype == cost.dtype
    plan = plan_of(to_numpy(alpha), to_numpy(beta), to_numpy(cost), gamma)
    assert float(stats[Stat.STATUS]) == OTStatus.CONVERGED
    np.testing.assert_allclose(
        plan, [[0.5 - swapped, swapped], [swapped, 0.5 - swapped]], atol=1e-5
    )


def test_potentials_of_two_points(backend):
    cost, half = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.5])
    _, alpha, beta, _ = solved(half, half, cost, 4.0, backend=backend)
    np.testing.assert_allclose(alpha[:, None] + beta, 1.5, atol=1e-9)


@pytest.mark.parametrize(("gamma", "value"), [(0.5, 0.6425), (2.0, 0.77), (10.0, 1.45)])
def test_points_on_a_line(gamma, value, backend):
    plan, *_ = solved(*examples.LINE_MASSES, examples.LINE, gamma / 2, backend=backend)
    np.testing.assert_allclose(plan, examples.LINE_PLAN, atol=1e-9)
    found = 2 * (examples.LINE * plan).sum() + gamma / 2 * (plan**2).sum()
    np.testing.assert_allclose(found, value, atol=1e-9)


def test_two_bells(backend):
    a, b, cost, unit = examples.bells()
    plan, *_ = solved(a, b, cost, 0.1 / unit, tol=1e-9, backend=backend)
    value = unit * examples.linear_cost(plan, cost) + 0.05 * (plan**2).sum()
    np.testing.assert_allclose(value, 0.166350786, atol=1e-9)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_a_solver_may_hand_over(seed, backend):
    a, b, cost, gamma, _ = canonical(seed)
    plan, alpha, beta, stats = solved(a, b, cost, gamma, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert departure(plan, a, b) <= 1e-9
    gap = examples.gap(plan, a, b, cost, alpha, beta, gamma, len(a))
    assert abs(gap) <= 1e-8 * max(1, gamma[0, 0])
    assert not np.any(plan[a == 0])
    assert not np.any(alpha[a == 0])
    assert not np.any(beta[b == 0])


def least_value(a, b, cost, gamma):
    """By a general solver of quadratic programmes, for a handful of variables."""
    m, n = cost.shape
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    # One of the sums follows from the others.
    sums, wanted = sums[1:], np.concatenate([a, b])[1:]
    return minimize(
        lambda t: cost.ravel() @ t + gamma / 2 * t @ t,
        np.outer(a, b).ravel(),
        jac=lambda t: cost.ravel() + gamma * t,
        bounds=[(0, None)] * (m * n),
        constraints={"type": "eq", "fun": lambda t: sums @ t - wanted, "jac": lambda t: sums},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )


@pytest.mark.parametrize("seed", range(20))
def test_against_a_general_solver(seed, backend):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 6, 2)
    cost, a, b = rng.random((m, n)), rng.random(m) + 0.05, rng.random(n) + 0.05
    a, b, gamma = a / a.sum(), b / b.sum(), 10 ** rng.uniform(-1, 1)
    other = least_value(a, b, cost, gamma)
    plan, *_ = solved(a, b, cost, gamma, backend=backend)
    value = (cost * plan).sum() + gamma / 2 * (plan**2).sum()
    np.testing.assert_allclose(value, other.fun, rtol=1e-6)
    assert value <= other.fun + 1e-8
    np.testing.assert_allclose(plan, other.x.reshape(m, n), atol=3e-4)


@given(seed=seeds)
@BOUNDED
def test_laws(seed):
    rng = np.random.default_rng(seed)
    a, b, cost, gamma, _ = canonical(seed, size=15)
    plan, *_ = solved(a, b, cost, gamma)
    shifts = rng.random(len(a)) / 3, rng.random(len(b)) / 3
    shifted, *_ = solved(a, b, cost / 3 + shifts[0][:, None] + shifts[1], gamma / 3)
    np.testing.assert_allclose(shifted, plan, atol=1e-8)
    order = rng.permutation(len(a))
    permuted, *_ = solved(a[order], b, cost[order], gamma)
    np.testing.assert_allclose(permuted, plan[order], atol=1e-8)
    flipped, *_ = solved(b, a, cost.T, gamma)
    np.testing.assert_allclose(flipped.T, plan, atol=1e-8)
    larger, *_ = solved(a, b, cost, 2 * gamma)
    squares, fewer = (plan**2).sum(), (larger**2).sum()
    assert fewer <= squares + 1e-9
    assert examples.linear_cost(larger, cost) >= examples.linear_cost(plan, cost) - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_small_gamma_gives_an_assignment(seed, backend):
    cost = np.random.default_rng(seed).random((12, 12))
    same, expected = np.full(12, 1 / 12), np.zeros((12, 12))
    expected[linear_sum_assignment(cost)] = 1 / 12
    plan, *_ = solved(same, same, cost, 1e-3, backend=backend)
    np.testing.assert_allclose(plan, expected, atol=1e-9)


# How it ends


@pytest.mark.parametrize("seed", range(40))
def test_single_precision_ends(seed, backend):
    a, b, cost, gamma, _ = (np.asarray(x, dtype=np.float32) for x in canonical(seed))
    gamma = np.maximum(gamma, np.float32(0.3))
    with use_backend(backend):
        alpha, beta, stats = quadratic_potentials(a, b, cost, gamma, tol=1e-5, max_iter=1000)
    assert alpha.dtype == beta.dtype == stats.dtype == np.float32
    plan = plan_of(*(x.astype(float) for x in (alpha, beta, cost, gamma)))
    assert departure(plan, a.astype(float), b.astype(float)) <= 1e-4
    assert stats[Stat.ITERATIONS] < 1000


def test_no_plan_at_all(backend):
    """What the columns lack no row may give them: the dual has no bound."""
    alpha, beta, stats = solved(*examples.SHUT_MASSES, examples.SHUT, 1.0, backend=backend)[1:]
    assert stats[Stat.STATUS] == OTStatus.INFEASIBLE
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(beta))
    a, b, cost, *_ = canonical(3)
    alpha, beta, stats = solved(a, b, np.full_like(cost, np.inf), 1.0, backend=backend)[1:]
    assert stats[Stat.STATUS] == OTStatus.INFEASIBLE
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(beta))


@pytest.mark.parametrize("missing", [1e-2, 1e-5, 1e-7])
def test_a_little_mass_that_has_no_way(missing, backend):
    cost = np.array([[0.0, np.inf], [0.5, 1.0]])
    a, b = np.array([0.5 + missing, 0.5 - missing]), np.array([0.5, 0.5])
    alpha, beta, stats = solved(a, b, cost, 0.3, backend=backend)[1:]
    assert stats[Stat.STATUS] == OTStatus.INFEASIBLE
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(beta))
    assert stats[Stat.ITERATIONS] < 300


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_too_few_steps(steps, backend, rng):
    a, b, cost = np.full(30, 1 / 30), np.full(40, 1 / 40), rng.random((30, 40))
    _, alpha, beta, stats = solved(a, b, cost, 1e-3, max_iter=steps, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.MAX_ITER
    assert stats[Stat.ITERATIONS] == steps
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(beta))


def batch(rng):
    """Problems of very different length in one batch of shape (2, 3)."""
    a, b = (rng.random((2, 3, size)) + 0.01 for size in (9, 7))
    cost = rng.random((2, 3, 9, 7))
    cost[0, 1] = 0
    cost[0, 2] = np.inf
    cost[1, 0, 2] = np.inf
    a[1, 0, 2] = 0
    gamma = np.array([[1e-3, 1.0, 1.0], [10.0, 1e-2, 1e3]])[..., None, None]
    return a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True), cost, gamma


def test_a_batch_is_a_loop(backend, rng):
    given = batch(rng)
    plan, _, _, stats = solved(*given, backend=backend)
    for i in np.ndindex(2, 3):
        alone, _, _, figures = solved(*(x[i] for x in given), backend=backend)
        np.testing.assert_allclose(plan[i], alone, rtol=0, atol=1e-12 * max(1, np.abs(alone).max()))
        columns = [Stat.ITERATIONS, Stat.STATUS]
        assert stats[i][columns].tolist() == figures[columns].tolist()
    assert stats[0, 2, Stat.STATUS] == OTStatus.INFEASIBLE
    assert np.count_nonzero(stats[..., Stat.STATUS] == OTStatus.CONVERGED) == 5


def test_every_library(place, rng):
    given = batch(rng)
    if place.library == "dask":
        with pytest.raises(UnsupportedError, match="Dask"):
            quadratic_potentials(*(made(x, "dask") for x in given), tol=1e-5, max_iter=200)
        return
    given = (*given[:3], np.maximum(given[3], 0.5))
    arrays = tuple(made(x, place.library) for x in given)
    with use_backend(place.backend):
        alpha, beta, stats = quadratic_potentials(*arrays, tol=1e-5, max_iter=200)
    assert type(alpha) is type(arrays[0])
    status = to_numpy(stats)[..., Stat.STATUS]
    assert np.array_equal(status == OTStatus.CONVERGED, [[True, True, False], [True, True, True]])
    plan = plan_of(to_numpy(alpha), to_numpy(beta), given[2], given[3])
    errors = departure(plan, given[0], given[1])[status == OTStatus.CONVERGED]
    assert np.all(errors <= 1e-4)


def test_input_is_left_alone(rng, backend):
    given = batch(rng)
    copies = [x.copy() for x in given]
    solved(*given, backend=backend)
    for x, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="JAX is not installed")
def test_abstract_arrays_are_refused():
    import jax

    given = (np.ones(2) / 2, np.ones(2) / 2, np.eye(2), number(1.0))
    call = jax.jit(lambda *x: quadratic_potentials(*x, tol=1e-5, max_iter=9))
    with pytest.raises(UnsupportedError, match="pass tol=None, max_iter="):
        call(*(jax.numpy.asarray(x) for x in given))
