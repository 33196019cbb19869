"""Factors of the small matrices of a least-squares problem.

A whitener of A is a P (d, d) for which A P has orthonormal columns: then ``P P^H`` is the inverse of ``A^H A``. Columns
of zeros in it stand for directions that count as null space.
"""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint, identity_like, thin_svd
from .._core.namespace import is_lazy, namespace


@op()
def gram_whitener(g: Any, /) -> tuple[Any, Any, Any]:
    """``(P, F, rcond)`` of a positive definite G (..., d, d): ``P^H G P = I``, ``F^H F = G``, ``F P = I``.

    ``rcond`` (...) estimates the reciprocal condition number of F. It is 0 where G is not definite to working
    precision; P and F mean nothing there. A G that is not finite gives rcond 0 as well. By eigenvalues.
    """
    if is_lazy(g):
        message = "expected a small matrix with values, got one of Dask; pass its compute()"
        raise UnsupportedError(message)
    xp = namespace(g)
    finite = xp.all(xp.isfinite(g), axis=(-2, -1), keepdims=True)
    values, vectors = xp.linalg.eigh(xp.where(finite, g, identity_like(g)))
    top = values[..., -1:]
    definite = finite[..., 0] & (values[..., :1] > eps(g) * top)
    root = xp.sqrt(xp.where(definite, values, xp.ones_like(values)))
    rcond = xp.where(definite, root[..., :1] / root[..., -1:], xp.zeros_like(top))[..., 0]
    return vectors / root[..., None, :], root[..., :, None] * adjoint(vectors), rcond


@op()
def triangular_whitener(r: Any, /, *, cutoff: float) -> tuple[Any, Any, Any, Any]:
    """``(P, F, rank, rcond)`` of an upper triangular R (..., d, d): ``R P`` has orthonormal columns, or zero ones.

    Directions whose singular values are at most ``cutoff`` times the largest are left out; ``rank`` (...) counts the
    others, and ``rcond`` (...) is their smallest over the largest. ``F P`` is the identity in the columns of P that
    are not zero, and ``F^H F`` is ``R^H R`` less what was left out.
    """
    xp = namespace(r)
    finite = xp.all(xp.isfinite(r), axis=(-2, -1), keepdims=True)
    _, s, vh = thin_svd(xp.where(finite, r, identity_like(r)))
    return truncated(s, vh, cutoff)


def truncated(s: Any, vh: Any, cutoff: float) -> tuple[Any, Any, Any, Any]:
    """The same of singular values and right singular vectors."""
    xp = namespace(s)
    kept = s > cutoff * s[..., :1]
    zeros, ones = xp.zeros_like(s), xp.ones_like(s)
    inverse = xp.where(kept, 1 / xp.where(kept, s, ones), zeros)
    rank = xp.sum(xp.astype(kept, s.dtype), axis=-1)
    least, top = xp.min(xp.where(kept, s, s[..., :1]), axis=-1), s[..., 0]
    rcond = least / xp.where(top > 0, top, xp.ones_like(top))
    f = xp.where(kept, s, zeros)[..., :, None] * vh
    return adjoint(vh) * inverse[..., None, :], f, rank, rcond


@op()
def damped_norms(f: Any, shift: Any, v: Any, /) -> Any:
    """``||(F^H F + shift_j I)^{-1/2} v_j||`` for the columns of v (..., d, k) and shifts (..., k) >= 0; shape (..., k).

    Directions in which F vanishes are left out, and those in which it is a rounding error.
    """
    xp = namespace(f)
    finite = xp.all(xp.isfinite(f), axis=(-2, -1), keepdims=True)
    _, s, vh = thin_svd(xp.where(finite, f, identity_like(f)))
    s = xp.where(s > eps(f) * s[..., :1], s, xp.zeros_like(s))
    total = (s * s)[..., :, None] + shift[..., None, :]
    total = xp.where(s[..., :, None] > 0, total, xp.zeros_like(total))
    share = xp.abs(vh @ v) / xp.sqrt(xp.where(total > 0, total, xp.full_like(total, float("inf"))))
    return xp.sqrt(xp.sum(share * share, axis=-2))
