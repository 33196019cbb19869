"""Transforms of potentials and rounding of plans: known answers, bounds of a linear programme, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern import DTypeError, OptionError, ShapeError, ValuesError
from orthokern.testing.libraries import to_numpy

from .conftest import eps_of, made, problem

INF = np.inf


# Transforms


def test_known_transforms(place, dtype):
    cost = made([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]], place.library, dtype)
    alpha = made([0.0, 0.5, 1.0], place.library, dtype)
    beta = orthokern.c_transform(alpha, cost, axis=-2, backend=place.backend)
    assert beta.dtype == cost.dtype
    assert to_numpy(beta).tolist() == [0, -0.5]
    assert to_numpy(orthokern.c_transform(beta, cost, backend=place.backend)).tolist() == [
        0,
        0.5,
        2.5,
    ]


def test_transforms_are_feasible_and_the_third_is_the_first(rng, backend):
    cost = rng.random((3, 7, 5))
    alpha = rng.standard_normal((3, 7))
    beta = orthokern.c_transform(alpha, cost, axis=-2, backend=backend)
    assert np.all(alpha[..., :, None] + beta[..., None, :] <= cost + 1e-15)
    again = orthokern.c_transform(beta, cost, backend=backend)
    assert np.all(again >= alpha - 1e-15)
    np.testing.assert_allclose(
        orthokern.c_transform(again, cost, axis=1, backend=backend), beta, atol=1e-15
    )


def test_forbidden_pairs_and_members_taken_out(place):
    cost = made([[INF, 1.0, INF], [INF, 3.0, INF]], place.library)
    found = orthokern.c_transform(
        made([-INF, 1.0], place.library), cost, axis=-2, backend=place.backend
    )
    assert to_numpy(found).tolist() == [INF, 2, INF]


def test_potentials_broadcast_and_nan_stays_with_its_problem(place, rng):
    cost = rng.random((4, 6))
    beta = np.stack([rng.standard_normal(6), np.full(6, np.nan), np.zeros(6)])
    found = to_numpy(
        orthokern.c_transform(
            *(made(x, place.library) for x in (beta, cost)), backend=place.backend
        )
    )
    assert np.all(np.isnan(found[1]))
    np.testing.assert_allclose(found[2], cost.min(-1), rtol=1e-6)
    np.testing.assert_allclose(found[0], (cost - beta[0]).min(-1), rtol=1e-5, atol=1e-6)


def test_transforms_over_nothing(backend):
    found = orthokern.c_transform(np.zeros(0), np.zeros((3, 0)), backend=backend)
    assert found.tolist() == [INF] * 3
    assert orthokern.c_transform(np.zeros(3), np.zeros((3, 0)), axis=-2, backend=backend).shape == (
        0,
    )
    assert orthokern.c_transform(np.zeros((2, 3)), np.zeros((2, 3, 0)), axis=-2).shape == (2, 0)


# Rounding


def errors(plan, a, b):
    return np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)


def close_plan(rng, a, b, size):
    t = a[..., :, None] * b[..., None, :]
    return t * rng.uniform(1 - size, 1 + size, t.shape)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_known_rounding(place, dtype, sparse):
    plan, a, b = (
        made(x, place.library, dtype) for x in ([[0.5, 0.5], [0, 0]], [0.5, 0.5], [0.25, 0.75])
    )
    found = orthokern.round_to_marginals(plan, a, b, sparse=sparse, backend=place.backend)
    assert found.dtype == plan.dtype
    np.testing.assert_allclose(to_numpy(found), [[0.25, 0.25], [0, 0.5]], atol=2 * eps_of(plan))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-9, 0.1, 1.0])
def test_marginals_are_exact_and_the_plan_moves_little(sparse, size, rng, backend):
    _, a, b = problem(rng, 9, 6, 20)
    plan = close_plan(rng, a, b, size)
    found = orthokern.round_to_marginals(plan, a, b, sparse=sparse, backend=backend)
    assert found.min() >= 0
    assert np.all(errors(found, a, b) <= 4e-15)
    moved = np.abs(found - plan).sum((-2, -1))
    assert np.all(moved <= 2 * errors(plan, a, b) + 4e-15)


def test_a_feasible_plan_stays(rng, backend):
    _, a, b = problem(rng, 5, 8)
    plan = np.outer(a, b)
    np.testing.assert_allclose(
        orthokern.round_to_marginals(plan, a, b, backend=backend), plan, atol=1e-16
    )


def test_the_sparse_filling_has_few_entries(rng, backend):
    m, n = 30, 40
    _, a, b = problem(rng, m, n)
    found = orthokern.round_to_marginals(np.zeros((m, n)), a, b, sparse=True, backend=backend)
    assert np.count_nonzero(found > 1e-15) <= m + n - 1
    assert errors(found, a, b) <= 4e-15
    full = orthokern.round_to_marginals(np.zeros((m, n)), a, b, backend=backend)
    np.testing.assert_allclose(full, np.outer(a, b), rtol=1e-13)


def test_empty_bins_stay_empty(backend):
    a, b = np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0])
    found = orthokern.round_to_marginals(np.full((3, 2), 0.1), a, b, backend=backend)
    np.testing.assert_allclose(found, [[0, 0.5], [0, 0], [0, 0.5]], atol=1e-16)
    nothing = orthokern.round_to_marginals(
        np.ones((2, 3)), np.zeros(2), np.zeros(3), backend=backend
    )
    assert not np.any(nothing)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_masses_at_any_scale(scale, rng, backend):
    _, a, b = problem(rng, 4, 5)
    plan = close_plan(rng, a, b, 0.5)
    expected = orthokern.round_to_marginals(plan, a, b, backend=backend)
    found = orthokern.round_to_marginals(scale * plan, scale * a, scale * b, backend=backend)
    np.testing.assert_allclose(found / scale, expected, rtol=1e-12)


def test_a_plan_with_nan_spoils_nothing_else(rng, backend):
    _, a, b = problem(rng, 4, 5, 3)
    plan = close_plan(rng, a, b, 0.5)
    clean = orthokern.round_to_marginals(plan, a, b, backend=backend)
    plan[1, 2, 2] = np.nan
    found = orthokern.round_to_marginals(plan, a, b, backend=backend)
    assert np.all(np.isnan(found[1]))
    assert np.array_equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0)])
def test_plans_without_entries(shape):
    a, b = np.zeros(shape[:-1]), np.zeros((*shape[:-2], shape[-1]))
    for sparse in (False, True):
        assert orthokern.round_to_marginals(np.zeros(shape), a, b, sparse=sparse).shape == shape


# Both as bounds


@pytest.mark.parametrize("shape", [(2, 2), (4, 6), (7, 7)])
def test_bounds_of_the_linear_programme(shape, rng, backend):
    from scipy.optimize import linprog

    m, n = shape
    cost, a, b = problem(rng, m, n)
    rows, columns = np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))
    best = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[a, b], method="highs")
    for potential in (rng.standard_normal(m), best.eqlin.marginals[:m]):
        beta = orthokern.c_transform(potential, cost, axis=-2, backend=backend)
        lower = a @ potential + b @ beta
        assert lower <= best.fun + 1e-12
    np.testing.assert_allclose(lower, best.fun, rtol=1e-9)
    for plan in (close_plan(rng, a, b, 0.3), best.x.reshape(m, n) * rng.uniform(0.99, 1.01, shape)):
        upper = (orthokern.round_to_marginals(plan, a, b, backend=backend) * cost).sum()
        assert upper >= best.fun - 1e-12
    assert upper <= best.fun + 0.05


# Refusals

transform, rounded = orthokern.c_transform, orthokern.round_to_marginals
PLAN, A, B = np.full((2, 3), 1 / 6), np.full(2, 0.5), np.full(3, 1 / 3)
REFUSED = {
    "cost is nan": (lambda: transform(B, np.full((2, 3), np.nan)), ValuesError, "cost to be neither"),
    "cost is -inf": (lambda: transform(B, np.full((2, 3), -INF)), ValuesError, "minus infinity"),
    "potential": (lambda: transform(A, PLAN), ShapeError, r"potential \(..., 3\) for axis=-1"),
    "batch axis": (lambda: transform(np.ones(4), np.ones((4, 2, 3)), axis=0), ShapeError, "axis=0"),
    "complex": (lambda: transform(1j * B, PLAN), DTypeError, "real part"),
    "integer cost": (lambda: transform(B, np.ones((2, 3), int)), DTypeError, "cast to a floating"),
    "masses differ": (lambda: rounded(PLAN, 2 * A, B), ValuesError, "equal sum"),
    "negative mass": (lambda: rounded(PLAN, A, -B), ValuesError, "entry of b"),
    "infinite mass": (lambda: rounded(PLAN, A / 0, B), ValuesError, "entry of a"),
    "negative plan": (lambda: rounded(-PLAN, A, B), ValuesError, "plan to be not negative"),
    "wrong size": (lambda: rounded(PLAN, B, B), ShapeError, r"expected a \(..., 2\)"),
    "sparse": (lambda: rounded(PLAN, A, B, sparse="yes"), OptionError, "True or False"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        call()


def test_masses_equal_up_to_rounding_are_scaled(rng):
    _, a, b = problem(rng, 4, 5)
    found = orthokern.round_to_marginals(np.outer(a, b), a, b * (1 + 5e-7))
    np.testing.assert_allclose(found.sum(-2), b, rtol=1e-13)
