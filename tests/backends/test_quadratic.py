"""Newton and proximal engines of transport for processors: oracles, certificates, and the pieces they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing import libraries
from orthokern.transport.codes import OTStatus, Stat
from orthokern.transport.newton import quadratic_potentials
from orthokern.transport.proximal import proximal_plan

pytest.importorskip("numba")

from orthokern_numba import ascent, newton_system, proximal_sweeps, quadratic, sweeps

TOL = 1e-9
BOUNDED = settings(max_examples=60, deadline=None)


def one(gamma):
    return np.array([[float(gamma)]])


def potentials(a, b, cost, gamma, tol=TOL, max_iter=2000):
    return quadratic.quadratic_potentials(a, b, cost, one(gamma), tol=tol, max_iter=max_iter)


def planned(a, b, cost, gamma, k, tol=TOL, max_iter=5000):
    return quadratic.proximal_plan(a, b, cost, one(gamma), k=k, tol=tol, max_iter=max_iter)


def error_of(plan, a, b):
    return np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()


def norm_squared(t, k):
    """Square of the k-support norm by the definition, of one vector that is not negative."""
    t = np.sort(t)[::-1]
    if k >= len(t):
        return t @ t
    best = 0.0
    for r in range(k):
        # The norm is the largest <s, t> of the dual ball, whose extreme points share their tail.
        head, tail = t[: k - r - 1], t[k - r - 1 :].sum()
        level = tail / (r + 1)
        if (not len(head) or head[-1] > level * (1 - 1e-14)) and level >= t[k - r - 1] * (
            1 - 1e-14
        ):
            best = max(best, head @ head + tail * tail / (r + 1))
    return best


def gap_of(plan, alpha, beta, a, b, cost, gamma, k):
    """Value of the plan less the dual value, both by their definitions."""
    value = (plan * np.where(plan > 0, cost, 0.0)).sum()
    slack = np.maximum(alpha[:, None] + beta - cost, 0.0)
    dual = a @ alpha + b @ beta
    if gamma == 0.0:
        assert slack.max() <= 1e-12
        return value - dual
    value += gamma / 2 * sum(norm_squared(t, k) for t in plan.T)
    return value - dual + (np.sort(slack, axis=0)[::-1][:k] ** 2).sum() / (2 * gamma)


def staircase(a, b):
    """Pairs that the rule of the northwest corner fills: with these allowed, a plan exists."""
    starts, heads = np.cumsum(a) - a, np.cumsum(b) - b
    overlap = np.minimum(np.cumsum(a)[:, None], np.cumsum(b)) - np.maximum(starts[:, None], heads)
    return overlap > -1e-12


def problem(seed):
    """Costs, masses, gamma and k of one of eight kinds; dead bins forbid their row or column."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 61, 2)
    kind = seed % 8
    cost, a, b = rng.random((m, n)), rng.random(m) + 0.01, rng.random(n) + 0.01
    if kind == 1:
        cost[:] = rng.random()
    if kind == 2:
        cost = rng.integers(0, 4, (m, n)) / 3.0
    if kind == 3 and m > 2:
        cost[m // 2 :] = cost[: m - m // 2]
    if kind == 4:
        a, b = 10.0 ** rng.uniform(-9, 0, m), 10.0 ** rng.uniform(-9, 0, n)
    if kind == 5:
        x, y = rng.standard_normal((m, 2)), rng.standard_normal((n, 2))
        cost = ((x[:, None] - y) ** 2).sum(-1)
        cost, a = cost / cost.max(), 10.0 ** rng.uniform(-9, 0, m)
    if kind == 6:
        x, y = np.arange(m) / max(m, n), np.arange(n) / max(m, n)
        cost = (x[:, None] - y) ** 2
        a, b = np.exp(-30 * (x - 0.2) ** 2), np.exp(-20 * (y - 0.6) ** 2)
    if rng.random() < 0.4:
        a[1:][rng.random(m - 1) < 0.2] = 0
        b[1:][rng.random(n - 1) < 0.2] = 0
    a, b = np.where(a / a.sum() < 1e-10, 0, a), np.where(b / b.sum() < 1e-10, 0, b)
    a, b = a / a.sum(), b / b.sum()
    if kind == 7:
        cost[(rng.random((m, n)) < 0.5) & ~staircase(a, b)] = np.inf
    cost[a == 0] = np.inf
    cost[:, b == 0] = np.inf
    return cost, a, b, 10.0 ** rng.uniform(-3, 3), int(rng.integers(1, 13))


# Known answers

TWO = np.array([0.5, 0.5])
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
LINE = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
LEFT = np.array([0.5, 0.3, 0.2])


@pytest.mark.parametrize(("gamma", "corner"), [(4.0, 0.125), (1.0, 0.0), (10.0, 0.2)])
def test_two_bins(gamma, corner):
    alpha, beta, stats = potentials(TWO, TWO, SWAP, gamma)
    plan = np.maximum(alpha[:, None] + beta - SWAP, 0) / gamma
    expected = [[0.5 - corner, corner], [corner, 0.5 - corner]]
    np.testing.assert_allclose(plan, expected, atol=1e-9)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    if gamma == 4.0:
        np.testing.assert_allclose(alpha[:, None] + beta, 1.5, atol=1e-8)


@pytest.mark.parametrize(("gamma", "value"), [(0.5, 0.6425), (2.0, 0.77), (10.0, 1.45)])
def test_three_bins(gamma, value):
    """Costs halved to be canonical, and gamma and the value with them."""
    alpha, beta, _ = potentials(LEFT, LEFT[::-1], LINE / 2, gamma / 2)
    plan = 2 / gamma * np.maximum(alpha[:, None] + beta - LINE / 2, 0)
    np.testing.assert_allclose(plan, [[0.2, 0.15, 0.15], [0, 0.15, 0.15], [0, 0, 0.2]], atol=1e-9)
    np.testing.assert_allclose((plan * LINE).sum() + gamma / 2 * (plan**2).sum(), value, rtol=1e-8)


@pytest.mark.parametrize(("k", "value"), [(1, 0.6 + 5 * 0.38), (2, 1.65), (3, 1.45)])
def test_three_bins_with_few_entries(k, value):
    plan, *_ = planned(LEFT, LEFT[::-1], LINE / 2, 5.0, k)
    found = (plan * LINE).sum() + 5 * sum(norm_squared(t, k) for t in plan.T)
    np.testing.assert_allclose(found, value, rtol=1e-8)


def figure():
    """Two bells on a line: masses down to 1e-57, of which those below 1e-9 in all are dropped."""
    x = np.arange(100.0)
    a, b = np.exp(-((x - 20) ** 2) / 50), np.exp(-((x - 60) ** 2) / 200)
    masses = []
    for mass in (a / a.sum(), b / b.sum()):
        order = np.argsort(mass)
        dropped = order[np.cumsum(mass[order]) <= 2.5e-10]
        mass[dropped] = 0
        masses.append(mass / mass.sum())
    cost = (x[:, None] - x) ** 2 / 99**2
    cost[masses[0] == 0] = np.inf
    cost[:, masses[1] == 0] = np.inf
    return cost, *masses


@pytest.mark.parametrize(
    ("k", "value"), [(1, 0.16721639444541184), (2, 0.16655903), (5, 0.16635079), (13, 0.166350786)]
)
def test_two_bells(k, value):
    cost, a, b = figure()
    plan, *_, stats = planned(a, b, cost, 0.1, k)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert error_of(plan, a, b) <= TOL
    linear = (plan * np.where(plan > 0, cost, 0)).sum()
    found = linear + 0.05 * sum(norm_squared(t, k) for t in plan.T)
    np.testing.assert_allclose(found, value, rtol=0, atol=2e-8)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 1), (1, 5), (13, 9), (9, 40), (40, 40)])
