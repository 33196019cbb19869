"""The lower end of a positive semidefinite spectrum, and the inverse of all that lies above."""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import eps, is_complex
from .._core.errors import UnsupportedError
from .._core.namespace import is_lazy, namespace


def refuse_lazy(x: Any) -> None:
    """Refuse arrays of Dask, which has no decompositions of stacks and no eigenvalues."""
    if is_lazy(x):
        message = (
            "expected an array whose library decomposes stacks of matrices, got one of Dask; "
            "call compute() first, or map the kernel over the blocks"
        )
        raise UnsupportedError(message)


def conjugate(x: Any) -> Any:
    """Complex conjugate; real arrays as they are."""
    return namespace(x).conj(x) if is_complex(x) else x


def inner(u: Any, v: Any) -> Any:
    """``u^H v``, shape (..., 1)."""
    return namespace(u).sum(conjugate(u) * v, axis=-1, keepdims=True)


@op()
def lowest_pairs(h: Any, /) -> tuple[Any, Any, Any]:
    """``(values, pair, root)`` of a Hermitian positive semidefinite H (..., n, n), n >= 2.

    ``values`` (..., n) are the eigenvalues in ascending order, ``pair`` (..., n, 2) has vectors of the two least, and
    ``root`` is (..., n, n). With v the first vector and ``P = I - v v^H``, ``P root root^H P`` is the inverse of H on
    the complement of v, without the directions whose eigenvalue is a rounding error of the largest. By all
    eigenvectors.
    """
    refuse_lazy(h)
    xp = namespace(h)
    values, vectors = xp.linalg.eigh(h)
    some = values > eps(h) * values[..., -1:]
    inverse = xp.where(some, 1 / xp.where(some, values, xp.ones_like(values)), 0 * values)
    inverse = xp.concat([0 * inverse[..., :1], inverse[..., 1:]], axis=-1)
    return values, vectors[..., :2], vectors * xp.astype(xp.sqrt(inverse), h.dtype)[..., None, :]


def inverse_above(first: Any, root: Any, x: Any) -> Any:
    """``P root root^H P x`` for x (..., n): the inverse of ``lowest_pairs`` with its first vector."""
    x = x - first * inner(first, x)
    # Without a copy of the conjugate matrix.
    along = conjugate((conjugate(x)[..., None, :] @ root)[..., 0, :])
    found = (root @ along[..., None])[..., 0]
    return found - first * inner(first, found)
