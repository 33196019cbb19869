"""Semismooth Newton ascent on the dual of a transport problem with quadratic or k-support regularizer.

One ascent serves two functions. The plain one is the dual of the quadratic problem; the proximal one adds the distance
from the plan before, which makes the dual of every problem here once differentiable. ``sweeps`` says what lines and
places are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from orthokern.transport.codes import OTStatus

from . import newton_system, proximal_sweeps, sweeps
from .proximal_sweeps import Proximal, Terms
from .sweeps import Costs, Support

CONVERGED, MAX_ITER = int(OTStatus.CONVERGED), int(OTStatus.MAX_ITER)
STALLED, INFEASIBLE = int(OTStatus.STALLED), int(OTStatus.INFEASIBLE)
RUNNING = -1

# Sufficient increase of a step; relative rounding of the objective that a smaller error excuses.
ARMIJO, ROUNDING = 1e-4, 1e-13
MOST_TRIALS, TRIALS_BEFORE_SWEEP, MOST_IDLE = 24, 4, 80
SHORTEST, LONGEST = 0.05, 0.7
# Steps are made longer while this part of the slope is left, up to a length at which no feasible problem still rises.
STEADY, STRETCH, FARTHEST = 0.9, 16.0, 1e18
# The shift of a Newton system relative to its weights is ``damping`` times the error; a whole step makes the damping
# smaller, a shorter one larger. The residual that a system may leave is taken from the error too.
DAMPING, LEAST_DAMPING, MOST_DAMPING, CALM, RESTLESS = 0.1, 1e-3, 0.3, 0.3, 3.0
LEAST_SHIFT, MOST_SHIFT = 1e-13, 1e-2
RESIDUAL, LEAST_RESIDUAL, MOST_RESIDUAL = 0.1, 1e-4, 0.1
FIRST_PRODUCTS = 30


class Problem(NamedTuple):
    """Costs, masses ``a`` (m,) of the places and ``b`` (n,) of the lines."""

    costs: Costs
    a: np.ndarray
    b: np.ndarray


class Function(NamedTuple):
    """What is maximized: the plain dual if ``step.tau`` is infinite, else that of a proximal step from ``before``."""

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
def new_point(p: np.ndarray, q: np.ndarray) -> Point:
    """A point at copies of these potentials."""
    m, n = len(p), len(q)
    return Point(p.copy(), q.copy(), np.zeros(m), np.zeros(n), np.zeros(n))


@numba.njit(cache=True)
def assign(target: Point, source: Point) -> None:
    """Copy all of a point into another."""
    for i in range(len(source.p)):
        target.p[i], target.gp[i] = source.p[i], source.gp[i]
    for j in range(len(source.q)):
        target.q[j], target.gq[j] = source.q[j], source.gq[j]
        target.levels[j] = source.levels[j]


@numba.njit(cache=True)
def evaluate(
    problem: Problem, function: Function, point: Point, support: Support
) -> tuple[Value, Support]:
    """Value and gradient at a point; the plan into ``support`` where the function is proximal."""
    step = function.step
    p, q, gp, gq = point.p, point.q, point.gp, point.gq
    weight = 1.0
    if math.isinf(step.tau):
        weight = 1.0 / step.gamma
        squares = sweeps.slack_sums(problem.costs, p, q, gp, gq)
        terms = Terms(0.5 * weight * squares, 0.0, 0.0)
    else:
        support, terms = proximal_sweeps.plan_sums(
            problem.costs, p, q, step, function.before, point.levels, gp, gq, support
        )
    objective, error = -terms.conjugate, 0.0
    for i in range(len(p)):
        gp[i] = problem.a[i] - weight * gp[i]
        error += abs(gp[i])
        objective += problem.a[i] * p[i]
    for j in range(len(q)):
        gq[j] = problem.b[j] - weight * gq[j]
        error += abs(gq[j])
        objective += problem.b[j] * q[j]
    return Value(objective, error, terms), support


@numba.njit(cache=True)
def _fill_idle(
    problem: Problem, function: Function, point: Point, value: Value, support: Support
) -> tuple[Value, Support, bool]:
    """Give entries to lines, then to places, that have mass and none; False where one is forbidden everywhere.

    Without an entry there is no second derivative, and a Newton step means nothing. Of the plain function this is the
    maximum over these coordinates. Of the proximal one it is where a bound of the plan has their mass: no farther than
    the maximum, so that the objective rises.
    """
    costs, a, b = problem
    step, possible = function.step, True
    plain = math.isinf(step.tau)
    factor = 0.0 if plain else 1.0 / step.tau
    for side in range(2):
        if side == 0:
            idle = (point.gq >= b) & (b > 0.0)
            wanted, q = (step.gamma + factor) * b, point.q
        else:
            idle = (point.gp >= a) & (a > 0.0)
            wanted, q = (step.gamma if plain else factor) * a, point.q - step.gamma * point.levels
        if np.any(idle):
            if side == 0:
                raised = sweeps.maximize_lines(
                    costs, function.before, factor, point.p, q, wanted, idle
                )
            else:
                raised = sweeps.maximize_places(
                    costs, function.before, factor, point.p, q, wanted, idle
                )
            possible = possible and raised
            value, support = evaluate(problem, function, point, support)
    return value, support, possible


@numba.njit(cache=True)
def _sweep_all(problem: Problem, function: Function, point: Point) -> None:
    """Exact maximization of the plain function over all places, then over all lines."""
    costs, a, b = problem
    gamma, nothing = function.step.gamma, function.before
    sweeps.maximize_places(costs, nothing, 0.0, point.p, point.q, gamma * a, a > 0.0)
    sweeps.maximize_lines(costs, nothing, 0.0, point.p, point.q, gamma * b, b > 0.0)


@numba.njit(cache=True)
def _move(trial: Point, point: Point, x: np.ndarray, y: np.ndarray, length: float) -> None:
    for i in range(len(x)):
        trial.p[i] = point.p[i] + length * x[i]
    for j in range(len(y)):
        trial.q[j] = point.q[j] + length * y[j]


@numba.njit(cache=True)
def _slope(point: Point, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.dot(point.gp, x) + np.dot(point.gq, y))


@numba.njit(cache=True)
def _shorten(
    problem: Problem,
    function: Function,
    point: Point,
    here: Value,
    x: np.ndarray,
    y: np.ndarray,
    trial: Point,
    support: Support,
) -> tuple[float, Value, Support]:
    """A step that raises the objective, or that lowers the error without losing it: its length, 0 if there is none.

    The first one is 1, each other where the secant of the slope has its root. After some trials of the plain function
    one exact sweep over all coordinates mends badly scaled masses.
    """
    plain, slope = math.isinf(function.step.tau), _slope(point, x, y)
    least = here.objective - ROUNDING * abs(here.objective)
    length = 1.0
    value = here
    for number in range(MOST_TRIALS):
        _move(trial, point, x, y, length)
        swept = plain and number >= TRIALS_BEFORE_SWEEP
        if swept:
            _sweep_all(problem, function, trial)
        value, support = evaluate(problem, function, trial, support)
        found = 0.0 if swept else _slope(trial, x, y)
        raised = value.objective >= here.objective + ARMIJO * length * slope
        mended = (number == 0 or swept) and value.error < 0.9 * here.error
        level = value.objective >= least or (not swept and found >= -slope)
        # The function is concave: where it still rises, it has not fallen. Rounding cannot hide that.
        if raised or (mended and level) or (found >= 0.0 and not swept):
            return length, value, support
        secant = 0.5 if swept else slope / (slope - found)
        length *= min(max(secant, SHORTEST), LONGEST)
    return 0.0, value, support


@numba.njit(cache=True)
def _lengthen(
    problem: Problem,
    function: Function,
    point: Point,
    here: Value,
    x: np.ndarray,
    y: np.ndarray,
    trial: Point,
    support: Support,
    bound: float,
) -> tuple[Value, Support]:
    """Go on from a whole step while the slope does not fall, as it never does where the problem is infeasible."""
    steady, length, value = STEADY * _slope(point, x, y), 1.0, here
    overshot = False
    while overshot or (
        value.objective <= bound and length < FARTHEST and _slope(trial, x, y) > steady
    ):
        last = value.objective
        length *= 1.0 / STRETCH if overshot else STRETCH
        _move(trial, point, x, y, length)
        value, support = evaluate(problem, function, trial, support)
        if overshot:
            break
        overshot = value.objective <= last
    return value, support


@numba.njit(cache=True)
def _verdict(value: Value, goal: float, bound: float, possible: bool, idle: int, left: int) -> int:
    """Whether and why an ascent ends here."""
    if not possible or value.objective > bound:
        return INFEASIBLE
    if value.error <= goal:
        return CONVERGED
    if left <= 0:
        return MAX_ITER
    return STALLED if idle > MOST_IDLE else RUNNING


@numba.njit(cache=True)
def _weights(step: Proximal) -> tuple[float, float]:
    """Second derivative of one entry before and past the middle of its line."""
    if math.isinf(step.tau):
        return 1.0 / step.gamma, 1.0 / step.gamma
    return step.tau / (1.0 + step.tau * step.gamma), step.tau


@numba.njit(cache=True)
def _damped(damping: float, length: float) -> float:
    """The damping after a step of that length."""
    if length == 1.0:
        return max(CALM * damping, LEAST_DAMPING)
    return min(RESTLESS * damping, MOST_DAMPING)


def new_mood() -> np.ndarray:
    """What an ascent remembers from step to step: products, damping, the least error, idle steps."""
    return np.array([FIRST_PRODUCTS, DAMPING, np.inf, 0.0])


@numba.njit(cache=True)
def ascend(
    problem: Problem,
    function: Function,
    point: Point,
    goals: tuple[float, float],
    most: int,
    bound: float,
    mood: np.ndarray,
) -> Outcome:
    """Newton's method from ``point``, which it moves, until the error of the marginals is at most ``goals[0]``.

    If the error is small at once, until it is a third of that or at most ``goals[1]``. An objective above ``bound``,
    which no feasible plan allows, proves that there is none. ``mood`` is new, or that of the ascent which this goes on
    with.
    """
    n, m = len(problem.b), len(problem.a)
    plain, weights = math.isinf(function.step.tau), _weights(function.step)
    support = sweeps.empty_support(n, 4 * (m + n))
    spare = sweeps.empty_support(n, 0 if plain else 4 * (m + n))
    trial = new_point(point.p, point.q)
    x, y = np.zeros(m), np.zeros(n)
    value, support = evaluate(problem, function, point, support)
    goal = max(goals[1], min(goals[0], value.error / 3.0))
    products, damping, best, idle = int(mood[0]), mood[1], mood[2], int(mood[3])
    steps = 0
    while True:
        value, support, possible = _fill_idle(problem, function, point, value, support)
        idle = 1 if value.error < 0.9 * best else idle + 1
        best = value.error if idle == 1 else best
        status = _verdict(value, goal, bound, possible, idle, most - steps)
        if status != RUNNING:
            break
        if plain:
            support = sweeps.slack_support(problem.costs, point.p, point.q, weights[0], support)
        shift = weights[0] * max(LEAST_SHIFT, min(MOST_SHIFT, damping * value.error))
        rest = max(LEAST_RESIDUAL, min(MOST_RESIDUAL, RESIDUAL * math.sqrt(value.error)))
        products = newton_system.solve(
            support, weights, shift, point.gp, point.gq, rest, products, x, y
        )
        steps += 1
        trial.levels[:] = point.levels
        length, found, spare = _shorten(problem, function, point, value, x, y, trial, spare)
        if length == 0.0:
            status = STALLED
            break
        if length == 1.0:
            found, spare = _lengthen(problem, function, point, found, x, y, trial, spare, bound)
        damping = _damped(damping, length)
        value = found
        assign(point, trial)
        if not plain:
            support, spare = spare, support
    mood[0], mood[1], mood[2], mood[3] = products, damping, best, idle
    return Outcome(status, steps, value, support)
