"""Linear assignment: the cheapest way to give each row a column of its own, and the potentials that prove it."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision
from .._core.errors import UnsupportedError, ValuesError
from .._core.linalg import adjoint, nan_unless
from .._core.loop import State, iterate
from .._core.namespace import device, is_lazy, is_traced, namespace
from .._core.typing import ArrayT

INF = float("inf")


class AssignmentInfo(NamedTuple, Generic[ArrayT]):
    """``gap``: the value less that of the potentials; ``converged``: False where no pairing is whole; both (...).

    The gap is zero up to rounding, and infinite where too many pairs are forbidden.
    """

    gap: ArrayT
    converged: ArrayT


class AssignmentResult(NamedTuple, Generic[ArrayT]):
    """Pairs, in the order of their rows, their total cost, and potentials of rows and columns."""

    rows: ArrayT
    columns: ArrayT
    value: ArrayT
    alpha: ArrayT
    beta: ArrayT
    info: AssignmentInfo[ArrayT]


@kernel(ops=("assignment",))
def linear_assignment(
    cost: ArrayT, /, *, maximize: bool = False, backend: str | None = None
) -> AssignmentResult[ArrayT]:
    r"""Cheapest pairing of min(m, n) rows and columns: :math:`\min \sum_k C_{r_k c_k}`, all rows and columns distinct.

    Optimal potentials come with it: :math:`\alpha_i + \beta_j \le C_{ij}` for all pairs, with equality for the chosen
    ones; on the longer side they are nonpositive, and zero for whatever has no partner. So
    :math:`\sum_i \alpha_i + \sum_j \beta_j` is a lower bound of every pairing's cost, and here equal to the best one's.

    Parameters
    ----------
    cost : array (..., m, n)
        Real floating; low precision is computed in float32. Plus infinity forbids a pair. NaN and minus infinity are
        refused (eager only).
    maximize : bool
        Find the dearest pairing: all inequalities turn round, and minus infinity forbids a pair.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    rows, columns : integer arrays (..., min(m, n))
        Row and column of each pair, rows in order. A row (m <= n) or column (m > n) that can get no partner has -1.
    value : array (...)
        Total cost, in float32 for low precision; infinite where min(m, n) pairs are not possible.
    alpha, beta : arrays (..., m), (..., n)
        Potentials of rows and columns, in the dtype of ``cost``.
    info : AssignmentInfo
        ``gap``, ``converged``.

    Notes
    -----
    Flops: at most about m^2 n. The reference looks for one shortest path after the other. With Numba a bidding phase
    leaves few of them, and costs that make paths long go over to the network simplex method.

    The derivative of ``value`` with respect to ``cost`` is one at the chosen pairs and zero elsewhere. Pairs and
    potentials are piecewise constant and count as constants. A Dask array has to be computed, or mapped over blocks.

    References
    ----------
    R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
    Computing 38 (1987); D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52 (2016).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> cost = np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
    >>> rows, columns, value, *_ = orthokern.linear_assignment(cost)
    >>> columns.tolist(), float(value)
    ([1, 0, 2], 5.0)
    """
    given: Any = cost
    check.matrix(given, kernel="linear_assignment", name="cost")
    check.real(given, kernel="linear_assignment", name="cost")
    check.flag(maximize, kernel="linear_assignment", name="maximize")
    values = compute_precision(given)
    values = -values if maximize else values
    _refuse_values(values, maximize)
    is_tall = values.shape[-2] > values.shape[-1]
    pairing = _pairing(adjoint(values) if is_tall else values)
    return _packed(pairing, given, is_tall=is_tall, sign=-1.0 if maximize else 1.0)


def _refuse_values(values: Any, maximize: bool) -> None:
    """NaN, and the infinity that would be chosen at any price."""
    if is_traced(values) or is_lazy(values) or 0 in values.shape:
        return
    # The minimum of anything with NaN is NaN.
    if not bool(namespace(values).min(values) > -INF):
        infinity = "plus" if maximize else "minus"
        message = (
            f"linear_assignment: expected every entry of cost to be neither NaN nor {infinity} infinity; "
            "correct cost before the call"
        )
        raise ValuesError(message)


class _Pairing(NamedTuple):
    """Column, or -1, of each row of a problem that has no more rows than columns."""

    columns: Any
    value: Any
    alpha: Any
    beta: Any


def _pairing(cost: Any) -> _Pairing:
    xp = namespace(cost)
    *batch, m, n = cost.shape
    if 0 in cost.shape:
        sizes = ((), (m,), (n,))
        nothing = [
            xp.zeros((*batch, *size), dtype=cost.dtype, device=device(cost)) for size in sizes
        ]
        return _Pairing(xp.broadcast_to(_numbers(m, cost), (*batch, m)), *nothing)
    columns, alpha, beta = assignment(constant(cost))
    alone = columns < 0
    places = xp.where(alone, xp.zeros_like(columns), columns)
    paid = xp.take_along_axis(cost, places[..., None], axis=-1)[..., 0]
    return _Pairing(columns, xp.sum(xp.where(alone, INF, paid), axis=-1), alpha, beta)


def _packed(found: _Pairing, cost: Any, *, is_tall: bool, sign: float) -> AssignmentResult[Any]:
    xp = namespace(cost)
    gap = found.value - (xp.sum(found.alpha, axis=-1) + xp.sum(found.beta, axis=-1))
    # A traced call has not refused NaN, but its rows have no potential.
    value = sign * nan_unless(~xp.isnan(gap), found.value)
    rows, columns = _numbers(found.columns.shape[-1], cost) + 0 * found.columns, found.columns
    alpha, beta = (xp.astype(sign * x, cost.dtype, copy=False) for x in (found.alpha, found.beta))
    if is_tall:
        rows, columns = xp.sort(found.columns, axis=-1), xp.argsort(found.columns, axis=-1)
        alpha, beta = beta, alpha
    return AssignmentResult(rows, columns, value, alpha, beta, AssignmentInfo(gap, gap < INF))


def _numbers(count: int, like: Any) -> Any:
    return namespace(like).arange(count, device=device(like))


@op()
def assignment(cost: Any, /) -> Any:
    """``(columns, alpha, beta)`` for ``cost`` (..., m, n), 1 <= m <= n, without NaN and minus infinity.

    ``columns`` (..., m) has -1 for rows that can get none. Rows come one after the other, each along the shortest
    path to a free column: all problems of the batch at once.
    """
    if is_lazy(cost):
        message = "linear_assignment: Dask arrays are not served; call .compute() or map it over the blocks"
        raise UnsupportedError(message)
    xp = namespace(cost)
    *batch, m, n = cost.shape
    rows = _numbers(m, cost)
    nobody = xp.zeros((*batch, n), dtype=rows.dtype, device=device(cost)) - 1
    # Zeros that are traced where the costs are, as the loop has to be then.
    beta = xp.clip(xp.abs(cost[..., 0, :]), 0.0, 0.0)
    start = xp.zeros((), dtype=rows.dtype, device=device(cost))

    def add_row(state: State) -> State:
        beta, owner, row = state
        return *_with_row(cost, beta, owner, row), row + 1

    def all_rows(state: State) -> Any:
        return state[2] == m

    (beta, owner, _), _ = iterate(add_row, (beta, nobody, start), done=all_rows, max_steps=m)
    held = xp.astype(owner[..., None, :] == rows[:, None], rows.dtype)
    columns = xp.sum(held * (_numbers(n, cost) + 1), axis=-1) - 1
    alpha = xp.min(cost - beta[..., None, :], axis=-1)
    return columns, xp.where(alpha == INF, xp.zeros_like(alpha), alpha), beta


def _with_row(cost: Any, beta: Any, owner: Any, row: Any) -> tuple[Any, Any]:
    """``(beta, owner)`` with one more row assigned, by Dijkstra's method on the reduced costs."""
    xp = namespace(cost)
    places, zero = _numbers(cost.shape[-1], cost), xp.zeros_like(beta[..., :1])

    def look(state: State) -> State:
        """Ways to the open columns by one more row, and the nearest of them, whose owner is the next row."""
        distance, before, is_open, here, low, row = state
        moving = _moving(low, row)
        reduced = _entries(cost, row) - beta
        base = xp.where(moving, low[..., None], zero) - _picked(moving & here, reduced)[..., None]
        way = base + reduced
        nearer = moving & is_open & (way < distance)
        distance = xp.where(nearer, way, distance)
        before = xp.where(nearer, row[..., None], before)
        ahead = xp.where(is_open, distance, xp.full_like(distance, INF))
        nearest = places == xp.argmin(ahead, axis=-1)[..., None]
        here = xp.where(moving, nearest, here)
        low = xp.where(moving[..., 0], xp.min(ahead, axis=-1), low)
        row = xp.where(moving[..., 0], _picked(here, owner), row)
        return distance, before, is_open & ~(moving & here), here, low, row

    def arrived(state: State) -> Any:
        return ~xp.any(_moving(state[4], state[5]))

    distance = xp.zeros_like(beta) + INF
    nowhere = owner < -1
    first = row + xp.zeros_like(owner[..., 0])
    state = (distance, 0 * owner - 1, ~nowhere, nowhere, zero[..., 0], first)
    (distance, before, is_open, here, low, _), _ = iterate(
        look, state, done=arrived, max_steps=cost.shape[-2]
    )
    found = (low < INF)[..., None]
    level = xp.where(found, low[..., None], zero)
    return beta - xp.where(
        found & ~is_open, level - xp.where(is_open, zero, distance), zero
    ), _handed_on(owner, before, found & here)


