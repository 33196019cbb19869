"""Entropic potentials: known answers, an oracle in extended precision, laws, hard problems, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy
from orthokern.transport.clouds import entropic_potentials_points
from orthokern.transport.codes import OTStatus, Stat
from orthokern.transport.sinkhorn import entropic_potentials, unbalanced_potentials

from .conftest import eps_of, made, problem

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)
strengths = st.sampled_from([1e-4, 2e-3, 0.05, 0.3, 1.0, 1e3])
MAX_ITER = 5000


def solved(a, b, cost, epsilon, *, tol=1e-9, max_iter=MAX_ITER, backend=None):
    """Plan and figures on NumPy arrays."""
    lifted = np.full((*cost.shape[:-2], 1, 1), epsilon, cost.dtype)
    with orthokern.use_backend(backend):
        alpha, beta, stats = entropic_potentials(a, b, cost, lifted, tol=tol, max_iter=max_iter)
    return plan_of(alpha, beta, cost, lifted), stats


def plan_of(alpha, beta, cost, epsilon):
    alpha, beta = alpha.astype(float), beta.astype(float)
    return np.exp((alpha[..., :, None] + beta[..., None, :] - cost) / epsilon)


def errors(plan, a, b):
    return np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)


def oracle(a, b, cost, epsilon, sweeps):
    """Sinkhorn's iteration in extended precision."""
    a, b, cost = (np.asarray(x, dtype=np.longdouble) for x in (a, b, cost))
    kernel = np.exp(-cost / np.longdouble(epsilon))
    v = np.ones_like(b)
    for _ in range(sweeps):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return (u[:, None] * kernel * v).astype(float)


# Known answers


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0])
def test_two_bins(place, dtype, epsilon):
    if place.library == "dask":
        pytest.skip("Dask is refused")
    a = made([0.5, 0.5], place.library, dtype)
    cost = made([[0.0, 1.0], [1.0, 0.0]], place.library, dtype)
    strength = made([[epsilon]], place.library, dtype)
    with orthokern.use_backend(place.backend):
        alpha, beta, stats = entropic_potentials(
            a, a, cost, strength, tol=50 * eps_of(cost), max_iter=100
        )
    assert type(alpha) is type(a)
    assert alpha.dtype == a.dtype
    off = 0.5 / (1 + np.exp(1 / epsilon))
    alpha, beta = to_numpy(alpha).astype(float), to_numpy(beta).astype(float)
    plan = plan_of(alpha, beta, np.array([[0.0, 1.0], [1.0, 0.0]]), epsilon)
    np.testing.assert_allclose(plan, [[0.5 - off, off], [off, 0.5 - off]], atol=100 * eps_of(cost))
    assert to_numpy(stats)[Stat.STATUS] == OTStatus.CONVERGED


def test_a_constant_cost_gives_the_product(backend, rng):
    _, a, b = problem(rng, 5, 7)
    for value in (0.0, 0.7):
        plan, stats = solved(a, b, np.full((5, 7), value), 1e-3, backend=backend)
        np.testing.assert_allclose(plan, a[:, None] * b, atol=1e-12)
        assert stats[Stat.ERROR] <= 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
@pytest.mark.parametrize("epsilon", [1e-4, 1.0, 1e3])
def test_one_row_or_column(shape, epsilon, backend, rng):
    cost, a, b = problem(rng, *shape)
    plan, stats = solved(a, b, cost, epsilon, backend=backend)
    np.testing.assert_allclose(plan, a[:, None] * b, atol=1e-11)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED


def test_small_epsilon_approaches_linear_transport(backend):
    """Masses (.5, .3, .2) and (.2, .3, .5) at the distance |i - j|: the optimum 0.6, all over 2."""
    a, b = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    cost = np.abs(np.arange(3.0)[:, None] - np.arange(3.0)) / 2
    plan, _ = solved(a, b, cost, 1e-4, backend=backend)
    np.testing.assert_allclose((plan * cost).sum(), 0.3, atol=1e-9)
    # Of the optimal plans the one of largest entropy: what is forced, and a product elsewhere.
    assert plan[1, 0] < 1e-12
    np.testing.assert_allclose(plan[0, 0], 0.2, atol=1e-9)


