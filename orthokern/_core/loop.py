"""One while-loop for every library: eager, under ``jax.jit``, under torch.compile, on Dask graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .namespace import compiling, device, is_lazy, is_traced, library, namespace

State = tuple[Any, ...]


def iterate(
    step: Callable[[State], State], state: State, *, done: Callable[[State], Any], max_steps: int
) -> tuple[State, Any]:
    """Apply ``step`` until ``done(state)`` holds, at most ``max_steps`` times; returns (state, steps taken).

    ``state`` is a tuple of arrays of one library and ``done`` returns a 0-d boolean array. Under ``jax.jit``
    this is ``lax.while_loop``, which has no reverse mode: an op that uses it needs a tangent rule.
    """
    lead = state[0]
    if library(lead) == "jax" and any(map(is_traced, state)):
        return _jax(step, state, done, max_steps)
    if compiling():
        return _frozen(step, state, done, max_steps)
    for count in range(max_steps):
        if bool(done(state)):
            return state, count
        state = tuple(a.persist() for a in step(state)) if is_lazy(lead) else step(state)
    return state, max_steps


def repeat(step: Callable[[State], State], state: State, *, count: int) -> State:
    """Apply ``step`` exactly ``count`` times; differentiable in either mode, one loop under ``jax.jit``."""
    if library(state[0]) == "jax" and any(map(is_traced, state)):
        loop = sys.modules["jax"].lax.fori_loop
        return tuple(loop(0, count, lambda _, carry: step(carry), state))
    for _ in range(count):
        state = step(state)
    return state


def _jax(step: Any, state: State, done: Any, max_steps: int) -> tuple[State, Any]:
    def unfinished(carry: tuple[Any, State]) -> Any:
        return (carry[0] < max_steps) & ~done(carry[1])

    def advance(carry: tuple[Any, State]) -> tuple[Any, State]:
        return carry[0] + 1, step(carry[1])

    count, state = sys.modules["jax"].lax.while_loop(unfinished, advance, (0, state))
    return state, count


def _frozen(step: Any, state: State, done: Any, max_steps: int) -> tuple[State, Any]:
    """Fixed length, each state kept once it is done: one graph, no wait for the device."""
    xp = namespace(state[0])
    count = xp.zeros((), dtype=xp.int64, device=device(state[0]))
    for _ in range(max_steps):
        stop = done(state)
        state = tuple(xp.where(stop, old, new) for old, new in zip(state, step(state), strict=True))
        count = count + xp.where(stop, 0, 1)
    return state, count
