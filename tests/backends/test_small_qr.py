"""Reflections for small problems: the factors are those of LAPACK but for signs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from orthokern_numba.small_qr import damped_factor, factorized


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (12, 5), (40, 40)])
def test_factors(rng, shape):
    a, b = rng.standard_normal(shape), rng.standard_normal((shape[0], 2))
    columns, right, r = a.T.copy(), b.T.copy(), np.empty((shape[1], shape[1]))
    factorized(columns, right, r)
    q, expected = np.linalg.qr(a)
    signs = np.sign(np.diagonal(expected) * np.diagonal(r))
    np.testing.assert_allclose(signs[:, None] * r, expected, rtol=0, atol=1e-13)
    turned = signs[:, None] * right.T[: shape[1]]
    np.testing.assert_allclose(turned, q.T @ b, rtol=0, atol=1e-13)


def test_a_column_of_zeros(rng):
    a = rng.standard_normal((6, 3))
    a[:, 1] = 0
    columns, r = a.T.copy(), np.empty((3, 3))
    factorized(columns, np.empty((0, 6)), r)
    np.testing.assert_allclose(r.T @ r, a.T @ a, rtol=0, atol=1e-14)
    assert r[1, 1] == 0


@pytest.mark.parametrize("shift", [0.0, 1e-20, 0.3, 1e10])
@pytest.mark.parametrize("d", [1, 2, 17])
def test_damped_factors(rng, d, shift):
    r = np.triu(rng.standard_normal((d, d))) * np.geomspace(1, 1e-8, d)
    out = np.empty((d, d))
    damped_factor(r, shift, np.empty((d, d)), out)
    assert not np.tril(out, -1).any()
    below = np.concatenate([r, shift**0.5 * np.eye(d)])
    expected = np.linalg.qr(below, mode="r")
    signs = np.sign(np.diagonal(expected) * np.diagonal(out))
    size = np.linalg.norm(below, axis=0)
    assert np.all(np.abs(signs[:, None] * out - expected) <= 1e-14 * d * size)
