"""Balancing by powers of two: exact both ways, at every size a number can have."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern import explain, use_backend
from orthokern._core.scaling import balance, balancing_powers, largest_entry
from orthokern.testing import libraries

DTYPES = ("float64", "float32", "complex128", "complex64")
# Exponents k for which 2**k and 2**-k are both normal numbers.
LIMITS = {"float64": 1021, "float32": 125, "complex128": 1021, "complex64": 125}
REAL = {"complex128": "float64", "complex64": "float32"}


@pytest.fixture(params=DTYPES)
def kind(request):
    return request.param


def real(kind):
    return REAL.get(kind, kind)


def random_matrix(rng, kind, shape=(5, 4)):
    """Entries of both signs whose moduli lie between 2**-8 and 1."""
    part = rng.choice([-1, 1], shape) * rng.uniform(2**-8, 1, shape)
    if kind.startswith("complex"):
        part = part + 1j * rng.choice([-1, 1], shape) * rng.uniform(2**-8, 1, shape)
    return part.astype(kind)


def scaled(x, exponent):
    """``x * 2**exponent``, in two steps where the factor alone would not be a number."""
    half = np.asarray(2.0, dtype=real(x.dtype.name)) ** (exponent // 2)
    rest = np.asarray(2.0, dtype=real(x.dtype.name)) ** (exponent - exponent // 2)
    return x * half * rest


def parts(x):
    """Real and imaginary parts on a last axis, in float64."""
    flat = np.ascontiguousarray(x)
    return flat.view(real(flat.dtype.name)).astype(np.float64)


def bits(x):
    """Patterns of the numbers, in which a zero has a sign."""
    flat = np.ascontiguousarray(x)
    return flat.view({4: np.uint32, 8: np.uint64}[np.dtype(real(flat.dtype.name)).itemsize])


def balanced(x, backend):
    with use_backend(backend), explain() as report:
        y, undo = balance(x)
    assert report[0].backend == backend
    assert y.shape == x.shape
    assert y.dtype == x.dtype.newbyteorder("=")
    assert undo.shape == (*x.shape[:-2], 1, 1)
    assert undo.dtype == real(x.dtype.name)
    return y, undo


def assert_exact(x, y, undo):
    np.testing.assert_array_equal(bits(y * undo), bits(x))


def assert_power_of_two(undo):
    assert np.all(np.frexp(undo)[0] == 0.5)
    assert np.all(np.isfinite(1 / undo))
    assert np.all(np.abs(np.log2(undo.astype(np.float64))) <= LIMITS[undo.dtype.name])


def assert_in_range(y):
    top = np.abs(parts(y)).max(axis=(-2, -1))
    assert np.all((top >= 0.5) & (top < 1))


@pytest.mark.parametrize("fraction", [-0.99, -0.5, -0.1, 0, 0.1, 0.5, 0.99])
def test_exact_at_every_scale(rng, backend, kind, fraction):
    x = scaled(random_matrix(rng, kind), int(fraction * (LIMITS[kind] - 10)))
    y, undo = balanced(x, backend)
    assert_exact(x, y, undo)
    assert_power_of_two(undo)
    assert_in_range(y)


@pytest.mark.parametrize("size", [1e300, 1e-300, 3.0, 1.0, 0.75, 2**-8])
def test_known_powers(backend, size):
    x = np.array([[size, -size / 4], [size / 2, 0.0]])
    y, undo = balanced(x, backend)
    exponent = {1e300: 997, 1e-300: -996, 3.0: 2, 1.0: 1, 0.75: 0, 2**-8: -7}[size]
    assert undo.item() == 2.0**exponent
    np.testing.assert_array_equal(y, x / 2.0**exponent)


@pytest.mark.parametrize("exponent", [-100, -1, 0, 1, 100])
@pytest.mark.parametrize("neighbour", [-1, 0, 1])
def test_next_to_a_power_of_two(library, dtype, exponent, neighbour):
    bound = np.asarray(2.0**exponent, dtype=dtype)
    x = np.full((2, 2), np.nextafter(bound, np.asarray(neighbour * np.inf, dtype=dtype)))
    x = np.full((2, 2), bound) if neighbour == 0 else x
    given = libraries.to_library(x, library)
    with use_backend("array-api"):
        y, undo = balance(given)
    assert 0.5 <= float(libraries.to_numpy(y).max()) < 1
    np.testing.assert_array_equal(libraries.to_numpy(y * undo), libraries.to_numpy(given))


def test_zero_stays_zero(backend, kind):
    y, undo = balanced(np.zeros((3, 2), dtype=kind), backend)
    assert undo.item() == 1
    np.testing.assert_array_equal(y, np.zeros((3, 2)))


def test_real_zeros_keep_their_signs(backend, dtype):
    x = np.array([[0.0, -0.0], [-0.0, 8.0]], dtype=dtype)
    assert_exact(x, *balanced(x, backend))
    assert_exact(x[:1], *balanced(x[:1], backend))


@pytest.mark.parametrize("multiple", [1, 3, 2**20 + 1])
def test_subnormal_numbers_are_lifted_exactly(backend, kind, multiple):
    least = np.finfo(real(kind)).smallest_subnormal
    x = np.array([[least * multiple, 0], [-least, least]], dtype=kind)
    y, undo = balanced(x, backend)
    assert_exact(x, y, undo)
    assert undo.item() == 2.0 ** -LIMITS[kind]
    expected = multiple * float(least) * 2.0 ** LIMITS[kind]
    assert parts(y).max() == expected


def test_the_largest_numbers_are_lowered_exactly(backend, kind):
    top = np.finfo(real(kind)).max
    x = np.array([[top, -top], [top / 2, 1.0]], dtype=kind)
    y, undo = balanced(x, backend)
    assert_exact(x, y, undo)
    assert undo.item() == 2.0 ** LIMITS[kind]


def test_a_wide_range_loses_only_what_is_negligible(backend):
    # What ends below the normal numbers cannot be kept: 2**-1022 of the largest entry.
    x = np.array([[1e300, 2.0**-24], [1e-20, 1e-300]])
    y, undo = balanced(x, backend)
    np.testing.assert_array_equal((y * undo)[0], x[0])
    assert np.all(np.abs(y * undo - x)[1] <= 2.0**-1074 * (undo / 2))


def test_the_larger_part_of_a_complex_number_counts(backend):
    x = np.array([[1 + 100j, -3j]])
    y, undo = balanced(x, backend)
    assert undo.item() == 128
    np.testing.assert_array_equal(y, x / 128)
    np.testing.assert_array_equal(largest_entry(x), [[100]])


# Stacks


def stack(rng, kind):
    members = [scaled(random_matrix(rng, kind), e) for e in (-100, 7, 0, 90)]
    return np.stack([*members, np.zeros((5, 4), dtype=kind), np.eye(5, 4, dtype=kind)])


@pytest.mark.parametrize("batch", [(6,), (2, 3), (3, 1, 2)])
def test_members_have_scales_of_their_own(rng, backend, kind, batch):
    x = stack(rng, kind).reshape(*batch, 5, 4)
    y, undo = balanced(x, backend)
    assert_exact(x, y, undo)
    for index in np.ndindex(*batch):
        alone, its = balanced(x[index], backend)
        np.testing.assert_array_equal(bits(y[index]), bits(alone))
        assert its == undo[index]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (2, 5)])
def test_a_member_that_is_not_finite_becomes_the_identity(rng, backend, kind, value, shape):
    clean = np.stack([scaled(random_matrix(rng, kind, shape), e) for e in (3, 0, -50)])
    clean[1] = np.eye(*shape)
    dirty = clean.copy()
    dirty[1] = 5
    dirty[1, 1, 2] = value
    y, undo = balanced(dirty, backend)
    np.testing.assert_array_equal(y[1], np.eye(*shape))
    assert np.isnan(undo[1]).all()
    expected, powers = balanced(clean, backend)
    np.testing.assert_array_equal(bits(y[[0, 2]]), bits(expected[[0, 2]]))
    np.testing.assert_array_equal(undo[[0, 2]], powers[[0, 2]])


@pytest.mark.parametrize("value", [complex(0, np.nan), complex(np.inf, 0), complex(1, -np.inf)])
def test_one_part_that_is_not_finite_is_enough(backend, value):
    y, undo = balanced(np.array([[1, value], [0, 2]]), backend)
    np.testing.assert_array_equal(y, np.eye(2))
    assert np.isnan(undo).all()


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "read-only"])
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4)])
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_layouts(rng, backend, kind, layout, shape, value):
    x = random_matrix(rng, kind, shape)
    x[..., 0, 1] *= value
    expected, powers = balanced(x, backend)
    y, undo = balanced(libraries.with_layout(x, layout), backend)
    np.testing.assert_array_equal(bits(y), bits(expected))
    np.testing.assert_array_equal(undo, powers)


def test_backends_give_what_the_body_gives(rng, backend, kind):
    x = stack(rng, kind)
    x[2, 1, 1] = np.nan
    y, undo = balanced(x, backend)
    expected, powers = balanced(x, "array-api")
    np.testing.assert_array_equal(bits(y), bits(expected))
    np.testing.assert_array_equal(undo, powers)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_bodies_of_every_library_agree(rng, library, dtype, size, value):
    x = (size * random_matrix(rng, dtype, (3, 5, 4))).astype(dtype)
    x[1, 2, 3] *= value
    given = libraries.to_library(x, library)
    with use_backend("array-api"):
        y, undo = balance(given)
        expected, powers = balance(np.asarray(libraries.to_numpy(given)).astype(dtype))
    assert y.dtype == undo.dtype == given.dtype
    np.testing.assert_array_equal(libraries.to_numpy(y), expected)
    np.testing.assert_array_equal(libraries.to_numpy(undo), powers)


def test_powers_and_their_reciprocals():
    scale, undo = balancing_powers(np.array([0.0, np.nan, np.inf, 1.0, 0.3, 5e-324]))
    assert scale.tolist() == [1, 1, 1, 0.5, 2, 2.0**1021]
    np.testing.assert_array_equal(scale * undo, np.ones(6))


# Derivatives: the power of two is a constant, and a member that is not finite depends on nothing.


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_derivatives(request, name):
    request.getfixturevalue(name)
    x = np.array([[[3.0, 1.0]], [[np.nan, 1.0]], [[0.1, 0.0]]], dtype=np.float32)
    weights = np.array([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]], dtype=np.float32)
    found = {"torch": torch_gradient, "jax": jax_gradient}[name](request, x, weights)
    powers = np.array([4.0, np.inf, 0.125]).reshape(3, 1, 1)
    np.testing.assert_array_equal(found, weights / powers)


def torch_gradient(request, x, weights):
    torch = request.getfixturevalue("torch")
    given = torch.from_numpy(x).requires_grad_()
    y, undo = balance(given)
    total = (y * torch.from_numpy(weights)).sum() + undo[[0, 2]].sum()
    return torch.autograd.grad(total, given)[0].numpy()


def jax_gradient(request, x, weights):
    jax = request.getfixturevalue("jax")

    def total(given):
        y, undo = balance(given)
        return (y * weights).sum() + undo[0].sum() + undo[2].sum()

    return np.asarray(jax.grad(total)(x))