def test_without_regularizer_it_is_the_linear_programme(m, n, rng):
    from scipy.optimize import linprog

    cost, a, b = rng.random((m, n)), rng.random(m) + 0.01, rng.random(n) + 0.01
    a, b = a / a.sum(), b / b.sum()
    sums = np.vstack([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    exact = linprog(cost.ravel(), A_eq=sums, b_eq=np.r_[a, b], method="highs").fun
    plan, alpha, beta, stats = planned(a, b, cost, 0.0, m)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    np.testing.assert_allclose((plan * cost).sum(), exact, rtol=0, atol=2e-8)
    np.testing.assert_allclose(a @ alpha + b @ beta, exact, rtol=0, atol=2e-8)


# Certificates


@given(seed=st.integers(0, 10**6))
@BOUNDED
def test_quadratic_problems_are_solved(seed):
    cost, a, b, gamma, _ = problem(seed)
    alpha, beta, stats = potentials(a, b, cost, gamma)
    plan = np.maximum(alpha[:, None] + beta - cost, 0) / gamma
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    found = error_of(plan, a, b)
    assert found <= 1.01 * TOL
    np.testing.assert_allclose(stats[Stat.ERROR], found, atol=1e-13 * (1 + 1 / gamma))
    gap = gap_of(plan, alpha, beta, a, b, cost, gamma, len(a))
    assert abs(gap) <= 1e-8 * (1 + gamma)
    assert not np.any(alpha[a == 0])
    assert not np.any(beta[b == 0])


@given(seed=st.integers(0, 10**6), exact=st.booleans())
@BOUNDED
def test_plans_with_few_entries_and_exact_ones(seed, exact):
    cost, a, b, gamma, k = problem(seed)
    gamma, k = (0.0, len(a)) if exact else (gamma, k)
    plan, alpha, beta, stats = planned(a, b, cost, gamma, k)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert np.all(np.isfinite(alpha))
    assert np.all(np.isfinite(beta))
    assert plan.min() >= 0
    assert not np.any(plan[np.isinf(cost)])
    assert error_of(plan, a, b) <= 1.01 * TOL
    gap = gap_of(plan, alpha, beta, a, b, cost, gamma, k)
    assert abs(gap) <= 1.01 * TOL * (1 + gamma)


def test_a_bound_as_large_as_the_column_changes_nothing(rng):
    cost, a, b, *_ = problem(8)
    m = len(a)
    alpha, beta, _ = potentials(a, b, cost, 0.3)
    plan, *_ = planned(a, b, cost, 0.3, m)
    np.testing.assert_allclose(plan, np.maximum(alpha[:, None] + beta - cost, 0) / 0.3, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 5, 7, 18])
def test_the_reference_comes_to_the_same_plan(seed):
    cost, a, b, gamma, k = problem(seed)
    gamma = min(max(gamma, 0.05), 20.0)
    found = []
    for name in ("numba", "array-api"):
        with orthokern.use_backend(name):
            alpha, beta, _ = quadratic_potentials(a, b, cost, one(gamma), tol=TOL, max_iter=2000)
            plan, *_, stats = proximal_plan(a, b, cost, one(gamma), k=k, tol=TOL, max_iter=5000)
        assert stats[Stat.STATUS] == OTStatus.CONVERGED
        value = (plan * np.where(plan > 0, cost, 0)).sum()
        value += gamma / 2 * sum(norm_squared(t, k) for t in plan.T)
        found.append((np.maximum(alpha[:, None] + beta - cost, 0) / gamma, value))
    (mine, value), (reference, same) = found
    np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-6)
    np.testing.assert_allclose(value, same, rtol=0, atol=3e-9 * (1 + gamma))


