"""Sparse sketches on the device, against the bodies of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import hashing, hashing_kernels

from orthokern.sketching.hashing import gathered_rows, scattered_rows

from .fibers import Place

HASHED = {"seed": 2**63 + 5, "start": 0, "stream": 1, "group": 0}
SHAPES = [
    # rows, nnz, shape
    (8, 1, (20, 3)),
    (9, 3, (40, 5)),
    (5, 5, (2, 9, 1)),
    (140, 1, (30, 2)),
]


def assert_close(found, wanted, dtype):
    assert (found.dtype, found.shape) == (dtype, wanted.shape)
    atol = 20 * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("rows", "nnz", "shape"), SHAPES[:2])
def test_scattering_is_that_of_the_body(everywhere, rng, rows, nnz, shape, dtype):
    a = rng.standard_normal(shape).astype(dtype)
    options = {"rows": rows, "nnz": nnz} | HASHED
    # Every order of the threads gives the same bits.
    found = everywhere(lambda place: hashing.scattered_rows(place, a, **options))
    assert_close(found, scattered_rows.body(a.astype(float), **options), dtype)


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize(("rows", "nnz", "shape"), SHAPES)
def test_complex_rows_of_any_block(rng, monkeypatch, rows, nnz, shape, dtype):
    monkeypatch.setattr(hashing, "_ROWS", 7)
    a = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    options = {"rows": rows, "nnz": nnz} | HASHED | {"start": 90, "stream": 6, "group": 2}
    found = hashing.scattered_rows(Place("backward"), a, **options)
    assert_close(found, scattered_rows.body(a.astype(complex), **options), dtype)


def test_columns_and_members_beyond_a_grid(rng, monkeypatch):
    monkeypatch.setattr(hashing, "_MOST_GROUPS", 1)
    a = rng.standard_normal((2, 6, 40))
    options = {"rows": 4, "nnz": 2} | HASHED
    found = hashing.scattered_rows(Place(), a, **options)
    assert_close(found, scattered_rows.body(a, **options), "float64")
    back = {"stop": 6, "nnz": 2} | HASHED
    assert_close(
        hashing.gathered_rows(Place(), found, **back), gathered_rows.body(found, **back), "float64"
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("s", "nnz", "stop"), [(8, 1, 4), (12, 6, 6), (130, 130, 3)])
def test_gathering_is_that_of_the_body(everywhere, rng, s, nnz, stop, dtype):
    y = rng.standard_normal((s, 3)).astype(dtype)
    options = {"stop": stop, "nnz": nnz} | HASHED | {"start": 2}
    found = everywhere(lambda place: hashing.gathered_rows(place, y, **options))
    assert_close(found, gathered_rows.body(y.astype(float), **options), dtype)


def test_nothing_to_add():
    options = {"rows": 4, "nnz": 2} | HASHED
    none = hashing.scattered_rows(Place(), np.ones((3, 0)), **options)
    assert none.shape == (4, 0)
    empty = hashing.scattered_rows(Place(), np.ones((0, 2)), **options)
    np.testing.assert_array_equal(empty, np.zeros((4, 2)))


def test_a_wrong_shift_would_be_seen(rng, monkeypatch):
    a = rng.standard_normal((30, 2))
    options = {"rows": 8, "nnz": 2} | HASHED
    wanted = scattered_rows.body(a, **options)
    monkeypatch.setattr(hashing_kernels, "_SHIFT", np.uint64(32))
    found = hashing.scattered_rows(Place(), a, **options)
    assert not np.allclose(found, wanted)
