"""Polar factors by the cheapest plan for the condition number that is measured, and the checks of what came out.

A plan is made on the host, from bounds that cost one wait for the device, and runs without another. What it leaves is
closed by a polynomial step from a Gram matrix that shows how far the plan came, and two probes show how far the
result is from orthonormal and from backward stable: a second wait for the device brings all three. One more is spent
where a Gram matrix cannot show the condition number (kappa above 1e6 in double, 50 in single precision), and one for
each further step. A stack has one plan, made for its worst member, and checks for each member.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from orthokern.spectral.plan import (
    CLOSING_QUINTIC,
    COSTS,
    STATS_WIDTH,
    Stat,
    Step,
    StepKind,
    advance,
    plan_cost,
    plan_polar,
)

from .estimates import (
    DEPARTURE_STEPS,
    LOWER_STEPS,
    UPPER_STEPS,
    departure,
    gain,
    gaussian,
    skewness,
)
from .library import (
    adjoint,
    affine,
    careful_gram,
    divided,
    epsilon,
    frobenius,
    gram,
    host,
    left_divided,
    real,
    real_diagonal,
    solve_triangular,
)
from .steps import FAST, POWER_MARGIN, corrected, identity_like, newton_with, polynomial, run

# Power steps underestimate norms: that of the inverse by up to this.
LOWER_MARGIN = 0.7
# By how much a factorization may miss its matrix, over the least eigenvalue, for bounds from it to be trusted.
SOUND = 0.2
ROUNDED_UP = 1 + 1e-6
# Exponents of the least and the largest size that prices are known for.
SMALLEST, LARGEST = 10, 13
# ||G - I|| up to which a quintic step brings singular values nearer to 1.
REACHABLE = 1.0
MOST_CLOSING_STEPS = 6
CLOSING_CUBIC = Step(StepKind.CUBIC, (1.5, -0.5))
# ||G - I||_F of a step's input to the power becomes, at most, factor times that.
CONTRACTION = {StepKind.CUBIC: (0.75, 2), StepKind.QUINTIC: (0.625, 3)}
# Part of the promised backward error that a probe may see.
PROBE_SHARE = 0.25


class Found(NamedTuple):
    """Factors (..., m, n), the figures of each member on the host, and which members passed every check."""

    u: Any
    figures: np.ndarray
    passed: np.ndarray


class Bounds(NamedTuple):
    """Upper bounds of the largest singular values, and lower ones of the smallest relative to them."""

    upper: np.ndarray
    lower: np.ndarray


class Core(NamedTuple):
    """A square or tall iterate with singular values in [lower, 1], steps it has had, and what leads back to ``x``."""

    x: Any
    lower: float
    bounds: Bounds
    lost: np.ndarray
    steps: tuple[Step, ...] = ()
    g: Any = None


def prices(x: Any) -> str:
    """Name of the table of costs for the size of ``x``: the nearest one on a logarithmic scale."""
    nearest = round(math.log2(max(x.shape[-1], 1)))
    return f"cuda-{2 ** min(max(nearest, SMALLEST), LARGEST)}"


def easy_limit(x: Any) -> float:
    """Least sigma_min / sigma_max that a Gram matrix shows to a few percent."""
    return float(10 * (x.shape[-1] ** 0.5 * epsilon(x)) ** 0.5)


def _rounded(lower: float) -> float:
    """``lower`` rounded down to a 16th of a decade: plans take milliseconds of the host, so few are ever made."""
    place = math.floor(16 * math.log10(min(max(lower, 1e-300), 1.0)) + 1e-9)
    return float(10 ** (place / 16))


def _column(values: np.ndarray, like: Any, cp: Any) -> Any:
    """One number of the host for each member, shape (..., 1, 1)."""
    return cp.asarray(values.reshape(*like.shape[:-2], 1, 1).astype(real(like)))


# Bounds


def bounds_by_gram(g: Any, cp: Any) -> Bounds:
    """From ``X^H X``, by power steps on it and on its inverse; a lower bound of 0 where Cholesky went wrong.

    One wait for the device, n^3 / 3 flops and O(n^2).
    """
    v = gaussian(g.shape[-1], g, cp)
    top = gain(lambda w: cp.matmul(g, w), v, UPPER_STEPS, cp)
    bottom, missed = _inverse_gain(g, v, cp)
    trace = cp.sum(real_diagonal(g, cp), axis=-1)
    top, trace, bottom, missed = host([top, trace, bottom, missed], cp).reshape(4, -1)
    with np.errstate(all="ignore"):
        upper = np.minimum(POWER_MARGIN * np.sqrt(top), np.sqrt(trace))
        lower = LOWER_MARGIN / (np.sqrt(bottom) * upper)
        return _trusted(upper, lower, missed)


def _trusted(upper: np.ndarray, lower: np.ndarray, missed: np.ndarray) -> Bounds:
    sound = np.isfinite(lower) & (lower > 0) & (missed < SOUND)
    return Bounds(upper, np.where(sound, np.minimum(lower, 1), 0))


def _inverse_gain(g: Any, v: Any, cp: Any) -> tuple[Any, Any]:
    """Estimate from below of ``||G^{-1}||``, and how far G is from what was factorized, over its least eigenvalue."""
    if g.ndim > 2:
        # A stack is small enough for its inverse.
        y = cp.linalg.inv(g)
        bottom = gain(lambda w: cp.matmul(y, w), v, LOWER_STEPS, cp)
        return bottom, frobenius(cp.matmul(g, cp.matmul(y, v)) - v, cp) / frobenius(v, cp)
    factor = cp.linalg.cholesky(g)

    def back(w: Any) -> Any:
        inner = solve_triangular(factor, w, lower=True)
        return solve_triangular(factor, inner, lower=True, trans="C")

    bottom = gain(back, v, LOWER_STEPS, cp)
    missed = cp.matmul(factor, cp.matmul(adjoint(factor, cp), v)) - cp.matmul(g, v)
    return bottom, bottom * frobenius(missed, cp) * real(g)(v.shape[-1] ** -0.5)


def bounds_by_inverse(x: Any, y: Any, cp: Any) -> Bounds:
    """From X and its inverse Y; a lower bound of 0 where Y has no meaning. One wait for the device, O(n^2) flops."""
    v = gaussian(x.shape[-1], x, cp)
    top = gain(lambda w: cp.matmul(adjoint(x, cp), cp.matmul(x, w)), v, UPPER_STEPS, cp)
    bottom = gain(lambda w: cp.matmul(adjoint(y, cp), cp.matmul(y, w)), v, LOWER_STEPS, cp)
    missed = frobenius(cp.matmul(x, cp.matmul(y, v)) - v, cp) / frobenius(v, cp)
    figures = [frobenius(x, cp), frobenius(y, cp), top, bottom, missed]
    norm, inverse_norm, top, bottom, missed = host(figures, cp).reshape(5, -1)
    with np.errstate(all="ignore"):
        upper = np.minimum(POWER_MARGIN * np.sqrt(top), norm * ROUNDED_UP)
        # The Frobenius norm is rigorous, and for some spectra the better bound.
        lower = np.maximum(1 / (inverse_norm * ROUNDED_UP), LOWER_MARGIN / np.sqrt(bottom)) / upper
        return _trusted(upper, lower, missed)


# Plans


def _full_plan(lower: float, x: Any) -> tuple[tuple[Step, ...], Step]:
    """The steps to where one closing step reaches full accuracy, and that step: cubic or quintic, as is cheaper."""
    table, eps = prices(x), epsilon(x)
    # Rounded up to a power of 16: a plan for each size would be made anew.
    n = 16 ** math.ceil(math.log(max(x.shape[-1], 2), 16))
    ends = (
        (CLOSING_CUBIC, 0.5 * (eps / n**0.5) ** 0.5),
        (CLOSING_QUINTIC, (eps / (5 * n)) ** (1 / 3)),
    )
    plans = [(_plan(lower, float(f"{tol:.1e}"), x), closing) for closing, tol in ends]
    return min(plans, key=lambda plan: plan_cost(plan[0], table) + COSTS[table][plan[1].kind])


def _plan(lower: float, tol: float, x: Any) -> tuple[Step, ...]:
    return plan_polar(lower, tol, costs=prices(x))


# Routes


def factor(x: Any, cutoff: float, width: float | None, cp: Any) -> Found | None:
    """Unitary polar factors of ``x`` (..., m, n), m >= n, to half-width ``width``, None meaning full accuracy.

    None if every member may have singular values up to ``cutoff`` times its largest; such a member alone does not
    pass. Square: 10 n^3 flops for kappa = 1, 22 n^3 for 1e13, five matrices of memory. Tall: 5 m n^2 flops beside that
    while a Gram matrix shows the condition number, Householder QR beyond.
    """
    m, n = x.shape[-2:]
    if m > n:
        return _tall(x, cutoff, width, cp)
    core = _square_core(x, cutoff, cp)
    return core and _finished(x, core, width, lambda u: u, cp)


def _tall(x: Any, cutoff: float, width: float | None, cp: Any) -> Found | None:
    """CholeskyQR2 or Householder QR, then the core: ``A = Q R``, ``U = Q polar(R)``."""
    g = gram(x, cp)
    bounds = bounds_by_gram(g, cp)
    if np.all(bounds.lower > max(easy_limit(x), cutoff)):
        first = adjoint(cp.linalg.cholesky(g), cp)
        q = divided(x, first, cp)
        second = adjoint(cp.linalg.cholesky(gram(q, cp)), cp)
        core = _easy_core(cp.matmul(second, first), bounds, None, cp)
        return _finished(x, core, width, lambda u: cp.matmul(q, left_divided(second, u, cp)), cp)
    q, r = cp.linalg.qr(x)
    hard = _hard_core(r, cutoff, cp)
    return hard and _finished(x, hard, width, lambda u: cp.matmul(q, u), cp)


def _square_core(x: Any, cutoff: float, cp: Any) -> Core | None:
    """In single precision a Gram matrix shows too little, and the inverse of a stack costs few calls."""
    if x.ndim == 2 and real(x) is np.float64:
        g = gram(x, cp)
        bounds = bounds_by_gram(g, cp)
        if bounds.lower[0] > max(easy_limit(x), cutoff):
            return _easy_core(x, bounds, g, cp)
    return _hard_core(x, cutoff, cp)


def _easy_core(x: Any, bounds: Bounds, g: Any, cp: Any) -> Core:
    scale = _column(1 / bounds.upper, x, cp)
    lost = np.zeros(bounds.lower.shape, dtype=bool)
    g = None if g is None else g * (scale * scale)
    return Core(x * scale, _rounded(float(bounds.lower.min())), bounds, lost, g=g)


def _hard_core(x: Any, cutoff: float, cp: Any) -> Core | None:
    """After Newton's first step, whose inverse gives the bounds; lost members become the identity."""
    y = cp.linalg.inv(x)
    bounds = bounds_by_inverse(x, y, cp)
    lost = ~(bounds.lower > cutoff)
    if lost.all():
        return None
    if lost.any():
        keep = cp.asarray(~lost.reshape(*x.shape[:-2], 1, 1))
        eye = identity_like(x, cp)
        x, y = cp.where(keep, x, eye), cp.where(keep, y, eye)
        bounds = Bounds(np.where(lost, 1, bounds.upper), np.where(lost, 1, bounds.lower))
    scale = _column(bounds.upper, x, cp)
    depth, step = advance(StepKind.NEWTON, -math.log(_rounded(float(bounds.lower.min()))))
    x = newton_with(x / scale, y * scale, step.coefficients, cp)
    return Core(x, _rounded(math.exp(-depth)), bounds, lost, (step,))


