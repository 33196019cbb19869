"""Matrix helpers that every family needs and the array API does not name."""

from __future__ import annotations

from typing import Any

from .dtypes import is_complex
from .errors import UnsupportedError
from .namespace import device, is_lazy, namespace


def adjoint(x: Any) -> Any:
    """Conjugate transpose of the last two dimensions; a view where the library has views."""
    xp = namespace(x)
    transposed = xp.matrix_transpose(x)
    return xp.conj(transposed) if is_complex(x) else transposed


def identity_like(x: Any) -> Any:
    """The (m, n) identity in the dtype and on the device of ``x`` (..., m, n)."""
    xp = namespace(x)
    m, n = x.shape[-2:]
    if is_lazy(x):
        # dask.array.eye(m, n) names blocks that it does not make when m != n.
        return xp.astype(xp.arange(m)[:, None] == xp.arange(n)[None, :], x.dtype)
    return xp.eye(m, n, dtype=x.dtype, device=device(x))


def gram(x: Any) -> Any:
    """``x^H x``."""
    return adjoint(x) @ x


def hermitian_part(x: Any) -> Any:
    """``(x + x^H) / 2``, exactly Hermitian."""
    return (x + adjoint(x)) / 2


def thin_svd(x: Any) -> tuple[Any, Any, Any]:
    """``(p, s, qh)`` with ``x = (p * s) @ qh``; Dask decomposes single matrices in row blocks only."""
    xp = namespace(x)
    if is_lazy(x):
        if x.ndim > 2:
            message = (
                f"expected a single matrix, because Dask decomposes no stacks, got shape {tuple(x.shape)}; "
                "map the kernel over the blocks, for example x.map_blocks(lambda b: orthokern.polar(b).u)"
            )
            raise UnsupportedError(message)
        x = x.rechunk({-1: -1})
    return tuple(xp.linalg.svd(x, full_matrices=False))


def frobenius(x: Any) -> Any:
    """Frobenius norm of each matrix, shape (..., 1, 1)."""
    return namespace(x).linalg.matrix_norm(x, ord="fro", keepdims=True)


def departure(x: Any, target: Any) -> Any:
    """``||x^H x - target||_F`` of each matrix, shape (...)."""
    return frobenius(gram(x) - target)[..., 0, 0]
