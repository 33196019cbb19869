"""Factors of the small matrices of a least-squares problem, by LAPACK."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_lapack_funcs

from .library import aligned_empty, library, real_dtype
from .normal_equations import is_upper

# A triangular inverse is taken down to this reciprocal condition number, in eps of the number of columns.
FLOOR = 30.0
# A shifted Gram matrix is factorized while the square of the smallest pivot is so many eps of the largest.
PIVOT = 1e3


class _Lapack(NamedTuple):
    potrf: Any
    potrs: Any
    trtri: Any
    trcon: Any


@functools.cache
def _lapack(dtype: np.dtype) -> _Lapack:
    return _Lapack(*get_lapack_funcs(("potrf", "potrs", "trtri", "trcon"), dtype=dtype))


def _eps(x: np.ndarray) -> float:
    return float(np.finfo(x.dtype).eps)


def _condition(r: np.ndarray) -> float:
    """Reciprocal condition number of a triangular matrix, estimated."""
    rcond, _ = _lapack(r.dtype).trcon(r, norm="1", uplo="U", diag="N")
    return float(rcond)


def gram_whitener(g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(R^{-1}, R, rcond)`` with the Cholesky factor R of G (..., d, d); identities and 0 where there is none."""
    p, f = aligned_empty(g.shape, g.dtype), aligned_empty(g.shape, g.dtype)
    rcond = np.zeros(g.shape[:-2], real_dtype(g))
    for index in np.ndindex(*g.shape[:-2]):
        r, failed = _lapack(g.dtype).potrf(g[index], clean=1)
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
    p, f = aligned_empty(r.shape, r.dtype), aligned_empty(r.shape, r.dtype)
    rank, rcond = (np.empty(r.shape[:-2], real_dtype(r)) for _ in range(2))
    d = r.shape[-1]
    floor = max(FLOOR * d * _eps(r), 2 * cutoff)
    for index in np.ndindex(*r.shape[:-2]):
        one = r[index] if np.isfinite(r[index]).all() else np.eye(d, dtype=r.dtype)
        upper = np.asfortranarray(np.triu(one))
        condition = _condition(upper)
        if condition > floor:
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
    found = _by_cholesky(f, shift[0], v[:, 0]) if len(shift) == 1 else None
    return _by_singular_values(f, shift, v) if found is None else found


def _by_cholesky(f: np.ndarray, shift: float, v: np.ndarray) -> float | None:
    """None where rounding errors of the Gram matrix would count."""
    columns = np.asfortranarray(f)
    if is_upper(f):
        g = library(f.dtype).trmm(1.0, columns, columns, trans_a=library(f.dtype).adjoint)
    else:
        g = f.conj().T @ f
    d = f.shape[0]
    g.flat[:: d + 1] += shift
    r, failed = _lapack(f.dtype).potrf(g, overwrite_a=1)
    pivots = np.abs(r.flat[:: d + 1])
    if failed or not pivots.min() ** 2 > PIVOT * d * _eps(f) * pivots.max() ** 2:
        return None
    z, _ = _lapack(f.dtype).potrs(r, v)
    return math.sqrt(np.vdot(v, z).real)


def _by_singular_values(f: np.ndarray, shift: np.ndarray, v: np.ndarray) -> Any:
    _, s, vh = np.linalg.svd(f)
    s = np.where(s > _eps(f) * s[0], s, 0)[:, None]
    total = np.where(s > 0, s * s + shift, np.inf)
    return np.sqrt(np.sum(np.abs(vh @ v) ** 2 / total, axis=0))