def _finished(
    x: Any, core: Core, width: float | None, back: Callable[[Any], Any], cp: Any
) -> Found:
    """Run the plan for ``core`` and close it; ``back`` makes a factor of ``x`` of one of the core."""
    if width is None:
        steps, closing = _full_plan(core.lower, core.x)
        u = run(core.x, steps, cp, table=FAST, g=core.g)
        return _to_full_accuracy(x, u, core._replace(steps=core.steps + steps), closing, back, cp)
    steps = _plan(core.lower, width, core.x)
    u = run(core.x, steps, cp, table=FAST, g=core.g)
    return _to_width(x, u, core._replace(steps=core.steps + steps), width, back, cp)


def _to_full_accuracy(
    x: Any, u: Any, core: Core, closing: Step, back: Callable[[Any], Any], cp: Any
) -> Found:
    """Close by ``closing`` and look at what it was given: one wait for each step taken."""
    enough = epsilon(x) * x.shape[-1] ** 0.5
    steps, extra = core.steps, -1
    while True:
        defect = affine(careful_gram(u, cp), -1.0, 1.0, cp)
        seen = frobenius(defect, cp)
        u = corrected(u, defect, closing.kind, cp)
        steps, extra = (*steps, closing), extra + 1
        result = back(u)
        figures = [seen, departure(result, cp), skewness(x, result, cp), frobenius(x, cp)]
        seen, departed, skew, norm = host(figures, cp).reshape(4, -1)
        factor, power = CONTRACTION[closing.kind]
        after = factor * seen**power
        # Rounding alone may leave too much, once; members far off would only go further.
        rough = (departed > _departure_limit(x)) & (extra == 0)
        open_members = ((after > enough) | rough) & (seen < REACHABLE)
        if not open_members.any() or extra == MOST_CLOSING_STEPS:
            break
        closing = CLOSING_QUINTIC
    passed = (after <= enough) & (departed <= _departure_limit(x)) & ~core.lost
    passed &= skew <= _backward_limit(x) * norm
    return Found(result, _figures(core, steps, extra, after + epsilon(x), x), passed)


