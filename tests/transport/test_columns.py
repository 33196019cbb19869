"""Projections on the simplex, the k-support norm and its proximal map: known answers, oracles, laws, refusals."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy
from orthokern.transport.columns import ksupport_prox, simplex_projection

from .conftest import eps_of, made

BOUNDED = settings(derandomize=True, max_examples=80, deadline=None, database=None)
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)
seeds = st.integers(0, 2**32 - 1)


def vector(seed, n, kind):
    """Random, with equal entries, or over many scales."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(n)
    return {"normal": v, "equal": np.round(2 * v) / 2, "graded": v * 10.0 ** rng.uniform(-8, 2, n)}[
        kind
    ]


kinds = st.sampled_from(["normal", "equal", "graded"])


# Projection on the simplex

PROJECTIONS = [
    ([0.5, 1.0, -3.0], 1.0, [0.25, 0.75, 0.0]),
    ([0.2, 0.3, 0.5], 1.0, [0.2, 0.3, 0.5]),
    ([7.0, 7.0, 7.0, 7.0], 1.0, [0.25] * 4),
    ([3.0, 2.0, 1.0], 2.0, [1.5, 0.5, 0.0]),
    ([-5.0], 3.0, [3.0]),
    ([1.0, 2.0], 0.0, [0.0, 0.0]),
    ([-np.inf, 1.0, 1.0], 1.0, [0.0, 0.5, 0.5]),
]


