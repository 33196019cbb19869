"""Randomized range finder, SVD and leverage scores."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import PLACES, eps_of, made

eager = pytest.mark.parametrize("place", [p for p in PLACES if p.library != "dask"], ids=str)


def of_spectrum(n, d, s, seed=0, *, dtype=float):
    g = np.random.default_rng(seed)
    shapes = [(m, len(s)) for m in (n, d)]
    u, v = (
        np.linalg.qr(g.standard_normal(x) + (1j * g.standard_normal(x) if dtype is complex else 0))[
            0
        ]
        for x in shapes
    )
    return (u * s) @ v.conj().T


@eager
def test_known_values(place):
    a = made(np.diag([3.0, 2.0, 1.0]), place.library)
    u, s, vh = orthokern.randomized_svd(a, k=2, backend=place.backend)
    atol = 16 * eps_of(a)
    np.testing.assert_allclose(to_numpy(s), [3, 2], atol=atol)
    np.testing.assert_allclose(to_numpy(u), np.eye(3)[:, :2], atol=atol)
    np.testing.assert_allclose(to_numpy(vh), np.eye(3)[:2], atol=atol)


@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
@pytest.mark.parametrize("dtype", [float, complex])
def test_fast_decay_is_exact(shape, dtype):
    s = 10.0 ** -np.arange(12.0)
    a = of_spectrum(*shape, s, dtype=dtype)
    u, found, vh = orthokern.randomized_svd(a, k=6)
    np.testing.assert_allclose(found, s[:6], atol=1e-15)
    np.testing.assert_allclose((u * found) @ vh, of_spectrum(*shape, s, dtype=dtype), atol=2e-6)
    np.testing.assert_allclose(u.conj().T @ u, np.eye(6), atol=1e-14)
    np.testing.assert_allclose(vh @ vh.conj().T, np.eye(6), atol=1e-14)
    top = np.take_along_axis(u, np.abs(u).argmax(0)[None], 0)
    assert np.all(top.real > 0)
    np.testing.assert_allclose(top.imag, 0, atol=1e-15)


def test_slow_decay_near_the_best_and_never_above():
    s = 1 / np.sqrt(np.arange(1.0, 101))
    a = of_spectrum(400, 100, s)
    best = np.linalg.norm(s[10:])
    for power, factor in ((0, 1.2), (1, 1.05), (2, 1.02)):
        u, found, vh = orthokern.randomized_svd(a, k=10, power=power)
        assert np.linalg.norm(a - (u * found) @ vh) <= factor * best
        assert np.all(found <= s[:10] * (1 + 1e-14))


def test_all_directions_is_the_svd():
    a = np.random.default_rng(1).standard_normal((30, 12))
    u, s, vh = orthokern.randomized_svd(a, k=12)
    np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-13)
    np.testing.assert_allclose((u * s) @ vh, a, atol=1e-13)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_more_directions_than_the_rank(rank):
    a = of_spectrum(50, 20, np.arange(1.0, rank + 1)) if rank else np.zeros((50, 20))
    u, s, vh = orthokern.randomized_svd(a, k=8)
    np.testing.assert_allclose(s[:rank], np.arange(rank, 0.0, -1), rtol=1e-13)
    np.testing.assert_allclose(s[rank:], 0, atol=1e-13)
    np.testing.assert_allclose(u.T @ u, np.eye(8), atol=1e-13)
    np.testing.assert_allclose(vh @ vh.T, np.eye(8), atol=1e-13)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_scale_costs_nothing(scale):
    a = of_spectrum(50, 20, np.arange(1.0, 6))
    s = orthokern.randomized_svd(a * scale, k=3).s
    np.testing.assert_allclose(s / scale, [5, 4, 3], rtol=1e-13)


@pytest.mark.parametrize("name", ["columns", "both"])
def test_graded_columns(name):
    a = np.random.default_rng(4).standard_normal((60, 20)) * np.logspace(150, -150, 20)
    a = a * np.logspace(150, -150, 60)[:, None] if name == "both" else a
    u, s, vh = orthokern.randomized_svd(a, k=20)
    np.testing.assert_allclose(s / s[0], np.linalg.svd(a, compute_uv=False) / s[0], atol=1e-14)
    np.testing.assert_allclose((u * (s / s[0])) @ vh, a / s[0], atol=1e-14)
    np.testing.assert_allclose(u.T @ u, np.eye(20), atol=1e-13)


def test_graded_rows():
    a = np.random.default_rng(4).standard_normal((60, 6)) * np.logspace(150, -150, 60)[:, None]
    u, s, vh = orthokern.randomized_svd(a, k=6)
    np.testing.assert_allclose(s / s[0], np.linalg.svd(a, compute_uv=False) / s[0], atol=1e-14)
    assert np.isfinite(u).all()
    assert np.isfinite(vh).all()


def test_batch_nan_and_single_precision():
    a = np.stack([of_spectrum(40, 10, np.arange(1.0, 4), seed=i) for i in range(3)])
    a[1, 0, 0] = np.inf
    u, s, vh = orthokern.randomized_svd(a, k=2)
    assert all(np.isnan(x[1]).all() for x in (u, s, vh))
    for i in (0, 2):
        np.testing.assert_allclose(s[i], [3, 2], rtol=1e-13)
        np.testing.assert_allclose(u[i], orthokern.randomized_svd(a[i], k=2).u, atol=1e-13)
    single = orthokern.randomized_svd(a[0].astype(np.float32), k=2)
    assert {x.dtype for x in single} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single.s, [3, 2], rtol=3e-7)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_empty(shape):
    u, s, vh = orthokern.randomized_svd(np.zeros(shape), k=0)
    assert (u.shape, s.shape, vh.shape) == (
        (*shape[:-1], 0),
        (*shape[:-2], 0),
        (*shape[:-2], 0, shape[-1]),
    )
    assert orthokern.leverage_scores(np.zeros(shape)).shape == shape[:-1]


@pytest.mark.parametrize("tol", [0.3, 1e-3, 1e-7])
@pytest.mark.parametrize("shape", [(300, 80), (80, 300)])
def test_a_tolerance_is_kept_with_few_directions(tol, shape):
    s = 0.8 ** np.arange(80.0)
    a = of_spectrum(*shape, s)
    q = orthokern.randomized_range_finder(a, tol=tol)
    assert np.linalg.norm(a - q @ (q.T @ a)) <= tol * np.linalg.norm(a)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1])
    assert q.shape[1] <= np.argmax(tails <= tol * tails[0]) + 17
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-13)
    u, found, vh = orthokern.randomized_svd(a, tol=tol)
    assert np.linalg.norm(a - (u * found) @ vh) <= tol * np.linalg.norm(a)


@pytest.mark.parametrize("tol", [1e-9, 1e-13])
def test_a_tolerance_below_the_root_of_eps(tol):
    a = of_spectrum(100, 60, 0.5 ** np.arange(60.0))
    q = orthokern.randomized_range_finder(a, tol=tol)
    assert np.linalg.norm(a - q @ (q.T @ a)) <= tol * np.linalg.norm(a)
    assert q.shape[1] <= -np.log2(tol) + 18
    np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-13)


def test_tolerance_of_nothing():
    assert orthokern.randomized_range_finder(np.zeros((9, 5)), tol=0.1).shape == (9, 0)
    assert orthokern.randomized_svd(np.zeros((9, 5)), tol=0.1).vh.shape == (0, 5)


def test_derivative_in_torch():
    torch = pytest.importorskip("torch")
    a = torch.tensor(of_spectrum(8, 6, np.arange(1.0, 7)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: orthokern.randomized_svd(x, k=3).s, (a,))
    assert torch.autograd.gradcheck(
        lambda x: orthokern.randomized_range_finder(x, k=2, oversample=0), (a,)
    )
    for method in ("exact", "sketched"):
        assert torch.autograd.gradcheck(
            lambda x, m=method: orthokern.leverage_scores(x, method=m), (a[:, :3],)
        )


def test_traced_in_jax():
    jax = pytest.importorskip("jax")
    a = of_spectrum(40, 10, np.arange(1.0, 6))
    found = jax.jit(lambda x: orthokern.randomized_svd(x, k=3).s)(a)
    np.testing.assert_allclose(np.asarray(found), [5, 4, 3], rtol=1e-5)
    scores = jax.jit(orthokern.leverage_scores)(a[:, :4])
    np.testing.assert_allclose(scores, orthokern.leverage_scores(a[:, :4]), atol=1e-5)
    with pytest.raises(orthokern.UnsupportedError, match="tol"):
        jax.jit(lambda x: orthokern.randomized_svd(x, tol=0.1).s)(a)


@eager
def test_known_leverage(place):
    a = made([[1.0, 0], [0, 1], [0, 1]], place.library)
    scores = orthokern.leverage_scores(a, backend=place.backend)
    np.testing.assert_allclose(to_numpy(scores), [1, 0.5, 0.5], atol=8 * eps_of(a))


@pytest.mark.parametrize("rank", [0, 3, 8])
@pytest.mark.parametrize("dtype", [float, complex])
def test_leverage_is_that_of_the_range(rank, dtype):
    a = of_spectrum(900, 8, np.logspace(0, -6, rank), dtype=dtype) if rank else np.zeros((900, 8))
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    wanted = (np.abs(u[:, s > 1e-12]) ** 2).sum(1)
    np.testing.assert_allclose(orthokern.leverage_scores(a), wanted, atol=1e-10)
    sketched = orthokern.leverage_scores(a, method="sketched")
    if rank:
        ratio = sketched / wanted
        assert ratio.min() > 0.3
        assert ratio.max() < 3.5
    else:
        assert not sketched.any()


def test_sketched_leverage_of_many_columns():
    a = np.random.default_rng(0).standard_normal((2000, 150))
    a[7] *= 100
    exact = orthokern.leverage_scores(a)
    ratio = orthokern.leverage_scores(a, method="sketched") / exact
    assert exact.argmax() == 7
    np.testing.assert_allclose(exact.sum(), 150, rtol=1e-12)
    assert ratio.min() > 0.4
    assert ratio.max() < 2.5


def test_refusals():
    a = np.ones((4, 3))
    for options in (
        {},
        {"k": 4},
        {"k": 1, "power": -1},
        {"k": 1, "tol": 1e-17},
        {"k": 1, "seed": 2**64},
    ):
        k = options.pop("k", None)
        with pytest.raises(orthokern.OptionError):
            orthokern.randomized_svd(a, k=k, **options)
    with pytest.raises(orthokern.UnsupportedError, match="one matrix"):
        orthokern.randomized_svd(a[None], tol=0.1)
    with pytest.raises(orthokern.OptionError, match="method"):
        orthokern.leverage_scores(a, method="guess")
    dask = pytest.importorskip("dask.array")
    for function in (lambda x: orthokern.randomized_svd(x, k=1), orthokern.leverage_scores):
        with pytest.raises(orthokern.UnsupportedError, match="Dask"):
            function(dask.from_array(a))
