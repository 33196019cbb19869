"""Solved problems: known answers, properties, bounds that hold, recoveries, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern import (
    ArrayTypeError,
    ConvergenceWarning,
    DTypeError,
    Entropy,
    OptionError,
    OTStatus,
    Points,
    ShapeError,
    SparsityConstrained,
    SquaredL2,
    Unregularized,
    UnsupportedError,
    ValuesError,
    round_to_marginals,
    sinkhorn,
    solve_ot,
)
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from . import oracles
from .conftest import made
from .oracles import clouds

HALF = np.array([0.5, 0.5])
SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
LINE = np.abs(np.arange(3.0)[:, None] - np.arange(3.0))
A3, B3 = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
REGULARIZERS = {
    "linear": Unregularized(),
    "squares": SquaredL2(0.7),
    "three entries": SparsityConstrained(3, 0.7),
    "entropy": Entropy(0.1),
}


@pytest.fixture(params=REGULARIZERS.values(), ids=REGULARIZERS)
def regularizer(request):
    return request.param


def errors(result, a, b):
    """Marginal error of a dense plan."""
    return np.abs(result.plan.sum(-1) - a).sum(-1) + np.abs(result.plan.sum(-2) - b).sum(-1)


# Known answers


@pytest.mark.parametrize(("gamma", "off"), [(1.0, 0.0), (2.0, 0.0), (4.0, 0.125), (40.0, 0.2375)])
def test_two_by_two(eager_place, gamma, off):
    arrays = (made(x, eager_place.library) for x in (HALF, HALF, SWAP))
    result = solve_ot(*arrays, regularizer=SquaredL2(gamma), backend=eager_place.backend)
    wanted = [[0.5 - off, off], [off, 0.5 - off]]
    np.testing.assert_allclose(to_numpy(result.plan), wanted, atol=1e-8)
    if off:
        total = to_numpy(result.alpha)[:, None] + to_numpy(result.beta)
        np.testing.assert_allclose(total, gamma * (0.5 - off), atol=1e-7)


@pytest.mark.parametrize(("gamma", "value"), [(0.5, 0.6425), (2.0, 0.77), (10.0, 1.45)])
def test_three_on_a_line(backend, gamma, value):
    result = solve_ot(A3, B3, LINE, regularizer=SquaredL2(gamma), tol=1e-12, backend=backend)
    wanted = [[0.2, 0.15, 0.15], [0, 0.15, 0.15], [0, 0, 0.2]]
    np.testing.assert_allclose(result.plan, wanted, atol=1e-11)
    assert abs(result.linear_cost - 0.6) < 1e-11
    assert abs(result.value - value) < 1e-11


def test_sparse_columns_on_a_line(backend):
    """The convex hull has a plan with a full column; the best of all 27 choices of places is worth more."""
    options = {"tol": 1e-10, "backend": backend}
    relaxed = solve_ot(A3, B3, LINE, regularizer=SparsityConstrained(2, 10.0), **options)
    assert abs(relaxed.value - 1.65) < 1e-8
    assert abs(relaxed.gap) < 1e-8
    assert (relaxed.info.status, relaxed.info.ties) == (OTStatus.TIES, 1)
    single = solve_ot(A3, B3, LINE, regularizer=SparsityConstrained(1, 10.0), **options)
    assert abs(single.value - 2.5) < 1e-9
    hard = SparsityConstrained(2, 10.0, "feasible")
    feasible = solve_ot(A3, B3, LINE, regularizer=hard, **options)
    assert abs(feasible.value - 1.7875) < 1e-8
    assert abs(feasible.gap - 0.1375) < 1e-8
    assert feasible.info.max_column_nnz == 2
    assert errors(feasible, A3, B3) < 1e-9


def test_bumps_with_vanishing_masses(backend):
    a, b, cost = oracles.figure()
    exact = solve_ot(a, b, cost, regularizer=Unregularized(), backend=backend)
    assert abs(exact.value - 0.1658058110190663) < 2e-9
    single = solve_ot(a, b, cost, regularizer=SparsityConstrained(1, 0.1), backend=backend)
    assert abs(single.value - 0.16721639444541184) < 1e-8
    values = []
    for k in (2, 5, 13, 100):
        result = solve_ot(a, b, cost, regularizer=SparsityConstrained(k, 0.1), backend=backend)
        assert result.info.converged, k
        assert result.marginal_error < 2e-8
        values.append(float(result.value))
    np.testing.assert_allclose(
        values, [0.16655903, 0.16635079, 0.166350786, 0.166350786], atol=2e-8
    )
    assert np.all(np.diff([float(single.value), *values]) <= 1e-9)


def test_entropy_two_by_two(eager_place):
    arrays = (made(x, eager_place.library) for x in (HALF, HALF, SWAP))
    result = sinkhorn(*arrays, epsilon=0.5, backend=eager_place.backend)
    heavy = 0.5 / (1 + np.exp(-2.0))
    wanted = [[heavy, 0.5 - heavy], [0.5 - heavy, heavy]]
    np.testing.assert_allclose(to_numpy(result.plan), wanted, atol=1e-8)


def test_references_of_the_entropy(rng, backend):
    a, b, cost = clouds(rng, 7, 5)
    counting, product = (
        sinkhorn(a, b, cost, epsilon=0.2, reference=r, tol=1e-12, backend=backend)
        for r in ("counting", "product")
    )
    np.testing.assert_allclose(counting.plan, product.plan, atol=1e-12)
    share = a[:, None] * b * np.exp((product.alpha[:, None] + product.beta - cost) / 0.2)
    np.testing.assert_allclose(share, product.plan, atol=1e-11)
    entropy = (product.plan * (np.log(product.plan / (a[:, None] * b)) - 1)).sum()
    assert abs(product.value - product.linear_cost - 0.2 * entropy) < 1e-11
    assert abs(product.gap) < 1e-11


@pytest.mark.parametrize("formed", [0, 2**22])
def test_references_between_points(rng, formed, backend, monkeypatch):
    monkeypatch.setattr("orthokern.transport.kinds.FORMED", formed)
    x, y = rng.random((7, 2)), rng.random((5, 2))
    a, b, _ = clouds(rng, 7, 5)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    for reference in ("counting", "product"):
        given = {"epsilon": 0.2, "reference": reference, "tol": 1e-11, "backend": backend}
        lazy, exact = sinkhorn(a, b, Points(x, y), **given), sinkhorn(a, b, cost, **given)
        for field in ("value", "lower_bound", "upper_bound", "alpha", "beta"):
            np.testing.assert_allclose(getattr(lazy, field), getattr(exact, field), atol=1e-9)


# Accuracy on hard problems


@pytest.mark.parametrize("kind", oracles.KINDS)
def test_hard_problems_are_solved(kind, regularizer, backend):
    rng = np.random.default_rng(sum(map(ord, kind)))
    for _ in range(4 if backend else 30):
        a, b, cost = oracles.problem(rng, kind, 25 if backend else 60)
        strength = 10.0 ** rng.uniform(-3, 3)
        given = regularizer
        if isinstance(given, SquaredL2):
            given = SquaredL2(strength)
        if isinstance(given, SparsityConstrained):
            given = SparsityConstrained(int(rng.integers(1, 13)), strength)
        result = solve_ot(a, b, cost, regularizer=given, tol=5e-10, backend=backend)
        scale = cost.max() + getattr(given, "gamma", 0.0)
        assert result.info.converged
        assert result.marginal_error <= 1e-9
        assert errors(result, a, b) <= 1e-9
        assert abs(result.gap) <= 1e-8 * max(scale, 1e-3)
        assert np.all(result.plan >= 0)


def test_bounds_enclose_the_optimum(backend):
    rng = np.random.default_rng(5)
    for i in range(60 if backend else 1000):
        a, b, cost = oracles.problem(rng, oracles.KINDS[i % len(oracles.KINDS)], 10)
        steps = int(rng.integers(1, 6)) if i % 2 else None
        result = solve_ot(
            a, b, cost, regularizer=Unregularized(), max_iter=steps, warn=False, backend=backend
        )
        best = oracles.optimum(a, b, cost)
        slack = 1e-9 * max(cost.max(), 1.0)
        assert result.lower_bound <= best + slack
        assert result.upper_bound >= best - slack


@pytest.mark.parametrize("name", ["squares", "three entries", "entropy"])
def test_bounds_hold_when_stopped_early(rng, name, backend):
    """The bounds of a few steps enclose the value that all steps give."""
    a, b, cost = clouds(rng, 15, 12)
    given = REGULARIZERS[name]
    best = solve_ot(a, b, cost, regularizer=given, tol=1e-12, warn=False, backend=backend).value
    for steps in (1, 2, 3, 5):
        result = solve_ot(
            a, b, cost, regularizer=given, max_iter=steps, warn=False, backend=backend
        )
        assert result.lower_bound <= best + 1e-10
        assert result.upper_bound >= best - 1e-10


def test_a_small_strength_gives_the_plan_of_the_linear_program(rng, backend):
    a, b, cost = clouds(rng, 20, 20)
    exact = solve_ot(a, b, cost, regularizer=Unregularized(), backend=backend)
    near = solve_ot(a, b, cost, regularizer=SquaredL2(1e-5), tol=1e-10, backend=backend)
    assert np.abs(exact.plan - near.plan).sum() < 1e-8


# Properties


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(REGULARIZERS)))
def test_units_and_shifts(seed, name):
    """Costs may be shifted by rows and columns, and units of cost and of mass chosen."""
    rng = np.random.default_rng(seed)
    a, b, cost = clouds(rng, *(int(x) for x in rng.integers(2, 14, 2)))
    given = REGULARIZERS[name]
    u, v = rng.standard_normal(a.size), rng.standard_normal(b.size)
    plain = solve_ot(a, b, cost, regularizer=given, tol=1e-11, warn=False)
    moved = solve_ot(a, b, cost + u[:, None] + v, regularizer=given, tol=1e-11, warn=False)
    assert abs(moved.value - plain.value - u @ a - v @ b) < 1e-8
    if name in ("squares", "entropy"):
        np.testing.assert_allclose(moved.plan, plain.plan, atol=1e-7)
        strength = {"squares": SquaredL2(0.7e6), "entropy": Entropy(0.1e6)}[name]
        scaled = solve_ot(a, b, cost * 1e6, regularizer=strength, tol=1e-11, warn=False)
        np.testing.assert_allclose(scaled.plan, plain.plan, atol=1e-7)
    if name == "squares":
        heavy = solve_ot(3 * a, 3 * b, cost, regularizer=SquaredL2(0.7 / 3), tol=1e-11, warn=False)
        np.testing.assert_allclose(heavy.plan, 3 * plain.plan, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["squares", "entropy"]))
def test_symmetries(seed, name):
    rng = np.random.default_rng(seed)
    a, b, cost = clouds(rng, 9, 7)
    given = REGULARIZERS[name]
    plain = solve_ot(a, b, cost, regularizer=given, tol=1e-11, warn=False)
    turned = solve_ot(b, a, cost.T, regularizer=given, tol=1e-11, warn=False)
    np.testing.assert_allclose(turned.plan.T, plain.plan, atol=1e-7)
    p, q = rng.permutation(9), rng.permutation(7)
    mixed = solve_ot(a[p], b[q], cost[p][:, q], regularizer=given, tol=1e-11, warn=False)
    np.testing.assert_allclose(mixed.plan, plain.plan[p][:, q], atol=1e-7)


def test_value_falls_with_k_and_grows_with_gamma(rng, backend):
    a, b, cost = clouds(rng, 14, 10)
    options = {"tol": 1e-10, "backend": backend}

    def value(k, gamma):
        return float(
            solve_ot(a, b, cost, regularizer=SparsityConstrained(k, gamma), **options).value
        )

    by_k = [value(k, 2.0) for k in (1, 2, 3, 5, 8, 14, 20)]
    assert np.all(np.diff(by_k) <= 1e-8)
    squares = solve_ot(a, b, cost, regularizer=SquaredL2(2.0), **options).value
    assert by_k[-1] == by_k[-2] == float(squares)
    exact = solve_ot(a, b, cost, regularizer=Unregularized(), **options).value
    assert abs(by_k[0] - float(exact) - (b * b).sum()) < 1e-9
    assert np.all(np.diff([value(3, g) for g in (0.01, 0.1, 1.0, 10.0)]) >= -1e-9)


def test_a_stack_is_a_loop(rng, regularizer, backend):
    a, b, cost = clouds(rng, 8, 6, 2, 3)
    stack = solve_ot(a, b, cost, regularizer=regularizer, tol=1e-10, backend=backend)
    assert stack.value.shape == stack.info.converged.shape == (2, 3)
    for i in np.ndindex(2, 3):
        alone = solve_ot(a[i], b[i], cost[i], regularizer=regularizer, tol=1e-10, backend=backend)
        np.testing.assert_allclose(stack.plan[i], alone.plan, atol=1e-12)
        assert abs(stack.value[i] - alone.value) < 1e-12


def test_batch_shapes_broadcast(rng, backend):
    a, b, cost = clouds(rng, 5, 4)
    strengths = np.array([0.5, 1.0, 2.0])
    costs = np.stack([cost, 2 * cost])[:, None]
    result = solve_ot(a, b, costs, regularizer=SquaredL2(strengths), backend=backend)
    assert result.plan.shape == (2, 3, 5, 4)
    alone = solve_ot(a, b, 2 * cost, regularizer=SquaredL2(2.0), backend=backend)
    np.testing.assert_allclose(result.plan[1, 2], alone.plan, atol=1e-9)
    for kind in REGULARIZERS.values():
        stack = solve_ot(a, b, costs[:, 0], regularizer=kind, tol=1e-11, backend=backend)
        alone = solve_ot(a, b, cost, regularizer=kind, tol=1e-11, backend=backend)
        np.testing.assert_allclose(stack.plan[0], alone.plan, atol=1e-9)


def test_inputs_stay_as_they_are(rng, regularizer):
    arrays = clouds(rng, 6, 5)
    copies = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    solve_ot(*arrays, regularizer=regularizer)
    for x, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("name", ["squares", "three entries", "entropy", "linear"])
def test_single_precision(rng, name, eager_place):
    arrays = clouds(rng, 14, 12)
    exact = solve_ot(*arrays, regularizer=REGULARIZERS[name])
    single = [made(x, eager_place.library, "float32") for x in arrays]
    result = solve_ot(
        *single, regularizer=REGULARIZERS[name], backend=eager_place.backend, warn=False
    )
    assert str(result.plan.dtype).endswith("float32")
    assert float(result.marginal_error) < 1e-4
    assert abs(float(result.value) - exact.value) < 1e-4


# Degenerate problems


def test_no_mass_no_bins(regularizer, backend):
    nothing = solve_ot(0 * A3, 0 * B3, LINE, regularizer=regularizer, backend=backend)
    assert np.all(nothing.plan == 0)
    assert nothing.value == nothing.marginal_error == 0
    assert nothing.info.converged
    empty = solve_ot(np.ones(0), 0 * B3, np.ones((0, 3)), regularizer=regularizer, backend=backend)
    assert empty.plan.shape == (0, 3)
    assert empty.value == 0
    assert empty.info.converged


def test_stacks_of_no_problems(regularizer, backend):
    arrays = np.ones((0, 3)), np.ones((0, 2)), np.ones((0, 3, 2))
    result = solve_ot(*arrays, regularizer=regularizer, backend=backend)
    assert result.plan.shape == (0, 3, 2)
    assert result.value.shape == result.info.converged.shape == (0,)


@pytest.mark.parametrize("mass", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("epsilon", [0.01, 100.0])
def test_masses_of_any_sum_converge(rng, mass, epsilon, backend):
    a, b, cost = clouds(rng, 9, 8)
    for reference in ("counting", "product"):
        given = Entropy(epsilon, reference)
        result = solve_ot(mass * a, mass * b, cost, regularizer=given, backend=backend)
        assert result.info.converged
        assert errors(result, mass * a, mass * b) < 1e-7 * mass


def test_a_strength_lost_in_rounding_is_no_success(backend):
    """Potentials that cannot be told apart to a part of epsilon make no plan."""
    found = sinkhorn(HALF, HALF, 1e100 * SWAP, epsilon=0.1, warn=False, backend=backend)
    assert found.info.converged == (errors(found, HALF, HALF) < 1e-3)
    huge = sinkhorn(
        1e200 * HALF, 1e200 * HALF, 1e100 * SWAP, epsilon=0.1, warn=False, backend="array-api"
    )
    assert not huge.info.converged or huge.marginal_error < 1e197


def test_one_bin(regularizer, backend):
    result = solve_ot(np.ones(1), B3, LINE[:1], regularizer=regularizer, backend=backend)
    np.testing.assert_allclose(result.plan, B3[None], atol=1e-9)
    assert abs(result.gap) < 1e-7


def test_bins_without_mass_get_nothing(regularizer, backend):
    a, b = np.array([0.5, 0.0, 0.5]), np.array([0.0, 0.4, 0.6])
    result = solve_ot(a, b, LINE, regularizer=regularizer, tol=1e-10, backend=backend)
    assert np.all(result.plan[1] == 0)
    assert np.all(result.plan[:, 0] == 0)
    assert result.info.converged
    assert not np.any(np.isnan(result.alpha))


def test_forbidden_pairs(regularizer, backend):
    cost = np.where(LINE == 1, np.inf, LINE)
    a, b = np.array([0.4, 0.3, 0.3]), np.array([0.3, 0.3, 0.4])
    result = solve_ot(a, b, cost, regularizer=regularizer, tol=1e-10, backend=backend)
    assert np.all(result.plan[~np.isfinite(cost)] == 0)
    assert result.info.converged
    assert result.marginal_error < 1e-9


def test_no_way_through(regularizer, backend):
    cost = np.where(np.eye(3) > 0, 0.0, np.inf)
    with pytest.warns(ConvergenceWarning, match="info.status"):
        result = solve_ot(A3, B3, cost, regularizer=regularizer, backend=backend)
    assert not result.info.converged
    assert result.info.status == OTStatus.INFEASIBLE
    assert np.all(np.isfinite(result.plan))


def test_stopped_early_says_so(rng, backend):
    a, b, cost = clouds(rng, 30, 30)
    with pytest.warns(ConvergenceWarning, match="solve_ot: the accuracy"):
        result = solve_ot(a, b, cost, regularizer=SquaredL2(0.01), max_iter=1, backend=backend)
    assert result.info.status == OTStatus.MAX_ITER
    assert not result.info.converged
    assert result.lower_bound <= result.upper_bound


# Recoveries


@pytest.mark.parametrize("k", [1, 2, 4])
def test_feasible_plans_have_few_entries_and_these_marginals(rng, k, backend):
    m, n = 3 * k, 3
    a, b = np.full(m, 1 / m), np.full(n, 1 / n)
    cost = rng.random((m, n))
    hard = SparsityConstrained(k, 1.0, "feasible")
    result = solve_ot(a, b, cost, regularizer=hard, backend=backend)
    assert np.all(np.count_nonzero(result.plan, axis=0) <= k)
    assert errors(result, a, b) < 1e-14
    assert result.gap > -1e-8
    # Exact marginals: the plan itself is the bound.
    assert result.upper_bound == result.value


def test_recovery_by_the_dual_has_few_entries(rng, backend):
    a, b, cost = clouds(rng, 20, 15)
    given = SparsityConstrained(2, 1.0, "topk")
    result = solve_ot(a, b, cost, regularizer=given, backend=backend)
    assert np.all(np.count_nonzero(result.plan, axis=0) <= 2)
    assert abs(result.marginal_error - errors(result, a, b)) < 1e-12
    relaxed = solve_ot(a, b, cost, regularizer=SparsityConstrained(2, 1.0), backend=backend)
    assert abs(relaxed.dual_value - result.dual_value) < 1e-7


def test_no_feasible_plan_is_said():
    """Four rows of a quarter cannot pass through two columns with one entry each."""
    with pytest.warns(ConvergenceWarning):
        result = solve_ot(
            np.full(4, 0.25),
            HALF,
            np.arange(8.0).reshape(4, 2),
            regularizer=SparsityConstrained(1, 1.0, "feasible"),
        )
    assert result.info.status == OTStatus.NO_FEASIBLE_KSPARSE


def test_tokens_to_experts():
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((1024, 16))
    a, b = np.full(1024, 1 / 1024), np.full(16, 1 / 16)
    relaxed = solve_ot(a, b, -scores, regularizer=SparsityConstrained(64, 0.1))
    assert relaxed.info.converged
    assert np.all(relaxed.plan.sum(1) > 0.9 / 1024)
    np.testing.assert_allclose(relaxed.plan.sum(0), b, atol=1e-8)
    hard = SparsityConstrained(64, 0.1, "feasible")
    result = solve_ot(a, b, -scores, regularizer=hard)
    assert np.all(np.count_nonzero(result.plan, axis=0) <= 64)
    assert np.all(np.count_nonzero(result.plan, axis=1) >= 1)
    assert result.marginal_error < 1e-8


# Forms of the plan


def test_forms(rng):
    a, b, cost = clouds(rng, 9, 7)
    dense, coo, csr, none = (
        solve_ot(a, b, cost, regularizer=SquaredL2(0.1), plan=form).plan
        for form in ("dense", "coo", "csr", "none")
    )
    assert none is None
    again = np.zeros(coo.shape)
    again[coo.rows, coo.columns] = coo.values
    np.testing.assert_array_equal(again, dense)
    np.testing.assert_array_equal(csr.toarray(), dense)
    assert coo.values.size < dense.size


def test_a_stack_has_no_coordinates(rng):
    with pytest.raises(UnsupportedError, match="plan='dense'"):
        solve_ot(*clouds(rng, 4, 4, 2), regularizer=SquaredL2(1.0), plan="coo")


def test_rounding_the_plan_gives_the_upper_bound(rng):
    a, b, cost = clouds(rng, 9, 7)
    result = solve_ot(a, b, cost, regularizer=SquaredL2(0.1), tol=1e-3)
    near = round_to_marginals(result.plan, a, b)
    upper = (near * cost).sum() + 0.05 * (near * near).sum()
    assert abs(upper - result.upper_bound) < 1e-12


def test_whole_numbers_of_numpy_are_counts(rng):
    a, b, cost = clouds(rng, 9, 7)
    first, second = (
        solve_ot(a, b, cost, regularizer=SparsityConstrained(k, 1.0)).value
        for k in (3, np.int64(3))
    )
    assert first == second


# Refusals

BAD = {
    "negative mass": (
        lambda: solve_ot(-A3, B3, LINE, regularizer=SquaredL2(1.0)),
        ValuesError,
        "entry of a",
    ),
    "masses differ": (
        lambda: solve_ot(2 * A3, B3, LINE, regularizer=SquaredL2(1.0)),
        ValuesError,
        "equal sum",
    ),
    "NaN cost": (
        lambda: solve_ot(A3, B3, LINE * np.nan, regularizer=SquaredL2(1.0)),
        ValuesError,
        "cost",
    ),
    "shape": (
        lambda: solve_ot(A3, HALF, LINE, regularizer=SquaredL2(1.0)),
        ShapeError,
        "expected b",
    ),
    "integers": (
        lambda: solve_ot(A3, B3, LINE.astype(int), regularizer=SquaredL2(1.0)),
        DTypeError,
        "cast",
    ),
    "complex": (
        lambda: solve_ot(A3, B3, LINE + 0j, regularizer=SquaredL2(1.0)),
        DTypeError,
        "real",
    ),
    "gamma": (lambda: solve_ot(A3, B3, LINE, regularizer=SquaredL2(0.0)), OptionError, "gamma"),
    "epsilon": (lambda: sinkhorn(A3, B3, LINE, epsilon=-1.0), OptionError, "epsilon"),
    "k": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SparsityConstrained(0, 1.0)),
        OptionError,
        "k to be",
    ),
    "k is a flag": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SparsityConstrained(True, 1.0)),
        OptionError,
        "k to",
    ),
    "recovery": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SparsityConstrained(1, 1.0, "best")),
        OptionError,
        "recover",
    ),
    "regularizer": (lambda: solve_ot(A3, B3, LINE, regularizer="l2"), OptionError, "SquaredL2"),
    "method": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SquaredL2(1.0), method="simplex"),
        OptionError,
        "newton",
    ),
    "tol": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SquaredL2(1.0), tol=0.0),
        OptionError,
        "tol",
    ),
    "no tol": (
        lambda: solve_ot(A3, B3, LINE, regularizer=Unregularized(), tol=None),
        OptionError,
        "tol",
    ),
    "plan": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SquaredL2(1.0), plan="sparse"),
        OptionError,
        "plan",
    ),
    "no limit": (
        lambda: solve_ot(A3, B3, LINE, regularizer=SquaredL2(1.0), tol=None),
        OptionError,
        "pass max_iter",
    ),
    "list": (
        lambda: solve_ot(A3, B3.tolist(), LINE, regularizer=SquaredL2(1.0)),
        ArrayTypeError,
        "for b .* got list",
    ),
    "points that are no numbers": (
        lambda: solve_ot(A3, B3, Points(LINE, LINE * np.nan), regularizer=SquaredL2(1.0)),
        ValuesError,
        "coordinates in y of Points",
    ),
    "method of points": (
        lambda: solve_ot(
            A3, B3, Points(LINE, LINE), regularizer=SquaredL2(1.0), method="accelerated"
        ),
        UnsupportedError,
        "method='auto'",
    ),
    "batch": (
        lambda: solve_ot(np.stack([A3] * 2), np.stack([B3] * 3), LINE, regularizer=SquaredL2(1.0)),
        ShapeError,
        "broadcast",
    ),
}


@pytest.mark.parametrize(("call", "error", "text"), BAD.values(), ids=BAD)
def test_refusals_say_what_was_expected(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="Dask is not installed")
def test_dask_is_told_to_compute():
    import dask.array as dask

    arrays = (dask.from_array(x) for x in (A3, B3, LINE))
    with pytest.raises(UnsupportedError, match="compute"):
        solve_ot(*arrays, regularizer=orthokern.SquaredL2(1.0))
