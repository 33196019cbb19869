"""Registration of the backend for devices: what it says where it cannot run, and which calls it declines."""

from __future__ import annotations

import importlib
import sys
import types
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import orthokern_numba.gpu as registration
import pytest
from orthokern_numba.gpu import backend, launching

from orthokern._core.backends import DEFAULT_ORDER, load


def cupy(*, available):
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: available))


@pytest.fixture
def modules(monkeypatch):
    """Decide which modules seem to be installed."""

    def install(*names, **loaded):
        monkeypatch.setattr(registration, "find_spec", lambda name: name if name in names else None)
        for name, module in loaded.items():
            monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.mark.parametrize(
    ("installed", "missing"),
    [((), "numba-cuda"), (("cupy",), "numba-cuda"), (("numba_cuda",), "cupy")],
)
def test_what_is_missing_is_named_with_the_way_to_get_it(modules, installed, missing):
    modules(*installed)
    reason = registration._available()
    assert reason.startswith(f"{missing} is not installed; pip install 'orthokern[cuda13]'")


def test_no_device_is_a_reason_of_its_own(modules):
    modules("numba_cuda", "cupy", cupy=cupy(available=False))
    assert registration._available() == "no CUDA device"


def test_a_device_needs_no_reason(modules):
    modules("numba_cuda", "cupy", cupy=cupy(available=True))
    assert registration._available() is None


def test_a_broken_package_is_a_reason(modules):
    modules("numba_cuda", "cupy", cupy=None)
    assert registration._available().startswith("cupy cannot be imported: ")


def test_it_is_known_by_its_name_and_serves_devices_alone():
    assert load("numba_cuda") is backend
    assert backend.serves == {("cupy", "cuda")}
    assert "numba_cuda" in DEFAULT_ORDER
    assert set(backend.entries) == {
        "unitary_factor",
        "polar_factors",
        "random_bits",
        "magnitude_quantile",
        "shrink",
        "cosh_rms",
        "simplex_projection",
        "ksupport_prox",
        "entropic_sweep",
        "hadamard",
        "scattered_rows",
        "gathered_rows",
    }


def test_its_module_is_not_taken_for_numbas():
    """numba-cuda redirects every module with "numba.cuda" in its name."""
    assert "numba.cuda" not in registration.__name__


def declined(op, *arrays, **static):
    return backend.entries[op].when(*arrays, **static)


@pytest.mark.parametrize("op", ["unitary_factor", "polar_factors"])
def test_factors_of_small_real_squares_are_taken(op):
    for shape in ((1, 1), (32, 32), (7, 5, 5), (0, 2, 2)):
        for dtype in ("float32", "float64"):
            assert declined(op, np.ones(shape, dtype), completion="partial", rcond=0.1) is None
    reasons = {
        "serves square": [(33, 33), (4, 3), (3, 4), (2, 0, 0)],
    }
    for reason, shapes in reasons.items():
        for shape in shapes:
            assert reason in declined(op, np.ones(shape), completion="unitary")
    assert "complex64" in declined(op, np.ones((2, 2), "complex64"), completion="unitary")
    assert "method='svd'" in declined(op, np.ones((2, 2)), completion="unitary", method="svd")


def test_quantiles_of_real_matrices_are_taken():
    assert declined("magnitude_quantile", np.ones((2, 3)), quantile=0.5) is None
    assert "not 0" in declined("magnitude_quantile", np.ones((2, 0)), quantile=0.5)
    assert "complex128" in declined("magnitude_quantile", np.ones((2, 3)) * 1j, quantile=0.5)
    huge = np.broadcast_to(np.float32(1), (2**16, 2**15))
    assert str(2**31) in declined("magnitude_quantile", huge, quantile=0.5)


def test_limits_that_broadcast_are_taken():
    x = np.ones((2, 3, 4))
    for shape in ((), (4,), (1, 1), (3, 1), (2, 1, 1), (2, 3, 4)):
        assert declined("shrink", x, np.ones(shape)) is None
    for shape in ((3,), (2, 3), (1, 2, 3, 4), (2, 2, 1, 1)):
        assert "broadcast to the shape of x" in declined("shrink", x, np.ones(shape))
    assert "dtype of x" in declined("shrink", x, np.ones((), "float32"))
    assert "complex128" in declined("shrink", x * 1j, np.ones((), "complex128"))


def test_one_guard_for_each_matrix_is_taken():
    x = np.ones((2, 3, 4))
    assert declined("cosh_rms", x, np.ones((2, 1, 1)), gamma=1.0) is None
    assert "one guard" in declined("cosh_rms", x, np.ones((1, 1)), gamma=1.0)
    assert "not 0" in declined("cosh_rms", x[:, :0], np.ones((2, 1, 1)), gamma=1.0)


