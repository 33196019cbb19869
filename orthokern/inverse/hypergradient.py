"""Gradients through a minimization, with a bound of the error that stopping early leaves."""

from __future__ import annotations

import math
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dtypes import eps as unit_roundoff
from .._core.errors import ShapeError, UnsupportedError
from .._core.linalg import identity_like
from .._core.loop import iterate
from .._core.namespace import is_lazy, is_traced, namespace
from .._core.random import normal
from .._core.typing import ArrayT
from .problems import BilevelProblem, Constants

METHODS = ("cg", "exact")
MOST_NEWTON, MOST_HALVINGS = 50, 30
# A step has to lower the gradient by this share of what it aims at.
LEAST_PROGRESS = 1e-4
# Steps of conjugate gradients for each coefficient, and a few more.
CG_STEPS = 4
# For constants that are only estimated: directions tried, how far, and what the largest ratio is multiplied by.
PROBES, PROBE_LENGTH, SAFETY = 4, 1e-4, 2.0


class HypergradientInfo(NamedTuple):
    """How accurate, and at which cost; Python numbers.

    lower_error
        Bound of the distance of x from the minimizer.
    adjoint_residual
        Norm of ``H q - grad g(x)``.
    lower_steps, adjoint_steps
        Steps of conjugate gradients.
    converged
        Whether both errors are as small as was asked for.
    certified
        Whether all constants are bounds that the problem gave.
    """

    lower_error: float
    adjoint_residual: float
    lower_steps: int
    adjoint_steps: int
    converged: bool
    certified: bool


class Hypergradient(NamedTuple, Generic[ArrayT]):
    """Value (0-d) and gradient (T,) at ``theta``, a bound of the gradient's error, and where they were taken.

    ``x`` (d,) is the lower minimizer and ``q`` (d,) solves ``H q = grad g(x)``, both up to the errors in ``info``.
    """

    value: ArrayT
    grad: ArrayT
    error_bound: float
    x: ArrayT
    q: ArrayT
    info: HypergradientInfo


class Lower(NamedTuple):
    """An approximate lower minimizer, the bound of its distance, its constants, and the steps it took."""

    x: Any
    error: float
    constants: Constants
    certified: bool
    steps: int


def hypergradient(
    problem: BilevelProblem,
    theta: ArrayT,
    /,
    *,
    x0: Any = None,
    q0: Any = None,
    eps: float = 1e-3,
    delta: float = 1e-3,
    method: str = "cg",
) -> Hypergradient[ArrayT]:
    r"""Gradient of a function of a minimizer, and a bound of its error.

    The gradient of :math:`f(\theta) = g(\hat x(\theta))` with :math:`\hat x(\theta) = \arg\min_x h(x, \theta)` is
    :math:`-B^T H^{-1} \nabla g`, with :math:`H = h_{xx}` and :math:`B = h_{x\theta}`. Both the minimizer
    and the linear system are solved only as far as asked; what they really reached gives the bound

    .. math::
        \frac{\|B\|}{\mu} \delta + \|B\| \epsilon \Bigl(\frac{L_g}{\mu} + L_{H^{-1}} \|\nabla g\|\Bigr)
        + L_B \epsilon \Bigl(\|q\| + \frac{\delta}{\mu} + \epsilon \frac{L_g}{\mu}
        + \epsilon L_{H^{-1}} \|\nabla g\|\Bigr).

    Parameters
    ----------
    problem : BilevelProblem
        For example a :class:`RidgeProblem`.
    theta : array (T,)
        Hyperparameters; an eager array with values.
    x0, q0 : array (d,), optional
        Where to start, for example the ``x`` and ``q`` of a result nearby.
    eps, delta : float
        Distance from the lower minimizer, and residual of the linear system, at which to stop.
    method : {"cg", "exact"}
        "exact" forms the Hessian column by column and solves to rounding errors, whatever ``eps`` and ``delta`` say;
        for a few hundred coefficients.

    Returns
    -------
    Hypergradient
        Flops: two products with the Hessian's factors for each step of conjugate gradients.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact first-order method for bilevel
    optimization with application to hyperparameter learning", arXiv:2308.10098.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> one = np.ones((1, 1))
    >>> problem = orthokern.RidgeProblem(one, np.ones(1), one, np.array([0.25]))
    >>> found = orthokern.hypergradient(problem, np.zeros(1), method="exact")
    >>> float(found.value), np.round(found.grad, 9).tolist()
    (0.03125, [-0.0625])
    """
    checked_theta(theta, "hypergradient")
    for name, value in (("eps", eps), ("delta", delta)):
        check.at_least(value, 0.0, kernel="hypergradient", name=name, strict=True)
    check.choice(method, METHODS, kernel="hypergradient", name="method")
    x = problem.start(theta) if x0 is None else x0
    if method == "exact":
        return _exact(problem, theta, x)
    lower = minimized(problem, theta, x, eps)
    return evaluated(problem, theta, lower, q0, eps, delta)


