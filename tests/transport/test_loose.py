"""Marginals at a price and masses of which a part stays: known answers, oracles, bounds, derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize, minimize_scalar

from orthokern import (
    Entropy,
    OptionError,
    Partial,
    SquaredL2,
    Unbalanced,
    Unregularized,
    ValuesError,
    sinkhorn,
    solve_ot,
)
from orthokern.testing import libraries

from .oracles import clouds


def divergence(p, q):
    return float(np.sum(p * np.log(np.maximum(p, 1e-300) / q) - p + q))


def objective(plan, a, b, cost, epsilon, rho):
    """Value of a plan with marginals at a price."""
    paid = divergence(plan.sum(1), a) + divergence(plan.sum(0), b)
    return float((plan * cost).sum()) + epsilon * divergence(plan, a[:, None] * b) + rho * paid


@pytest.mark.parametrize(("a", "b", "cost"), [(1.0, 1.0, 0.0), (1.0, 2.0, 0.3), (3.0, 0.5, -0.4)])
def test_one_bin_each(a, b, cost, backend):
    def value(t):
        x = np.array([[t]])
        return objective(x, np.array([a]), np.array([b]), np.array([[cost]]), 0.1, 0.5)

    best = minimize_scalar(value, bounds=(1e-6, 10), method="bounded", options={"xatol": 1e-12})
    found = sinkhorn(
        np.array([a]),
        np.array([b]),
        np.array([[cost]]),
        epsilon=0.1,
        marginals=Unbalanced(0.5),
        tol=1e-12,
        backend=backend,
    )
    assert abs(found.value - best.fun) < 1e-9
    assert abs(found.plan[0, 0] - best.x) < 1e-5
    assert abs(found.gap) < 1e-10


@pytest.mark.parametrize("mass", [1.0, 7.0])
def test_a_price_against_a_general_minimizer(rng, mass, backend):
    a, b, cost = clouds(rng, 4, 3)
    a, b = mass * a, 1.5 * mass * b
    found = solve_ot(
        a, b, cost, regularizer=Entropy(0.1), marginals=Unbalanced(0.4), tol=1e-12, backend=backend
    )
    assert found.info.converged
    assert abs(found.value - objective(found.plan, a, b, cost, 0.1, 0.4)) < 1e-10 * mass
    best = minimize(
        lambda t: objective(np.exp(t).reshape(4, 3), a, b, cost, 0.1, 0.4),
        np.log(found.plan.ravel() * 1.3),
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    assert found.value <= best.fun + 1e-9 * mass
    assert best.fun - found.value < 1e-6 * mass
    assert found.lower_bound <= best.fun + 1e-9 * mass


def test_a_high_price_is_equality(rng, backend):
    a, b, cost = clouds(rng, 8, 6)
    exact = sinkhorn(a, b, cost, epsilon=0.1, tol=1e-10, backend=backend)
    priced = sinkhorn(
        a, b, cost, epsilon=0.1, marginals=Unbalanced(1e6), tol=1e-10, backend=backend
    )
    np.testing.assert_allclose(priced.plan, exact.plan, atol=1e-6)


def test_the_bound_holds_when_stopped_early(rng, backend):
    a, b, cost = clouds(rng, 9, 7)
    options = {"epsilon": 0.05, "marginals": Unbalanced(0.3), "warn": False, "backend": backend}
    best = sinkhorn(a, 2 * b, cost, tol=1e-11, **options)
    for steps in (1, 2, 4):
        early = sinkhorn(a, 2 * b, cost, max_iter=steps, **options)
        assert early.lower_bound <= best.value + 1e-10
        assert early.upper_bound >= best.value - 1e-10


def oracle(a, b, cost, moved):
    """Partial transport by HiGHS."""
    m, n = cost.shape
    rows, columns = np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))
    found = linprog(
        cost.ravel(),
        A_ub=np.vstack([rows, columns]),
        b_ub=np.concatenate([a, b]),
        A_eq=np.ones((1, m * n)),
        b_eq=[moved],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found.fun


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_a_part_of_the_mass(rng, share, shift, backend):
    a, b, cost = clouds(rng, 7, 5)
    a, b, cost = 2 * a, 3 * b, cost + shift
    moved = 2 * share
    result = solve_ot(
        a, b, cost, regularizer=Unregularized(), marginals=Partial(moved), backend=backend
    )
    assert result.info.converged
    assert abs(result.plan.sum() - moved) < 1e-7
    assert np.all(result.plan.sum(1) <= a + 1e-7)
    assert np.all(result.plan.sum(0) <= b + 1e-7)
    assert abs(result.value - oracle(a, b, cost, moved)) < 1e-6
    assert result.lower_bound <= result.value + 1e-6


def test_stacks(rng):
    a, b, cost = clouds(rng, 6, 5, 3)
    priced = sinkhorn(a, b, cost, epsilon=0.1, marginals=Unbalanced(np.array([0.1, 1.0, 10.0])))
    partial = solve_ot(a, b, cost, regularizer=Unregularized(), marginals=Partial(0.5))
    assert priced.value.shape == partial.value.shape == (3,)
    alone = sinkhorn(a[1], b[1], cost[1], epsilon=0.1, marginals=Unbalanced(1.0))
    np.testing.assert_allclose(priced.plan[1], alone.plan, atol=1e-10)


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="no torch")
def test_the_value_has_a_gradient(rng):
    import torch

    arrays = [*clouds(rng, 5, 4), np.asarray(0.1), np.asarray(0.4)]

    def value(a, b, cost, epsilon, rho):
        options = {"marginals": Unbalanced(rho), "tol": 1e-13, "warn": False}
        return solve_ot(a, b, cost, regularizer=Entropy(epsilon), **options).value

    given = [torch.tensor(x, requires_grad=True) for x in arrays]
    gradient = torch.autograd.grad(value(*given), given)
    directions = [0.1 * rng.standard_normal(x.shape) for x in arrays]
    ahead, behind = (
        value(*(x + s * 1e-5 * d for x, d in zip(arrays, directions, strict=True))) for s in (1, -1)
    )
    slope = sum(
        float((g * torch.tensor(d)).sum()) for g, d in zip(gradient, directions, strict=True)
    )
    assert abs(slope - (ahead - behind) / 2e-5) < 1e-7


def test_refusals(rng):
    a, b, cost = clouds(rng, 4, 3)
    with pytest.raises(OptionError, match="Unbalanced with Entropy"):
        solve_ot(a, b, cost, regularizer=SquaredL2(1.0), marginals=Unbalanced(1.0))
    with pytest.raises(OptionError, match="Partial with Unregularized"):
        sinkhorn(a, b, cost, epsilon=0.1, marginals=Partial(0.5))
    with pytest.raises(OptionError, match="rho"):
        sinkhorn(a, b, cost, epsilon=0.1, marginals=Unbalanced(-1.0))
    with pytest.raises(ValuesError, match="mass to be at most"):
        solve_ot(a, b, cost, regularizer=Unregularized(), marginals=Partial(1.5))
