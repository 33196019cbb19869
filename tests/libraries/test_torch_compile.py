"""torch.compile without graph breaks, with and without gradients; torch.export; what is refused there."""

from __future__ import annotations

import re

import numpy as np
import pytest

import orthokern
from orthokern import BackendError, explain, newton_schulz, orthogonalize, polar, use_backend

from . import derivatives

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    # Dynamo makes an instance of a custom autograd function while it traces one.
    pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated"),
]

FUNCTIONS = {
    "polar": lambda x: polar(x)[:2],
    "left": lambda x: polar(x, side="left")[:2],
    "no h": lambda x: polar(x, compute_h=False).u,
    "partial": lambda x: polar(x, completion="partial", rcond=1e-6)[:2],
    "svd": lambda x: polar(x, method="svd")[:2],
    "newton": lambda x: polar(x, method="newton", lower_bound=0.3)[:2],
    "dwh": lambda x: polar(x, method="dwh", lower_bound=0.3)[:2],
    "newton_schulz, full": lambda x: orthogonalize(x, method="newton_schulz", lower_bound=0.5),
    "polar_express": lambda x: orthogonalize(x, method="polar_express", lower_bound=0.3),
    "gram": lambda x: orthogonalize(x, method="gram", lower_bound=0.3),
    "lower_bound": lambda x: polar(x, lower_bound=0.3)[:2],
    "orthogonalize": orthogonalize,
    "tol": lambda x: orthogonalize(x, tol=0.1),
    "steps": lambda x: orthogonalize(x, steps=3),
    "polar_express, 3 steps": lambda x: orthogonalize(x, method="polar_express", steps=3),
    "coefficients": lambda x: orthogonalize(x, coefficients=[(3.0, -3.2, 1.2), (1.5, -0.5)]),
    "newton_schulz": newton_schulz,
    "newton_schulz, spectral": lambda x: newton_schulz(x, steps=2, normalization="spectral"),
    "clip": lambda x: orthokern.spectral_clip(x, 1.5),
    "clip, both limits": lambda x: orthokern.spectral_clip(x, 1.5, lower=1.2),
    "soft clip": lambda x: orthokern.soft_spectral_clip(x, 1.0),
    "soft clip, steps": lambda x: orthokern.soft_spectral_clip(x, 1.0, steps=3),
    "oracle": lambda x: orthokern.lmo_spectral_ball(x, 2.0),
    "bounds": lambda x: tuple(orthokern.spectral_norm_bounds(x, steps=2)),
    "inverse root": lambda x: orthokern.inverse_pth_root(x.mT @ x, p=4),
    "inverse root, Newton": lambda x: orthokern.inverse_pth_root(x.mT @ x, method="newton"),
    "sign": lambda x: orthokern.matrix_sign(x.mT @ x - 2.0),
    "soft threshold": lambda x: orthokern.soft_threshold(x, 0.3),
    "split": lambda x: orthokern.outlier_split(x, quantile=0.5)[:2],
    "ROOT": lambda x: orthokern.root_orthogonalize(x, steps=2),
    "cosh": orthokern.cosh_rms_scale,
}


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch.compiler.reset()


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def parts_of(result):
    return result if isinstance(result, tuple) else (result,)


def with_gradient(function, x):
    """The results of ``function`` and the gradient of a sum over them."""
    x = x.detach().requires_grad_()
    parts = parts_of(function(x))
    sum((part.abs() * part.abs()).cos().sum() for part in parts).backward()
    return [*(part.detach() for part in parts), x.grad]


