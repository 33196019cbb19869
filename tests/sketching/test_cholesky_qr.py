"""Randomized QR: factors, sign, pivots, hard matrices, derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import eps_of, made


def graded(n, d, kappa, seed=0, dtype=float):
    g = np.random.default_rng(seed)
    x, y = (
        g.standard_normal((m, d)) + 1j * g.standard_normal((m, d)) * (dtype is complex)
        for m in (n, d)
    )
    u, v = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    a = (u * np.logspace(0, -np.log10(kappa), d)) @ v.conj().T
    return a if dtype is complex else a.real


def assert_factors(a, result, eps, columns=None):
    q, r = to_numpy(result.q), to_numpy(result.r)
    if result.pivots is not None:
        a = np.take_along_axis(a, to_numpy(result.pivots).astype(int)[..., None, :], axis=-1)
    k = min(a.shape[-2:])
    scale = np.linalg.norm(a, axis=(-2, -1), keepdims=True)
    assert np.all(np.abs(a - q @ r) <= 30 * eps * k**0.5 * scale)
    gram = np.swapaxes(q, -1, -2).conj() @ q
    assert np.max(np.abs(gram - np.eye(k))) <= 30 * eps * k**0.5
    assert np.all(np.tril(r, -1) == 0)
    diagonal = np.diagonal(r, axis1=-2, axis2=-1)
    assert np.all(diagonal.real >= 0)
    assert np.all(np.abs(diagonal.imag) <= 30 * eps * scale[..., 0])


def test_known_factors(place):
    a = made([[3.0, 1.0], [4.0, 2.0]], place.library)
    q, r, pivots, info = orthokern.rand_cholqr(a, backend=place.backend)
    np.testing.assert_allclose(to_numpy(q), [[0.6, -0.8], [0.8, 0.6]], atol=8 * eps_of(q))
    np.testing.assert_allclose(to_numpy(r), [[5, 2.2], [0, 0.4]], atol=16 * eps_of(q))
    assert pivots is None
    assert int(info.rank) == 2


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("pivot", [False, True])
def test_ill_conditioned(dtype, pivot):
    a = graded(4000, 40, 1e12, dtype=dtype)
    assert_factors(a, orthokern.rand_cholqr(a, pivot=pivot), eps_of(a))


def test_fast_path_has_the_accuracy_of_the_spec():
    a = graded(8192, 64, 1e12)
    q, r, *_ = orthokern.rand_cholqr(a)
    assert np.linalg.norm(q.T @ q - np.eye(64), 2) <= 3e-15
    assert np.linalg.norm(a - q @ r) <= 6e-15 * np.linalg.norm(a)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("d", [6, 30])
def test_duplicate_columns_are_orthonormal_to_the_same_accuracy(d, seed):
    half = graded(2000, d, 1e3)
    q, r, *_ = orthokern.rand_cholqr(np.concatenate([half, half], axis=1), seed=seed)
    assert np.linalg.norm(q.T @ q - np.eye(2 * d), 2) <= 6e-15
    assert np.linalg.norm(np.concatenate([half, half], axis=1) - q @ r) <= 6e-15


def test_the_seed_changes_roundings_alone():
    a = graded(8192, 32, 1e3)
    one, two = (orthokern.rand_cholqr(a, seed=s) for s in (0, 99))
    np.testing.assert_allclose(one.r, two.r, atol=1e-13)
    reference = orthokern.rand_cholqr(a, backend="array-api")
    np.testing.assert_allclose(one.r, reference.r, atol=1e-13)
    np.testing.assert_allclose(one.q, reference.q, atol=1e-11)


HARD = {
    "zero": np.zeros((2000, 12)),
    "zero column": graded(2000, 12, 10) * (np.arange(12) != 5),
    "rank 3": graded(2000, 3, 10) @ np.ones((3, 12)),
    "repeated": graded(2000, 6, 10)[:, [0, 1, 2, 3, 4, 5] * 2],
    "spiky": np.eye(2000, 12),
    "columns 1e150 to 1e-150": graded(2000, 12, 10) * np.logspace(150, -150, 12),
    "small": graded(2000, 12, 10) * 1e-300,
    "large": graded(2000, 12, 10) * 1e300,
    "wide": graded(40, 12, 10).T,
    "square": graded(12, 12, 1e15),
    "row": np.arange(1.0, 6)[None, :],
}


@pytest.mark.parametrize("pivot", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_hard(name, pivot):
    a = HARD[name]
    for backend in (None, "array-api"):
        result = orthokern.rand_cholqr(a, pivot=pivot, backend=backend)
        with np.errstate(over="ignore"):
            scale = max(np.max(np.abs(a)), 1e-300)
        scaled = result._replace(r=result.r / scale)
        assert_factors(a / scale, scaled, 2**-52)


def test_rank_and_pivots(place):
    if place.library == "dask":
        pytest.skip("refused: see test_refusals")
    a = np.zeros((60, 4))
    a[0, 2], a[1, 0], a[2, 3] = 9, 5, 1
    result = orthokern.rand_cholqr(made(a, place.library), pivot=True, backend=place.backend)
    assert to_numpy(result.pivots).tolist() == [2, 0, 3, 1]
    assert int(result.info.rank) == 3


def test_batch_is_the_loop_and_keeps_nan_apart():
    a = np.stack([graded(3000, 8, 10.0**k, seed=k) for k in range(3)])
    a[1, 5, 5] = np.nan
    result = orthokern.rand_cholqr(a)
    assert np.isnan(result.q[1]).all()
    assert np.isnan(result.r[1]).any()
    assert result.info.rank.tolist() == [8, 0, 8]
    for i in (0, 2):
        assert np.array_equal(result.q[i], orthokern.rand_cholqr(a[i]).q)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3)])
def test_empty(shape):
    q, r, *_ = orthokern.rand_cholqr(np.zeros(shape), pivot=True)
    k = min(shape[-2:])
    assert q.shape == (*shape[:-1], k)
    assert r.shape == (*shape[:-2], k, shape[-1])


def test_single_precision_is_computed_in_double():
    a = graded(3000, 20, 1e5).astype(np.float32)
    q, r, *_ = orthokern.rand_cholqr(a)
    assert q.dtype == r.dtype == np.float32
    exact = orthokern.rand_cholqr(a.astype(float))
    np.testing.assert_allclose(q, exact.q, atol=1e-7)


def test_derivative_in_jax():
    jax = pytest.importorskip("jax")
    if not jax.config.jax_enable_x64:
        pytest.skip("needs double precision")
    g = np.random.default_rng(2)
    a, da, weight = (g.standard_normal((7, 3)) for _ in range(3))

    def value(x):
        q, r, *_ = orthokern.rand_cholqr(x)
        return (q * weight).sum() + (r**3).sum()

    slope = float((jax.grad(value)(jax.numpy.asarray(a)) * da).sum())
    h = 1e-6
    np.testing.assert_allclose(slope, (value(a + h * da) - value(a - h * da)) / (2 * h), rtol=1e-7)
    jitted = jax.jit(orthokern.rand_cholqr)(jax.numpy.asarray(a))
    np.testing.assert_allclose(np.asarray(jitted.r), orthokern.rand_cholqr(a).r, atol=1e-14)
    with pytest.raises(orthokern.UnsupportedError, match="n >= d"):
        jax.grad(value)(jax.numpy.asarray(a.T))


def test_complex_derivative_in_torch():
    torch = pytest.importorskip("torch")
    g = np.random.default_rng(3)
    a = torch.tensor(g.standard_normal((6, 3)) + 1j * g.standard_normal((6, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: orthokern.rand_cholqr(x)[:2], (a,))


def test_refusals():
    a = np.ones((4, 2))
    with pytest.raises(orthokern.OptionError, match="seed"):
        orthokern.rand_cholqr(a, seed=-1)
    with pytest.raises(orthokern.OptionError, match="pivot"):
        orthokern.rand_cholqr(a, pivot=1)
    with pytest.raises(orthokern.ShapeError):
        orthokern.rand_cholqr(a[0])
    with pytest.raises(orthokern.DTypeError):
        orthokern.rand_cholqr(a.astype(int))
    dask = pytest.importorskip("dask.array")
    with pytest.raises(orthokern.UnsupportedError, match="compute"):
        orthokern.rand_cholqr(dask.from_array(a), pivot=True)
