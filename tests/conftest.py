"""Fixtures that all tests share: the array libraries installed here, and the promise of each environment."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from orthokern.testing import libraries

# Two processes that compile different signatures of a function at once may exchange what they store.
if "NUMBA_CACHE_DIR" in os.environ and "PYTEST_XDIST_WORKER" in os.environ:
    own_cache = Path(os.environ["NUMBA_CACHE_DIR"]) / os.environ["PYTEST_XDIST_WORKER"]
    os.environ["NUMBA_CACHE_DIR"] = str(own_cache)

REQUIRED = tuple(name for name in os.environ.get("ORTHOKERN_REQUIRE", "").split(",") if name)


def pytest_sessionstart() -> None:
    """Fail at once where a framework that this environment promises is missing: a skip would hide it."""
    absent = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if absent:
        pytest.exit(
            f"ORTHOKERN_REQUIRE names {', '.join(absent)}, which cannot be imported here",
            returncode=3,
        )


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20240229)


@pytest.fixture(params=libraries.available())
def library(request: pytest.FixtureRequest) -> str:
    """Each array library that is installed here."""
    return str(request.param)


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Each precision that the reference computes in."""
    return str(request.param)
