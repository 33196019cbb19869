"""JAX as it comes, without 64-bit types: the main paths stay in 32 bits and are as accurate as those allow."""

import jax
import jax.numpy as jnp
import numpy as np

from orthokern import explain, newton_schulz, orthogonalize, polar
from orthokern.testing.validation import available_backends

assert not jax.config.jax_enable_x64
EPS = 2.0**-23
rng = np.random.default_rng(3)
values = [
    np.linalg.qr(rng.standard_normal((5, 3)))[0] * [2.0, 1.5, 1.0] @ np.linalg.qr(square)[0]
    for square in rng.standard_normal((2, 3, 3))
]
x = jnp.asarray(np.stack(values))
assert x.dtype == jnp.float32


def reference(a):
    wide = np.complex128 if jnp.iscomplexobj(a) else np.float64
    p, s, qh = np.linalg.svd(np.asarray(a, dtype=wide), full_matrices=False)
    return p @ qh, (np.conj(np.swapaxes(qh, -1, -2)) * s[..., None, :]) @ qh


def near(computed, expected, tolerance=16 * EPS):
    assert computed.dtype.itemsize == 4 * (1 + jnp.iscomplexobj(computed)), computed.dtype
    np.testing.assert_allclose(computed, expected, rtol=0, atol=tolerance)


u, h = reference(x)
for backend in available_backends():
    with explain() as report:
        result = polar(x, backend=backend)
    assert {decision.backend for decision in report} == {backend}
    near(result.u, u)
    near(result.h, h)
for result in (jax.jit(polar)(x), jax.jit(jax.vmap(polar))(x)):
    near(result.u, u)
    near(result.h, h)
    assert result.info.residual.dtype == jnp.float32
    assert result.info.schedule.dtype == jnp.int32
    assert result.info.converged.all()

z = x + 1j * x[..., ::-1]
near(jax.jit(polar)(z).u, reference(z)[0])

near(jax.jit(lambda x: orthogonalize(x, method="dwh", lower_bound=0.3))(x), u)
loose = jax.jit(lambda x: orthogonalize(x, tol=0.1, lower_bound=0.3))(x)
assert np.abs(np.linalg.svd(loose, compute_uv=False) - 1).max() < 0.1
near(jax.jit(newton_schulz)(x), newton_schulz(np.asarray(x)))

weights = jnp.arange(9.0).reshape(3, 3)
gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * polar(x).u)))
near(gradient(jnp.eye(3)), [[0, -1, -2], [1, 0, -1], [2, 1, 0]])
hessian = jax.jit(jax.jacfwd(gradient))(jnp.eye(3)).reshape(9, 9)
near(hessian, np.asarray(hessian).T)
assert np.linalg.norm(hessian) > 1
