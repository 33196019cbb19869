"""The op behind soft thresholds: what it makes of numbers, arrays and complex entries, on every array library."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern.spectral import optimizer
from orthokern.testing.libraries import to_library, to_numpy

X = np.array([[-3.0, 0.5, 2.0], [0.0, -0.5, -1.25]])
LIMITS = {"number": 1.0, "scalar": np.asarray(1.0), "rows": np.array([[1.0], [0.25]])}
MOVED = {
    "number": [[-2.0, 0.0, 1.0], [0.0, 0.0, -0.25]],
    "scalar": [[-2.0, 0.0, 1.0], [0.0, 0.0, -0.25]],
    "rows": [[-2.0, 0.0, 1.0], [0.0, -0.25, -1.0]],
}


def given(limit, dtype, library):
    return limit if isinstance(limit, float) else to_library(limit.astype(dtype), library)


@pytest.mark.parametrize("limit", LIMITS)
def test_entries_move_towards_zero(library, dtype, limit):
    x = to_library(X.astype(dtype), library)
    moved = optimizer.soft_threshold(x, given(LIMITS[limit], dtype, library))
    assert type(moved) is type(x)
    assert moved.dtype == x.dtype
    np.testing.assert_array_equal(to_numpy(moved), MOVED[limit])


@pytest.mark.parametrize("limit", LIMITS)
def test_complex_entries_keep_their_phase(library, limit):
    phase = np.exp(1j * np.arange(6).reshape(2, 3))
    x = to_library(X * phase, library)
    moved = to_numpy(optimizer.soft_threshold(x, given(LIMITS[limit], "float64", library)))
    # JAX computes in single precision by default.
    np.testing.assert_allclose(moved, MOVED[limit] * phase, atol=1e-6)


def test_kernels_run_the_op():
    with orthokern.explain() as report:
        optimizer.soft_threshold(X, 1.0)
        optimizer.outlier_split(X)
    assert [line.op for line in report] == ["shrink", "magnitude_quantile"]


def test_a_split_is_what_the_threshold_leaves(dtype):
    x = X.astype(dtype)
    base, outlier, threshold = optimizer.outlier_split(x, threshold=1.0)
    np.testing.assert_array_equal(outlier, MOVED["number"])
    np.testing.assert_array_equal(base, np.clip(x, -1, 1))
    assert (threshold.dtype, threshold) == (x.dtype, 1.0)
