"""Polar factor of one matrix by steps: measured bounds, the cheapest plan, BLAS without temporaries, a check.

The steps are those of ``orthokern.spectral.plan``. The last polynomial step forms ``G = X^H X`` anyway; what it
measures there decides whether the plan was good enough, and more steps are appended until it is.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from orthokern.spectral.plan import STATS_WIDTH, Schedule, Stat, Step, StepKind, advance, half_width, plan_polar

from . import loops
from .lapack import (
    aligned_empty,
    invert_upper,
    routines,
    solve_unit_lower,
    solve_upper,
    solve_upper_adjoint,
)

POWER_STEPS = 6
CHECK_STEPS = 4
# Power steps underestimate on slowly decaying spectra; with less margin plans under-converge.
UPPER_MARGIN, LOWER_MARGIN = 1.1, 0.5
MOST_EXTRA_STEPS = 6
TAYLOR_QUINTIC = Step(StepKind.QUINTIC, (15 / 8, -10 / 8, 3 / 8))
TAYLOR_CUBIC = Step(StepKind.CUBIC, (1.5, -0.5))
NEAR = 1e-5
TINY = 1e-300
# Above this weight the Cholesky form of a Halley step loses about c * eps; the QR form does not.
CHOLESKY_LIMIT = 200.0


class Factor(NamedTuple):
    """A unitary factor (Fortran-ordered) and its row of figures."""

    u: np.ndarray
    stats: np.ndarray


@functools.lru_cache(maxsize=64)
def _start(n: int, letter: str) -> np.ndarray:
    """Fixed start of the power iterations."""
    vector = np.random.default_rng(1729).standard_normal(n).astype(letter)
    vector.flags.writeable = False
    return vector


def _length(v: np.ndarray) -> float:
    return float(np.sqrt(np.vdot(v, v).real))


class Iterate:
    """The matrix (m, n) of one factorization with its workspaces; ``scale * x`` has singular values in [lower, 1]."""

    def __init__(self, a: np.ndarray) -> None:
        self.f = routines(a.dtype)
        self.n = a.shape[1]
        self.eps = float(np.finfo(a.dtype).eps)
        self.real = a.real.dtype.type
        self.x = np.array(a, order="F", copy=True)
        self.spare = aligned_empty(self.x.shape, a.dtype, "F")
        self.g = aligned_empty((self.n, self.n), a.dtype, "F")
        self.p = aligned_empty((self.n, self.n), a.dtype, "F")
        self.scale = 1.0
        self.lower = 0.0
        self.order: np.ndarray | None = None

    def invert(self) -> bool:
        """Put ``X^{-1}`` into ``spare``, its columns to be permuted by ``order``; False if a pivot vanishes."""
        np.copyto(self.g, self.x)
        lu, pivots, info = self.f.getrf(self.g, overwrite_a=1)
        if info:
            return False
        loops.upper_triangle(lu.T, self.spare.T)
        if not invert_upper(self.spare):
            return False
        solve_unit_lower(lu, self.spare)
        self.order = loops.permutation(pivots)
        return True

    def measure(self) -> float:
        """Set ``scale`` and ``lower`` from power iterations on X and its inverse; returns sigma_min / sigma_max."""
        top, bottom = self._norm(self.x), self._norm(self.spare)
        if not bottom < math.inf:
            return 0.0
        largest = min(UPPER_MARGIN * top, float(np.linalg.norm(self.x)) * (1 + 4 * self.eps))
        self.scale = 1.0 / largest
        # The Frobenius norm bounds the inverse rigorously, and is tight unless many singular values are about as
        # small as the smallest; then no start of the power steps misses them all.
        certain = 1.0 / (float(np.linalg.norm(self.spare)) * largest)
        self.lower = min(max(certain, LOWER_MARGIN / (bottom * largest)), 1.0)
        return 1.0 / (bottom * top)

    def _norm(self, x: np.ndarray) -> float:
        """Estimate of ``||X||_2`` from below, by power steps on ``X^H X``."""
        v = _start(self.n, self.f.letter)
        found = _length(v)
        for _ in range(POWER_STEPS):
            image = self.f.gemv(1.0 / found, x, v)
            length = _length(image)
            if not 0 < length < math.inf:
                return length if length > 0 else TINY
            v = self.f.gemv(1.0 / length, x, image, trans=self.f.turn)
            found = _length(v)
        return found

    def normalize(self, normalization: str) -> None:
        """Set ``scale`` to one over the named norm; a zero matrix keeps 1."""
        bound = 1.0
        if normalization == "frobenius":
            bound = float(np.linalg.norm(self.x))
        elif normalization == "schatten4":
            g = self.gram(1.0)
            loops.mirror(g.T)
            bound = float(np.linalg.norm(g)) ** 0.5
        elif normalization == "spectral":
            bound = min(UPPER_MARGIN * self._norm(self.x), float(np.linalg.norm(self.x)))
        self.scale = 1.0 / bound if bound > 0 else 1.0

    def newton(self, a: float, b: float) -> None:
        """``X <- a X + b X^{-H}``."""
        if self.order is None and not self.invert():
            raise np.linalg.LinAlgError
        a, b = self.real(a * self.scale), self.real(b / self.scale)
        loops.newton_combine(self.x.T, self.spare.T, self.order, a, b, self.p.T)
        self.x, self.p = self.p, self.x
        self.order, self.scale = None, 1.0

    def halley(self, a: float, b: float, c: float, after: float = 1.0) -> None:
        """``X <- after ((b/c) X + (a - b/c) X (I + c G)^{-1})``, by Cholesky or, for large c, by QR."""
        weight, share = after * (a - b / c) * self.scale, self.real(after * self.scale * b / c)
        if c <= CHOLESKY_LIMIT:
            self._solve_shifted(c, weight)
        else:
            self._solve_stacked(c, weight)
        loops.add_multiple(self.x.T, share, self.spare.T)
        self.x, self.spare = self.spare, self.x
        self.order, self.scale = None, 1.0

    def _solve_shifted(self, c: float, weight: float) -> None:
        g = self.gram(c * self.scale * self.scale)
        g.T.flat[:: self.n + 1] += 1
        r, info = self.f.potrf(g, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError
        np.copyto(self.spare, self.x)
        solve_upper(r, self.spare, weight)
        solve_upper_adjoint(r, self.spare)

    def _solve_stacked(self, c: float, weight: float) -> None:
        root = c**0.5
        eye = np.eye(self.n, dtype=self.x.dtype)
        q = scipy.linalg.qr(np.vstack([root * self.scale * self.x, eye]), mode="economic")[0]
        rows = self.x.shape[0]
        self.spare[...] = q[:rows] @ q[rows:].conj().T
        self.spare *= self.real(weight / (root * self.scale))

    def gram(self, factor: float) -> np.ndarray:
        """Upper triangle of ``factor X^H X``."""
        out = self.f.rank_k(factor, self.x, trans=self.f.turn, c=self.g, beta=0.0, overwrite_c=1)
        return out  # type: ignore[no-any-return]

    def deviation(self, g: np.ndarray, centre: float) -> float:
        """Estimate of ``||G - centre I||_2`` by power steps on the upper triangle."""
        v = _start(self.n, self.f.letter)
        length = _length(v)
        found = 0.0
        for _ in range(CHECK_STEPS):
            v = self.f.hermitian_vector(1.0 / length, g, v) - v * (centre / length)
            length = found = _length(v)
            if length == 0.0:
                break
        return found

    def tamed(self, g: np.ndarray) -> np.ndarray:
        """``g``, after scaling down where singular values exceed 1: a Newton step throws up those below its bound."""
        top = 0.5 + 1.05 * self.deviation(g, 0.5)
        if top <= 1.05:
            return g
        self.scale /= top**0.5
        return self.gram(self.scale * self.scale)

    def polynomial(self, coefficients: tuple[float, ...], g: np.ndarray) -> None:
        """``X <- X (c0 I + c1 G + c2 G^2)`` with the upper triangle of the scaled G given (and overwritten)."""
        p = g
        if len(coefficients) == 2:
            loops.shifted_scale(g.T, self.real(coefficients[1]), self.real(coefficients[0]))
        else:
            loops.mirror(g.T)
            p = self.f.rank_k(coefficients[2], g, c=self.p, beta=0.0, overwrite_c=1)
            loops.shifted_sum(p.T, g.T, self.real(coefficients[1]), self.real(coefficients[0]))
        self.f.hermitian_product(
            self.scale, p, self.x, side=1, c=self.spare, beta=0.0, overwrite_c=1
        )
        self.x, self.spare = self.spare, self.x
        self.order, self.scale = None, 1.0


def _plan(state: Iterate, goal: float) -> tuple[Step, ...]:
    """A Newton step, whose inverse the measurement has paid for, and the cheapest plan from where it leads."""
    costs = "numba-128" if state.n < 192 else "numba-256" if state.n < 384 else "numba"
    depth, newton = advance(StepKind.NEWTON, -math.log(state.lower))
    if half_width(depth) <= goal:
        return (newton,)
    return (newton, *plan_polar(math.exp(-depth), goal, costs=costs))


def _closed(steps: tuple[Step, ...], tol: float) -> list[Step]:
    """A plan of full accuracy that ends in a polynomial step, whose Gram matrix the check can look at."""
    if not steps or (tol < 1e-6 and steps[-1].kind in (StepKind.NEWTON, StepKind.HALLEY)):
        return [*steps, TAYLOR_CUBIC]
    return list(steps)


class Check(NamedTuple):
    """What a Gram matrix says of the step that is about to be applied."""

    residual: float
    enough: bool


def _check(state: Iterate, g: np.ndarray, kind: StepKind, depth: float, tol: float) -> Check:
    """Predict the factor's departure from unitarity after a step of ``kind`` from the measured Gram matrix."""
    if half_width(depth) <= NEAR:
        measured = 0.75 * state.deviation(g, 1.0)
        after = 2.5 * measured**3 if kind is StepKind.QUINTIC else 1.5 * measured**2
        return Check(2 * after, after <= 4 * tol)
    # The eigenvalues of G should lie in [lower^2, 1]; the margin covers the estimate's own error.
    square = math.exp(-2 * depth)
    found = state.deviation(g, (1 + square) / 2)
    return Check(2 * half_width(advance(kind, depth)[0]), found <= 1.1 * (1 - square) / 2)


