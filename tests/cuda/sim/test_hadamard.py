"""Walsh-Hadamard transforms on the device, against the body of the op."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import hadamard as launches
from orthokern_numba.gpu import hadamard_kernels

from orthokern.sketching.hadamard import hadamard

from .fibers import Place


def assert_close(found, wanted, dtype):
    assert (found.dtype, found.shape) == (dtype, wanted.shape)
    atol = 20 * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (32, 5)])
def test_it_is_that_of_the_body(everywhere, rng, shape, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    kept = x.copy()
    found = everywhere(lambda place: launches.hadamard(place, x))
    assert_close(found, hadamard.body(x.astype(float)), dtype)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("shape", [(2, 64, 1), (16, 6), (4, 40)])
def test_several_passes_over_parts_of_rows(rng, monkeypatch, shape, dtype):
    monkeypatch.setattr(hadamard_kernels, "TILE", 32)
    monkeypatch.setattr(launches, "_MOST_BLOCKS", 3)
    x = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    view = np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
    assert_close(
        launches.hadamard(Place("backward"), view), hadamard.body(x.astype(complex)), dtype
    )


def test_a_scale(everywhere, rng):
    x = rng.standard_normal((8, 3)) + 1j
    found = everywhere(lambda place: launches.hadamard(place, x, scale=0.3))
    assert_close(found, 0.3 * hadamard.body(x), "complex128")


def test_passes():
    assert launches.parts(0, 5) == []
    assert launches.parts(12, 1) == [12]
    assert launches.parts(21, 1) == [12, 9]
    assert sum(launches.parts(30, 100)) == 30


def test_nothing_to_transform():
    assert launches.hadamard(Place(), np.ones((0, 4, 2))).shape == (0, 4, 2)


def test_a_missing_stage_would_be_seen(rng, monkeypatch):
    x = rng.standard_normal((8, 2))
    monkeypatch.setattr(hadamard_kernels, "_twos", lambda *given: None)
    assert not np.allclose(launches.hadamard(Place(), x), hadamard.body(x))
