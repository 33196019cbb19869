"""Factors of the small matrices of a least-squares problem, by cuSOLVER.

A factorization that failed shows in its result: nothing is asked of the device in between.
"""

from __future__ import annotations

import math
from typing import Any

from .estimates import gain, spread
from .library import adjoint, epsilon, frobenius, host, real, real_diagonal, solve_triangular
from .steps import identity_like

# A triangular inverse is taken down to this reciprocal condition number, in eps of the number of columns.
FLOOR = 30.0
# How far an estimate in the 1-norm may be off where rounding decides; a chosen cutoff is told from it by a safe margin.
DOUBT, CHOSEN = 2.0, 1e-8
# Steps of the power method where the 1-norm leaves a doubt.
STEPS = 10
# A shifted Gram matrix is factorized while the square of the smallest pivot is so many eps of the largest.
PIVOT = 1e3
# Entries of ``R^H R - G`` in eps of the number of columns, which a factorization that went to its end keeps to.
LEFT = 20.0
# Right-hand sides up to which each has a factorization of its own; more of them share singular values.
FEW = 4


def gram_whitener(g: Any, *, cp: Any) -> tuple[Any, Any, Any]:
    """``(R^{-1}, R, rcond)`` with the Cholesky factor R of G (..., d, d); identities and 0 where there is none.

    No wait for the device; ``rcond`` (...) is that of the 1-norm.
    """
    r, ratio = cholesky(g, cp)
    p = _inverse(r, cp)
    rcond = _reciprocal_condition(r, p, cp)
    good = (ratio > 0) & (rcond > real(g)(epsilon(g) ** 2))
    eye, each = identity_like(g, cp), good[..., None, None]
    return cp.where(each, p, eye), cp.where(each, r, eye), cp.where(good, rcond, real(g)(0))


def cholesky(g: Any, cp: Any) -> tuple[Any, Any]:
    """``(R, smallest pivot over the largest)`` (...), the latter 0 where the factorization did not go to its end."""
    r = adjoint(cp.linalg.cholesky(g), cp)
    pivots, top = real_diagonal(r, cp), cp.max(real_diagonal(g, cp), axis=-1)
    left = cp.max(cp.abs(cp.matmul(adjoint(r, cp), r) - g), axis=(-2, -1))
    lowest = cp.min(pivots, axis=-1)
    # A comparison with NaN is false.
    good = (lowest > 0) & (left <= real(g)(LEFT * g.shape[-1] * epsilon(g)) * top)
    return r, cp.where(good, lowest / cp.max(pivots, axis=-1), real(g)(0))


def _inverse(r: Any, cp: Any) -> Any:
    """Of upper triangular matrices: in stacks by LU, which is R itself."""
    if r.ndim > 2:
        return cp.linalg.inv(r)
    return cp.ascontiguousarray(solve_triangular(r, identity_like(r, cp)))


def _back(r: Any, v: Any, cp: Any) -> Any:
    """``R^{-H} v`` of upper triangular matrices."""
    if r.ndim > 2:
        return cp.linalg.solve(adjoint(r, cp), v)
    return solve_triangular(r, v, trans="C")


def _norm(x: Any, cp: Any) -> Any:
    """Largest sum of moduli in a column."""
    return cp.max(cp.sum(cp.abs(x), axis=-2), axis=-1)


def _reciprocal_condition(r: Any, p: Any, cp: Any) -> Any:
    """Of R with the inverse P, in the 1-norm; 0 where either is not finite."""
    return _reciprocal(_norm(r, cp) * _norm(p, cp), cp)


def _reciprocal(condition: Any, cp: Any) -> Any:
    known = (condition > 0) & (condition < real(condition)(math.inf))
    return cp.where(known, 1 / cp.where(known, condition, real(condition)(1)), real(condition)(0))


def _sharper_condition(r: Any, p: Any, cp: Any) -> Any:
    """The same in the 2-norm, from above."""
    start = spread(r.shape[-1], r, cp)

    def squared_norm(x: Any) -> Any:
        return gain(lambda v: cp.matmul(adjoint(x, cp), cp.matmul(x, v)), start, STEPS, cp)

    return _reciprocal(cp.sqrt(squared_norm(r)) * cp.sqrt(squared_norm(p)), cp)


