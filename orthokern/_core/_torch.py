"""What torch alone needs: autograd functions made of a tangent rule, tests for tracing, NumPy views.

Imported only after a torch array has arrived. torch.compile can neither trace a class statement nor a Function
that defines ``jvp``: hence two generic module-level classes, one for eager code and one for compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .dispatch import Op

Rule = Callable[..., Any]


# torch says only in private what a tensor is; pyright does not know the module.
_is_wrapped: Callable[[Any], bool] = torch._C._functorch.is_functorch_wrapped_tensor  # type: ignore[attr-defined,unused-ignore] # pyright: ignore[reportAttributeAccessIssue]


def is_traced(x: Any) -> bool:
    """Whether ``x`` is abstract: seen by torch.compile, or wrapped by a torch.func transform."""
    if torch.compiler.is_compiling():
        return True
    return _is_wrapped(x)


def is_plain(x: Any) -> bool:
    """Whether ``x`` is an ordinary dense tensor (no DTensor, fake or sparse one)."""
    return type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout is torch.strided


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
        if op.jvp is None or not any(a.requires_grad for a in arrays):
            return op.body(*arrays, **static)
        return Compiled.apply(op.body, op.jvp, static, *arrays)
    if not wants_derivative(arrays):
        return op.run(arrays, static)
    if op.jvp is None:
        return op.run_body(
            arrays, static, "the arrays carry derivatives and this op has no derivative rule"
        )
    from .dispatch import current_choice

    return Eager.apply(op, current_choice(), static, *arrays)


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