def assert_compiles(function, x):
    """Compiled code agrees with eager code on the reference, twice, compiling once for each use of gradients."""
    code = compiled(function)
    with use_backend("array-api"):
        expected = with_gradient(function, x)
    for run in ("first", "second"):
        with torch.compiler.set_stance("default" if run == "first" else "fail_on_recompile"):
            torch.testing.assert_close(parts_of(code(x)), tuple(expected[:-1]), rtol=0, atol=1e-12)
            torch.testing.assert_close(with_gradient(code, x), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_to_one_graph(rng, name):
    assert_compiles(FUNCTIONS[name], torch.tensor(derivatives.well_conditioned(rng, 4, 2)))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((4, 4), np.complex128),
        ((2, 4), np.complex128),
        ((2, 4), np.float64),
        ((2, 3, 2), np.float64),
    ],
)
def test_shapes_and_kinds_compile(rng, shape, kind):
    x = torch.tensor(derivatives.well_conditioned(rng, *shape, dtype=kind))
    assert_compiles(FUNCTIONS["polar"], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_compiles(rng, dtype):
    x = torch.tensor(derivatives.well_conditioned(rng, 4, 2)).to(dtype)
    u, gradient = with_gradient(compiled(orthogonalize), x)
    expected_u, expected_gradient = with_gradient(orthogonalize, x.double())
    assert u.dtype == gradient.dtype == dtype
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(u.double(), expected_u, rtol=0, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=tolerance)


def test_compiled_gradient_at_repeated_values(rng):
    a = derivatives.REPEATED["Q diag(1, 1, 2) Q^T"]
    loss = derivatives.random_loss(rng, 3, 3)
    w, v = map(torch.tensor, loss)
    x = torch.tensor(a, requires_grad=True)
    u, h = compiled(FUNCTIONS["polar"])(x)
    ((w * u).sum() + (v * h).sum()).backward()
    np.testing.assert_allclose(x.grad, loss.gradient(a), rtol=0, atol=1e-13)


def test_diagnostics_compile(rng):
    x = torch.tensor(derivatives.well_conditioned(rng, 3, 4, 2))
    info = compiled(lambda x: polar(x).info)(x)
    expected = polar(x, backend="array-api").info
    torch.testing.assert_close(tuple(info), tuple(expected), rtol=0, atol=1e-15)


def test_one_graph_serves_all_sizes(rng):
    code = compiled(FUNCTIONS["polar"], dynamic=True)
    for m, n in ((5, 3), (7, 4), (9, 2)):
        x = torch.tensor(derivatives.well_conditioned(rng, m, n))
        with torch.compiler.set_stance("default" if m == 5 else "fail_on_recompile"):
            torch.testing.assert_close(code(x), polar(x)[:2], rtol=0, atol=4e-15)


def test_the_first_compilation_serves_later_calls(assert_script_passes):
    assert_script_passes("torch_compile_once.py")


def test_transforms_inside_compiled_code(rng):
    a = derivatives.well_conditioned(rng, 2, 3, 3)
    w = derivatives.random_loss(rng, 3, 3).w
    weights = torch.tensor(w)
    gradient = compiled(torch.func.grad(lambda x: (weights * polar(x).u).sum()))
    mapped = compiled(torch.vmap(lambda x: polar(x).u))
    for member in a:
        expected = derivatives.unitary_derivative(member, w)
        np.testing.assert_allclose(gradient(torch.tensor(member)), expected, rtol=0, atol=1e-13)
    expected = [derivatives.unitary_factor(member) for member in a]
    np.testing.assert_allclose(mapped(torch.tensor(a)), expected, rtol=0, atol=4e-15)


class Orthogonalized(torch.nn.Module):
    def forward(self, x):
        return orthogonalize(x)


@pytest.mark.parametrize("strict", [False, True])
def test_export(rng, strict):
    x, other = (torch.tensor(a) for a in derivatives.well_conditioned(rng, 2, 4, 2))
    program = torch.export.export(Orthogonalized(), (x,), strict=strict)
    torch.testing.assert_close(program.module()(other), orthogonalize(other), rtol=0, atol=4e-15)


def test_a_compiled_optimizer_step(rng):
    gradient = torch.tensor(derivatives.well_conditioned(rng, 6, 3))
    weight = torch.zeros(6, 3, dtype=torch.float64)

    @torch.no_grad()
    def step(weight, gradient):
        weight.sub_(newton_schulz(gradient), alpha=0.5)

    compiled(step)(weight, gradient)
    torch.testing.assert_close(weight, -0.5 * newton_schulz(gradient), rtol=0, atol=1e-14)


def test_nothing_is_recorded(rng):
    x = torch.tensor(derivatives.well_conditioned(rng, 3, 2))
    with explain() as report:
        compiled(orthogonalize)(x)
    assert list(report) == []
    assert "torch.compile records nothing" in str(report)


REFUSALS = {
    "backend='numba'": "cannot run inside torch.compile",
    "check_finite=True": "pass check_finite=False",
    "side='up'": "side to be one of 'right', 'left'",
}


@pytest.mark.parametrize("option", REFUSALS)
def test_what_is_refused_says_so(rng, option):
    """Dynamo wraps what is raised while it traces; the sentence comes through."""
    name, value = option.split("=")
    x = torch.tensor(derivatives.well_conditioned(rng, 3, 2))
    with pytest.raises((BackendError, RuntimeError), match=re.escape(REFUSALS[option])):
        compiled(lambda x: polar(x, **{name: {"True": True}.get(value, value[1:-1])}).u)(x)
