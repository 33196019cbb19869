r"""Safeguarded semismooth Newton iteration on the duals of transport with quadratic regularizers.

One maximisation serves all of them. With potentials :math:`\alpha, \beta`, slack :math:`s_{ij} = \alpha_i + \beta_j -
C_{ij}` and a plan :math:`\bar T` to stay near, every column of

.. math::
    T = \mathrm{prox}_{\lambda}(\bar T + \tau s), \qquad \lambda = \tau \gamma,

is a proximal map of the k-support norm, and the potentials that give it the marginals a and b maximise a concave
function with one continuous derivative. Quadratic regularization is :math:`\tau = 1/\gamma, \lambda = 0, \bar T = 0`.

Inside, plans and costs lie transposed, (..., n, m): a column is contiguous. ``alpha`` and ``a`` are (..., 1, m),
``beta`` and ``b`` (..., n, 1), numbers of a member (..., 1, 1), so that everything broadcasts against everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint, identity_like
from .._core.namespace import is_lazy, is_traced, namespace
from .._core.progress import tell
from .codes import OTStatus
from .columns import ksupport_prox, simplex_projection
from .implicit import quadratic_tangent

N = TypeVar("N", bound=tuple[Any, ...])

# Code of members that are not done.
RUNNING = -1
# Stages of the continuation in gamma: the first one, the factor between them, the error that ends one, steps at most.
FIRST_STAGE, STAGE_FACTOR, STAGE_ERROR, STAGE_STEPS = 0.1, 4.0, 0.05, 40
# Steps without progress after which a member has stalled.
PATIENCE = 80
# Least increase of the line search as a share of what the slope promises; shares of the first slope that ask for a
# longer step, and that are as good as none.
INCREASE, STEEP, LEVEL = 1e-4, 0.9, 0.1
TRIALS, GROWTH, NARROW = 40, 4.0, 0.1
# Rounding errors of a value, in eps, and the least error of marginals that may be asked for.
NOISE = LEAST_TOLERANCE = 50
# A dual value that exceeds any value of a plan by this share is that of a problem without plans.
MARGIN = 1e-3


class Subproblem(NamedTuple):
    """Masses, cost, weight ``tau`` of the slack, weight ``lam`` of the norm, and the plan to stay near."""

    a: Any
    b: Any
    cost: Any
    tau: Any
    lam: Any
    near: Any


class Point(NamedTuple):
    """Potentials, their plan, what it lacks in each row and column, and the pieces of the proximal map.

    ``scaled`` and ``shifted`` are 1 on the entries of either kind, ``level`` (..., n, 1) is that of the map.
    """

    alpha: Any
    beta: Any
    plan: Any
    scaled: Any
    shifted: Any
    level: Any
    lack_a: Any
    lack_b: Any
    value: Any
    error: Any


def choose(mask: Any, new: N, old: N) -> N:
    """``new`` for the members in ``mask`` (..., 1, 1), ``old`` for the others, field by field."""
    xp = namespace(mask)
    return type(old)(*(xp.where(mask, x, y) for x, y in zip(new, old, strict=True)))


def total(x: Any) -> Any:
    """Sum over a member, (..., 1, 1)."""
    return namespace(x).sum(x, axis=(-2, -1), keepdims=True)


def evaluate(problem: Subproblem, alpha: Any, beta: Any, k: int) -> Point:
    """The plan at these potentials and all that the next step needs to know of it."""
    a, b, cost, tau, lam, near = problem
    xp = namespace(cost)
    v = near + tau * (alpha + beta - cost)
    plan, level = columns(v, lam, k)
    scaled = (v > 0) & (v >= (1 + lam) * level)
    shifted = (v > lam * level) & ~scaled
    lack_a = a - xp.sum(plan, axis=-2, keepdims=True)
    lack_b = b - xp.sum(plan, axis=-1, keepdims=True)
    scaled, shifted = (xp.astype(mask, cost.dtype) for mask in (scaled, shifted))
    # The Lagrange function: no large terms cancel in it where the plan is nearly feasible, and it is stationary in
    # the plan, whose rounding errors it does not see.
    paid = xp.where(plan > 0, cost, xp.zeros_like(cost)) * plan
    inner = total(paid + (plan - near) ** 2 / (2 * tau)) + lam / (2 * tau) * _squares(
        plan, scaled, shifted, k
    )
    value = inner + total(alpha * lack_a) + total(beta * lack_b)
    error = total(xp.abs(lack_a)) + total(xp.abs(lack_b))
    return Point(alpha, beta, plan, scaled, shifted, level, lack_a, lack_b, value, error)


def _squares(plan: Any, scaled: Any, shifted: Any, k: int) -> Any:
    """Sum of the squared k-support norms of the columns, whose tails are the shifted entries."""
    xp = namespace(plan)
    tail = xp.sum(plan * shifted, axis=-1, keepdims=True)
    room = xp.clip(k - xp.sum(scaled, axis=-1, keepdims=True), 1.0, None)
    return total(plan * plan * scaled) + total(tail * tail / room)


def columns(v: Any, lam: Any, k: int) -> tuple[Any, Any]:
    """The proximal map of each row of ``v`` and its level."""
    xp = namespace(v)
    if k < v.shape[-1]:
        found: tuple[Any, Any] = ksupport_prox(v, lam + xp.zeros_like(v[..., :1]), k=k)
        return found
    return xp.clip(v, 0.0, None) / (1 + lam), xp.zeros_like(v[..., :1])


def direction(problem: Subproblem, point: Point, ridge: Any, k: int) -> tuple[Any, Any]:
    """The Newton step: ``beta`` is eliminated, the Schur complement for ``alpha`` solved.

    With the two kinds of entries A and B the derivative of column j is
    ``tau ((I_A / (1 + lam)) + I_B - rho 1_B 1_B^T)``.
    """
    xp = namespace(point.plan)
    tau, lam = problem.tau, problem.lam
    kind_b = point.shifted
    size = xp.sum(kind_b, axis=-1, keepdims=True)
    room = k - xp.sum(point.scaled, axis=-1, keepdims=True) + lam * size
    coupled = (room > 0) & (size > 0)
    rho = xp.where(coupled, lam / xp.where(coupled, room, xp.ones_like(room)), 0.0)
    weight = point.scaled / (1 + lam) + kind_b
    cross = weight - rho * size * kind_b
    corner = xp.sum(cross, axis=-1, keepdims=True) + ridge
    rows = adjoint(xp.sum(weight, axis=-2, keepdims=True)) + ridge
    taken = adjoint(cross) @ (cross / corner) + adjoint(kind_b) @ (rho * kind_b)
    schur = rows * identity_like(taken) - taken
    right = adjoint(point.lack_a) - adjoint(cross) @ (point.lack_b / corner)
    step_a = xp.linalg.solve(schur, right)
    step_b = (point.lack_b - cross @ step_a) / corner
    return _centred(problem, adjoint(step_a) / tau, step_b / tau)


def _centred(problem: Subproblem, step_a: Any, step_b: Any) -> tuple[Any, Any]:
    """The same step for the slack, with as much of it in the rows as in the columns: no common shift grows."""
    shift = (total(problem.a * step_a) - total(problem.b * step_b)) / 2
    return step_a - shift, step_b + shift


def repaired(problem: Subproblem, point: Point, active: Any, k: int) -> Point:
    """Rows and then columns that carry nothing raised until they do; a Newton step would not know how far.

    Exact for ``lam = 0``. Else what they carry then is at most their mass, so that the value has not decreased.
    """
    empty = (point.lack_a == problem.a) & (problem.a > 0)
    point = _raised(problem, point, empty & active, -2, k)
    empty = (point.lack_b == problem.b) & (problem.b > 0)
    return _raised(problem, point, empty & active, -1, k)


def _raised(problem: Subproblem, point: Point, needy: Any, axis: int, k: int) -> Point:
    xp = namespace(needy)
    if not bool(xp.any(needy)):
        return point
    v = problem.near + problem.tau * (point.alpha + point.beta - problem.cost)
    if axis == -1:
        beta = point.beta + xp.where(
            needy, -threshold(v, problem.b * (1 + problem.lam)) / problem.tau, 0.0
        )
        return evaluate(problem, point.alpha, beta, k)
    above = adjoint(v - _entrance(v, point.level, problem.lam, k))
    shift = adjoint(threshold(above, adjoint(problem.a))) / problem.tau
    return evaluate(problem, point.alpha - xp.where(needy, shift, 0.0), point.beta, k)


def _entrance(v: Any, level: Any, lam: Any, k: int) -> Any:
    """What an entry has to exceed in order to carry anything, (..., n, 1)."""
    xp = namespace(v)
    if k >= v.shape[-1]:
        return level
    last = xp.clip(xp.sort(v, axis=-1, descending=True)[..., k - 1 : k], 0.0, None)
    return lam * xp.maximum(level, last / (1 + lam))


def threshold(v: Any, mass: Any) -> Any:
    """The ``theta`` with ``sum max(v - theta, 0) = mass`` in each row; 0 where all is forbidden or there is no mass."""
    xp = namespace(v)
    top = xp.max(v, axis=-1, keepdims=True)
    usable = (top > -float("inf")) & (mass > 0)
    rows = xp.where(usable, v, xp.zeros_like(v))
    found = simplex_projection(rows, xp.where(usable, mass, xp.ones_like(mass)), k=v.shape[-1])
    return xp.where(usable, top, 0.0) - xp.where(usable, xp.max(found, axis=-1, keepdims=True), 0.0)


def search(
    problem: Subproblem, point: Point, step: tuple[Any, Any], active: Any, k: int
) -> tuple[Point, Any]:
    """``(point, found)``: a point along ``step`` at which the value has grown and its slope has fallen.

    The value is concave and its slope, which falls, is piecewise linear. The slope says where to look next, and
    decides where rounding hides the growth.
    """
    xp = namespace(point.value)
    slope = _slope(point, step)
    settled = ~((slope > 0) & active)
    best, found = point, xp.zeros_like(settled)
    low, high, length = xp.zeros_like(slope), xp.full_like(slope, float("inf")), xp.ones_like(slope)
    before = slope
    terms = total(xp.abs(point.alpha) * problem.a) + total(xp.abs(point.beta) * problem.b)
    noise = NOISE * eps(slope) * (xp.abs(point.value) + terms)
    moves = total(xp.abs(step[0]) * problem.a) + total(xp.abs(step[1]) * problem.b)
    flat = NOISE * eps(slope) * moves
    for _ in range(TRIALS):
        trial = evaluate(problem, point.alpha + length * step[0], point.beta + length * step[1], k)
        after = _slope(trial, step)
        grown = trial.value >= point.value + INCREASE * length * slope
        hidden = (after >= -STEEP * slope) & (trial.value >= point.value - noise)
        enough = grown | hidden | (xp.abs(after) <= LEVEL * slope)
        best = choose(enough & ~settled, trial, best)
        found = found | (enough & ~settled)
        level = (after <= STEEP * slope) | (after <= flat) | unbounded(problem, trial)
        settled = settled | (enough & level)
        if bool(xp.all(settled)):
            break
        low, before = (xp.where(enough, x, y) for x, y in ((length, low), (after, before)))
        high = xp.where(enough, high, length)
        settled = settled | (high - low <= NARROW * low)
        fall = before - xp.where(enough, -before, after)
        share = xp.clip(before / xp.where(fall > 0, fall, xp.ones_like(fall)), 0.1, 0.5)
        length = xp.where(high < float("inf"), low + share * (high - low), GROWTH * low)
    return best, found


def _slope(point: Point, step: tuple[Any, Any]) -> Any:
    return total(point.lack_a * step[0]) + total(point.lack_b * step[1])


def advance(problem: Subproblem, point: Point, active: Any, k: int) -> tuple[Point, Any]:
    """One safeguarded Newton step: ``(point, whether the value has grown)``; only of ``active`` members."""
    xp = namespace(point.plan)
    point = repaired(problem, point, active, k)
    least = eps(point.plan) * (500 + max(point.plan.shape[-2:]))
    ridge = xp.clip(xp.clip(1e-3 * point.error, None, 1e-4) / (1 + problem.lam), least, None)
    step = direction(problem, point, ridge, k)
    return search(problem, point, step, active, k)


def unbounded(problem: Subproblem, point: Point) -> Any:
    """Whether the value exceeds that of any plan of mass 1, so that there is none."""
    most = 1 + (1 + problem.lam + total(problem.near**2)) / problem.tau
    return point.value > (1 + MARGIN) * most


def refuse_traced(cost: Any, name: str) -> None:
    """The number of steps depends on values, which neither a tracer nor Dask has."""
    if is_traced(cost) or is_lazy(cost):
        message = (
            f"{name} looks at values between its steps, which abstract arrays (jit, vmap, compile) and Dask do not "
            'have; pass tol=None, max_iter=... with method="accelerated" there, or arrays in memory'
        )
        raise UnsupportedError(message)


def transposed(a: Any, b: Any, cost: Any) -> tuple[Any, Any, Any]:
    """``a`` (..., 1, m), ``b`` (..., n, 1) and the transposed cost."""
    return a[..., None, :], b[..., :, None], adjoint(cost)


def quadratic(a: Any, b: Any, cost: Any, gamma: Any) -> Subproblem:
    """Quadratic regularization as a subproblem."""
    xp = namespace(cost)
    nothing = xp.zeros_like(cost)
    return Subproblem(a, b, cost, 1 / gamma, xp.zeros_like(gamma), nothing)


class Progress(NamedTuple):
    """Where every member stands: its gamma and point, the best potentials and their error, steps since, and its end."""

    gamma: Any
    point: Point
    best: Point
    waiting: Any
    steps: Any
    status: Any


@op(jvp=quadratic_tangent)
def quadratic_potentials(
    a: Any, b: Any, cost: Any, gamma: Any, /, *, tol: float, max_iter: int
) -> tuple[Any, Any, Any]:
    """``(alpha, beta, stats)`` of quadratically regularized transport, whose plan is ``max(S, 0) / gamma``.

    ``a`` (..., m), ``b`` (..., n), ``cost`` (..., m, n) and ``gamma`` (..., 1, 1) are canonical, stats (...,
    len(Stat)). Newton steps for a falling sequence of gamma; each costs a dense solve of order m.
    """
    refuse_traced(cost, "quadratic_potentials")
    given = transposed(a, b, cost)
    state = maximised(given, gamma, tol, max_iter)
    end = evaluate(quadratic(*given, gamma), state.best.alpha, state.best.beta, cost.shape[-2])
    figures = stats(state.steps, end.error, state.status)
    return *potentials(a, b, end.alpha, end.beta), figures


def potentials(a: Any, b: Any, alpha: Any, beta: Any) -> tuple[Any, Any]:
    """``alpha`` (..., m) and ``beta`` (..., n), zero where there is no mass."""
    xp = namespace(a)
    return xp.where(a > 0, alpha[..., 0, :], 0.0), xp.where(b > 0, beta[..., :, 0], 0.0)


def stats(steps: Any, error: Any, status: Any) -> Any:
    """The columns of ``Stat``; a member that still runs has taken all the steps it was allowed."""
    xp = namespace(steps)
    code = xp.where(status == RUNNING, float(OTStatus.MAX_ITER), status)
    return xp.concat([steps, error, code], axis=-1)[..., 0, :]


def maximised(given: tuple[Any, Any, Any], gamma: Any, tol: float, max_iter: int) -> Progress:
    """Quadratic regularization of ``given``, the transposed masses and cost, up to the error ``tol``."""
    xp = namespace(gamma)
    tol = max(tol, LEAST_TOLERANCE * eps(gamma))
    state = _judged(given, gamma, tol, _begun(given, gamma))
    for _ in range(max_iter):
        if bool(xp.all(state.status != RUNNING)):
            break
        state = _judged(given, gamma, tol, _stepped(given, state))
        tell(state.steps, state.point.error)
    return state


def _begun(given: tuple[Any, Any, Any], gamma: Any) -> Progress:
    """The first stage: every column at its cheapest row, and a gamma at which many entries are positive."""
    a, _, cost = given
    xp = namespace(cost)
    cheapest = xp.min(cost, axis=-1, keepdims=True)
    beta = xp.where(cheapest < float("inf"), cheapest, 0.0)
    stage = xp.maximum(gamma, xp.full_like(gamma, FIRST_STAGE * min(cost.shape[-2:])))
    point = evaluate(quadratic(*given, stage), xp.zeros_like(a), beta, cost.shape[-1])
    none = xp.zeros_like(gamma)
    return Progress(stage, point, point, none, none, none + RUNNING)


def _judged(given: tuple[Any, Any, Any], gamma: Any, tol: float, state: Progress) -> Progress:
    """Members that have ended marked, those at the end of a stage sent into the next."""
    xp = namespace(gamma)
    stage, point, best, waiting, steps, status = state
    last = stage <= gamma
    running = status == RUNNING
    stuck = waiting >= xp.where(last, xp.full_like(gamma, PATIENCE), STAGE_STEPS)
    problem = quadratic(*given, stage)
    for code, holds in (
        (OTStatus.STALLED, last & stuck),
        (OTStatus.INFEASIBLE, unbounded(problem, point)),
        (OTStatus.CONVERGED, last & (point.error <= tol)),
    ):
        status = xp.where(running & holds, float(code), status)
    moves = (status == RUNNING) & ~last & ((point.error <= STAGE_ERROR) | stuck)
    if not bool(xp.any(moves)):
        return state._replace(status=status)
    stage = xp.where(moves, xp.maximum(gamma, stage / STAGE_FACTOR), stage)
    k = given[2].shape[-1]
    fresh = evaluate(quadratic(*given, stage), point.alpha, point.beta, k)
    point, best = choose(moves, fresh, point), choose(moves, fresh, best)
    return Progress(stage, point, best, xp.where(moves, 0.0, waiting), steps, status)


def _stepped(given: tuple[Any, Any, Any], state: Progress) -> Progress:
    xp = namespace(state.status)
    running = state.status == RUNNING
    k = given[2].shape[-1]
    point, _ = advance(quadratic(*given, state.gamma), state.point, running, k)
    gained = point.error < 0.9 * state.best.error
    best = choose(point.error < state.best.error, point, state.best)
    waiting = xp.where(gained, 0.0, state.waiting + 1)
    steps = state.steps + xp.astype(running, state.steps.dtype)
    return Progress(state.gamma, point, best, waiting, steps, state.status)
