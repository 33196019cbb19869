"""Derivatives of least squares by central differences, of first and second order; tracing."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern import LstsqMethod
from orthokern.testing import libraries

# torch compiles its own forward-mode formulas that way.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

SHAPES = {"tall": (9, 3), "square": (3, 3), "wide": (3, 7), "batch": (2, 6, 2)}
OPTIONS = {"auto": {}, "damp": {"damp": 0.4}, "pgram": {"method": "pgram"}}
CHECK = {"eps": 1e-6, "atol": 1e-6, "rtol": 1e-6}


def problem(shape, *, is_complex=False, seed=0):
    """Well-conditioned: the identity is added."""
    rng = np.random.default_rng(seed)

    def draw(*size):
        x = rng.standard_normal(size)
        return x + 1j * rng.standard_normal(size) if is_complex else x

    a = draw(*shape) * 0.4
    a[..., : min(shape[-2:]), : min(shape[-2:])] += 2 * np.eye(min(shape[-2:]))
    return a, draw(*shape[:-1], 2)


def chosen(*names):
    """Shapes and options by name."""
    return [
        pytest.param(SHAPES[shape], OPTIONS[option], id=f"{shape}-{option}")
        for shape, option in (name.split() for name in names)
    ]


CASES = chosen("tall auto", "square auto", "wide auto", "batch damp", "wide damp", "tall pgram")
# Each compiles for a while.
FEW_CASES = chosen("tall auto", "wide auto", "batch damp")


@pytest.mark.skipif("torch" not in libraries.available(), reason="torch is not installed")
class TestTorch:
    """By torch's own checks."""

    @pytest.mark.parametrize("kind", ["real", "complex"])
    @pytest.mark.parametrize(("shape", "options"), CASES)
    def test_first_and_second_order(self, shape, options, kind):
        import torch

        arrays = problem(shape, is_complex=kind == "complex")
        given = tuple(torch.tensor(v, requires_grad=True) for v in arrays)

        def solve(a, b):
            return orthokern.lstsq(a, b, **options).x

        assert torch.autograd.gradcheck(solve, given, **CHECK)
        assert torch.autograd.gradgradcheck(solve, given, **CHECK)

    def test_weights(self):
        import torch

        arrays = (*problem((9, 3)), np.random.default_rng(1).random(9) + 0.1)
        given = tuple(torch.tensor(v, requires_grad=True) for v in arrays)
        assert torch.autograd.gradcheck(
            lambda a, b, w: orthokern.lstsq(a, b, weights=w).x, given, **CHECK
        )

    def test_forward_mode_and_mapping(self):
        import torch

        a, b = (torch.tensor(v) for v in problem((2, 9, 3)))
        mapped = torch.vmap(lambda x, y: orthokern.lstsq(x, y).x)(a, b)
        np.testing.assert_allclose(mapped, orthokern.lstsq(a, b).x, rtol=1e-12)
        forward = torch.func.jacfwd(lambda x: orthokern.lstsq(x, b[0]).x)(a[0])
        reverse = torch.func.jacrev(lambda x: orthokern.lstsq(x, b[0]).x)(a[0])
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)

    def test_without_full_rank_there_is_none(self):
        import torch

        a, b = problem((9, 3))
        a[:, 1] = a[:, 0]
        given = torch.tensor(a, requires_grad=True)
        with pytest.raises(orthokern.UnsupportedError, match="full rank for derivatives"):
            orthokern.lstsq(given, torch.tensor(b))
        x = orthokern.lstsq(given, torch.tensor(b), damp=0.3).x
        assert torch.isfinite(torch.autograd.grad(x.sum(), given)[0]).all()
        assert int(orthokern.lstsq(given.detach(), torch.tensor(b)).rank) == 2

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("options", [{}, {"method": "gram"}, {"method": "qr", "damp": 0.1}])
    def test_compiled(self, options):
        import torch

        a, b = (torch.tensor(v) for v in problem((40, 3)))
        a.requires_grad_()

        def solve(x):
            return orthokern.lstsq(x, b, **options).x

        compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")
        np.testing.assert_allclose(compiled(a).detach(), solve(a).detach(), rtol=1e-12)
        one, two = (torch.autograd.grad(f(a).sum(), a)[0] for f in (compiled, solve))
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def wide_jax():
    if "jax" not in libraries.available():
        return False
    import jax

    return bool(jax.config.jax_enable_x64)


@pytest.mark.skipif(not wide_jax(), reason="JAX in double precision is not there")
class TestJax:
    """By JAX's own check, under the transforms that trace."""

    @pytest.mark.parametrize(("shape", "options"), FEW_CASES)
    def test_first_and_second_order(self, shape, options):
        import jax
        from jax.test_util import check_grads

        a, b = (jax.numpy.asarray(v) for v in problem(shape))

        def solve(a, b):
            return orthokern.lstsq(a, b, **options).x

        check_grads(solve, (a, b), order=2, modes=("fwd", "rev"), rtol=1e-5, atol=1e-5)
        compiled = jax.jit(solve)
        np.testing.assert_allclose(compiled(a, b), solve(a, b), rtol=1e-11, atol=1e-12)
        one, two = (jax.grad(lambda a, f=f: f(a, b).sum())(a) for f in (compiled, solve))
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("method", ["gram", "pgram"])
    def test_a_traced_call_refines_a_fixed_number_of_times(self, method):
        import jax

        a, b = (jax.numpy.asarray(v) for v in problem((60, 3)))
        info = jax.jit(lambda a, b: orthokern.lstsq(a, b, method=method).info)(a, b)
        assert int(info.iterations) == {"gram": 2, "pgram": 3}[method]
        assert int(info.method) == LstsqMethod[method.upper()]
        assert float(info.backward_error.max()) <= 1e-15
        mapped = jax.vmap(lambda a: orthokern.lstsq(a, b, method=method).x)(a[None])
        np.testing.assert_allclose(mapped[0], orthokern.lstsq(a, b).x, rtol=1e-12)

    def test_without_full_rank_there_is_none(self):
        import jax

        a, b = problem((9, 3))
        a[:, 1] = a[:, 0]

        def total(a):
            return orthokern.lstsq(a, jax.numpy.asarray(b)).x.sum()

        with pytest.raises(orthokern.UnsupportedError, match="full rank for derivatives"):
            jax.grad(total)(jax.numpy.asarray(a))
        assert bool(jax.numpy.isnan(jax.jit(jax.grad(total))(jax.numpy.asarray(a))).all())


@pytest.mark.skipif("jax" not in libraries.available(), reason="JAX is not installed")
def test_jax_without_double_precision():
    import jax

    if jax.config.jax_enable_x64:
        pytest.skip("double precision is on")
    a, b = (jax.numpy.asarray(v) for v in problem((60, 3)))
    found = orthokern.lstsq(a, b, backend="array-api")
    exact = np.linalg.lstsq(np.asarray(a, float), np.asarray(b, float), rcond=None)[0]
    np.testing.assert_allclose(found.x, exact, rtol=1e-5, atol=1e-6)
    assert bool(found.info.converged.all())
