"""Least squares: known answers, backward errors over all condition numbers, hard inputs, laws, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import orthokern
from orthokern import LstsqMethod, LstsqStatus
from orthokern.sketching.cases.lstsq import backward_error
from orthokern.sketching.rough import rough_solution
from orthokern.sketching.starts import Request
from orthokern.testing.libraries import to_numpy

from .conftest import eps_of, made

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
EPS = 2.0**-52
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)
seeds = st.integers(0, 2**32 - 1)


def difficult(n, d, kappa, residual, seed=0):
    """A of condition number ``kappa`` and norm 1, ``||x|| = 1``, and a residual of that norm."""
    rng = np.random.default_rng(seed)
    w, _ = np.linalg.qr(rng.standard_normal((n, d + 1)))
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    a = (w[:, :d] * np.logspace(-np.log10(kappa), 0, d)) @ v.T
    x = rng.standard_normal(d)
    return a, a @ (x / np.linalg.norm(x)) + residual * w[:, d]


def error(a, b, x):
    return backward_error(a, b[:, None], x[:, None])


def relative(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


# Known answers


def test_a_line_through_four_points(place, dtype):
    a = made([[1, 1], [1, 2], [1, 3], [1, 4]], place.library, dtype)
    b = made([6, 5, 7, 10], place.library, dtype)
    x, residuals, rank, values, info = orthokern.lstsq(a, b, backend=place.backend)
    assert type(x) is type(a)
    assert x.dtype == a.dtype
    np.testing.assert_allclose(to_numpy(x), [3.5, 1.4], rtol=0, atol=20 * eps_of(a))
    np.testing.assert_allclose(to_numpy(residuals), 4.2, rtol=20 * eps_of(a))
    assert int(rank) == 2
    assert values is None
    assert bool(info.converged)


def test_its_singular_values(place):
    a = made([[1, 1], [1, 2], [1, 3], [1, 4]], place.library)
    found = orthokern.lstsq(a, made([6, 5, 7, 10], place.library), method="svd")
    expected = [5.779378813233887, 0.773809106397227]
    tolerance = 100 * eps_of(a)
    np.testing.assert_allclose(to_numpy(found.singular_values), expected, rtol=tolerance)


# Backward errors


@every_backend
@pytest.mark.parametrize("residual", [1e-15, 1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("power", range(16))
def test_every_condition_number_and_residual(power, residual, backend):
    a, b = difficult(4000, 50, 10.0**power, residual, seed=power)
    found = orthokern.lstsq(a, b, rcond=0.0, backend=backend)
    assert error(a, b, found.x) <= 1e-15
    assert bool(found.info.converged)
    assert int(found.info.method) == (LstsqMethod.GRAM if power < 8 else found.info.method)


@every_backend
@pytest.mark.parametrize("shape", [(30, 5), (200, 20), (60, 40), (1000, 12)])
@pytest.mark.parametrize("power", [6, 8, 10, 12, 14])
def test_small_and_ill_conditioned(power, shape, backend):
    a, b = difficult(*shape, 10.0**power, 1e-2, seed=power)
    found = orthokern.lstsq(a, b, rcond=0.0, backend=backend)
    assert error(a, b, found.x) <= 1e-15
    assert bool(found.info.converged)
    assert int(found.rank) == shape[1]
    residual = np.linalg.norm(b - a @ found.x)
    np.testing.assert_allclose(found.info.residual, residual, rtol=1e-10)
    np.testing.assert_allclose(found.residuals, residual**2, rtol=1e-10)


@pytest.mark.parametrize("shape", [(200, 20), (9000, 150)])
def test_large_residuals_count_in_what_is_measured(shape):
    """Without them the error of an ill-conditioned problem would seem larger by orders of magnitude."""
    a, b = difficult(*shape, 1e12, 1.0)
    found = orthokern.lstsq(a, b, rcond=0.0)
    assert 0.1 < float(found.info.backward_error) / error(a, b, found.x) < 10


@pytest.mark.parametrize("method", ["pgram", "spir", "qr", "svd"])
@pytest.mark.parametrize("power", [0, 6, 10])
def test_every_method(method, power):
    a, b = difficult(1000, 30, 10.0**power, 1e-3)
    found = orthokern.lstsq(a, b, method=method, rcond=0.0)
    assert error(a, b, found.x) <= 1e-15
    assert int(found.info.method) == LstsqMethod[method.upper()]


@pytest.mark.parametrize("unit", [1, 1j])
@pytest.mark.parametrize("kappa", [1e1, 1e3, 1e5])
def test_many_columns(kappa, unit):
    """A Gram matrix in single precision where it is enough, with the same accuracy."""
    a, b = difficult(6400, 400, kappa, 1e-2)
    if unit == 1j:
        a, b = np.exp(1j * np.arange(6400))[:, None] * a, np.exp(1j * np.arange(6400)) * b
    request = Request(None, None, EPS, 8, True, None, 0)
    assert (rough_solution(a, b[:, None], request) is not None) == (kappa < 1e4)
    found = orthokern.lstsq(a, b)
    assert error(a, b, found.x) <= 1e-15
    assert int(found.info.method) == LstsqMethod.GRAM
    assert relative(found.x, np.linalg.lstsq(a, b, rcond=None)[0]) <= 10 * EPS * kappa**2


@pytest.mark.parametrize("scales", ["tiny", "huge", "graded"])
def test_many_columns_outside_single_precision(scales):
    a, b = difficult(6400, 400, 10.0, 1e-2)
    powers = {"tiny": -80.0, "huge": 80.0, "graded": np.linspace(-30, 30, 400)}[scales]
    x = orthokern.lstsq(a * 10.0**powers, b).x * 10.0**powers
    np.testing.assert_allclose(x, np.linalg.lstsq(a, b, rcond=None)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_many_columns_and_a_right_hand_side_out_of_range(bad):
    a, b = difficult(6400, 400, 10.0, 1e-2)
    x = orthokern.lstsq(a, np.stack([b, np.where(np.arange(6400) == 7, bad, b)], axis=1)).x
    assert relative(x[:, 0], np.linalg.lstsq(a, b, rcond=None)[0]) <= 1e-13
    assert np.all(np.isfinite(x[:, 1])) == np.isfinite(bad)


def test_many_columns_and_damping():
    a, b = difficult(6400, 400, 10.0, 1e-2)
    found = orthokern.lstsq(a, b, damp=0.3)
    expected = np.linalg.solve(a.T @ a + 0.09 * np.eye(400), a.T @ b)
    np.testing.assert_allclose(found.x, expected, rtol=0, atol=1e-13)


def test_what_is_measured_is_the_backward_error():
    """Of a solution that is spoilt by a known amount, too."""
    a, b = difficult(500, 10, 1e4, 0.1)
    whole = orthokern.lstsq(a, b, method="sketch", sketch_size=80)
    assert error(a, b, whole.x) > 1e-5
    ratio = float(whole.info.backward_error) / error(a, b, whole.x)
    assert 0.4 < ratio < 2.5
    assert int(whole.info.status) == LstsqStatus.SKETCHED


@pytest.mark.parametrize("small", [1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("rows", [0, 8000])
def test_lauchli(small, rows):
    a = np.vstack([np.ones(20), small * np.eye(20), np.zeros((rows, 20))])
    b = np.random.default_rng(1).standard_normal(21 + rows)
    # By default a ratio of 1e-12 counts as zero from so many rows on, as with NumPy.
    found = orthokern.lstsq(a, b, rcond=0.0)
    assert error(a, b, found.x) <= 1e-15
    assert int(found.rank) == 20
    if small < 1e-8:
        assert int(found.info.method) == (LstsqMethod.PGRAM if rows else LstsqMethod.QR)


def test_one_heavy_row():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((4000, 20)), rng.standard_normal(4000)
    a[7] *= 1e12
    found = orthokern.lstsq(a, b)
    assert error(a, b, found.x) <= 1e-15
    assert int(found.rank) == 20


# Scales


@every_backend
def test_graded_columns(backend):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((400, 20)), rng.standard_normal(400)
    scale = 10.0 ** np.linspace(-150, 150, 20)
    found = orthokern.lstsq(a * scale, b, backend=backend)
    assert int(found.rank) == 20
    assert relative(found.x * scale, np.linalg.lstsq(a, b, rcond=None)[0]) <= 1e-13


@every_backend
@pytest.mark.parametrize("scale", [2.0**-560, 2.0**530, 2.0**-990])
@pytest.mark.parametrize("shape", [(300, 12), (300, 12, 2), (8, 20)])
def test_extreme_scales(scale, shape, backend):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal(shape[:2]), rng.standard_normal(shape[:1] + shape[2:])
    plain = orthokern.lstsq(a, b, backend=backend).x
    with np.errstate(over="ignore"):
        large = orthokern.lstsq(a * scale, b, backend=backend)
        right = orthokern.lstsq(a, b * scale, backend=backend)
    assert np.all(np.isfinite(right.x))
    np.testing.assert_allclose(right.x / scale, plain, rtol=1e-12, atol=1e-13)
    if scale > 1e-290:
        np.testing.assert_allclose(large.x * scale, plain, rtol=1e-12, atol=1e-13)
    assert bool(np.all(large.info.converged))


def test_scaling_columns_by_powers_of_two_changes_no_bit():
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((3000, 70)), rng.standard_normal(3000)
    scale = 4.0 ** rng.integers(-20, 20, 70)
    plain, scaled = (orthokern.lstsq(x, b, method="gram").x for x in (a, a * scale))
    np.testing.assert_array_equal(scaled * scale, plain)


# Ranks


@every_backend
@pytest.mark.parametrize("shape", [(400, 20), (60, 20), (30, 30), (20, 30)])
def test_dependent_and_zero_columns(shape, backend):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    a[:, 3] = 0
    if shape[0] > shape[1]:
        a[:, 5] = a[:, 6]
    else:
        a[3] = a[4]
    exact, _, rank, _ = np.linalg.lstsq(a, b, rcond=None)
    found = orthokern.lstsq(a, b, backend=backend)
    assert int(found.rank) == rank
    assert relative(found.x, exact) <= 1e-12
    assert abs(found.x[3]) <= 1e-15


@pytest.mark.parametrize("columns", [0.0, 2.0])
def test_minimum_norm_in_the_coordinates_of_x(columns):
    rng = np.random.default_rng(7)
    a = rng.standard_normal((4000, 40)) @ rng.standard_normal((40, 60))
    a *= 10.0 ** rng.uniform(-columns, columns, 60)
    b = rng.standard_normal(4000)
    exact, _, rank, _ = np.linalg.lstsq(a, b, rcond=None)
    found = orthokern.lstsq(a, b)
    assert int(found.rank) == rank == 40
    assert relative(found.x, exact) <= 1e-10
    null = scipy.linalg.null_space(a, rcond=1e-12)
    assert np.linalg.norm(null.T @ found.x) <= 1e-13 * np.linalg.norm(found.x)


@every_backend
@pytest.mark.parametrize("equilibrate", [True, False])
@pytest.mark.parametrize("cutoff", [1e-3, 1e-7])
@pytest.mark.parametrize("shape", [(60, 10), (3000, 10), (3000, 160), (10, 40), (30, 30)])
def test_a_cutoff_that_is_chosen(shape, cutoff, equilibrate, backend):
    """Half of the singular values are below it: the rank is NumPy's, and the solution as near as the truncation is."""
    rng = np.random.default_rng(0)
    k = min(shape)
    u, v = (np.linalg.qr(rng.standard_normal((n, k)))[0] for n in shape)
    a = (u * np.where(np.arange(k) < k // 2, 1.0, cutoff / 30)) @ v.T
    b = rng.standard_normal(shape[0])
    found = orthokern.lstsq(a, b, rcond=cutoff, equilibrate=equilibrate, backend=backend)
    x, _, rank, _ = np.linalg.lstsq(a, b, rcond=cutoff)
    assert int(found.rank) == rank == k // 2
    assert relative(found.x, x) <= (cutoff if equilibrate else 1e-13)
    assert bool(found.info.converged)


def test_ranks_without_equilibration_are_those_of_numpy():
    rng = np.random.default_rng(8)
    a = rng.standard_normal((100, 6)) * 10.0 ** np.array([0, -2, -18, 0, -17, 1])
    b = rng.standard_normal(100)
    exact, _, rank, _ = np.linalg.lstsq(a, b, rcond=None)
    assert rank == 4
    assert int(orthokern.lstsq(a, b).rank) == 6
    for method in ("qr", "svd"):
        found = orthokern.lstsq(a, b, method=method, equilibrate=False)
        assert int(found.rank) == 4
        assert relative(found.x, exact) <= 1e-12


@every_backend
@pytest.mark.parametrize("shape", [(100, 6), (6, 6), (4, 9)])
def test_nothing_on_the_right(shape, backend):
    a = np.random.default_rng(9).standard_normal(shape)
    found = orthokern.lstsq(a, np.zeros(shape[0]), backend=backend)
    np.testing.assert_array_equal(found.x, 0.0)
    assert float(found.info.backward_error) == 0.0
    assert bool(found.info.converged)


def test_a_right_hand_side_in_the_range():
    a = np.random.default_rng(10).standard_normal((300, 20))
    found = orthokern.lstsq(a, a @ np.ones(20))
    assert relative(found.x, np.ones(20)) <= 1e-14
    assert float(found.residuals) <= 1e-26


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (2, 0, 3), (0, 5, 3)])
def test_empty(place, shape):
    a = made(np.zeros(shape), place.library)
    b = made(np.ones(shape[:-1]), place.library)
    if place.library == "dask":
        with pytest.raises(orthokern.UnsupportedError):
            orthokern.lstsq(a, b, backend=place.backend)
        return
    found = orthokern.lstsq(a, b, backend=place.backend)
    assert tuple(found.x.shape) == (*shape[:-2], shape[-1])
    np.testing.assert_array_equal(to_numpy(found.x), 0.0)
    np.testing.assert_array_equal(to_numpy(found.rank), 0)
    np.testing.assert_array_equal(to_numpy(found.residuals), float(shape[-2]))


