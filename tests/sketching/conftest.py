"""What the tests of sketching share: where a call runs, and arrays of each library."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from orthokern._core.dtypes import EPS, dtype_name
from orthokern.testing import libraries


class Place(NamedTuple):
    """Where a call runs."""

    library: str
    backend: str | None

    def __str__(self) -> str:
        return f"{self.library}-{self.backend or 'default'}"


# The default backend sees the arrays of all libraries as NumPy arrays; the reference differs with each of them.
PLACES = [Place("numpy", None), *(Place(name, "array-api") for name in libraries.available())]


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """The default backend on NumPy arrays, and the reference on the arrays of each installed library."""
    return request.param


def made(array, library: str, dtype: str = "float64"):
    """``array`` as an array of ``library`` in that precision."""
    return libraries.to_library(np.asarray(array, dtype=dtype), library)


def eps_of(x) -> float:
    """Unit of rounding of the dtype that ``x`` really has (JAX may have halved it)."""
    return EPS[dtype_name(x)]