@pytest.mark.parametrize(("v", "z", "expected"), PROJECTIONS)
def test_known_projections(place, dtype, v, z, expected):
    x = made([v], place.library, dtype)
    found = orthokern.project_simplex(x, z, backend=place.backend)
    assert type(found) is type(x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(to_numpy(found)[0], expected, rtol=0, atol=4 * z * eps_of(x))


def nearest_by_supports(v, z, k):
    """Of all supports of at most k entries the one whose projection is nearest."""
    best, where = None, np.inf
    for size in range(1, k + 1):
        for chosen in map(list, combinations(range(len(v)), size)):
            y = np.zeros(len(v))
            y[chosen] = v[chosen] - (v[chosen].sum() - z) / size
            distance = ((y - v) ** 2).sum()
            if y.min() >= 0 and distance < where - 1e-12:
                best, where = y, distance
    return best, where


@every_backend
@given(
    seed=seeds, n=st.integers(1, 8), kind=kinds, z=st.sampled_from([1e-3, 1.0, 4.0]), data=st.data()
)
@BOUNDED
def test_no_support_gives_a_nearer_point(seed, n, kind, z, data, backend):
    v = vector(seed, n, kind)
    k = data.draw(st.integers(1, n))
    _, distance = nearest_by_supports(v, z, k)
    y = orthokern.project_sparse_simplex(v, z, k=k, backend=backend)
    assert np.count_nonzero(y) <= k
    assert y.min() >= 0
    np.testing.assert_allclose(y.sum(), z, rtol=1e-14)
    np.testing.assert_allclose(((y - v) ** 2).sum(), distance, rtol=1e-12, atol=1e-12)


@every_backend
@given(seed=seeds, n=st.integers(1, 50), z=st.floats(1e-6, 1e6))
@BOUNDED
def test_projecting_is_nonexpansive_and_idempotent(seed, n, z, backend):
    v, w = vector(seed, n, "normal"), vector(seed + 1, n, "equal")
    y, x = (orthokern.project_simplex(u, z, backend=backend) for u in (v, w))
    assert np.linalg.norm(x - y) <= np.linalg.norm(v - w) * (1 + 1e-12) + 1e-14 * z
    again = orthokern.project_simplex(y, z, backend=backend)
    np.testing.assert_allclose(again, y, rtol=0, atol=1e-15 * z * n)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_projections_at_any_scale(scale, rng, backend):
    v = rng.standard_normal((4, 9))
    expected = orthokern.project_simplex(v, 2.0, backend=backend)
    found = orthokern.project_simplex(v * scale, 2.0 * scale, backend=backend)
    np.testing.assert_allclose(found / scale, expected, rtol=1e-12, atol=1e-13)


def test_entries_at_the_ends_of_the_range(backend):
    v = np.array([1.7e308, -1.7e308, 1.7e308])
    assert orthokern.project_simplex(v, 1.0, backend=backend).tolist() == [0.5, 0, 0.5]
    assert orthokern.project_simplex(np.array([0.0, -1.0]), 1e-308, backend=backend)[0] == 1e-308


def test_a_common_shift_costs_no_accuracy(rng, backend):
    v = rng.integers(-8, 8, (5, 40)).astype(np.float32) / 8
    expected = orthokern.project_simplex(v, backend=backend)
    found = orthokern.project_simplex(v + np.float32(2**19), backend=backend)
    np.testing.assert_array_equal(found, expected)


def test_long_vectors_in_single_precision(rng, backend):
    v = (-0.5 + 1e-5 * rng.random(300_000)).astype(np.float32)
    v[0] = 0
    y = orthokern.project_simplex(v, backend=backend).astype(float)
    exact = orthokern.project_simplex(v.astype(float), backend=backend)
    np.testing.assert_allclose(y.sum(), 1, rtol=2e-6)
    np.testing.assert_allclose(y, exact, rtol=0, atol=3e-7)


def test_of_equal_entries_the_first_are_taken(place):
    v = made([[1.0, 2.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0]], place.library)
    found = to_numpy(orthokern.project_sparse_simplex(v, k=2, backend=place.backend))
    assert found.tolist() == [[0, 0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0, 0]]


def test_one_sum_for_each_vector(place, rng):
    v, z = rng.standard_normal((3, 4, 6)), np.array([[0.5], [1.0], [2.0]])
    given = made(v, place.library), made(z, place.library)
    found = to_numpy(orthokern.project_simplex(*given, backend=place.backend))
    np.testing.assert_allclose(found.sum(-1), np.broadcast_to(z, (3, 4)), rtol=1e-6)
    alone = orthokern.project_simplex(v[2, 1], 2.0)
    np.testing.assert_allclose(found[2, 1], alone, rtol=1e-5, atol=1e-6)


KERNELS = {
    "project_simplex": orthokern.project_simplex,
    "project_sparse_simplex": lambda v, **o: orthokern.project_sparse_simplex(v, k=2, **o),
    "prox_ksupport": lambda v, **o: orthokern.prox_ksupport(v, 0.5, k=2, **o),
    "ksupport_norm_squared": lambda v, **o: orthokern.ksupport_norm_squared(v, k=2, **o),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


@every_kernel
def test_any_axis(kernel, rng, backend):
    v = rng.standard_normal((3, 4, 5))
    for axis in (0, 1, -2):
        moved = kernel(np.moveaxis(v, axis, -1), backend=backend)
        found = kernel(v, axis=axis, backend=backend)
        if moved.ndim == v.ndim:
            found = np.moveaxis(found, axis, -1)
        np.testing.assert_allclose(found, moved, rtol=1e-14)


@every_kernel
def test_members_of_a_batch_do_not_touch_each_other(kernel, rng, backend):
    v = rng.standard_normal((4, 6))
    clean = kernel(v, backend=backend)
    v[1, 2], v[2, 3] = np.nan, np.inf
    found = kernel(v, backend=backend)
    assert np.array_equal(found[[0, 3]], clean[[0, 3]])
    assert np.all(np.isnan(found[1]))
    assert not np.any(np.isfinite(found[2]))
    assert np.isnan(v[1, 2])


@every_kernel
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)])
def test_empty(kernel, shape, backend):
    v = np.zeros(shape, dtype=np.float32)
    found = kernel(v, backend=backend)
    assert found.shape in (shape, shape[:-1])
    assert found.dtype == v.dtype
    assert not np.any(found)


@every_kernel
def test_half_precision_is_computed_in_single(kernel, rng, backend):
    v = rng.standard_normal((3, 50)).astype(np.float16)
    found, exact = (kernel(x, backend=backend) for x in (v, v.astype(np.float32)))
    assert found.dtype == (np.float16 if found.ndim == 2 else np.float32)
    np.testing.assert_array_equal(found, exact.astype(found.dtype))


