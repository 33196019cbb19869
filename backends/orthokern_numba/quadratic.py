"""Transport with quadratic and k-support regularizers, and without any: the drivers of the Newton ascent."""

from __future__ import annotations

import math

import numba
import numpy as np

from orthokern.backend import is_heard, tell
from orthokern.transport.codes import Stat

from . import proximal_sweeps, sweeps
from .ascent import (
    CONVERGED,
    INFEASIBLE,
    MAX_ITER,
    STALLED,
    Function,
    Outcome,
    Point,
    Problem,
    Value,
    ascend,
    assign,
    evaluate,
    new_mood,
    new_point,
)
from .library import aligned_empty
from .proximal_sweeps import Proximal, Terms
from .sweeps import Costs, Support

# gamma of the continuation: where it begins, by which factor it falls, and the error that ends a stage.
FIRST_GAMMA, GAMMA_FALL, STAGE_ERROR = 0.1, 0.25, 0.05
# The proximal steps: growth of tau before and after the first failure, its fall; Newton steps in one.
GROWTH, CAREFUL_GROWTH, FALL = 2.0, 1.5, 0.25
MOST_OUTER, MOST_INNER = 200, 40
# Newton steps between two words to who listens.
SPELL = 5
INNER_ERROR, INNER_FALL = 1e-2, 0.3
# gamma of the quadratic problem whose plan begins the one without regularizer.
WARM_GAMMA, WARM_ERROR = 0.1, 1e-3


def _start(problem: Problem) -> Point:
    p = np.zeros(len(problem.a))
    point: Point = new_point(p, sweeps.cheapest(problem.costs, p, len(problem.b)))
    return point


def _bound(gamma: float) -> float:
    """No plan of mass 1 with costs up to 1 has a larger value: ``1 + gamma / 2``, and room for rounding."""
    return 1.0 + 0.5 * gamma + 1e-6 * (1.0 + gamma)


@numba.njit(cache=True)
def _plain_error(problem: Problem, gamma: float, point: Point) -> float:
    """Error of the marginals of the plain plan."""
    other = new_point(point.p, point.q)
    nothing = sweeps.empty_support(len(point.q), 0)
    function = Function(Proximal(gamma, len(point.p), np.inf), nothing)
    value, _ = evaluate(problem, function, other, nothing)
    return value.error  # type: ignore[no-any-return]


def _ascended(
    problem: Problem,
    function: Function,
    point: Point,
    goal: float,
    before: int,
    most: int,
    bound: float,
) -> Outcome:
    """One ascent after ``before`` steps of ``most``; in spells where someone listens."""
    mood, steps = new_mood(), 0
    while True:
        left = most - before - steps
        spell = min(SPELL, left) if is_heard() else left
        found = ascend(problem, function, point, (goal, goal), spell, bound, mood)
        steps += found.steps
        tell(before + steps, float(found.value.error))
        if found.status != MAX_ITER or before + steps >= most:
            return Outcome(found.status, steps, found.value, found.support)


def _continue(problem: Problem, gamma: float, point: Point, goal: float, most: int) -> Outcome:
    """The plain problem for a falling sequence of regularizers down to ``gamma``."""
    m, n = len(problem.a), len(problem.b)
    g = max(gamma, FIRST_GAMMA * min(m, n))
    steps = 0
    nothing = sweeps.empty_support(n, 0)
    while True:
        last = g <= gamma
        function = Function(Proximal(g, m, np.inf), nothing)
        wanted = goal if last else max(goal, STAGE_ERROR)
        found = _ascended(problem, function, point, wanted, steps, most, _bound(g))
        steps += found.steps
        if last or found.status == INFEASIBLE:
            return Outcome(found.status, steps, found.value, found.support)
        if steps >= most:
            value = Value(
                found.value.objective, _plain_error(problem, gamma, point), found.value.terms
            )
            return Outcome(MAX_ITER, steps, value, found.support)
        g = max(gamma, GAMMA_FALL * g)


def _largest_step(point: Point, goal: float) -> float:
    """The ``tau`` above which rounding of the slacks shows in the marginals."""
    size = 1.0 + np.max(np.abs(point.p)) + np.max(np.abs(point.q))
    return float(0.05 * goal / (2.0**-52 * size * math.sqrt(len(point.p) + len(point.q))))


