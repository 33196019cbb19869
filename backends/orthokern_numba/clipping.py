"""Singular values clipped or pressed below a limit, one matrix at a time.

By the eigenvalues of the Gram matrix, at half the time of a singular value decomposition, while the limit is not far
below the norm; else by that decomposition. A function of the Gram matrix has its rounding errors, which are eps times
the square of the norm, multiplied by the function's slope: that is what the limits below keep harmless.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from .library import aligned_empty
from .products import upper_gram
from .small import LARGEST
from .spectral import thin_svd

# Largest norm over limit for the Gram matrix: the errors are about r^2 / 2 eps of the norm where values are cut, and
# r^3 / 2 eps of the limit where they are pressed.
CUT_RATIO, PRESS_RATIO = 20.0, 8.0


def too_small(x: np.ndarray, *limits: np.ndarray) -> str | None:
    """Why ``x`` is declined; None if it is not."""
    if x.shape[-1] <= LARGEST:
        return f"matrices of up to {LARGEST} columns go together, as polar factors"
    return "a lower limit runs as polar factors" if len(limits) > 1 else None


def clipped(x: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Tall matrices of ``x`` (..., m, n) with singular values of at most ``top`` (..., 1, 1).

    Flops: m n^2 + 9 n^3, and 4 m n for each singular value above the limit. Error: a few hundred eps of the norm at
    most, a few where the limit is above a fifth of it.
    """
    return _each(x, top, _cut)


def pressed(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Tall matrices of ``x`` (..., m, n) with singular values ``s / sqrt(1 + (s / c)^2)``; flops: 5 m n^2 + 9 n^3."""
    return _each(x, c, _press)


def _each(
    x: np.ndarray, limit: np.ndarray, function: Callable[[np.ndarray, float], np.ndarray]
) -> np.ndarray:
    out = aligned_empty(x.shape, x.dtype)
    limits = np.broadcast_to(limit, (*x.shape[:-2], 1, 1))
    for index in np.ndindex(*x.shape[:-2]):
        out[index] = function(x[index], float(limits[index][0, 0]))
    return out


def _spectrum(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of ``A^H A`` in increasing order, and its eigenvectors."""
    values, q = scipy.linalg.eigh(
        upper_gram(a), lower=False, driver="evd", overwrite_a=True, check_finite=False
    )
    return values, q


def _cut(a: np.ndarray, c: float) -> np.ndarray:
    values, q = _spectrum(a)
    if not values[-1] <= (CUT_RATIO * c) ** 2:
        p, s, qh = thin_svd(a)
        return (p * np.minimum(s, s.dtype.type(c))) @ qh  # type: ignore[no-any-return]
    above = q[:, np.searchsorted(values, c * c) :]
    excess = 1 - c / np.sqrt(values[len(values) - above.shape[1] :])
    return a - ((a @ above) * excess.astype(values.dtype)) @ above.conj().T  # type: ignore[no-any-return]


def _press(a: np.ndarray, c: float) -> np.ndarray:
    values, q = _spectrum(a)
    if not values[-1] <= (PRESS_RATIO * c) ** 2:
        p, s, qh = thin_svd(a)
        return (p * (s * (c / np.hypot(s, c))).astype(s.dtype)) @ qh  # type: ignore[no-any-return]
    gain = c / np.hypot(np.sqrt(np.maximum(values, 0)), c)
    return ((a @ q) * gain.astype(values.dtype)) @ q.conj().T  # type: ignore[no-any-return]
