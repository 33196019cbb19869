"""Registration, what is declined, and the whole of orthokern on arrays of the stand-in."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import orthokern_cupy
import pytest

import orthokern
from orthokern import BackendError, explain
from orthokern._core.registry import load_all
from orthokern.testing import Setting, check
from orthokern.testing.conformance import pairs

from . import fake_cupy
from .conftest import read, with_spectrum

SPECTRAL = {"balance", "unitary_factor", "polar_factors", "scheduled_factor", "hermitian_factor"}
ROWS = {"normal_equations", "residual_gradient", "whitened_gram", "thin_qr"}
OPS = SPECTRAL | ROWS | {"gram_whitener", "triangular_whitener", "damped_norms"}


def ran(report):
    return {decision.op: decision.backend for decision in report}


def test_ops_and_arrays():
    assert set(orthokern_cupy.backend.entries) == OPS
    assert orthokern_cupy.backend.serves == {("cupy", "cuda")}


@pytest.mark.parametrize(("present", "reason"), [(False, "no CUDA device"), (True, None)])
def test_availability_is_that_of_a_device(monkeypatch, present, reason):
    module = ModuleType("cupy")
    module.__spec__ = ModuleSpec("cupy", None)
    module.cuda = SimpleNamespace(is_available=lambda: present)
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert orthokern_cupy._available() == reason


def test_without_cupy_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setattr(orthokern_cupy, "find_spec", lambda name: None)
    assert orthokern_cupy._available() == "cupy is not installed; pip install 'orthokern[cuda13]'"


# What is declined


def small(cp, dtype="float64", shape=(8, 8)):
    return cp.asarray(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def test_small_real_squares_are_left_to_who_is_made_for_them(cp, monkeypatch):
    x = small(cp)
    assert orthokern.polar(x, backend="cupy").u.shape == (8, 8)
    monkeypatch.setattr(orthokern_cupy, "absence", {"numba_cuda": None}.__getitem__)
    with pytest.raises(BackendError, match="up to 32 x 32 are served by numba_cuda"):
        orthokern.polar(x, backend="cupy")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float64", (33, 33)), ("float32", (9, 8)), ("complex64", (8, 8)), ("float64", (2, 40, 40))],
)
def test_all_others_are_served(cp, monkeypatch, dtype, shape):
    monkeypatch.setattr(orthokern_cupy, "absence", {"numba_cuda": None}.__getitem__)
    with explain() as report:
        orthokern.polar(small(cp, dtype, shape), backend="cupy")
    assert ran(report) == {"balance": "cupy", "polar_factors": "cupy"}


def test_the_svd_by_name_is_the_body(cp):
    with pytest.raises(BackendError, match="method='svd' is the array-API body"):
        orthokern.polar(small(cp), backend="cupy", method="svd")


def test_other_dtypes_are_declined():
    x = np.zeros((2, 2), dtype=np.float16)
    for op in OPS - {"unitary_factor", "polar_factors"}:
        arrays = {
            "hermitian_factor": (x, x),
            "normal_equations": (x, x),
            "whitened_gram": (x, x),
            "damped_norms": (x, x[0], x),
            "residual_gradient": (x, x, x),
        }.get(op, (x,))
        reason = orthokern_cupy.backend.entries[op].when(*arrays)
        assert reason == "serves complex128, complex64, float32, float64"


# The kernels on top


def test_auto_measures_where_the_backend_does(cp):
    x = small(cp, shape=(60, 60))
    with explain() as report:
        result = orthokern.polar(x, backend="cupy")
    assert ran(report) == {"balance": "cupy", "polar_factors": "cupy"}
    assert bool(fake_cupy.plain(result.info.converged))
    assert 0 < read(result.info.lower_bound) < 1
    np.testing.assert_allclose(read(result.u) @ read(result.h), read(x), atol=1e-12)


def test_without_the_backend_a_static_plan_runs(cp):
    with explain() as report:
        orthokern.polar(small(cp, shape=(40, 40)), backend="array-api")
    assert "scheduled_factor" in ran(report)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_sides(cp, wide, side):
    rng = np.random.default_rng(1)
    x = with_spectrum(rng, 70, np.linspace(1, 0.1, 40), "float64")
    x = x.T if wide else x
    u, h, *_ = orthokern.polar(cp.asarray(x), side=side, backend="cupy")
    product = read(u) @ read(h) if side == "right" else read(h) @ read(u)
    np.testing.assert_allclose(product, x, atol=1e-13)


def test_members_that_are_not_finite_stay_alone(cp):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 40, 40))
    x[1, 0, 0] = np.nan
    u, h, info = orthokern.polar(cp.asarray(x), backend="cupy")
    assert np.isnan(read(u)[1]).all()
    assert np.isnan(read(h)[1]).all()
    assert fake_cupy.plain(info.converged).tolist() == [True, False, True]
    np.testing.assert_allclose(read(u)[[0, 2]] @ read(h)[[0, 2]], x[[0, 2]], atol=1e-11)


def test_scales(cp):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((50, 50))
    u = read(orthokern.polar(cp.asarray(x), backend="cupy").u)
    for scale in (2.0**-900, 2.0**900):
        scaled = orthokern.polar(cp.asarray(x * scale), backend="cupy")
        np.testing.assert_array_equal(read(scaled.u), u)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("declaration", "case"), pairs(), ids=lambda part: part.name)
def test_conformance(cp, declaration, case, dtype):
    row = check(declaration, case, Setting("cupy", dtype, "cupy", "cuda"))
    if case.options.get("method") == "svd":
        assert row.verdict == "refused"
    else:
        assert row.verdict == "pass", row.reason


def test_conformance_runs_every_op(cp):
    rows = [check(d, case, Setting("cupy", "float64", "cupy", "cuda")) for d, case in pairs()]
    assert {op for row in rows for op, where in row.ran.items() if where == "cupy"} == OPS
    assert load_all()


def test_conformance_notices_a_wrong_kernel(cp, monkeypatch):
    """The suite on the stand-in can fail: a Hermitian factor that is off by a part in a million."""
    right = orthokern_cupy.backend.entries["hermitian_factor"]
    wrong = right._replace(implementation=lambda u, x: right.implementation(u, x) * 1.000001)
    monkeypatch.setitem(orthokern_cupy.backend.entries, "hermitian_factor", wrong)
    declaration = load_all()["hermitian_factor"]
    row = check(declaration, declaration.cases[0], Setting("cupy", "float64", "cupy", "cuda"))
    assert row.verdict == "fail"
