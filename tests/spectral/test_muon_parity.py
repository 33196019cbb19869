"""Muon's orthogonalizer in torch and ours."""

from __future__ import annotations

import pytest

import orthokern

torch = pytest.importorskip("torch")

JORDAN = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def theirs(x, steps=5):
    return torch.optim._muon._zeropower_via_newtonschulz(x, JORDAN, steps, EPS)


def in_single(x, steps=5):
    """The same iteration in float32."""
    a, b, c = JORDAN
    wide = x.shape[0] <= x.shape[1]
    y = x.float() if wide else x.float().T
    y = y / y.norm().clamp(min=EPS)
    for _ in range(steps):
        g = y @ y.T
        y = a * y + (b * g + c * g @ g) @ y
    return y if wide else y.T


def gradient(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (128, 48), (48, 128), (1, 16), (16, 1)])
def test_single_precision(shape):
    for seed in range(3):
        x = gradient(shape, seed)
        expected = in_single(x)
        found = orthokern.newton_schulz(x)
        assert found.dtype == torch.float32
        assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (128, 48), (48, 128)])
def test_bfloat16(shape):
    """Theirs rounds every product to bfloat16; ours computes in float32 and rounds once."""
    for seed in range(3):
        x = gradient(shape, seed)
        expected = theirs(x)
        found = orthokern.newton_schulz(x.bfloat16())
        assert found.dtype == expected.dtype == torch.bfloat16
        assert abs(found.float().norm() / expected.float().norm() - 1) <= 2e-2
        # Ours is the nearer one to the iteration in exact arithmetic.
        exact = in_single(x.bfloat16())
        ours, other = ((y.float() - exact).norm() / exact.norm() for y in (found, expected))
        assert ours <= 2.0**-8
        assert other <= 0.2
        assert ours < other


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_steps(steps):
    x = gradient((40, 24))
    assert (orthokern.newton_schulz(x, steps=steps) - in_single(x, steps)).norm() <= 2e-5 * 5


def test_a_zero_gradient():
    x = torch.zeros(12, 8)
    assert not theirs(x).any()
    assert torch.equal(orthokern.newton_schulz(x), x)
    assert torch.equal(orthokern.newton_schulz(x.bfloat16()), x.bfloat16())
    assert torch.equal(orthokern.orthogonalize(x, tol=0.1), x)


def test_a_tiny_gradient():
    """An additive guard makes theirs vanish; a scale does not matter to ours."""
    x = torch.eye(8)
    assert theirs(1e-30 * x).float().abs().max() < 1e-15
    assert (orthokern.newton_schulz(1e-30 * x) - orthokern.newton_schulz(x)).abs().max() <= 1e-6


def test_orthogonalize_replaces_it():
    """The same direction, with singular values to a tolerance instead of anywhere in [0.7, 1.2]."""
    x = gradient((96, 64))
    found = orthokern.orthogonalize(x, tol=0.05)
    s = torch.linalg.svdvals(found)
    assert (s - 1).abs().max() <= 0.0501
    muon = torch.linalg.svdvals(theirs(x).float())
    assert (muon - 1).abs().max() > 0.1
