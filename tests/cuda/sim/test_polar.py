"""Polar factors on the device: the contract at every condition number, in every order of the threads."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
from orthokern_numba.gpu import polar, polar_kernels

from orthokern._core.scaling import balance
from orthokern.spectral.factor import unitary_factor as reference
from orthokern.spectral.plan import STATS_WIDTH, Stat

from .fibers import Place
from .memory import KernelError

DTYPES = ("float64", "float32")
SIZES = (1, 2, 3, 4, 5, 8, 9, 16, 17)
# One number for each of the two promises, in eps.
ORTHOGONALITY, BACKWARD, SEMIDEFINITE = 5, 60, 10


def orthogonal(g, n):
    return np.linalg.qr(g.standard_normal((n, n)))[0]


def with_values(g, values):
    n = len(values)
    return (orthogonal(g, n) * np.asarray(values)) @ orthogonal(g, n)


def graded(g, n, kappa):
    return with_values(g, np.logspace(0, -np.log10(kappa), n))


def hard(g, n):
    """Matrices that iterations and careless decompositions stumble over."""
    gaussian, column = g.standard_normal((n, n)), g.standard_normal((n, 1))
    half = np.where(np.arange(n) < max(n // 2, 1), 1.0, 0.0)
    kahan = np.triu(-0.9 * np.ones((n, n)), 1) + np.eye(n)
    return {
        "gaussian": gaussian,
        "condition 1e13": graded(g, n, 1e13),
        "condition 1e7": graded(g, n, 1e7),
        "one small value": with_values(g, [1.0] * (n - 1) + [1e-10]),
        "half the rank": with_values(g, half),
        "repeated values": with_values(g, np.where(np.arange(n) % 2, 2.0, 1.0)),
        "equal columns": np.repeat(column, n, axis=1),
        "equal rows": np.repeat(column.T, n, axis=0),
        "zero": np.zeros((n, n)),
        "one entry": np.pad([[1.0]], (0, n - 1)),
        "minus identity": -np.eye(n),
        "orthogonal": orthogonal(g, n),
        "graded columns": gaussian * np.logspace(0, -18, n),
        "graded rows": (gaussian.T * np.logspace(0, -18, n)).T,
        "triangular": kahan * 0.4 ** np.arange(n)[:, None],
        "exchange": np.eye(n)[::-1],
    }


def stack(g, n, names=None):
    found = hard(g, n)
    return np.stack([found[name] for name in names or found])


def balanced(x, dtype):
    return balance.body(x.astype(dtype))[0]


def orthogonality(u):
    return np.linalg.norm(u.T @ u - np.eye(len(u)))


def assert_contract(x, u, h):
    """The promises on each member, computed in float64."""
    n, eps = x.shape[-1], np.finfo(x.dtype).eps
    assert np.array_equal(h, np.swapaxes(h, -1, -2))
    for a, q, p in zip(x.astype(float), u.astype(float), h.astype(float), strict=True):
        size = np.linalg.norm(a)
        assert orthogonality(q) <= ORTHOGONALITY * n * eps
        assert np.linalg.norm(a - q @ p) <= BACKWARD * eps * size
        assert np.linalg.eigvalsh(p)[0] >= -SEMIDEFINITE * n * eps * size


@pytest.mark.parametrize(
    ("n", "dtype"), [*product(SIZES, DTYPES), (31, "float32"), (32, "float64")]
)
def test_every_order_of_the_threads_gives_the_same_bits(everywhere, rng, n, dtype):
    names = ["condition 1e7", "half the rank"] if n < 16 else ["half the rank"]
    x = balanced(stack(rng, n, names), dtype)
    kept = x.copy()
    u, h, stats = everywhere(
        lambda place: polar.polar_factors(place, x, completion="unitary", rcond=None)
    )
    assert_contract(x, u, h)
    assert stats.shape == (len(names), STATS_WIDTH)
    assert u.dtype == h.dtype == stats.dtype == x.dtype
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 10])
def test_hard_matrices_meet_the_contract(rng, n, dtype):
    x = balanced(stack(rng, n), dtype)
    place = Place("backward")
    u, h, _ = polar.polar_factors(place, x, completion="unitary", rcond=None)
    assert_contract(x, u, h)
    assert place.threads < 2000


LARGE = ("condition 1e13", "equal columns", "graded rows", "triangular")


@pytest.mark.parametrize(("n", "dtype"), [(16, "float64"), (31, "float32"), (32, "float64")])
def test_large_hard_matrices_meet_the_contract(rng, n, dtype):
    x = balanced(stack(rng, n, LARGE), dtype)
    u, h, _ = polar.polar_factors(Place("backward"), x, completion="unitary", rcond=None)
    assert_contract(x, u, h)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9])
def test_the_partial_factor_has_the_directions_that_count(rng, n, dtype):
    names = ("gaussian", "half the rank", "equal columns", "equal rows", "zero", "one entry")
    x = balanced(stack(rng, n, names), dtype)
    u, stats = polar.unitary_factor(Place(3), x, completion="partial", rcond=1e-3)
    wanted, _ = reference.body(x.astype(float), completion="partial", rcond=1e-3)
    eps = np.finfo(x.dtype).eps
    np.testing.assert_allclose(u, wanted, atol=300 * n * eps)
    products = u.astype(float) @ np.swapaxes(u.astype(float), -1, -2) @ u.astype(float)
    assert np.abs(products - u).max() <= 5 * n * eps
    assert not u[names.index("zero")].any()
    assert not np.signbit(stats).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_cut_of_the_partial_factor_is_the_callers(rng, n, dtype):
    """Singular values on both sides of the cut; the default cut is n eps."""
    eps = np.finfo(dtype).eps
    values = np.r_[np.ones(n - 1), 1e-2]
    x = balanced(with_values(rng, values), dtype)
    ranks = {}
    for rcond in (0.1, 1e-3, None, 0.0):
        u, _ = polar.unitary_factor(Place(3), x, completion="partial", rcond=rcond)
        ranks[rcond] = round(float(np.linalg.norm(u.astype(float)) ** 2), 4)
    assert ranks == {0.1: n - 1, 1e-3: n, None: n, 0.0: n}
    tiny = balanced(with_values(rng, np.r_[np.ones(n - 1), eps / 50]), dtype)
    u, _ = polar.unitary_factor(Place(3), tiny, completion="partial", rcond=None)
    assert round(float(np.linalg.norm(u.astype(float)) ** 2), 4) == n - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answers(dtype):
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    u, h, _ = polar.polar_factors(Place(), balanced(x, dtype), completion="unitary", rcond=None)
    tolerance = 20 * np.finfo(dtype).eps
    root = 0.857492925712544
    np.testing.assert_allclose(
        u, [[-0.514495755427527, root], [root, 0.514495755427527]], tolerance
    )
    wanted = np.array([[2.057983021710106, 2.400980191995124], [0, 3.772968873135194]]) / 8
    np.testing.assert_allclose(np.triu(h), wanted, tolerance)
    x = np.array([[2.0, -1, 0], [1, 3, 1], [0, 2, 1]])
    u, h, _ = polar.polar_factors(Place(), balanced(x, dtype), completion="unitary", rcond=None)
    np.testing.assert_allclose(
        u[1], [0.428621406592925, 0.885828713480129, -0.177739078945631], tolerance
    )
    diagonal = np.array([2.214171674089019, 3.560364343889605, 0.778153709937578]) / 4
    np.testing.assert_allclose(np.diag(h), diagonal, tolerance)


@pytest.mark.parametrize("n", [2, 4, 6, 12])
def test_well_conditioned_factors_are_near_the_reference(rng, n):
    x = balanced(graded(rng, n, 10), "float64")
    u, stats = polar.unitary_factor(Place(3), x, completion="unitary", rcond=None)
    wanted, _ = reference.body(x, completion="unitary")
    np.testing.assert_allclose(u, wanted, atol=300 * np.finfo(float).eps)
    assert 0.09 < stats[int(Stat.LOWER_BOUND)] <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_figures_of_a_factor(rng, dtype):
    names = ("orthogonal", "half the rank", "zero", "condition 1e13")
    x = balanced(stack(rng, 6, names), dtype)
    _, stats = polar.unitary_factor(Place(3), x, completion="unitary", rcond=None)
    eps = np.finfo(dtype).eps
    assert (stats[:, int(Stat.RESIDUAL)] == eps).all()
    values = np.linalg.svd(x.astype(float), compute_uv=False)
    ratio = values[:, -1] / np.maximum(values[:, 0], 1e-300)
    bound = stats[:, int(Stat.LOWER_BOUND)]
    assert (bound <= ratio).all()
    np.testing.assert_allclose(bound, ratio, atol=12 * eps)
    others = np.delete(stats, [int(Stat.RESIDUAL), int(Stat.LOWER_BOUND)], axis=1)
    assert not others.any()


@pytest.mark.parametrize(("n", "count"), [(3, 130), (2, 64), (4, 65), (6, 9), (9, 3)])
def test_members_of_a_batch_do_not_know_each_other(rng, n, count):
    x = balanced(rng.standard_normal((count, n, n)), "float32")
    u, h, stats = polar.polar_factors(Place(3), x, completion="unitary", rcond=None)
    assert_contract(x, u, h)
    for i in {0, count // 2, count - 1}:
        alone = polar.polar_factors(Place(3), x[i], completion="unitary", rcond=None)
        for part, whole in zip(alone, (u, h, stats), strict=True):
            np.testing.assert_array_equal(part, whole[i])


@pytest.mark.parametrize("n", [3, 6, 9])
def test_shapes_and_layouts(rng, n):
    x = balanced(rng.standard_normal((2, 3, n, n)), "float64")
    u, h, stats = polar.polar_factors(Place(), x, completion="unitary", rcond=None)
    assert (u.shape, h.shape, stats.shape) == (x.shape, x.shape, (2, 3, STATS_WIDTH))
    turned = np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
    again = polar.polar_factors(Place(), turned, completion="unitary", rcond=None)
    for first, second in zip((u, h, stats), again, strict=True):
        np.testing.assert_array_equal(first, second)
    single, _ = polar.unitary_factor(Place(), x[1, 2], completion="unitary", rcond=None)
    np.testing.assert_array_equal(single, u[1, 2])
    empty = polar.polar_factors(Place(), x[:, :0], completion="unitary", rcond=None)
    assert [part.shape for part in empty] == [(2, 0, n, n), (2, 0, n, n), (2, 0, STATS_WIDTH)]


@pytest.mark.parametrize("n", [3, 6, 9])
def test_not_a_number_ends_and_stays_in_its_matrix(rng, n):
    x = balanced(rng.standard_normal((3, n, n)), "float32")
    x[1, 0, 0] = np.nan
    u, h, _ = polar.polar_factors(Place(3), x, completion="unitary", rcond=None)
    assert_contract(x[[0, 2]], u[[0, 2]], h[[0, 2]])
    assert np.isnan(h[1]).any()


def test_a_size_goes_to_the_team_that_is_meant_for_it():
    teams = {n: polar.configuration(1000, n, "float32")[1:] for n in (1, 4, 5, 8, 9, 16, 17, 32)}
    assert teams == {
        1: (16, 64),
        4: (16, 64),
        5: (250, (32, 4)),
        8: (250, (32, 4)),
        9: (1000, 64),
        16: (1000, 64),
        17: (1000, 96),
        32: (1000, 128),
    }


@pytest.mark.parametrize("n", [2, 3, 8, 9, 32])
def test_every_pair_of_columns_meets_once_in_a_sweep(n):
    players = n + n % 2
    rounds = [
        [polar_kernels._pair.py_func(turn, index, players) for index in range(players // 2)]
        for turn in range(players - 1)
    ]
    for pairs in rounds:
        assert sorted(column for pair in pairs for column in pair) == list(range(players))
    met = {frozenset(pair) for pairs in rounds for pair in pairs}
    assert len(met) == players * (players - 1) // 2


def factors(x):
    return polar.polar_factors(Place(3), x, completion="unitary", rcond=None)[:2]


def test_columns_left_at_an_angle_would_be_seen(rng, monkeypatch):
    x = balanced(stack(rng, 9, ["gaussian"]), "float32")
    assert_contract(x, *factors(x))
    monkeypatch.setattr(polar, "_ANGLE", 1e4)
    with pytest.raises(AssertionError):
        assert_contract(x, *factors(x))


@pytest.mark.parametrize("n", [3, 6, 9])
def test_missing_directions_would_be_seen(rng, monkeypatch, n):
    x = balanced(stack(rng, n, ["half the rank"]), "float32")
    assert_contract(x, *factors(x))
    monkeypatch.setattr(polar_kernels, "_complete", lambda *arguments: None)
    with pytest.raises(AssertionError):
        assert_contract(x, *factors(x))


def test_a_missing_barrier_in_a_kernel_would_be_seen(rng, monkeypatch):
    x = balanced(stack(rng, 9, ["gaussian"]), "float32")
    meet = polar_kernels._meet.fn

    def hasty(team):
        if sys._getframe(1).f_code.co_name != "_sweep":
            meet(team)

    monkeypatch.setattr(polar_kernels, "_meet", hasty)
    with pytest.raises(KernelError, match="no barrier is between them"):
        polar.polar_factors(Place(), x, completion="unitary", rcond=None)