def run(state: Iterate, steps: list[Step], tol: float) -> np.ndarray:
    """Apply the plan, check it at its last polynomial step, append quintic steps while it is not enough."""
    stats = np.zeros(STATS_WIDTH, dtype=state.x.real.dtype)
    stats[Stat.LOWER_BOUND] = state.lower
    planned, depth, residual = len(steps), -math.log(state.lower), 2 * tol
    done = 0
    while done < len(steps):
        kind, weights = steps[done]
        stats[min(len(Stat) + done, STATS_WIDTH - 1)] = kind
        done += 1
        if kind in (StepKind.NEWTON, StepKind.HALLEY):
            (state.newton if kind is StepKind.NEWTON else state.halley)(*weights)
        else:
            g = state.gram(state.scale * state.scale)
            if done < planned and steps[done - 2].kind is StepKind.NEWTON:
                g = state.tamed(g)
            if done == len(steps):
                check = _check(state, g, kind, depth, tol)
                residual = check.residual
                if not check.enough and done < planned + MOST_EXTRA_STEPS:
                    steps.append(TAYLOR_QUINTIC)
            state.polynomial(weights, g)
        depth = advance(kind, depth)[0] if done < planned else 0.0
    stats[Stat.ITERATIONS], stats[Stat.EXTRA_STEPS] = done, done - planned
    stats[Stat.RESIDUAL] = max(residual, state.eps)
    return stats