@every_kernel
@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex128])
def test_dtypes_without_meaning_are_refused(kernel, dtype):
    with pytest.raises(orthokern.DTypeError, match=r"cast to a floating dtype first|real part"):
        kernel(np.ones((2, 3), dtype=dtype))


@every_kernel
@pytest.mark.parametrize("axis", [2, -3, 1.5, True, None])
def test_axes_that_are_not_there_are_refused(kernel, axis):
    with pytest.raises(orthokern.OptionError, match=r"expected axis .* shape \(2, 3\)"):
        kernel(np.ones((2, 3)), axis=axis)


REFUSED = {
    "sum": (lambda v: orthokern.project_simplex(v, -1.0), orthokern.OptionError, "z to be a finite number"),
    "no sum": (lambda v: orthokern.project_simplex(v, np.nan), orthokern.OptionError, "z to be a finite"),
    "sums": (lambda v: orthokern.project_simplex(v, np.array([1.0, -1.0])), orthokern.ValuesError, "every entry of z"),
    "shape": (lambda v: orthokern.project_simplex(v, np.ones(3)), orthokern.ShapeError, r"broadcast against \(2,\)"),
    "k": (lambda v: orthokern.project_sparse_simplex(v, k=0), orthokern.OptionError, "k to be an integer >= 1"),
    "k is true": (lambda v: orthokern.prox_ksupport(v, 1.0, k=True), orthokern.OptionError, "k to be an integer >= 1"),
    "k of the norm": (lambda v: orthokern.ksupport_norm_squared(v, k=2.5), orthokern.OptionError, "k to be an integer"),
    "weight": (lambda v: orthokern.prox_ksupport(v, -0.5, k=2), orthokern.OptionError, "lam to be a finite number"),
    "list": (lambda v: orthokern.project_simplex(v.tolist()), orthokern.ArrayTypeError, "expected an array for v"),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3), (2, 0)])
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, shape):
    call, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        call(np.ones(shape))


def test_numpy_integers_are_integers():
    v = np.array([3.0, 2.0, 1.0])
    assert orthokern.ksupport_norm_squared(v, k=np.int64(2), axis=np.int32(0)) == 18


# The k-support norm

NORMS = [
    ([3.0, 2.0, 1.0], {1: 36, 2: 18, 3: 14, 5: 14}),
    ([1.0, 1.0, 1.0, 1.0], {2: 8, 4: 4}),
    ([5.0, 1.0, 1.0, 1.0], {2: 34}),
    ([0.4, -0.3, 0.2, -0.1], {2: 0.5, 3: 0.34}),
    ([0.0, 0.0], {1: 0}),
    ([-2.0], {1: 4}),
]


@pytest.mark.parametrize(("t", "values"), NORMS)
def test_known_norms(place, dtype, t, values):
    x = made([t], place.library, dtype)
    for k, value in values.items():
        found = orthokern.ksupport_norm_squared(x, k=k, backend=place.backend)
        assert tuple(found.shape) == (1,)
        np.testing.assert_allclose(to_numpy(found), value, rtol=8 * eps_of(x), atol=0)


@given(seed=seeds, n=st.integers(1, 30), kind=kinds)
@BOUNDED
def test_the_norm_lies_between_its_neighbours(seed, n, kind):
    t = vector(seed, n, kind)
    values = [orthokern.ksupport_norm_squared(t, k=k) for k in range(1, n + 1)]
    np.testing.assert_allclose(values[0], np.abs(t).sum() ** 2, rtol=1e-13)
    np.testing.assert_allclose(values[-1], (t**2).sum(), rtol=1e-13)
    assert np.all(np.diff(values) <= 1e-13 * values[0])


