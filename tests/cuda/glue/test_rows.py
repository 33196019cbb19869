"""Passes over rows, and QR by Cholesky, on the stand-in."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_cupy import rows
from orthokern_cupy.rows import normal_equations, residual_gradient, thin_qr, whitened_gram

from . import fake_cupy
from .conftest import read, with_spectrum

DTYPES = ["float64", "float32", "complex128", "complex64"]


def random(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)


def adjoint(x):
    return np.swapaxes(x, -1, -2).conj()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("block", [2**26, 40])
def test_passes_over_rows(cp, monkeypatch, dtype, batch, block):
    monkeypatch.setattr(rows, "BLOCK", block)
    a, b, x = (random((*batch, *s), dtype, i) for i, s in enumerate([(30, 5), (30, 2), (5, 2)]))
    on_device = [cp.asarray(v) for v in (a, b, x)]
    wide = [v.astype(np.result_type(dtype, "float64")) for v in (a, b, x)]
    g, c, squares = normal_equations(*on_device[:2], cp=cp)
    np.testing.assert_allclose(read(g), adjoint(wide[0]) @ wide[0], atol=1e-13)
    np.testing.assert_allclose(read(c), adjoint(wide[0]) @ wide[1], atol=1e-13)
    np.testing.assert_allclose(read(squares), (np.abs(wide[1]) ** 2).sum(-2), rtol=1e-13)
    r = wide[1] - wide[0] @ wide[2]
    gradient, squares = residual_gradient(*on_device, cp=cp)
    np.testing.assert_allclose(read(gradient), adjoint(wide[0]) @ r, atol=1e-12)
    np.testing.assert_allclose(read(squares), (np.abs(r) ** 2).sum(-2), rtol=1e-12)
    p = random((*batch, 5, 5), dtype, 7)
    y = wide[0] @ p.astype(wide[0].dtype)
    found = whitened_gram(on_device[0], cp.asarray(p), cp=cp)
    np.testing.assert_allclose(read(found), adjoint(y) @ y, atol=1e-12)
    assert g.dtype == found.dtype == gradient.dtype == wide[0].dtype
    assert fake_cupy.syncs.count == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decades", [0, 3, 7, 12])
def test_qr_by_cholesky_is_that_of_householder(cp, monkeypatch, dtype, decades):
    eps = np.finfo(dtype).eps
    decades = min(decades, -np.log10(eps) - 3)
    a = with_spectrum(np.random.default_rng(3), 200, np.logspace(0, -decades, 12), dtype)
    monkeypatch.setattr(cp.linalg, "qr", None)
    q, r = (read(x) for x in thin_qr(cp.asarray(a), cp=cp))
    np.testing.assert_allclose(q.conj().T @ q, np.eye(12), atol=20 * eps)
    np.testing.assert_allclose(q @ r, a, atol=20 * eps)
    np.testing.assert_array_equal(np.tril(r, -1), 0)
    assert (np.diagonal(r).real > 0).all()
    np.testing.assert_array_equal(np.diagonal(r).imag, 0)


@pytest.mark.parametrize(
    "a",
    [
        np.zeros((40, 3)),
        np.ones((40, 3)),
        random((2, 40, 3), "float64"),
        random((5, 4), "float64"),
        random((3, 7), "complex128"),
    ],
    ids=["zero", "rank one", "stack", "nearly square", "wide"],
)
def test_others_by_householder(cp, a):
    q, r = (read(x) for x in thin_qr(cp.asarray(a), cp=cp))
    np.testing.assert_allclose(q @ r, a, atol=1e-13)
    k = min(a.shape[-2:])
    np.testing.assert_allclose(
        adjoint(q) @ q, np.broadcast_to(np.eye(k), (*a.shape[:-2], k, k)), atol=1e-13
    )
    assert (np.diagonal(r, axis1=-2, axis2=-1).real >= 0).all()


def test_what_is_not_finite_ends(cp):
    a = random((40, 3), "float64")
    a[5, 1] = np.nan
    assert rows._by_cholesky(cp.asarray(a), cp) is None
