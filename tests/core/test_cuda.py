"""CUDA arrays of torch and JAX reach a backend for CuPy arrays and come back, all played by stand-ins.

Each stand-in keeps NumPy memory that the exchange by DLPack has to share; CuPy's notes which device and stream are
current at every step.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from orthokern import BackendError, explain, use_backend
from orthokern._core import namespace, views
from orthokern._core.dispatch import kernel

CUDA = {("cupy", "cuda")}


class Place(NamedTuple):
    """Where an array lies, as its library says it."""

    type: str = "cuda"
    index: int = 1
    platform: str = "gpu"
    id: int = 7
    local_hardware_id: int | None = 2


class Array:
    """What all stand-ins have in common: memory, and being exported by it."""

    def __init__(self, memory):
        self.memory = np.asarray(memory)

    shape = property(lambda self: self.memory.shape)
    dtype = property(lambda self: self.memory.dtype)
    ndim = property(lambda self: self.memory.ndim)

    def __rmul__(self, factor):
        return type(self)(factor * self.memory)

    def __add__(self, other):
        return type(self)(self.memory + other)


class CupyArray(Array):
    pass


class Tensor(Array):
    """A tensor on a CUDA device, perhaps with a lazy conjugate or a gradient asked for."""

    lazy, attached = False, False
    device = Place()

    def _with(self, **changed):
        other = type(self)(self.memory)
        other.__dict__.update(self.__dict__ | changed)
        return other

    def detach(self):
        return self._with(attached=False)

    def resolve_conj(self):
        return self._with(memory=self.memory.conj(), lazy=False) if self.lazy else self

    def resolve_neg(self):
        return self


class JaxArray(Array):
    places = frozenset({Place()})
    device = "gpu:2"

    def devices(self):
        return self.places


class Log:
    """The device and the stream that are current, and what happened under which of them."""

    def __init__(self):
        self.place, self.stream, self.events, self.precisions = None, None, [], []

    @contextmanager
    def precise(self, name):
        self.precisions.append(name)
        yield

    @contextmanager
    def entered(self, **changed):
        before = {name: getattr(self, name) for name in changed}
        self.__dict__.update(changed)
        try:
            yield
        finally:
            self.__dict__.update(before)

    def note(self, what):
        self.events.append((what, self.place, self.stream))


def exchanged(log, name, kind):
    def from_dlpack(x):
        assert isinstance(x, Array)
        assert not getattr(x, "lazy", False)
        assert not getattr(x, "attached", False)
        log.note(name)
        return kind(x.memory)

    return from_dlpack


@pytest.fixture
def log(monkeypatch):
    """Stand-ins for CuPy, torch and JAX in the places where the core looks for them."""
    log = Log()
    contiguous = lambda x: CupyArray(np.ascontiguousarray(x.memory))  # noqa: E731
    cuda = SimpleNamespace(
        Device=lambda number: log.entered(place=number),
        ExternalStream=lambda address: log.entered(stream=address),
        Stream=SimpleNamespace(null=log.entered(stream="default")),
    )
    modules = {
        "cupy": {
            "cuda": cuda,
            "from_dlpack": exchanged(log, "to cupy", CupyArray),
            "ascontiguousarray": contiguous,
        },
        "torch": {
            "from_dlpack": exchanged(log, "to torch", Tensor),
            "cuda": SimpleNamespace(
                current_stream=lambda device: SimpleNamespace(cuda_stream=log.address)
            ),
            "compiler": SimpleNamespace(is_compiling=lambda: False),
        },
        "jax": {
            "core": SimpleNamespace(Tracer=type("Tracer", (), {})),
            "numpy": SimpleNamespace(from_dlpack=exchanged(log, "to jax", JaxArray)),
            "config": SimpleNamespace(jax_default_matmul_precision=None),
            "default_matmul_precision": log.precise,
        },
        "orthokern._core._torch": {
            "call": lambda op, arrays, static: op.run(arrays, static),
            "is_traced": lambda x: False,
            "is_plain": lambda x: True,
            "wants_derivative": lambda arrays: False,
            "full_precision": lambda x: log.entered(),
            "uncompiled": lambda function: function,
        },
    }
    log.address = 4096
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        "orthokern._core._torch", sys.modules["orthokern._core._torch"], raising=False
    )
    for kind, library in ((CupyArray, "cupy"), (Tensor, "torch"), (JaxArray, "jax")):
        monkeypatch.setitem(namespace._LIBRARIES, kind, library)
        monkeypatch.setitem(namespace._SPACES, kind, np)
    return log


@pytest.fixture
def seen(double, stranger, log):
    """Arrays that a backend for CuPy arrays was given; it answers ``double`` rightly and is the one named."""
    given = []

    def run(x, *, more=0):
        given.append(x)
        log.note("run")
        return CupyArray(2 * x.memory + more)

    stranger("spy", run=run, serves=CUDA)
    with use_backend("spy"):
        yield given


@pytest.fixture(params=["op", "kernel"])
def doubled(request, double):
    """The op alone, and in a kernel that is viewed as a whole where the arrays are in host memory."""
    return double if request.param == "op" else kernel(ops=("double",))(double)


def matrix():
    return np.arange(6.0).reshape(2, 3)


def test_a_tensor_is_served_in_its_memory_on_its_device_and_stream(doubled, seen, log):
    x = Tensor(matrix())
    with explain() as report:
        out = doubled(x)
    assert type(out) is Tensor
    np.testing.assert_array_equal(out.memory, 2 * matrix())
    (given,) = seen
    assert type(given) is CupyArray
    assert np.shares_memory(given.memory, x.memory)
    assert log.events == [("to cupy", 1, 4096), ("run", 1, 4096), ("to torch", 1, 4096)]
    assert (log.place, log.stream) == (None, None)
    assert report[0][:4] == ("double", "spy", "torch", "cuda")


def test_the_default_stream_of_torch_is_that_of_cupy(double, seen, log):
    log.address = 0
    double(Tensor(matrix()))
    assert [event[2] for event in log.events] == ["default"] * 3


def test_a_jax_array_is_served_on_its_device(doubled, seen, log):
    x = JaxArray(matrix())
    out = doubled(x)
    assert type(out) is JaxArray
    np.testing.assert_array_equal(out.memory, 2 * matrix())
    assert np.shares_memory(seen[0].memory, x.memory)
    assert log.events == [("to cupy", 2, None), ("run", 2, None), ("to jax", 2, None)]


@pytest.mark.parametrize(("chosen", "asked"), [(None, True), ("tensorfloat32", False)])
def test_products_of_jax_are_those_of_its_numbers_unless_the_user_chose(
    doubled, log, chosen, asked
):
    sys.modules["jax"].config.jax_default_matmul_precision = chosen
    doubled(JaxArray(matrix()))
    assert (set(log.precisions) == {"highest"}) is asked
    assert bool(log.precisions) is asked


def test_devices_without_a_hardware_number_have_their_id(double, seen, log, monkeypatch):
    monkeypatch.setattr(JaxArray, "places", {Place(local_hardware_id=None)})
    double(JaxArray(matrix()))
    assert {event[1] for event in log.events} == {7}


def test_lazy_conjugates_and_gradients_are_resolved_before_the_exchange(double, seen, log):
    x = Tensor(matrix() * 1j)
    x.lazy = x.attached = True
    out = double(x)
    np.testing.assert_array_equal(out.memory, -2j * matrix())
    assert x.lazy
    np.testing.assert_array_equal(x.memory, 1j * matrix())


def test_jax_gets_arrays_without_gaps(log):
    result = CupyArray(matrix()[:, ::2])
    back = views.returned(result, JaxArray(matrix()))
    assert back.memory.flags.c_contiguous
    np.testing.assert_array_equal(back.memory, matrix()[:, ::2])


@pytest.mark.parametrize("kind", [Tensor, JaxArray])
def test_nested_results_come_back_without_a_copy(log, kind):
    class Pair(NamedTuple):
        first: object
        rest: tuple

    leaves = [CupyArray(matrix() + k) for k in range(3)]
    out = views.returned(Pair(leaves[0], (leaves[1], leaves[2])), kind(matrix()))
    assert type(out) is Pair
    for leaf, found in zip(leaves, [out.first, *out.rest], strict=True):
        assert type(found) is kind
        assert np.shares_memory(leaf.memory, found.memory)


def test_every_array_of_a_call_is_viewed(log):
    arrays = views.at_home((Tensor(matrix()), Tensor(matrix())))
    assert [type(a) for a in arrays] == [CupyArray, CupyArray]
    assert views.owned(arrays) is arrays


@pytest.mark.parametrize("kind", [Tensor, JaxArray])
def test_an_error_leaves_device_and_stream_as_they_were(double, stranger, log, kind):
    def run(x, **static):
        message = "out of memory"
        raise MemoryError(message)

    stranger("spy", run=run, serves=CUDA)
    with use_backend("spy"), pytest.raises(MemoryError, match="out of memory"):
        double(kind(matrix()))
    assert (log.place, log.stream) == (None, None)


def test_the_predicate_sees_cupy_arrays(double, stranger, log):
    asked = []
    when = lambda x, **static: asked.append(type(x)) or "no"  # noqa: E731
    stranger("spy", run=lambda x: x, when=when, serves=CUDA)
    with use_backend("spy"), pytest.raises(BackendError, match="refused double: no"):
        double(Tensor(matrix()))
    assert asked == [CupyArray]


def test_an_array_over_several_devices_runs_the_body(double, seen, log, monkeypatch):
    monkeypatch.setattr(JaxArray, "places", {Place(id=0), Place(id=1)})
    with pytest.raises(BackendError, match="does not accept jax arrays on cuda"):
        double(JaxArray(matrix()))
    assert not seen


def test_cupy_arrays_go_as_they_are(double, seen, log):
    x = CupyArray(matrix())
    out = double(x)
    assert seen == [x]
    assert type(out) is CupyArray
    assert log.events == [("run", None, None)]


def test_a_backend_for_tensors_themselves_gets_them(double, stranger, log):
    given = []
    stranger("own", run=lambda x: given.append(x) or x, serves={("torch", "cuda")})
    x = Tensor(matrix())
    with use_backend("own"):
        assert double(x) is x
    assert given == [x]
    assert not log.events


def test_host_arrays_do_not_make_a_backend_look_for_a_device(double, stranger, monkeypatch):
    asked = []
    acme = stranger("acme", serves=CUDA, available=lambda: asked.append(1))
    monkeypatch.setattr("orthokern._core.dispatch.priority", lambda: ("acme",))
    with explain() as report:
        double(matrix())
    assert report[0].refused == {acme.name: "does not accept numpy arrays on cpu"}
    assert not asked


def test_whether_an_op_is_served_is_told_without_running_it(double, seen, log):
    assert double.is_served(Tensor(matrix()))
    assert double.is_served(CupyArray(matrix()))
    with use_backend("array-api"):
        assert not double.is_served(Tensor(matrix()))
    assert not seen
