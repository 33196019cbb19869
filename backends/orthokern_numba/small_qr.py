"""Small ill-conditioned least-squares problems by Householder reflections and refinement, in compiled code.

Matrices are held by columns: row j of ``columns`` is column j.
"""

from __future__ import annotations

import math

import numba
import numpy as np

EPS = 2.0**-52
# Condition numbers, in 1 / eps, at which ranks are decided on by singular values: for each column, and for the cutoff.
FLOOR, DOUBT = 30.0, 2.0


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _reflect(v: np.ndarray, beta: float, x: np.ndarray) -> None:
    """``x -= beta v (v^T x)``."""
    inner = 0.0
    for i in range(len(v)):
        inner += v[i] * x[i]
    inner *= beta
    for i in range(len(v)):
        x[i] -= inner * v[i]


@numba.njit(cache=True)
def _reflector(x: np.ndarray) -> tuple[float, float]:
    """``x`` becomes the vector of the reflection that takes it to ``r e_1``: ``(r, beta)``."""
    norm = math.sqrt(np.dot(x, x))
    if norm == 0.0:
        return 0.0, 0.0
    r = -math.copysign(norm, x[0])
    x[0] -= r
    return r, -1.0 / (r * x[0])


@numba.njit(cache=True)
def factorized(columns: np.ndarray, right: np.ndarray, r: np.ndarray) -> None:
    """R of ``columns`` (d, n), which are overwritten; ``right`` (k, n) becomes ``Q^T`` times what it was."""
    d = columns.shape[0]
    r[:] = 0.0
    for j in range(d):
        v = columns[j, j:]
        r[j, j], beta = _reflector(v)
        for m in range(j + 1, d):
            _reflect(v, beta, columns[m, j:])
            r[j, m] = columns[m, j]
        for k in range(right.shape[0]):
            _reflect(v, beta, right[k, j:])


@numba.njit(cache=True, fastmath={"contract", "nsz"})
def damped_factor(r: np.ndarray, shift: float, work: np.ndarray, out: np.ndarray) -> None:
    """R of an upper triangular ``r`` with ``sqrt(shift) I`` below it; ``work`` (d, d) is overwritten."""
    d = r.shape[0]
    out[:] = r
    work[:] = 0.0
    for j in range(d):
        work[j, j] = math.sqrt(shift)
    # Row i of what stands below has entries from column i on, so that column j meets the rows up to j.
    for j in range(d):
        total = out[j, j] ** 2
        for i in range(j + 1):
            total += work[i, j] ** 2
        if total == 0.0:
            continue
        top = -math.copysign(math.sqrt(total), out[j, j])
        head = out[j, j] - top
        beta = -1.0 / (top * head)
        out[j, j] = top
        for m in range(j + 1, d):
            inner = head * out[j, m]
            for i in range(j + 1):
                inner += work[i, j] * work[i, m]
            inner *= beta
            out[j, m] -= inner * head
            for i in range(j + 1):
                work[i, m] -= inner * work[i, j]


@numba.njit(cache=True)
def most_condition(n: int, d: int) -> float:
    """The largest condition number whose full rank is beyond doubt."""
    return 1.0 / (EPS * max(FLOOR * d, DOUBT * max(n, d)))
