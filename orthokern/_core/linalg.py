"""Matrix helpers that every family needs and the array API does not name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .dtypes import is_complex
from .errors import UnsupportedError
from .namespace import device, is_lazy, library, namespace


def adjoint(x: Any) -> Any:
    """Conjugate transpose of the last two dimensions; a view where the library has views."""
    xp = namespace(x)
    # The attribute, where there is one, has rules for more of torch's transforms than the function.
    transposed = x.mT if hasattr(x, "mT") else xp.matrix_transpose(x)
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


def nan_unless(keep: Any, x: Any) -> Any:
    """``x`` where ``keep`` holds, NaN elsewhere."""
    xp = namespace(x)
    # An array of NaN would set off jax_debug_nans; older versions of the standard ask for an array.
    nan = float("nan") if library(x) == "jax" else xp.full_like(x, float("nan"))
    return xp.where(keep, x, nan)


def decomposable(x: Any) -> Any:
    """``x`` as the decompositions of its library take it: Dask has them for single matrices in blocks of rows."""
    if not is_lazy(x):
        return x
    if x.ndim > 2:
        message = (
            f"expected a single matrix, because Dask decomposes no stacks, got shape {tuple(x.shape)}; "
            "map the kernel over the blocks, for example x.map_blocks(lambda b: orthokern.polar(b).u)"
        )
        raise UnsupportedError(message)
    square = x.shape[0] == x.shape[1]
    return x.rechunk({0: -1, 1: -1} if square else {1: -1})


def thin_svd(x: Any) -> tuple[Any, Any, Any]:
    """``(p, s, qh)`` with ``x = (p * s) @ qh``."""
    with warnings.catch_warnings():
        if is_lazy(x):
            # Dask finds out dtypes on an empty array, in a way that NumPy warns of.
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        return tuple(namespace(x).linalg.svd(decomposable(x), full_matrices=False))


def frobenius(x: Any) -> Any:
    """Frobenius norm of each matrix, shape (..., 1, 1)."""
    return namespace(x).linalg.matrix_norm(x, ord="fro", keepdims=True)


def departure(x: Any, target: Any) -> Any:
    """``||x^H x - target||_F`` of each matrix, shape (...)."""
    return frobenius(gram(x) - target)[..., 0, 0]
