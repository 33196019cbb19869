"""The sweep over costs on the device, against the body of the op in float64."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import sweep

from orthokern.transport.sweep import entropic_sweep

from .fibers import Place

DTYPES = ("float64", "float32")
# Those of the first list run in three orders, of the second in one.
SHAPES = [(1, 1), (9, 5), (3, 130)], [(2, 3, 5), (33, 7), (40, 140)]


@pytest.fixture(params=[s for shapes in SHAPES for s in shapes], ids=str)
def shape(request):
    return request.param


@pytest.fixture
def ordered(everywhere, shape):
    """Run a launch in every order of the threads, or in one where three would take long."""
    return everywhere if shape in SHAPES[0] else lambda run: run(Place(3))


def problem(g, shape, dtype, forbidden=0.2):
    """Potentials, costs and a strength for each member."""
    *batch, _, n = shape
    cost = g.random(shape)
    cost[g.random(shape) < forbidden] = np.inf
    beta, epsilon = g.standard_normal((*batch, n)) / 2, g.uniform(0.1, 1.0, (*batch, 1, 1))
    return tuple(x.astype(dtype) for x in (beta, cost, epsilon))


def as_double(arrays):
    return tuple(x.astype(float) for x in arrays)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_sums_of_exponentials(ordered, rng, shape, dtype):
    assert_logarithms(ordered, *problem(rng, shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_long_rows(everywhere, rng, dtype):
    assert_logarithms(everywhere, *problem(rng, (2, 1030), dtype))


def assert_logarithms(call, beta, cost, epsilon):
    given, kept = (beta, cost, epsilon / 16), cost.copy()
    found = call(lambda place: sweep.entropic_sweep(place, *given))
    with np.errstate(divide="ignore"):
        exact = entropic_sweep.body(*as_double(given))
    assert (found.dtype, found.shape) == (cost.dtype, exact.shape)
    np.testing.assert_array_equal(found == -np.inf, exact == -np.inf)
    finite = np.isfinite(exact)
    largest = 4 / given[2].min()
    tolerance = 4 * np.finfo(cost.dtype).eps * largest
    np.testing.assert_allclose(found[finite], exact[finite], atol=tolerance, rtol=0)
    np.testing.assert_array_equal(cost, kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_forbidden_pairs_and_exponents_out_of_range(everywhere, dtype):
    beta, inf = np.array([0.0, 1.0, -np.inf], dtype), np.inf
    cost = np.array([[inf, inf, inf], [inf, 0.0, 0.0], [0.0, 0.0, inf], [inf, inf, 1.0]], dtype)
    found = everywhere(
        lambda place: sweep.entropic_sweep(place, beta, cost, np.full((1, 1), 1e-30, dtype))
    )
    epsilon = np.asarray(1e-30, dtype)
    wanted = np.array([-inf, 1 / epsilon, 1 / epsilon, -inf])
    np.testing.assert_array_equal(found, wanted.astype(dtype))


def test_nan_shows_and_stays_in_its_row(rng):
    beta, cost, epsilon = problem(rng, (4, 6), "float64", forbidden=0.0)
    cost[1, 2] = np.nan
    logarithms = sweep.entropic_sweep(Place(), beta, cost, epsilon)
    assert np.isnan(logarithms).tolist() == [False, True, False, False]


def test_views_and_no_members(rng):
    beta, cost, epsilon = problem(rng, (3, 4, 6), "float64")
    found = sweep.entropic_sweep(Place(3), *(np.asfortranarray(x) for x in (beta, cost, epsilon)))
    np.testing.assert_allclose(found, entropic_sweep.body(beta, cost, epsilon), atol=1e-13)
    assert sweep.entropic_sweep(Place(), beta[:0], cost[:0], epsilon[:0]).shape == (0, 4)


class Fewer:
    """A launch of one team less than there are rows."""

    def __init__(self, place):
        self.place = place

    def __getattr__(self, name):
        return getattr(self.place, name)

    def __call__(self, kernel, grid, *rest):
        return self.place(kernel, grid - 1, *rest)


def test_a_launch_that_misses_a_row_would_be_seen(rng):
    arrays = problem(rng, (40, 5), "float64", forbidden=0.0)
    wanted = entropic_sweep.body(*arrays)
    np.testing.assert_allclose(sweep.entropic_sweep(Place(3), *arrays), wanted)
    assert not np.allclose(sweep.entropic_sweep(Fewer(Place(3)), *arrays), wanted)
