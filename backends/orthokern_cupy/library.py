"""cuBLAS and cuSOLVER through CuPy, on a matrix or a stack of them. Nothing here waits for the device but ``host``.

CuPy's factorizations leave numbers without meaning where they fail; who calls them checks results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernels import kernel

# Rows from which computing one triangle of a real Gram matrix and mirroring it is worth two launches.
TRIANGLE_SIZE = 512
# A device adds up the terms of a product one after the other. The rounding errors of n terms are n^(1/2) times those
# of one, too many for a look at columns that are orthonormal to rounding: rows a sum, and most sums that are joined.
PART, MOST_PARTS = 512, 64


def real(x: Any) -> type[np.floating[Any]]:
    """The NumPy scalar type of the real parts of ``x``: CuPy hands plain Python numbers on in 8 bytes."""
    return np.float32 if x.dtype.char in "fF" else np.float64


def epsilon(x: Any) -> float:
    """Distance from 1 to the next number in the precision of ``x``."""
    return float(np.finfo(real(x)).eps)


def host(figures: list[Any], cp: Any) -> np.ndarray:
    """Arrays of one shape together in host memory: the one place where the host waits for the device."""
    found: np.ndarray = cp.stack(figures).get()
    return found.astype(np.float64)


def adjoint(x: Any, cp: Any) -> Any:
    """Conjugate transpose; a view of real matrices."""
    turned = cp.swapaxes(x, -1, -2)
    return cp.conj(turned) if x.dtype.kind == "c" else turned


def gram(x: Any, cp: Any) -> Any:
    """``X^H X``; m n^2 flops for a large real matrix, twice as many else."""
    n = x.shape[-1]
    if x.ndim > 2 or n < TRIANGLE_SIZE or x.dtype.kind == "c":
        return cp.matmul(adjoint(x, cp), x)
    from cupy.cublas import syrk  # pyright: ignore[reportMissingImports]

    upper = syrk("T", cp.ascontiguousarray(x), out=cp.empty((n, n), dtype=x.dtype))
    return kernel("mirror", x, cp)(upper, np.int32(n), cp.empty((n, n), dtype=x.dtype))


def careful_gram(x: Any, cp: Any) -> Any:
    """The same summed in parts, whose sums are joined."""
    m, n = x.shape[-2:]
    size = max(PART, -(-m // MOST_PARTS))
    if m <= size:
        return gram(x, cp)
    count = m // size
    if x.ndim == 2 and n < TRIANGLE_SIZE:
        parts = x[: count * size].reshape(count, size, n)
        total = cp.sum(cp.matmul(adjoint(parts, cp), parts), axis=0)
        return total + gram(x[count * size :], cp) if count * size < m else total
    total = gram(x[..., :size, :], cp)
    for i in range(size, m, size):
        total = total + gram(x[..., i : i + size, :], cp)
    return total


def affine(g: Any, a: float, b: float, cp: Any) -> Any:
    """``a I + b G`` in one pass."""
    number = real(g)
    return kernel("affine", g, cp)(g, number(a), number(b), np.int32(g.shape[-1]))


def blend(x: Any, y: Any, a: float, b: float, cp: Any) -> Any:
    """``a X + b Y`` in one pass."""
    number = real(x)
    return kernel("blend", x, cp)(x, y, number(a), number(b))


def averaged(x: Any, inverse: Any, a: float, b: float, cp: Any) -> Any:
    """``a X + b Y^H``, Newton's step with the inverse ``Y`` of ``X``, in one pass."""
    number = real(x)
    return kernel("newton", x, cp)(x, cp.swapaxes(inverse, -1, -2), number(a), number(b))


def hermitian_part(x: Any, cp: Any) -> Any:
    """``(X + X^H) / 2``, Hermitian bit for bit, in one pass."""
    return kernel("hermitian", x, cp)(x, cp.swapaxes(x, -1, -2))


def reduced(name: str, x: Any, axes: tuple[int, ...], cp: Any) -> Any:
    """A reduction of the table along ``axes``, which keep length 1; its dtype is that of real parts."""
    kept = [1 if axis - x.ndim in axes else size for axis, size in enumerate(x.shape)]
    out = cp.empty(tuple(kept), dtype=real(x))
    return kernel(name, x, cp)(x, out, axis=axes, keepdims=True)


def frobenius(x: Any, cp: Any) -> Any:
    """Frobenius norm of each matrix, shape (...)."""
    return cp.sqrt(reduced("square_norm", x, (-2, -1), cp))[..., 0, 0]


def lengths(x: Any, cp: Any) -> Any:
    """2-norm of each column, shape (..., 1, k)."""
    return cp.sqrt(reduced("square_norm", x, (-2,), cp))


def safe(scale: Any, cp: Any) -> Any:
    """``scale`` with 1 in place of 0."""
    return cp.where(scale > 0, scale, cp.ones_like(scale))


def solve_triangular(r: Any, b: Any, *, lower: bool = False, trans: str = "N") -> Any:
    """``R^{-1} B`` or ("C") ``R^{-H} B`` for one triangular matrix; only version 14 of CuPy has it for stacks."""
    from cupyx.scipy.linalg import (  # pyright: ignore[reportMissingImports]
        solve_triangular as solve,
    )

    return solve(r, b, lower=lower, trans=trans)


def divided(x: Any, r: Any, cp: Any) -> Any:
    """``X R^{-1}`` for an upper triangular ``R``, row by row that of a nearby ``R``."""
    if x.ndim > 2:
        return adjoint(cp.linalg.solve(adjoint(r, cp), adjoint(x, cp)), cp)
    return adjoint(solve_triangular(r, adjoint(x, cp), trans="C"), cp)


def left_divided(r: Any, x: Any, cp: Any) -> Any:
    """``R^{-1} X`` for an upper triangular ``R``."""
    if x.ndim > 2:
        return cp.linalg.solve(r, x)
    return solve_triangular(r, x)


def solve_definite(g: Any, b: Any, cp: Any) -> Any:
    """``G^{-1} B`` for a Hermitian positive definite ``G``: by Cholesky, in stacks by LU."""
    if g.ndim > 2:
        return cp.linalg.solve(g, b)
    lower = cp.linalg.cholesky(g)
    inner = solve_triangular(lower, b, lower=True)
    return solve_triangular(lower, inner, lower=True, trans="C")


def real_diagonal(x: Any, cp: Any) -> Any:
    """Real parts of the diagonal of each matrix, shape (..., n)."""
    return cp.real(cp.diagonal(x, axis1=-2, axis2=-1))
