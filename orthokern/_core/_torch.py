"""What torch alone needs: autograd functions made of a tangent rule, tests for tracing, NumPy views.

Imported only after a torch array has arrived. torch.compile can neither trace a class statement nor a Function
that defines ``jvp``: hence two generic module-level classes, one for eager code and one for compiled code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .dispatch import Op

Rule = Callable[..., Any]


# torch says only in private what a tensor is; pyright does not know the module.
_is_wrapped: Callable[[Any], bool] = torch._C._functorch.is_functorch_wrapped_tensor  # type: ignore[attr-defined,unused-ignore] # pyright: ignore[reportAttributeAccessIssue]


def is_traced(x: Any) -> bool:
    """Whether ``x`` is abstract: seen by torch.compile, wrapped by a torch.func transform, without data (meta)."""
    return torch.compiler.is_compiling() or _is_wrapped(x) or bool(x.is_meta)


def is_dense(x: Any) -> bool:
    """Whether ``x`` has all its entries in memory, with strides."""
    return x.layout is torch.strided


def is_plain(x: Any) -> bool:
    """Whether ``x`` is an ordinary dense tensor (no DTensor, fake or sparse one)."""
    return type(x) in (torch.Tensor, torch.nn.Parameter) and is_dense(x) and not x.is_meta


def full_precision(x: Any) -> AbstractContextManager[Any]:
    """A block without autocast on the device of ``x``."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


@functools.cache
def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with compilation off inside."""
    return torch.compiler.disable(function)  # type: ignore[no-any-return]


def host_view(x: Any) -> Any:
    """NumPy view of a CPU tensor; conjugate and negative bits are resolved by a copy."""
    return x.detach().resolve_conj().resolve_neg().numpy()


def wants_derivative(arrays: tuple[Any, ...]) -> bool:
    """Whether a derivative of a result of ``arrays`` may be asked for, in any mode."""
    if torch.is_grad_enabled() and any(a.requires_grad for a in arrays):
        return True
    forward = torch.autograd.forward_ad
    if forward._current_level >= 0 and any(
        forward.unpack_dual(a).tangent is not None for a in arrays
    ):
        return True
    return any(_is_wrapped(a) for a in arrays)


def call(op: Op, arrays: tuple[Any, ...], static: dict[str, Any]) -> Any:
    """Run ``op`` on tensors, through its rule when a derivative or a torch.func transform is active."""
    if torch.compiler.is_compiling():
        rule = op.rule(static)
        if rule is None or not any(a.requires_grad for a in arrays):
            return op.body(*arrays, **static)
        return Compiled.apply(op.body, rule, static, *arrays)
    if not wants_derivative(arrays):
        return op.run(arrays, static)
    _refuse_nested_forward_mode()
    if op.rule(static) is None:
        return op.run_body(
            arrays, static, "the arrays carry derivatives and this op has no derivative rule"
        )
    from .dispatch import current_choice

    return Eager.apply(op, current_choice(), static, *arrays)


def _refuse_nested_forward_mode() -> None:
    """Refuse forward mode over forward mode, in which torch loses the tangents of any autograd function."""
    levels = torch._C._functorch.get_interpreter_stack() or ()  # type: ignore[attr-defined,unused-ignore] # pyright: ignore[reportAttributeAccessIssue]
    forward = [level for level in levels if "Jvp" in str(level.key())]
    if len(forward) > 1:
        message = (
            "torch loses the tangents of autograd functions in nested forward mode (jvp of jvp, jacfwd of jacfwd); "
            "use torch.func.jacfwd(torch.func.jacrev(f)) or torch.func.hessian"
        )
        raise UnsupportedError(message)


def _tuple(out: Any) -> tuple[Any, ...]:
    return out if isinstance(out, tuple) else (out,)


def _transposed(
    rule: Rule, arrays: tuple[Any, ...], out: Any, static: dict[str, Any], cotangents: Any
) -> Any:
    zeros = [torch.zeros_like(a) for a in arrays]
    transpose = torch.func.vjp(lambda *tangents: rule(arrays, tangents, out, **static), *zeros)[1]
    return transpose(cotangents)


class Compiled(torch.autograd.Function):
    """The op inside torch.compile: body forward, transposed rule backward."""

    @staticmethod
    def forward(ctx: Any, body: Rule, rule: Rule, static: dict[str, Any], *arrays: Any) -> Any:
        """Body."""
        out = body(*arrays, **static)
        ctx.rule, ctx.static, ctx.count, ctx.single = (
            rule,
            static,
            len(arrays),
            not isinstance(out, tuple),
        )
        ctx.save_for_backward(*arrays, *_tuple(out))
        return out

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Transpose of the rule."""
        arrays, out = _saved(ctx)
        given = cotangents[0] if ctx.single else cotangents
        return (None, None, None, *_transposed(ctx.rule, arrays, out, ctx.static, given))


def _saved(ctx: Any) -> tuple[tuple[Any, ...], Any]:
    saved = ctx.saved_tensors
    out = saved[ctx.count :]
    return tuple(saved[: ctx.count]), out[0] if ctx.single else tuple(out)


class Eager(torch.autograd.Function):
    """The op in eager code: reverse mode, forward mode, torch.func transforms."""

    @staticmethod
    def forward(op: Op, choice: str | None, static: dict[str, Any], *arrays: Any) -> Any:
        """Run the op on the backend that was in force at the call."""
        return op.run(arrays, static)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep arrays, results and the backend's name for the derivatives."""
        ctx.op, ctx.choice, ctx.static, *arrays = inputs
        ctx.count, ctx.single = len(arrays), not isinstance(output, tuple)
        ctx.save_for_backward(*arrays, *_tuple(output))
        ctx.save_for_forward(*arrays, *_tuple(output))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Transpose of the rule, on the backend of the forward pass."""
        from .dispatch import use_backend

        arrays, out = _saved(ctx)
        given = cotangents[0] if ctx.single else cotangents
        with use_backend(ctx.choice):
            return (None, None, None, *_transposed(ctx.op.jvp, arrays, out, ctx.static, given))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """The rule itself."""
        arrays, out = _saved(ctx)
        known = [
            torch.zeros_like(a) if t is None else t
            for a, t in zip(arrays, tangents[3:], strict=True)
        ]
        return ctx.op.jvp(arrays, tuple(known), out, **ctx.static)

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: Any, op: Op, choice: Any, static: dict[str, Any], *arrays: Any
    ) -> Any:
        """Ops take leading batch dimensions, so mapping is moving the mapped one to the front."""
        batched = [
            a.expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)
            for a, dim in zip(arrays, in_dims[3:], strict=True)
        ]
        out = op(*batched, **static)
        return out, (0,) * len(out) if isinstance(out, tuple) else 0
