"""Derivatives of the functions of singular values, of roots, signs and optimizers' rules, under torch and JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import orthokern
from orthokern.testing import libraries

from . import derivatives

# torch compiles its own forward-mode formulas that way.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


class Smooth(NamedTuple):
    """A kernel at a point where it is differentiable twice."""

    function: Any
    x: np.ndarray
    second: bool = True


def _values(values, m=4, n=3, seed=0):
    return derivatives.with_values(np.random.default_rng(seed), m, n, np.array(values))


def _definite(values):
    q = np.linalg.qr(np.random.default_rng(3).standard_normal((len(values),) * 2))[0]
    return (q * np.array(values)) @ q.T


def _hermitian_part(function):
    """Only the symmetric part of the argument counts, also for differences."""
    return lambda g: function((g + g.mT) / 2 if hasattr(g, "mT") else (g + g.T) / 2)


SMOOTH = {
    "clip": Smooth(lambda x: orthokern.spectral_clip(x, 1.5), _values([2.5, 2.0, 1.0])),
    "clip, repeated above": Smooth(lambda x: orthokern.spectral_clip(x, 1.5), _values([2.0, 2.0, 1.0])),
    "clip, repeated below": Smooth(lambda x: orthokern.spectral_clip(x, 1.5), _values([2.0, 1.0, 1.0])),
    "clip, wide": Smooth(lambda x: orthokern.spectral_clip(x, 1.5), _values([2.0, 1.0], 2, 4)),
    "clip, rank 2": Smooth(lambda x: orthokern.spectral_clip(x, 1.5), _values([2.0, 1.0, 0.0]), second=False),
    "clip, both limits": Smooth(
        lambda x: orthokern.spectral_clip(x, 1.5, lower=0.5), _values([2.0, 1.0, 0.25])
    ),
    "soft clip": Smooth(lambda x: orthokern.soft_spectral_clip(x, 1.5), _values([2.5, 2.0, 1.0])),
    "soft clip, repeated": Smooth(lambda x: orthokern.soft_spectral_clip(x, 1.0), _values([2.0, 2.0, 2.0])),
    "soft clip, rank 1": Smooth(lambda x: orthokern.soft_spectral_clip(x, 1.0), _values([2.0, 0.0, 0.0])),
    "soft clip, steps": Smooth(lambda x: orthokern.soft_spectral_clip(x, 1.5, steps=4), _values([2.0, 1.0, 0.5])),
    "oracle": Smooth(lambda x: orthokern.lmo_spectral_ball(x, 2.0), _values([2.0, 2.0, 1.0])),
    "inverse square root": Smooth(
        _hermitian_part(lambda g: orthokern.inverse_pth_root(g, p=2)), _definite([2.0, 1.0, 0.5])
    ),
    "inverse root, repeated": Smooth(
        _hermitian_part(lambda g: orthokern.inverse_pth_root(g, p=3)), _definite([2.0, 1.0, 1.0])
    ),
    "inverse root, Newton": Smooth(
        _hermitian_part(lambda g: orthokern.inverse_pth_root(g, p=4, method="newton")), _definite([2.0, 1.0, 1.0])
    ),
    "sign": Smooth(orthokern.matrix_sign, np.array([[2.0, 1.0, 0.3], [0.0, -1.5, 0.5], [0.2, 0.1, 1.0]])),
    "soft threshold": Smooth(lambda x: orthokern.soft_threshold(x, 0.5), np.array([[1.0, -2.0], [0.1, 0.9]])),
    "cosh": Smooth(orthokern.cosh_rms_scale, _values([2.0, 2.0, 1.0])),
    "ROOT": Smooth(lambda x: orthokern.root_orthogonalize(x, steps=3), _values([1.5, 1.2, 1.0])),
}  # fmt: skip


@pytest.fixture(params=SMOOTH)
def smooth(request):
    return SMOOTH[request.param]


def differences(smooth, direction):
    """Central differences of the reference in NumPy; a backend may estimate a norm with other vectors."""
    with orthokern.use_backend("array-api"):
        return derivatives.central_difference(smooth.function, smooth.x, direction, 2e-4)


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    """Reverse mode against differences, twice."""

    def test_first_and_second(self, smooth):
        import torch

        x = torch.tensor(smooth.x, requires_grad=True)
        check = {"eps": 1e-5, "atol": 1e-7, "rtol": 1e-6}
        assert torch.autograd.gradcheck(smooth.function, x, **check)
        if smooth.second:
            assert torch.autograd.gradgradcheck(smooth.function, x, **check)

    def test_forward_mode(self, smooth, rng):
        import torch

        d = rng.standard_normal(smooth.x.shape)
        _, tangent = torch.func.jvp(smooth.function, (torch.tensor(smooth.x),), (torch.tensor(d),))
        np.testing.assert_allclose(tangent.numpy(), differences(smooth, d), atol=1e-8)

    def test_vmap_of_the_gradient(self, smooth, rng):
        import torch

        xs = torch.tensor(smooth.x + 1e-3 * rng.standard_normal((3, *smooth.x.shape)))
        w = torch.tensor(rng.standard_normal(smooth.x.shape))

        def loss(x):
            return (w * smooth.function(x)).sum()

        together = torch.func.vmap(torch.func.grad(loss))(xs)
        for x, gradient in zip(xs, together, strict=True):
            torch.testing.assert_close(gradient, torch.func.grad(loss)(x), rtol=1e-8, atol=1e-8)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
class TestJax:
    """jit, forward over reverse, against differences; float64 where it is on."""

    def test_jit_agrees(self, smooth):
        import jax

        x = jax.numpy.asarray(smooth.x)
        # A backend may estimate a norm with other vectors than the traced body.
        with orthokern.use_backend("array-api"):
            eager = smooth.function(x)
        compiled = jax.jit(smooth.function)(x)
        tolerance = 400 * float(jax.numpy.finfo(x.dtype).eps)
        np.testing.assert_allclose(compiled, eager, atol=tolerance)

    def test_forward_and_reverse(self, smooth, rng):
        import jax

        x, d = (jax.numpy.asarray(a) for a in (smooth.x, rng.standard_normal(smooth.x.shape)))
        tolerance = 1e-8 if x.dtype == np.float64 else 2e-3
        out, tangent = jax.jvp(smooth.function, (x,), (d,))
        np.testing.assert_allclose(
            tangent, differences(smooth, np.asarray(d, float)), atol=tolerance
        )
        w = jax.numpy.asarray(rng.standard_normal(out.shape), dtype=out.dtype)
        for wrap in (lambda f: f, jax.jit):
            gradient = wrap(jax.grad(lambda x: (w * smooth.function(x)).sum()))(x)
            np.testing.assert_allclose(
                (gradient * d).sum(), (w * tangent).sum(), atol=10 * tolerance
            )

    def test_second_order(self, smooth, rng):
        import jax

        x = jax.numpy.asarray(smooth.x)
        if not smooth.second or x.dtype != np.float64:
            return
        w, d = rng.standard_normal(smooth.x.shape), rng.standard_normal(smooth.x.shape)
        gradient = jax.grad(lambda x: (w * smooth.function(x)).sum())
        _, bent = jax.jvp(gradient, (x,), (jax.numpy.asarray(d),))
        expected = derivatives.central_difference(
            lambda x: np.asarray(gradient(jax.numpy.asarray(x))), smooth.x, d
        )
        np.testing.assert_allclose(bent, expected, atol=1e-6)