@numba.njit(cache=True)
def _gap(problem: Problem, step: Proximal, point: Point, terms: Terms) -> float:
    """Value of the plan less the dual value at the potentials; without regularizer those of the lines are lowered."""
    costs, a, b = problem
    value = terms.linear + 0.5 * step.gamma * terms.squares - np.dot(a, point.p)
    if step.gamma == 0.0:
        return float(value - np.dot(b, sweeps.cheapest(costs, point.p, len(b))))
    conjugate = proximal_sweeps.regularizer_conjugate(costs, point.p, point.q, step.gamma, step.k)
    return float(value + conjugate - np.dot(b, point.q))


def _is_solved(
    problem: Problem, step: Proximal, point: Point, value: Value, tol: float, certified: bool
) -> bool:
    if not certified:
        return _plain_error(problem, step.gamma, point) <= tol  # type: ignore[no-any-return]
    if value.error > tol:
        return False
    gap = _gap(problem, step, point, value.terms)
    return abs(gap) <= tol * (1.0 + step.gamma)  # type: ignore[no-any-return]


def _approach(
    problem: Problem,
    step: Proximal,
    before: Support,
    point: Point,
    tol: float,
    taken: int,
    most: int,
    certified: bool,
) -> Outcome:
    """Proximal steps until error and gap are at most ``tol``, or unless ``certified`` the error of the plain plan is.

    ``taken`` steps of ``most`` are done already; all are counted.

    A step that fails is taken again from where it began, a quarter as long.
    """
    tau, growth, steps, reached = step.tau, GROWTH, taken, 0
    kept = new_point(point.p, point.q)
    found = Outcome(STALLED, taken, Value(0.0, np.inf, Terms(0.0, 0.0, 0.0)), before)
    for _ in range(MOST_OUTER):
        tau = min(tau, max(_largest_step(point, tol), 1e-3))
        step = Proximal(step.gamma, step.k, tau)
        goals = (INNER_ERROR * INNER_FALL**reached, 0.5 * tol)
        bound = _bound(step.gamma) + 2.0 / tau
        limit = min(MOST_INNER, most - steps)
        tried = ascend(problem, Function(step, before), point, goals, limit, bound, new_mood())
        steps += tried.steps
        tell(steps, float(tried.value.error))
        if tried.status == INFEASIBLE:
            return Outcome(INFEASIBLE, steps, tried.value, tried.support)
        if tried.status != CONVERGED and steps < most:
            assign(point, kept)
            tau *= FALL
            growth = CAREFUL_GROWTH
            continue
        found, before = tried, tried.support
        assign(kept, point)
        if _is_solved(problem, step, point, found.value, tol, certified):
            return Outcome(CONVERGED, steps, found.value, before)
        if steps >= most:
            return Outcome(MAX_ITER, steps, found.value, before)
        reached += 1
        tau *= growth
    return Outcome(STALLED, steps, found.value, before)


def _solve_quadratic(
    problem: Problem, gamma: float, tol: float, most: int
) -> tuple[Point, Outcome]:
    """Potentials of the quadratic problem, by the proximal method where Newton's alone makes no progress."""
    point = _start(problem)
    found = _continue(problem, gamma, point, tol, most)
    if found.status == STALLED:
        step = Proximal(gamma, len(point.p), 1.0 / gamma)
        support = sweeps.slack_support(problem.costs, point.p, point.q, 1.0 / gamma, found.support)
        again = _approach(problem, step, support, point, tol, found.steps, most, False)
        error = _plain_error(problem, gamma, point)
        value = Value(again.value.objective, error, again.value.terms)
        found = Outcome(again.status, again.steps, value, support)
    return point, found


def _solve_proximal(
    problem: Problem, gamma: float, k: int, tol: float, most: int
) -> tuple[Point, Outcome]:
    """Plan and potentials of the problem with k-support regularizer, or where ``gamma`` is 0 without."""
    warm = gamma if gamma > 0.0 else WARM_GAMMA
    point = _start(problem)
    found = _continue(problem, warm, point, WARM_ERROR, most)
    if found.status != INFEASIBLE:
        support = sweeps.slack_support(problem.costs, point.p, point.q, 1.0 / warm, found.support)
        step = Proximal(gamma, k, 1.0 / warm)
        found = _approach(problem, step, support, point, tol, found.steps, most, True)
    if gamma == 0.0:
        point.q[:] = sweeps.cheapest(problem.costs, point.p, len(problem.b))
    return point, found


