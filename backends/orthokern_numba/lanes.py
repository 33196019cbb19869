"""A vector register as a number of compiled code: one float of a matrix in each lane.

A value of type `Lanes` is one 64-byte register: 8 float64 or 16 float32 numbers. No operation moves a number from one
lane to another, so that what is computed in a lane has the same bits whatever its neighbours are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, overload, register_model

REGISTER_BYTES = 64


class Lanes(types.Type):
    """One vector register of a floating dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.count = REGISTER_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")


class Mask(types.Type):
    """One truth value to a lane."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Mask({count})")


def register_of(dtype: Any) -> ir.VectorType:
    """LLVM's type of a register of numbers of ``dtype``."""
    scalar = ir.DoubleType() if dtype.bitwidth == 64 else ir.FloatType()
    return ir.VectorType(scalar, REGISTER_BYTES * 8 // dtype.bitwidth)


def spread(builder: Any, register: ir.VectorType, number: Any) -> Any:
    """Code of a register with one number in all lanes."""
    undefined, index = ir.Constant(register, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, number, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, register.count), None)
    return builder.shuffle_vector(first, undefined, zeros)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, register_of(lanes.dtype))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.count))


def _address(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    registers = builder.bitcast(data, register_of(array_type.dtype).as_pointer())
    return builder.gep(registers, [place], inbounds=True)


@intrinsic
def lane_count(typing: Any, array: Any) -> Any:
    """Numbers of the dtype of ``array`` in a register, a constant to the compiler."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, register_of(array.dtype).count)

    return types.intp(array), generate


@intrinsic
def load_lanes(typing: Any, array: Any, place: Any) -> Any:
    """Register number ``place`` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def store_lanes(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Write register number ``place`` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def splat(typing: Any, array: Any, value: Any) -> Any:
    """The same number in every lane, in the dtype of ``array``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, register_of(array.dtype), args[1])

    return Lanes(array.dtype)(array, array.dtype), generate


def _lanewise(emit: Callable[[Any, Any], Any]) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        return a(a, b), lambda context, builder, signature, args: emit(builder, args)

    return function


def _compared(symbol: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fcmp_ordered(symbol, *args)

        return Mask(a.count)(a, b), generate

    return function


def _call(name: str) -> Any:
    """Code of LLVM's function ``name`` on registers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        bits = REGISTER_BYTES * 8 // vector.count
        kind = ir.FunctionType(vector, [vector] * len(args))
        full_name = f"llvm.{name}.v{vector.count}f{bits}"
        return builder.call(get_or_insert_function(builder.module, kind, full_name), args)

    return generate


def _named(name: str) -> Any:
    @intrinsic
    def function(typing: Any, a: Any) -> Any:
        return a(a), _call(name)

    return function


_add = _lanewise(lambda builder, args: builder.fadd(*args))
_subtract = _lanewise(lambda builder, args: builder.fsub(*args))
_multiply = _lanewise(lambda builder, args: builder.fmul(*args))
_divide = _lanewise(lambda builder, args: builder.fdiv(*args))
_both = _lanewise(lambda builder, args: builder.and_(*args))
_greater = _compared(">")
_at_most = _compared("<=")
_equal = _compared("==")
absolute = _named("fabs")
root = _named("sqrt")


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, fused where the processor can; alike in every lane."""
    return a(a, b, c), _call("fmuladd")


@intrinsic
def where(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """``a`` in the lanes of ``mask``, ``b`` elsewhere."""
    return a(mask, a, b), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def any_lane(typing: Any, mask: Any) -> Any:
    """Whether one lane is true."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), generate


def _spell(symbol: Any, function: Any, kind: type[types.Type] = Lanes) -> None:
    def apply(a: Any, b: Any) -> Any:
        return function(a, b)

    @overload(symbol)
    def choose(a: Any, b: Any) -> Any:
        return apply if isinstance(a, kind) and isinstance(b, kind) else None


_spell(operator.add, _add)
_spell(operator.sub, _subtract)
_spell(operator.mul, _multiply)
_spell(operator.truediv, _divide)
_spell(operator.gt, _greater)
_spell(operator.le, _at_most)
_spell(operator.eq, _equal)
_spell(operator.and_, _both, Mask)