class Kernel:
    """Writes down how it was started."""

    def __getitem__(self, configuration):
        self.configuration = configuration
        return lambda *arguments: setattr(self, "arguments", arguments)


@contextmanager
def entered(name, log):
    log.append(f"into {name}")
    yield
    log.append(f"out of {name}")


@pytest.mark.parametrize(("handle", "stream"), [(0, "default"), (77, "stream 77")])
def test_kernels_start_on_the_device_and_the_stream_of_cupy(monkeypatch, handle, stream):
    log = []
    stream_of = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=handle))
    library = SimpleNamespace(ndarray=np.ndarray, empty=np.zeros, cuda=stream_of)
    numba_cuda = SimpleNamespace(
        gpus={3: entered("numba's 3", log)},
        as_cuda_array=lambda a, *, sync: ("seen", a.tolist(), sync),
        external_stream=lambda ptr: f"stream {ptr}",
        default_stream=lambda: "default",
    )
    monkeypatch.setitem(sys.modules, "cupy", library)
    monkeypatch.setattr(launching, "_numba_cuda", lambda: numba_cuda)
    monkeypatch.setattr(launching, "_few_blocks", lambda: entered("few blocks", []))
    device = entered("cupy's 3", log)
    device.id = 3
    kernel = Kernel()
    with launching.on_device(SimpleNamespace(device=device)) as launch:
        assert log == ["into cupy's 3", "into numba's 3"]
        out = launch.empty((2,), np.float32)
        launch(kernel, 5, (32, 4), out, np.float32(2), True)
    assert log[2:] == ["out of numba's 3", "out of cupy's 3"]
    assert kernel.configuration == (5, (32, 4), stream)
    assert kernel.arguments == (("seen", [0.0, 0.0], False), np.float32(2), True)


def test_contiguous_arrays_are_not_copied():
    x = np.ones((3, 4))
    assert launching.contiguous(x) is x
    assert launching.contiguous(x.T).flags.c_contiguous


@pytest.mark.parametrize("op", ["simplex_projection", "ksupport_prox"])
def test_weights_that_broadcast_are_taken(op):
    v = np.ones((2, 3, 4), "float32")
    for shape in ((2, 3, 1), (1, 3, 1), (1, 1, 1)):
        assert declined(op, v, np.ones(shape, "float32"), k=2) is None
    for shape in ((3, 1), (2, 3, 4), (2, 2, 1)):
        assert "broadcast against the rows" in declined(op, v, np.ones(shape, "float32"), k=2)
    assert "in their dtype" in declined(op, v, np.ones((2, 3, 1)), k=2)
    assert "complex128" in declined(op, np.ones((2, 3)) * 1j, np.ones((2, 1)) * 1j, k=2)


def test_sweeps_of_one_batch_are_taken():
    cost, weight = np.ones((2, 3, 4)), np.ones((2, 1, 1))
    beta = np.ones((2, 4))
    assert declined("entropic_sweep", beta, cost, weight) is None
    for reason, given in {
        "of the batch": (beta, cost, weight[:1]),
        "and dtype": (beta.astype("float32"), cost, weight),
        "not 3 x 0": (beta[:, :0], cost[..., :0], weight),
        "complex128": (beta * 1j, cost * 1j, weight * 1j),
    }.items():
        assert reason in declined("entropic_sweep", *given)


def test_small_grids_start_without_a_warning(monkeypatch):
    """Only the launch itself: what else the user does with Numba warns as before."""
    module = types.ModuleType("numba.cuda.dispatcher")
    module.config = types.SimpleNamespace(CUDA_LOW_OCCUPANCY_WARNINGS=1)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with launching._few_blocks():
        assert module.config.CUDA_LOW_OCCUPANCY_WARNINGS == 0
    assert module.config.CUDA_LOW_OCCUPANCY_WARNINGS == 1


@pytest.mark.parametrize("missing", [True, False])
def test_a_name_that_numpy_dropped_is_there_for_numba_cuda_alone(monkeypatch, missing):
    if missing:
        monkeypatch.delattr(np, "row_stack", raising=False)
    elif not hasattr(np, "row_stack"):
        monkeypatch.setattr(np, "row_stack", np.vstack, raising=False)
    seen = []
    real = importlib.import_module

    def asked(name):
        seen.append((name, hasattr(np, "row_stack")))
        return types.ModuleType(name) if name.startswith("numba.cuda") else real(name)

    monkeypatch.setattr(launching.importlib, "import_module", asked)
    launching._numba_cuda.__wrapped__()
    assert seen == [("numba.cuda.np.arrayobj", True), ("numba.cuda", not missing)]
    assert hasattr(np, "row_stack") is not missing
