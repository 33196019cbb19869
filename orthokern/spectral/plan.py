"""Which steps bring singular values from [l, 1] to within a tolerance of 1 at the least cost.

Every polar iteration multiplies X by a function of X^H X and maps an interval of singular values to a narrower
one. The cheapest method for given (l, tol, machine) is a sequence of different steps: a shortest path. One
backward dynamic programme per tolerance and cost table serves every l. Host side, plain Python; the result is
static and may be used under any tracer.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from .coefficients import CUSHION, TAYLOR, evaluate, minimax_polynomial


class StepKind(IntEnum):
    """Codes of the steps, as ``info.schedule`` shows them."""

    NONE = 0
    NEWTON = 1
    HALLEY = 2
    CUBIC = 3
    QUINTIC = 4


class Step(NamedTuple):
    """One step with its weights; it maps singular values in [l, 1] into [l', 1], the last one to about 1.

    NEWTON (a, b): ``a X + b X^{-H}``. HALLEY (a, b, c, scale): ``scale ((b/c) X + (a - b/c) X (I + c G)^{-1})``.
    CUBIC (a, b): ``X (a I + b G)``. QUINTIC (a, b, c): ``X (a I + b G + c G^2)``, with ``G = X^H X``.
    """

    kind: StepKind
    coefficients: tuple[float, ...]


class Schedule(NamedTuple):
    """A static description of a whole factorization.

    normalization
        Norm that X is divided by first: "frobenius", "schatten4", "spectral", or "none".
    steps
        Applied in order.
    restarts
        None evaluates the steps on X. A tuple evaluates polynomial steps on the Gram matrix alone (Gram
        Newton-Schulz) and forms X and a fresh Gram matrix before the steps with these indices.
    closing_tol
        0: the steps run exactly as they stand. Else the singular values shall end this close to 1 by any
        route; eager code verifies it and appends steps.
    completion
        "unitary", or "partial": singular values far below the plan's lower bound may stay small.
    any_route
        With ``closing_tol > 0``: whether other steps that end as close to 1 will do as well.
    """

    normalization: str
    steps: tuple[Step, ...]
    restarts: tuple[int, ...] | None
    closing_tol: float
    completion: str = "unitary"
    any_route: bool = False


class Stat(IntEnum):
    """Columns of the figures that go with each factor; the codes of the steps that ran follow them."""

    ITERATIONS = 0
    RESIDUAL = 1
    EXTRA_STEPS = 2
    LOWER_BOUND = 3


STATS_WIDTH = 20
# Appended until a factor is as accurate as its schedule asks for.
CLOSING_QUINTIC = Step(StepKind.QUINTIC, (15 / 8, -10 / 8, 3 / 8))
# Newton's steps can throw a small singular value far above 1, where polynomial steps diverge: Newton brings it down.
CLOSING_NEWTON = Step(StepKind.NEWTON, (0.5, 0.5))
NEAR = 0.5

Costs = Mapping[StepKind, float]
ALL_KINDS = (StepKind.NEWTON, StepKind.HALLEY, StepKind.CUBIC, StepKind.QUINTIC)
# Time of a step in products of two n x n matrices of the same dtype, on one core; below a few hundred rows the
# factorizations run far from the speed of products.
COSTS: dict[str, Costs] = {
    "numba": {
        StepKind.NEWTON: 1.6,
        StepKind.HALLEY: 2.35,
        StepKind.CUBIC: 1.55,
        StepKind.QUINTIC: 2.1,
    },
    "numba-256": {
        StepKind.NEWTON: 2.2,
        StepKind.HALLEY: 2.6,
        StepKind.CUBIC: 1.65,
        StepKind.QUINTIC: 2.35,
    },
    "numba-128": {
        StepKind.NEWTON: 4.0,
        StepKind.HALLEY: 4.0,
        StepKind.CUBIC: 1.6,
        StepKind.QUINTIC: 2.3,
    },
    # Of both precisions alike, by benchmarks/gpu_steps.py on an H100 at these sizes.
    "cuda-1024": {
        StepKind.NEWTON: 45.0,
        StepKind.HALLEY: 24.0,
        StepKind.CUBIC: 2.1,
        StepKind.QUINTIC: 3.0,
    },
    "cuda-2048": {
        StepKind.NEWTON: 23.0,
        StepKind.HALLEY: 12.5,
        StepKind.CUBIC: 1.7,
        StepKind.QUINTIC: 2.2,
    },
    "cuda-4096": {
        StepKind.NEWTON: 9.0,
        StepKind.HALLEY: 5.6,
        StepKind.CUBIC: 1.6,
        StepKind.QUINTIC: 2.2,
    },
    "cuda-8192": {
        StepKind.NEWTON: 3.9,
        StepKind.HALLEY: 3.2,
        StepKind.CUBIC: 1.6,
        StepKind.QUINTIC: 2.2,
    },
    "products": {
        StepKind.NEWTON: 6.0,
        StepKind.HALLEY: 4.0,
        StepKind.CUBIC: 2.0,
        StepKind.QUINTIC: 3.0,
    },
}
# Near convergence the closed forms cancel; Taylor coefficients are exact to rounding there.
_NEAR = 1e-5
# Half-width e becomes factor * e**power once the Taylor coefficients are in use.
_CONTRACTION: dict[StepKind, tuple[float, int]] = {
    StepKind.NEWTON: (0.5, 2),
    StepKind.HALLEY: (0.25, 3),
    StepKind.CUBIC: (1.5, 2),
    StepKind.QUINTIC: (2.5, 3),
}
# A cubic fit for [l, 1] is negative from sqrt(l^2 + l + 1) on: with l < 0.3 a bound that is 18 % too small would
# flip the sign of a singular value, which no measure of orthogonality shows. Quintics stay positive.
SMALLEST: dict[StepKind, float] = {StepKind.QUINTIC: 1e-4, StepKind.CUBIC: 0.3}
# Steeper at the upper end the smaller l is, polynomials are made for [l, 1 + MARGIN (1 - l / STEEP)] below STEEP.
STEEP, MARGIN = 0.3, 0.01
# Further down the weights of a Halley step overflow, and no matrix in double precision shows the difference.
_LEAST = 1e-60
# Depths this small are rounding errors of 1.
_LAST_BIT = 2.3e-16
_MOST_STEPS = 40


def halley_weights(lower: float) -> tuple[float, float, float]:
    """Weights (a, b, c) of the dynamically weighted Halley step for singular values in [lower, 1]."""
    if lower >= 1 - 1e-9:
        return 3.0, 1.0, 3.0
    square = max(lower, _LEAST) ** 2
    d = (4 * (1 - square) / (square * square)) ** (1 / 3)
    root = math.sqrt(1 + d)
    a = root + 0.5 * math.sqrt(8 - 4 * d + 8 * (2 - square) / (square * root))
    b = (a - 1) ** 2 / 4
    return a, b, a + b - 1


# The state of the search is the depth -log(l): accurate both for tiny l and near 1, where it is twice the
# half-width of [l, 1] about its middle.


def half_width(depth: float) -> float:
    """Half-width of [exp(-depth), 1] about its middle, relative to the middle."""
    return math.tanh(depth / 2)


def _depth(width: float) -> float:
    return 2 * math.atanh(width)


def _newton(depth: float) -> tuple[float, Step]:
    top = math.cosh(depth / 2)
    grow = math.exp(depth / 2)
    return math.log(top), Step(StepKind.NEWTON, (0.5 * grow / top, 0.5 / (grow * top)))


def _halley(depth: float) -> tuple[float, Step]:
    lower = math.exp(-depth)
    a, b, c = halley_weights(lower)
    # 1 - l' in factors, since the difference cancels near 1; for tiny l it is 1 to rounding.
    gap = -math.expm1(-depth) * (1 - (a - 1) * lower / 2) ** 2 / (1 + c * lower * lower)
    after = lower * (a + b * lower * lower) / (1 + c * lower * lower)
    return -math.log1p(-gap) if gap < 0.5 else -math.log(after), Step(
        StepKind.HALLEY, (a, b, c, 1.0)
    )


def _polynomial(kind: StepKind, depth: float) -> tuple[float, Step]:
    lower = math.exp(-depth)
    # Without a margin there, step after step would multiply the rounding errors of values just above 1.
    upper = 1 + MARGIN * max(1 - lower / STEEP, 0.0)
    # Best far below the cushion, a polynomial would send large values down to where rounding errors drown them.
    cut = max(lower, CUSHION * upper)
    polynomial = minimax_polynomial(cut, upper, 3 if kind is StepKind.CUBIC else 5)
    low, top = evaluate(polynomial, lower), 2 - evaluate(polynomial, cut)
    return math.log(top / low), Step(kind, tuple(c / top for c in polynomial))


def _taylor(kind: StepKind, depth: float) -> tuple[float, Step]:
    factor, power = _CONTRACTION[kind]
    weights = {
        StepKind.NEWTON: (0.5, 0.5),
        StepKind.HALLEY: (3.0, 1.0, 3.0, 1.0),
        StepKind.CUBIC: TAYLOR[3],
        StepKind.QUINTIC: TAYLOR[5],
    }
    return _depth(factor * half_width(depth) ** power), Step(kind, weights[kind])


def advance(kind: StepKind, depth: float) -> tuple[float, Step]:
    """Depth after the best step of this kind for singular values in [exp(-depth), 1], and the step."""
    if half_width(depth) <= _NEAR:
        return _taylor(kind, depth)
    if kind is StepKind.NEWTON:
        return _newton(depth)
    return _halley(depth) if kind is StepKind.HALLEY else _polynomial(kind, depth)


def _allowed(kind: StepKind, lower: float, c_max: float, *, anywhere: bool) -> bool:
    if kind is StepKind.HALLEY:
        return c_max == math.inf or halley_weights(lower)[2] <= c_max
    return lower >= SMALLEST.get(kind, 0.0) or (anywhere and kind is StepKind.QUINTIC)


@functools.cache
def _grid() -> tuple[float, ...]:
    """Depths from converged to l = 1e-17: even in log e below l = 0.5, even in log l above."""
    near = [10 ** (-18 + 0.02 * k) for k in range(893)]
    far = [near[-1] + 0.015 * k for k in range(1, 2580)]
    return (*near, *far)


@functools.cache
def _reached(kind: StepKind) -> tuple[float, ...]:
    """Depth after a step of this kind from each point of the grid."""
    grid = _grid()
    if kind in (StepKind.NEWTON, StepKind.HALLEY):
        return tuple(advance(kind, depth)[0] for depth in grid)
    # A minimax polynomial costs a Remez iteration: interpolate, since only the choice of steps hangs on it.
    nodes = [*grid[::12], grid[-1]]
    values = [advance(kind, depth)[0] for depth in nodes]
    return tuple(_interpolated(nodes, values, depth) for depth in grid)


def _interpolated(nodes: list[float], values: list[float], depth: float) -> float:
    """Linear interpolation of log(value) in log(node)."""
    j = min(max(bisect.bisect_left(nodes, depth), 1), len(nodes) - 1)
    share = math.log(depth / nodes[j - 1]) / math.log(nodes[j] / nodes[j - 1])
    low, high = (math.log(max(value, 1e-300)) for value in values[j - 1 : j + 1])
    return math.exp(low + share * (high - low))


@functools.cache
def _first_steps(
    tol: float, costs: tuple[tuple[StepKind, float], ...], c_max: float, anywhere: bool
) -> tuple[StepKind, ...]:
    """Backward dynamic programme: the first step of the cheapest plan from each point of the grid."""
    grid = _grid()
    goal = max(_depth(tol), _LAST_BIT)
    total = [0.0 if depth <= goal else math.inf for depth in grid]
    first = [StepKind.NONE] * len(grid)
    for i, depth in enumerate(grid):
        for kind, cost in costs:
            if depth <= goal or not _allowed(kind, math.exp(-depth), c_max, anywhere=anywhere):
                continue
            # The nearest grid point that is no better than the true state: l rounded down.
            after = _reached(kind)[i]
            j = bisect.bisect_left(grid, after)
            rest = 0.0 if after <= goal else total[j] if j < i else math.inf
            if cost + rest < total[i] - 1e-12:
                total[i], first[i] = cost + rest, kind
    return tuple(first)


def plan_polar(
    lower: float,
    tol: float,
    *,
    costs: str = "numba",
    allowed: tuple[StepKind, ...] = ALL_KINDS,
    c_max: float = 200.0,
) -> tuple[Step, ...]:
    """Cheapest schedule that brings singular values in [lower, 1] to within ``tol`` of 1.

    Parameters
    ----------
    lower : float
        Lower bound of the singular values relative to the largest. Too small a bound costs time; too large a
        one leaves the smallest singular values behind.
    tol : float
        Half-width of the final interval.
    costs : str
        Name of a cost table in ``COSTS``.
    allowed : tuple of StepKind
        Steps to choose from. Without Newton and Halley the polynomials may be used at any ``lower``.
    c_max : float
        Largest weight c of a Halley step; the Cholesky form loses c * eps.

    Returns
    -------
    tuple of Step
        Deterministic and cached.

    References
    ----------
    The steps: Higham (2008), ch. 8; Nakatsukasa, Bai, Gygi, SIMAX 31 (2010); Amsel et al., arXiv:2505.16932.

    Examples
    --------
    >>> from orthokern.spectral import plan_polar
    >>> [step.kind.name for step in plan_polar(0.1, 1e-3)]
    ['HALLEY', 'QUINTIC']
    """
    known = bool(allowed) and all(kind in ALL_KINDS for kind in allowed)
    if not 0 < lower <= 1 or not 0 < tol < 1 or not known or costs not in COSTS:
        message = (
            f"expected 0 < lower <= 1, 0 < tol < 1, a step to choose from and costs among {', '.join(COSTS)}, got "
            f"lower={lower!r}, tol={tol!r}, allowed={allowed!r}, costs={costs!r}"
        )
        raise ValueError(message)
    return _plan(lower, tol, costs, tuple(allowed), c_max)


@functools.lru_cache(maxsize=1024)
def _plan(
    lower: float, tol: float, costs: str, allowed: tuple[StepKind, ...], c_max: float
) -> tuple[Step, ...]:
    priced = tuple((kind, COSTS[costs][kind]) for kind in allowed)
    anywhere = StepKind.NEWTON not in allowed
    first = _first_steps(tol, priced, c_max, anywhere)
    grid, depth = _grid(), -math.log(lower)
    goal = max(_depth(tol), _LAST_BIT)
    steps: list[Step] = []
    while depth > goal:
        kind = first[min(bisect.bisect_left(grid, depth), len(grid) - 1)]
        if kind is StepKind.NONE or len(steps) == _MOST_STEPS:
            names = ", ".join(kind.name for kind in allowed)
            message = f"plan_polar: expected steps that reach tol={tol!r} from lower={lower!r}, got {names}"
            raise ValueError(message)
        depth, step = advance(kind, depth)
        steps.append(step)
    return _centred(steps, depth)


def _centred(steps: list[Step], depth: float) -> tuple[Step, ...]:
    """The last step scaled so that its singular values lie about 1 and not below it."""
    if not steps or half_width(depth) < _NEAR**2:
        return tuple(steps)
    scale = 1 + half_width(depth)
    kind, weights = steps[-1]
    if kind is StepKind.HALLEY:
        steps[-1] = Step(kind, (*weights[:3], scale))
    else:
        steps[-1] = Step(kind, tuple(weight * scale for weight in weights))
    return tuple(steps)


def plan_cost(steps: tuple[Step, ...], costs: str = "numba") -> float:
    """Cost of a schedule in products of two n x n matrices."""
    return sum(COSTS[costs][step.kind] for step in steps)
