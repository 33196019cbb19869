"""Derivatives of the transport kernels under torch and JAX, at points where they exist; tracing and vmap."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import orthokern
from orthokern.testing import libraries

pytestmark = [
    # torch compiles its own forward-mode formulas that way.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    # Dynamo makes an instance of a custom autograd function while it traces one.
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated"),
]

V = np.array([[0.9, 0.5, -0.3, 0.42, 0.77], [2.0, -1.0, 0.1, 1.9, 1.3]])
SUMS = np.array([0.8, 1.7])
COST = np.array([[0.1, 0.7, 0.4], [0.9, 0.2, 0.35]])
PLAN = np.array([[0.2, 0.15, 0.1], [0.1, 0.17, 0.26]])


class Piece(NamedTuple):
    """A function at a point inside one of its pieces."""

    function: Any
    arrays: tuple[np.ndarray, ...]


def _masses(plan, a, b):
    """Marginals of equal mass, whatever their entries."""
    return orthokern.round_to_marginals(plan, a / a.sum(), b / b.sum())


PIECES = {
    "projection": Piece(orthokern.project_simplex, (V, SUMS)),
    "projection, first axis": Piece(lambda v: orthokern.project_simplex(v, axis=0), (V,)),
    "sparse projection": Piece(lambda v, z: orthokern.project_sparse_simplex(v, z, k=2), (V, SUMS)),
    "norm, head and tail": Piece(lambda v: orthokern.ksupport_norm_squared(v, k=3), (V,)),
    "norm, one": Piece(lambda v: orthokern.ksupport_norm_squared(v, k=1), (V,)),
    "norm, Euclidean": Piece(lambda v: orthokern.ksupport_norm_squared(v, k=5), (V,)),
    "proximal map": Piece(lambda v, c: orthokern.prox_ksupport(v, c, k=2), (V, SUMS)),
    "proximal map, few positive": Piece(lambda v, c: orthokern.prox_ksupport(v - 1, c, k=3), (V, SUMS)),
    "proximal map, Euclidean": Piece(orthokern.prox_ksupport, (V, SUMS)),
    "transform": Piece(orthokern.c_transform, (V[0, :3], COST)),
    "rounding": Piece(_masses, (PLAN, np.array([0.4, 0.6]), np.array([0.3, 0.45, 0.25]))),
}  # fmt: skip


@pytest.fixture(params=PIECES)
def piece(request):
    return PIECES[request.param]


def differences(piece, directions, h=1e-6):
    ahead, behind = (
        piece.function(*(x + s * h * d for x, d in zip(piece.arrays, directions, strict=True)))
        for s in (1, -1)
    )
    return (ahead - behind) / (2 * h)


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    """Reverse and forward mode, twice, compiled and mapped."""

    def test_first_and_second(self, piece):
        import torch

        arrays = tuple(torch.tensor(x, requires_grad=True) for x in piece.arrays)
        check = {"eps": 1e-6, "atol": 1e-7, "rtol": 1e-6}
        assert torch.autograd.gradcheck(piece.function, arrays, **check)
        assert torch.autograd.gradgradcheck(piece.function, arrays, **check)

    def test_forward_mode(self, piece, rng):
        import torch

        directions = [rng.standard_normal(x.shape) for x in piece.arrays]
        given = (tuple(torch.tensor(a) for a in part) for part in (piece.arrays, directions))
        _, tangent = torch.func.jvp(piece.function, *given)
        np.testing.assert_allclose(tangent.numpy(), differences(piece, directions), atol=1e-8)

    def test_vmap_of_the_gradient(self, piece):
        import torch

        arrays = [torch.tensor(x) for x in piece.arrays]
        moved = torch.stack([arrays[0], arrays[0] + 1e-3])
        gradient = torch.func.grad(lambda x, *rest: (piece.function(x, *rest) ** 2).sum())
        together = torch.func.vmap(gradient, in_dims=(0, *[None] * len(arrays[1:])))(
            moved, *arrays[1:]
        )
        for x, found in zip(moved, together, strict=True):
            torch.testing.assert_close(found, gradient(x, *arrays[1:]), rtol=1e-9, atol=1e-9)

    @pytest.mark.slow
    def test_compiled(self, piece):
        import torch

        arrays = tuple(torch.tensor(x, requires_grad=True) for x in piece.arrays)
        compiled = torch.compile(piece.function, fullgraph=True, backend="aot_eager")
        results = [f(*arrays) for f in (piece.function, compiled)]
        gradients = [torch.autograd.grad((r**2).sum(), arrays) for r in results]
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
class TestJax:
    """jit, vmap, forward and reverse mode, second order; float64 where it is on."""

    def test_jit_and_vmap_agree(self, piece):
        import jax

        arrays = [jax.numpy.asarray(x) for x in piece.arrays]
        expected = piece.function(*arrays)
        tolerance = 100 * float(jax.numpy.finfo(expected.dtype).eps)
        np.testing.assert_allclose(jax.jit(piece.function)(*arrays), expected, atol=tolerance)
        stacked = [jax.numpy.stack([x, x]) for x in arrays]
        mapped = jax.vmap(piece.function)(*stacked)
        np.testing.assert_allclose(mapped[1], expected, atol=tolerance)

    def test_first_order(self, piece, rng):
        import jax

        directions = [rng.standard_normal(x.shape) for x in piece.arrays]
        arrays, given = (
            [jax.numpy.asarray(a) for a in part] for part in (piece.arrays, directions)
        )
        out, tangent = jax.jvp(piece.function, arrays, given)
        tolerance = 1e-8 if out.dtype == np.float64 else 2e-4
        np.testing.assert_allclose(tangent, differences(piece, directions), atol=tolerance)
        w = jax.numpy.asarray(rng.standard_normal(out.shape), dtype=out.dtype)
        numbers = tuple(range(len(arrays)))
        loss = jax.grad(lambda *a: (w * piece.function(*a)).sum(), argnums=numbers)
        for gradient in (loss(*arrays), jax.jit(loss)(*arrays)):
            paired = sum((g * d).sum() for g, d in zip(gradient, given, strict=True))
            np.testing.assert_allclose(paired, (w * tangent).sum(), atol=10 * tolerance)

    def test_second_order(self, piece, rng):
        import jax

        arrays = [jax.numpy.asarray(x) for x in piece.arrays]
        if arrays[0].dtype != np.float64:
            return
        numbers = tuple(range(len(arrays)))
        gradient = jax.grad(lambda *a: (piece.function(*a) ** 3).sum(), argnums=numbers)
        directions = [rng.standard_normal(x.shape) for x in piece.arrays]
        _, bent = jax.jvp(gradient, arrays, [jax.numpy.asarray(d) for d in directions])
        h = 1e-6
        ahead, behind = (
            gradient(*(x + s * h * d for x, d in zip(arrays, directions, strict=True)))
            for s in (1, -1)
        )
        for found, up, down in zip(bent, ahead, behind, strict=True):
            np.testing.assert_allclose(found, (up - down) / (2 * h), atol=1e-6)


def test_the_weight_has_a_derivative_at_zero(rng):
    """One-sided: the proximal point starts along minus the gradient of half the square of the norm."""
    if libraries.missing("torch") is not None:
        pytest.skip("torch is not installed")
    import torch

    v = torch.tensor(np.array([3.0, 2.0, 1.9, 0.1]), requires_grad=True)
    half = orthokern.ksupport_norm_squared(v, k=2) / 2
    (slope,) = torch.autograd.grad(half, v)
    _, moved = torch.func.jvp(
        lambda c: orthokern.prox_ksupport(v.detach(), c, k=2),
        (torch.zeros((), dtype=torch.float64),),
        (torch.ones((), dtype=torch.float64),),
    )
    torch.testing.assert_close(moved, -slope, rtol=1e-12, atol=1e-12)
