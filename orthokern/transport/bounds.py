"""What is known of a solution: its value, the value of the dual, its marginals, and bounds of the optimum."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.autodiff import constant, is_plain
from .._core.dtypes import eps
from .._core.namespace import is_traced, namespace
from .canonical import INFINITY, Canonical, positive_or_one
from .kinds import Kind, Linear, inner

# Marginal errors up to so many eps of the mass are rounding, which no plan is without.
MARGINAL_ROUNDING = 16.0


class Problem(NamedTuple):
    """Masses a (..., m), b (..., n) of equal sum and costs (..., m, n), with their batch shape in common."""

    a: Any
    b: Any
    cost: Any


class Bounds(NamedTuple):
    """Figures of one solution, each in the batch shape."""

    value: Any
    linear_cost: Any
    dual_value: Any
    marginal_error: Any
    upper_bound: Any


class Evidence(NamedTuple):
    """What is known of a run, each in the batch shape: figures of the engine, units, and the entries of the plan.

    ``tol`` is the tolerance that it was run to, None for a fixed number of steps; ``reach`` the largest potential.
    """

    tol: float | None
    stats: Any
    status: Any
    mass: Any
    unit: Any
    shift: Any
    reach: Any
    fullest: Any
    ties: Any
    pruned: Any


def full_potentials(
    problem: Problem, kind: Kind, units: Canonical, alpha: Any, beta: Any
) -> tuple[Any, Any]:
    """Canonical potentials in the caller's units, for every bin and feasible, with equal means.

    Bins that were left out get the largest potential that adds nothing to the dual.
    """
    xp = namespace(alpha)
    half = (units.shift + kind.lift(units.some_mass))[..., 0] / 2
    unit = units.unit[..., 0]
    inside = units.mass[..., 0] > 0
    rows, columns = units.rows & inside, units.columns & inside
    alpha, beta = unit * alpha + half, unit * beta + half
    if not kind.prunes:
        alpha = xp.where(rows, alpha, xp.full_like(alpha, -INFINITY))
        beta = xp.where(columns, beta, xp.full_like(beta, -INFINITY))
    elif is_traced(alpha) or not bool(xp.all(rows)) or not bool(xp.all(columns)):
        seen = xp.where(columns, beta, xp.full_like(beta, -INFINITY))
        alpha = xp.where(rows, alpha, _closest(problem.cost - seen[..., None, :], -1))
        beta = xp.where(columns, beta, _closest(problem.cost - alpha[..., :, None], -2))
    if isinstance(kind, Linear):
        beta = _closest(problem.cost - alpha[..., :, None], -2)
    return centred(problem.a, problem.b, alpha, beta)


def _closest(gaps: Any, axis: int) -> Any:
    """Least entry along ``axis``; 0 where all are infinite."""
    xp = namespace(gaps)
    least = xp.min(gaps, axis=axis)
    return xp.where(xp.isfinite(least), least, xp.zeros_like(least))


def centred(a: Any, b: Any, alpha: Any, beta: Any) -> tuple[Any, Any]:
    """The same potentials up to a constant, with equal means over the masses."""
    xp = namespace(alpha)
    mass = constant(xp.sum(a, axis=-1))
    some = positive_or_one(mass)
    by_rows, by_columns = (weighed(x, w) for x, w in ((alpha, a), (beta, b)))
    move = ((by_columns - by_rows) / (2 * some))[..., None]
    return alpha + move, beta - move


def reach(alpha: Any, beta: Any) -> Any:
    """The largest modulus of a finite potential: so much a unit of missing mass moves the value; shape (...)."""
    xp = namespace(alpha)
    known = (xp.abs(xp.where(xp.isfinite(v), v, xp.zeros_like(v))) for v in (alpha, beta))
    return constant(xp.maximum(*(xp.max(v, axis=-1) for v in known)))


def weighed(potential: Any, masses: Any) -> Any:
    """Sum of potentials times masses; a potential of minus infinity belongs to no mass."""
    xp = namespace(potential)
    finite = xp.where(potential > -INFINITY, potential, xp.zeros_like(potential))
    return xp.sum(finite * masses, axis=-1)


def assess(problem: Problem, kind: Kind, plan: Any, alpha: Any, beta: Any) -> Bounds:
    """The figures of a plan and of potentials; ``value`` carries the derivatives of the optimum."""
    a, b, cost = problem
    xp = namespace(plan)
    linear = inner(plan, xp.where(cost < INFINITY, cost, xp.zeros_like(cost)))
    slack = (alpha[..., :, None] - cost) + beta[..., None, :]
    dual = weighed(alpha, a) + weighed(beta, b) - kind.conjugate(slack)
    lacking, wanting = a - xp.sum(plan, axis=-1), b - xp.sum(plan, axis=-2)
    error = xp.sum(xp.abs(lacking), axis=-1) + xp.sum(xp.abs(wanting), axis=-1)
    value = linear + kind.penalty(plan)
    if not all(map(is_plain, problem)):
        lagrangian = value + weighed(alpha, lacking) + weighed(beta, wanting)
        value = lagrangian - constant(lagrangian - value)
    upper = constant(_upper(problem, kind, plan, value, error))
    return Bounds(value, linear, constant(dual), constant(error), upper)


def _upper(problem: Problem, kind: Kind, plan: Any, value: Any, error: Any) -> Any:
    """Value of a plan with exact marginals: this one where its error is rounding, else one near it."""
    a, b, cost = problem
    xp = namespace(plan)
    exact = error <= MARGINAL_ROUNDING * eps(plan) * xp.sum(a, axis=-1)
    if not is_traced(plan) and bool(xp.all(exact)):
        return value
    return xp.where(exact, value, kind.value_near(plan, a, b, cost))
