"""What a solver of transport returns."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import numpy as np

from .._core.errors import UnsupportedError
from .._core.namespace import namespace
from .._core.typing import ArrayT


class SparsePlan(NamedTuple, Generic[ArrayT]):
    """The entries of a plan that are not zero, row by row: coordinates, values, and the shape of the whole."""

    rows: ArrayT
    columns: ArrayT
    values: ArrayT
    shape: tuple[int, int]


class OTInfo(NamedTuple, Generic[ArrayT]):
    """What ran, each an array in the batch shape.

    iterations
        Steps of the engine: Newton steps, pivots or sweeps.
    residual
        Marginal error of the engine's own problem, as a share of the mass.
    converged
        Whether marginals and gap meet the tolerance.
    status
        Code (:class:`OTStatus`).
    max_column_nnz
        Largest number of entries in a column of the plan.
    ties
        Number of columns with more than ``k`` entries (SparsityConstrained).
    pruned_mass
        Mass of the bins that were left out because together they hold less than the tolerance.
    """

    iterations: ArrayT
    residual: ArrayT
    converged: ArrayT
    status: ArrayT
    max_column_nnz: ArrayT
    ties: ArrayT
    pruned_mass: ArrayT


class OTResult(NamedTuple, Generic[ArrayT]):
    r"""A plan, and the proof of how good it is.

    plan
        (..., m, n), a :class:`SparsePlan`, a ``scipy.sparse.csr_array``, or None, as ``plan=`` asked.
    alpha, beta
        Potentials of rows and columns with equal means :math:`\langle\alpha, a\rangle = \langle\beta, b\rangle`.
    value
        Linear cost and regularizer of the plan.
    linear_cost
        :math:`\langle T, C\rangle`.
    dual_value, gap
        Value of the dual at the potentials, and ``value - dual_value``.
    marginal_error
        :math:`\|T 1 - a\|_1 + \|T^T 1 - b\|_1` with the caller's masses.
    lower_bound, upper_bound
        The optimum lies between them, whether or not the engine converged: the value of the dual, and that of a plan
        with exact marginals near the one returned.
    """

    plan: Any
    alpha: ArrayT
    beta: ArrayT
    value: ArrayT
    linear_cost: ArrayT
    dual_value: ArrayT
    gap: ArrayT
    marginal_error: ArrayT
    lower_bound: ArrayT
    upper_bound: ArrayT
    info: OTInfo[ArrayT]


def entries_of(plan: Any) -> SparsePlan[Any]:
    """The entries of a single dense plan that are not zero."""
    rows, columns = namespace(plan).nonzero(plan)
    return SparsePlan(rows, columns, plan[rows, columns], tuple(plan.shape))


def as_csr(plan: Any, kernel: str) -> Any:
    """A single plan of NumPy as SciPy's array in rows."""
    if not isinstance(plan, np.ndarray):
        message = f"{kernel}: expected NumPy arrays for plan='csr', got {type(plan).__name__}; pass plan='coo'"
        raise UnsupportedError(message)
    from scipy.sparse import csr_array

    return csr_array(plan)
