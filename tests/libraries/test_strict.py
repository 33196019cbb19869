"""array-api-strict: nothing outside the standard is used, in any of its editions, on any of its devices."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern import DTypeError, explain, newton_schulz, orthogonalize, polar, use_backend

from . import derivatives

xp = pytest.importorskip("array_api_strict")

FLAGS = {
    "default": {},
    "strictest": {
        "boolean_indexing": False,
        "data_dependent_shapes": False,
        "enabled_extensions": ("linalg",),
    },
    "2023.12": {"api_version": "2023.12"},
    "2024.12": {"api_version": "2024.12", "enabled_extensions": ("linalg",)},
}
CALLS = {
    "polar": lambda x: polar(x)[:2],
    "left": lambda x: polar(x, side="left")[:2],
    "no h": lambda x: polar(x, compute_h=False)[:2],
    "partial": lambda x: polar(x, completion="partial", rcond=1e-6)[:2],
    "orthogonalize": lambda x: (orthogonalize(x),),
    "svd": lambda x: polar(x, method="svd")[:2],
    "newton": lambda x: polar(x, method="newton", lower_bound=0.3)[:2],
    "dwh": lambda x: polar(x, method="dwh", lower_bound=0.3)[:2],
    "newton_schulz, full": lambda x: polar(x, method="newton_schulz", lower_bound=0.5)[:2],
    "polar_express": lambda x: polar(x, method="polar_express", lower_bound=0.4)[:2],
    "gram": lambda x: polar(x, method="gram", lower_bound=0.4)[:2],
    "tol": lambda x: (polar(x, tol=0.1, lower_bound=0.3).u,),
    "partial to a tolerance": lambda x: (orthogonalize(x, tol=0.1, lower_bound=0.3),),
    "steps": lambda x: (orthogonalize(x, steps=3),),
    "coefficients": lambda x: (orthogonalize(x, coefficients=[(3.0, -3.2, 1.2), (1.5, -0.5)]),),
    "newton_schulz": lambda x: (newton_schulz(x),),
    "spectral norm": lambda x: (newton_schulz(x, normalization="spectral"),),
    "schatten4 norm": lambda x: (newton_schulz(x, normalization="schatten4"),),
    "check_finite": lambda x: polar(x, check_finite=True)[:2],
}
SHAPES = {"square": (4, 4), "tall": (6, 3), "wide": (3, 6), "batch": (2, 3, 3)}
DTYPES = ["float64", "float32", "complex128", "complex64"]
DEVICES = [str(device).split("'")[1] for device in xp.__array_namespace_info__().devices()]


@pytest.fixture(autouse=True)
def _reference_only():
    """A backend would see NumPy arrays and hide what the reference asks of the library."""
    with use_backend("array-api"):
        yield


@pytest.fixture(params=FLAGS)
def _flags(request):
    with xp.ArrayAPIStrictFlags(**FLAGS[request.param]):
        yield


def on_host(x):
    return np.asarray(xp.asarray(x, device=xp.Device("CPU_DEVICE")))


def leaves(result):
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [result]


def assert_reference(call, a, x, units=4):
    """The numbers that NumPy gets, in arrays of the library, of the dtype and on the device of ``x``."""
    results = call(x)
    for part, expected in zip(results, call(a), strict=True):
        assert type(part) is type(x)
        assert part.dtype == x.dtype
        assert part.device == x.device
        eps = np.finfo(a.dtype).eps
        np.testing.assert_allclose(on_host(part), expected, rtol=0, atol=units * eps)


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_within_the_standard(rng, name, shape):
    a = derivatives.well_conditioned(rng, *SHAPES[shape])
    assert_reference(CALLS[name], a, xp.asarray(a))


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_stays(rng, name, dtype):
    kind = np.complex128 if dtype.startswith("complex") else np.float64
    a = derivatives.well_conditioned(rng, 4, 3, dtype=kind).astype(dtype)
    assert_reference(CALLS[name], a, xp.asarray(a))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CALLS)
def test_every_device_stays(rng, name, device):
    """Some of them have no 64-bit numbers at all; a plan of products takes the place of measured steps there."""
    dtype = np.float32 if device.startswith("no_") else np.float64
    a = derivatives.well_conditioned(rng, 4, 3).astype(dtype)
    assert_reference(CALLS[name], a, xp.asarray(a, device=xp.Device(device)), units=20)


@pytest.mark.parametrize("device", DEVICES)
def test_diagnostics_are_on_the_device(rng, device):
    a = derivatives.well_conditioned(rng, 2, 4, 3).astype(np.float32)
    result = polar(xp.asarray(a, device=xp.Device(device)))
    assert {str(leaf.device) for leaf in leaves(result)} == {str(result.u.device)}
    assert on_host(result.info.converged).tolist() == [True, True]


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2), (2, 0, 3)])
def test_empty_arrays(shape):
    u, h, *_ = polar(xp.zeros(shape))
    assert u.shape == shape
    assert h.shape == (*shape[:-2], shape[-1], shape[-1])


@pytest.mark.usefixtures("_flags")
def test_broken_members_stay_alone(rng):
    a = derivatives.well_conditioned(rng, 3, 4, 4)
    with_identity, broken = a.copy(), a.copy()
    with_identity[1], broken[1, 2, 3] = np.eye(4), np.inf
    u, expected = (on_host(polar(xp.asarray(x)).u) for x in (broken, with_identity))
    assert np.isnan(u[1]).all()
    np.testing.assert_array_equal(u[[0, 2]], expected[[0, 2]])


@pytest.mark.usefixtures("_flags")
def test_rank_deficient_matrices(rng):
    a = derivatives.with_values(rng, 5, 4, np.array([2.0, 1.0]))
    u = on_host(orthogonalize(xp.asarray(a)))
    np.testing.assert_allclose(u, derivatives.unitary_factor(a, 2), rtol=0, atol=4e-15)
    completed = on_host(polar(xp.asarray(a)).u)
    np.testing.assert_allclose(completed.T @ completed, np.eye(4), rtol=0, atol=4e-15)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DTypeError, match=f"got {dtype}; cast to a floating dtype first"):
        polar(xp.ones((3, 3), dtype=getattr(xp, dtype)))


def test_the_reference_is_recorded(rng):
    with explain() as report:
        polar(xp.asarray(derivatives.well_conditioned(rng, 4, 3)))
    assert {(d.backend, d.library) for d in report} == {("array-api", "array_api_strict")}