def test_no_right_hand_sides():
    found = orthokern.lstsq(np.random.default_rng(0).standard_normal((9, 4)), np.zeros((9, 0)))
    assert found.x.shape == (4, 0)
    assert int(found.rank) == 4


# Laws


@given(
    seed=seeds,
    n=st.integers(1, 40),
    d=st.integers(1, 12),
    k=st.integers(1, 3),
    damp=st.sampled_from([0.0, 0.3]),
    unit=st.sampled_from([0.0, 1j]),
    backend=st.sampled_from([None, "array-api"]),
)
@BOUNDED
def test_agrees_with_lapack(seed, n, d, k, damp, unit, backend):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, d)), rng.standard_normal((n, k))
    if unit:
        a, b = a + unit * rng.standard_normal((n, d)), b + unit * rng.standard_normal((n, k))
    found = orthokern.lstsq(a, b, damp=damp, backend=backend)
    left = np.vstack([a, damp * np.eye(d)]) if damp else a
    right = np.vstack([b, np.zeros((d, k))]) if damp else b
    exact, _, rank, s = np.linalg.lstsq(left, right, rcond=None)
    assert int(found.rank) == rank
    assert relative(found.x, exact) <= 1e3 * EPS * (s[0] / s[rank - 1]) ** 2
    residual = np.sum(np.abs(right - left @ exact) ** 2, axis=0)
    scale = np.sum(np.abs(right) ** 2, axis=0)
    np.testing.assert_allclose(found.residuals, residual, rtol=1e-9, atol=1e-12 * scale.max())


