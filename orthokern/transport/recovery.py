"""Plans with at most k entries in each column, from the optimum of the problem without that condition made convex.

Whether such a plan with given marginals exists is hard to decide in general; what is found here is feasible, and the
certificate says how far from the best one it can be.
"""

from __future__ import annotations

from typing import Any

from .._core.errors import UnsupportedError
from .._core.namespace import is_traced, namespace
from .canonical import INFINITY, Canonical
from .codes import OTStatus, Stat
from .implicit import response
from .kinds import Effort, Kind, Quadratic, Solution, Sparse, largest_of_columns
from .newton import quadratic_potentials
from .proximal import exact_plan

# Attempts to move mass out of columns that are full.
ROUNDS = 4
# Corrections of the marginals of what was found.
TOUCHES = 3


def recovered(
    kind: Kind, problem: Canonical, solution: Solution, effort: Effort, recover: str
) -> tuple[Any, Any]:
    """``(plan, status)`` in canonical units, as ``recover`` wants it."""
    status = solution.stats[..., Stat.STATUS]
    if recover == "feasible" and isinstance(kind, Sparse):
        return _feasible_plans(kind, problem, solution, effort, status)
    if solution.plan is not None and recover == "relaxed":
        return solution.plan, status
    if not isinstance(kind, Sparse) and solution.plan is not None:
        return solution.plan, status
    slack = solution.alpha[..., :, None] + solution.beta[..., None, :] - problem.cost
    return kind.plan(slack), status


def _feasible_plans(
    kind: Sparse, problem: Canonical, solution: Solution, effort: Effort, status: Any
) -> tuple[Any, Any]:
    """Member by member."""
    xp = namespace(problem.cost)
    if is_traced(problem.cost):
        message = "solve_ot: recover='feasible' searches, and cannot be traced; pass recover='relaxed' under jit"
        raise UnsupportedError(message)
    slack = solution.alpha[..., :, None] + solution.beta[..., None, :] - problem.cost
    arrays = [
        xp.reshape(x, (-1, *x.shape[x.ndim - d :]))
        for x, d in (
            (problem.a, 1),
            (problem.b, 1),
            (problem.cost, 2),
            (kind.gamma, 2),
            (solution.plan, 2),
            (slack, 2),
        )
    ]
    plans, codes = [], []
    for i, code in enumerate(xp.reshape(status, (-1,))):
        plan, found = _feasible_plan(*(x[i, ...] for x in arrays), k=kind.k, tol=effort.tol)
        plans.append(plan)
        codes.append(code if found else xp.full_like(code, float(OTStatus.NO_FEASIBLE_KSPARSE)))
    return (
        xp.reshape(xp.stack(plans), problem.cost.shape),
        xp.reshape(xp.stack(codes), status.shape),
    )


def _feasible_plan(
    a: Any, b: Any, cost: Any, gamma: Any, relaxed: Any, slack: Any, *, k: int, tol: Any
) -> tuple[Any, bool]:
    """A plan with at most ``k`` entries in each column and these marginals, and whether it is one.

    The first follows the relaxed plan. Each next one follows the optimum over the places of the last and one more in
    each column, that of the largest slack, as long as the value falls.
    """
    xp = namespace(cost)
    kind = Sparse(gamma, k, convex=False)
    best, least, wish = largest_of_columns(relaxed, k), INFINITY, relaxed
    for _ in range(ROUNDS):
        flow, found = _flow_through(a, b, cost, largest_of_columns(wish, k) > 0, k=k, tol=tol)
        if not found:
            break
        places = largest_of_columns(_preference(flow, wish, slack), k) > 0
        plan, slack, solved = _optimum_on(places, a, b, cost, gamma, tol)
        plan = plan if solved else flow
        value = float(xp.sum(plan * xp.where(plan > 0, cost, 0 * plan)) + kind.penalty(plan))
        if not value < least:
            break
        best, least = _with_marginals(plan, a, b), value
        more = xp.where(places, xp.zeros_like(plan), _preference(0 * plan, 0 * plan, slack))
        wish = _optimum_on(places | (largest_of_columns(more, 1) > 0), a, b, cost, gamma, tol)[0]
    return best, least < INFINITY


def _with_marginals(plan: Any, a: Any, b: Any) -> Any:
    """The plan whose marginals are exact up to rounding: each entry is multiplied by nearly one."""
    xp = namespace(plan)
    error = _error(plan, a, b)
    for _ in range(TOUCHES):
        flat = plan.shape[0] <= plan.shape[1]
        weights, rows, columns = (plan, a, b) if flat else (xp.matrix_transpose(plan), b, a)
        lacking = rows - xp.sum(weights, axis=-1), columns - xp.sum(weights, axis=-2)
        x, y = response(weights, *lacking)
        change = x[:, None] + y[None, :]
        touched = plan * (1 + (change if flat else xp.matrix_transpose(change)))
        better = _error(touched, a, b)
        if not (bool(xp.all(touched >= 0)) and better < error):
            break
        plan, error = touched, better
    return plan


def _error(plan: Any, a: Any, b: Any) -> float:
    xp = namespace(plan)
    rows, columns = xp.sum(plan, axis=-1), xp.sum(plan, axis=-2)
    return float(xp.sum(xp.abs(a - rows)) + xp.sum(xp.abs(b - columns)))


def _preference(flow: Any, wish: Any, slack: Any) -> Any:
    """How much each place is wanted: first for the flow, then as wished, then the less it costs."""
    xp = namespace(flow)
    near = xp.exp(xp.clip(slack, None, 0.0))
    return xp.where(flow > 0, 4 + flow, xp.where(wish > 0, 2 + wish, near))


def _optimum_on(
    places: Any, a: Any, b: Any, cost: Any, gamma: Any, tol: Any
) -> tuple[Any, Any, bool]:
    """``(plan, slack, solved)`` of the quadratic problem in which only ``places`` may carry mass."""
    xp = namespace(cost)
    closed = xp.where(places, cost, xp.full_like(cost, INFINITY))
    limits = {"tol": tol, "max_iter": Quadratic.most_steps}
    alpha, beta, stats = quadratic_potentials(a, b, closed, gamma, **limits)
    sums = alpha[:, None] + beta[None, :]
    return Quadratic(gamma).plan(sums - closed), sums - cost, bool(stats[..., Stat.ERROR] <= tol)


def _flow_through(a: Any, b: Any, cost: Any, support: Any, *, k: int, tol: Any) -> tuple[Any, bool]:
    """A flow with few entries outside ``support``, and whether no column of it has more than ``k``."""
    xp = namespace(cost)
    price = xp.where(support, cost / 4, (1 + cost) / 2)
    flow, sliver = cost, tol / (4 * sum(cost.shape))
    for _ in range(ROUNDS):
        flow, *_, stats = exact_plan(a, b, price, tol=tol, max_iter=None)
        if not bool(stats[..., Stat.ERROR] <= tol):
            return flow, False
        # Masses that are no binary fractions leave slivers.
        flow = xp.where(flow > sliver, flow, xp.zeros_like(flow))
        kept = largest_of_columns(flow, k)
        if bool(xp.all(kept == flow)):
            return flow, True
        price = xp.where((flow > 0) & (kept == 0), xp.full_like(price, INFINITY), price)
    return flow, False
