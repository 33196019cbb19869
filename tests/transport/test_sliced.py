"""Wasserstein distances on the line and sliced: known answers, other ways to compute them, and what must hold."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern._core.dtypes import EPS, dtype_name
from orthokern.testing import libraries
from orthokern.transport.cases.sliced import walked
from orthokern.transport.sliced import directions

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
X, Y = np.array([0.0, 2.0]), np.array([1.0, 3.0, 4.0])
A, B = np.array([0.25, 0.75]), np.array([0.5, 0.25, 0.25])


def made(array, library, dtype="float64"):
    array = np.asarray(array)
    return libraries.to_library(array.astype(libraries.dtype_for(array, dtype)), library)


def assert_near(found, expected, units, scale=1.0):
    """Within ``units`` eps of the dtype that was computed in."""
    error = np.abs(libraries.to_numpy(found) - expected)
    assert np.all(error <= units * EPS[dtype_name(found)] * scale), np.max(error)


# Known answers


@pytest.mark.parametrize(("p", "expected"), [(1, 5.0), (2, 5.0), (3, 5.0)])
def test_equal_sizes(library, dtype, p, expected):
    x, y = made([3.0, 0.0, 1.0], library, dtype), made([6.0, 8.0, 5.0], library, dtype)
    assert_near(orthokern.wasserstein_1d(x, y, p=p), expected, 8, 5)


@pytest.mark.parametrize(
    ("p", "root", "expected"), [(1, True, 1.25), (2, False, 1.75), (2, True, 1.75**0.5)]
)
def test_weights(library, dtype, p, root, expected):
    if library == "dask":
        pytest.skip("Dask cannot gather")
    arrays = [made(part, library, dtype) for part in (X, Y, A, B)]
    assert_near(orthokern.wasserstein_1d(*arrays, p=p, root=root), expected, 8, 2)


def test_unequal_sizes(library, dtype, rng):
    """Points without weights are points with equal ones, also where the quantiles meet."""
    for n, m in [(1, 4), (6, 4), (9, 3), (5, 7)]:
        x, y = rng.standard_normal((3, n)), rng.standard_normal((3, m))
        times = np.lcm(n, m)
        spread = [np.repeat(np.sort(part), times // part.shape[-1], -1) for part in (x, y)]
        exact = np.mean(np.abs(spread[0] - spread[1]) ** 1.5, -1) ** (1 / 1.5)
        found = orthokern.wasserstein_1d(made(x, library, dtype), made(y, library, dtype), p=1.5)
        assert_near(found, exact, 20, 3)


def test_scipy_agrees(rng):
    from scipy.stats import wasserstein_distance

    x, y, a, b = rng.standard_normal(30), rng.standard_normal(21), rng.random(30), rng.random(21)
    a, b = a / a.sum(), b / b.sum()
    assert_near(orthokern.wasserstein_1d(x, y, a, b), wasserstein_distance(x, y, a, b), 40)
    assert_near(orthokern.wasserstein_1d(x, y), wasserstein_distance(x, y), 40)


def test_zero_weights_and_masses():
    zero = np.array([0.0, 1.0, 0.0])
    assert (
        orthokern.wasserstein_1d(np.array([9.0, 2.0, -9.0]), np.array([5.0]), zero, np.ones(1)) == 3
    )
    assert orthokern.wasserstein_1d(X, X, 0 * A, 0 * A) == 0
    assert_near(orthokern.wasserstein_1d(X, Y, 3 * A, 3 * B), 3.75, 8)


# What must hold


@st.composite
def problems(draw):
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, y = (
        np.round(rng.standard_normal(size) * 4) / draw(st.sampled_from([1, 3])) for size in (n, m)
    )
    a, b = (rng.integers(0, 4, size) + 1e-3 * rng.random(size) for size in (n, m))
    return x, y, a / a.sum(), b / b.sum(), draw(st.sampled_from([1.0, 1.5, 2.0, 3.0]))


@given(problem=problems())
@BOUNDED
def test_the_plan_that_keeps_the_order(problem):
    x, y, a, b, p = problem
    cost = orthokern.wasserstein_1d(x, y, a, b, p=p, root=False)
    assert_near(cost, walked(x, y, a, b, p), 300, 10**p)
    assert_near(orthokern.wasserstein_1d(y, x, b, a, p=p, root=False), cost, 300, 10**p)
    assert_near(orthokern.wasserstein_1d(x + 1, y + 1, a, b, p=p, root=False), cost, 300, 10**p)
    assert orthokern.wasserstein_1d(x, x, a, a, p=p) <= 1e-5


def test_batches_broadcast_and_keep_to_themselves(library, rng):
    if library == "dask":
        pytest.skip("Dask cannot gather")
    x, y = rng.standard_normal((4, 1, 6)), rng.standard_normal((3, 5))
    b = rng.random((3, 5)) + 0.1
    b /= b.sum(-1, keepdims=True)
    uniform = np.full(6, 1 / 6)
    found = orthokern.wasserstein_1d(*(made(part, library) for part in (x, y, uniform, b)), p=2)
    assert tuple(found.shape) == (4, 3)
    for i, j in np.ndindex(4, 3):
        assert_near(found[i, j], orthokern.wasserstein_1d(x[i, 0], y[j], uniform, b[j], p=2), 20)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_members_that_are_not_finite(library, rng, bad):
    x, y = rng.standard_normal((3, 6, 2)), rng.standard_normal((3, 6, 2))
    clean = orthokern.sliced_wasserstein(x, y)
    x[1, 2, 0] = bad
    found = orthokern.sliced_wasserstein(made(x, library), made(y, library))
    assert_near(found[0], clean[0], 30)
    assert_near(found[2], clean[2], 30)
    assert not np.isfinite(libraries.to_numpy(found)[1])


def test_low_precision():
    x, y = (part.astype(np.float16) for part in (X, Y))
    for found in (
        orthokern.wasserstein_1d(x, y),
        orthokern.sliced_wasserstein(x[:, None], y[:, None]),
    ):
        assert found.dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_empty_batches(shape):
    assert orthokern.wasserstein_1d(np.ones(shape), np.ones(3)).shape == shape[:-1]
    assert orthokern.sliced_wasserstein(np.ones((*shape, 2)), np.ones((3, 2))).shape == shape[:-1]


# Sliced


def test_directions_are_the_same_everywhere(library, dtype):
    like = made(np.zeros((2, 5)), library, dtype)
    theta = directions(7, 5, like=like, seed=11)
    expected = directions(7, 5, like=np.zeros((2, 5)), seed=11)
    assert dtype_name(theta) == dtype_name(like)
    assert_near(theta, expected, 8)
    assert_near(np.linalg.norm(expected, axis=-1), 1.0, 4)


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("reduce", ["mean", "energy"])
def test_sliced_is_a_mean_of_lines(library, dtype, rng, p, reduce):
    x, y = rng.standard_normal((9, 3)), 1 + rng.standard_normal((6, 3))
    theta = directions(13, 3, like=x, seed=4)
    costs = orthokern.wasserstein_1d(theta @ x.T, theta @ y.T, p=p, root=False)
    shares = np.exp(costs) / np.exp(costs).sum() if reduce == "energy" else np.full(13, 1 / 13)
    found = orthokern.sliced_wasserstein(
        made(x, library, dtype),
        made(y, library, dtype),
        n_projections=13,
        seed=4,
        p=p,
        reduce=reduce,
    )
    assert_near(found, np.sum(shares * costs) ** (1 / p), 60, 2)


def test_given_projections(rng):
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 3))
    axis = np.array([[0.0, 2.0, 0.0]])
    found = orthokern.sliced_wasserstein(x, y, projections=axis)
    assert_near(found, 2 * orthokern.wasserstein_1d(x[:, 1], y[:, 1], p=2), 10)


def test_a_shift_is_found(rng):
    """The mean square of a coordinate of a unit vector is 1 / d."""
    x = rng.standard_normal((50, 4))
    found = orthokern.sliced_wasserstein(x, x + np.array([2.0, 0, 0, 0]), n_projections=20000)
    assert abs(found - 1.0) < 0.01


def test_no_coordinates():
    assert orthokern.sliced_wasserstein(np.ones((4, 0)), np.ones((3, 0))) == 0


# Derivatives


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    @pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
    @pytest.mark.parametrize("m", [4, 6])
    def test_line(self, rng, p, m):
        import torch

        x, y = (torch.tensor(rng.standard_normal((2, k)), requires_grad=True) for k in (4, m))
        function = functools.partial(orthokern.wasserstein_1d, p=p)
        assert torch.autograd.gradcheck(function, (x, y))
        assert torch.autograd.gradgradcheck(function, (x, y), fast_mode=True)

    def test_weights(self, rng):
        import torch

        x, y, u, v = (
            torch.tensor(rng.standard_normal(k), requires_grad=True) for k in (4, 6, 4, 6)
        )

        def function(x, y, u, v):
            return orthokern.wasserstein_1d(x, y, torch.softmax(u, 0), torch.softmax(v, 0), p=2)

        assert torch.autograd.gradcheck(function, (x, y, u, v))

    @pytest.mark.parametrize("reduce", ["mean", "energy"])
    def test_sliced(self, rng, reduce):
        import torch

        x, y = (torch.tensor(rng.standard_normal((k, 3)), requires_grad=True) for k in (5, 7))
        function = functools.partial(orthokern.sliced_wasserstein, n_projections=5, reduce=reduce)
        assert torch.autograd.gradcheck(function, (x, y))
        assert torch.autograd.gradgradcheck(function, (x, y), fast_mode=True)

    def test_at_distance_zero(self, rng):
        import torch

        x = torch.tensor(rng.standard_normal((5, 3)), requires_grad=True)
        orthokern.sliced_wasserstein(x, x.detach().clone()).backward()
        assert not bool(x.grad.any())

    @pytest.mark.parametrize("dynamic", [None, True], ids=["by size", "any size"])
    def test_compiled(self, rng, dynamic):
        import torch

        x, y = (torch.tensor(rng.standard_normal((k, 3))) for k in (6, 9))
        options = {"fullgraph": True, "backend": "aot_eager", "dynamic": dynamic}
        compiled = torch.compile(orthokern.sliced_wasserstein, **options)
        assert_near(compiled(x, y), float(orthokern.sliced_wasserstein(x, y)), 20)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
def test_jax_traces_and_differentiates(rng):
    import jax

    x, y = (jax.numpy.asarray(rng.standard_normal((k, 3))) for k in (5, 7))
    eager = orthokern.sliced_wasserstein(x, y)
    assert_near(jax.jit(orthokern.sliced_wasserstein)(x, y), float(eager), 20)
    slope = jax.jit(jax.grad(orthokern.sliced_wasserstein))(x, y)
    d = rng.standard_normal((5, 3))
    step = 1e-5
    ends = [
        orthokern.sliced_wasserstein(np.asarray(x, float) + t * d, np.asarray(y, float))
        for t in (step, -step)
    ]
    assert abs(np.sum(np.asarray(slope) * d) - (ends[0] - ends[1]) / (2 * step)) < 1e-4
    weighted = jax.jit(orthokern.wasserstein_1d)(
        *(jax.numpy.asarray(part) for part in (X, Y, A, B))
    )
    assert_near(weighted, 1.25, 8)


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthokern.wasserstein_1d(X, Y, p=0.5), "expected p to be a finite number >= 1"),
        (lambda: orthokern.wasserstein_1d(X, Y, root=1), "expected root to be True or False"),
        (lambda: orthokern.wasserstein_1d(X[:0], Y), "expected at least one point"),
        (lambda: orthokern.wasserstein_1d(X, Y, A[:1]), "expected a weight in a for each of 2 points"),
        (lambda: orthokern.wasserstein_1d(X, Y, -A, B), "expected every entry of a to be finite and >= 0"),
        (lambda: orthokern.wasserstein_1d(X, Y, A, B * np.nan), "expected every entry of b to be finite"),
        (lambda: orthokern.wasserstein_1d(X, Y, 2 * A), "expected weights a and b of equal mass"),
        (lambda: orthokern.wasserstein_1d(np.ones((2, 3)), np.ones((3, 3))), "expected batch shapes"),
        (lambda: orthokern.sliced_wasserstein(X, Y), "got shape"),
        (lambda: orthokern.sliced_wasserstein(np.ones((2, 3)), np.ones((2, 4))), "of one dimension d, got 3 and 4"),
        (lambda: orthokern.sliced_wasserstein(np.ones((0, 3)), np.ones((2, 3))), "at least one point"),
        (lambda: orthokern.sliced_wasserstein(np.ones((2, 3)), np.ones((2, 3)), reduce="max"), "'mean', 'energy'"),
        (lambda: orthokern.sliced_wasserstein(np.ones((2, 3)), np.ones((2, 3)), n_projections=0), "n_projections"),
        (lambda: orthokern.sliced_wasserstein(np.ones((2, 3)), np.ones((2, 3)), seed=-1), "seed"),
        (
            lambda: orthokern.sliced_wasserstein(np.ones((2, 3)), np.ones((2, 3)), projections=np.ones((3, 2))),
            r"expected projections \(L, 3\)",
        ),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dtypes_that_are_refused():
    for bad, message in (
        (np.ones(3, int), "cast to a floating dtype first"),
        (np.ones(3) * 1j, "real dtype"),
    ):
        for call in (
            lambda bad=bad: orthokern.wasserstein_1d(bad, Y),
            lambda bad=bad: orthokern.wasserstein_1d(Y, Y, bad, B),
            lambda bad=bad: orthokern.sliced_wasserstein(bad[:, None], Y[:, None]),
        ):
            with pytest.raises(TypeError, match=message):
                call()


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="dask is not installed")
def test_dask_says_what_it_cannot():
    arrays = [made(part, "dask") for part in (X, Y, A, B)]
    with pytest.raises(NotImplementedError, match="map the kernel over the blocks"):
        orthokern.wasserstein_1d(*arrays)
