"""Selection, soft threshold and hyperbolic scaling on the device, against the bodies of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import elementwise, elementwise_kernels

from orthokern.spectral import optimizer

from .fibers import Place

DTYPES = ("float64", "float32")
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.999, 1.0)


def samples(g, m, n, dtype):
    """Matrices whose order statistics are easy to get wrong."""
    form = np.finfo(dtype)
    x = g.standard_normal((m, n))
    wide = np.sign(x) * 10.0 ** g.uniform(-37, 38, (m, n))
    specks = np.where(x > 0, form.smallest_subnormal * 3, -form.tiny)
    found = {
        "gaussian": x,
        "few values": np.round(x),
        "equal": np.full((m, n), -2.5),
        "zeros of both signs": np.where(x > 0, 0.0, -0.0),
        "all sizes": wide,
        "subnormal": specks,
        "neighbours": np.where(x > 0, 1.0, 1 + form.eps),
        "infinite": np.where(x > 1, -np.inf, x),
        "all infinite": np.full((m, n), np.inf),
    }
    return {name: array.astype(dtype) for name, array in found.items()}


def assert_same_bits(found, wanted):
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(found[known].view(np.uint8), wanted[known].view(np.uint8))


@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_quantile_is_that_of_the_sort_bit_for_bit(rng, dtype, quantile):
    place = Place("backward")
    for x in samples(rng, 9, 31, dtype).values():
        with np.errstate(invalid="ignore"):
            found = elementwise.magnitude_quantile(place, x, quantile=quantile)
            wanted = optimizer.magnitude_quantile.body(x, quantile=quantile)
        assert_same_bits(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (16, 16), (2, 5, 7), (20, 40)])
def test_shapes_of_a_quantile(everywhere, rng, shape, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    found = everywhere(lambda place: elementwise.magnitude_quantile(place, x, quantile=0.9))
    assert_same_bits(found, optimizer.magnitude_quantile.body(x, quantile=0.9))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_quantile_with_nan_is_nan_in_its_matrix_alone(rng, dtype):
    x = rng.standard_normal((3, 4, 5)).astype(dtype)
    x[1, 3, 4] = -np.nan
    found = elementwise.magnitude_quantile(Place("backward"), x, quantile=0.5)
    assert_same_bits(found, optimizer.magnitude_quantile.body(x, quantile=0.5))
    assert np.isnan(found).ravel().tolist() == [False, True, False]


def test_a_quantile_of_no_matrices_and_of_a_view(rng):
    x = rng.standard_normal((4, 6, 8))
    assert elementwise.magnitude_quantile(Place(), x[:0], quantile=0.5).shape == (0, 1, 1)
    view = np.swapaxes(x[::2], -1, -2)
    found = elementwise.magnitude_quantile(Place("backward"), view, quantile=0.3)
    assert_same_bits(found, optimizer.magnitude_quantile.body(view, quantile=0.3))


def test_a_wrong_digit_would_be_seen(rng, monkeypatch):
    x = rng.standard_normal((9, 31))
    monkeypatch.setattr(elementwise_kernels, "_LOW_DIGIT", np.uint64(127))
    found = elementwise.magnitude_quantile(Place("backward"), x, quantile=0.5)
    assert found != optimizer.magnitude_quantile.body(x, quantile=0.5)


LIMITS = {
    "scalar": lambda g, shape: np.asarray(0.7),
    "one entry": lambda g, shape: np.full((1,) * len(shape), 0.7),
    "each matrix": lambda g, shape: g.uniform(0, 2, (*shape[:-2], 1, 1)[-len(shape) :]),
    "each column": lambda g, shape: g.uniform(0, 2, shape[-1:]),
    "each entry": lambda g, shape: g.uniform(0, 2, shape),
    "zero": lambda g, shape: np.zeros(()),
    "infinite": lambda g, shape: np.asarray(np.inf),
    "unknown": lambda g, shape: np.where(g.uniform(size=shape) > 0.5, np.nan, 0.5),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (300,), (3, 1, 1)])
def test_shrinking_is_that_of_the_body(rng, shape, dtype, limit):
    x = rng.standard_normal(shape).astype(dtype)
    x.ravel()[:3] = [np.nan, np.inf, -np.inf]
    bound = LIMITS[limit](rng, shape).astype(dtype)
    kept = x.copy(), bound.copy()
    with np.errstate(invalid="ignore"):
        wanted = optimizer.shrink.body(x, bound)
    found = elementwise.shrink(Place(), x, bound)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(bound, kept[1])


def test_shrinking_more_than_a_grid_of_threads_takes_at_once(rng, monkeypatch):
    monkeypatch.setattr(elementwise, "_MOST_BLOCKS", 1)
    monkeypatch.setattr(elementwise, "_MOST_GROUPS", 1)
    x = rng.standard_normal((2, 20, 40))
    limit = np.asarray([0.5, 1.5])[:, None, None]
    found = elementwise.shrink(Place(), x, limit)
    np.testing.assert_array_equal(found, optimizer.shrink.body(x, limit))
    assert elementwise.shrink(Place(), x[:0], limit[:0]).shape == (0, 20, 40)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 17, 31), (40, 60)])
def test_hyperbolic_scaling_is_near_the_body(everywhere, rng, shape, dtype, gamma):
    x = rng.standard_normal(shape).astype(dtype)
    guard = np.full((*shape[:-2], 1, 1), 1e-7).astype(dtype)
    found = everywhere(lambda place: elementwise.cosh_rms(place, x, guard, gamma=gamma))
    wanted = optimizer.cosh_rms.body(x.astype(float), guard.astype(float), gamma=gamma)
    assert (found.dtype, found.shape) == (x.dtype, shape)
    tolerance = (4 + 2 * gamma) * np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_known_answer_of_hyperbolic_scaling():
    x = np.array([[1.0, -2.0], [3.0, 4.0]])
    found = elementwise.cosh_rms(Place(), x, np.full((1, 1), 1e-7), gamma=1.0)
    wanted = [[0.161068646859566, -0.322137293719132], [0.483205940578698, 0.644274587438264]]
    np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_sums_lose_nothing_over_many_terms(rng):
    """A plain sum of so many equal numbers in single precision would be off by some tens of eps."""
    x = np.full((300, 300), 0.7, dtype=np.float32)
    found = elementwise.cosh_rms(Place("backward"), x, np.zeros((1, 1), np.float32), gamma=1.0)
    wanted = optimizer.cosh_rms.body(x.astype(float), np.zeros((1, 1)), gamma=1.0)
    np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(np.float32).eps)


def test_hyperbolic_scaling_of_zero_and_of_nothing():
    zero = np.zeros((3, 4), np.float32)
    guard = np.full((1, 1), 1e-7, np.float32)
    assert not elementwise.cosh_rms(Place(), zero, guard, gamma=1.0).any()
    none = elementwise.cosh_rms(Place(), zero[None][:0], guard[None][:0], gamma=1.0)
    assert none.shape == (0, 3, 4)
