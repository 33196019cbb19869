"""JAX arrays: eager on backends, jitted, mapped, inside control flow, spread over devices; what is refused there."""

from __future__ import annotations

import functools
import pickle
import re

import numpy as np
import pytest

from orthokern import (
    BackendError,
    DTypeError,
    UnsupportedError,
    explain,
    fwht,
    lstsq,
    newton_schulz,
    orthogonalize,
    polar,
    use_backend,
)
from orthokern._core import scaling

from . import derivatives

jax = pytest.importorskip("jax")
jnp = jax.numpy
pytestmark = pytest.mark.usefixtures("jax_double_precision")

EPS = {
    "float64": 2.0**-52,
    "complex128": 2.0**-52,
    "float32": 2.0**-23,
    "complex64": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
OPTIONS = {
    "polar": polar,
    "left": functools.partial(polar, side="left"),
    "no h": functools.partial(polar, compute_h=False),
    "partial": functools.partial(polar, completion="partial", rcond=1e-6),
    "svd": functools.partial(polar, method="svd"),
    "newton": functools.partial(polar, method="newton", lower_bound=0.3),
    "dwh": functools.partial(polar, method="dwh", lower_bound=0.3),
    "newton_schulz, full": functools.partial(polar, method="newton_schulz", lower_bound=0.5),
    "polar_express": functools.partial(polar, method="polar_express", lower_bound=0.3),
    "gram": functools.partial(polar, method="gram", lower_bound=0.3),
    "orthogonalize": orthogonalize,
    "tol": functools.partial(orthogonalize, tol=0.1, lower_bound=0.3),
    "steps": functools.partial(orthogonalize, steps=3),
    "coefficients": functools.partial(orthogonalize, coefficients=[(3.0, -3.2, 1.2), (1.5, -0.5)]),
    "newton_schulz": newton_schulz,
    "newton_schulz, spectral": functools.partial(newton_schulz, normalization="spectral"),
}
# Those that end with measured, appended steps in eager code and one fixed step under tracing.
CLOSED = {"tol": 0.2}


def matrices(rng, *shape, dtype="float64"):
    kind = np.complex128 if dtype.startswith("complex") else np.float64
    return jnp.asarray(derivatives.well_conditioned(rng, *shape, dtype=kind), dtype=dtype)


def factor_of(x):
    return polar(x).u


def assert_same(computed, expected, tolerance):
    """Results of kernels alike in structure, dtypes and numbers."""
    assert jax.tree.structure(computed) == jax.tree.structure(expected)
    for part, other in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
        assert part.dtype == other.dtype
        np.testing.assert_allclose(part, other, rtol=0, atol=tolerance)


def precisions(function, *arguments):
    """Those of every product in the program that is made of ``function``."""
    return set(
        re.findall(r"precision=([^\n]*HIGHEST|None|\S+)", str(jax.make_jaxpr(function)(*arguments)))
    )


def test_products_are_asked_for_in_the_precision_of_their_numbers(rng):
    """Accelerators make them of three digits by default, also those of a derivative that is asked for later."""
    x = matrices(rng, 8, 5, dtype="float32")
    b = x[:, 0]
    compiled = jax.jit(lambda x: jnp.sum(orthogonalize(x, tol=0.1, lower_bound=0.3)))
    calls = {
        "polar": (functools.partial(polar, compute_h=True), x),
        "orthogonalize": (functools.partial(orthogonalize, tol=0.1, lower_bound=0.3), x),
        "gradient": (jax.grad(compiled), x),
        "second": (jax.hessian(lambda t: compiled(t * x)), jnp.float32(1)),
        "lstsq": (lambda x: lstsq(x, b).x, x),
        "fwht": (lambda x: fwht(x, normalized=True), jnp.concatenate([x, x])),
    }
    for name, (function, argument) in calls.items():
        found = precisions(function, argument)
        assert found, name
        assert all("HIGHEST" in precision for precision in found), name
    with jax.default_matmul_precision("tensorfloat32"):
        assert not any("HIGHEST" in name for name in precisions(factor_of, x))


@pytest.mark.parametrize(("dtype", "end"), [("float64", 1000), ("float32", 120)])
def test_balancing_powers_are_exact(dtype, end):
    """As bits: a power function is off by some units in the last place on accelerators."""
    bounds = np.array([1.0, 0.5, 3.0, 2.0**-end, 0.9 * 2.0**end, 0.0, np.inf], dtype)
    ours = scaling.balancing_powers(jnp.asarray(bounds))
    for found, expected in zip(ours, scaling.balancing_powers(bounds), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "pow" not in str(jax.make_jaxpr(scaling.balancing_powers)(jnp.asarray(bounds)))


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3, 2)])
def test_factors_in_every_dtype(rng, dtype, shape, backend):
    x = matrices(rng, *shape, dtype=dtype)
    result = polar(x, backend=backend)
    assert result.u.dtype == result.h.dtype == x.dtype
    assert result.u.devices() == x.devices()
    wide = np.asarray(x).astype(np.complex128 if jnp.iscomplexobj(x) else np.float64)
    members = wide.reshape(-1, *shape[-2:])
    expected_u = [derivatives.unitary_factor(a) for a in members]
    expected_h = [derivatives.hermitian_factor(a) for a in members]
    for part, members in ((result.u, expected_u), (result.h, expected_h)):
        computed = np.asarray(part).astype(wide.dtype)
        expected = np.reshape(members, computed.shape)
        np.testing.assert_allclose(computed, expected, rtol=0, atol=16 * EPS[dtype])