@numba.njit(cache=True)
def _fill(support: Support, plan: np.ndarray) -> None:
    """Write the entries of a support into ``plan`` (places, lines)."""
    for j in range(len(support.middle)):
        for e in range(support.start[j], support.start[j + 1]):
            plan[support.place[e], j] = support.value[e]


NO_POINTS = (np.zeros((0, 0)), np.zeros((0, 0)), 2.0, 1.0)


def _masses(x: np.ndarray) -> np.ndarray:
    """Masses in double precision of sum 1."""
    found = x.astype(np.float64)
    total = found.sum()
    return np.asarray(found / total if total > 0.0 else found)


def _problem(lines: np.ndarray, places: np.ndarray, of_lines: np.ndarray) -> Problem:
    """The problem whose lines have the rows of a matrix as costs."""
    costs = Costs(np.ascontiguousarray(lines, dtype=np.float64), *NO_POINTS)
    return Problem(costs, _masses(places), _masses(of_lines))


def _figures(found: Outcome) -> tuple[float, float, float]:
    """A row of ``orthokern.transport.canonical.Stat``."""
    return float(found.steps), float(found.value.error), float(found.status)


def quadratic_potentials(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, gamma: np.ndarray, *, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(alpha, beta, stats)`` such that the plan ``max(alpha + beta - cost, 0) / gamma`` has marginals a and b.

    Computed in double precision, member by member. O(m n) for a pass, some tens of passes.
    """
    alpha, beta = aligned_empty(a.shape, cost.dtype), aligned_empty(b.shape, cost.dtype)
    stats = aligned_empty((*cost.shape[:-2], len(Stat)), cost.dtype)
    m, n = cost.shape[-2:]
    # The system of a Newton step has one unknown to a place; the rows as lines save a copy of the costs.
    lines_are_columns = n > 2 * m
    for index in np.ndindex(cost.shape[:-2]):
        g = float(gamma[index][0, 0])
        if lines_are_columns:
            problem = _problem(cost[index].T, a[index], b[index])
        else:
            problem = _problem(cost[index], b[index], a[index])
        point, found = _solve_quadratic(problem, g, tol, max_iter)
        alpha[index], beta[index] = point[:2] if lines_are_columns else point[1::-1]
        stats[index] = _figures(found)
    return alpha, beta, stats


def quadratic_potentials_points(
    x: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    gamma: np.ndarray,
    scale: np.ndarray,
    *,
    p: float,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for ``cost_ij = scale |x_i - y_j|_2^p`` of points (..., m, d) and (..., n, d), which is never stored."""
    alpha, beta = aligned_empty(a.shape, x.dtype), aligned_empty(b.shape, x.dtype)
    stats = aligned_empty((*a.shape[:-1], len(Stat)), x.dtype)
    nothing = np.zeros((0, 0))
    for index in np.ndindex(a.shape[:-1]):
        lines = np.ascontiguousarray(x[index], dtype=np.float64)
        places = np.ascontiguousarray(y[index].T, dtype=np.float64)
        costs = Costs(nothing, places, lines, float(p), float(scale[index][0, 0]))
        problem = Problem(costs, _masses(b[index]), _masses(a[index]))
        g = float(gamma[index][0, 0])
        point, found = _solve_quadratic(problem, g, tol, max_iter)
        beta[index], alpha[index] = point.p, point.q
        stats[index] = _figures(found)
    return alpha, beta, stats


def proximal_plan(
    a: np.ndarray,
    b: np.ndarray,
    cost: np.ndarray,
    gamma: np.ndarray,
    *,
    k: int,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(plan, alpha, beta, stats)`` of the problem with k-support regularizer, or where ``gamma`` is 0 without.

    Computed in double precision, member by member. O(m n) for a pass, some hundreds of passes.
    """
    plan = aligned_empty(cost.shape, cost.dtype)
    plan[...] = 0.0
    alpha, beta = aligned_empty(a.shape, cost.dtype), aligned_empty(b.shape, cost.dtype)
    stats = aligned_empty((*cost.shape[:-2], len(Stat)), cost.dtype)
    for index in np.ndindex(cost.shape[:-2]):
        problem, g = _problem(cost[index].T, a[index], b[index]), float(gamma[index][0, 0])
        point, found = _solve_proximal(problem, g, k, tol, max_iter)
        alpha[index], beta[index] = point.p, point.q
        _fill(found.support, plan[index])
        stats[index] = _figures(found)
    return plan, alpha, beta, stats
