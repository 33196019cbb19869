"""Two eigenvectors and an inverse by LAPACK: equal to all eigenvectors, also where a routine gives up."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from orthokern_numba import eigenpairs
from orthokern_numba.eigenpairs import lowest_pairs

from orthokern.inverse import eigenpairs as body

DTYPES = ["float64", "complex128"]


def hermitian(values, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    n = len(values)
    z = rng.standard_normal((n, n))
    q, _ = np.linalg.qr(z + 1j * rng.standard_normal((n, n)) if "complex" in dtype else z)
    h = (q * values) @ q.conj().T
    return ((h + h.conj().T) / 2).astype(dtype)


def inverse_of(pair, root):
    outside = np.eye(len(root)) - pair[:, :1] @ pair[:, :1].conj().T
    return outside @ root @ root.conj().T @ outside


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("least", [0.0, 1e-14, 1e-3])
def test_it_is_the_body(dtype, least):
    h = hermitian(np.r_[least, np.linspace(0.1, 1, 49)], dtype)
    found, expected = lowest_pairs(h), body.lowest_pairs.body(h)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-14)
    for k in range(2):
        assert abs(np.vdot(found[1][:, k], expected[1][:, k])) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(inverse_of(*found[1:]), inverse_of(*expected[1:]), atol=1e-12)
    x = np.arange(50.0)
    applied = body.inverse_above(found[1][:, 0], found[2], x)
    np.testing.assert_allclose(applied, inverse_of(*found[1:]) @ x, atol=1e-11)


@pytest.fixture
def all_vectors(monkeypatch):
    """How often all eigenvectors were computed."""
    calls, right = [], eigenpairs._by_all_vectors
    monkeypatch.setattr(eigenpairs, "_by_all_vectors", lambda h: calls.append(1) or right(h))
    return calls


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (np.linspace(0.1, 1, 40), 0),
        (np.r_[0.0, 0.0, np.linspace(0.1, 1, 38)], 1),
        (np.zeros(40), 1),
        (np.linspace(0.1, 1, 20), 1),
    ],
    ids=["plain", "two zeros", "zero", "small"],
)
def test_who_takes_all_vectors(all_vectors, values, times):
    found = lowest_pairs(hermitian(values))
    assert len(all_vectors) == times
    assert all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoupled_rows(dtype):
    """Rows that were moved out of the way leave zeros beside the diagonal."""
    h = hermitian(np.linspace(0.1, 1, 40), dtype)
    h[3], h[:, 3], h[3, 3] = 0, 0, 5
    values, pair, root = lowest_pairs(h)
    np.testing.assert_allclose(h @ pair, pair * values[:2], atol=1e-13)
    outside = np.eye(40) - pair[:, :1] @ pair[:, :1].conj().T
    np.testing.assert_allclose(h @ inverse_of(pair, root), outside, atol=1e-11)


def test_a_diagonal_matrix_of_equal_entries(all_vectors):
    values, pair, _ = lowest_pairs(2 * np.eye(40))
    np.testing.assert_array_equal(values, 2)
    np.testing.assert_allclose(pair.T @ pair, np.eye(2), atol=1e-14)


@pytest.mark.parametrize("routine", ["vectors", "turned", "potrf"])
def test_wrong_vectors_and_failures_are_noticed(all_vectors, monkeypatch, routine):
    h = hermitian(np.linspace(0.1, 1, 40))
    lapack = eigenpairs._lapack(h.dtype)
    right = getattr(lapack, routine)

    def spoiled(*arguments, **options):
        found = list(right(*arguments, **options))
        if routine == "potrf":
            found[-1] = 3
        else:
            found[0] = np.roll(found[0], 1, axis=0)
        return tuple(found)

    monkeypatch.setattr(eigenpairs, "_lapack", lambda dtype: lapack._replace(**{routine: spoiled}))
    values, pair, _ = lowest_pairs(h)
    assert all_vectors
    np.testing.assert_allclose(h @ pair, pair * values[:2], atol=1e-13)
