"""Scaling by powers of two: one reduction, then one pass over the entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernels import kernel
from .library import reduced

# Largest exponents for which the power and its reciprocal are both normal.
LIMITS = {"f": 125, "d": 1021}


def balance(x: Any, *, cp: Any) -> tuple[Any, Any]:
    """``(y, undo)`` with each matrix of ``x`` (..., m, n) scaled to a largest entry in [0.5, 1), without a host sync.

    ``y * undo`` is ``x`` bit for bit, but for what is subnormal in single precision: CuPy compiles for such numbers
    to count as zero. A member with NaN or infinity becomes the identity in ``y`` and NaN in ``undo``. Three passes
    over the memory of ``x``, no temporary of its size.
    """
    height, width = (np.int32(size) for size in x.shape[-2:])
    bound = reduced("largest", x, (-2, -1), cp)
    limit = np.int32(LIMITS[x.dtype.char.lower()])
    scale, undo = kernel("powers", x, cp)(bound, limit)
    return kernel("rescale", x, cp)(x, scale, height, width), undo