@given(seed=seeds, backend=st.sampled_from([None, "array-api"]))
@BOUNDED
def test_members_of_a_batch_are_solved_alone(seed, backend):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 2, 30, 4)), rng.standard_normal((2, 2, 30, 3))
    a[0, 1, :, 2] = a[0, 1, :, 0]
    a[1, 0] *= 2.0**560
    a[1, 1, 3, 1] = np.nan
    b[0, 0, 2, 1] = np.inf
    found = orthokern.lstsq(a, b, backend=backend)
    for index in np.ndindex(2, 2):
        alone = orthokern.lstsq(a[index], b[index], backend=backend)
        np.testing.assert_allclose(found.x[index], alone.x, rtol=1e-12, atol=1e-14)
        assert found.rank[index] == alone.rank
    assert np.isnan(found.x[1, 1]).all()
    assert np.isnan(found.x[0, 0, :, 1]).all()
    assert np.isnan(found.x).sum() == 16
    np.testing.assert_array_equal(
        found.info.converged, [[[True, False, True], [True] * 3], [[True] * 3, [False] * 3]]
    )


@pytest.mark.parametrize("n", [200, 3000])
def test_weights_are_repetitions(n):
    rng = np.random.default_rng(11)
    a, b = rng.standard_normal((n, 5)), rng.standard_normal(n)
    times = rng.integers(0, 4, n)
    found = orthokern.lstsq(a, b, weights=times.astype(float))
    exact = orthokern.lstsq(np.repeat(a, times, axis=0), np.repeat(b, times))
    np.testing.assert_allclose(found.x, exact.x, rtol=1e-12)
    np.testing.assert_allclose(found.residuals, exact.residuals, rtol=1e-12)


