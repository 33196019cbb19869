"""Sparse and exact transport by proximal points: known answers, linear programmes, certificates, how it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from orthokern._core.dispatch import use_backend
from orthokern._core.errors import UnsupportedError
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy
from orthokern.transport.codes import OTStatus, Stat
from orthokern.transport.newton import quadratic_potentials
from orthokern.transport.objective import dual_value, primal_value
from orthokern.transport.proximal import exact_plan, proximal_plan

from . import examples
from .conftest import made
from .examples import canonical, departure, ksupport_squared, linear_cost

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)


def number(x):
    return np.full((1, 1), float(x))


def sparse(a, b, cost, gamma, k, *, tol=1e-10, max_iter=3000, backend=None):
    gamma = number(gamma) if np.ndim(gamma) == 0 else gamma
    with use_backend(backend):
        return proximal_plan(a, b, cost, gamma, k=k, tol=tol, max_iter=max_iter)


def exact(a, b, cost, *, tol=1e-10, max_iter=3000, backend=None):
    with use_backend(backend):
        return exact_plan(a, b, cost, tol=tol, max_iter=max_iter)


def assert_certified(out, a, b, cost, gamma, k):
    """The plan, after its marginals and its gap were found to be what they should be."""
    plan, alpha, beta, stats = out
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert plan.min() >= 0
    error = departure(plan, a, b)
    assert error <= 1e-9
    np.testing.assert_allclose(stats[Stat.ERROR], error, atol=1e-12)
    gap = examples.gap(plan, a, b, cost, alpha, beta, gamma, k)
    assert abs(gap) <= 1e-8 * max(1.0, float(np.ravel(gamma)[0]))
    assert not np.any(alpha[a == 0])
    assert not np.any(beta[b == 0])
    return plan


@pytest.mark.parametrize(("k", "value"), [(1, 2.5), (2, 1.65), (3, 1.45)])
def test_points_on_a_line(k, value, place, dtype):
    a, b, cost, gamma = (
        made(x, place.library, dtype) for x in (*examples.LINE_MASSES, examples.LINE, number(5.0))
    )
    if place.library == "dask":
        with pytest.raises(UnsupportedError, match="Dask"):
            proximal_plan(a, b, cost, gamma, k=k, tol=1e-5, max_iter=200)
        return
    with use_backend(place.backend):
        plan, alpha, _, stats = proximal_plan(a, b, cost, gamma, k=k, tol=1e-5, max_iter=200)
    assert type(plan) is type(a)
    assert plan.dtype == alpha.dtype == stats.dtype == cost.dtype
    assert float(stats[Stat.STATUS]) == OTStatus.CONVERGED
    t = to_numpy(plan).astype(float)
    found = 2 * (examples.LINE * t).sum() + 5 * sum(ksupport_squared(x, k) for x in t.T)
    np.testing.assert_allclose(found, value, atol=2e-4)
    np.testing.assert_allclose(departure(t, *examples.LINE_MASSES), 0, atol=2e-5)


def test_the_relaxed_optimum_on_a_line_has_a_full_column(backend):
    given = (*examples.LINE_MASSES, examples.LINE)
    out = sparse(*given, 5.0, 2, backend=backend)
    plan = assert_certified(out, *given, 5.0, 2)
    np.testing.assert_allclose(plan, examples.LINE_PLAN, atol=1e-8)
    dual = 2 * dual_value(*given, *out[1:3], number(5.0), 2)
    np.testing.assert_allclose(dual, 1.65, atol=1e-9)
    assert (plan > 1e-6).sum(0).tolist() == [1, 2, 3]


BELLS = {2: 0.16655903, 5: 0.16635079, 13: 0.166350786}


@pytest.mark.parametrize("k", BELLS)
def test_two_bells(k, backend):
    a, b, cost, unit = examples.bells()
    out = sparse(a, b, cost, 0.1 / unit, k, tol=1e-9, backend=backend)
    plan = assert_certified(out, a, b, cost, 0.1 / unit, k)
    value = unit * primal_value(plan, cost, number(0.1 / unit), k)
    np.testing.assert_allclose(value, BELLS[k], atol=1e-8)
    assert value >= unit * dual_value(a, b, cost, *out[1:3], number(0.1 / unit), k) - 1e-8


def test_two_bells_without_regularizer(backend):
    a, b, cost, unit = examples.bells()
    plan = assert_certified(exact(a, b, cost, tol=1e-9, backend=backend), a, b, cost, 0.0, len(a))
    # Of the bells before the lightest bins were dropped.
    np.testing.assert_allclose(unit * linear_cost(plan, cost), 0.1658058110190663, atol=1e-9)


@pytest.mark.parametrize("seed", range(200))
def test_sparse_whatever_a_solver_may_hand_over(seed, backend):
    a, b, cost, gamma, k = canonical(seed)
    assert_certified(sparse(a, b, cost, gamma, k, backend=backend), a, b, cost, gamma, k)


@pytest.mark.parametrize("seed", range(200))
def test_exact_whatever_a_solver_may_hand_over(seed, backend):
    a, b, cost, *_ = canonical(seed)
    assert_certified(exact(a, b, cost, backend=backend), a, b, cost, 0.0, len(a))


@pytest.mark.parametrize("seed", range(30))
def test_against_a_linear_programme(seed, backend):
    a, b, cost, *_ = canonical(seed, size=10)
    m, n = cost.shape
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    free = np.isfinite(cost).ravel()
    other = linprog(
        cost.ravel()[free],
        A_eq=sums[:, free],
        b_eq=np.concatenate([a, b]),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert other.success
    plan = exact(a, b, cost, backend=backend)[0]
    np.testing.assert_allclose(linear_cost(plan, cost), other.fun, atol=2e-9)


def least_value(a, b, cost, gamma, k):
    """The norm as a minimum over shares, ``sum t^2 / theta`` with ``theta <= 1``, ``sum theta <= k``."""
    m, n = cost.shape
    size = m * n
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    columns = np.kron(np.ones(m), np.eye(n))
    # One of the sums follows from the others.
    sums, wanted = sums[1:], np.concatenate([a, b])[1:]

    def value(x):
        return cost.ravel() @ x[:size] + gamma / 2 * (x[:size] ** 2 / x[size:]).sum()

    def gradient(x):
        ratio = x[:size] / x[size:]
        return np.concatenate([cost.ravel() + gamma * ratio, -gamma / 2 * ratio**2])

    nothing = np.zeros_like(sums), np.zeros_like(columns)
    return minimize(
        value,
        np.concatenate([np.outer(a, b).ravel(), np.full(size, min(1.0, k / m))]),
        jac=gradient,
        bounds=[(0, None)] * size + [(1e-9, 1)] * size,
        constraints=[
            {
                "type": "eq",
                "fun": lambda x: sums @ x[:size] - wanted,
                "jac": lambda x: np.hstack([sums, nothing[0]]),
            },
            {
                "type": "ineq",
                "fun": lambda x: k - columns @ x[size:],
                "jac": lambda x: np.hstack([nothing[1], -columns]),
            },
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )


@pytest.mark.parametrize("seed", range(12))
def test_against_a_general_solver(seed, backend):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(2, 6, 2)
    cost, a, b = rng.random((m, n)), rng.random(m) + 0.1, rng.random(n) + 0.1
    a, b, gamma, k = a / a.sum(), b / b.sum(), 10 ** rng.uniform(-0.5, 1), int(rng.integers(1, m))
    other = least_value(a, b, cost, gamma, k)
    out = sparse(a, b, cost, gamma, k, backend=backend)
    plan = assert_certified(out, a, b, cost, gamma, k)
    value = primal_value(plan, cost, number(gamma), k)
    assert value <= other.fun + 1e-8
    np.testing.assert_allclose(value, other.fun, rtol=1e-4)


@given(seed=seeds)
@BOUNDED
def test_laws(seed):
    a, b, cost, gamma, _ = canonical(seed, size=12)
    m = len(a)
    values = []
    for k in range(1, min(m, 4) + 1):
        plan = sparse(a, b, cost, gamma, k)[0]
        values.append(float(primal_value(plan, cost, gamma, k)))
    scale = 1 + gamma[0, 0]
    assert np.all(np.diff(values) <= 2e-8 * scale)
    plan = exact(a, b, cost)[0]
    linear = linear_cost(plan, cost)
    np.testing.assert_allclose(values[0], linear + gamma[0, 0] / 2 * (b @ b), atol=2e-8 * scale)
    full = sparse(a, b, cost, gamma, m)[0]
    alpha, beta, _ = quadratic_potentials(a, b, cost, gamma, tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(full, examples.plan_of(alpha, beta, cost, gamma), atol=1e-4)
    np.testing.assert_allclose(
        *(
            primal_value(t, cost, gamma, m)
            for t in (full, examples.plan_of(alpha, beta, cost, gamma))
        ),
        atol=2e-8 * scale,
    )
    order = np.random.default_rng(seed).permutation(m)
    moved = exact(a[order], b, cost[order])[0]
    np.testing.assert_allclose(linear_cost(moved, cost[order]), linear, atol=2e-8)


@given(seed=seeds)
@BOUNDED
def test_any_potentials_bound_any_plan(seed):
    rng = np.random.default_rng(seed)
    a, b, cost, gamma, k = canonical(seed, size=12)
    allowed = examples.northwest(a, b)
    cost = np.where(allowed > 0, np.where(np.isfinite(cost), cost, 0.5), cost)
    alpha, beta = rng.standard_normal(len(a)), rng.standard_normal(len(b))
    for weight in (gamma, 0 * gamma):
        lower = dual_value(a, b, cost, alpha, beta, weight, k)
        assert lower <= primal_value(allowed, cost, weight, k) + 1e-9 * (1 + gamma[0, 0])


# How it ends


@pytest.mark.parametrize("seed", range(40))
def test_single_precision_ends(seed, backend):
    a, b, cost, gamma, k = canonical(seed)
    a, b, cost, gamma = (np.asarray(x, dtype=np.float32) for x in (a, b, cost, gamma))
    wide = a.astype(float), b.astype(float)
    for plan, *_, stats in (
        sparse(a, b, cost, gamma, k, tol=1e-5, backend=backend),
        exact(a, b, cost, tol=1e-5, backend=backend),
    ):
        assert plan.dtype == stats.dtype == np.float32
        assert departure(plan.astype(float), *wide) <= 1e-4
        assert stats[Stat.ITERATIONS] < 3000


def test_no_plan_at_all(backend):
    for out in (
        sparse(*examples.SHUT_MASSES, examples.SHUT, 1.0, 2, backend=backend),
        exact(*examples.SHUT_MASSES, examples.SHUT, backend=backend),
    ):
        assert out[-1][Stat.STATUS] == OTStatus.INFEASIBLE
        assert all(np.all(np.isfinite(x)) for x in out)


@pytest.mark.parametrize("missing", [1e-2, 1e-4, 1e-7])
def test_a_little_mass_that_has_no_way(missing, backend):
    cost = np.array([[0.0, np.inf], [0.5, 1.0]])
    a, b = np.array([0.5 + missing, 0.5 - missing]), np.array([0.5, 0.5])
    for out in (sparse(a, b, cost, 0.3, 1, backend=backend), exact(a, b, cost, backend=backend)):
        assert out[-1][Stat.STATUS] == OTStatus.INFEASIBLE
        assert all(np.all(np.isfinite(x)) for x in out)


@pytest.mark.parametrize("steps", [0, 1, 8])
def test_too_few_steps(steps, backend, rng):
    a, b, cost = np.full(30, 1 / 30), np.full(40, 1 / 40), rng.random((30, 40))
    for out in (
        sparse(a, b, cost, 10.0, 3, max_iter=steps, backend=backend),
        exact(a, b, cost, max_iter=steps, backend=backend),
    ):
        assert out[-1][Stat.STATUS] == OTStatus.MAX_ITER
        assert out[-1][Stat.ITERATIONS] == steps
        assert all(np.all(np.isfinite(x)) for x in out)


def batch(rng):
    """Problems of very different length in one batch of shape (2, 2)."""
    a, b = (rng.random((2, 2, size)) + 0.01 for size in (9, 7))
    cost = rng.random((2, 2, 9, 7))
    cost[0, 1] = 0
    cost[1, 1] = np.inf
    gamma = np.array([[1e-2, 1.0], [1e2, 1.0]])[..., None, None]
    return a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True), cost, gamma


@pytest.mark.parametrize("kind", ["sparse", "exact"])
def test_a_batch_is_a_loop(kind, backend, rng):
    given = batch(rng)
    call = (lambda *x: sparse(*x, 3, backend=backend)) if kind == "sparse" else exact_of(backend)
    out = call(*given)
    for i in np.ndindex(2, 2):
        alone = call(*(x[i] for x in given))
        np.testing.assert_allclose(out[0][i], alone[0], rtol=0, atol=1e-12)
        columns = [Stat.ITERATIONS, Stat.STATUS]
        assert out[-1][i][columns].tolist() == alone[-1][columns].tolist()
    status = out[-1][..., Stat.STATUS].tolist()
    assert status == [[OTStatus.CONVERGED] * 2, [OTStatus.CONVERGED, OTStatus.INFEASIBLE]]


def exact_of(backend):
    return lambda a, b, cost, gamma: exact(a, b, cost, backend=backend)


def test_batches_on_every_library(place, rng):
    if place.library == "dask":
        pytest.skip("refused, see the points on a line")
    a, b, cost, gamma = batch(rng)
    arrays = tuple(made(x, place.library) for x in (a, b, cost, gamma))
    with use_backend(place.backend):
        outs = (
            proximal_plan(*arrays, k=3, tol=1e-5, max_iter=1000),
            exact_plan(*arrays[:3], tol=1e-5, max_iter=1000),
        )
    for plan, *_, stats in outs:
        assert type(plan) is type(arrays[0])
        assert plan.dtype == stats.dtype == arrays[0].dtype
        status = to_numpy(stats)[..., Stat.STATUS]
        assert status.tolist() == [[0, 0], [0, OTStatus.INFEASIBLE]]
        assert np.all(departure(to_numpy(plan), a, b)[status == 0] <= 1e-4)


def test_input_is_left_alone(rng, backend):
    given = batch(rng)
    copies = [x.copy() for x in given]
    sparse(*given, 3, backend=backend)
    for x, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="JAX is not installed")
def test_abstract_arrays_are_refused():
    import jax

    given = [jax.numpy.asarray(x) for x in (np.ones(2) / 2, np.ones(2) / 2, np.eye(2), number(1.0))]
    with pytest.raises(UnsupportedError, match=r"proximal_plan .* pass tol=None, max_iter="):
        jax.jit(lambda *x: proximal_plan(*x, k=1, tol=1e-5, max_iter=9))(*given)
    with pytest.raises(UnsupportedError, match=r"exact_plan .* pass tol=None, max_iter="):
        jax.jit(lambda *x: exact_plan(*x, tol=1e-5, max_iter=9))(*given[:3])
