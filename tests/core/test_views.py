"""How arrays of every layout and library reach a backend for NumPy arrays, and how its results go back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import orthokern
from orthokern import BackendError, explain, use_backend
from orthokern._core import views
from orthokern._core.dispatch import kernel
from orthokern._core.registry import load_all
from orthokern.testing import checking, libraries

ALIGNMENT = 64


def frozen(x):
    x = x.copy(order="K")
    x.flags.writeable = False
    return x


LAYOUTS = {
    "contiguous": lambda x: x,
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "negative": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "mixed": lambda x: np.repeat(x[::-1].copy(order="F"), 2, axis=1)[::-1, ::2],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "read-only": frozen,
    "read-only fortran": lambda x: frozen(np.asfortranarray(x)),
    "swapped": lambda x: x.astype(x.dtype.newbyteorder("S")),
    "swapped fortran": lambda x: np.asfortranarray(x).astype(x.dtype.newbyteorder("S")),
}
# Compiled code takes these as they lie.
VIEWED = ("contiguous", "fortran", "strided", "negative", "mixed")


def matrix(dtype=np.float64):
    return np.arange(1, 21, dtype=dtype).reshape(4, 5)


def aligned(x):
    """A copy of ``x`` that starts at a multiple of 64 bytes."""
    raw = np.empty(x.nbytes + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    copy = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


class Seen(NamedTuple):
    """What a backend was given and what it returned."""

    given: list
    returned: list


@pytest.fixture
def seen(stranger):
    """The record of a backend that answers ``double`` rightly and is the one named."""
    record = Seen([], [])

    def run(x, *, more=0):
        record.given.append(x)
        record.returned.append(aligned(2 * x + more))
        return record.returned[-1]

    stranger("spy", run=run)
    with use_backend("spy"):
        yield record


@pytest.fixture(params=["op", "kernel"])
def doubled(request, double):
    """The op alone, and in a kernel whose arrays are viewed once for all its ops."""
    if request.param == "op":
        return double
    return kernel(ops=("double",))(double)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_every_layout_arrives_native_and_writable(doubled, seen, layout, dtype):
    x = LAYOUTS[layout](matrix(dtype))
    before = x.copy()
    out = doubled(x)
    (given,) = seen.given
    assert type(given) is np.ndarray
    assert given.dtype == np.dtype(dtype)
    assert given.dtype.isnative
    assert given.flags.writeable
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(out, 2 * before)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("layout", VIEWED)
def test_what_can_be_taken_as_it_lies_is_not_copied(doubled, seen, layout):
    x = LAYOUTS[layout](matrix())
    doubled(x)
    assert seen.given[0].ctypes.data == x.ctypes.data
    assert seen.given[0].strides == x.strides


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in VIEWED])
def test_what_compiled_code_cannot_take_is_copied(doubled, seen, layout):
    x = LAYOUTS[layout](matrix())
    doubled(x)
    assert not np.shares_memory(seen.given[0], x)


@pytest.mark.parametrize("layout", ["read-only fortran", "swapped fortran"])
def test_a_copy_keeps_the_order_in_memory(doubled, seen, layout):
    doubled(LAYOUTS[layout](matrix()))
    assert seen.given[0].flags.f_contiguous


def test_a_file_in_memory_arrives_as_a_plain_array(doubled, seen, tmp_path):
    matrix().tofile(tmp_path / "numbers")
    x = np.memmap(tmp_path / "numbers", dtype=np.float64, mode="r", shape=(4, 5))
    np.testing.assert_array_equal(doubled(x), 2 * matrix())
    assert type(seen.given[0]) is np.ndarray
    assert seen.given[0].flags.writeable


# Other libraries


def test_arrays_of_every_library_are_served(doubled, seen, library):
    x = libraries.to_library(matrix(np.float32), library)
    if library == "dask":
        with pytest.raises(BackendError, match="does not accept dask arrays on cpu"):
            doubled(x)
        return
    with explain() as report:
        out = doubled(x)
    assert type(out) is type(x)
    assert out.dtype == x.dtype
    assert report[0][:6] == ("double", "spy", library, "cpu", "float32", (4, 5))
    assert type(seen.given[0]) is np.ndarray
    assert seen.given[0].dtype == np.float32
    np.testing.assert_array_equal(libraries.to_numpy(out), 2 * matrix())


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_torch_arrives_and_returns_without_a_copy(doubled, seen, torch, layout):
    x = libraries.to_library(matrix(), "torch", layout=layout)
    out = doubled(x)
    assert seen.given[0].ctypes.data == x.data_ptr()
    assert seen.given[0].strides == tuple(8 * stride for stride in x.stride())
    assert out.data_ptr() == seen.returned[0].ctypes.data


def test_jax_is_viewed_and_returns_without_a_copy(doubled, seen, jax):
    # Small results are copied, which is faster than to share them.
    x = jax.numpy.asarray(np.resize(matrix(np.float32), (512, 640)))
    assert views.host_view(x).ctypes.data == x.unsafe_buffer_pointer()
    out = doubled(x)
    assert out.unsafe_buffer_pointer() == seen.returned[0].ctypes.data


def test_a_backend_cannot_write_to_a_jax_array(doubled, stranger, jax):
    def run(x, **static):
        x[...] = 0
        return x

    stranger("vandal", run=run)
    x = jax.numpy.asarray(matrix(np.float32))
    with use_backend("vandal"):
        np.testing.assert_array_equal(doubled(x), np.zeros((4, 5)))
    np.testing.assert_array_equal(x, matrix())


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_torch_conjugates_arrive_resolved(doubled, seen, torch, dtype):
    plain = matrix(dtype) * (1 - 2j)
    x = torch.from_numpy(plain).conj()
    assert x.is_conj()
    out = doubled(x)
    np.testing.assert_array_equal(seen.given[0], plain.conj())
    np.testing.assert_array_equal(out.resolve_conj().numpy(), 2 * plain.conj())
    assert x.is_conj()
    np.testing.assert_array_equal(plain, matrix(dtype) * (1 - 2j))


def test_torch_negatives_arrive_resolved(doubled, seen, torch):
    plain = matrix("complex128") * (1 - 2j)
    x = torch.from_numpy(plain).conj().imag
    assert x.is_neg()
    out = doubled(x)
    np.testing.assert_array_equal(seen.given[0], 2 * matrix())
    np.testing.assert_array_equal(out.numpy(), 4 * matrix())


@pytest.mark.parametrize("kind", ["conj", "neg"])
def test_kernels_take_lazily_conjugated_and_negated_tensors(torch, rng, backend, kind):
    plain = torch.from_numpy(rng.standard_normal((5, 3)) + 1j * rng.standard_normal((5, 3)))
    lazy = plain.conj() if kind == "conj" else plain.conj().imag
    resolved = lazy.clone().resolve_conj().resolve_neg()
    assert lazy.is_conj() or lazy.is_neg()
    for found, expected in zip(
        orthokern.polar(lazy, backend=backend)[:2],
        orthokern.polar(resolved, backend=backend)[:2],
        strict=True,
    ):
        np.testing.assert_array_equal(found.resolve_conj().numpy(), expected.numpy())


def test_torch_parameters_without_gradients_are_viewed(doubled, seen, torch):
    x = torch.nn.Parameter(torch.ones(2, 3), requires_grad=False)
    out = doubled(x)
    assert seen.given[0].ctypes.data == x.data_ptr()
    assert type(out) is torch.Tensor


def test_bfloat16_reaches_a_backend_in_float32(torch, stranger):
    def run(u, x):
        assert u.dtype == x.dtype == np.float32
        return 3 * np.eye(x.shape[-1], dtype=x.dtype)

    stranger("spy", op="hermitian_factor", run=run)
    # Balanced as it is, so that the answer comes back as it went out.
    x = torch.eye(3, dtype=torch.bfloat16) / 2
    with explain() as report:
        h = orthokern.polar(x, backend="spy").h
    assert ("hermitian_factor", "spy") in [decision[:2] for decision in report]
    assert h.dtype == torch.bfloat16
    np.testing.assert_array_equal(h.float().numpy(), 3 * np.eye(3))


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_predicate_sees_what_the_implementation_sees(doubled, stranger, request, name):
    request.getfixturevalue(name)

    def when(x, **static):
        return "complex" if x.dtype.kind == "c" else None

    stranger("spy", 7.0, when=when)
    with use_backend("spy"):
        out = doubled(libraries.to_library(matrix(np.float32), name))
        np.testing.assert_array_equal(libraries.to_numpy(out), np.full((4, 5), 7.0))
        with pytest.raises(BackendError, match="refused double: complex"):
            doubled(libraries.to_library(matrix(np.complex64), name))


@pytest.mark.parametrize("name", [name for name in libraries.available() if name != "dask"])
def test_nested_results_come_back_as_they_are(double, stranger, name):
    class Pair(NamedTuple):
        first: object
        rest: tuple

    def run(x, **static):
        return Pair(x + 1, (x + 2, Pair(x[0] + 3, (np.sum(x),))))

    stranger("spy", run=run)
    x = libraries.to_library(matrix(np.float32), name)
    with use_backend("spy"):
        out = double(x)
    assert type(out) is Pair
    assert type(out.rest[1]) is Pair
    leaves = [out.first, out.rest[0], out.rest[1].first, out.rest[1].rest[0]]
    expected = [matrix() + 1, matrix() + 2, matrix()[0] + 3, np.asarray(210.0)]
    for leaf, value in zip(leaves, expected, strict=True):
        assert type(leaf) is type(x) or name == "numpy"
        assert tuple(leaf.shape) == value.shape
        np.testing.assert_array_equal(libraries.to_numpy(leaf), value)


# What every kernel promises of the memory of its arguments

EVERY = [
    pytest.param(declaration, case, id=f"{declaration.name}-{case.name}")
    for declaration in load_all().values()
    for case in declaration.cases
    if not case.bench and not case.real
]


def leaves(result):
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [result]


@pytest.mark.parametrize(("declaration", "case"), EVERY)
def test_input_is_neither_written_to_nor_returned(declaration, case, backend):
    plain = checking.example(declaration, case, "float64")
    arrays = tuple(libraries.with_layout(a, case.layout) for a in plain)
    with use_backend(backend):
        result = declaration.function(*arrays, **case.options)
    for array, before in zip(arrays, plain, strict=True):
        np.testing.assert_array_equal(array, before)
        assert not any(np.shares_memory(array, leaf) for leaf in leaves(result))


@pytest.mark.parametrize(
    "x",
    [np.eye(4), -np.eye(2), np.zeros((3, 3)), np.ones((1, 1)), np.full((2, 3, 3), 0.5)],
    ids=["identity", "minus identity", "zero", "one", "stack"],
)
@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("call", ["polar", "orthogonalize", "newton_schulz"])
def test_matrices_that_need_no_work_are_not_returned_themselves(call, x, name, backend, request):
    if name == "torch":
        request.getfixturevalue("torch")
    given = libraries.to_library(x.copy(), name)
    result = getattr(orthokern, call)(given, backend=backend)
    for leaf in leaves(result):
        assert not np.shares_memory(np.asarray(given), np.asarray(leaf))
    np.testing.assert_array_equal(np.asarray(given), x)
