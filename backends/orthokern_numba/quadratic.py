"""Transport with quadratic and k-support regularizers, and without any: semismooth Newton on the dual.

One ascent serves two functions. The plain one is the dual of the quadratic problem; the proximal one adds the distance
from the plan before, which makes the dual of every problem here once differentiable. See ``sweeps`` for lines and
places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from . import newton_system, proximal_sweeps, sweeps
from .library import aligned_empty
from .proximal_sweeps import Proximal, Terms
from .sweeps import Costs, Support

CONVERGED, MAX_ITER, STALLED, INFEASIBLE = 0, 1, 2, 3

# Sufficient increase of a step; relative rounding of the objective that a smaller error excuses.
ARMIJO, ROUNDING = 1e-4, 1e-13
MOST_TRIALS, TRIALS_BEFORE_SWEEP, MOST_IDLE = 24, 4, 80
# gamma of the continuation: where it begins, by which factor it falls, and the error that ends a stage.
FIRST_GAMMA, GAMMA_FALL, STAGE_ERROR = 0.1, 0.25, 0.05
# The proximal steps: growth of tau before and after the first failure, its fall; Newton steps in one.
GROWTH, CAREFUL_GROWTH, FALL = 2.0, 1.5, 0.25
MOST_OUTER, MOST_INNER = 200, 40
INNER_ERROR, INNER_FALL = 1e-2, 0.3
# gamma of the quadratic problem whose plan begins the one without regularizer.
WARM_GAMMA, WARM_ERROR = 0.1, 1e-3
# Of an error: the shift of a Newton system relative to its weights, and the residual it may leave.
SHIFT, MOST_SHIFT, RESIDUAL, LEAST_RESIDUAL = 0.1, 1e-2, 0.1, 1e-4
FIRST_PRODUCTS = 30


class Function(NamedTuple):
    """What is maximized: the plain dual where ``step.tau`` is infinite, else that of a proximal step from ``before``."""

    step: Proximal
    before: Support


class Point(NamedTuple):
    """Potentials, the gradient there, and levels of the lines (see ``plan_sums``)."""

    p: np.ndarray
    q: np.ndarray
    gp: np.ndarray
    gq: np.ndarray
    levels: np.ndarray


class Value(NamedTuple):
    """Objective and error of the marginals at a point; terms of the plan where the function is proximal."""

    objective: float
    error: float
    terms: Terms


class Outcome(NamedTuple):
    """How an ascent ended, after how many steps, with the support and value at its end."""

    status: int
    steps: int
    value: Value
    support: Support


@numba.njit(cache=True)
def _new_point(p: np.ndarray, q: np.ndarray) -> Point:
    return Point(p.copy(), q.copy(), np.zeros(len(p)), np.zeros(len(q)), np.zeros(len(q)))


@numba.njit(cache=True)
def _assign(target: Point, source: Point) -> None:
    target.p[:], target.q[:] = source.p, source.q
    target.gp[:], target.gq[:] = source.gp, source.gq
    target.levels[:] = source.levels


@numba.njit(cache=True)
def _evaluate(
    costs: Costs,
    a: np.ndarray,
    b: np.ndarray,
    function: Function,
    point: Point,
    support: Support,
) -> tuple[Value, Support]:
    """Value and gradient at a point; the plan into ``support`` where the function is proximal."""
    step = function.step
    p, q, gp, gq = point.p, point.q, point.gp, point.gq
    if math.isinf(step.tau):
        squares = sweeps.slack_sums(costs, p, q, gp, gq)
        weight = 1.0 / step.gamma
        terms = Terms(0.5 * weight * squares, 0.0, 0.0)
    else:
        weight = 1.0
        support, terms = proximal_sweeps.plan_sums(
            costs, p, q, step, function.before, point.levels, gp, gq, support
        )
    objective, error = -terms.conjugate, 0.0
    for i in range(len(p)):
        gp[i] = a[i] - weight * gp[i]
        error += abs(gp[i])
        objective += a[i] * p[i]
    for j in range(len(q)):
        gq[j] = b[j] - weight * gq[j]
        error += abs(gq[j])
        objective += b[j] * q[j]
    return Value(objective, error, terms), support


@numba.njit(cache=True)
def _repair(
    costs: Costs, a: np.ndarray, b: np.ndarray, function: Function, point: Point
) -> tuple[bool, bool]:
    """Give entries to lines and places with mass and none: ``(changed, possible)``."""
    step = function.step
    lines, places = (point.gq >= b) & (b > 0.0), (point.gp >= a) & (a > 0.0)
    if not (np.any(lines) or np.any(places)):
        return False, True
    if not math.isinf(step.tau):
        proximal_sweeps.activate(
            costs, point.p, point.q, step, function.before, point.levels, places, lines, a, b
        )
        return True, True
    possible = sweeps.maximize_lines(costs, point.p, point.q, step.gamma * b, lines)
    squares = sweeps.slack_sums(costs, point.p, point.q, point.gp, point.gq)
    places = (point.gp <= 0.0) & (a > 0.0)
    if squares >= 0.0 and np.any(places):
        wanted = step.gamma * a
        possible = sweeps.maximize_places(costs, point.p, point.q, wanted, places) and possible
    return True, possible


@numba.njit(cache=True)
def _sweep_all(
    costs: Costs, a: np.ndarray, b: np.ndarray, function: Function, point: Point
) -> None:
    """Exact maximization over all places, then over all lines, of the plain function."""
    gamma = function.step.gamma
    sweeps.maximize_places(costs, point.p, point.q, gamma * a, a > 0.0)
    sweeps.maximize_lines(costs, point.p, point.q, gamma * b, b > 0.0)


@numba.njit(cache=True)
def _move(trial: Point, point: Point, x: np.ndarray, y: np.ndarray, length: float) -> None:
    for i in range(len(x)):
        trial.p[i] = point.p[i] + length * x[i]
    for j in range(len(y)):
        trial.q[j] = point.q[j] + length * y[j]


@numba.njit(cache=True)
def _search(
    costs: Costs,
    a: np.ndarray,
    b: np.ndarray,
    function: Function,
    point: Point,
    here: Value,
    direction: tuple[np.ndarray, np.ndarray],
    trial: Point,
    support: Support,
    bound: float,
) -> tuple[bool, Value, Support]:
    """A step along a direction of ascent that raises the objective, or that lowers the error without losing it.

    The first one is 1. Shorter ones are where the secant of the slope has its root; longer ones are tried while the
    slope does not fall, as it never does where the problem is infeasible. After some trials of the plain function
    one exact sweep over all coordinates mends badly scaled masses.
    """
    x, y = direction
    slope = np.dot(point.gp, x) + np.dot(point.gq, y)
    slack = ROUNDING * abs(here.objective)
    length, longer = 1.0, False
    kept = here
    for number in range(MOST_TRIALS):
        _move(trial, point, x, y, length)
        value, support = _evaluate(costs, a, b, function, trial, support)
        swept = False
        if number >= TRIALS_BEFORE_SWEEP and not longer and math.isinf(function.step.tau):
            _sweep_all(costs, a, b, function, trial)
            value, support = _evaluate(costs, a, b, function, trial, support)
            swept = True
        raised = value.objective >= here.objective + ARMIJO * length * slope
        mended = (length == 1.0 or swept) and value.error < 0.9 * here.error
        mended = mended and value.objective >= here.objective - slack
        found = np.dot(trial.gp, x) + np.dot(trial.gq, y)
        if longer and not (raised and value.objective > kept.objective):
            _move(trial, point, x, y, length / 16.0)
            value, support = _evaluate(costs, a, b, function, trial, support)
            return True, value, support
        if raised or mended:
            if swept or length < 1.0 or found < 0.9 * slope or value.objective > bound:
                return True, value, support
            longer, kept = True, value
            length *= 16.0
        elif found < 0.0:
            length *= min(max(slope / (slope - found), 0.05), 0.7)
        else:
            length *= 0.5
    return longer, value, support


@numba.njit(cache=True)
def _ascend(
    costs: Costs,
    a: np.ndarray,
    b: np.ndarray,
    function: Function,
    point: Point,
    goal: float,
    most: int,
    bound: float,
) -> Outcome:
    """Newton's method from ``point``, which it moves, until the error of the marginals is at most ``goal``.

    An objective above ``bound``, which no feasible plan allows, proves that there is none.
    """
    step = function.step
    plain = math.isinf(step.tau)
    before = 1.0 / step.gamma if plain else step.tau / (1.0 + step.tau * step.gamma)
    after = before if plain else step.tau
    n, m = len(b), len(a)
    support = sweeps.empty_support(n, 4 * (m + n))
    spare = sweeps.empty_support(n, 0 if plain else 4 * (m + n))
    trial = _new_point(point.p, point.q)
    x, y = np.zeros(m), np.zeros(n)
    value, support = _evaluate(costs, a, b, function, point, support)
    products = FIRST_PRODUCTS
    best, idle = np.inf, 0
    status = MAX_ITER
    steps = 0
    while True:
        changed, possible = _repair(costs, a, b, function, point)
        if changed:
            value, support = _evaluate(costs, a, b, function, point, support)
        if not possible or value.objective > bound:
            status = INFEASIBLE
            break
        if value.error <= goal:
            status = CONVERGED
            break
        if value.error < 0.9 * best:
            best, idle = value.error, 0
        idle += 1
        if steps >= most:
            break
        if idle > MOST_IDLE:
            status = STALLED
            break
        if plain:
            support = sweeps.slack_support(costs, point.p, point.q, before, support)
        shift = before * max(1e-13, min(MOST_SHIFT, SHIFT * value.error))
        tolerance = max(LEAST_RESIDUAL, min(0.1, RESIDUAL * math.sqrt(value.error)))
        products = newton_system.solve(
            support, (before, after), shift, point.gp, point.gq, tolerance, products, x, y
        )
        steps += 1
        trial.levels[:] = point.levels
        moved, found, spare = _search(
            costs, a, b, function, point, value, (x, y), trial, spare, bound
        )
        if not moved:
            status = STALLED
            break
        value = found
        _assign(point, trial)
        if not plain:
            support, spare = spare, support
    return Outcome(status, steps, value, support)


@numba.njit(cache=True)
def _start(costs: Costs, m: int, n: int) -> Point:
    p = np.zeros(m)
    return _new_point(p, sweeps.cheapest(costs, p, n))


@numba.njit(cache=True)
def _bound(gamma: float) -> float:
    """No plan of mass 1 with costs up to 1 has a larger value: ``1 + gamma / 2``, and room for rounding."""
    return 1.0 + 0.5 * gamma + 1e-6 * (1.0 + gamma)


@numba.njit(cache=True)
def _continue(
    costs: Costs, a: np.ndarray, b: np.ndarray, gamma: float, point: Point, goal: float, most: int
) -> Outcome:
    """The plain problem for a falling sequence of regularizers down to ``gamma``."""
    m, n = len(a), len(b)
    g = max(gamma, FIRST_GAMMA * min(m, n))
    steps = 0
    nothing = sweeps.empty_support(n, 0)
    while True:
        last = g <= gamma
        function = Function(Proximal(g, m, np.inf), nothing)
        wanted = goal if last else max(goal, STAGE_ERROR)
        found = _ascend(costs, a, b, function, point, wanted, most - steps, _bound(g))
        steps += found.steps
        if last or found.status == INFEASIBLE or steps >= most:
            return Outcome(found.status, steps, found.value, found.support)
        g = max(gamma, GAMMA_FALL * g)


@numba.njit(cache=True)
def _largest_step(point: Point, goal: float) -> float:
    """The ``tau`` above which rounding of the slacks shows in the marginals."""
    size = 1.0 + np.max(np.abs(point.p)) + np.max(np.abs(point.q))
    return float(0.05 * goal / (2.0**-52 * size * math.sqrt(len(point.p) + len(point.q))))


@numba.njit(cache=True)
def _gap(
    costs: Costs, a: np.ndarray, b: np.ndarray, step: Proximal, point: Point, terms: Terms
) -> float:
    """Value of the plan less the dual value at the potentials; without regularizer those of the lines are lowered."""
    value = terms.linear + 0.5 * step.gamma * terms.squares
    if step.gamma == 0.0:
        q = sweeps.cheapest(costs, point.p, len(b))
        return float(value - np.dot(a, point.p) - np.dot(b, q))
    conjugate = proximal_sweeps.regularizer_conjugate(costs, point.p, point.q, step.gamma, step.k)
    return float(value + conjugate - np.dot(a, point.p) - np.dot(b, point.q))


@numba.njit(cache=True)
def _plain_error(costs: Costs, a: np.ndarray, b: np.ndarray, gamma: float, point: Point) -> float:
    """Error of the marginals of the plain plan."""
    other = _new_point(point.p, point.q)
    function = Function(Proximal(gamma, len(a), np.inf), sweeps.empty_support(len(b), 0))
    value, _ = _evaluate(costs, a, b, function, other, function.before)
    return value.error  # type: ignore[no-any-return]


@numba.njit(cache=True)
def _approach(
    costs: Costs,
    a: np.ndarray,
    b: np.ndarray,
    step: Proximal,
    before: Support,
    point: Point,
    tol: float,
    most: int,
    certified: bool,
) -> Outcome:
    """Proximal steps until error and gap are at most ``tol``, or unless ``certified`` the error of the plain plan is.

    A step that fails is taken again from where it began, a quarter as long.
    """
    gamma, k, tau = step.gamma, step.k, step.tau
    growth, steps, reached = GROWTH, 0, 0
    kept = _new_point(point.p, point.q)
    status = STALLED
    found = Outcome(STALLED, 0, Value(0.0, np.inf, Terms(0.0, 0.0, 0.0)), before)
    for _ in range(MOST_OUTER):
        tau = min(tau, max(_largest_step(point, tol), 1e-3))
        step = Proximal(gamma, k, tau)
        goal = max(0.5 * tol, INNER_ERROR * INNER_FALL**reached)
        bound = _bound(gamma) + 2.0 / tau
        limit = min(MOST_INNER, most - steps)
        tried = _ascend(costs, a, b, Function(step, before), point, goal, limit, bound)
        steps += tried.steps
        if tried.status == INFEASIBLE:
            return Outcome(INFEASIBLE, steps, tried.value, tried.support)
        if tried.value.error > goal and steps < most:
            _assign(point, kept)
            tau *= FALL
            growth = CAREFUL_GROWTH
            continue
        found, before = tried, tried.support
        _assign(kept, point)
        if certified and tried.value.error <= tol:
            gap = _gap(costs, a, b, step, point, tried.value.terms)
            if abs(gap) <= tol * (1.0 + gamma):
                status = CONVERGED
                break
        if not certified and _plain_error(costs, a, b, gamma, point) <= tol:
            status = CONVERGED
            break
        if steps >= most:
            status = MAX_ITER
            break
        reached += 1
        tau *= growth
    return Outcome(status, steps, found.value, found.support)


@numba.njit(cache=True)
def _solve_quadratic(
    costs: Costs, a: np.ndarray, b: np.ndarray, gamma: float, tol: float, most: int
) -> tuple[Point, Outcome]:
    """Potentials of the quadratic problem, by the proximal method where Newton's alone makes no progress."""
    point = _start(costs, len(a), len(b))
    found = _continue(costs, a, b, gamma, point, tol, most)
    if found.status == STALLED:
        support = sweeps.slack_support(costs, point.p, point.q, 1.0 / gamma, found.support)
        step = Proximal(gamma, len(a), 1.0 / gamma)
        again = _approach(costs, a, b, step, support, point, tol, most - found.steps, False)
        error = _plain_error(costs, a, b, gamma, point)
        value = Value(again.value.objective, error, again.value.terms)
        found = Outcome(again.status, found.steps + again.steps, value, support)
    return point, found


