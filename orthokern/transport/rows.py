"""The hot loops behind functional maps: many small systems that differ in a diagonal, and nearest rows."""

from __future__ import annotations

import math
from typing import Any

from .._core import check
from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.errors import OptionError, UnsupportedError
from .._core.linalg import adjoint, identity_like
from .._core.namespace import device, is_array, is_lazy, namespace, same_library

MASKS = ("resolvent", "laplacian")
# Numbers of a block of systems or distances held at a time.
BLOCK = 2**22


def _rows_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    """``(G + diag P_i) dc_i = dr_i - dG c_i - dP_i c_i``: the same systems once more.

    By the body: the op itself would need this rule to be transposed, without end.
    """
    g, penalty, _ = arrays
    dg, dpenalty, dr = tangents
    return regularized_rows.body(g, penalty, dr - out @ dg - dpenalty * out)


@op(jvp=_rows_tangent)
def regularized_rows(g: Any, penalty: Any, r: Any, /) -> Any:
    """Rows ``c_i`` of C (..., m, k) with ``(G + diag(P_i)) c_i = r_i``.

    ``G`` (..., k, k) is symmetric, G + diag(P_i) positive semidefinite, P (..., m, k) or without the batch dimensions.
    """
    xp = namespace(g)
    m, k = r.shape[-2:]
    size = k * k * max(1, math.prod(r.shape[:-2]))
    parts = [_solved_rows(g, penalty[..., rows, :], r[..., rows, :]) for rows in blocks(m, size)]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def _solved_rows(g: Any, penalty: Any, r: Any) -> Any:
    """By LU of the systems scaled to a unit diagonal, which a few eps more keep from being singular."""
    if is_lazy(g):
        message = (
            "functional_map: expected an array whose library solves stacks of systems, got one of Dask; "
            "map the kernel over the blocks"
        )
        raise UnsupportedError(message)
    xp = namespace(g)
    k = g.shape[-1]
    eye = identity_like(g)
    total = xp.sum(g * eye, axis=-1)[..., None, :] + penalty
    positive = total > 0
    s = xp.where(
        positive, 1 / xp.sqrt(xp.where(positive, total, xp.ones_like(total))), xp.ones_like(total)
    )
    off = (g - g * eye)[..., None, :, :] * s[..., :, None] * s[..., None, :]
    system = off + (1 + 2 * eps(g) * k**0.5) * eye
    return s * xp.linalg.solve(system, (s * r)[..., None])[..., 0]


@op()
def nearest_rows(points: Any, queries: Any, /) -> Any:
    """Index of the nearest row of ``points`` (..., v, k) for each row of ``queries`` (..., w, k): integers (..., w).

    ``argmin |p|^2 / 2 - q.p``, as a product with one more column, in blocks of rows.
    """
    xp = namespace(points)
    half = xp.sum(points * points, axis=-1, keepdims=True) / 2
    table = adjoint(xp.concat([-points, half], axis=-1))
    one = xp.ones_like(queries[..., :1]) if queries.shape[-1] else _column_of_ones(queries)
    rows = xp.concat([queries, one], axis=-1)
    size = max(math.prod(points.shape[:-1]), points.shape[-2] * math.prod(queries.shape[:-2]), 1)
    parts = [
        xp.argmin(rows[..., block, :] @ table, axis=-1) for block in blocks(queries.shape[-2], size)
    ]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)


def blocks(count: int, size: int) -> list[slice]:
    """``count`` rows in slices of at most BLOCK numbers, where a row takes ``size``; at least one slice."""
    many = max(1, BLOCK // size)
    return [slice(i, min(i + many, count)) for i in range(0, max(count, 1), many)]


def _column_of_ones(queries: Any) -> Any:
    shape = (*queries.shape[:-1], 1)
    return namespace(queries).ones(shape, dtype=queries.dtype, device=device(queries))


def spectral_mask(mask: Any, evals_x: Any, evals_y: Any, power: float) -> Any:
    """``D`` (..., k_y, k_x)."""
    if is_array(mask):
        check.real(mask, kernel="functional_map", name="mask")
        check.all_at_least(mask, 0.0, kernel="functional_map", name="mask")
        xp = same_library(mask, evals_x)
        return xp.astype(mask, evals_x.dtype, copy=False)
    if not isinstance(mask, str) or mask not in MASKS:
        message = f"functional_map: expected mask to be 'resolvent', 'laplacian' or an array, got {mask!r}"
        raise OptionError(message)
    if mask == "laplacian":
        gap = evals_y[..., :, None] - evals_x[..., None, :]
        return gap * gap
    return _resolvent_mask(evals_x, evals_y, power)


def _resolvent_mask(evals_x: Any, evals_y: Any, power: float) -> Any:
    xp = namespace(evals_x)
    if 0 in (evals_x.shape[-1], evals_y.shape[-1]):
        return evals_y[..., :, None] - evals_x[..., None, :]
    tops = [xp.max(e, axis=-1, keepdims=True) for e in (evals_x, evals_y)]
    top = xp.maximum(*tops)
    top = xp.where(top > 0, top, xp.ones_like(top))

    def parts(evals: Any) -> tuple[Any, Any]:
        share = evals / top
        positive = share > 0
        g = xp.where(positive, share, xp.ones_like(share)) ** power
        # What is not positive counts as zero, but for NaN.
        g = xp.where(positive | xp.isnan(share), g + 0 * share, xp.zeros_like(g))
        return g / (g * g + 1), 1 / (g * g + 1)

    (re_x, im_x), (re_y, im_y) = parts(evals_x), parts(evals_y)
    re = re_y[..., :, None] - re_x[..., None, :]
    im = im_y[..., :, None] - im_x[..., None, :]
    return re * re + im * im