def checked_theta(theta: Any, kernel: str) -> None:
    """Refuse what is no vector of real numbers with values."""
    check.real(theta, kernel=kernel, name="theta")
    if is_traced(theta) or is_lazy(theta):
        message = (
            f"{kernel}: expected an array with values for theta, which decide how far to solve; "
            "call it outside jit, and compute lazy arrays first"
        )
        raise UnsupportedError(message)
    if theta.ndim != 1:
        message = f"{kernel}: expected a vector theta (T,), got shape {tuple(theta.shape)}"
        raise ShapeError(message)


def length(v: Any) -> float:
    """2-norm as a Python number."""
    return float(namespace(v).linalg.vector_norm(v))


def minimized(
    problem: BilevelProblem, theta: Any, x: Any, error: float, *, exact: bool = False
) -> Lower:
    """Newton's method until the gradient says that x is within ``error``, or until rounding ends it.

    The steps are found by conjugate gradients, for a quadratic function in one run of them, or ``exact`` with the
    Hessian as a matrix. A step that does not lower the gradient is halved.
    """
    count = 0
    gradient = problem.gradient(x, theta)
    mu = known_constants(problem, x, theta)[0].strong_convexity or 0.0
    goal = mu * error
    for _ in range(MOST_NEWTON):
        size = length(gradient)
        if not size > goal:
            break
        if exact:
            direction = _dense_solution(problem, x, theta, gradient)
        else:
            direction, taken = _conjugate_gradients(problem, x, theta, gradient, None, 0.9 * goal)
            count += taken
        step, ahead = _halved(problem, x, theta, direction, size)
        if step == 0:
            break
        x, gradient = x - step * direction, ahead
    constants, certified = known_constants(problem, x, theta)
    return Lower(x, length(gradient) / mu if mu > 0 else math.inf, constants, certified, count)


def _halved(
    problem: BilevelProblem, x: Any, theta: Any, direction: Any, size: float
) -> tuple[float, Any]:
    """The first of the steps 1, 1/2, ... that lowers the gradient, and the gradient there; 0 if none does."""
    step = 1.0
    for _ in range(MOST_HALVINGS):
        ahead = problem.gradient(x - step * direction, theta)
        if length(ahead) <= (1 - LEAST_PROGRESS * step) * size:
            return step, ahead
        step /= 2
    return 0.0, None


def evaluated(
    problem: BilevelProblem, theta: Any, lower: Lower, q: Any, eps: float, delta: float
) -> Hypergradient[Any]:
    """The gradient at an approximate minimizer, by conjugate gradients from ``q``."""
    upward = problem.upper_gradient(lower.x)
    q, count = _conjugate_gradients(problem, lower.x, theta, upward, q, delta)
    return _bounded(problem, theta, lower, upward, q, count, (eps, delta))


def _exact(problem: BilevelProblem, theta: Any, x: Any) -> Hypergradient[Any]:
    lower = minimized(problem, theta, x, 0.0, exact=True)
    upward = problem.upper_gradient(lower.x)
    q = _dense_solution(problem, lower.x, theta, upward)
    return _bounded(problem, theta, lower, upward, q, 0, (math.inf, math.inf))


def _dense_solution(problem: BilevelProblem, x: Any, theta: Any, right: Any) -> Any:
    """Solution with the Hessian as a matrix, made column by column."""
    xp = namespace(x)
    eye = identity_like(x[:, None] * x[None, :])
    columns = [problem.hessian_product(x, theta, eye[:, i]) for i in range(x.shape[0])]
    return xp.linalg.solve(xp.stack(columns, axis=-1), right[:, None])[:, 0]


