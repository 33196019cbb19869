"""The fast Walsh-Hadamard transform, and random rows of it behind random signs and a random order."""

from __future__ import annotations

import functools
import math
from typing import Any

from .._core import check
from .._core.dispatch import kernel, op
from .._core.errors import ShapeError
from .._core.namespace import device, is_lazy, namespace
from .._core.random import random_bits
from .._core.segments import per_columns, ranked
from .axes import along

# Streams of random words (a change of one changes every sketch).
SIGNS, ORDER = 2, 3
# Bits of the order of one Kronecker factor.
FACTOR = 6


def _hadamard_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    return hadamard.body(tangents[0], **static)


def _mixed_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    return mixed_rows.body(tangents[0], **static)


def _unmixed_tangent(arrays: Any, tangents: Any, out: Any, **static: Any) -> Any:
    return unmixed_rows.body(tangents[0], **static)


def _matrix(bits: int, like: Any) -> Any:
    """Sylvester's matrix of order ``2**bits`` <= 64: the sign of entry (i, j) is the parity of ``i & j``."""
    xp = namespace(like)
    index = xp.arange(2**bits, device=device(like))
    both = index[:, None] & index[None, :]
    for shift in (4, 2, 1):
        both = both ^ (both >> shift)
    return 1 - 2 * xp.astype(both & 1, like.dtype)


@op(jvp=_hadamard_tangent)
def hadamard(x: Any, /, *, scale: float = 1.0) -> Any:
    """``scale H x`` for ``x`` (..., q, d), where H is Sylvester's matrix of order q, a power of two.

    As products with the Kronecker factors of H, of order 64 at most.
    """
    xp = namespace(x)
    *batch, q, d = x.shape
    left, remaining = math.prod(batch), q.bit_length() - 1
    if not remaining:
        return xp.asarray(x, copy=True) if scale == 1 else x * scale
    while remaining:
        bits = -(-remaining // -(-remaining // FACTOR))
        remaining -= bits
        right = d * 2**remaining
        h = _matrix(bits, x)
        shape = (left, 2**bits, right)[: 2 + (right > 1)]
        x = xp.reshape(x, shape)
        x = h @ x if right > 1 else x @ h
        left *= 2**bits
    x = xp.reshape(x, (*batch, q, d))
    return x if scale == 1 else x * scale


@kernel()
def fwht(x: Any, /, *, axis: int = -2, normalized: bool = False, backend: str | None = None) -> Any:
    """Walsh-Hadamard transform of ``x`` along ``axis``, whose length q is a power of two.

    Multiplies by Sylvester's matrix, H[i, j] = +1 or -1 by the parity of the bits that i and j share. H is symmetric
    and ``H H = q I``: with ``normalized``, by ``H / sqrt(q)``, the transform is its own inverse and its own transpose.

    Parameters
    ----------
    x
        Array (..., q, d) or (q,), real or complex floating. float16 and bfloat16 are computed in float32.
    axis
        The axis to transform; a vector has but one.
    normalized
        Divide by ``sqrt(q)``.
    backend
        Name of the backend that must run it; the default chooses.

    Returns
    -------
    Array of the shape and dtype of ``x``

    Notes
    -----
    flops: q log2(q) additions a column.  memory: one copy.

    References
    ----------
    Fino, Algazi, "Unified matrix treatment of the fast Walsh-Hadamard transform" (IEEE Trans. Comput. 25, 1976).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.fwht(np.asarray([1.0, 2.0, 3.0, 4.0]))
    array([10., -2., -4.,  0.])
    """
    normalized = check.flag(normalized, kernel="fwht", name="normalized")

    def transformed(rows: Any) -> Any:
        q = rows.shape[-2]
        if q < 1 or q & (q - 1):
            message = f"fwht: expected a power of two along axis {axis}, got {q}; pad it with zeros"
            raise ShapeError(message)
        scale = q**-0.5 if normalized else 1.0
        return (
            per_columns(hadamard, rows, q) * scale if is_lazy(rows) else hadamard(rows, scale=scale)
        )

    return along(x, axis, transformed, kernel="fwht")


def order_of(n: int) -> int:
    """The smallest power of two from ``n`` on."""
    return 1 << (n - 1).bit_length()


def padded(a: Any, rows: int, *, axis: int = -2) -> Any:
    """``a`` with zeros behind, up to ``rows`` along the axis."""
    xp = namespace(a)
    shape = list(a.shape)
    if shape[axis] == rows:
        return a
    shape[axis] = rows - shape[axis]
    return xp.concat([a, xp.zeros(tuple(shape), dtype=a.dtype, device=device(a))], axis=axis)


def signs_like(bits: Any, like: Any) -> Any:
    """+1 where a bit is set and -1 elsewhere, as a column."""
    return 2 * namespace(like).astype(bits & 1, like.dtype)[:, None] - 1


def _plan(q: int, like: Any, seed: int, permute: bool) -> tuple[Any, Any, Any]:
    """Signs, the order of the rows to take, and the order in which rows enter (None: as they are)."""
    xp = namespace(like)
    index = xp.arange(q, device=device(like))
    words = random_bits(index, seed=seed, stream=SIGNS)
    order = xp.argsort(words[:, 1], stable=True)
    if not permute:
        return signs_like(words[:, 0], like), order, None
    keys = random_bits(index, seed=seed, stream=ORDER)[:, 0]
    return signs_like(words[:, 0], like), order, xp.argsort(keys, stable=True)


@op(jvp=_mixed_tangent)
def mixed_rows(a: Any, /, *, rows: int, seed: int, permute: bool) -> Any:
    """``rows`` random rows of ``H D P a / sqrt(rows)`` for ``a`` (..., n, d), padded to a power of two.

    P is a random order of the rows (the identity without ``permute``), D random signs, H Sylvester's matrix.
    """
    if is_lazy(a):
        block = functools.partial(mixed_rows.body, rows=rows, seed=seed, permute=permute)
        return per_columns(block, a, rows)
    xp = namespace(a)
    q = order_of(a.shape[-2])
    signs, order, entry = _plan(q, a, seed, permute)
    a = padded(a, q)
    mixed = hadamard((a if entry is None else xp.take(a, entry, axis=-2)) * signs)
    return xp.take(mixed, order[:rows], axis=-2) * rows**-0.5


@op(jvp=_unmixed_tangent)
def unmixed_rows(y: Any, /, *, n: int, seed: int, permute: bool) -> Any:
    """The transpose of ``mixed_rows``: (..., rows, d) to (..., n, d)."""
    if is_lazy(y):
        block = functools.partial(unmixed_rows.body, n=n, seed=seed, permute=permute)
        return per_columns(block, y, n)
    xp = namespace(y)
    signs, order, entry = _plan(order_of(n), y, seed, permute)
    out = hadamard(ranked(order, y)) * signs * y.shape[-2] ** -0.5
    return out[..., :n, :] if entry is None else xp.take(out, xp.argsort(entry)[:n], axis=-2)
