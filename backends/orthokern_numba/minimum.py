"""The least sum of two rows, in one pass that does not wait for its own result."""

from __future__ import annotations

import numba
import numpy as np

# Below this length four running minima do not pay.
SHORT = 48


@numba.njit(cache=True, fastmath={"nnan", "nsz"})
def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Least ``x + y``. Compilers do not take a minimum of floating numbers apart, so this is written out."""
    a = b = c = d = np.inf
    whole = len(x) // 4 * 4 if len(x) >= SHORT else 0
    for j in range(0, whole, 4):
        a = min(a, x[j] + y[j])
        b = min(b, x[j + 1] + y[j + 1])
        c = min(c, x[j + 2] + y[j + 2])
        d = min(d, x[j + 3] + y[j + 3])
    for j in range(whole, len(x)):
        a = min(a, x[j] + y[j])
    return min(a, b, c, d)
