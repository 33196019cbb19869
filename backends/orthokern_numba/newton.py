"""Polar factor of one square matrix: scaled Newton steps from measured bounds, polynomial steps from measured ones.

A Newton step costs 1.1 to 1.7 products of matrices here, because the inverse is made by recursive Gauss-Jordan
elimination, so that it beats Halley steps at every condition number. The steps that follow form ``G = X^H X``
anyway; what G shows decides which one is cheapest and whether it is the last.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from orthokern.spectral.coefficients import minimax_polynomial
from orthokern.spectral.plan import STATS_WIDTH, Stat, StepKind

from . import layout
from .library import aligned_empty, library, probe, real_dtype
from .products import add_times_hermitian, carrier, write_upper_gram

# Power steps underestimate: on slowly decaying spectra the largest singular value by more than 3 percent.
UPPER_MARGIN, LOWER_MARGIN = 1.1, 0.7
UPPER_STEPS, LOWER_STEPS, DEFECT_STEPS = 5, 3, 4
# Half-width from which an error of single precision in the last correction is below eps.
SINGLE_WIDTH = 3e-9
# ``||G - I||_2`` from which polynomial steps may not come down; a planned width of 1/2 shows 1.25.
DIVERGES = 1.5
MOST_NEWTON, MOST_POLYNOMIALS = 12, 9
# Rows of a block of a complex Gram matrix.
COMPLEX_BLOCK = 64
# Part of the promised backward error that the probe at the end allows.
PROBE_SHARE, PROBES = 0.25, 8


class Core(NamedTuple):
    """A square matrix with the same Hermitian factor, and its unitary factor."""

    u: np.ndarray
    x: np.ndarray


class Factor(NamedTuple):
    """A factor, its row of figures (``orthokern.spectral.plan.Stat``), and the core that a tall matrix came down to."""

    u: np.ndarray
    stats: np.ndarray
    core: Core | None = None


class Ending(NamedTuple):
    """A polynomial step, whether it is the last, and the price of it and of what must follow."""

    coefficients: tuple[float, ...]
    last: bool
    cost: float
    after: float


class Costs(NamedTuple):
    """Prices in products of two n x n matrices."""

    newton: float
    cubic: float
    quintic: float
    single: float


def costs(n: int, dtype: np.dtype) -> Costs:
    """Prices at size n: measured on one core, OpenBLAS."""
    newton = (1.2 if n > 384 else 1.4 if n > 192 else 1.8) * (1.15 if dtype.itemsize == 4 else 1.0)
    return Costs(newton, 1.55, 2.1, 1.1 if dtype.itemsize > 4 and dtype.char != "F" else 1.55)


@functools.lru_cache(maxsize=4096)
def ending(width: float, goal: float, prices: Costs, depth: int = 3) -> Ending:
    """The cheapest polynomial step for singular values in [1 - width, 1 + width] on the way to ``goal``."""
    if 1.5 * width**2 <= goal:
        cheap = prices.single if width <= SINGLE_WIDTH else prices.cubic
        return Ending((1.5, -0.5), True, cheap, 1.5 * width**2)
    if 2.5 * width**3 <= goal:
        return Ending((15 / 8, -10 / 8, 3 / 8), True, prices.quintic, 2.5 * width**3)
    found = []
    for degree, price in ((3, prices.cubic), (5, prices.quintic)):
        polynomial = minimax_polynomial(1 - width, 1 + width, degree)
        low = 1 - width
        error = abs(1 - sum(c * low ** (2 * i + 1) for i, c in enumerate(polynomial)))
        # What is measured next has a margin of one half.
        rest = ending(rounded_up(1.5 * error), goal, prices, depth - 1).cost if depth else 2.0
        found.append(Ending(polynomial, False, price + rest, error))
    return min(found, key=lambda step: step.cost)


def rounded_up(width: float) -> float:
    """``width`` on a grid of 1/40 decade, so that few polynomials are ever computed."""
    return min(10 ** (math.ceil(40 * math.log10(max(width, 1e-30))) / 40), 0.99)


@functools.lru_cache(maxsize=4096)
def newton_steps(lower: float, goal: float, prices: Costs) -> int:
    """How many Newton steps to take from [lower, 1] before the polynomials; at least the one already paid."""
    best, least = 1, math.inf
    for count in range(1, MOST_NEWTON):
        root = math.sqrt(lower)
        lower = 2 / (root + 1 / root)
        width = rounded_up((1 - lower) / (1 + lower))
        if width > 0.5:
            continue
        total = count * prices.newton + ending(width, goal, prices).cost
        if total < least - 1e-9:
            best, least = count, total
    return best


class Iterate:
    """The iterate (m, n), Fortran-ordered, with workspaces; ``scale * x`` is what the formulas mean by X."""

    def __init__(self, x: np.ndarray) -> None:
        m, self.n = x.shape
        square = (self.n, self.n)
        self.f = library(x.dtype)
        self.carrier = carrier(self.n, x.dtype)
        self.eps = float(np.finfo(x.dtype).eps)
        self.x, self.y = (aligned_empty(x.shape, x.dtype, "F") for _ in range(2))
        self.w = aligned_empty(square, x.dtype, "F")
        self.p = aligned_empty(square, x.dtype, "F") if m > self.n else self.y
        np.copyto(self.x, x)
        self.real = real_dtype(x).type
        self.order = np.empty(self.n, dtype=np.int64)
        self.scale = 1.0
        self.start = probe(m, x.dtype)

    def invert(self) -> bool:
        """``Y`` becomes the inverse of X up to the order of its columns; False at a zero pivot."""
        np.copyto(self.y, self.x)
        return bool(layout.invert(self.carrier, self.y.T, self.w.T.reshape(-1), self.order))

    def bounds(self) -> tuple[float, float]:
        """Lower and upper bounds of the singular values, from X and the inverse in Y."""
        upper = UPPER_MARGIN * layout.gain(self.x.T, self.start, UPPER_STEPS)
        # The Frobenius norms are rigorous, and for Gaussian matrices the better bound at the lower end.
        upper = min(upper, math.sqrt(layout.square_sum(self.x.T)) * (1 + 4 * self.eps))
        inverse = layout.gain(self.y.T, self.start, LOWER_STEPS)
        rigorous = math.sqrt(layout.square_sum(self.y.T)) * (1 + 4 * self.eps)
        if not (0 < inverse < math.inf and 0 < rigorous < math.inf):
            return 0.0, upper
        return max(1 / rigorous, LOWER_MARGIN / inverse), upper

    def newton(self, lower: float) -> float:
        """One scaled Newton step for singular values in [lower, 1], Y holding the inverse; the new lower end."""
        root = math.sqrt(lower)
        top = (root + 1 / root) / 2
        a, b = self.real(self.scale / (2 * root * top)), self.real(root / (2 * top * self.scale))
        layout.newton_average(self.x.T, self.y.T, self.order, a, b)
        self.scale = 1.0
        return 1 / top

    def gram(self, factor: float) -> np.ndarray:
        """Upper triangle of ``factor X^H X``, in W; complex sums in blocks, because each term has more roundings."""
        m = self.x.shape[0]
        size = COMPLEX_BLOCK if self.x.dtype.kind == "c" else m
        for i in range(0, m, size):
            write_upper_gram(factor, self.x[i : i + size], self.w, beta=float(i > 0))
        return self.w

    def polynomial(self, coefficients: tuple[float, ...], *, near: bool = False) -> None:
        """``X <- X (c0 I + c1 G + c2 G^2 + ...)`` with G in W.

        ``near`` says that the polynomial is 1 at G = I and G near it: the result is X and a small correction, a
        polynomial of G - I, and only the correction suffers from the rounding errors of products. In G^2 itself what
        is small would be lost, always to the same side.
        """
        p = self.w
        if near:
            layout.shift_diagonal(self.w.T, self.real(-1))
            coefficients = (0.0, coefficients[1] + 2 * sum(coefficients[2:]), *coefficients[2:])
        c0, c1 = self.real(coefficients[0]), self.real(coefficients[1])
        if len(coefficients) == 2:
            layout.scale_upper(p.T, c1, c0)
        else:
            layout.mirror(self.w.T)
            p = self.p
            write_upper_gram(coefficients[2], self.w, p)
            layout.add_upper(p.T, self.w.T, c1, c0)
        self.apply(p, added=near)

    def apply(self, p: np.ndarray, *, added: bool = False) -> None:
        """``X <- X P``, or ``X + X P``, with the Hermitian P given by its upper triangle."""
        in_place_of_gram = p is not self.w and self.p is self.y
        out = self.w if in_place_of_gram else self.y
        if added:
            np.copyto(out, self.x)
        beta = self.scale if added else 0.0
        add_times_hermitian(self.scale, self.x, p, out, beta=beta)
        if in_place_of_gram:
            self.x, self.w = self.w, self.x
        else:
            self.x, self.y, self.p = self.y, self.x, self.x if self.p is self.y else self.p
        self.scale = 1.0

    def finish_in_single(self) -> None:
        """``X <- X + X (I - G) / 2``, the small correction in single precision."""
        n, single = self.n, self.f.single
        halves = self.y.T.reshape(-1).view(single)
        copy = halves[: n * n].reshape(n, n)
        np.copyto(copy, self.x.T, casting="same_kind")
        p = halves[n * n :].reshape(n, n)
        layout.half_defect(self.w.T, p)
        out = self.w.T.reshape(-1).view(single)[: n * n].reshape(n, n)
        add_times_hermitian(self.scale, copy.T, p.T, out.T, beta=0.0)
        layout.blend(out, self.x.T, self.real(self.scale))
        self.scale = 1.0


def _measured_width(defect: float, planned: float) -> float:
    """Half-width to count on when ``||G - I||_2`` was estimated and the plan predicted ``planned``."""
    seen = 1 - math.sqrt(1 - min(defect, 0.99))
    return min(1 - math.sqrt(1 - min(1.5 * defect, 0.99)), max(planned, seen))


def polish(state: Iterate, planned: float, goal: float, prices: Costs, row: np.ndarray) -> None:
    """Polynomial steps until the half-width is within ``goal``; fills the figures."""
    # At full accuracy the last step squares or cubes what an estimate misses; a tolerance shows all of it.
    steps = DEFECT_STEPS if goal <= 4 * state.eps else 4 * DEFECT_STEPS
    for _ in range(MOST_POLYNOMIALS):
        g = state.gram(state.scale * state.scale)
        defect = layout.departure(g.T, state.start, steps)
        if defect > DIVERGES and state.invert():
            # A bound was missed: polynomials do not come down from there, Newton's step does.
            state.newton(1.0)
            _note(row, StepKind.NEWTON)
            planned = 1.0
            continue
        width = _measured_width(defect, planned)
        step = ending(rounded_up(width), goal, prices)
        if step.last and width <= SINGLE_WIDTH and state.f.single.itemsize < state.x.dtype.itemsize:
            state.finish_in_single()
        else:
            state.polynomial(step.coefficients, near=step.last)
        _note(row, StepKind.CUBIC if len(step.coefficients) == 2 else StepKind.QUINTIC)
        planned = step.after
        if step.last or planned <= goal:
            break
    row[Stat.RESIDUAL] = max(planned * (2 + planned), state.eps)


def _note(row: np.ndarray, kind: StepKind) -> None:
    """Enter a step in the figures."""
    place = len(Stat) + int(row[Stat.ITERATIONS])
    row[Stat.ITERATIONS] += 1
    row[min(place, STATS_WIDTH - 1)] = kind


def backward_limit(x: np.ndarray) -> float:
    """What a probe may see of the backward error: a part of the promise, in the norm of ``x``."""
    norm = float(np.linalg.norm(x)) if x.flags.forc else float(np.sqrt(np.sum(np.abs(x) ** 2)))
    promised = max(60.0, 20 * x.shape[1] ** 0.5) * float(np.finfo(x.dtype).eps)
    return float(PROBE_SHARE * promised * norm)


def is_backward_stable(x: np.ndarray, u: np.ndarray, probes: int = PROBES) -> bool:
    """Whether ``U^H X`` is Hermitian to a part of the promised error, by a few random probes.

    Steps cannot repair an inverse that elimination spoiled, and orthogonality does not show it. What is spoiled has
    a low rank, which a single probe may miss; one is enough where no elimination came near its limits.
    """
    n = x.shape[1]
    v = probe(n * probes, x.dtype)
    # A product with one vector takes a fifth of the time of a product with a few.
    v = v.reshape(n, probes) if probes > 1 else v
    skew = u.conj().T @ (x @ v) - x.conj().T @ (u @ v)
    # ||K V||_F of random V estimates ||K||_F sqrt(probes), and the backward error is K / 2.
    return bool(np.linalg.norm(skew) / (2 * probes**0.5) <= backward_limit(x))


def prepared(x: np.ndarray, cutoff: float) -> tuple[Iterate, float] | None:
    """The iterate with its inverse and a lower bound of sigma_min / sigma_max; None if that is below ``cutoff``."""
    state = Iterate(x)
    if not state.invert():
        return None
    low, high = state.bounds()
    state.scale = 1 / high if high > 0 else 1.0
    return (state, min(low / high, 1.0)) if low > cutoff * high else None


def completed(state: Iterate, lower: float, goal: float | None) -> np.ndarray:
    """Run a prepared iterate to half-width ``goal`` (None: full accuracy); returns the figures."""
    goal = 2 * state.eps if goal is None else goal
    prices = costs(state.n, state.x.dtype)
    row = np.zeros(STATS_WIDTH, dtype=state.real)
    row[Stat.LOWER_BOUND] = lower
    count = newton_steps(float(f"{lower * 0.995:.2e}"), goal, prices)
    for step in range(count):
        if step and not state.invert():
            row[Stat.RESIDUAL] = math.inf
            return row
        lower = state.newton(min(lower, 1.0))
        row[len(Stat) + step] = StepKind.NEWTON
    row[Stat.ITERATIONS] = count
    state.scale = 2 / (1 + lower)
    polish(state, (1 - lower) / (1 + lower), goal, prices, row)
    return row


def square_factor(x: np.ndarray, cutoff: float, goal: float | None = None) -> Factor | None:
    """Unitary polar factor of a square matrix, to half-width ``goal`` (None: full accuracy).

    None if ``x`` may have singular values up to ``cutoff`` times the largest, or if a check fails.
    About 18 n^3 flops, 3 n^2 entries of workspace.
    """
    if x.flags.c_contiguous and not x.flags.f_contiguous:
        # The factor of the transpose is the transpose of the factor: no copy across the grain.
        found = square_factor(x.T, cutoff, goal)
        return Factor(found.u.T, found.stats) if found else None
    start = prepared(x, cutoff)
    if start is None:
        return None
    stats = completed(*start, goal)
    state = start[0]
    width = 2 * state.eps if goal is None else goal
    reached = stats[Stat.RESIDUAL] <= 1.01 * width * (2 + width)
    return Factor(state.x, stats) if reached and is_backward_stable(x, state.x) else None
