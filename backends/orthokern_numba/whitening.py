"""Factors of the small matrices of a least-squares problem, by LAPACK."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from .library import aligned_empty, library, probe, real_dtype
from .normal_equations import is_upper

# A triangular inverse is taken down to this reciprocal condition number, in eps of the number of columns.
FLOOR = 30.0
# Steps of the power method where the estimate in the 1-norm, which may be off by a factor, leaves a doubt.
STEPS, DOUBT = 10, 2.0
# Cutoffs up to this one are those of rounding errors.
CHOSEN = 1e-8
# Columns of a tile of the Gram matrix of a triangle, and of a panel of reflections.
TILE, PANEL = 128, 32
# A shifted Gram matrix is factorized while the square of the smallest pivot is so many eps of the largest.
PIVOT = 1e3


class _Lapack(NamedTuple):
    potrf: Any
    potrs: Any
    trtri: Any
    trcon: Any
    tpqrt: Any
    trsv: Any
    trmv: Any


@functools.cache
def _lapack(dtype: np.dtype) -> _Lapack:
    lapack = get_lapack_funcs(("potrf", "potrs", "trtri", "trcon", "tpqrt"), dtype=dtype)
    return _Lapack(*lapack, *get_blas_funcs(("trsv", "trmv"), dtype=dtype))


def _eps(x: np.ndarray) -> float:
    return float(np.finfo(x.dtype).eps)


def _condition(r: np.ndarray) -> float:
    """Reciprocal condition number of a triangular matrix, estimated."""
    rcond, _ = _lapack(r.dtype).trcon(r, norm="1", uplo="U", diag="N")
    return float(rcond)


def _largest(times: Callable[..., np.ndarray], r: np.ndarray) -> float:
    """Largest singular value of what ``times(r, x, trans=...)`` multiplies by, from below."""
    x, found = probe(len(r), r.dtype), 0.0
    for _ in range(STEPS):
        x = times(r, times(r, x / np.linalg.norm(x)), trans=library(r.dtype).adjoint)
        found = float(np.linalg.norm(x))
    return math.sqrt(found)


@np.errstate(all="ignore")
def _sharper_condition(r: np.ndarray) -> float:
    """Reciprocal condition number in the 2-norm, from above; NaN for a singular matrix."""
    lapack = _lapack(r.dtype)
    return 1 / (_largest(lapack.trmv, r) * _largest(lapack.trsv, r))


def _column_major(like: np.ndarray) -> np.ndarray:
    """Matrices of the shape of ``like`` whose columns are contiguous, as LAPACK has them."""
    return aligned_empty(like.shape, like.dtype).swapaxes(-1, -2)


def gram_whitener(g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(R^{-1}, R, rcond)`` with the Cholesky factor R of G (..., d, d); identities and 0 where there is none."""
    p, f = _column_major(g), _column_major(g)
    rcond = np.zeros(g.shape[:-2], real_dtype(g))
    for index in np.ndindex(*g.shape[:-2]):
        # A real matrix is its own transpose, which LAPACK copies faster.
        one = g[index] if g.dtype.kind == "c" else g[index].T
        r, failed = _lapack(g.dtype).potrf(one, clean=1)
        condition = 0.0 if failed else _condition(r)
        if not condition > _eps(g) ** 2:
            p[index] = f[index] = np.eye(g.shape[-1])
            continue
        rcond[index], f[index] = condition, r
        p[index], _ = _lapack(g.dtype).trtri(r, overwrite_c=1)
    return p, f, rcond


