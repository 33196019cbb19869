"""Derivatives of solved problems under torch and JAX by differences; the modes that can be traced."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern import (
    Entropy,
    SparsityConstrained,
    SquaredL2,
    Unregularized,
    UnsupportedError,
    sinkhorn,
    solve_ot,
)
from orthokern.testing import libraries

from .oracles import clouds

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated"),
]

torch_only = pytest.mark.skipif(libraries.missing("torch") is not None, reason="no torch")
jax_only = pytest.mark.skipif(libraries.missing("jax") is not None, reason="no JAX")

M, N = 6, 5
A, B, COST = clouds(np.random.default_rng(4), M, N)
W = np.random.default_rng(5).standard_normal((M, N))
KINDS = {
    "squares": SquaredL2,
    "entropy": Entropy,
    "three entries": lambda gamma: SparsityConstrained(3, gamma),
    "linear": lambda gamma: Unregularized(),
}
SMOOTH = ("squares", "entropy")
STEP = 1e-5


def solved(name, arrays, **options):
    """The solution with the masses scaled to 1, so that every direction keeps them equal."""
    a, b, cost, strength = arrays
    options = {"tol": 1e-13, "warn": False} | options
    return solve_ot(a / a.sum(), b / b.sum(), cost, regularizer=KINDS[name](strength), **options)


def value(name, **options):
    return lambda *arrays: solved(name, arrays, **options).value


def weighed_plan(name, weights, **options):
    return lambda *arrays: (weights * solved(name, arrays, **options).plan).sum()


def difference(function, arrays, directions):
    """By five points."""

    def at(k):
        moved = [x + k * STEP * d for x, d in zip(arrays, directions, strict=True)]
        return float(function(*moved))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * STEP)


@pytest.fixture(params=["whole", "with gaps"])
def arrays(request):
    """A problem, and the same with bins without mass and a pair that is forbidden."""
    a, b, cost = A.copy(), B.copy(), COST.copy()
    if request.param == "with gaps":
        a[0], b[1], cost[2, 3] = 0.0, 0.0, np.inf
    return [a, b, cost, np.asarray(0.3)]


@pytest.fixture
def directions(rng, arrays):
    """None into what is zero or infinite."""
    return [
        np.where((x > 0) & np.isfinite(x), 0.1 * rng.standard_normal(x.shape), 0.0) for x in arrays
    ]


def assert_close(found, wanted):
    assert abs(float(found) - wanted) < 1e-7 * max(1.0, abs(wanted))


@torch_only
class TestTorch:
    @pytest.mark.parametrize("name", KINDS)
    def test_gradient_of_the_value(self, name, arrays, directions):
        import torch

        given = [torch.tensor(x, requires_grad=True) for x in arrays]
        gradient = torch.autograd.grad(value(name)(*given), given, allow_unused=True)
        assert all(g.dtype == torch.float64 for g in gradient if g is not None)
        slopes = [
            float((g * torch.tensor(d)).sum())
            for g, d in zip(gradient, directions, strict=True)
            if g is not None
        ]
        assert_close(sum(slopes), difference(value(name), arrays, directions))

    @pytest.mark.parametrize("name", SMOOTH)
    def test_gradient_of_the_plan(self, name, arrays, directions):
        import torch

        given = [torch.tensor(x, requires_grad=True) for x in arrays]
        loss = weighed_plan(name, torch.tensor(W))(*given)
        gradient = torch.autograd.grad(loss, given)
        slope = sum(
            float((g * torch.tensor(d)).sum()) for g, d in zip(gradient, directions, strict=True)
        )
        assert_close(slope, difference(weighed_plan(name, W), arrays, directions))

    @pytest.mark.parametrize("name", SMOOTH)
    def test_second_order_of_the_value(self, name, arrays, directions):
        import torch

        def slope(*xs):
            given = [torch.tensor(x, requires_grad=True) for x in xs]
            found = torch.autograd.grad(value(name)(*given), given, create_graph=True)
            return given, sum(
                (g * torch.tensor(d)).sum() for g, d in zip(found, directions, strict=True)
            )

        given, first = slope(*arrays)
        bent = torch.autograd.grad(first, given)
        found = sum(
            float((g * torch.tensor(d)).sum()) for g, d in zip(bent, directions, strict=True)
        )
        wanted = difference(lambda *xs: slope(*xs)[1].detach(), arrays, directions)
        assert abs(found - wanted) < 1e-5 * max(1.0, abs(wanted))

    @pytest.mark.parametrize("name", SMOOTH)
    def test_fixed_steps_compile(self, name, arrays):
        import torch

        given = [torch.tensor(x) for x in arrays]
        run = value(name, tol=None, max_iter=8)
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*given), run(*given), rtol=1e-12, atol=1e-13)

    def test_plans_of_a_linear_program_are_constants(self, arrays):
        import torch

        given = [torch.tensor(x, requires_grad=True) for x in arrays]
        assert not solved("linear", given).plan.requires_grad


@jax_only
class TestJax:
    @pytest.mark.parametrize("name", KINDS)
    def test_gradient_of_the_value(self, name, arrays, directions):
        import jax

        given = [jax.numpy.asarray(x) for x in arrays]
        if given[0].dtype != np.float64:
            return
        gradient = jax.grad(value(name), argnums=(0, 1, 2, 3))(*given)
        slope = sum(float((g * d).sum()) for g, d in zip(gradient, directions, strict=True))
        assert_close(slope, difference(value(name), arrays, directions))

    @pytest.mark.parametrize("name", SMOOTH)
    def test_both_modes_for_the_plan(self, name, arrays, directions):
        import jax

        given = [jax.numpy.asarray(x) for x in arrays]
        if given[0].dtype != np.float64:
            return
        run = weighed_plan(name, W)
        wanted = difference(run, arrays, directions)
        gradient = jax.grad(run, argnums=(0, 1, 2, 3))(*given)
        assert_close(
            sum(float((g * d).sum()) for g, d in zip(gradient, directions, strict=True)), wanted
        )
        _, tangent = jax.jvp(run, given, [jax.numpy.asarray(d) for d in directions])
        assert_close(tangent, wanted)

    @pytest.mark.parametrize("name", SMOOTH)
    def test_fixed_steps_under_jit_grad_and_vmap(self, name, arrays):
        import jax

        given = [jax.numpy.asarray(x) for x in arrays]
        run = value(name, tol=None, max_iter=8)
        tolerance = 1e-12 if given[0].dtype == np.float64 else 1e-4
        np.testing.assert_allclose(jax.jit(run)(*given), run(*given), atol=tolerance)
        gradients = [f(*given) for f in (jax.grad(run, 2), jax.jit(jax.grad(run, 2)))]
        np.testing.assert_allclose(*gradients, atol=10 * tolerance)
        stacked = [jax.numpy.stack([x, x]) for x in given]
        np.testing.assert_allclose(jax.vmap(run)(*stacked)[1], run(*given), atol=tolerance)

    @pytest.mark.parametrize("name", ["squares", "entropy", "linear"])
    def test_a_tolerance_cannot_be_traced(self, name, arrays):
        import jax

        given = [jax.numpy.asarray(x) for x in arrays]
        with pytest.raises(UnsupportedError, match="tol"):
            jax.jit(value(name))(*given)


@pytest.mark.parametrize("name", SMOOTH)
def test_many_fixed_steps_solve_the_problem(name, arrays):
    exact = solved(name, arrays)
    fixed = solved(name, arrays, tol=None, max_iter=3000)
    np.testing.assert_allclose(fixed.plan, exact.plan, atol=1e-7)
    assert fixed.info.converged


def test_fixed_steps_are_counted(arrays):
    a, b, cost, _ = arrays
    a, b = a / a.sum(), b / b.sum()
    assert sinkhorn(a, b, cost, epsilon=0.5, tol=None, max_iter=7, warn=False).info.iterations == 7
    fixed = solve_ot(a, b, cost, regularizer=SquaredL2(1.0), tol=None, max_iter=9, warn=False)
    assert fixed.info.iterations == 9
