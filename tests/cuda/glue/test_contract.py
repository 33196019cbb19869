"""The accuracy contract on many matrices: square, tall, stacks, real and complex, every condition number."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_cupy import measured
from orthokern_cupy.balance import balance
from orthokern_cupy.spectral import polar_factors, unitary_factor

from orthokern.spectral.plan import STATS_WIDTH, Stat

from . import fake_cupy
from .conftest import errors, orthonormal, read, with_spectrum

DTYPES = ["float64", "float32", "complex128", "complex64"]
SHAPES = [(1, 1), (9, 9), (33, 33), (80, 80), (121, 120), (200, 40), (150, 1), (40, 7)]
SPECTRA = {
    "log": lambda n, kappa: np.logspace(0, -np.log10(kappa), n),
    "one large": lambda n, kappa: np.array([1.0] + [1 / kappa] * (n - 1)),
    "one tiny": lambda n, kappa: np.array([1.0] * (n - 1) + [1 / kappa]) if n > 1 else np.ones(1),
    "uniform": lambda n, kappa: np.linspace(1, 1 / kappa, n),
    "pairs": lambda n, kappa: np.repeat(np.logspace(0, -np.log10(kappa), (n + 1) // 2), 2)[:n],
}
KAPPAS = {"float64": (1, 1e2, 1e6, 1e9, 1e13), "float32": (1, 30, 1e3, 1e4)}
PRECISION = {"complex128": "float64", "complex64": "float32"}


def factored(x, cp, **options):
    """The balanced matrix on the device and its factors."""
    y, _ = balance(cp.asarray(x), cp=cp)
    return y, *polar_factors(y, **{"completion": "unitary", "cp": cp} | options)


def assert_contract(x, u, h, *, units=1.0):
    for name, value in zip(("orthogonality", "backward", "definite"), errors(x, u, h), strict=True):
        assert value <= units, f"{name}: {value:.3g} times the limit"


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_condition_number(cp, dtype, shape, spectrum):
    rng = np.random.default_rng([*shape, sorted(SPECTRA).index(spectrum)])
    m, n = shape
    limit = 1 / (10 * n * np.finfo(dtype).eps)
    for kappa in KAPPAS[PRECISION.get(dtype, dtype)]:
        values = SPECTRA[spectrum](n, min(kappa, limit))
        x = with_spectrum(rng, m, values, dtype)
        y, u, h, stats = factored(x, cp)
        assert (u.dtype, h.dtype, stats.shape) == (x.dtype, x.dtype, (STATS_WIDTH,))
        assert_contract(y, u, h)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 40), (6, 6), (90, 35)], ids=str)
def test_members_of_a_stack_are_judged_one_by_one(cp, dtype, shape):
    rng = np.random.default_rng(5)
    m, n = shape
    worst = 1e13 if dtype in ("float64", "complex128") else 3e3
    spectra = [np.logspace(0, -np.log10(k), n) for k in (1, 10, worst)]
    members = [with_spectrum(rng, m, s, dtype) for s in spectra]
    members += [np.eye(m, n, dtype=dtype), np.zeros((m, n), dtype), members[0] * 0 + 1]
    stack = np.stack(members).reshape(3, 2, m, n)
    y, u, h, stats = factored(stack, cp)
    assert stats.shape == (3, 2, STATS_WIDTH)
    for place in np.ndindex(3, 2):
        assert_contract(y[place], u[place], h[place])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 260), (260, 260)], ids=str)
def test_large_members_of_a_stack_go_one_by_one(cp, dtype, shape):
    rng = np.random.default_rng(6)
    stack = np.stack([with_spectrum(rng, shape[0], np.linspace(1, 0.1, shape[1]), dtype)] * 2)
    y, u, h, _ = factored(stack, cp)
    alone = factored(stack[0], cp)
    for member in range(2):
        assert_contract(y[member], u[member], h[member])
        np.testing.assert_array_equal(read(u[member]), read(alone[1]))


def test_a_matrix_large_enough_for_triangles(cp):
    rng = np.random.default_rng(7)
    x = with_spectrum(rng, 512, np.logspace(0, -4, 512), "float64")
    y, u, h, _ = factored(x, cp)
    assert_contract(y, u, h)


STRUCTURES = {
    "identity": np.eye(40),
    "zero": np.zeros((40, 40)),
    "permutation": np.eye(40)[::-1],
    "minus identity": -np.eye(40),
    "ones": np.ones((40, 40)),
    "nilpotent": np.eye(40, k=1),
    "hilbert": 1 / (np.arange(40)[:, None] + np.arange(40) + 1.0),
    "triangular": np.triu(np.ones((40, 40))),
    "graded rows": np.diag(10.0 ** -np.arange(40)) @ np.ones((40, 40)),
    "tall zero": np.zeros((70, 40)),
    "tall identity": np.eye(70, 40),
    "tall ones": np.ones((70, 40)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(cp, name, dtype):
    y, u, h, _ = factored(STRUCTURES[name].astype(dtype), cp)
    assert_contract(y, u, h)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(50, 50), (20, 20), (120, 40)])
@pytest.mark.parametrize("rank", [0, 1, 7, 19])
def test_a_partial_factor_leaves_out_what_has_no_direction(cp, dtype, m, n, rank):
    rng = np.random.default_rng(rank)
    values = np.zeros(n)
    values[:rank] = np.linspace(1, 0.2, rank) if rank else 0
    left, right = orthonormal(rng, m, n, dtype), orthonormal(rng, n, n, dtype)
    x = ((left * values) @ right.conj().T).astype(dtype)
    y, u, h, _ = factored(x, cp, completion="partial")
    expected = left[:, :rank] @ right[:, :rank].conj().T
    eps = np.finfo(dtype).eps
    assert np.linalg.norm(read(u) - expected) <= 200 * n * eps
    assert np.linalg.norm(read(y) - read(u) @ read(h)) <= 60 * n * eps
    if rank == 0:
        assert not read(u).any()


@pytest.mark.parametrize("completion", ["unitary", "partial"])
def test_completion_in_a_stack_is_that_of_each_member(cp, completion):
    rng = np.random.default_rng(8)
    n = 40
    singular = with_spectrum(rng, n, np.array([1.0] * 30 + [0.0] * 10), "float64")
    plain = with_spectrum(rng, n, np.linspace(1, 0.5, n), "float64")
    _, u, _, stats = factored(np.stack([plain, singular, plain]), cp, completion=completion)
    ranks = [round(float(np.linalg.norm(read(u[i])) ** 2)) for i in range(3)]
    assert ranks == [n, 30 if completion == "partial" else n, n]
    assert read(stats)[1, Stat.LOWER_BOUND] < 1e-14


def test_rcond_decides_the_rank(cp):
    rng = np.random.default_rng(9)
    x = with_spectrum(rng, 40, np.array([1.0] * 25 + [1e-4] * 15), "float64")
    for rcond, rank in ((1e-3, 25), (1e-5, 40), (None, 40)):
        u, _ = unitary_factor(cp.asarray(x), completion="partial", rcond=rcond, cp=cp)
        assert round(float(np.linalg.norm(read(u)) ** 2)) == rank


def test_the_factor_is_the_one_of_the_singular_vectors(cp):
    rng = np.random.default_rng(10)
    x = with_spectrum(rng, 60, np.linspace(1, 0.05, 60), "float64")
    u, _ = unitary_factor(cp.asarray(x), completion="unitary", rcond=None, cp=cp)
    p, _, qh = np.linalg.svd(x)
    assert np.linalg.norm(read(u) - p @ qh) <= 1e-12


# What the figures say


def test_figures(cp):
    rng = np.random.default_rng(11)
    x = with_spectrum(rng, 64, np.logspace(0, -3, 64), "float64")
    _, stats = unitary_factor(cp.asarray(x), completion="unitary", rcond=None, cp=cp)
    row = read(stats)
    taken = int(row[Stat.ITERATIONS])
    assert 3 <= taken <= 10
    assert np.all(row[4 : 4 + taken] > 0)
    assert not row[4 + taken :].any()
    assert row[3 + taken] in (3, 4)
    assert 0.3e-3 <= row[Stat.LOWER_BOUND] <= 1e-3
    assert row[Stat.RESIDUAL] <= 10 * 8 * np.finfo(float).eps


def test_few_plans_are_ever_made(cp):
    """The lower bounds of matrices from one source differ from call to call, and their plans are the same."""
    lowers = np.logspace(-6, -1, 400)
    rounded = {measured._rounded(float(lower)) for lower in lowers}
    assert len(rounded) <= 16 * 5 + 2
    assert all(0.8 * lower <= measured._rounded(float(lower)) <= lower for lower in lowers)
    assert measured._rounded(1.0) == 1.0
    again = {measured._rounded(lower) for lower in rounded}
    assert again == rounded


# How often the host waits


@pytest.mark.parametrize(
    ("shape", "kappa", "dtype", "waits"),
    [
        ((64, 64), 10, "float64", 2),
        ((64, 64), 1e12, "float64", 3),
        ((64, 64), 10, "float32", 2),
        ((200, 64), 10, "float64", 2),
        ((200, 64), 1e12, "float64", 3),
        ((5, 64, 64), 1e3, "float64", 2),
        ((5, 20, 20), 1e3, "float64", 0),
        ((32, 9), 1e12, "float64", 0),
    ],
)
def test_host_syncs(cp, shape, kappa, dtype, waits):
    rng = np.random.default_rng(12)
    m, n = shape[-2:]
    members = [
        with_spectrum(rng, m, np.logspace(0, -np.log10(kappa), n), dtype)
        for _ in range(int(np.prod(shape[:-2], dtype=int)))
    ]
    x = cp.asarray(np.reshape(members, shape))
    fake_cupy.syncs.count = 0
    polar_factors(x, completion="unitary", rcond=None, cp=cp)
    assert fake_cupy.syncs.count == waits
