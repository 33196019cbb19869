"""What the tests of inverse problems share: arrays of each library that decomposes stacks, and distances."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern._core.dtypes import EPS, dtype_name
from orthokern.testing import libraries


@pytest.fixture(params=[name for name in libraries.available() if name != "dask"])
def solving_library(request: pytest.FixtureRequest) -> str:
    """Each installed library that decomposes stacks of matrices."""
    return str(request.param)


def made(array, library: str, dtype: str = "float64"):
    """``array`` as an array of ``library`` in that precision; complex stays complex."""
    array = np.asarray(array)
    return libraries.to_library(array.astype(libraries.dtype_for(array, dtype)), library)


def assert_near(found, expected, units, scale=1.0):
    """Within so many units of rounding of the dtype that the result has."""
    error = np.abs(libraries.to_numpy(found) - expected)
    assert np.all(error <= units * EPS[dtype_name(found)] * scale), np.max(error)


def apart(found, expected) -> float:
    """Relative distance of vectors after the best scalar."""
    found, expected = np.ravel(found), np.ravel(expected)
    factor = np.vdot(found, expected) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - expected) / np.linalg.norm(expected))
