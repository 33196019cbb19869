"""Routing tokens to experts: known answers, balance, ties, forbidden pairs, tracing, derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy
from orthokern.transport.sinkhorn import sinkhorn_route

from .conftest import PLACES, eps_of, made

SCORES = np.array([[3.0, 0.0], [2.0, 0.0], [2.0, 1.5], [1.0, 0.0]])


somewhere = pytest.mark.parametrize(
    "place", [place for place in PLACES if place.library != "dask"], ids=str
)


def assignment(scores, n_iter, epsilon=1.0):
    """The same in the scaling form, for finite scores."""
    kernel = np.exp(scores / epsilon)
    tokens, experts = scores.shape
    v = np.ones(tokens)
    for _ in range(n_iter):
        u = tokens / experts / (kernel.T @ v)
        v = 1 / (kernel @ u)
    return v[:, None] * kernel * u


@somewhere
def test_known_routing(place, dtype):
    scores = made(SCORES, place.library, dtype)
    tokens, weights, info = sinkhorn_route(scores, capacity=2, n_iter=30, backend=place.backend)
    assert type(weights) is type(scores)
    assert weights.dtype == scores.dtype
    assert to_numpy(tokens).tolist() == [[0, 1], [2, 3]]
    share = assignment(SCORES, 30)
    expected = [[share[0, 0], share[1, 0]], [share[2, 1], share[3, 1]]]
    np.testing.assert_allclose(to_numpy(weights), expected, rtol=100 * eps_of(scores))
    np.testing.assert_allclose(to_numpy(info.load), [2, 2], rtol=1e-5)
    assert to_numpy(info.copies).tolist() == [1, 1, 1, 1]
    assert int(info.unassigned) == 0


def test_all_tokens_prefer_one_expert_and_loads_are_equal(rng):
    scores = rng.standard_normal((3, 60, 6)) + np.array([5.0, 0, 0, 0, 0, 0])
    tokens, weights, info = sinkhorn_route(scores, capacity=10, n_iter=200)
    np.testing.assert_allclose(info.load, 10, rtol=1e-6)
    assert tokens.shape == weights.shape == (3, 6, 10)
    for member in range(3):
        share = assignment(scores[member], 200)
        np.testing.assert_allclose(share.sum(1), 1)
        for expert in range(6):
            order = np.argsort(-share[:, expert], kind="stable")[:10]
            assert tokens[member, expert].tolist() == order.tolist()
            np.testing.assert_allclose(weights[member, expert], share[order, expert], rtol=1e-9)
        taken, counts = np.unique(tokens[member], return_counts=True)
        copies = np.zeros(60, int)
        copies[taken] = counts
        assert info.copies[member].tolist() == copies.tolist()
        assert info.unassigned[member] == 60 - len(taken)


def test_small_epsilon_is_the_best_balanced_assignment(rng):
    from scipy.optimize import linear_sum_assignment

    scores = rng.standard_normal((24, 4))
    tokens, _, info = sinkhorn_route(scores, capacity=6, n_iter=3000, epsilon=0.01)
    rows, columns = linear_sum_assignment(-np.repeat(scores, 6, axis=1))
    expected = [sorted(rows[columns // 6 == expert]) for expert in range(4)]
    assert np.sort(tokens, axis=1).tolist() == expected
    assert info.unassigned == 0


@somewhere
def test_of_equal_weights_the_first_are_taken(place):
    scores = made(np.zeros((5, 2)), place.library)
    tokens, weights, info = sinkhorn_route(scores, capacity=2, n_iter=2, backend=place.backend)
    assert to_numpy(tokens).tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(to_numpy(weights), 0.5, rtol=1e-6)
    assert to_numpy(info.copies).tolist() == [2, 2, 0, 0, 0]
    assert int(info.unassigned) == 3


@somewhere
def test_forbidden_pairs_tokens_and_experts(place):
    scores = SCORES.copy()
    scores[0, 1] = -np.inf
    scores = np.concatenate([scores, np.full((1, 2), -np.inf)])
    scores = np.concatenate([scores, np.full((5, 1), -np.inf)], axis=1)
    found = sinkhorn_route(
        made(scores, place.library), capacity=2, n_iter=40, backend=place.backend
    )
    tokens, weights = (to_numpy(x) for x in found[:2])
    assert tokens[:2].tolist() == [[0, 1], [2, 3]]
    assert weights[0, 0] == pytest.approx(1, rel=1e-6)
    assert weights[2].tolist() == [0, 0]
    np.testing.assert_allclose(to_numpy(found.info.load), [2, 2, 0], atol=1e-5)
    assert to_numpy(found.info.copies).tolist() == [1, 1, 1, 1, 0]
    assert int(found.info.unassigned) == 0


def test_scores_that_mean_nothing_stay_with_their_member(rng):
    scores = rng.standard_normal((3, 8, 2))
    clean = sinkhorn_route(scores, capacity=3, n_iter=4)
    scores[0, 1, 1], scores[2, 0, 0] = np.nan, np.inf
    found = sinkhorn_route(scores, capacity=3, n_iter=4)
    assert np.all(np.isnan(found.weights[[0, 2]]))
    assert np.all(np.isnan(found.info.load[[0, 2]]))
    np.testing.assert_array_equal(found.weights[1], clean.weights[1])
    np.testing.assert_array_equal(found.tokens[1], clean.tokens[1])


def test_half_precision_is_computed_in_single(rng):
    scores = rng.standard_normal((12, 3)).astype(np.float16)
    found, exact = (
        sinkhorn_route(x, capacity=4, n_iter=5) for x in (scores, scores.astype(np.float32))
    )
    assert found.weights.dtype == np.float16
    assert found.info.load.dtype == np.float32
    np.testing.assert_array_equal(found.tokens, exact.tokens)
    np.testing.assert_array_equal(found.weights, exact.weights.astype(np.float16))


def test_large_scores_are_no_danger(rng):
    scores = 1e4 * rng.standard_normal((16, 4)).astype(np.float32)
    found = sinkhorn_route(scores, capacity=4, n_iter=50)
    assert np.all((found.weights >= 0) & (found.weights <= 1 + 1e-3))


REFUSED = {
    "capacity": ({"capacity": 5, "n_iter": 3}, "capacity to be an integer >= 1 and <= 4"),
    "no capacity": ({"capacity": 0, "n_iter": 3}, "capacity to be an integer >= 1"),
    "sweeps": ({"capacity": 2, "n_iter": 0}, "n_iter to be an integer >= 1"),
    "epsilon": ({"capacity": 2, "n_iter": 3, "epsilon": 0.0}, "epsilon to be a finite number > 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    options, text = REFUSED[name]
    with pytest.raises(orthokern.OptionError, match=text):
        sinkhorn_route(SCORES, **options)


def test_arrays_without_meaning_are_refused():
    with pytest.raises(orthokern.ShapeError, match="at least 2 dimensions"):
        sinkhorn_route(SCORES[0], capacity=1, n_iter=1)
    with pytest.raises(orthokern.ShapeError, match="at least one entry"):
        sinkhorn_route(SCORES[:0], capacity=1, n_iter=1)
    with pytest.raises(orthokern.DTypeError, match="cast to a floating dtype"):
        sinkhorn_route(SCORES.astype(int), capacity=1, n_iter=1)


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="Dask is not installed")
def test_dask_is_refused():
    with pytest.raises(orthokern.UnsupportedError, match="which Dask cannot do"):
        sinkhorn_route(made(SCORES, "dask"), capacity=1, n_iter=1)


def weights_of(scores):
    return sinkhorn_route(scores, capacity=2, n_iter=4, epsilon=0.7).weights


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="JAX is not installed")
def test_jax_transforms(rng):
    import jax

    scores = rng.standard_normal((3, 6, 2)).astype(np.float32)
    expected = weights_of(scores)
    for function in (jax.jit(weights_of), jax.vmap(weights_of)):
        np.testing.assert_allclose(function(jax.numpy.asarray(scores)), expected, rtol=1e-4)
    direction = rng.standard_normal(scores.shape).astype(np.float32)
    _, tangent = jax.jvp(weights_of, (scores,), (direction,))
    exact, step = scores.astype(float), 1e-6
    ahead, behind = (weights_of(exact + s * step * direction) for s in (1, -1))
    np.testing.assert_allclose(tangent, (ahead - behind) / (2 * step), rtol=2e-3, atol=1e-4)


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
def test_torch_transforms_and_derivatives(rng):
    import torch

    scores = torch.tensor(rng.standard_normal((3, 6, 2)))
    expected = weights_of(scores)
    for function in (
        torch.compile(weights_of, fullgraph=True, backend="eager"),
        torch.vmap(weights_of),
    ):
        torch.testing.assert_close(function(scores), expected, rtol=1e-12, atol=1e-12)
    scores[0, 3, 1] = -torch.inf
    weights_of(scores.requires_grad_(True)).sum().backward()
    assert bool(torch.all(torch.isfinite(scores.grad)))
    free = torch.tensor(rng.standard_normal((2, 5, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(weights_of, (free,), eps=1e-6, atol=1e-7)
