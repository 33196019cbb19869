"""One loop on every library: eager, jitted, mapped, compiled, on graphs."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern._core.loop import iterate
from orthokern._core.namespace import namespace
from orthokern.testing import libraries

LIMIT = 1e-5


def heron(state):
    """One step to the square root of the first array; the second is the root so far, the third counts."""
    x, root, count = state
    return x, (root + x / root) / 2, count + 1


def close(state):
    x, root, _ = state
    return namespace(x).max(namespace(x).abs(root * root - x)) < LIMIT * namespace(x).max(x)


def roots(x, max_steps=50):
    one = 0 * x + 1
    return iterate(heron, (x, one, 0 * x[0]), done=close, max_steps=max_steps)


def steps_of(values, max_steps=50):
    """The same iteration in Python's numbers: the roots and how many steps were taken."""
    found = [1.0] * len(values)
    for count in range(max_steps):
        worst = max(abs(r * r - v) for r, v in zip(found, values, strict=True))
        if worst < LIMIT * max(values):
            return found, count
        found = [(r + v / r) / 2 for r, v in zip(found, values, strict=True)]
    return found, max_steps


def every(condition):
    return namespace(condition).all(condition)


VALUES = [[1.0, 1.0], [4.0, 1.0], [2.0, 1000.0], [1e6, 2.0**-7]]


def assert_answer(found, values, max_steps=50):
    (x, root, taken), count = found
    expected, steps = steps_of(values, max_steps)
    assert int(count) == steps
    assert float(libraries.to_numpy(taken)) == steps
    np.testing.assert_allclose(libraries.to_numpy(root), expected, rtol=4 * 2**-23)
    np.testing.assert_array_equal(libraries.to_numpy(x), values)


def array(values, library):
    return libraries.to_library(np.array(values, dtype=np.float32), library)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("max_steps", [50, 3, 1])
def test_eager(library, values, max_steps):
    x = array(values, library)
    found = roots(x, max_steps)
    assert all(type(part) is type(x) for part in found[0][:2])
    assert_answer(found, values, max_steps)


def test_no_steps_leave_the_state_as_it_is(library):
    x = array([4.0, 9.0], library)
    state = (x, x + 1, x[0])
    found, count = iterate(heron, state, done=close, max_steps=0)
    assert int(count) == 0
    assert found is state


def test_a_state_that_is_done_is_not_stepped(library):
    def step(state):
        raise AssertionError

    x = array([4.0, 9.0], library)
    state = (x,)
    found, count = iterate(step, state, done=lambda s: every(s[0] > 0), max_steps=9)
    assert int(count) == 0
    assert found is state


def test_the_state_is_asked_before_each_step_and_no_oftener(library):
    asked = []

    def done(state):
        asked.append(1)
        return every(state[0] > 2)

    x = array([0.0], library)
    (found,), count = iterate(lambda state: (state[0] + 1,), (x,), done=done, max_steps=10)
    assert libraries.to_numpy(found).tolist() == [3]
    assert int(count) == 3
    assert len(asked) == 4


def test_a_state_that_is_never_done_stops_at_the_limit(library):
    x = array([1.0], library)
    (found,), count = iterate(
        lambda state: (2 * state[0],), (x,), done=lambda state: every(state[0] < 0), max_steps=7
    )
    assert libraries.to_numpy(found).tolist() == [128]
    assert int(count) == 7


def test_nan_does_not_hang(library):
    x = array([np.nan, 4.0], library)
    (_, root, _), count = roots(x, max_steps=6)
    assert int(count) == 6
    assert np.isnan(libraries.to_numpy(root)[0])


def test_dask_computes_each_step_once():
    dask = pytest.importorskip("dask.array")
    computed = []

    def counted(block):
        if block.size:
            computed.append(1)
        return block + 1

    def step(state):
        return (state[0].map_blocks(counted, dtype=state[0].dtype, meta=np.zeros(0)),)

    x = dask.from_array(np.zeros(4), chunks=-1)
    (found,), count = iterate(step, (x,), done=lambda s: every(s[0] > 5), max_steps=50)
    assert int(count) == 6
    assert found.compute().tolist() == [6, 6, 6, 6]
    assert len(computed) == 6


# Traced


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("max_steps", [50, 3, 0])
def test_under_jit(jax, values, max_steps):
    found = jax.jit(roots, static_argnames="max_steps")(array(values, "jax"), max_steps=max_steps)
    assert_answer(found, values, max_steps)


def test_under_jit_the_loop_is_not_unrolled(jax):
    text = str(jax.make_jaxpr(roots)(array([4.0, 9.0], "jax")))
    assert text.count("while[") == 1


def test_jit_traces_one_of_several_parts(jax):
    fixed = array([4.0, 9.0], "jax")

    def root(start):
        return iterate(heron, (fixed, start, 0 * start[0]), done=close, max_steps=50)

    assert_answer(jax.jit(root)(array([1.0, 1.0], "jax")), [4.0, 9.0])


def test_under_vmap(jax):
    (_, root, taken), count = jax.vmap(roots)(array(VALUES, "jax"))
    for i, values in enumerate(VALUES):
        expected, steps = steps_of(values)
        assert int(count[i]) == steps
        assert float(taken[i]) == steps
        np.testing.assert_allclose(root[i], expected, rtol=4 * 2**-23)


def test_derivatives_forwards(jax):
    x = array([4.0, 9.0], "jax")
    tangent = jax.jvp(lambda x: roots(x)[0][1], (x,), (0 * x + 1,))[1]
    np.testing.assert_allclose(tangent, [1 / 4, 1 / 6], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "aot_eager"])
@pytest.mark.parametrize("max_steps", [25, 3, 0])
def test_under_torch_compile(torch, engine, max_steps):
    compiled = torch.compile(roots, backend=engine, fullgraph=True)
    for values in VALUES[:2]:
        assert_answer(compiled(array(values, "torch"), max_steps), values, max_steps)


def test_eager_torch_and_compiled_torch_agree(torch):
    compiled = torch.compile(lambda x: roots(x, 20), backend="eager", fullgraph=True)
    for values in VALUES:
        x = array(values, "torch")
        (_, root, _), count = compiled(x)
        (_, expected, _), steps = roots(x, 20)
        assert torch.equal(root, expected)
        assert int(count) == steps


def test_compiled_code_keeps_a_finished_state_finite(torch):
    # After the state is done the steps still run; what they make of it must not reach the result.
    def step(state):
        x = state[0]
        return (torch.where(x > 2, torch.nan * x, x + 1),)

    def run(x):
        return iterate(step, (x,), done=lambda state: every(state[0] > 2), max_steps=9)

    (found,), count = torch.compile(run, backend="eager", fullgraph=True)(torch.zeros(2))
    assert found.tolist() == [3, 3]
    assert int(count) == 3
