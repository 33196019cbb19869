"""Products by tiles of registers: equal to NumPy's at every edge, in place, and as stable as substitution is."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from hypothesis import given
from hypothesis import strategies as st
from orthokern_numba import panels, products

# One register, its neighbours, a full tile and its neighbours, several tiles.
COLUMNS = [1, 7, 8, 9, 16, 23, 24, 25, 61, 100]
ROWS = [1, 7, 8, 9, 24, 25, 300]


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def triangle(d, condition=10.0, seed=0):
    """Upper triangular with singular values from 1 down to the reciprocal of ``condition``."""
    if d == 1:
        return np.ones((1, 1))
    u, v = (np.linalg.qr(normal(d, d, seed=seed + k))[0] for k in range(2))
    return np.linalg.qr((u * np.geomspace(1, 1 / condition, d)) @ v.T)[1]


def gram(x, size=128):
    total, out = products.TiledGram(x.shape[1], x.dtype), np.empty((x.shape[1],) * 2, x.dtype)
    for start in range(0, len(x), size):
        total.add(x[start : start + size])
    total.write(out)
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", COLUMNS)
@pytest.mark.parametrize("n", ROWS)
def test_a_gram_matrix(n, d, dtype):
    x = normal(n, d, dtype=dtype)
    bound = 4 * np.sqrt(n) * np.finfo(dtype).eps * np.abs(x.T) @ np.abs(x)
    assert np.all(np.abs(gram(x) - x.astype("float64").T @ x) <= bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", COLUMNS)
@pytest.mark.parametrize("n", ROWS)
def test_times_a_triangle_also_in_place(n, d, dtype):
    x, t = normal(n, d, dtype=dtype), np.triu(normal(d, d, dtype=dtype, seed=1))
    bound = (d + 1) * np.finfo(dtype).eps * np.abs(x) @ np.abs(t)
    out, same = np.full_like(x, np.nan), x.copy()
    for source, target in ((x, out), (same, same)):
        panels.times_upper(source, products.panels_of(t), target)
        assert np.all(np.abs(target - x.astype("float64") @ t) <= bound)


@pytest.mark.parametrize("condition", [2.0, 1e8, 1e15])
@pytest.mark.parametrize("d", COLUMNS)
@pytest.mark.parametrize("n", ROWS)
def test_every_quotient_solves_a_system_nearby_also_in_place(n, d, condition):
    x, r = normal(n, d), triangle(d, condition)
    out, same = np.full_like(x, np.nan), x.copy()
    for source, target in ((x, out), (same, same)):
        panels.divide(source, products.divisor_of(r), target)
        wrong = np.abs(target @ r - x)
        assert np.all(wrong <= 4 * (d + 1) * np.finfo(float).eps * np.abs(target) @ np.abs(r))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_products_of_any_shape(n, d, seed):
    x, r = normal(n, d, seed=seed), triangle(d, seed=seed)
    np.testing.assert_allclose(gram(x, size=16), x.T @ x, atol=1e-13 * n)
    panels.divide(x, products.divisor_of(r), x)
    back = np.empty_like(x)
    panels.times_upper(x, products.panels_of(r), back)
    np.testing.assert_allclose(back, normal(n, d, seed=seed), atol=1e-13 * d)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("n", "d"), [(5, 9), (8, 16), (9, 23)])
def test_panels_are_zero_beyond_the_columns(n, d, turned):
    """Or what lay there, which may be slow to compute with."""
    x, packed = normal(n, d), products.empty_panels(n, d, np.dtype("float64"))
    packed[...] = np.nan
    if turned:
        panels.pack_turned(np.ascontiguousarray(x.T), packed)
    else:
        panels.pack(x, packed)
    rows = packed.transpose(1, 0, 2).reshape(n, -1)
    assert np.array_equal(rows[:, :d], x)
    assert not rows[:, d:].any()


def test_rows_do_not_meet_what_is_not_finite_in_others():
    x, r = normal(30, 20), triangle(20)
    x[3, 2], x[28, 0] = np.nan, np.inf
    hit = np.isin(np.arange(30), [3, 28])
    for function, factor in (
        (panels.times_upper, products.panels_of(r)),
        (panels.divide, products.divisor_of(r)),
    ):
        out = np.zeros_like(x)
        function(x, factor, out)
        assert np.array_equal(np.isfinite(out).all(axis=1), ~hit)


def test_a_zero_on_the_diagonal_is_seen():
    r, out = np.diag([1.0, 0.0, 2.0]), np.zeros((4, 3))
    panels.divide(normal(4, 3), products.divisor_of(r), out)
    assert np.isfinite(out[:, 0]).all()
    assert not np.isfinite(out[:, 1]).any()


def test_powers_of_two_in_the_columns_change_no_bit():
    scale = 2.0 ** np.linspace(-500, 500, 40).round()
    x, r = normal(50, 40), triangle(40)
    plain, scaled = np.empty_like(x), np.empty_like(x)
    panels.divide(x, products.divisor_of(r), plain)
    panels.divide(x * scale, products.divisor_of(r * scale), scaled)
    assert np.array_equal(scaled, plain)


def test_rows_that_are_read_only_and_far_apart():
    x = normal(50, 64)[:, :17]
    x.flags.writeable = False
    r, out = triangle(17), np.empty((50, 17))
    np.testing.assert_allclose(gram(x), x.T @ x, atol=1e-12)
    panels.divide(x, products.divisor_of(r), out)
    np.testing.assert_allclose(out @ r, x, atol=1e-13)
    panels.times_upper(x, products.panels_of(r), out)
    np.testing.assert_allclose(out, x @ r, atol=1e-13)
