"""SciPy's BLAS and LAPACK by dtype, and the blocked triangular kernels that beat the library's own on one core."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs


class Routines(NamedTuple):
    """The routines of one dtype; ``turn`` is the code of the conjugate transpose."""

    gemm: Any
    gemv: Any
    trsm: Any
    trmm: Any
    rank_k: Any
    hermitian_product: Any
    hermitian_vector: Any
    potrf: Any
    getrf: Any
    trtri: Any
    turn: int
    letter: str


@functools.cache
def routines(dtype: np.dtype) -> Routines:
    """Routines for arrays of ``dtype`` (float32, float64, complex64, complex128)."""
    is_complex = dtype.kind == "c"
    rank_k, product, vector = ("herk", "hemm", "hemv") if is_complex else ("syrk", "symm", "symv")
    blas = get_blas_funcs(("gemm", "gemv", "trsm", "trmm", rank_k, product, vector), dtype=dtype)
    lapack = get_lapack_funcs(("potrf", "getrf", "trtri"), dtype=dtype)
    return Routines(*blas, *lapack, turn=2 if is_complex else 1, letter=np.dtype(dtype).char)


def aligned_empty(shape: tuple[int, ...], dtype: Any, order: str = "C") -> np.ndarray:
    """Uninitialized array whose data begins at a multiple of 64 bytes, so that other libraries adopt it."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def _block(n: int, dtype: np.dtype) -> int:
    """Block size at which products replace the library's triangular solve; n where they do not pay."""
    if dtype.itemsize == 4 or n < 192:
        return n
    return 64 if n < 768 else 128


def solve_upper(r: np.ndarray, x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """``alpha X R^{-1}`` in place of ``x``, ``r`` upper triangular, both Fortran-ordered."""
    f, n = routines(x.dtype), r.shape[0]
    step = _block(n, x.dtype)
    for j in range(0, n, step):
        k = min(j + step, n)
        part = x[:, j:k]
        if j:
            f.gemm(-1.0, x[:, :j], r[:j, j:k], beta=alpha, c=part, overwrite_c=1)
        f.trsm(1.0 if j else alpha, r[j:k, j:k], part, side=1, overwrite_b=1)
    return x


def solve_upper_adjoint(r: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``X R^{-H}`` in place of ``x``."""
    f, n = routines(x.dtype), r.shape[0]
    step = _block(n, x.dtype)
    for k in range(n, 0, -step):
        j = max(k - step, 0)
        part = x[:, j:k]
        if k < n:
            f.gemm(-1.0, x[:, k:], r[j:k, k:], trans_b=f.turn, beta=1.0, c=part, overwrite_c=1)
        f.trsm(1.0, r[j:k, j:k], part, side=1, trans_a=f.turn, overwrite_b=1)
    return x


def solve_unit_lower(lu: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``X L^{-1}`` in place of ``x``, with L the unit lower triangle of ``lu``."""
    f, n = routines(x.dtype), lu.shape[0]
    step = _block(n, x.dtype)
    for k in range(n, 0, -step):
        j = max(k - step, 0)
        part = x[:, j:k]
        if k < n:
            f.gemm(-1.0, x[:, k:], lu[k:, j:k], beta=1.0, c=part, overwrite_c=1)
        f.trsm(1.0, lu[j:k, j:k], part, side=1, lower=1, diag=1, overwrite_b=1)
    return x


def invert_upper(u: np.ndarray) -> bool:
    """Invert the upper triangular ``u`` in place (zeros below); False if it is singular."""
    f, n = routines(u.dtype), u.shape[0]
    step = 64 if n < 768 else 128
    for j in range(0, n, step):
        k = min(j + step, n)
        inverse, info = f.trtri(u[j:k, j:k])
        if info:
            return False
        u[j:k, j:k] = inverse
        if j:
            column = f.gemm(-1.0, u[:j, j:k], inverse)
            u[:j, j:k] = f.trmm(1.0, u[:j, :j], column, overwrite_b=1)
    return True


def identity_minus(x: np.ndarray) -> np.ndarray:
    """``I - x`` for a square ``x``, in place."""
    np.negative(x, out=x)
    x.flat[:: x.shape[0] + 1] += 1
    return x
