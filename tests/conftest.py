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
# The library of this environment: tests of the others, and of what sees NumPy's arrays alone, run elsewhere.
ALONE = os.environ.get("ORTHOKERN_LIBRARY", "")
# Folders of tests that depend on the library only where a parameter or a condition says so.
KERNELS = frozenset({"inverse", "sketching", "transport"})


def pytest_sessionstart() -> None:
    """Fail at once where a framework that this environment promises is missing: a skip would hide it."""
    absent = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if absent:
        pytest.exit(
            f"ORTHOKERN_REQUIRE names {', '.join(absent)}, which cannot be imported here",
            returncode=3,
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another environment runs."""
    left_out = [item for item in items if ALONE and not _concerns(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _concerns(item: pytest.Item) -> bool:
    """Whether a test has to do with the library of this environment."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    sources = [*parameters, getattr(item, "cls", None)]
    names = {x if isinstance(x, str) else getattr(x, "library", None) for x in sources}
    named = names.intersection(libraries.MODULES)
    if named:
        return ALONE in named
    return item.path.parent.name not in KERNELS or any(item.iter_markers("skipif"))


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
