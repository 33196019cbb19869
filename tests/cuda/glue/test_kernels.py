"""The fused kernels on their own, and the gear that runs them: what CuPy would refuse or misread is refused here."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from orthokern_cupy import kernels
from orthokern_cupy.estimates import departure, skewness
from orthokern_cupy.kernels import kernel
from orthokern_cupy.library import adjoint, affine, divided, gram, reduced

from . import compiled, fake_cupy
from .conftest import orthonormal, read, with_spectrum

DTYPES = ["float64", "float32", "complex128", "complex64"]
ONE = np.float64(1)


def device(cp, shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return cp.asarray(
        (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(-2, -1), (-2,)])
def test_reductions(cp, dtype, axes):
    x = device(cp, (3, 5, 4), dtype)
    values = read(x)
    parts = np.maximum(np.abs(values.real), np.abs(values.imag))
    found = reduced("largest", x, axes, cp)
    np.testing.assert_array_equal(read(found), parts.max(axis=axes, keepdims=True))
    found = reduced("square_norm", x, axes, cp)
    expected = (np.abs(values) ** 2).sum(axis=axes, keepdims=True)
    np.testing.assert_allclose(read(found), expected, rtol=20 * np.finfo(dtype).eps)
    assert found.dtype == fake_cupy.plain(x).real.dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (2, 0)])
def test_the_largest_is_infinite_where_anything_is_not_finite(cp, dtype, wrong, place):
    values = np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype)
    values[place] = wrong
    assert read(reduced("largest", cp.asarray(values), (-2, -1), cp)) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_diagonal_shifts(cp, dtype):
    g = device(cp, (2, 4, 4), dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(
        read(affine(g, 3.0, -2.0, cp)), 3 * np.eye(4) - 2 * read(g), rtol=9 * eps, atol=9 * eps
    )
    number = np.float32 if dtype in ("float32", "complex64") else np.float64
    h = device(cp, (2, 4, 4), dtype, seed=1)
    found = kernel("quadratic", g, cp)(g, h, number(5), number(-1), number(2), np.int32(4))
    np.testing.assert_allclose(
        read(found), 5 * np.eye(4) - read(g) + 2 * read(h), rtol=20 * eps, atol=20 * eps
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_newtons_average_conjugates(cp, dtype):
    x, y = device(cp, (4, 4), dtype), device(cp, (4, 4), dtype, seed=1)
    number = np.float32 if dtype in ("float32", "complex64") else np.float64
    found = kernel("newton", x, cp)(x, cp.swapaxes(y, -1, -2), number(2), number(3))
    expected = 2 * read(x) + 3 * read(y).conj().T
    np.testing.assert_allclose(read(found), expected, rtol=1e-5 if number is np.float32 else 1e-14)


def test_division_by_a_triangle_is_stable_row_by_row(cp):
    """An explicit inverse leaves twenty times as much here."""
    rng = np.random.default_rng(1)
    r = np.linalg.qr(with_spectrum(rng, 40, np.logspace(0, -8, 40), "float64"))[1]
    x = device(cp, (90, 40))
    found = read(divided(x, cp.asarray(r), cp)) @ r
    assert np.linalg.norm(found - read(x)) <= 3e-15 * np.linalg.norm(read(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 30])
def test_probes_see_errors_to_a_factor(cp, dtype, rank):
    rng = np.random.default_rng(rank)
    u = orthonormal(rng, 50, 30, dtype)
    h = with_spectrum(rng, 30, np.linspace(1, 0.5, 30), "float64")
    h = u @ (h @ h.T)
    tilt = orthonormal(rng, 30, rank, dtype) @ orthonormal(rng, 30, rank, dtype).conj().T
    wrong = (u + 1e-3 * u @ tilt).astype(dtype)
    gram_error = np.linalg.norm(wrong.conj().T @ wrong - np.eye(30))
    skew = wrong.conj().T @ h
    backward = np.linalg.norm(skew - skew.conj().T) / 2
    for seen, true in (
        (departure(cp.asarray(wrong), cp), gram_error),
        (skewness(cp.asarray(h.astype(dtype)), cp.asarray(wrong), cp), backward),
    ):
        assert 0.4 * true <= read(seen) <= 2.5 * true


@pytest.mark.parametrize("size", [1, 5, 512, 530])
def test_large_gram_matrices_by_one_triangle(cp, size):
    x = device(cp, (600, size))
    found = read(gram(x, cp))
    np.testing.assert_allclose(found, read(x).T @ read(x), atol=1e-11)
    np.testing.assert_allclose(found, found.T, rtol=0, atol=0 if size >= 512 else 1e-11)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("size", "dtype", "calls"), [(511, "float64", 0), (512, "float32", 1), (512, "complex64", 0)]
)
def test_who_gets_the_triangle(cp, monkeypatch, size, dtype, calls):
    library, called = sys.modules["cupy.cublas"], []
    right = library.syrk
    monkeypatch.setattr(library, "syrk", lambda *a, **o: called.append(1) or right(*a, **o))
    gram(device(cp, (4, size), dtype), cp)
    assert len(called) == calls


def test_the_adjoint_of_a_real_matrix_is_a_view(cp):
    x = device(cp, (4, 3))
    assert np.shares_memory(fake_cupy.plain(adjoint(x, cp)), fake_cupy.plain(x))


def test_no_kernel_holds_a_literal_in_double_precision():
    text = kernels.PREAMBLE + "".join(str(entry) for entry in kernels.KERNELS.values())
    assert "." in text
    assert not compiled.re.search(r"\d\.|\.\d", text)


# The gear


def test_a_python_number_is_refused(cp):
    x = device(cp, (2, 2))
    with pytest.raises(TypeError, match="a is a Python float, handed on in 8 bytes"):
        kernel("affine", x, cp)(x, 1.0, ONE, np.int32(2))
    with pytest.raises(TypeError, match="width is a Python int"):
        kernel("affine", x, cp)(x, ONE, ONE, 2)


def test_numbers_of_another_precision_are_refused(cp):
    x = device(cp, (2, 2), "float32")
    with pytest.raises(TypeError, match="a has dtype float64, expected float32"):
        kernel("affine", x, cp)(x, ONE, ONE, np.int32(2))
    with pytest.raises(TypeError, match="width has dtype int64, expected int32"):
        kernel("affine", ONE, cp)(device(cp, (2, 2)), ONE, ONE, np.int64(2))
    with pytest.raises(TypeError, match="y has dtype float64, expected float32"):
        kernel("hermitian", x, cp)(x, device(cp, (2, 2)))


def test_a_placeholder_that_only_numbers_have_is_refused(cp):
    """CuPy asks arrays alone for the types, and ends in a KeyError of the placeholder's name."""
    x = device(cp, (2, 2), "float32")
    scaled = cp.ElementwiseKernel("T x, R a", "T y", "y = x * a", "scaled", preamble="")
    with pytest.raises(KeyError, match="no array tells what R is"):
        scaled(x, np.float32(2))


