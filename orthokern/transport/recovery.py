"""Plans with at most k entries in each column, from the optimum of the problem without that condition made convex.

Whether such a plan with given marginals exists is hard to decide in general; what is found here is feasible, and the
certificate says how far from the best one it can be.
"""

from __future__ import annotations

from typing import Any

from .._core.errors import UnsupportedError
from .._core.namespace import is_traced, namespace
from .canonical import INFINITY, Canonical, OTStatus, Stat
from .kinds import Effort, Kind, Quadratic, Solution, Sparse, largest_of_columns
from .newton import quadratic_potentials
from .proximal import exact_plan

# Attempts to move mass out of columns that are full.
ROUNDS = 4


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
    arrays = [xp.reshape(x, (-1, *x.shape[x.ndim - d :])) for x, d in (
        (problem.a, 1), (problem.b, 1), (problem.cost, 2), (kind.gamma, 2), (solution.plan, 2)
    )]
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
    a: Any, b: Any, cost: Any, gamma: Any, relaxed: Any, *, k: int, tol: Any
) -> tuple[Any, bool]:
    """A plan with at most ``k`` entries in each column and these marginals, and whether it is one."""
    xp = namespace(cost)
    support = largest_of_columns(relaxed, k) > 0
    flow, found = _flow_through(a, b, cost, support, k=k, tol=tol)
    if not found:
        return largest_of_columns(relaxed, k), False
    # What the flow needs, and then what the relaxed plan likes best.
    support = largest_of_columns(xp.where(flow > 0, flow + 1, relaxed), k) > 0
    closed = xp.where(support, cost, xp.full_like(cost, INFINITY))
    alpha, beta, stats = quadratic_potentials(
        a, b, closed, gamma, tol=tol, max_iter=Quadratic.most_steps
    )
    if not bool(stats[..., Stat.ERROR] <= tol):
        return flow, True
    return xp.clip(alpha[:, None] + beta[None, :] - closed, 0.0, None) / gamma, True


def _flow_through(
    a: Any, b: Any, cost: Any, support: Any, *, k: int, tol: Any
) -> tuple[Any, bool]:
    """A flow with few entries outside ``support``, and whether no column of it has more than ``k``."""
    xp = namespace(cost)
    price = xp.where(support, cost / 4, (1 + cost) / 2)
    flow = cost
    for _ in range(ROUNDS):
        flow, *_, stats = exact_plan(a, b, price, tol=tol, max_iter=None)
        if not bool(stats[..., Stat.ERROR] <= tol):
            return flow, False
        kept = largest_of_columns(flow, k)
        if bool(xp.all(kept == flow)):
            return flow, True
        price = xp.where((flow > 0) & (kept == 0), xp.full_like(price, INFINITY), price)
    return flow, False
