"""One tangent rule per op; every autodiff engine derives the rest from it.

JAX gets it as a ``custom_jvp``, which it transposes itself; torch as an ``autograd.Function`` whose backward
is the transpose of the rule (see _torch.py).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from .dtypes import is_computed_in
from .namespace import compiling, device_kind, is_traced, library

if TYPE_CHECKING:
    from .dispatch import Op


def call(op: Op, arrays: tuple[Any, ...], static: dict[str, Any]) -> Any:
    """Run ``op`` so that derivatives asked of its result follow its rule."""
    name = library(arrays[0])
    if name == "torch":
        from . import _torch

        return _torch.call(op, arrays, static)
    if name != "jax":
        return op.run(arrays, static)
    with full_precision(arrays[0]):
        if any(map(is_traced, arrays)) and op.rule(static) is not None:
            return _jax_function(op, tuple(sorted(static.items())))(*arrays)
        return op.run(arrays, static)


@functools.cache
def _jax_function(op: Op, static: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    options = dict(static)
    rule = op.jvp
    assert rule is not None
    function = sys.modules["jax"].custom_jvp(lambda *arrays: op.run(arrays, options))

    def tangent(primals: Any, tangents: Any) -> Any:
        # Of a compiled function JAX asks for this when the kernel has long returned.
        with full_precision(primals[0]):
            out = function(*primals)
            return out, rule(primals, tangents, out, **options)

    function.defjvp(tangent)
    return function  # type: ignore[no-any-return]


def full_precision(x: Any) -> AbstractContextManager[Any]:
    """A block in which products of float32 are those: no torch.autocast, no TF32 or bfloat16 in JAX by default.

    A default that the user has chosen in JAX (``jax_default_matmul_precision``) stays.
    """
    name = library(x)
    if name == "torch":
        from . import _torch

        return _torch.full_precision(x)
    if name == "jax" and device_kind(x) != "cpu":
        jax = sys.modules["jax"]
        if jax.config.jax_default_matmul_precision is None:
            return jax.default_matmul_precision("highest")  # type: ignore[no-any-return]
    return nullcontext()


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as torch.compile leaves it alone, where it compiles the code around it."""
    if "torch" not in sys.modules:
        return function
    from . import _torch

    return _torch.uncompiled(function)


def is_plain(x: Any) -> bool:
    """Whether ``x`` is concrete and nobody asks for derivatives of what is computed from it."""
    if compiling():
        return False
    if library(x) == "torch":
        from . import _torch

        return _torch.is_plain(x) and not _torch.wants_derivative((x,)) and is_computed_in(x)
    return not is_traced(x) and is_computed_in(x)


def constant(x: Any) -> Any:
    """``x`` with its derivative cut off: what a rule holds fixed, and what diagnostics are made of."""
    name = library(x)
    if name == "torch":
        return x.detach()
    if name == "jax":
        return sys.modules["jax"].lax.stop_gradient(x)
    return x
