"""The Walsh-Hadamard transform: known answers, sizes that take every way through the code, laws, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import orthokern
from orthokern.sketching.hadamard import hadamard, mixed_rows, unmixed_rows
from orthokern.testing.libraries import to_numpy

from .conftest import eps_of, made


@pytest.mark.parametrize(("q", "d"), [(1, 1), (2, 3), (8, 16), (128, 1), (128, 3)])
def test_it_is_sylvesters_matrix(place, q, d, rng):
    x = rng.standard_normal((2, q, d))
    wanted = scipy.linalg.hadamard(q) @ x
    a = made(x, place.library)
    found = orthokern.fwht(a, backend=place.backend)
    assert type(found) is type(a)
    assert found.dtype == a.dtype
    atol = 4 * q**0.5 * eps_of(a) * np.abs(wanted).max()
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=0, atol=atol)


def test_known_transform(place):
    x = made([1.0, 2.0, 3.0, 4.0], place.library)
    np.testing.assert_array_equal(
        to_numpy(orthokern.fwht(x, backend=place.backend)), [10, -2, -4, 0]
    )
    half = orthokern.fwht(x, normalized=True, backend=place.backend)
    np.testing.assert_array_equal(to_numpy(half), [5, -1, -2, 0])


# Orders and widths for one pass and several, whole registers, parts of one, and blocks that do not fit the cache.
SIZES = [
    (2**11, 2),
    (2**12, 8),
    (2**10, 48),
    (2**13, 5),
    (2**14, 1),
    (2**16, 1),
    (4, 2**13),
    (2**6, 2**9),
    (2**3, 2**16 + 8),
    (2, 2**17),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("q", "d"), SIZES)
def test_large_transforms_are_those_of_the_reference(q, d, dtype, rng):
    x = rng.standard_normal((q, d)).astype(dtype)
    kept = x.copy()
    found = orthokern.fwht(x)
    wanted = hadamard.body(x.astype(float))
    atol = 8 * np.log2(q) * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    np.testing.assert_array_equal(x, kept)


def test_views_complex_numbers_and_halves(rng):
    x = rng.standard_normal((6, 32, 10))
    view = np.swapaxes(x[::2, :, 3:], -1, -2)
    h = scipy.linalg.hadamard(32)
    np.testing.assert_allclose(orthokern.fwht(view, axis=-1), view @ h, atol=1e-12)
    np.testing.assert_allclose(orthokern.fwht(view, axis=2), view @ h, atol=1e-12)
    z = x + 1j * x[::-1]
    np.testing.assert_allclose(orthokern.fwht(z), h @ z, atol=1e-12)
    half = orthokern.fwht(x.astype(np.float16), normalized=True)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, h @ x / 32**0.5, atol=0.02)


def test_twice_is_the_identity(rng):
    x = rng.standard_normal((256, 7))
    np.testing.assert_allclose(orthokern.fwht(orthokern.fwht(x)), 256 * x, atol=1e-11)
    once = orthokern.fwht(x, normalized=True)
    np.testing.assert_allclose(np.linalg.norm(once), np.linalg.norm(x), rtol=1e-14)


@pytest.mark.parametrize(("n", "s"), [(4096, 100), (3000, 3000), (70, 1)])
@pytest.mark.parametrize("permute", [True, False])
def test_mixing_is_that_of_the_reference(n, s, permute, rng):
    a = rng.standard_normal((2, n, 9))
    options = {"seed": 5, "permute": permute}
    found = mixed_rows(a, rows=s, **options)
    np.testing.assert_allclose(found, mixed_rows.body(a, rows=s, **options), atol=1e-11)
    back = unmixed_rows(found, n=n, **options)
    np.testing.assert_allclose(back, unmixed_rows.body(found, n=n, **options), atol=1e-11)


def test_torch_compiles_and_differentiates_it(rng):
    torch = pytest.importorskip("torch")
    x = torch.tensor(rng.standard_normal((16, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(orthokern.fwht, x)
    assert torch.autograd.gradgradcheck(orthokern.fwht, x)
    compiled = torch.compile(orthokern.fwht, backend="eager", fullgraph=True)
    np.testing.assert_allclose(compiled(x.detach()), orthokern.fwht(x.detach()), atol=1e-13)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (np.ones((6, 2)), {}, orthokern.ShapeError, "power of two"),
        (np.ones((0, 2)), {}, orthokern.ShapeError, "power of two"),
        (np.ones((4, 2), int), {}, orthokern.DTypeError, "cast to a floating dtype"),
        (np.ones((4, 2)), {"axis": 2}, orthokern.OptionError, "axis to be one of"),
        (np.ones((4, 2)), {"normalized": 1}, orthokern.OptionError, "True or False"),
        (np.asarray(1.0), {}, orthokern.ShapeError, "a single number"),
    ],
)
def test_refusals(x, options, error, message):
    with pytest.raises(error, match=message):
        orthokern.fwht(x, **options)


@pytest.mark.parametrize("shape", [(2**13, 8), (2**12, 64), (4, 3), (1, 5), (2**11, 1)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_scaling_in_the_last_pass_rounds_as_scaling_after_it(rng, shape, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    scale = shape[0] ** -0.5
    expected = orthokern.fwht(x) * np.dtype(dtype).type(scale)
    np.testing.assert_array_equal(orthokern.fwht(x, normalized=True), expected)