def test_eager_arrays_run_on_the_backend(rng, backend):
    x = matrices(rng, 2, 6, 4)
    with explain() as report:
        polar(x, backend=backend)
    assert {(d.backend, d.library, d.device) for d in report} == {(backend, "jax", "cpu")}


@pytest.mark.parametrize("name", OPTIONS)
def test_jit_of_every_option(rng, name):
    x = matrices(rng, 4, 3)
    jitted = jax.jit(OPTIONS[name])(x)
    with use_backend("array-api"):
        eager = OPTIONS[name](x)
    if isinstance(eager, tuple):
        jitted, eager = jitted[:2], eager[:2]
    assert_same(jitted, eager, CLOSED.get(name, 4e-15))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (2, 4, 2)])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32", "bfloat16"])
def test_jit_of_shapes_and_kinds(rng, shape, dtype):
    x = matrices(rng, *shape, dtype=dtype)
    result, expected = jax.jit(polar)(x), polar(x)
    assert_same(result[:2], expected[:2], 16 * EPS[dtype])
    assert result.info.converged.all()


def test_jit_is_recorded_once_when_it_is_traced(rng):
    x = matrices(rng, 3, 2)
    jitted = jax.jit(factor_of)
    with explain() as report:
        jitted(x)
    assert {d.backend for d in report} == {"array-api (traced)"}
    with explain() as report:
        jitted(x)
    assert list(report) == []


def test_options_as_static_arguments(rng):
    x = matrices(rng, 4, 2)
    jitted = jax.jit(polar, static_argnames=("side", "compute_h"))
    assert_same(jitted(x, side="left")[:2], polar(x, side="left")[:2], 4e-15)
    assert jitted(x, compute_h=False).h.shape == (0, 0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_vmap_over_any_axis(rng, axis):
    x = matrices(rng, 5, 4, 2)
    mapped = jax.vmap(factor_of, in_axes=axis, out_axes=axis)(jnp.moveaxis(x, 0, axis))
    np.testing.assert_allclose(jnp.moveaxis(mapped, axis, 0), polar(x).u, rtol=0, atol=4e-15)


def test_vmap_of_results_nested_and_jitted(rng):
    x = matrices(rng, 2, 3, 4, 2)
    mapped = jax.jit(jax.vmap(jax.vmap(polar)))(x)
    assert_same(mapped[:2], polar(x)[:2], 4e-15)
    assert mapped.info.converged.shape == (2, 3)


@pytest.mark.parametrize("name", ["tol", "newton", "steps", "newton_schulz"])
def test_vmap_of_options(rng, name):
    x = matrices(rng, 3, 4, 3)
    mapped = jax.tree.leaves(jax.vmap(OPTIONS[name])(x))[0]
    for part, member in zip(mapped, x, strict=True):
        expected = jax.tree.leaves(OPTIONS[name](member))[0]
        np.testing.assert_allclose(part, expected, rtol=0, atol=CLOSED.get(name, 1e-14))


def test_scan(rng):
    x = matrices(rng, 4, 3)

    def advance(y, _):
        u = polar(y + 0.1 * x).u
        return u, jnp.sum(u)

    last, sums = jax.lax.scan(advance, x, None, length=4)
    y, expected = x, []
    for _ in range(4):
        y = polar(y + 0.1 * x).u
        expected.append(jnp.sum(y))
    np.testing.assert_allclose(last, y, rtol=0, atol=1e-14)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-13)


def test_branches_and_loops(rng):
    x = matrices(rng, 3, 3)
    chosen = jax.jit(lambda flag, x: jax.lax.cond(flag, factor_of, jnp.negative, x))
    np.testing.assert_allclose(chosen(True, x), polar(x).u, rtol=0, atol=4e-15)
    looped = jax.lax.fori_loop(0, 3, lambda _, y: polar(2 * y).u, x)
    np.testing.assert_allclose(looped, polar(x).u, rtol=0, atol=4e-15)


