"""Products of real matrices whose sums stay in vector registers: tiles of 8 rows and up to three registers.

The right factor comes in panels (p, depth, lanes): ``panels[j, i]`` is what row i has in the columns ``j lanes`` to
``(j + 1) lanes``, one register. A tile of ``B A`` is the sum over i of ``b[i, k] panels[:, i]`` in row k.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import REGISTER_BYTES, register_of, spread

# 24 sums, 3 registers of a panel and one factor fill 28 of the 32 registers of AVX-512.
HEIGHT, WIDTH = 8, 3
_WORD, _INDEX, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
Registers = list[list[Any]]


class _Array:
    """Addresses in an array of Numba's, by its strides."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder = builder
        self.register, self.align = register_of(kind.dtype), kind.dtype.bitwidth // 8
        self.start = builder.bitcast(array.data, _BYTES)
        self.shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
        self.strides = cgutils.unpack_tuple(builder, array.strides, kind.ndim)

    def at(self, *place: Any) -> Any:
        """Address of an entry; the places of trailing axes may be left out."""
        address = self.start
        for stride, index in zip(self.strides, place, strict=False):
            number = ir.Constant(_WORD, index) if isinstance(index, int) else index
            address = self.builder.gep(address, [self.builder.mul(stride, number)])
        return address

    def load(self, *place: Any, beyond: int = 0) -> Any:
        """The register that begins at an entry, or so many registers further on."""
        return self.builder.load(self._typed(self.register, place, beyond), align=self.align)

    def store(self, value: Any, *place: Any, beyond: int = 0) -> None:
        self.builder.store(value, self._typed(self.register, place, beyond), align=self.align)

    def splat(self, *place: Any) -> Any:
        """The number at an entry, in all lanes."""
        number = self.builder.load(self._typed(self.register.element, place, 0))
        return spread(self.builder, self.register, number)

    def _typed(self, kind: Any, place: tuple[Any, ...], beyond: int) -> Any:
        offset = ir.Constant(_WORD, beyond * REGISTER_BYTES)
        address = self.builder.gep(self.at(*place), [offset])
        return self.builder.bitcast(address, kind.as_pointer())


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    bits = REGISTER_BYTES * 8 // a.type.count
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _sums(builder: Any, panels: _Array, b: _Array, width: int) -> Registers:
    """``sum_i b[i, k] panels[:, i]`` over all rows of the panels."""
    before, head = builder.block, builder.append_basic_block("head")
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(_WORD)
    i.add_incoming(ir.Constant(_WORD, 0), before)
    sums = [[builder.phi(panels.register) for _ in range(width)] for _ in range(HEIGHT)]
    builder.cbranch(builder.icmp_signed("<", i, panels.shape[1]), body, after)
    builder.position_at_end(body)
    row = [panels.load(v, i) for v in range(width)]
    for k in range(HEIGHT):
        factor = b.splat(i, k)
        for v in range(width):
            sums[k][v].add_incoming(ir.Constant(panels.register, None), before)
            sums[k][v].add_incoming(_fma(builder, row[v], factor, sums[k][v]), body)
    i.add_incoming(builder.add(i, ir.Constant(_WORD, 1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    return sums


def _routine(width: int) -> Any:
    @intrinsic
    def routine(typing: Any, panels: Any, b: Any, c: Any, add: Any) -> Any:
        """Write a tile, or add it to what is there; ``c`` (8, columns)."""
        kinds = (panels, b, c)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [_Array(context, builder, *one) for one in zip(kinds, args[:3], strict=True)]
            sums = _sums(builder, arrays[0], arrays[1], width)
            with builder.if_else(args[3]) as (adding, writing):
                with adding:
                    _store(builder, sums, arrays[2], add=True)
                with writing:
                    _store(builder, sums, arrays[2], add=False)
            return context.get_dummy_value()

        return types.void(*kinds, types.boolean), generate

    return routine


def _store(builder: Any, sums: Registers, c: _Array, *, add: bool) -> None:
    for k, row in enumerate(sums):
        for v, value in enumerate(row):
            total = builder.fadd(value, c.load(k, beyond=v)) if add else value
            c.store(total, k, beyond=v)


tile_1, tile_2, tile_3 = (_routine(width) for width in range(1, WIDTH + 1))


@intrinsic
def divide_tile(typing: Any, panels: Any, b: Any, c: Any) -> Any:
    """Divide the rows ``c`` of three panels (3, 8, lanes) by a triangle, where those before it are divided.

    b holds -R in the rows of these, and then the triangle, its diagonal inverted.
    """
    kinds = (panels, b, c)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [_Array(context, builder, *one) for one in zip(kinds, args, strict=True)]
        _divide(builder, _sums(builder, arrays[0], arrays[1], WIDTH), *arrays)
        return context.get_dummy_value()

    return types.void(*kinds), generate


def _divide(builder: Any, sums: Registers, panels: _Array, b: _Array, c: _Array) -> None:
    """Forward substitution in registers."""
    for k in range(HEIGHT):
        for v in range(len(sums[k])):
            sums[k][v] = builder.fadd(sums[k][v], c.load(v, k))
    for k in range(HEIGHT):
        place = builder.add(panels.shape[1], ir.Constant(_WORD, k))
        inverse = b.splat(place, k)
        sums[k] = [builder.fmul(value, inverse) for value in sums[k]]
        for below in range(k + 1, HEIGHT):
            factor = b.splat(place, below)
            pairs = zip(sums[k], sums[below], strict=True)
            sums[below] = [_fma(builder, one, factor, other) for one, other in pairs]
    for k, row in enumerate(sums):
        for v, value in enumerate(row):
            c.store(value, v, k)


@intrinsic
def turn(typing: Any, a: Any, b: Any) -> Any:
    """``b = a^T`` of square matrices that are as wide as a register."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (
            _Array(context, builder, kind, value) for kind, value in zip((a, b), args, strict=True)
        )
        rows = [source.load(i) for i in range(source.register.count)]
        for i, row in enumerate(_turned(builder, rows)):
            target.store(row, i)
        return context.get_dummy_value()

    return types.void(a, b), generate


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Swap the off-diagonal blocks of 1, 2, 4, ... columns of each pair of rows."""
    count, size = len(rows), 1
    index = ir.VectorType(_INDEX, count)
    while size < count:
        first = [i if not i & size else count + i - size for i in range(count)]
        second = [i + size if not i & size else count + i for i in range(count)]
        done = list(rows)
        for i in range(count):
            if not i & size:
                pair = rows[i], rows[i + size]
                done[i] = builder.shuffle_vector(*pair, ir.Constant(index, first))
                done[i + size] = builder.shuffle_vector(*pair, ir.Constant(index, second))
        rows, size = done, 2 * size
    return rows


@intrinsic
def ask_for(typing: Any, x: Any, first: Any, last: Any) -> Any:
    """Have the cache lines ``first`` to ``last`` of what follows ``x`` fetched."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = _Array(context, builder, x, args[0])
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _INDEX, _INDEX, _INDEX])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, args[1], args[2], ir.Constant(_WORD, 1), _WORD) as (
            line,
            _,
        ):
            offset = builder.mul(line, ir.Constant(_WORD, REGISTER_BYTES))
            address = builder.gep(array.start, [offset])
            builder.call(function, [address, *(ir.Constant(_INDEX, i) for i in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp), generate
