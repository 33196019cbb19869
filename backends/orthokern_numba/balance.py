"""Scaling by powers of two in two passes, without temporaries; subnormal numbers are lifted exactly."""

from __future__ import annotations

import numba
import numpy as np

_LIMIT = {np.dtype(np.float32): 125, np.dtype(np.float64): 1021}


@numba.njit(cache=True)
def _largest(values: np.ndarray) -> np.ndarray:
    """Largest modulus in each row; NaN if the row holds a NaN."""
    found = np.zeros(values.shape[0], dtype=values.dtype)
    for i in range(values.shape[0]):
        top = values.dtype.type(0)
        total = values.dtype.type(0)
        for j in range(values.shape[1]):
            modulus = abs(values[i, j])
            top = max(top, modulus)
            total += modulus * 0
        found[i] = top + total
    return found


def _powers(bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and its reciprocal for each bound; see orthokern's reference for the capped ends."""
    limit = _LIMIT[bound.dtype]
    finite = np.isfinite(bound)
    exponent = np.clip(np.frexp(np.where(finite, bound, 0))[1], -limit, limit)
    one = bound.dtype.type(1)
    undo = np.where(finite, np.ldexp(one, exponent), np.nan).astype(bound.dtype)
    return np.ldexp(one, -exponent), undo


def balance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(y, undo)`` with each matrix of ``x`` (..., m, n) scaled to a largest entry in [0.5, 1).

    The layout of ``x`` is kept where it is one of the two contiguous ones.
    """
    batch, (m, n) = x.shape[:-2], x.shape[-2:]
    turned = x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous
    source = x.T if turned else np.ascontiguousarray(x)
    rows = source.reshape(-1, m * n)
    real = rows.view(rows.real.dtype)
    scale, undo = _powers(_largest(real))
    y = rows * scale[:, None]
    for i in np.flatnonzero(~np.isfinite(undo)):
        y[i] = (np.eye(n, m) if turned else np.eye(m, n)).reshape(-1)
    shaped = y.reshape(source.shape)
    return shaped.T if turned else shaped, undo.reshape(*batch, 1, 1)
