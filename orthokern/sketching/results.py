"""What least-squares solvers return, and the codes in it."""

from __future__ import annotations

from enum import IntEnum
from typing import Generic, NamedTuple

from .._core.typing import ArrayT


class LstsqMethod(IntEnum):
    """Codes of ``info.method``: the way that led to the solution."""

    NONE = 0
    GRAM = 1
    PGRAM = 2
    SPIR = 3
    QR = 4
    SVD = 5
    SKETCH = 6


class LstsqStatus(IntEnum):
    """Codes of ``info.status``."""

    CONVERGED = 0
    NOT_BACKWARD_STABLE = 1
    FIXED = 2
    ONE_PASS = 3
    SKETCHED = 4
    NOT_FINITE = 5


class Stat(IntEnum):
    """Columns of the figures that a solver returns for each right-hand side; from ``ITERATIONS`` on whole numbers."""

    BACKWARD_ERROR = 0
    RESIDUAL = 1
    SQUARES = 2
    CONDITION = 3
    ERROR_BOUND = 4
    ITERATIONS = 5
    METHOD = 6
    STATUS = 7
    RANK = 8
    PASSES = 9
    SKETCH_ROWS = 10


class LstsqInfo(NamedTuple, Generic[ArrayT]):
    """How a solution was found and how good it is; arrays, so that it passes through jit.

    iterations
        Refinements (of the matrix, hence for all its right-hand sides).
    residual
        Norm ``||b - A x||`` of each right-hand side; with ``damp``, that of the problem with the rows ``damp I``.
    converged
        Whether the backward error came to a few eps, or to ``tol``.
    method, status
        Codes: :class:`LstsqMethod`, :class:`LstsqStatus`.
    backward_error
        Measured: an estimate, within a factor of sqrt(2), of the smallest change of A, relative to ``||A||_F`` with
        its columns scaled to norm 1, of which ``x`` is an exact solution.
    cond_estimate
        Condition number of A with columns of norm 1, estimated.
    passes
        How often A was read.
    sketch_rows
        Rows of the sketch, 0 without one.
    error_bound
        What the backward error and the condition number leave of the relative error of ``x``, to first order.
    """

    iterations: ArrayT
    residual: ArrayT
    converged: ArrayT
    method: ArrayT
    status: ArrayT
    backward_error: ArrayT
    cond_estimate: ArrayT
    passes: ArrayT
    sketch_rows: ArrayT
    error_bound: ArrayT


class LstsqResult(NamedTuple, Generic[ArrayT]):
    """``x`` minimizes ``||b - A x||``; ``residuals`` are squared norms; ``singular_values`` of A with "svd"."""

    x: ArrayT
    residuals: ArrayT
    rank: ArrayT
    singular_values: ArrayT | None
    info: LstsqInfo[ArrayT]