# Oracle and random problems


@pytest.mark.parametrize("epsilon", [0.03, 0.2, 5.0])
@pytest.mark.parametrize("shape", [(4, 4), (3, 9), (9, 3)])
def test_the_plan_of_an_oracle(shape, epsilon, backend, rng):
    cost, a, b = problem(rng, *shape)
    plan, _ = solved(a, b, cost, epsilon, tol=1e-12, backend=backend)
    expected = oracle(a, b, cost, epsilon, 20_000)
    np.testing.assert_allclose(plan, expected, rtol=1e-8, atol=3e-12)


def random_problem(seed):
    """Sizes 1 to 40: ties, constant cost, duplicates, masses over eight decades, zeros, clouds, forbidden pairs."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 41, 2)
    cost, a, b = problem(rng, m, n)
    kind = seed % 8
    if kind == 1:
        cost = np.round(cost * 4) / 4
    if kind == 2:
        cost[...] = 0.25
    if kind == 3:
        cost[m // 2 :] = cost[: m - m // 2]
    if kind == 4:
        a, b = 10 ** rng.uniform(-8, 0, m), 10 ** rng.uniform(-8, 0, n)
    if kind == 5:
        a[rng.random(m) < 0.3] = 0
        b[rng.random(n) < 0.3] = 0
        a[0] += 0.1
        b[0] += 0.1
    if kind >= 6:
        x, y = rng.standard_normal((m, 2)), rng.standard_normal((n, 2)) + 0.5
        cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = a / a.sum(), b / b.sum()
    cost = cost / max(cost.max(), 1e-300)
    if kind == 7:
        feasible = np.outer(a, b) * (rng.random((m, n)) < 0.5)
        feasible[0, 0] = 1
        a, b = feasible.sum(1) / feasible.sum(), feasible.sum(0) / feasible.sum()
        cost = np.where(feasible > 0, cost, np.inf)
    cost[a == 0], cost[:, b == 0] = np.inf, np.inf
    epsilon = 10 ** rng.uniform(-4, 3 if seed % 3 else -2)
    return a, b, cost, epsilon


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_no_failure_on_random_problems(first, backend):
    failed = []
    for seed in range(first, first + 40):
        a, b, cost, epsilon = random_problem(seed)
        plan, stats = solved(a, b, cost, epsilon, backend=backend)
        error = errors(plan, a, b)
        good = (
            error <= 1.01e-9
            and stats[Stat.ERROR] <= 1e-9
            and stats[Stat.STATUS] == OTStatus.CONVERGED
        )
        if not good or abs(error - stats[Stat.ERROR]) > 1e-11:
            failed.append((seed, cost.shape, epsilon, error, stats.tolist()))
    assert not failed


@pytest.mark.parametrize("epsilon", [1e-4, 5e-4])
def test_clouds_at_small_epsilon(epsilon, backend):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((60, 2)), rng.standard_normal((80, 2)) + 1
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = rng.random(60), rng.random(80)
    a, b = a / a.sum(), b / b.sum()
    plan, stats = solved(a, b, cost / cost.max(), epsilon, backend=backend)
    assert errors(plan, a, b) <= 1.01e-9
    assert stats[Stat.STATUS] == OTStatus.CONVERGED


def test_twelve_digits(backend, rng):
    cost, a, b = problem(rng, 30, 20)
    for epsilon in (0.01, 0.1, 1.0):
        plan, stats = solved(a, b, cost, epsilon, tol=1e-12, backend=backend)
        assert stats[Stat.ERROR] <= 1e-12
        assert errors(plan, a, b) <= 1.5e-12


def test_single_precision(backend, rng):
    cost, a, b = (x.astype(np.float32) for x in problem(rng, 30, 20))
    tol = 50 * 2.0**-23
    for epsilon in (0.05, 0.5):
        plan, stats = solved(a, b, cost, epsilon, tol=tol, backend=backend)
        assert stats.dtype == np.float32
        assert errors(plan.astype(float), a, b) <= 2 * tol
        assert stats[Stat.STATUS] == OTStatus.CONVERGED


def test_what_single_precision_cannot_reach_is_no_success(backend, rng):
    cost, a, b = (x.astype(np.float32) for x in problem(rng, 30, 20))
    plan, stats = solved(a, b, cost, 1e-4, tol=1e-5, backend=backend, max_iter=500)
    error = errors(plan.astype(float), a, b)
    assert np.all(np.isfinite(plan))
    assert error / 4 <= stats[Stat.ERROR] <= 4 * error
    assert (stats[Stat.STATUS] == OTStatus.CONVERGED) == (stats[Stat.ERROR] <= 1e-5)


# Laws

laws = [
    pytest.mark.parametrize("backend", [None, "array-api"], ids=["default", "reference"]),
    given(seed=seeds, m=st.integers(1, 12), n=st.integers(1, 12), epsilon=strengths),
    BOUNDED,
]


def law(test):
    for mark in reversed(laws):
        test = mark(test)
    return test


TIGHT = 1e-11


@law
def test_shifts_of_rows_and_columns_change_nothing(seed, m, n, epsilon, backend):
    rng = np.random.default_rng(seed)
    cost, a, b = problem(rng, m, n)
    cost = cost / 2
    shift = rng.random(m)[:, None] / 4 + rng.random(n) / 4
    options = {"tol": TIGHT, "backend": backend}
    plan, shifted = (solved(a, b, c, epsilon, **options)[0] for c in (cost, cost + shift))
    np.testing.assert_allclose(shifted, plan, atol=1e-7)
    # All plans of the form exp((alpha + beta - cost) / epsilon) with these marginals are one.
    ratio = epsilon * np.log(np.maximum(shifted, 1e-30) / np.maximum(plan, 1e-30))
    assert np.abs(ratio[plan > 1e-3]).max(initial=0) < 1e-5 * max(epsilon, 1)


@law
def test_transposing(seed, m, n, epsilon, backend):
    cost, a, b = problem(np.random.default_rng(seed), m, n)
    options = {"tol": TIGHT, "backend": backend}
    plan, _ = solved(a, b, cost, epsilon, **options)
    other, _ = solved(b, a, np.ascontiguousarray(cost.T), epsilon, **options)
    np.testing.assert_allclose(other.T, plan, atol=1e-7)


@law
def test_permuting(seed, m, n, epsilon, backend):
    rng = np.random.default_rng(seed)
    cost, a, b = problem(rng, m, n)
    p, q = rng.permutation(m), rng.permutation(n)
    options = {"tol": TIGHT, "backend": backend}
    plan, _ = solved(a, b, cost, epsilon, **options)
    other, _ = solved(a[p], b[q], cost[np.ix_(p, q)], epsilon, **options)
    np.testing.assert_allclose(other, plan[np.ix_(p, q)], atol=1e-7)


def test_members_of_a_batch_are_solved_alone(backend, rng):
    cost, a, b = problem(rng, 9, 14, 3, 4)
    a[1, 2, :3] = 0
    cost[1, 2, :3] = np.inf
    a = a / a.sum(-1, keepdims=True)
    epsilon = 10 ** rng.uniform(-3, 1, (3, 4, 1, 1))
    with orthokern.use_backend(backend):
        whole = entropic_potentials(a, b, cost, epsilon, tol=1e-9, max_iter=MAX_ITER)
        for i in np.ndindex(3, 4):
            alone = entropic_potentials(
                a[i], b[i], cost[i], epsilon[i], tol=1e-9, max_iter=MAX_ITER
            )
            for x, y in zip(whole, alone, strict=True):
                np.testing.assert_allclose(x[i], y, rtol=1e-12, atol=1e-12)


def test_bins_without_mass_are_left_out(backend, rng):
    cost, a, b = problem(rng, 6, 8)
    a[[0, 4]], b[3] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost[[0, 4]], cost[:, 3] = np.inf, np.inf
    kept = np.ix_(a > 0, b > 0)
    plan, _ = solved(a, b, cost, 0.05, tol=1e-11, backend=backend)
    alone, _ = solved(a[a > 0], b[b > 0], cost[kept], 0.05, tol=1e-11, backend=backend)
    np.testing.assert_allclose(plan[kept], alone, atol=1e-9)
    np.testing.assert_allclose(plan.sum(), alone.sum(), rtol=1e-12)
    with orthokern.use_backend(backend):
        alpha, beta, _ = entropic_potentials(a, b, cost, np.array([[0.05]]), tol=1e-9, max_iter=100)
    assert np.all(alpha[[0, 4]] == 0)
    assert beta[3] == 0


INFEASIBLE = {
    "row": np.array([[np.inf, np.inf], [0.3, 0.1]]),
    "column": np.array([[np.inf, 0.2], [np.inf, 0.1]]),
    "diagonal": np.array([[0.0, np.inf], [np.inf, 0.0]]),
    "triangle": np.array([[0.4, np.inf], [0.2, 0.1]]),
}


@pytest.mark.parametrize("name", INFEASIBLE)
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 10.0])
def test_what_no_plan_fulfils_is_found_out(name, epsilon, backend):
    a, b = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    plan, stats = solved(a, b, INFEASIBLE[name], epsilon, max_iter=300, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.INFEASIBLE
    assert stats[Stat.ERROR] > 1e-3
    assert np.all(np.isfinite(plan))


def test_a_feasible_neighbour_is_not_called_infeasible(backend):
    """Where there is just room: the triangle with masses that fit."""
    a, b = np.array([0.4, 0.6]), np.array([0.5, 0.5])
    plan, stats = solved(a, b, INFEASIBLE["triangle"], 0.1, max_iter=300, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    np.testing.assert_allclose(plan, [[0.4, 0], [0.1, 0.5]], atol=1e-9)


@pytest.mark.parametrize("seed", [23, 193])
def test_distant_groups_are_shifted_by_long_steps(seed, backend):
    """Hundreds of epsilon before anything flows between groups whose masses differ."""
    a, b, cost, epsilon = random_problem(seed)
    plan, stats = solved(a, b, cost, epsilon, max_iter=110, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert errors(plan, a, b) <= 1.01e-9


def test_masses_over_sixty_decades(backend):
    """Tails of Gaussian curves on a line, which a change of epsilon must not make vanish."""
    grid = np.arange(80) / 80
    a, b = (np.exp(-(((grid - at) / width) ** 2)) for at, width in ((0.2, 0.07), (0.6, 0.1)))
    a, b = a / a.sum(), b / b.sum()
    cost = (grid[:, None] - grid) ** 2
    for epsilon in (1e-4, 1e-3):
        plan, stats = solved(a, b, cost, epsilon, max_iter=200, backend=backend)
        assert stats[Stat.STATUS] == OTStatus.CONVERGED
        assert errors(plan, a, b) <= 1.01e-9


@pytest.mark.parametrize("epsilon", [1e-3, 0.02, 1.0])
def test_what_is_not_finished_is_not_infeasible(epsilon, backend):
    for seed in range(30):
        cost, a, b = problem(np.random.default_rng(seed), 8, 9)
        _, stats = solved(a, b, cost, epsilon, tol=1e-13, max_iter=1 + seed % 6, backend=backend)
        assert stats[Stat.STATUS] in (OTStatus.MAX_ITER, OTStatus.CONVERGED)


def test_too_few_steps_are_reported(backend, rng):
    cost, a, b = problem(rng, 30, 30)
    plan, stats = solved(a, b, cost, 1e-3, max_iter=3, backend=backend)
    assert stats[Stat.STATUS] == OTStatus.MAX_ITER
    assert stats[Stat.ITERATIONS] == 3
    assert stats[Stat.ERROR] > 1e-9
    np.testing.assert_allclose(stats[Stat.ERROR], errors(plan, a, b), rtol=1e-6)


# A fixed number of sweeps


def test_fixed_sweeps_are_those_of_sinkhorn(place, dtype, rng):
    cost, a, b = problem(rng, 5, 8)
    kernel = np.exp(-cost / 0.1)
    v = b
    for _ in range(7):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    given_ = [made(x, place.library, dtype) for x in (a, b, cost, [[0.1]])]
    with orthokern.use_backend(place.backend):
        alpha, beta, stats = entropic_potentials(*given_, tol=None, max_iter=7)
    plan = plan_of(to_numpy(alpha).astype(float), to_numpy(beta).astype(float), cost, 0.1)
    tolerance = 1e3 * eps_of(given_[0])
    np.testing.assert_allclose(plan, u[:, None] * kernel * v, rtol=tolerance)
    stats = to_numpy(stats)
    assert stats[Stat.STATUS] == OTStatus.FIXED
    assert stats[Stat.ITERATIONS] == 7
    np.testing.assert_allclose(stats[Stat.ERROR], errors(plan, a, b), atol=tolerance)


def test_fixed_sweeps_of_hard_problems_are_finite(rng):
    cost, a, b = problem(rng, 6, 8)
    a[0], cost[0], cost[1, :7] = 0, np.inf, np.inf
    for dtype in (np.float32, np.float64):
        arrays = [x.astype(dtype) for x in (a / a.sum(), b, cost)]
        alpha, beta, stats = entropic_potentials(
            *arrays, np.full((1, 1), 1e-4, dtype), tol=None, max_iter=5
        )
        assert all(np.all(np.isfinite(x)) for x in (alpha, beta, stats))


# Masses that are only asked for at a price


@pytest.mark.parametrize(("epsilon", "rho"), [(0.05, 0.3), (0.5, 1e-3), (2e-3, 5.0), (0.1, 1e4)])
def test_conditions_of_the_unbalanced_optimum(epsilon, rho, backend, rng):
    cost, a, b = problem(rng, 7, 10)
    b = 1.7 * b
    with orthokern.use_backend(backend):
        f, g, stats = unbalanced_potentials(
            a, b, cost, np.array([[epsilon]]), np.array([[rho]]), tol=1e-10, max_iter=MAX_ITER
        )
    plan = a[:, None] * b * plan_of(f, g, cost, epsilon)
    error = np.abs(plan.sum(1) - a * np.exp(-f / rho)).sum()
    error += np.abs(plan.sum(0) - b * np.exp(-g / rho)).sum()
    assert error <= 2e-10
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    np.testing.assert_allclose(stats[Stat.ERROR], error, atol=1e-11)

    def objective(t):
        def divergence(p, q):
            return (p * np.log(p / q) - p + q).sum()

        penalty = divergence(t.sum(1), a) + divergence(t.sum(0), b)
        return (t * cost).sum() + epsilon * divergence(t, np.outer(a, b)) + rho * penalty

    for size in (1e-3, 1e-1):
        other = plan * np.exp(size * rng.standard_normal(plan.shape))
        assert objective(plan) < objective(other)


def test_an_infinite_price_is_the_balanced_problem(backend, rng):
    cost, a, b = problem(rng, 7, 10)
    epsilon, infinite = np.array([[0.02]]), np.array([[np.inf]])
    with orthokern.use_backend(backend):
        f, g, stats = unbalanced_potentials(
            a, b, cost, epsilon, infinite, tol=1e-11, max_iter=MAX_ITER
        )
    expected, _ = solved(a, b, cost, 0.02, tol=1e-11, backend=backend)
    np.testing.assert_allclose(np.outer(a, b) * plan_of(f, g, cost, epsilon), expected, atol=1e-9)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED


# Cost from points


def clouds(rng, m, n, d, p, *batch):
    x, y = rng.standard_normal((*batch, m, d)), rng.standard_normal((*batch, n, d)) + 0.3
    distance = np.sqrt(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))
    scale = 1 / (distance**p).max((-2, -1), keepdims=True)
    _, a, b = problem(rng, m, n, *batch)
    return x, y, a, b, distance**p * scale, scale


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_points_give_the_plan_of_their_cost(p, d, backend, rng):
    x, y, a, b, cost, scale = clouds(rng, 12, 17, d, p)
    epsilon = np.array([[0.05]])
    with orthokern.use_backend(backend):
        alpha, beta, stats = entropic_potentials_points(
            x, y, a, b, epsilon, scale, p=p, tol=1e-10, max_iter=MAX_ITER
        )
    expected, _ = solved(a, b, cost, 0.05, tol=1e-11)
    plan = plan_of(alpha, beta, cost, epsilon)
    np.testing.assert_allclose(plan, expected, atol=1e-8)
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert errors(plan, a, b) <= 1.1e-10
    np.testing.assert_allclose(stats[Stat.ERROR], errors(plan, a, b), atol=1e-12)


def test_points_at_small_epsilon_from_stage_to_stage(backend):
    rng = np.random.default_rng(5)
    x, y, a, b, cost, scale = clouds(rng, 25, 30, 2, 2.0)
    with orthokern.use_backend(backend):
        alpha, beta, stats = entropic_potentials_points(
            x, y, a, b, np.array([[3e-3]]), scale, p=2.0, tol=1e-8, max_iter=500
        )
    assert stats[Stat.STATUS] == OTStatus.CONVERGED
    assert errors(plan_of(alpha, beta, cost, 3e-3), a, b) <= 1.1e-8


def test_points_in_a_batch_and_without_mass(backend, rng):
    x, y, a, b, _, scale = clouds(rng, 8, 11, 2, 2.0, 3)
    a[1, 0], b[2, 5] = 0, 0
    a, b = (z / z.sum(-1, keepdims=True) for z in (a, b))
    epsilon = np.array([0.3, 0.02, 5.0])[:, None, None]
    options = {"p": 2.0, "tol": 1e-9, "max_iter": MAX_ITER}
    with orthokern.use_backend(backend):
        whole = entropic_potentials_points(x, y, a, b, epsilon, scale, **options)
        for i in range(3):
            alone = entropic_potentials_points(
                x[i], y[i], a[i], b[i], epsilon[i], scale[i], **options
            )
            for found, expected in zip(whole, alone, strict=True):
                np.testing.assert_allclose(found[i], expected, rtol=1e-12, atol=1e-12)
    assert np.all(whole[2][:, Stat.ERROR] <= 1e-9)
    assert whole[0][1, 0] == whole[1][2, 5] == 0


def test_blocks_of_rows_change_nothing(rng, monkeypatch):
    x, y, a, b, _, scale = clouds(rng, 30, 21, 3, 2.0)
    found = []
    for block in (2**21, 50):
        monkeypatch.setattr("orthokern.transport.clouds.BLOCK", block)
        with orthokern.use_backend("array-api"):
            found.append(
                entropic_potentials_points(
                    x, y, a, b, np.array([[0.1]]), scale, p=2.0, tol=None, max_iter=6
                )
            )
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)


def test_fixed_sweeps_from_points(place, dtype, rng):
    x, y, a, b, cost, scale = clouds(rng, 6, 9, 2, 2.0)
    given_ = [made(z, place.library, dtype) for z in (x, y, a, b, [[0.2]], scale)]
    with orthokern.use_backend(place.backend):
        alpha, beta, stats = entropic_potentials_points(*given_, p=2.0, tol=None, max_iter=6)
    expected = entropic_potentials(a, b, cost, np.array([[0.2]]), tol=None, max_iter=6)
    tolerance = 300 * eps_of(given_[0])
    for found, exact in zip((alpha, beta, stats), expected, strict=True):
        np.testing.assert_allclose(to_numpy(found), exact, atol=tolerance)


# Libraries: all of them to a tolerance, traced with a fixed number of sweeps


def test_every_library_reaches_the_tolerance(place, dtype, rng):
    if place.library == "dask":
        pytest.skip("Dask is refused")
    cost, a, b = problem(rng, 8, 6, 2)
    given_ = [made(x, place.library, dtype) for x in (a, b, cost, np.full((2, 1, 1), 0.05))]
    tol = 1e-9 if eps_of(given_[0]) < 1e-12 else 2e-5
    with orthokern.use_backend(place.backend):
        alpha, beta, stats = entropic_potentials(*given_, tol=tol, max_iter=200)
    plan = plan_of(to_numpy(alpha).astype(float), to_numpy(beta).astype(float), cost, 0.05)
    assert np.all(errors(plan, a, b) <= 2 * tol)
    assert np.all(to_numpy(stats)[:, Stat.STATUS] == OTStatus.CONVERGED)


def call(a, b, cost, epsilon):
    return entropic_potentials(a, b, cost, epsilon, tol=None, max_iter=5)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="JAX is not installed")
def test_jax_transforms(rng):
    import jax

    cost, a, b = (x.astype(np.float32) for x in problem(rng, 5, 4, 3))
    cost[0, 0, 0] = np.inf
    epsilon = np.full((3, 1, 1), 0.1, np.float32)
    expected = call(a, b, cost, epsilon)
    arrays = [jax.numpy.asarray(x) for x in (a, b, cost, epsilon)]
    for function in (jax.jit(call), jax.vmap(call)):
        for found, exact in zip(function(*arrays), expected, strict=True):
            np.testing.assert_allclose(found, exact, atol=1e-4)
    gradient = jax.grad(lambda *z: call(*z)[0].sum(), argnums=(0, 1, 2, 3))(*arrays)
    assert all(np.all(np.isfinite(x)) for x in gradient)
    assert gradient[2][0, 0, 0] == 0
    with pytest.raises(orthokern.UnsupportedError, match="pass tol=None and max_iter"):
        jax.jit(lambda *z: entropic_potentials(*z, tol=1e-4, max_iter=5))(*arrays)


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="Dask is not installed")
def test_dask_has_no_values_to_look_at(rng):
    cost, a, b = problem(rng, 5, 4)
    arrays = [made(x, "dask") for x in (a, b, cost, [[0.1]])]
    with pytest.raises(orthokern.UnsupportedError, match="pass tol=None and max_iter"):
        entropic_potentials(*arrays, tol=1e-4, max_iter=5)


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    """Derivatives of the sweeps that ran, by differences; compiled and mapped."""

    def test_derivatives(self, rng):
        import torch

        cost, a, b = problem(rng, 3, 4)
        arrays = tuple(torch.tensor(x, requires_grad=True) for x in (a, b, cost, np.array([[0.3]])))
        assert torch.autograd.gradcheck(lambda *z: call(*z)[:2], arrays, eps=1e-6, atol=1e-7)

    def test_derivatives_from_points(self, rng):
        import torch

        x, y, a, b, _, scale = clouds(rng, 3, 4, 2, 1.0)
        y[0] = x[0]
        arrays = [torch.tensor(z) for z in (x, y, a, b, np.array([[0.3]]), scale)]
        arrays[1].requires_grad_(True)
        alpha, _, _ = entropic_potentials_points(*arrays, p=1.0, tol=None, max_iter=3)
        alpha.sum().backward()
        assert bool(torch.all(torch.isfinite(arrays[1].grad)))

    def test_compiled_and_mapped(self, rng):
        import torch

        cost, a, b = problem(rng, 5, 4, 3)
        arrays = [torch.tensor(x) for x in (a, b, cost, np.full((3, 1, 1), 0.1))]
        expected = call(*arrays)
        for function in (torch.compile(call, fullgraph=True, backend="eager"), torch.vmap(call)):
            for found, exact in zip(function(*arrays), expected, strict=True):
                torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
