"""Fixtures of the tests that belong to one array library each."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from orthokern.testing.validation import available_backends


@pytest.fixture(params=available_backends())
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that can run on the processor here."""
    return str(request.param)


@pytest.fixture(params=available_backends()[1:])
def named_backend(request: pytest.FixtureRequest) -> str:
    """Each of them but the reference."""
    return str(request.param)


@pytest.fixture
def jax_double_precision() -> Iterator[None]:
    """64-bit types in JAX, however the process was started."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield


@pytest.fixture
def assert_script_passes() -> Callable[..., None]:
    """Runs a file of scripts/ in a process of its own, with more environment variables; its warnings are errors."""

    def run(name: str, **environment: str) -> None:
        script = pathlib.Path(__file__).parent / "scripts" / name
        done = subprocess.run(
            [sys.executable, "-W", "error", script],
            env=os.environ | environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout

    return run