def planned_factor(a: np.ndarray, tol: float | None, cutoff: float) -> Factor | None:
    """Unitary factor of the square ``a`` to half-width ``tol`` (None: full accuracy).

    None if ``a`` is singular to working precision (sigma_min <= cutoff sigma_max): the caller decides what
    completion means. About 20 n^3 flops.
    """
    state = Iterate(a)
    goal = state.eps / 2 if tol is None else tol
    if not state.invert():
        return None
    ratio = state.measure()
    if not ratio > cutoff:
        return None
    steps = _closed(_plan(state, goal), goal)
    try:
        stats = run(state, steps, goal)
    except np.linalg.LinAlgError:
        return None
    return Factor(state.x, stats)


def execute(a: np.ndarray, schedule: Schedule) -> Factor:
    """Apply the steps of ``schedule`` to ``a`` (m, n) exactly as they stand, then close it if it asks for that."""
    newton = any(step.kind is StepKind.NEWTON for step in schedule.steps)
    if newton and a.shape[0] > a.shape[1]:
        q, r = scipy.linalg.qr(a, mode="economic", check_finite=False)
        inner = execute(r, schedule)
        return Factor(q @ inner.u, inner.stats)
    state = Iterate(a)
    state.normalize(schedule.normalization)
    stats = np.zeros(STATS_WIDTH, dtype=state.real)
    for kind, weights in schedule.steps:
        if kind is StepKind.NEWTON:
            state.newton(*weights)
        elif kind is StepKind.HALLEY:
            state.halley(*weights)
        else:
            state.polynomial(weights, state.gram(state.scale * state.scale))
    codes = [step.kind for step in schedule.steps][: STATS_WIDTH - len(Stat)]
    stats[len(Stat) : len(Stat) + len(codes)] = codes
    extra, residual = _close(state, schedule) if schedule.closing_tol > 0 else (0, np.nan)
    stats[Stat.ITERATIONS], stats[Stat.EXTRA_STEPS] = len(schedule.steps) + extra, extra
    stats[Stat.RESIDUAL] = residual
    return Factor(state.x, stats)


def _close(state: Iterate, schedule: Schedule) -> tuple[int, float]:
    """Append quintic steps until the measured departure allows; for partial completion measure only."""
    if schedule.completion == "partial":
        g = state.x.conj().T @ state.x
        return 0, float(np.linalg.norm(state.x @ g - state.x))
    enough = 2 * schedule.closing_tol + state.eps * state.n**0.5
    eye = np.eye(state.n, dtype=state.x.dtype)
    for extra in range(MOST_EXTRA_STEPS + 1):
        g = state.gram(1.0)
        loops.mirror(g.T)
        found = float(np.linalg.norm(g - eye))
        if found <= enough or extra == MOST_EXTRA_STEPS:
            break
        state.polynomial(TAYLOR_QUINTIC.coefficients, g)
    return extra, found