def test_donated_input(rng):
    x = matrices(rng, 4, 4)
    expected = polar(x).u
    given = x + 0
    computed = jax.jit(factor_of, donate_argnums=0)(given)
    assert given.is_deleted()
    np.testing.assert_allclose(computed, expected, rtol=0, atol=4e-15)


def test_shapes_without_values():
    abstract = jax.eval_shape(polar, jax.ShapeDtypeStruct((2, 7, 3), jnp.bfloat16))
    assert (abstract.u.shape, abstract.u.dtype) == ((2, 7, 3), jnp.bfloat16)
    assert (abstract.h.shape, abstract.h.dtype) == ((2, 3, 3), jnp.bfloat16)
    assert abstract.info.residual.dtype == jnp.float32


def test_ahead_of_time_compilation_and_stored_results(rng):
    x = matrices(rng, 4, 2)
    result = jax.jit(polar).lower(x).compile()(x)
    stored = pickle.loads(pickle.dumps(result))
    assert type(stored) is type(result)
    assert_same(stored, result, 0.0)


@pytest.mark.parametrize("name", ["polar", "tol", "newton", "newton_schulz"])
@pytest.mark.parametrize("how", ["default", "array-api", "jit"])
def test_nan_hunting_finds_nothing(rng, name, how):
    x = matrices(rng, 4, 3)

    def run(x):
        return jax.tree.leaves(OPTIONS[name](x))[0]

    with jax.debug_nans(True), use_backend("array-api" if how == "array-api" else None):
        jax.block_until_ready((jax.jit(run) if how == "jit" else run)(x))


@pytest.mark.parametrize("how", ["backend", "array-api", "jit"])
def test_broken_members_stay_alone(rng, how):
    x = matrices(rng, 3, 5, 5)
    run = {
        "backend": polar,
        "array-api": functools.partial(polar, backend="array-api"),
        "jit": jax.jit(polar),
    }[how]
    result = run(x.at[1, 2, 3].set(jnp.nan))
    expected = run(x.at[1].set(jnp.eye(5)))
    for part, other in zip(result[:2], expected[:2], strict=True):
        assert jnp.isnan(part[1]).all()
        np.testing.assert_array_equal(part[jnp.array([0, 2])], other[jnp.array([0, 2])])
    assert result.info.converged.tolist() == [True, False, True]


def test_zero_gradients_stay_zero():
    for run in (orthogonalize, jax.jit(orthogonalize), jax.jit(newton_schulz)):
        assert not run(jnp.zeros((4, 3))).any()


def test_check_finite(rng):
    x = matrices(rng, 3, 3)
    assert_same(polar(x, check_finite=True), polar(x), 0.0)
    with pytest.raises(ValueError, match="finite values in x"):
        polar(x.at[0, 0].set(jnp.inf), check_finite=True)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_check_finite_is_refused_where_values_are_unknown(rng, transform):
    with pytest.raises(UnsupportedError, match="pass check_finite=False"):
        transform(lambda x: polar(x, check_finite=True).u)(matrices(rng, 2, 3, 3))


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_a_named_backend_is_refused_where_values_are_unknown(rng, transform, named_backend):
    x = matrices(rng, 2, 3, 3)
    refusal = rf"backend '{named_backend}' refused \w+: abstract arrays"
    with pytest.raises(BackendError, match=refusal):
        transform(lambda x: polar(x, backend=named_backend).u)(x)
    with use_backend(named_backend), pytest.raises(BackendError, match=refusal):
        transform(lambda x: polar(x).u)(x)


def test_a_traced_option_is_refused(rng):
    with pytest.raises(ValueError, match="tol to be a number"):
        jax.jit(lambda x, tol: orthogonalize(x, tol=tol))(matrices(rng, 3, 3), 0.1)


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8", "float8_e4m3fn"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DTypeError, match=f"got {dtype}; cast to a floating dtype first"):
        polar(jnp.ones((3, 3), dtype=dtype))
    with pytest.raises(DTypeError, match="cast to a floating dtype first"):
        jax.jit(polar)(jnp.ones((3, 3), dtype=dtype))


@pytest.mark.slow
def test_without_64_bit_types(assert_script_passes):
    assert_script_passes("jax_single_precision.py", JAX_ENABLE_X64="0")


@pytest.mark.slow
def test_arrays_over_several_devices(assert_script_passes):
    flags = "--xla_force_host_platform_device_count=4"
    assert_script_passes("jax_sharded.py", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
