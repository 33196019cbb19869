"""Arrays spread over four devices: the answers are those of one device, jitted, eager, and differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from orthokern import newton_schulz, orthogonalize, polar

assert jax.device_count() == 4
rng = np.random.default_rng(5)
tall = np.linalg.qr(rng.standard_normal((16, 4)))[0] * [1.0, 1.2, 1.5, 2.0]
tall = tall @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

ARRAYS = {
    "rows": (tall, PartitionSpec("d", None)),
    "columns": (tall.T, PartitionSpec(None, "d")),
    "batch": (np.stack([tall, 2 * tall, -tall, tall[::-1]]), PartitionSpec("d", None, None)),
}
FUNCTIONS = {
    "polar": lambda x: polar(x)[:2],
    "tol": lambda x: orthogonalize(x, tol=0.1, lower_bound=0.3),
    "newton_schulz": newton_schulz,
    "gradient": jax.grad(lambda x: jnp.sum(jnp.cos(polar(x).u))),
}

for name, (array, spec) in ARRAYS.items():
    spread = jax.device_put(array, NamedSharding(mesh, spec))
    for call, function in FUNCTIONS.items():
        expected = jax.tree.leaves(jax.jit(function)(jnp.asarray(array)))
        runs = {"jit": jax.jit(function)} | ({"eager": function} if call == "polar" else {})
        for how, run in runs.items():
            computed = jax.tree.leaves(run(spread))
            for part, other in zip(computed, expected, strict=True):
                # Sums over devices come in another order.
                np.testing.assert_allclose(
                    part, other, rtol=0, atol=1e-13, err_msg=f"{name} {call} {how}"
                )

rows = jax.device_put(tall, NamedSharding(mesh, PartitionSpec("d", None)))
assert jax.jit(newton_schulz)(rows).sharding.is_equivalent_to(rows.sharding, 2)
