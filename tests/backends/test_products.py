"""Products by tiles or by BLAS, whichever pays: the same numbers, and the same results of what uses them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from orthokern_numba import cholesky_qr, layout, normal_equations, products, spectral
from threadpoolctl import threadpool_limits

from orthokern.sketching import cholesky_qr as qr_body
from orthokern.sketching import normal_equations as body

DTYPES = ["float32", "float64", "complex128"]
SHAPES = [(1, 1, 1), (9, 7, 5), (70, 33, 100), (300, 600, 40), (40, 600, 300)]


def normal(*shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)


def eps(x):
    return float(np.finfo(x.dtype).eps)


def test_blas_has_the_products_that_are_complex_or_on_several_threads(monkeypatch):
    monkeypatch.setattr(products, "_has_wide_registers", lambda: True)
    monkeypatch.setattr(products, "_blas_knows", lambda: False)
    with threadpool_limits(1, "blas"):
        assert products.tiles_pay(np.dtype("float64"))
        assert not products.tiles_pay(np.dtype("float64"), 64**3)
        assert products.tiles_pay(np.dtype("float32"))
        assert not products.tiles_pay(np.dtype("complex128"))
        monkeypatch.setattr(products, "_blas_knows", lambda: True)
        assert products.tiles_pay(np.dtype("float64"))
        assert not products.tiles_pay(np.dtype("float32"))
    with threadpool_limits(2, "blas"):
        assert not products.tiles_pay(np.dtype("float64"))


def test_blas_has_all_products_on_processors_of_narrow_registers(monkeypatch):
    monkeypatch.setattr(products, "_has_wide_registers", lambda: False)
    with threadpool_limits(1, "blas"):
        assert not products.tiles_pay(np.dtype("float64"))


@pytest.fixture(params=[False, True], ids=["blas", "tiles"])
def either_way(request, monkeypatch):
    for module in (products, normal_equations, cholesky_qr, spectral):
        monkeypatch.setattr(
            module,
            "tiles_pay",
            lambda dtype, work=1: request.param and dtype.kind == "f" and work > 0,
        )


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("either_way")
def test_products(dtype, shape, orders):
    n, d, k = shape
    x, y = normal(n, d, dtype=dtype), normal(d, k, dtype=dtype, seed=1)
    z = normal(n, k, dtype=dtype, seed=2)
    x, y, z = (
        np.asarray(x, order=orders[0]),
        np.asarray(y, order=orders[1]),
        np.asarray(z, order=orders[1]),
    )
    found = products.multiplied(x, y)
    assert found.flags.c_contiguous or orders[0] == "F"
    assert np.all(np.abs(found - x @ y) <= 4 * d * eps(x) * (np.abs(x) @ np.abs(y)))
    adjoint = products.adjoint_multiplied(x, z)
    assert np.all(np.abs(adjoint - x.conj().T @ z) <= 4 * n * eps(x) * (np.abs(x.T) @ np.abs(z)))


@pytest.mark.parametrize("orders", ["CC", "CF", "FF"])
@pytest.mark.parametrize("d", [1, 30, 150])
@pytest.mark.usefixtures("either_way")
def test_of_a_hermitian_product_one_triangle_is_enough(d, orders):
    q = np.linalg.qr(normal(400, d))[0]
    x = q @ (normal(d, d) + normal(d, d).T)
    arrays = [np.asarray(v, order=order) for v, order in zip((q, x), orders, strict=True)]
    found = products.adjoint_multiplied(*arrays, hermitian=True)
    np.testing.assert_allclose(found, q.T @ x, atol=1e-13)


@pytest.mark.usefixtures("either_way")
def test_an_array_with_gaps_between_its_entries():
    x, y = normal(200, 60)[:, ::3], normal(60, 100)[::3, ::2]
    np.testing.assert_allclose(products.multiplied(x, y), x @ y, atol=1e-13)
    np.testing.assert_allclose(products.adjoint_multiplied(x, x), x.T @ x, atol=1e-12)
    np.testing.assert_allclose(np.triu(products.upper_gram(x)), np.triu(x.T @ x), atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 3), (300, 70), (70, 70)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("either_way")
def test_upper_triangles_of_gram_matrices(dtype, shape, order):
    x = np.asarray(normal(*shape, dtype=dtype), order=order)
    g = np.full((shape[1],) * 2, np.nan, dtype=dtype, order="F")
    bound = 8 * shape[0] * eps(x) * np.abs(x.T) @ np.abs(x)
    products.write_upper_gram(0.5, x, g)
    assert np.all(np.triu(np.abs(g - x.conj().T @ x / 2)) <= bound)
    if order == "F":
        products.write_upper_gram(0.5, x, g, beta=1.0)
        assert np.all(np.triu(np.abs(g - x.conj().T @ x)) <= bound)


@pytest.mark.parametrize(("scale", "beta"), [(1.0, 0.0), (0.5, 1.0), (2.0, -3.0)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("either_way")
def test_times_hermitian_of_which_one_triangle_is_given(dtype, scale, beta):
    x, h, old = (np.asfortranarray(normal(*s, dtype=dtype)) for s in ((90, 70), (70, 70), (90, 70)))
    h = np.asfortranarray(h + h.conj().T)
    expected = scale * x @ h + beta * old
    out = np.asfortranarray(old) if beta else np.full_like(old, np.nan)
    upper = np.asfortranarray(np.triu(h) + np.tril(normal(70, 70, dtype=dtype), -1))
    products.add_times_hermitian(scale, x, upper, out, beta=beta)
    np.testing.assert_allclose(out, expected, atol=2000 * eps(x))


@pytest.mark.parametrize("n", [1, 9, 130, 300])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("either_way")
def test_an_inverse(dtype, n):
    x = np.asfortranarray(normal(n, n, dtype=dtype))
    inverse, order = x.copy(order="F"), np.empty(n, np.int64)
    work = np.empty((n // 2 + 8) ** 2 + n * n, dtype)
    assert layout.invert(products.carrier(n, x.dtype), inverse.T, work, order)
    found = np.empty_like(inverse)
    found[:, order] = inverse
    limit = 50 * n * eps(x) * np.linalg.cond(x)
    assert np.linalg.norm(found @ x - np.eye(n)) <= limit


@pytest.mark.parametrize("condition", [1.5, 1e8, 1e13])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(130, 130), (400, 100)])
@pytest.mark.usefixtures("either_way")
def test_polar_factors(shape, order, condition):
    m, n = shape
    u, v = np.linalg.qr(normal(m, n))[0], np.linalg.qr(normal(n, n, seed=1))[0]
    a = np.asarray((u * np.geomspace(1, 1 / condition, n)) @ v, order=order)
    found, h, _ = spectral.polar_factors(a / np.abs(a).max() * 0.9, completion="unitary")
    assert np.linalg.norm(found.T @ found - np.eye(n), 2) <= 1e-14
    assert np.linalg.norm(found @ h - a / np.abs(a).max() * 0.9) <= 1e-13 * np.linalg.norm(h)


@pytest.mark.parametrize(
    "shapes",
    [((2, 3, 90, 60), 70), ((4, 3), 2), ((0, 90, 60), 70), ((2, 0, 5), 3), ((90, 60), 0)],
    ids=str,
)
@pytest.mark.usefixtures("either_way")
def test_stacks_are_multiplied_member_by_member(shapes):
    shape, k = shapes
    a, b, c = normal(*shape), normal(*shape[:-2], shape[-1], k), normal(*shape[:-1], k)
    np.testing.assert_allclose(products.stacked_product(a, b, adjoint=False), a @ b, atol=1e-12)
    expected = np.swapaxes(a, -1, -2) @ c
    np.testing.assert_allclose(products.stacked_product(a, c, adjoint=True), expected, atol=1e-12)


@pytest.mark.usefixtures("either_way")
def test_factors_of_different_precision_meet_in_the_higher_one():
    a, b = normal(90, 60), normal(60, 70, dtype="float32")
    np.testing.assert_allclose(products.stacked_product(a, b, adjoint=False), a @ b, atol=1e-12)
    white = normal_equations.whitened_gram(a.astype("float32"), np.triu(b[:, :60]))
    y = a.astype("float32").astype(float) @ np.triu(b[:, :60])
    np.testing.assert_allclose(white, y.T @ y, atol=1e-10)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.usefixtures("either_way")
def test_sums_over_rows_are_those_of_the_body(dtype, order):
    a = np.asarray(normal(2, 900, 37, dtype=dtype), order=order)
    b = normal(2, 900, 2, dtype=dtype, seed=1)
    p = np.triu(normal(2, 37, 37, seed=2)).astype("complex128" if "c" in dtype else "float64")
    pairs = [
        (normal_equations.normal_equations(a, b), body.normal_equations.body(a, b)),
        ([normal_equations.whitened_gram(a, p)], [body.whitened_gram.body(a, p)]),
        ([normal_equations.whitened_gram(a, p + 1)], [body.whitened_gram.body(a, p + 1)]),
    ]
    for found, expected in pairs:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-11 * np.abs(other).max())


@pytest.mark.usefixtures("either_way")
def test_a_rough_gram_matrix_is_right_to_single_precision():
    a = normal(3000, 37)
    found = normal_equations.rough_gram(a)
    np.testing.assert_allclose(found, a.T @ a, atol=3e-5 * 3000)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("condition", [1.0, 1e12])
@pytest.mark.usefixtures("either_way")
def test_factors_are_those_of_householder(condition, order):
    u, v = np.linalg.qr(normal(2500, 37))[0], np.linalg.qr(normal(37, 37, seed=1))[0]
    a = (u * np.geomspace(1, 1 / condition, 37)) @ v
    q, r = cholesky_qr.thin_qr(np.asarray(a, order=order), seed=0)
    assert np.linalg.norm(q.T @ q - np.eye(37), 2) < 5e-15
    assert np.linalg.norm(a - q @ r) < 5e-15
    np.testing.assert_allclose(r, qr_body.thin_qr.body(a, seed=0)[1], atol=1e-13)
