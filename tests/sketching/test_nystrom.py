"""Nystrom approximation and the conjugate gradients that it preconditions."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import PLACES, eps_of, made

eager = pytest.mark.parametrize("place", [p for p in PLACES if p.library != "dask"], ids=str)


def semidefinite(n, values, *, seed=0, dtype=float):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, len(values)))
    q = np.linalg.qr(x + (1j * g.standard_normal(x.shape) if dtype is complex else 0))[0]
    return (q * values) @ q.conj().T


@eager
def test_known_values(place):
    a = made(np.diag([3.0, 2.0, 0.0]), place.library)
    values, vectors = orthokern.nystrom(a, k=2, backend=place.backend)
    np.testing.assert_allclose(to_numpy(values), [3, 2], atol=64 * eps_of(a))
    np.testing.assert_allclose(np.abs(to_numpy(vectors)), np.eye(3)[:, :2], atol=64 * eps_of(a))


@pytest.mark.parametrize("dtype", [float, complex])
def test_below_the_matrix_and_near_the_best(dtype):
    values = 1 / np.arange(1.0, 81) ** 2
    a = semidefinite(80, values, dtype=dtype)
    found, v = orthokern.nystrom(a, k=10)
    rest = a - (v * found) @ v.conj().T
    least = np.linalg.eigvalsh((rest + rest.conj().T) / 2)[0]
    assert least >= -1e-13
    assert np.linalg.norm(rest, 2) <= 3 * values[10]
    assert np.all(found <= values[:10] * (1 + 1e-13))
    np.testing.assert_allclose(v.conj().T @ v, np.eye(10), atol=1e-13)


@pytest.mark.parametrize("rank", [0, 1, 4, 30])
def test_rank(rank):
    a = semidefinite(30, np.arange(1.0, rank + 1)) if rank else np.zeros((30, 30))
    values, v = orthokern.nystrom(a, k=30)
    np.testing.assert_allclose(values[:rank], np.arange(rank, 0.0, -1), rtol=1e-12)
    np.testing.assert_allclose(values[rank:], 0, atol=1e-11)
    np.testing.assert_allclose((v * values) @ v.T, a, atol=1e-11)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_scale_batch_and_nan(scale):
    a = np.stack([semidefinite(20, np.arange(1.0, 4), seed=i) for i in range(3)]) * scale
    a[1, 3, 3] = np.nan
    values, v = orthokern.nystrom(a, k=2)
    assert np.isnan(values[1]).all()
    assert np.isnan(v[1]).all()
    np.testing.assert_allclose(values[[0, 2]] / scale, [[3, 2]] * 2, rtol=1e-12)


def test_empty_and_single_precision():
    assert orthokern.nystrom(np.zeros((0, 0)), k=0).vectors.shape == (0, 0)
    values, v = orthokern.nystrom(semidefinite(9, np.arange(1.0, 4)).astype(np.float32), k=2)
    assert values.dtype == v.dtype == np.float32
    np.testing.assert_allclose(values, [3, 2], rtol=3e-6)
    x, _ = orthokern.nystrom_pcg(np.zeros((0, 0)), np.zeros(0), mu=1.0, k=0)
    assert x.shape == (0,)


@eager
def test_known_solution(place):
    a, b = (made(x, place.library) for x in (np.diag([3.0, 1.0]), [4.0, 4.0]))
    x, info = orthokern.nystrom_pcg(a, b, mu=1.0, k=1, tol=1e-5, backend=place.backend)
    np.testing.assert_allclose(to_numpy(x), [1, 2], rtol=1e-4)
    assert bool(to_numpy(info.converged).all())


@pytest.mark.parametrize("dtype", [float, complex])
def test_solution_and_few_steps(dtype):
    values = 10.0 ** -np.linspace(0, 12, 200)
    a, mu = semidefinite(200, values, dtype=dtype), 1e-6
    b = np.random.default_rng(1).standard_normal((200, 3)) * [1, 1e150, 0] + 0 * a[:, :3]
    x, info = orthokern.nystrom_pcg(a, b, mu=mu, k=100)
    plain = orthokern.nystrom_pcg(a, b, mu=mu, k=0, max_iter=2000)
    exact = np.linalg.solve(a + mu * np.eye(200), b[:, 0])
    np.testing.assert_allclose(x[:, 0], exact, atol=1e-4 * np.abs(exact).max())
    assert not x[:, 2].any()
    assert info.iterations <= 30
    assert plain.info.iterations > 5 * info.iterations
    assert info.converged.all()
    called, _ = orthokern.nystrom_pcg(lambda y: a @ y, b, mu=mu, k=100)
    np.testing.assert_array_equal(called, x)


def test_batch_is_the_loop():
    a = np.stack([semidefinite(20, np.arange(1.0, 21), seed=i) for i in range(2)])
    b = np.random.default_rng(1).standard_normal((2, 20))
    x, info = orthokern.nystrom_pcg(a, b, mu=0.1, k=5)
    assert x.shape == (2, 20)
    assert info.residual.shape == (2, 1)
    for i in range(2):
        alone, _ = orthokern.nystrom_pcg(a[i], b[i], mu=0.1, k=5)
        np.testing.assert_allclose(x[i], alone, rtol=1e-6)


def test_too_few_steps_are_told():
    a = semidefinite(50, np.logspace(0, -8, 50))
    with pytest.warns(orthokern.ConvergenceWarning, match="max_iter"):
        _, info = orthokern.nystrom_pcg(a, np.ones(50), mu=1e-8, k=2, max_iter=3)
    assert not info.converged.any()


def test_derivatives_in_torch():
    torch = pytest.importorskip("torch")
    k = torch.tensor(semidefinite(6, np.arange(1.0, 7)), requires_grad=True)
    b = torch.tensor(np.arange(1.0, 7), requires_grad=True)

    def solved(x, y):
        return orthokern.nystrom_pcg((x + x.mT) / 2, y, mu=0.5, k=2, tol=1e-10).x

    def values(x):
        return orthokern.nystrom((x + x.mT) / 2, k=3, oversample=1).values

    assert torch.autograd.gradcheck(values, (k,))
    assert torch.autograd.gradcheck(solved, (k, b))


def test_traced_in_jax():
    jax = pytest.importorskip("jax")
    found = jax.jit(lambda k: orthokern.nystrom(k, k=2).values)(semidefinite(9, np.arange(1.0, 4)))
    np.testing.assert_allclose(found, [3, 2], rtol=1e-5)
    a = semidefinite(20, np.arange(1.0, 21)).astype(np.float32)
    b = np.ones(20, np.float32)
    x = jax.jit(lambda k, y: orthokern.nystrom_pcg(k, y, mu=0.5, k=5, tol=1e-5).x)(a, b)
    np.testing.assert_allclose(np.asarray(x), np.linalg.solve(a + 0.5 * np.eye(20), b), atol=1e-4)


def test_refusals():
    with pytest.raises(orthokern.ValuesError, match="semidefinite"):
        orthokern.nystrom(np.diag([1.0, -1.0]), k=2)
    with pytest.raises(orthokern.ShapeError):
        orthokern.nystrom(np.ones((3, 2)), k=1)
    with pytest.raises(orthokern.OptionError, match="k"):
        orthokern.nystrom(np.eye(3), k=4)
    with pytest.raises(orthokern.OptionError, match="mu"):
        orthokern.nystrom_pcg(np.eye(3), np.ones(3), mu=0.0, k=1)
    with pytest.raises(orthokern.ShapeError, match="rows"):
        orthokern.nystrom_pcg(np.eye(3), np.ones(4), mu=1.0, k=1)
