"""Ridge regression: known answers, the stacked problem, paths and their scores, derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing import libraries

from .conftest import assert_near, made

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def system(rng, n, d, k=None, *, real=True):
    def draw(*shape):
        z = rng.standard_normal(shape)
        return z if real else z + 1j * rng.standard_normal(shape)

    return draw(n, d), draw(n) if k is None else draw(n, k), 10 ** (2 * rng.random(d) - 1)


def stacked(a, b, w):
    """Least squares with the penalty as rows."""
    d = a.shape[1]
    zeros = np.zeros((d, *b.shape[1:]))
    rows = np.concatenate([a, np.diag(np.sqrt(w))])
    return np.linalg.lstsq(rows, np.concatenate([b, zeros]), rcond=0)[0]


def test_known_answer(solving_library, dtype):
    a, b, w = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0]), np.array([1.0, 4.0])
    a, b, w = (made(part, solving_library, dtype) for part in (a, b, w))
    x = orthokern.ridge_solve(a, b, w)
    assert_near(x, [0.5, 0.5], 4)
    assert type(x) is type(a)
    assert_near(orthokern.ridge_solve(a, b, 1.0), [0.5, 0.8], 4)
    path = orthokern.ridge_path(a, b, w)
    assert_near(path.x, [[0.5, 0.8], [0.2, 0.5]], 8)
    assert_near(path.dof, [1.3, 0.7], 8)
    # Residuals (0.5, 0.4) and (0.8, 1); what is left free (0.5, 0.2) and (0.8, 0.5).
    assert_near(path.gcv, [2 * 0.41 / 0.7**2, 2 * 1.64 / 1.3**2], 30)
    assert_near(path.loo, [(1 + 4) / 2, (1 + 4) / 2], 30)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_it_is_the_stacked_problem(n, d, real, seed):
    a, b, w = system(np.random.default_rng(seed), n, d, 2, real=real)
    x = orthokern.ridge_solve(a, b, w)
    np.testing.assert_allclose(x, stacked(a, b, w), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        orthokern.ridge_solve(a, b[:, 0], w), x[:, 0], rtol=1e-12, atol=1e-14
    )


def test_no_digits_are_lost_to_squares(rng):
    """Condition number 1e10: normal equations would leave none."""
    u, v = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((60, 8), (8, 8)))
    a = u * np.logspace(0, -10, 8) @ v.T
    b = a @ rng.standard_normal(8)
    w = 1e-24
    s = np.logspace(0, -10, 8)
    exact = v @ (s / (s**2 + w) * (u.T @ b))
    x = orthokern.ridge_solve(a, b, w)
    np.testing.assert_allclose(x, exact, atol=1e-5 * np.abs(exact).max())
    assert np.linalg.norm(a @ x - b) < 1e-14 * np.linalg.norm(b)


def test_the_path_is_its_solutions_and_leaving_out_is_leaving_out(rng):
    for n, d in ((20, 6), (9, 15)):
        a, b, _ = system(rng, n, d, 2)
        weights = np.array([0.3, 2.0, 10.0])
        path = orthokern.ridge_path(a, b, weights)
        for i, w in enumerate(weights):
            np.testing.assert_allclose(path.x[i], orthokern.ridge_solve(a, b, w), rtol=1e-10)
            left = []
            for row in range(n):
                keep = np.arange(n) != row
                left.append(b[row] - a[row] @ orthokern.ridge_solve(a[keep], b[keep], w))
            np.testing.assert_allclose(path.loo[i], np.mean(np.square(left), axis=0), rtol=1e-10)
            hat = a @ np.linalg.solve(a.T @ a + w * np.eye(d), a.T)
            r, free = b - hat @ b, n - np.trace(hat)
            np.testing.assert_allclose(path.gcv[i], n * (r**2).sum(0) / free**2, rtol=1e-10)
            np.testing.assert_allclose(path.dof[i], np.trace(hat), rtol=1e-11)


def test_stacks_and_one_matrix_for_many_sides(solving_library, rng):
    a, b, w = system(rng, 9, 4, 3)
    many = np.stack([b, 2 * b])
    x = orthokern.ridge_solve(*(made(part, solving_library) for part in (a, many, w)))
    assert_near(x, np.stack([stacked(a, b, w), 2 * stacked(a, b, w)]), 200)
    each = np.stack([w, 3 * w])
    x = orthokern.ridge_solve(*(made(part, solving_library) for part in (a, b, each)))
    assert_near(x, np.stack([stacked(a, b, v) for v in each]), 200)
    stack = np.stack([a, -a])
    path = orthokern.ridge_path(*(made(part, solving_library) for part in (stack, many, w[:2])))
    assert_near(path.x[1, ...], -2 * orthokern.ridge_path(a, b, w[:2]).x, 200)


def test_low_precision_and_mixed_dtypes(rng):
    a, b, w = system(rng, 12, 3)
    x = orthokern.ridge_solve(a.astype(np.float16), b.astype(np.float16), 0.5)
    assert x.dtype == np.float16
    np.testing.assert_allclose(x, stacked(a, b, np.full(3, 0.5)), atol=5e-3)
    assert orthokern.ridge_solve(a, b + 1j, w).dtype == np.complex128


REFUSED = [
    ((np.ones(3), np.ones(3), 1.0), orthokern.ShapeError, "at least 2 dimensions"),
    ((np.ones((3, 2)), np.ones(2), 1.0), orthokern.ShapeError, r"expected b \(..., 3\)"),
    ((np.ones((3, 2)), np.ones((1, 1, 3)), 1.0), orthokern.ShapeError, "got shape"),
    ((np.ones((3, 2)), np.ones(3), 0.0), orthokern.OptionError, "> 0"),
    ((np.ones((3, 2)), np.ones(3), np.array([1.0, 0.0])), orthokern.ValuesError, "> 0"),
    ((np.ones((3, 2)), np.ones(3), np.ones(3)), orthokern.ShapeError, "or one number"),
    ((np.ones((3, 2), dtype=int), np.ones(3), 1.0), orthokern.DTypeError, "floating"),
    ((np.ones((3, 0)), np.ones(3), 1.0), orthokern.ShapeError, "at least one entry"),
]


@pytest.mark.parametrize(("arrays", "kind", "words"), REFUSED)
def test_refusals(arrays, kind, words):
    with pytest.raises(kind, match=words):
        orthokern.ridge_solve(*arrays)


def test_refusals_of_the_path():
    with pytest.raises(orthokern.ShapeError, match=r"weights \(L,\)"):
        orthokern.ridge_path(np.ones((3, 2)), np.ones(3), np.ones((2, 2)))
    with pytest.raises(orthokern.ValuesError, match="> 0"):
        orthokern.ridge_path(np.ones((3, 2)), np.ones(3), np.array([1.0, -1.0]))


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="dask is not installed")
@pytest.mark.parametrize("solve", [orthokern.ridge_solve, orthokern.ridge_path])
def test_dask_is_told_what_to_do(solve):
    a, b, w = (made(np.ones(shape), "dask") for shape in ((3, 2), 3, 2))
    with pytest.raises(orthokern.UnsupportedError, match="compute"):
        solve(a, b, w)


# Derivatives

SHAPES = {"tall": (7, 4, 2, True), "wide": (3, 6, 2, True), "complex": (5, 3, 1, False)}


@pytest.fixture(params=SHAPES)
def arrays(request, rng):
    n, d, k, real = SHAPES[request.param]
    return system(rng, n, d, k, real=real)


def moved(arrays, directions, h):
    return orthokern.ridge_solve(*(x + h * t for x, t in zip(arrays, directions, strict=True)))


def differences(arrays, directions, h=1e-5):
    return (moved(arrays, directions, h) - moved(arrays, directions, -h)) / (2 * h)


def directions_for(arrays, rng):
    return [
        x * (rng.standard_normal(x.shape) + (1j * rng.standard_normal(x.shape) if x.dtype == complex else 0))
        for x in arrays
    ]  # fmt: skip


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
class TestTorch:
    def test_first_and_second(self, arrays):
        import torch

        given = tuple(torch.tensor(x, requires_grad=True) for x in arrays)
        check = {"eps": 1e-6, "atol": 1e-7, "rtol": 1e-5}
        assert torch.autograd.gradcheck(orthokern.ridge_solve, given, **check)
        assert torch.autograd.gradgradcheck(orthokern.ridge_solve, given, **check)

    def test_forward_mode_is_central_differences(self, arrays, rng):
        import torch

        directions = directions_for(arrays, rng)
        given = (tuple(torch.tensor(x) for x in part) for part in (arrays, directions))
        _, tangent = torch.func.jvp(orthokern.ridge_solve, *given)
        np.testing.assert_allclose(tangent.numpy(), differences(arrays, directions), atol=1e-8)

    def test_compiled_and_mapped(self, arrays):
        import torch

        given = [torch.tensor(x) for x in arrays]
        expected = orthokern.ridge_solve(*given)
        mapped = torch.func.vmap(orthokern.ridge_solve)(*(torch.stack([x, x]) for x in given))
        torch.testing.assert_close(mapped[1], expected, rtol=1e-11, atol=1e-12)
        compiled = torch.compile(orthokern.ridge_solve, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*given), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
def test_jax_derivatives(arrays, rng):
    import jax

    directions = directions_for(arrays, rng)
    given, along = ([jax.numpy.asarray(x) for x in part] for part in (arrays, directions))
    out, tangent = jax.jvp(jax.jit(orthokern.ridge_solve), given, along)
    wide = out.dtype in (np.float64, np.complex128)
    exact = differences(arrays, directions)
    np.testing.assert_allclose(tangent, exact, atol=1e-8 if wide else 1e-3)
    if not wide:
        return

    def slope(*given):
        return jax.jvp(orthokern.ridge_solve, given, tuple(along))[1]

    _, second = jax.jvp(slope, tuple(given), tuple(along))
    h = 1e-3
    ahead, here, behind = (moved(arrays, directions, s * h) for s in (1, 0, -1))
    curve = (ahead - 2 * here + behind) / h**2
    np.testing.assert_allclose(second, curve, atol=2e-5 * max(1.0, np.abs(second).max()))

    def loss(*given):
        return jax.numpy.sum(jax.numpy.abs(orthokern.ridge_solve(*given)) ** 2)

    gradients = jax.grad(loss, argnums=(0, 1, 2))(*given)
    paired = sum((g * d).sum().real for g, d in zip(gradients, along, strict=True))
    expected = 2 * (np.conj(out) * tangent).sum().real
    np.testing.assert_allclose(paired, expected, rtol=1e-9)
