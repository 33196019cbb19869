"""Sweeps over costs on the device, against the bodies of the ops in float64."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import sweep, sweep_kernels

from orthokern.transport.sweep import entropic_sweep, quadratic_sweep

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
    """Potentials, costs and a parameter for each member."""
    *batch, m, n = shape
    cost = g.random(shape)
    cost[g.random(shape) < forbidden] = np.inf
    alpha, beta = g.standard_normal((*batch, m)) / 2, g.standard_normal((*batch, n)) / 2
    gamma = g.uniform(0.1, 1.0, (*batch, 1, 1))
    return tuple(x.astype(dtype) for x in (alpha, beta, cost, gamma))


def as_double(arrays):
    return tuple(x.astype(float) for x in arrays)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_a_quadratic_plan(ordered, rng, shape, dtype):
    arrays = problem(rng, shape, dtype)
    found = ordered(lambda place: sweep.quadratic_sweep(place, *arrays))
    for part, exact in zip(found, quadratic_sweep.body(*as_double(arrays)), strict=True):
        assert (part.dtype, part.shape) == (arrays[0].dtype, exact.shape)
        scale = 1 + 2 * exact.max() + max(shape)
        np.testing.assert_allclose(part, exact, atol=4 * scale * np.finfo(dtype).eps)


def test_known_sums():
    arrays = np.array([1.0, 0.0]), np.array([1.0, -1.0]), np.array([[0.5, 0.0], [1.0, np.inf]])
    rows, columns, value = sweep.quadratic_sweep(Place(), *arrays, np.full((1, 1), 0.5))
    assert (rows.tolist(), columns.tolist(), float(value)) == ([3.0, 0.0], [3.0, 0.0], 2.25)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_sums_of_exponentials(ordered, rng, shape, dtype):
    assert_logarithms(ordered, *problem(rng, shape, dtype)[1:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_long_rows(everywhere, rng, dtype):
    assert_logarithms(everywhere, *problem(rng, (2, 1030), dtype)[1:])


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
    alpha, beta, cost, gamma = problem(rng, (4, 6), "float64", forbidden=0.0)
    cost[1, 2] = np.nan
    logarithms = sweep.entropic_sweep(Place(), beta, cost, gamma)
    assert np.isnan(logarithms).tolist() == [False, True, False, False]
    rows, columns, value = sweep.quadratic_sweep(Place(), alpha, beta, cost, gamma)
    assert np.isnan(rows).tolist() == [False, True, False, False]
    assert np.flatnonzero(np.isnan(columns)).tolist() == [2]
    assert np.isnan(value)


def test_more_members_than_a_grid_takes_views_and_none(rng, monkeypatch):
    monkeypatch.setattr(sweep, "_MOST_MEMBERS", 1)
    arrays = problem(rng, (3, 4, 6), "float64")
    view = tuple(np.asfortranarray(x) for x in arrays)
    for part, exact in zip(
        sweep.quadratic_sweep(Place(3), *view), quadratic_sweep.body(*arrays), strict=True
    ):
        np.testing.assert_allclose(part, exact, atol=1e-13)
    empty = tuple(x[:0] for x in arrays)
    shapes = [part.shape for part in sweep.quadratic_sweep(Place(), *empty)]
    assert shapes == [(0, 4), (0, 6), (0,)]
    assert sweep.entropic_sweep(Place(), *empty[1:]).shape == (0, 4)


class Larger:
    """The kernels, whose bands are larger for the launch than for themselves."""

    BAND = 2 * sweep_kernels.BAND

    def __getattr__(self, name):
        return getattr(sweep_kernels, name)


def test_a_launch_that_misses_a_part_of_the_costs_would_be_seen(rng, monkeypatch):
    arrays = problem(rng, (40, 5), "float64", forbidden=0.0)
    wanted = quadratic_sweep.body(*arrays)[1]
    np.testing.assert_allclose(sweep.quadratic_sweep(Place(3), *arrays)[1], wanted)
    monkeypatch.setattr(sweep, "kernels", Larger())
    assert not np.allclose(sweep.quadratic_sweep(Place(3), *arrays)[1], wanted)
