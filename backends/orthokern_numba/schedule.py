"""Static schedules, executed exactly as they stand, and the closing that measures what they left."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from orthokern.spectral.plan import STATS_WIDTH, Schedule, Stat, Step, StepKind

from . import layout
from .library import thin_qr
from .newton import DEFECT_STEPS, UPPER_MARGIN, Factor, Iterate

CLOSING_QUINTIC = (15 / 8, -10 / 8, 3 / 8)
MOST_CLOSING_STEPS = 6
NORM_STEPS, TOP_STEPS = 12, 8
# Above this weight the Cholesky form of a Halley step loses about c * eps; the QR form does not.
CHOLESKY_LIMIT = 200.0


def execute(a: np.ndarray, schedule: Schedule) -> Factor:
    """Apply the steps of ``schedule`` to ``a`` (m, n), m >= n, then close it if it asks for that."""
    newton = any(step.kind is StepKind.NEWTON for step in schedule.steps)
    if newton and a.shape[0] > a.shape[1]:
        q, r = thin_qr(a)
        inner = execute(r, schedule)
        return Factor(q @ inner.u, inner.stats)
    if a.flags.c_contiguous and a.shape[0] == a.shape[1] > 1:
        inner = execute(a.T, schedule)
        return Factor(inner.u.T, inner.stats)
    state = Iterate(a)
    _normalize(state, schedule.normalization)
    if schedule.restarts is None:
        for step in schedule.steps:
            STEPS[step.kind](state, step.coefficients)
    else:
        _gram_form(state, schedule.steps, schedule.restarts)
    if state.scale != 1:
        state.x *= state.real(state.scale)
        state.scale = 1.0
    extra, residual = _close(state, schedule) if schedule.closing_tol > 0 else (0, math.inf)
    return Factor(state.x, _figures(state, schedule.steps, extra, residual))


def _figures(state: Iterate, steps: tuple[Step, ...], extra: int, residual: float) -> np.ndarray:
    stats = np.zeros(STATS_WIDTH, dtype=state.real)
    codes = [*(step.kind for step in steps), *[StepKind.QUINTIC] * extra][: STATS_WIDTH - len(Stat)]
    stats[len(Stat) : len(Stat) + len(codes)] = codes
    stats[Stat.ITERATIONS], stats[Stat.EXTRA_STEPS] = len(steps) + extra, extra
    stats[Stat.RESIDUAL] = max(residual, state.eps)
    return stats


def _normalize(state: Iterate, normalization: str) -> None:
    """Set ``scale`` to one over the named norm; a zero matrix keeps 1."""
    bound = 1.0
    if normalization != "none":
        bound = math.sqrt(layout.square_sum(state.x.T))
    if normalization == "schatten4" and bound > 0:
        g = state.gram(1.0)
        layout.mirror(g.T)
        bound = layout.square_sum(g.T) ** 0.25
    elif normalization == "spectral" and bound > 0:
        # The polynomials that follow diverge above their interval: more steps than a measured plan needs.
        bound = min(bound, UPPER_MARGIN * layout.gain(state.x.T, state.start, NORM_STEPS))
    state.scale = 1 / bound if bound > 0 else 1.0


def _newton(state: Iterate, coefficients: tuple[float, ...]) -> None:
    """``X <- a X + b X^{-H}``; a zero pivot is lifted to eps, a perturbation within the backward error."""
    a, b = coefficients
    if not state.invert():
        layout.lift_diagonal(state.x.T, state.eps)
        if not state.invert():
            message = "expected a matrix that Newton's step can invert"
            raise np.linalg.LinAlgError(message)
    layout.newton_average(
        state.x.T, state.y.T, state.order, state.real(a * state.scale), state.real(b / state.scale)
    )
    state.scale = 1.0


def _halley(state: Iterate, coefficients: tuple[float, ...]) -> None:
    """``X <- s ((b/c) X + (a - b/c) X (I + c G)^{-1})``, by Cholesky or, for large c, by QR of [sqrt(c) X; I]."""
    a, b, c, after = (*coefficients, 1.0)[:4]
    weight = after * (a - b / c) * state.scale
    if c > CHOLESKY_LIMIT or not _solve_shifted(state, c, weight):
        _solve_stacked(state, c, weight)
    layout.add_scaled(state.x.T, state.y.T, state.real(after * state.scale * b / c))
    state.x, state.y = state.y, state.x
    if state.p is state.x:
        state.p = state.y
    state.scale = 1.0


def _solve_shifted(state: Iterate, c: float, weight: float) -> bool:
    g = state.gram(c * state.scale * state.scale)
    g.T.reshape(-1)[:: state.n + 1] += 1
    r, info = state.f.potrf(g, overwrite_a=1, clean=0)
    if info:
        return False
    np.copyto(state.y, state.x)
    state.f.trsm(weight, r, state.y, side=1, overwrite_b=1)
    state.f.trsm(1.0, r, state.y, side=1, trans_a=state.f.adjoint, overwrite_b=1)
    return True


def _solve_stacked(state: Iterate, c: float, weight: float) -> None:
    root = c**0.5
    m = state.x.shape[0]
    stacked = np.zeros((m + state.n, state.n), dtype=state.x.dtype, order="F")
    np.multiply(state.x, state.real(root * state.scale), out=stacked[:m])
    np.fill_diagonal(stacked[m:], 1)
    q = thin_qr(stacked, overwrite=True)[0]
    np.matmul(q[:m], q[m:].conj().T, out=state.y)
    state.y *= state.real(weight / (root * state.scale))


def _polynomial(state: Iterate, coefficients: tuple[float, ...]) -> None:
    g = state.gram(state.scale * state.scale)
    if len(coefficients) <= 3:
        state.polynomial(coefficients)
        return
    layout.mirror(g.T)
    p = np.asfortranarray(_horner(g, coefficients))
    state.apply(p)


def _horner(g: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """``c0 I + c1 G + c2 G^2 + ...`` in full."""
    n = g.shape[0]
    factor = g * coefficients[-1]
    for place, coefficient in enumerate(reversed(coefficients[:-1])):
        if place:
            factor = g @ factor
        factor.reshape(-1, order="A")[:: n + 1] += coefficient
    return factor


STEPS: dict[StepKind, Callable[[Iterate, tuple[float, ...]], None]] = {
    StepKind.NEWTON: _newton,
    StepKind.HALLEY: _halley,
    StepKind.CUBIC: _polynomial,
    StepKind.QUINTIC: _polynomial,
}


def _gram_form(state: Iterate, steps: tuple[Step, ...], restarts: tuple[int, ...]) -> None:
    """Newton-Schulz on the n x n Gram matrix alone, with X and a fresh Gram matrix at the restarts."""
    total: np.ndarray | None = None
    g = _full_gram(state)
    for i, step in enumerate(steps):
        if i in restarts and total is not None:
            state.x = np.asfortranarray(state.x @ total)
            total, g = None, _full_gram(state)
        factor = _horner(g, step.coefficients)
        total = factor if total is None else total @ factor
        if i + 1 < len(steps) and i + 1 not in restarts:
            g = factor @ g @ factor
            g += g.conj().T
            g *= 0.5
    if total is not None:
        state.x = np.asfortranarray(state.x @ total)


def _full_gram(state: Iterate) -> np.ndarray:
    if state.scale != 1:
        state.x *= state.real(state.scale)
        state.scale = 1.0
    g = state.gram(1.0)
    layout.mirror(g.T)
    return g.copy(order="F")


def _close(state: Iterate, schedule: Schedule) -> tuple[int, float]:
    """Append quintic steps until the singular values are within ``closing_tol`` of 1; (how many, residual).

    A partial factor keeps its small singular values: nothing is added, and the residual is what the square of its
    largest one exceeds 1 by.
    """
    if schedule.completion == "partial":
        top = layout.gain(state.x.T, state.start, TOP_STEPS)
        return 0, max(top * top - 1, 0.0)
    found, extra = math.inf, 0
    for extra in range(MOST_CLOSING_STEPS + 1):
        g = state.gram(1.0)
        found = UPPER_MARGIN * layout.departure(g.T, state.start, DEFECT_STEPS)
        # |s^2 - 1| <= d puts s within 1 - sqrt(1 - d) of 1.
        if (
            1 - math.sqrt(max(1 - found, 0.0)) <= schedule.closing_tol
            or extra == MOST_CLOSING_STEPS
        ):
            break
        state.polynomial(CLOSING_QUINTIC)
    return extra, found
