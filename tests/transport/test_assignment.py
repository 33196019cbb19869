"""Linear assignment: known answers, all permutations, SciPy, potentials as a proof, refusals."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from .conftest import PLACES, eps_of, made

INF, NAN = np.inf, np.nan
BOUNDED = settings(derandomize=True, max_examples=80, deadline=None, database=None)
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)
every_place = pytest.mark.parametrize(
    "place", [place for place in PLACES if place.library != "dask"], ids=str
)
seeds = st.integers(0, 2**32 - 1)


def numbers(result):
    """A result as NumPy arrays."""
    rows, columns, value, alpha, beta, info = result
    whole = (to_numpy(x).astype(int) for x in (rows, columns))
    pair_info = type(info)(to_numpy(info.gap), to_numpy(info.converged) > 0)
    return type(result)(*whole, *map(to_numpy, (value, alpha, beta)), pair_info)


def solved(cost, **options):
    return numbers(orthokern.linear_assignment(cost, **options))


def drawn(rng, kind):
    m, n = rng.integers(1, 9, 2)
    cost = rng.standard_normal((m, n))
    if kind == "ties":
        cost = rng.integers(-2, 3, (m, n)).astype(float)
    elif kind == "forbidden":
        cost[rng.random((m, n)) < 0.3] = INF
    elif kind == "graded":
        cost *= 10.0 ** rng.integers(-6, 6, (m, 1))
    return cost


kinds = st.sampled_from(["normal", "ties", "forbidden", "graded"])


def proved(cost, found, tol=1e-13):
    """The pairs are distinct, their cost is the value, and no pairing can cost less than the potentials say."""
    m, n = cost.shape
    rows, columns, value, alpha, beta, info = found
    scale = np.max(np.abs(cost), where=np.isfinite(cost), initial=0)
    assert rows.shape == columns.shape == (min(m, n),)
    assert np.all(np.diff(rows) > 0)
    assert len(set(columns.tolist())) == len(columns)
    np.testing.assert_allclose(cost[rows, columns].sum(), value, rtol=0, atol=tol * scale)
    assert (alpha[:, None] + beta - cost).max() <= tol * scale
    for side, used, other in ((alpha, rows, n), (beta, columns, m)):
        if len(side) > other:
            assert side.max() <= 0
            assert not np.delete(side, used).any()
    assert abs(value - alpha.sum() - beta.sum()) <= tol * scale
    assert abs(info.gap) <= tol * scale
    assert info.converged


# Known answers

KNOWN = [
    ([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]], [1, 0, 2], 5.0),
    ([[1.0, 2.0], [3.0, 5.0]], [1, 0], 5.0),
    ([[5.0, 9.0, 1.0], [10.0, 3.0, 2.0]], [2, 1], 4.0),
    ([[7.0]], [0], 7.0),
    ([[-1.0, INF], [-5.0, -2.0]], [0, 1], -3.0),
    ([[3.0, -2.0, 0.5]], [1], -2.0),
]


@every_place
@pytest.mark.parametrize(("cost", "columns", "value"), KNOWN)
def test_known_pairings(place, dtype, cost, columns, value):
    x = made(cost, place.library, dtype)
    result = orthokern.linear_assignment(x, backend=place.backend)
    assert result.value.dtype == result.alpha.dtype == result.beta.dtype == x.dtype
    found = numbers(result)
    assert found.rows.tolist() == list(range(len(cost)))
    assert found.columns.tolist() == columns
    assert float(found.value) == value
    proved(np.array(cost), found, tol=8 * eps_of(x))


@every_place
def test_the_longer_side_may_be_the_rows(place):
    cost = np.array([[5.0, 10.0], [9.0, 3.0], [1.0, 2.0]])
    found = numbers(orthokern.linear_assignment(made(cost, place.library), backend=place.backend))
    assert found.rows.tolist() == [1, 2]
    assert found.columns.tolist() == [1, 0]
    assert float(found.value) == 4
    proved(cost, found, tol=1e-6)


@every_backend
@given(seed=seeds, n=st.integers(1, 5), extra=st.integers(0, 2))
@BOUNDED
def test_no_permutation_is_cheaper(seed, n, extra, backend):
    cost = np.random.default_rng(seed).standard_normal((n, n + extra))
    best = min(cost[np.arange(n), p].sum() for p in map(list, permutations(range(n + extra), n)))
    np.testing.assert_allclose(solved(cost, backend=backend).value, best, rtol=1e-13, atol=1e-14)


@every_backend
@given(seed=seeds, kind=kinds, maximize=st.booleans())
@BOUNDED
def test_scipy_finds_nothing_better(seed, kind, maximize, backend):
    cost = drawn(np.random.default_rng(seed), kind)
    given = -cost if maximize else cost
    found = solved(given, maximize=maximize, backend=backend)
    try:
        rows, columns = linear_sum_assignment(given, maximize=maximize)
    except ValueError:
        assert found.value == (-INF if maximize else INF)
        assert found.info.gap == INF
        assert not found.info.converged
        return
    np.testing.assert_allclose(found.value, given[rows, columns].sum(), rtol=1e-12, atol=1e-13)
    if maximize:
        found = found._replace(value=-found.value, alpha=-found.alpha, beta=-found.beta)
    proved(cost, found)


@pytest.mark.parametrize("shape", [(400, 400), (350, 420), (420, 350)])
def test_clouds_far_from_each_other(shape, rng):
    """Paths through all rows, which the default implementation leaves to the network simplex method."""
    m, n = shape
    cost = ((rng.random((m, 2))[:, None] - rng.random((n, 2)) - 3) ** 2).sum(-1)
    found = solved(cost)
    proved(cost, found, tol=1e-11)
    np.testing.assert_allclose(found.value, cost[linear_sum_assignment(cost)].sum(), rtol=1e-13)


@every_backend
@given(seed=seeds, kind=st.sampled_from(["normal", "ties"]), shift=st.integers(-5, 5))
@BOUNDED
def test_laws(seed, kind, shift, backend):
    rng = np.random.default_rng(seed)
    cost = drawn(rng, kind)
    m, n = cost.shape
    value = solved(cost, backend=backend).value
    near = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(solved(cost.T, backend=backend).value, value, **near)
    np.testing.assert_allclose(
        solved(cost + shift, backend=backend).value, value + shift * min(m, n), **near
    )
    np.testing.assert_allclose(solved(4 * cost, backend=backend).value, 4 * value, **near)
    order = np.ix_(rng.permutation(m), rng.permutation(n))
    np.testing.assert_allclose(solved(cost[order], backend=backend).value, value, **near)
    if m == n:
        u = rng.standard_normal((m, 1))
        np.testing.assert_allclose(solved(cost + u, backend=backend).value, value + u.sum(), **near)


# What cannot be paired


@every_place
def test_as_many_pairs_as_there_can_be(place, rng):
    """Three rows share two columns, and one has none."""
    cost = rng.random((6, 7))
    cost[:3, 2:], cost[4] = INF, INF
    found = numbers(orthokern.linear_assignment(made(cost, place.library), backend=place.backend))
    assert np.count_nonzero(found.columns < 0) == 2
    assert found.columns[4] == -1
    assert found.value == INF
    assert found.info.gap == INF
    assert not found.info.converged
    assert np.isfinite(found.alpha).all()
    assert np.isfinite(found.beta).all()
    assert np.all(found.alpha[:, None] + found.beta <= cost + 1e-6)
    turned = solved(cost.T.copy(), backend=place.backend)
    assert turned.rows.tolist() == sorted(turned.rows.tolist())
    assert np.count_nonzero(turned.rows < 0) == 2
    assert turned.value == INF


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_any_scale(scale, rng, backend):
    cost = rng.integers(-50, 50, (12, 12)).astype(float)
    expected, found = solved(cost, backend=backend), solved(cost * scale, backend=backend)
    np.testing.assert_allclose(found.value / scale, expected.value, rtol=1e-13)
    assert abs(found.info.gap) <= 1e-13 * abs(found.value)


def test_members_of_a_batch_are_paired_alone(rng, backend):
    cost = rng.standard_normal((2, 3, 6, 8))
    cost[1, 0, 2] = INF
    kept = cost.copy()
    found = solved(cost, backend=backend)
    assert found.columns.shape == (2, 3, 6)
    assert found.value.shape == found.info.gap.shape == found.info.converged.shape == (2, 3)
    for k in np.ndindex(2, 3):
        alone = solved(cost[k], backend=backend)
        assert np.array_equal(found.columns[k], alone.columns)
        np.testing.assert_allclose(found.value[k], alone.value, rtol=1e-14)
        np.testing.assert_allclose(found.beta[k], alone.beta, rtol=0, atol=1e-14)
    assert np.count_nonzero(~found.info.converged) == 1
    assert np.array_equal(cost, kept)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (0, 2, 3)])
def test_nothing_to_pair(shape, backend):
    *batch, m, n = shape
    found = solved(np.zeros(shape, dtype=np.float32), backend=backend)
    assert found.rows.shape == found.columns.shape == (*batch, min(m, n))
    assert found.alpha.shape == (*batch, m)
    assert found.beta.shape == (*batch, n)
    assert found.value.shape == tuple(batch)
    assert not found.value.any()
    assert found.info.converged.all()


def test_half_precision_is_computed_in_single(rng, backend):
    cost = rng.standard_normal((7, 7)).astype(np.float16)
    found, exact = (
        orthokern.linear_assignment(x, backend=backend) for x in (cost, cost.astype(np.float32))
    )
    assert found.columns.tolist() == exact.columns.tolist()
    assert found.value == exact.value
    assert (found.value.dtype, found.alpha.dtype) == (np.float32, np.float16)


# Refusals

REFUSED = {
    "NaN": (lambda: solved(np.array([[1.0, NAN]])), orthokern.ValuesError, "neither NaN nor minus infinity"),
    "minus infinity": (lambda: solved(np.array([[1.0, -INF]])), orthokern.ValuesError, "nor minus infinity"),
    "plus infinity": (lambda: solved(np.array([[1.0, INF]]), maximize=True), orthokern.ValuesError, "nor plus inf"),
    "integers": (lambda: solved(np.ones((2, 2), dtype=int)), orthokern.DTypeError, "cast to a floating dtype first"),
    "complex": (lambda: solved(np.ones((2, 2), dtype=complex)), orthokern.DTypeError, "real part"),
    "vector": (lambda: solved(np.ones(3)), orthokern.ShapeError, "at least 2 dimensions"),
    "list": (lambda: solved([[1.0]]), orthokern.ArrayTypeError, "expected an array for cost"),
    "maximize": (lambda: solved(np.ones((2, 2)), maximize=1), orthokern.OptionError, "True or False"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="dask is not installed")
def test_dask_is_told_what_to_do():
    with pytest.raises(orthokern.UnsupportedError, match=r"compute\(\) or map it over the blocks"):
        orthokern.linear_assignment(made(np.ones((2, 2)), "dask"))


# Derivatives and tracing


def chosen(found, shape):
    pairs = np.zeros(shape)
    pairs[found.rows, found.columns] = 1
    return pairs


TORCH_ONLY = pytest.mark.skipif(libraries.missing("torch") is not None, reason="no torch")
JAX_ONLY = pytest.mark.skipif(libraries.missing("jax") is not None, reason="no JAX")
RECTANGLES = pytest.mark.parametrize(
    ("shape", "maximize"), [((5, 7), False), ((6, 4), False), ((5, 7), True), ((6, 4), True)]
)


@TORCH_ONLY
@RECTANGLES
def test_the_derivative_of_the_value_is_the_pairing_in_torch(shape, maximize, rng):
    cost = rng.standard_normal(shape)
    x = made(cost, "torch").requires_grad_()
    orthokern.linear_assignment(x, maximize=maximize).value.backward()
    expected = chosen(solved(cost, maximize=maximize), shape)
    np.testing.assert_array_equal(to_numpy(x.grad), expected)


@JAX_ONLY
@RECTANGLES
def test_the_derivative_of_the_value_is_the_pairing_in_jax(shape, maximize, rng):
    import jax

    def value(x):
        return orthokern.linear_assignment(x, maximize=maximize).value

    cost = rng.standard_normal(shape)
    expected = chosen(solved(cost, maximize=maximize), shape)
    for gradient in (jax.grad(value), jax.jit(jax.grad(value))):
        np.testing.assert_array_equal(to_numpy(gradient(made(cost, "jax"))), expected)


@JAX_ONLY
def test_under_jit_and_vmap(rng):
    import jax

    cost = rng.standard_normal((3, 4, 6))
    cost[1, 2] = INF
    expected = solved(cost)
    x = made(cost, "jax")
    for call in (jax.jit(orthokern.linear_assignment), jax.vmap(orthokern.linear_assignment)):
        found = numbers(call(x))
        assert np.array_equal(found.columns, expected.columns)
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
        assert np.array_equal(found.info.converged, expected.info.converged)


@JAX_ONLY
def test_nan_that_a_traced_call_could_not_refuse():
    import jax

    x = made(np.eye(3), "jax")
    for place in ((0, 0), (1, 2), (2, 1)):
        found = numbers(jax.jit(orthokern.linear_assignment)(x.at[place].set(NAN)))
        assert np.isnan(found.value)
        assert not found.info.converged
