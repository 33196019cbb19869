"""SciPy's BLAS and LAPACK by dtype, and buffers that other array libraries adopt without a copy."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numba.extending import get_cython_function_address
from scipy.linalg import get_blas_funcs, get_lapack_funcs

ALIGNMENT = 64


class Library(NamedTuple):
    """The routines of one dtype.

    The addresses are those of Fortran routines, for compiled loops; ``adjoint`` is the code of the conjugate
    transpose; ``single`` is the dtype of half the width.
    """

    gemm: Any
    trsm: Any
    trmm: Any
    rank_k: Any
    hermitian_product: Any
    potrf: Any
    gemm_address: int
    posv_address: int
    adjoint: int
    single: np.dtype


@functools.cache
def library(dtype: np.dtype) -> Library:
    """Routines for float32, float64, complex64 or complex128."""
    is_complex = dtype.kind == "c"
    rank_k, product = ("herk", "hemm") if is_complex else ("syrk", "symm")
    blas = get_blas_funcs(("gemm", "trsm", "trmm", rank_k, product), dtype=dtype)
    (potrf,) = get_lapack_funcs(("potrf",), dtype=dtype)
    prefix = {"f": "s", "d": "d", "F": "c", "D": "z"}[dtype.char]
    by_gemm = get_cython_function_address("scipy.linalg.cython_blas", f"{prefix}gemm")
    by_posv = get_cython_function_address("scipy.linalg.cython_lapack", f"{prefix}posv")
    single = np.dtype(np.complex64 if is_complex else np.float32)
    gemm, trsm, trmm, rank, hermitian = blas
    turn = 2 if is_complex else 1
    return Library(gemm, trsm, trmm, rank, hermitian, potrf, by_gemm, by_posv, turn, single)


def aligned_empty(
    shape: tuple[int, ...], dtype: np.dtype, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    """Uninitialized array whose data begins at a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return np.ndarray(shape, dtype, raw, start, order=order)


def real_dtype(x: np.ndarray) -> np.dtype:
    """Dtype of the real parts of ``x``."""
    return np.dtype(x.dtype.char.lower())


def real_columns(x: np.ndarray) -> np.ndarray:
    """``x`` (..., n, d) as one contiguous stack (batch, n, d) of real numbers: complex ones are two columns each.

    A view where ``x`` is contiguous.
    """
    n, d = x.shape[-2:]
    stack = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-2]), n, d)
    return stack.view(real_dtype(x)).reshape(len(stack), n, d * (1 + (x.dtype.kind == "c")))


def thin_qr(a: np.ndarray, *, overwrite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """``A = Q R`` with Q (m, n), by Householder reflections."""
    found: Any = scipy.linalg.qr(a, mode="economic", overwrite_a=overwrite, check_finite=False)
    return found[0], found[1]


@functools.lru_cache(maxsize=64)
def probe(n: int, dtype: np.dtype) -> np.ndarray:
    """A fixed vector without structure: start of power iterations, probe of checks. Treated as read-only."""
    return np.random.default_rng(1729).standard_normal(n).astype(dtype)