def test_devices_cannot_be_hashed(cp):
    with pytest.raises(TypeError, match="unhashable"):
        hash(device(cp, (2, 2)).device)


def test_a_missing_argument_is_refused(cp):
    with pytest.raises(AssertionError, match="orthokern_blend"):
        kernel("blend", ONE, cp)(device(cp, (2, 2)), device(cp, (2, 2)), ONE)


def test_host_memory_among_device_arrays_is_refused(cp):
    x = device(cp, (2, 2))
    for call in (
        lambda: x + np.ones((2, 2)),
        lambda: cp.matmul(x, np.eye(2)),
        lambda: x[np.arange(2)],
    ):
        with pytest.raises(TypeError, match="an array in host memory"):
            call()
    with pytest.raises(TypeError, match=r"numpy\.sum was handed an array on a device"):
        np.sum(x)


def test_every_look_of_the_host_is_counted(cp):
    x = device(cp, ())
    before = fake_cupy.syncs.count
    for look in (bool, float, int, lambda a: a.get(), lambda a: a.item(), lambda a: a.tolist()):
        look(x)
    assert fake_cupy.syncs.count == before + 6


def test_a_wrong_kernel_gives_wrong_numbers(cp):
    """What runs is the text, not a twin of it."""
    x = device(cp, (3, 3))
    entry = kernels.written_out(kernels.KERNELS["blend"], "float64")
    wrong = cp.ElementwiseKernel(
        entry.inputs, entry.outputs, "z = x * a - y * b", "wrong", preamble=kernels.PREAMBLE
    )
    found = wrong(x, x, ONE, ONE)
    assert not read(found).any()
    broken = cp.ElementwiseKernel("T x", "T z", "z = undeclared", "broken", preamble="")
    with pytest.raises(AssertionError, match="undeclared"):
        broken(x)


def test_a_stack_of_triangular_systems_is_refused(cp):
    from cupyx.scipy.linalg import solve_triangular

    x = device(cp, (2, 3, 3))
    with pytest.raises(AssertionError):
        solve_triangular(x, x)
