"""Transport that need not meet its marginals: masses that change at a price, and masses of which a part stays."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.autodiff import constant, is_plain
from .._core.dtypes import dtype_name
from .._core.errors import ValuesError
from .._core.namespace import is_traced, namespace
from .bounds import Bounds, Evidence, Problem, reach
from .canonical import INFINITY, positive_or_one
from .certificate import MASS_TOLERANCE
from .codes import Stat
from .kinds import Effort, Entropic
from .sinkhorn import unbalanced_potentials

# What moving from nowhere to nowhere costs, in units of the largest cost: never worth it.
NOWHERE = 3.0


def solve_unbalanced(
    problem: Problem, kind: Entropic, rho: Any, effort: Effort
) -> tuple[Any, Any, Any, Bounds, Evidence]:
    """``(plan, alpha, beta, bounds, evidence)``; rho (..., 1, 1). The plan is ``a b^T exp(slack / epsilon)``.

    The value carries derivatives: those of the dual at constant potentials, by the theorem of the envelope.
    """
    a, b, cost = problem
    xp = namespace(cost)
    mass = positive_or_one(xp.sum(a, axis=-1, keepdims=True))[..., None]
    known = xp.abs(xp.where(cost < INFINITY, cost, xp.zeros_like(cost)))
    unit = positive_or_one(xp.max(known, axis=(-2, -1), keepdims=True))
    # The reference is a product of two masses: a unit of mass moves all costs.
    shifted = (cost - kind.epsilon * xp.log(mass)) / unit
    arrays = (a / mass[..., 0], b / mass[..., 0], shifted, kind.epsilon / unit, rho / unit)
    alpha, beta, stats = unbalanced_potentials(*map(constant, arrays), **effort.limits)
    alpha, beta = alpha * unit[..., 0], beta * unit[..., 0]
    plan = _plan(problem, kind.epsilon, alpha, beta)
    bounds = _priced(problem, kind.epsilon, rho, plan, alpha, beta)
    evidence = Evidence(
        tol=effort.tol,
        stats=stats,
        status=stats[..., Stat.STATUS],
        mass=mass[..., 0, 0],
        unit=unit[..., 0, 0],
        shift=xp.zeros_like(unit[..., 0, 0]),
        reach=reach(alpha, beta),
        fullest=xp.max(xp.count_nonzero(plan, axis=-2), axis=-1),
        ties=xp.zeros_like(unit[..., 0, 0]),
        pruned=xp.zeros_like(unit[..., 0, 0]),
    )
    return plan, alpha, beta, bounds, evidence


def _plan(problem: Problem, epsilon: Any, alpha: Any, beta: Any) -> Any:
    a, b, cost = problem
    slack = alpha[..., :, None] + beta[..., None, :] - cost
    return a[..., :, None] * b[..., None, :] * namespace(cost).exp(slack / epsilon)


def _priced(problem: Problem, epsilon: Any, rho: Any, plan: Any, alpha: Any, beta: Any) -> Bounds:
    """Values of the plan and of the potentials, which bound the optimum on either side without any marginal."""
    a, b, cost = problem
    xp = namespace(cost)
    strength, price = epsilon[..., 0, 0], rho[..., 0, 0]
    product = xp.sum(a, axis=-1) * xp.sum(b, axis=-1)
    shares = [xp.exp(-v / rho[..., 0]) for v in (alpha, beta)]
    kept = [xp.sum(w * (1 - share), axis=-1) for w, share in zip((a, b), shares, strict=True)]
    dual = price * (kept[0] + kept[1]) + strength * (product - xp.sum(plan, axis=(-2, -1)))
    linear = xp.sum(plan * xp.where(plan > 0, cost, xp.zeros_like(cost)), axis=(-2, -1))
    rows, columns = xp.sum(plan, axis=-1), xp.sum(plan, axis=-2)
    outer = a[..., :, None] * b[..., None, :]
    entropy = xp.sum(_divergence(plan, outer), axis=(-2, -1))
    paid = [xp.sum(_divergence(x, w), axis=-1) for x, w in ((rows, a), (columns, b))]
    primal = constant(linear + strength * entropy + price * (paid[0] + paid[1]))
    value = primal if all(map(is_plain, problem)) else dual + (primal - constant(dual))
    lost = [xp.abs(x - w * s) for x, w, s in zip((rows, columns), (a, b), shares, strict=True)]
    error = constant(xp.sum(lost[0], axis=-1) + xp.sum(lost[1], axis=-1))
    return Bounds(value, linear, constant(dual), error, primal)


def _divergence(x: Any, reference: Any) -> Any:
    """Terms of the generalized Kullback-Leibler divergence."""
    xp = namespace(x)
    some = x > 0
    ratio = xp.where(some, x, xp.ones_like(x)) / xp.where(some, reference, xp.ones_like(x))
    return xp.where(some, x * xp.log(ratio), xp.zeros_like(x)) - x + reference


def with_nowhere(problem: Problem, mass: Any, kernel: str) -> Problem:
    """A balanced problem with one more row and column, which take at no cost what is not to be moved."""
    a, b, cost = problem
    xp = namespace(cost)
    moved = check.per_matrix(mass, cost, kernel=kernel, name="mass")[..., 0]
    spare = [xp.sum(x, axis=-1, keepdims=True) - moved for x in (b, a)]
    least = -MASS_TOLERANCE[dtype_name(cost)] * moved
    if not is_traced(cost) and bool(xp.any(spare[0] < least) | xp.any(spare[1] < least)):
        message = f"{kernel}: expected mass to be at most the sums of a and of b; lower it"
        raise ValuesError(message)
    spare = [xp.clip(x, 0.0, None) for x in spare]
    known = xp.abs(xp.where(cost < INFINITY, cost, xp.zeros_like(cost)))
    corner = NOWHERE * positive_or_one(xp.max(constant(known), axis=(-2, -1), keepdims=True))
    wide = xp.concat([cost, xp.zeros_like(cost[..., :1])], axis=-1)
    last = xp.concat([xp.zeros_like(cost[..., :1, :]), corner], axis=-1)
    return Problem(
        xp.concat([a, spare[0]], axis=-1),
        xp.concat([b, spare[1]], axis=-1),
        xp.concat([wide, last], axis=-2),
    )
