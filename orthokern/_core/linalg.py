"""Matrix helpers that every family needs and the array API does not name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .dtypes import is_complex
from .errors import UnsupportedError
from .namespace import device, device_kind, is_lazy, library, namespace

# Rows of a block of a sum, at least.
GRAM_ROWS, MOST_SLICES = 16, 32


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


def running_sum(x: Any) -> Any:
    """Cumulative sum along the last axis."""
    # The method, where there is one, because array_api_compat's function keeps a cache that Dynamo warns of.
    return x.cumsum(-1) if hasattr(x, "cumsum") else namespace(x).cumulative_sum(x, axis=-1)


def gram(x: Any) -> Any:
    """``x^H x``."""
    return adjoint(x) @ x


def careful_gram(x: Any) -> Any:
    """``x^H x`` summed in blocks of rows.

    Where the moduli of a column are alike, the rounding errors of one long sum of their squares all have the same
    sign.
    """
    m, n = x.shape[-2:]
    if is_lazy(x):
        return _gram_of_slices(x, max(GRAM_ROWS, n // 2, -(-m // MOST_SLICES)))
    size = max(GRAM_ROWS, n // 2)
    count = m // size
    if count < 2:
        return gram(x)
    whole = namespace(x).reshape(x[..., : count * size, :], (*x.shape[:-2], count, size, n))
    total = _pairwise_sum(gram(whole))
    return total if count * size == m else total + gram(x[..., count * size :, :])


def _gram_of_slices(x: Any, size: int) -> Any:
    """The same where splitting an axis in two would move chunks."""
    parts = [gram(x[..., i : i + size, :]) for i in range(0, x.shape[-2], size)]
    return _pairwise_sum(namespace(x).stack(parts, axis=-3)) if parts else gram(x)


def _pairwise_sum(terms: Any) -> Any:
    """Sum over axis -3 in a binary tree."""
    while terms.shape[-3] > 1:
        half = terms.shape[-3] // 2
        pairs = terms[..., :half, :, :] + terms[..., half : 2 * half, :, :]
        odd = terms[..., 2 * half :, :, :]
        terms = namespace(terms).concat([pairs, odd], axis=-3) if odd.shape[-3] else pairs
    return terms[..., 0, :, :]


def hermitian_part(x: Any) -> Any:
    """``(x + x^H) / 2``, exactly Hermitian."""
    return (x + adjoint(x)) / 2


def nan_unless(keep: Any, x: Any) -> Any:
    """``x`` where ``keep`` holds, NaN elsewhere; ``x`` itself where a look costs nothing and shows that all is kept."""
    xp = namespace(x)
    if library(keep) == "numpy" and keep.all():
        return x
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


# Rows of which an accelerator adds up the products one after the other: in longer sums the rounding errors of a look
# at orthonormal columns are as large as what it looks for.
ROWS = 512


def departure(x: Any, target: Any) -> Any:
    """``||x^H x - target||_F`` of each matrix, shape (...)."""
    n = x.shape[-2]
    size = n if device_kind(x) == "cpu" else min(n, ROWS)
    total = gram(x[..., :size, :])
    for i in range(size, n, max(size, 1)):
        total = total + gram(x[..., i : min(i + size, n), :])
    return frobenius(total - target)[..., 0, 0]
