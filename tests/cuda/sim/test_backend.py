"""The backend as a whole, through the kernels that users call, on the place of NumPy arrays."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from orthokern_numba.gpu import backend, launching

import orthokern
from orthokern._core import backends
from orthokern.spectral import optimizer
from orthokern.testing import Setting, check
from orthokern.testing.conformance import pairs

from .fibers import Place


@pytest.fixture(autouse=True)
def places(monkeypatch):
    """NumPy arrays served as if they lay on a device; the places where kernels ran."""
    used = []

    @contextmanager
    def on_device(x):
        used.append(Place(3))
        yield used[-1]

    monkeypatch.setattr(launching, "on_device", on_device)
    monkeypatch.setattr(backend, "serves", frozenset({("numpy", "cpu")}))
    monkeypatch.setattr(backend, "available", lambda: None)
    backends._forget()
    yield used
    backends._forget()


SMALL = [
    pair
    for pair in pairs()
    if all(
        max(a.shape[-2:], default=0) <= 12 and a.size <= 200
        for a in pair[1].arrays(np.random.default_rng(0))
    )
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("pair", SMALL, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_declared_cases_of_small_arrays(pair, dtype):
    row = check(*pair, Setting("numpy", dtype, "numba_cuda"))
    if row.verdict == "refused":
        assert "serves" in row.reason or "is the array-API body" in row.reason
    else:
        assert row.verdict == "pass", row.reason


def test_the_cases_reach_the_kernels(places):
    ran = {}
    for pair in SMALL:
        ran |= check(*pair, Setting("numpy", "float32", "numba_cuda")).ran
    on_device = {op for op, name in ran.items() if name == "numba_cuda"}
    assert {"unitary_factor", "random_bits"} <= on_device
    assert places


def test_both_factors_take_one_launch(rng, places):
    x = rng.standard_normal((5, 6, 6))
    with orthokern.explain() as report:
        u, h, *_ = orthokern.polar(x, backend="numba_cuda")
    assert {line.op: line.backend for line in report}["polar_factors"] == "numba_cuda"
    assert len(places) == 1
    np.testing.assert_allclose(u @ h, x, atol=1e-13)
    np.testing.assert_array_equal(h, np.swapaxes(h, -1, -2))


@pytest.mark.parametrize(
    ("x", "options", "reason"),
    [
        (np.eye(33), {}, "up to 32 x 32, not 33 x 33"),
        (np.eye(5, 4), {}, "not 5 x 4"),
        (np.eye(3) * 1j, {}, "not complex128"),
        (np.eye(3), {"method": "svd"}, "is the array-API body"),
    ],
)
def test_what_is_refused(x, options, reason):
    with pytest.raises(orthokern.BackendError, match=reason):
        orthokern.polar(x, backend="numba_cuda", **options)


def test_optimizer_kernels(rng, places):
    x = rng.standard_normal((2, 7, 5)).astype(np.float32)
    with orthokern.explain() as report:
        found = optimizer.outlier_split(x, backend="numba_cuda")
        scaled = optimizer.cosh_rms_scale(x, gamma=1.5, backend="numba_cuda")
        moved = optimizer.soft_threshold(x, 0.5, backend="numba_cuda")
    ran = {line.op for line in report if line.backend == "numba_cuda"}
    assert {"magnitude_quantile", "shrink", "cosh_rms"} <= ran
    assert len(places) == 3
    for part, wanted in zip(found, optimizer.outlier_split(x, backend="array-api"), strict=True):
        np.testing.assert_array_equal(part, wanted)
    wanted = optimizer.cosh_rms_scale(x, gamma=1.5, backend="array-api")
    np.testing.assert_allclose(scaled, wanted, rtol=1e-6)
    wanted = optimizer.soft_threshold(x, 0.5, backend="array-api")
    np.testing.assert_array_equal(moved, wanted)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (4, 1), (3, 4, 5)])
def test_limits_of_every_shape_that_broadcasts_are_served(rng, shape):
    x = rng.standard_normal((3, 4, 5))
    limit = np.abs(rng.standard_normal(shape))
    found = optimizer.soft_threshold(x, limit, backend="numba_cuda")
    np.testing.assert_array_equal(found, optimizer.soft_threshold(x, limit, backend="array-api"))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 2, 4, 5), (3, 1)])
def test_limits_that_would_widen_the_array_are_refused(rng, shape):
    x = rng.standard_normal((3, 4, 5))
    with pytest.raises(orthokern.ShapeError, match="expected threshold to broadcast"):
        optimizer.soft_threshold(x, np.ones(shape), backend="numba_cuda")