def test_mixing_rows_changes_nothing():
    rng = np.random.default_rng(12)
    a, b = rng.standard_normal((90, 7)), rng.standard_normal(90)
    q, _ = np.linalg.qr(rng.standard_normal((90, 90)))
    plain = orthokern.lstsq(a, b).x
    np.testing.assert_allclose(orthokern.lstsq(q @ a, q @ b).x, plain, rtol=1e-12, atol=1e-14)


def test_one_matrix_and_many_right_hand_sides_broadcast():
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((20, 3)), rng.standard_normal((5, 20, 2))
    found = orthokern.lstsq(a[None], b).x
    for i in range(5):
        np.testing.assert_allclose(found[i], orthokern.lstsq(a, b[i]).x, rtol=1e-13)


def test_the_input_is_not_touched(place):
    a, b = np.random.default_rng(0).standard_normal((40, 3)), np.ones(40)
    left, right = made(a, place.library), made(b, place.library)
    before = to_numpy(left).copy()
    orthokern.lstsq(left, right, backend=place.backend)
    np.testing.assert_array_equal(to_numpy(left), before)
    np.testing.assert_array_equal(to_numpy(right), b)


# Precisions


@every_backend
@pytest.mark.parametrize("kappa", [1e1, 1e3, 1e5])
def test_single_precision_is_summed_in_double(kappa, backend):
    a, b = (v.astype(np.float32) for v in difficult(5000, 64, kappa, 0.1))
    found = orthokern.lstsq(a, b, backend=backend).x
    exact = np.linalg.lstsq(a.astype(float), b.astype(float), rcond=None)[0]
    assert found.dtype == np.float32
    assert relative(found, exact) <= 1e-7


