"""Derivatives under JAX: both modes, second order, with jit and vmap, at repeated and vanishing singular values."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from orthokern import UnsupportedError, explain, newton_schulz, orthogonalize, polar

from . import derivatives

jax = pytest.importorskip("jax")
jnp = jax.numpy
pytestmark = pytest.mark.usefixtures("jax_double_precision")

KINDS = {"real": np.float64, "complex": np.complex128}
SHAPES = {"square": (3, 3), "tall": (4, 2), "wide": (2, 4)}
FINISHED = {
    "auto": {},
    "svd": {"method": "svd"},
    "newton": {"method": "newton", "lower_bound": 0.3},
    "dwh": {"method": "dwh", "lower_bound": 0.3},
    "newton_schulz": {"method": "newton_schulz", "lower_bound": 0.5},
    "polar_express": {"method": "polar_express", "lower_bound": 0.4},
    "gram": {"method": "gram", "lower_bound": 0.4},
    "lower_bound": {"lower_bound": 0.3},
}
UNFINISHED = {
    "tol": {"tol": 0.1, "lower_bound": 0.3},
    "newton to 0.1": {"method": "newton", "tol": 0.1, "lower_bound": 0.1},
    "newton_schulz, 3 steps": {"method": "newton_schulz", "steps": 3},
    "polar_express, 3 steps": {"method": "polar_express", "steps": 3},
    "gram, 3 steps": {"method": "gram", "steps": 3},
}
DEFICIENT = [(3, 3, 2), (3, 3, 1), (4, 2, 1), (2, 4, 1), (4, 2, 0)]


def assert_near(computed, expected, tolerance):
    """Entries within ``tolerance`` of the largest one that is expected."""
    limit = tolerance * max(np.abs(expected).max(), 1e-300)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=limit)


def weighted(w, u):
    """``Re <w, U>``."""
    return jnp.sum((jnp.conj(w) * u).real)


def linear_loss(x, w, v, **options):
    """The loss of derivatives.py, of JAX arrays."""
    u, h, *_ = polar(x, **options)
    return weighted(w, u) + weighted(v, h)


def gradient_of(function):
    """JAX returns the conjugate of what torch and derivatives.py call the gradient."""
    return lambda x, *rest: jnp.conj(jax.grad(function)(x, *rest))


# One compilation for each shape.
jitted_gradient = jax.jit(gradient_of(linear_loss))
jitted_hessian = jax.jit(jax.hessian(linear_loss))


@pytest.mark.parametrize(
    ("kind", "gradient"),
    [
        ("real", gradient_of(linear_loss)),
        ("real", jitted_gradient),
        ("complex", jitted_gradient),
    ],
    ids=["real-eager", "real-jit", "complex-jit"],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(rng, shape, kind, gradient):
    a = derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind])
    loss = derivatives.random_loss(rng, *a.shape, KINDS[kind])
    assert_near(gradient(jnp.asarray(a), *loss), loss.gradient(a), 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_with_the_hermitian_factor_on_the_left(rng, shape, kind):
    a = derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind])
    turned = derivatives.adjoint(a)
    loss = derivatives.random_loss(rng, *turned.shape, KINDS[kind])
    gradient = gradient_of(functools.partial(linear_loss, side="left"))
    computed = gradient(jnp.asarray(a), derivatives.adjoint(loss.w), loss.v)
    assert_near(computed, derivatives.adjoint(loss.gradient(turned)), 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tangents(rng, shape, kind):
    a, d = derivatives.well_conditioned(rng, 2, *SHAPES[shape], dtype=KINDS[kind])
    _, (du, dh) = jax.jvp(lambda x: polar(x)[:2], (jnp.asarray(a),), (jnp.asarray(d),))
    assert_near(du, derivatives.unitary_derivative(a, d), 1e-13)
    assert_near(dh, derivatives.hermitian_derivative(a, d), 1e-13)


def test_cotangents_and_linearization(rng):
    a, d = derivatives.well_conditioned(rng, 2, 4, 2)
    result, pull = jax.vjp(polar, jnp.asarray(a))
    zeros = jax.tree.map(jnp.zeros_like, result)
    floats = jax.dtypes.float0
    cotangent = jax.tree.map(
        lambda z: z if jnp.issubdtype(z.dtype, jnp.floating) else np.zeros(z.shape, floats), zeros
    )
    (computed,) = pull(cotangent._replace(u=jnp.asarray(d)))
    assert_near(computed, derivatives.unitary_derivative(a, d), 1e-13)
    _, push = jax.linearize(lambda x: polar(x).u, jnp.asarray(a))
    assert_near(push(jnp.asarray(d)), derivatives.unitary_derivative(a, d), 1e-13)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_jacobians(rng, jacobian):
    a = derivatives.well_conditioned(rng, 4, 2)
    computed = jax.jit(jacobian(lambda x: polar(x).u))(jnp.asarray(a)).reshape(8, 8)
    columns = [derivatives.unitary_derivative(a, e).ravel() for e in np.eye(8).reshape(8, 4, 2)]
    assert_near(computed.T, np.array(columns), 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_factor_has_the_closed_gradient(rng, name, shape, kind):
    a = derivatives.well_conditioned(rng, *SHAPES[shape], dtype=KINDS[kind])
    w = derivatives.random_loss(rng, *a.shape, KINDS[kind]).w
    gradient = gradient_of(lambda x: weighted(w, orthogonalize(x, **FINISHED[name])))
    assert_near(gradient(jnp.asarray(a)), derivatives.unitary_derivative(a, w), 1e-13)


@pytest.mark.parametrize("name", ["newton", "dwh", "polar_express", "gram"])
def test_jitted_gradient_of_methods(rng, name):
    a = derivatives.well_conditioned(rng, 3, 3)
    w = rng.standard_normal((3, 3))
    gradient = jax.jit(jax.grad(lambda x: weighted(w, orthogonalize(x, **FINISHED[name]))))
    assert_near(gradient(jnp.asarray(a)), derivatives.unitary_derivative(a, w), 1e-13)


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_factor_has_the_gradient_of_its_steps(rng, name):
    a, d = derivatives.well_conditioned(rng, 2, 3, 3)
    w = rng.standard_normal(a.shape)

    def value(x):
        return weighted(w, orthogonalize(jnp.asarray(x), backend="array-api", **UNFINISHED[name]))

    expected = derivatives.central_difference(value, a, d, step=1e-5)
    slope = np.sum(jax.grad(value)(jnp.asarray(a)) * d)
    np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-7)


def test_eager_gradients_of_limited_accuracy(rng):
    """Eager code measures and may append steps; the values are concrete there, also inside ``grad``."""
    x, w = jnp.asarray(derivatives.well_conditioned(rng, 2, 3, 3))
    for options in ({"tol": 0.1}, {"tol": 1e-3, "method": "dwh"}):
        u, pull = jax.vjp(functools.partial(orthogonalize, **options), x)
        values = np.linalg.svd(u, compute_uv=False)
        assert np.abs(values - 1).max() <= options["tol"]
        assert np.isfinite(pull(w)[0]).all()


@pytest.mark.parametrize("normalization", ["frobenius", "schatten4", "spectral"])
def test_gradient_of_newton_schulz(rng, normalization):
    a, d = derivatives.well_conditioned(rng, 2, 4, 2)
    w = rng.standard_normal((4, 2))

    def value(x):
        x = jnp.asarray(x)
        return weighted(
            w, newton_schulz(x, steps=3, normalization=normalization, backend="array-api")
        )

    expected = derivatives.central_difference(value, a, d, step=1e-5)
    np.testing.assert_allclose(np.sum(jax.grad(value)(jnp.asarray(a)) * d), expected, rtol=1e-7)


@pytest.mark.parametrize("name", derivatives.REPEATED)
def test_repeated_values(rng, name):
    a = derivatives.REPEATED[name]
    loss = derivatives.random_loss(rng, *a.shape)
    assert_near(jitted_gradient(jnp.asarray(a), *loss), loss.gradient(a), 1e-13)
    hessian = jitted_hessian(jnp.asarray(a), *loss)
    assert_near(hessian.reshape(a.size, a.size), loss.hessian(a), 1e-9)


@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_second_order_in_every_order_of_modes(rng, inner, outer):
    a = derivatives.well_conditioned(rng, 3, 2)
    loss = derivatives.random_loss(rng, 3, 2)
    hessian = jax.jit(outer(inner(linear_loss)))(jnp.asarray(a), *loss)
    assert_near(hessian.reshape(6, 6), loss.hessian(a), 1e-9)


def test_hessian_product_of_a_complex_matrix(rng):
    """At a unitary matrix, where all singular values agree."""
    a = np.linalg.qr(derivatives.well_conditioned(rng, 3, 3, dtype=np.complex128))[0]
    d = derivatives.well_conditioned(rng, 3, 3, dtype=np.complex128)
    loss = derivatives.random_loss(rng, 3, 3, np.complex128)
    assert_near(jitted_gradient(jnp.asarray(a), *loss), loss.gradient(a), 1e-13)
    _, product = jax.jvp(lambda x: jitted_gradient(x, *loss), (jnp.asarray(a),), (jnp.asarray(d),))
    assert_near(product, derivatives.central_difference(loss.gradient, a, d), 1e-9)


def test_known_gradient_at_the_identity():
    weights = jnp.arange(9.0).reshape(3, 3)
    gradient = jax.grad(lambda x: jnp.sum(weights * polar(x).u))(jnp.eye(3))
    np.testing.assert_allclose(gradient, [[0, -1, -2], [1, 0, -1], [2, 1, 0]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "rank"), DEFICIENT)
def test_gradient_along_the_rank_of_a_deficient_matrix(rng, m, n, rank, kind):
    """Directions that leave the rank count as zero: there the canonical factor jumps."""
    a = derivatives.with_values(rng, m, n, np.linspace(1, 2, rank), dtype=KINDS[kind])
    w = derivatives.random_loss(rng, m, n, KINDS[kind]).w
    u, pull = jax.vjp(orthogonalize, jnp.asarray(a))
    assert_near(u, derivatives.unitary_factor(a, rank), 1e-14)
    computed = jnp.conj(pull(jnp.conj(jnp.asarray(w)))[0])
    assert_near(computed, derivatives.unitary_derivative(a, w, rank), 1e-13)


@pytest.mark.parametrize("completion", ["unitary", "partial"])
@pytest.mark.parametrize(("m", "n", "rank"), DEFICIENT)
def test_derivatives_of_a_deficient_matrix_are_finite(rng, m, n, rank, completion):
    a = jnp.asarray(derivatives.with_values(rng, m, n, np.linspace(1, 2, rank)))

    def value(x):
        u, h, *_ = polar(x, completion=completion)
        return jnp.sum(u**3) + jnp.sum(h**3)

    gradient, product = jax.jvp(jax.grad(value), (a,), (jnp.ones_like(a),))
    assert np.isfinite(gradient).all()
    assert np.isfinite(product).all()


@pytest.mark.parametrize("exponent", [-300, 300])
def test_gradients_of_matrices_of_any_scale(rng, exponent):
    a = derivatives.well_conditioned(rng, 2, 3, 3)
    w = rng.standard_normal(a.shape)
    scale = np.array([1.0, 10.0**exponent])[:, None, None]
    gradient = jax.grad(lambda x: jnp.sum(w * polar(x).u))(jnp.asarray(a * scale))
    expected = np.stack([derivatives.unitary_derivative(*pair) for pair in zip(a, w, strict=True)])
    assert_near(gradient * scale, expected, 1e-13)


def test_a_broken_member_leaves_the_gradients_of_the_others(rng):
    a = derivatives.well_conditioned(rng, 3, 3, 3)
    a[1, 0, 2] = np.nan
    loss = derivatives.random_loss(rng, 3, 3)
    gradient = jax.grad(linear_loss)(jnp.asarray(a), *loss)
    for k in (0, 2):
        assert_near(gradient[k], loss.gradient(a[k]), 1e-13)


def test_vmap_of_gradients_and_gradients_of_vmap(rng):
    a = derivatives.well_conditioned(rng, 4, 3, 2)
    loss = derivatives.random_loss(rng, 3, 2)
    expected = np.stack([loss.gradient(member) for member in a])
    mapped = jax.vmap(lambda x: jitted_gradient(x, *loss))
    assert_near(mapped(jnp.asarray(a)), expected, 1e-13)
    over = jax.grad(lambda x: jnp.sum(jax.vmap(lambda x: linear_loss(x, *loss))(x)))
    assert_near(jax.jit(over)(jnp.asarray(a)), expected, 1e-13)


def test_vmap_of_hessians(rng):
    a = derivatives.well_conditioned(rng, 2, 2, 2)
    loss = derivatives.random_loss(rng, 2, 2)
    computed = jax.vmap(lambda x: jitted_hessian(x, *loss))(jnp.asarray(a))
    for member, hessian in zip(a, computed, strict=True):
        assert_near(hessian.reshape(4, 4), loss.hessian(member), 1e-9)


def test_gradient_through_a_scan(rng):
    a, shift = derivatives.well_conditioned(rng, 2, 3, 3)

    def scanned(x):
        def advance(y, _):
            return polar(y + 0.1 * shift).u, None

        return jnp.sum(jnp.cos(jax.lax.scan(advance, x, None, length=3)[0]))

    def looped(x):
        for _ in range(3):
            x = derivatives.unitary_factor(x + 0.1 * shift)
        return np.sum(np.cos(x))

    slope = np.sum(jax.jit(jax.grad(scanned))(jnp.asarray(a)) * shift)
    expected = derivatives.central_difference(looped, a, shift)
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-10)


def test_rematerialized_gradient(rng):
    a = derivatives.well_conditioned(rng, 3, 3)
    loss = derivatives.random_loss(rng, 3, 3)
    computed = jax.grad(jax.checkpoint(linear_loss))(jnp.asarray(a), *loss)
    assert_near(computed, loss.gradient(a), 1e-13)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-6), ("complex64", 1e-6), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)],
)
def test_gradients_in_other_precisions(rng, dtype, tolerance):
    kind = np.complex128 if dtype == "complex64" else np.float64
    x = jnp.asarray(derivatives.well_conditioned(rng, 4, 3, dtype=kind), dtype=dtype)
    w = jnp.asarray(derivatives.random_loss(rng, 4, 3, kind).w, dtype=dtype)
    gradient = jax.jit(gradient_of(lambda x: weighted(w, polar(x).u)))(x)
    assert gradient.dtype == x.dtype
    exact = derivatives.unitary_derivative(np.asarray(x).astype(kind), np.asarray(w).astype(kind))
    assert_near(np.asarray(gradient).astype(kind), exact, tolerance)


def test_the_backend_runs_where_gradients_are_asked_for(rng, backend):
    """Eager ``grad`` shows concrete values to an op that has a rule."""
    a = derivatives.well_conditioned(rng, 3, 3)
    loss = derivatives.random_loss(rng, 3, 3)
    with explain() as report:
        u = jax.vjp(lambda x: orthogonalize(x, backend=backend), jnp.asarray(a))[0]
    assert {decision.backend for decision in report} == {backend}
    np.testing.assert_array_equal(u, orthogonalize(jnp.asarray(a), backend=backend))
    gradient = jax.grad(functools.partial(linear_loss, backend=backend))(jnp.asarray(a), *loss)
    assert_near(gradient, loss.gradient(a), 1e-13)


def test_check_finite_is_refused_inside_grad(rng):
    x = jnp.asarray(derivatives.well_conditioned(rng, 3, 3))
    with pytest.raises(UnsupportedError, match="pass check_finite=False"):
        jax.grad(lambda x: polar(x, check_finite=True).u.sum())(x)


def test_gradient_descent_finds_the_nearest_rotation(rng):
    """The unitary factor of what is trained turns the points onto their images."""
    turning = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    points = rng.standard_normal((20, 3))
    images = points @ turning.T

    @jax.jit
    def descend(x):
        return x - jax.grad(lambda x: jnp.mean((points @ polar(x).u.T - images) ** 2))(x)

    x = jnp.asarray(turning + 0.2 * rng.standard_normal((3, 3)))
    for _ in range(200):
        x = descend(x)
    np.testing.assert_allclose(polar(x).u, turning, rtol=0, atol=1e-8)
