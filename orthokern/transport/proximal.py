r"""Proximal point method for transport whose dual is not smooth: sparse columns, and no regularizer at all.

Every outer step adds :math:`\|T - \bar T\|^2 / (2 \tau)` with the plan :math:`\bar T` found before, which makes the
dual one that a semismooth Newton iteration maximises; ``tau`` grows, and comes back down where it grew too fast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.linalg import adjoint
from .._core.namespace import namespace
from .._core.progress import tell
from .codes import OTStatus
from .newton import (
    LEAST_TOLERANCE,
    RUNNING,
    Point,
    Subproblem,
    advance,
    choose,
    evaluate,
    maximised,
    potentials,
    quadratic,
    refuse_traced,
    stats,
    transposed,
    unbounded,
)
from .objective import dual_value, primal_value

# Quadratic problem that the first plan comes from: its error, and gamma where the problem has none.
START_ERROR, START_GAMMA = 1e-3, 0.02
# First tau times gamma, growth after a solved subproblem, reduction after one that failed.
FIRST_TAU, GROWTH, ROLLBACK = 0.2, 1.5, 0.25
# Error of the first subproblem, its reduction from one to the next, and Newton steps for each.
INNER_ERROR, INNER_REDUCTION, INNER_STEPS = 1e-2, 0.3, 40
# Subproblems in a row that may fail.
FAILURES = 20


@op()
def proximal_plan(
    a: Any, b: Any, cost: Any, gamma: Any, /, *, k: int, tol: float, max_iter: int
) -> tuple[Any, Any, Any, Any]:
    """``(plan, alpha, beta, stats)`` of transport with ``gamma / 2`` times the squared k-support norm of each column.

    Arrays are canonical: ``a`` (..., m), ``b`` (..., n), ``cost`` (..., m, n), ``gamma`` (..., 1, 1), which may be
    zero; ``max_iter`` counts Newton steps, each of which costs a dense solve of order m. Ends where duality gap over
    ``1 + gamma`` and error of the marginals are at most ``tol``.
    """
    refuse_traced(cost, "proximal_plan")
    return _solved(a, b, cost, gamma, k, tol, max_iter)


@op()
def exact_plan(
    a: Any, b: Any, cost: Any, /, *, tol: float, max_iter: int | None
) -> tuple[Any, Any, Any, Any]:
    """``(plan, alpha, beta, stats)`` of transport without regularizer; arrays are canonical.

    The potentials are feasible, ``alpha_i + beta_j <= C_ij``, wherever there is mass.
    """
    refuse_traced(cost, "exact_plan")
    gamma = namespace(cost).zeros_like(cost[..., :1, :1])
    return _solved(
        a, b, cost, gamma, cost.shape[-2], tol, MOST_STEPS if max_iter is None else max_iter
    )


# Newton steps at most where no limit is given.
MOST_STEPS = 5000


class Outer(NamedTuple):
    """Where every member stands.

    ``anchor`` is the point that the current subproblem started from, ``count`` the number of subproblems solved,
    ``inner`` that of Newton steps in the current one, ``failures`` that of rollbacks since the last one solved.
    """

    point: Point
    anchor: Point
    near: Any
    tau: Any
    count: Any
    inner: Any
    failures: Any
    steps: Any
    status: Any


def _solved(
    a: Any, b: Any, cost: Any, gamma: Any, k: int, tol: float, max_iter: int
) -> tuple[Any, Any, Any, Any]:
    xp = namespace(cost)
    given = transposed(a, b, cost)
    tol = max(tol, LEAST_TOLERANCE * eps(cost))
    state = _begun(given, gamma, k, max_iter)
    for _ in range(max_iter + 1):
        state = _judged(given, gamma, k, tol, max_iter, state)
        if bool(xp.all(state.status != RUNNING)):
            break
        state = _stepped(given, gamma, k, state)
        tell(state.steps, state.point.error)
    return _answer(given, gamma, state)


def _begun(given: tuple[Any, Any, Any], gamma: Any, k: int, max_iter: int) -> Outer:
    """The plan and the potentials of a quadratic problem."""
    xp = namespace(gamma)
    nearby = xp.where(gamma > 0, gamma, START_GAMMA)
    start = maximised(given, nearby, START_ERROR, max_iter)
    m = given[2].shape[-1]
    point = evaluate(quadratic(*given, nearby), start.best.alpha, start.best.beta, m)
    ended = (start.status == float(OTStatus.INFEASIBLE)) | (start.status == RUNNING)
    code = xp.where(start.status == RUNNING, float(OTStatus.MAX_ITER), start.status)
    status = xp.where(ended, code, RUNNING + xp.zeros_like(code))
    none = xp.zeros_like(gamma)
    outer = Outer(
        point, point, point.plan, FIRST_TAU / nearby, none, none, none, start.steps, status
    )
    return _renewed(given, gamma, k, outer)


def _problem(given: tuple[Any, Any, Any], gamma: Any, state: Outer) -> Subproblem:
    return Subproblem(*given, state.tau, state.tau * gamma, state.near)


def _renewed(given: tuple[Any, Any, Any], gamma: Any, k: int, state: Outer) -> Outer:
    """The point of ``state`` evaluated for the subproblem that it is at now."""
    problem = _problem(given, gamma, state)
    return state._replace(point=evaluate(problem, state.point.alpha, state.point.beta, k))


def _judged(
    given: tuple[Any, Any, Any], gamma: Any, k: int, tol: float, max_iter: int, state: Outer
) -> Outer:
    """Members that have ended marked, solved subproblems replaced by the next, failed ones begun anew."""
    xp = namespace(gamma)
    point, status = state.point, state.status
    running = status == RUNNING
    solved = point.error <= xp.clip(INNER_ERROR * INNER_REDUCTION**state.count, tol, None)
    failed = ~solved & (state.inner >= INNER_STEPS)
    certified = (point.error <= tol) & running
    if bool(xp.any(certified)):
        certified = certified & (xp.abs(_gap(given, gamma, k, point)) <= tol * (1 + gamma))
    for code, holds in (
        (OTStatus.MAX_ITER, state.steps >= max_iter),
        (OTStatus.STALLED, state.failures >= FAILURES),
        (OTStatus.INFEASIBLE, unbounded(_problem(given, gamma, state), point)),
        (OTStatus.CONVERGED, certified),
    ):
        status = xp.where(running & holds, float(code), status)
    state = state._replace(status=status)
    running = status == RUNNING
    return _next(given, gamma, k, state, running & solved, running & failed)


def _next(
    given: tuple[Any, Any, Any], gamma: Any, k: int, state: Outer, solved: Any, failed: Any
) -> Outer:
    xp = namespace(gamma)
    turned = solved | failed
    if not bool(xp.any(turned)):
        return state
    anchor = choose(solved, state.point, state.anchor)
    same = xp.ones_like(gamma)
    factor = xp.where(solved, GROWTH, xp.where(failed, ROLLBACK, same))
    fresh = Outer(
        choose(failed, anchor, state.point),
        anchor,
        xp.where(solved, state.point.plan, state.near),
        state.tau * factor,
        state.count + xp.astype(solved, gamma.dtype),
        xp.where(turned, 0.0, state.inner),
        xp.where(solved, 0.0, state.failures + xp.astype(failed, gamma.dtype)),
        state.steps,
        state.status,
    )
    renewed = _renewed(given, gamma, k, fresh)
    return fresh._replace(point=choose(turned, renewed.point, state.point))


def _gap(given: tuple[Any, Any, Any], gamma: Any, k: int, point: Point) -> Any:
    a, b, cost = given[0][..., 0, :], given[1][..., :, 0], adjoint(given[2])
    primal = primal_value(adjoint(point.plan), cost, gamma, k)
    dual = dual_value(a, b, cost, point.alpha[..., 0, :], point.beta[..., :, 0], gamma, k)
    return (primal - dual)[..., None, None]


def _stepped(given: tuple[Any, Any, Any], gamma: Any, k: int, state: Outer) -> Outer:
    xp = namespace(gamma)
    running = state.status == RUNNING
    point, found = advance(_problem(given, gamma, state), state.point, running, k)
    one = xp.astype(running, gamma.dtype)
    return state._replace(
        point=point,
        inner=xp.where(found, state.inner + one, float(INNER_STEPS)),
        steps=state.steps + one,
    )


def _answer(given: tuple[Any, Any, Any], gamma: Any, state: Outer) -> tuple[Any, Any, Any, Any]:
    """The certified point, or the last solved subproblem."""
    xp = namespace(gamma)
    a, b, cost = given
    done = state.status == float(OTStatus.CONVERGED)
    point = choose(done, state.point, state.anchor)
    plan = xp.where(done, state.point.plan, state.near)
    room = xp.min(cost - point.alpha, axis=-1, keepdims=True)
    feasible = xp.where(room < float("inf"), room, xp.zeros_like(room))
    beta = xp.where(gamma > 0, point.beta, feasible)
    error = xp.sum(xp.abs(a - xp.sum(plan, axis=-2, keepdims=True)), axis=-1, keepdims=True)
    error = error + xp.sum(xp.abs(b - xp.sum(plan, axis=-1, keepdims=True)), axis=-2, keepdims=True)
    found = potentials(a[..., 0, :], b[..., :, 0], point.alpha, beta)
    return adjoint(plan), *found, stats(state.steps, error, state.status)