@numba.njit(cache=True)
def _solve_proximal(
    costs: Costs, a: np.ndarray, b: np.ndarray, gamma: float, k: int, tol: float, most: int
) -> tuple[Point, Outcome]:
    """Plan and potentials of the problem with k-support regularizer, or where ``gamma`` is 0 without."""
    warm = gamma if gamma > 0.0 else WARM_GAMMA
    point = _start(costs, len(a), len(b))
    found = _continue(costs, a, b, warm, point, WARM_ERROR, most)
    if found.status == INFEASIBLE:
        return point, found
    support = sweeps.slack_support(costs, point.p, point.q, 1.0 / warm, found.support)
    step = Proximal(gamma, k, 1.0 / warm)
    again = _approach(costs, a, b, step, support, point, tol, max(most - found.steps, 0), True)
    if gamma == 0.0:
        point.q[:] = sweeps.cheapest(costs, point.p, len(b))
    return point, Outcome(again.status, found.steps + again.steps, again.value, again.support)


@numba.njit(cache=True)
def _fill(support: Support, plan: np.ndarray) -> None:
    """Write the entries of a support into ``plan`` (places, lines)."""
    for j in range(len(support.middle)):
        for e in range(support.start[j], support.start[j + 1]):
            plan[support.place[e], j] = support.value[e]


