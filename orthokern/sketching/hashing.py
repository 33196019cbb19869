"""Rows added up, with random signs, where a hash of their number says."""

from __future__ import annotations

import functools
from typing import Any

from .._core.dispatch import op
from .._core.namespace import device, is_lazy, namespace
from .._core.random import integers, random_bits
from .._core.segments import add_rows, per_columns

# Streams of random words (a change of one changes every sketch).
SPARSE, TENSOR = 1, 6


def hashed(
    start: int, stop: int, like: Any, *, block: int, nnz: int, seed: int, stream: int, group: int
) -> list[tuple[Any, Any]]:
    """Target inside the block, and sign bit (1 is +), of the rows ``start`` to ``stop``, for each of ``nnz`` blocks.

    Column i of the sketch takes word ``k % 4`` of counter i in lane-group ``group + k // 4`` for its block k: bit 0
    is the sign, the other 31 choose the target by multiply-high.
    """
    xp = namespace(like)
    index = xp.arange(start, stop, device=device(like))
    found = []
    for lane in range(0, nnz, 4):
        words = random_bits(index, seed=seed, stream=stream, group=group + lane // 4)
        for k in range(min(4, nnz - lane)):
            word = words[..., k]
            found.append((_as_index(integers(word - (word & 1), block), xp), word & 1))
    return found


def _as_index(target: Any, xp: Any) -> Any:
    """Indices in a signed type, which every library takes."""
    return xp.astype(target, xp.int64) if target.dtype == xp.int64 else xp.astype(target, xp.int32)


def _signs(bit: Any, like: Any) -> Any:
    """+1 where the bit is set and -1 elsewhere, as a column."""
    return 2 * namespace(like).astype(bit, like.dtype)[:, None] - 1


def _scatter_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    return scattered_rows.body(tangents[0], **static)


def _gather_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    return gathered_rows.body(tangents[0], **static)


@op(jvp=_scatter_tangent)
def scattered_rows(
    a: Any,
    /,
    *,
    rows: int,
    nnz: int,
    seed: int,
    start: int = 0,
    stream: int = SPARSE,
    group: int = 0,
) -> Any:
    """Rows ``start``, ``start + 1``, ... given by ``a`` (..., m, d), each added to ``nnz`` of ``rows``: (..., rows, d).

    One target in each of ``nnz`` blocks of ``rows / nnz``, with sign and the factor ``1 / sqrt(nnz)``.
    """
    xp = namespace(a)
    block = rows // nnz
    places = hashed(
        start,
        start + a.shape[-2],
        a,
        block=block,
        nnz=nnz,
        seed=seed,
        stream=stream,
        group=group,
    )
    parts = [add_rows(a * _signs(bit, a), target, block) for target, bit in places]
    return parts[0] if nnz == 1 else xp.concat(parts, axis=-2) * nnz**-0.5


@op(jvp=_gather_tangent)
def gathered_rows(
    y: Any,
    /,
    *,
    stop: int,
    nnz: int,
    seed: int,
    start: int = 0,
    stream: int = SPARSE,
    group: int = 0,
) -> Any:
    """The transpose of ``scattered_rows``: (..., rows, d) to the rows ``start`` to ``stop``, (..., stop - start, d)."""
    if is_lazy(y):
        options: dict[str, Any] = {
            "stop": stop,
            "nnz": nnz,
            "seed": seed,
            "start": start,
            "stream": stream,
        }
        block = functools.partial(gathered_rows.body, group=group, **options)
        return per_columns(block, y, stop - start)
    xp = namespace(y)
    block = y.shape[-2] // nnz
    places = hashed(start, stop, y, block=block, nnz=nnz, seed=seed, stream=stream, group=group)
    total = None
    for k, (target, bit) in enumerate(places):
        part = xp.take(y, target + k * block, axis=-2) * _signs(bit, y)
        total = part if total is None else total + part
    return total if nnz == 1 else total * nnz**-0.5
