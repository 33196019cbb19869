"""Hypergradients and MAID: known answers, differences, the bound, robustness, problems that know less."""

from __future__ import annotations

import math

import numpy as np
import pytest

import orthokern
from orthokern import MaidStatus, RidgeProblem
from orthokern.inverse import Constants
from orthokern.testing import libraries

from .conftest import assert_near, made

ONE = np.ones((1, 1))


def one_dimensional(library="numpy", dtype="float64"):
    """The weight that makes 1 / (1 + w) a quarter."""
    parts = (ONE, np.ones(1), ONE, np.array([0.25]))
    return RidgeProblem(*(made(part, library, dtype) for part in parts))


def drawn(seed, n=100, d=120, groups=8, rows=60):
    """Sparse coefficients with noise; fewer rows than columns."""
    rng = np.random.default_rng(seed)
    a, c = rng.standard_normal((n, d)), rng.standard_normal((rows, d))
    x = rng.standard_normal(d) * (rng.random(d) < 0.3)
    b, e = (m @ x + 0.5 * rng.standard_normal(len(m)) for m in (a, c))
    return RidgeProblem(a, b, c, e, np.arange(d) * groups // d)


def theta_of(seed, groups=8):
    return np.random.default_rng(seed + 10_000).standard_normal(groups)


class Quartic:
    r"""``sum(x^4 / 4 + e^theta x^2 / 2 - b x)``: a Hessian that depends on x. Half the distance squared above.

    On \|x\| <= 2, where all iterates stay: L_H = 12, so that the inverse has 12 / mu^2.
    """

    b = np.array([1.0, -0.5, 2.0])
    # The minimizer at this theta.
    best = np.array([0.3, -0.2, 0.5])
    target = np.array(
        [np.roots([1, 0, np.exp(t), -b]).real[-1] for t, b in zip(best, b, strict=True)]
    )

    def __init__(self, known=True):
        self.known = known

    def start(self, theta):
        return np.zeros(3)

    def gradient(self, x, theta):
        return x**3 + np.exp(theta) * x - self.b

    def hessian_product(self, x, theta, v):
        return (3 * x**2 + np.exp(theta)) * v

    def cross_adjoint(self, x, theta, q):
        return np.exp(theta) * x * q

    def upper(self, x):
        return ((x - self.target) ** 2).sum() / 2

    def upper_gradient(self, x):
        return x - self.target

    def constants(self, x, theta):
        if not self.known:
            return Constants(None, None, None, None, None)
        w = np.exp(theta)
        return Constants(w.min(), 1.0, np.abs(w * x).max(), w.max(), 12.0 / w.min() ** 2)


# Gradients


@pytest.mark.parametrize("method", ["cg", "exact"])
def test_known_gradient(method, solving_library, dtype):
    problem = one_dimensional(solving_library, dtype)
    theta = made(np.zeros(1), solving_library, dtype)
    found = orthokern.hypergradient(problem, theta, method=method, eps=1e-6, delta=1e-6)
    assert_near(found.value, 0.03125, 4)
    assert_near(found.grad, [-0.0625], 8)
    assert_near(found.x, [0.5], 4)
    assert_near(found.q, [0.125], 8)
    assert type(found.grad) is type(theta)
    assert found.info.certified
    assert found.info.converged


def test_the_exact_gradient_is_central_differences():
    problem, theta, h = drawn(0), theta_of(0), 1e-4
    found = orthokern.hypergradient(problem, theta, method="exact")

    def value(t):
        return float(orthokern.hypergradient(problem, t, method="exact").value)

    steps = h * np.eye(8)
    exact = [
        (8 * (value(theta + s) - value(theta - s)) - value(theta + 2 * s) + value(theta - 2 * s))
        / (12 * h)
        for s in steps
    ]
    np.testing.assert_allclose(found.grad, exact, atol=1e-8 * np.abs(exact).max())
    assert found.error_bound < 1e-6
    assert found.info.lower_error < 1e-10


def test_the_bound_is_never_violated():
    """Fifty problems, each at accuracies from 1e-4 to 1; a factor of ten thousand would be of no use."""
    ratios = []
    for seed in range(50):
        problem, theta = drawn(seed, 40, 48, 6, 30), theta_of(seed, 6)
        eps, delta = 10.0 ** np.random.default_rng(seed).uniform(-4, 0, 2)
        exact = orthokern.hypergradient(problem, theta, method="exact")
        found = orthokern.hypergradient(problem, theta, eps=eps, delta=delta)
        assert found.info.lower_error <= eps
        assert found.info.adjoint_residual <= delta
        assert np.linalg.norm(found.x - exact.x) <= found.info.lower_error + exact.info.lower_error
        error = np.linalg.norm(found.grad - exact.grad)
        assert error <= found.error_bound
        ratios.append(found.error_bound / error)
    assert 1 < np.median(ratios) < 1e4


def test_wide_data_have_no_curvature_of_their_own():
    """The smallest singular value of a wide matrix bounds nothing."""
    problem, theta = drawn(1), theta_of(1)
    constants = problem.constants(np.ones(120), theta)
    assert constants.strong_convexity == pytest.approx(np.exp(theta).min(), rel=1e-12)
    tall = drawn(1, n=150)
    least = np.linalg.eigvalsh(tall.a.T @ tall.a)[0]
    found = tall.constants(np.ones(120), theta).strong_convexity - np.exp(theta).min()
    assert least * (1 - 1e-6) < found <= least * (1 + 1e-12)


def test_the_constants_of_the_ridge_problem(rng):
    """The mixed derivative by its columns."""
    problem, theta, x = drawn(2), theta_of(2), rng.standard_normal(120)
    columns = np.stack([problem.cross_adjoint(x, theta, v) for v in np.eye(120)])
    constants = problem.constants(x, theta)
    assert constants.cross_norm == pytest.approx(np.linalg.norm(columns, 2), rel=1e-12)
    assert constants.upper_smoothness == pytest.approx(np.linalg.norm(problem.c, 2) ** 2, rel=1e-10)
    assert constants.cross_smoothness == pytest.approx(np.exp(theta).max(), rel=1e-12)


def test_a_hessian_that_moves():
    """Newton's method below; the bound has the terms of the inverse Hessian's change."""
    problem = Quartic()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        theta = rng.uniform(-0.5, 1, 3)
        exact = orthokern.hypergradient(problem, theta, method="exact")
        assert np.abs(problem.gradient(exact.x, theta)).max() < 1e-14
        for eps in (0.3, 1e-2, 1e-5):
            found = orthokern.hypergradient(problem, theta, eps=eps, delta=eps)
            assert np.linalg.norm(found.x - exact.x) <= found.info.lower_error <= eps
            assert np.linalg.norm(found.grad - exact.grad) <= found.error_bound
    h = 1e-5
    for i in range(3):
        ahead, behind = (
            orthokern.hypergradient(problem, theta + s * h * np.eye(3)[i], method="exact").value
            for s in (1, -1)
        )
        assert exact.grad[i] == pytest.approx((ahead - behind) / (2 * h), abs=1e-9)


class Flat:
    """``log cosh(x - 5)`` and a little curvature: a full Newton step from zero jumps far beyond the minimum."""

    def start(self, theta):
        return np.zeros(1)

    def gradient(self, x, theta):
        return np.tanh(x - 5) + np.exp(theta) * x

    def hessian_product(self, x, theta, v):
        return (1 / np.cosh(x - 5) ** 2 + np.exp(theta)) * v

    def cross_adjoint(self, x, theta, q):
        return np.exp(theta) * x * q

    def upper(self, x):
        return (x**2).sum() / 2

    def upper_gradient(self, x):
        return x

    def constants(self, x, theta):
        w = float(np.exp(theta)[0])
        return Constants(w, 1.0, float(np.abs(w * x).max()), w, 1.0 / w**2)


@pytest.mark.parametrize("method", ["cg", "exact"])
def test_newton_steps_are_halved_where_they_jump(method):
    theta = np.log([0.02])
    found = orthokern.hypergradient(Flat(), theta, method=method, eps=1e-9, delta=1e-9)
    assert found.info.lower_error < 1e-9
    assert np.abs(Flat().gradient(found.x, theta)).max() < 1e-10
    assert 0 < found.x[0] < 5


def test_all_terms_of_the_bound():
    """By hand, for one dimension: B = 10 x, H^-1 = 10 x + 1, g = x^2 / 2 at x = 1, where the minimizer is 2."""
    true = abs(10 * 1 * 11 * 1 - 10 * 2 * 21 * 2)
    # 1 / mu is the largest |H^-1|, 21 at the minimizer.
    found = module_bound(Constants(1 / 21, 1.0, 10.0, 10.0, 10.0), 1.0, 0.0, 1.0, 11.0)
    assert true <= found == pytest.approx(10 * (21 + 10) + 10 * (11 + 21 + 10))
    parts = module_bound(Constants(2.0, 3.0, 5.0, 7.0, 11.0), 0.1, 0.01, 13.0, 17.0)
    moved = (3 / 2 + 11 * 13) * 0.1
    assert parts == pytest.approx(5 * (0.01 / 2 + moved) + 7 * 0.1 * (17 + 0.01 / 2 + moved))


def module_bound(*arguments):
    from orthokern.inverse.hypergradient import _error_bound

    return _error_bound(*arguments)


def test_starting_near_saves_steps():
    problem, theta = drawn(3), theta_of(3)
    first = orthokern.hypergradient(problem, theta, eps=1e-8, delta=1e-8)
    again = orthokern.hypergradient(
        problem, theta + 1e-12, x0=first.x, q0=first.q, eps=1e-7, delta=1e-7
    )
    assert first.info.lower_steps > 20
    assert again.info.lower_steps + again.info.adjoint_steps == 0


def test_a_problem_that_knows_nothing_is_not_certified():
    theta = np.array([0.2, -0.3, 0.1])
    known = orthokern.hypergradient(Quartic(), theta, eps=1e-6, delta=1e-6)
    found = orthokern.hypergradient(Quartic(known=False), theta, eps=1e-6, delta=1e-6)
    assert known.info.certified
    assert not found.info.certified
    np.testing.assert_allclose(found.grad, known.grad, atol=1e-5)
    error = np.linalg.norm(
        found.grad - orthokern.hypergradient(Quartic(), theta, method="exact").grad
    )
    assert error <= found.error_bound < 1e-2


# Descent


@pytest.mark.parametrize("library", [n for n in libraries.available() if n != "dask"])
def test_the_known_minimum(library):
    problem = one_dimensional(library)
    theta = made(np.zeros(1), library)
    single = "float32" in str(theta.dtype)
    found = orthokern.maid(problem, theta, tol=1e-4 if single else 1e-8)
    assert found.info.converged
    assert found.info.status == MaidStatus.STATIONARY
    assert abs(float(found.theta[0]) - math.log(3)) < (3e-3 if single else 3e-7)
    assert type(found.theta) is type(theta)
    assert single or 25 <= found.info.iterations <= 40


def test_values_only_fall_and_the_gradient_vanishes():
    problem = drawn(4, 40, 10, 2, 40)
    found = orthokern.maid(problem, np.zeros(2), tol=1e-4)
    assert found.info.converged
    assert np.all(np.diff(found.values) < 0)
    assert len(found.values) == found.info.iterations + 1
    exact = orthokern.hypergradient(problem, found.theta, method="exact")
    assert np.linalg.norm(exact.grad) <= found.info.residual <= 1e-4
    # No point nearby is lower.
    rng = np.random.default_rng(0)
    for _ in range(10):
        near_by = found.theta + 0.3 * rng.standard_normal(2)
        assert orthokern.hypergradient(problem, near_by, method="exact").value > exact.value


def test_the_result_does_not_depend_on_the_first_accuracy():
    problem = drawn(0, 60, 40, 3, 60)
    values, costs = [], []
    for accuracy in (0.1, 1e-2, 1e-4):
        found = orthokern.maid(
            problem, np.zeros(3), eps0=accuracy, delta0=accuracy, max_iter=100, tol=1e-9
        )
        assert found.info.status == MaidStatus.MAX_ITER
        assert found.info.iterations == 100
        values.append(float(found.value))
        costs.append(found.info.lower_steps + found.info.adjoint_steps)
    assert max(values) - min(values) < 1e-4 * values[0]
    assert max(costs) < 1.5 * min(costs)


def test_where_rounding_ends_it():
    """A gradient that cannot be told from zero: the status says why it stopped."""
    found = orthokern.maid(one_dimensional(), np.zeros(1), tol=1e-300)
    assert found.info.status == MaidStatus.PRECISION
    assert not found.info.converged
    assert found.info.residual < 1e-12


def test_a_hessian_that_moves_below_a_descent():
    found = orthokern.maid(Quartic(), np.zeros(3), tol=1e-6)
    assert found.info.converged
    np.testing.assert_allclose(found.theta, Quartic.best, atol=1e-3)
    assert found.info.certified
    assert np.all(np.diff(found.values) < 0)


def test_no_steps_leave_the_start():
    found = orthokern.maid(one_dimensional(), np.zeros(1), max_iter=0)
    assert found.info.status == MaidStatus.MAX_ITER
    assert found.theta.tolist() == [0.0]


# Refusals

REFUSED = [
    ({"a": np.ones(3)}, orthokern.ShapeError, r"a matrix a \(n, d\)"),
    ({"b": np.ones(4)}, orthokern.ShapeError, r"a vector b \(n,\)"),
    ({"c": np.ones((3, 3))}, orthokern.ShapeError, "as many columns"),
    ({"a": np.ones((3, 2), dtype=complex)}, orthokern.DTypeError, "real"),
    ({"groups": [0, 2]}, orthokern.ValuesError, "without a gap"),
    ({"groups": [0]}, orthokern.ValuesError, "expected 2 groups"),
]


@pytest.mark.parametrize(("change", "kind", "words"), REFUSED)
def test_refused_problems(change, kind, words):
    parts = {"a": np.ones((3, 2)), "b": np.ones(3), "c": np.ones((3, 2)), "e": np.ones(3)}
    with pytest.raises(kind, match=words):
        RidgeProblem(**(parts | change))


CALLS = [
    (orthokern.hypergradient, {"eps": 0.0}, "> 0"),
    (orthokern.hypergradient, {"delta": -1.0}, "> 0"),
    (orthokern.hypergradient, {"method": "qr"}, "'exact'"),
    (orthokern.maid, {"eta": 1.0}, "0 < eta < 1"),
    (orthokern.maid, {"decrease": 0.0}, "0 < decrease < 1"),
    (orthokern.maid, {"step0": 0.0}, "> 0"),
    (orthokern.maid, {"max_iter": -1}, ">= 0"),
]


@pytest.mark.parametrize(("call", "options", "words"), CALLS)
def test_refused_options(call, options, words):
    with pytest.raises(orthokern.OptionError, match=words):
        call(one_dimensional(), np.zeros(1), **options)


@pytest.mark.parametrize("call", [orthokern.hypergradient, orthokern.maid])
def test_refused_thetas(call):
    with pytest.raises(orthokern.ShapeError, match="vector theta"):
        call(one_dimensional(), np.zeros((1, 1)))
    with pytest.raises(orthokern.DTypeError, match="floating"):
        call(one_dimensional(), np.zeros(1, dtype=int))


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
def test_traced_thetas_are_refused():
    import jax

    problem = one_dimensional("jax")
    with pytest.raises(orthokern.UnsupportedError, match="outside jit"):
        jax.jit(lambda t: orthokern.hypergradient(problem, t).grad)(jax.numpy.zeros(1))
