"""Column functions on the device, against the bodies of the ops in float64."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu import columns, columns_kernels

from orthokern.transport.columns import ksupport_prox, simplex_projection

from .fibers import Place

DTYPES = ("float64", "float32")


def weights(v, *values):
    return np.resize(np.array(values, v.dtype), (*v.shape[:-1], 1))


def projected(place, v, z, k):
    return columns.simplex_projection(place, v, z, k=k)


def assert_close_to_the_body(found, op, v, weight, k, scale):
    wanted = op.body(v.astype(float), weight.astype(float), k=k)
    tolerance = (4 + v.shape[-1] ** 0.5) * np.finfo(v.dtype).eps
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (found, wanted)), strict=True)
    for part, exact in pairs:
        assert part.dtype == v.dtype
        assert part.shape == exact.shape
        np.testing.assert_array_equal(np.isnan(part), np.isnan(exact))
        np.testing.assert_array_less(
            np.nan_to_num(np.abs(part - exact) / scale), np.full_like(exact, tolerance) + 1e-300
        )


SHAPES = [(1,), (2, 1), (2, 33), (2, 2, 13), (1, 300), (1, 1030)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_projections_of_every_length(everywhere, rng, shape, dtype):
    v = rng.standard_normal(shape).astype(dtype)
    z = weights(v, 0.5, 8.0)
    for k in {1, min(5, shape[-1]), shape[-1]}:
        found = everywhere(lambda place, k=k: projected(place, v, z, k))
        assert_close_to_the_body(found, simplex_projection, v, z, k, z)
        assert np.all(np.count_nonzero(found, axis=-1) <= k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_proximal_maps_of_every_length(everywhere, rng, shape, dtype):
    v = rng.standard_normal(shape).astype(dtype)
    lam = weights(v, 0.3, 2.0)
    for k in {1, min(5, shape[-1]), shape[-1]}:
        found = everywhere(lambda place, k=k: columns.ksupport_prox(place, v, lam, k=k))
        assert_close_to_the_body(found, ksupport_prox, v, lam, k, 1.0)


def test_one_weight_for_all_rows(everywhere, rng):
    v = rng.standard_normal((2, 3, 7))
    for weight in (np.full((1, 1, 1), 0.7), rng.random((2, 1, 1)), rng.random((1, 3, 1))):
        whole = np.broadcast_to(weight, (2, 3, 1)).copy()
        found = everywhere(lambda place, w=weight: projected(place, v, w, 3))
        np.testing.assert_array_equal(
            found, everywhere(lambda place, w=whole: projected(place, v, w, 3))
        )
        levels = everywhere(lambda place, w=weight: columns.ksupport_prox(place, v, w, k=3)[1])
        assert levels.shape == (2, 3, 1)


def test_known_answers():
    v = np.array([[0.5, 1.0, 0.75, 1.0], [3.0, 2.0, 1.0, 0.0]])
    found = projected(Place(), v, np.ones((2, 1)), 2)
    np.testing.assert_array_equal(found, [[0.0, 0.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0]])
    t, w = columns.ksupport_prox(Place(), v[1:], np.full((1, 1), 0.5), k=2)
    np.testing.assert_allclose(t, [[2.0, 1.25, 0.25, 0.0]], rtol=1e-15)
    np.testing.assert_allclose(w, [[1.5]], rtol=1e-15)


@pytest.mark.parametrize("k", [1, 2, 7, 39])
@pytest.mark.parametrize("value", [0.0, -2.5, 1e30])
def test_of_equal_entries_the_first_are_taken(everywhere, value, k):
    v = np.full((1, 40), value, np.float32)
    found = everywhere(lambda place: projected(place, v, np.ones((1, 1), np.float32), k))
    np.testing.assert_array_equal(np.flatnonzero(found), np.arange(k))
    np.testing.assert_allclose(found[0, :k], 1 / k, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_both_signs_are_equal_and_repeated_values_keep_their_order(rng, dtype):
    signs = np.where(np.arange(12) % 2, 0.0, -0.0).astype(dtype)[None]
    found = projected(Place("backward"), signs, np.ones((1, 1), dtype), 3)
    np.testing.assert_array_equal(np.flatnonzero(found), [0, 1, 2])
    v = np.round(2 * rng.standard_normal((4, 12))).astype(dtype) / 4
    z = weights(v, 1.0, 6.0)
    for k in (1, 2, 5, 11):
        found = projected(Place(3), v, z, k)
        wanted = simplex_projection.body(v, z, k=k)
        np.testing.assert_array_equal(found > 0, wanted > 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [3, 10])
def test_rows_without_an_answer_are_nan_and_only_they(everywhere, rng, dtype, k):
    v = rng.standard_normal((5, 10)).astype(dtype)
    v[0, 4], v[1, 7], v[2], v[3, ::2] = np.nan, np.inf, -np.inf, -np.inf
    one = weights(v, 1.0)
    with np.errstate(invalid="ignore"):
        found = everywhere(lambda place: projected(place, v, one, k))
        assert np.isnan(found).all(-1).tolist() == [True, True, True, False, False]
        assert_close_to_the_body(found, simplex_projection, v, one, k, 1.0)
        found = everywhere(lambda place: columns.ksupport_prox(place, v, one, k=k))
        assert np.isnan(found[0]).all(-1).tolist() == [True, True, False, False, False]
        assert_close_to_the_body(found, ksupport_prox, v, one, k, 1.0)
    assert np.isnan(projected(Place(), v[4:], np.full((1, 1), np.nan, dtype), k)).all()
    assert np.isnan(columns.ksupport_prox(Place(), v[4:], one[:1] * np.nan, k=k)[0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_from_end_to_end_of_the_range(rng, dtype):
    form = np.finfo(dtype)
    scales = [form.tiny * 1e8, 1e-20, 1.0, 1e20, form.max / 8]
    v = np.clip(rng.standard_normal((5, 20)), -2, 2)
    for k in (4, 20):
        for scale in scales:
            rows, z = (v * scale).astype(dtype), np.full((5, 1), 3 * scale).astype(dtype)
            assert_close_to_the_body(
                projected(Place(3), rows, z, k), simplex_projection, rows, z, k, 3 * scale
            )
            lam = weights(rows, 0.0, 0.5, 4.0)
            found = columns.ksupport_prox(Place(3), rows, lam, k=k)
            assert_close_to_the_body(found, ksupport_prox, rows, lam, k, 3 * scale)


def test_a_sum_of_zero_and_a_largest_that_overflows():
    v = np.array([[3e38, -3e38, 3e38]], np.float32)
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert not projected(Place(), v, zero, 3).any()
    np.testing.assert_array_equal(projected(Place(), v, one, 3), [[0.5, 0.0, 0.5]])


@pytest.mark.parametrize("lam", [0.0, 1e-3, 1.0, 50.0])
def test_levels_between_ties_and_at_the_ends_of_the_bracket(rng, lam):
    v = np.round(2 * rng.standard_normal((8, 12))) / 4
    v[0], v[1, 3:], v[2] = 1.0, 0.0, -1.0
    weight = np.full((8, 1), lam)
    for k in (1, 3, 11):
        found = columns.ksupport_prox(Place(3), v, weight, k=k)
        assert_close_to_the_body(found, ksupport_prox, v, weight, k, 1.0)


def test_views_and_no_rows_at_all(rng):
    v = np.swapaxes(rng.standard_normal((4, 12, 6))[::2], -1, -2)
    one = weights(v, 1.0)
    found = projected(Place(3), v, one, 4)
    assert_close_to_the_body(found, simplex_projection, v, one, 4, 1.0)
    assert projected(Place(), v[:0], one[:0], 4).shape == (0, 6, 12)
    t, w = columns.ksupport_prox(Place(), v[:0], one[:0], k=4)
    assert (t.shape, w.shape) == ((0, 6, 12), (0, 6, 1))


def off_by_one(words, sign, k, counts):
    least, end = SELECTED(words, sign, k, counts)
    return least, end + 1


SELECTED = columns_kernels._selected


def test_one_of_equal_entries_too_many_would_be_seen(monkeypatch):
    monkeypatch.setattr(columns_kernels, "_selected", off_by_one)
    found = projected(Place(), np.zeros((1, 9)), np.ones((1, 1)), 3)
    assert np.count_nonzero(found) == 4


def test_a_threshold_that_is_not_polished_would_be_seen(rng, monkeypatch):
    v = (rng.standard_normal((1, 2000)) * 1e-4).astype(np.float32)
    one = weights(v, 1.0)

    def missed():
        return abs(float(projected(Place(3), v, one, 2000).sum(dtype=float)) - 1)

    fine = missed()
    monkeypatch.setattr(columns_kernels, "POLISHING", 0)
    assert missed() > 4 * fine
