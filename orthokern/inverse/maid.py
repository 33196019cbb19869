"""Hyperparameters by descent along inexact gradients, each as accurate as its step needs."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dtypes import eps as unit_roundoff
from .._core.typing import ArrayT
from .hypergradient import (
    Hypergradient,
    Lower,
    checked_theta,
    evaluated,
    length,
    minimized,
)
from .problems import BilevelProblem

# What a refused accuracy or step is multiplied by, and an accepted one.
FINER, SHORTER = 0.5, 0.5
COARSER, LONGER = 1.25, 10 / 9
# Trials of a step before the accuracy is blamed.
TRIALS = 10
# The first step moves no farther than this.
FIRST_MOVE = 1.0
# Below this many units of rounding nothing can be solved.
FINEST = 100.0


class MaidStatus(IntEnum):
    """Codes of ``info.status``."""

    STATIONARY = 0
    MAX_ITER = 1
    PRECISION = 2


class MaidInfo(NamedTuple):
    """How the descent went; Python numbers.

    iterations
        Accepted steps.
    residual
        Norm of the last gradient and the bound of its error, together.
    converged
        Whether the residual is below the tolerance.
    status
        Code (:class:`MaidStatus`). PRECISION: the next step would need a lower solution that rounding does not allow.
    lower_steps, adjoint_steps
        Steps of conjugate gradients, of all trials.
    eps, delta, step
        Accuracies and length of step in the end.
    certified
        Whether every bound came from constants that the problem gave.
    """

    iterations: int
    residual: float
    converged: bool
    status: int
    lower_steps: int
    adjoint_steps: int
    eps: float
    delta: float
    step: float
    certified: bool


class MaidResult(NamedTuple, Generic[ArrayT]):
    """Hyperparameters (T,), value and lower solution (d,) there, and the values at the start and after each step."""

    theta: ArrayT
    value: ArrayT
    x: ArrayT
    values: tuple[float, ...]
    info: MaidInfo


class _Accuracy(NamedTuple):
    eps: float
    delta: float

    def times(self, factor: float) -> _Accuracy:
        return _Accuracy(self.eps * factor, self.delta * factor)

    def attainable(self, x: Any) -> bool:
        return self.eps >= FINEST * unit_roundoff(x) * max(1.0, length(x))


class _Work(NamedTuple):
    """Steps of conjugate gradients so far, and whether all bounds were certified."""

    lower: int = 0
    adjoint: int = 0
    certified: bool = True

    def plus(self, lower: int, adjoint: int, certified: bool) -> _Work:
        return _Work(self.lower + lower, self.adjoint + adjoint, self.certified and certified)


def maid(
    problem: BilevelProblem,
    theta0: ArrayT,
    /,
    *,
    x0: Any = None,
    eps0: float = 0.1,
    delta0: float = 0.1,
    step0: float = 1.0,
    eta: float = 0.5,
    decrease: float = 0.5,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> MaidResult[ArrayT]:
    r"""Minimize :math:`f(\theta) = g(\hat x(\theta))` by gradient steps whose accuracy adapts itself (MAID).

    Each gradient is solved until the bound :math:`\omega` of its error is at most :math:`(1 - \eta)` of its norm. A
    step is accepted if the value decreases by a part of what the gradient promises, also when both values are as
    wrong as they may be; else it is halved. Where no step is accepted the accuracies are halved. After a step all
    three grow again.

    Parameters
    ----------
    problem : BilevelProblem
        For example a :class:`RidgeProblem`.
    theta0 : array (T,)
        Where to start; an eager array with values.
    x0 : array (d,), optional
        A guess of the lower minimizer there.
    eps0, delta0, step0 : float
        First accuracies of the lower minimizer and of the linear system, and first step, which moves by at most 1.
        The result does not depend on them, the cost does.
    eta : float
        Between 0 and 1: how much of a gradient must be certain.
    decrease : float
        Between 0 and 1: the part of ``eta`` times step times squared norm that the value must decrease by.
    tol : float
        Norm of the gradient, with its bound, at which to stop.
    max_iter : int
        Most accepted steps.

    Returns
    -------
    MaidResult
        Flops: those of :func:`hypergradient` for each step, and a lower solution for each trial.

    References
    ----------
    M. S. Salehi, S. Mukherjee, L. Roberts, M. J. Ehrhardt, "An adaptively inexact first-order method for bilevel
    optimization with application to hyperparameter learning", arXiv:2308.10098.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> one = np.ones((1, 1))
    >>> problem = orthokern.RidgeProblem(one, np.ones(1), one, np.array([0.25]))
    >>> found = orthokern.maid(problem, np.zeros(1), tol=1e-8)
    >>> bool(abs(found.theta[0] - np.log(3)) < 1e-6), bool(found.info.converged)
    (True, True)
    """
    checked_theta(theta0, "maid")
    named = {"eps0": eps0, "delta0": delta0, "step0": step0, "tol": tol}
    for name, value in named.items():
        check.at_least(value, 0.0, kernel="maid", name=name, strict=True)
    certain = check.interval(eta, kernel="maid", name="eta")
    share = certain * check.interval(decrease, kernel="maid", name="decrease")
    most = check.count(max_iter, kernel="maid", name="max_iter", least=0)
    asked, step = _Accuracy(eps0, delta0), step0
    x = problem.start(theta0) if x0 is None else x0
    theta: Any = theta0
    values: list[float] = []
    work, failures, q = _Work(), 0, None
    while True:
        found, asked, work = _accurate(problem, theta, x, q, asked, 1 - certain, tol, work)
        x, q = found.x, found.q
        if not values:
            values.append(float(found.value))
            step = min(step, FIRST_MOVE / max(length(found.grad), FIRST_MOVE / step))
        residual = length(found.grad) + found.error_bound
        status = _stopped(residual, tol, asked, x, len(values) > most)
        if status is not None:
            break
        trial, work = _descended(problem, theta, found, asked, step, share, TRIALS + failures, work)
        if trial is None:
            asked, failures = asked.times(FINER), failures + 1
            continue
        theta, x, step = trial
        values.append(float(problem.upper(x)))
        asked, step = asked.times(COARSER), step * LONGER
    info = MaidInfo(
        iterations=len(values) - 1,
        residual=residual,
        converged=status is MaidStatus.STATIONARY,
        status=int(status),
        lower_steps=work.lower,
        adjoint_steps=work.adjoint,
        eps=asked.eps,
        delta=asked.delta,
        step=step,
        certified=work.certified,
    )
    return MaidResult(theta, found.value, found.x, tuple(values), info)


def _stopped(
    residual: float, tol: float, asked: _Accuracy, x: Any, over: bool
) -> MaidStatus | None:
    """Why there is no next step, or None."""
    if residual <= tol:
        return MaidStatus.STATIONARY
    if not asked.attainable(x) or math.isnan(residual):
        return MaidStatus.PRECISION
    return MaidStatus.MAX_ITER if over else None


def _accurate(
    problem: BilevelProblem,
    theta: Any,
    x: Any,
    q: Any,
    asked: _Accuracy,
    uncertain: float,
    tol: float,
    work: _Work,
) -> tuple[Hypergradient[Any], _Accuracy, _Work]:
    """A gradient whose error is at most the share ``uncertain`` of it, or that is known to be small."""
    while True:
        lower = minimized(problem, theta, x, asked.eps)
        found = evaluated(problem, theta, lower, q, *asked)
        work = work.plus(lower.steps, found.info.adjoint_steps, lower.certified)
        x, q, size = found.x, found.q, length(found.grad)
        good = found.error_bound <= uncertain * size or size + found.error_bound <= tol
        if good or not asked.attainable(x):
            return found, asked, work
        asked = asked.times(FINER)


def _descended(
    problem: BilevelProblem,
    theta: Any,
    found: Hypergradient[Any],
    asked: _Accuracy,
    step: float,
    share: float,
    trials: int,
    work: _Work,
) -> tuple[tuple[Any, Any, float] | None, _Work]:
    """The first of the steps, each half of the one before, that lowers the value for certain."""
    size = length(found.grad)
    smooth = problem.constants(found.x, theta).upper_smoothness
    here = float(found.value) - _doubt(problem, found.x, found.info.lower_error, smooth)
    for _ in range(trials):
        ahead = theta - step * found.grad
        lower: Lower = minimized(problem, ahead, found.x, asked.eps)
        work = work.plus(lower.steps, 0, lower.certified)
        smooth = lower.constants.upper_smoothness
        there = float(problem.upper(lower.x)) + _doubt(problem, lower.x, lower.error, smooth)
        if there - here <= -share * step * size**2:
            return (ahead, lower.x, step), work
        step *= SHORTER
    return None, work


def _doubt(problem: BilevelProblem, x: Any, error: float, smooth: float | None) -> float:
    """How much the upper value at the minimizer may differ from that at ``x``."""
    return length(problem.upper_gradient(x)) * error + (smooth or 0.0) * error**2 / 2
