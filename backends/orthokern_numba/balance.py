"""Scaling by powers of two in two passes, without temporaries; subnormal numbers are lifted exactly."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np


class _Format(NamedTuple):
    """How a real dtype stores numbers: as integers their moduli compare as the numbers do."""

    bits: type
    modulus: int
    limit: int


_FORMATS = {
    "f": _Format(np.uint32, 0x7FFFFFFF, 125),
    "d": _Format(np.uint64, 0x7FFFFFFFFFFFFFFF, 1021),
}


@numba.njit(cache=True)
def _largest(bits: np.ndarray, modulus: int) -> np.ndarray:
    """Bit pattern of the largest modulus in each row; integer maxima vectorize, and NaN is the largest of all."""
    found = np.zeros(bits.shape[0], dtype=bits.dtype)
    for i in range(bits.shape[0]):
        top = bits.dtype.type(0)
        for j in range(bits.shape[1]):
            top = max(top, bits[i, j] & modulus)
        found[i] = top
    return found


@numba.njit(cache=True)
def _scale_rows(
    rows: np.ndarray, bound: np.ndarray, limit: int, y: np.ndarray, undo: np.ndarray
) -> bool:
    """Scale each row of ``rows`` into ``y``; False if some bound is not finite."""
    clean = True
    for i in range(rows.shape[0]):
        if not math.isfinite(bound[i]):
            undo[i] = np.nan
            clean = False
            continue
        exponent = min(max(math.frexp(bound[i])[1], -limit), limit)
        undo[i] = math.ldexp(1.0, exponent)
        scale = rows.dtype.type(math.ldexp(1.0, -exponent))
        for j in range(rows.shape[1]):
            y[i, j] = rows[i, j] * scale
    return clean


def balance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(y, undo)`` with each matrix of ``x`` (..., m, n) scaled to a largest entry in [0.5, 1).

    The layout of ``x`` is kept where it is one of the two contiguous ones.
    """
    batch, (m, n) = x.shape[:-2], x.shape[-2:]
    turned = x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous
    source = x.T if turned else np.ascontiguousarray(x)
    real = np.dtype(x.dtype.char.lower())
    form = _FORMATS[real.char]
    y = np.empty_like(source)
    rows, out = source.reshape(-1, m * n), y.reshape(-1, m * n)
    undo = np.empty(rows.shape[0], dtype=real)
    bound = _largest(rows.view(form.bits), form.bits(form.modulus)).view(real)
    if not _scale_rows(rows.view(real), bound, form.limit, out.view(real), undo):
        identity = (np.eye(n, m) if turned else np.eye(m, n)).reshape(-1)
        out[np.isnan(undo)] = identity
    return y.T if turned else y, undo.reshape(*batch, 1, 1)
