"""What a caller is told while an engine runs."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern import (
    Entropy,
    OptionError,
    Points,
    SparsityConstrained,
    SquaredL2,
    Unregularized,
    sinkhorn,
    solve_ot,
)
from orthokern._core import progress

from .oracles import clouds

KINDS = {
    "squares": SquaredL2(0.01),
    "three entries": SparsityConstrained(3, 0.1),
    "entropy": Entropy(0.005),
    "linear": Unregularized(),
}


class Heard(list):
    """Listens: every pair of numbers it was told."""

    def __call__(self, steps, error):
        assert type(steps) is int
        assert type(error) is float
        self.append((steps, error))


@pytest.fixture(params=[None, "array-api"], ids=["default", "reference"])
def backend(request):
    return request.param


@pytest.mark.parametrize("name", KINDS)
def test_steps_rise_to_those_of_the_result(rng, name, backend):
    a, b, cost = clouds(rng, 40, 30)
    heard = Heard()
    method = "proximal" if name == "linear" else "auto"
    options = {"regularizer": KINDS[name], "backend": backend, "method": method}
    result = solve_ot(a, b, cost, progress=heard, **options)
    steps = [n for n, _ in heard]
    assert len(heard) > 1
    assert steps == sorted(steps)
    assert steps[-1] == result.info.iterations
    assert heard[-1][1] <= 1e-8
    silent = solve_ot(a, b, cost, **options)
    assert abs(silent.value - result.value) < 1e-8


@pytest.mark.parametrize("name", ["squares", "entropy"])
def test_points_tell_too(rng, name, backend, monkeypatch):
    monkeypatch.setattr("orthokern.transport.kinds.FORMED", 0)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal((30, 2))
    heard = Heard()
    a, b = np.full(40, 1 / 40), np.full(30, 1 / 30)
    given = SquaredL2(5.0) if name == "squares" else Entropy(0.5)
    result = solve_ot(
        a, b, Points(x, y), regularizer=given, progress=heard, backend=backend, plan="none"
    )
    assert len(heard) > 2
    assert heard[-1][0] == result.info.iterations


def test_a_listener_may_end_the_call(rng):
    a, b, cost = clouds(rng, 40, 30)

    def enough(steps, error):
        message = f"after {steps}"
        raise InterruptedError(message)

    with pytest.raises(InterruptedError, match="after"):
        sinkhorn(a, b, cost, epsilon=0.01, progress=enough)
    assert not progress.is_heard()


def test_what_cannot_be_called_is_refused(rng):
    a, b, cost = clouds(rng, 4, 3)
    with pytest.raises(OptionError, match="expected progress to be a function"):
        sinkhorn(a, b, cost, epsilon=0.01, progress=True)
