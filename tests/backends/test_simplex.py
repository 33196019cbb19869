"""The network simplex method: known answers, linear programmes, trees without cycles, what is not feasible."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

pytest.importorskip("numba")

from orthokern_numba import assignment, simplex

INF = np.inf
BOUNDED = settings(derandomize=True, max_examples=60, deadline=None, database=None)
CONVERGED, MAX_ITER, INFEASIBLE = 0, 1, 3


def solved(a, b, cost, max_iter=None):
    return simplex.exact_plan(a, b, cost, tol=1e-9, max_iter=max_iter)


def unit(x):
    return x / x.sum(-1, keepdims=True)


def squares(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def value(plan, cost):
    open_ = np.isfinite(cost)
    assert not plan[~open_].any()
    return plan[open_] @ cost[open_]


def assert_certified(a, b, cost, *, tol=1e-14, status=CONVERGED):
    """The value of a result that proves itself optimal."""
    plan, alpha, beta, stats = solved(a, b, cost)
    assert stats[2] == status
    assert plan.min() >= 0
    assert np.count_nonzero(plan) <= np.count_nonzero(a) + np.count_nonzero(b) - 1
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    assert error <= tol
    assert abs(stats[1] - error) <= tol
    with np.errstate(invalid="ignore"):
        assert np.nanmax(alpha[:, None] + beta - cost) <= tol
    found = value(plan, cost)
    assert abs(found - alpha @ a - beta @ b) <= tol
    return found


# Known answers


def line(x, y, p):
    return np.abs(np.subtract.outer(np.array(x, float), np.array(y, float))) ** p


@pytest.mark.parametrize(
    ("x", "a", "y", "b", "p", "expected"),
    [
        ((0, 1, 3), (1, 1, 1), (5, 6, 8), (1, 1, 1), 1, 5),
        ((0, 1, 3), (1, 1, 1), (5, 6, 8), (1, 1, 1), 2, 25),
        ((0, 2), (0.25, 0.75), (1, 3, 4), (0.5, 0.25, 0.25), 1, 1.25),
        ((0, 2), (0.25, 0.75), (1, 3, 4), (0.5, 0.25, 0.25), 2, 1.75),
        ((1, 2, 3), (0.5, 0.3, 0.2), (1, 2, 3), (0.2, 0.3, 0.5), 1, 0.6),
    ],
)
def test_known_values_on_a_line(x, a, y, b, p, expected):
    cost = line(x, y, p)
    scale = cost.max()
    a, b = unit(np.array(a, float)), unit(np.array(b, float))
    np.testing.assert_allclose(assert_certified(a, b, cost / scale) * scale, expected, rtol=1e-14)


def test_gaussians_with_masses_down_to_1e_57():
    x = np.arange(100.0)
    a, b = unit(np.exp(-((x - 20) ** 2) / 50)), unit(np.exp(-((x - 60) ** 2) / 200))
    cost = squares(x[:, None], x[:, None]) / 99**2
    np.testing.assert_allclose(assert_certified(a, b, cost), 0.1658058110190663, rtol=1e-13)


def test_equal_points_of_equal_mass_are_assigned_exactly(rng):
    n = 60
    x = rng.random((n, 2))
    order = rng.permutation(n)
    mass = np.full(n, 1 / n)
    plan, *_ = solved(mass, mass, squares(x, x[order]))
    assert np.array_equal(plan, (order == np.arange(n)[:, None]) / n)


def test_products_are_cheapest_from_corner_to_corner():
    """The worst case of methods that assign one row after the other; 180 pivots for each node without regret."""
    n = 300
    cost = np.outer(np.arange(n), np.arange(n)) / n**2
    mass = np.full(n, 1 / n)
    plan, _, _, stats = solved(mass, mass, cost)
    assert np.array_equal(plan, np.eye(n)[::-1] / n)
    assert stats[0] < 20 * n


# Against linear programming


def programme(a, b, cost):
    """The same by HiGHS; the two idle variables are there because it refuses to have one."""
    m, n = cost.shape
    sums = scipy.sparse.vstack(
        [
            scipy.sparse.kron(scipy.sparse.eye(m), np.ones((1, n))),
            scipy.sparse.kron(np.ones((1, m)), scipy.sparse.eye(n)),
        ]
    ).tocsr()
    open_ = np.isfinite(cost).ravel()
    sums = scipy.sparse.hstack([sums[:, open_], scipy.sparse.csr_matrix((m + n, 2))])
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    costs = np.append(cost.ravel()[open_], [1, 1])
    return linprog(costs, A_eq=sums, b_eq=np.append(a, b), method="highs", options=options)


def drawn(rng, kind):
    m, n = rng.integers(1, 13, 2)
    a, b, cost = rng.random(m) + 0.01, rng.random(n) + 0.01, rng.random((m, n))
    if kind == "few values":
        cost = rng.integers(0, 3, (m, n)) / 2
    elif kind == "constant":
        cost[:] = 0.5
    elif kind == "equal masses":
        a[:], b[:] = 1, 1
    elif kind == "integers":
        a, b = rng.integers(1, 4, m).astype(float), rng.integers(1, 4, n).astype(float)
        cost = rng.integers(0, 4, (m, n)) / 3
    elif kind == "eight decades":
        a, b = 10.0 ** rng.uniform(-8, 0, m), 10.0 ** rng.uniform(-8, 0, n)
    elif kind == "equal rows":
        cost = cost[rng.integers(0, m, m)]
    elif kind == "forbidden":
        cost[rng.random((m, n)) < 0.3] = INF
    elif kind == "dead":
        a[1:][rng.random(m - 1) < 0.4] = 0
        b[1:][rng.random(n - 1) < 0.4] = 0
        cost[a == 0], cost[:, b == 0] = INF, INF
    elif kind == "forbidden assignment":
        cost = rng.integers(0, 3, (m, m)) / 2
        a, b = np.ones(m), np.ones(m)
        cost[rng.random((m, m)) < 0.4] = INF
    return unit(a), unit(b), cost


KINDS = [
    "general",
    "few values",
    "constant",
    "equal masses",
    "integers",
    "eight decades",
    "equal rows",
    "forbidden",
    "dead",
    "forbidden assignment",
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_of_a_linear_programme(kind, rng):
    outcomes = set()
    for _ in range(40):
        a, b, cost = drawn(rng, kind)
        live = a > 0, b > 0
        answer = programme(a[live[0]], b[live[1]], cost[np.ix_(*live)])
        outcomes.add(answer.status)
        if answer.status == 2:
            assert solved(a, b, cost)[3][2] == INFEASIBLE
        else:
            np.testing.assert_allclose(assert_certified(a, b, cost), answer.fun, rtol=0, atol=1e-9)
    assert outcomes == ({0, 2} if "forbidden" in kind else {0})


# Trees


def tree_of(a, b, cost):
    supply, demand = simplex._counted(a), simplex._counted(b)
    demand[np.argmax(demand)] += supply.sum() - demand.sum()
    return simplex.solve(supply, demand, np.ascontiguousarray(cost), 10**6)


@pytest.mark.parametrize("kind", ["equal masses", "integers", "constant", "forbidden assignment"])
def test_trees_are_strongly_feasible_and_whole(kind, rng):
    """No arc without flow leads away from the root, and all arrays tell of the same tree."""
    for _ in range(30):
        a, b, cost = drawn(rng, kind)
        tree, height, _, status = tree_of(a, b, cost)
        m, root = len(a), len(a) + len(b)
        assert np.all(tree.flow[:m] >= 0)
        assert np.all(tree.flow[m:root] > 0)
        assert tree.parent[root] == -1
        below = [set() for _ in range(root + 1)]
        order = [root]
        while tree.after[order[-1]] != root:
            order.append(tree.after[order[-1]])
        assert sorted(order) == list(range(root + 1))
        for x in reversed(order):
            below[x].add(x)
            assert tree.size[x] == len(below[x])
            place = order.index(x)
            assert set(order[place : place + len(below[x])]) == below[x]
            assert order[place + len(below[x]) - 1] == tree.last[x]
            assert tree.before[tree.after[x]] == x
            if x != root:
                below[tree.parent[x]] |= below[x]
                assert (x < m) != (tree.parent[x] < m) or tree.parent[x] == root
        rows, columns, _ = simplex.flows(tree, m)
        slack = cost[rows, columns] - height[rows] + height[m + columns]
        assert np.abs(slack).max(initial=0) <= 1e-12
        assert status in (CONVERGED, INFEASIBLE)


HARD = {
    "grid": lambda rng: (np.ones(144), np.ones(144), "grid"),
    "grid of integers": lambda rng: (rng.integers(1, 5, 144), rng.integers(1, 5, 144), "grid"),
    "two values": lambda rng: (np.ones(150), np.ones(150), rng.random((150, 150)) < 0.5),
    "far clouds": lambda rng: (
        np.ones(150),
        np.ones(150),
        squares(rng.random((150, 2)), rng.random((150, 2)) + 3) / 50,
    ),
    "equal points": lambda rng: (
        np.ones(150),
        np.ones(150),
        squares(rng.random((15, 2)).repeat(10, 0), rng.random((150, 2))) / 2,
    ),
    "reversed line": lambda rng: (
        np.ones(200),
        np.ones(200),
        squares(np.sort(rng.random((200, 1)), 0), np.sort(rng.random((200, 1)), 0)[::-1]),
    ),
    "few rows": lambda rng: (rng.random(4), rng.random(700), rng.random((4, 700))),
    "few columns": lambda rng: (np.ones(700), np.ones(3), rng.random((700, 3))),
    "eight decades": lambda rng: (
        10 ** rng.uniform(-8, 0, 200),
        10 ** rng.uniform(-8, 0, 200),
        rng.random((200, 200)),
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_degenerate_problems_end_with_a_proof(name, rng):
    a, b, cost = HARD[name](rng)
    if isinstance(cost, str):
        points = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) / 16
        cost = squares(points, points[rng.permutation(144)])
    a, b, cost = unit(np.asarray(a, float)), unit(np.asarray(b, float)), np.asarray(cost, float)
    assert_certified(a, b, cost)


def test_a_line_is_solved_by_sorting(rng):
    x, y = rng.random(180), rng.random(180)
    mass = np.full(180, 1 / 180)
    expected = ((np.sort(x) - np.sort(y)) ** 2).mean()
    np.testing.assert_allclose(assert_certified(mass, mass, line(x, y, 2)), expected, rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS[:7]))
@BOUNDED
def test_neither_the_order_nor_the_side_matters(seed, kind):
    rng = np.random.default_rng(seed)
    a, b, cost = drawn(rng, kind)
    i, j = rng.permutation(len(a)), rng.permutation(len(b))
    found = assert_certified(a, b, cost)
    np.testing.assert_allclose(assert_certified(b, a, cost.T), found, atol=1e-14)
    np.testing.assert_allclose(assert_certified(a[i], b[j], cost[np.ix_(i, j)]), found, atol=1e-14)


# Forbidden pairs


def test_mass_that_finds_no_place_is_left_out(rng):
    """Four rows of mass 1/10 each that share two columns of mass 1/10."""
    mass, cost = np.full(10, 0.1), rng.random((10, 10))
    cost[:4, 2:] = INF
    plan, alpha, beta, stats = solved(mass, mass, cost)
    assert stats[2] == INFEASIBLE
    np.testing.assert_allclose(plan.sum(), 0.8, rtol=1e-14)
    np.testing.assert_allclose(stats[1], 0.4, rtol=1e-14)
    assert np.isfinite([alpha, beta]).all()
    assert (alpha[:, None] + beta - cost).max() <= 1e-12


def test_nothing_allowed():
    mass = np.full(3, 1 / 3)
    plan, alpha, beta, stats = solved(mass, mass, np.full((3, 3), INF))
    assert not plan.any()
    assert np.isfinite([alpha, beta]).all()
    assert stats[2] == INFEASIBLE


def test_the_only_way_may_be_a_long_detour():
    """Penalties that are too low for a path of 200 dear pairs must not make it look impossible."""
    n = 200
    cost = np.full((n, n), INF)
    i = np.arange(n)
    cost[i, i], cost[i[:-1], i[1:]] = 1, 0
    mass = np.full(n, 1 / n)
    np.testing.assert_allclose(assert_certified(mass, mass, cost, tol=1e-12), 1, rtol=1e-14)


# The contract of the op


def test_a_limit_of_pivots_leaves_a_plan_and_bounds(rng):
    a, b, cost = unit(rng.random(80)), unit(rng.random(90)), rng.random((80, 90))
    optimum = assert_certified(a, b, cost)
    for limit in (0, 1, 40):
        plan, alpha, beta, stats = solved(a, b, cost, limit)
        assert (stats[0], stats[2]) == (limit, MAX_ITER)
        np.testing.assert_allclose(plan.sum(1), a, rtol=1e-13)
        assert (alpha[:, None] + beta - cost).max() <= 1e-15
        assert alpha @ a + beta @ b < optimum < value(plan, cost)


def test_dead_bins_change_nothing(rng):
    a, b, cost = unit(rng.random(9)), unit(rng.random(7)), rng.random((9, 7))
    wide = np.full((12, 9), INF)
    live = np.ix_([0, 1, 3, 4, 5, 6, 8, 9, 11], [0, 2, 3, 4, 5, 7, 8])
    wide[live] = cost
    c, d = np.zeros(12), np.zeros(9)
    c[live[0].ravel()], d[live[1].ravel()] = a, b
    plan, alpha, beta, _ = solved(c, d, wide)
    expected = solved(a, b, cost)
    np.testing.assert_allclose(plan[live], expected[0], atol=1e-16)
    np.testing.assert_allclose(plan.sum(), 1)
    assert not alpha[[2, 7, 10]].any()
    assert not beta[[1, 6]].any()


def test_potentials_are_balanced(rng):
    a, b, cost = unit(rng.random(9)), unit(rng.random(7)), rng.random((9, 7))
    _, alpha, beta, _ = solved(a, b, cost)
    np.testing.assert_allclose(alpha @ a, beta @ b, rtol=1e-13)


def test_members_of_a_batch_are_solved_alone(rng):
    a, b, cost = unit(rng.random((2, 3, 6))), unit(rng.random((2, 3, 5))), rng.random((2, 3, 6, 5))
    kept = [x.copy() for x in (a, b, cost)]
    found = solved(a, b, cost)
    for k in np.ndindex(2, 3):
        for whole, alone in zip(found, solved(a[k], b[k], cost[k]), strict=True):
            assert np.array_equal(whole[k], alone)
    assert all(np.array_equal(x, y) for x, y in zip(kept, (a, b, cost), strict=True))


def test_single_precision_is_solved_in_double(rng):
    a, b, cost = unit(rng.random(40)), unit(rng.random(50)), rng.random((40, 50))
    found = solved(*(x.astype(np.float32) for x in (a, b, cost)))
    assert {x.dtype for x in found} == {np.dtype(np.float32)}
    plan, alpha, beta, stats = (x.astype(float) for x in found)
    expected = assert_certified(a, b, cost)
    assert stats[2] == CONVERGED
    assert stats[1] < 1e-6
    np.testing.assert_allclose([value(plan, cost), alpha @ a + beta @ b], expected, rtol=1e-6)


def test_any_layout(rng):
    a, b, cost = unit(rng.random(8)), unit(rng.random(11)), rng.random((16, 11))
    expected = solved(a, b, np.ascontiguousarray(cost[::2]))
    for layout in (cost[::2], np.asfortranarray(cost[::2])):
        for x, y in zip(solved(a, b, layout), expected, strict=True):
            assert np.array_equal(x, y)


# Assignments that go over to it


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (1, 4), (30, 31)])
@pytest.mark.parametrize("scale", [1e-200, 1, 1e6])
def test_assignments_with_columns_left_over(shape, scale, rng):
    """On the longer side potentials are nonpositive, and zero for what is left over."""
    m, n = shape
    cost = rng.standard_normal(shape) * scale
    cost[rng.random(shape) < 0.1] = INF
    cost[np.arange(m), np.arange(m)] = scale
    chosen, v = np.empty(m, np.int64), np.empty(n)
    assignment._by_simplex(cost, chosen, v)
    rows, columns = linear_sum_assignment(cost)
    size = np.max(np.abs(cost), where=np.isfinite(cost), initial=0)
    total = cost[np.arange(m), chosen].sum()
    np.testing.assert_allclose(total, cost[rows, columns].sum(), rtol=0, atol=1e-12 * size)
    u = (cost - v).min(1)
    assert abs(total - u.sum() - v.sum()) <= 1e-12 * size
    if m < n:
        assert v.max() <= 0
        assert np.abs(np.delete(v, chosen)).max() <= 1e-13 * size


def test_paths_that_take_too_long_go_over(rng, monkeypatch):
    called = []
    inner = assignment._by_simplex
    monkeypatch.setattr(assignment, "_by_simplex", lambda *a: (called.append(1), inner(*a)))
    far = squares(rng.random((400, 2)), rng.random((400, 2)) + 3)
    columns, alpha, beta = assignment.assignment(np.stack([far, rng.random((400, 400)), far.T]))
    assert len(called) == 2
    assert all(sorted(c) == list(range(400)) for c in columns.tolist())
    expected = far[linear_sum_assignment(far)].sum()
    np.testing.assert_allclose((alpha.sum(-1) + beta.sum(-1))[[0, 2]], expected, rtol=1e-13)