@given(seed=seeds, n=st.integers(2, 12), data=st.data())
@BOUNDED
def test_the_norm_is_dual_to_the_largest_entries(seed, n, data):
    """``<s, t> <= ||s||_dual ||t||`` with equality for the gradient of half the square."""
    k = data.draw(st.integers(1, n - 1))
    t, s = vector(seed, n, "normal"), vector(seed + 1, n, "normal")

    def dual(x):
        return (np.sort(x**2)[n - k :]).sum()

    norm = orthokern.ksupport_norm_squared(t, k=k)
    assert (s @ t) ** 2 <= dual(s) * norm * (1 + 1e-12)
    h = 1e-6
    gradient = [
        (
            orthokern.ksupport_norm_squared(t + h * e, k=k)
            - orthokern.ksupport_norm_squared(t - h * e, k=k)
        )
        / (4 * h)
        for e in np.eye(n)
    ]
    np.testing.assert_allclose(dual(np.array(gradient)), norm, rtol=1e-5)


# Its proximal map

PROX = [
    ([3.0, 2.0, 1.0], 1.0, 1, [4 / 3, 1 / 3, 0]),
    ([3.0, 2.0, 1.0], 1.0, 2, [1.5, 1, 0]),
    ([3.0, 2.0, 1.0], 0.5, 2, [2, 1.25, 0.25]),
    ([3.0, 2.0, 1.9, 0.1], 0.5, 2, [2, 1.025, 0.925, 0]),
    ([3.0, -2.0, 1.0], 0.0, 1, [3, 0, 1]),
    ([3.0, 2.0, 1.0], 1.0, 3, [1.5, 1, 0.5]),
    ([3.0, 2.0, 1.0], 1.0, 7, [1.5, 1, 0.5]),
    ([2.0, 2.0, 2.0, 2.0], 1.0, 2, [2 / 3] * 4),
    ([-1.0, 4.0, -1.0], 1.0, 2, [0, 2, 0]),
    ([5.0], 1.0, 1, [2.5]),
    ([0.0, 0.0], 2.0, 1, [0, 0]),
]


@pytest.mark.parametrize(("v", "lam", "k", "expected"), PROX)
def test_known_proximal_points(place, dtype, v, lam, k, expected):
    x = made([v], place.library, dtype)
    found = to_numpy(orthokern.prox_ksupport(x, lam, k=k, backend=place.backend))
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=8 * eps_of(x) * max(v))


def objective(t, v, lam, k):
    return ((t - v) ** 2).sum() / 2 + lam / 2 * orthokern.ksupport_norm_squared(t, k=k)


@every_backend
@given(
    seed=seeds,
    n=st.integers(1, 8),
    kind=kinds,
    lam=st.sampled_from([0.0, 1e-4, 0.3, 1.0, 50.0]),
    data=st.data(),
)
@BOUNDED
def test_no_point_near_or_far_is_better(seed, n, kind, lam, data, backend):
    v = vector(seed, n, kind)
    k = data.draw(st.integers(1, n))
    t = orthokern.prox_ksupport(v, lam, k=k, backend=backend)
    assert t.min() >= 0
    value = objective(t, v, lam, k)
    rng = np.random.default_rng(seed)
    for size in 10.0 ** np.arange(-6, 1):
        other = np.maximum(t + size * rng.standard_normal((20, n)), 0)
        values = [objective(x, v, lam, k) for x in other]
        assert value <= min(values) + 1e-12 * (1 + abs(value))


def conjugate_prox(v, lam, k):
    """Proximal map of ``f*(s) = sum of the k largest [s]_+^2 / (2 lam)``: the subset of the capped that is optimal."""
    n = len(v)
    best, least = None, np.inf
    ordered = np.sort(np.maximum(v, 0))[::-1]
    # The k largest of the result are v shrunk by 1 / (1 + 1/lam), but for a plateau: the level by search.
    for level in np.linspace(0, ordered[0] + 1e-12, 20001):
        s = np.where(v > 0, np.minimum(v, np.maximum(v * lam / (1 + lam), level)), v)
        value = ((s - v) ** 2).sum() / 2 + (np.sort(np.maximum(s, 0))[n - k :] ** 2).sum() / (
            2 * lam
        )
        if value < least:
            best, least = s, value
    return best


