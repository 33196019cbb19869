"""Static schedules, executed exactly as they stand, and the closing that measures what they left."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from orthokern.spectral.plan import (
    CLOSING_NEWTON,
    CLOSING_QUINTIC,
    NEAR,
    STATS_WIDTH,
    Schedule,
    Stat,
    Step,
    StepKind,
)

from . import layout
from .library import probe, thin_qr
from .newton import UPPER_MARGIN, Factor, Iterate
from .products import multiplied

MOST_CLOSING_STEPS = 6
# A step of X^H X separates squares of singular values, one of G - I what is small and of both signs.
NORM_STEPS, DEPARTURE_STEPS, POWER_VECTORS = 8, 16, 8
# Above this weight the Cholesky form of a Halley step loses about c * eps; the QR form does not.
CHOLESKY_LIMIT = 200.0


def execute(a: np.ndarray, schedule: Schedule) -> Factor:
    """Apply the steps of ``schedule`` to ``a`` (m, n), m >= n, then close it if it asks for that."""
    newton = any(step.kind is StepKind.NEWTON for step in schedule.steps)
    if newton and schedule.completion == "partial" and not a.any():
        # Newton's steps complete what has no direction.
        schedule = schedule._replace(steps=())
    if newton and a.shape[0] > a.shape[1]:
        q, r = thin_qr(a)
        inner = execute(r, schedule)
        return Factor(q @ inner.u, inner.stats)
    square = a.shape[0] == a.shape[1] > 1
    if a.flags.c_contiguous and square and schedule.normalization != "aol":
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
    extra, residual = _close(state, schedule) if schedule.closing_tol > 0 else ((), math.inf)
    return Factor(state.x, _figures(state, (*schedule.steps, *extra), len(extra), residual))


def _figures(state: Iterate, steps: tuple[Step, ...], extra: int, residual: float) -> np.ndarray:
    stats = np.zeros(STATS_WIDTH, dtype=state.real)
    codes = [step.kind for step in steps][: STATS_WIDTH - len(Stat)]
    stats[len(Stat) : len(Stat) + len(codes)] = codes
    stats[Stat.ITERATIONS], stats[Stat.EXTRA_STEPS] = len(steps), extra
    stats[Stat.RESIDUAL] = max(residual, state.eps)
    return stats


def _normalize(state: Iterate, normalization: str) -> None:
    """Set ``scale`` to one over the named norm, or divide each column by its own; a zero matrix keeps 1."""
    bound = 1.0
    if normalization == "aol":
        sums = np.sqrt(np.sum(np.abs(_full_gram(state)), axis=0))
        state.x /= np.where(sums > 0, sums, 1).astype(sums.dtype)
        return
    if normalization != "none":
        bound = math.sqrt(layout.square_sum(state.x.T))
    if normalization == "schatten4" and bound > 0:
        g = state.gram(1.0)
        layout.mirror(g.T)
        bound = layout.square_sum(g.T) ** 0.25
    elif normalization == "spectral" and bound > 0:
        # The polynomials that follow diverge above their interval: more steps than a measured plan needs.
        bound = min(bound, UPPER_MARGIN * _largest(state))
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
            factor = multiplied(g, factor)
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
            state.x = multiplied(state.x, total)
            total, g = None, _full_gram(state)
        factor = _horner(g, step.coefficients)
        total = factor if total is None else multiplied(total, factor)
        if i + 1 < len(steps) and i + 1 not in restarts:
            g = multiplied(multiplied(factor, g), factor)
            g += g.conj().T
            g *= 0.5
    if total is not None:
        state.x = multiplied(state.x, total)


def _full_gram(state: Iterate) -> np.ndarray:
    if state.scale != 1:
        state.x *= state.real(state.scale)
        state.scale = 1.0
    g = state.gram(1.0)
    layout.mirror(g.T)
    return g.copy(order="F")


def _close(state: Iterate, schedule: Schedule) -> tuple[tuple[Step, ...], float]:
    """Append steps until the singular values are within ``closing_tol`` of 1; returns them and the residual.

    A partial factor keeps its small singular values: nothing is added, and the residual is what the square of its
    largest one exceeds 1 by.
    """
    if schedule.completion == "partial":
        top = _largest(state)
        return (), max(top * top - 1, 0.0)
    newton = any(step.kind is StepKind.NEWTON for step in schedule.steps)
    # |s^2 - 1| <= tol (2 - tol) puts s within tol of 1 on both sides; rounding alone leaves sqrt(n) eps.
    tol = schedule.closing_tol
    enough = max(tol * (2 - tol), 2 * state.eps * state.n**0.5)
    taken: list[Step] = []
    found = _departure(state)
    while found > enough and len(taken) < MOST_CLOSING_STEPS:
        taken.append(CLOSING_NEWTON if newton and found > NEAR else CLOSING_QUINTIC)
        if taken[-1] is CLOSING_QUINTIC:
            state.polynomial(CLOSING_QUINTIC.coefficients, near=True)
        else:
            _newton(state, CLOSING_NEWTON.coefficients)
        found = _departure(state)
    return tuple(taken), found


def _departure(state: Iterate) -> float:
    """``||X^H X - I||_2``, estimated with a margin."""
    g = state.gram(1.0)
    layout.mirror(g.T)
    return UPPER_MARGIN * _gain(lambda v: g @ v - v, state, DEPARTURE_STEPS)


def _largest(state: Iterate) -> float:
    """Estimate of the largest singular value from below."""
    x = state.x
    return math.sqrt(_gain(lambda v: x.conj().T @ (x @ v), state, NORM_STEPS))


def _gain(apply: Callable[[np.ndarray], np.ndarray], state: Iterate, steps: int) -> float:
    """Estimate from below of the norm of a Hermitian map: power steps on a few vectors at once."""
    n, count = state.n, min(state.n, POWER_VECTORS)
    v, gains = probe(n * count, state.x.dtype).reshape(n, count), np.zeros(count)
    for _ in range(steps):
        lengths = np.linalg.norm(v, axis=0)
        v = apply(v / np.where(lengths > 0, lengths, 1))
        gains = np.linalg.norm(v, axis=0)
    return float(gains.max())
