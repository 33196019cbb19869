"""Factors of the small matrices of a least-squares problem.

A whitener of A is a P (d, d) for which A P has orthonormal columns: then ``P P^H`` is the inverse of ``A^H A``. Columns
of zeros in it stand for directions that count as null space.
"""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.linalg import adjoint, identity_like, thin_svd
from .._core.namespace import namespace


@op()
def gram_whitener(g: Any, /) -> tuple[Any, Any, Any]:
    """``(P, F, rcond)`` of a positive definite G (..., d, d): ``P^H G P = I``, ``F^H F = G``, ``F P = I``.

    ``rcond`` (...) estimates the reciprocal condition number of F. It is 0 where G is not definite to working
    precision; P and F mean nothing there. A G that is not finite gives rcond 0 as well. By eigenvalues.
    """
    xp = namespace(g)
    finite = xp.all(xp.isfinite(g), axis=(-2, -1), keepdims=True)
    values, vectors = xp.linalg.eigh(xp.where(finite, g, identity_like(g)))
    top = values[..., -1:]
    definite = finite[..., 0] & (values[..., :1] > eps(g) * top)
    root = xp.sqrt(xp.where(definite, values, xp.ones_like(values)))
    rcond = xp.where(definite, root[..., :1] / root[..., -1:], xp.zeros_like(top))[..., 0]
    return vectors / root[..., None, :], root[..., :, None] * adjoint(vectors), rcond


@op()
def triangular_whitener(r: Any, /, *, cutoff: float) -> tuple[Any, Any, Any]:
    """``(P, rank, rcond)`` of an upper triangular R (..., d, d): ``R P`` has orthonormal columns, or zero ones.

    Directions whose singular values are at most ``cutoff`` times the largest are left out; ``rank`` (...) counts the
    others, and ``rcond`` (...) is their smallest over the largest.
    """
    xp = namespace(r)
    finite = xp.all(xp.isfinite(r), axis=(-2, -1), keepdims=True)
    _, s, vh = thin_svd(xp.where(finite, r, identity_like(r)))
    return truncated_inverse(s, vh, cutoff)


def truncated_inverse(s: Any, vh: Any, cutoff: float) -> tuple[Any, Any, Any]:
    """``(V S^+, rank, rcond)`` of singular values and right singular vectors."""
    xp = namespace(s)
    kept = s > cutoff * s[..., :1]
    inverse = xp.where(kept, 1 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))
    rank = xp.sum(xp.astype(kept, s.dtype), axis=-1)
    least = xp.min(xp.where(kept, s, s[..., :1]), axis=-1)
    top = s[..., 0]
    rcond = least / xp.where(top > 0, top, xp.ones_like(top))
    return adjoint(vh) * inverse[..., None, :], rank, rcond


@op()
def damped_norms(f: Any, shift: Any, v: Any, /) -> Any:
    """``||(F^H F + shift_j I)^{-1/2} v_j||`` for the columns of v (..., d, k) and shifts (..., k) >= 0; shape (..., k).

    Directions in which F and the shift vanish are left out.
    """
    xp = namespace(f)
    finite = xp.all(xp.isfinite(f), axis=(-2, -1), keepdims=True)
    _, s, vh = thin_svd(xp.where(finite, f, identity_like(f)))
    least = eps(f) * s[..., :1]
    total = xp.where(s > least, s * s, xp.zeros_like(s))[..., :, None] + shift[..., None, :]
    share = xp.abs(vh @ v) / xp.sqrt(xp.where(total > 0, total, xp.full_like(total, float("inf"))))
    return xp.sqrt(xp.sum(share * share, axis=-2))