def test_half_precision():
    rng = np.random.default_rng(14)
    a, b = rng.standard_normal((50, 4)).astype(np.float16), np.ones(50, dtype=np.float16)
    found = orthokern.lstsq(a, b)
    exact = np.linalg.lstsq(a.astype(float), b.astype(float), rcond=None)[0]
    assert found.x.dtype == np.float16
    np.testing.assert_allclose(found.x, exact, rtol=0, atol=1e-3 * np.abs(exact).max())


# What decides


def test_a_tolerance_saves_refinements():
    a, b = difficult(3000, 150, 1e6, 1.0)
    loose = orthokern.lstsq(a, b, tol=1e-3, method="pgram").info
    tight = orthokern.lstsq(a, b, method="pgram").info
    assert int(loose.iterations) <= int(tight.iterations)
    assert float(tight.backward_error) <= 4 * EPS


def test_falling_short_is_said():
    a, b = difficult(500, 20, 1e12, 1.0)
    with pytest.warns(orthokern.ConvergenceWarning, match="pass method='auto'"):
        found = orthokern.lstsq(a, b, method="gram")
    assert not bool(found.info.converged)
    assert int(found.info.status) == LstsqStatus.NOT_BACKWARD_STABLE


def test_the_error_bound_holds():
    for power in (1, 4, 7, 10):
        a, b = difficult(800, 10, 10.0**power, 1e-2)
        rng = np.random.default_rng(0)
        w, _ = np.linalg.qr(a)
        x = rng.standard_normal(10)
        r = b - w @ (w.T @ b)
        found = orthokern.lstsq(a, a @ x + r)
        assert relative(found.x, x) <= 100 * max(float(found.info.error_bound), EPS * 10.0**power)


def test_the_seed_counts_for_the_sketch_alone():
    a, b = difficult(900, 20, 1e10, 1e-2)
    one, two = (orthokern.lstsq(a, b, method="sketch", seed=seed).x for seed in (0, 1))
    assert relative(one, two) > 1e-6
    again = orthokern.lstsq(a, b, method="sketch", seed=0).x
    np.testing.assert_array_equal(one, again)


# Other matrices


@pytest.mark.parametrize("kappa", [1.0, 1e10])
@pytest.mark.parametrize("kind", ["csr_array", "coo_matrix"])
def test_sparse(kappa, kind):
    rng = np.random.default_rng(15)
    sparse = scipy.sparse.random(3000, 40, 0.1, random_state=1, format="csr")
    sparse = sparse @ scipy.sparse.diags(np.geomspace(1, 1 / kappa, 40))
    shift = scipy.sparse.csr_array(np.eye(40) + np.triu(np.ones((40, 40)), 1))
    a = getattr(scipy.sparse, kind)(sparse @ shift)
    b = rng.standard_normal((3000, 2))
    found = orthokern.lstsq(a, b)
    assert backward_error(a.toarray(), b, found.x) <= 1e-15
    assert int(found.info.method) in (LstsqMethod.GRAM, LstsqMethod.PGRAM)
    single = orthokern.lstsq(a.astype(np.float32), b[:, 0].astype(np.float32))
    assert single.x.shape == (40,)
    assert single.x.dtype == np.float32


