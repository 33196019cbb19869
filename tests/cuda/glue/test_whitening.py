"""Factors of small matrices on the stand-in: whiteners whiten, ranks are seen, and hard matrices get their answers."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_cupy.whitening import damped_norms, gram_whitener, triangular_whitener

from orthokern.sketching import whitening as bodies

from . import fake_cupy
from .conftest import read, with_spectrum

DTYPES = ["float64", "float32", "complex128", "complex64"]


def graded(d, decades, dtype="float64", rows=None):
    rng = np.random.default_rng(d)
    return with_spectrum(rng, rows or d, np.logspace(0, -decades, d), dtype)


def triangle(d, decades, dtype="float64"):
    return np.linalg.qr(graded(d, decades, dtype))[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decades", [0, 2])
def test_a_gram_matrix_is_whitened_without_a_look(cp, dtype, decades):
    x = graded(12, decades, dtype, rows=40)
    g = (x.conj().T @ x).astype(dtype)
    p, f, rcond = gram_whitener(cp.asarray(g), cp=cp)
    assert fake_cupy.syncs.count == 0
    eps = np.finfo(dtype).eps
    tight = 200 * eps * 10 ** (2 * decades)
    np.testing.assert_allclose(read(p).conj().T @ g @ read(p), np.eye(12), atol=tight)
    np.testing.assert_allclose(read(f).conj().T @ read(f), g, atol=50 * eps)
    np.testing.assert_allclose(read(f) @ read(p), np.eye(12), atol=tight)
    assert 10**-decades / 12 <= read(rcond) <= 12 * 10**-decades
    assert (p.dtype, rcond.dtype) == (dtype, fake_cupy.plain(p).real.dtype)


@pytest.mark.parametrize(
    "g",
    [
        np.array([[1.0, 1.0], [1.0, 1.0 - 1e-16]]),
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.array([[1.0, np.nan], [np.nan, 1.0]]),
        np.zeros((3, 3)),
        np.diag([1.0, 1e-70]),
    ],
    ids=["singular", "indefinite", "nan", "zero", "numerically singular"],
)
def test_what_is_not_definite_has_no_condition(cp, g):
    p, f, rcond = (read(x) for x in gram_whitener(cp.asarray(g), cp=cp))
    assert rcond == 0
    np.testing.assert_array_equal(p, np.eye(len(g)))
    np.testing.assert_array_equal(f, np.eye(len(g)))


def test_garbage_of_a_factorization_that_stopped_is_noticed(cp, monkeypatch):
    """What was not reached may look like a factor: here an identity."""
    monkeypatch.setattr(cp.linalg, "cholesky", lambda g: cp.eye(len(g), dtype=g.dtype))
    assert read(gram_whitener(cp.asarray(np.full((4, 4), 0.5) + 0.5 * np.eye(4)), cp=cp)[2]) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_triangle_is_inverted(cp, dtype):
    r = triangle(15, 2, dtype)
    p, f, rank, rcond = triangular_whitener(cp.asarray(r), cutoff=1e-6, cp=cp)
    assert fake_cupy.syncs.count == 1
    assert read(rank) == 15
    np.testing.assert_allclose(r @ read(p), np.eye(15), atol=1e3 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(read(f), r)
    assert 1e-2 / 15 <= read(rcond) <= 15e-2


@pytest.mark.parametrize("cutoff", [1e-15, 1e-3])
def test_ranks_are_those_of_the_singular_values(cp, cutoff):
    r = triangle(10, 5)
    r[-1, -1] = 0
    p, f, rank, rcond = (read(x) for x in triangular_whitener(cp.asarray(r), cutoff=cutoff, cp=cp))
    expected = [np.asarray(x) for x in bodies.triangular_whitener.body(r, cutoff=cutoff)]
    assert rank == expected[2] == np.sum(np.linalg.svd(r)[1] > cutoff)
    np.testing.assert_allclose(rcond, expected[3], rtol=1e-9)
    np.testing.assert_allclose(p @ p.T, expected[0] @ expected[0].T, rtol=1e-8)
    np.testing.assert_allclose(f.T @ f, expected[1].T @ expected[1], atol=1e-14)


def test_a_chosen_cutoff_is_decided_by_singular_values_where_estimates_could_err(cp):
    r = np.diag([1.0, 0.5, 1.2e-3])
    found = triangular_whitener(cp.asarray(r), cutoff=1e-3, cp=cp)
    assert read(found[2]) == 3
    assert read(triangular_whitener(cp.asarray(r), cutoff=1.3e-3, cp=cp)[2]) == 2


def test_a_triangle_that_is_not_finite_counts_as_the_identity(cp):
    r = np.array([[1.0, np.inf], [0.0, 1.0]])
    p, _, rank, rcond = (read(x) for x in triangular_whitener(cp.asarray(r), cutoff=1e-12, cp=cp))
    np.testing.assert_array_equal(np.abs(p), np.eye(2))
    assert (rank, rcond) == (2, 1)


@pytest.mark.parametrize("columns", [1, 3, 7])
@pytest.mark.parametrize("decades", [1, 6, 11])
@pytest.mark.parametrize("shift", [0.0, 1e-9, 2.0])
def test_damped_norms_are_those_of_the_body(cp, decades, columns, shift):
    rng = np.random.default_rng(columns)
    f, v = triangle(9, decades), rng.standard_normal((9, columns))
    shifts = np.full(columns, shift) * rng.random(columns)
    found = read(damped_norms(cp.asarray(f), cp.asarray(shifts), cp.asarray(v), cp=cp))
    # An error needs few digits: a Cholesky factor is taken as long as three are right.
    expected = bodies.damped_norms.body(f, shifts, v)
    np.testing.assert_allclose(found, expected, rtol=1e-11 if decades == 1 else 2e-3)


def test_stacks(cp):
    rng = np.random.default_rng(5)
    r = np.stack([triangle(6, 1), triangle(6, 2)])
    g, v, shift = np.swapaxes(r, -1, -2) @ r, rng.standard_normal((2, 6, 3)), rng.random((2, 3))
    p, f, rcond = (read(x) for x in gram_whitener(cp.asarray(g), cp=cp))
    np.testing.assert_allclose(np.swapaxes(p, -1, -2) @ g @ p, [np.eye(6)] * 2, atol=1e-9)
    np.testing.assert_allclose(f @ p, [np.eye(6)] * 2, atol=1e-11)
    assert ((rcond > 1e-3) & (rcond < 1)).all()
    p, _, rank, _ = (read(x) for x in triangular_whitener(cp.asarray(r), cutoff=1e-9, cp=cp))
    np.testing.assert_allclose(r @ p, [np.eye(6)] * 2, atol=1e-12)
    np.testing.assert_array_equal(rank, [6, 6])
    found = read(damped_norms(*map(cp.asarray, (r, shift, v)), cp=cp))
    np.testing.assert_allclose(found, bodies.damped_norms.body(r, shift, v), rtol=1e-9)


def test_directions_that_were_left_out_count_for_nothing(cp):
    f = np.diag([2.0, 1.0, 0.0])
    v = np.array([[1.0], [1.0], [5.0]])
    found = damped_norms(cp.asarray(f), cp.asarray(np.zeros(1)), cp.asarray(v), cp=cp)
    np.testing.assert_allclose(read(found), [1.25**0.5], rtol=1e-14)


def test_a_factor_that_is_not_finite_counts_as_the_identity(cp):
    f, v = np.array([[np.nan, 0.0], [0.0, 1.0]]), np.array([[3.0], [4.0]])
    found = damped_norms(cp.asarray(f), cp.asarray(np.zeros(1)), cp.asarray(v), cp=cp)
    np.testing.assert_allclose(read(found), [5.0], rtol=1e-14)