def triangular_whitener(
    r: np.ndarray, *, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(R^{-1}, R, d, rcond)`` where the condition number leaves no doubt about the rank; else by singular values."""
    p, f = _column_major(r), _column_major(r)
    rank, rcond = (np.empty(r.shape[:-2], real_dtype(r)) for _ in range(2))
    d = r.shape[-1]
    floor = FLOOR * d * _eps(r)
    # A cutoff above all rounding is somebody's decision: estimates are off by at most the number of columns.
    sure = d * cutoff if cutoff > CHOSEN else cutoff
    for index in np.ndindex(*r.shape[:-2]):
        one = r[index] if np.isfinite(r[index]).all() else np.eye(d, dtype=r.dtype)
        upper = np.asfortranarray(np.triu(one))
        condition = _condition(upper)
        if not condition > max(floor, DOUBT * sure):
            condition = _sharper_condition(upper) if cutoff <= CHOSEN else 0.0
        if condition > max(floor, sure):
            rank[index], rcond[index], f[index] = d, condition, upper
            p[index], _ = _lapack(r.dtype).trtri(upper, overwrite_c=1)
        else:
            p[index], f[index], rank[index], rcond[index] = _truncated(one, cutoff)
    return p, f, rank, rcond


def _truncated(r: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, int, float]:
    _, s, vh = np.linalg.svd(r)
    kept = s > cutoff * s[0]
    rank = int(kept.sum())
    inverse = np.zeros_like(s)
    inverse[:rank] = 1 / s[:rank]
    rcond = float(s[rank - 1] / s[0]) if rank else 1.0
    return vh.conj().T * inverse, np.where(kept, s, 0)[:, None] * vh, rank, rcond


def damped_norms(f: np.ndarray, shift: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``||(F^H F + shift_j I)^{-1/2} v_j||``; one column by a Cholesky factor, several by singular values."""
    out = np.empty(shift.shape, shift.dtype)
    for index in np.ndindex(*f.shape[:-2]):
        out[index] = _norms(f[index], shift[index], v[index])
    return out


def _norms(f: np.ndarray, shift: np.ndarray, v: np.ndarray) -> Any:
    if not np.isfinite(f).all():
        f = np.eye(f.shape[0], dtype=f.dtype)
    found = None
    # A row of zeros stands for a direction that was left out, where nothing counts.
    if len(shift) == 1 and f.any(axis=1).all():
        columns = np.asfortranarray(f)
        is_triangular = is_upper(columns)
        found = _by_cholesky(columns, shift[0], v[:, 0], is_triangular)
        if found is None and is_triangular:
            found = _by_reflections(columns, shift[0], v[:, 0])
    return _by_singular_values(f, shift, v) if found is None else found


def _by_cholesky(f: np.ndarray, shift: float, v: np.ndarray, is_triangular: bool) -> float | None:
    """None where rounding errors of the Gram matrix would count."""
    g = _upper_gram(f) if is_triangular else f.conj().T @ f
    d = f.shape[0]
    g.flat[:: d + 1] += shift
    r, failed = _lapack(f.dtype).potrf(g, overwrite_a=1)
    pivots = np.abs(r.flat[:: d + 1])
    if failed or not pivots.min() ** 2 > PIVOT * d * _eps(f) * pivots.max() ** 2:
        return None
    z, _ = _lapack(f.dtype).potrs(r, v)
    return math.sqrt(np.vdot(v, z).real)


def _upper_gram(f: np.ndarray) -> np.ndarray:
    """The upper triangle of ``F^H F`` of a triangular F, and some of the other one."""
    g = aligned_empty(f.shape, f.dtype, "F")
    for i in range(0, len(f), TILE):
        end = i + TILE
        g[i:end, i:] = f[:end, i:end].conj().T @ f[:end, i:]
    return g


def _by_reflections(f: np.ndarray, shift: float, v: np.ndarray) -> float | None:
    """By a QR factor of F and what is added below; None where F may have directions that are rounding errors."""
    lapack, d = _lapack(f.dtype), len(f)
    if not _condition(f) > FLOOR * d * _eps(f):
        return None
    below = np.asfortranarray(math.sqrt(shift) * np.eye(d, dtype=f.dtype))
    r = lapack.tpqrt(d, min(d, PANEL), f, below)[0]
    z = lapack.trsv(r, v, trans=library(f.dtype).adjoint)
    return float(np.linalg.norm(z))


def _by_singular_values(f: np.ndarray, shift: np.ndarray, v: np.ndarray) -> Any:
    _, s, vh = np.linalg.svd(f)
    s = np.where(s > _eps(f) * s[0], s, 0)[:, None]
    total = np.where(s > 0, s * s + shift, np.inf)
    return np.sqrt(np.sum(np.abs(vh @ v) ** 2 / total, axis=0))
