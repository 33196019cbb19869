"""Passes over the rows of tall matrices by cuBLAS, and their QR factors by Cholesky. Nothing waits but ``thin_qr``.

Single precision is summed in double, some rows at a time, so that no converted copy of all is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .library import (
    adjoint,
    careful_gram,
    divided,
    epsilon,
    frobenius,
    gram,
    host,
    real,
    real_diagonal,
    reduced,
)
from .steps import identity_like
from .whitening import cholesky

# Numbers of a block of rows.
BLOCK = 2**26
_DOUBLE = {"f": np.dtype(np.float64), "F": np.dtype(np.complex128)}
# Rows for each column from which Cholesky is quicker than Householder.
TALL = 4
# Passes of Cholesky: one with a shift, one for what that leaves, one to full accuracy, and one more.
PASSES = 4
# Norm of ``Q^H Q - I`` from which one more pass makes Q orthonormal to rounding.
NEAR = 0.1
# Ratio of pivots, in roots of eps, of a Gram matrix that is factorized as it is.
PLAIN = 10.0


def _sums_dtype(x: Any) -> Any:
    return _DOUBLE.get(x.dtype.char, x.dtype)


def _blocks(a: Any, *others: Any) -> Iterator[tuple[Any, ...]]:
    """Some rows of ``a`` and of ``others`` at a time, in the precision of sums; all at once where nothing is copied."""
    wanted, n = _sums_dtype(a), a.shape[-2]
    size = n if a.dtype == wanted else max(1, BLOCK // max(a.shape[-1], 1))
    for i in range(0, n, size):
        rows = (x[..., i : i + size, :].astype(wanted, copy=False) for x in (a, *others))
        yield tuple(rows)


def _squares(x: Any, cp: Any) -> Any:
    """Squared norm of each column, shape (..., k)."""
    return reduced("square_norm", x, (-2,), cp)[..., 0, :]


def _added(parts: Iterator[tuple[Any, ...]]) -> tuple[Any, ...]:
    total = next(parts)
    for part in parts:
        total = tuple(one + other for one, other in zip(total, part, strict=True))
    return total


def normal_equations(a: Any, b: Any, *, cp: Any) -> tuple[Any, Any, Any]:
    """``(A^H A, A^H B, squared norms of the columns of B)``."""
    parts = ((gram(x, cp), cp.matmul(adjoint(x, cp), y), _squares(y, cp)) for x, y in _blocks(a, b))
    g, c, squares = _added(parts)
    return g, c, squares


def residual_gradient(a: Any, b: Any, x: Any, *, cp: Any) -> tuple[Any, Any]:
    """``(A^H R, squared norms of the columns of R)`` with ``R = B - A X``."""
    x = x.astype(_sums_dtype(a), copy=False)

    def part(rows: Any, right: Any) -> tuple[Any, Any]:
        r = right - cp.matmul(rows, x)
        return cp.matmul(adjoint(rows, cp), r), _squares(r, cp)

    gradient, squares = _added(part(*block) for block in _blocks(a, b))
    return gradient, squares


def whitened_gram(a: Any, p: Any, *, cp: Any) -> Any:
    """``Y^H Y`` of ``Y = A P``."""
    p = p.astype(_sums_dtype(a), copy=False)
    (g,) = _added((gram(cp.matmul(rows, p), cp),) for (rows,) in _blocks(a))
    return g


def thin_qr(a: Any, *, cp: Any) -> tuple[Any, Any]:
    """``(q, r)`` with a diagonal of r that is not negative, by Cholesky with a shift, or by Householder's method.

    Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, arXiv:1809.11085. One wait for each pass; 3 m n^2 flops each.
    """
    if a.ndim == 2 and a.shape[0] >= TALL * a.shape[1]:
        found = _by_cholesky(a, cp)
        if found is not None:
            return found
    q, r = cp.linalg.qr(a)
    diagonal = cp.diagonal(r, axis1=-2, axis2=-1)
    size = cp.abs(diagonal)
    phase = cp.where(size > 0, diagonal, 1) / cp.where(size > 0, size, 1)
    phase = phase.astype(a.dtype)
    return q * phase[..., None, :], cp.conj(phase)[..., :, None] * r


def _by_cholesky(a: Any, cp: Any) -> tuple[Any, Any] | None:
    """None where a pass fails, and where the last one started from columns that are not near orthonormal ones."""
    q, r = a, identity_like(a, cp)
    m, n = a.shape
    plain = PLAIN * epsilon(a) ** 0.5
    for _ in range(PASSES):
        g = careful_gram(q, cp)
        off = frobenius(g - identity_like(g, cp), cp)
        factor, ratio = cholesky(g, cp)
        ratio, off, size = host([ratio, off, cp.sum(real_diagonal(g, cp))], cp)
        if not np.isfinite(size):
            return None
        if not ratio > plain:
            shift = 11 * (m * n + n * (n + 1)) * (epsilon(a) / 2) * size
            factor, ratio = cholesky(g + real(g)(shift) * identity_like(g, cp), cp)
            if not host([ratio], cp)[0] > 0:
                return None
        q, r = divided(q, factor, cp), cp.matmul(factor, r)
        if off < NEAR:
            return q, cp.triu(r)
    return None