def _moving(low: Any, row: Any) -> Any:
    """Searches that have neither reached a free column nor run out of ways."""
    return ((row >= 0) & (low < INF))[..., None]


def _handed_on(owner: Any, before: Any, here: Any) -> Any:
    """Along the path that ends ``here`` each row takes the column ahead of it, and leaves the one behind."""
    xp = namespace(owner)

    def hand_on(state: State) -> State:
        owner, here = state
        row = _picked(here, before)[..., None]
        behind = (owner == row) & xp.any(here, axis=-1, keepdims=True)
        return xp.where(here, row, owner), behind

    def all_ended(state: State) -> Any:
        return ~xp.any(state[1])

    (owner, _), _ = iterate(hand_on, (owner, here), done=all_ended, max_steps=owner.shape[-1])
    return owner


def _picked(mask: Any, values: Any) -> Any:
    """The entry that the mask marks, zero if none."""
    xp = namespace(values)
    return xp.sum(xp.where(mask, values, xp.zeros_like(values)), axis=-1)


def _entries(cost: Any, row: Any) -> Any:
    """One row of each matrix, zero for the row -1."""
    xp = namespace(cost)
    chosen = _numbers(cost.shape[-2], cost)[:, None] == row[..., None, None]
    return xp.sum(xp.where(chosen, cost, xp.zeros_like(cost)), axis=-2)