NO_POINTS = (np.zeros((0, 0)), np.zeros((0, 0)), 2.0, 1.0)


def _matrix(lines: np.ndarray) -> Costs:
    """Costs whose lines are the rows of a matrix."""
    return Costs(np.ascontiguousarray(lines, dtype=np.float64), *NO_POINTS)


def _masses(x: np.ndarray) -> np.ndarray:
    """Masses in double precision of sum 1."""
    found = x.astype(np.float64)
    return found / max(found.sum(), np.finfo(float).tiny)


def _figures(found: Outcome) -> tuple[float, float, float]:
    return float(found.steps), float(found.value.error), float(found.status)


def quadratic_potentials(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, gamma: np.ndarray, *, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Potentials ``alpha`` (..., m), ``beta`` (..., n) with marginals of ``max(alpha + beta - cost, 0) / gamma``.

    Computed in double precision. O(m n) for a pass, some tens of passes.
    """
    alpha, beta = aligned_empty(a.shape, cost.dtype), aligned_empty(b.shape, cost.dtype)
    stats = aligned_empty((*cost.shape[:-2], 3), cost.dtype)
    m, n = cost.shape[-2:]
    for index in np.ndindex(cost.shape[:-2]):
        rows, columns = _masses(a[index]), _masses(b[index])
        g = float(gamma[index][0, 0])
        if n > 2 * m:
            # The system of a Newton step has one unknown to a place.
            point, found = _solve_quadratic(_matrix(cost[index].T), rows, columns, g, tol, max_iter)
            alpha[index], beta[index] = point.p, point.q
        else:
            point, found = _solve_quadratic(_matrix(cost[index]), columns, rows, g, tol, max_iter)
            alpha[index], beta[index] = point.q, point.p
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
    stats = aligned_empty((*a.shape[:-1], 3), x.dtype)
    nothing = np.zeros((0, 0))
    for index in np.ndindex(a.shape[:-1]):
        lines = np.ascontiguousarray(x[index], dtype=np.float64)
        places = np.ascontiguousarray(y[index].T, dtype=np.float64)
        size = float(scale[index][0, 0])
        costs = Costs(nothing, places, lines, float(p), size)
        rows, columns = _masses(a[index]), _masses(b[index])
        g = float(gamma[index][0, 0])
        point, found = _solve_quadratic(costs, columns, rows, g, tol, max_iter)
        alpha[index], beta[index] = point.q, point.p
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
    """``(plan, alpha, beta, stats)`` of the k-support problem, columns of the plan being its lines.

    Computed in double precision; ``gamma`` 0 is the problem without regularizer.
    """
    plan = aligned_empty(cost.shape, cost.dtype)
    plan[...] = 0.0
    alpha, beta = aligned_empty(a.shape, cost.dtype), aligned_empty(b.shape, cost.dtype)
    stats = aligned_empty((*cost.shape[:-2], 3), cost.dtype)
    for index in np.ndindex(cost.shape[:-2]):
        rows, columns = _masses(a[index]), _masses(b[index])
        costs, g = _matrix(cost[index].T), float(gamma[index][0, 0])
        point, found = _solve_proximal(costs, rows, columns, g, k, tol, max_iter)
        alpha[index], beta[index] = point.p, point.q
        _fill(found.support, plan[index])
        stats[index] = _figures(found)
    return plan, alpha, beta, stats
