"""What the tests of the mechanism share: an op of their own, backends for it, the frameworks by name."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from orthokern._core import dispatch
from orthokern.backend import Backend
from orthokern.testing.validation import available_backends

from ..helpers.outside import registered


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


@pytest.fixture(params=available_backends())
def backend(request):
    """The reference, and each installed backend that can run on the processor."""
    return request.param


@pytest.fixture
def double():
    """An op that doubles an array, known as long as the test runs."""

    @dispatch.op()
    def double(x, /, *, more=0):
        return 2 * x + more

    yield double
    del dispatch.OPS["double"]


@pytest.fixture
def stranger(double):
    """Make backends that answer ``double`` with a constant of theirs, or as ``run`` says; known during the test."""
    with ExitStack() as stack:

        def make(name, value=0.0, *, run=None, when=None, op="double", **options):
            backend = Backend(name, **{"serves": {("numpy", "cpu")}} | options)
            backend.implements(op, when=when)(run or (lambda x, **static: np.full_like(x, value)))
            stack.enter_context(registered(backend))
            return backend

        yield make
