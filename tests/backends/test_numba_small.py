"""Batched polar factors of small matrices: known answers, the error contract on hard stacks, independence."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from orthokern_numba import small

DTYPES = [np.float32, np.float64]
SIZES = [1, 2, 3, 4, 5, 8, 11, 16, 17, 32]


def factor(x, completion="unitary", rcond=None):
    return small.batched_polar(x, completion=completion, rcond=rcond)


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def scaled(members, dtype):
    x = np.array(members, dtype=dtype)
    exponent = np.frexp(np.max(np.abs(x), axis=(1, 2)))[1]
    return np.ldexp(x, -exponent[:, None, None]).astype(dtype)


def spectra(n, exponent):
    small_one = 10.0**-exponent
    half = np.arange(n) < n // 2
    yield np.logspace(0, -exponent, n)
    yield np.where(np.arange(n) == n - 1, small_one, 1.0)
    yield np.where(np.arange(n) == 0, 1.0, small_one)
    yield np.where(half, 1.0, small_one)
    yield np.where(half, 1 + 1e-9 * np.arange(n), small_one * (1 + 1e-9 * np.arange(n)))


def hard_stack(n, dtype, *, deficient=True):
    rng = np.random.default_rng(n)
    limit = 16.0 if dtype == np.float64 else np.log10(1 / (10 * n * np.finfo(np.float32).eps))
    members = [
        orthogonal(rng, n) * spectrum @ orthogonal(rng, n) * np.where(np.arange(n) == 0, sign, 1)
        for exponent in np.linspace(0, limit, 9)
        for spectrum in spectra(n, exponent)
        for sign in (1, -1)
    ]
    i = np.arange(n)
    members += [
        np.eye(n),
        -np.eye(n),
        np.eye(n)[::-1],
        orthogonal(rng, n),
        np.triu(np.ones((n, n))),
    ]
    members += [np.diag(rng.standard_normal(n)), np.roll(np.eye(n), 1, axis=0)]
    if deficient:
        members += [np.zeros((n, n)), np.ones((n, n)), 1 / (1.0 + i[:, None] + i), np.eye(n, k=1)]
        members += [
            np.round(3 * rng.standard_normal((n, r))) @ rng.standard_normal((r, n))
            for r in range(n)
        ]
        members += [np.diag(10.0 ** (-8.0 * i)), np.diag(10.0 ** (-30.0 * (i % 10)))]
    return scaled(members, dtype)


def errors(x, u):
    """Orthogonality, backward error and negativity of H, each over its limit."""
    n, eps = x.shape[-1], np.finfo(x.dtype).eps
    a, v = x.astype(np.longdouble), u.astype(np.longdouble)
    product = np.einsum("bki,bkj->bij", v, a)
    h = (product + product.swapaxes(1, 2)) / 2

    def norm(y):
        return np.sqrt(np.sum(y * y, axis=(1, 2)))

    size = np.where(norm(a) == 0, 1, norm(a))
    lowest = np.linalg.eigvalsh(h.astype(np.float64))[:, 0]
    top = np.where(norm(a) == 0, 1, np.linalg.norm(x.astype(np.float64), 2, axis=(1, 2)))
    return (
        norm(np.einsum("bki,bkj->bij", v, v) - np.eye(n)) / (5 * n * eps),
        norm(a - np.einsum("bik,bkj->bij", v, h)) / size / (60 * eps),
        -lowest / top / (10 * n * eps),
    )


def assert_contract(x, u):
    assert u.shape == x.shape
    assert u.dtype == x.dtype
    for error in errors(x, u):
        assert np.all(error <= 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (
            [[1, 2], [3, 4]],
            [[-0.514495755427527, 0.857492925712544], [0.857492925712544, 0.514495755427527]],
        ),
        (
            [[2, -1, 0], [1, 3, 1], [0, 2, 1]],
            [
                [0.892775133748046, -0.385064623906842, 0.233832837678204],
                [0.428621406592925, 0.885828713480129, -0.177739078945631],
                [-0.138694810182143, 0.258906789771187, 0.955892788883208],
            ],
        ),
        ([[-3]], [[-1]]),
        ([[0, 2], [-2, 0]], [[0, 1], [-1, 0]]),
    ],
)
def test_known_answers(dtype, matrix, expected):
    u, _ = factor(scaled([matrix], dtype))
    np.testing.assert_allclose(u[0], expected, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_contract_on_hard_stacks(n, dtype):
    x = hard_stack(n, dtype)
    u, stats = factor(x)
    assert_contract(x, u)
    assert stats.shape == (x.shape[0], 20)
    assert stats.dtype == x.dtype
    assert np.all(np.isfinite(stats))
    assert np.all(stats[:, 1] >= np.finfo(dtype).eps)
    assert np.all(stats[:, 1] <= 5 * n * np.finfo(dtype).eps)


def test_contract_on_ill_conditioned_3_by_3():
    rng = np.random.default_rng(13)
    members = [
        orthogonal(rng, 3) * np.array([1, 10 ** -rng.uniform(0, 13), 1e-13]) @ orthogonal(rng, 3)
        for _ in range(2000)
    ]
    x = scaled(members, np.float64)
    assert_contract(x, factor(x)[0])


def test_near_singular_2_by_2():
    rng = np.random.default_rng(2)
    sides = rng.standard_normal((2, 500, 2))
    x = scaled(sides[0][:, :, None] * sides[1][:, None, :], np.float64)
    x = np.concatenate([x, np.nextafter(x, 1), scaled(np.round(8 * x), np.float64)])
    assert_contract(x, factor(x)[0])


@pytest.mark.parametrize("n", [3, 8, 32])
def test_float32_beyond_its_condition_is_orthonormal(n):
    rng = np.random.default_rng(n)
    x = scaled(
        [orthogonal(rng, n) * np.logspace(0, -k, n) @ orthogonal(rng, n) for k in range(8, 30)],
        np.float32,
    )
    u, _ = factor(x)
    assert np.all(errors(x, u)[0] <= 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 32])
def test_partial_keeps_the_rank(n, dtype):
    rng = np.random.default_rng(n)
    ranks = np.arange(n + 1)
    sides = [(orthogonal(rng, n)[:, :r], orthogonal(rng, n)[:r]) for r in ranks]
    x = scaled([p * np.linspace(1, 2, p.shape[1]) @ q for p, q in sides], dtype)
    u, _ = factor(x, "partial")
    expected = np.array([p @ q for p, q in sides])
    np.testing.assert_allclose(u, expected, atol=40 * n * np.finfo(dtype).eps)
    assert np.all(u[0] == 0)
    np.testing.assert_allclose(
        np.einsum("bij,bij->b", u, u), ranks, atol=40 * n * np.finfo(dtype).eps
    )


def test_partial_cuts_at_rcond():
    rng = np.random.default_rng(0)
    p, q = orthogonal(rng, 6), orthogonal(rng, 6)
    x = scaled([p * np.array([1, 0.9, 0.5, 0.09, 0.01, 1e-9]) @ q], np.float64)
    for rcond, rank in [(0.0, 6), (1e-3, 5), (0.05, 4), (0.1, 3), (0.95, 1)]:
        u, _ = factor(x, "partial", rcond)
        np.testing.assert_allclose(u[0], p[:, :rank] @ q[:rank], atol=1e-6 if rcond == 0 else 1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_partial_equals_unitary_at_full_rank(n):
    x = scaled(np.random.default_rng(n).standard_normal((20, n, n)), np.float64)
    np.testing.assert_array_equal(factor(x, "partial")[0], factor(x)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16, 32])
def test_members_do_not_see_their_neighbours(n, dtype):
    x = hard_stack(n, dtype)
    u, stats = factor(x)
    order = np.random.default_rng(0).permutation(x.shape[0])
    v, permuted = factor(x[order])
    np.testing.assert_array_equal(v, u[order])
    np.testing.assert_array_equal(permuted, stats[order])
    for t in range(0, x.shape[0], 7):
        alone, one = factor(x[t : t + 1])
        np.testing.assert_array_equal(alone[0], u[t])
        np.testing.assert_array_equal(one[0], stats[t])


@pytest.mark.parametrize("n", [2, 3, 9])
def test_strided_and_read_only_input(n):
    rng = np.random.default_rng(n)
    x = scaled(rng.standard_normal((11, n, n)), np.float64)
    u, _ = factor(x)
    wide = np.zeros((22, n, 2 * n))
    wide[::2, :, ::2] = x
    np.testing.assert_array_equal(factor(wide[::2, :, ::2])[0], u)
    np.testing.assert_array_equal(factor(x.swapaxes(1, 2).copy().swapaxes(1, 2))[0], u)
    frozen = x.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(factor(frozen)[0], u)
    np.testing.assert_array_equal(frozen, x)
    assert factor(frozen)[0].flags.writeable


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_input_is_not_written_to(n):
    x = hard_stack(n, np.float64)
    before = x.copy()
    for completion in ("unitary", "partial"):
        u, _ = factor(x, completion)
        assert not np.shares_memory(u, x)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("n", [1, 2, 3, 32])
def test_empty_batch(n):
    u, stats = factor(np.empty((0, n, n), dtype=np.float32))
    assert u.shape == (0, n, n)
    assert stats.shape == (0, 20)


@pytest.mark.parametrize("n", [3, 8])
def test_stats(n):
    rng = np.random.default_rng(n)
    x = scaled(
        [orthogonal(rng, n) * np.logspace(0, -k, n) @ orthogonal(rng, n) for k in range(10)],
        np.float64,
    )
    _, stats = factor(x)
    iterations = stats[:, 0].astype(int)
    assert np.all(iterations >= 1)
    assert np.all(iterations <= 10)
    ratio = 10.0 ** -np.arange(10)
    assert np.all(stats[:, 3] <= ratio * (1 + 1e-6))
    assert np.all(stats[:, 3] >= ratio / (2 * n))
    np.testing.assert_array_equal(stats[:, 4:], np.arange(16) < iterations[:, None])


@pytest.mark.parametrize("n", [4, 8])
def test_a_frozen_lane_waits_for_its_neighbours(n):
    rng = np.random.default_rng(n)
    easy = orthogonal(rng, n)
    hard = orthogonal(rng, n) * np.logspace(0, -15, n) @ orthogonal(rng, n)
    x = scaled([easy] + [hard] * 7, np.float64)
    _, stats = factor(x)
    assert stats[0, 0] < stats[1, 0]
    np.testing.assert_array_equal(factor(x)[0][0], factor(x[:1])[0][0])


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 4), (1, 33, 33), (1, 0, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="x has shape"):
        factor(np.ones(shape))


@pytest.mark.parametrize("dtype", [np.complex128, np.float16, np.int64, ">f8"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="x has dtype"):
        factor(np.ones((1, 2, 2), dtype=dtype))