def test_explained(rng):
    cost, a, b, *_ = problem(0)
    with orthokern.explain() as report:
        quadratic_potentials(a, b, cost, one(1), tol=TOL, max_iter=100)
        proximal_plan(a, b, cost, one(1), k=2, tol=TOL, max_iter=1000)
    assert [decision.backend for decision in report] == ["numba", "numba"]


# Ends other than success


def test_infeasible_problems_are_found():
    cost = np.array([[0.0, np.inf], [0.5, 1.0]])
    a, b = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    for found in (potentials(a, b, cost, 0.1), *(planned(a, b, cost, g, 1)[1:] for g in (0, 2))):
        alpha, beta, stats = found
        assert stats[Stat.STATUS] == OTStatus.INFEASIBLE
        assert np.all(np.isfinite([*alpha, *beta]))


@given(seed=st.integers(0, 10**6), exponent=st.floats(-6, -0.5))
@BOUNDED
def test_problems_that_lack_a_little_are_infeasible(seed, exponent):
    """Rows of more mass than the columns they may go to, in blocks."""
    cost, a, b, gamma, k = problem(8 * seed)
    cost = np.where(np.isinf(cost), 1.0, cost)
    m, n = cost.shape
    if min(m, n) < 2:
        return
    a, b = np.full(m, 1 / m), np.full(n, 1 / n)
    cost[: m // 2, n // 2 :] = np.inf
    b[: n // 2] *= a[: m // 2].sum() * (1 - 10**exponent) / b[: n // 2].sum()
    b[n // 2 :] *= (1 - b[: n // 2].sum()) / b[n // 2 :].sum()
    for found in (potentials(a, b, cost, gamma), planned(a, b, cost, gamma, k)[1:]):
        assert found[-1][Stat.STATUS] == OTStatus.INFEASIBLE
        assert all(np.all(np.isfinite(x)) for x in found)


@pytest.mark.parametrize("most", [0, 1, 3, 12])
def test_the_number_of_steps_is_limited(most, rng):
    cost, a, b = rng.random((50, 50)), np.full(50, 0.02), rng.random(50)
    b = b / b.sum()
    alpha, beta, stats = potentials(a, b, cost, 0.01, max_iter=most)
    plan = np.maximum(alpha[:, None] + beta - cost, 0) / 0.01
    assert stats[Stat.STATUS] == OTStatus.MAX_ITER
    assert stats[Stat.ITERATIONS] == most
    np.testing.assert_allclose(stats[Stat.ERROR], error_of(plan, a, b), rtol=1e-9)
    plan, alpha, beta, stats = planned(a, b, cost, 0.01, 2, max_iter=most)
    assert stats[Stat.STATUS] == OTStatus.MAX_ITER
    assert stats[Stat.ITERATIONS] == most
    np.testing.assert_allclose(stats[Stat.ERROR], error_of(plan, a, b), rtol=1e-9)


# Shapes, precision, libraries


def test_members_of_a_batch_are_solved_alone(rng):
    cost, gamma = rng.random((2, 3, 7, 9)), rng.random((2, 3, 1, 1)) + 0.1
    a, b = rng.random((2, 3, 7)), rng.random((2, 3, 9))
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    alpha, beta, stats = quadratic.quadratic_potentials(a, b, cost, gamma, tol=TOL, max_iter=500)
    plan, *rest = quadratic.proximal_plan(a, b, cost, gamma, k=2, tol=TOL, max_iter=500)
    assert stats.shape == (2, 3, len(Stat))
    for index in np.ndindex(2, 3):
        alone = potentials(a[index], b[index], cost[index], gamma[index][0, 0], max_iter=500)
        for batched, single in zip((alpha, beta, stats), alone, strict=True):
            np.testing.assert_array_equal(batched[index], single)
        alone = planned(a[index], b[index], cost[index], gamma[index][0, 0], 2, max_iter=500)
        for batched, single in zip((plan, *rest), alone, strict=True):
            np.testing.assert_array_equal(batched[index], single)


def test_wide_problems_are_turned(rng):
    cost, a, b = rng.random((6, 40)), rng.random(6), rng.random(40)
    a, b = a / a.sum(), b / b.sum()
    alpha, beta, _ = potentials(a, b, cost, 1.0)
    other, alpha_other, _ = potentials(b, a, np.ascontiguousarray(cost.T), 1.0)
    plan = np.maximum(alpha[:, None] + beta - cost, 0)
    np.testing.assert_allclose(error_of(plan, a, b), 0, atol=TOL)
    np.testing.assert_allclose(plan, np.maximum(alpha_other[:, None] + other - cost, 0), atol=1e-8)


def test_single_precision(rng):
    cost, a, b = rng.random((30, 20), dtype=np.float32), rng.random(30), rng.random(20)
    a, b = (x.astype(np.float32) for x in (a / a.sum(), b / b.sum()))
    cost, gamma = cost.astype(np.float32), np.full((1, 1), 0.3, np.float32)
    alpha, beta, stats = quadratic.quadratic_potentials(a, b, cost, gamma, tol=1e-5, max_iter=500)
    plan = np.maximum(alpha[:, None] + beta - cost, 0) / np.float32(0.3)
    assert {x.dtype for x in (alpha, beta, stats)} == {np.dtype(np.float32)}
    assert error_of(plan, a, b) <= 2e-5
    plan, alpha, beta, stats = quadratic.proximal_plan(
        a, b, cost, gamma, k=3, tol=1e-5, max_iter=500
    )
    assert {x.dtype for x in (plan, alpha, beta, stats)} == {np.dtype(np.float32)}
    assert error_of(plan, a, b) <= 2e-5


@pytest.mark.parametrize("p", [1, 2, 1.5])
@pytest.mark.parametrize("shape", [(1, 1), (9, 12), (40, 13), (33, 64)])
def test_costs_from_points(p, shape, rng):
    m, n = shape
    x, y = rng.standard_normal((m, 3)), rng.standard_normal((n, 3))
    cost = ((x[:, None] - y) ** 2).sum(-1) ** (p / 2)
    scale = 1 / cost.max()
    a, b = rng.random(m) + 0.1, rng.random(n) + 0.1
    a, b = a / a.sum(), b / b.sum()
    alpha, beta, stats = quadratic.quadratic_potentials_points(
        x, y, a, b, one(0.7), one(scale), p=p, tol=TOL, max_iter=500
    )
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    plan = np.maximum(alpha[:, None] + beta - cost * scale, 0) / 0.7
    assert error_of(plan, a, b) <= 1.01 * TOL
    of_matrix = potentials(a, b, cost * scale, 0.7)
    other = np.maximum(of_matrix[0][:, None] + of_matrix[1] - cost * scale, 0) / 0.7
    np.testing.assert_allclose(plan, other, rtol=0, atol=1e-7)


def test_nothing_is_written_to_the_input(rng):
    cost, a, b, gamma, k = problem(7)
    given = [x.copy() for x in (cost, a, b)]
    potentials(a, b, cost, gamma)
    planned(a, b, cost, gamma, k)
    for x, y in zip((cost, a, b), given, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("library", [x for x in libraries.available() if x != "array_api_strict"])
def test_arrays_of_other_libraries(library, rng):
    if library == "dask":
        pytest.skip("lazy arrays are refused before the op")
    given = (rng.random(4) + 0.1, rng.random(5) + 0.1, rng.random((4, 5)), one(0.5))
    given = (given[0] / given[0].sum(), given[1] / given[1].sum(), *given[2:])
    arrays = [libraries.to_library(x, library) for x in given]
    with orthokern.use_backend("numba"):
        alpha, _, stats = quadratic_potentials(*arrays, tol=1e-5, max_iter=100)
    assert type(alpha) is type(arrays[0])
    assert float(stats[Stat.STATUS]) == OTStatus.CONVERGED


# The pieces


def costs_of(matrix):
    return sweeps.Costs(np.ascontiguousarray(matrix), *quadratic.NO_POINTS)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (7, 1), (9, 67), (4, 64)])
def test_sums_and_supports_of_slacks(n, m, rng):
    matrix = rng.random((n, m))
    matrix[rng.random((n, m)) < 0.1] = np.inf
    p, q = rng.standard_normal(m), rng.standard_normal(n)
    slack = np.maximum(p + q[:, None] - matrix, 0)
    of_places, of_lines = np.empty(m), np.empty(n)
    squares = sweeps.slack_sums(costs_of(matrix), p, q, of_places, of_lines)
    np.testing.assert_allclose(squares, (slack**2).sum(), rtol=1e-13)
    np.testing.assert_allclose(of_places, slack.sum(0), rtol=1e-13)
    np.testing.assert_allclose(of_lines, slack.sum(1), rtol=1e-13)
    found = sweeps.slack_support(costs_of(matrix), p, q, 2.0, sweeps.empty_support(n, 0))
    np.testing.assert_allclose(dense(found, m), 2 * slack, rtol=1e-14)
    assert found.start[-1] == np.count_nonzero(slack)


def dense(support, m):
    n = len(support.middle)
    plan = np.zeros((n, m))
    for j in range(n):
        part = slice(support.start[j], support.start[j + 1])
        plan[j, support.place[part]] = support.value[part]
    return plan


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_exact_coordinate_maxima(factor, rng):
    matrix = rng.random((8, 11))
    matrix[2, 1:], matrix[5] = np.inf, np.inf
    costs, p, q = costs_of(matrix), rng.standard_normal(11), np.zeros(8)
    before = sweeps.slack_support(costs, p, q, 1.0, sweeps.empty_support(8, 0))
    lowered = matrix - factor * dense(before, 11)
    wanted, chosen = 10.0 ** rng.uniform(-9, 1, 8), np.arange(8) != 5
    assert sweeps.maximize_lines(costs, before, factor, p, q, wanted, chosen)
    sums = np.maximum(p + q[:, None] - lowered, 0).sum(1)
    np.testing.assert_allclose(sums[chosen], wanted[chosen], rtol=1.01 * sweeps.ENOUGH, atol=1e-14)
    assert q[5] == 0
    assert not sweeps.maximize_lines(costs, before, factor, p, q, wanted, ~chosen)
    wanted = 10.0 ** rng.uniform(-9, 1, 11)
    assert sweeps.maximize_places(costs, before, factor, p, q, wanted, wanted > 0)
    sums = np.maximum(p + q[:, None] - lowered, 0).sum(0)
    np.testing.assert_allclose(sums, wanted, rtol=1.01 * sweeps.ENOUGH, atol=1e-14)


def proximal_pass(rng, n, m, k, gamma, tau):
    """A pass from a random plan before, and what the public proximal map makes of it."""
    matrix, p, q = rng.random((n, m)), rng.random(m), rng.random(n)
    start = sweeps.slack_support(costs_of(matrix), p - 0.3, q, 1.0, sweeps.empty_support(n, 0))
    step = proximal_sweeps.Proximal(gamma, k, tau)
    v = dense(start, m) + tau * (p + q[:, None] - matrix)
    t = orthokern.prox_ksupport(v, tau * gamma, k=k, backend="array-api") if k < m else None
    t = np.maximum(v, 0) / (1 + tau * gamma) if t is None else t
    return costs_of(matrix), p, q, step, start, v, t


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize(("gamma", "tau"), [(0.5, 3.0), (1e-3, 100.0), (0.0, 2.0), (40.0, 0.1)])
def test_lines_of_a_plan_are_proximal_points(k, gamma, tau, rng):
    n, m = 9, 12
    costs, p, q, step, start, v, t = proximal_pass(rng, n, m, k, gamma, tau)
    of_places, of_lines, levels = np.empty(m), np.empty(n), np.zeros(n)
    for _ in range(2):
        found, terms = proximal_sweeps.plan_sums(
            costs, p, q, step, start, levels, of_places, of_lines, sweeps.empty_support(n, 0)
        )
        np.testing.assert_allclose(dense(found, m), t, rtol=0, atol=1e-13 * v.max())
        np.testing.assert_allclose(of_places, t.sum(0), rtol=1e-12)
        np.testing.assert_allclose(of_lines, t.sum(1), rtol=1e-12)
        squares = sum(norm_squared(x, k) for x in t)
        if gamma > 0.0:  # without, it has no weight and is not made
            np.testing.assert_allclose(terms.squares, squares, rtol=1e-10)
        np.testing.assert_allclose(terms.linear, (t * costs.matrix).sum(), rtol=1e-12)
        before = dense(start, m)
        conjugate = (v * t - t**2 / 2).sum() / tau - gamma / 2 * squares
        conjugate -= (before**2).sum() / (2 * tau)
        np.testing.assert_allclose(terms.conjugate, conjugate, rtol=1e-10, atol=1e-12)


def second_derivative(support, before, after, shift, m):
    """The whole matrix of a Newton step, places first."""
    n = len(support.middle)
    matrix = shift * np.eye(m + n)
    for j in range(n):
        start, middle, end = support.start[j], support.middle[j], support.start[j + 1]
        block = np.diag(np.r_[np.full(middle - start, before), np.full(end - middle, after)])
        block[middle - start :, middle - start :] -= support.share[j] * after
        where = support.place[start:end]
        matrix[np.ix_(where, where)] += block
        matrix[where, m + j] += block.sum(1)
        matrix[m + j, where] += block.sum(1)
        matrix[m + j, m + j] += block.sum()
    return matrix


@pytest.mark.parametrize("k", [2, 12])
@pytest.mark.parametrize("expected", [1, 10**6], ids=["gradients", "factorization"])
def test_newton_systems(k, expected, rng):
    n, m, gamma, tau, shift = 14, 12, 0.5, 3.0, 1e-3
    costs, p, q, step, start, *_ = proximal_pass(rng, n, m, k, gamma, tau)
    found, _ = proximal_sweeps.plan_sums(
        costs, p, q, step, start, np.zeros(n), np.empty(m), np.empty(n), sweeps.empty_support(n, 0)
    )
    assert (found.middle < found.start[1:]).any() == (k == 2)
    weights = tau / (1 + tau * gamma), tau
    gp, gq = rng.standard_normal(m), rng.standard_normal(n)
    x, y = np.empty(m), np.empty(n)
    newton_system.solve(found, weights, shift, gp, gq, 1e-12, expected, x, y)
    matrix = second_derivative(found, *weights, shift, m)
    np.testing.assert_allclose(matrix @ np.r_[x, y], np.r_[gp, gq], atol=1e-8)


@pytest.mark.parametrize("k", [2, 12])
def test_gradient_and_second_derivative_belong_to_the_objective(k, rng):
    n, m, gamma, tau = 6, 12, 0.5, 3.0
    costs, p, q, step, start, *_ = proximal_pass(rng, n, m, k, gamma, tau)
    task = ascent.Problem(costs, np.full(m, 1 / m), np.full(n, 1 / n))
    function = ascent.Function(step, start)
    spare = sweeps.empty_support(n, 0)
    x, y, h = rng.standard_normal(m), rng.standard_normal(n), 1e-6
    points = [ascent.new_point(p + s * h * x, q + s * h * y) for s in (-1, 0, 1)]
    low, here, high = (ascent.evaluate(task, function, point, spare) for point in points)
    change = (high[0].objective - low[0].objective) / (2 * h)
    np.testing.assert_allclose(points[1].gp @ x + points[1].gq @ y, change, rtol=1e-6)
    weights = tau / (1 + tau * gamma), tau
    matrix = second_derivative(here[1], *weights, 0.0, m)
    bend = np.r_[points[2].gp - points[0].gp, points[2].gq - points[0].gq] / (2 * h)
    np.testing.assert_allclose(-matrix @ np.r_[x, y], bend, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 12])
@pytest.mark.parametrize("tau", [0.3, 30.0, np.inf])
def test_idle_lines_and_places_get_entries_and_the_objective_rises(k, tau, rng):
    n, m, gamma = 15, 12, 0.5
    costs, p, q, step, start, *_ = proximal_pass(rng, n, m, k, gamma, 1.0)
    task = ascent.Problem(costs, np.full(m, 1 / m), np.full(n, 1 / n))
    start = start if np.isfinite(tau) else sweeps.empty_support(n, 0)
    function, spare = ascent.Function(step._replace(tau=tau), start), sweeps.empty_support(n, 0)
    point = ascent.new_point(p - 4 * (np.arange(m) % 3 == 0), q - 4 * (np.arange(n) % 4 == 0))
    before, _ = ascent.evaluate(task, function, point, spare)
    idle = np.sum(point.gp >= task.a)
    assert idle >= 1
    assert np.any(point.gq >= task.b)
    value, *_, possible = ascent._fill_idle(task, function, point, before, spare)
    assert possible
    assert value.objective > before.objective
    again, _ = ascent.evaluate(task, function, point, spare)
    assert again == value
    assert np.all(point.gq < task.b)
    # Places that enter a line together raise its level: one of them may have to wait.
    assert np.sum(point.gp >= task.a) <= (0 if k == m else idle - 1)


def test_factorizations_that_fail_are_reported():
    assert not newton_system._cholesky_solve(-np.eye(2), np.ones(2), np.empty(2))