def triangular_whitener(r: Any, *, cutoff: float, cp: Any) -> tuple[Any, Any, Any, Any]:
    """``(R^{-1}, R, d, rcond)`` where no condition number leaves a doubt about the rank; else by singular values."""
    upper, d = cp.triu(r), r.shape[-1]
    p = _inverse(upper, cp)
    rcond = _reciprocal_condition(upper, p, cp)
    sure = d * cutoff if cutoff > CHOSEN else DOUBT * cutoff
    floor = FLOOR * d * epsilon(r)
    (least,) = host([cp.min(rcond)], cp)
    if not least > max(floor, sure) and cutoff <= CHOSEN:
        rcond, sure = _sharper_condition(upper, p, cp), cutoff
        (least,) = host([cp.min(rcond)], cp)
    if least > max(floor, sure):
        return p, upper, cp.full(rcond.shape, d, dtype=rcond.dtype), rcond
    return _truncated(_finite(upper, cp), cutoff, cp)


def _finite(x: Any, cp: Any) -> Any:
    """Identities in the place of matrices that are not finite."""
    finite = cp.all(cp.isfinite(x), axis=(-2, -1), keepdims=True)
    return cp.where(finite, x, identity_like(x, cp))


def _truncated(r: Any, cutoff: float, cp: Any) -> tuple[Any, Any, Any, Any]:
    _, s, vh = cp.linalg.svd(r, full_matrices=False)
    kept = s > real(r)(cutoff) * s[..., :1]
    zero, one = real(r)(0), real(r)(1)
    inverse = cp.where(kept, one / cp.where(kept, s, one), zero)
    least, top = cp.min(cp.where(kept, s, s[..., :1]), axis=-1), s[..., 0]
    rcond = least / cp.where(top > 0, top, one)
    f = cp.where(kept, s, zero)[..., :, None] * vh
    return adjoint(vh, cp) * inverse[..., None, :], f, cp.sum(kept.astype(s.dtype), axis=-1), rcond


def damped_norms(f: Any, shift: Any, v: Any, *, cp: Any) -> Any:
    """``||(F^H F + shift_j I)^{-1/2} v_j||`` for the columns of v (..., d, k); shape (..., k).

    Few columns by a Cholesky factor each, or by a QR factor where rounding errors of the Gram matrix would count;
    many, and where F leaves directions out, by singular values.
    """
    columns = [(shift[..., j, None, None], v[..., j : j + 1]) for j in range(shift.shape[-1])]
    found = [_norm_of(f, *column, cp) for column in columns] if len(columns) <= FEW else [None]
    if any(norm is None for norm in found):
        return _by_singular_values(_finite(f, cp), shift, v, cp)
    return cp.stack(found, axis=-1)


def _norm_of(f: Any, shift: Any, v: Any, cp: Any) -> Any:
    """None where F may have directions that were left out, or that are rounding errors."""
    d, eye = f.shape[-1], identity_like(f, cp)
    r, ratio = cholesky(cp.matmul(adjoint(f, cp), f) + shift * eye, cp)
    row, least = host([cp.min(cp.max(cp.abs(f), axis=-1)), cp.min(ratio)], cp)
    if not row > 0:
        return None
    if not least**2 > PIVOT * d * epsilon(f):
        r = cp.linalg.qr(f)[1]
        (condition,) = host([cp.min(_reciprocal_condition(r, _inverse(r, cp), cp))], cp)
        if not condition > FLOOR * d * epsilon(f):
            return None
        r = cp.linalg.qr(cp.concatenate([r, cp.sqrt(shift) * eye], axis=-2))[1]
    return frobenius(_back(r, v, cp), cp)


def _by_singular_values(f: Any, shift: Any, v: Any, cp: Any) -> Any:
    _, s, vh = cp.linalg.svd(f, full_matrices=False)
    zero, one = real(f)(0), real(f)(1)
    s = cp.where(s > real(f)(epsilon(f)) * s[..., :1], s, zero)
    total = (s * s)[..., :, None] + shift[..., None, :]
    share = cp.abs(cp.matmul(vh, v))
    kept = (s > 0)[..., :, None] & (total > 0)
    part = cp.where(kept, share * share / cp.where(kept, total, one), zero)
    return cp.sqrt(cp.sum(part, axis=-2))