def _departure_limit(x: Any) -> float:
    """What a probe may see of ``||U^H U - I||_F``: a part of the promise."""
    n = x.shape[-1]
    return float(min(7.5 * n**0.5, 2.5 * n) * epsilon(x))


def _backward_limit(x: Any) -> float:
    """What a probe may see of the backward error over ``||x||_F``; no step mends what a bad inverse spoils."""
    return float(PROBE_SHARE * max(60.0, 20 * x.shape[-1] ** 0.5) * epsilon(x))


def _to_width(
    x: Any, u: Any, core: Core, width: float, back: Callable[[Any], Any], cp: Any
) -> Found:
    """Quintic steps until every singular value is within ``width`` of 1: one wait for each look."""
    enough = width * (2 + width) * 1.01 + epsilon(x)
    steps, extra = core.steps, 0
    while True:
        g = gram(u, cp)
        result = back(u)
        seen, skew, norm = host(
            [_spectral_departure(g, cp), skewness(x, result, cp), frobenius(x, cp)], cp
        ).reshape(3, -1)
        open_members = (seen > enough) & (seen < REACHABLE)
        if not open_members.any() or extra == MOST_CLOSING_STEPS:
            break
        u = polynomial(u, CLOSING_QUINTIC.coefficients, cp, g)
        steps, extra = (*steps, CLOSING_QUINTIC), extra + 1
    passed = (seen <= enough) & (skew <= _backward_limit(x) * norm) & ~core.lost
    return Found(result, _figures(core, steps, extra, np.maximum(seen, epsilon(x)), x), passed)


def _spectral_departure(g: Any, cp: Any) -> Any:
    """``||G - I||_2``: an estimate with a margin, or the Frobenius norm where that is less."""
    defect = affine(g, -1.0, 1.0, cp)
    start = gaussian(g.shape[-1], g, cp)
    estimate = gain(lambda w: cp.matmul(defect, w), start, DEPARTURE_STEPS, cp)
    return cp.minimum(estimate * real(g)(POWER_MARGIN), frobenius(defect, cp))


def _figures(
    core: Core, steps: tuple[Step, ...], extra: int, residual: np.ndarray, x: Any
) -> np.ndarray:
    """A row of ``orthokern.spectral.plan.Stat`` and codes of steps for each member."""
    rows = np.zeros((residual.size, STATS_WIDTH))
    codes = [int(step.kind) for step in steps][: STATS_WIDTH - len(Stat)]
    rows[:, len(Stat) : len(Stat) + len(codes)] = codes
    rows[:, Stat.ITERATIONS], rows[:, Stat.EXTRA_STEPS] = len(steps), extra
    rows[:, Stat.RESIDUAL], rows[:, Stat.LOWER_BOUND] = residual, core.bounds.lower
    return rows