def test_sparse_with_fewer_rows_than_columns():
    a = scipy.sparse.random(12, 30, 0.5, random_state=2, format="csc")
    b = np.ones(12)
    exact = np.linalg.lstsq(a.toarray(), b, rcond=None)[0]
    np.testing.assert_allclose(orthokern.lstsq(a, b).x, exact, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("power", [0, 5, 10])
def test_linear_operators(power):
    a, b = difficult(700, 30, 10.0**power, 1e-2)
    found = orthokern.lstsq(aslinearoperator(a), b, rcond=0.0)
    assert error(a, b, found.x) <= 1e-15
    assert int(found.info.method) == LstsqMethod.SPIR
    damped = orthokern.lstsq(aslinearoperator(a), b, damp=0.1).x
    np.testing.assert_allclose(damped, orthokern.lstsq(a, b, damp=0.1).x, rtol=1e-9, atol=1e-11)


# Refusals


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "match"),
    [
        (np.eye(3), np.ones(4), {}, orthokern.ShapeError, "expected b of shape"),
        (np.ones(3), np.ones(3), {}, orthokern.ShapeError, "at least 2 dimensions"),
        (np.eye(3, dtype=int), np.ones(3), {}, orthokern.DTypeError, "cast to a floating dtype"),
        (np.eye(3), np.ones(3, dtype=int), {}, orthokern.DTypeError, "cast to a floating dtype"),
        (np.eye(3), np.ones(3, np.float32), {}, orthokern.DTypeError, "the dtype of a"),
        (np.eye(3), np.ones(3), {"method": "lu"}, orthokern.OptionError, "method to be one of"),
        (np.eye(3), np.ones(3), {"damp": -1.0}, orthokern.OptionError, "damp"),
        (np.eye(3), np.ones(3), {"rcond": -1.0}, orthokern.OptionError, "rcond"),
        (np.eye(3), np.ones(3), {"tol": np.nan}, orthokern.OptionError, "tol"),
        (np.eye(3), np.ones(3), {"max_refine": 0}, orthokern.OptionError, "max_refine"),
        (np.eye(3), np.ones(3), {"seed": -1}, orthokern.OptionError, "seed"),
        (np.eye(3), np.ones(3), {"sketch_size": 2}, orthokern.OptionError, "sketch_size"),
        (np.eye(3), np.ones(3), {"equilibrate": 1}, orthokern.OptionError, "equilibrate"),
        (np.eye(3), np.ones(3), {"weights": np.ones(2)}, orthokern.ShapeError, "weights of shape"),
        (np.eye(3), np.ones(3), {"weights": -np.ones(3)}, orthokern.ValuesError, "weights"),
        (np.ones((2, 3)), np.ones(2), {"method": "pgram"}, orthokern.OptionError, "as many rows"),
    ],
)
def test_refusals(a, b, options, error, match):
    with pytest.raises(error, match=match):
        orthokern.lstsq(a, b, **options)


@pytest.mark.parametrize("name", ["a", "b"])
def test_non_finite_values_are_named(name):
    arrays = {"a": np.eye(3), "b": np.ones(3)}
    arrays[name] = arrays[name] * np.nan
    with pytest.raises(orthokern.ValuesError, match=f"finite values in {name}"):
        orthokern.lstsq(arrays["a"], arrays["b"], check_finite=True)


@every_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["auto", "gram", "pgram", "qr", "svd"])
def test_non_finite_values_stay(bad, method, backend):
    a, b = np.random.default_rng(0).standard_normal((60, 3)), np.ones((60, 2))
    b[3, 0] = bad
    found = orthokern.lstsq(a, b, method=method, backend=backend)
    assert np.isnan(found.x[:, 0]).all()
    assert np.isfinite(found.x[:, 1]).all()
    a[2, 1] = bad
    found = orthokern.lstsq(a, b, method=method, backend=backend)
    assert np.isnan(found.x).all()
    assert not found.info.converged.any()
    assert np.all(found.info.status == LstsqStatus.NOT_FINITE)
