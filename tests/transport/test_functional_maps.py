"""Functional maps and maps of points: known answers, optimality, symmetries, derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern._core.dtypes import EPS, dtype_name
from orthokern.testing import libraries
from orthokern.transport import rows
from orthokern.transport.cases.functional_maps import mask as exact_mask

A = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
B = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
EX, EY = np.array([0.0, 1.0, 4.0]), np.array([0.0, 2.0, 4.0])
MASK = np.array([[0, 0.2, 0.5], [1 / 3, 0.02287638336717468, 0.0285954792089683], [0.5, 0.1, 0]])
C = np.array(
    [
        [1, 0, 0],
        [-0.014460885127518171, 0.06266383555257875, 0.4373989973843885],
        [1 / 11, 5 / 11, 17 / 22],
    ]
)


def made(array, library, dtype="float64"):
    array = np.asarray(array)
    return libraries.to_library(array.astype(libraries.dtype_for(array, dtype)), library)


def assert_near(found, expected, units, scale=1.0):
    error = np.abs(libraries.to_numpy(found) - expected)
    assert np.all(error <= units * EPS[dtype_name(found)] * scale), np.max(error)


@pytest.fixture(params=[name for name in libraries.available() if name != "dask"])
def solving_library(request):
    """Each installed library that solves stacks of systems."""
    return request.param


@pytest.fixture(params=[None, "array-api"], ids=["default", "reference"])
def backend(request):
    return request.param


def shape(rng, vertices=60, k=20):
    """A basis orthonormal for its masses, the masses, and eigenvalues that differ."""
    mass = rng.random(vertices) + 0.5
    phi = np.linalg.qr(rng.standard_normal((vertices, k)))[0] / np.sqrt(mass)[:, None]
    return phi, mass, np.cumsum(rng.random(k) + 0.2) - 0.2


def kkt(c, a, b, ex, ey, weight=100.0, **options):
    penalty = weight * exact_mask(ex, ey, options)
    return np.abs((c @ a - b) @ a.T + penalty * c).max()


# The map


def test_resolvent_mask(solving_library, dtype):
    found = rows.spectral_mask(
        "resolvent", *(made(e, solving_library, dtype) for e in (EX, EY)), 0.5
    )
    assert_near(found, MASK, 4)


def test_known_map(solving_library, dtype, backend):
    arrays = [made(part, solving_library, dtype) for part in (A, B, EX, EY)]
    assert_near(orthokern.functional_map(*arrays, weight=10.0, backend=backend), C, 60)
    mask = made(MASK, solving_library, dtype)
    assert_near(orthokern.functional_map(*arrays, weight=10.0, mask=mask, backend=backend), C, 60)


@pytest.mark.parametrize(
    "options", [{}, {"mask": "laplacian", "weight": 0.1}, {"resolvent_power": 1.0}]
)
@pytest.mark.parametrize("k", [5, 40, 100])
def test_the_gradient_vanishes(backend, rng, k, options):
    a, b = rng.standard_normal((k, 30)), rng.standard_normal((k + 3, 30))
    ex, ey = np.sort(rng.random(k)) * 50, np.sort(rng.random(k + 3)) * 50
    c = orthokern.functional_map(a, b, ex, ey, backend=backend, **options)
    assert kkt(c, a, b, ex, ey, **options) <= 1e-10


def test_identical_shapes(backend, rng):
    phi, mass, evals = shape(rng)
    a = phi.T @ (mass[:, None] * rng.standard_normal((60, 30)))
    c = orthokern.functional_map(a, a, evals, evals, backend=backend)
    np.testing.assert_allclose(c, np.eye(20), atol=1e-8)
    assert orthokern.fmap_to_pointmap(c, phi, phi).tolist() == list(range(60))


def test_permuted_vertices(rng):
    phi, mass, evals = shape(rng)
    f, turn = rng.standard_normal((60, 30)), rng.permutation(60)
    a, b = phi.T @ (mass[:, None] * f), phi[turn].T @ (mass[turn, None] * f[turn])
    c = orthokern.functional_map(a, b, evals, evals)
    np.testing.assert_allclose(c, np.eye(20), atol=1e-8)
    for adjoint in (False, True):
        assert (
            orthokern.fmap_to_pointmap(c, phi, phi[turn], adjoint=adjoint).tolist() == turn.tolist()
        )
    np.testing.assert_allclose(
        orthokern.pointmap_to_fmap(turn, phi, phi[turn], mass[turn]), np.eye(20), atol=1e-12
    )


def test_signs(rng):
    phi, mass, evals = shape(rng)
    signs = np.where(rng.random(20) > 0.5, 1.0, -1.0)
    a = phi.T @ (mass[:, None] * rng.standard_normal((60, 30)))
    c = orthokern.functional_map(a, signs[:, None] * a, evals, evals)
    np.testing.assert_allclose(c, np.diag(signs), atol=1e-8)
    assert orthokern.fmap_to_pointmap(c, phi, phi * signs).tolist() == list(range(60))


def test_blocks_change_nothing(rng, monkeypatch):
    a, b = rng.standard_normal((2, 7, 9)), rng.standard_normal((2, 8, 9))
    ex, ey = np.sort(rng.random(7)), np.sort(rng.random(8))
    points, queries = rng.standard_normal((30, 4)), rng.standard_normal((50, 4))
    whole = orthokern.functional_map(a, b, ex, ey, backend="array-api")
    nearest = rows.nearest_rows(points, queries)
    monkeypatch.setattr(rows, "BLOCK", 200)
    np.testing.assert_array_equal(
        orthokern.functional_map(a, b, ex, ey, backend="array-api"), whole
    )
    np.testing.assert_array_equal(rows.nearest_rows(points, queries), nearest)


def test_members_that_are_not_finite(solving_library, backend, rng):
    a, b = rng.standard_normal((3, 4, 6)), rng.standard_normal((3, 5, 6))
    clean = orthokern.functional_map(a, b, np.arange(4.0), np.arange(5.0))
    a[1, 2, 3] = np.nan
    arrays = [made(part, solving_library) for part in (a, b, np.arange(4.0), np.arange(5.0))]
    found = libraries.to_numpy(orthokern.functional_map(*arrays, backend=backend))
    assert np.all(np.isnan(found[1]))
    np.testing.assert_allclose(found[[0, 2]], clean[[0, 2]], atol=2e-4)


def test_a_weight_for_each_member(rng):
    a, b = rng.standard_normal((2, 4, 6)), rng.standard_normal((2, 5, 6))
    weights = np.array([0.5, 20.0])
    together = orthokern.functional_map(a, b, np.arange(4.0), np.arange(5.0), weight=weights)
    for i in range(2):
        alone = orthokern.functional_map(
            a[i], b[i], np.arange(4.0), np.arange(5.0), weight=weights[i]
        )
        np.testing.assert_allclose(together[i], alone, atol=1e-14)


def test_singular_systems(backend):
    """Too few descriptors for the zeros of the mask: a minimizer all the same."""
    a, b = np.array([[1.0], [1.0], [0.0]]), np.array([[2.0], [1.0]])
    evals = np.array([1.0, 1.0, 1.0])
    c = orthokern.functional_map(a, b, evals, evals[:2], backend=backend)
    np.testing.assert_allclose(c @ a, b, atol=1e-12)
    assert np.abs(c).max() < 10


def test_empty_and_low_precision():
    assert orthokern.functional_map(
        np.ones((0, 3)), np.ones((4, 3)), np.ones(0), np.ones(4)
    ).shape == (4, 0)
    none = orthokern.functional_map(np.ones((3, 0)), np.ones((4, 0)), np.ones(3), np.ones(4))
    assert none.shape == (4, 3)
    assert not none.any()
    half = orthokern.functional_map(
        *(part.astype(np.float16) for part in (A, B, EX, EY)), weight=10.0
    )
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, C, atol=2e-3)


# Losses


def test_losses(library, dtype, rng):
    u, v = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3, 4))
    ex, ey, t = np.arange(3.0), np.arange(4.0), np.ones((4, 3))
    found = orthokern.fmap_losses(
        *(made(part, library, dtype) for part in (u, v, ex, ey)), target_xy=made(t, library, dtype)
    )
    square = lambda x: np.sum(x**2, (-2, -1))  # noqa: E731
    ut, vt = np.swapaxes(u, -1, -2), np.swapaxes(v, -1, -2)
    exact = (
        square(u @ v - np.eye(4)) + square(v @ u - np.eye(3)),
        square(ut @ u - np.eye(3)) + square(vt @ v - np.eye(4)),
        square(u * ex - ey[:, None] * u) + square(v * ey - ex[:, None] * v),
        square(u - t),
    )
    for value, expected in zip(found, exact, strict=True):
        assert_near(value, expected, 60, 100)
    assert orthokern.fmap_losses(u, v, ex, ey).coupling is None


def test_a_rotation_loses_nothing(rng):
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    losses = orthokern.fmap_losses(q, q.T, np.ones(5), np.ones(5), target_xy=q, target_yx=q.T)
    assert max(losses) < 1e-28


# Maps of points


def test_ties_go_to_the_lowest(library, dtype):
    points = made([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], library, dtype)
    queries = made([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0]], library, dtype)
    found = orthokern.fmap_to_pointmap(made(np.eye(2), library, dtype), points, queries)
    assert libraries.to_numpy(found).tolist() == [1, 0, 0]


def test_maps_of_points_in_batches(solving_library, rng):
    c, x, y = (
        rng.standard_normal((2, 1, 4, 3)),
        rng.standard_normal((3, 20, 5)),
        rng.standard_normal((3, 9, 4)),
    )
    p = orthokern.fmap_to_pointmap(*(made(part, solving_library) for part in (c, x, y)))
    assert tuple(p.shape) == (2, 3, 9)
    f = libraries.to_numpy(
        orthokern.pointmap_to_fmap(p, made(x, solving_library), made(y, solving_library))
    )
    for i, j in np.ndindex(2, 3):
        alone = orthokern.fmap_to_pointmap(c[i, 0], x[j], y[j])
        assert libraries.to_numpy(p)[i, j].tolist() == alone.tolist()
        np.testing.assert_allclose(f[i, j], y[j].T @ x[j][alone], atol=1e-5)


def test_zoomout_finds_the_permutation(solving_library, rng):
    phi, mass, _ = shape(rng, 80, 24)
    turn = rng.permutation(80)
    rough = np.eye(6) + 0.05 * rng.standard_normal((6, 6))
    arrays = [made(part, solving_library) for part in (rough, phi, phi[turn], mass[turn])]
    refined = orthokern.zoomout(*arrays, step=4)
    assert libraries.to_numpy(refined.pointmap).tolist() == turn.tolist()
    assert_near(refined.c, np.eye(24), 300)
    partly = orthokern.zoomout(*arrays, k_final=11, step=4)
    assert tuple(partly.c.shape) == (11, 11)
    assert tuple(orthokern.zoomout(*arrays, k_final=6).c.shape) == (6, 6)


def test_no_vertices(solving_library):
    p, x, y = np.zeros((2, 0), int), np.ones((3, 1, 5, 2)), np.ones((2, 0, 4))
    for rest in ((), (np.ones((2, 0)),)):
        arrays = (made(part, solving_library) for part in (p, x, y, *rest))
        found = libraries.to_numpy(orthokern.pointmap_to_fmap(*arrays))
        assert found.shape == (3, 2, 4, 2)
        assert not found.any()
    flat = orthokern.pointmap_to_fmap(
        *(made(part, solving_library) for part in (p[0], x[0, 0], y[0]))
    )
    assert not libraries.to_numpy(flat).any()


def turned(rng, k=10, angle=1.2):
    """A basis, the same with its rows in another order, and the map between them with an error that is a rotation."""
    phi = np.linalg.qr(rng.standard_normal((80, k)))[0]
    turn = rng.permutation(80)
    wrong = np.eye(k)
    wrong[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return wrong, phi, phi[turn], turn


def test_repeats_at_one_size(solving_library, rng):
    """The iteration of closest points: back to the permutation, which growing alone does not touch."""
    wrong, phi, moved, turn = turned(rng)
    arrays = [made(part, solving_library) for part in (wrong, phi, moved)]
    start = orthokern.zoomout(*arrays)
    assert_near(start.c, wrong, 2)
    assert np.mean(libraries.to_numpy(start.pointmap) == turn) < 1
    refined = orthokern.zoomout(*arrays, repeats=12, orthogonal=True)
    assert libraries.to_numpy(refined.pointmap).tolist() == turn.tolist()
    assert_near(refined.c, np.eye(10), 100)


@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_repeats_are_steps_to_points_and_back(rng, repeats):
    c, x, y = np.eye(3), rng.standard_normal((30, 5)), rng.standard_normal((20, 5))
    found = orthokern.zoomout(c, x, y, k_final=4, repeats=repeats)
    for _ in range(1 + repeats):
        c = orthokern.pointmap_to_fmap(orthokern.fmap_to_pointmap(c, x, y), x[:, :4], y[:, :4])
    np.testing.assert_array_equal(found.c, c)
    np.testing.assert_array_equal(found.pointmap, orthokern.fmap_to_pointmap(c, x, y))


def test_maps_are_made_orthogonal(solving_library, rng):
    """Each by its polar factor, also in a stack."""
    c, x, y = np.eye(3), rng.standard_normal((2, 30, 5)), rng.standard_normal((2, 20, 5))
    arrays = [made(part, solving_library) for part in (c, x, y)]
    found = orthokern.zoomout(*arrays, k_final=4, orthogonal=True).c
    p = orthokern.fmap_to_pointmap(*arrays)
    plain = libraries.to_numpy(
        orthokern.pointmap_to_fmap(p, arrays[1][..., :4], arrays[2][..., :4])
    )
    u, _, vh = np.linalg.svd(plain.astype(float))
    assert_near(found, u @ vh, 200)


# Derivatives


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    @pytest.mark.parametrize("mask", ["resolvent", "laplacian"])
    def test_first_and_second(self, rng, mask):
        import torch

        a, b = (torch.tensor(rng.standard_normal((k, 4)), requires_grad=True) for k in (3, 2))
        spectra = np.array([0.3, 1.0, 4.0]), np.array([0.2, 1.5])
        ex, ey = (torch.tensor(e, requires_grad=True) for e in spectra)

        def function(a, b, ex, ey):
            return orthokern.functional_map(a, b, ex, ey, weight=2.0, mask=mask)

        assert torch.autograd.gradcheck(function, (a, b, ex, ey))
        assert torch.autograd.gradgradcheck(function, (a, b, ex, ey), fast_mode=True)

    def test_an_eigenvalue_of_zero(self):
        import torch

        a, b, ex, ey = (torch.tensor(part, requires_grad=True) for part in (A, B, EX, EY))
        orthokern.functional_map(a, b, ex, ey).sum().backward()
        assert all(bool(torch.isfinite(part.grad).all()) for part in (a, b, ex, ey))

    def test_losses_and_maps(self, rng):
        import torch

        u, v = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((3, 2), (2, 3)))
        ex, ey = torch.arange(2.0, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64)
        p = torch.tensor([0, 2, 1, 1])

        def losses(u, v):
            return orthokern.fmap_losses(u, v, ex, ey)[:3]

        def pulled(u, m):
            return orthokern.pointmap_to_fmap(p, u, torch.ones(4, 2, dtype=torch.float64), m)

        mass = torch.tensor(rng.random(4), requires_grad=True)
        assert torch.autograd.gradcheck(losses, (u, v))
        assert torch.autograd.gradcheck(pulled, (u, mass))

    def test_compiled(self, rng):
        import torch

        a, b, ex, ey = (torch.tensor(part) for part in (A, B, EX, EY))
        compiled = torch.compile(orthokern.functional_map, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(a, b, ex, ey), orthokern.functional_map(a, b, ex, ey))
        phi = torch.tensor(np.linalg.qr(rng.standard_normal((12, 6)))[0])
        eager = orthokern.zoomout(torch.eye(3, dtype=torch.float64), phi, phi.flip(0))
        zoom = torch.compile(orthokern.zoomout, fullgraph=True, backend="aot_eager")
        for found, expected in zip(
            zoom(torch.eye(3, dtype=torch.float64), phi, phi.flip(0)), eager, strict=True
        ):
            torch.testing.assert_close(found, expected)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
def test_jax_traces_and_differentiates(rng):
    import jax

    a, b, ex, ey = (jax.numpy.asarray(part) for part in (A, B, EX, EY))
    eager = orthokern.functional_map(a, b, ex, ey)
    np.testing.assert_allclose(jax.jit(orthokern.functional_map)(a, b, ex, ey), eager, atol=1e-5)
    w, d = rng.standard_normal((3, 3)), rng.standard_normal(A.shape)

    def loss(a):
        return (orthokern.functional_map(a, b, ex, ey) * w).sum()

    slope = np.sum(np.asarray(jax.jit(jax.grad(loss))(a)) * d)
    _, forward = jax.jvp(loss, (a,), (jax.numpy.asarray(d),))
    ends = [np.sum(orthokern.functional_map(A + t * d, B, EX, EY) * w) for t in (1e-6, -1e-6)]
    expected = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose([slope, forward], expected, rtol=1e-3)
    phi = jax.numpy.asarray(rng.standard_normal((9, 4)))
    refined = jax.jit(orthokern.zoomout)(jax.numpy.eye(2), phi, phi)
    assert (
        refined.pointmap.tolist() == orthokern.zoomout(jax.numpy.eye(2), phi, phi).pointmap.tolist()
    )


# Refusals


PHI = np.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthokern.functional_map(A, B[:, :1], EX, EY), "as many descriptors in a"),
        (lambda: orthokern.functional_map(A, B, EX[:2], EY), "expected 3 eigenvalues"),
        (lambda: orthokern.functional_map(A, B, EX, EY, weight=-1.0), "expected weight"),
        (lambda: orthokern.functional_map(A, B, EX, EY, mask="slanted"), "expected mask to be"),
        (lambda: orthokern.functional_map(A, B, EX, EY, mask=-MASK), "expected every entry of mask"),
        (lambda: orthokern.functional_map(A, B, EX, EY, mask=MASK[:2]), "a mask for maps of shape"),
        (lambda: orthokern.functional_map(A, B, EX, EY, resolvent_power=0.0), "resolvent_power"),
        (lambda: orthokern.functional_map(A, B, np.ones((5, 3)), EY), "a mask for maps of shape"),
        (lambda: orthokern.fmap_losses(A, B, EX, EY), "expected maps c_xy"),
        (lambda: orthokern.fmap_losses(C, C, EX, EY[:2]), "eigenvalues"),
        (lambda: orthokern.fmap_losses(C, C, EX, EY, target_xy=A), "expected a target"),
        (lambda: orthokern.fmap_to_pointmap(np.eye(4), PHI, PHI), "at least 4 and 4 columns"),
        (lambda: orthokern.fmap_to_pointmap(np.eye(3), PHI[:0], PHI), "vertices in phi_x"),
        (lambda: orthokern.fmap_to_pointmap(np.eye(3), PHI, PHI, adjoint=1), "adjoint"),
        (lambda: orthokern.pointmap_to_fmap(np.array([0, 4, 0, 0]), PHI, PHI), "vertices from 0 to 3"),
        (lambda: orthokern.pointmap_to_fmap(np.array([0, 1]), PHI, PHI), "a vertex"),
        (lambda: orthokern.pointmap_to_fmap(np.zeros(4, int), PHI, PHI, np.ones(3)), "a mass"),
        (lambda: orthokern.zoomout(np.ones((2, 3)), PHI, PHI), "expected a square map"),
        (lambda: orthokern.zoomout(np.eye(2), PHI, PHI, k_final=4), "k_final"),
        (lambda: orthokern.zoomout(np.eye(2), PHI, PHI, step=0), "step"),
        (lambda: orthokern.zoomout(np.eye(2), PHI, PHI, repeats=-1), "repeats"),
        (lambda: orthokern.zoomout(np.eye(2), PHI, PHI, orthogonal=1), "orthogonal"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthokern.functional_map(A.astype(int), B, EX, EY), "cast to a floating dtype first"),
        (lambda: orthokern.functional_map(A * 1j, B, EX, EY), "real dtype"),
        (lambda: orthokern.fmap_losses(C.astype(int), C, EX, EY), "cast to a floating dtype first"),
        (lambda: orthokern.fmap_to_pointmap(np.eye(3, dtype=int), PHI, PHI), "cast to a floating dtype first"),
        (lambda: orthokern.pointmap_to_fmap(np.zeros(4), PHI, PHI), "expected integers in p"),
        (lambda: orthokern.zoomout(np.eye(3) * 1j, PHI, PHI), "real dtype"),
    ],
)  # fmt: skip
def test_dtypes_that_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="dask is not installed")
def test_dask_says_what_it_cannot():
    with pytest.raises(NotImplementedError, match="map the kernel over the blocks"):
        orthokern.functional_map(*(made(part, "dask") for part in (A, B, EX, EY)))