@pytest.mark.parametrize(("lam", "k"), [(0.5, 2), (1.0, 1), (3.0, 3)])
def test_moreau_decomposition(lam, k, rng, backend):
    v = rng.standard_normal(6) + 0.5
    t = orthokern.prox_ksupport(v, lam, k=k, backend=backend)
    np.testing.assert_allclose(t + conjugate_prox(v, lam, k), v, atol=5e-4)


@every_backend
@given(seed=seeds, n=st.integers(2, 60), lam=st.floats(0, 1e4), data=st.data())
@BOUNDED
def test_the_map_and_what_it_leaves_are_nonexpansive(seed, n, lam, data, backend):
    k = data.draw(st.integers(1, n))
    v, w = vector(seed, n, "normal"), vector(seed + 1, n, "equal")
    t, s = (orthokern.prox_ksupport(x, lam, k=k, backend=backend) for x in (v, w))
    distance = ((v - w) ** 2).sum()
    assert ((t - s) ** 2).sum() + ((v - t - w + s) ** 2).sum() <= distance * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
@pytest.mark.parametrize("lam", [0.0, 1e-8, 1.0, 1e8])
def test_proximal_points_at_any_scale(scale, lam, rng, backend):
    v = rng.standard_normal((5, 20))
    expected = orthokern.prox_ksupport(v, lam, k=4, backend=backend)
    found = orthokern.prox_ksupport(v * scale, lam, k=4, backend=backend)
    np.testing.assert_allclose(found / scale, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("lam", [0.0, 1e-12, 1e-3, 0.7, 1e3, 1e12])
@pytest.mark.parametrize("kind", ["equal", "powers", "spikes", "graded"])
def test_levels_of_hard_vectors(kind, lam, rng, backend):
    """The shares that define the level add up to k, whatever the distribution."""
    n, k = 120, 17
    v = {
        "equal": np.ones(n) + 1e-9 * rng.random(n),
        "powers": 2.0 ** -np.arange(n),
        "spikes": np.r_[10.0 ** rng.uniform(10, 20, k - 1), rng.random(n - k + 1)],
        "graded": 10.0 ** rng.uniform(-200, 0, n),
    }[kind]
    with orthokern.use_backend(backend):
        t, w = ksupport_prox(v[None], np.array([[lam]]), k=k)
    shares = np.clip(v / w[0] - lam, 0, 1).sum()
    np.testing.assert_allclose(shares, k, rtol=1e-12 * (1 + lam * n))
    np.testing.assert_allclose(
        t[0], np.minimum(np.maximum(v - lam * w[0], 0), v / (1 + lam)), atol=1e-15 * v.max()
    )


def test_levels_and_supports_do_not_depend_on_the_backend(rng):
    v = np.round(rng.standard_normal((200, 25)) * 4) / 4
    one = np.ones((200, 1))
    for k in (1, 3, 24, 25):
        found = []
        for name in (None, "array-api"):
            with orthokern.use_backend(name):
                found.append(
                    (simplex_projection(v, 2 * one, k=k), ksupport_prox(v, one / 2, k=k)[0])
                )
        for default, reference in zip(*found, strict=True):
            np.testing.assert_allclose(default, reference, rtol=0, atol=1e-14)
            assert np.array_equal(default > 1e-13, reference > 1e-13)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="JAX is not installed")
def test_what_is_forbidden_stays_empty_where_code_is_fused(rng):
    """A compiler that fuses rounds the threshold otherwise; entries of minus infinity are none all the same."""
    import jax

    v, z = rng.standard_normal((2000, 6)), rng.random((2000, 1)) + 0.1
    v[:, 2] = -np.inf
    project = jax.jit(lambda x, y: simplex_projection(x, y, k=6))
    found = np.asarray(project(made(v, "jax"), made(z, "jax")))
    assert np.count_nonzero(found[:, 2]) == 0
    low = v <= v.max(axis=-1, keepdims=True) - 1.001 * z
    assert np.count_nonzero(found[low]) == 0
    assert np.count_nonzero(found) > 2000
