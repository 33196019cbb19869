"""Blocks of columns of dense random matrices, made where they are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._core.dtypes import dtype_name
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint
from .._core.namespace import device, namespace
from .._core.random import GAUSSIAN, RADEMACHER, normals_of, random_bits, signs_of

# Entries of a block of columns, about.
BLOCK = 2**21


def _normals(words: Any, like: Any) -> Any:
    return namespace(words).reshape(normals_of(words, like), (words.shape[0], -1))


def _signs(words: Any, like: Any) -> Any:
    return signs_of(namespace(words).reshape(words, (words.shape[0], -1)), like)


# Entries that come from one counter, the stream of the counters, and how words become entries.
MAKERS: dict[str, tuple[int, int, Callable[[Any, Any], Any]]] = {
    "gaussian_sketch": (2, GAUSSIAN, _normals),
    "rademacher_sketch": (128, RADEMACHER, _signs),
}


def columns(kind: str, shape: tuple[int, int], seed: int, start: int, stop: int, like: Any) -> Any:
    """The columns ``start`` to ``stop`` of the random matrix, unscaled: entry (i, k) is number ``i n + k``."""
    per, stream, make = MAKERS[kind]
    s, n = shape
    xp = namespace(like)
    width = stop - start
    begins = [i * n + start for i in range(s)]
    span = xp.arange((width + per - 2) // per + 1, device=device(like))
    if not dtype_name(span).endswith("64") and s * n // per >= 2**31:
        message = f"{kind}: expected 64-bit integers for a matrix of {s} x {n}; enable them (jax_enable_x64)"
        raise UnsupportedError(message)
    first = xp.asarray([b // per for b in begins], dtype=span.dtype, device=device(like))
    values = make(random_bits(first[:, None] + span, seed=seed, stream=stream), like)
    if n % per == 0:
        return values[:, start % per : start % per + width]
    offsets = [i * values.shape[1] + b % per for i, b in enumerate(begins)]
    place = xp.asarray(offsets, dtype=span.dtype, device=device(like))[:, None]
    place = place + xp.arange(width, device=device(like))
    flat = xp.take(xp.reshape(values, (-1,)), xp.reshape(place, (-1,)))
    return xp.reshape(flat, (s, width))


def _blocks(shape: tuple[int, int], start: int, stop: int) -> Iterator[tuple[int, int]]:
    size = max(128, BLOCK // shape[0])
    for begin in range(start, stop, size):
        yield begin, min(begin + size, stop)


def dense_product(kind: str, shape: tuple[int, int], seed: int, a: Any, start: int) -> Any:
    """``S[:, start : start + m] a`` for ``a`` (..., m, d)."""
    total = None
    for begin, end in _blocks(shape, start, start + a.shape[-2]):
        rows = a[..., begin - start : end - start, :]
        part = _as(columns(kind, shape, seed, begin, end, a), a) @ rows
        total = part if total is None else total + part
    return total * shape[0] ** -0.5


def dense_adjoint(
    kind: str, shape: tuple[int, int], seed: int, y: Any, start: int, stop: int
) -> Any:
    """``S[:, start:stop]^T y``."""
    parts = [
        adjoint(_as(columns(kind, shape, seed, begin, end, y), y)) @ y
        for begin, end in _blocks(shape, start, stop)
    ]
    out = parts[0] if len(parts) == 1 else namespace(y).concat(parts, axis=-2)
    return out * shape[0] ** -0.5


def _as(block: Any, like: Any) -> Any:
    return namespace(like).astype(block, like.dtype, copy=False)