def _bounded(
    problem: BilevelProblem,
    theta: Any,
    lower: Lower,
    upward: Any,
    q: Any,
    count: int,
    asked: tuple[float, float],
) -> Hypergradient[Any]:
    left = length(problem.hessian_product(lower.x, theta, q) - upward)
    bound = _error_bound(lower.constants, lower.error, left, length(upward), length(q))
    return Hypergradient(
        value=problem.upper(lower.x),
        grad=-problem.cross_adjoint(lower.x, theta, q),
        error_bound=bound,
        x=lower.x,
        q=q,
        info=HypergradientInfo(
            lower_error=lower.error,
            adjoint_residual=left,
            lower_steps=lower.steps,
            adjoint_steps=count,
            converged=lower.error <= asked[0] and left <= asked[1],
            certified=lower.certified,
        ),
    )


def _error_bound(
    constants: Constants, eps: float, delta: float, upward: float, adjoint: float
) -> float:
    """The formula of :func:`hypergradient`, of what was really reached."""
    mu, smooth, norm, cross, inverse = (0.0 if c is None else c for c in constants)
    if not mu > 0:
        return math.inf
    moved = smooth / mu + inverse * upward
    return norm * (delta / mu + moved * eps) + cross * eps * (adjoint + delta / mu + moved * eps)


def _conjugate_gradients(
    problem: BilevelProblem, x: Any, theta: Any, right: Any, start: Any, goal: float
) -> tuple[Any, int]:
    """``v`` with ``||H v - right|| <= goal``, or as near as rounding lets it come, and the steps taken."""
    xp = namespace(x)
    v = xp.zeros_like(right) if start is None else start
    r = right - problem.hessian_product(x, theta, v) if start is not None else right
    floor = unit_roundoff(x) * length(right)
    least = max(goal, floor) ** 2

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        v, r, p, size = state
        image = problem.hessian_product(x, theta, p)
        share = size / xp.sum(p * image)
        v, r = v + share * p, r - share * image
        fresh = xp.sum(r * r)
        return v, r, r + (fresh / size) * p, fresh

    most = CG_STEPS * x.shape[0] + 20
    state, count = iterate(
        step, (v, r, r, xp.sum(r * r)), done=lambda s: s[3] <= least, max_steps=most
    )
    return state[0], int(count)


def known_constants(problem: BilevelProblem, x: Any, theta: Any) -> tuple[Constants, bool]:
    """The constants of the problem, those that it does not know estimated, and whether it knew all."""
    given = problem.constants(x, theta)
    if None not in given:
        return given, True
    return _estimated(problem, x, theta, given), False


def _estimated(problem: BilevelProblem, x: Any, theta: Any, given: Constants) -> Constants:
    """Largest ratios along a few random directions, with a margin: plausible, and no bounds."""
    size = x.shape[0]
    drawn = normal(PROBES * size, like=x, seed=0)
    probes = [drawn[i * size : (i + 1) * size] for i in range(PROBES)]
    probes = [v / length(v) for v in probes]
    step = PROBE_LENGTH * max(1.0, length(x))
    mu = given.strong_convexity
    mu = _least_eigenvalue(problem, x, theta, probes[0]) / SAFETY if mu is None else mu
    pairs = list(zip(probes, probes[1:] + probes[:1], strict=True))

    def largest(values: list[float]) -> float:
        return SAFETY * max(values)

    def moved(function: Any) -> list[float]:
        return [length(function(x + step * v, q) - function(x, q)) / step for v, q in pairs]

    return Constants(
        mu,
        _or(given.upper_smoothness, lambda: largest(moved(lambda x, q: problem.upper_gradient(x)))),
        _or(
            given.cross_norm,
            lambda: (
                size**0.5 * largest([length(problem.cross_adjoint(x, theta, v)) for v in probes])
            ),
        ),
        _or(
            given.cross_smoothness,
            lambda: size**0.5 * largest(moved(lambda x, q: problem.cross_adjoint(x, theta, q))),
        ),
        _or(
            given.inverse_smoothness,
            lambda: largest(moved(lambda x, q: problem.hessian_product(x, theta, q))) / mu**2,
        ),
    )


def _or(value: float | None, estimate: Any) -> float:
    return float(estimate()) if value is None else value


def _least_eigenvalue(problem: BilevelProblem, x: Any, theta: Any, start: Any) -> float:
    """By power steps, first for the largest and then for what it exceeds the others by."""
    top, v = 0.0, start
    for _ in range(30):
        image = problem.hessian_product(x, theta, v)
        top = length(image)
        v = image / top
    shift, v = 1.01 * top, start
    for _ in range(200):
        image = shift * v - problem.hessian_product(x, theta, v)
        v = image / length(image)
    return float(namespace(v).sum(v * problem.hessian_product(x, theta, v)))
