"""Derivatives under torch: reverse and forward mode, second order, torch.func, vmap, repeated and vanishing values."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from orthokern import UnsupportedError, explain, newton_schulz, orthogonalize, polar

from . import derivatives

torch = pytest.importorskip("torch")
# torch compiles its own forward-mode formulas that way.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

KINDS = {"real": np.float64, "complex": np.complex128}
SHAPES = {"square": (3, 3), "tall": (4, 2), "wide": (2, 4), "batch": (2, 2, 2)}
PARTS = {"u": lambda r: r.u, "h": lambda r: r.h, "both": lambda r: (r.u, r.h)}
# Singular values below are between 1 and 2: differences of width 1e-5 are good to about 1e-10.
CHECK = {"eps": 1e-5, "atol": 1e-8, "rtol": 1e-7}
# A few steps make steep functions.
STEEP = {"eps": 1e-6, "atol": 1e-6, "rtol": 1e-6}
FINISHED = {
    "auto": {},
    "svd": {"method": "svd"},
    "newton": {"method": "newton"},
    "dwh": {"method": "dwh"},
    "newton_schulz": {"method": "newton_schulz"},
    "polar_express": {"method": "polar_express"},
    "gram": {"method": "gram"},
    "lower_bound": {"lower_bound": 0.3},
    "tight tol": {"tol": 1e-9},
}
UNFINISHED = {
    "tol": {"tol": 0.1},
    "tol, bound given": {"tol": 0.1, "lower_bound": 0.3},
    "dwh to 0.1": {"method": "dwh", "tol": 0.1, "lower_bound": 0.1},
    "newton to 0.1": {"method": "newton", "tol": 0.1, "lower_bound": 0.1},
    "newton_schulz, 3 steps": {"method": "newton_schulz", "steps": 3},
    "polar_express, 3 steps": {"method": "polar_express", "steps": 3},
    "gram, 3 steps": {"method": "gram", "steps": 3},
    "own coefficients": {"coefficients": [(3.0, -3.2, 1.2), (1.5, -0.5)]},
}
# Sizes and ranks of matrices whose smallest singular values vanish.
DEFICIENT = [(3, 3, 2), (3, 3, 1), (4, 3, 2), (3, 4, 2), (3, 2, 0)]


def tensor(array, dtype=None):
    """A leaf that asks for its gradient."""
    return torch.tensor(array, dtype=dtype, requires_grad=True)


def assert_near(computed, expected, tolerance):
    """Entries within ``tolerance`` of the largest one that is expected."""
    computed = computed.detach().resolve_conj().numpy()
    limit = tolerance * max(np.abs(expected).max(), 1e-300)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=limit)


def torch_loss(loss, x, **options):
    """The loss of derivatives.py, of tensors."""
    u, h, *_ = polar(x, **options)
    w, v = (torch.tensor(a, dtype=x.dtype) for a in loss)
    return (w.conj() * u).real.sum() + (v.conj() * h).real.sum()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_agree_with_differences(rng, shape, kind, side, part):
    x = tensor(derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind]))

    def factors(x):
        return PARTS[part](polar(x, side=side))

    assert torch.autograd.gradcheck(factors, x, check_forward_ad=True, **CHECK)
    assert torch.autograd.gradgradcheck(factors, x, **CHECK)


def test_derivatives_of_every_order_of_modes(rng):
    x = tensor(derivatives.well_conditioned(rng, 3, 2))
    checks = {"check_batched_grad": True, **CHECK}
    assert torch.autograd.gradcheck(lambda x: polar(x)[:2], x, **checks)
    assert torch.autograd.gradgradcheck(
        lambda x: polar(x)[:2], x, check_fwd_over_rev=True, check_rev_over_rev=True, **checks
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["square", "tall", "wide"])
@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_factor_has_the_closed_gradient(rng, name, shape, kind):
    a = derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind])
    w = derivatives.random_loss(rng, *a.shape, KINDS[kind]).w
    x = tensor(a)
    (torch.tensor(w).conj() * orthogonalize(x, **FINISHED[name])).real.sum().backward()
    assert_near(x.grad, derivatives.unitary_derivative(a, w), 1e-13)


@pytest.mark.parametrize("shape", ["square", "tall", "wide"])
@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_factor_has_the_gradient_of_its_steps(rng, name, shape):
    x = tensor(derivatives.well_conditioned(rng, *SHAPES[shape]))

    def factor(x):
        return orthogonalize(x, **UNFINISHED[name])

    assert torch.autograd.gradcheck(factor, x, check_forward_ad=True, **STEEP)
    assert torch.autograd.gradgradcheck(factor, x, **STEEP)


@pytest.mark.parametrize("normalization", ["frobenius", "schatten4", "spectral"])
def test_gradient_of_newton_schulz(rng, normalization):
    x = tensor(derivatives.well_conditioned(rng, 3, 2))

    def factor(x):
        return newton_schulz(x, steps=3, normalization=normalization)

    assert torch.autograd.gradcheck(factor, x, check_forward_ad=True, **STEEP)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["square", "tall", "wide"])
def test_gradient_through_any_backend(rng, backend, shape, kind):
    a = derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind])
    loss = derivatives.random_loss(rng, *a.shape, KINDS[kind])
    x = tensor(a)
    torch_loss(loss, x, backend=backend).backward()
    assert_near(x.grad, loss.gradient(a), 1e-13)


def test_the_backend_runs_where_gradients_are_asked_for(rng, backend):
    x = tensor(derivatives.well_conditioned(rng, 2, 5, 3))
    with explain() as report:
        u = orthogonalize(x, backend=backend)
    assert {decision.backend for decision in report} == {backend}
    assert u.requires_grad
    torch.testing.assert_close(u, orthogonalize(x.detach(), backend=backend), rtol=0, atol=0)


def test_results_with_gradients_are_those_without(rng, backend):
    x = tensor(derivatives.well_conditioned(rng, 4, 4))
    result, plain = polar(x, backend=backend), polar(x.detach(), backend=backend)
    torch.testing.assert_close(result[:2], plain[:2], rtol=0, atol=4e-15)
    assert result.u.requires_grad
    assert result.h.requires_grad
    assert not any(figure.requires_grad for figure in result.info)


@pytest.mark.parametrize("name", derivatives.REPEATED)
def test_repeated_values(rng, name, backend):
    a = derivatives.REPEATED[name]
    loss = derivatives.random_loss(rng, *a.shape)
    x = tensor(a)
    (gradient,) = torch.autograd.grad(torch_loss(loss, x, backend=backend), x, create_graph=True)
    assert_near(gradient, loss.gradient(a), 1e-13)
    rows = [torch.autograd.grad(g, x, retain_graph=True)[0].ravel() for g in gradient.ravel()]
    assert_near(torch.stack(rows), loss.hessian(a), 1e-9)


@pytest.mark.parametrize("name", derivatives.REPEATED)
def test_repeated_values_by_differences_of_the_gradient(rng, name):
    x = tensor(derivatives.REPEATED[name])
    assert torch.autograd.gradcheck(lambda x: polar(x)[:2], x, check_forward_ad=True, **CHECK)
    assert torch.autograd.gradgradcheck(lambda x: polar(x)[:2], x, **CHECK)


def test_repeated_values_of_a_unitary_matrix(rng):
    a = np.linalg.qr(derivatives.well_conditioned(rng, 3, 3, dtype=np.complex128))[0]
    loss = derivatives.random_loss(rng, 3, 3, np.complex128)
    x = tensor(a)
    torch_loss(loss, x).backward()
    assert_near(x.grad, loss.gradient(a), 1e-13)
    assert torch.autograd.gradgradcheck(lambda x: polar(x)[:2], tensor(a), **CHECK)


def test_known_gradient_at_the_identity(backend):
    x = tensor(np.eye(3))
    (polar(x, backend=backend).u * torch.arange(9.0).reshape(3, 3)).sum().backward()
    assert_near(x.grad, np.array([[0.0, -1, -2], [1, 0, -1], [2, 1, 0]]), 1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "rank"), DEFICIENT)
def test_gradient_along_the_rank_of_a_deficient_matrix(rng, m, n, rank, kind, backend):
    """Directions that leave the rank count as zero: there the canonical factor jumps."""
    a = derivatives.with_values(rng, m, n, np.linspace(1, 2, rank), dtype=KINDS[kind])
    w = derivatives.random_loss(rng, m, n, KINDS[kind]).w
    x = tensor(a)
    u = orthogonalize(x, backend=backend)
    assert_near(u, derivatives.unitary_factor(a, rank), 1e-14)
    (torch.tensor(w).conj() * u).real.sum().backward()
    assert_near(x.grad, derivatives.unitary_derivative(a, w, rank), 1e-13)


@pytest.mark.parametrize(("m", "n", "rank"), DEFICIENT)
def test_forward_mode_along_the_rank_of_a_deficient_matrix(rng, m, n, rank):
    a = derivatives.with_values(rng, m, n, np.linspace(1, 2, rank))
    left, right = rng.standard_normal((m, m)), rng.standard_normal((n, n))
    d = left @ a + a @ right
    tangent = torch.func.jvp(orthogonalize, (torch.tensor(a),), (torch.tensor(d),))[1]
    assert_near(tangent, derivatives.unitary_derivative(a, d, rank), 1e-13)


@pytest.mark.parametrize("completion", ["unitary", "partial"])
@pytest.mark.parametrize(("m", "n", "rank"), DEFICIENT)
def test_derivatives_of_a_deficient_matrix_are_finite(rng, m, n, rank, completion):
    x = tensor(derivatives.with_values(rng, m, n, np.linspace(1, 2, rank)))

    def loss(x):
        u, h, *_ = polar(x, completion=completion)
        return (u**3).sum() + (h**3).sum()

    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(second).all()


@pytest.mark.parametrize("exponent", [-300, -200, 200, 300])
def test_gradients_of_matrices_of_any_scale(rng, exponent, backend):
    a = derivatives.well_conditioned(rng, 2, 3, 3)
    w = rng.standard_normal(a.shape)
    scale = np.array([1.0, 10.0**exponent])[:, None, None]
    x = tensor(a * scale)
    (torch.tensor(w) * polar(x, backend=backend).u).sum().backward()
    expected = np.stack([derivatives.unitary_derivative(*pair) for pair in zip(a, w, strict=True)])
    assert_near(x.grad * torch.tensor(scale), expected, 1e-13)


def test_a_broken_member_leaves_the_gradients_of_the_others(rng, backend):
    a = derivatives.well_conditioned(rng, 3, 3, 3)
    a[1, 0, 2] = np.nan
    loss = derivatives.random_loss(rng, 3, 3)
    x = tensor(a)
    torch_loss(loss, x, backend=backend).backward()
    for k in (0, 2):
        assert_near(x.grad[k], loss.gradient(a[k]), 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["square", "tall", "wide"])
def test_forward_mode(rng, shape, kind, backend):
    a, d = derivatives.well_conditioned(rng, 2, *SHAPES[shape], dtype=KINDS[kind])
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        u, h, *_ = polar(forward.make_dual(torch.tensor(a), torch.tensor(d)), backend=backend)
        tangents = forward.unpack_dual(u).tangent, forward.unpack_dual(h).tangent
    assert_near(tangents[0], derivatives.unitary_derivative(a, d), 1e-13)
    assert_near(tangents[1], derivatives.hermitian_derivative(a, d), 1e-13)


@pytest.mark.parametrize("jacobian", ["jacfwd", "jacrev"])
def test_jacobians(rng, jacobian):
    a = derivatives.well_conditioned(rng, 4, 2)
    computed = getattr(torch.func, jacobian)(lambda x: polar(x).u)(torch.tensor(a))
    columns = [derivatives.unitary_derivative(a, e) for e in np.eye(8).reshape(8, 4, 2)]
    assert_near(computed.reshape(8, 8).mT, np.reshape(columns, (8, 8)), 1e-13)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_jacobians(rng, strategy):
    a = derivatives.well_conditioned(rng, 4, 2)
    computed = torch.autograd.functional.jacobian(
        lambda x: polar(x).u, torch.tensor(a), vectorize=True, strategy=strategy
    )
    columns = [derivatives.unitary_derivative(a, e) for e in np.eye(8).reshape(8, 4, 2)]
    assert_near(computed.reshape(8, 8).mT, np.reshape(columns, (8, 8)), 1e-13)


@pytest.mark.parametrize(
    ("inner", "outer"), [("jacrev", "jacfwd"), ("jacfwd", "jacrev"), ("jacrev", "jacrev")]
)
@pytest.mark.parametrize("name", ["generic", "identity", "Q diag(1, 1, 2) Q^T", "tall"])
def test_hessians_of_torch_func(rng, name, inner, outer):
    generic = derivatives.well_conditioned(rng, 3, 3)
    a = derivatives.REPEATED.get(name, generic)
    loss = derivatives.random_loss(rng, *a.shape)
    first = getattr(torch.func, inner)(lambda x: torch_loss(loss, x))
    hessian = getattr(torch.func, outer)(first)(torch.tensor(a))
    assert_near(hessian.reshape(a.size, a.size), loss.hessian(a), 1e-9)


def test_nested_forward_mode_is_refused(rng):
    """torch itself makes zeros of it: its custom functions switch forward mode off inside their rule."""
    x = torch.tensor(derivatives.well_conditioned(rng, 2, 2))
    with pytest.raises(UnsupportedError, match="jacrev"):
        torch.func.jacfwd(torch.func.jacfwd(lambda x: polar(x).u.sum()))(x)


def test_vmap_is_the_batch(rng):
    x = torch.tensor(derivatives.well_conditioned(rng, 5, 4, 2))
    mapped, batch = torch.vmap(polar)(x), polar(x, backend="array-api")
    torch.testing.assert_close(mapped[:2], batch[:2], rtol=0, atol=4e-15)
    assert mapped.info.converged.tolist() == [True] * 5


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_vmap_over_any_dimension(rng, dim):
    x = torch.tensor(derivatives.well_conditioned(rng, 5, 4, 2))
    mapped = torch.vmap(lambda x: polar(x).u, in_dims=dim, out_dims=dim)(x.movedim(0, dim))
    expected = torch.stack([polar(member).u for member in x])
    torch.testing.assert_close(mapped.movedim(dim, 0), expected, rtol=0, atol=4e-15)


@pytest.mark.parametrize("options", [*FINISHED.values(), *UNFINISHED.values()])
def test_vmap_of_options(rng, options):
    x = torch.tensor(derivatives.well_conditioned(rng, 3, 3, 3))
    mapped = torch.vmap(lambda x: polar(x, compute_h=False, **options).u)(x)
    loop = [polar(member, compute_h=False, backend="array-api", **options).u for member in x]
    torch.testing.assert_close(
        mapped, torch.stack(loop), rtol=0, atol=2 * options.get("tol", 1e-14)
    )


def test_nested_vmap_with_a_shared_argument(rng):
    x = torch.tensor(derivatives.well_conditioned(rng, 2, 3, 3, 2))
    shift = torch.tensor(rng.standard_normal((3, 2)))

    def factor(x, shift):
        return polar(x + 0.1 * shift).u

    mapped = torch.vmap(torch.vmap(factor, in_dims=(0, None)), in_dims=(1, None))(x, shift)
    expected = polar(x + 0.1 * shift).u.movedim(1, 0)
    torch.testing.assert_close(mapped, expected, rtol=0, atol=4e-15)


def test_vmap_over_gradients_and_gradients_over_vmap(rng):
    a = derivatives.well_conditioned(rng, 4, 3, 3)
    loss = derivatives.random_loss(rng, 3, 3)
    expected = np.stack([loss.gradient(member) for member in a])

    def scalar(x):
        return torch_loss(loss, x)

    assert_near(torch.vmap(torch.func.grad(scalar))(torch.tensor(a)), expected, 1e-13)
    over = torch.func.grad(lambda x: torch.vmap(scalar)(x).sum())(torch.tensor(a))
    assert_near(over, expected, 1e-13)
    x = tensor(a)
    torch.vmap(scalar)(x).sum().backward()
    assert_near(x.grad, expected, 1e-13)


def test_chain_rule_through_what_comes_before_and_after(rng):
    x = tensor(derivatives.well_conditioned(rng, 3, 2))

    def function(x):
        u, h, *_ = polar(torch.tanh(x) @ torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=x.dtype))
        return torch.linalg.inv(h) @ u.mT

    assert torch.autograd.gradcheck(function, x, **CHECK)


def test_backward_twice_and_accumulation(rng):
    a = derivatives.well_conditioned(rng, 3, 3)
    loss = derivatives.random_loss(rng, 3, 3)
    x = tensor(a)
    value = torch_loss(loss, x)
    value.backward(retain_graph=True)
    value.backward()
    assert_near(x.grad, 2 * loss.gradient(a), 1e-13)


def test_checkpointing_gives_the_same_gradient(rng):
    a = derivatives.well_conditioned(rng, 3, 3)
    loss = derivatives.random_loss(rng, 3, 3)
    x = tensor(a)
    run = torch.utils.checkpoint.checkpoint
    run(lambda x: torch_loss(loss, x), x, use_reentrant=False).backward()
    assert_near(x.grad, loss.gradient(a), 1e-13)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-6), ("complex64", 1e-6), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)],
)
def test_gradients_in_other_precisions(rng, dtype, tolerance, backend):
    kind = np.complex128 if dtype == "complex64" else np.float64
    dtype = getattr(torch, dtype)
    rounded = torch.tensor(derivatives.well_conditioned(rng, 4, 3, dtype=kind)).to(dtype)
    w = torch.tensor(derivatives.random_loss(rng, 4, 3, kind).w).to(dtype)
    x = rounded.clone().requires_grad_()
    (w.conj() * polar(x, backend=backend).u).real.sum().backward()
    assert x.grad.dtype == dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = derivatives.unitary_derivative(rounded.to(wide).numpy(), w.to(wide).numpy())
    assert_near(x.grad.to(wide), exact, tolerance)


def test_gradients_under_autocast(rng):
    """Mixed precision is for layers: a factorization keeps the precision of what it is given."""
    a = derivatives.well_conditioned(rng, 6, 4)
    loss = derivatives.random_loss(rng, 6, 4)
    x = tensor(a, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = torch_loss(loss, x)
    value.backward()
    assert_near(x.grad.double(), loss.gradient(a), 2e-6)


class Orthonormal(torch.nn.Module):
    """A parametrization: the weight is the unitary factor of what is trained."""

    def forward(self, x):
        return polar(x, compute_h=False).u


def rotation_to_find(rng):
    """Points, the same points turned, and the turning."""
    points = rng.standard_normal((20, 3))
    turning = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return torch.tensor(points), torch.tensor(points @ turning.T), torch.tensor(turning)


def test_an_orthonormal_layer_learns_a_rotation(rng):
    points, turned, turning = rotation_to_find(rng)
    layer = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(turning + torch.tensor(0.2 * rng.standard_normal((3, 3))))
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Orthonormal())
    layer = copy.deepcopy(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        ((layer(points) - turned) ** 2).mean().backward()
        optimizer.step()
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(layer.weight @ layer.weight.mT, eye, rtol=0, atol=1e-14)
    torch.testing.assert_close(layer.weight.detach(), turning, rtol=0, atol=1e-8)


class Orthogonalized(torch.optim.Optimizer):
    """Steepest descent in the spectral norm: each step is the unitary factor of the gradient."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(orthogonalize(parameter.grad, tol=0.1), alpha=group["lr"])


def test_an_optimizer_with_orthogonalized_steps_trains(rng, dtype):
    dtype = getattr(torch, dtype)
    inputs = torch.tensor(rng.standard_normal((64, 12)), dtype=dtype)
    targets = inputs @ torch.tensor(rng.standard_normal((12, 7)), dtype=dtype)
    weight = torch.nn.Parameter(torch.zeros(12, 7, dtype=dtype))
    optimizer = Orthogonalized([weight], lr=0.3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = ((inputs @ weight - targets) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-4 * losses[0]
